"""What a played host of either system has of the PKI and of the log, and a PKI in memory for a fleet."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from facts.keys import DONE as KEYS_DONE
from facts.openbsd.logfiles import DONE as LOGFILES_DONE
from fleet.model.pki import Authority, Published
from fleet.model.site import Fleet
from fleet.pki import certificates
from fleet.pki.wanted import Wanted, wanted
from tests.verify.declared import Declared

Answer = tuple[int, str, str]

MARK = "-----BEGIN CERTIFICATE-----"

KINDS = frozenset({"certificate", "clock", "log-arrives", "log-file", "private-key"})
"""What tests/unit/test_verify_pki.py breaks, on both systems."""


def signed(each: Wanted, days: int = 730, start: timedelta = timedelta(0)) -> str:
    """Return a certificate in PEM as `each` is wanted, of a root and a key that nobody keeps, valid from now."""
    return _Root(each.authority, datetime.now(UTC) + start).sign(each, days)


def with_pki(fleet: Fleet) -> Fleet:
    """Return `fleet` with everything published that it wants."""
    every = wanted(fleet)
    roots = {
        name: _Root(each, datetime.now(UTC)) for name, each in {it.authority.name: it.authority for it in every}.items()
    }
    given = Published(
        certificates={each.slot: roots[each.authority.name].sign(each, each.authority.leaf_days) for each in every},
        roots={name: certificates.pem_of(root.signed) for name, root in roots.items()},
    )
    return fleet.model_copy(update={"published": given})


class _Root:
    def __init__(self, authority: Authority, now: datetime) -> None:
        self._key, self._now = _key(), now
        self.signed = certificates.make_root(authority, self._key, certificates.new_serial(), now)

    def sign(self, each: Wanted, days: int) -> str:
        authority = each.authority.model_copy(update={"leaf_days": days})
        said = Wanted(each.host, each.names, each.service, each.declared.model_copy(update={"authority": authority}))
        public, serial = _key().public_key(), certificates.new_serial()
        return certificates.pem_of(
            certificates.make_certificate(said, public, self.signed, self._key, serial, self._now)
        )


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _public(pem: str | None) -> str:
    """Return the public key of a certificate, or of nothing yet, as openssl(1) shows it, in one line."""
    public = _key().public_key() if pem is None else certificates.public_key(certificates.read_certificate(pem))
    return base64.b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


@dataclass
class PlayedPki:
    """A host's part of it, to be broken by a test.

    `keys` by path are owner, group, mode and public key; `held` by name a certificate and roots; `owners` by path
    owner, group and mode of folders and log files; `lost`, whose lines the host does not have, if it is the server.
    """

    clock: int = field(default_factory=lambda: int(time.time()))
    asked: tuple[float, float] = field(default_factory=lambda: (time.time(), time.time() + 1))
    keys: dict[str, list[str]] = field(default_factory=dict)
    held: dict[str, list[str]] = field(default_factory=dict)
    owners: dict[str, list[str]] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    silent: dict[str, Answer] = field(default_factory=dict)

    def said(self, openbsd: bool) -> dict[str, Answer]:
        """Return the answers by the name of their question."""
        keys = [f"key {' '.join(words)} {path}" for path, words in self.keys.items()]
        held = [
            line
            for name, (certificate, roots) in self.held.items()
            for line in (f"certificate {name}", *certificate.splitlines(), f"roots {name}", *roots.splitlines())
        ]
        if openbsd:
            owners = [*(f"{' '.join(words)} {path}" for path, words in self.owners.items()), LOGFILES_DONE]
        else:
            owners = [f"{'|'.join(words)}|directory||{path}" for path, words in self.owners.items()]
        lines: dict[str, Iterable[str]] = {
            "private keys": [f"clock {self.clock}", *keys, KEYS_DONE],
            "certificates": [*held, KEYS_DONE],
            "owners": owners,
            "line": [],
        }
        return {name: (0, "".join(f"{line}\n" for line in text), "") for name, text in lines.items()} | self.silent

    def looked_up(self, command: str) -> Answer:
        """Return what the log server says of the lines that `command` looks for."""
        if "arrived" in self.silent:
            return self.silent["arrived"]
        found = re.findall(r"^look ([0-9a-f]{16}-(\S+)) /var/log/hosts/\2/user$", command, re.MULTILINE)
        assert found, command
        return 0, "".join(f"{line}\n" for line, host in found if host not in self.lost), ""


def healthy_pki(declared: Declared) -> PlayedPki:
    """Return the host's part after a deploy, with what is published."""
    published = declared.fleet.published
    group = "wheel" if declared.openbsd else "root"
    made = PlayedPki()
    for each in declared.certificates:
        said, given = each.declared, published.certificates.get(each.slot)
        folder = PurePosixPath(said.key_path).parent
        made.keys[said.key_path] = [said.owner, group, "600", _public(given)]
        made.owners[str(folder)] = ["root", group, "700" if folder.name == "private" else "755"]
        made.held[said.name] = [given or "", published.roots.get(each.authority.name, "") if given else ""]
    for log in declared.logs:
        made.owners[log.path] = [log.owner, log.group, f"{log.mode:o}"]
    return made
