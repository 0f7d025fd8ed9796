"""What the facts of the deployment read, asked by testinfra: the same commands, and the same parsers."""

from __future__ import annotations

from typing import TypeVar

from pyinfra.api import FactBase, FactProcessError
from testinfra.host import Host

from tests.verify.modules.base import Asking, Unknown

T = TypeVar("T")


class Facts(Asking):
    """One fact at a time.

    >>> facts(host).read(Pf(), tables=["bans"]).enabled
    True
    """

    def read(self, fact: FactBase[T | None], **arguments: object) -> T:
        """Return what `fact` makes of the host's answer; `Unknown` if it cannot."""
        try:
            found = fact.process(self.answer(question(fact, **arguments)).splitlines())
        except FactProcessError as error:
            raise Unknown(str(error)) from None
        if found is None:
            raise Unknown(f"{type(fact).__name__}: the answer is not whole")
        return found


def question(fact: FactBase[T], **arguments: object) -> str:
    """Return the command that `Facts.read` asks with."""
    return str(fact.command(**arguments))


def facts(host: Host) -> Facts:
    """Return the module for `host`."""
    module: Facts = Facts.get_module(host)
    return module
