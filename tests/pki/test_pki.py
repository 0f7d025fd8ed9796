"""The private PKI: what is wanted, signed, refused, recorded, due; its rotation; the verbs."""

from __future__ import annotations

import base64
import json
import os
import pty
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from fleet.cli import console, pki_hosts
from fleet.cli import pki as cli
from fleet.cli.pki import Desk
from fleet.model.base import InventoryError, check
from fleet.model.pki import Authority, Certificate, Use
from fleet.model.site import Host, Site
from fleet.pki import certificates, keys
from fleet.pki.ca import NewKeyError, no_requests
from fleet.pki.due import DUE_DAYS, RED_DAYS, Item, Kind, State, summary, survey
from fleet.pki.register import Begun, Dropped, Issued, Register, Revoked, Root, Signs, parse
from fleet.pki.rotation import Action, next_step
from fleet.pki.store import Store
from fleet.pki.wanted import PkiError, wanted
from tests.pki.pki_fleet import (
    CLIENT,
    FLEET,
    LOG,
    NOW,
    PASSPHRASE,
    REAL_SEAL,
    REAL_UNSEAL,
    WANTED,
    Hosts,
    Reached,
    at_work,
    fleet_of,
    named,
    quick_seal,
    quick_unseal,
    request,
    whole,
)

VIRTIE = named("log.virtie.client")
DB1 = named("log.db1.client")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "seal", quick_seal)
    monkeypatch.setattr(keys, "unseal", quick_unseal)


def items(store: Store, now: datetime = NOW) -> tuple[Item, ...]:
    return survey(store.read(), WANTED, now)


def state_of(store: Store, slot: str, now: datetime = NOW) -> tuple[State, str]:
    found = [item for item in items(store, now) if item.wanted is not None and item.wanted.slot == slot]
    return found[0].state, found[0].why


# What the inventory wants.


def test_a_host_has_its_own_name_first() -> None:
    assert [one.slot for one in WANTED] == [
        "log.db1.client",
        "log.manicouagan1.client",
        "log.manicouagan1.server",
        "log.virtie.client",
        "redis.db1.server",
    ]
    assert named("redis.db1.server").names == ("db1.chown.me", "redis.chown.me")


@pytest.mark.parametrize(
    ("wants", "words"),
    [
        (
            {"db1": (Certificate(authority=LOG, use=Use.CLIENT, names=("db1.example",)),)},
            "home: host db1: Wants: db1.example: not below chown.me, as log requires",
        ),
        (
            {"db1": (Certificate(authority=LOG, use=Use.CLIENT, names=("evilchown.me",)),)},
            "evilchown.me: not below chown.me",
        ),
        (
            {
                "db1": (CLIENT,),
                "web1": (Certificate(authority=LOG.model_copy(update={"leaf_days": 365}), use=Use.CLIENT),),
            },
            "home: host web1: Wants: the authority log is declared in another way elsewhere",
        ),
        ({"db1": (CLIENT, CLIENT)}, "log.db1.client is a certificate of Wants already"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_by_name(wants: dict[str, tuple[Certificate, ...]], words: str) -> None:
    with pytest.raises(PkiError) as refused:
        wanted(fleet_of(**wants))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "log", "domains": ()}, "domains"),
        ({"name": "log", "domains": ("me",)}, "no domain name"),
        ({"name": "log", "domains": (".chown.me",)}, "no domain name"),
        ({"name": "log", "domains": ("chown.me",), "leaf_days": 30}, "leaf_days"),
        ({"name": "log", "domains": ("chown.me",), "root_days": 700}, "must be less than root_days"),
    ],
)
def test_an_authority_that_cannot_be_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InventoryError) as refused:
        check(Authority(**fields), "log")
    assert words in str(refused.value)


# What is signed, and what is not.


def test_only_the_key_of_a_request_counts(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    greedy = request(
        key,
        "virtie",
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING]), True),
        (certificates._key_usage(signs=True), True),
    )
    with at_work(tmp_path) as ca:
        ca.init()
        made = ca.sign(VIRTIE, greedy).signed
    plain = {each.oid._name: each.critical for each in made.extensions}
    assert plain == {
        "basicConstraints": True,
        "keyUsage": True,
        "extendedKeyUsage": False,
        "subjectAltName": False,
        "subjectKeyIdentifier": False,
        "authorityKeyIdentifier": False,
    }
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    assert certificates.names_of(made) == ("virtie.chown.me",)
    assert certificates.same_key(certificates.public_key(made), key.public_key())


def _as_another() -> str:
    return request(ec.generate_private_key(ec.SECP256R1()), "db1")


def _as_another_beside() -> str:
    names = [x509.DNSName("virtie.chown.me"), x509.DNSName("db1.chown.me")]
    return request(ec.generate_private_key(ec.SECP256R1()), "virtie", (x509.SubjectAlternativeName(names), False))


def _as_an_address() -> str:
    names = [x509.IPAddress(ip_address("192.0.2.1"))]
    return request(ec.generate_private_key(ec.SECP256R1()), "virtie", (x509.SubjectAlternativeName(names), False))


def _of_p384() -> str:
    return request(ec.generate_private_key(ec.SECP384R1()), "virtie")


def _of_rsa() -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(rsa.generate_private_key(65537, 2048), SHA256()).public_bytes(Encoding.PEM).decode()


def _of_ed25519() -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(Encoding.PEM).decode()


def _not_its_own() -> str:
    good = x509.load_pem_x509_csr(request(ec.generate_private_key(ec.SECP256R1()), "virtie").encode())
    raw = bytearray(good.public_bytes(Encoding.DER))
    raw[-1] ^= 1
    return x509.load_der_x509_csr(bytes(raw)).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (_as_another, "asks to be db1; refused"),
        (_as_another_beside, "asks to be db1.chown.me; refused"),
        (_as_an_address, "asks to be 192.0.2.1; refused"),
        (_of_p384, "not of P-256"),
        (_of_rsa, "not of P-256"),
        (_of_ed25519, "not of P-256"),
        (_not_its_own, "not signed with its own key"),
        (lambda: "no request", "no certificate request in PEM"),
    ],
)
def test_a_request_is_refused(tmp_path: Path, made: Callable[[], str], words: str) -> None:
    with at_work(tmp_path) as ca:
        ca.init()
        with pytest.raises(PkiError) as refused:
            ca.sign(VIRTIE, made())
    assert words in str(refused.value)
    assert str(refused.value).startswith("log.virtie.client: ")
    assert not Store(tmp_path).read().issued()


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_whatever_a_host_sends_is_a_request_or_refused(raw: bytes) -> None:
    with pytest.raises(PkiError):
        certificates.key_of_request(VIRTIE, raw.decode("latin-1"))


