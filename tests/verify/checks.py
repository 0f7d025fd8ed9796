"""The checks of a survey: generated from what is declared, judged by what was found. No connection is made here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from deploys.services.hypervisor import definition
from deploys.services.netplan import Bridge, Netplan
from deploys.services.nftables import CONF
from facts.linux.domain import DefinitionError, differences, from_xml
from fleet.model.service import Daemon, File, Listen, Volume
from fleet.model.site import Host
from tests.verify import kinds
from tests.verify.kinds import Check, Kind, Red
from tests.verify.modules.base import Unknown
from tests.verify.modules.libvirt import Domain
from tests.verify.modules.nftables import Object, comparable, words
from tests.verify.modules.sockets import Listening
from tests.verify.survey import (
    MARKERS,
    MIGRATION_KEYS,
    MIGRATION_LINK,
    Declared,
    Evidence,
    Found,
    Place,
    Presence,
    Survey,
    unit_of,
)

FIREWALL = ("inet", "homefleet")
"""Family and name of our table."""

MANAGED = "homefleet"
"""The tag of every volume that is ours."""

Judge = Callable[[], str | None]


def checks(survey: Survey) -> list[Check]:
    """Return every check of the hosts that are to be verified, in the inventory's order."""
    made: list[Check] = []
    for found in survey.found.values():
        if found.wanted and found.presence is not Presence.AWAY:
            made += _of_host(found)
            for place in survey.places:
                made += _of_guest(survey, place, found)
    return made


def _of_host(found: Found) -> Iterator[Check]:
    yield _check(kinds.REACHED, found.host, "reached", lambda: _reached(found), seconds="20")
    if found.evidence is None:
        return
    evidence = found.evidence
    for part in (_packages, _daemons, _files, _bridges, _ports, _firewall, _groups, _hypervisor):
        yield from part(evidence, evidence.declared)


def _reached(found: Found) -> None:
    if found.evidence is None:
        raise Red(found.reason)


# --- what every host has ---


def _packages(evidence: Evidence, declared: Declared) -> Iterator[Check]:
    def judge(name: str) -> None:
        status = evidence.dpkg.status(name)
        if status != "ii":
            raise Red("it is not installed" if status is None else f"dpkg calls it {status!r}, not 'ii'")

    for name in declared.packages:
        yield _check(kinds.PACKAGE, declared.host, f"package/{name}", _bind(judge, name), name=name)


def _daemons(evidence: Evidence, declared: Declared) -> Iterator[Check]:
    def enabled(unit: str) -> None:
        found = evidence.units[unit]
        if found.load != "loaded":
            raise Red(f"there is no {unit} ({found.load})")
        if not found.is_enabled:
            raise Red(f"it is {found.file or 'not enabled'}")

    def running(unit: str) -> None:
        found = evidence.units[unit]
        if found.active != "active":
            raise Red(f"it is {found.active} ({found.sub})")

    for daemon in _each_once(declared.daemons):
        unit, where = unit_of(daemon.name), f"service/{daemon.name}"
        yield _check(kinds.SERVICE_ENABLED, declared.host, f"{where}/enabled", _bind(enabled, unit), unit=unit)
        if not daemon.activated:
            yield _check(kinds.SERVICE_RUNNING, declared.host, f"{where}/running", _bind(running, unit), unit=unit)


def _each_once(daemons: Sequence[Daemon]) -> Iterator[Daemon]:
    yield from {daemon.name: daemon for daemon in daemons}.values()


def _files(evidence: Evidence, declared: Declared) -> Iterator[Check]:
    for each in declared.sets:
        for file in each.files:
            yield from _file(evidence, declared.host, file)
        ours = {file.path for file in each.files}
        for pattern in each.exclusive:
            judge = _bind(_strays, evidence, pattern, ours)
            stray = pattern.replace("*", "zz-broken")
            yield _check(kinds.FILE_STRAY, declared.host, f"stray{pattern}", judge, stray=stray)
    for kind, pattern, meaning in (
        (kinds.SET_PENDING, MARKERS[0], "left in the middle"),
        (kinds.SET_ARMED, MARKERS[1], "not confirmed yet"),
    ):
        yield _check(kind, declared.host, f"sets/{_last(kind)}", _bind(_markers, evidence, pattern, meaning))


