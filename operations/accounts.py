"""What accounts of both systems have in common: arguments that are wrong, wishes that are refused."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from fleet.model.service import Account, Group
from operations.steps import Refusal, Step

NOBODYS_HOME = ("/nonexistent", "/var/empty")
"""Homes that nobody makes."""

_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_FIELD = re.compile(r"[^:\n\\]*")
_HASH = re.compile(r"[A-Za-z0-9./$*]{13,128}")


class Known(Protocol):
    """An account as a fact of either system found it."""

    @property
    def uid(self) -> int:
        """Its number."""

    @property
    def home(self) -> str:
        """Its home."""

    @property
    def directory(self) -> str | None:
        """Mode and owner of ~/.ssh, or ``link``."""


def check_names(kind: str, names: Sequence[str]) -> None:
    """Raise ValueError for a name of a `kind` of thing that cannot be one, or that is there twice."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{kind} {name!r}: a name is a small letter, then small letters, digits, - and _")
        if names.count(name) > 1:
            raise ValueError(f"{kind} {name} is there twice")


def check_accounts(groups: Sequence[Group], wanted: Sequence[Account]) -> None:
    """Raise ValueError for groups and accounts, secrets filled in, that cannot be written down."""
    check_names("group", [it.name for it in groups])
    check_names("account", [it.name for it in wanted])
    for account in wanted:
        if not all(_FIELD.fullmatch(text) for text in (account.comment, account.home or "", account.shell)):
            raise ValueError(f"account {account.name}: no colon, backslash or end of line fits into passwd(5)")
        if account.password is not None and not _HASH.fullmatch(account.password):
            raise ValueError(f"account {account.name}: its password is no hash as crypt(3) makes it")
        if any("\n" in key for key in account.authorized_keys or ()):
            raise ValueError(f"account {account.name}: a key is one line")


def plan_groups(groups: Sequence[Group], there: Mapping[str, int]) -> tuple[list[Step], list[Refusal]]:
    """Return what makes `groups` on a host with the groups `there`, by name with their numbers, and what is refused."""
    steps, refused = [], []
    for group in groups:
        gid = there.get(group.name)
        if gid is None:
            number = "" if group.gid is None else f"-g {group.gid} "
            steps.append(Step(f"group {group.name}", "made", f"groupadd {number}{group.name}"))
        elif group.gid is not None and gid != group.gid:
            message = f"it has gid {gid}, wanted {group.gid}: its files would belong to nobody"
            refused.append(Refusal(f"group {group.name}", message))
    return steps, refused


def objection(account: Account, found: Known | None, groups: Collection[str]) -> str | None:
    """Return why `account` is not brought about on a host with these `groups`, None if nothing is in the way.

    A number or a home that differs is refused: files would change hands.
    """
    # useradd(8) of OpenBSD makes the account without a group that there is not, and exits with 0.
    missing = sorted(set(account.groups) - set(groups))
    if missing and not account.removed:
        return f"there is no group {missing[0]}"
    if found is None:
        return None
    if account.uid is not None and account.uid != found.uid:
        return f"it has uid {found.uid}, wanted {account.uid}: its files would belong to nobody"
    if account.home is not None and account.home != found.home:
        return f"its home is {found.home}, wanted {account.home}: move it by hand"
    return _not_its_own(account, found)


def _not_its_own(account: Account, found: Known) -> str | None:
    """Return what is wrong with a ~/.ssh in which keys are to be written."""
    if found.directory == "link" and (account.removed or account.authorized_keys is not None):
        return f"{found.home}/.ssh is a symbolic link: it is not followed"
    if found.directory is None or account.removed or account.authorized_keys is None:
        return None
    if not found.directory.endswith(f" {account.name}"):
        return f"{found.home}/.ssh is not its own ({found.directory}): give it to {account.name}"
    return None


def filled(account: Account, fill: Callable[[str], str]) -> Account:
    """Return `account` with the secrets in its password and keys, which `fill` puts in the place of their marks."""
    keys = account.authorized_keys
    return account.model_copy(
        update={
            "password": None if account.password is None else fill(account.password),
            "authorized_keys": None if keys is None else tuple(fill(key) for key in keys),
        }
    )


def key_text(keys: Sequence[str]) -> str:
    """Return the text of an authorized_keys file; sshd(8)."""
    return "".join(f"{key}\n" for key in keys)


def digest(text: str) -> str:
    """Return the SHA-256 of `text` in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