def test_a_request_that_was_tampered_with_is_refused() -> None:
    good = x509.load_pem_x509_csr(_hosts_request().encode()).public_bytes(Encoding.DER)

    @given(st.integers(0, len(good) - 1), st.integers(1, 255))
    @settings(deadline=None)
    def one(place: int, change: int) -> None:
        raw = bytearray(good)
        raw[place] ^= change
        text = _pem("CERTIFICATE REQUEST", bytes(raw))
        with pytest.raises(PkiError):
            certificates.key_of_request(VIRTIE, text)

    one()


def _hosts_request() -> str:
    return Hosts().request(VIRTIE)


def _pem(label: str, raw: bytes) -> str:
    body = base64.encodebytes(raw).decode()
    return f"-----BEGIN {label}-----\n{body}-----END {label}-----\n"


def test_a_key_has_one_certificate_only(tmp_path: Path) -> None:
    hosts = Hosts()
    whole(tmp_path, hosts)
    stolen = request(hosts.keys[DB1.slot], "virtie")
    with (
        at_work(tmp_path) as ca,
        pytest.raises(PkiError, match=r"the request has the key of log\.db1\.client; refused"),
    ):
        ca.sign(VIRTIE, stolen, rekey=True)


def test_a_new_key_for_a_valid_name_needs_the_owners_word(tmp_path: Path) -> None:
    hosts = Hosts()
    store = whole(tmp_path, hosts)
    before = store.read()
    with at_work(tmp_path) as ca:
        with pytest.raises(NewKeyError):
            ca.sign(VIRTIE, hosts.request(VIRTIE, new=True))
        assert store.read() == before
        issued = ca.sign(VIRTIE, hosts.request(VIRTIE), rekey=True)
    assert certificates.same_key(certificates.public_key(issued.signed), hosts.keys[VIRTIE.slot].public_key())


def test_an_expired_certificate_needs_no_word(tmp_path: Path) -> None:
    hosts = Hosts()
    whole(tmp_path, hosts)
    with at_work(tmp_path, NOW + timedelta(days=731)) as ca:
        assert ca.sign(VIRTIE, hosts.request(VIRTIE, new=True))


def test_a_revoked_key_is_never_signed_again(tmp_path: Path) -> None:
    hosts = Hosts()
    whole(tmp_path, hosts)
    with at_work(tmp_path) as ca:
        ca.revoke(VIRTIE.slot, "key-compromise")
        with pytest.raises(PkiError, match="a key that was revoked"):
            ca.sign(VIRTIE, hosts.request(VIRTIE), rekey=True)
        assert ca.sign(VIRTIE, hosts.request(VIRTIE, new=True))


def test_a_certificate_does_not_outlive_its_root(tmp_path: Path) -> None:
    hosts = Hosts()
    store = whole(tmp_path, hosts)
    later = NOW + timedelta(days=3600)
    with at_work(tmp_path, later) as ca:
        ca.renew(no_requests)
    root, current = store.read().roots("log")[0], store.read().current(VIRTIE.slot)
    assert current is not None
    assert current.signed.not_valid_after_utc == root.signed.not_valid_after_utc
    with at_work(tmp_path, NOW + timedelta(days=3651)) as ca:
        assert any("this root is not valid today: fleet pki rotate-ca" in line for line in ca.renew(hosts).refused)


def test_a_domain_that_the_root_does_not_permit_is_refused(tmp_path: Path) -> None:
    hosts = Hosts()
    whole(tmp_path, hosts)
    wider = LOG.model_copy(update={"domains": ("chown.me", "example.org")})
    names = ("db1.example.org",)
    want = wanted(fleet_of(db1=(Certificate(authority=wider, use=Use.CLIENT, names=names),)))
    with at_work(tmp_path, want=want) as ca:
        assert ca.renew(no_requests).refused == (
            "log.db1.client: its root does not permit db1.example.org: fleet pki rotate-ca",
        )
    root = next(item for item in survey(Store(tmp_path).read(), want, NOW) if item.kind is Kind.ROOT)
    assert (root.state, root.why) == (
        State.DUE,
        "its domains are not the inventory's: fleet pki rotate-ca log --begin",
    )


def test_serials_are_128_random_bits() -> None:
    drawn = [certificates.new_serial() for _ in range(2000)]
    assert len(set(drawn)) == len(drawn)
    assert all(0 < serial < 2**128 for serial in drawn)
    for bit in range(128):
        ones = sum(serial >> bit & 1 for serial in drawn)
        # Five and a half standard deviations of 2000 throws of a fair coin; once in ten thousand runs of 128 bits.
        assert 877 < ones < 1123, bit


# Keys at rest.


def test_a_key_is_opened_by_its_passphrase_alone() -> None:
    key = keys.new()
    sealed = REAL_SEAL(key, PASSPHRASE)
    assert sealed.startswith(b"age-encryption.org/v1\n-> scrypt ")
    assert b"PRIVATE KEY" not in sealed
    assert certificates.same_key(REAL_UNSEAL(sealed, PASSPHRASE, "a key").public_key(), key.public_key())
    with pytest.raises(PkiError, match="a key: cannot be decrypted") as refused:
        REAL_UNSEAL(sealed, SecretStr("another canary"), "a key")
    assert "canary" not in str(refused.value)


