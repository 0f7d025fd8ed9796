"""A ruleset as one nftables transaction; pf.conf(5), contract 3.

pf(4) looks at a packet once as it comes in and once as it goes out, and the last rule that matches wins, unless one
is quick. So each rule only writes its number into the packet's mark, and what the number says is done at the end:
tags, translations of `match` rules and anchors come out as they do there. Packets come in at prerouting and go out at
output (ours) and forward (others'). A state is two bits of the connection's mark, one for each direction in which a
rule made it.

The packet's mark:      0-11 number of the matching rule, 12-23 tag, 24-30 translation, 31 an answer of pf's own.
The connection's mark:  0 state in, 1 state out, 2 handshake counted (in), 3 made after a flush, 4-7 generation,
                        8-18 rule in, 19-29 rule out, 30 handshake counted (out).
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from .model import ICMP, ICMP6, TCP, UDP, Addr, Net, Op, Rule, State, Table, Translation
from .network import Network
from .parser import Unmodelled

TABLE = "inet pf"
Hook = Literal["in", "forward", "output"]

RULE = 0x00000FFF
TAG = 0x00FFF000
TRANSLATION = 0x7F000000
GENERATED = 0x80000000
AFTER_FLUSH = 0x8
_MOST_RULES = 2047
_MOST_TRANSLATIONS = 127
_FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "W": 128}
_ADDRESS = {4: "ip", 6: "ip6"}
_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
# What a test is about tells the family, in the words of a test for nothing else.
_FAMILY = {word: f"meta nfproto ipv{family}" for family, word in _ADDRESS.items()}
KEEP = 365 * 86400
"""Seconds an address that overload added stays: until somebody removes it; its age is what is missing from this."""


@dataclass(frozen=True)
class _Side:
    """The fields of the connection's mark that belong to one direction."""

    state: int
    counted: int
    shift: int

    @property
    def rule(self) -> int:
        return _MOST_RULES << self.shift

    def value(self, number: int, generation: int) -> int:
        return number << self.shift | (generation % 16) << 4


_SIDES = {"in": _Side(0x1, 0x4, 8), "out": _Side(0x2, 0x40000000, 19)}
_GENERATION = 0xF0
_ALL = 0xFFFFFFFF
_NO_STATE = _ALL & ~(_SIDES["in"].state | _SIDES["out"].state)


@dataclass
class _Compiled:
    """What the chains need, in the order of its birth."""

    sets: dict[str, str] = field(default_factory=dict)
    chains: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Node:
    """A rule in its place: its number, the anchor it is in, and of an anchor's call the rules it goes to."""

    rule: Rule
    number: int
    anchor: str
    calls: tuple[tuple[_Node, ...], ...] = ()


def set_name(anchor: str, table: str, family: int) -> str:
    """Return the name of the nftables set with a table's addresses.

    Args:
        anchor: the table's anchor, empty for the main ruleset.
        table: its name.
        family: 4 or 6.

    Returns:
        A name without a character that nftables would mind.
    """
    return f"t{family}_{_plain(anchor)}_{_plain(table)}"


def overload_name(anchor: str, table: str, family: int) -> str:
    """Return the name of the set with the addresses that the kernel added to a table by itself."""
    return f"o{family}_{_plain(anchor)}_{_plain(table)}"


def _plain(name: str) -> str:
    return "".join(char if char.isalnum() else f"_{ord(char):02x}_" for char in name)


def flattened(table: Table, family: int) -> list[tuple[int, int]]:
    """Return the addresses that a table matches: of all its entries around an address the smallest network decides.

    Args:
        table: with exceptions among its entries.
        family: 4 or 6.

    Returns:
        Disjoint ranges of addresses as numbers, both ends within, in order.
    """
    ranges: list[tuple[int, int]] = []
    own = (entry for entry in table.entries.values() if entry.net.version == family)
    for entry in sorted(own, key=lambda entry: entry.net.prefixlen):
        first, last = int(entry.net.network_address), int(entry.net.broadcast_address)
        ranges = [piece for found in ranges for piece in _without(found, first, last)]
        if not entry.negated:
            ranges.append((first, last))
    ranges.sort()
    return ranges


