"""pkill(1): see `pgrep`."""

from . import pgrep

NOT_MODELLED: tuple[str, ...] = ()


def main(argv: list[str]) -> int:
    """Run pkill(1)."""
    return pgrep.run("pkill", argv)
