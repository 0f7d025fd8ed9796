"""What is asked of each host, and what was found out: once a host, before the first check is judged.

`Survey` knows who was there and where each guest lives; the checks are made from it in tests/verify/checks.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from testinfra.host import Host as TestinfraHost

from deploys.services.hypervisor import Hypervisor
from deploys.services.nftables import CONF, Nftables
from fleet.model.service import Daemon, FileSet, Listen, VolumeGroup
from fleet.model.site import Fleet, Host, Os, Site
from tests.verify import backend
from tests.verify.modules import dpkg, echo, files, keys, libvirt, links, lvm, nftables, sockets, systemd
from tests.verify.modules.base import Unknown
from tests.verify.modules.libvirt import Domain

MARKERS = ("/var/lib/homefleet/pending/*", "/var/lib/homefleet/armed/*")
"""What a run leaves on a host that it did not finish with."""

MIGRATION_FILES = ("/run/homefleet/migration*",)
MIGRATION_LINK = "/root/.ssh/authorized_keys2"
MIGRATION_KEYS = "/run/homefleet/migration.keys"
MIGRATION_UNITS = "homefleet-migration*"


class SurveyError(Exception):
    """What was asked for cannot be verified at all; one line."""


class Presence(StrEnum):
    """Whether a host was there, in the words of a run: away is only who may be away and takes no TCP connection."""

    REACHED = "reached"
    AWAY = "away"
    FAILED = "failed"


class Declared:
    """What the services of a host declare and render, merged; `today` decides which guests and disks are given up."""

    def __init__(self, fleet: Fleet, host: Host, today: date) -> None:
        self.fleet, self.host, self.today = fleet, host, today

    @property
    def packages(self) -> tuple[str, ...]:
        """Every package."""
        return self.fleet.packages(self.host)

    @property
    def daemons(self) -> tuple[Daemon, ...]:
        """Every daemon."""
        return self.fleet.daemons(self.host)

    @property
    def listens(self) -> tuple[Listen, ...]:
        """Every socket that is declared."""
        return self.fleet.listens(self.host)

    @property
    def groups(self) -> tuple[VolumeGroup, ...]:
        """Every volume group."""
        return self.fleet.volume_groups(self.host)

    @cached_property
    def sets(self) -> tuple[FileSet, ...]:
        """Every set of files."""
        return tuple(each for service in self.host.services for each in service.renders(self.host, self.fleet))

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns that only our files may match."""
        return tuple(pattern for each in self.sets for pattern in each.exclusive)

    @property
    def is_hypervisor(self) -> bool:
        """True if guests can live here."""
        return self.host.service(Hypervisor) is not None

    @property
    def filters(self) -> bool:
        """True if the host has our firewall."""
        return self.host.service(Nftables) is not None

    @cached_property
    def guests(self) -> tuple[Host, ...]:
        """Who can live here and is not given up."""
        if not self.is_hypervisor:
            return ()
        return tuple(guest for guest in self.fleet.guests(self.host) if not given_up(guest, self.today))


