"""The grammar of pf.conf(5), as far as contract 3.2 has it; what is of pf but not compiled is `Unmodelled`."""

from __future__ import annotations

import ipaddress
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NoReturn, TypeVar

from . import names
from .lexer import Lexer, Token
from .model import (
    ICMP,
    ICMP6,
    PROTOCOLS,
    TCP,
    UDP,
    Addr,
    AddrKind,
    Entry,
    Net,
    Op,
    Rule,
    Ruleset,
    StateOptions,
    TableDef,
    Translation,
)
from .network import Network

KEYWORDS = frozenset(
    """
    all allow-opts anchor antispoof any bandwidth binat-to block const counters debug delay divert-packet divert-reply
    divert-to drop dup-to file fingerprints flags floating flow-queues flush for fragment from global group hostid
    icmp-type icmp6-type if-bound in include inet inet6 keep label least-states limit load log loginterface match max
    max-mss max-pkt-rate max-src-conn max-src-conn-rate max-src-nodes max-src-states modulate nat-to no no-df no-route
    no-sync on once optimization os out overload parent pass pflow port prio probability proto queue quick random
    random-id rdomain rdr-to reassemble received-on reply-to return return-icmp return-icmp6 return-rst round-robin
    route route-to rtable rule ruleset-optimization scrub self set skip sloppy source-hash source-track state
    state-defaults state-policy static-port sticky-address syncookies synproxy table tag tagged timeout to tos ttl
    urpf-failed user weight
    """.split()  # noqa: SIM905 (eighty words are no list to read)
)
"""The words that a name without quotes cannot be; pf.conf(5)."""

_LATER = {
    "af-to",
    "allow-opts",
    "binat-to",
    "divert-packet",
    "divert-reply",
    "divert-to",
    "dup-to",
    "fragment",
    "max-pkt-rate",
    "once",
    "os",
    "probability",
    "queue",
    "reply-to",
    "route-to",
    "tos",
}
_TIMEOUTS = {
    f"{proto}.{state}"
    for proto, states in {
        "tcp": "first opening established closing finwait closed tsdiff",
        "udp": "first single multiple",
        "icmp": "first error",
        "other": "first single multiple",
        "adaptive": "start end",
    }.items()
    for state in states.split()
} | {"interval", "frag", "src.track"}
_LIMITS = {"states", "src-nodes", "frags", "tables", "table-entries", "pktdelay-pkts", "anchors"}
_OPTIMIZATIONS = {"normal", "default", "satellite", "high-latency", "conservative", "aggressive"}
_T = TypeVar("_T")


class Unmodelled(Exception):
    """Something of pf.conf(5) that the stand-in does not do."""


class Failed(Exception):
    """The lines with which pfctl ends at once, with exit code 1."""


class _Bad(Exception):
    """A statement that is wrong, with the messages that its place in the file goes before."""

    def __init__(self, *messages: str) -> None:
        self.messages = messages or ("syntax error",)


@dataclass
class Parsed:
    """A file that was read: what it says, and the lines on standard error that are wrong with it."""

    ruleset: Ruleset
    errors: list[str] = field(default_factory=list)


@dataclass
class _Draft:
    """A rule before its lists are expanded."""

    rule: Rule
    interfaces: list[tuple[str, bool]] = field(default_factory=lambda: [("", False)])
    protocols: list[int] = field(default_factory=lambda: [0])
    sources: list[Addr] = field(default_factory=lambda: [Addr()])
    source_ports: list[Op | None] = field(default_factory=lambda: [None])
    dests: list[Addr] = field(default_factory=lambda: [Addr()])
    dest_ports: list[Op | None] = field(default_factory=lambda: [None])
    users: list[Op | None] = field(default_factory=lambda: [None])
    groups: list[Op | None] = field(default_factory=lambda: [None])
    icmp: list[tuple[int, int | None, int | None]] = field(default_factory=lambda: [(0, None, None)])
    nats: list[Addr] = field(default_factory=list)
    rdrs: list[Addr] = field(default_factory=list)
    rdr_port: int = 0
    state_given: bool = False


def parse(
    name: str, text: str, network: Callable[[], Network], macros: dict[str, str] | None = None, now: int = 0
) -> Parsed:
    """Read a ruleset.

    Args:
        name: the file's name, as messages give it.
        text: what it contains.
        network: gives the interfaces, asked only where a rule needs one's addresses.
        macros: those of `pfctl -D`, which the file's own do not override.
        now: seconds since the epoch, from which the tables' statistics count.

    Returns:
        The rules, in the order of the file and one for each combination, and the messages of what is wrong.

    Raises:
        Unmodelled: the file has something that is not compiled.
        Failed: an anchor's file cannot be read.
    """
    return _Parser(name, text, network, dict(macros or {}), now).run()


