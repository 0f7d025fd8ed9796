"""date(1): contract 9 and 0.3 item 10."""

import os
import re
import sys
import time
from collections.abc import Sequence

from .place import root
from .program import fail, options, privileged
from .unmodelled import unmodelled

NOT_MODELLED = (
    "date: -a, -j and -f; setting the clock in another form than ccyymmddHHMM.SS",
    "date: a clock that was set is that of date(1) alone, until the next boot; all else reads the machine's",
    "date: conversions that strftime(3) of OpenBSD has not (%N, %P, %:z, a width)",
)

_USAGE = (
    "usage: date [-aju] [-f pformat] [-r seconds]\n"
    "            [-z output_zone] [+format] [[[[[[cc]yy]mm]dd]HH]MM[.SS]]\n"
)
_SET = re.compile(r"\d{12}\.\d\d")
_KNOWN = re.compile(r"%[aAbBcCdDeFgGhHIjklmMnprRsSStTuUvVwWxXyYzZ%]")

AHEAD = "/var/standin/boot/clock"
"""By how many seconds the clock was set ahead."""


def _now() -> int:
    try:
        return int(time.time()) + int(root(AHEAD).read_text())
    except FileNotFoundError:
        return int(time.time())


def _set(word: str) -> None:
    if not privileged():
        fail("date", "settimeofday: Operation not permitted")
    try:
        wanted = time.mktime(time.strptime(word, "%Y%m%d%H%M.%S"))
    except ValueError:
        unmodelled("date", [word], "a time that is none")
    root(AHEAD).write_text(str(int(wanted) - int(time.time())))


def main(argv: Sequence[str]) -> int:
    """Run date(1).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    flags, operands = options("date", argv, "af:jr:uz:", _USAGE)
    given = dict(flags)
    if given.keys() & {"-a", "-f", "-j"}:
        unmodelled("date", argv, "-a, -f and -j")
    sets = bool(operands) and not operands[0].startswith("+")
    if len(operands) > 1 or (sets and not _SET.fullmatch(operands[0])):
        unmodelled("date", argv, "several operands, or another form of the time")
    form = operands[0][1:] if operands and not sets else "%a %b %e %H:%M:%S %Z %Y"
    if "%" in _KNOWN.sub("", form):
        unmodelled("date", argv, "a conversion that strftime(3) has not")
    if "-r" in given and not re.fullmatch(r"-?\d+", given["-r"]):
        unmodelled("date", argv, "seconds that are no number")
    if "-u" in given:
        os.environ["TZ"] = "UTC0"
    if "-z" in given:
        os.environ["TZ"] = given["-z"]
    time.tzset()
    if sets:
        _set(operands[0])
    sys.stdout.write(time.strftime(form, time.localtime(int(given.get("-r", _now())))) + "\n")
    return 0
