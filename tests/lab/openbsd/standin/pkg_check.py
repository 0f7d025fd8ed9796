"""pkg_check(8): the contract names it (2) and says nothing of what it prints."""

from .unmodelled import unmodelled

NOT_MODELLED = ("pkg_check: everything",)


def main(argv: list[str]) -> int:
    """Refuse.

    Args:
        argv: its arguments.

    Returns:
        Never.
    """
    unmodelled("pkg_check", argv, "the contract has no line on it")