def test_keys_are_born_0600_and_nothing_else_is_secret(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        whole(tmp_path, Hosts())
    finally:
        os.umask(old)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    modes = {path: path.stat().st_mode & 0o777 for path in files}
    assert {mode for path, mode in modes.items() if path.name.endswith(".key.age")} == {0o600}
    assert all("PRIVATE" not in path.read_text() for path in files if not path.name.endswith(".key.age"))


def test_one_passphrase_is_for_all_roots(tmp_path: Path) -> None:
    whole(tmp_path, Hosts())
    third = wanted(
        fleet_of(db1=(Certificate(authority=Authority(name="postgresql", domains=("chown.me",)), use="server"),))
    )
    before = Store(tmp_path).read()
    with at_work(tmp_path, want=third, passphrase=lambda: SecretStr("another canary")) as ca, pytest.raises(PkiError):
        ca.init()
    assert Store(tmp_path).read() == before
    asked: list[int] = []

    def ask() -> SecretStr:
        asked.append(1)
        return PASSPHRASE

    with at_work(tmp_path, NOW + timedelta(days=700), passphrase=ask) as ca:
        done = ca.renew(no_requests)
    assert len([record for record in done.done if isinstance(record, Issued)]) == len(WANTED)
    assert len(asked) == 1


# The register.


def test_a_second_run_does_nothing_and_asks_nothing(tmp_path: Path) -> None:
    def never() -> SecretStr:
        raise AssertionError("asked for a passphrase")

    hosts = Hosts()
    store = whole(tmp_path, hosts)
    before = store.read()
    with at_work(tmp_path, passphrase=never) as ca:
        assert ca.init() == ()
        assert ca.renew(hosts) == ca.renew(no_requests)
        assert ca.renew(hosts).done == ()
    assert store.read() == before


def test_any_change_of_the_register_shows(tmp_path: Path) -> None:
    store = whole(tmp_path, Hosts())
    lines = store.path.read_bytes().splitlines()
    assert parse(lines, "register").records == store.read().records

    @given(st.integers(0, len(lines) - 1), st.data())
    @settings(deadline=None, max_examples=60)
    def changed(number: int, data: st.DataObject) -> None:
        line = bytearray(lines[number])
        line[data.draw(st.integers(0, len(line) - 1))] ^= data.draw(st.integers(1, 127))
        with pytest.raises(PkiError, match="register: line "):
            parse([*lines[:number], bytes(line), *lines[number + 1 :]], "register")

    changed()
    for number in range(len(lines) - 1):
        with pytest.raises(PkiError):
            parse([*lines[:number], *lines[number + 1 :]], "register")
        with pytest.raises(PkiError):
            parse([*lines[:number], lines[number + 1], lines[number], *lines[number + 2 :]], "register")


def _forged(register: Register, record: Begun | Root | Issued | Revoked | Signs | Dropped) -> list[bytes]:
    """Return the lines of a register with a record added by somebody who knows how the hashes are made."""
    made, lines = Register(), []
    for each in (*register.records, record):
        lines.append(made.line(each).rstrip(b"\n"))
        made = made.with_(each)
    return lines


def test_a_forged_line_does_not_pass(tmp_path: Path) -> None:
    store, other = whole(tmp_path / "a", Hosts()), whole(tmp_path / "b", Hosts())
    register = store.read()
    foreign = other.read().issued(VIRTIE.slot)[0]
    root = register.roots("log")[0].serial
    bad = (
        foreign,
        foreign.model_copy(update={"root": root}),
        register.issued()[0].model_copy(update={"serial": "0" * 32}),
        Revoked(at=NOW, authority="log", root=root, serial="1" * 32, reason="unspecified"),
        Signs(at=NOW, authority="redis", root=root),
        Dropped(at=NOW, authority="log", root="2" * 32),
    )
    for record in bad:
        with pytest.raises(PkiError, match="register: line"):
            parse(_forged(register, record), "register")
    assert parse(_forged(register, Signs(at=NOW, authority="log", root=root)), "register")


def test_two_do_not_write_at_once(tmp_path: Path) -> None:
    with at_work(tmp_path), pytest.raises(PkiError, match="another fleet pki is at work"), at_work(tmp_path):
        pass


def test_a_key_that_nobody_knows_stops_everything(tmp_path: Path) -> None:
    store = whole(tmp_path, Hosts())
    (tmp_path / "log" / f"{'0' * 32}.key.age").write_bytes(b"a root's only key")
    with pytest.raises(PkiError, match="the register knows no such root"), at_work(tmp_path):
        pass
    assert (tmp_path / "log" / f"{'0' * 32}.key.age").read_bytes() == b"a root's only key"
    assert store.read()


def test_copies_are_made_again_from_the_register(tmp_path: Path) -> None:
    store = whole(tmp_path, Hosts())
    path = store.certificate_path("log", "virtie", "client")
    right = path.read_text()
    path.write_text("anything else")
    store.crl_path("log").unlink()
    with at_work(tmp_path):
        pass
    assert path.read_text() == right
    assert store.crl_path("log").is_file()


# What is due.


def test_status_says_how_long_and_why(tmp_path: Path) -> None:
    hosts = Hosts()
    with at_work(tmp_path) as ca:
        assert {item.why for item in survey(ca.ledger.register, WANTED, NOW)} == {
            "there is none: fleet pki init",
            "there is none: deploy, fleet pki renew",
        }
    store = whole(tmp_path, hosts)
    assert all(item.state is State.FINE for item in items(store))
    assert summary(items(store)) is None
    # A certificate is signed an hour back, so its last day is begun when it is given out.
    for left, state in (
        (DUE_DAYS, State.FINE),
        (DUE_DAYS - 1, State.DUE),
        (RED_DAYS, State.DUE),
        (RED_DAYS - 1, State.RED),
        (0, State.RED),
        (-1, State.RED),
    ):
        found = state_of(store, VIRTIE.slot, NOW + timedelta(days=729 - left))
        assert found[0] is state
        assert (found[1] == "expired") == (left < 0)
    line = summary(items(store, NOW + timedelta(days=729 - 20)))
    assert line is not None
    assert "pki: 7 due" in line
    assert "20 days left" in line
    assert "\n" not in line


def test_a_root_is_due_a_year_before_its_end(tmp_path: Path) -> None:
    store = whole(tmp_path, Hosts())
    for days, state in ((3649 - 365, State.FINE), (3650 - 365, State.DUE), (3650 - 30, State.RED)):
        root = next(item for item in items(store, NOW + timedelta(days=days)) if item.kind is Kind.ROOT)
        assert root.state is state, days


def test_what_no_service_wants_any_more_is_said(tmp_path: Path) -> None:
    store = whole(tmp_path, Hosts())
    left = tuple(one for one in WANTED if one.host != "virtie")
    found = [item for item in survey(store.read(), left, NOW) if item.state is not State.FINE]
    assert [(item.host, item.why) for item in found] == [("virtie", "no service wants it any more: fleet pki revoke")]
    with at_work(tmp_path, want=left) as ca:
        assert ca.renew(no_requests, everything=True).refused == ()
        assert len(store.read().issued(VIRTIE.slot)) == 1


def test_renew_keeps_the_key_and_takes_names_from_the_inventory(tmp_path: Path) -> None:
    hosts = Hosts()
    store = whole(tmp_path, hosts)
    more = wanted(fleet_of(virtie=(CLIENT.model_copy(update={"names": ("mail.chown.me",)}),), db1=(CLIENT,)))
    with at_work(tmp_path, want=more) as ca:
        (record,) = ca.renew(no_requests).done
    assert isinstance(record, Issued)
    assert certificates.names_of(record.signed) == ("virtie.chown.me", "mail.chown.me")
    assert certificates.same_key(certificates.public_key(record.signed), hosts.keys[VIRTIE.slot].public_key())
    assert len(store.read().issued(VIRTIE.slot)) == 2


def test_one_bad_request_leaves_the_others_done(tmp_path: Path) -> None:
    hosts = Hosts()

    def some(need: object) -> dict[str, str]:
        del need
        return {VIRTIE.slot: _as_another(), DB1.slot: hosts.request(DB1)}

    with at_work(tmp_path) as ca:
        ca.init()
        done = ca.renew(some)
    assert done.refused == ("log.virtie.client: the request asks to be db1; refused",)
    assert [one.slot for one in done.lacking] == [
        "log.manicouagan1.client",
        "log.manicouagan1.server",
        "redis.db1.server",
    ]
    assert [record.host for record in done.done if isinstance(record, Issued)] == ["db1"]


def test_revoking_takes_every_valid_certificate_of_that_name(tmp_path: Path) -> None:
    hosts = Hosts()
    store = whole(tmp_path, hosts)
    with at_work(tmp_path, NOW + timedelta(days=1)) as ca:
        ca.renew(no_requests, everything=True)
        ca.revoke(VIRTIE.slot, "key-compromise")
    register = store.read()
    crl = register.crl(register.roots("log")[0].serial)
    assert crl is not None
    assert {each.serial_number for each in crl.signed} == {
        int(each.serial, 16) for each in register.issued(VIRTIE.slot)
    }
    assert len(crl.signed) == 2
    assert crl.number == 3
    assert state_of(store, VIRTIE.slot)[1] == "revoked: it needs a request with a new key"
    with at_work(tmp_path) as ca, pytest.raises(PkiError, match="no valid certificate of that name"):
        ca.revoke(VIRTIE.slot, "key-compromise")


# Rotation.


class World:
    """Hosts that have what was last deployed to them, each at its own time, and shake hands with each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trusts: dict[str, frozenset[str]] = {}
        self.shows: dict[str, Issued] = {}

    def deploy(self, host: str) -> None:
        register = Store(self.folder).read()
        self.trusts[host] = frozenset(root.serial for root in register.roots("log"))
        for one in WANTED:
            current = register.current(one.slot)
            if one.host == host and one.authority == LOG and current is not None:
                self.shows[one.slot] = current

    def held(self, hosts: set[str]) -> dict[str, frozenset[str]]:
        """Return what these hosts have, as the facts of a host would say it."""
        roots = {root.serial: root.signed for root in Store(self.folder).read().all_roots()}
        return {
            host: frozenset(certificates.fingerprint(roots[serial]) for serial in self.trusts[host])
            | {certificates.fingerprint(each.signed) for each in self.shows.values() if each.host == host}
            for host in hosts
        }

    def all_shake_hands(self) -> bool:
        return all(shown.root in trusted for shown in self.shows.values() for trusted in self.trusts.values())


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PKI with every certificate, to be copied."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "seal", quick_seal)
        whole(folder, Hosts())
    return folder


NAMES = ("db1", "manicouagan1", "virtie")


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("deploy"), st.sampled_from(NAMES)),
            st.tuples(st.just("rotate"), st.sets(st.sampled_from(NAMES))),
            st.tuples(st.just("renew"), st.none()),
        ),
        max_size=25,
    )
)
@settings(deadline=None, max_examples=25)
def test_at_no_moment_of_a_rotation_is_anybody_refused(
    begun: Path, tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, str | set[str] | None]]
) -> None:
    folder = tmp_path_factory.mktemp("rotation") / "pki"
    shutil.copytree(begun, folder)
    world = World(folder)
    for host in NAMES:
        world.deploy(host)
    now = NOW
    for what, who in [("rotate", set()), *events]:
        now += timedelta(hours=1)
        if what == "deploy":
            assert isinstance(who, str)
            world.deploy(who)
        elif what == "rotate":
            assert isinstance(who, set)
            with at_work(folder, now) as ca:
                ca.rotate("log", world.held(who), begin=True)
        else:
            with at_work(folder, now) as ca:
                ca.renew(no_requests)
        assert world.all_shake_hands()
    # Whatever happened: deploying everywhere and asking everybody brings it to its end.
    for _ in range(4):
        for host in NAMES:
            world.deploy(host)
        with at_work(folder, now) as ca:
            _, step = ca.rotate("log", world.held(set(NAMES)))
        assert world.all_shake_hands()
        if step.action is Action.BEGIN:
            break
    assert step.action is Action.BEGIN
    assert len(Store(folder).read().roots("log")) == 1


def test_a_rotation_says_whom_it_waits_for(tmp_path: Path) -> None:
    whole(tmp_path, Hosts())
    world = World(tmp_path)
    every = set(NAMES)
    for host in NAMES:
        world.deploy(host)

    def rotate(begin: bool = False) -> tuple[list[str], Action, tuple[str, ...]]:
        with at_work(tmp_path) as ca:
            done, step = ca.rotate("log", world.held(every), begin=begin)
        return [record.what for record in done], step.action, step.waits_for

    assert rotate() == ([], Action.BEGIN, ())
    assert rotate(begin=True) == (["begun", "root", "crl"], Action.WAIT_FOR_TRUST, NAMES)
    world.deploy("db1")
    world.deploy("virtie")
    assert rotate() == ([], Action.WAIT_FOR_TRUST, ("manicouagan1",))
    world.deploy("manicouagan1")
    assert rotate() == (["signs", *["issued"] * 4], Action.WAIT_FOR_CERTIFICATES, NAMES)
    for host in NAMES:
        world.deploy(host)
    assert rotate() == (["dropped"], Action.BEGIN, ())
    assert [item.why for item in items(Store(tmp_path)) if item.state is not State.FINE] == []


def test_a_burgled_host_is_not_waited_for(tmp_path: Path) -> None:
    whole(tmp_path, Hosts())
    with at_work(tmp_path) as ca:
        ca.revoke(VIRTIE.slot, "key-compromise")
        _, step = ca.rotate("log", {}, begin=True)
        assert step.waits_for == ("db1", "manicouagan1")
        root = frozenset({certificates.fingerprint(ca.ledger.register.roots("log")[-1].signed)})
        done, _ = ca.rotate("log", {"db1": root, "manicouagan1": root})
    assert "virtie" not in {record.host for record in done if isinstance(record, Issued)}


def test_an_authority_without_a_root_cannot_be_rotated() -> None:
    with pytest.raises(PkiError, match="log: has no root: fleet pki init"):
        next_step(Register(), "log", WANTED, {})


# The verbs.


@pytest.fixture
def reached(tmp_path: Path) -> Reached:
    return Reached(tmp_path / "hosts")


@pytest.fixture
def desk(tmp_path: Path, reached: Reached) -> Desk:
    return Desk(Store(tmp_path / "pki"), FLEET, ask=reached)


@pytest.fixture
def fleet_pki(desk: Desk) -> Callable[..., Result]:
    def run(*words: str, typed: str | None = None, text: str = "") -> Result:
        arguments = list(words)
        if typed is not None:
            read, write = os.pipe()
            os.write(write, f"{typed}\n".encode())
            os.close(write)
            arguments += ["--passphrase-fd", str(read)]
        return CliRunner().invoke(cli.pki, arguments, obj=desk, input=text)

    return run


TYPED = PASSPHRASE.get_secret_value()


def test_by_hand_where_no_host_can_be_reached(
    tmp_path: Path, desk: Desk, fleet_pki: Callable[..., Result], hosts: Hosts, reached: Reached
) -> None:
    reached.away = set(NAMES)
    assert fleet_pki("status").exit_code == 1
    assert fleet_pki("init", typed="short").output == "a passphrase has at least 12 characters; nothing was made\n"
    done = fleet_pki("init", typed=TYPED)
    assert done.exit_code == 0, done.output
    assert fleet_pki("init", typed=TYPED).output == "every declared authority has its root\n"
    signed = fleet_pki("sign", "virtie", "client", typed=TYPED, text=hosts.request(VIRTIE))
    assert signed.exit_code == 0, signed.output
    assert signed.output == fleet_pki("show", "log", "virtie", "client").output
    assert x509.load_pem_x509_certificate(signed.output.encode()).subject.rfc4514_string() == "CN=virtie"
    lacking = fleet_pki("renew", typed=TYPED)
    assert lacking.exit_code == 1
    assert (
        "redis.db1.server: db1 cannot be asked: ssh: connect to host db1 port 22: No route; --requests FOLDER, or "
        "fleet pki sign db1 server --authority redis\n"
    ) in lacking.output
    assert lacking.output.endswith("virtie: cannot be asked whether it has a new key\n")
    requests = tmp_path / "requests"
    requests.mkdir()
    for one in WANTED:
        (requests / f"{one.slot}.csr").write_text(hosts.request(one))
    reached.asked.clear()
    renewed = fleet_pki("renew", "--requests", str(requests), typed=TYPED)
    assert renewed.exit_code == 0, renewed.output
    assert fleet_pki("renew", "--requests", str(requests)).output == "nothing was due\n"
    assert reached.asked == []
    shown = fleet_pki("status")
    assert shown.exit_code == 0, shown.output
    assert "manicouagan1" in shown.output
    assert "729" in shown.output

    held = tmp_path / "held"
    held.mkdir()

    def deploy() -> None:
        register = desk.store.read()
        for host in NAMES:
            certs = [register.current(one.slot) for one in WANTED if one.host == host and one.authority == LOG]
            (held / f"{host}.pem").write_text(
                "".join([*(r.certificate for r in register.roots("log")), *(c.certificate for c in certs if c)])
            )

    assert "no rotation is under way" in fleet_pki("rotate-ca", "log").output
    assert reached.asked == []
    begun = fleet_pki("rotate-ca", "log", "--begin", typed=TYPED)
    assert "safe to go on once they are on: db1, manicouagan1, virtie" in begun.output
    waiting = fleet_pki("rotate-ca", "log").output
    assert "nothing was done" in waiting
    assert "db1: cannot be asked: ssh: connect to host db1 port 22: No route; --held FOLDER" in waiting
    deploy()
    reissued = fleet_pki("rotate-ca", "log", "--held", str(held), typed=TYPED)
    assert "safe to drop the old root once they are on: db1, manicouagan1, virtie" in reissued.output
    deploy()
    assert "dropped" in fleet_pki("rotate-ca", "log", "--held", str(held)).output
    assert fleet_pki("status").exit_code == 0
    assert fleet_pki("show").output.count("\n") == len(desk.store.read().records)
    gone = fleet_pki("revoke", "virtie", "client", "--reason", "key-compromise", typed=TYPED)
    assert "revoked: key-compromise" in gone.output
    assert fleet_pki("status").exit_code == 1


# What hosts are asked.


def test_each_host_is_asked_once_and_what_it_lacks_is_said(
    desk: Desk, fleet_pki: Callable[..., Result], hosts: Hosts, reached: Reached
) -> None:
    fleet_pki("init", typed=TYPED)
    first = fleet_pki("renew", typed=TYPED)
    assert first.exit_code == 1
    lacks = "virtie has no key yet: deploy it first: the deploy makes its key"
    assert f"log.virtie.client: {lacks}\n" in first.output
    assert sorted(reached.asked) == sorted(NAMES)
    reached.have_keys(hosts)
    reached.file("virtie", VIRTIE.declared.key_path, "no key")
    some = fleet_pki("renew", typed=TYPED)
    assert some.exit_code == 1
    why = f"{VIRTIE.declared.key_path} on virtie makes no request: deploy it: the deploy says what is wrong"
    assert some.output.splitlines()[-1] == f"log.virtie.client: {why}"
    reached.has_key(VIRTIE, hosts.keys[VIRTIE.slot])
    last = fleet_pki("renew", typed=TYPED)
    assert (last.exit_code, last.output.count("\n")) == (0, 1), last.output
    register = desk.store.read()
    for one in WANTED:
        (issued,) = register.issued(one.slot)
        assert certificates.same_key(certificates.public_key(issued.signed), hosts.keys[one.slot].public_key())
    before = desk.store.path.read_bytes()
    assert fleet_pki("renew").output == "nothing was due\n"
    assert desk.store.path.read_bytes() == before


def test_all_hosts_are_asked_at_the_same_time(desk: Desk, reached: Reached) -> None:
    together = threading.Barrier(len(NAMES), timeout=20)

    def slow(site: Site, host: Host, command: str) -> subprocess.CompletedProcess[str]:
        together.wait()
        return reached(site, host, command)

    done = CliRunner().invoke(cli.pki, ["renew"], obj=replace(desk, ask=slow))
    assert "has no key yet" in done.output, done.output
    assert not together.broken


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ((0, "anything else\n", ""), "it said nothing"),
        ((0, "anything else\n##KEYS##\n", ""), "Requests: not understood: 'anything else'"),
        ((1, "##KEYS##\n", "doas: Operation not permitted\n\n"), "doas: Operation not permitted"),
        ((255, "", "Host key verification failed.\r\n"), "Host key verification failed."),
    ],
)
def test_a_host_that_says_something_else_was_not_asked(said: tuple[int, str, str], why: str) -> None:
    def strange(*_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], *said)

    found = pki_hosts.requests(FLEET, strange, WANTED, None)
    assert not found.found
    assert found.silent == frozenset(NAMES)
    assert found.missing[VIRTIE.slot].startswith(f"virtie cannot be asked: {why}; --requests FOLDER")


def test_what_a_host_is_asked_reaches_roots_shell_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, body in {
        "ssh": 'printf \'%s\\n\' "$@" >"$0.said"; for last; do :; done; exec sh -c "$last"',
        "doas": 'shift; "$@"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    connection = FLEET.host("virtie").connection.model_copy(update={"escalate": "doas"})
    host = FLEET.host("virtie").model_copy(update={"connection": connection})
    done = console.ask(FLEET.sites[0], host, "cat; printf '%s\\n' \"it's $((1 + 1))\"; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "it's 2\n", "")
    said = (tmp_path / "ssh.said").read_text()
    assert "BatchMode=yes" in said
    assert "StrictHostKeyChecking=yes" in said


def _reinstalled(reached: Reached, hosts: Hosts) -> str:
    """Let virtie have a new key, and return the request for it."""
    asked = hosts.request(VIRTIE, new=True)
    reached.has_key(VIRTIE, hosts.keys[VIRTIE.slot])
    return asked


def _is_of(desk: Desk, hosts: Hosts) -> bool:
    current = desk.store.read().current(VIRTIE.slot)
    assert current is not None
    return certificates.same_key(certificates.public_key(current.signed), hosts.keys[VIRTIE.slot].public_key())


def test_a_host_with_a_new_key_gets_nothing_without_the_owners_word(
    desk: Desk, fleet_pki: Callable[..., Result], hosts: Hosts, reached: Reached
) -> None:
    fleet_pki("init", typed=TYPED)
    reached.have_keys(hosts)
    fleet_pki("renew", typed=TYPED)
    _reinstalled(reached, hosts)
    code, out, seen = _typing(desk, ["renew", "--all"], "db1")
    assert code == 1
    assert "log.virtie.client: has a valid certificate, and the request has another key; 'db1' is not 'virtie'" in out
    assert "If virtie has made a new key, type its name: " in seen
    # All else was renewed meanwhile, virtie's too: with the key that it had.
    assert out.count(", until ") == len(WANTED)
    assert not _is_of(desk, hosts)
    code, out, _ = _typing(desk, ["renew"], "virtie")
    assert (code, out.count("\n")) == (0, 1), out
    assert _is_of(desk, hosts)
    code, out, seen = _typing(desk, ["renew"], "")
    assert (code, out) == (0, "nothing was due\n")


def test_one_word_is_for_all_certificates_of_a_host(tmp_path: Path) -> None:
    hosts = Hosts()
    whole(tmp_path, hosts)
    fresh = {one.slot: hosts.request(one, new=True) for one in WANTED if one.host == "manicouagan1"}
    asked: list[str] = []
    with at_work(tmp_path) as ca:
        done = cli.renewed(ca, fresh, lambda host, why: asked.append(f"{host}: {why}"))
    assert asked == ["manicouagan1: log.manicouagan1.client: has a valid certificate, and the request has another key"]
    assert {record.host for record in done.done if isinstance(record, Issued)} == {"manicouagan1"}
    assert len(done.done) == 2


def test_whoever_is_on_a_host_that_was_revoked_gets_nothing_by_a_new_key(
    desk: Desk, fleet_pki: Callable[..., Result], hosts: Hosts, reached: Reached
) -> None:
    fleet_pki("init", typed=TYPED)
    reached.have_keys(hosts)
    fleet_pki("renew", typed=TYPED)
    fleet_pki("revoke", "virtie", "client", "--reason", "key-compromise", typed=TYPED)
    same = fleet_pki("renew", typed=TYPED)
    why = "log.virtie.client: the request has a key that was revoked: the host has to make another"
    assert (same.exit_code, same.output) == (1, f"nothing was renewed\n{why}\n")
    _reinstalled(reached, hosts)
    code, out, _ = _typing(desk, ["renew"], "no")
    assert code == 1
    assert "log.virtie.client: was revoked, and the request has another key; 'no' is not 'virtie'" in out
    assert not _is_of(desk, hosts)
    code, out, _ = _typing(desk, ["renew"], "virtie")
    assert code == 0, out
    assert _is_of(desk, hosts)


def test_a_host_with_the_key_of_another_is_refused(
    fleet_pki: Callable[..., Result], hosts: Hosts, reached: Reached
) -> None:
    fleet_pki("init", typed=TYPED)
    reached.have_keys(hosts)
    fleet_pki("renew", typed=TYPED)
    reached.has_key(VIRTIE, hosts.keys[DB1.slot])
    stolen = fleet_pki("renew", typed=TYPED)
    assert stolen.exit_code == 1
    assert "log.virtie.client: the request has the key of log.db1.client; refused" in stolen.output


def _deployed(desk: Desk, reached: Reached, *names: str) -> None:
    """Do to these hosts what a deploy does with what is published."""
    register = desk.store.read()
    for one in WANTED:
        current = register.current(one.slot)
        if one.host in names and current is not None:
            roots = "".join(root.certificate for root in register.roots(one.authority.name))
            reached.file(one.host, one.declared.certificate_path, current.certificate)
            reached.file(one.host, one.declared.roots_path, roots)


def test_a_rotation_asks_the_hosts_what_their_daemons_have_loaded(
    desk: Desk, fleet_pki: Callable[..., Result], hosts: Hosts, reached: Reached
) -> None:
    fleet_pki("init", typed=TYPED)
    reached.have_keys(hosts)
    fleet_pki("renew", typed=TYPED)
    _deployed(desk, reached, *NAMES)
    fleet_pki("rotate-ca", "log", "--begin", typed=TYPED)
    assert "safe to go on once they are on: db1, manicouagan1, virtie." in fleet_pki("rotate-ca", "log").output
    _deployed(desk, reached, "db1", "manicouagan1", "virtie")
    # The daemon of virtie does not run with it yet, and of manicouagan1's two sets one was rolled back.
    pending = reached.file("virtie", "/var/db/homefleet/pending/log-client", "")
    server = named("log.manicouagan1.server").declared
    reached.file("manicouagan1", server.roots_path, desk.store.read().roots("log")[0].certificate)
    assert "safe to go on once they are on: manicouagan1, virtie." in fleet_pki("rotate-ca", "log").output
    pending.unlink()
    reached.away = {"db1"}
    _deployed(desk, reached, "manicouagan1")
    waiting = fleet_pki("rotate-ca", "log").output
    assert "safe to go on once they are on: db1." in waiting
    assert "db1: cannot be asked: ssh: connect to host db1 port 22: No route; --held FOLDER" in waiting
    reached.away = set()
    reissued = fleet_pki("rotate-ca", "log", typed=TYPED)
    assert "safe to drop the old root once they are on: db1, manicouagan1, virtie" in reissued.output
    _deployed(desk, reached, "db1", "virtie")
    assert "safe to drop the old root once they are on: manicouagan1" in fleet_pki("rotate-ca", "log").output
    _deployed(desk, reached, "manicouagan1")
    assert "dropped" in fleet_pki("rotate-ca", "log").output
    assert fleet_pki("status").exit_code == 0


def test_what_is_no_certificate_was_not_loaded(reached: Reached) -> None:
    text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    reached.file("virtie", VIRTIE.declared.certificate_path, text)
    found, silent = pki_hosts.held(FLEET, reached, [VIRTIE], None)
    assert found == {}
    assert silent["virtie"].startswith("cannot be asked: ")


def test_the_plain_commands_ask_the_same_hosts(
    desk: Desk, fleet_pki: Callable[..., Result], hosts: Hosts, reached: Reached
) -> None:
    fleet_pki("init", typed=TYPED)
    said = fleet_pki("renew", "--show").output
    question = "root@virtie.example 'openssl req -new -key /etc/ssl/private/log-client.key -subj /CN=virtie'"
    assert f"{question} >log.virtie.client.csr\n" in said
    assert said.count(" openssl x509 -new ") == len(WANTED)
    reached.have_keys(hosts)
    fleet_pki("renew", typed=TYPED)
    assert "ssh" not in fleet_pki("renew", "--show").output
    assert "age --encrypt" in fleet_pki("rotate-ca", "log", "--show").output
    fleet_pki("rotate-ca", "log", "--begin", typed=TYPED)
    reissue = fleet_pki("rotate-ca", "log", "--show").output
    assert "'cat /etc/ssl/log-client-roots.pem /etc/ssl/log-client.crt' >virtie.pem\n" in reissue
    assert reissue.count(f"-CA {desk.store.root_path('log', desk.store.read().roots('log')[-1].serial)} ") == 4
    _deployed(desk, reached, *NAMES)
    fleet_pki("rotate-ca", "log", typed=TYPED)
    assert fleet_pki("rotate-ca", "log", "--show").output.splitlines()[-1].startswith("cp ")
    reached.asked.clear()
    assert fleet_pki("revoke", "virtie", "client", "--show").exit_code == 0
    assert "log.virtie.client" not in {
        each.slot for each in desk.store.read().issued() if desk.store.read().is_revoked(each)
    }
    assert reached.asked == []


@pytest.fixture
def hosts() -> Hosts:
    return Hosts()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sign", "pancake", "client"), "pancake: no service there has a client certificate"),
        (("sign", "virtie", "server"), "virtie: no service there has a server certificate"),
        (("revoke", "virtie", "client"), "virtie: no service there has a client certificate"),
        (("show", "log"), "log: there is no such certificate"),
        (("show", "log", "virtie"), "server or client? fleet pki show AUTHORITY HOST USE"),
        (("rotate-ca", "mail"), "mail: no service declares it: there are log, redis"),
        (("rotate-ca", "log"), "log: has no root: fleet pki init"),
    ],
)
def test_what_cannot_be_ends_with_one_line(fleet_pki: Callable[..., Result], words: tuple[str, ...], said: str) -> None:
    done = fleet_pki(*words)
    assert done.exit_code == 1
    assert done.output == f"{said}\n"


def test_a_wrong_passphrase_changes_nothing(desk: Desk, fleet_pki: Callable[..., Result], hosts: Hosts) -> None:
    fleet_pki("init", typed=TYPED)
    before = desk.store.path.read_bytes()
    done = fleet_pki("sign", "virtie", "client", typed="another canary", text=hosts.request(VIRTIE))
    assert done.exit_code == 1
    assert "cannot be decrypted" in done.output
    assert "another canary" not in done.output
    assert desk.store.path.read_bytes() == before


def _typing(desk: Desk, words: list[str], answer: str, text: str = "") -> tuple[int, str, str]:
    """Run a verb in a process with a terminal of its own; return code, output, terminal."""
    leader, follower = pty.openpty()
    read, write = os.pipe()
    os.write(write, f"{TYPED}\n".encode())
    os.close(write)
    driver = (
        "import sys, fcntl, termios; fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)\n"
        "from pathlib import Path\n"
        "from fleet.cli.pki import Desk, pki\nfrom fleet.pki import keys\nfrom fleet.pki.store import Store\n"
        "from tests.pki.pki_fleet import FLEET, Reached, quick_seal, quick_unseal\n"
        "keys.seal, keys.unseal = quick_seal, quick_unseal\n"
        "folder = Path(sys.argv[3])\n"
        "desk = Desk(Store(folder), FLEET, ask=Reached(folder.parent / 'hosts'))\n"
        "pki([*sys.argv[4:], '--passphrase-fd', sys.argv[2]], obj=desk)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", driver, str(follower), str(read), str(desk.store.folder), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(follower, read),
        start_new_session=True,
        text=True,
    )
    os.write(leader, f"{answer}\n".encode())
    out, _ = child.communicate(text, timeout=60)
    os.set_blocking(leader, False)
    seen = os.read(leader, 4096).decode()
    for each in (leader, follower, read):
        os.close(each)
    return child.returncode, out, seen


def test_a_new_key_is_signed_after_the_name_is_typed(
    desk: Desk, fleet_pki: Callable[..., Result], hosts: Hosts
) -> None:
    fleet_pki("init", typed=TYPED)
    fleet_pki("sign", "virtie", "client", typed=TYPED, text=hosts.request(VIRTIE))
    new = hosts.request(VIRTIE, new=True)
    code, out, seen = _typing(desk, ["sign", "virtie", "client"], "db1", new)
    assert code == 1
    assert "'db1' is not 'virtie'; nothing was signed" in out
    assert "If virtie has made a new key, type its name: " in seen
    assert len(desk.store.read().issued(VIRTIE.slot)) == 1
    code, out, _ = _typing(desk, ["sign", "virtie", "client"], "virtie", new)
    assert code == 0, out
    current = desk.store.read().current(VIRTIE.slot)
    assert current is not None
    assert certificates.same_key(certificates.public_key(current.signed), hosts.keys[VIRTIE.slot].public_key())


def test_without_a_terminal_no_passphrase_is_taken_from_the_request(desk: Desk) -> None:
    driver = (
        "import sys; from pathlib import Path\n"
        "from fleet.cli.pki import Desk, pki\nfrom fleet.pki.store import Store\n"
        "from tests.pki.pki_fleet import FLEET\n"
        "pki(['init'], obj=Desk(Store(Path(sys.argv[1])), FLEET))"
    )
    done = subprocess.run(
        [sys.executable, "-c", driver, str(desk.store.folder)],
        input=f"{TYPED}\n" * 2,
        capture_output=True,
        start_new_session=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "no terminal to type the passphrase on: --passphrase-fd names where it is\n"
    assert not desk.store.read().records


def test_no_two_certificates_have_one_name() -> None:
    two = wanted(
        fleet_of(
            **{
                "a-b": (CLIENT,),
                "b": (Certificate(authority=Authority(name="log-a", domains=("chown.me",)), use=Use.CLIENT),),
            }
        )
    )
    assert len({one.slot for one in two}) == 2


def test_the_labs_passphrase_is_made_at_first_use(tmp_path: Path, desk: Desk) -> None:
    lab = replace(desk, lab=True)
    done = CliRunner().invoke(cli.pki, ["init"], obj=lab)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "pki" / "passphrase").stat().st_mode & 0o777 == 0o600
    assert CliRunner().invoke(cli.pki, ["renew", "--all"], obj=lab).exit_code == 1
    assert len(lab.store.read().all_roots()) == 2


def test_the_fleets_desk_lies_beside_its_secrets() -> None:
    this = cli.desk(FLEET)
    assert this.store.folder.parts[-2:] == ("secrets", "pki")
    assert not this.lab
    assert this.wanted == WANTED


def test_the_lab_has_a_pki_of_its_own() -> None:
    lab, ours = (CliRunner().invoke(cli.pki, [*words, "init", "--show"]) for words in (["--lab"], []))
    assert lab.exit_code == ours.exit_code == 0
    assert " -o .lab/0/secrets/pki/log/SERIAL.key.age\n" in lab.output
    assert " -o secrets/pki/log/SERIAL.key.age\n" in ours.output


def test_the_records_are_lines_of_json(tmp_path: Path) -> None:
    store = whole(tmp_path, Hosts())
    lines = [json.loads(line) for line in store.path.read_text().splitlines()]
    assert {"at", "authority", "what", "hash"} <= set.intersection(*(set(line) for line in lines))
    assert datetime.fromisoformat(lines[0]["at"]) == datetime(2026, 11, 23, 12, tzinfo=UTC)