def _without(found: tuple[int, int], first: int, last: int) -> list[tuple[int, int]]:
    if last < found[0] or found[1] < first:
        return [found]
    pieces = [(found[0], first - 1), (last + 1, found[1])]
    return [piece for piece in pieces if piece[0] <= piece[1]]


def elements(table: Table, family: int) -> str:
    """Return a table's addresses as the elements of a set, empty without any."""
    kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    return ", ".join(
        str(kind(first)) if first == last else f"{kind(first)}-{kind(last)}" for first, last in flattened(table, family)
    )


def is_flushed(name: str, mark: int, generation: int) -> bool:
    """Return whether a state of a source in one of the sets for `flush` was meant.

    Args:
        name: the set's.
        mark: the connection's.
        generation: of the ruleset in force.

    Returns:
        False for a state that was made afterwards, or by another rule where only one rule's are flushed.
    """
    if mark & AFTER_FLUSH:
        return False
    words = name.split("_")
    if len(words) == 1:
        return True
    side = _SIDES[words[1]]
    return mark & (side.rule | _GENERATION) == side.value(int(words[2]), generation)


def remove() -> str:
    """Return the transaction that leaves nothing of ours."""
    return f"table {TABLE}\ndelete table {TABLE}\n"


def refill(anchor: str, name: str, table: Table) -> str:
    """Return the transaction that gives the sets of one table its contents."""
    lines = []
    for family in (4, 6):
        target = f"{TABLE} {set_name(anchor, name, family)}"
        lines.append(f"flush set {target}")
        if inside := elements(table, family):
            lines.append(f"add element {target} {{ {inside} }}")
    return "\n".join(lines) + "\n"


def compile_ruleset(state: State, network: Network) -> str:
    """Return the transaction that puts a ruleset in the place of the one in force.

    Args:
        state: the ruleset, its anchors and the tables' contents.
        network: the interfaces as they are now; what the rules say of an interface's address or of a group holds
            until the next compilation.

    Returns:
        A script for `nft -f`.

    Raises:
        Unmodelled: the rules are more than the marks can count, or something cannot be expressed.
    """
    return _Compiler(state, network).script()


