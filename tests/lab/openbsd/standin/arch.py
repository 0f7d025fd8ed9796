"""arch(1): see `machine`."""

from . import machine

NOT_MODELLED: tuple[str, ...] = ()


def main(argv: list[str]) -> int:
    """Run arch(1)."""
    return machine.arch(argv)