class _Parser:
    def __init__(self, name: str, text: str, network: Callable[[], Network], macros: dict[str, str], now: int) -> None:
        self.fixed = frozenset(macros)
        self.lexer = Lexer(name, text, macros)
        self.network = network
        self.now = now
        self.ahead: Token | None = None
        self.last = Token("eof", "", name, 1)
        self.errors: list[str] = []
        self.tables: list[TableDef] = []
        self.skip: list[str] = []
        self.loads: list[tuple[str, Ruleset]] = []
        self.block_policy = "drop"
        self.state_defaults: tuple[str, ...] = ()
        self.braces = 0

    def run(self) -> Parsed:
        rules = self.statements(closing=False)
        return Parsed(Ruleset(tuple(rules), tuple(self.tables), tuple(self.skip), tuple(self.loads)), self.errors)

    # Words.

    def peek(self) -> Token:
        if self.ahead is None:
            self.ahead = self.lexer.next()
        return self.ahead

    def take(self) -> Token:
        self.last = self.peek()
        self.ahead = None
        if self.last.kind == "error":
            raise _Bad(self.last.text, "syntax error")
        return self.last

    def at(self, *texts: str) -> bool:
        token = self.peek()
        return token.kind in {"word", "op"} and token.text in texts

    def accept(self, *texts: str) -> str:
        return self.take().text if self.at(*texts) else ""

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.take()
            raise _Bad

    def name(self) -> str:
        token = self.take()
        if token.kind == "string" or (token.kind == "word" and token.text not in KEYWORDS):
            return token.text
        raise _Bad

    def number(self) -> int:
        token = self.take()
        if token.kind != "number":
            raise _Bad
        return int(token.text)

    def listed(self, item: Callable[[], Iterable[_T]]) -> list[_T]:
        """Read one item, or several in braces; commas between them are for the reader."""
        if not self.accept("{"):
            return list(item())
        found: list[_T] = []
        self.lines()
        while not self.at("}"):
            found += item()
            self.lines()
            if self.accept(","):
                self.lines()
        self.expect("}")
        if not found:
            raise _Bad
        return found

    def lines(self) -> None:
        while self.peek().kind == "newline":
            self.take()

    # Statements.

    def statements(self, closing: bool) -> list[Rule]:
        rules: list[Rule] = []
        while True:
            token = self.peek()
            if token.kind == "newline":
                self.take()
            elif token.kind == "eof":
                if closing:
                    self.fail()
                return rules
            elif closing and self.at("}"):
                return rules
            else:
                self.one(rules)

    def one(self, rules: list[Rule]) -> None:
        try:
            rules += self.statement()
            if self.peek().kind not in {"newline", "eof"}:
                self.take()
                raise _Bad
        except _Bad as bad:
            for message in bad.messages:
                self.wrong(message)
            while self.last.kind not in {"newline", "eof"}:
                self.last = self.peek()
                self.ahead = None

    def wrong(self, message: str) -> None:
        self.errors.append(f"{self.last.file}:{self.last.line}: {message}")

    def statement(self) -> list[Rule]:
        token = self.take()
        if token.kind != "word":
            raise _Bad
        if token.text in {"pass", "block", "match"}:
            return self.rule(token.text)
        handlers: dict[str, Callable[[], list[Rule]]] = {
            "set": self.option,
            "table": self.table,
            "include": self.include,
            "antispoof": self.antispoof,
            "anchor": self.anchor,
            "load": self.load,
        }
        if token.text in handlers:
            return handlers[token.text]()
        if token.text in {"queue", "state", "source"}:
            raise Unmodelled(f"the statement {token.text}")
        if token.text in KEYWORDS or not self.accept("="):
            self.take()
            raise _Bad
        self.macro(token.text)
        return []

    def macro(self, name: str) -> None:
        words = []
        while self.peek().kind not in {"newline", "eof"}:
            words.append(self.take().text)
        if not words:
            raise _Bad
        if name not in self.fixed:
            self.lexer.macros[name] = " ".join(words)

    def include(self) -> list[Rule]:
        token = self.take()
        if token.kind != "string":
            raise _Bad
        try:
            text = names.place(token.text).read_text()
        except OSError as error:
            self.errors.append(f"pfctl: pushfile: {token.text}: {os.strerror(error.errno or 0)}")
            raise _Bad(f"failed to include file {token.text}") from None
        self.lexer.include(token.text, text)
        if self.peek().kind not in {"newline", "eof"}:
            return self.statement()
        return []

    def option(self) -> list[Rule]:
        what = self.take().text
        settings: dict[str, Callable[[], object]] = {
            "skip": self.set_skip,
            "block-policy": self.set_block_policy,
            "state-policy": self.set_state_policy,
            "state-defaults": self.set_state_defaults,
            "limit": lambda: self.listed(lambda: self.setting(_LIMITS, "unable to set limit {}")),
            "timeout": lambda: self.listed(lambda: self.setting(_TIMEOUTS, "unknown timeout {}")),
            "optimization": self.set_optimization,
            "loginterface": self.take,
            "reassemble": self.set_reassemble,
            "syncookies": self.set_syncookies,
        }
        if what in {"debug", "fingerprints", "hostid", "ruleset-optimization"}:
            raise Unmodelled(f"set {what}")
        if what not in settings:
            raise _Bad
        settings[what]()
        return []

    def set_skip(self) -> None:
        self.expect("on")
        self.skip += [name for name, _ in self.interfaces(negations=False)]

    def set_block_policy(self) -> None:
        self.block_policy = self.accept("drop", "return") or self.fail()

    def set_state_policy(self) -> None:
        if self.accept("if-bound"):
            raise Unmodelled("set state-policy if-bound")
        self.expect("floating")

    def set_state_defaults(self) -> None:
        self.state_defaults = self.state_options().words

    def set_optimization(self) -> None:
        value = self.name()
        if value not in _OPTIMIZATIONS:
            raise _Bad(f"unknown optimization {value}")

    def set_reassemble(self) -> None:
        if self.take().text != "yes":
            raise Unmodelled("set reassemble no")
        self.accept("no-df")

    def set_syncookies(self) -> None:
        if self.take().text != "never":
            raise Unmodelled("set syncookies")

    def fail(self) -> NoReturn:
        self.take()
        raise _Bad

    def setting(self, known: set[str], message: str) -> list[tuple[str, int]]:
        name = self.take().text
        if name not in known:
            raise _Bad(message.format(name))
        return [(name, self.number())]

    def table(self) -> list[Rule]:
        self.expect("<")
        name = self.name()
        if len(name) > 31:
            raise _Bad("table name too long, max 31 chars")
        self.expect(">")
        words: set[str] = set()
        entries: dict[Net, Entry] | None = None
        while self.peek().kind not in {"newline", "eof"}:
            if word := self.accept("persist", "const", "counters"):
                words.add(word)
            elif self.accept("file"):
                path = self.take()
                if path.kind != "string":
                    raise _Bad
                entries = {**(entries or {}), **self.table_file(path.text)}
            elif self.at("{"):
                entries = {**(entries or {}), **self.table_list()}
            else:
                self.fail()
        kept = None if entries is None else tuple(entries.values())
        self.tables.append(TableDef(name, "persist" in words, "const" in words, "counters" in words, kept))
        return []

    def table_list(self) -> dict[Net, Entry]:
        self.expect("{")
        found: list[Addr] = []
        self.lines()
        while not self.accept("}"):
            found += self.host()
            self.lines()
            self.accept(",")
            self.lines()
        if any(addr.net is None for addr in found):
            raise Unmodelled("a table's address that is no address or network")
        return {addr.net: Entry(addr.net, addr.negated, self.now) for addr in found if addr.net is not None}

    def table_file(self, path: str) -> dict[Net, Entry]:
        try:
            return read_table(names.place(path).read_text(), self.network, self.now)
        except OSError as error:
            raise _Bad(f'cannot load "{path}": {os.strerror(error.errno or 0)}') from None
        except ValueError as error:
            self.errors.append(str(error))
            raise _Bad(f'file "{path}" contains bad data') from None

    def antispoof(self) -> list[Rule]:
        log, quick = self.log_quick()
        self.expect("for")
        # An interface in parentheses follows its address; pf.conf(5), "dynamic" antispoof.
        interfaces: list[tuple[str, bool]] = self.listed(self.antispoof_interface)
        af = self.family()
        label = self.name() if self.accept("label") else ""
        base = Rule("block", "in", "drop", log=log, quick=quick, label=label)
        rules = []
        for name, dynamic in interfaces:
            loopback = all(found.loopback for found in self.network().members(name)) and bool(
                self.network().members(name)
            )
            spoofed = self.sources_of(name, ("network",), dynamic)
            rules += [
                replace(base, interface=name, interface_negated=True, af=addr.family, source=addr)
                for addr in spoofed
                if not af or not addr.family or addr.family == af
            ]
            if not loopback:
                own = self.sources_of(name, (), dynamic)
                rules += [
                    replace(base, af=addr.family, source=addr)
                    for addr in own
                    if not af or not addr.family or addr.family == af
                ]
        return rules

    def sources_of(self, name: str, modifiers: tuple[str, ...], dynamic: bool) -> list[Addr]:
        if dynamic:
            return [Addr("dynamic", name=name, modifiers=modifiers)]
        return [Addr("net", net=net) for net in self.network().networks(name, modifiers)]

    def antispoof_interface(self) -> list[tuple[str, bool]]:
        if self.accept("("):
            name = self.name()
            self.expect(")")
            return [(name, True)]
        return [(self.name(), False)]

    def anchor(self) -> list[Rule]:
        name = self.take().text if self.peek().kind == "string" else ""
        draft = self.head(Rule("anchor", anchor=name or "_inline"))
        if draft.rule.quick:
            raise Unmodelled("anchor quick")
        self.filter_options(draft)
        if draft.rule.state or draft.state_given or draft.nats or draft.rdrs:
            raise _Bad("anchor rules must not have state or translation options")
        if self.accept("{"):
            # The rules' own lines: a body on the line of the brace is no body (contract 3.2).
            if self.peek().kind != "newline":
                self.fail()
            tables = len(self.tables)
            inner = self.statements(closing=True)
            self.expect("}")
            if len(self.tables) != tables:
                raise Unmodelled("a table in an anchor's braces")
            draft.rule = replace(draft.rule, rules=tuple(inner))
        elif not name:
            self.fail()
        return self.expand(draft)

    def load(self) -> list[Rule]:
        self.expect("anchor")
        name = self.take()
        self.expect("from")
        path = self.take()
        if name.kind != "string" or path.kind != "string":
            raise _Bad
        try:
            text = names.place(path.text).read_text()
        except OSError as error:
            raise Failed(
                f"pfctl: pushfile: {path.text}: {os.strerror(error.errno or 0)}", "pfctl: load anchors"
            ) from None
        read = parse(path.text, text, self.network, now=self.now)
        if read.errors:
            self.errors += read.errors
            raise Failed(*self.errors, "pfctl: load anchors")
        self.loads.append((name.text, read.ruleset))
        return []

    # Rules.

    def rule(self, action: str) -> list[Rule]:
        if action == "block":
            draft = self.head(Rule("block", returns=self.block_kind()))
        elif action == "match":
            draft = self.head(Rule("match"))
        else:
            draft = self.head(Rule("pass", state="keep"))
        self.filter_options(draft)
        rule = draft.rule
        if rule.action != "pass" and draft.state_given:
            raise _Bad("keep state is great, but only for pass rules")
        if rule.action == "pass" and rule.state and not draft.state_given:
            draft.rule = rule = replace(rule, options=StateOptions(words=self.state_defaults))
        if not rule.state and rule.action == "pass" and (draft.nats or draft.rdrs):
            raise _Bad("nat-to and rdr-to require keep state")
        if (draft.nats and draft.rdrs) or len(draft.nats) > 1 or len(draft.rdrs) > 1:
            raise Unmodelled("several translations or addresses of one rule")
        return self.expand(draft)

    def block_kind(self) -> str:
        word = self.accept("drop", "return", "return-rst", "return-icmp", "return-icmp6")
        if word == "return-rst" and self.at("("):
            raise Unmodelled("return-rst (ttl)")
        if word.startswith("return-icmp") and self.accept("("):
            codes = self.take().text
            if codes not in names.UNREACH_CODES:
                raise Unmodelled(f"{word} ({codes})")
            self.expect(")")
            return f"{word}({codes})"
        return word or self.block_policy

    def head(self, rule: Rule) -> _Draft:
        direction: Literal["", "in", "out"] = "in" if self.accept("in") else "out" if self.accept("out") else ""
        log, quick = self.log_quick()
        draft = _Draft(replace(rule, direction=direction, log=log, quick=quick))
        if self.accept("on"):
            if self.at("rdomain", "any"):
                raise Unmodelled("on rdomain, on any")
            draft.interfaces = self.interfaces()
        draft.rule = replace(draft.rule, af=self.family())
        if self.accept("proto"):
            draft.protocols = self.listed(self.protocol)
        if self.at("rdomain"):
            raise Unmodelled("rdomain")
        self.from_to(draft)
        return draft

    def log_quick(self) -> tuple[str, bool]:
        log, quick = "", False
        while word := self.accept("log", "quick"):
            if word == "quick":
                quick = True
                continue
            log = "log"
            if self.accept("("):
                words = []
                while not self.accept(")"):
                    words.append(self.accept("all", "matches", "user", "to", ",") or self.name())
                if set(words) != {"all"}:
                    raise Unmodelled("log with an interface, matches or user")
                log = "log (all)"
        return log, quick

    def interfaces(self, negations: bool = True) -> list[tuple[str, bool]]:
        def one() -> list[tuple[str, bool]]:
            negated = bool(negations and self.accept("!"))
            return [(self.name(), negated)]

        return self.listed(one)

    def family(self) -> int:
        word = self.accept("inet", "inet6")
        return {"": 0, "inet": 4, "inet6": 6}[word]

    def protocol(self) -> list[int]:
        token = self.take()
        if token.kind == "number":
            return [int(token.text)]
        if token.text not in PROTOCOLS:
            if token.kind not in {"word", "string"} or token.text in KEYWORDS:
                raise _Bad
            raise _Bad(f"unknown protocol {token.text}")
        return [PROTOCOLS[token.text]]

    def from_to(self, draft: _Draft) -> None:
        if self.accept("all"):
            return
        if self.accept("from"):
            draft.sources, draft.source_ports = self.peer()
        if self.at("os"):
            raise Unmodelled("os")
        if self.accept("to"):
            draft.dests, draft.dest_ports = self.peer()

    def peer(self) -> tuple[list[Addr], list[Op | None]]:
        hosts = [Addr()]
        if not self.at("port"):
            hosts = self.hosts()
        ports: list[Op | None] = [None]
        if self.accept("port"):
            ports = list(self.listed(lambda: self.compare(self.port)))
        return hosts, ports

    def hosts(self) -> list[Addr]:
        return self.listed(self.host)

    def host(self) -> list[Addr]:
        negated = False
        while self.accept("!"):
            negated = not negated
        return [replace(addr, negated=negated) for addr in self.plain_host()]

    def plain_host(self) -> list[Addr]:
        special: dict[str, AddrKind] = {"any": "any", "no-route": "no-route", "urpf-failed": "urpf-failed"}
        if word := self.accept(*special):
            return [Addr(special[word])]
        if self.at("route"):
            raise Unmodelled("route label")
        if self.accept("<"):
            name = self.name()
            self.expect(">")
            return [Addr("table", name=name)]
        if self.accept("("):
            name, *modifiers = (self.accept("self") or self.name()).split(":")
            self.expect(")")
            if self.at("/"):
                raise Unmodelled("(interface)/length")
            return [self.dynamic(name, tuple(modifiers))]
        return self.literal_host()

    def literal_host(self) -> list[Addr]:
        token = self.take()
        text = token.text
        keyword = token.kind == "word" and text in KEYWORDS and text != "self"
        if token.kind in {"op", "newline", "eof"} or keyword:
            raise _Bad
        if self.accept("-"):
            return [self.range(text, self.take().text)]
        length = self.number() if self.accept("/") else None
        if token.kind == "number" and length is None:
            raise _Bad
        return [Addr("net", net=net) for net in self.resolve(text, length)]

    def dynamic(self, name: str, modifiers: tuple[str, ...]) -> Addr:
        if not set(modifiers) <= {"0", "network", "broadcast"}:
            raise Unmodelled(f"the interface modifier of ({name}:{':'.join(modifiers)})")
        return Addr("dynamic", name=name, modifiers=modifiers)

    def range(self, first: str, last: str) -> Addr:
        try:
            ends = ipaddress.ip_address(first), ipaddress.ip_address(last)
        except ValueError:
            raise _Bad("could not parse host specification") from None
        if ends[0].version != ends[1].version or int(ends[0]) > int(ends[1]):
            raise _Bad("invalid address range")
        return Addr("range", first=ends[0], last=ends[1])

    def resolve(self, text: str, length: int | None) -> Sequence[Net]:
        try:
            found = resolve(text, length, self.network)
        except ValueError as error:
            self.errors.append(str(error))
            raise _Bad("could not parse host specification") from None
        return found

    def compare(self, item: Callable[[], Op | int]) -> list[Op | None]:
        op = self.accept("=", "!=", "<", "<=", ">", ">=")
        first = item()
        if isinstance(first, Op):
            if op:
                raise _Bad
            return [first]
        if not op and (op := self.accept("><", "<>")):
            last = item()
            if isinstance(last, Op):
                raise _Bad
            return [Op(op, first, last)]
        return [Op(op or "=", first)]

    def port(self) -> Op | int:
        token = self.take()
        if token.kind not in {"word", "string", "number"} or (token.kind == "word" and token.text in KEYWORDS):
            raise _Bad
        first, colon, last = token.text.partition(":")
        if colon:
            return Op(":", self.port_number(first), self.port_number(last))
        return self.port_number(first)

    def port_number(self, text: str) -> int:
        if not text.isdigit():
            number = names.service(text)
            if number is None:
                raise _Bad(f"unknown port {text}")
            return number
        if int(text) > 65535:
            raise _Bad(f"illegal port value {text}")
        return int(text)

    def account(self, what: str) -> Op | int:
        token = self.take()
        if token.kind not in {"word", "string", "number"} or token.text in KEYWORDS:
            raise _Bad
        if token.text == "unknown":
            raise Unmodelled(f"{what} unknown")
        first, colon, last = token.text.partition(":")
        numbers = []
        for text in (first, last) if colon else (first,):
            number = names.user(text) if what == "user" else names.group(text)
            if number is None:
                raise _Bad(f"unknown {what} {text}")
            numbers.append(number)
        return Op(":", *numbers) if colon else numbers[0]

    def filter_options(self, draft: _Draft) -> None:
        while self.peek().kind not in {"newline", "eof"} and not self.at("{"):
            self.filter_option(draft)

    def filter_option(self, draft: _Draft) -> None:
        token = self.take()
        word = token.text if token.kind == "word" else ""
        if token.kind == "op" and token.text == "!":
            word = "!" + (self.accept("received-on", "tagged") or self.fail())
        if word in _LATER:
            raise Unmodelled(f"the rule option {word}")
        plain: dict[str, Callable[[], dict[str, Any]]] = {
            "received-on": lambda: {"received_on": self.accept("any") or self.name()},
            "!received-on": lambda: {"received_on": self.accept("any") or self.name(), "received_negated": True},
            "tagged": lambda: {"tagged": self.name()},
            "!tagged": lambda: {"tagged": self.name(), "tagged_negated": True},
            "tag": lambda: {"tag": self.name()},
            "label": lambda: {"label": self.name()},
            "flags": lambda: {"flags": self.flags()},
        }
        lists: dict[str, Callable[[_Draft, str], None]] = {
            "user": self.owners,
            "group": self.owners,
            "icmp-type": self.icmp_types,
            "icmp6-type": self.icmp_types,
            "no": self.state,
            "keep": self.state,
            "modulate": self.state,
            "synproxy": self.state,
            "rtable": self.rtable,
            "scrub": self.scrub,
            "set": self.set_fields,
            "nat-to": self.translation,
            "rdr-to": self.translation,
        }
        if word in plain:
            draft.rule = replace(draft.rule, **plain[word]())
        elif word in lists:
            lists[word](draft, word)
        else:
            raise _Bad

    def owners(self, draft: _Draft, word: str) -> None:
        found = self.listed(lambda: self.compare(lambda: self.account(word)))
        if word == "user":
            draft.users = found
        else:
            draft.groups = found

    def icmp_types(self, draft: _Draft, word: str) -> None:
        proto = ICMP if word == "icmp-type" else ICMP6
        draft.icmp = self.listed(lambda: self.icmp(proto))

    def rtable(self, _: _Draft, word: str) -> None:
        number = self.number()
        if number != 0:
            raise _Bad(f"{word} {number} does not exist")

    def flags(self) -> tuple[str, str]:
        if self.accept("any"):
            return ("", "")
        given = "" if self.at("/") else self.take().text
        self.expect("/")
        mask = self.take().text
        for letters in (given, mask):
            if set(letters) - set("FSRPAUEW"):
                raise _Bad(f"bad flags {letters}")
        return (given, mask)

    def icmp(self, proto: int) -> list[tuple[int, int | None, int | None]]:
        token = self.take()
        known = names.icmp_types(proto)
        if token.kind == "number":
            number = int(token.text)
        elif token.text in known:
            number = known[token.text]
        elif token.kind in {"word", "string"} and token.text not in KEYWORDS:
            raise _Bad(f"unknown icmp{'6' if proto == ICMP6 else ''}-type {token.text}")
        else:
            raise _Bad
        code = None
        if self.accept("code"):
            code = self.number() if self.peek().kind == "number" else names.UNREACH_CODES.get(self.take().text)
            if code is None:
                raise Unmodelled("the name of an icmp code")
        return [(proto, number, code)]

    def state(self, draft: _Draft, word: str) -> None:
        self.expect("state")
        if word == "synproxy":
            raise Unmodelled("synproxy state")
        options = StateOptions()
        if word != "no" and self.accept("("):
            options = self.state_options()
            self.expect(")")
        draft.state_given = word != "no"
        kept: Literal["", "keep", "modulate"] = "keep" if word == "keep" else "modulate" if word == "modulate" else ""
        draft.rule = replace(draft.rule, state=kept, options=options)

    def state_options(self) -> StateOptions:
        options = StateOptions()
        while not self.at(")") and self.peek().kind not in {"newline", "eof"}:
            options = self.state_option(options)
            if not self.accept(",") and not self.at(")") and self.peek().kind not in {"newline", "eof"}:
                self.fail()
        return options

    def state_option(self, options: StateOptions) -> StateOptions:
        word = self.take().text
        counts = {"max": "maximum", "max-src-states": "max_src_states", "max-src-conn": "max_src_conn"}
        changed: dict[str, Any]
        if word in counts:
            changed = {counts[word]: self.number()}
        elif word == "max-src-conn-rate":
            count = self.number()
            self.expect("/")
            changed = {"max_src_conn_rate": (count, self.number() or self.fail())}
        elif word == "overload":
            self.expect("<")
            changed = {"overload": self.name()}
            self.expect(">")
            if self.accept("flush"):
                changed["flush"] = self.accept("global") or "rule"
        elif word == "source-track":
            if self.accept("global"):
                raise Unmodelled("source-track global")
            changed = {"source_track": self.accept("rule") or "rule"}
        elif word in {"pflow", "sloppy", "no-sync", "floating"}:
            changed = {"words": (*options.words, word)}
        elif word in {"if-bound", "max-src-nodes"} or word in _TIMEOUTS:
            raise Unmodelled(f"the state option {word}")
        else:
            raise _Bad
        return replace(options, **changed)

    def scrub(self, draft: _Draft, _: str) -> None:
        self.expect("(")
        while not self.accept(")"):
            word = self.accept("no-df", "random-id", "max-mss", "reassemble", ",")
            if word == "max-mss":
                draft.rule = replace(draft.rule, max_mss=self.number())
            elif word == "reassemble":
                self.expect("tcp")
                draft.rule = replace(draft.rule, scrub=(*draft.rule.scrub, "reassemble tcp"))
            elif word in {"no-df", "random-id"}:
                draft.rule = replace(draft.rule, scrub=(*draft.rule.scrub, word))
            elif not word:
                if self.take().text in {"min-ttl", "set-tos"}:
                    raise Unmodelled("scrub (min-ttl, set-tos)")
                raise _Bad

    def set_fields(self, draft: _Draft, _: str) -> None:
        enclosed = bool(self.accept("("))
        while True:
            if not self.accept("prio"):
                if self.at("queue", "tos", "delay"):
                    raise Unmodelled("set queue, tos or delay")
                self.fail()
            if self.accept("("):
                first = self.number()
                self.accept(",")
                draft.rule = replace(draft.rule, prio=f"({first}, {self.number()})")
                self.expect(")")
            else:
                draft.rule = replace(draft.rule, prio=str(self.number()))
            if not enclosed:
                return
            self.accept(",")
            if self.accept(")"):
                return

    def translation(self, draft: _Draft, word: str) -> None:
        hosts = self.hosts()
        if any(addr.negated or addr.kind not in {"net", "dynamic"} for addr in hosts):
            raise Unmodelled(f"{word} something else than an address or an interface")
        if any(addr.net is not None and addr.net.prefixlen != addr.net.max_prefixlen for addr in hosts):
            raise Unmodelled(f"{word} a pool of addresses")
        if word == "nat-to":
            draft.nats = hosts
        else:
            draft.rdrs = hosts
        if self.accept("port"):
            port = self.compare(self.port)[0]
            if port is None or port.op != "=" or word == "nat-to":
                raise Unmodelled(f"{word} with a range of ports")
            draft.rdr_port = port.first
        if self.at("random", "round-robin", "source-hash", "least-states", "sticky-address", "bitmask"):
            raise Unmodelled("a pool option")
        self.accept("static-port")

    # Expansion of lists, in the order of pfctl's own.

    def expand(self, draft: _Draft) -> list[Rule]:
        rules: list[Rule] = []
        combinations = itertools.product(
            draft.interfaces,
            draft.protocols,
            draft.icmp,
            draft.sources,
            draft.source_ports,
            draft.dests,
            draft.dest_ports,
            draft.users,
            draft.groups,
        )
        for interface, proto, icmp, source, source_port, dest, dest_port, user, group in combinations:
            rule = replace(
                draft.rule,
                interface=interface[0],
                interface_negated=interface[1],
                proto=proto,
                source=source,
                source_port=source_port,
                dest=dest,
                dest_port=dest_port,
                user=user,
                group=group,
                icmp_type=icmp[1],
                icmp_code=icmp[2],
            )
            translated = (draft.nats or draft.rdrs)[0:1]
            families = {rule.af, *(addr.family for addr in (source, dest, *translated))} - {0}
            if len(families) > 1:
                continue
            rule = replace(rule, af=next(iter(families), 0))
            if messages := inconsistent(rule, icmp[0]):
                for message in (*messages, "skipping rule due to errors"):
                    self.wrong(message)
                continue
            rules.append(self.finished(rule, draft))
        if not rules:
            self.wrong("rule expands to no valid combination")
        return rules

    def finished(self, rule: Rule, draft: _Draft) -> Rule:
        if rule.proto in {0, TCP} and rule.flags is None and rule.action == "pass" and rule.state:
            rule = replace(rule, flags=("S", "SA"))
        if draft.nats:
            rule = replace(rule, nat=Translation(draft.nats[0]))
        if draft.rdrs:
            rule = replace(rule, rdr=Translation(draft.rdrs[0], draft.rdr_port))
        return rule