class Evidence:
    """What one host that was reached says. Each answer raises `Unknown` if it could not be had.

    Arguments: `remote`, the testinfra host.
    """

    def __init__(self, declared: Declared, remote: TestinfraHost) -> None:
        self.declared, self.remote = declared, remote

    @property
    def name(self) -> str:
        """The host's name."""
        return self.declared.host.name

    def questions(self) -> dict[str, str]:
        """Return every command that the checks of this host will run, by a short name, to be asked in one exec."""
        what = self.declared
        asked = {
            "packages": dpkg.LIST,
            "links": links.SHOW,
            "sockets": sockets.LISTENING,
            "units": systemd.Systemd.show(self._units),
            "files": files.Files.look(self._paths),
        }
        asked |= {pattern: files.Files.match((pattern,)) for pattern in (*MARKERS, *what.patterns)}
        if what.groups:
            asked |= {"groups": lvm.GROUPS, "volumes": lvm.VOLUMES}
        if what.filters:
            asked |= {"kernel": nftables.KERNEL, "ruleset": nftables.Nftables.trial(CONF)}
        if what.is_hypervisor:
            asked["libvirt"] = libvirt.Libvirt.question(self._guests)
            asked["echo"] = echo.Echo.question(self._addresses)
            asked["keys"] = keys.Keys.question(MIGRATION_FILES, MIGRATION_LINK)
            asked["migration"] = systemd.Systemd.listing(MIGRATION_UNITS)
        return asked

    @cached_property
    def dpkg(self) -> dpkg.Dpkg:
        """Packages."""
        return dpkg.dpkg(self.remote)

    @cached_property
    def units(self) -> dict[str, systemd.Unit]:
        """The declared daemons' units."""
        return systemd.systemd(self.remote).units(self._units)

    @cached_property
    def files(self) -> dict[str, files.Found]:
        """The declared files, as they are."""
        return files.files(self.remote).found(self._paths)

    def matching(self, pattern: str) -> tuple[str, ...]:
        """Return the files that match one of the patterns that were asked for."""
        return files.files(self.remote).matching((pattern,))

    @cached_property
    def links(self) -> links.Links:
        """Interfaces."""
        return links.links(self.remote)

    @cached_property
    def lvm(self) -> lvm.Lvm:
        """Volumes."""
        return lvm.lvm(self.remote)

    @cached_property
    def nftables(self) -> nftables.Nftables:
        """The packet filter."""
        return nftables.nftables(self.remote)

    @cached_property
    def sockets(self) -> sockets.Sockets:
        """Listening sockets."""
        return sockets.sockets(self.remote)

    @cached_property
    def libvirt(self) -> libvirt.Answer:
        """Domains and networks."""
        return libvirt.libvirt(self.remote).ask(self._guests)

    @cached_property
    def answering(self) -> frozenset[str]:
        """Which of the guests' addresses answer."""
        return echo.echo(self.remote).answering(self._addresses)

    @cached_property
    def keys(self) -> keys.KeyFiles:
        """What is there of keys for moving guests."""
        return keys.keys(self.remote).look(MIGRATION_FILES, MIGRATION_LINK)

    @cached_property
    def migration_units(self) -> tuple[str, ...]:
        """Which units of a path between the twins are active."""
        return systemd.systemd(self.remote).active(MIGRATION_UNITS)

    def domain(self, guest: Host) -> Domain | None:
        """Return the domain of `guest` here, None if there is none."""
        return self.libvirt.domains.get(guest.name)

    @property
    def _units(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(unit_of(daemon.name) for daemon in self.declared.daemons))

    @property
    def _paths(self) -> tuple[str, ...]:
        return tuple(file.path for each in self.declared.sets for file in each.files)

    @property
    def _guests(self) -> tuple[str, ...]:
        return tuple(guest.name for guest in self.declared.guests)

    @property
    def _addresses(self) -> tuple[str, ...]:
        known = (guest.answers_at() for guest in self.declared.guests)
        return tuple(address for address in known if address is not None)


@dataclass(frozen=True)
class Found:
    """A host as it was found: `evidence` if it was reached, else `reason`; `wanted`, its checks are asked for."""

    host: Host
    presence: Presence
    wanted: bool = True
    reason: str = ""
    evidence: Evidence | None = None


@dataclass(frozen=True)
class Place:
    """Where a guest was found: `on`, the names of hosts, `unasked`, those that could not be asked.

    `silent` are hosts that were reached and whose libvirt did not answer.
    """

    guest: Host
    on: tuple[str, ...]
    unasked: tuple[str, ...]
    silent: tuple[str, ...]


