"""Groups and accounts of an Ubuntu host; group(5), passwd(5), shadow(5)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from pyinfra.api import FactBase, FactProcessError

from facts.filesets import FileState

DONE = "##ACCOUNTS##"

LOCKED_SINCE = "1"
"""The day, counted from 1970-01-01, on which an account that was taken away expired; shadow(5)."""


@dataclass(frozen=True)
class Login:
    """An account as it is.

    `password` is the SHA-256, in hexadecimal, of the password field, never the field; `starred` is true if the field
    begins with an asterisk or an exclamation mark, so that no password fits. `expires` is the day of shadow(5) from
    which nobody comes in, empty for never.
    `directory` is mode and owner of ~/.ssh, or ``link``; None where it is not there. `keys` is ~/.ssh/authorized_keys.
    """

    uid: int
    comment: str
    home: str
    shell: str
    starred: bool
    expires: str = ""
    password: str = ""
    directory: str | None = None
    keys: FileState | None = None

    @property
    def locked(self) -> bool:
        """True after ``usermod -L -e 1``: no password fits, and pam_unix(8) refuses whatever else is shown."""
        return self.starred and self.expires == LOCKED_SINCE


@dataclass(frozen=True)
class AccountsState:
    """`groups`, gid and members by name; `logins` by name."""

    groups: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    logins: dict[str, Login] = field(default_factory=dict)

    def secondary(self, name: str) -> frozenset[str]:
        """Return the groups that list account `name` as a member."""
        return frozenset(group for group, (_, members) in self.groups.items() if name in members)


_SCRIPT = r"""[ -r /etc/shadow ] || exit 1
account() {
	p=$(awk -F: -v OFS=: -v u="$1" '$1 == u { print $3, $5, $6, $7 }' /etc/passwd)
	[ -n "$p" ] || return 0
	s=$(awk -F: -v OFS=: -v u="$1" '$1 == u { print $2 ~ /^[!*]/, $8 }' /etc/shadow)
	d=$(awk -F: -v u="$1" '$1 == u { printf "%s", $2 }' /etc/shadow | sha256sum)
	h=${p%:*} ssh='' keys=''
	h=${h##*:}/.ssh
	if [ -L "$h" ]; then
		ssh='link'
	elif [ -d "$h" ]; then
		ssh=$(stat -c '%a %U' "$h")
	fi
	if [ -f "$h/authorized_keys" ]; then
		keys=$(sha256sum <"$h/authorized_keys")
		keys="$(stat -c '%U %G %a' "$h/authorized_keys") ${keys%% *}"
	fi
	printf 'login:%s:%s:%s:%s:%s:%s\n' "$1" "$p" "$s" "${d%% *}" "$ssh" "$keys"
}
awk -F: '{ print "group:" $1 ":" $3 ":" $4 }' /etc/group || exit 1
"""


class Accounts(FactBase[AccountsState | None]):
    """All groups, and the accounts `logins`; None if unknown (F2). Needs root.

    The password field never leaves the host (DESIGN O5). Raises FactProcessError naming a line that is not understood.
    """

    @staticmethod
    def default() -> None:
        """Return None: not known."""
        return

    def command(self, logins: Sequence[str]) -> str:
        """Return one command that reads the files."""
        return _SCRIPT + "\n".join([*(f"account {shlex.quote(name)}" for name in logins), f"echo '{DONE}'"])

    def process(self, output: list[str]) -> AccountsState | None:
        """Read the command's output."""
        if not output or output[-1].strip() != DONE:
            return None
        return parse(output[:-1])


def parse(lines: Sequence[str]) -> AccountsState:
    """Turn the output of `Accounts.command` without its last line into accounts."""
    found = AccountsState()
    for line in lines:
        word, *fields = line.split(":")
        try:
            if word == "group":
                name, gid, members = fields
                found.groups[name] = (int(gid), tuple(members.split(",")) if members else ())
            elif word == "login":
                name, *rest = fields
                found.logins[name] = _login(rest)
            else:
                raise ValueError(line)
        except ValueError:
            raise FactProcessError(f"Accounts: not understood: {line!r}") from None
    return found


def _login(fields: Sequence[str]) -> Login:
    uid, comment, home, shell, starred, expires, password, directory, keys = fields
    if starred not in ("0", "1"):
        raise ValueError(starred)
    state = None
    if keys:
        owner, group, mode, digest = keys.split(" ")
        state = FileState(owner, group, int(mode, 8), digest)
    return Login(int(uid), comment, home, shell, starred == "1", expires, password, directory or None, state)
