"""The frame around commands that must not depend on the connection they came by."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from pyinfra.api import StringCommand

STATE = "/var/db/homefleet"
"""Where a host keeps what is ours; mode 0700."""


def unattended(name: str, lines: Sequence[str], prelude: str = "") -> str:
    """Return POSIX sh that runs `lines` one after the other, each only if the one before it succeeded.

    What they say goes to a log of that `name` in a private directory, not to the connection: a controller that dies
    does not break them half-way with a closed pipe, and a daemon that they start holds no channel open. If one
    fails, the last lines of the log are the error. `prelude` has the shell functions that the lines need.
    """
    log = f"{STATE}/{name}.log"
    body = " &&\n".join(lines)
    return (
        f"{prelude}umask 077\n"
        f"mkdir -p {STATE} || exit 1\n"
        f"{{ umask 022\n{body}\n}} </dev/null >{log} 2>&1 || {{ tail -n 3 {log} >&2; exit 1; }}"
    )


def refuse(error: ValueError) -> StringCommand:
    """Return what fails a host for wrong arguments: an exception would end the run of all hosts (reference 1.2)."""
    return StringCommand(f"echo {shlex.quote(str(error))} >&2; exit 1")
