"""Who answers an echo request; ping(8)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from testinfra.host import Host

from tests.verify.modules.base import Asking


class Echo(Asking):
    """Many addresses at once, asked from the host.

    >>> echo(host).answering(["127.0.0.1"])
    frozenset({'127.0.0.1'})
    """

    @staticmethod
    def question(addresses: Sequence[str]) -> str:
        """Return the command that `answering` asks with."""
        # Twice, because one lost packet would turn a healthy guest red.
        asked = [
            f"{{ ! {{ ping -q -c1 -W1 {a} || ping -q -c1 -W1 {a}; }} >/dev/null 2>&1 || echo {a}; }} &"
            for a in map(shlex.quote, addresses)
        ]
        return "\n".join(["command -v ping >/dev/null || { echo 'there is no ping(8)' >&2; exit 1; }", *asked, "wait"])

    def answering(self, addresses: Sequence[str]) -> frozenset[str]:
        """Return those of `addresses` that answer within a second, asked twice at most."""
        return frozenset(self.answer(self.question(addresses)).split())


def echo(host: Host) -> Echo:
    """Return the module for `host`."""
    module: Echo = Echo.get_module(host)
    return module
