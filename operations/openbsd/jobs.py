"""Crontabs of an OpenBSD host; crontab(1), crontab(5), openbsd-contract 5.10."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Generator, Mapping, Sequence

from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand, operation

from facts.openbsd.crontab import BEGIN, END, Crontab, Crontabs
from fleet.connector import read
from fleet.model.service import Job
from operations.openbsd.scripts import STATE, refuse
from operations.steps import Plan, Refusal, Step, perform

_FIELDS = re.compile(r"@[a-z]+|[^\s%#@]+(\s+[^\s%]+){4}")


def plan_jobs(wanted: Sequence[Job], users: Sequence[str], found: Mapping[str, Crontab]) -> Plan:
    """Return what writes our block into the crontab of each of `users`. Pure.

    All other lines are kept, root's system jobs above all. A user without a job in `wanted` has no block afterwards.

    Fails: ValueError for a job that is not one line, or whose user is not in `users`.
    """
    check(wanted, users)
    steps: list[Step] = []
    refused: list[Refusal] = []
    for user in dict.fromkeys(users):
        jobs = [job for job in wanted if job.user == user]
        tab = found.get(user, Crontab(exists=False))
        subject = f"crontab of {user}"
        if not tab.exists:
            if jobs:
                refused.append(Refusal(subject, f"there is no user {user}"))
            continue
        if tab.marks not in ("", "be"):
            refused.append(Refusal(subject, f"mend it by hand: not one '{BEGIN}' and then one '{END}'"))
            continue
        block = _block(jobs)
        if jobs and (not tab.marks or tab.block != hashlib.sha256(block.encode()).hexdigest()):
            steps.append(Step(subject, f"{len(jobs)} jobs", _script(user, "cat"), stdin=block))
        elif tab.marks and not jobs:
            steps.append(Step(subject, "our jobs taken out", _script(user, ":")))
    return Plan(tuple(steps), tuple(refused))


def check(wanted: Sequence[Job], users: Sequence[str]) -> None:
    """Fail with ValueError for a job that cannot be a line of a crontab."""
    for job in wanted:
        if job.user not in users:
            raise ValueError(f"job {job.command!r}: {job.user} is not among the users whose crontabs are ours")
        if not _FIELDS.fullmatch(job.schedule):
            raise ValueError(f"job {job.command!r}: {job.schedule!r} is no five fields and no @daily")
        if not job.command.strip() or "\n" in job.command or job.command.startswith("-"):
            raise ValueError(f"job {job.command!r}: a command is one line and does not begin with a hyphen")
        if set(job.flags) - set("nqs"):
            raise ValueError(f"job {job.command!r}: {job.flags!r}: flags are n, q and s")


def _block(jobs: Sequence[Job]) -> str:
    lines = [" ".join([job.schedule, *(f"-{flag}" for flag in job.flags), job.command]) for job in jobs]
    return "\n".join([BEGIN, *lines, END]) + "\n"


def _script(user: str, source: str) -> str:
    """Return a script that puts what `source` prints behind the lines that are not ours.

    A crontab that crontab(1) refuses leaves the old one; what was installed is listed and compared.
    """
    name = shlex.quote(user)
    ours = f'"/^{BEGIN}\\$/,/^{END}\\$/'
    return (
        f"umask 077; mkdir -p {STATE} && d=$(mktemp -d {STATE}/crontab.XXXXXXXXXX) || exit 1\n"
        "trap 'rm -rf \"$d\"' EXIT\n"
        f'{source} >"$d/ours" || exit 1\n'
        # Of a connection that dies only the end of the input is seen.
        f'[ ! -s "$d/ours" ] || [ "$(tail -n 1 "$d/ours")" = "{END}" ] || exit 1\n'
        ': >"$d/old"\n'
        f'[ ! -e /var/cron/tabs/{name} ] || crontab -l -u {name} >"$d/old" || exit 1\n'
        f'sed {ours}d" "$d/old" >"$d/new" && cat "$d/ours" >>"$d/new" || exit 1\n'
        f'if [ -s "$d/new" ]; then crontab -u {name} "$d/new"; else crontab -r -u {name}; exit; fi || exit 1\n'
        f'crontab -l -u {name} | cmp -s - "$d/new" || {{ echo "crontab -l shows something else" >&2; exit 1; }}'
    )


@operation()
def jobs(wanted: Sequence[Job], users: Sequence[str]) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Write the jobs of a host into the crontabs of `users`; lines that are not ours are kept.

    Arguments: `wanted`, all jobs that the host shall have; `users`, those whose crontabs are looked at, also for jobs
    of ours that left the inventory.
    """
    try:
        check(wanted, users)
    except ValueError as error:
        yield refuse(error)
        return
    found = read(host, Crontabs, users=list(users))
    if found is None:
        yield StringCommand("echo 'the crontabs of this host could not be read' >&2; exit 1")
        return
    plan = plan_jobs(wanted, users, found)
    if host.state is not None and not host.state.is_executing:
        # The users may be made in this very run.
        plan = Plan(plan.steps)
    yield from perform(plan)
