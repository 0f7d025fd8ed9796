"""wc(1): its columns are padded with blanks, unlike GNU's; `usr.bin/wc/wc.c`."""

import os
import sys
from collections.abc import Sequence

from .program import operand, options, warn
from .unmodelled import unmodelled

NOT_MODELLED = ("wc: -h and -m",)


def _counts(data: bytes) -> tuple[int, int, int]:
    return data.count(b"\n"), len(data.split()), len(data)


def main(argv: Sequence[str]) -> int:
    """Run wc(1).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    flags, files = options("wc", argv, "chlmw", "usage: wc [-c | -m] [-hlw] [file ...]\n")
    given = {flag[1] for flag, _ in flags} or {"l", "w", "c"}
    if given & {"h", "m"}:
        unmodelled("wc", argv, "-h and -m")
    total, code = (0, 0, 0), 0

    def show(counts: tuple[int, int, int], name: str) -> None:
        columns = "".join(f" {count:7}" for letter, count in zip("lwc", counts, strict=True) if letter in given)
        sys.stdout.write(f"{columns}{' ' if name else ''}{name}\n")

    for file in files or [""]:
        try:
            counts = _counts(operand(file).read_bytes() if file else sys.stdin.buffer.read())
        except OSError as error:
            warn("wc", f"{file}: {os.strerror(error.errno or 0)}")
            code = 1
            continue
        total = total[0] + counts[0], total[1] + counts[1], total[2] + counts[2]
        show(counts, file)
    if len(files) > 1:
        show(total, "total")
    return code
