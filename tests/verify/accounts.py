"""The checks of groups and accounts, which both systems have."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from facts.linux.accounts import Login as UbuntuLogin
from facts.openbsd.accounts import Login as OpenbsdLogin
from fleet.model.secret import marks
from fleet.model.service import Account, Group
from operations.linux.accounts import NO_PASSWORD as UBUNTU_NO_PASSWORD
from operations.openbsd.accounts import NO_PASSWORD as OPENBSD_NO_PASSWORD
from tests.verify import kinds
from tests.verify.common import bind, check, digest
from tests.verify.evidence import Evidence, OpenbsdEvidence
from tests.verify.kinds import Check, Kind, Red

Login = UbuntuLogin | OpenbsdLogin

_BLOWFISH = "$2b$10$" + "." * 53
"""A password's hash that no password has, to break an account with."""


def accounts(evidence: Evidence) -> Iterator[Check]:
    """Yield the checks of every declared group and account, and that nobody comes in as root."""
    host = evidence.declared.host
    for group in evidence.declared.unix_groups:
        yield check(kinds.ACCOUNT_GROUPS, host, f"unix-group/{group.name}", bind(_group, evidence, group))
    for account in evidence.declared.accounts:
        yield from _of_account(evidence, account)
    yield check(kinds.ROOT_LOGIN, host, "account/root/closed", bind(_root, evidence))


def _of_account(evidence: Evidence, account: Account) -> Iterator[Check]:
    host, where = evidence.declared.host, f"account/{account.name}"
    known = {
        "name": account.name,
        "comment": account.comment,
        "class": account.login_class,
        "shell": account.shell,
        "groups": ",".join(account.groups),
        "keys": f"{account.home or f'/home/{account.name}'}/.ssh/authorized_keys",
        "hash": _no_password(evidence),
        "other": _BLOWFISH,
    }
    if account.removed:
        yield check(kinds.ACCOUNT_PASSWORD, host, f"{where}/removed", bind(_removed, evidence, account), **known)
        return
    parts: list[tuple[Kind, str, Callable[..., None]]] = [
        (kinds.ACCOUNT, where, _account),
        (kinds.ACCOUNT_SHELL, f"{where}/shell", _shell),
        (kinds.ACCOUNT_GROUPS, f"{where}/groups", _groups),
        (kinds.ACCOUNT_PASSWORD, f"{where}/password", _password),
    ]
    if isinstance(evidence, OpenbsdEvidence):
        parts.append((kinds.ACCOUNT_CLASS, f"{where}/class", _class))
    if account.authorized_keys is not None:
        parts.append((kinds.ACCOUNT_KEYS, f"{where}/keys", _keys))
    for kind, name, judge in parts:
        yield check(kind, host, name, bind(judge, evidence, account), **known)


def _no_password(evidence: Evidence) -> str:
    return OPENBSD_NO_PASSWORD if evidence.declared.openbsd else UBUNTU_NO_PASSWORD


def _login(evidence: Evidence, account: Account) -> Login:
    found = evidence.accounts.logins.get(account.name)
    if found is None:
        raise Red("there is no such account")
    return found


def _group(evidence: Evidence, wanted: Group) -> None:
    found = evidence.accounts.groups.get(wanted.name)
    if found is None:
        raise Red("there is no such group")
    if wanted.gid not in (None, found[0]):
        raise Red(f"it has gid {found[0]}, not {wanted.gid}")


def _account(evidence: Evidence, account: Account) -> None:
    found = _login(evidence, account)
    said = [] if account.uid in (None, found.uid) else [f"it has uid {found.uid}, not {account.uid}"]
    said += [] if account.home in (None, found.home) else [f"its home is {found.home}, not {account.home}"]
    said += [] if account.comment == found.comment else [f"its comment is {found.comment!r}, not {account.comment!r}"]
    if isinstance(found, UbuntuLogin) and found.expires:
        said.append("it expires")
    if said:
        raise Red("; ".join(said))


def _class(evidence: OpenbsdEvidence, account: Account) -> None:
    found = evidence.accounts.logins.get(account.name)
    if found is None:
        raise Red("there is no such account")
    if found.login_class != account.login_class:
        raise Red(f"it is in {found.login_class}, not in {account.login_class}")


def _shell(evidence: Evidence, account: Account) -> None:
    found = _login(evidence, account).shell
    if found != account.shell:
        raise Red(f"it is {found}, not {account.shell}")


def _groups(evidence: Evidence, account: Account) -> None:
    _login(evidence, account)
    found, wanted = evidence.accounts.secondary(account.name), frozenset(account.groups)
    said = [f"it is not in {', '.join(sorted(wanted - found))}"] if wanted - found else []
    said += [f"it is in {', '.join(sorted(found - wanted))} too"] if found - wanted else []
    if said:
        raise Red("; ".join(said))


def _password(evidence: Evidence, account: Account) -> None:
    """Judge what is to be known without the secret: nobody's password is nobody's, a person's is there."""
    found = _login(evidence, account)
    if account.password is None:
        if account.name != "root" and found.password != digest(_no_password(evidence)):
            raise Red("a password may open it, none shall")
    elif marks(account.password):
        if found.starred:
            raise Red("no password opens it, its own shall")
    elif found.password != digest(account.password):
        raise Red("its password is another one")


def _keys(evidence: Evidence, account: Account) -> None:
    login = _login(evidence, account)
    text = "".join(f"{key}\n" for key in account.authorized_keys or ())
    if login.keys is None:
        raise Red("it has no authorized_keys")
    if (login.keys.owner, login.keys.mode) != (account.name, 0o600) or login.directory != f"700 {account.name}":
        raise Red("others than itself may change or read them")
    if not marks(text) and login.keys.sha256 != digest(text):
        raise Red("other keys open it than those that are declared")


def _removed(evidence: Evidence, account: Account) -> None:
    found = evidence.accounts.logins.get(account.name)
    if found is None:
        return
    if not found.locked:
        raise Red("it is not locked")
    if found.keys is not None and found.keys.sha256 != digest(""):
        raise Red("it still has keys")


def _root(evidence: Evidence) -> None:
    said = set(evidence.root_login)
    if said != {"no"}:
        raise Red(f"sshd_config says {', '.join(sorted(said - {'no'})) or 'nothing'} of it")
    if evidence.root_keys:
        raise Red(f"{', '.join(evidence.root_keys)} has a key")
