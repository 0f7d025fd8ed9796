"""Scenarios of users, groups and login classes: user(8), login.conf(5), openbsd-contract 5.9, 6."""

from __future__ import annotations

from io import StringIO
from typing import Any

from pyinfra.operations import files, server

from fleet.model.service import Account, Group, LoginClass
from operations.openbsd.accounts import NO_PASSWORD, accounts, class_text
from tests.scenarios.scenario import Scenario, Wish

_HASH = "$2b$10$" + "a" * 53
_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGIGSwtQOKkJldj8LAMGh3I4DO65Ll5yeJjBVOR2zjBP bert"
_STRAY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFOLQtR8G2A7AjPTXktSbgecWxzKwEdbsuyy1OgNL4aG gone"
_TOTP = LoginClass(name="totp", capabilities=("auth-ssh=-totp",))


def _ours(*wanted: Account, classes: tuple[LoginClass, ...] = (), groups: tuple[Group, ...] = ()) -> tuple[Wish, ...]:
    return (Wish(accounts, {"classes": classes, "groups": groups, "wanted": wanted}),)


def _theirs(user: str, **arguments: Any) -> tuple[Wish, ...]:
    return (Wish(server.user, {"user": user, "ensure_home": False, **arguments}),)


def _made(user: str, uid: int | None = None) -> str:
    number = "" if uid is None else f"-u {uid} "
    return f"useradd -m {number}-c {user.capitalize()} -p '{NO_PASSWORD}' {user}"


def _row(user: str) -> str:
    return f"awk -F: '$1 == \"{user}\"' /etc/master.passwd"


SCENARIOS = (
    Scenario(
        name="user-with-uid",
        wanted="a new user with a number of his own",
        ours=_ours(Account(name="anna", uid=1400, comment="Anna")),
        theirs=_theirs("anna", uid=1400, comment="Anna", shell="/bin/ksh", create_home=True),
        shows="id anna; ls -d /home/anna",
        right="uid=1400(anna) gid=1400(anna) groups=1400(anna)\n/home/anna",
    ),
    Scenario(
        name="user-with-groups-and-password",
        wanted="a new user in wheel, with a password",
        ours=_ours(Account(name="bert", comment="Bert", groups=("wheel",), password=_HASH)),
        theirs=_theirs("bert", comment="Bert", shell="/bin/ksh", groups=["wheel"], password=_HASH, create_home=True),
        shows=f"id -Gn bert; {_row('bert')} | cut -d : -f 2",
        right=f"bert wheel\n{_HASH}",
    ),
    Scenario(
        name="user-groups-exactly",
        wanted="a user of wheel in wsrc, and only there",
        before=_made("carl") + "; usermod -G wheel carl",
        ours=_ours(Account(name="carl", comment="Carl", groups=("wsrc",))),
        theirs=_theirs("carl", groups=["wsrc"]),
        shows="id -Gn carl",
        right="carl wsrc",
    ),
    Scenario(
        name="user-login-class",
        wanted="a user in the login class staff",
        before=_made("dora"),
        ours=_ours(Account(name="dora", comment="Dora", login_class="staff")),
        theirs=_theirs("dora", comment="Dora"),
        shows=_row("dora") + " | cut -d : -f 5",
        right="staff",
    ),
    Scenario(
        name="login-class-and-its-database",
        wanted="a new login class where the classes have a database",
        before="cap_mkdb /etc/login.conf",
        ours=_ours(classes=(_TOTP,)),
        theirs=(
            Wish(
                files.put,
                {"src": StringIO(class_text(_TOTP)), "dest": "/etc/login.conf.d/totp", "user": "root", "mode": "644"},
            ),
        ),
        shows="sed 1q /etc/login.conf.d/totp; find /etc/login.conf.d -newer /etc/login.conf.db",
        right="totp:\\",
    ),
    Scenario(
        name="user-removed",
        wanted="a user who left: nobody comes in, his files stay his",
        before=_made("emil") + f"; mkdir -m 700 /home/emil/.ssh; echo '{_KEY}' >/home/emil/.ssh/authorized_keys; "
        "chown -R emil:emil /home/emil/.ssh",
        ours=_ours(Account(name="emil", removed=True)),
        theirs=_theirs("emil", present=False),
        shows="ls -ld /home/emil | awk '{ print $3 }'; cat /home/emil/.ssh/authorized_keys; "
        f"{_row('emil')} | cut -d : -f 10",
        right="emil\n/bin/ksh-",
    ),
    Scenario(
        name="user-keys-exactly",
        wanted="one key, and the stray one gone",
        before=_made("fay") + f"; mkdir -m 700 /home/fay/.ssh; echo '{_STRAY}' >/home/fay/.ssh/authorized_keys; "
        "chown -R fay:fay /home/fay/.ssh",
        ours=_ours(Account(name="fay", comment="Fay", authorized_keys=(_KEY,))),
        theirs=(Wish(server.user_authorized_keys, {"user": "fay", "public_keys": [_KEY], "delete_keys": True}),),
        shows="cat /home/fay/.ssh/authorized_keys; stat -f '%Su %OLp' /home/fay/.ssh/authorized_keys",
        right=f"{_KEY}\nfay 600",
    ),
    Scenario(
        name="user-with-another-uid",
        wanted="another number for a user who has files: to be refused",
        before=_made("gus", uid=1500),
        ours=_ours(Account(name="gus", uid=1600, comment="Gus")),
        theirs=_theirs("gus", uid=1600),
        shows="id -u gus",
        right="1500",
        fails="it has uid 1500, wanted 1600",
    ),
    Scenario(
        name="user-in-no-such-group",
        wanted="a new user in a group that there is not: to be refused",
        ours=_ours(Account(name="hal", comment="Hal", groups=("nosuch",))),
        theirs=_theirs("hal", comment="Hal", groups=["nosuch"]),
        shows="id -u hal || echo nobody",
        right="nobody",
        fails="there is no group nosuch",
    ),
    Scenario(
        name="group-with-gid",
        wanted="a new group with a number of its own",
        ours=_ours(groups=(Group(name="git", gid=2000),)),
        theirs=(Wish(server.group, {"group": "git", "gid": 2000}),),
        shows="grep git: /etc/group",
        right="git:*:2000:",
    ),
)
