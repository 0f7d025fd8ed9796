"""uname(1) (contract 7.5, 12 item 1)."""

import socket
import sys

from . import release

NOT_MODELLED: tuple[str, ...] = ()
_USAGE = "usage: uname [-amnprsv]"


def main(argv: list[str]) -> int:
    """Print what the system is.

    Args:
        argv: letters of `-amnprsv`; without one the system's name is printed.

    Returns:
        0, or 1 for a wrong call.
    """
    letters = set()
    for word in argv:
        if not word.startswith("-") or set(word[1:]) - set("amnprsv") or word == "-":
            print(_USAGE, file=sys.stderr)
            return 1
        letters |= set(word[1:])
    values = {
        "s": "OpenBSD",
        "n": socket.gethostname(),
        "r": release.number(),
        "v": release.build(),
        "m": release.ARCH,
        "p": release.ARCH,
    }
    # -a is -mnrsv: the processor's own word is only in -p.
    wanted = (letters | set("mnrsv")) if "a" in letters else (letters or {"s"})
    print(" ".join(values[letter] for letter in "snrvmp" if letter in wanted))
    return 0
