"""Files that daemons of an OpenBSD host log into, made where they lack: syslogd(8) makes none; contract 5.5."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Mapping, Sequence
from pathlib import PurePosixPath

from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand, operation

from facts.openbsd.logfiles import LogFiles
from fleet.connector import read
from fleet.model.service import LogFile
from operations.steps import Plan, Step, perform

FOLDER_MODE = 0o750
"""Of a folder that is made: what is logged is nobody's business but root's and wheel's."""

_SYSTEM = "/var/log"


def plan_logfiles(wanted: Sequence[LogFile], found: Mapping[str, tuple[str, str, int]]) -> Plan:
    """Return what makes missing folders and empty files, and gives each its owner and mode. Pure.

    What is in a file that is there is never touched, nor is a folder of the system's.
    """
    steps = [
        Step(folder, "made", f"install -d -o root -g wheel -m {FOLDER_MODE:04o} {shlex.quote(folder)}")
        for folder in folders_of(wanted)
        if folder not in found
    ]
    missing: dict[str, list[LogFile]] = {}
    for log in wanted:
        state = (log.owner, log.group, log.mode)
        if log.path not in found:
            missing.setdefault(str(PurePosixPath(log.path).parent), []).append(log)
        elif found[log.path] != state:
            path = shlex.quote(log.path)
            steps.append(Step(log.path, "its own again", f"chown {_owner(log)} {path} && chmod {log.mode:04o} {path}"))
    for folder, logs in missing.items():
        # One that a daemon makes meanwhile is left as it is: it has a line in it.
        made = " && ".join(f"{{ [ -e {shlex.quote(it.path)} ] || {_make(it)}; }}" for it in logs)
        count = f"{len(logs)} log file{'' if len(logs) == 1 else 's'} made"
        steps.append(Step(folder, count, made))
    return Plan(tuple(steps))


def folders_of(wanted: Sequence[LogFile]) -> tuple[str, ...]:
    """Return the folders of ours that the files lie in, outer ones first."""
    found: set[str] = set()
    for log in wanted:
        found |= {str(folder) for folder in PurePosixPath(log.path).parents if folder.is_relative_to(_SYSTEM)}
    return tuple(sorted(found - {_SYSTEM}))


def _owner(log: LogFile) -> str:
    return shlex.quote(f"{log.owner}:{log.group}")


def _make(log: LogFile) -> str:
    owner, group = shlex.quote(log.owner), shlex.quote(log.group)
    return f"install -o {owner} -g {group} -m {log.mode:04o} /dev/null {shlex.quote(log.path)}"


@operation()
def logfiles(wanted: Sequence[LogFile]) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Make the files `wanted`; see `plan_logfiles`."""
    found = read(host, LogFiles, paths=[*folders_of(wanted), *(log.path for log in wanted)])
    if found is None:
        yield StringCommand("echo 'the log files of this host could not be looked at' >&2; exit 1")
        return
    yield from perform(plan_logfiles(wanted, found))
