"""The checks of private certificates, of their keys, and of the clock by which they are valid; for both systems."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import PurePosixPath

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from facts.keys import KeyState, digest
from fleet.model.pki import Use
from fleet.pki import certificates
from fleet.pki.due import RED_DAYS
from fleet.pki.wanted import Wanted
from operations.keys import CLOCK_SECONDS
from tests.verify import kinds
from tests.verify.common import bind, check
from tests.verify.evidence import Evidence
from tests.verify.kinds import Check, Red

_PURPOSE = {Use.SERVER: ExtendedKeyUsageOID.SERVER_AUTH, Use.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH}

_RENEW = "fleet pki renew, deploy"


def pki(evidence: Evidence) -> Iterator[Check]:
    """Yield the checks of the clock, and of every declared private key and certificate.

    Before an authority has a root, no certificate of it is demanded.
    """
    declared = evidence.declared
    yield check(kinds.CLOCK, declared.host, "clock", bind(_clock, evidence))
    for wanted in declared.certificates:
        said = wanted.declared
        judge = bind(_private_key, evidence, wanted)
        yield check(kinds.PRIVATE_KEY, declared.host, f"private-key/{said.name}", judge, key=said.key_path)
        if wanted.authority.name in declared.fleet.published.roots:
            judge = bind(_certificate, evidence, wanted)
            yield check(kinds.CERTIFICATE, declared.host, f"certificate/{said.name}", judge, path=said.certificate_path)


def _clock(evidence: Evidence) -> None:
    """Judge by the whole time that the question took: a slow host is not a wrong clock."""
    before, after = evidence.asked
    clock = evidence.private_keys.clock
    if clock + 1 < before - CLOCK_SECONDS:
        behind = before - clock
        raise Red(f"it is {behind:.0f} s behind: certificates may not be valid there yet, times in the log are wrong")
    if clock > after + CLOCK_SECONDS:
        ahead = clock - after
        raise Red(f"it is {ahead:.0f} s ahead: certificates may be over there already, times in the log are wrong")


def _private_key(evidence: Evidence, wanted: Wanted) -> None:
    path = PurePosixPath(wanted.declared.key_path)
    found = evidence.private_keys.keys.get(str(path))
    if found is None:
        raise Red("there is none: deploy")
    if said := [*_unlike(found, wanted), *_open(evidence, path.parent)]:
        raise Red("; ".join(said))


def _unlike(found: KeyState, wanted: Wanted) -> Iterator[str]:
    if found.public is None:
        yield f"it is no private key of P-256: move it away, deploy, {_RENEW}"
    if (found.owner, found.mode) != (wanted.declared.owner, 0o600):
        yield f"it is {found.mode:04o} {found.owner}, not 0600 {wanted.declared.owner}: others may have read it"


def _open(evidence: Evidence, folder: PurePosixPath) -> Iterator[str]:
    """Yield how others get at what is in a folder; only one that is called private is shut to readers too."""
    found = evidence.owners.get(str(folder))
    if found is None:
        yield "its folder is missing"
        return
    owner, group, mode = found
    if owner != "root" or mode & (0o027 if folder.name == "private" else 0o022):
        yield f"its folder is {mode:04o} {owner}:{group}: others may put another key there, or see what is in it"


def _certificate(evidence: Evidence, wanted: Wanted) -> None:
    published = evidence.declared.fleet.published
    given = published.certificates.get(wanted.slot)
    if given is None:
        revoked = wanted.slot in published.revoked
        raise Red(f"it is revoked: a new key, {_RENEW}" if revoked else f"none is signed: {_RENEW}")
    held = evidence.held.get(wanted.declared.name)
    if held is None:
        raise Red("its daemon does not run with it yet: deploy")
    if not held.certificates:
        raise Red("it is not on the host: deploy")
    try:
        signed = certificates.read_certificate(held.certificates[0])
        said = list(_faults(evidence, wanted, signed))
    except (ValueError, x509.DuplicateExtension, x509.InvalidVersion) as error:
        raise Red(f"it cannot be read: {error}: deploy") from None
    if held.certificates != (given,):
        said.insert(0, "it is another one than the register has: deploy")
    if "".join(held.roots) != published.roots[wanted.authority.name]:
        said.append("the roots beside it are not those that are published: deploy")
    if said:
        raise Red("; ".join(said))


def _faults(evidence: Evidence, wanted: Wanted, signed: x509.Certificate) -> Iterator[str]:
    """Yield what is wrong with a certificate; ValueError if it is none of ours."""
    key = evidence.private_keys.keys.get(wanted.declared.key_path)
    if key is None or key.public != digest(certificates.public_key(signed)):
        yield f"it is not of the key on the host: {_RENEW}"
    if fault := next(_validity(evidence, signed), None):
        yield fault
    called = [str(each.value) for each in signed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    names = _names(signed)
    if called != [wanted.host] or set(names) != set(wanted.names):
        yield f"it is of {', '.join((*called, *names))}, not of {', '.join((wanted.host, *wanted.names))}: {_RENEW}"
    if _purposes(signed) != [_PURPOSE[wanted.use]]:
        yield f"it is not for a {wanted.use} alone: {_RENEW}"


def _validity(evidence: Evidence, signed: x509.Certificate) -> Iterator[str]:
    """Yield what is wrong by our clock, and then by the host's, which decides there."""
    theirs = evidence.private_keys.clock
    for clock, whose in ((evidence.asked[1], ""), (theirs, " by the host's clock")):
        now = datetime.fromtimestamp(clock, UTC)
        days = (signed.not_valid_after_utc - now).days
        if now < signed.not_valid_before_utc:
            yield f"it is not valid yet{whose}"
        elif days < RED_DAYS:
            yield f"{f'{days} days left' if days >= 0 else 'it has expired'}{whose}: {_RENEW}"


def _names(signed: x509.Certificate) -> tuple[str, ...]:
    try:
        return certificates.names_of(signed)
    except x509.ExtensionNotFound:
        return ()


def _purposes(signed: x509.Certificate) -> list[x509.ObjectIdentifier]:
    try:
        return list(signed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return []
