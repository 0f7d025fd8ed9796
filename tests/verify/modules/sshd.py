"""What sshd_config(5) permits root."""

from __future__ import annotations

import shlex

from testinfra.host import Host

from tests.verify.modules.base import Asking


class Sshd(Asking):
    """Values in a configuration file.

    >>> sshd(host).permits("/etc/ssh/sshd_config")
    ('no',)
    """

    @staticmethod
    def question(path: str) -> str:
        """Return the command that `permits` asks with; sshd(8) reads keywords in any case, with a blank or a ``=``."""
        program = (
            '{ gsub(/[="]/, " "); $0 = $0 } tolower($1) == "permitrootlogin" { print tolower($2) } '
            'tolower($1) == "include" { print "whatever " $2 " says" }'
        )
        return f"awk {shlex.quote(program)} {shlex.quote(path)}"

    def permits(self, path: str) -> tuple[str, ...]:
        """Return each value of PermitRootLogin in the file `path`, and a word for what it includes."""
        return tuple(line for line in self.answer(self.question(path)).splitlines() if line.strip())


def sshd(host: Host) -> Sshd:
    """Return the module for `host`."""
    module: Sshd = Sshd.get_module(host)
    return module
