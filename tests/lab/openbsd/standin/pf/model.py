"""What a ruleset is made of, after macros and lists are expanded; pf.conf(5), contract 3.2."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace
from typing import Literal

Net = ipaddress.IPv4Network | ipaddress.IPv6Network
Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
AddrKind = Literal["any", "net", "range", "table", "dynamic", "no-route", "urpf-failed"]

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
PROTOCOLS = {
    "icmp": ICMP,
    "igmp": 2,
    "ipencap": 4,
    "tcp": TCP,
    "udp": UDP,
    "ipv6": 41,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "ipv6-icmp": ICMP6,
    "icmp6": ICMP6,
    "ospf": 89,
    "etherip": 97,
    "pim": 103,
    "ipcomp": 108,
    "carp": 112,
    "pfsync": 240,
}
"""The names of protocols(5) that a rule of ours may say, with their numbers."""


@dataclass(frozen=True)
class Addr:
    """One side's address in a rule.

    Args:
        kind: what it is; the other fields are of one kind each.
        negated: the rule matches every other address.
        net: of `net`.
        first, last: the ends of `range`, both within.
        name: of `table`, and the interface or group of `dynamic`.
        modifiers: of `dynamic`, such as `network` and `0`.
    """

    kind: AddrKind = "any"
    negated: bool = False
    net: Net | None = None
    first: Ip | None = None
    last: Ip | None = None
    name: str = ""
    modifiers: tuple[str, ...] = ()

    @property
    def family(self) -> int:
        """Return 4, 6, or 0 where it is of both."""
        if self.net is not None:
            return self.net.version
        return self.first.version if self.first is not None else 0

    def __str__(self) -> str:
        return ("! " if self.negated else "") + self._plain()

    def _plain(self) -> str:
        if self.net is not None:
            if self.net.prefixlen == 0:
                return "any"
            single = self.net.prefixlen == self.net.max_prefixlen
            return str(self.net.network_address) if single else short(self.net)
        if self.kind == "range":
            return f"{self.first} - {self.last}"
        if self.kind == "table":
            return f"<{self.name}>"
        if self.kind == "dynamic":
            return f"({':'.join((self.name, *self.modifiers))})"
        return self.kind


def short(net: Net) -> str:
    """Return a network as pfctl writes it: `2001:db8::/32`."""
    return f"{net.network_address}/{net.prefixlen}"


@dataclass(frozen=True)
class Op:
    """A comparison of a port, a user or a group.

    Args:
        op: `=`, `!=`, `<`, `<=`, `>`, `>=`; `:` for a range with its ends, `><` without them, `<>` for what is outside.
        first: the number, or the lower end.
        last: the upper end of the last three.
    """

    op: str
    first: int
    last: int = 0

    def matches(self, value: int) -> bool:
        """Return whether a number is meant."""
        return {
            "=": value == self.first,
            "!=": value != self.first,
            "<": value < self.first,
            "<=": value <= self.first,
            ">": value > self.first,
            ">=": value >= self.first,
            ":": self.first <= value <= self.last,
            "><": self.first < value < self.last,
            "<>": value < self.first or value > self.last,
        }[self.op]

    def __str__(self) -> str:
        if self.op == ":":
            return f"{self.first}:{self.last}"
        return f"{self.first} {self.op} {self.last}" if self.op in {"><", "<>"} else f"{self.op} {self.first}"


@dataclass(frozen=True)
class StateOptions:
    """What stands in the parentheses behind `keep state`; zero and empty are "not given"."""

    maximum: int = 0
    max_src_states: int = 0
    max_src_conn: int = 0
    max_src_conn_rate: tuple[int, int] = (0, 0)
    overload: str = ""
    flush: Literal["", "rule", "global"] = ""
    source_track: str = ""
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = []
        if self.source_track:
            parts.append(f"source-track {self.source_track}")
        if self.maximum:
            parts.append(f"max {self.maximum}")
        if self.max_src_states:
            parts.append(f"max-src-states {self.max_src_states}")
        if self.max_src_conn:
            parts.append(f"max-src-conn {self.max_src_conn}")
        if self.max_src_conn_rate[0]:
            parts.append("max-src-conn-rate {}/{}".format(*self.max_src_conn_rate))
        if self.overload:
            flush = {"": "", "rule": " flush", "global": " flush global"}[self.flush]
            parts.append(f"overload <{self.overload}>{flush}")
        return ", ".join((*parts, *self.words))


@dataclass(frozen=True)
class Translation:
    """Where `nat-to` or `rdr-to` sends a packet; port 0 leaves the port alone."""

    target: Addr
    port: int = 0

    def __str__(self) -> str:
        return f"{self.target} port {self.port}" if self.port else str(self.target)


@dataclass(frozen=True)
class Rule:
    """A rule that needs no further expansion; an anchor's call is one with `anchor` set, evaluated in its place."""

    action: Literal["pass", "block", "match", "anchor"]
    direction: Literal["", "in", "out"] = ""
    returns: str = ""
    log: str = ""
    quick: bool = False
    interface: str = ""
    interface_negated: bool = False
    af: int = 0
    proto: int = 0
    source: Addr = Addr()
    source_port: Op | None = None
    dest: Addr = Addr()
    dest_port: Op | None = None
    received_on: str = ""
    received_negated: bool = False
    user: Op | None = None
    group: Op | None = None
    flags: tuple[str, str] | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    state: Literal["", "keep", "modulate"] = ""
    options: StateOptions = StateOptions()
    label: str = ""
    tag: str = ""
    tagged: str = ""
    tagged_negated: bool = False
    scrub: tuple[str, ...] = ()
    max_mss: int = 0
    prio: str = ""
    nat: Translation | None = None
    rdr: Translation | None = None
    anchor: str = ""
    rules: tuple[Rule, ...] | None = None

    def tables(self) -> set[str]:
        """Return the names of the tables that the rule, or a rule in its braces, refers to."""
        names = {addr.name for addr in (self.source, self.dest) if addr.kind == "table"}
        names |= {self.options.overload} - {""}
        return names.union(*(rule.tables() for rule in self.rules or ()))


