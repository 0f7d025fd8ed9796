"""pgrep(1) and pkill(1) (contract 1.4, 9): procps' own, behind the options that OpenBSD has."""

import os
import sys

from .unmodelled import unmodelled

NOT_MODELLED = ("pgrep, pkill: -T of a routing table other than 0, -d, -G, -g, -P, -s, -t",)
PROGRAMS = "/usr/lib/standin/bin"
_LETTERS = "flnovx"
_SIGNALS = {"HUP", "INT", "QUIT", "ALRM", "TERM", "KILL", "USR1", "USR2", "STOP", "CONT", "WINCH", "INFO"}


class _Wrong(Exception):
    """A letter that OpenBSD's program does not have."""


def _letter(letter: str, argv: list[str], name: str) -> list[str]:
    if letter in "dGgPstI":
        unmodelled(name, argv, f"option -{letter}")
    if letter not in _LETTERS:
        raise _Wrong
    # procps says the whole command line with -a where OpenBSD's -l does it with -f.
    return ["-a" if letter == "l" and "f" in "".join(argv) else f"-{letter}"]


def translated(name: str, argv: list[str]) -> tuple[list[str], bool]:
    """Return procps' arguments for OpenBSD's.

    Args:
        name: ``pgrep`` or ``pkill``.
        argv: its arguments as OpenBSD takes them.

    Returns:
        The arguments, and whether nothing shall be printed.
    """
    words = list(argv)
    passed: list[str] = []
    quiet = False
    if name == "pkill" and words and words[0].startswith("-"):
        signal = words[0][1:].removeprefix("SIG")
        if signal.isdigit() or signal in _SIGNALS:
            passed.append(words.pop(0))
    while words and words[0].startswith("-") and words[0] != "-":
        cluster = words.pop(0)[1:]
        if cluster == "-":
            break
        while cluster:
            letter, cluster = cluster[0], cluster[1:]
            if letter in "TuU" and (cluster or words):
                value, cluster = cluster or words.pop(0), ""
                if letter == "T" and value != "0":
                    unmodelled(name, argv, f"routing table {value}")
                if letter != "T":
                    passed += [f"-{letter}", value]
            elif letter == "q":
                quiet = True
            else:
                passed += _letter(letter, argv, name)
    if len(words) > 1:
        unmodelled(name, argv, "several patterns")
    return [*passed, "--", *words], quiet


def run(name: str, argv: list[str]) -> int:
    """Become procps' program of that name.

    Args:
        name: ``pgrep`` or ``pkill``.
        argv: its arguments as OpenBSD takes them.

    Returns:
        2 for a wrong call; else the process becomes another.
    """
    try:
        arguments, quiet = translated(name, argv)
    except _Wrong:
        print(f"usage: {name} [-flnoqvx] [-T rtable] [-U uid] [-u euid] [pattern ...]", file=sys.stderr)
        return 2
    if quiet:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return os.execv(f"{os.environ.get('STANDIN_BIN', PROGRAMS)}/{name}", [name, *arguments])


def main(argv: list[str]) -> int:
    """Run pgrep(1)."""
    return run("pgrep", argv)
