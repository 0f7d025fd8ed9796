"""Last match wins: random rulesets, compiled and then read as nftables would, against pf.conf(5) told another way."""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lab.openbsd.pf_oracle import Oracle, Packet
from tests.lab.openbsd.standin.pf import compiler, kernel
from tests.lab.openbsd.standin.pf.model import Ruleset, State
from tests.lab.openbsd.standin.pf.network import Interface, Network
from tests.lab.openbsd.standin.pf.parser import parse

NETWORK = Network(
    (
        Interface("lo", True, (ipaddress.ip_interface("127.0.0.1/8"),)),
        Interface("em0", False, (ipaddress.ip_interface("203.0.113.2/24"),)),
        Interface("em1", False, (ipaddress.ip_interface("192.168.1.1/24"),), groups=("inside",)),
    ),
    ("em0",),
)
HOSTS = ("203.0.113.2", "203.0.113.9", "192.168.1.1", "192.168.1.9", "10.1.2.3", "10.1.2.4")
PROTO = {"tcp": 6, "udp": 17, "icmp": 1}
TABLES = {"t": ["10.0.0.0/8", "!10.1.2.0/24", "10.1.2.3"], "u": ["192.168.0.0/16", "203.0.113.9"], "none": []}


class Nftables:
    """Reads the part of nftables' language that the compiler writes, and asks it what happens to one packet.

    Args:
        script: for `nft -f`.
    """

    def __init__(self, script: str) -> None:
        self.sets = {
            name: [part.strip() for part in found.split(",") if part.strip()]
            for name, found in re.findall(r"^set (\S+) \{.*?(?:elements = \{(.*?)\}.*)?\}$", script, re.M)
        }
        self.chains: dict[str, list[str]] = {
            name: body.strip().splitlines()
            for name, body in re.findall(r"^chain (\S+) \{\n(.*?)^\}", script, re.M | re.S)
        }

    def passes(self, packet: Packet) -> bool:
        self.mark = 0
        self.packet = packet
        verdict = self._chain("in" if packet.direction == "in" else "output")
        return verdict != "drop"

    def _chain(self, name: str) -> str:
        for line in self.chains[name]:
            if not line.startswith("type ") and (verdict := self._line(line)) not in {"", "return"}:
                return verdict
        return ""

    def _line(self, line: str) -> str:
        rest = line
        while rest:
            for pattern, action in self._language():
                if found := re.match(pattern + r"(?: |$)", rest):
                    result = action(*found.groups())
                    rest = rest[found.end() :]
                    break
            else:
                raise AssertionError(f"what is this: {rest!r} in {line!r}")
            if isinstance(result, str):
                return result
            if not result:
                return ""
        return ""

    def _language(self) -> list[tuple[str, Callable[..., bool | str]]]:
        return [
            (r"(iifname|oifname) (!= )?\{ (.*?) \}", self._interface),
            (r"ip (saddr|daddr) (!= )?(?:@(\S+)|\{ (.*?) \}|(\S+-\S+))", self._address),
            (r"ip6 .*", lambda: ""),
            (r"meta nfproto ipv(4|6)", lambda family: family == "4"),
            (r"meta l4proto (!= )?(\d+)", lambda no, number: (PROTO[self.packet.proto] == int(number)) != bool(no)),
            (r"(tcp|udp) (sport|dport) (!=|<=|>=|<|>)? ?(\d+)(?:-(\d+))?", self._port),
            (r"tcp flags & (\S+) == (\S+)", self._flags),
            (r"tcp option maxseg size set \d+", lambda: True),
            (r"meta mark & (\S+) (==|!=) (\S+)", self._marked),
            (r"meta mark & \S+ vmap \{ (.*?) \}", self._decide),
            (
                r"meta mark set meta mark & (\S+) \| (\S+)",
                lambda keep, value: self._set(self.mark & _n(keep) | _n(value)),
            ),
            (r"meta mark set (\S+)", lambda value: self._set(_n(value))),
            # The first packet of a flow: no state is there yet.
            (r"ct mark set .*", lambda: ""),
            (r"ct direction .*", lambda: ""),
            (r"goto (\S+)", lambda name: self._chain(name) or "return"),
            (r"jump (\S+)", lambda name: self._chain(name) or True),
            (r"(accept|drop)", lambda verdict: verdict),
            (r"reject.*", lambda: "drop"),
        ]

    def _interface(self, word: str, negated: str | None, names: str) -> bool:
        assert (word == "iifname") == (self.packet.direction == "in")
        return (f'"{self.packet.interface}"' in names.split(", ")) != bool(negated)

    def _address(self, word: str, negated: str | None, name: str | None, inside: str | None, span: str | None) -> bool:
        value = ipaddress.IPv4Address(self.packet.source if word == "saddr" else self.packet.dest)
        members = self.sets[name] if name else [span] if span else (inside or "").split(", ")
        return any(self._within(member, value) for member in members if member) != bool(negated)

    def _within(self, member: str, value: ipaddress.IPv4Address) -> bool:
        first, dash, last = member.partition("-")
        if dash:
            return ipaddress.IPv4Address(first) <= value <= ipaddress.IPv4Address(last)
        return value in ipaddress.IPv4Network(member)

    def _port(self, proto: str, word: str, op: str | None, first: str, last: str | None) -> bool:
        if proto != self.packet.proto:
            return False
        value = self.packet.source_port if word == "sport" else self.packet.dest_port
        if op in {None, "!="}:
            return (int(first) <= value <= int(last or first)) != (op == "!=")
        return {"<": value < int(first), ">": value > int(first), "<=": value <= int(first), ">=": value >= int(first)}[
            op or ""
        ]

    def _flags(self, mask: str, wanted: str) -> bool:
        value = 0x2 if self.packet.syn else 0x10
        return self.packet.proto == "tcp" and value & _n(mask) == _n(wanted)

    def _marked(self, mask: str, op: str, value: str) -> bool:
        return (self.mark & _n(mask) == _n(value)) == (op == "==")

    def _set(self, value: int) -> bool:
        self.mark = value
        return True

    def _decide(self, cases: str) -> str:
        for case in cases.split(", "):
            key, verdict = case.split(" : ")
            if _n(key) == self.mark & compiler.RULE:
                return verdict if verdict == "accept" else self._chain(verdict.removeprefix("goto "))
        return ""


