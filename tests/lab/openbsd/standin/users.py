"""user(8), group(8) and pwd_mkdb(8): contract 6 and 6.1, `usr.sbin/user/user.c`.

`/etc/master.passwd` is the file that is edited. What getpwnam(3) answers is the state of the last pwd_mkdb, kept as
text in `/etc/spwd.db` and `/etc/pwd.db`; from it come `/etc/passwd` and, for Debian's sshd and PAM alone,
`/etc/shadow`.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import login_conf
from .place import root
from .program import fail, options, own, privileged, warn
from .program import replace as write_file
from .unmodelled import unmodelled

NOT_MODELLED = (
    "chpass(1), vipw(8), passwd(1), adduser(8), rmuser(8)",
    "useradd, usermod: -e and -f with other times than seconds since 1970, `Month DD YYYY` or ctime's form",
    "userdel -r of a home that is not a directory of the user alone",
    "pwd_mkdb: -c -d -s -u, and a malformed line of master.passwd",
    "master.passwd: `change` in the past (Debian's PAM is not told), YP lines that begin with +",
)

MASTER = "/etc/master.passwd"
PASSWD = "/etc/passwd"
DATABASE = "/etc/spwd.db"
PUBLIC = "/etc/pwd.db"
SHADOW = "/etc/shadow"
GROUP = "/etc/group"
DEFAULTS = "/etc/usermgmt.conf"

NO_PASSWORD = "*" * 13
_SHADOW_GID = 42
_NOBODY = 32767
_NAME_MAX = 31
_DAY = 86400

_USAGE = {
    "useradd": "usage: useradd -D [-b base-directory] [-e expiry-time] [-f inactive-time]\n"
    "               [-g gid | name | =uid] [-k skel-directory] [-L login-class]\n"
    "               [-r low..high] [-s shell]\n"
    "       useradd [-mov] [-b base-directory] [-c comment] [-d home-directory]\n"
    "               [-e expiry-time] [-f inactive-time]\n"
    "               [-G secondary-group[,group,...]] [-g gid | name | =uid]\n"
    "               [-k skel-directory] [-L login-class] [-p password] [-r low..high]\n"
    "               [-s shell] [-u uid] user\n",
    "usermod": "usage: usermod [-moUvZ] [-c comment] [-d home-directory] [-e expiry-time]\n"
    "               [-f inactive-time] [-G secondary-group[,group,...]]\n"
    "               [-g gid | name | =uid] [-L login-class] [-l new-login]\n"
    "               [-p password] [-S secondary-group[,group,...]]\n"
    "               [-s shell] [-u uid] user\n",
    "userdel": "usage: userdel -D [-p preserve-value]\n       userdel [-rv] [-p preserve-value] user\n",
    "userinfo": "usage: userinfo [-e] user\n",
    "groupadd": "usage: groupadd [-ov] [-g gid] group\n",
    "groupdel": "usage: groupdel [-v] group\n",
    "groupmod": "usage: groupmod [-ov] [-g gid] [-n newname] group\n",
    "groupinfo": "usage: groupinfo [-e] group\n",
    "user": "usage: user [add | del | mod | info] ...\n",
    "group": "usage: group [add | del | mod | info] ...\n",
}


@dataclass(frozen=True)
class Account:
    """A line of master.passwd; passwd(5).

    Args:
        name: the login name.
        password: the encrypted password, or what cannot be one.
        uid: the user's number.
        gid: the primary group's number.
        login_class: the login class; empty is the default class.
        change: when the password must be changed, in seconds since 1970; 0 is never.
        expire: when the account ends, in seconds since 1970; 0 is never.
        gecos: the full name and more.
        home: the home directory.
        shell: the login shell.
    """

    name: str
    password: str
    uid: int
    gid: int
    login_class: str
    change: int
    expire: int
    gecos: str
    home: str
    shell: str

    def line(self) -> str:
        """Return the line of master.passwd, with its newline."""
        fields = (self.name, self.password, self.uid, self.gid, self.login_class, self.change, self.expire)
        return ":".join(map(str, (*fields, self.gecos, self.home, self.shell))) + "\n"


@dataclass(frozen=True)
class Group:
    """A line of group(5).

    Args:
        name: the group's name.
        password: as it stands in the file.
        gid: the group's number.
        members: the login names in it.
    """

    name: str
    password: str
    gid: int
    members: tuple[str, ...]

    def line(self) -> str:
        """Return the line of the file, with its newline."""
        return f"{self.name}:{self.password}:{self.gid}:{','.join(self.members)}\n"


class FormatError(ValueError):
    """A line that is none of the file's; the message names it."""


