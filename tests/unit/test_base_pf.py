"""Who gets through the rendered pf.conf: its rules are gone through one by one, as pf.conf(5) tells it."""

from __future__ import annotations

import dataclasses
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from deploys.services.pf import CONF
from fleet.load import load
from fleet.model.site import Host
from tests.lab.openbsd.standin.pf.model import PROTOCOLS, Addr, Rule
from tests.lab.openbsd.standin.pf.network import Network
from tests.lab.openbsd.standin.pf.parser import Parsed, parse

FLEET, _ = load("home")

STRANGER, BANNED, GUESSER, HELPED = "100.64.2.10", "100.64.9.9", "100.64.9.10", "100.64.1.10"
FILLED = {
    # One of our own is banned by mistake: that must not shut it out.
    "api_bans": (BANNED, "192.0.2.53"),
    "ssh_bruteforce": (GUESSER,),
    "deploy_allowed": (HELPED,),
}
UIDS = {"root": 0, "_unbound": 53, "_pkgfetch": 57, "_ntp": 83, "_smtpd": 95, "_file": 104, "_syspatch": 112, "www": 67}


@dataclasses.dataclass(frozen=True)
class Packet:
    """The first packet of a connection; `user` has the socket it leaves from, `tag` it got on its way in."""

    direction: str
    interface: str
    protocol: str
    source: str
    dest: str
    port: int
    user: str | None = None
    tag: str = ""


@pytest.fixture(autouse=True)
def _users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("".join(f"{name}:*:{uid}:{uid}::/:/\n" for name, uid in UIDS.items()))
    monkeypatch.setenv("STANDIN_ROOT", str(tmp_path))


@cache
def _read(name: str) -> Parsed:
    host = FLEET.host(name)
    made = [each for service in host.services for each in service.renders(host, FLEET)]
    (text,) = (file.text for each in made for file in each.files if file.path == CONF)
    read = parse("pf.conf", text, Network)
    assert read.errors == []
    return read


def _means(host: Host, parsed: Parsed, addr: Addr, address: str) -> bool:
    ip = ip_address(address)
    match addr.kind:
        case "any":
            found = True
        case "net":
            assert addr.net is not None
            found = ip in addr.net
        case "table":
            (table,) = (it for it in parsed.ruleset.tables if it.name == addr.name)
            nets = [entry.net for entry in table.entries or ()]
            nets += [ip_network(each) for each in FILLED.get(addr.name, ())]
            found = any(ip in net for net in nets)
        case "dynamic":
            (interface,) = (it for it in host.interfaces if it.name == addr.name)
            inside = [each.network for each in interface.addresses]
            found = any(ip in net for net in inside) if addr.modifiers else ip in {it.ip for it in interface.addresses}
        case other:
            raise AssertionError(f"{other} is not in our rules")
    return found != addr.negated


def _matches(host: Host, parsed: Parsed, rule: Rule, packet: Packet, tag: str) -> bool:
    assert not (rule.received_on or rule.source_port or rule.group or rule.anchor)
    return (
        rule.direction in ("", packet.direction)
        and (not rule.interface or (rule.interface == packet.interface) != rule.interface_negated)
        and rule.af in (0, ip_address(packet.source).version)
        and rule.proto in (0, PROTOCOLS[packet.protocol])
        and rule.tagged in ("", tag)
        and (rule.dest_port is None or rule.dest_port.matches(packet.port))
        and (rule.user is None or (packet.user is not None and rule.user.matches(UIDS[packet.user])))
        and _means(host, parsed, rule.source, packet.source)
        and _means(host, parsed, rule.dest, packet.dest)
    )


def result(host: Host, packet: Packet) -> tuple[bool, str, bool]:
    """Return whether `packet` passes, with which tag, and whether it is translated."""
    parsed = _read(host.name)
    passes, tag, translated = True, packet.tag, False
    for rule in parsed.ruleset.rules:
        if not _matches(host, parsed, rule, packet, tag):
            continue
        tag = rule.tag or tag
        translated = translated or rule.nat is not None or rule.rdr is not None
        if rule.rdr is not None:
            assert rule.rdr.port == 0
            packet = dataclasses.replace(packet, dest=str(rule.rdr.target))
        if rule.action != "match":
            passes = rule.action == "pass"
        if rule.quick:
            break
    return passes, tag, translated


def incoming(source: str, port: int, dest: str = "198.51.100.80", protocol: str = "tcp") -> Packet:
    return Packet("in", "vio0", protocol, source, dest, port)


def outgoing(user: str | None, port: int, protocol: str = "tcp") -> Packet:
    return Packet("out", "vio0", protocol, "198.51.100.80", "100.64.77.7", port, user)


FLAT = "192.168.1.23"


