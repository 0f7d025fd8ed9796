"""Packages; dpkg-query(1)."""

from __future__ import annotations

from functools import cached_property

from testinfra.host import Host

from tests.verify.modules.base import Asking, Unknown

LIST = "dpkg-query -W -f '${db:Status-Abbrev}|${Package}|${Provides}\\n'"


class Dpkg(Asking):
    """All packages of a Debian or Ubuntu host, from one command.

    >>> dpkg(host).status("lvm2")
    'ii'
    """

    @cached_property
    def _packages(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for line in self.answer(LIST).splitlines():
            pieces = line.split("|")
            if len(pieces) != 3:
                raise Unknown(f"dpkg-query said {line!r}")
            status, name, provides = (piece.strip() for piece in pieces)
            found[name] = status
            if status == "ii":
                for item in provides.split(","):
                    if item.strip():
                        found.setdefault(item.split()[0], status)
        return found

    def status(self, name: str) -> str | None:
        """Return the two letters of dpkg(1), ``ii`` for installed; None if dpkg does not know the package."""
        return self._packages.get(name)


def dpkg(host: Host) -> Dpkg:
    """Return the module for `host`."""
    module: Dpkg = Dpkg.get_module(host)
    return module
