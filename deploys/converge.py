"""`converge`: what a role's entry file calls; it merges what all services of a host want into a few operations."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from pyinfra import host
from pyinfra.api.exceptions import DeployError

from fleet.connector import Presence, outcome, reach, record_of
from fleet.load import current
from fleet.model.service import Declaration, FileSet, Service
from fleet.model.site import Fleet, Host, Os
from operations.filesets import filesets
from operations.linux.daemons import daemons
from operations.linux.packages import packages
from operations.verdict import verdict


def converge(*selected: type[Service]) -> None:
    """Bring the `selected` services about on the current host, if it has one of them.

    A host is concerned if it has a selected class that is no base class; its base services come along. Raises
    DeployError, which stops the run before anything is touched, for a class that no host of the inventory has.

    The order is: preflight, packages, volumes, prepares, configuration (the dangerous sets last), daemons,
    converges, guests, verdict. A set that can lock the owner out is applied before the guests, since they need
    the bridge; see docs/decisions.
    """
    fleet = current()
    _no_strangers(fleet, selected)
    me = fleet.host(host.name)
    mine = [service for service in me.services if isinstance(service, selected) or service.base]
    if all(service.base for service in mine):
        return
    record = record_of(host.name)
    record.concerned = True
    presence = reach(host)
    if presence is Presence.AWAY:
        return
    if presence is Presence.FAILED:
        verdict(name="Verdict")
        return
    if me.os is not Os.UBUNTU:
        raise DeployError(f"{me.name}: {me.os} hosts have no role in this codebase yet")
    _ubuntu(fleet, me, mine)


def _ubuntu(fleet: Fleet, me: Host, mine: list[Service]) -> None:
    said = [(service, service.declares(me, fleet)) for service in mine]
    going = [_going]
    groups = tuple(group for _, what in said for group in what.volume_groups)
    if groups:
        preflight(fleet, me, groups, name="Preflight")
    packages(
        sorted({package for _, what in said for package in what.packages}), name="Packages", _if=going
    )
    if groups:
        make_volumes(fleet, me, groups, name="Volumes", _if=going)
    _hooks(fleet, me, mine, "prepares")
    filesets(tuple(_sets(fleet, me, mine)), name="Configuration", _if=going)
    daemons(tuple(daemon for _, what in said for daemon in what.daemons), name="Daemons", _if=going)
    _hooks(fleet, me, mine, "converges")
    if any(what.guests for _, what in said):
        guests(fleet, me, groups, name="Guests", _if=going)
    verdict(name="Verdict")


def _going() -> bool:
    return not outcome(host).halted


def _no_strangers(fleet: Fleet, selected: tuple[type[Service], ...]) -> None:
    known = {type(service) for each in fleet.hosts() for service in each.services}
    for cls in selected:
        if not any(issubclass(there, cls) for there in known):
            raise DeployError(f"no host of this inventory has the service {cls.__name__}")


def _sets(fleet: Fleet, me: Host, mine: list[Service]) -> Iterator[FileSet]:
    for service in mine:
        yield from service.renders(me, fleet)


def _hooks(fleet: Fleet, me: Host, mine: list[Service], hook: str) -> None:
    """Call one hook of all services, visiting every class of the model in one order on every host.

    pyinfra tells operations apart by line numbers alone: without the loop's position the hooks of different
    services merge or end in "Cycle detected" (reference 9.2).
    """
    order = sorted({type(service) for each in fleet.hosts() for service in each.services}, key=lambda c: c.__name__)
    present = {type(service): service for service in mine}
    for cls in host.loop(order):
        if cls in present:
            getattr(present[cls], hook)(me, fleet)
