"""Packages of an Ubuntu host, from dpkg-query(1)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pyinfra.api import FactBase, FactProcessError

DONE = "##PACKAGES##"


@dataclass(frozen=True)
class Packages:
    """`installed` of those asked for, and `broken`: packages that an interrupted dpkg left half-way, any of them."""

    installed: frozenset[str]
    broken: tuple[str, ...]


class DebianPackages(FactBase[Packages | None]):
    """Which of `names` are installed, and which packages at all are half-way; None if unknown (F2).

    dpkg-query(1): ``db:Status-Abbrev`` is ``ii`` for an installed package, its second letter any of ``HUFWt`` for
    one that was interrupted. A virtual package counts as installed if an installed one provides it.
    """

    @staticmethod
    def default() -> None:
        """Return None: not known."""
        return

    def command(self, names: Sequence[str]) -> str:
        """Return one command that lists every package with its state and what it provides."""
        self.names = tuple(names)
        del names
        return f"dpkg-query -W -f '${{db:Status-Abbrev}}|${{Package}}|${{Provides}}\\n' && echo {shlex.quote(DONE)}"

    def process(self, output: list[str]) -> Packages | None:
        """Read the command's output; FactProcessError names a line that is not understood."""
        if not output or output[-1].strip() != DONE:
            return None
        installed: set[str] = set()
        broken: list[str] = []
        for line in output[:-1]:
            pieces = line.split("|")
            if len(pieces) != 3 or len(pieces[0]) < 2:
                raise FactProcessError(f"DebianPackages: not understood: {line!r}")
            status, name, provides = pieces
            if status[1] in "HUFWt":
                broken.append(name)
            elif status[1] == "i":
                installed.add(name)
                installed |= {item.split()[0] for item in provides.split(",") if item.strip()}
        return Packages(frozenset(installed & set(self.names)), tuple(broken))
