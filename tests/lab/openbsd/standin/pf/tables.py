"""The table commands of pfctl(8): `pfctl -t TABLE -T COMMAND`; contract 3.1 and 14."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from . import kernel, network, parser
from .model import Entry, Net, State, Table
from .names import place

COMMANDS = ("kill", "flush", "add", "delete", "load", "replace", "show", "test", "zero", "expire")
"""In the order in which a prefix is looked for."""

ERROR = 255


class Usage(Exception):
    """Arguments that end in the usage text."""


class Trouble(Exception):
    """A message behind `pfctl: ` and exit code 255."""


@dataclass(frozen=True)
class Call:
    """A table command.

    Args:
        anchor, table: of which table.
        words: the addresses of the command line.
        file: more of them, `-` for standard input.
        dummy: nothing is changed.
        reachable: the kernel could be asked, so that a dry run is a real one.
        quiet: no counters.
        verbose: how much more is said.
    """

    anchor: str
    table: str
    words: tuple[str, ...] = ()
    file: str = ""
    dummy: bool = False
    reachable: bool = True
    quiet: bool = False
    verbose: int = 0

    def say(self, text: str) -> None:
        """Write a line with a counter on standard error, where pfctl has all of them."""
        if not self.quiet:
            end = "." if not self.dummy else " (dummy)." if self.reachable else " (syntax only)."
            sys.stderr.write(f"{text}{end}\n")


def run(command: str, call: Call) -> int:
    """Run a table command.

    Args:
        command: one of `COMMANDS`.
        call: its arguments.

    Returns:
        The exit code: 0, 2 for addresses that do not match, 255 for an error.

    Raises:
        Usage: arguments that the command does not take.
        parser.Unmodelled: what is not done.
    """
    handlers: dict[str, Callable[[State, Call], int]] = {
        "kill": _kill,
        "flush": _flush,
        "add": _add,
        "delete": _delete,
        "replace": _replace,
        "show": _show,
        "test": _test,
        "zero": _zero,
        "expire": _expire,
    }
    if command not in handlers:
        raise parser.Unmodelled(f"-T {command}")
    if len(call.table) > 31:
        raise Usage
    if command in {"kill", "flush", "show"} and (call.words or call.file):
        raise Usage
    if command == "expire" and (len(call.words) != 1 or call.file):
        raise Usage
    try:
        if not call.reachable:
            # What a dry run without the kernel can say: the addresses are read, nothing is known of the table.
            return handlers[command](State(0, tables={(call.anchor, call.table): Table(persist=True)}), call)
        with kernel.locked() as state:
            return handlers[command](state, call)
    except Trouble as trouble:
        sys.stderr.write(f"pfctl: {trouble}\n")
        return ERROR


def _found(state: State, call: Call) -> Table:
    table = state.tables.get((call.anchor, call.table))
    if table is None:
        known = not call.anchor or call.anchor in state.anchors or any(key[0] == call.anchor for key in state.tables)
        raise Trouble("Table does not exist." if known else "Anchor does not exist.")
    return table


def _writable(table: Table) -> Table:
    if table.const:
        raise Trouble(os.strerror(1))
    return table


def _created(state: State, call: Call) -> tuple[Table, bool]:
    table = state.tables.get((call.anchor, call.table))
    if table is not None:
        return _writable(table), False
    call.say("1 table created")
    return Table(persist=True), True


def _store(state: State, call: Call, table: Table | None) -> None:
    if call.dummy:
        return
    if table is None:
        state.tables.pop((call.anchor, call.table), None)
        if state.enabled:
            kernel.install(state)
        return
    state.tables[call.anchor, call.table] = table
    kernel.refill(state, call.anchor, call.table)


def _given(call: Call, single: bool = False) -> list[Entry]:
    """Return the entries that the command line and its file name, each as often as it is named."""
    now = int(time.time())
    found: list[Entry] = []
    for word in call.words:
        try:
            found += parser.entries(word, network.present, now)
        except ValueError as error:
            sys.stderr.write(f"{error}\n")
            raise Trouble(f"cannot decode {word}") from None
    if call.file:
        try:
            text = sys.stdin.read() if call.file == "-" else place(call.file).read_text()
        except OSError as error:
            raise Trouble(f"cannot load {call.file}: {os.strerror(error.errno or 0)}") from None
        try:
            found += parser.read_table(text, network.present, now).values()
        except ValueError as error:
            sys.stderr.write(f"{error}\n")
            raise Trouble(f"cannot load {call.file}") from None
    if single and any(entry.negated or entry.net.prefixlen != entry.net.max_prefixlen for entry in found):
        raise parser.Unmodelled("-T test of a network or of an exception")
    return found


def _feedback(call: Call, entries: Sequence[tuple[str, Entry]]) -> None:
    if not call.verbose:
        return
    for sign, entry in entries:
        if sign != " " or call.verbose > 1:
            sys.stdout.write(f"{sign} {entry}\n")


def _kill(state: State, call: Call) -> int:
    there = (call.anchor, call.table) in state.tables
    _store(state, call, None)
    call.say(f"{int(there)} table deleted")
    return 0


def _flush(state: State, call: Call) -> int:
    table = _writable(_found(state, call))
    _store(state, call, table.with_entries({}))
    call.say(f"{len(table.entries)} addresses deleted")
    return 0


def _add(state: State, call: Call) -> int:
    given = _given(call)
    table, new = _created(state, call)
    if new and call.dummy:
        return 0
    entries = dict(table.entries)
    feedback = []
    for entry in given:
        old = entries.get(entry.net)
        feedback.append(("A" if old is None else " " if old.negated == entry.negated else "C", entry))
        entries.setdefault(entry.net, entry)
    _store(state, call, table.with_entries(entries))
    call.say(f"{sum(sign == 'A' for sign, _ in feedback)}/{len(given)} addresses added")
    _feedback(call, feedback)
    return 0


def _delete(state: State, call: Call) -> int:
    given = _given(call)
    table = _writable(_found(state, call))
    entries = dict(table.entries)
    feedback = []
    for entry in given:
        old = entries.get(entry.net)
        gone = old is not None and old.negated == entry.negated
        feedback.append(("D" if gone else " " if old is None else "C", entry))
        if gone:
            del entries[entry.net]
    _store(state, call, table.with_entries(entries))
    call.say(f"{sum(sign == 'D' for sign, _ in feedback)}/{len(given)} addresses deleted")
    _feedback(call, feedback)
    return 0


def _replace(state: State, call: Call) -> int:
    given = {entry.net: entry for entry in _given(call)}
    table, new = _created(state, call)
    if new and call.dummy:
        return 0
    old = table.entries
    added = [entry for net, entry in given.items() if net not in old]
    deleted = [entry for net, entry in old.items() if net not in given]
    changed = [entry for net, entry in given.items() if net in old and old[net].negated != entry.negated]
    _store(state, call, table.with_entries({net: kernel.kept(table, entry) for net, entry in given.items()}))
    for entries, word in ((added, "added"), (deleted, "deleted"), (changed, "changed")):
        if entries:
            call.say(f"{len(entries)} addresses {word}")
    if not added and not deleted and not changed:
        call.say("no changes")
    signs = {entry.net: sign for sign, group in (("A", added), ("D", deleted), ("C", changed)) for entry in group}
    _feedback(call, [(signs.get(entry.net, " "), entry) for entry in [*given.values(), *deleted]])
    return 0


def _expire(state: State, call: Call) -> int:
    if not call.words[0].isdigit():
        raise parser.Failed("pfctl: expiry time: invalid")
    table = _found(state, call)
    limit = int(time.time()) - int(call.words[0])
    old = {net: entry for net, entry in table.entries.items() if entry.cleared < limit}
    if old:
        _writable(table)
    _store(state, call, table.with_entries({net: entry for net, entry in table.entries.items() if net not in old}))
    call.say(f"{len(old)}/{len(old)} addresses expired")
    _feedback(call, [("D", entry) for entry in old.values()])
    return 0


def _show(state: State, call: Call) -> int:
    table = _found(state, call)
    if call.verbose and table.counters:
        raise parser.Unmodelled("-T show -v of a table with counters")
    for entry in sorted(table.entries.values(), key=lambda entry: (entry.net.version, entry.net)):
        sys.stdout.write(f"  {entry}\n")
        if call.verbose:
            sys.stdout.write(f"\tCleared:     {time.ctime(entry.cleared)}\n")
    return 0


def _test(state: State, call: Call) -> int:
    given = _given(call, single=True)
    table = _found(state, call)
    matching = [entry for entry in given if matches(table, entry.net)]
    call.say(f"{len(matching)}/{len(given)} addresses match")
    if call.verbose:
        if call.verbose > 1:
            raise parser.Unmodelled("-T test -vv")
        _feedback(call, [("M", entry) for entry in matching])
    return 0 if len(matching) == len(given) else 2


def matches(table: Table, address: Net) -> bool:
    """Return whether a table matches a host: the smallest network around it decides."""
    around = [
        entry
        for net, entry in table.entries.items()
        if net.version == address.version and address.network_address in net
    ]
    return bool(around) and not max(around, key=lambda entry: entry.net.prefixlen).negated


def _zero(state: State, call: Call) -> int:
    now = int(time.time())
    given = _given(call) if call.words or call.file else None
    table = _found(state, call)
    chosen = set(table.entries) if given is None else {entry.net for entry in given if entry.net in table.entries}
    entries = {net: replace(entry, cleared=now) if net in chosen else entry for net, entry in table.entries.items()}
    if not call.dummy:
        state.tables[call.anchor, call.table] = table.with_entries(entries)
    if given is None:
        call.say("1 table/stats cleared")
    else:
        call.say(f"{len(chosen)}/{len(given)} addresses cleared")
    return 0
