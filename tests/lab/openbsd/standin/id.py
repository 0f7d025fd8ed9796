"""id(1): contract 6, `usr.bin/id/id.c`; the groups are separated by a comma and a blank."""

import os
import sys
from collections.abc import Sequence

from . import users
from .program import fail, options
from .unmodelled import unmodelled

NOT_MODELLED = ("id: -p and -R",)

_USAGE = (
    "usage: id [user]\n       id -c [user]\n       id -G [-n] [user]\n       id -g [-nr] [user]\n       id -p [user]\n"
    "       id -R\n       id -u [-nr] [user]\n"
)


def _group_name(gid: int) -> str | None:
    return next((group.name for group in users.groups() if group.gid == gid), None)


def _named(number: int, name: str | None) -> str:
    return f"{number}({name})" if name else str(number)


def _user(text: str) -> users.Account:
    found = users.account(text)
    if found is None and text.isdigit():
        found = next((other for other in users.accounts() if other.uid == int(text)), None)
    return found or fail("id", f"{text}: No such user")


def _gids(user: users.Account) -> list[int]:
    others = [group.gid for group in users.groups() if user.name in group.members and group.gid != user.gid]
    return [user.gid, *others]


def main(argv: Sequence[str]) -> int:
    """Run id(1).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    flags, operands = options("id", argv, "cGgnpRru", _USAGE)
    given = {flag[1] for flag, _ in flags}
    if given & {"p", "R"}:
        unmodelled("id", argv, "-p and -R")
    modes = given & {"c", "G", "g", "u"}
    if len(modes) > 1 or (not modes and given) or len(operands) > 1:
        sys.stderr.write(_USAGE)
        return 1
    user = _user(operands[0]) if operands else None
    if user is not None:
        uid, gids, name = user.uid, _gids(user), user.name
    else:
        uid = os.getuid() if "r" in given else os.geteuid()
        gid = os.getgid() if "r" in given else os.getegid()
        gids = [gid, *(other for other in os.getgroups() if other != gid)]
        name = next((other.name for other in users.accounts() if other.uid == uid), "")
    names = "n" in given
    if "c" in given:
        text = _user(str(uid)).login_class or "default"
    elif "u" in given:
        text = name if names and name else str(uid)
    elif "g" in given:
        text = _group_name(gids[0]) or str(gids[0]) if names else str(gids[0])
    elif "G" in given:
        text = " ".join((_group_name(gid) or str(gid)) if names else str(gid) for gid in gids)
    else:
        groups = ", ".join(_named(gid, _group_name(gid)) for gid in gids)
        text = f"uid={_named(uid, name)} gid={_named(gids[0], _group_name(gids[0]))} groups={groups}"
    sys.stdout.write(f"{text}\n")
    return 0
