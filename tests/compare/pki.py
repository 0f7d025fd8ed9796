"""Properties of a private PKI, checked by openssl(1) alone: ours beside easy-rsa's and cfssl's, as each makes it.

``python -m tests.compare.pki`` makes the three on this machine, with Debian's easy-rsa and golang-cfssl and their
defaults, and writes the table to docs/measured/pki.md.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fleet.load import ROOT
from fleet.pki import keys
from fleet.pki.ca import Ca
from fleet.pki.store import Store
from fleet.pki.wanted import PkiError, Wanted
from tests.pki.pki_fleet import PASSPHRASE, WANTED, Hosts, at_work, named

REPORT = ROOT / "docs" / "measured" / "pki.md"
EASY_RSA = "/usr/share/easy-rsa/easyrsa"
PACKAGES = ("easy-rsa", "golang-cfssl", "openssl")
SERVER, CLIENT = "manicouagan1.chown.me", "virtie.chown.me"
NEWCOMER = "db1"
"""A host that has no certificate yet: what it asks for is not refused for having one."""


@dataclass(frozen=True)
class Exhibit:
    """What a tool made: certificates in PEM of a root, of the server manicouagan1 and of the client virtie.

    `key` is the root's private key as it lies there, `opened` the same in clear, for what a thief of it could sign.
    `renewed` is the client's certificate after a renewal as the tool has it, `crl` the list after revoking the client.
    `signs` has the tool sign a request as a host's client certificate and returns it, or None where it refuses: for
    virtie, which has one, or for db1, which has none.
    `recorded` tells whether the tool's own records have a serial number.
    """

    root: Path
    key: Path
    opened: Path
    server: Path
    client: Path
    renewed: Path | None
    crl: Path | None
    signs: Callable[[Path, str], Path | None]
    recorded: Callable[[str], bool]


# What openssl says.


def openssl(*words: str | Path, text: str = "") -> str:
    """Return what openssl prints; CalledProcessError if it fails."""
    command = ["openssl", *map(str, words)]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def accepts(root: Path, certificate: Path, *how: str | Path) -> bool:
    """Return whether ``openssl verify`` accepts a certificate of a root."""
    with suppress(subprocess.CalledProcessError):
        openssl("verify", *how, "-CAfile", root, certificate)
        return True
    return False


def extension(certificate: Path, label: str) -> tuple[bool, str] | None:
    """Return whether the extension that openssl prints as `label` is critical, and its value; None without it."""
    said = openssl("x509", "-in", certificate, "-noout", "-text")
    found = re.search(rf"\n {{12}}X509v3 {label}:( critical| ?)\n((?: {{16}}.*\n)*)", said)
    return (found[1] == " critical", " ".join(found[2].split())) if found else None


def serial(certificate: Path) -> str:
    """Return a serial number in hexadecimal digits."""
    return openssl("x509", "-in", certificate, "-noout", "-serial").strip().removeprefix("serial=").lower()


def public_key(certificate: Path) -> str:
    """Return a public key in PEM."""
    return openssl("x509", "-in", certificate, "-noout", "-pubkey")


def lifetime(certificate: Path) -> tuple[datetime, datetime]:
    """Return from when and until when a certificate is valid."""
    said = openssl("x509", "-in", certificate, "-noout", "-dates")
    begin, end = (datetime.strptime(line.split("=")[1], "%b %d %H:%M:%S %Y %Z") for line in said.splitlines())
    return begin, end


def new_request(folder: Path, name: str, algorithm: str = "P-256", *extensions: str) -> Path:
    """Make a key and a request of common name `name` in a folder of its own, as a host would; return the request."""
    made = Path(tempfile.mkdtemp(dir=folder))
    kind = ["ec", "-pkeyopt", f"ec_paramgen_curve:{algorithm}"] if algorithm.startswith("P-") else [algorithm]
    added = [word for each in extensions for word in ("-addext", each)]
    out = ["-keyout", str(made / "key.pem"), "-out", str(made / "request.pem")]
    openssl("req", "-new", "-nodes", "-newkey", *kind, "-subj", f"/CN={name}", *added, *out)
    return made / "request.pem"


def by_a_thief(this: Exhibit, *names: str) -> Path:
    """Sign a client's certificate for `names` with the stolen key of the root; return it."""
    made = Path(tempfile.mkdtemp(dir=this.opened.parent))
    (made / "extensions").write_text(
        f"basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth\nsubjectAltName={','.join(names)}\n"
    )
    request = new_request(made, "virtie")
    signer: list[str | Path] = ["-CA", this.root, "-CAkey", this.opened, "-set_serial", "0x5eed", "-days", "90"]
    out: list[str | Path] = ["-extfile", made / "extensions", "-out", made / "certificate.pem"]
    openssl("x509", "-req", "-in", request, *signer, *out)
    return made / "certificate.pem"


