"""The checks of a survey: generated from what is declared, judged by what was found. No connection is made here.

Those of Ubuntu hosts and their guests are here; tests/verify/openbsd.py has OpenBSD's, common.py what both have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from deploys.services.hypervisor import definition
from deploys.services.netplan import Bridge, Netplan
from deploys.services.nftables import CONF
from deploys.services.totp import USERS
from facts.linux.domain import DefinitionError, differences, from_xml
from fleet.model.service import Listen, Volume
from fleet.model.site import Host
from tests.verify import kinds, openbsd
from tests.verify.accounts import accounts
from tests.verify.common import bind, check, files, ports
from tests.verify.declared import Declared
from tests.verify.evidence import OpenbsdEvidence, UbuntuEvidence, unit_of
from tests.verify.kinds import Check, Red
from tests.verify.logs import arrives, log_files
from tests.verify.modules.base import Unknown
from tests.verify.modules.libvirt import Domain
from tests.verify.modules.nftables import Object, comparable, words
from tests.verify.pki import pki
from tests.verify.survey import Found, Place, Presence, Survey

FIREWALL = ("inet", "homefleet")
"""Family and name of our table."""

MANAGED = "homefleet"
"""The tag of every volume that is ours."""


def checks(survey: Survey) -> list[Check]:
    """Return every check of the hosts that are to be verified, in the inventory's order."""
    made: list[Check] = []
    for found in survey.found.values():
        if found.wanted and found.presence is not Presence.AWAY:
            made += _of_host(survey, found)
            for place in survey.places:
                made += _of_guest(survey, place, found)
    return made


def _of_host(survey: Survey, found: Found) -> Iterator[Check]:
    yield check(kinds.REACHED, found.host, "reached", lambda: _reached(survey, found), seconds="20")
    if isinstance(found.evidence, OpenbsdEvidence):
        yield from openbsd.checks(found.evidence)
    elif isinstance(found.evidence, UbuntuEvidence):
        yield from _of_ubuntu(found.evidence)
    if found.evidence is not None:
        for part in (pki, log_files):
            yield from part(found.evidence)
        yield from arrives(found.evidence, survey.lines)


def _of_ubuntu(evidence: UbuntuEvidence) -> Iterator[Check]:
    declared = evidence.declared
    yield from _packages(evidence, declared)
    yield from _daemons(evidence, declared)
    yield from files(evidence)
    yield from accounts(evidence)
    yield from _codes(evidence, declared)
    yield from _bridges(evidence, declared)
    yield from ports(evidence)
    for part in (_firewall, _groups, _hypervisor):
        yield from part(evidence, declared)


def _reached(survey: Survey, found: Found) -> str | None:
    if found.evidence is not None:
        return None
    if found.silent and survey.waits(found.host):
        return _passphrase(found.host)
    raise Red(found.reason)


def _passphrase(guest: Host) -> str:
    return f"waits for its passphrase: fleet console {guest.name}"


# --- what every Ubuntu host has ---


def _packages(evidence: UbuntuEvidence, declared: Declared) -> Iterator[Check]:
    def judge(name: str) -> None:
        status = evidence.dpkg.status(name)
        if status != "ii":
            raise Red("it is not installed" if status is None else f"dpkg calls it {status!r}, not 'ii'")

    for name in declared.packages:
        yield check(kinds.PACKAGE, declared.host, f"package/{name}", bind(judge, name), name=name)


def _daemons(evidence: UbuntuEvidence, declared: Declared) -> Iterator[Check]:
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

    for daemon in declared.daemons:
        unit, where = unit_of(daemon.name), f"service/{daemon.name}"
        yield check(kinds.SERVICE_ENABLED, declared.host, f"{where}/enabled", bind(enabled, unit), unit=unit)
        if not daemon.activated:
            yield check(kinds.SERVICE_RUNNING, declared.host, f"{where}/running", bind(running, unit), unit=unit)


def _codes(evidence: UbuntuEvidence, declared: Declared) -> Iterator[Check]:
    def judge(name: str) -> None:
        if name not in evidence.codes:
            raise Red(f"{USERS} has not its secret, or is not root's alone")

    for name in declared.people:
        yield check(kinds.ACCOUNT_CODE, declared.host, f"account/{name}/code", bind(judge, name), users=USERS)


# --- network ---


def _bridges(evidence: UbuntuEvidence, declared: Declared) -> Iterator[Check]:
    service = declared.host.service(Netplan)
    for bridge in service.bridges if service is not None else ():
        yield from _bridge(evidence, declared.host, bridge)


def _bridge(evidence: UbuntuEvidence, host: Host, bridge: Bridge) -> Iterator[Check]:
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
    yield check(kinds.BRIDGE, host, f"bridge/{bridge.name}", there, **known)
    yield check(kinds.BRIDGE_UPLINK, host, f"bridge/{bridge.name}/uplink", uplink, **known)
    yield check(kinds.BRIDGE_ADDRESSES, host, f"bridge/{bridge.name}/addresses", addresses, **known)


