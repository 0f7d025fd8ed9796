"""What a stand-in's command does not do: said loudly, and kept so that the run fails even if nobody looked."""

import sys
from collections.abc import Sequence
from typing import NoReturn

from .place import root

RECORD = "/var/standin/unmodelled"
"""A file that is there and not empty fails the lab's tests."""

EXIT = 99
"""Of no command that the contract describes."""


def unmodelled(command: str, argv: Sequence[str], why: str) -> NoReturn:
    """Say that an invocation is not modelled, record it and end the process.

    Args:
        command: the command's name.
        argv: its arguments.
        why: what of them the contract does not cover.

    Raises:
        SystemExit: always, with exit code 99.
    """
    line = f"standin: not modelled: {' '.join((command, *argv))}: {why}".replace("\n", " ") + "\n"
    sys.stderr.write(line)
    sys.stderr.flush()
    record = root(RECORD)
    # An ordinary user's command must be able to add to it: the boot makes it with mode 0666.
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        with record.open("a") as file:
            file.write(line)
    except OSError as error:
        sys.stderr.write(f"standin: {record}: {error}\n")
    raise SystemExit(EXIT)