class _Compiler:
    def __init__(self, state: State, network: Network) -> None:
        self.state = state
        self.network = network
        self.out = _Compiled()
        self.nodes: list[_Node] = []
        self.tags: dict[str, int] = {}
        self.translations: list[tuple[str, Translation]] = []
        self.visible: dict[Hook, list[int]] = {}
        self.overloads: set[tuple[str, str]] = set()

    def script(self) -> str:
        rules = self.numbered(self.state.main.rules, "", ())
        for node in self.nodes:
            if node.rule.options.overload:
                self.overloads.add(self.table_key(node.anchor, node.rule.options.overload))
        for key in sorted(self.tables()):
            self.table(key)
        if any(node.rule.options.flush == "global" for node in self.nodes):
            for family in (4, 6):
                self.out.sets[f"flushed{family}"] = _dynamic(family)
        self.base()
        hooks: tuple[Hook, ...] = ("in", "forward", "output")
        for hook in hooks:
            self.visible[hook] = []
            self.ruleset(hook, f"rules_{hook}", rules)
            self.out.chains[f"rules_{hook}"].append(f"goto decide_{hook}")
            self.decisions(hook)
        self.handshakes()
        self.nat()
        return self.text()

    def numbered(self, rules: Sequence[Rule], anchor: str, callers: tuple[str, ...]) -> tuple[_Node, ...]:
        """Give each rule its number, one that is reached through several calls one for each of them."""
        found = []
        for rule in rules:
            number = len(self.nodes) + 1
            if number > _MOST_RULES:
                raise Unmodelled(f"more than {_MOST_RULES} rules")
            self.nodes.append(_Node(rule, number, anchor))
            calls: tuple[tuple[_Node, ...], ...] = ()
            if rule.rules is not None:
                calls = (self.numbered(rule.rules, anchor, callers),)
            elif rule.action == "anchor":
                names = self.called(anchor, rule.anchor)
                if set(names) & set(callers):
                    raise Unmodelled(f"the anchor {rule.anchor} in itself")
                calls = tuple(self.numbered(self.state.anchors[name].rules, name, (*callers, name)) for name in names)
            found.append(replace(self.nodes[number - 1], calls=calls))
        return tuple(found)

    def tables(self) -> set[tuple[str, str]]:
        found = set(self.state.tables)
        for anchor, ruleset in (("", self.state.main), *self.state.anchors.items()):
            found |= {self.table_key(anchor, name) for name in ruleset.referenced()}
        return found

    def table_key(self, anchor: str, name: str) -> tuple[str, str]:
        """Return which table a rule of an anchor means: the anchor's own, else the main ruleset's."""
        return (anchor, name) if (anchor, name) in self.state.tables else ("", name)

    def table(self, key: tuple[str, str]) -> None:
        table = self.state.tables.get(key, Table())
        for family in (4, 6):
            inside = elements(table, family)
            body = f"type {_TYPE[family]}; flags interval; "
            self.out.sets[set_name(*key, family)] = body + (f"elements = {{ {inside} }};" if inside else "")
            if key in self.overloads:
                self.out.sets[overload_name(*key, family)] = _dynamic(family)

    # Chains that every ruleset has.

    def base(self) -> None:
        skipped = sorted({name for skip in self.state.main.skip for name in self.network.linux_names(skip)})
        interfaces = "{ " + ", ".join(f'"{name}"' for name in skipped) + " }"
        hooks: tuple[tuple[Hook, str, str, str], ...] = (
            ("in", "prerouting", "iifname", "0x0"),
            ("forward", "forward", "oifname", f"meta mark & {TAG:#x}"),
            ("output", "output", "oifname", "0x0"),
        )
        for hook, place, direction, start in hooks:
            lines = [f"type filter hook {place} priority mangle; policy accept;"]
            if skipped:
                lines.append(f"{direction} {interfaces} accept")
            lines.append(f"meta mark & {GENERATED:#x} == {GENERATED:#x} accept")
            lines.append(f"meta mark set {start}")
            # The state of the direction in which the first packet went; an answer goes through it the other way.
            mine, other = ("in", "out") if hook == "in" else ("out", "in")
            for way, side in (("original", _SIDES[mine]), ("reply", _SIDES[other])):
                lines.append(f"ct direction {way} ct mark & {side.state:#x} == {side.state:#x} jump living")
            lines.append(f"goto rules_{hook}")
            self.out.chains[hook] = lines
        self.out.chains["living"] = []

    def decisions(self, hook: Hook) -> None:
        verdicts = ["0x0 : accept"]
        for node in self.nodes:
            reached = not node.rule.direction or (node.rule.direction == "in") == (hook == "in")
            if node.rule.action in {"pass", "block"} and reached:
                name = f"{hook}_{node.number}"
                self.out.chains[name] = self.decision(hook, node)
                verdicts.append(f"{node.number:#x} : goto {name}")
        self.out.chains[f"decide_{hook}"] = [f"meta mark & {RULE:#x} vmap {{ {', '.join(verdicts)} }}"]

    def decision(self, hook: Hook, node: _Node) -> list[str]:
        rule = node.rule
        if rule.action == "block":
            return _refusal(rule.returns)
        lines = []
        if rule.nat or rule.rdr:
            lines.append(self.translated(rule, hook))
        if rule.state:
            way = "in" if hook == "in" else "out"
            lines += self.limits(way, node)
            side = _SIDES[way]
            keep = _ALL & ~(side.rule | side.state | side.counted | _GENERATION | AFTER_FLUSH)
            value = side.value(node.number, self.state.generation) | side.state
            lines.append(f"ct mark set ct mark & {keep:#x} | {value:#x}")
            for family, word in _ADDRESS.items():
                for flushed in (f"flushed{family}", f"flushed_{way}_{node.number}_{family}"):
                    if flushed in self.out.sets:
                        lines.append(f"{word} saddr @{flushed} ct mark set ct mark | {AFTER_FLUSH:#x}")
        lines.append("accept")
        return lines

    def limits(self, way: str, node: _Node) -> list[str]:
        options = node.rule.options
        if options.flush == "rule":
            for family in (4, 6):
                self.out.sets[f"flushed_{way}_{node.number}_{family}"] = _dynamic(family)
        lines = []
        if options.maximum:
            lines.append(f"ct count over {options.maximum} drop")
        if options.max_src_states:
            count = f"ct count over {options.max_src_states}"
            lines += [line + " drop" for line in self.per_source(f"states_{way}_{node.number}", count)]
        if options.max_src_conn:
            # The kernel takes a connection into its count with the first packet only; it is judged by `handshake`.
            lines += self.per_source(f"conns_{way}_{node.number}", f"ct count over {options.max_src_conn}")
        return lines

    def per_source(self, name: str, limit: str) -> list[str]:
        lines = []
        for family, word in _ADDRESS.items():
            body = f"type {_TYPE[family]}; flags dynamic; size 65535;"
            self.out.sets[f"{name}_{family}"] = body
            lines.append(f"add @{name}_{family} {{ {word} saddr {limit} }}")
        return lines

    def handshakes(self) -> None:
        """Count a TCP connection when its handshake is complete, as pf does: a forged source never gets that far."""
        living = self.out.chains["living"]
        for family in (4, 6):
            if f"flushed{family}" in self.out.sets:
                living.append(
                    f"ct original {_ADDRESS[family]} saddr @flushed{family} ct mark & {AFTER_FLUSH:#x} == 0x0 "
                    f"ct mark set ct mark & {_NO_STATE:#x} return"
                )
        for way, side in _SIDES.items():
            cases = []
            for node in self.nodes:
                options = node.rule.options
                counted = options.max_src_conn or options.max_src_conn_rate[0]
                if counted and node.rule.direction in {"", way}:
                    self.handshake(way, node)
                    value = side.value(node.number, self.state.generation)
                    cases.append(f"{value:#x} : goto handshake_{way}_{node.number}")
            if cases:
                self.out.chains[f"handshake_{way}"] = [
                    f"ct mark set ct mark | {side.counted:#x}",
                    f"ct mark & {side.rule | _GENERATION:#x} vmap {{ {', '.join(cases)} }}",
                ]
                living.append(
                    f"meta l4proto {TCP} ct state established ct direction original "
                    f"ct mark & {side.state | side.counted:#x} == {side.state:#x} jump handshake_{way}"
                )
        living.append("accept")

    def handshake(self, way: str, node: _Node) -> None:
        side, options = _SIDES[way], node.rule.options
        name = f"{way}_{node.number}"
        lines = []
        if options.max_src_conn:
            lines += self.per_source(f"conns_{name}", f"ct count over {options.max_src_conn}")
        if options.max_src_conn_rate[0]:
            count, seconds = options.max_src_conn_rate
            # nftables has no interval but its own units: a bucket of `count` that is filled again in `seconds`.
            limit = f"limit rate over {max(1, count * 86400 // seconds)}/day burst {count} packets"
            lines += self.per_source(f"rate_{name}", limit)
        self.out.chains[f"handshake_{name}"] = [*(f"{line} goto exceeded_{name}" for line in lines), "accept"]
        exceeded = [f"ct mark set ct mark & {_NO_STATE:#x}"]
        for family, word in _ADDRESS.items():
            if options.overload:
                key = self.table_key(node.anchor, options.overload)
                exceeded.append(f"add @{overload_name(*key, family)} {{ {word} saddr }}")
            if options.flush == "global":
                exceeded.append(f"add @flushed{family} {{ {word} saddr }}")
            elif options.flush:
                exceeded.append(f"add @flushed_{name}_{family} {{ {word} saddr }}")
                self.out.chains["living"].append(
                    f"ct original {word} saddr @flushed_{name}_{family} "
                    f"ct mark & {side.rule | _GENERATION | AFTER_FLUSH:#x} == "
                    f"{side.value(node.number, self.state.generation):#x} "
                    f"ct mark set ct mark & {_NO_STATE:#x} return"
                )
        self.out.chains[f"exceeded_{name}"] = [*exceeded, "drop"]

    def nat(self) -> None:
        chains = {
            "nat": ["type nat hook postrouting priority srcnat; policy accept;"],
            "rdr": ["type nat hook prerouting priority dstnat; policy accept;"],
        }
        for number, (kind, translation) in enumerate(self.translations, 1):
            for net in self.targets(translation):
                family, address = _ADDRESS[net.version], str(net.network_address)
                tests = f"meta mark & {TRANSLATION:#x} == {number << 24:#x} meta nfproto ipv{net.version}"
                if translation.port:
                    address = f"[{address}]:{translation.port}" if net.version == 6 else f"{address}:{translation.port}"
                    tests += f" meta l4proto {{ {TCP}, {UDP} }}"
                chains[kind].append(f"{tests} {'snat' if kind == 'nat' else 'dnat'} {family} to {address}")
        for kind, lines in chains.items():
            if len(lines) > 1:
                self.out.chains[kind] = lines

    def targets(self, translation: Translation) -> tuple[Net, ...]:
        """Return the address of each family that a packet gets."""
        if translation.target.net is not None:
            return (translation.target.net,)
        found = self.network.resolved(translation.target)
        if len(found) > len({net.version for net in found}):
            raise Unmodelled(f"a translation to the several addresses of {translation.target}")
        return found

    def text(self) -> str:
        lines = [f"table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{"]
        lines += [f"set {name} {{ {body} }}" for name, body in self.out.sets.items()]
        # A chain must be there before a rule goes to it: nftables sorts that out within one block.
        for name, body_lines in self.out.chains.items():
            lines += [f"chain {name} {{", *body_lines, "}"]
        return "\n".join([*lines, "}"]) + "\n"

    # Rules.

    def ruleset(self, hook: Hook, chain: str, nodes: Sequence[_Node]) -> None:
        lines = self.out.chains.setdefault(chain, [])
        for node in nodes:
            rule = node.rule
            if rule.direction and (rule.direction == "in") != (hook == "in"):
                continue
            tests = self.tests(node, hook)
            for index, called in enumerate(node.calls):
                inner = f"anchor_{hook}_{node.number}_{index}"
                self.ruleset(hook, inner, called)
                lines += [" ".join((*test, f"jump {inner}")) for test in tests]
            if rule.action != "anchor":
                effect = self.effect(node, hook)
                lines += [" ".join((*test, line)) for test in tests for line in effect]
            if rule.action == "match" and (rule.nat or rule.rdr):
                self.visible[hook].append(len(self.translations))

    def called(self, anchor: str, name: str) -> list[str]:
        path = name.removeprefix("/") if name.startswith("/") or not anchor else f"{anchor}/{name}"
        if not path.endswith("/*"):
            return [path] if path in self.state.anchors else []
        parent = path.removesuffix("*")
        return sorted(
            found for found in self.state.anchors if found.startswith(parent) and "/" not in found[len(parent) :]
        )

    def effect(self, node: _Node, hook: Hook) -> list[str]:
        rule = node.rule
        keep, value = _ALL, 0
        if rule.action != "match":
            keep, value = keep & ~RULE, node.number
        if rule.tag:
            keep, value = keep & ~TAG, value | self.tag(rule.tag) << 12
        lines = []
        if rule.max_mss:
            lines.append(f"tcp flags & 0x2 == 0x2 tcp option maxseg size set {rule.max_mss}")
        if rule.action == "match" and (rule.nat or rule.rdr):
            lines.append(self.translated(rule, hook))
        mark = f"meta mark set meta mark & {keep:#x} | {value:#x}"
        if rule.quick:
            lines.append(f"{mark} goto decide_{hook}")
        elif value:
            lines.append(mark)
        return lines

    def tag(self, name: str) -> int:
        return self.tags.setdefault(name, len(self.tags) + 1)

    def translated(self, rule: Rule, hook: Hook) -> str:
        kind = "nat" if rule.nat else "rdr"
        translation = rule.nat or rule.rdr
        if (kind == "rdr") != (hook == "in") or translation is None:
            raise Unmodelled("nat-to of what comes in, or rdr-to of what goes out")
        if (kind, translation) not in self.translations:
            self.translations.append((kind, translation))
        number = self.translations.index((kind, translation)) + 1
        if number > _MOST_TRANSLATIONS:
            raise Unmodelled(f"more than {_MOST_TRANSLATIONS} translations")
        return f"meta mark set meta mark & {_ALL & ~TRANSLATION:#x} | {number << 24:#x}"

    def tests(self, node: _Node, hook: Hook) -> list[list[str]]:
        """Return the ways in which a packet can match a rule, each a list of tests that must all hold."""
        rule, anchor = node.rule, node.anchor
        source = self.addresses(rule.source, "saddr", rule.af, hook, anchor)
        dest = self.addresses(rule.dest, "daddr", rule.af, hook, anchor)
        rest = [
            _interface("iifname" if hook == "in" else "oifname", rule.interface, rule.interface_negated, self.network),
            self.received(rule, hook),
            [[f"meta nfproto ipv{rule.af}"]] if rule.af else [[]],
            [[f"meta l4proto {rule.proto}"]] if rule.proto else [[]],
            _icmp(rule),
            _flags(rule),
            _owner("skuid", rule.user, hook),
            _owner("skgid", rule.group, hook),
            self.tagged(rule),
        ]
        ports = _ports(rule, "sport", rule.source_port), _ports(rule, "dport", rule.dest_port)
        moved, port = (rule.dest, rule.dest_port) if hook == "in" else (rule.source, rule.source_port)
        if not self.visible[hook] or (moved.kind == "any" and port is None):
            return _product(*rest, *ports, source, dest)
        if hook == "in":
            fixed, direct, own_port = _product(*rest, ports[0], source), dest, ports[1]
        else:
            fixed, direct, own_port = _product(*rest, ports[1], dest), source, ports[0]
        return self.after_translation(hook, moved, port, fixed, direct, own_port)

    def after_translation(
        self,
        hook: Hook,
        moved: Addr,
        port: Op | None,
        others: list[list[str]],
        direct: list[list[str]],
        own_port: list[list[str]],
    ) -> list[list[str]]:
        """Let a rule behind a `match` with a translation see the new address, which the packet does not have yet."""
        if moved.kind == "table" or (port is not None and hook != "in"):
            raise Unmodelled("a table or source port of a translated address behind the match rule that translates it")
        ways = _product([[f"meta mark & {TRANSLATION:#x} == 0x0"]], others, direct, own_port)
        for number in dict.fromkeys(self.visible[hook]):
            translation = self.translations[number - 1][1]
            if port is None or not translation.port:
                new_port = own_port
            else:
                new_port = [[]] if port.matches(translation.port) else []
            for net in self.targets(translation):
                if moved.kind == "any" or self.includes(moved, net):
                    seen = [f"meta mark & {TRANSLATION:#x} == {number << 24:#x}", f"meta nfproto ipv{net.version}"]
                    ways += _product([seen], others, new_port)
        return ways

    def includes(self, addr: Addr, net: Net) -> bool:
        if addr.kind == "net" and addr.net is not None:
            inside = addr.net.version == net.version and net.network_address in addr.net
        elif addr.kind == "dynamic":
            inside = any(
                found.version == net.version and net.network_address in found for found in self.network.resolved(addr)
            )
        elif addr.first is not None and addr.last is not None:
            inside = int(addr.first) <= int(net.network_address) <= int(addr.last)
        else:
            raise Unmodelled(f"{addr} of a translated address")
        return inside != addr.negated

    def received(self, rule: Rule, hook: Hook) -> list[list[str]]:
        if not rule.received_on:
            return [[]]
        if hook == "in":
            raise Unmodelled("received-on of what comes in")
        # What this host sends itself was received on nothing.
        if rule.received_on == "any" or hook == "output":
            return [[]] if (hook == "output") == rule.received_negated else []
        return _interface("iifname", rule.received_on, rule.received_negated, self.network)

    def addresses(self, addr: Addr, word: str, af: int, hook: Hook, anchor: str) -> list[list[str]]:
        families = (af,) if af else (4, 6)
        equals = "!= " if addr.negated else ""
        if addr.kind == "any":
            return [[]] if not addr.negated else []
        if addr.kind in {"no-route", "urpf-failed"}:
            return self.routes(addr, word, hook)
        if addr.kind == "table":
            key = self.table_key(anchor, addr.name)
            ways = []
            for family in families:
                sets = [set_name(*key, family)]
                if key in self.overloads:
                    sets.append(overload_name(*key, family))
                tests = [f"{_ADDRESS[family]} {word} {equals}@{name}" for name in sets]
                ways += [tests] if addr.negated else [[test] for test in tests]
            return ways
        if addr.kind == "range":
            return [[f"{_ADDRESS[addr.family]} {word} {equals}{addr.first}-{addr.last}"]]
        nets = (addr.net,) if addr.net is not None else self.network.resolved(addr)
        ways = []
        for family in families:
            own = [net for net in nets if net.version == family]
            everything = any(net.prefixlen == 0 for net in own)
            if own and not everything:
                # One range that holds another is no set for nftables.
                inside = ", ".join(str(net) for net in _outermost(own))
                ways.append([f"{_ADDRESS[family]} {word} {equals}{{ {inside} }}"])
            elif everything != addr.negated and (own or addr.net is None):
                ways.append([f"meta nfproto ipv{family}"])
        return ways

    def routes(self, addr: Addr, word: str, hook: Hook) -> list[list[str]]:
        if hook != "in" and addr.kind == "urpf-failed":
            raise Unmodelled("urpf-failed of what goes out")
        if hook == "output" or (hook == "forward" and word == "daddr"):
            # What goes out has a route, and what is ours one back.
            return [[]] if addr.negated else []
        lookup = word if addr.kind == "no-route" else f"{word} . iif"
        return [[f"fib {lookup} oif {'exists' if addr.negated else 'missing'}"]]

    def tagged(self, rule: Rule) -> list[list[str]]:
        if not rule.tagged:
            return [[]]
        return [[f"meta mark & {TAG:#x} {'!=' if rule.tagged_negated else '=='} {self.tag(rule.tagged) << 12:#x}"]]