@dataclass
class Survey:
    """All hosts of an inventory that have something to verify, as they were found.

    `idle` are the hosts that have no service yet: nobody asked them.
    """

    fleet: Fleet
    today: date
    found: dict[str, Found] = field(default_factory=dict)
    idle: tuple[str, ...] = ()

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Where each guest is, in the inventory's order."""
        return tuple(self._places())

    def _places(self) -> Iterator[Place]:
        twins = [item for item in self.found.values() if item.host.service(Hypervisor) is not None]
        seen = set()
        for twin in twins:
            for guest in Declared(self.fleet, twin.host, self.today).guests:
                if guest.name not in seen:
                    seen.add(guest.name)
                    names = {host.name for host in self.fleet.site_of(guest).hosts}
                    yield self._place(guest, [item for item in twins if item.host.name in names])

    def _place(self, guest: Host, twins: Sequence[Found]) -> Place:
        on, unasked, silent = [], [], []
        for twin in twins:
            if twin.evidence is None:
                unasked.append(twin.host.name)
                continue
            try:
                if twin.evidence.domain(guest) is not None:
                    on.append(twin.host.name)
            except Unknown:
                silent.append(twin.host.name)
        return Place(guest, tuple(on), tuple(unasked), tuple(silent))


Ask = Callable[[Declared], Found]
"""Reaches one host and asks it; the network is behind this."""


def survey(fleet: Fleet, sites: Sequence[Site], today: date, ask: Ask, limit: Sequence[str] | None = None) -> Survey:
    """Return what the hosts of `sites` say, asked at the same time.

    Arguments: `limit`, names of the only hosts to verify; their twins are asked where the guests are, and never
    blamed. Raises SurveyError for a name that no site has.
    """
    check_limit(sites, limit)
    hosts = [host for site in sites for host in site.hosts]
    wanted = [host for host in hosts if limit is None or host.name in limit]
    verified = {host.name: host for host in wanted if host.services}
    for host in verified.values():
        if host.os is not Os.UBUNTU:
            raise SurveyError(f"{host.name}: there is no verification for {host.os} yet")
    twins = {
        twin.name: twin
        for host in verified.values()
        if host.service(Hypervisor) is not None
        for twin in fleet.peers(host, Hypervisor)
        if twin.name not in verified
    }
    made = Survey(fleet, today, idle=tuple(host.name for host in wanted if not host.services))
    asked = [*verified.values(), *twins.values()]
    with ThreadPoolExecutor(max_workers=8) as pool:
        answers = pool.map(lambda host: ask(Declared(fleet, host, today)), asked)
        for host, found in zip(asked, answers, strict=True):
            is_wanted = host.name in verified
            made.found[host.name] = Found(host, found.presence, is_wanted, found.reason, found.evidence)
    return made


def check_limit(sites: Sequence[Site], limit: Sequence[str] | None) -> None:
    """Raise SurveyError if a name of `limit` is no host of `sites`."""
    known = {host.name for site in sites for host in site.hosts}
    for name in limit or ():
        if name not in known:
            raise SurveyError(f"--limit: no host {name!r}: there are {', '.join(sorted(known))}")


def over_ssh(folder: Path) -> Ask:
    """Return what asks a host over the network, with its sockets and configuration in `folder`."""

    def ask(declared: Declared) -> Found:
        host = declared.host
        reason = backend.probe(host.connection)
        if reason is not None:
            away = host.presence == "sometimes"
            return Found(host, Presence.AWAY if away else Presence.FAILED, reason=reason)
        evidence = Evidence(declared, backend.connect(host, folder))
        try:
            evidence.remote.backend.prefetch(tuple(evidence.questions().values()))
        except RuntimeError as error:
            return Found(host, Presence.FAILED, reason=str(error))
        return Found(host, Presence.REACHED, evidence=evidence)

    return ask


def ask_everything(fleet: Fleet, sites: Sequence[Site], today: date, limit: Sequence[str] | None = None) -> Survey:
    """Return the survey of real hosts; every connection is closed again."""
    with tempfile.TemporaryDirectory(prefix="hv") as name:
        folder = Path(name)
        try:
            return survey(fleet, sites, today, over_ssh(folder), limit)
        finally:
            backend.disconnect(folder)


def given_up(guest: Host, today: date) -> bool:
    """True if `guest` is retired: nothing of it is expected any more."""
    return guest.guest is not None and guest.guest.retired is not None and guest.guest.retired <= today


def unit_of(daemon: str) -> str:
    """Return the unit of a daemon: without a dot in its name it is a service."""
    return daemon if "." in daemon else f"{daemon}.service"
