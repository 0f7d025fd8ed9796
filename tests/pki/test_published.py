"""What hosts are given of the PKI, and that the right host has it: the check of its set, run for real."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from deploys.certificates import certificate_sets
from fleet.model.pki import Certificate, Published, Use
from fleet.model.service import FileSet
from fleet.model.site import Fleet
from fleet.pki import keys
from fleet.pki.published import published
from fleet.pki.store import Store
from tests.pki.pki_fleet import FLEET, LOG, Hosts, at_work, named, quick_seal, quick_unseal, whole
from tests.shell import check_scripts

VIRTIE = named("log.virtie.client")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "seal", quick_seal)
    monkeypatch.setattr(keys, "unseal", quick_unseal)


def _given(store: Store) -> Fleet:
    return FLEET.model_copy(update={"published": published(store.read())})


def test_nothing_is_published_before_it_is_signed(tmp_path: Path) -> None:
    assert published(Store(tmp_path).read()) == Published()
    assert list(certificate_sets([Certificate(authority=LOG, use=Use.CLIENT)], FLEET.host("virtie"), FLEET)) == []


def test_the_last_certificate_is_given_and_every_trusted_root(tmp_path: Path) -> None:
    hosts = Hosts()
    store = whole(tmp_path, hosts)
    with at_work(tmp_path) as ca:
        ca.rotate("log", {}, begin=True)
        ca.renew(hosts, everything=True)
    given = published(store.read())
    current = store.read().current(VIRTIE.slot)
    assert current is not None and given.certificates[VIRTIE.slot] == current.certificate
    assert given.roots["log"].count("BEGIN CERTIFICATE") == 2
    assert given.crls["log"].count("BEGIN X509 CRL") == 2
    assert given.roots["redis"].count("BEGIN CERTIFICATE") == 1


def test_what_is_revoked_is_given_to_nobody_until_it_has_a_successor(tmp_path: Path) -> None:
    hosts = Hosts()
    store = whole(tmp_path, hosts)
    with at_work(tmp_path) as ca:
        ca.revoke(VIRTIE.slot, "key-compromise")
    given = published(store.read())
    assert VIRTIE.slot not in given.certificates and given.revoked == {VIRTIE.slot}
    with at_work(tmp_path) as ca:
        ca.sign(VIRTIE, hosts.request(VIRTIE, new=True))
    again = published(store.read())
    assert VIRTIE.slot in again.certificates and again.revoked == frozenset()


def _made(tmp_path: Path, fleet: Fleet, hosts: Hosts, wanted: Certificate) -> tuple[FileSet, Path]:
    """Return the set for virtie, and a folder with its files as they are staged; its key is beside them."""
    (made,) = certificate_sets([wanted], fleet.host("virtie"), fleet)
    for file in made.files:
        path = tmp_path / "new" / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text)
    Path(wanted.key_path).write_bytes(_pem(hosts.keys[VIRTIE.slot]))
    return made, tmp_path / "new"


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _check(made: FileSet, new: Path) -> subprocess.CompletedProcess[str]:
    assert made.check is not None
    return subprocess.run(
        ["dash", "-c", made.check.replace("{new}", str(new))], capture_output=True, text=True, check=False
    )


@pytest.fixture
def wanted(tmp_path: Path) -> Certificate:
    return Certificate(authority=LOG, use=Use.CLIENT, key=str(tmp_path / "key"), crl=True)


def test_the_right_host_takes_it(tmp_path: Path, wanted: Certificate) -> None:
    hosts = Hosts()
    made, new = _made(tmp_path, _given(whole(tmp_path / "pki", hosts)), hosts, wanted)
    assert made.name == "log-client"
    assert [file.path for file in made.files] == [
        "/etc/ssl/log-client.crt",
        "/etc/ssl/log-client-roots.pem",
        "/etc/ssl/log-client-crl.pem",
    ]
    done = _check(made, new)
    assert done.returncode == 0, done.stderr


def test_a_host_with_another_key_refuses_it_and_says_what_to_do(tmp_path: Path, wanted: Certificate) -> None:
    hosts = Hosts()
    made, new = _made(tmp_path, _given(whole(tmp_path / "pki", hosts)), hosts, wanted)
    Path(wanted.key_path).write_bytes(_pem(ec.generate_private_key(ec.SECP256R1())))
    done = _check(made, new)
    assert (done.returncode, done.stderr.strip()) == (
        1,
        "this certificate is not of the key on the host: fleet pki renew",
    )


@pytest.mark.parametrize("spoiled", ["roots", "use"])
def test_what_its_peers_would_refuse_is_refused(tmp_path: Path, wanted: Certificate, spoiled: str) -> None:
    hosts = Hosts()
    fleet = _given(whole(tmp_path / "pki", hosts))
    made, new = _made(tmp_path, fleet, hosts, wanted)
    if spoiled == "roots":
        (new / wanted.roots_path.lstrip("/")).write_text(fleet.published.roots["redis"])
    else:
        made = made.model_copy(update={"check": (made.check or "").replace("sslclient", "sslserver")})
    assert _check(made, new).returncode != 0


def test_openbsds_shell_runs_the_check() -> None:
    given = Published(certificates={VIRTIE.slot: "C\n"}, roots={"log": "R\n"})
    fleet = FLEET.model_copy(update={"published": given})
    checks: Sequence[str | None] = [
        made.check
        for made in certificate_sets([Certificate(authority=LOG, use=Use.CLIENT)], fleet.host("virtie"), fleet)
    ]
    check_scripts(*(check.replace("{new}", "/tmp/new") for check in checks if check is not None))
