"""Commands of OpenBSD's base that the stand-in has not: each says so, loudly, instead of being missing."""

import sys
from collections.abc import Sequence
from pathlib import Path

from .unmodelled import unmodelled

NOT_MODELLED = (
    "adduser at bioctl chflags chpass disklabel fdisk fstat installboot jot kdump ktrace pax passwd rmuser sysmerge "
    "systat vipw",
)


def main(argv: Sequence[str]) -> int:
    """Say that the command is not modelled.

    Args:
        argv: its arguments.

    Raises:
        SystemExit: always, with exit code 99.
    """
    unmodelled(Path(sys.argv[0]).name, argv, "the stand-in has no such command")
