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
from operations.openbsd.scripts import refuse
from operations.steps import Plan, Refusal, Step, perform

NO_PASSWORD = "*" * 13
"""A password field that no password fits and that does not count as a locked account; user(8)."""

_NOBODYS_HOME = ("/nonexistent", "/var/empty")

_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_FIELD = re.compile(r"[^:\n\\]*")
_CAPABILITY = re.compile(r"[^:\n\\]+")
_HASH = re.compile(r"[A-Za-z0-9./$*]{13,128}")


def plan_accounts(
    classes: Sequence[LoginClass], groups: Sequence[Group], wanted: Sequence[Account], found: AccountsState
) -> Plan:
    """Return what makes the login classes, then the groups, then the accounts and their keys. Pure.

    A number or a home that differs is refused: files would change hands. An account that is `removed` is locked and
    its keys are emptied, it is never deleted; one that is not declared is left alone. So is root's password without
    a `password`: it is the way in at the console.

    Fails: ValueError for arguments that cannot be written down.
    """
    _check(classes, groups, wanted)
    steps: list[Step] = []
    refused: list[Refusal] = []
    due = [it for it in classes if found.classes.get(it.name) != _class_state(it)]
    steps += [_class(it) for it in due]
    if found.database is False or (due and found.database is not None):
        # Once it exists the database is all that counts (contract 5.9).
        steps.append(Step("login.conf.db", "rebuilt", "cap_mkdb /etc/login.conf"))
    for group in groups:
        there = found.groups.get(group.name)
        if there is None:
            number = "" if group.gid is None else f"-g {group.gid} "
            steps.append(Step(f"group {group.name}", "made", f"groupadd {number}{group.name}"))
        elif group.gid is not None and there[0] != group.gid:
            message = f"it has gid {there[0]}, wanted {group.gid}: its files would belong to nobody"
            refused.append(Refusal(f"group {group.name}", message))
    named = {*found.groups, *(group.name for group in groups)}
    for account in wanted:
        login = found.logins.get(account.name)
        objection = _refusal(account, login, named)
        if objection:
            refused.append(Refusal(account.name, objection))
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
    for kind, names in (
        ("login class", [it.name for it in classes]),
        ("group", [it.name for it in groups]),
        ("account", [it.name for it in wanted]),
    ):
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{kind} {name!r}: a name is a small letter, then small letters, digits, - and _")
            if names.count(name) > 1:
                raise ValueError(f"{kind} {name} is there twice")
    for account in wanted:
        if not all(_FIELD.fullmatch(text) for text in (account.comment, account.home or "", account.shell)):
            raise ValueError(f"account {account.name}: no colon, backslash or end of line fits into master.passwd")
        if account.password is not None and not _HASH.fullmatch(account.password):
            raise ValueError(f"account {account.name}: its password is no hash as encrypt(1) makes it")
        if any("\n" in key for key in account.authorized_keys or ()):
            raise ValueError(f"account {account.name}: a key is one line")


def _class_state(wanted: LoginClass) -> FileState:
    return FileState("root", "wheel", 0o644, hashlib.sha256(class_text(wanted).encode()).hexdigest())


def _class(wanted: LoginClass) -> Step:
    path = f"{CLASSES}/{wanted.name}"
    command = f"mkdir -p {CLASSES} && {written(path, 'root:wheel', 0o644, class_text(wanted))}"
    return Step(f"login class {wanted.name}", "written", command, stdin=class_text(wanted))


def written(path: str, owner: str, mode: int, text: str) -> str:
    """Return a command that puts its standard input whole into the file `path`, or leaves it as it was.

    Arguments: `path`, whose folder is there; `owner`, as chown(8) takes it, quoted for sh; `mode`; `text`, what it will
    read: of a connection that dies, the command sees only the end of its input, and the file would be cut short.
    """
    quoted = shlex.quote(path)
    return (
        f"t=$(mktemp {shlex.quote(path + '.XXXXXXXXXX')}) && "
        f'{{ {{ cat >"$t" && [ "$(sha256 -q "$t")" = {_digest(text)} ] && '
        f'chown {owner} "$t" && chmod {mode:o} "$t" && mv -f "$t" {quoted}; }} || '
        '{ rm -f "$t"; exit 1; }; }'
    )


