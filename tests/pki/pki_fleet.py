"""A fleet whose services want certificates, and a PKI of it in a folder: what the tests of fleet.pki begin with."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from fleet.model.pki import Authority, Certificate, Use
from fleet.model.service import Declaration, Service, none_to_keep
from fleet.model.site import Connection, Fleet, Host, Network, Os, Site
from fleet.pki import keys
from fleet.pki.ca import Ca
from fleet.pki.store import Store
from fleet.pki.wanted import PkiError, Wanted, wanted

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PASSPHRASE = SecretStr("a canary sings in here")
LOG = Authority(name="log", domains=("chown.me",))
REDIS = Authority(name="redis", domains=("chown.me",))


class Wants(Service):
    """A service that wants what it is told to want."""

    wanted: tuple[Certificate, ...] = ()

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        del host, fleet
        return Declaration(certificates=self.wanted, state=none_to_keep("a test keeps nothing"))


def fleet_of(**hosts: tuple[Certificate, ...]) -> Fleet:
    """Return a fleet of one site, chown.me, with a host for each keyword that wants these certificates."""
    made = tuple(
        Host(
            name=name,
            os=Os.OPENBSD,
            connection=Connection(address=f"{name}.example"),
            services=(Wants(wanted=certificates),),
        )
        for name, certificates in hosts.items()
    )
    return Fleet(sites=(Site(name="home", domain="chown.me", networks=(Network(name="net"),), hosts=made),))


CLIENT = Certificate(authority=LOG, use=Use.CLIENT)
SERVER = Certificate(authority=LOG, use=Use.SERVER)
FLEET = fleet_of(
    manicouagan1=(SERVER, CLIENT),
    virtie=(CLIENT,),
    db1=(CLIENT, Certificate(authority=REDIS, use=Use.SERVER, names=("redis.chown.me",))),
)
WANTED = wanted(FLEET)


def named(slot: str) -> Wanted:
    """Return the wanted certificate called `slot`."""
    return next(one for one in WANTED if one.slot == slot)


class Hosts:
    """The hosts' side: a key and a request for each certificate, made when they are first asked for."""

    def __init__(self) -> None:
        self.keys: dict[str, ec.EllipticCurvePrivateKey] = {}

    def __call__(self, need: Iterable[Wanted]) -> dict[str, str]:
        """Return the requests, as `fleet.pki.ca.Requests`."""
        return {one.slot: self.request(one) for one in need}

    def request(self, one: Wanted, *, new: bool = False) -> str:
        """Return the request for `one`, for a `new` key if wanted."""
        if new or one.slot not in self.keys:
            self.keys[one.slot] = ec.generate_private_key(ec.SECP256R1())
        return request(self.keys[one.slot], one.host)


class Reached:
    """The hosts as SSH reaches them: each is a folder that plays its /, and a shell runs there what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.away: set[str] = set()
        self.asked: list[str] = []

    def __call__(self, site: Site, host: Host, command: str) -> subprocess.CompletedProcess[str]:
        """Answer as `fleet.cli.console.ask`."""
        del site
        self.asked.append(host.name)
        if host.name in self.away:
            return subprocess.CompletedProcess([], 255, "", f"ssh: connect to host {host.name} port 22: No route\n")
        root = str(self.folder / host.name)
        moved = re.sub(r"(?<![\w.}/])/(etc|var)\b", rf"{root}/\1", command)
        done = subprocess.run(["sh", "-c", moved], capture_output=True, text=True, check=False)
        return subprocess.CompletedProcess([], done.returncode, done.stdout.replace(root, ""), done.stderr)

    def file(self, host: str, path: str, text: str) -> Path:
        """Write a file of a host."""
        target = self.folder / host / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def has_key(self, one: Wanted, key: ec.EllipticCurvePrivateKey) -> None:
        """Put a private key where the deploy makes it."""
        text = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
        self.file(one.host, one.declared.key_path, text)

    def have_keys(self, hosts: Hosts) -> None:
        """Put the private keys of all hosts where the deploy makes them."""
        for one in WANTED:
            hosts.request(one)
            self.has_key(one, hosts.keys[one.slot])


def request(key: ec.EllipticCurvePrivateKey, name: str, *extensions: tuple[x509.ExtensionType, bool]) -> str:
    """Return a request for `key` in PEM, of common name `name`, with extensions, each critical or not."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


def quick_seal(key: ec.EllipticCurvePrivateKey, passphrase: SecretStr) -> bytes:
    """Seal as `keys.seal`, without the seconds that age takes of purpose."""
    secret = passphrase.get_secret_value().encode()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(secret))


def quick_unseal(sealed: bytes, passphrase: SecretStr, name: str) -> ec.EllipticCurvePrivateKey:
    """Open what `quick_seal` sealed."""
    try:
        key = load_pem_private_key(sealed, passphrase.get_secret_value().encode())
    except ValueError:
        raise PkiError(f"{name}: cannot be decrypted") from None
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


@contextmanager
def at_work(
    folder: Path,
    now: datetime = NOW,
    want: tuple[Wanted, ...] = WANTED,
    passphrase: Callable[[], SecretStr] = lambda: PASSPHRASE,
) -> Iterator[Ca]:
    """Open the PKI in `folder` for writing."""
    with Store(folder).opened() as ledger:
        yield Ca(ledger, want, now, passphrase)


def whole(folder: Path, hosts: Hosts, now: datetime = NOW) -> Store:
    """Make a PKI in `folder` with every wanted certificate."""
    with at_work(folder, now) as ca:
        ca.init()
        assert not ca.renew(hosts).refused
    return Store(folder)


REAL_SEAL, REAL_UNSEAL = keys.seal, keys.unseal
