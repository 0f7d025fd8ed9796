"""date(1): contract 9 and 0.3 item 10."""

import os
import re
import sys
import time
from collections.abc import Sequence

from .program import options
from .unmodelled import unmodelled

NOT_MODELLED = (
    "date: setting the clock, -a, -j and -f",
    "date: conversions that strftime(3) of OpenBSD has not (%N, %P, %:z, a width)",
)

_USAGE = (
    "usage: date [-aju] [-f pformat] [-r seconds]\n"
    "            [-z output_zone] [+format] [[[[[[cc]yy]mm]dd]HH]MM[.SS]]\n"
)
_KNOWN = re.compile(r"%[aAbBcCdDeFgGhHIjklmMnprRsSStTuUvVwWxXyYzZ%]")


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
    if any(not word.startswith("+") for word in operands) or len(operands) > 1:
        unmodelled("date", argv, "the clock cannot be set")
    form = operands[0][1:] if operands else "%a %b %e %H:%M:%S %Z %Y"
    if "%" in _KNOWN.sub("", form):
        unmodelled("date", argv, "a conversion that strftime(3) has not")
    if "-r" in given and not re.fullmatch(r"-?\d+", given["-r"]):
        unmodelled("date", argv, "seconds that are no number")
    if "-u" in given:
        os.environ["TZ"] = "UTC0"
    if "-z" in given:
        os.environ["TZ"] = given["-z"]
    time.tzset()
    sys.stdout.write(time.strftime(form, time.localtime(int(given.get("-r", time.time())))) + "\n")
    return 0