def inconsistent(rule: Rule, icmp_proto: int) -> list[str]:
    """Return what contradicts itself in a rule, as pfctl says it; pf.conf(5), contract 3.2."""
    found = []
    if rule.proto not in {TCP, UDP} and (rule.source_port or rule.dest_port):
        found.append("port only applies to tcp/udp")
    if icmp_proto and rule.proto != icmp_proto:
        found.append("icmp-type mismatch")
    if rule.proto == ICMP and rule.af == 6:
        found.append("proto icmp doesn't apply to inet6")
    if rule.proto == ICMP6 and rule.af == 4:
        found.append("proto icmp6 doesn't apply to inet")
    options = rule.options
    if (options.max_src_conn or options.max_src_conn_rate[0]) and rule.proto != TCP:
        found.append("max-src-conn and max-src-conn-rate only apply to tcp")
    if options.overload and not (options.max_src_conn or options.max_src_conn_rate[0]):
        found.append("overload requires max-src-conn or max-src-conn-rate")
    if rule.user is not None or rule.group is not None:
        if rule.proto not in {TCP, UDP}:
            raise Unmodelled("user or group without proto tcp or udp")
        if rule.direction != "out":
            raise Unmodelled("user or group of what comes in")
    return found


def resolve(text: str, length: int | None, network: Callable[[], Network]) -> Sequence[Net]:
    """Return what a host in pf.conf(5), in a table's file or on the command line stands for.

    Args:
        text: an address, an interface with modifiers, `self`, or a host's name.
        length: of the prefix behind the slash, in bits.
        network: gives the interfaces.

    Returns:
        Networks, of full length for a host.

    Raises:
        ValueError: with pfctl's message.
    """
    address = text.partition("%")[0]
    if address.count(".") < 3 and address.replace(".", "").isdigit():
        address += ".0" * (3 - address.count("."))
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        pass
    else:
        bits = parsed.max_prefixlen if length is None else length
        if bits > parsed.max_prefixlen:
            raise ValueError(f"no IP address found for {text}/{length}")
        return (ipaddress.ip_network((parsed, bits), strict=False),)
    name, *modifiers = text.split(":")
    present = network()
    if name == "self" or present.members(name):
        if not set(modifiers) <= {"0", "network", "broadcast"}:
            raise Unmodelled(f"the interface modifier of {text}")
        found = present.networks(name, tuple(modifiers))
    else:
        found = () if modifiers or name == "egress" else names.addresses(name)
    if not found:
        raise ValueError(f"no IP address found for {text}")
    if length is None:
        return found
    return tuple(ipaddress.ip_network((net.network_address, length), strict=False) for net in found)


