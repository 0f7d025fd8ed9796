"""What a real pf keeps in its kernel: kept in a file until the next boot, and put into nftables while pf is on."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import pickle
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import compiler, conntrack, network
from .model import Entry, Ip, Net, Ruleset, State, Table
from .names import place

NFT = "/usr/lib/standin/bin/nft"
STATE = "/var/standin/boot/pf.state"


class Refused(Exception):
    """nftables did not take what the rules were compiled to."""


@contextlib.contextmanager
def locked() -> Iterator[State]:
    """Give pf's state, nobody else's for as long as the block lasts; what it is at the end is kept.

    Yields:
        The state, with what the kernel added to tables by itself.
    """
    path = place(STATE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Written by nobody but this function, in a directory of root's.
        state: State = pickle.loads(path.read_bytes()) if path.exists() else State(int.from_bytes(os.urandom(4)))
        _gather(state)
        yield state
        new = path.with_suffix(".new")
        new.write_bytes(pickle.dumps(state))
        new.replace(path)


def peek() -> State:
    """Return the state as it is now, to look at."""
    with locked() as state:
        return state


def install(state: State) -> None:
    """Put the rules and tables in force, or take everything away while pf is off.

    Args:
        state: what there shall be.

    Raises:
        Refused: nftables does not take it, and keeps what there was.
        Unmodelled: it cannot be expressed.
    """
    if not state.enabled:
        _nft(compiler.remove())
        return
    script = compiler.compile_ruleset(state, network.present())
    reflect_marks()
    _nft(script)


def reflect_marks() -> None:
    """Let the kernel's own answers carry the mark of what they answer.

    Without it, what `block return` sends back would be asked of the rules for what goes out.
    """
    for path in ("ipv4", "ipv6"):
        Path(f"/proc/sys/net/{path}/fwmark_reflect").write_text("1")


def load(state: State, ruleset: Ruleset, anchor: str = "") -> None:
    """Take a ruleset for the one of an anchor, with its tables; pf.conf(5), TABLES.

    Args:
        state: changed in place.
        ruleset: what a file says.
        anchor: its name, empty for the main ruleset.
    """
    state.generation += 1
    for name, inner in ruleset.loads:
        load(state, inner, name)
    if anchor:
        state.anchors[anchor] = ruleset
    else:
        state.main = ruleset
    for declared in ruleset.tables:
        old = state.tables.get((anchor, declared.name), Table())
        entries = old.entries
        if declared.entries is not None:
            entries = {entry.net: kept(old, entry) for entry in declared.entries}
        state.tables[anchor, declared.name] = Table(declared.persist, declared.const, declared.counters, entries)
    declared_names = {declared.name for declared in ruleset.tables}
    for key in [key for key, table in state.tables.items() if key[0] == anchor and not table.persist]:
        if key[1] not in declared_names or not _referenced(state, key):
            del state.tables[key]


def _referenced(state: State, key: tuple[str, str]) -> bool:
    """Return whether a rule refers to a table; an anchor without a table of that name means the main ruleset's."""
    anchor, name = key
    rulesets = {"": state.main, **state.anchors}
    return any(
        name in ruleset.referenced() and (own == anchor or (not anchor and (own, name) not in state.tables))
        for own, ruleset in rulesets.items()
    )


def kept(table: Table, entry: Entry) -> Entry:
    """Return an entry with the age of the one that is there already."""
    old = table.entries.get(entry.net)
    return old if old is not None and old.negated == entry.negated else entry


def refresh() -> None:
    """Let the rules follow the interfaces: to be called after addresses, groups or default routes have changed."""
    with locked() as state:
        if state.enabled:
            install(state)


def refill(state: State, anchor: str, name: str) -> None:
    """Give nftables the contents of one table.

    Args:
        state: with the table as it shall be.
        anchor, name: which one.

    Raises:
        Refused: nftables does not take it.
    """
    if not state.enabled:
        return
    if (anchor, name) in state.tables and _has_set(anchor, name):
        _nft(compiler.refill(anchor, name, state.tables[anchor, name]))
    else:
        install(state)


def _has_set(anchor: str, name: str) -> bool:
    listed = _list("set", *compiler.TABLE.split(), compiler.set_name(anchor, name, 4))
    return bool(listed)


def _gather(state: State) -> None:
    """Take over what `overload` added, and end the states of those whom it flushed."""
    if not state.enabled:
        return
    sets = {found["set"]["name"]: found["set"] for found in _list("table", *compiler.TABLE.split()) if "set" in found}
    now = int(time.time())
    script = ""
    for (anchor, name), table in state.tables.items():
        added: dict[Net, Entry] = {}
        for family in (4, 6):
            own = compiler.overload_name(anchor, name, family)
            new = {net: kept(table, Entry(net, cleared=now - age)) for net, age in _ages(sets.get(own, {}))}
            script += _forget(own, new)
            added |= new
        if added:
            state.tables[anchor, name] = grown = table.with_entries({**table.entries, **added})
            script += compiler.refill(anchor, name, grown)
    for name, found in sets.items():
        if name.startswith("flushed"):
            sources = {net: None for net, _ in _ages(found)}
            _end_flushed(state, name, {net.network_address for net in sources})
            script += _forget(name, sources)
    if script:
        _nft(script)


def _forget(name: str, nets: Iterable[Net]) -> str:
    inside = ", ".join(str(net.network_address) for net in nets)
    return f"delete element {compiler.TABLE} {name} {{ {inside} }}\n" if inside else ""


def _end_flushed(state: State, name: str, sources: set[Ip]) -> None:
    if not sources:
        return
    for connection in conntrack.connections():
        if connection.source in sources and compiler.is_flushed(name, connection.mark, state.generation):
            conntrack.kill(connection)


def _ages(found: dict[str, Any]) -> list[tuple[Net, int]]:
    ages = []
    for element in found.get("elem", ()):
        inner = element["elem"]
        ages.append((ipaddress.ip_network(inner["val"]), max(0, compiler.KEEP - int(inner["expires"]))))
    return ages


def _list(*what: str) -> list[dict[str, Any]]:
    argv = [os.environ.get("STANDIN_NFT", NFT), "--json", "list", *what]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        if "No such file or directory" in done.stderr:
            return []
        raise Refused(done.stderr)
    listed: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
    return listed


def _nft(script: str) -> None:
    argv = [os.environ.get("STANDIN_NFT", NFT), "-f", "-"]
    done = subprocess.run(argv, input=script, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise Refused(done.stderr)
