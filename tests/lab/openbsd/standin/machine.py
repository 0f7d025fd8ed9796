"""machine(1) and arch(1) (contract 7.5): the same word on amd64, with and without the system's name."""

import sys

from . import release
from .unmodelled import unmodelled

NOT_MODELLED = ("machine, arch: options other than -a, -k and -s",)


def machine(argv: list[str]) -> int:
    """Print the machine's kernel architecture, with -a that of its applications.

    Args:
        argv: nothing, ``-a`` or ``-k``.

    Returns:
        0.
    """
    if argv not in ([], ["-a"], ["-k"]):
        unmodelled("machine", argv, "only -a and -k")
    print(release.ARCH)
    return 0


def arch(argv: list[str]) -> int:
    """Print the architecture of applications, with -k that of the kernel, with -s without the system's name.

    Args:
        argv: nothing, or of ``-k`` and ``-s``.

    Returns:
        0.
    """
    if set(argv) - {"-k", "-s", "-ks", "-sk"}:
        unmodelled("arch", argv, "only -k and -s")
    short = any("s" in word for word in argv)
    sys.stdout.write(release.ARCH + "\n" if short else f"OpenBSD.{release.ARCH}\n")
    return 0


def main(argv: list[str]) -> int:
    """Run machine(1)."""
    return machine(argv)
