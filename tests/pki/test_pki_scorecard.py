"""What openssl(1) and certtool(1) say of what fleet.pki signs: every property of the scorecard, and who is refused."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleet.cli import pki as cli
from fleet.cli.pki import Desk
from fleet.pki import certificates, keys
from tests.compare.pki import PROPERTIES, Exhibit, accepts, extension, openssl, ours
from tests.pki.pki_fleet import (
    FLEET,
    PASSPHRASE,
    Hosts,
    at_work,
    named,
    quick_seal,
    quick_unseal,
    request,
    whole,
)

TODAY = datetime.now(UTC).replace(microsecond=0)
"""The real one: certtool(1) of Debian 12 cannot be told of another."""


@pytest.fixture(scope="module")
def exhibit(tmp_path_factory: pytest.TempPathFactory) -> Exhibit:
    return ours(tmp_path_factory.mktemp("ours") / "fleet")


@pytest.fixture(scope="module")
def careless(tmp_path_factory: pytest.TempPathFactory) -> Exhibit:
    """A PKI that somebody made in a hurry: none of it is as it should be."""
    folder = tmp_path_factory.mktemp("careless")

    key, root = folder / "key.pem", folder / "root.pem"
    config = folder / "config"
    config.write_text("[req]\ndistinguished_name=dn\n[dn]\n")
    openssl("genrsa", "-out", key, "1024")
    key.chmod(0o644)
    how: list[str | Path] = ["-config", config, "-sha1", "-set_serial", "1", "-days", "90", "-subj", "/CN=root"]
    openssl("req", "-x509", "-new", "-key", key, *how, "-addext", "basicConstraints=CA:TRUE", "-out", root)
    # The wrong name, both uses, twenty years.
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=DNS:else.example\nextendedKeyUsage=serverAuth,clientAuth\n")

    def leaf(name: str, number: int) -> Path:
        made = folder / f"{name}.pem"
        signer: list[str | Path] = ["-CA", root, "-CAkey", key, "-sha1", "-set_serial", str(number), "-days", "7300"]
        public = folder / "public.pem"
        openssl("pkey", "-in", key, "-pubout", "-out", public)
        subject: list[str | Path] = ["-force_pubkey", public, "-subj", f"/CN={name}.example"]
        openssl("x509", "-new", *subject, *signer, "-extfile", extensions, "-out", made)
        return made

    def signs(request: Path, host: str) -> Path | None:
        del host
        path = request.with_name("certificate.pem")
        signer: list[str | Path] = ["-CA", root, "-CAkey", key, "-set_serial", "9", "-days", "9000"]
        try:
            openssl("x509", "-req", "-in", request, *signer, "-copy_extensions", "copyall", "-out", path)
        except subprocess.CalledProcessError:
            # Whoever does not look at a request's signature signs it all the same.
            return root
        return path

    def recorded(number: str) -> bool:
        del number
        return False

    server, client = leaf("server", 2), leaf("client", 3)
    return Exhibit(root, key, key, server, client, None, None, signs, recorded)


@pytest.mark.parametrize("words", PROPERTIES)
def test_ours_has_the_property(exhibit: Exhibit, words: str) -> None:
    assert PROPERTIES[words](exhibit)


@pytest.mark.parametrize("words", PROPERTIES)
def test_a_careless_pki_has_it_not(careless: Exhibit, words: str) -> None:
    assert not PROPERTIES[words](careless)


# Who is refused. Each chain is real, and each has one thing wrong: openssl and GnuTLS are asked.


class Chain:
    """A PKI of ours in a folder, opened, and what somebody with its root's key could sign."""

    def __init__(self, folder: Path, made: datetime = TODAY) -> None:
        self.folder = folder
        self.hosts = Hosts()
        self.store = whole(folder / "pki", self.hosts, made)
        self.root = self.store.read().roots("log")[0]
        self.path = self.store.roots_path("log")

    def certificate(self, host: str, use: str) -> Path:
        return self.store.certificate_path("log", host, use)

    def signed(self, *names: x509.GeneralName) -> Path:
        """Return a client's certificate with these subject alternative names, signed by the root."""
        signer = keys.unseal(self.store.key(self.root), PASSPHRASE, "the root")
        mine = ec.generate_private_key(ec.SECP256R1())
        identifier = self.root.signed.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "virtie")]))
            .issuer_name(self.root.signed.subject)
            .public_key(mine.public_key())
            .serial_number(certificates.new_serial())
            .not_valid_before(TODAY - timedelta(hours=1))
            .not_valid_after(TODAY + timedelta(days=90))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
            .sign(signer, SHA256())
        )
        path = self.folder / "signed.pem"
        path.write_bytes(made.public_bytes(Encoding.PEM))
        return path


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    monkeypatch.setattr(keys, "seal", quick_seal)
    monkeypatch.setattr(keys, "unseal", quick_unseal)
    return Chain(tmp_path)