def _file(evidence: Evidence, host: Host, file: File) -> Iterator[Check]:
    def content() -> None:
        found = evidence.files.get(file.path)
        if found is None:
            raise Red("it is missing")
        if found.sha256 != hashlib.sha256(file.text.encode()).hexdigest():
            raise Red("its text is not the rendered one" if found.sha256 else f"it is a {found.kind}")

    def owner() -> None:
        found = evidence.files.get(file.path)
        wanted = f"{file.owner}:{file.group}"
        if found is None or f"{found.owner}:{found.group}" != wanted:
            raise Red("it is missing" if found is None else f"it is {found.owner}:{found.group}'s, not {wanted}'s")

    def mode() -> None:
        found = evidence.files.get(file.path)
        if found is None or found.mode != file.mode:
            raise Red("it is missing" if found is None else f"its mode is {found.mode:o}, not {file.mode:o}")

    known = {"path": file.path, "owner": f"{file.owner}:{file.group}", "mode": f"{file.mode:o}"}
    for kind, judge in ((kinds.FILE_CONTENT, content), (kinds.FILE_OWNER, owner), (kinds.FILE_MODE, mode)):
        yield _check(kind, host, f"file{file.path}/{_last(kind)}", judge, **known)


def _strays(evidence: Evidence, pattern: str, ours: set[str]) -> None:
    found = [path for path in evidence.matching(pattern) if path not in ours]
    if found:
        raise Red(f"{', '.join(found)} is read too")


def _markers(evidence: Evidence, pattern: str, meaning: str) -> None:
    found = [path.rpartition("/")[2] for path in evidence.matching(pattern)]
    if found:
        raise Red(f"{', '.join(found)}: {meaning}")


# --- network ---


def _bridges(evidence: Evidence, declared: Declared) -> Iterator[Check]:
    service = declared.host.service(Netplan)
    for bridge in service.bridges if service is not None else ():
        yield from _bridge(evidence, declared.host, bridge)


def _bridge(evidence: Evidence, host: Host, bridge: Bridge) -> Iterator[Check]:
    wanted = {str(each) for item in host.interfaces if item.network == bridge.network for each in item.addresses}

    def there() -> None:
        found = evidence.links.all.get(bridge.name)
        if found is None or found.kind != "bridge":
            raise Red("it does not exist" if found is None else f"it is a {found.kind or 'plain interface'}")
        if not found.up:
            raise Red("it is down")

    def uplink() -> None:
        ports = evidence.links.ports(bridge.name)
        if not any(port.mac == bridge.uplink and port.up for port in ports):
            shown = ", ".join(f"{port.name} {port.mac}" for port in ports) or "nothing"
            raise Red(f"{bridge.uplink} is not in it or down; in it is {shown}")

    def addresses() -> None:
        found = evidence.links.all.get(bridge.name)
        has = frozenset[str]() if found is None else found.addresses
        missing, extra = sorted(wanted - has), sorted(has - wanted)
        said = [f"{', '.join(missing)} is missing"] if missing else []
        said += [f"{', '.join(extra)} is not declared"] if extra else []
        if said:
            raise Red("; ".join(said))

    known = {"bridge": bridge.name, "mac": bridge.uplink, "uplink": _uplink(evidence, bridge)}
    yield _check(kinds.BRIDGE, host, f"bridge/{bridge.name}", there, **known)
    yield _check(kinds.BRIDGE_UPLINK, host, f"bridge/{bridge.name}/uplink", uplink, **known)
    yield _check(kinds.BRIDGE_ADDRESSES, host, f"bridge/{bridge.name}/addresses", addresses, **known)


def _uplink(evidence: Evidence, bridge: Bridge) -> str:
    """Return the name of the uplink, for the breakage alone; the check knows it by its MAC."""
    try:
        ports = evidence.links.ports(bridge.name)
    except Unknown:
        return ""
    return next((port.name for port in ports if port.mac == bridge.uplink), "")