def _n(text: str) -> int:
    return int(text, 0)


def compiled(text: str, anchors: dict[str, str] | None = None) -> Nftables:
    state = State(0, enabled=True)
    for name, inner in (anchors or {}).items():
        kernel.load(state, _read(inner), name)
    kernel.load(state, _read(text))
    return Nftables(compiler.compile_ruleset(state, NETWORK))


def _read(text: str) -> Ruleset:
    read = parse("pf.conf", text, lambda: NETWORK)
    assert read.errors == []
    return read.ruleset


def declared() -> str:
    return "".join(f"table <{name}> {{ {' '.join(entries)} }}\n" for name, entries in TABLES.items())


@st.composite
def rules(draw: st.DrawFn) -> str:
    action = draw(st.sampled_from(["pass", "block drop", "block return", "match"]))
    words = [action, draw(st.sampled_from(["", "in", "out"]))]
    if action != "match" and draw(st.integers(0, 3)) == 0:
        words.append("quick")
    words.append(draw(st.sampled_from(["", "", "on em0", "on em1", "on ! em0"])))
    words.append(draw(st.sampled_from(["", "inet", "inet6"])))
    proto = draw(st.sampled_from(["", "proto tcp", "proto udp", "proto icmp"]))
    if words[-1] == "inet6" and proto == "proto icmp":
        proto = ""
    words.append(proto)
    hosts = [
        "any",
        "10.0.0.0/8",
        "192.168.1.9",
        "! 203.0.113.0/24",
        "<t>",
        "! <t>",
        "<u>",
        "! <u>",
        "<none>",
        "! <none>",
    ]
    if "inet6" in words:
        hosts = [host for host in hosts if "." not in host]
    ports = [""]
    if proto in {"proto tcp", "proto udp"}:
        ports += [
            " port = 22",
            " port 22:80",
            " port != 80",
            " port 22 >< 443",
            " port 22 <> 80",
            " port >= 80",
            " port < 80",
        ]
    words.append("from " + draw(st.sampled_from(hosts)) + draw(st.sampled_from(ports)))
    words.append("to " + draw(st.sampled_from(hosts)) + draw(st.sampled_from(ports)))
    if action == "pass":
        words.append(draw(st.sampled_from(["", "", "no state"])))
    if draw(st.integers(0, 4)) == 0:
        words.append("tag " + draw(st.sampled_from("AB")))
    if draw(st.integers(0, 3)) == 0:
        words.append(draw(st.sampled_from(["tagged A", "! tagged A", "tagged B"])))
    return " ".join(word for word in words if word)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    proto = draw(st.sampled_from(["tcp", "udp", "icmp"]))
    ports = st.sampled_from([21, 22, 23, 79, 80, 81, 442, 443]) if proto != "icmp" else st.just(0)
    return Packet(
        draw(st.sampled_from(["in", "out"])),
        draw(st.sampled_from(["em0", "em1"])),
        proto,
        draw(st.sampled_from(HOSTS)),
        draw(st.sampled_from(HOSTS)),
        draw(ports),
        draw(ports),
        proto != "tcp" or draw(st.booleans()),
    )


