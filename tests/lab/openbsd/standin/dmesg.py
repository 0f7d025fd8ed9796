"""dmesg(8) (contract 9): the kernel's messages of this boot."""

from . import release
from .sysctl import value
from .unmodelled import unmodelled

NOT_MODELLED = ("dmesg: messages of devices, and options",)


def main(argv: list[str]) -> int:
    """Print the kernel's messages.

    Args:
        argv: nothing.

    Returns:
        0.
    """
    if argv:
        unmodelled("dmesg", argv, "options")
    memory = int(value("hw.physmem"))
    print(release.kern_version())
    print(f"real mem = {memory} ({memory >> 20}MB)")
    print("mainbus0 at root")
    print(f"cpu0 at mainbus0: {value('hw.model')}")
    return 0