def read_table(text: str, network: Callable[[], Network], now: int) -> dict[Net, Entry]:
    """Read the addresses of a table's file: words, `#` comments, `!` before an exception; contract 3.1.

    Args:
        text: what the file contains.
        network: gives the interfaces, whose names may stand for their addresses.
        now: when the statistics begin, in seconds since the epoch.

    Returns:
        The entries by their network, in the order of the file.

    Raises:
        ValueError: a word is no address, with pfctl's message.
    """
    found: dict[Net, Entry] = {}
    for line in text.splitlines():
        for word in line.partition("#")[0].split():
            found.update({entry.net: entry for entry in entries(word, network, now)})
    return found


def entries(word: str, network: Callable[[], Network], now: int) -> list[Entry]:
    """Return the entries that one word of a table's file, or of the command line, stands for.

    Args:
        word: an address, a network, an interface or a host's name; `!` before it makes an exception.
        network: gives the interfaces.
        now: when the statistics begin, in seconds since the epoch.

    Returns:
        One entry for each address.

    Raises:
        ValueError: it is none of these, with pfctl's message.
    """
    plain = word.removeprefix("!")
    address, slash, bits = plain.partition("/")
    if slash and not bits.isdigit():
        raise ValueError(f"no IP address found for {plain}")
    return [Entry(net, plain != word, now) for net in resolve(address, int(bits) if slash else None, network)]
