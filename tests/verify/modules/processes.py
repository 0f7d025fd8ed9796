"""What runs as an account; ps(1) of procps."""

from __future__ import annotations

from testinfra.host import Host

from tests.verify.modules.base import Asking


class Processes(Asking):
    """The processes of one account.

    >>> processes(host).of("moves")
    ()
    """

    @staticmethod
    def question(account: str) -> str:
        """Return the command that `of` asks with; `account` has at most eight letters, ps cuts longer ones."""
        return f"ps -e -o user= -o args= | sed -n 's/^{account}  *//p'"

    def of(self, account: str) -> tuple[str, ...]:
        """Return the command line of each process that runs as `account`."""
        return tuple(self.answer(self.question(account)).splitlines())


def processes(host: Host) -> Processes:
    """Return the module for `host`."""
    module: Processes = Processes.get_module(host)
    return module
