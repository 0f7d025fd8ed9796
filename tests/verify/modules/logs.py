"""A line that a host is made to log, and where it arrives; logger(1), grep(1)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from testinfra.host import Host

from tests.verify.modules.base import Asking

SECONDS = 10
"""How long a line may take to arrive, from when it is first looked for."""

_LOOK = 'look() { if grep -Fqse "$1" -- "$2"; then echo "$1"; else missing=1; fi; }'


class Logs(Asking):
    """Lines of many hosts at once, asked from the host that keeps them.

    >>> logs(host).arrived({"7f3a-ns3": "/var/log/hosts/ns3/user"})
    frozenset({'7f3a-ns3'})
    """

    @staticmethod
    def log(line: str) -> str:
        """Return the command that logs `line`, of the facility user and of the lowest level."""
        return f"logger -p user.debug -t verify {shlex.quote(line)}"

    @staticmethod
    def question(lines: Mapping[str, str]) -> str:
        """Return the command that `arrived` asks with."""
        looks = "\n".join(f"look {shlex.join(each)}" for each in lines.items())
        steps = ("missing=", looks, '[ -n "$missing" ] || break', "sleep 1", "n=$((n - 1))")
        return "\n".join([_LOOK, f"n={SECONDS}", 'while [ "$n" -gt 0 ]; do', *steps, "done"])

    def arrived(self, lines: Mapping[str, str]) -> frozenset[str]:
        """Return which of `lines` are, within `SECONDS`, in the file that each belongs to."""
        return frozenset(self.answer(self.question(lines)).split())


def logs(host: Host) -> Logs:
    """Return the module for `host`."""
    module: Logs = Logs.get_module(host)
    return module
