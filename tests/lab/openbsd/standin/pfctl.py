"""pfctl(8); models contract 3, 0.3 item 8 and what 14 says of `-T` and of rc's ruleset."""

from __future__ import annotations

import errno
import getopt
import hashlib
import os
import sys
import time
from collections.abc import Callable, Sequence

from .pf import conntrack, kernel, network, parser, show, tables
from .pf.compiler import compile_ruleset
from .pf.model import Entry, Ip, Net, Ruleset, State
from .place import root
from .unmodelled import unmodelled

NOT_MODELLED = (
    "pfctl: the options -g -i -K -L -o -p -R -S -V -x -z, -T load, -s queue, Sources, labels, timeouts, osfp",
    "pfctl: -v with -T show of a table with counters, -vv with -sT and -T test, packet counters of rules and of -si",
    "pf.conf: queues, limiters, os, tos, fragment, allow-opts, once, probability, max-pkt-rate, set queue, set tos",
    "pf.conf: route-to, reply-to, dup-to, af-to, binat-to, divert-*, pools of addresses, nat-to in, rdr-to out",
    "pf.conf: user and group of what comes in, if-bound states, synproxy, source-track global, timeouts of one rule",
    "pf.conf: anchor quick, tables in an anchor's braces, on rdomain, set debug, set reassemble no, syncookies",
    "pf.conf: log is accepted and nothing reaches pflog0; pflow is accepted and nothing is exported",
    "pf.conf: set limit and set timeout are read and have no effect; max-mss does not lower the answer's",
    "pf: neighbour discovery makes no state: the advertisement needs a rule of its own",
    "pf: link-local addresses are no part of (interface), self and interface:network",
)

DEVICE = "/dev/pf"
SHOW = (
    "queue",
    "rules",
    "Anchors",
    "Sources",
    "states",
    "info",
    "Interfaces",
    "labels",
    "timeouts",
    "memory",
    "Tables",
    "osfp",
    "Running",
    "all",
)
CLEAR = ("rules", "Sources", "states", "info", "Tables", "osfp", "Reset", "all")
USAGE = """usage: pfctl [-deghNnPqrvz] [-a anchor] [-D macro=value] [-F modifier]
	[-f file] [-i interface] [-K key] [-k key] [-L statefile] [-o level] [-p device]
	[-S statefile] [-s modifier [-R id]] [-t table -T command [address ...]]
	[-V rdomain] [-x level]
"""