# The properties.


def _p256(*certificates: Path) -> bool:
    return all("ASN1 OID: prime256v1" in openssl("x509", "-in", one, "-noout", "-text") for one in certificates)


def _is(certificate: Path, label: str, value: str, *, critical: bool = False) -> bool:
    found = extension(certificate, label)
    return found is not None and found[1] == value and (found[0] or not critical)


def _refuses(this: Exhibit, *names: str) -> bool:
    return accepts(this.root, by_a_thief(this, f"DNS:{CLIENT}")) and not accepts(this.root, by_a_thief(this, *names))


def _numbers(this: Exhibit) -> bool:
    drawn = [serial(one) for one in (this.root, this.server, this.client)]
    return all(len(one) >= 28 for one in drawn) and len({one[:6] for one in drawn}) == 3


def _identifiers(this: Exhibit) -> bool:
    own, signer = extension(this.root, "Subject Key Identifier"), extension(this.client, "Authority Key Identifier")
    return own is not None and signer is not None and own[1] == signer[1].split()[0].removeprefix("keyid:")


def _names(this: Exhibit) -> bool:
    found = [extension(this.server, "Subject Alternative Name"), extension(this.client, "Subject Alternative Name")]
    return all(one is not None and name in one[1] for one, name in zip(found, (SERVER, CLIENT), strict=True))


def _sealed(this: Exhibit) -> bool:
    with suppress(subprocess.CalledProcessError):
        openssl("pkey", "-in", this.key, "-passin", "pass:", "-noout")
        return False
    return "ENCRYPTED" in this.key.read_text(errors="replace") or this.key.read_bytes().startswith(b"age-encryption")


def _grants(this: Exhibit, name: str, algorithm: str = "P-256", *extensions: str) -> str:
    """Return, as text, what a newcomer gets who asks for that; empty if refused. A plain request has to be granted."""
    assert this.signs(new_request(this.opened.parent, NEWCOMER), NEWCOMER) is not None
    made = this.signs(new_request(this.opened.parent, name, algorithm, *extensions), NEWCOMER)
    return "" if made is None else openssl("x509", "-in", made, "-noout", "-text")


def _no_authority(this: Exhibit) -> bool:
    said = _grants(this, NEWCOMER, "P-256", "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign")
    return "CA:TRUE" not in said and "Certificate Sign" not in said


def _not_another(this: Exhibit) -> bool:
    return "web1" not in _grants(this, "web1", "P-256", "subjectAltName=DNS:web1.chown.me")


def _not_broken(this: Exhibit) -> bool:
    request = new_request(this.opened.parent, NEWCOMER)
    lines = request.read_text().splitlines()
    raw = bytearray(base64.b64decode("".join(lines[1:-1])))
    raw[-1] ^= 1
    body = base64.encodebytes(bytes(raw)).decode()
    request.write_text(f"{lines[0]}\n{body}{lines[-1]}\n")
    return this.signs(request, NEWCOMER) is None


def _needs_a_word(this: Exhibit) -> bool:
    return this.signs(new_request(this.opened.parent, "virtie"), "virtie") is None


def _revoked(this: Exhibit) -> bool:
    if this.crl is None:
        return False
    how = ("-crl_check", "-CRLfile", this.crl)
    return accepts(this.root, this.server, *how) and not accepts(this.root, this.client, *how)


def _recorded(this: Exhibit) -> bool:
    return all(this.recorded(serial(one)) for one in (this.server, this.client))


def _ends(this: Exhibit) -> bool:
    return lifetime(this.client)[1] <= lifetime(this.root)[1]


def _short(this: Exhibit) -> bool:
    return all(end - begin <= timedelta(days=730) for begin, end in map(lifetime, (this.server, this.client)))


def _digest(this: Exhibit) -> bool:
    said = [openssl("x509", "-in", one, "-noout", "-text") for one in (this.root, this.server, this.client)]
    return all(re.search(r"Signature Algorithm: \S*sha(256|384|512)", each, re.IGNORECASE) for each in said)


