"""logger(1): `usr.bin/logger/logger.c`, with syslog(3) of `lib/libc/gen/syslog_r.c` 1.20."""

import os
import pwd
import sys
from collections.abc import Iterable

from . import program
from .sendsyslog import sendsyslog
from .syslog.message import FACILITIES, LEVELS, NOTICE
from .unmodelled import unmodelled

NOT_MODELLED = (
    "logger: -c; messages of more than 1023 octets",
    "logger: without -t the tag is the name of the effective user, not of the login",
)

_USAGE = "usage: logger [-cis] [-f file] [-p pri] [-t tag] [message ...]"
_LONGEST = 1023


def priority(word: str) -> int:
    """Read the value of ``-p``.

    Args:
        word: facility and level with a dot between them, or a level, each by name or number.

    Returns:
        Facility times eight plus level; of facility user if it names none.

    Raises:
        SystemExit: a name is not known, exit code 1.
    """
    facility, dot, level = word.rpartition(".")
    numbers = []
    for kind, name, known in (
        ("facility", facility if dot else "user", FACILITIES),
        ("priority", level, LEVELS),
    ):
        if name[:1].isdigit():
            unmodelled("logger", ["-p", word], "numbers")
        if name.lower() not in known:
            program.fail("logger", f"unknown {kind} name: {name}.")
        numbers.append(known[name.lower()])
    return (numbers[0] or FACILITIES["user"]) * 8 + numbers[1]


def _lines(options: dict[str, str], words: list[str]) -> Iterable[bytes]:
    if words:
        return [" ".join(words).encode()]
    if "-f" not in options:
        return iter(sys.stdin.buffer.readline, b"")
    try:
        return program.operand(options["-f"]).open("rb")
    except OSError as error:
        program.fail("logger", f"{options['-f']}: {error.strerror}.")


def main(argv: list[str]) -> int:
    """Run logger.

    Args:
        argv: `-i`, `-s`, `-f FILE`, `-p PRIORITY`, `-t TAG`, and the message; without one it reads lines.

    Returns:
        0.
    """
    found, words = program.options("logger", argv, "cf:ip:st:", _USAGE)
    options = dict(found)
    if "-c" in options:
        unmodelled("logger", argv, "option -c")
    number = priority(options["-p"]) if "-p" in options else FACILITIES["user"] * 8 + NOTICE
    tag = options.get("-t", pwd.getpwuid(os.geteuid()).pw_name)
    head = f"{tag}[{os.getpid()}]: " if "-i" in options else f"{tag}: "
    for line in _lines(options, words):
        if len(line.rstrip(b"\n")) > _LONGEST:
            unmodelled("logger", argv, f"a message of {len(line)} octets")
        text = (head.encode() + line).rstrip(b"\n")
        if "-s" in options:
            sys.stderr.buffer.write(text + b"\n")
            sys.stderr.flush()
        sendsyslog(f"<{number}>".encode() + text)
    return 0
