"""What pf(4) does with a packet, said once more and in another way: by going through the rules as pf.conf(5) tells it.

It knows nothing of nftables, and reads the rules' text itself, so that the compiler and the parser are measured with
something that shares no code with them.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Packet:
    """The first packet of a flow, at one of its two ends on the filtering host.

    Args:
        direction: `in` or `out`.
        interface: where it comes in or goes out.
        proto: `tcp`, `udp` or `icmp`.
        source, dest: its addresses.
        source_port, dest_port: 0 for ICMP.
        syn: it opens a TCP connection.
    """

    direction: str
    interface: str
    proto: str
    source: str
    dest: str
    source_port: int = 0
    dest_port: int = 0
    syn: bool = True


@dataclass
class Oracle:
    """A ruleset in the small language of the random tests.

    Args:
        text: the rules, one a line, without macros and lists.
        tables: name and entries, an exception with `!` before it.
        tags: of the packet while the rules are read.
    """

    text: str
    tables: dict[str, list[str]] = field(default_factory=dict)

    def passes(self, packet: Packet) -> bool:
        """Return whether the packet gets through: the last rule that matches wins, or the first quick one."""
        verdict, tag = True, ""
        for line in self.text.splitlines():
            words = line.split()
            tagged = re.search(r"(! )?tagged (\w+)", line)
            if tagged and (tag == tagged[2]) == bool(tagged[1]):
                continue
            if not self._matches(words, packet):
                continue
            given = re.search(r"\btag (\w+)", line)
            if given:
                tag = given[1]
            if words[0] != "match":
                verdict = words[0] == "pass"
            if "quick" in words:
                break
        return verdict

    def _matches(self, words: list[str], packet: Packet) -> bool:
        head = re.match(
            r"\w+( drop| return)?( (in|out)\b)?( quick)?( on (! )?(\w+))?( (inet6?)\b)?( proto (\w+))?", " ".join(words)
        )
        assert head is not None
        direction, negated, interface, family, proto = (head[number] for number in (3, 6, 7, 9, 11))
        # A pass rule keeps state, and then begins with a SYN only.
        stateful = words[0] == "pass" and "no" not in words and "flags" not in words
        return (
            direction in {None, packet.direction}
            and (interface is None or (interface == packet.interface) != bool(negated))
            and family != "inet6"
            and proto in {None, packet.proto}
            and not (stateful and packet.proto == "tcp" and not packet.syn)
            and self._end("from", words, packet.source, packet.source_port)
            and self._end("to", words, packet.dest, packet.dest_port)
        )

    def _end(self, word: str, words: list[str], address: str, port: int) -> bool:
        return word not in words or self._side(words[words.index(word) + 1 :], address, port)

    def _side(self, words: list[str], address: str, port: int) -> bool:
        negated = words[0] == "!"
        name = words[negated]
        inside = self._inside(name, address)
        if inside == negated:
            return False
        after = words[1 + negated :]
        return after[:1] != ["port"] or self._port(after[1:], port)

    def _inside(self, name: str, address: str) -> bool:
        if name == "any":
            return True
        if not name.startswith("<"):
            return ipaddress.ip_address(address) in ipaddress.ip_network(name)
        best, verdict = -1, False
        for entry in self.tables[name[1:-1]]:
            net = ipaddress.ip_network(entry.removeprefix("!"))
            if ipaddress.ip_address(address) in net and net.prefixlen > best:
                best, verdict = net.prefixlen, not entry.startswith("!")
        return verdict

    def _port(self, words: list[str], port: int) -> bool:
        if words[0] in {"=", "!=", "<", "<=", ">", ">="}:
            number = int(words[1])
            smaller, equal = port < number, port == number
            return {
                "=": equal,
                "!=": not equal,
                "<": smaller,
                "<=": smaller or equal,
                ">": not smaller and not equal,
                ">=": not smaller,
            }[words[0]]
        if len(words) > 2 and words[1] in {"><", "<>"}:
            first, last = int(words[0]), int(words[2])
            return first < port < last if words[1] == "><" else not first <= port <= last
        lower, _, upper = words[0].partition(":")
        return int(lower) <= port <= int(upper or lower)