PROPERTIES: dict[str, Callable[[Exhibit], bool]] = {
    "the root's key is of P-256": lambda it: _p256(it.root),
    "certificates' keys are of P-256": lambda it: _p256(it.server, it.client),
    "signatures are SHA-256 or better": _digest,
    "the root's basic constraints are critical": lambda it: (extension(it.root, "Basic Constraints") or (False, ""))[0],
    "the root signs no other authority (pathlen:0)": lambda it: _is(it.root, "Basic Constraints", "CA:TRUE, pathlen:0"),
    "the root's key usage is critical, certificates and CRLs only": lambda it: _is(
        it.root, "Key Usage", "Certificate Sign, CRL Sign", critical=True
    ),
    "the root's name constraints are critical": lambda it: (extension(it.root, "Name Constraints") or (False, ""))[0],
    "a stolen root signs no other domain": lambda it: _refuses(it, "DNS:virtie.example"),
    "a stolen root signs no address": lambda it: _refuses(it, f"DNS:{CLIENT}", "IP:192.0.2.1"),
    "a stolen root signs no mail address": lambda it: _refuses(it, f"DNS:{CLIENT}", "email:owner@chown.me"),
    "a stolen root signs no URI": lambda it: _refuses(it, f"DNS:{CLIENT}", "URI:https://chown.me/"),
    "serial numbers are random, of 128 bits": _numbers,
    "certificates' basic constraints are critical": lambda it: all(
        _is(one, "Basic Constraints", "CA:FALSE", critical=True) for one in (it.server, it.client)
    ),
    "certificates' key usage is critical, signatures only": lambda it: all(
        _is(one, "Key Usage", "Digital Signature", critical=True) for one in (it.server, it.client)
    ),
    "the server's extended key usage is that alone": lambda it: _is(
        it.server, "Extended Key Usage", "TLS Web Server Authentication"
    ),
    "the client's extended key usage is that alone": lambda it: _is(
        it.client, "Extended Key Usage", "TLS Web Client Authentication"
    ),
    "a server's certificate is refused as a client's": lambda it: (
        not accepts(it.root, it.server, "-purpose", "sslclient")
    ),
    "a client's certificate is refused as a server's": lambda it: (
        not accepts(it.root, it.client, "-purpose", "sslserver")
    ),
    "subject alternative names have the full name": _names,
    "the client's common name is the host's name": lambda it: (
        re.search(r"CN ?= ?virtie$", openssl("x509", "-in", it.client, "-noout", "-subject").strip()) is not None
    ),
    "key identifiers agree": _identifiers,
    "certificates are valid for two years at most": _short,
    "no certificate outlives its root": _ends,
    "openssl's strict checks pass": lambda it: all(
        accepts(it.root, one, "-x509_strict") for one in (it.server, it.client)
    ),
    "the root's key is encrypted where it lies": _sealed,
    "the root's key is the owner's alone even without a umask": lambda it: it.key.stat().st_mode & 0o777 == 0o600,
    "a request to be an authority is not granted": _no_authority,
    "a request to be another host is not granted": _not_another,
    "a request for RSA with 1024 bits is refused": lambda it: not _grants(it, NEWCOMER, "rsa:1024"),
    "a request not signed with its own key is refused": _not_broken,
    "a new key for a valid name needs a word": _needs_a_word,
    "a renewal keeps the key": lambda it: (
        it.renewed is not None and it.renewed != it.client and public_key(it.renewed) == public_key(it.client)
    ),
    "a revoked certificate is in a CRL of its root": _revoked,
    "everything issued is on record": _recorded,
}
"""What a PKI shall have, in words, and how openssl tells."""


# The makers. Each works as its documentation has it for a server and a client, with its defaults, without a umask.


@contextmanager
def _without_umask() -> Iterator[None]:
    old = os.umask(0)
    try:
        yield
    finally:
        os.umask(old)


