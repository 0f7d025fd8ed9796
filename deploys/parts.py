"""What the convergence of every operating system consists of: the sets and the hooks of a host's services."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pyinfra import host

from fleet.model.service import FileSet, Service
from fleet.model.site import Fleet, Host


def sets(fleet: Fleet, me: Host, mine: Sequence[Service]) -> Iterator[FileSet]:
    """Yield the configuration sets of `mine`, services of `me`."""
    for service in mine:
        yield from service.renders(me, fleet)


def own_sets(fleet: Fleet, me: Host, mine: Sequence[Service]) -> dict[str, frozenset[str]]:
    """Return the names of the configuration sets that go with each daemon of `mine`, services of `me`, by its name."""
    return {
        daemon.name: frozenset(each.name for each in service.renders(me, fleet))
        for service in mine
        for daemon in service.declares(me, fleet).daemons
    }


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