def _refusal(account: Account, login: Login | None, groups: set[str]) -> str | None:
    # useradd makes the account without a group that there is not, and exits with 0.
    missing = sorted(set(account.groups) - groups)
    if missing and not account.removed:
        return f"there is no group {missing[0]}"
    if login is None:
        return None
    if account.uid is not None and account.uid != login.uid:
        return f"it has uid {login.uid}, wanted {account.uid}: its files would belong to nobody"
    if account.home is not None and account.home != login.home:
        return f"its home is {login.home}, wanted {account.home}: move it by hand"
    if login.directory == "link" and (account.removed or account.authorized_keys is not None):
        return f"{login.home}/.ssh is a symbolic link: it is not followed"
    return None


def _remove(account: Account, login: Login | None) -> list[Step]:
    if login is None:
        return []
    steps = []
    if not login.locked:
        steps.append(Step(account.name, "locked", f"usermod -Z {account.name}"))
    if login.keys is not None and login.keys.sha256 != _digest(""):
        steps.append(_keys(account.name, login.home, ""))
    return steps


def _make(account: Account, groups: set[str]) -> list[Step]:
    home = account.home or f"/home/{account.name}"
    words = ["useradd"]
    if home not in _NOBODYS_HOME:
        words.append("-m")
    if account.uid is not None:
        words += ["-u", str(account.uid)]
    if account.name in groups:
        # By default useradd makes the group, and fails if it is there.
        words += ["-g", account.name]
    words += ["-c", account.comment, "-d", home, "-s", account.shell, "-L", account.login_class]
    if account.groups:
        words += ["-G", ",".join(account.groups)]
    steps = [Step(account.name, "made", " ".join(shlex.quote(word) for word in (*words, account.name)))]
    if account.password is not None and account.password != NO_PASSWORD:
        steps.append(_password(account.name, account.password))
    if account.authorized_keys is not None:
        steps.append(_keys(account.name, home, _key_text(account.authorized_keys)))
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
    password = account.password or (None if account.name == "root" else NO_PASSWORD)
    if password is not None and login.password != _digest(password):
        steps.append(_password(account.name, password))
    if account.authorized_keys is not None:
        text = _key_text(account.authorized_keys)
        keys = login.keys
        right = keys is not None and (keys.owner, keys.mode, keys.sha256) == (account.name, 0o600, _digest(text))
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


def _keys(name: str, home: str, text: str) -> Step:
    folder = shlex.quote(f"{home}/.ssh")
    path = f"{home}/.ssh/authorized_keys"
    put = written(path, f'{name}:"$g"', 0o600, text)
    link = shlex.quote(f"{home}/.ssh is a symbolic link: it is not followed")
    command = (
        f"umask 077; g=$(id -g {name}) || exit 1\n"
        f"[ ! -L {folder} ] || {{ echo {link} >&2; exit 1; }}\n"
        f"[ -d {folder} ] || mkdir {folder} || exit 1\n"
        f'chown {name}:"$g" {folder} && chmod 700 {folder} && {put}'
    )
    if not text:
        return Step(name, "keys taken away", command.replace("cat >", ": >"))
    return Step(name, "keys written", command, stdin=text)


def _key_text(keys: Sequence[str]) -> str:
    return "".join(f"{key}\n" for key in keys)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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
    filled = [_filled(account, fill) for account in wanted]
    try:
        _check(classes, groups, filled)
    except ValueError as error:
        yield refuse(error)
        return
    found = read(host, Accounts, classes=[it.name for it in classes], logins=[it.name for it in wanted])
    if found is None:
        yield StringCommand("echo 'the accounts of this host could not be read' >&2; exit 1")
        return
    plan = plan_accounts(classes, groups, filled, found)
    if host.state is not None and not host.state.is_executing:
        # The packages that bring groups may be due in this very run.
        plan = Plan(plan.steps)
    yield from perform(plan)


def _filled(account: Account, fill: Callable[[str], str]) -> Account:
    keys = account.authorized_keys
    return account.model_copy(
        update={
            "password": None if account.password is None else fill(account.password),
            "authorized_keys": None if keys is None else tuple(fill(key) for key in keys),
        }
    )
