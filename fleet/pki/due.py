"""What there is, how long it is good for, and what of it has to be renewed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from fleet.model.pki import Authority, Use
from fleet.pki import certificates
from fleet.pki.register import Issued, Register, Root
from fleet.pki.wanted import Wanted

DUE_DAYS = 60
"""Below so many days a certificate or a CRL is due: a month before it is red."""

RED_DAYS = 30
"""Below so many days anything is red."""


class State(StrEnum):
    """How urgent something is."""

    FINE = "fine"
    DUE = "due"
    RED = "red"


class Kind(StrEnum):
    """What an `Item` is about."""

    ROOT = "root"
    CRL = "crl"
    CERTIFICATE = "certificate"


@dataclass(frozen=True)
class Item:
    """A root, CRL or certificate: `days` left of it (None: there is none), and `why` it is not fine.

    `serial` is of the certificate or, for a CRL, of its root. `wanted` is None for a certificate that no service wants
    any more.
    """

    kind: Kind
    authority: str
    state: State
    why: str = ""
    serial: str = ""
    days: int | None = None
    host: str = ""
    use: Use | None = None
    service: str = ""
    wanted: Wanted | None = None

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{self.authority} {self.host} {self.use}" if self.host else f"{self.authority} {self.kind}"


def survey(register: Register, wanted: Iterable[Wanted], now: datetime) -> tuple[Item, ...]:
    """Return an item for each trusted root, its CRL, each `wanted` certificate, and each that is wanted no more."""
    every = tuple(wanted)
    declared = {each.authority.name: each.authority for each in every}
    items: list[Item] = []
    for name in sorted({*declared, *(root.authority for root in register.all_roots())}):
        items += _of_roots(register, name, declared.get(name), now)
        items += [_of_certificate(register, each, now) for each in every if each.authority.name == name]
        items += _unwanted(register, name, {each.slot for each in every}, now)
    return tuple(items)


def summary(items: Iterable[Item]) -> str | None:
    """Return one line that says what is due, the most urgent first, or None if nothing is."""
    open_items = sorted(
        (item for item in items if item.state is not State.FINE),
        key=lambda item: (item.state is not State.RED, item.days if item.days is not None else -1),
    )
    if not open_items:
        return None
    said = ", ".join(f"{item.name}: {item.why}" for item in open_items[:3])
    more = f" and {len(open_items) - 3} more" if len(open_items) > 3 else ""
    return f"pki: {len(open_items)} due: {said}{more}: fleet pki status"


def _of_roots(register: Register, name: str, authority: Authority | None, now: datetime) -> Iterator[Item]:
    roots = register.roots(name)
    if not roots:
        yield Item(Kind.ROOT, name, State.RED, "there is none: fleet pki init")
    for root in roots:
        days = _days(root.signed.not_valid_after_utc, now)
        state, why = _root_state(register, root, authority, days)
        yield Item(Kind.ROOT, name, state, why, root.serial, days)
        yield _of_crl(register, root, now)


def _root_state(register: Register, root: Root, authority: Authority | None, days: int) -> tuple[State, str]:
    if days < RED_DAYS:
        return State.RED, f"{days} days left: fleet pki rotate-ca {root.authority}"
    if len(register.roots(root.authority)) > 1:
        return State.DUE, f"one of two: fleet pki rotate-ca {root.authority} says what remains"
    if authority is None:
        return State.FINE, ""
    if set(certificates.domains_of(root.signed)) != set(authority.domains):
        return State.DUE, f"its domains are not the inventory's: fleet pki rotate-ca {root.authority} --begin"
    if days < authority.root_days // 10:
        return State.DUE, f"{days} days left: fleet pki rotate-ca {root.authority} --begin"
    return State.FINE, ""


def _of_crl(register: Register, root: Root, now: datetime) -> Item:
    crl = register.crl(root.serial)
    ends = crl.signed.next_update_utc if crl is not None else None
    days = _days(ends, now) if ends is not None else None
    if register.crl_is_behind(root.serial):
        return Item(Kind.CRL, root.authority, State.RED, "lacks what is revoked", root.serial, days)
    state, why = _by_days(days or 0)
    return Item(Kind.CRL, root.authority, state, why, root.serial, days)


def _of_certificate(register: Register, wanted: Wanted, now: datetime) -> Item:
    current = register.current(wanted.slot)
    state, why, serial, days = State.RED, "there is none: deploy, fleet pki renew", "", None
    if current is not None:
        serial, days = current.serial, _days(current.signed.not_valid_after_utc, now)
        state, why = next(_troubles(register, wanted, current, days), (State.FINE, ""))
    name, host, use, service = wanted.authority.name, wanted.host, wanted.use, wanted.service
    return Item(Kind.CERTIFICATE, name, state, why, serial, days, host, use, service, wanted)


def _troubles(register: Register, wanted: Wanted, current: Issued, days: int) -> Iterator[tuple[State, str]]:
    """Yield what is wrong with a certificate, the most urgent first."""
    authority = wanted.authority.name
    signer = register.signer(authority)
    if register.is_revoked(current):
        yield State.RED, "revoked: it needs a request with a new key"
    if current.root not in {root.serial for root in register.roots(authority)}:
        yield State.RED, "its root is not trusted any more"
    if days < DUE_DAYS:
        yield _by_days(days)
    if signer is not None and current.root != signer.serial:
        yield State.DUE, "of the root before"
    if set(certificates.names_of(current.signed)) != set(wanted.names):
        yield State.DUE, "its names are not the inventory's"


def _unwanted(register: Register, authority: str, slots: set[str], now: datetime) -> Iterator[Item]:
    for name in register.slots():
        accepted = register.accepted(name, now)
        if name in slots or not accepted or accepted[-1].authority != authority:
            continue
        last = accepted[-1]
        days = _days(last.signed.not_valid_after_utc, now)
        why = "no service wants it any more: fleet pki revoke"
        yield Item(Kind.CERTIFICATE, authority, State.DUE, why, last.serial, days, last.host, last.use, last.service)


def _by_days(days: int) -> tuple[State, str]:
    if days < RED_DAYS:
        return State.RED, f"{days} days left" if days >= 0 else "expired"
    if days < DUE_DAYS:
        return State.DUE, f"{days} days left"
    return State.FINE, ""


def _days(end: datetime, now: datetime) -> int:
    """Return the whole days from `now` to `end`; less than 0 once it is over."""
    return (end - now).days
