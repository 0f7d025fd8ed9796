"""The rotation of a root by overlap: trust both, reissue, drop the old one. Pure.

At no moment has a host a certificate that another host does not accept: the new root signs only once every host
trusts it, and the old one goes only once no host shows a certificate of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from fleet.pki import certificates
from fleet.pki.register import Issued, Register
from fleet.pki.wanted import PkiError, Wanted

Held = Mapping[str, frozenset[str]]
"""The SHA-256 fingerprints of the certificates that a host's service has loaded, roots and its own, by host.

A host that is not in it could not be asked, and is waited for.
"""


class Action(StrEnum):
    """What can be done next."""

    BEGIN = "begin"
    WAIT_FOR_TRUST = "wait until every host trusts both roots"
    REISSUE = "reissue"
    WAIT_FOR_CERTIFICATES = "wait until every host shows its new certificates"
    DROP = "drop"


@dataclass(frozen=True)
class Step:
    """The next step of a rotation, and the hosts that it waits for."""

    action: Action
    waits_for: tuple[str, ...] = ()

    @property
    def remains(self) -> str:
        """What remains to be done before the rotation is over, and when that is safe, for a person."""
        hosts = ", ".join(self.waits_for)
        match self.action:
            case Action.BEGIN:
                return "no rotation is under way"
            case Action.WAIT_FOR_TRUST:
                return f"deploy the two roots; safe to go on once they are on: {hosts}. Then: reissue, deploy, drop"
            case Action.REISSUE:
                return "every host trusts both roots: safe to reissue. Then: deploy, drop"
            case Action.WAIT_FOR_CERTIFICATES:
                return f"deploy the new certificates; safe to drop the old root once they are on: {hosts}"
            case Action.DROP:
                return "every host shows its new certificates: safe to drop the old root. Then: deploy, and it is over"


def next_step(register: Register, authority: str, wanted: Iterable[Wanted], held: Held) -> Step:
    """Return the next step for `authority`; PkiError if it has no root.

    A host whose certificates are all revoked is not waited for, nor is one that never had any: it trusts nobody yet
    and begins with what it is given then.
    """
    roots = register.roots(authority)
    if not roots:
        raise PkiError(f"{authority}: has no root: fleet pki init")
    if len(roots) == 1:
        return Step(Action.BEGIN)
    new = roots[-1]
    mine = to_reissue(register, authority, wanted)
    signer = register.signer(authority)
    if signer != new:
        root = certificates.fingerprint(new.signed)
        missing = {each.host for each in mine if root not in held.get(each.host, frozenset())}
        return Step(Action.WAIT_FOR_TRUST, tuple(sorted(missing))) if missing else Step(Action.REISSUE)
    if any(each.root != new.serial for each in mine):
        return Step(Action.REISSUE)
    missing = {
        each.host for each in mine if certificates.fingerprint(each.signed) not in held.get(each.host, frozenset())
    }
    return Step(Action.WAIT_FOR_CERTIFICATES, tuple(sorted(missing))) if missing else Step(Action.DROP)


def to_reissue(register: Register, authority: str, wanted: Iterable[Wanted]) -> tuple[Issued, ...]:
    """Return the certificates of `authority` that live on under a new root: those that are wanted and not revoked."""
    current = [register.current(each.slot) for each in wanted if each.authority.name == authority]
    return tuple(each for each in current if each is not None and not register.is_revoked(each))
