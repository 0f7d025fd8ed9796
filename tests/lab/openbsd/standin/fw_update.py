"""fw_update(8) (contract 7.3): a stand-in has no device that wants firmware."""

import os
import sys

from .unmodelled import unmodelled

NOT_MODELLED = ("fw_update: devices, and so every driver; options -a, -d, -F, -l and -p",)


def main(argv: list[str]) -> int:
    """Run fw_update.

    Args:
        argv: nothing, or of ``-n`` and ``-v``.

    Returns:
        0; 1 for a wrong call or without root.
    """
    if any(word.startswith("-") and set(word[1:]) - set("adFlnvp") for word in argv):
        print("usage: fw_update [-adFlnv] [-p path] [driver | file ...]", file=sys.stderr)
        return 1
    if set(argv) - {"-n", "-v", "-nv", "-vn"}:
        unmodelled("fw_update", argv, "drivers and other options")
    if os.geteuid() != 0 and not any("n" in word for word in argv):
        print("fw_update: need root privileges", file=sys.stderr)
        return 1
    print("fw_update: added none; updated none; kept none")
    return 0