def ours(folder: Path) -> Exhibit:
    """Make the exhibit of fleet.pki, with the log's certificates of the tests' fleet."""
    hosts, now = Hosts(), datetime.now(UTC).replace(microsecond=0)
    want = tuple(one for one in WANTED if one.authority.name == "log")
    pki, client = folder / "pki", named("log.virtie.client")
    folder.mkdir()

    def some(need: Sequence[Wanted]) -> Mapping[str, str]:
        return hosts(one for one in need if one.host != NEWCOMER)

    with _without_umask(), at_work(pki, now, want) as ca:
        ca.init()
        ca.renew(some)
    store = Store(pki)
    root = store.read().roots("log")[0]
    shutil.copy(store.certificate_path("log", "virtie", "client"), folder / "client.pem")
    key = keys.unseal(store.key(root), PASSPHRASE, "the root")
    (folder / "opened").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    @contextmanager
    def copied() -> Iterator[Ca]:
        """Work in a copy; the root's key is open already there: age's seconds are for the first time."""
        copy = Path(tempfile.mkdtemp(dir=folder)) / "pki"
        shutil.copytree(pki, copy)
        with at_work(copy, now, want) as again:
            again._keys[root.serial] = key
            yield again

    def signs(request: Path, host: str) -> Path | None:
        path = request.with_name("certificate.pem")
        try:
            with copied() as again:
                path.write_text(again.sign(named(f"log.{host}.client"), request.read_text()).certificate)
        except PkiError:
            return None
        return path

    with copied() as renewing:
        renewing.renew(some, everything=True)
    with copied() as revoking:
        revoking.revoke(client.slot, "key-compromise")
    return Exhibit(
        root=store.root_path("log", root.serial),
        key=store.key_path("log", root.serial),
        opened=folder / "opened",
        server=store.certificate_path("log", "manicouagan1", "server"),
        client=folder / "client.pem",
        renewed=renewing.ledger.store.certificate_path("log", "virtie", "client"),
        crl=revoking.ledger.store.crl_path("log"),
        signs=signs,
        recorded=lambda number: f'"{number.zfill(32)}"' in store.path.read_text(),
    )


def easy_rsa(folder: Path) -> Exhibit:
    """Make the exhibit of easy-rsa(8), with a passphrase for its root."""
    folder.mkdir()
    pki = folder / "pki"
    secret = f"pass:{PASSPHRASE.get_secret_value()}"
    known = {"EASYRSA_BATCH": "1", "EASYRSA_PKI": str(pki), "EASYRSA_PASSIN": secret, "EASYRSA_PASSOUT": secret}

    def run(*words: str) -> None:
        subprocess.run([EASY_RSA, *words], env={**os.environ, **known}, capture_output=True, cwd=folder, check=True)

    with _without_umask():
        run("init-pki")
        run("build-ca")
        run(f"--subject-alt-name=DNS:{SERVER}", "build-server-full", "manicouagan1", "nopass")
        run(f"--subject-alt-name=DNS:{CLIENT}", "build-client-full", "virtie", "nopass")
    shutil.copy(pki / "issued" / "virtie.crt", folder / "client.pem")
    openssl("pkey", "-in", pki / "private" / "ca.key", "-passin", secret, "-out", folder / "opened")
    shutil.copytree(pki, folder / "before")
    renewed = None
    with suppress(subprocess.CalledProcessError):
        run("renew", "virtie", "nopass")
        renewed = Path(shutil.copy(pki / "issued" / "virtie.crt", folder / "renewed.pem"))
    shutil.rmtree(pki)
    shutil.copytree(folder / "before", pki)
    run("revoke", "virtie")
    run("gen-crl")
    crl = Path(shutil.copy(pki / "crl.pem", folder / "crl.pem"))
    shutil.rmtree(pki)
    shutil.copytree(folder / "before", pki)

    def signs(request: Path, host: str) -> Path | None:
        shutil.rmtree(pki)
        shutil.copytree(folder / "before", pki)
        try:
            run("import-req", str(request), host)
            run("sign-req", "client", host)
        except subprocess.CalledProcessError:
            return None
        # A refusal may leave an empty file, and exit with 0.
        if not (pki / "issued" / f"{host}.crt").stat().st_size:
            return None
        return Path(shutil.copy(pki / "issued" / f"{host}.crt", request.with_name("certificate.pem")))

    return Exhibit(
        root=pki / "ca.crt",
        key=pki / "private" / "ca.key",
        opened=folder / "opened",
        server=pki / "issued" / "manicouagan1.crt",
        client=folder / "client.pem",
        renewed=renewed,
        crl=crl,
        signs=signs,
        recorded=lambda number: number.upper() in (pki / "index.txt").read_text(),
    )


