"""What a planner returns, and how it is performed on a host.

A planner is a pure function of what is wanted and what was found. It returns a `Plan`; `perform` is the only
place where a plan meets a host (DESIGN O1, O8).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

from pyinfra import host as current_host
from pyinfra.api import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from fleet.connector import outcome, run


@dataclass(frozen=True)
class Step:
    """One remote command of a plan.

    Arguments: `subject`, what it is done to (a guest, a volume, a daemon), also the unit of failure: after a
    failed step later steps of the same subject are left out, others go on; `label`, what it does, past tense,
    as printed in the closing lines; `command`, POSIX sh; `stdin`, what it reads, never shown (DESIGN O5).
    """

    subject: str
    label: str
    command: str
    stdin: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Refusal:
    """Something wanted that is not done: which subject, and a message of what was found and would be right."""

    subject: str
    message: str


@dataclass(frozen=True)
class Plan:
    """`steps` in the order in which they run, what was `refused` (fails the host), and `notes` (one line each)."""

    steps: tuple[Step, ...] = ()
    refused: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()


def perform(plan: Plan) -> Generator[FunctionCommand, None, None]:
    """Yield the commands that carry out `plan` for pyinfra.

    Refusals and notes are recorded for the closing lines; a refused subject's own steps do not run. A step that
    exits non-zero fails its subject only: `verdict` fails the host at the end. Nothing runs on a halted host.
    """
    record = outcome(current_host)
    for refusal in plan.refused:
        record.fail(refusal.subject, refusal.message)
    for note in plan.notes:
        record.note(note)
    steps = () if record.halted else plan.steps
    if not steps:
        current_host.noop("nothing to do")
    for step in steps:
        yield FunctionCommand(_step, (step,), {})


def _step(state: State, host: Host, step: Step) -> bool:
    del state
    record = outcome(host)
    if record.has_failed(step.subject):
        return True
    result = run(host, step.command, stdin=step.stdin)
    if result is None:
        return False
    if result.ok:
        record.change(step.subject, step.label)
    else:
        record.fail(step.subject, f"not {step.label}: {result.error}")
    return True