def _lines(path: str) -> list[str]:
    place = root(path)
    return place.read_text().splitlines() if place.exists() else []


def _accounts(path: str) -> list[Account]:
    found = []
    for number, line in enumerate(_lines(path), 1):
        fields = line.split(":")
        if len(fields) != 10 or not all(fields[n].isdigit() for n in (2, 3, 5, 6)):
            raise FormatError(f"{path}:{number}: {line!r}")
        name, password, uid, gid, login_class, change, expire, gecos, home, shell = fields
        numbers = int(uid), int(gid), login_class, int(change), int(expire)
        found.append(Account(name, password, *numbers, gecos, home, shell))
    return found


def accounts() -> list[Account]:
    """Return the accounts as getpwent(3) has them: without their passwords for everybody but root.

    Raises:
        FormatError: a malformed line.
    """
    for path in (DATABASE, PUBLIC):
        if os.access(root(path), os.R_OK):
            return _accounts(path)
    return _accounts(MASTER)


def groups() -> list[Group]:
    """Return the groups as getgrent(3) has them.

    Raises:
        FormatError: a malformed line.
    """
    found = []
    for number, line in enumerate(_lines(GROUP), 1):
        fields = line.split(":")
        if len(fields) != 4 or not fields[2].isdigit():
            raise FormatError(f"{GROUP}:{number}: {line!r}")
        members = tuple(member for member in fields[3].split(",") if member)
        found.append(Group(fields[0], fields[1], int(fields[2]), members))
    return found


def account(name: str) -> Account | None:
    """Return the account of a name as getpwnam(3) does; `None` if there is none.

    Args:
        name: the login name.
    """
    return next((found for found in accounts() if found.name == name), None)