def _ports(evidence: Evidence, declared: Declared) -> Iterator[Check]:
    always = [listen for listen in declared.listens if listen.during is None]

    def listening(listen: Listen) -> None:
        if not any(_covers(listen, each) for each in _outside(evidence)):
            raise Red("nothing listens there")

    def stray() -> None:
        found = {
            f"{each.protocol}/{each.port} ({each.owner or 'the kernel'})"
            for each in _outside(evidence)
            if not any(_covers(listen, each) for listen in always)
        }
        if found:
            raise Red(f"not declared: {', '.join(sorted(found))}")

    for listen in always:
        last = f"-{listen.last_port}" if listen.last_port else ""
        where = f"port/{listen.protocol}-{listen.port}{last}/listening"
        known = {"port": str(listen.port), "seconds": "90"}
        yield _check(kinds.PORT_LISTENING, declared.host, where, _bind(listening, listen), **known)
    yield _check(kinds.PORT_STRAY, declared.host, "port/stray", stray)


def _outside(evidence: Evidence) -> list[Listening]:
    return [each for each in evidence.sockets.listening if not each.loopback]


def _covers(listen: Listen, found: Listening) -> bool:
    last = listen.last_port or listen.port
    return listen.protocol == found.protocol and listen.port <= found.port <= last


def _firewall(evidence: Evidence, declared: Declared) -> Iterator[Check]:
    if not declared.filters:
        return
    yield _check(kinds.FIREWALL_RULES, declared.host, "firewall/rules", lambda: _rules(evidence))
    yield _check(kinds.FIREWALL_PORTS, declared.host, "firewall/ports", lambda: _accepted(evidence, declared))
    for name in sorted({listen.during for listen in declared.listens if listen.during is not None}):
        where = f"firewall/{name}/empty"
        yield _check(kinds.BOUNDED_SET, declared.host, where, _bind(_empty, evidence, name), set=name)


def _rules(evidence: Evidence) -> None:
    wanted = comparable(evidence.nftables.of_file(CONF), *FIREWALL)
    found = comparable(evidence.nftables.kernel, *FIREWALL)
    if not wanted:
        raise Red(f"{CONF} has no table {FIREWALL[1]}")
    if wanted != found:
        missing = [words(item) for item in wanted if item not in found]
        extra = [words(item) for item in found if item not in wanted]
        said = [f"the kernel lacks {missing[0]}"] if missing else []
        said += [f"the kernel has {extra[0]}"] if extra else []
        raise Red("; ".join(said) or "the kernel has the rules in another order")


def _accepted(evidence: Evidence, declared: Declared) -> None:
    chain = evidence.nftables.chain(*FIREWALL, "input")
    if chain is None or (chain.get("hook"), chain.get("policy")) != ("input", "drop"):
        raise Red("there is no chain input" if chain is None else f"its policy is {chain.get('policy')}, not drop")
    accepted: set[str] = set()
    for rule in evidence.nftables.rules(*FIREWALL, "input"):
        accepted |= opened(rule)
    wanted = {opening for listen in declared.listens for opening in openings(listen)}
    said = [f"closed: {', '.join(sorted(wanted - accepted))}"] if wanted - accepted else []
    said += [f"open and not declared: {', '.join(sorted(accepted - wanted))}"] if accepted - wanted else []
    if said:
        raise Red("; ".join(said))


def openings(listen: Listen) -> Iterator[str]:
    """Yield what the firewall lets in for `listen`, in the words of `opened`."""
    ports = f"{listen.protocol}/{listen.port}" + (f"-{listen.last_port}" if listen.last_port else "")
    if listen.during is not None:
        yield f"{ports} from @{listen.during}"
        return
    for source in listen.source:
        yield f"{ports} from {source if source.prefixlen else f'ipv{source.version}'}"


def opened(rule: Sequence[Object]) -> set[str]:
    """Return what a rule of chain input lets in, nothing for what every host of ours accepts.

    A match that is not understood makes nothing narrower: the rule counts as more open than declared.
    """
    if not any("accept" in part for part in rule):
        # `ct state vmap` and what counts or drops. Verdicts of other shapes are for firewall/rules to see.
        return set()
    ports, source = "anything", "anywhere"
    for match in (part["match"] for part in rule if "match" in part):
        left, right = match["left"], match["right"]
        payload: Any = left.get("payload", {}) if isinstance(left, dict) else {}
        if match["op"] != "==":
            return {f"a rule with {match['op']}"}
        if left == {"meta": {"key": "iif"}} and right == "lo":
            return set()
        if payload.get("protocol") in ("icmp", "icmpv6") and payload.get("field") == "type":
            return set()
        if payload.get("field") == "dport":
            ports = f"{payload['protocol']}/{_port(right)}"
        elif payload.get("field") == "saddr":
            source = _source(right)
        elif left == {"meta": {"key": "nfproto"}}:
            source = str(right)
    return {f"{ports} from {source}"}


