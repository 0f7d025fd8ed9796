"""The register: everything that was ever issued or revoked, one line of JSON each, only ever added to. Pure.

A line is the record that makes a thing so: a certificate that is in no line was never given to anybody, because its
line is on the disk before it leaves the process. Each line has in `hash` the SHA-256 of the `hash` before it and of
its own content, so that a changed, removed or moved line shows; that the last ones were cut off shows in git only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Annotated, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fleet.model.pki import Use
from fleet.pki import certificates
from fleet.pki.wanted import PkiError, slot

_NOTHING = "0" * 64
"""The hash before the first line."""

Serial = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    at: datetime
    authority: str


class Begun(_Record):
    """The key of a root is about to be written; without a `Root` of that serial after it, it was never used."""

    what: Literal["begun"] = "begun"
    serial: Serial


class Root(_Record):
    """A new root, whose key is on the disk; its certificate in PEM."""

    what: Literal["root"] = "root"
    serial: Serial
    certificate: str

    @cached_property
    def signed(self) -> x509.Certificate:
        """The certificate, read."""
        return certificates.read_certificate(self.certificate)


class Issued(_Record):
    """A certificate in PEM, for a host and a use, signed by the root of serial `root`; who wanted it."""

    what: Literal["issued"] = "issued"
    root: Serial
    host: str
    use: Use
    service: str
    serial: Serial
    certificate: str

    @cached_property
    def signed(self) -> x509.Certificate:
        """The certificate, read."""
        return certificates.read_certificate(self.certificate)

    @property
    def slot(self) -> str:
        """The name of the certificate, as `Wanted.slot`."""
        return slot(self.authority, self.host, self.use)


class Revoked(_Record):
    """A certificate that shall not be accepted any more, and why."""

    what: Literal["revoked"] = "revoked"
    root: Serial
    serial: Serial
    reason: str


class Crl(_Record):
    """A list of what is revoked of a root, in PEM."""

    what: Literal["crl"] = "crl"
    root: Serial
    number: int
    crl: str

    @cached_property
    def signed(self) -> x509.CertificateRevocationList:
        """The list, read."""
        return x509.load_pem_x509_crl(self.crl.encode())


class Signs(_Record):
    """From here on the root of serial `root` signs for its authority: every host trusts it."""

    what: Literal["signs"] = "signs"
    root: Serial


class Dropped(_Record):
    """The root of serial `root` is trusted no more."""

    what: Literal["dropped"] = "dropped"
    root: Serial


Record = Begun | Root | Issued | Revoked | Crl | Signs | Dropped

_READER: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="what")])


@dataclass(frozen=True)
class Register:
    """What the lines say; `head` is the hash of the last one."""

    records: tuple[Record, ...] = ()
    head: str = field(default=_NOTHING)

    def line(self, record: Record) -> bytes:
        """Return the line that adds `record` behind the last one, with its newline."""
        return _line(self.head, record)[0]

    def with_(self, record: Record) -> Register:
        """Return the register with `record` added."""
        return Register((*self.records, record), _line(self.head, record)[1])

    def roots(self, authority: str) -> tuple[Root, ...]:
        """Return the roots of an authority that are trusted, the oldest first: one, or two during a rotation."""
        dropped = {record.root for record in self.records if isinstance(record, Dropped)}
        return tuple(root for root in self.all_roots() if root.authority == authority and root.serial not in dropped)

    def all_roots(self) -> tuple[Root, ...]:
        """Return every root there ever was."""
        return tuple(record for record in self.records if isinstance(record, Root))

    def signer(self, authority: str) -> Root | None:
        """Return the root that signs for an authority, or None before its first."""
        live = self.roots(authority)
        signs = [record.root for record in self.records if isinstance(record, Signs) and record.authority == authority]
        return next((root for root in live if signs and root.serial == signs[-1]), live[0] if live else None)

    def unused_keys(self) -> tuple[Begun, ...]:
        """Return what was begun and never became a root."""
        known = {root.serial for root in self.all_roots()}
        return tuple(each for each in self.records if isinstance(each, Begun) and each.serial not in known)

    def issued(self, name: str | None = None) -> tuple[Issued, ...]:
        """Return every certificate that was issued, the oldest first, or those called `name` (`Wanted.slot`)."""
        every = (record for record in self.records if isinstance(record, Issued))
        return tuple(record for record in every if name in (None, record.slot))

    def current(self, name: str) -> Issued | None:
        """Return the last certificate called `name` (`Wanted.slot`), valid or not, or None."""
        found = self.issued(name)
        return found[-1] if found else None

    def slots(self) -> tuple[str, ...]:
        """Return the name of each certificate that was ever issued, sorted."""
        return tuple(sorted({record.slot for record in self.issued()}))

    def revoked(self, root: str) -> tuple[Revoked, ...]:
        """Return what is revoked of the root of serial `root`, in the order in which it was."""
        return tuple(record for record in self.records if isinstance(record, Revoked) and record.root == root)

    def is_revoked(self, issued: Issued) -> bool:
        """Return whether a certificate is revoked."""
        return any(record.serial == issued.serial for record in self.revoked(issued.root))

    def accepted(self, name: str, now: datetime) -> tuple[Issued, ...]:
        """Return the certificates called `name` that are valid at `now`, not revoked and of a trusted root.

        After a renewal that is more than one: the one before stays valid until it expires or is revoked.
        """
        dropped = {record.root for record in self.records if isinstance(record, Dropped)}
        return tuple(
            each
            for each in self.issued(name)
            if each.signed.not_valid_before_utc <= now < each.signed.not_valid_after_utc
            and each.root not in dropped
            and not self.is_revoked(each)
        )

    def crl(self, root: str) -> Crl | None:
        """Return the last CRL of the root of serial `root`, or None."""
        found = [record for record in self.records if isinstance(record, Crl) and record.root == root]
        return found[-1] if found else None

    def crl_is_behind(self, root: str) -> bool:
        """Return whether a root has no CRL, or one that lacks what is revoked."""
        crl = self.crl(root)
        return crl is None or {int(each.serial, 16) for each in self.revoked(root)} != {
            each.serial_number for each in crl.signed
        }

    def serials(self) -> Iterator[int]:
        """Yield every serial number that is taken."""
        for record in self.records:
            if isinstance(record, Begun | Root | Issued):
                yield int(record.serial, 16)


def parse(lines: Iterable[bytes], name: str) -> Register:
    """Return the register that whole `lines`, without their newlines, are.

    Arguments: `name`, the file, for messages. Raises PkiError, naming the file and the line, for a line that is no
    record, that does not fit to the one before it, or whose certificate or CRL is not what the record says or not
    signed by its root.
    """
    register = Register()
    roots: dict[str, Root] = {}
    issued: set[tuple[str, str]] = set()
    for number, line in enumerate(lines, 1):
        where = f"{name}: line {number}"
        try:
            data = json.loads(line)
            said = data.pop("hash")
            record = _READER.validate_python(data)
        except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
            raise PkiError(f"{where}: is no record of the register") from None
        register = register.with_(record)
        if said != register.head:
            raise PkiError(f"{where}: does not fit to the lines before it: it, or one of them, was changed or removed")
        try:
            _examine(record, roots, issued)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise PkiError(f"{where}: {str(error) or 'is not signed by its root'}") from None
    return register


def _examine(record: Record, roots: dict[str, Root], issued: set[tuple[str, str]]) -> None:
    """Raise ValueError or InvalidSignature where a record says what its certificate, or an earlier record, does not."""
    root = None
    if isinstance(record, Issued | Revoked | Crl | Signs | Dropped):
        root = roots.get(record.root)
        if root is None or root.authority != record.authority:
            raise ValueError(f"there is no root {record.root} of {record.authority} before it")
    match record:
        case Root():
            _has_serial(record.signed, record.serial)
            record.signed.verify_directly_issued_by(record.signed)
            roots[record.serial] = record
        case Issued():
            assert root is not None
            _has_serial(record.signed, record.serial)
            record.signed.verify_directly_issued_by(root.signed)
            issued.add((record.root, record.serial))
        case Crl():
            assert root is not None
            if not record.signed.is_signature_valid(certificates.public_key(root.signed)):
                raise ValueError("the list is not signed by its root")
        case Revoked():
            if (record.root, record.serial) not in issued:
                raise ValueError(f"revokes {record.serial}, which was never issued")
        case Begun() | Signs() | Dropped():
            pass


def _has_serial(certificate: x509.Certificate, serial: str) -> None:
    if certificates.hex_of(certificate.serial_number) != serial:
        raise ValueError(f"its certificate is not number {serial}")


def _line(before: str, record: Record) -> tuple[bytes, str]:
    content = record.model_dump(mode="json")
    digest = hashlib.sha256(f"{before}{json.dumps(content, sort_keys=True)}".encode()).hexdigest()
    return f"{json.dumps({**content, 'hash': digest}, sort_keys=True)}\n".encode(), digest