def _dynamic(family: int) -> str:
    return f"type {_TYPE[family]}; flags dynamic,timeout; timeout {KEEP}s; size 65535;"


def _product(*choices: list[list[str]]) -> list[list[str]]:
    ways = [[test for choice in way for test in choice] for way in itertools.product(*choices)]
    return [way for way in ways if len({_FAMILY.get(test.split(" ", 1)[0], test) for test in _of_family(way)}) < 2]


def _of_family(way: Sequence[str]) -> list[str]:
    """Return the tests that only packets of one address family can pass: nftables refuses two that contradict."""
    return [test for test in way if test.split(" ", 1)[0] in _FAMILY or test.startswith("meta nfproto ")]


def _outermost(nets: Sequence[Net]) -> list[Net]:
    kept: list[Net] = []
    for net in sorted(set(nets), key=lambda net: net.prefixlen):
        if not any(net.network_address in found for found in kept):
            kept.append(net)
    return kept


def _interface(word: str, name: str, negated: bool, network: Network) -> list[list[str]]:
    if not name:
        return [[]]
    found = network.linux_names(name)
    if not found:
        return [[]] if negated else []
    inside = ", ".join(f'"{each}"' for each in found)
    return [[f"{word} {'!= ' if negated else ''}{{ {inside} }}"]]


