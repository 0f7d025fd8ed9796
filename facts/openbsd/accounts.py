"""Login classes, groups and accounts of an OpenBSD host; login.conf(5), group(5), master.passwd(5), contract 5.9, 6."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from pyinfra.api import FactBase, FactProcessError

from facts.filesets import FileState

DONE = "##ACCOUNTS##"

CLASSES = "/etc/login.conf.d"


@dataclass(frozen=True)
class Login:
    """An account as it is.

    `password` is the SHA-256, in hexadecimal, of the password field, never the field; `starred` is true if the field
    begins with an asterisk, so that no password fits.
    `access` is mode and owner of its home, None where it has none. `directory` is mode and owner of ~/.ssh, or
    ``link``; None where it is not there. `keys` is ~/.ssh/authorized_keys.
    """

    uid: int
    login_class: str
    comment: str
    home: str
    shell: str
    starred: bool
    password: str = ""
    directory: str | None = None
    keys: FileState | None = None
    access: str | None = None

    @property
    def locked(self) -> bool:
        """True after ``usermod -Z``: no password fits, and a hyphen behind the shell makes it no shell."""
        return self.starred and self.shell.endswith("-")


@dataclass(frozen=True)
class AccountsState:
    """`classes`, the files of login.conf.d by class; `groups`, gid and members by name; `logins` by name.

    `database` is None without /etc/login.conf.db, else whether it is newer than all that it is made of.
    """

    classes: dict[str, FileState] = field(default_factory=dict)
    groups: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    logins: dict[str, Login] = field(default_factory=dict)
    database: bool | None = None

    def secondary(self, name: str) -> frozenset[str]:
        """Return the groups that list account `name` as a member."""
        return frozenset(group for group, (_, members) in self.groups.items() if name in members)


# A function called login would be ksh's alias of it.
_SCRIPT = r"""f() {
	[ ! -f "$3" ] || printf '%s %s %s %s\n' "$1" "$2" "$(stat -f '%Su %Sg %Lp' "$3")" "$(sha256 -q "$3")"
}
account() {
	printf 'password %s ' "$1"
	awk -F: -v u="$1" '$1 == u { printf "%s", $2 }' /etc/master.passwd | sha256 -q
	h=$(awk -F: -v u="$1" '$1 == u { print $9 }' /etc/master.passwd)
	[ -n "$h" ] || return 0
	[ ! -d "$h" ] || printf 'home %s %s\n' "$1" "$(stat -f '%Lp %Su' "$h")"
	if [ -L "$h/.ssh" ]; then
		echo "directory $1 link"
	elif [ -d "$h/.ssh" ]; then
		printf 'directory %s %s\n' "$1" "$(stat -f '%Lp %Su' "$h/.ssh")"
	fi
	f keys "$1" "$h/.ssh/authorized_keys"
}
if [ -e /etc/login.conf.db ]; then
	[ -n "$(find /etc/login.conf /etc/login.conf.d -type f -newer /etc/login.conf.db 2>/dev/null)" ] &&
		echo database old || echo database new
fi
awk -F: '{ print "group:" $1 ":" $3 ":" $4 }' /etc/group
"""


class Accounts(FactBase[AccountsState | None]):
    """Login classes `classes`, all groups, and the accounts `logins`; None if unknown (F2). Needs root.

    One pass over master.passwd, whose second field never leaves the host (DESIGN O5). Raises FactProcessError naming
    a line that is not understood.
    """

    @staticmethod
    def default() -> None:
        """Return None: not known."""
        return

    def command(self, classes: Sequence[str], logins: Sequence[str]) -> str:
        """Return one command that reads the files."""
        lines = [f"f class {shlex.quote(name)} {shlex.quote(f'{CLASSES}/{name}')}" for name in classes]
        lines.append(
            f"awk -F: -v names={shlex.quote(' '.join(logins))} "
            '\'BEGIN { n = split(names, a, " "); for (i = 1; i <= n; i++) want[a[i]] = 1 } '
            '$1 in want { print "login:" $1 ":" $3 ":" $5 ":" $8 ":" $9 ":" $10 ":" (substr($2, 1, 1) == "*") }\' '
            "/etc/master.passwd || exit 1"
        )
        lines += [f"account {shlex.quote(name)}" for name in logins]
        return _SCRIPT + "\n".join([*lines, f"echo '{DONE}'"])

    def process(self, output: list[str]) -> AccountsState | None:
        """Read the command's output."""
        if not output or output[-1].strip() != DONE:
            return None
        return parse(output[:-1])


def parse(lines: Sequence[str]) -> AccountsState:
    """Turn the output of `Accounts.command` without its last line into accounts."""
    reading = _Reading()
    for line in lines:
        try:
            reading.take(line)
        except (ValueError, KeyError, IndexError):
            raise FactProcessError(f"Accounts: not understood: {line!r}") from None
    return reading.state()


@dataclass
class _Reading:
    classes: dict[str, FileState] = field(default_factory=dict)
    groups: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    logins: dict[str, list[str]] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    directories: dict[str, str] = field(default_factory=dict)
    keys: dict[str, FileState] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=dict)
    database: bool | None = None

    def take(self, line: str) -> None:
        if line.startswith("group:"):
            _, name, gid, members = line.split(":")
            self.groups[name] = (int(gid), tuple(members.split(",")) if members else ())
            return
        if line.startswith("login:"):
            _, name, *fields = line.split(":")
            if len(fields) != 6 or not fields[0].isdigit() or fields[5] not in ("0", "1"):
                raise ValueError(line)
            self.logins[name] = fields
            return
        word, name, *rest = line.split(" ")
        if word == "class":
            self.classes[name] = _state(rest)
        elif word == "keys":
            self.keys[name] = _state(rest)
        elif word == "password":
            (self.passwords[name],) = rest
        elif word == "directory":
            self.directories[name] = " ".join(rest)
        elif word == "home":
            mode, owner = rest
            self.homes[name] = f"{int(mode, 8):o} {owner}"
        elif word == "database" and name in ("old", "new"):
            self.database = name == "new"
        else:
            raise ValueError(line)

    def state(self) -> AccountsState:
        logins = {
            name: Login(
                uid=int(uid),
                login_class=login_class or "default",
                comment=comment,
                home=home,
                shell=shell,
                starred=starred == "1",
                password=self.passwords.get(name, ""),
                directory=self.directories.get(name),
                keys=self.keys.get(name),
                access=self.homes.get(name),
            )
            for name, (uid, login_class, comment, home, shell, starred) in self.logins.items()
        }
        return AccountsState(self.classes, self.groups, logins, self.database)


def _state(pieces: Sequence[str]) -> FileState:
    owner, group, mode, digest = pieces
    return FileState(owner, group, int(mode, 8), digest)
