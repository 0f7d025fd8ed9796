"""Groups and accounts of an Ubuntu host as one set; useradd(8), usermod(8), chpasswd(8)."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Sequence

from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand, operation

from facts.linux.accounts import LOCKED_SINCE, Accounts, AccountsState, Login
from fleet.connector import read
from fleet.model.service import Account, Group
from operations.accounts import NOBODYS_HOME, check_accounts, digest, filled, key_text, objection, plan_groups
from operations.steps import Plan, Refusal, Step, perform

NO_PASSWORD = "*"  # noqa: S105 - none
"""A password field that no password fits and that sshd(8) does not take for a locked account."""


def plan_accounts(groups: Sequence[Group], wanted: Sequence[Account], found: AccountsState) -> Plan:
    """Return what makes the groups, then the accounts and their keys. Pure.

    An account that is `removed` is locked, expires and has its keys emptied, it is never deleted; one that is not
    declared is left alone. So is root's password without a `password`: it is the way in at the console.

    Fails: ValueError for arguments that cannot be written down.
    """
    check_accounts(groups, wanted)
    steps: list[Step] = []
    made, refused = plan_groups(groups, {name: gid for name, (gid, _) in found.groups.items()})
    steps += made
    named = {*found.groups, *(group.name for group in groups)}
    for account in wanted:
        login = found.logins.get(account.name)
        against = objection(account, login, named)
        if against:
            refused.append(Refusal(account.name, against))
        elif account.removed:
            steps += _remove(account, login)
        elif login is None:
            steps += _make(account, named)
        else:
            steps += _change(account, login, found)
    return Plan(tuple(steps), tuple(refused))


def _remove(account: Account, login: Login | None) -> list[Step]:
    if login is None:
        return []
    steps = []
    if not login.locked:
        steps.append(Step(account.name, "locked", f"usermod -L -e {LOCKED_SINCE} {account.name}"))
    if login.keys is not None and login.keys.sha256 != digest(""):
        steps.append(_keys(account.name, login.home, ""))
    return steps


def _make(account: Account, groups: set[str]) -> list[Step]:
    home = account.home or f"/home/{account.name}"
    words = ["useradd", "-M" if home in NOBODYS_HOME else "-m"]
    if account.uid is not None:
        words += ["-u", str(account.uid)]
    # With -U useradd makes the group, and fails if it is there.
    words += ["-g", account.name] if account.name in groups else ["-U"]
    words += ["-c", account.comment, "-d", home, "-s", account.shell, "-p", NO_PASSWORD]
    if account.groups:
        words += ["-G", ",".join(account.groups)]
    steps = [Step(account.name, "made", shlex.join((*words, account.name)))]
    if account.password is not None:
        steps.append(_password(account.name, account.password))
    if account.authorized_keys is not None:
        steps.append(_keys(account.name, home, key_text(account.authorized_keys)))
    return steps


def _change(account: Account, login: Login, found: AccountsState) -> list[Step]:
    steps = []
    words: list[str] = []
    said: list[str] = []
    if login.comment != account.comment:
        words += ["-c", account.comment]
        said.append(f"comment {account.comment}")
    if login.shell != account.shell:
        words += ["-s", account.shell]
        said.append(f"shell {account.shell}")
    if found.secondary(account.name) != frozenset(account.groups):
        words += ["-G", ",".join(account.groups)]
        said.append("groups " + (", ".join(account.groups) or "none"))
    if login.expires:
        words += ["-e", ""]
        said.append("expires never")
    if words:
        steps.append(Step(account.name, "; ".join(said), shlex.join(("usermod", *words, account.name))))
    password = account.password or (None if account.name == "root" else NO_PASSWORD)
    if password is not None and login.password != digest(password):
        steps.append(_password(account.name, password))
    if account.authorized_keys is not None:
        text = key_text(account.authorized_keys)
        keys = login.keys
        right = keys is not None and (keys.owner, keys.mode, keys.sha256) == (account.name, 0o600, digest(text))
        if not right or login.directory != f"700 {account.name}":
            steps.append(_keys(account.name, login.home, text))
    return steps


def _password(name: str, password: str) -> Step:
    """Set a password field; a hash travels on standard input alone."""
    if password == NO_PASSWORD:
        return Step(name, "password taken away", f"usermod -p {shlex.quote(NO_PASSWORD)} {name}")
    return Step(name, "password set", "chpasswd -e", stdin=f"{name}:{password}\n")


def _keys(name: str, home: str, text: str) -> Step:
    """Write ~/.ssh/authorized_keys whole, or leave it as it was.

    It is the account itself that writes: whatever link it plants at home leads to nothing that it could not change
    anyway.
    """
    put = (
        "umask 077 && cd && { [ ! -L .ssh ] || { echo '.ssh is a symbolic link: it is not followed' >&2; exit 1; }; } "
        "&& { [ -d .ssh ] || mkdir .ssh; } && chmod 700 .ssh && t=$(mktemp .ssh/authorized_keys.XXXXXXXXXX) && "
        f'{{ {{ {"cat" if text else ":"} >"$t" && [ "$(sha256sum <"$t")" = "{digest(text)}  -" ] && '
        'mv -f "$t" .ssh/authorized_keys; } || { rm -f "$t"; exit 1; }; }'
    )
    command = (
        f"g=$(id -g {name}) && cd / && "
        f'setpriv --reuid {name} --regid "$g" --init-groups env HOME={shlex.quote(home)} sh -c {shlex.quote(put)}'
    )
    return Step(name, "keys written" if text else "keys taken away", command, stdin=text or None)


def _as_it_is(text: str) -> str:
    return text


@operation()
def accounts(
    groups: Sequence[Group], wanted: Sequence[Account], fill: Callable[[str], str] = _as_it_is
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Make the groups and accounts of a host; none is ever deleted.

    Arguments: `fill` puts secret values in the place of their marks in passwords and keys, at the last moment.
    """
    whole = [filled(account, fill) for account in wanted]
    found = read(host, Accounts, logins=[it.name for it in wanted])
    if found is None:
        yield StringCommand("echo 'the accounts of this host could not be read' >&2; exit 1")
        return
    try:
        plan = plan_accounts(groups, whole, found)
    except ValueError as error:
        # An exception would end the run of all hosts (reference 1.2).
        yield StringCommand(f"echo {shlex.quote(str(error))} >&2; exit 1")
        return
    if host.state is not None and not host.state.is_executing:
        # The packages that bring groups may be due in this very run.
        plan = Plan(plan.steps)
    yield from perform(plan)