class _Options:
    """The command line, taken apart."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.anchor = self.file = self.table = self.command = self.show = self.clear = ""
        self.enable = self.disable = self.dummy = self.quiet = False
        self.verbose = 0
        self.kills: list[str] = []
        self.macros: dict[str, str] = {}
        options, self.words = getopt.getopt(list(argv), "a:dD:eqf:F:ghi:k:K:L:nNo:Pp:R:rS:s:t:T:vV:x:z")
        for option, value in options:
            self._option(option, value)

    def _option(self, option: str, value: str) -> None:
        values: dict[str, Callable[[], None]] = {
            "-a": lambda: setattr(self, "anchor", value.strip("/")),
            "-d": lambda: setattr(self, "disable", True),
            "-e": lambda: setattr(self, "enable", True),
            "-f": lambda: setattr(self, "file", value),
            "-n": lambda: setattr(self, "dummy", True),
            "-q": lambda: setattr(self, "quiet", True),
            "-v": lambda: setattr(self, "verbose", self.verbose + 1),
            "-t": lambda: setattr(self, "table", value),
            "-s": lambda: setattr(self, "show", _lookup(value, SHOW, "show")),
            "-F": lambda: setattr(self, "clear", _lookup(value, CLEAR, "flush")),
            "-T": lambda: setattr(self, "command", _lookup(value, tables.COMMANDS, "table")),
            "-k": lambda: self.kills.append(value),
            # Names and ports are numbers here anyway.
            "-N": lambda: None,
            "-P": lambda: None,
        }
        if option == "-h":
            raise tables.Usage
        if option == "-D":
            name, equals, text = value.partition("=")
            if not equals:
                raise tables.Usage
            self.macros[name] = text
        elif option not in values:
            raise parser.Unmodelled(f"the option {option}")
        else:
            values[option]()


def _lookup(text: str, known: Sequence[str], what: str) -> str:
    """Return the first word that begins with a text: any prefix will do; contract 14."""
    for word in known:
        if word.startswith(text):
            return word
    sys.stderr.write(f"pfctl: Unknown {what} {'command' if what == 'table' else 'modifier'} '{text}'\n")
    raise tables.Usage


def main(argv: list[str]) -> int:
    """Run pfctl.

    Args:
        argv: the arguments.

    Returns:
        Its exit code: 0, 1, 2 or 255 as contract 3.1 has it.

    Raises:
        SystemExit: with 99, for what is not modelled.
    """
    try:
        return _run(_Options(argv), argv)
    except getopt.GetoptError as error:
        sys.stderr.write(f"pfctl: unknown option -- {error.opt}\n{USAGE}")
        return 1
    except tables.Usage:
        sys.stderr.write(USAGE)
        return 1
    except parser.Unmodelled as error:
        unmodelled("pfctl", argv, str(error))
    except kernel.Refused as error:
        unmodelled("pfctl", argv, f"nftables refuses what the rules became: {error}")
    except parser.Failed as error:
        sys.stderr.write("".join(f"{line}\n" for line in error.args))
        return 1


def _run(options: _Options, argv: Sequence[str]) -> int:
    if not argv or (options.words and not options.command) or bool(options.command) != bool(options.table):
        raise tables.Usage
    if not options.dummy and not _may_open():
        sys.stderr.write(f"pfctl: {DEVICE}: {os.strerror(errno.EACCES)}\n")
        return 1
    if options.disable:
        _disable(options)
    if options.show:
        _show(options)
    if options.clear:
        _clear(options)
    if options.kills:
        _kill(options)
    if options.command:
        # The file of a table command is its list of addresses.
        return _table(options)
    if options.file and (code := _load(options)):
        return code
    if options.enable:
        _enable(options)
    return 0


def _may_open() -> bool:
    return os.geteuid() == 0


def _disable(options: _Options) -> None:
    if options.dummy:
        return
    with kernel.locked() as state:
        if not state.enabled:
            raise parser.Failed("pfctl: pf not enabled")
        state.enabled, state.since = False, int(time.time())
        kernel.install(state)
    _say(options, "pf disabled")


def _enable(options: _Options) -> None:
    if options.dummy:
        return
    with kernel.locked() as state:
        if state.enabled:
            raise parser.Failed("pfctl: pf already enabled")
        if not state.since:
            # Linux keeps the connections of a namespace over the stand-in's boot; a real kernel begins without states.
            for connection in conntrack.connections():
                conntrack.kill(connection)
        state.enabled, state.since = True, int(time.time())
        kernel.install(state)
    _say(options, "pf enabled")


def _say(options: _Options, text: str) -> None:
    if not options.quiet:
        sys.stderr.write(text + "\n")


def _load(options: _Options) -> int:
    name = "stdin" if options.file == "-" else options.file
    try:
        text = sys.stdin.read() if options.file == "-" else root(options.file).read_text()
    except OSError as error:
        sys.stderr.write(f"pfctl: cannot open the main config file!: {os.strerror(error.errno or 0)}\n")
        return _not_loaded(options)
    read = parser.parse(name, text, network.present, options.macros, int(time.time()))
    if read.errors:
        sys.stderr.write("".join(f"{line}\n" for line in read.errors))
        return _not_loaded(options)
    if options.verbose:
        sys.stdout.write("".join(f"{line}\n" for line in show.rules(read.ruleset.rules)))
    if options.dummy:
        # What cannot be compiled shall be said before anybody relies on the check.
        trial = State(0, enabled=True)
        kernel.load(trial, read.ruleset, options.anchor)
        compile_ruleset(trial, _known_network())
        return 0
    with kernel.locked() as state:
        kernel.load(state, read.ruleset, options.anchor)
        if state.enabled:
            kernel.install(state)
    return 0


def _known_network() -> network.Network:
    """Return the interfaces, or none where ip(8) is not there: `-nf` works on any machine."""
    try:
        return network.present()
    except FileNotFoundError:
        return network.Network()


def _not_loaded(options: _Options) -> int:
    if not options.dummy:
        sys.stderr.write("pfctl: Syntax error in config file: pf rules not loaded\n")
    return 1


def _table(options: _Options) -> int:
    return tables.run(
        options.command,
        tables.Call(
            options.anchor,
            options.table,
            tuple(options.words),
            options.file,
            options.dummy,
            _may_open(),
            options.quiet,
            options.verbose,
        ),
    )


def _show(options: _Options) -> None:
    shown: dict[str, Callable[[_Options, State], str]] = {
        "rules": _show_rules,
        "Anchors": _show_anchors,
        "states": _show_states,
        "info": _show_info,
        "Tables": _show_tables,
        "Running": lambda _, state: "Enabled\n" if state.enabled else "Disabled\n",
    }
    if options.show not in shown:
        raise parser.Unmodelled(f"-s {options.show}")
    sys.stdout.write(shown[options.show](options, kernel.peek()))


def _ruleset(options: _Options, state: State) -> Ruleset:
    if not options.anchor:
        return state.main
    if options.anchor not in state.anchors:
        raise parser.Failed("pfctl: Anchor does not exist.")
    return state.anchors[options.anchor]


def _show_rules(options: _Options, state: State) -> str:
    if options.verbose:
        raise parser.Unmodelled("the counters of -sr -v")
    return "".join(f"{line}\n" for line in show.rules(_ruleset(options, state).rules))


def _show_anchors(options: _Options, state: State) -> str:
    called = {rule.anchor for rule in state.main.rules if rule.anchor and rule.rules is None} | set(state.anchors)
    names = {name.removesuffix("/*") for name in called}
    parents = {"/".join(name.split("/")[: depth + 1]) for name in names for depth in range(name.count("/") + 1)}
    prefix = f"{options.anchor}/" if options.anchor else ""
    own = sorted(name for name in parents if name.startswith(prefix) and "/" not in name[len(prefix) :])
    if options.verbose:
        own = sorted(name for name in parents if name.startswith(prefix))
    return "".join(f"  {name}\n" for name in own)


def _show_states(_: _Options, state: State) -> str:
    if not state.enabled:
        return ""
    return "".join(f"{line}\n" for connection in conntrack.connections() for line in connection.lines())


def _show_info(options: _Options, state: State) -> str:
    status = f"Status: {'Enabled' if state.enabled else 'Disabled'}"
    if state.since:
        seconds = max(0, int(time.time()) - state.since)
        days, rest = divmod(seconds, 86400)
        status += f" for {days} days {rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    lines = [f"{status:<44}{'Debug: err':>15}", ""]
    if options.verbose:
        rules = "\n".join(show.rules(state.main.rules))
        digest = hashlib.md5(rules.encode(), usedforsecurity=False).hexdigest()
        lines += [f"Hostid:   {state.hostid:#010x}", f"Checksum: 0x{digest}", ""]
    current = sum(connection.states for connection in conntrack.connections()) if state.enabled else 0
    lines += [f"{'State Table':<27} {'Total':>14} {'Rate':>16}", f"  {'current entries':<25} {current:>14} {'':>14}"]
    return "\n".join(lines) + "\n"


def _show_tables(options: _Options, state: State) -> str:
    if options.verbose > 1:
        raise parser.Unmodelled("-sT -vv")
    referenced = state.main.referenced().union(*(each.referenced() for each in state.anchors.values()))
    lines = []
    for (anchor, name), table in sorted(state.tables.items()):
        if anchor != options.anchor:
            continue
        flags = "".join(
            letter if given else "-"
            for letter, given in (
                ("c", table.const),
                ("p", table.persist),
                ("a", True),
                ("i", False),
                ("r", name in referenced),
                ("h", False),
                ("C", table.counters),
            )
        )
        place = f"\t{anchor}" if options.verbose and anchor else ""
        lines.append(f"{flags}\t{name}{place}\n" if options.verbose else f"{name}\n")
    return "".join(lines)


def _clear(options: _Options) -> None:
    if options.dummy:
        raise parser.Unmodelled("-n with -F")
    if options.anchor and options.clear not in {"rules", "Tables"}:
        raise parser.Unmodelled("-a with -F of something else than rules and Tables")
    with kernel.locked() as state:
        for what in ("rules", "states", "info", "Tables") if options.clear == "all" else (options.clear,):
            _clear_one(what, options, state)
        if options.clear not in {"states", "info"}:
            kernel.install(state)


def _clear_one(what: str, options: _Options, state: State) -> None:
    if what == "rules":
        kernel.load(state, Ruleset(skip=state.main.skip if not options.anchor else ()), options.anchor)
        _say(options, "rules cleared")
    elif what == "states":
        _say(options, f"{_kill_states(state, lambda _: True)} states cleared")
    elif what == "info":
        # The counters themselves are not modelled, so there is nothing to set back.
        _say(options, "pf: statistics cleared")
    elif what == "Tables":
        gone = [key for key in state.tables if key[0] == options.anchor]
        for key in gone:
            del state.tables[key]
        _say(options, f"{len(gone)} tables deleted.")
    else:
        raise parser.Unmodelled(f"-F {what}")


def _kill(options: _Options) -> None:
    if options.dummy or options.kills[0] in {"label", "id", "key", "gateway", "nat"} or len(options.kills) > 2:
        raise parser.Unmodelled(f"-k {' -k '.join(options.kills)}")
    sources = _hosts(options.kills[0])
    dests = _hosts(options.kills[1]) if len(options.kills) > 1 else []
    with kernel.locked() as state:
        killed = _kill_states(
            state,
            lambda found: _among(found.source, sources) and (not dests or _among(found.dest, dests)),
        )
    pairs = [dest for source in sources for dest in dests if dest.version == source.version]
    _say(options, f"killed {killed} states from {len(sources)} sources and {len(pairs)} destinations")


def _kill_states(state: State, chosen: Callable[[conntrack.Connection], bool]) -> int:
    killed = 0
    if state.enabled:
        for connection in conntrack.connections():
            if chosen(connection):
                conntrack.kill(connection)
                killed += connection.states
    return killed


def _hosts(text: str) -> list[Net]:
    try:
        found: list[Entry] = parser.entries(text, network.present, 0)
    except ValueError as error:
        raise parser.Failed(str(error)) from None
    return [entry.net for entry in found]


def _among(address: Ip, nets: Sequence[Net]) -> bool:
    return any(net.version == address.version and address in net for net in nets)
