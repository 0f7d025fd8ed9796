"""Daemons of a systemd host as one set; systemctl(1)."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Mapping, Sequence, Set
from dataclasses import replace

from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand, operation

from facts.linux.systemd import Unit, Units, unit_name
from fleet.connector import outcome, read
from fleet.model.service import Daemon
from operations.filesets import held_back
from operations.steps import Plan, Refusal, Step, perform


def plan_daemons(wanted: Sequence[Daemon], found: Mapping[str, Unit], changed: Set[str]) -> Plan:
    """Return what enables, starts, reloads and restarts the `wanted` daemons. Pure.

    Arguments: `found`, the units by name; `changed`, the file sets that changed in this run. A daemon is restarted
    only if such a set asks for it or if it still runs a binary that was replaced (DESIGN D2).
    """
    steps: list[Step] = []
    refused: list[Refusal] = []
    for daemon in wanted:
        unit = found.get(daemon.name)
        name = shlex.quote(unit_name(daemon.name))
        if unit is None or not unit.exists:
            missing = f"there is no unit {unit_name(daemon.name)}; does its package bring it?"
            refused.append(Refusal(daemon.name, missing))
            continue
        if not unit.enabled:
            steps.append(Step(daemon.name, "enabled", f"systemctl -q enable {name}"))
        if not unit.active:
            if not daemon.activated:
                steps.append(Step(daemon.name, "started", f"systemctl start {name}"))
        elif unit.stale or changed & set(daemon.restart_on):
            why = "restarted, its binary was replaced" if unit.stale else "restarted"
            steps.append(Step(daemon.name, why, f"systemctl restart {name}"))
        elif changed & set(daemon.reload_on):
            steps.append(Step(daemon.name, "reloaded", f"systemctl reload {name}"))
    return Plan(tuple(steps), tuple(refused))


@operation()
def daemons(
    wanted: Sequence[Daemon], own: Mapping[str, Set[str]] | None = None
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Enable and start all daemons of a host, and restart those that are due; none is ever stopped.

    Arguments: `wanted`; `own`, the configuration sets of its service, by daemon: one whose set failed is left alone.
    """
    found = read(host, Units, names=[daemon.name for daemon in wanted])
    if found is None:
        yield StringCommand("echo 'the units of this host could not be read' >&2; exit 1")
        return
    record = outcome(host)
    held = held_back(wanted, own or {}, set(record.failed))
    names = {refusal.subject for refusal in held}
    plan = plan_daemons([daemon for daemon in wanted if daemon.name not in names], found, set(record.changed))
    if host.state is not None and not host.state.is_executing:
        # The packages that bring the units may be due in this very run.
        plan = Plan(plan.steps)
    yield from perform(replace(plan, refused=(*plan.refused, *held)))
