"""reboot(8), halt(8), shutdown(8) and hostname(1), by way of process 1; contract 9.

The system's end takes a moment: the command ends before, and the connection it came by is cut.
"""

import os
import signal
import socket
import sys
from collections.abc import Sequence

from .init import HOSTNAME
from .place import root
from .unmodelled import unmodelled

NOT_MODELLED = (
    "reboot, halt: -d -l -n -p -q",
    "shutdown: any time but now, -d -f -k -n -p, and the messages to those who are logged in",
)


def _root_only(name: str) -> bool:
    if os.geteuid() == 0:
        return True
    sys.stderr.write(f"{name}: Operation not permitted\n")
    return False


def _end(name: str, argv: Sequence[str], number: signal.Signals) -> int:
    if not _root_only(name):
        return 1
    if argv:
        unmodelled(name, argv, "only without options")
    os.kill(1, number)
    return 0


def reboot(argv: Sequence[str]) -> int:
    """Run reboot(8).

    Args:
        argv: its arguments.

    Returns:
        The exit code.
    """
    return _end("reboot", argv, signal.SIGINT)


def halt(argv: Sequence[str]) -> int:
    """Run halt(8).

    Args:
        argv: its arguments.

    Returns:
        The exit code.
    """
    return _end("halt", [word for word in argv if word != "-p"], signal.SIGTERM)


def shutdown(argv: Sequence[str]) -> int:
    """Run shutdown(8).

    Args:
        argv: its arguments.

    Returns:
        The exit code.
    """
    if not _root_only("shutdown"):
        return 1
    flags, words = argv[:1], argv[1:]
    if flags not in (["-r"], ["-h"]) or words[:1] != ["now"]:
        unmodelled("shutdown", argv, "only -r or -h, and now")
    sys.stdout.write("Shutdown NOW!\n")
    sys.stdout.flush()
    os.kill(1, signal.SIGINT if flags == ["-r"] else signal.SIGTERM)
    return 0


def hostname(argv: Sequence[str]) -> int:
    """Run hostname(1): print the host's name, or set it.

    Args:
        argv: its arguments.

    Returns:
        The exit code.
    """
    if not argv or list(argv) == ["-s"]:
        name = socket.gethostname()
        sys.stdout.write((name.partition(".")[0] if argv else name) + "\n")
        return 0
    if len(argv) != 1 or argv[0].startswith("-"):
        unmodelled("hostname", argv, "only -s, or one name")
    if not _root_only("hostname: sethostname"):
        return 1
    root(HOSTNAME).write_text(f"{argv[0]}\n")
    os.kill(1, signal.SIGHUP)
    return 0
