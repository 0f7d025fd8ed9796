"""What OpenBSD's programs have in common: getopt(3), err(3), and who may write."""

import getopt
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .place import root


def warn(name: str, message: str) -> None:
    """Say something on stderr as warnx(3) does.

    Args:
        name: the program's name.
        message: what to say.
    """
    sys.stdout.flush()
    sys.stderr.write(f"{name}: {message}\n")
    sys.stderr.flush()


def fail(name: str, message: str, code: int = 1) -> NoReturn:
    """Say something on stderr and end the program as errx(3) does.

    Args:
        name: the program's name.
        message: what to say.
        code: the exit code.

    Raises:
        SystemExit: always.
    """
    warn(name, message)
    raise SystemExit(code)


def options(name: str, argv: Sequence[str], letters: str, usage: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Take the options off a command line as getopt(3) does: they end at the first operand.

    Args:
        name: the program's name.
        argv: its arguments.
        letters: the options, each with a colon if it takes a value.
        usage: what is printed on stderr after a wrong option.

    Returns:
        The options with their values in the order given, and the operands.

    Raises:
        SystemExit: a wrong option, exit code 1.
    """
    try:
        return getopt.getopt(list(argv), letters)
    except getopt.GetoptError as error:
        missing = "requires argument" in error.msg
        warn(name, f"{'option requires an argument' if missing else 'unknown option'} -- {error.opt[:1] or '-'}")
        sys.stderr.write(usage if usage.endswith("\n") else usage + "\n")
        raise SystemExit(1) from None


def operand(path: str) -> Path:
    """Return where a file is that a user named.

    Args:
        path: absolute, which is below the stand-in's root, or relative to the working directory.
    """
    return root(path) if path.startswith("/") else Path(path)


def privileged() -> bool:
    """Return whether the program may change the system: as root, or in the scratch directory of a test."""
    return os.geteuid() == 0 or "STANDIN_ROOT" in os.environ


def own(path: Path, uid: int, gid: int) -> None:
    """Give a file to an owner; in a scratch directory of an ordinary user it stays his.

    Args:
        path: where it really is.
        uid: the owner's number.
        gid: the group's number.

    Raises:
        PermissionError: the process may not do it.
    """
    try:
        os.chown(path, uid, gid, follow_symlinks=False)
    except PermissionError:
        if "STANDIN_ROOT" not in os.environ:
            raise


def replace(path: str, text: str, mode: int, uid: int = 0, gid: int = 0) -> None:
    """Write a file beside its place and rename it, so that nobody reads half of it.

    Args:
        path: as the stand-in knows it.
        text: its whole content.
        mode: its permissions.
        uid: its owner.
        gid: its group.
    """
    place = root(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f"{place.name}.{os.getpid()}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    own(new, uid, gid)
    new.chmod(mode)
    new.replace(place)
