"""Login classes, groups and accounts of an OpenBSD host as one set; user(8), login.conf(5), contract 5.9, 6."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Generator, Sequence

from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand, operation

from facts.filesets import FileState
from facts.openbsd.accounts import CLASSES, Accounts, AccountsState, Login
from fleet.connector import read
from fleet.model.service import Account, Group, LoginClass
from operations.accounts import (
    NOBODYS_HOME,
    check_accounts,
    check_names,
    digest,
    filled,
    key_text,
    objection,
    plan_groups,
)
from operations.openbsd.scripts import refuse
from operations.steps import Plan, Refusal, Step, perform

NO_PASSWORD = "*" * 13
"""A password field that no password fits and that does not count as a locked account; user(8)."""

_CAPABILITY = re.compile(r"[^:\n\\]+")


def plan_accounts(
    classes: Sequence[LoginClass], groups: Sequence[Group], wanted: Sequence[Account], found: AccountsState
) -> Plan:
    """Return what makes the login classes, then the groups, then the accounts and their keys. Pure.

    A number or a home that differs is refused: files would change hands. An account that is `removed` is locked and
    its keys are emptied, it is never deleted; one that is not declared is left alone. So is root's password without
    a `password`: it is the way in at the console. Homes below /home are closed to others: useradd(8) leaves them open,
    and login_oath takes no secret out of such a home (contract 5.9).

    Fails: ValueError for arguments that cannot be written down.
    """
    _check(classes, groups, wanted)
    steps: list[Step] = []
    due = [it for it in classes if found.classes.get(it.name) != _class_state(it)]
    steps += [_class(it) for it in due]
    if found.database is False or (due and found.database is not None):
        # Once it exists the database is all that counts (contract 5.9).
        steps.append(Step("login.conf.db", "rebuilt", "cap_mkdb /etc/login.conf"))
    made, refused = plan_groups(groups, {name: gid for name, (gid, _) in found.groups.items()})
    steps += made
    named = {*found.groups, *(group.name for group in groups)}
    for account in wanted:
        login = found.logins.get(account.name)
        said = objection(account, login, named)
        if said:
            refused.append(Refusal(account.name, said))
        elif account.removed:
            steps += _remove(account, login)
        elif login is None:
            steps += _make(account, named)
        else:
            steps += _change(account, login, found)
    return Plan(tuple(steps), tuple(refused))


def class_text(wanted: LoginClass) -> str:
    """Return the file of a login class; login.conf(5)."""
    capabilities = "".join(f"\t:{it}:\\\n" for it in wanted.capabilities)
    return f"{wanted.name}:\\\n{capabilities}\t:tc={wanted.inherits}:\n"


def _check(classes: Sequence[LoginClass], groups: Sequence[Group], wanted: Sequence[Account]) -> None:
    for it in classes:
        if not all(_CAPABILITY.fullmatch(capability) for capability in it.capabilities):
            raise ValueError(f"login class {it.name}: a capability has no colon, backslash or end of line in it")
    check_names("login class", [it.name for it in classes])
    check_accounts(groups, wanted)


def _class_state(wanted: LoginClass) -> FileState:
    return FileState("root", "wheel", 0o644, hashlib.sha256(class_text(wanted).encode()).hexdigest())


def _class(wanted: LoginClass) -> Step:
    path = f"{CLASSES}/{wanted.name}"
    command = f"mkdir -p {CLASSES} && {written(path, 'root:wheel', 0o644, class_text(wanted))}"
    return Step(f"login class {wanted.name}", "written", command, stdin=class_text(wanted))


def written(path: str, owner: str | None, mode: int, text: str) -> str:
    """Return a command that puts its standard input whole into the file `path`, or leaves it as it was.

    Arguments: `path`, whose folder is there; `owner`, as chown(8) takes it, quoted for sh, None for whoever runs it;
    `mode`; `text`, what it will read: of a connection that dies, the command sees only the end of its input, and the
    file would be cut short.
    """
    quoted = shlex.quote(path)
    given = "" if owner is None else f'chown {owner} "$t" && '
    return (
        f"t=$(mktemp {shlex.quote(path + '.XXXXXXXXXX')}) && "
        f'{{ {{ cat >"$t" && [ "$(sha256 -q "$t")" = {digest(text)} ] && '
        f'{given}chmod {mode:o} "$t" && mv -f "$t" {quoted}; }} || '
        '{ rm -f "$t"; exit 1; }; }'
    )


def _remove(account: Account, login: Login | None) -> list[Step]:
    if login is None:
        return []
    steps = []
    if not login.locked:
        steps.append(Step(account.name, "locked", f"usermod -Z {account.name}"))
    if login.keys is not None and login.keys.sha256 != digest(""):
        steps.append(_keys(account.name, login.home, ""))
    return steps


def _make(account: Account, groups: set[str]) -> list[Step]:
    home = account.home or f"/home/{account.name}"
    words = ["useradd"]
    if home not in NOBODYS_HOME:
        words.append("-m")
    if account.uid is not None:
        words += ["-u", str(account.uid)]
    if account.name in groups:
        # By default useradd makes the group, and fails if it is there.
        words += ["-g", account.name]
    words += ["-c", account.comment, "-d", home, "-s", account.shell, "-L", account.login_class]
    if account.groups:
        words += ["-G", ",".join(account.groups)]
    command = " ".join(shlex.quote(word) for word in (*words, account.name))
    steps = [Step(account.name, "made", f"{command} && {_closed(home)}" if _is_private(home) else command)]
    if account.password is not None and account.password != NO_PASSWORD:
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
    if login.login_class != account.login_class:
        words += ["-L", account.login_class]
        said.append(f"login class {account.login_class}")
    if found.secondary(account.name) != frozenset(account.groups):
        # -G only adds (contract 6).
        words += ["-S", ",".join(account.groups)]
        said.append("groups " + (", ".join(account.groups) or "none"))
    if words:
        command = " ".join(shlex.quote(word) for word in ("usermod", *words, account.name))
        steps.append(Step(account.name, "; ".join(said), command))
    if login.access is not None and _is_private(login.home) and int(login.access.split()[0], 8) & 0o007:
        steps.append(Step(account.name, "home closed to others", _closed(login.home)))
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
    """Set a password field without its being in any argument list or environment.

    What ``usermod -p`` does, with the lock of vipw(8): /etc/ptmp, which must not be there, is the new file.
    """
    program = "NR == FNR { hash = $0; next } $1 == u { $2 = hash; done = 1 } { print } END { exit !done }"
    command = (
        "umask 077; set -C\n"
        "(: >/etc/ptmp) 2>/dev/null || { echo '/etc/ptmp is there: somebody is editing the accounts' >&2; exit 1; }\n"
        "set +C\n"
        f"awk -F: -v OFS=: -v u={name} '{program}' - /etc/master.passwd >/etc/ptmp && pwd_mkdb -p /etc/ptmp || "
        "{ rm -f /etc/ptmp; echo 'the password was not set' >&2; exit 1; }"
    )
    return Step(name, "password set", command, stdin=f"{password}\n")


def _is_private(home: str) -> bool:
    return home.startswith("/home/")


def _closed(home: str) -> str:
    return f"chmod o= {shlex.quote(home)}"


def _keys(name: str, home: str, text: str) -> Step:
    """Write the keys as the account itself: in a home that is not root's, root would follow any link.

    su(1) takes a shell from root, whatever the account's own is.
    """
    link = shlex.quote(f"{home}/.ssh is a symbolic link: it is not followed")
    put = (
        f"umask 077; cd {shlex.quote(home)} || exit 1\n"
        f"[ ! -L .ssh ] || {{ echo {link} >&2; exit 1; }}\n"
        f"{{ [ -d .ssh ] || mkdir .ssh; }} && chmod 700 .ssh && {written('.ssh/authorized_keys', None, 0o600, text)}"
    )
    if not text:
        put = put.replace("cat >", ": >")
    command = f"su -s /bin/sh {name} -c {shlex.quote(put)}"
    return Step(name, "keys written", command, stdin=text) if text else Step(name, "keys taken away", command)


def _as_it_is(text: str) -> str:
    return text


@operation()
def accounts(
    classes: Sequence[LoginClass],
    groups: Sequence[Group],
    wanted: Sequence[Account],
    fill: Callable[[str], str] = _as_it_is,
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Make the login classes, groups and accounts of a host; none is ever deleted.

    Arguments: `fill` puts secret values in the place of their marks in passwords and keys, at the last moment.
    """
    whole = [filled(account, fill) for account in wanted]
    try:
        _check(classes, groups, whole)
    except ValueError as error:
        yield refuse(error)
        return
    found = read(host, Accounts, classes=[it.name for it in classes], logins=[it.name for it in wanted])
    if found is None:
        yield StringCommand("echo 'the accounts of this host could not be read' >&2; exit 1")
        return
    plan = plan_accounts(classes, groups, whole, found)
    if host.state is not None and not host.state.is_executing:
        # The packages that bring groups may be due in this very run.
        plan = Plan(plan.steps)
    yield from perform(plan)
