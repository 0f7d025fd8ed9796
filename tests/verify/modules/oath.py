"""Whose secret of codes is where pam_oath(8) looks for it; never the secrets."""

from __future__ import annotations

import shlex

from testinfra.host import Host

from tests.verify.modules.base import Asking, Unknown

_SAME = 'FILENAME == ARGV[1] { if (NF) w[$2 " " $4]; next } ($2 " " $4) in w { print "has", $2 }'


class Oath(Asking):
    """The file of users, compared with the one that says what it shall have.

    >>> oath(host).users("/etc/users.oath.wanted", "/etc/users.oath")
    frozenset({'owner'})
    """

    @staticmethod
    def question(wanted: str, live: str) -> str:
        """Return the command that `users` asks with."""
        return (
            f"stat -c 'file %U %a' {shlex.quote(live)} && "
            f"awk {shlex.quote(_SAME)} {shlex.quote(wanted)} {shlex.quote(live)}"
        )

    def users(self, wanted: str, live: str) -> frozenset[str]:
        """Return who has in `live` the secret of `wanted`; nobody if others than root may read or write the file."""
        first, *lines = self.answer(self.question(wanted, live)).splitlines() or [""]
        if not first.startswith("file "):
            raise Unknown(f"stat said {first!r}")
        return frozenset(line.removeprefix("has ") for line in lines) if first == "file root 600" else frozenset()


def oath(host: Host) -> Oath:
    """Return the module for `host`."""
    module: Oath = Oath.get_module(host)
    return module