def cfssl(folder: Path) -> Exhibit:
    """Make the exhibit of cfssl, with the defaults that it has without a configuration."""
    folder.mkdir()

    def run(*words: str, text: str = "") -> str:
        done = subprocess.run(["cfssl", *words], input=text, capture_output=True, text=True, cwd=folder, check=True)
        return done.stdout

    def made(name: str, *words: str, common: str) -> Path:
        request = json.dumps({"CN": common, "key": {"algo": "ecdsa", "size": 256}})
        (folder / f"{name}.json").write_text(request)
        answer = run("gencert", *words, f"{name}.json")
        with _without_umask():
            subprocess.run(["cfssljson", "-bare", name], input=answer, text=True, cwd=folder, check=True)
        return folder / f"{name}.pem"

    def signs(request: Path, host: str) -> Path | None:
        try:
            answer = run("sign", "-ca=ca.pem", "-ca-key=ca-key.pem", f"-hostname={host}.chown.me", str(request))
        except subprocess.CalledProcessError:
            return None
        path = request.with_name("certificate.pem")
        path.write_text(json.loads(answer)["cert"])
        return path

    root = made("ca", "-initca", common="log")
    signer = ("-ca=ca.pem", "-ca-key=ca-key.pem")
    server = made("server", *signer, f"-hostname={SERVER}", common="manicouagan1")
    client = made("client", *signer, f"-hostname={CLIENT}", common="virtie")
    renewed = Path(tempfile.mkdtemp(dir=folder)) / "request.pem"
    shutil.copy(folder / "client.csr", renewed)
    shutil.copy(folder / "ca-key.pem", folder / "opened")
    crl: Path | None = folder / "crl.pem"
    try:
        (folder / "serials").write_text(f"{int(serial(client), 16)}\n")
        listed = run("gencrl", "serials", "ca.pem", "ca-key.pem")
        assert crl is not None
        crl.write_text(f"-----BEGIN X509 CRL-----\n{listed.strip()}\n-----END X509 CRL-----\n")
    except subprocess.CalledProcessError:
        crl = None
    return Exhibit(
        root=root,
        key=folder / "ca-key.pem",
        opened=folder / "opened",
        server=server,
        client=client,
        renewed=signs(renewed, "virtie"),
        crl=crl,
        signs=signs,
        # Without a database of its own, which the command line does not make, it keeps nothing.
        recorded=lambda number: any(number in path.name for path in folder.iterdir()),
    )


MAKERS: dict[str, Callable[[Path], Exhibit]] = {"fleet pki": ours, "easy-rsa": easy_rsa, "cfssl": cfssl}


def compared(folder: Path) -> dict[str, dict[str, bool]]:
    """Return, for each maker, which properties its exhibit has."""
    made = {name: make(folder / name.replace(" ", "-")) for name, make in MAKERS.items()}
    return {name: {words: check(this) for words, check in PROPERTIES.items()} for name, this in made.items()}


def table(found: dict[str, dict[str, bool]], versions: Sequence[str], today: str) -> str:
    """Return the page docs/measured/pki.md."""
    rows = [
        f"| {words} | {' | '.join('yes' if found[who][words] else 'no' for who in found)} |" for words in PROPERTIES
    ]
    sums = " | ".join(f"{sum(each.values())} of {len(each)}" for each in found.values())
    return "\n".join(
        (
            "# The private PKI beside easy-rsa and cfssl",
            "",
            f"Measured on {today} by `python -m tests.compare.pki`: each tool makes a root, a server's and a client's",
            "certificate on the same machine, with its defaults and as its documentation has it (easy-rsa with a",
            "passphrase for its root, cfssl with P-256 as in `print-defaults`). openssl(1) judges all three, not the",
            "code that made them.",
            f"Versions: {', '.join(versions)}.",
            "",
            f"| property | {' | '.join(found)} |",
            f"|---|{'---|' * len(found)}",
            *rows,
            f"| **together** | {sums} |",
            "",
            "Both others can be configured to have more of it; this is what one has who follows their first page.",
            "",
        )
    )


def main() -> None:
    """Make all three, compare them, and write the page."""
    lacking = [tool for tool in (EASY_RSA, "cfssl", "cfssljson", "openssl") if shutil.which(tool) is None]
    if lacking:
        raise SystemExit(f"{', '.join(lacking)}: missing: apt-get install {' '.join(PACKAGES)}")
    said = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *PACKAGES], capture_output=True, text=True, check=True
    )
    with tempfile.TemporaryDirectory() as folder:
        page = table(compared(Path(folder)), said.stdout.splitlines(), date.today().isoformat())
    REPORT.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