@settings(max_examples=250, deadline=None)
@given(st.lists(rules(), max_size=9), st.lists(packets(), min_size=1, max_size=12))
def test_a_random_ruleset_does_what_pf_would(lines: list[str], sent: list[Packet]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    found, oracle = compiled(declared() + text), Oracle(text, TABLES)
    for packet in sent:
        assert found.passes(packet) == oracle.passes(packet), packet


@settings(max_examples=100, deadline=None)
@given(
    st.lists(rules(), max_size=4),
    st.lists(rules(), max_size=4),
    st.lists(rules(), max_size=4),
    st.lists(packets(), min_size=1, max_size=12),
)
def test_an_anchor_is_its_rules_in_its_place(
    before: list[str], inside: list[str], after: list[str], sent: list[Packet]
) -> None:
    inner = "".join(f"{line}\n" for line in inside)
    first, last = ("".join(f"{line}\n" for line in lines) for lines in (before, after))
    whole = Oracle(first + inner + last, TABLES)
    for found in (
        compiled(f'{declared()}{first}anchor "x" {{\n{inner}}}\n{last}'),
        compiled(f'{declared()}{first}anchor "y/*"\n{last}', {"y/one": inner}),
    ):
        for packet in sent:
            assert found.passes(packet) == whole.passes(packet), packet


TCP_IN = Packet("in", "em0", "tcp", "203.0.113.9", "203.0.113.2", 40000, 22)
UDP_OUT = Packet("out", "em0", "udp", "203.0.113.2", "10.1.2.4", 40000, 53)


@pytest.mark.parametrize(
    ("text", "packet", "passes"),
    [
        # pf.conf(5): without a rule that matches, a packet passes.
        ("", TCP_IN, True),
        ("block\npass", TCP_IN, True),
        ("pass\nblock", TCP_IN, False),
        ("block quick\npass", TCP_IN, False),
        ("block in\n", UDP_OUT, True),
        ("set skip on em0\nblock all", TCP_IN, True),
        ("set skip on em1\nblock all", TCP_IN, False),
        ("block on egress", TCP_IN, False),
        ("block on ! egress", TCP_IN, True),
        ("block on em9", TCP_IN, True),
        ("block on ! em9", TCP_IN, False),
        ("block on vlan", TCP_IN, True),
        ("block on em", TCP_IN, True),
        ("block on ! inside", TCP_IN, False),
        ("block from (inside:network)", Packet("in", "em0", "udp", "192.168.1.9", "203.0.113.2", 1, 1), False),
        ("block to (em0)", TCP_IN, False),
        ("block to (em1)", TCP_IN, True),
        ("block to (em9)", TCP_IN, True),
        ("block to ! (em9)", TCP_IN, False),
        ("block to em0", TCP_IN, False),
        ("block to self", TCP_IN, False),
        ("block from em0:network", TCP_IN, False),
        ("block from ! (em0:network)", TCP_IN, True),
        ("block from 203.0.113.1 - 203.0.113.9", TCP_IN, False),
        ("block from 203.0.113.1 - 203.0.113.8", TCP_IN, True),
        ("block from { 203.0.113.8 203.0.113.9 }", TCP_IN, False),
        ("block to 0.0.0.0/0", TCP_IN, False),
        ("block inet6", TCP_IN, True),
        ("block to ! <t>\ntable <t> { 203.0.113.2 }", TCP_IN, True),
        # A table that the kernel fills by itself is two sets: outside means outside both.
        (
            "table <t> { 203.0.113.9 }\nblock from ! <t>\npass out proto tcp keep state (max-src-conn 1, overload <t>)",
            TCP_IN,
            True,
        ),
        ("block in ! tagged A", TCP_IN, False),
        ("match in tag A\nblock in ! tagged A", TCP_IN, True),
        ("match in tag B\nblock in ! tagged A", TCP_IN, False),
        ("match in tag A\nblock in tagged A", TCP_IN, False),
        ("antispoof for em1", Packet("in", "em0", "udp", "192.168.1.9", "203.0.113.2", 1, 1), False),
        ("antispoof for em1", Packet("in", "em1", "udp", "192.168.1.9", "203.0.113.2", 1, 1), True),
        ("antispoof for em1", Packet("in", "em1", "udp", "192.168.1.1", "203.0.113.2", 1, 1), False),
        ("antispoof for (em1)", Packet("in", "em0", "udp", "192.168.1.9", "203.0.113.2", 1, 1), False),
        ("block\npass out received-on any", UDP_OUT, False),
        ("block\npass out !received-on any", UDP_OUT, True),
        ("block\npass proto tcp flags any", Packet("in", "em0", "tcp", "10.1.2.3", "203.0.113.2", 1, 22, False), True),
        ("block\npass proto tcp", Packet("in", "em0", "tcp", "10.1.2.3", "203.0.113.2", 1, 22, False), False),
        ("block\npass proto tcp no state", Packet("in", "em0", "tcp", "10.1.2.3", "203.0.113.2", 1, 22, False), True),
        # A rule behind the translation sees the new source, one before it the old.
        ("block\nmatch out inet nat-to (em0)\npass out from em0", UDP_OUT, True),
        ("block\nmatch out inet nat-to 203.0.113.99\npass out from em0", UDP_OUT, False),
        ("block\nmatch out inet nat-to 203.0.113.99\npass out from 203.0.113.99", UDP_OUT, True),
        ("block\nmatch out inet nat-to 203.0.113.99\npass out from ! 203.0.113.99", UDP_OUT, False),
        ("block\npass out from em0\nmatch out inet nat-to 203.0.113.99", UDP_OUT, True),
        ("block\nmatch in inet proto tcp rdr-to 192.168.1.9 port 80\npass in to 192.168.1.9", TCP_IN, True),
        ("block\nmatch in inet proto tcp rdr-to 192.168.1.9\npass in to em0", TCP_IN, False),
        ("block\nmatch in inet proto tcp rdr-to 192.168.1.9\npass in proto tcp to 192.168.1.9 port 22", TCP_IN, True),
        ("block\nmatch in inet proto tcp rdr-to 192.168.1.9\npass in proto tcp to port 22", TCP_IN, True),
        ("block\nmatch in inet proto tcp rdr-to 192.168.1.9\npass in proto tcp to 192.168.1.9 port 80", TCP_IN, False),
        ("block\nmatch in inet proto tcp rdr-to 192.168.1.9 port 80\npass in proto tcp to port 80", TCP_IN, True),
        ("block\nmatch in inet proto tcp rdr-to 192.168.1.9 port 80\npass in proto tcp to port 22", TCP_IN, False),
        ("block\nmatch in inet proto udp rdr-to 192.168.1.9\npass in proto tcp to em0 port 22", TCP_IN, True),
        ("block\nmatch in inet proto udp rdr-to 192.168.1.9\npass in proto tcp to 192.168.1.9 port 22", TCP_IN, False),
    ],
)
def test_one_rule(text: str, packet: Packet, passes: bool) -> None:
    assert compiled(text).passes(packet) == passes


def test_a_wrong_compiler_is_seen() -> None:
    """What the random tests compare can differ: rules read first match first are told apart."""
    text = "block in\npass in proto tcp from any to any port 22\n"
    found = compiled(text)
    found.chains["rules_in"] = [*reversed(found.chains["rules_in"][:-1]), found.chains["rules_in"][-1]]
    assert found.passes(TCP_IN) != Oracle(text).passes(TCP_IN)


@given(
    st.dictionaries(
        st.tuples(st.integers(0, 255), st.integers(24, 32)).map(
            lambda pair: str(ipaddress.ip_network(f"10.0.0.{pair[0]}/{pair[1]}", strict=False))
        ),
        st.booleans(),
        max_size=12,
    )
)
def test_a_table_matches_by_its_smallest_network(entries: dict[str, bool]) -> None:
    words = [f"!{net}" if negated else net for net, negated in entries.items()]
    read = _read(f"table <t> persist {{ {' '.join(words)} }}\n")
    state = State(0)
    kernel.load(state, read)
    ranges = compiler.flattened(state.tables["", "t"], 4)
    oracle = Oracle("block from <t>\n", {"t": words})
    for last in range(256):
        value = int(ipaddress.IPv4Address(f"10.0.0.{last}"))
        packet = Packet("in", "em0", "udp", f"10.0.0.{last}", "10.9.9.9")
        assert any(first <= value <= end for first, end in ranges) != oracle.passes(packet)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges))
