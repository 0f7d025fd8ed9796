"""What the convergence of every operating system consists of: the sets and the hooks of a host's services."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyinfra import host

from fleet.model.service import FileSet, Service
from fleet.model.site import Fleet, Host
from fleet.pki.wanted import slot
from operations.keys import Key


@dataclass(frozen=True)
class Rendered:
    """The configuration sets of a host, and for each daemon the names of those that go with it."""

    sets: tuple[FileSet, ...]
    own: dict[str, frozenset[str]]


def rendered(fleet: Fleet, me: Host, mine: Sequence[Service]) -> Rendered:
    """Return the configuration of `mine`, services of `me`."""
    made = [(service, tuple(service.renders(me, fleet))) for service in mine]
    return Rendered(
        sets=tuple(each for _, sets in made for each in sets),
        own={
            daemon.name: frozenset(each.name for each in sets)
            for service, sets in made
            for daemon in service.declares(me, fleet).daemons
        },
    )


def certificate_keys(fleet: Fleet, me: Host, mine: Sequence[Service]) -> list[Key]:
    """Return the private keys that `mine`, services of `me`, want, with the certificates that there are for them."""
    return [
        Key(
            name=wanted.name,
            path=wanted.key_path,
            owner=wanted.owner,
            certificate=fleet.published.certificates.get(slot(wanted.authority.name, me.name, wanted.use)),
        )
        for service in mine
        for wanted in service.declares(me, fleet).certificates
    ]


def hooks(fleet: Fleet, me: Host, mine: Sequence[Service], hook: str) -> None:
    """Call one hook of all services, visiting every class of the model in one order on every host.

    pyinfra tells operations apart by line numbers alone: without the loop's position the hooks of different
    services merge or end in "Cycle detected" (reference 9.2).
    """
    order = sorted({type(service) for each in fleet.hosts() for service in each.services}, key=lambda c: c.__name__)
    present = {type(service): service for service in mine}
    for cls in host.loop(order):  # type: ignore[no-untyped-call]
        if cls in present:
            getattr(present[cls], hook)(me, fleet)