def _shadow(found: Account) -> str:
    # shadow(5) counts in days; an account without an end has an empty field.
    expire = str(-(-found.expire // _DAY)) if found.expire else ""
    return f"{found.name}:{found.password}::::::{expire}:\n"


def write(wanted: Iterable[Account], members: Iterable[Group] | None = None) -> None:
    """Write the accounts, and everything that is derived from them, as `pwd_mkdb -p` does.

    Args:
        wanted: all accounts, in the file's order.
        members: all groups; `None` leaves the file alone.
    """
    everyone = list(wanted)
    if members is not None:
        write_file(GROUP, "".join(group.line() for group in members), 0o644)
    text = "".join(found.line() for found in everyone)
    write_file(MASTER, text, 0o600)
    # OpenBSD has a * there; Debian's PAM reads the shadow only of accounts with an x.
    lines = (f"{a.name}:x:{a.uid}:{a.gid}:{a.gecos}:{a.home}:{a.shell}\n" for a in everyone)
    write_file(PASSWD, "".join(lines), 0o644)
    write_file(SHADOW, "".join(_shadow(found) for found in everyone), 0o600, gid=_SHADOW_GID)
    write_file(PUBLIC, "".join(replace(found, password="*").line() for found in everyone), 0o644)
    write_file(DATABASE, text, 0o600)


def _defaults() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {
        "group": ["=uid"],
        "base_dir": ["/home"],
        "skel_dir": ["/etc/skel"],
        "shell": ["/bin/ksh"],
        "class": [""],
        "inactive": ["Null (unset)"],
        "expire": ["Null (unset)"],
        "preserve": ["false"],
        "range": [],
    }
    for line in _lines(DEFAULTS):
        match = re.match(r"(group|base_dir|skel_dir|shell|class|inactive|expire|preserve|range)\s*(.*)", line)
        if match and match[1] == "range":
            found["range"].append(match[2])
        elif match:
            found[match[1]] = [match[2]]
    found["range"] = found["range"] or ["1000..60000"]
    return found


def _defaults_text(found: dict[str, list[str]], names: Iterable[str]) -> str:
    tabs = {name: "\t" if len(name) >= 8 else "\t\t" for name in found} | {"inactive": "\t", "preserve": "\t"}
    return "".join(f"{name}{tabs[name]}{value}\n" for name in names for value in found[name])


def _write_defaults(found: dict[str, list[str]]) -> None:
    write_file(DEFAULTS, _defaults_text(found, found), 0o644)


def _need_root(name: str) -> None:
    if not privileged():
        fail(name, "Program must be run as root")


def _valid(name: str, *, login: bool) -> bool:
    pattern = r"(?!-)[A-Za-z0-9._-]*\$?" if login else r"[A-Za-z0-9._-]*"
    return re.fullmatch(pattern, name) is not None and len(name) <= _NAME_MAX


def _hash_is_valid(text: str) -> bool:
    if text.startswith("$2"):
        return text.count("$") >= 3 and len(text.split("$", 3)[3]) > 0
    return len(text) == (34 if text.startswith("$1") else 13)


def _seconds(program: str, argv: Sequence[str], text: str) -> int:
    if text in {"", "Null (unset)"}:
        return 0
    for form in ("%c", "%B %d %Y"):
        try:
            return int(time.mktime(time.strptime(text, form)))
        except ValueError:
            continue
    if not text.isdigit():
        unmodelled(program, argv, f"time {text!r}")
    return int(text)


def _gid(program: str, wanted: str, uid: int, known: Sequence[Group]) -> int:
    if wanted == "=uid":
        if any(group.gid == uid for group in known):
            fail(program, f"gid {uid} is already in use")
        return uid
    for group in known:
        if group.name == wanted:
            return group.gid
    if wanted.isdigit() and any(group.gid == int(wanted) for group in known):
        return int(wanted)
    return fail(program, f"group {wanted} not found")


def _append(program: str, user: str, primary: int | None, wanted: Sequence[str], known: list[Group]) -> list[Group]:
    names = {group.name for group in known}
    for name in wanted:
        if name not in names:
            warn(program, f"can't append group `{name}' for user `{user}'")
    return [
        replace(group, members=(*group.members, user))
        if group.name in wanted and user not in group.members and group.gid != primary
        else group
        for group in known
    ]


def _free_uid(ranges: Sequence[str], *, same_gid: bool, known: Sequence[Group]) -> int | None:
    taken = {found.uid for found in accounts()} | {_NOBODY}
    if same_gid:
        taken |= {group.gid for group in known}
    for text in ranges:
        low, high = map(int, text.split(".."))
        for uid in range(low, high + 1):
            if uid not in taken:
                return uid
    return None


def _make_home(program: str, home: str, skeleton: str, uid: int, gid: int) -> None:
    place = root(home)
    place.mkdir(parents=True, mode=0o755)
    source = root(skeleton)
    if not source.is_dir():
        warn(program, f"can't open source . files dir `{skeleton}': No such file or directory")
        return
    if not any(source.iterdir()):
        warn(program, 'No "dot" initialisation files found')
    shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
    for path in (place, *place.rglob("*")):
        own(path, uid, gid)
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o200)


def _one(program: str, operands: Sequence[str]) -> str:
    if len(operands) != 1:
        sys.stderr.write(_USAGE[program])
        raise SystemExit(1)
    return operands[0]


_DEFAULT_FLAGS = {
    "-b": "base_dir",
    "-e": "expire",
    "-f": "inactive",
    "-g": "group",
    "-k": "skel_dir",
    "-L": "class",
    "-s": "shell",
}


def _wanted_defaults(flags: Sequence[tuple[str, str]]) -> tuple[dict[str, list[str]], list[str]]:
    found = _defaults()
    ranges = []
    for flag, value in flags:
        if flag in _DEFAULT_FLAGS:
            found[_DEFAULT_FLAGS[flag]] = [value]
        elif flag == "-r" and re.fullmatch(r"\d+\.\.\d+", value):
            ranges.append(value)
        elif flag == "-r":
            warn("useradd", f"Bad range `{value}'")
    return found, ranges


def _show_or_set_defaults(found: dict[str, list[str]], ranges: list[str], flags: Iterable[str]) -> None:
    if any(flag in _DEFAULT_FLAGS or flag == "-r" for flag in flags):
        _need_root("useradd")
        _write_defaults({**found, "range": ranges or found["range"]})
    else:
        sys.stdout.write(_defaults_text(found, [name for name in found if name != "preserve"]))


def _new_uid(argv: Sequence[str], given: dict[str, str], ranges: Sequence[str], *, same_gid: bool) -> int:
    if "-u" in given:
        if not given["-u"].isdigit():
            fail("useradd", "When using [-u uid], the uid must be numeric")
        uid = int(given["-u"])
    else:
        free = _free_uid(ranges, same_gid=same_gid, known=groups())
        if free is None:
            unmodelled("useradd", argv, "no uid is free")
        uid = free
    if "-o" not in given and any(other.uid == uid for other in accounts()):
        fail("useradd", f"uid {uid} is already in use")
    return uid


def _new_password(given: dict[str, str]) -> str:
    password = given.get("-p", NO_PASSWORD)
    if _hash_is_valid(password):
        return password
    warn("useradd", f"Password `{password}' is invalid: setting it to `{NO_PASSWORD}'")
    return NO_PASSWORD


def useradd(argv: Sequence[str]) -> int:
    """Run useradd(8).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    program = "useradd"
    flags, operands = options(program, argv, "DG:L:b:c:d:e:f:g:k:mop:r:s:u:v", _USAGE[program])
    given = dict(flags)
    secondary = [name for flag, value in flags if flag == "-G" for name in value.split(",") if name]
    found, ranges = _wanted_defaults(flags)
    if "-D" in given:
        _show_or_set_defaults(found, ranges, given)
        return 0
    name = _one(program, operands)
    _need_root(program)
    login_class, primary, shell = found["class"][0], found["group"][0], found["shell"][0]
    if not _valid(name, login=True):
        fail(program, f"`{name}' is not a valid login name")
    if not login_conf.exists(login_class):
        fail(program, f"No such login class `{login_class}'")
    known = groups()
    uid = _new_uid(argv, given, ranges + found["range"], same_gid=primary == "=uid")
    gid = _gid(program, primary, uid, known)
    if "-o" not in given and account(name) is not None:
        fail(program, f"already a `{name}' user")
    home = given.get("-d", f"{found['base_dir'][0]}/{name}")
    change = _seconds(program, argv, found["inactive"][0])
    expire = _seconds(program, argv, found["expire"][0])
    there = root(home).exists() or root(home).is_symlink()
    if not there and "-m" not in given and home != "/nonexistent":
        warn(program, f"Warning: home directory `{home}' doesn't exist, and -m was not specified")
    password = _new_password(given)
    new = Account(name, password, uid, gid, login_class, change, expire, given.get("-c", ""), home, shell)
    if "-m" in given:
        if there:
            fail(program, f"home directory `{home}' already exists")
        _make_home(program, home, found["skel_dir"][0], uid, gid)
    if primary == "=uid" and not any(group.name == name for group in known):
        known.append(Group(name, "*", gid, ()))
    # getpwnam(3) does not know the new user yet, so a primary group that is named is appended too.
    write([*_accounts(MASTER), new], _append(program, name, None, secondary, known))
    return 0


def _locked(program: str, found: Account) -> Account:
    done = 0
    shell, password = found.shell, found.password
    if shell.endswith("-"):
        done += 1
    else:
        shell += "-"
    if password.startswith("*"):
        done += 1
    else:
        password = f"*{password}"
    if done > 1:
        warn(program, f"account `{found.name}' is already locked")
    return replace(found, shell=shell, password=password)


def _unlocked(program: str, found: Account) -> Account:
    done = 0
    shell, password = found.shell, found.password
    if password in {"*", NO_PASSWORD}:
        warn(program, f"account `{found.name}' has no password: cannot fully unlock")
    elif password.startswith("*"):
        password = password[1:]
    else:
        done += 1
    if shell.endswith("-"):
        shell = shell[:-1]
    else:
        done += 1
    if done > 1:
        warn(program, f"account `{found.name}' is not locked")
    return replace(found, shell=shell, password=password)


def _check_usermod(given: dict[str, str]) -> None:
    program = "usermod"
    if "-m" in given and "-d" not in given and "-l" not in given:
        warn(program, "option 'm' useless without 'd' or 'l' -- ignored")
        del given["-m"]
    if "-G" in given and "-S" in given:
        fail(program, "options 'G' and 'S' are mutually exclusive")
    if "-Z" in given and "-U" in given:
        fail(program, "options 'U' and 'Z' are mutually exclusive")
    if "-p" in given and ("-Z" in given or "-U" in given):
        fail(program, "options 'U' or 'Z' with 'p' are mutually exclusive")
    if "-u" in given and not given["-u"].isdigit():
        fail(program, "When using [-u uid], the uid must be numeric")


def _changed_login(argv: Sequence[str], given: dict[str, str], found: Account) -> Account:
    program = "usermod"
    changed = found
    if "-l" in given:
        if given["-l"] != found.name and account(given["-l"]) is not None:
            fail(program, f"already a `{given['-l']}' user")
        changed = replace(changed, name=given["-l"])
        if "-m" in given:
            changed = replace(changed, home=f"{_defaults()['base_dir'][0]}/{given['-l']}")
    if "-p" in given:
        if not _hash_is_valid(given["-p"]):
            fail(program, f"Invalid password: `{given['-p']}'")
        changed = replace(changed, password=given["-p"])
    if "-Z" in given:
        changed = _locked(program, changed)
    if "-U" in given:
        changed = _unlocked(program, changed)
    if "-f" in given:
        changed = replace(changed, change=_seconds(program, argv, given["-f"]))
    if "-e" in given:
        changed = replace(changed, expire=_seconds(program, argv, given["-e"]))
    return changed


def _changed_numbers(given: dict[str, str], found: Account, known: Sequence[Group]) -> Account:
    program = "usermod"
    changed = found
    if "-u" in given:
        if "-o" not in given and any(other.uid == int(given["-u"]) for other in accounts()):
            fail(program, f"uid {given['-u']} is already in use")
        changed = replace(changed, uid=int(given["-u"]))
    if "-g" in given:
        changed = replace(changed, gid=_gid(program, given["-g"], changed.uid, known))
    return changed


def usermod(argv: Sequence[str]) -> int:
    """Run usermod(8).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    program = "usermod"
    flags, operands = options(program, argv, "G:L:S:UZc:d:e:f:g:l:mop:s:u:v", _USAGE[program])
    given = dict(flags)
    wanted = [name for flag, value in flags if flag in {"-G", "-S"} for name in value.split(",") if name]
    _check_usermod(given)
    name = _one(program, operands)
    _need_root(program)
    new_name = given.get("-l", name)
    if not _valid(new_name, login=True):
        fail(program, f"`{name}' is not a valid login name")
    found = account(name)
    if found is None:
        fail(program, f"No such user `{name}'")
    if ("-Z" in given or "-U" in given) and found.uid < 1000:
        fail(program, f"(un)locking is not supported for the `{name}' account")
    known = groups()
    changed = _changed_login(argv, given, found)
    changed = _changed_numbers(given, changed, known)
    changed = replace(
        changed,
        gecos=given.get("-c", changed.gecos),
        home=given.get("-d", changed.home),
        shell=given.get("-s", changed.shell),
    )
    if "-L" in given:
        if not login_conf.exists(given["-L"]):
            fail(program, f"No such login class `{given['-L']}'")
        changed = replace(changed, login_class=given["-L"])
    if "-m" in given:
        shutil.move(root(found.home), root(changed.home))
    if "-S" in given:
        for group_name in wanted:
            if not any(group.name == group_name for group in known):
                fail(program, f"aborting, group `{group_name}' does not exist")
        known = [replace(group, members=tuple(m for m in group.members if m != new_name)) for group in known]
    # A renamed user is not known to getpwnam(3) under the new name, hence has no primary group to leave out.
    primary = found.gid if new_name == name else None
    known = _append(program, new_name, primary, wanted, known) if wanted else known
    write([changed if other.name == name else other for other in _accounts(MASTER)], known)
    return 0


def _remove_home(program: str, found: Account) -> None:
    if found.uid == 0:
        warn(program, f"Not deleting home directory `{found.home}'; userid is 0")
        return
    place = root(found.home)
    if not place.exists():
        warn(program, f"Home directory `{found.home}' doesn't exist")
    elif not place.is_dir():
        warn(program, f"Home directory `{found.home}' is not a directory")
    elif place.stat().st_uid != found.uid:
        warn(program, f"User `{found.name}' doesn't own directory `{found.home}', not removed")
    elif any(path.lstat().st_uid != found.uid for path in place.rglob("*")):
        unmodelled(program, ["-r", found.name], "files of others in the home directory")
    else:
        shutil.rmtree(place)


def userdel(argv: Sequence[str]) -> int:
    """Run userdel(8).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    program = "userdel"
    flags, operands = options(program, argv, "Dp:rv", _USAGE[program])
    given = dict(flags)
    found = _defaults()
    if "-p" in given:
        found["preserve"] = ["true" if given["-p"] in {"true", "yes", "1"} else "false"]
    if "-D" in given:
        if "-p" in given:
            _need_root(program)
            _write_defaults(found)
        else:
            sys.stdout.write(_defaults_text(found, ["preserve"]))
        return 0
    name = _one(program, operands)
    _need_root(program)
    present = account(name)
    if present is None:
        fail(program, f"No such user `{name}'")
    if "-r" in given:
        _remove_home(program, present)
    if found["preserve"] == ["true"]:
        kept = replace(present, password=NO_PASSWORD, shell="/sbin/nologin")
        write([kept if other.name == name else other for other in _accounts(MASTER)])
        return 0
    left = [replace(group, members=tuple(m for m in group.members if m != name)) for group in groups()]
    write([other for other in _accounts(MASTER) if other.name != name], left)
    return 0


def _when(seconds: int) -> str:
    return time.ctime(seconds) if seconds else "NEVER"


def userinfo(argv: Sequence[str]) -> int:
    """Run userinfo(8).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    program = "userinfo"
    flags, operands = options(program, argv, "ev", _USAGE[program])
    name = _one(program, operands)
    found = account(name)
    if found is None and name.isdigit():
        found = next((other for other in accounts() if other.uid == int(name)), None)
    if ("-e", "") in flags:
        return 0 if found else 1
    if found is None:
        fail(program, f"can't find user `{name}'")
    known = groups()
    primary = next((group.name for group in known if group.gid == found.gid), str(found.gid))
    others = [group.name for group in known if found.name in group.members and group.gid != found.gid]
    rows = (
        ("login", found.name),
        ("passwd", found.password if privileged() else "*"),
        ("uid", found.uid),
        ("groups", " ".join((primary, *others))),
        ("change", _when(found.change)),
        ("class", found.login_class),
        ("gecos", found.gecos),
        ("dir", found.home),
        ("shell", found.shell),
        ("expire", _when(found.expire)),
    )
    sys.stdout.write("".join(f"{label}\t{value}\n" for label, value in rows))
    return 0


def groupadd(argv: Sequence[str]) -> int:
    """Run groupadd(8).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    program = "groupadd"
    flags, operands = options(program, argv, "g:ov", _USAGE[program])
    given = dict(flags)
    if "-g" in given and not given["-g"].isdigit():
        fail(program, "When using [-g gid], the gid must be numeric")
    name = _one(program, operands)
    _need_root(program)
    if not _valid(name, login=False):
        fail(program, f"invalid group name `{name}'")
    known = groups()
    taken = {group.gid for group in known}
    gid = int(given["-g"]) if "-g" in given else next((n for n in range(1000, 60000) if n not in taken), None)
    if gid is None:
        fail(program, "can't add group: can't get next gid")
    if "-o" not in given and gid in taken:
        fail(program, f"can't add group: gid {gid} is a duplicate")
    if any(group.name == name for group in known):
        warn(program, f"group `{name}' already exists")
        fail(program, f"can't add group: problems with {GROUP} file")
    write_file(GROUP, "".join(group.line() for group in (*known, Group(name, "*", gid, ()))), 0o644)
    return 0


def groupdel(argv: Sequence[str]) -> int:
    """Run groupdel(8).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    program = "groupdel"
    _, operands = options(program, argv, "v", _USAGE[program])
    name = _one(program, operands)
    _need_root(program)
    known = groups()
    if not any(group.name == name for group in known):
        fail(program, f"No such group: `{name}'")
    write_file(GROUP, "".join(group.line() for group in known if group.name != name), 0o644)
    return 0


def groupmod(argv: Sequence[str]) -> int:
    """Run groupmod(8).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    program = "groupmod"
    flags, operands = options(program, argv, "g:n:ov", _USAGE[program])
    given = dict(flags)
    if "-g" in given and not given["-g"].isdigit():
        fail(program, "When using [-g gid], the gid must be numeric")
    name = _one(program, operands)
    _need_root(program)
    if "-g" not in given and "-n" not in given:
        fail(program, "Nothing to change")
    if "-o" in given and "-g" not in given:
        fail(program, "Duplicate which gid?")
    known = groups()
    found = next((group for group in known if group.name == name), None)
    if found is None:
        fail(program, f"can't find group `{name}' to modify")
    new_name = given.get("-n", name)
    if not _valid(new_name, login=False):
        fail(program, f"invalid group name `{new_name}'")
    changed = replace(found, name=new_name, gid=int(given.get("-g", found.gid)))
    write_file(GROUP, "".join((changed if group is found else group).line() for group in known), 0o644)
    return 0


def groupinfo(argv: Sequence[str]) -> int:
    """Run groupinfo(8).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    program = "groupinfo"
    flags, operands = options(program, argv, "ev", _USAGE[program])
    name = _one(program, operands)
    known = groups()
    found = next((group for group in known if group.name == name), None)
    if found is None and name.isdigit():
        found = next((group for group in known if group.gid == int(name)), None)
    if ("-e", "") in flags:
        return 0 if found else 1
    if found is None:
        fail(program, f"can't find group `{name}'")
    members = "".join(f"{member} " for member in found.members)
    sys.stdout.write(f"name\t{found.name}\npasswd\t{found.password}\ngid\t{found.gid}\nmembers\t{members}\n")
    return 0


def pwd_mkdb(argv: Sequence[str]) -> int:
    """Run pwd_mkdb(8).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    program = "pwd_mkdb"
    usage = "usage: pwd_mkdb [-c] [-p | -s] [-d directory] [-u username] file\n"
    flags, operands = options(program, argv, "cd:psu:", usage)
    if len(operands) != 1:
        sys.stderr.write(usage)
        return 1
    if any(flag != "-p" for flag, _ in flags):
        unmodelled(program, argv, "only -p")
    if not privileged():
        unmodelled(program, argv, "not as root")
    file = operands[0]
    if not root(file).exists() or not file.startswith("/"):
        unmodelled(program, argv, "no file with its whole path")
    try:
        wanted = _accounts(file)
    except FormatError as error:
        unmodelled(program, argv, f"a malformed line, {error}")
    write(wanted)
    if file != MASTER:
        root(file).unlink()
    return 0


COMMANDS = {
    "useradd": useradd,
    "usermod": usermod,
    "userdel": userdel,
    "userinfo": userinfo,
    "groupadd": groupadd,
    "groupdel": groupdel,
    "groupmod": groupmod,
    "groupinfo": groupinfo,
    "pwd_mkdb": pwd_mkdb,
}
"""The commands of this module by their names."""


def run(name: str, argv: Sequence[str]) -> int:
    """Run one of the commands, also as `user add` or `group info`.

    Args:
        name: the command's name.
        argv: its arguments.

    Returns:
        The exit code.
    """
    if name in {"user", "group"}:
        if not argv or f"{name}{argv[0]}" not in COMMANDS:
            sys.stderr.write(_USAGE[name])
            return 1
        name, argv = f"{name}{argv[0]}", argv[1:]
    os.umask(0o022)
    try:
        return COMMANDS[name](argv)
    except (FormatError, login_conf.FormatError) as error:
        unmodelled(name, argv, str(error))


def main(argv: Sequence[str]) -> int:
    """Run the command whose name the program was started under.

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    return run(Path(sys.argv[0]).name, argv)