def gnutls(root: Path, certificate: Path, use: str) -> bool:
    """Return whether GnuTLS accepts a certificate for a server or a client, by certtool(1)."""
    purpose = {"server": "1.3.6.1.5.5.7.3.1", "client": "1.3.6.1.5.5.7.3.2"}[use]
    which = ["--load-ca-certificate", str(root), "--infile", str(certificate)]
    done = subprocess.run(
        ["certtool", "--verify", f"--verify-purpose={purpose}", *which], capture_output=True, text=True, check=False
    )
    assert "Chain verification output: " in done.stdout, done.stderr
    return "Chain verification output: Verified." in done.stdout


def openssl_accepts(root: Path, certificate: Path, use: str) -> bool:
    return accepts(root, certificate, "-purpose", f"ssl{use}")


def both(root: Path, certificate: Path, use: str) -> set[bool]:
    return {openssl_accepts(root, certificate, use), gnutls(root, certificate, use)}


def test_the_right_ones_are_accepted(chain: Chain) -> None:
    assert both(chain.path, chain.certificate("virtie", "client"), "client") == {True}
    assert both(chain.path, chain.certificate("manicouagan1", "server"), "server") == {True}
    assert both(chain.path, chain.signed(x509.DNSName("virtie.chown.me")), "client") == {True}


def test_those_of_another_authority_are_refused(chain: Chain, tmp_path: Path) -> None:
    redis = chain.store.roots_path("redis")
    assert both(redis, chain.certificate("virtie", "client"), "client") == {False}
    other = Chain(tmp_path / "other")
    assert both(chain.path, other.certificate("virtie", "client"), "client") == {False}


@pytest.mark.usefixtures("chain")
@pytest.mark.parametrize(("days", "accepted"), [(729, True), (731, False)])
def test_an_expired_one_is_refused(tmp_path: Path, days: int, accepted: bool) -> None:
    old = Chain(tmp_path / "old", TODAY - timedelta(days=days))
    assert both(old.path, old.certificate("virtie", "client"), "client") == {accepted}


def test_a_servers_is_refused_as_a_clients_and_the_other_way_round(chain: Chain) -> None:
    assert both(chain.path, chain.certificate("manicouagan1", "server"), "client") == {False}
    assert both(chain.path, chain.certificate("virtie", "client"), "server") == {False}


@pytest.mark.parametrize(
    "names",
    [
        (x509.DNSName("virtie.example"),),
        (x509.DNSName("virtie.chown.me"), x509.DNSName("virtie.example")),
        (x509.DNSName("evilchown.me"),),
        (x509.DNSName("chown.me"),),
        (x509.DNSName("chown.me.example"),),
        (x509.DNSName("virtie.chown.me"), x509.IPAddress(ip_address("192.0.2.1"))),
        (x509.DNSName("virtie.chown.me"), x509.IPAddress(ip_address("2001:db8::1"))),
        (x509.DNSName("virtie.chown.me"), x509.RFC822Name("owner@chown.me")),
    ],
    ids=str,
)
def test_a_name_outside_the_constraints_is_refused(chain: Chain, names: tuple[x509.GeneralName, ...]) -> None:
    assert both(chain.path, chain.signed(*names), "client") == {False}


def test_a_uri_is_refused(chain: Chain) -> None:
    uri = chain.signed(x509.DNSName("virtie.chown.me"), x509.UniformResourceIdentifier("https://chown.me/"))
    assert not openssl_accepts(chain.path, uri, "client")
    # GnuTLS 3.7 does not look at URIs; nothing of ours takes a name from one.
    assert gnutls(chain.path, uri, "client")


def test_no_suffix_of_a_domain_is_enough_for_libressl(chain: Chain) -> None:
    """LibreSSL compares the ends of two texts (x509_constraints_sandns()), so each permitted name begins with a dot."""
    found = extension(chain.path, "Name Constraints")
    assert found is not None
    permitted = found[1].partition("Excluded:")[0]
    domains = re.findall(r"DNS:(\S+)", permitted)
    assert domains == [".chown.me"]
    assert not any("evilchown.me".endswith(domain) for domain in domains)
    assert any("virtie.chown.me".endswith(domain) for domain in domains)


# The plain commands.