def _uplink(evidence: UbuntuEvidence, bridge: Bridge) -> str:
    """Return the name of the uplink, for the breakage alone; the check knows it by its MAC."""
    try:
        ports = evidence.links.ports(bridge.name)
    except Unknown:
        return ""
    return next((port.name for port in ports if port.mac == bridge.uplink), "")


def _firewall(evidence: UbuntuEvidence, declared: Declared) -> Iterator[Check]:
    if not declared.filters:
        return
    yield check(kinds.FIREWALL_RULES, declared.host, "firewall/rules", lambda: _rules(evidence))
    yield check(kinds.FIREWALL_PORTS, declared.host, "firewall/ports", lambda: _accepted(evidence, declared))
    for name in sorted({listen.during for listen in declared.listens if listen.during is not None}):
        where = f"firewall/{name}/empty"
        yield check(kinds.BOUNDED_SET, declared.host, where, bind(_empty, evidence, name), set=name)


def _rules(evidence: UbuntuEvidence) -> None:
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


def _accepted(evidence: UbuntuEvidence, declared: Declared) -> None:
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


def _empty(evidence: UbuntuEvidence, name: str) -> None:
    found = evidence.nftables.elements(*FIREWALL, name)
    if found is None:
        raise Red("there is no such set")
    if found:
        raise Red(f"a path is open: it has {', '.join(found)}")


# --- hypervisors ---


def _groups(evidence: UbuntuEvidence, declared: Declared) -> Iterator[Check]:
    def judge(name: str) -> None:
        if name not in evidence.lvm.groups:
            raise Red(f"it does not exist; there is {', '.join(sorted(evidence.lvm.groups)) or 'none'}")

    for group in declared.groups:
        yield check(kinds.GROUP, declared.host, f"group/{group.name}", bind(judge, group.name), group=group.name)


def _hypervisor(evidence: UbuntuEvidence, declared: Declared) -> Iterator[Check]:
    def network() -> None:
        if "default" in evidence.libvirt.networks:
            raise Red("it is there")

    def key() -> None:
        if evidence.keys.holding:
            raise Red(f"a path is open or was left: {', '.join(evidence.keys.holding)}")

    def unit() -> None:
        if evidence.migration_units:
            raise Red(f"a path is open or was left: {', '.join(evidence.migration_units)}")

    def login() -> None:
        if evidence.migration_logins:
            raise Red(f"a path is open or was left: {', '.join(evidence.migration_logins)}")

    if declared.is_hypervisor:
        yield check(kinds.DEFAULT_NETWORK, declared.host, "libvirt/default-network", network)
        yield check(kinds.MIGRATION_KEY, declared.host, "migration/key", key)
        yield check(kinds.MIGRATION_UNIT, declared.host, "migration/unit", unit)
        yield check(kinds.MIGRATION_LOGIN, declared.host, "migration/login", login)


def _of_guest(survey: Survey, place: Place, found: Found) -> Iterator[Check]:
    """Yield what is checked of a guest on `found`: nothing unless this host answers for it."""
    if not isinstance(found.evidence, UbuntuEvidence) or _answers_for(survey, place) != found.host.name:
        return
    guest, host = place.guest, found.host
    yield check(kinds.GUEST_PLACE, host, f"guest/{guest.name}/place", lambda: _one_place(place), guest=guest.name)
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


def _domain(evidence: UbuntuEvidence, host: Host, guest: Host, domain: Domain) -> Iterator[Check]:
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
            return _passphrase(guest)
        raise Red(f"{address} does not answer an echo request from {host.name}")

    known = {"guest": guest.name, "address": address or ""}
    where = f"guest/{guest.name}"
    yield check(kinds.GUEST_DEFINED, host, f"{where}/defined", defined, **known)
    yield check(kinds.GUEST_DEFINITION, host, f"{where}/definition", as_declared, **known)
    yield check(kinds.GUEST_RUNNING, host, f"{where}/running", running, **known)
    yield check(kinds.GUEST_AUTOSTART, host, f"{where}/autostart", autostart, **known)
    if address is not None and domain.state == "running":
        yield check(kinds.GUEST_ANSWERS, host, f"{where}/answers", answers, **known)


def _volume(evidence: UbuntuEvidence, host: Host, volume: Volume) -> Iterator[Check]:
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
    yield check(kinds.VOLUME, host, where, there, **known)
    yield check(kinds.VOLUME_SIZE, host, f"{where}/size", size, **known)
    yield check(kinds.VOLUME_TAGS, host, f"{where}/tags", tags, **known)


def _volume_words(evidence: UbuntuEvidence, volume: Volume) -> dict[str, str]:
    try:
        size = evidence.lvm.rounded(volume.group, volume.size)
    except Unknown:
        size = int(volume.size)
    return {"group": volume.group, "volume": volume.name, "size": str(size), "tag": MANAGED}


def _seen(evidence: UbuntuEvidence, host: Host, domain: Domain, volume: Volume) -> Check:
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
    return check(kinds.GUEST_DISK, host, where, judge, **_volume_words(evidence, volume))
