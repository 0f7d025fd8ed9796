"""What is asked of each host, and what was found out: once a host, before the first check is judged.

`Survey` knows who was there and where each guest lives; the checks are made from it in tests/verify/checks.py.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from deploys.services.hypervisor import Hypervisor
from deploys.services.logserver import path_of
from fleet.model.site import Fleet, Host, Site
from tests.verify import backend
from tests.verify.declared import Declared
from tests.verify.evidence import Evidence, UbuntuEvidence, evidence_of
from tests.verify.modules.base import Unknown


class SurveyError(Exception):
    """What was asked for cannot be verified at all; one line."""


class Presence(StrEnum):
    """Whether a host was there, in the words of a run: away is only who may be away and takes no TCP connection."""

    REACHED = "reached"
    AWAY = "away"
    FAILED = "failed"


@dataclass(frozen=True)
class Found:
    """A host as it was found: `evidence` if it was reached, else `reason`; `wanted`, its checks are asked for.

    `silent`: it took no TCP connection, which a machine that waits for its passphrase does not either.
    """

    host: Host
    presence: Presence
    wanted: bool = True
    reason: str = ""
    evidence: Evidence | None = None
    silent: bool = False


@dataclass(frozen=True)
class Place:
    """Where a guest was found: `on`, the names of hosts, `unasked`, those that could not be asked.

    `silent` are hosts that were reached and whose libvirt did not answer.
    """

    guest: Host
    on: tuple[str, ...]
    unasked: tuple[str, ...]
    silent: tuple[str, ...]


@dataclass(frozen=True)
class Lines:
    """The lines that hosts logged for a survey: `arrived`, whose are on the log server; `unseen`, why none was seen."""

    arrived: frozenset[str] = frozenset()
    unseen: str = ""


@dataclass
class Survey:
    """All hosts of an inventory that have something to verify, as they were found.

    `idle` are the hosts that have no service yet: nobody asked them. `lines` is what the log server has of them.
    """

    fleet: Fleet
    today: date
    found: dict[str, Found] = field(default_factory=dict)
    idle: tuple[str, ...] = ()
    lines: Lines = Lines()

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Where each guest is, in the inventory's order."""
        return tuple(self._places())

    def waits(self, guest: Host) -> bool:
        """True if `guest` runs, is encrypted and does not answer: it waits for its passphrase."""
        address = guest.answers_at()
        if guest.guest is None or not guest.guest.encrypted or address is None:
            return False
        for place in self.places:
            if place.guest.name == guest.name and len(place.on) == 1:
                evidence = self.found[place.on[0]].evidence
                assert isinstance(evidence, UbuntuEvidence)
                domain = evidence.domain(guest)
                return domain is not None and domain.state == "running" and address not in evidence.answering
        return False

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
            if not isinstance(twin.evidence, UbuntuEvidence):
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
    """Return what the hosts of `sites` say, asked at the same time, and then what of their lines the log server has.

    Arguments: `limit`, names of the only hosts to verify; their twins are asked where the guests are, the log server
    for their lines, and never blamed. Raises SurveyError for a name that no site has.
    """
    check_limit(sites, limit)
    hosts = [host for site in sites for host in site.hosts]
    wanted = [host for host in hosts if limit is None or host.name in limit]
    verified = {host.name: host for host in wanted if host.services}
    twins = {
        twin.name: twin
        for host in verified.values()
        if host.service(Hypervisor) is not None
        for twin in fleet.peers(host, Hypervisor)
        if twin.name not in verified
    }
    made = Survey(fleet, today, idle=tuple(host.name for host in wanted if not host.services))
    token = secrets.token_hex(8)
    asked = {name: Declared(fleet, host, today, token) for name, host in (verified | twins).items()}
    senders = [each for name, each in asked.items() if name in verified and each.log_server is not None]
    for server in (each.log_server for each in senders):
        if server is not None and server.name not in asked:
            asked[server.name] = Declared(fleet, server, today, token)
    with ThreadPoolExecutor(max_workers=8) as pool:
        for name, found in zip(asked, pool.map(ask, asked.values()), strict=True):
            made.found[name] = replace(found, wanted=name in verified)
    made.lines = _lines(made.found, senders)
    return made


def _lines(found: Mapping[str, Found], senders: Iterable[Declared]) -> Lines:
    """Return what the log server has of the lines of those `senders` that were reached."""
    logged = [each for each in senders if found[each.host.name].evidence is not None]
    server = logged[0].log_server if logged else None
    if server is None:
        return Lines()
    evidence = found[server.name].evidence
    if evidence is None:
        return Lines(unseen=f"{server.name}: {found[server.name].reason}")
    try:
        seen = evidence.arrived({each.log_line: path_of(each.host, "user") for each in logged})
    except (Unknown, RuntimeError) as error:
        return Lines(unseen=f"{server.name}: {error}")
    return Lines(arrived=frozenset(each.host.name for each in logged if each.log_line in seen))


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
            return Found(host, Presence.AWAY if away else Presence.FAILED, reason=reason, silent=True)
        evidence = evidence_of(declared, backend.connect(declared.fleet.site_of(host), host, folder))
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