@pytest.mark.parametrize(
    ("name", "packet", "passes"),
    [
        ("virtie", incoming(STRANGER, 2022), True),
        ("virtie", incoming(STRANGER, 22), False),
        ("virtie", incoming(STRANGER, 2247), False),
        ("virtie", incoming(STRANGER, 80), False),
        ("virtie", incoming(STRANGER, 2022, protocol="udp"), False),
        ("virtie", incoming(BANNED, 2022), False),
        ("virtie", incoming(GUESSER, 2022), False),
        ("virtie", incoming("203.0.113.2", 2247), True),
        ("virtie", incoming("203.0.113.2", 22), False),
        ("virtie", incoming(HELPED, 2247), True),
        ("virtie", incoming(HELPED, 22), False),
        ("virtie", incoming("192.0.2.53", 2022), True),
        ("virtie", incoming("192.0.2.53", 2247), False),
        ("virtie", incoming("2001:db8:1::22", 2247, "2001:db8:2::80"), True),
        ("virtie", incoming("2001:db8:ff02::10", 2247, "2001:db8:2::80"), False),
        ("virtie", incoming("2001:db8:ff02::10", 2022, "2001:db8:2::80"), True),
        ("virtie", incoming(STRANGER, 2022, "198.51.100.81"), False),
        ("virtie", outgoing("_unbound", 53, "udp"), True),
        ("virtie", outgoing("_unbound", 53), True),
        ("virtie", outgoing("www", 53, "udp"), False),
        ("virtie", outgoing("_ntp", 123, "udp"), True),
        ("virtie", outgoing("_ntp", 443), True),
        ("virtie", outgoing("_ntp", 80), False),
        ("virtie", outgoing("_pkgfetch", 443), True),
        ("virtie", outgoing("www", 443), False),
        ("virtie", outgoing("_smtpd", 25), True),
        ("virtie", outgoing("root", 25), False),
        ("virtie", outgoing(None, 443), False),
        ("pancake", Packet("in", "em1", "tcp", FLAT, "192.168.1.1", 2247), True),
        ("pancake", Packet("in", "em1", "udp", FLAT, "192.168.1.1", 53), True),
        ("pancake", Packet("in", "em1", "tcp", FLAT, "192.168.1.1", 8080), False),
        ("pancake", Packet("in", "em1", "tcp", FLAT, "203.0.113.2", 8080), False),
        ("pancake", Packet("in", "em0", "udp", STRANGER, "203.0.113.2", 53), False),
        ("pancake", Packet("in", "em0", "tcp", STRANGER, FLAT, 80), False),
        ("pancake", Packet("in", "em0", "tcp", "2001:db8:ff02::10", "2001:db8:1::23", 80), False),
        ("pancake", Packet("in", "em1", "tcp", "10.9.9.9", "100.64.77.7", 80), False),
        # What is passed for the flat is not passed for who only says that he is in it.
        ("pancake", Packet("in", "em0", "tcp", FLAT, "203.0.113.2", 2247), False),
        ("pancake", Packet("in", "em0", "tcp", "2001:db8:1::23", "2001:db8:1::1", 2247), False),
        ("pancake", Packet("in", "em0", "udp", FLAT, "192.168.1.1", 53), False),
        ("pancake", Packet("in", "em0", "tcp", FLAT, "203.0.113.2", 2022), False),
        ("pancake", Packet("in", "em1", "tcp", "192.168.1.1", "192.168.1.1", 2022), False),
        ("pancake", Packet("in", "em1", "tcp", "203.0.113.9", "203.0.113.2", 2022), False),
        ("pancake", Packet("in", "em0", "tcp", STRANGER, "203.0.113.2", 2022), True),
        ("virtie", incoming("198.51.100.80", 2022), False),
        ("virtie", incoming("198.51.100.9", 2022), True),
        ("pancake", Packet("out", "em0", "tcp", FLAT, "100.64.77.7", 80), False),
    ],
    ids=str,
)
def test_who_gets_through(name: str, packet: Packet, passes: bool) -> None:
    assert result(FLEET.host(name), packet)[0] is passes


@pytest.mark.parametrize(
    ("source", "dest", "translated"),
    [(FLAT, "100.64.77.7", True), ("2001:db8:1::23", "2001:db8:ff02::10", False)],
)
@pytest.mark.parametrize("protocol", ["tcp", "udp", "icmp"])
def test_the_flat_reaches_the_internet_through_its_router(
    source: str, dest: str, translated: bool, protocol: str
) -> None:
    pancake = FLEET.host("pancake")
    passes, tag, _ = result(pancake, Packet("in", "em1", protocol, source, dest, 443))
    assert passes and tag == "through"
    leaving = Packet("out", "em0", protocol, source, dest, 443, tag=tag)
    assert result(pancake, leaving) == (True, "through", translated)


@pytest.mark.parametrize(
    ("source", "port", "passes"),
    [("192.0.2.53", 6514, True), ("198.51.100.80", 6514, True), (STRANGER, 6514, False), ("192.0.2.53", 6515, False)],
)
def test_what_crosses_is_handed_on_to_who_declares_it_and_for_nobody_else(source: str, port: int, passes: bool) -> None:
    pancake = FLEET.host("pancake")
    found, tag, translated = result(pancake, Packet("in", "em0", "tcp", source, "203.0.113.2", port))
    assert (found, tag, translated) == (passes, "crossing" if passes else "", passes)
    handed_on = Packet("out", "em1", "tcp", source, "192.168.1.21", port, tag=tag)
    assert not passes or result(pancake, handed_on)[0]
    arriving = Packet("in", "vio0", "tcp", source, "192.168.1.21", port)
    assert result(FLEET.host("manicouagan1"), arriving)[0] is passes


def test_too_many_connections_are_banned_from_the_whole_host() -> None:
    limited = [rule for rule in _read("virtie").ruleset.rules if rule.options.overload]
    assert limited
    for rule in limited:
        assert rule.options.overload == "ssh_bruteforce"
        assert rule.options.flush == "global"
        assert rule.options.max_src_conn_rate == (15, 60)