def _ports(rule: Rule, word: str, op: Op | None) -> list[list[str]]:
    if op is None:
        return [[]]
    base = f"{'tcp' if rule.proto == TCP else 'udp'} {word}"
    return [[f"{base} {_compared(op)}"]] if op.op != "><" or op.first + 1 < op.last else []


def _compared(op: Op) -> str:
    if op.op == ":":
        return f"{op.first}-{op.last}" if op.first != op.last else str(op.first)
    if op.op == "><":
        return f"{op.first + 1}-{op.last - 1}" if op.first + 2 != op.last else str(op.first + 1)
    if op.op == "<>":
        return f"!= {op.first}-{op.last}" if op.first != op.last else f"!= {op.first}"
    return str(op.first) if op.op == "=" else f"{op.op} {op.first}"


def _icmp(rule: Rule) -> list[list[str]]:
    if rule.icmp_type is None:
        return [[]]
    word = {ICMP: "icmp", ICMP6: "icmpv6"}[rule.proto]
    tests = [f"{word} type {rule.icmp_type}"]
    if rule.icmp_code is not None:
        tests.append(f"{word} code {rule.icmp_code}")
    return [tests]


def _flags(rule: Rule) -> list[list[str]]:
    """Only TCP has flags: a rule for any protocol takes the others as they are; pf.conf(5)."""
    if not rule.flags or rule.flags == ("", ""):
        return [[]]
    given, mask = (sum(_FLAGS[letter] for letter in set(letters)) for letters in rule.flags)
    tests = [f"tcp flags & {mask:#x} == {given:#x}"]
    if rule.proto == TCP:
        return [tests]
    return [tests, [f"meta l4proto != {TCP}"]]