def _port(right: Any) -> str:
    if isinstance(right, dict) and "range" in right:
        return "-".join(map(str, right["range"]))
    return str(right)


def _source(right: Any) -> str:
    if isinstance(right, dict) and "prefix" in right:
        return f"{right['prefix']['addr']}/{right['prefix']['len']}"
    text = str(right)
    return text if text.startswith("@") else f"{text}/{128 if ':' in text else 32}"


def _empty(evidence: Evidence, name: str) -> None:
    found = evidence.nftables.elements(*FIREWALL, name)
    if found is None:
        raise Red("there is no such set")
    if found:
        raise Red(f"a path is open: it has {', '.join(found)}")


# --- hypervisors ---


def _groups(evidence: Evidence, declared: Declared) -> Iterator[Check]:
    def judge(name: str) -> None:
        if name not in evidence.lvm.groups:
            raise Red(f"it does not exist; there is {', '.join(sorted(evidence.lvm.groups)) or 'none'}")

    for group in declared.groups:
        yield _check(kinds.GROUP, declared.host, f"group/{group.name}", _bind(judge, group.name), group=group.name)


def _hypervisor(evidence: Evidence, declared: Declared) -> Iterator[Check]:
    def network() -> None:
        if "default" in evidence.libvirt.networks:
            raise Red("it is there")

    def key() -> None:
        if evidence.keys.holding:
            raise Red(f"a path is open or was left: {', '.join(evidence.keys.holding)}")
        if evidence.keys.target not in (None, MIGRATION_KEYS):
            raise Red(f"{MIGRATION_LINK} points to {evidence.keys.target}")

    def unit() -> None:
        if evidence.migration_units:
            raise Red(f"a path is open or was left: {', '.join(evidence.migration_units)}")

    if declared.is_hypervisor:
        yield _check(kinds.DEFAULT_NETWORK, declared.host, "libvirt/default-network", network)
        yield _check(kinds.MIGRATION_KEY, declared.host, "migration/key", key)
        yield _check(kinds.MIGRATION_UNIT, declared.host, "migration/unit", unit)


def _of_guest(survey: Survey, place: Place, found: Found) -> Iterator[Check]:
    """Yield what is checked of a guest on `found`: nothing unless this host answers for it."""
    if found.evidence is None or _answers_for(survey, place) != found.host.name:
        return
    guest, host = place.guest, found.host
    yield _check(kinds.GUEST_PLACE, host, f"guest/{guest.name}/place", lambda: _one_place(place), guest=guest.name)
    if place.on != (host.name,):
        return
    domain = found.evidence.domain(guest)
    assert domain is not None
    yield from _domain(found.evidence, host, guest, domain)
    for volume in guest.volumes():
        if volume.retired is None or volume.retired > survey.today:
            yield from _volume(found.evidence, host, volume)
            if domain.state == "running":
                yield _seen(found.evidence, host, domain, volume)


def _answers_for(survey: Survey, place: Place) -> str | None:
    """Return the host whose red or green a guest's place is, None where it is nobody's: it cannot be known."""
    assert place.guest.guest is not None
    wanted = [item.host.name for item in survey.found.values() if item.wanted and item.evidence is not None]
    wanted.sort(key=lambda name: place.guest.guest is None or name != place.guest.guest.home)
    for candidates in (place.on, place.silent):
        if candidates:
            return next((name for name in wanted if name in candidates), None)
    if place.unasked:
        return None
    names = {host.name for host in survey.fleet.site_of(place.guest).hosts}
    return next((name for name in wanted if name in names), None)


def _one_place(place: Place) -> None:
    if len(place.on) > 1:
        raise Red(f"it is on {' and '.join(place.on)}")
    if not place.on:
        assert place.guest.guest is not None
        where = f"libvirt of {' and '.join(place.silent)} does not say" if place.silent else "it is nowhere"
        raise Red(f"{where}; its home is {place.guest.guest.home}")