@dataclass(frozen=True)
class Entry:
    """An address of a table.

    Args:
        net: the network, of full length for a host.
        negated: an exception of a larger one.
        cleared: when its statistics began, in seconds since the epoch.
    """

    net: Net
    negated: bool = False
    cleared: int = 0

    def __str__(self) -> str:
        host = self.net.prefixlen == self.net.max_prefixlen
        return ("!" if self.negated else " ") + (str(self.net.network_address) if host else short(self.net))


@dataclass(frozen=True)
class TableDef:
    """A `table` statement; `entries` is None where it gives no contents, which leaves those there are."""

    name: str
    persist: bool = False
    const: bool = False
    counters: bool = False
    entries: tuple[Entry, ...] | None = None


@dataclass(frozen=True)
class Ruleset:
    """A file's statements; `loads` are the anchors of `load anchor`."""

    rules: tuple[Rule, ...] = ()
    tables: tuple[TableDef, ...] = ()
    skip: tuple[str, ...] = ()
    loads: tuple[tuple[str, Ruleset], ...] = ()

    def referenced(self) -> set[str]:
        """Return the names of the tables that a rule refers to."""
        return set().union(*(rule.tables() for rule in self.rules))


@dataclass(frozen=True)
class Table:
    """A table of the kernel, in the anchor that is the first half of its key in `State.tables`."""

    persist: bool = False
    const: bool = False
    counters: bool = False
    entries: dict[Net, Entry] = field(default_factory=dict)

    def with_entries(self, entries: dict[Net, Entry]) -> Table:
        """Return the table with other contents."""
        return replace(self, entries=entries)


@dataclass
class State:
    """What a real pf keeps in its kernel, until the next boot.

    Args:
        enabled: `pfctl -e` was the last word.
        since: when that changed, in seconds since the epoch; 0 for never.
        hostid: of this boot.
        generation: goes up with each load, so that an old rule's states are not taken for a new rule's.
        main: the ruleset in force.
        anchors: those of `-a` and `load anchor`, by name.
        tables: by anchor and name.
    """

    hostid: int
    enabled: bool = False
    since: int = 0
    generation: int = 0
    main: Ruleset = field(default_factory=Ruleset)
    anchors: dict[str, Ruleset] = field(default_factory=dict)
    tables: dict[tuple[str, str], Table] = field(default_factory=dict)