def _owner(word: str, op: Op | None, hook: Hook) -> list[list[str]]:
    if op is None:
        return [[]]
    if hook == "forward":
        # Nobody here owns it, and nobody is not any of those named.
        return [[]] if op.op == "!=" else []
    return [[f"meta {word} {_compared(op)}"]]


def _refusal(returns: str) -> list[str]:
    if returns == "drop":
        return ["drop"]
    mark = f"meta mark set {GENERATED:#x}"
    reset = f"meta l4proto {TCP} {mark} reject with tcp reset"
    if returns == "return":
        return [reset, f"{mark} reject with icmpx port-unreachable", "drop"]
    if returns == "return-rst":
        return [reset, "drop"]
    word, _, code = returns.removesuffix(")").partition("(")
    answers = {
        "": ("port-unreachable", "port-unreachable"),
        "port-unr": ("port-unreachable", "port-unreachable"),
        "net-unr": ("net-unreachable", "no-route"),
        "host-unr": ("host-unreachable", "addr-unreachable"),
        "host-prohib": ("host-prohibited", "admin-prohibited"),
        "filter-prohib": ("admin-prohibited", "admin-prohibited"),
    }
    if code not in answers:
        raise Unmodelled(f"block {returns}")
    four, six = answers[code]
    if word == "return-icmp":
        six = "port-unreachable"
    else:
        four = "port-unreachable"
    return [
        f"meta nfproto ipv4 {mark} reject with icmp {four}",
        f"meta nfproto ipv6 {mark} reject with icmpv6 {six}",
    ]