def test_age_opens_the_key_of_a_root(exhibit: Exhibit, tmp_path: Path) -> None:
    clear = tmp_path / "clear"
    child, terminal = pty.fork()
    if child == 0:
        os.execvp("age", ["age", "--decrypt", "-o", str(clear), str(exhibit.key)])
    seen = b""
    while b"passphrase" not in seen:
        seen += os.read(terminal, 1024)
    os.write(terminal, f"{PASSPHRASE.get_secret_value()}\n".encode())
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert openssl("pkey", "-in", clear, "-pubout") == openssl("x509", "-in", exhibit.root, "-noout", "-pubkey")


def test_the_plain_commands_make_the_same(chain: Chain, tmp_path: Path) -> None:
    desk = Desk(chain.store, FLEET)
    one = named("log.virtie.client")
    key = keys.unseal(chain.store.key(chain.root), PASSPHRASE, "the root")
    clear = tmp_path / "clear"
    clear.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "request.pem").write_text(request(chain.hosts.keys[one.slot], "virtie"))
    said = CliRunner().invoke(cli.pki, ["sign", "virtie", "client", "--show"], obj=desk).output
    path = shlex.quote(str(chain.store.key_path("log", chain.root.serial)))
    assert f"age --decrypt {path}" in said
    # age(1) asks on a terminal: here the key is in clear.
    script = said.replace(f"age --decrypt {path}", f"cat {shlex.quote(str(clear))}")
    subprocess.run(["sh", "-euc", script], cwd=tmp_path, check=True, capture_output=True)
    assert _described(tmp_path / "log.virtie.client.pem") == _described(chain.certificate("virtie", "client"))

    rooted = CliRunner().invoke(cli.pki, ["init", "--show"], obj=desk).output.splitlines()[:2]
    made = tmp_path / "root.pem"
    sealed = shlex.quote(str(chain.store.key_path("log", "SERIAL")))
    script = "\n".join(rooted).replace(f"age --encrypt --passphrase -o {sealed}", "cat >new.key")
    script = script.replace(f"age --decrypt {sealed}", "cat new.key")
    script = script.replace(str(chain.store.root_path("log", "SERIAL")), str(made))
    subprocess.run(["sh", "-euc", script], cwd=tmp_path, check=True, capture_output=True)
    assert _described(made, subject=False) == _described(chain.path, subject=False)


def test_the_plain_commands_revoke_as_the_verb_does(chain: Chain, tmp_path: Path) -> None:
    with at_work(chain.store.folder, TODAY) as ca:
        ca.revoke("log.db1.client", "superseded")
        ca.revoke("log.manicouagan1.client", "unspecified")
    words = ["revoke", "virtie", "client", "--reason", "key-compromise", "--show"]
    said = CliRunner().invoke(cli.pki, words, obj=Desk(chain.store, FLEET)).output
    key = keys.unseal(chain.store.key(chain.root), PASSPHRASE, "the root")
    clear = tmp_path / "clear"
    clear.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    sealed = shlex.quote(str(chain.store.key_path("log", chain.root.serial)))
    assert f"age --decrypt {sealed}" in said
    script = said.replace(f"age --decrypt {sealed}", f"cat {shlex.quote(str(clear))}")
    subprocess.run(["sh", "-euc", script], cwd=tmp_path, check=True, capture_output=True)
    with at_work(chain.store.folder, TODAY) as ca:
        ca.revoke("log.virtie.client", "key-compromise")
    by_hand, by_verb = (
        openssl("crl", "-in", path, "-noout", "-text", "-verify", "-CAfile", chain.path)
        for path in (tmp_path / "crl.pem", chain.store.crl_path("log"))
    )
    shape = r"(?:Signature Algorithm|Issuer|Serial Number): .*|(?:CRL Number|CRL Reason Code|Key Identifier): *\n +.*"
    assert sorted(re.findall(shape, by_hand)) == sorted(re.findall(shape, by_verb))
    assert by_hand.count("Serial Number") == 3


def _described(certificate: Path, *, subject: bool = True) -> tuple[object, ...]:
    """Return what a certificate is, without its number, dates and key."""
    labels = ("Basic Constraints", "Key Usage", "Extended Key Usage", "Subject Alternative Name", "Name Constraints")
    who = openssl("x509", "-in", certificate, "-noout", "-subject") if subject else ""
    said = openssl("x509", "-in", certificate, "-noout", "-text")
    kind = re.findall(r"(?:Signature Algorithm|ASN1 OID): (\S+)", said)
    return (*(extension(certificate, label) for label in labels), who, kind)
