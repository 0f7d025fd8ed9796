"""`converge`: what a role's entry file calls; it merges what all services of a host want into a few operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

from pydantic import SecretStr
from pyinfra import host, inventory
from pyinfra.api.exceptions import DeployError

from deploys.openbsd import openbsd
from deploys.parts import certificate_keys, hooks, rendered
from deploys.services.hypervisor import definition
from facts.linux.domain import to_xml
from fleet.connector import Presence, never_show, outcome, reach, record_of, remark
from fleet.load import current, pki_folder
from fleet.model.secret import fill
from fleet.model.service import Declaration, Service
from fleet.model.site import Fleet, Host, Os
from fleet.pki.due import summary, survey
from fleet.pki.store import Store
from fleet.pki.wanted import PkiError
from fleet.pki.wanted import wanted as certificates
from fleet.secrets.vault import Vault, open_for
from fleet.secrets.wanted import wanted
from operations.filesets import filesets, settle, unsettled
from operations.keys import keys
from operations.linux.accounts import accounts
from operations.linux.daemons import daemons
from operations.linux.domains import domains
from operations.linux.packages import packages
from operations.linux.places import Guest
from operations.linux.volumes import Volume, VolumeGroup, check_guests, check_set, preflight, volumes
from operations.verdict import verdict


def converge(*selected: type[Service]) -> None:
    """Bring the `selected` services about on the current host, if it has one of them.

    A host is concerned if it has a selected class that is no base class; its base services come along. `Service`
    itself selects everything, and concerns every host that has a service. Raises DeployError, which stops the run
    before the first connection, for a class that no host of the inventory has, and for secrets that cannot be used.

    The order is: preflight, packages, accounts, prepares, configuration (the dangerous sets last), daemons, what the
    system keeps (sysctls, jobs, tables), converges, volumes, guests, verdict. Guests need the bridge, and where a
    guest lives, libvirt has to say: see docs/decisions/0001-order-of-a-run.md.
    """
    fleet = current()
    _no_strangers(fleet, selected)
    me = fleet.host(host.name)
    mine = _selected(me, selected)
    if not mine:
        return
    vault = _opened(fleet, selected)
    _say_what_is_due(fleet, me)
    record = record_of(host.name)
    record.concerned = True
    presence = reach(host)
    if presence is Presence.AWAY:
        return
    if presence is Presence.FAILED:
        verdict(name="Verdict")
        return
    if me.os is Os.OPENBSD:
        openbsd(fleet, me, mine, vault.values(me.name))
    else:
        _ubuntu(fleet, me, mine, vault.values(me.name))


def _selected(me: Host, selected: tuple[type[Service], ...]) -> list[Service]:
    """Return the services of `me` that a run is about, none if it does not concern this host."""
    mine = [service for service in me.services if isinstance(service, selected) or service.base]
    return mine if Service in selected or not all(service.base for service in mine) else []


def _say_what_is_due(fleet: Fleet, me: Host) -> None:
    """End the run with a line about the private certificates, if any has to be seen to."""
    try:
        register = Store(pki_folder(fleet.site_of(me))).read()
        due = summary(survey(register, certificates(fleet), datetime.now(UTC)))
    except PkiError as error:
        raise DeployError(str(error)) from None
    if due is not None:
        remark(due)


_VAULTS: dict[tuple[type[Service], ...], Vault] = {}


def _opened(fleet: Fleet, selected: tuple[type[Service], ...]) -> Vault:
    """Return the secrets of every host of this run, opened once, before any of them is connected to.

    In `selected` are the classes of the run. Raises DeployError with one line that names the file that is wrong.
    """
    if selected not in _VAULTS:
        state = host.state
        assert state is not None
        names = {each.name for each in inventory if state.is_host_in_limit(each)}
        ours = [each for each in fleet.hosts() if each.name in names and _selected(each, selected)]
        sites = [site for site in fleet.sites if any(each in site.hosts for each in ours)]
        try:
            _VAULTS[selected] = open_for(
                fleet,
                sites,
                ours,
                lambda each: wanted(fleet, each),
                place=lambda site: site.secrets,
                today=_day(),
            )
        except SystemExit as error:
            raise DeployError(str(error)) from None
        never_show(_VAULTS[selected].everything())
    return _VAULTS[selected]


def _ubuntu(fleet: Fleet, me: Host, mine: list[Service], values: Mapping[str, SecretStr]) -> None:
    said = [service.declares(me, fleet) for service in mine]
    # Of what is one list for the whole host, a role's run keeps the other services' part.
    everything = [what for _, what in fleet.declarations(me)]
    if any(what.classes or what.jobs or what.sysctls or what.tables or what.logs for what in everything):
        raise DeployError(
            f"{me.name}: login classes, jobs, sysctls, tables and log files of {me.os} hosts are not brought about"
        )
    hosted = _hosted(fleet, me, said)
    going = [_going]
    if hosted is not None:
        preflight(groups=hosted.groups, wanted=hosted.volumes, today=hosted.today, name="Preflight")
    packages(names=sorted({package for what in said for package in what.packages}), name="Packages", _if=going)
    accounts(
        groups=[it for what in everything for it in what.groups],
        wanted=[it for what in everything for it in what.accounts],
        fill=lambda text: fill(text, values),
        name="Accounts",
        _if=going,
    )
    keys(wanted=certificate_keys(fleet, me, mine), openbsd=False, name="Keys", _if=going)
    hooks(fleet, me, mine, "prepares")
    wished = tuple(daemon for what in said for daemon in what.daemons)
    configuration = rendered(fleet, me, mine)
    filesets(sets=configuration.sets, values=values, followed=unsettled(wished), name="Configuration", _if=going)
    daemons(wanted=wished, own=configuration.own, name="Daemons", _if=going)
    settle(daemons=wished, name="Settled sets", _if=going)
    hooks(fleet, me, mine, "converges")
    if hosted is not None:
        hosted.make()
    verdict(name="Verdict")


@dataclass(frozen=True)
class _Hosted:
    """What a hypervisor is told of the guests that may live on it."""

    groups: list[VolumeGroup]
    volumes: list[Volume]
    guests: list[Guest]
    probes: dict[str, str]
    peers: list[str]
    today: date
    create: frozenset[str]
    restart: frozenset[str]

    def make(self) -> None:
        """Call the operations for volumes and guests; both look first where each guest lives."""
        volumes(
            groups=self.groups,
            wanted=self.volumes,
            guests=self.guests,
            today=self.today,
            probes=self.probes,
            peers=self.peers,
            create=self.create,
            name="Volumes",
            _if=[_going],
        )
        domains(
            guests=self.guests,
            volumes=self.volumes,
            today=self.today,
            devices=[group.device for group in self.groups],
            probes=self.probes,
            peers=self.peers,
            create=self.create,
            restart=self.restart,
            name="Guests",
            _if=[_going],
        )


def _hosted(fleet: Fleet, me: Host, said: list[Declaration]) -> _Hosted | None:
    groups = [VolumeGroup(it.name, it.device, it.size) for what in said for it in what.volume_groups]
    names = {name for what in said for name in what.guests}
    if not groups:
        return None
    guests = [guest for guest in fleet.guests(me) if guest.name in names]
    today = _day()
    hosted = _Hosted(
        groups=groups,
        volumes=[Volume(**dict(volume)) for guest in guests for volume in guest.volumes()],
        guests=[_wish(guest, me, today) for guest in guests],
        probes={it.name: address for it in guests if it.guest and it.guest.encrypted and (address := it.answers_at())},
        peers=[other.name for other in fleet.site_of(me).hosts if other.name != me.name and fleet.volume_groups(other)],
        today=today,
        create=_guests_named("create", names),
        restart=_guests_named("restart", names),
    )
    # What an operation would refuse in the middle of a run is refused here, before anything is touched.
    try:
        check_set(hosted.groups, hosted.volumes)
        check_guests(hosted.guests, hosted.volumes)
        for guest in hosted.guests:
            to_xml(guest.definition)
    except ValueError as error:
        raise DeployError(str(error)) from None
    return hosted


def _wish(guest: Host, me: Host, today: date) -> Guest:
    wanted = guest.guest
    assert wanted is not None
    return Guest(
        definition=definition(guest),
        home=wanted.home == me.name,
        autostart=wanted.autostart,
        encrypted=wanted.encrypted,
        retired=wanted.retired is not None and wanted.retired <= today,
        console=f"fleet console {guest.name}",
    )


def _guests_named(word: str, names: set[str]) -> frozenset[str]:
    """Return the guests in ``--data create=db1,web1``; DeployError for one that there is not."""
    given = host.data.get(word)
    named = frozenset(str(given).split(",")) if given else frozenset()
    for name in sorted(named - names):
        raise DeployError(f"{word}={name}: there is no such guest; there are {', '.join(sorted(names))}")
    return named


def _day() -> date:
    """Return today, or the owner's ``--data today=2027-01-31``: planners have no clock of their own (DESIGN O4)."""
    given = host.data.get("today")
    return date.fromisoformat(str(given)) if given else date.today()


def _going() -> bool:
    return not outcome(host).halted


def _no_strangers(fleet: Fleet, selected: tuple[type[Service], ...]) -> None:
    known = {type(service) for each in fleet.hosts() for service in each.services}
    for cls in selected:
        if not cls.base and not any(issubclass(there, cls) for there in known):
            raise DeployError(f"no host of this inventory has the service {cls.__name__}")
