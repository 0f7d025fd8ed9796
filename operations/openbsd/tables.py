"""Contents of pf(4) tables that are ours; pfctl(8), openbsd-contract 3.1.

No service of the base calls this: its tables are filled by pf itself, by a person, or by the file that pf.conf(5) names
(`Table.file`). It is for the ``converges`` of a service whose addresses are in the inventory and change without the
rules, such as the peers of a name server.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Generator, Mapping, Sequence

from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand, operation

from facts.openbsd.pf import Pf, PfState, normal
from fleet.connector import read
from operations.openbsd.scripts import STATE, refuse
from operations.steps import Plan, Refusal, Step, perform


def plan_tables(wanted: Mapping[str, Sequence[str]], found: PfState) -> Plan:
    """Return what replaces the contents of the `wanted` tables. Pure.

    A table that pf.conf does not declare is refused: made here, it would be gone with the next ruleset's reload.
    Tables that something else fills must not be among them.

    Fails: ValueError for what is no address.
    """
    check(wanted)
    steps: list[Step] = []
    refused: list[Refusal] = []
    for name, addresses in wanted.items():
        subject = f"table {name}"
        there = found.tables.get(name)
        entries = frozenset(normal(address) for address in addresses)
        if there is None:
            refused.append(Refusal(subject, f"pf has no table <{name}>: declare it in pf.conf, persist"))
        elif there != entries:
            steps.append(_replace(name, entries, there))
    return Plan(tuple(steps), tuple(refused))


def check(wanted: Mapping[str, Sequence[str]]) -> None:
    """Fail with ValueError for a name that is none of a table, and for what is no address."""
    for name, addresses in wanted.items():
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,31}", name):
            raise ValueError(f"table {name!r}: no name of a table")
        for address in addresses:
            try:
                normal(address)
            except ValueError as error:
                raise ValueError(f"table {name}: {error}") from None


def _replace(name: str, entries: frozenset[str], there: frozenset[str]) -> Step:
    said = [*(f"+{it}" for it in sorted(entries - there)), *(f"-{it}" for it in sorted(there - entries))]
    quoted = shlex.quote(name)
    if not entries:
        return Step(f"table {name}", ", ".join(said), f"pfctl -q -t {quoted} -T flush")
    text = "".join(f"{it}\n" for it in sorted(entries))
    # Of a connection that dies the command sees the end of its input, and an empty table would replace the old one.
    digest = hashlib.sha256(text.encode()).hexdigest()
    command = (
        f"umask 077; mkdir -p {STATE} && t=$(mktemp {STATE}/table.XXXXXXXXXX) || exit 1\n"
        "trap 'rm -f \"$t\"' EXIT\n"
        f'cat >"$t" && [ "$(sha256 -q "$t")" = {digest} ] && pfctl -q -t {quoted} -T replace -f "$t"'
    )
    return Step(f"table {name}", ", ".join(said), command, stdin=text)


@operation()
def tables(wanted: Mapping[str, Sequence[str]]) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Bring the contents of pf tables about.

    Arguments: `wanted`, all addresses of each table that the inventory fills; a table that is declared ``const``
    cannot be filled, which fails by name.
    """
    try:
        check(wanted)
    except ValueError as error:
        yield refuse(error)
        return
    found = read(host, Pf, tables=list(wanted))
    if found is None:
        yield StringCommand("echo 'the tables of this host could not be read' >&2; exit 1")
        return
    plan = plan_tables(wanted, found)
    if host.state is not None and not host.state.is_executing:
        # The ruleset that declares them may be due in this very run.
        plan = Plan(plan.steps)
    yield from perform(plan)