def _domain(evidence: Evidence, host: Host, guest: Host, domain: Domain) -> Iterator[Check]:
    said = guest.guest
    assert said is not None
    address = guest.answers_at()

    def defined() -> None:
        if not domain.persistent:
            raise Red("it runs, but is not defined")

    def as_declared() -> None:
        if domain.definition is None:
            raise Red("libvirt shows no definition of it")
        try:
            found = differences(definition(guest), from_xml(domain.definition))
        except DefinitionError as error:
            raise Red(str(error)) from None
        if found:
            raise Red("; ".join(found))

    def running() -> None:
        if domain.state != "running":
            raise Red(f"it is {domain.state}")

    def autostart() -> None:
        if domain.autostart != said.autostart:
            raise Red("it would start by itself" if domain.autostart else "it would not start by itself")

    def answers() -> str | None:
        if address in evidence.answering:
            return None
        if said.encrypted:
            return f"waits for its passphrase: fleet console {guest.name}"
        raise Red(f"{address} does not answer an echo request from {host.name}")

    known = {"guest": guest.name, "address": address or ""}
    where = f"guest/{guest.name}"
    yield _check(kinds.GUEST_DEFINED, host, f"{where}/defined", defined, **known)
    yield _check(kinds.GUEST_DEFINITION, host, f"{where}/definition", as_declared, **known)
    yield _check(kinds.GUEST_RUNNING, host, f"{where}/running", running, **known)
    yield _check(kinds.GUEST_AUTOSTART, host, f"{where}/autostart", autostart, **known)
    if address is not None and domain.state == "running":
        yield _check(kinds.GUEST_ANSWERS, host, f"{where}/answers", answers, **known)


def _volume(evidence: Evidence, host: Host, volume: Volume) -> Iterator[Check]:
    path = f"{volume.group}/{volume.name}"

    def there() -> None:
        if path not in evidence.lvm.volumes:
            raise Red("it does not exist")

    def size() -> None:
        there()
        found, wanted = evidence.lvm.volumes[path].size, evidence.lvm.rounded(volume.group, volume.size)
        if found != wanted:
            raise Red(f"it has {found} bytes, not {wanted}")

    def tags() -> None:
        there()
        found = evidence.lvm.volumes[path].tags
        owners = {tag for tag in found if tag.startswith("guest=")}
        if MANAGED not in found or owners != {f"guest={volume.guest}"}:
            raise Red(f"it is tagged {', '.join(sorted(found)) or 'nothing'}, not {MANAGED}, guest={volume.guest}")

    where, known = f"volume/{volume.name}", _volume_words(evidence, volume)
    yield _check(kinds.VOLUME, host, where, there, **known)
    yield _check(kinds.VOLUME_SIZE, host, f"{where}/size", size, **known)
    yield _check(kinds.VOLUME_TAGS, host, f"{where}/tags", tags, **known)


def _volume_words(evidence: Evidence, volume: Volume) -> dict[str, str]:
    try:
        size = evidence.lvm.rounded(volume.group, volume.size)
    except Unknown:
        size = int(volume.size)
    return {"group": volume.group, "volume": volume.name, "size": str(size), "tag": MANAGED}


def _seen(evidence: Evidence, host: Host, domain: Domain, volume: Volume) -> Check:
    def judge() -> None:
        found = evidence.lvm.volumes.get(f"{volume.group}/{volume.name}")
        seen = domain.capacity.get(volume.path)
        if found is None:
            raise Red("its volume does not exist")
        if seen is None:
            raise Red(f"the guest has no disk {volume.path}")
        if seen != found.size:
            raise Red(f"the guest sees {seen} bytes, the volume has {found.size}")

    where = f"guest/{volume.guest}/disk/{volume.name}"
    return _check(kinds.GUEST_DISK, host, where, judge, **_volume_words(evidence, volume))


def _check(kind: Kind, host: Host, name: str, judge: Judge, /, **known: str) -> Check:
    return Check(kind, host.name, name, judge, known)


def _bind(judge: Callable[..., None], *arguments: Any) -> Judge:
    return lambda: judge(*arguments)


def _last(kind: Kind) -> str:
    return kind.name.rpartition("-")[2]
