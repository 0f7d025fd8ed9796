"""Units; systemctl(1)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from testinfra.host import Host

from tests.verify.modules.base import Asking, Unknown


@dataclass(frozen=True)
class Unit:
    """A unit in systemd's words: `load` (loaded, not-found), `file` (enabled, ...), `active` and `sub`."""

    load: str
    file: str
    active: str
    sub: str

    @property
    def is_enabled(self) -> bool:
        """True if it starts by itself or is started by what is enabled."""
        return self.file in ("enabled", "static", "alias", "indirect", "generated")


class Systemd(Asking):
    """Many units in one command, and those that match a pattern.

    >>> systemd(host).units(["ssh.service"])["ssh.service"].active
    'active'
    """

    @staticmethod
    def show(names: Sequence[str]) -> str:
        """Return the command that `units` asks with."""
        properties = "Id,LoadState,UnitFileState,ActiveState,SubState"
        # One by one: an alias answers with another Id than it was asked by.
        return "\n".join(
            f"echo {shlex.quote(f'Asked={name}')}; systemctl show -p {properties} -- {shlex.quote(name)} || exit"
            for name in names
        )

    @staticmethod
    def listing(pattern: str) -> str:
        """Return the command that `active` asks with."""
        return f"systemctl list-units --all --plain --no-legend --no-pager -- {shlex.quote(pattern)}"

    def units(self, names: Sequence[str]) -> dict[str, Unit]:
        """Return each of `names`, which have their suffix."""
        found: dict[str, dict[str, str]] = {}
        name = ""
        for line in self.answer(self.show(names)).splitlines():
            key, equals, value = line.partition("=")
            if key == "Asked":
                name = value
            elif equals and name:
                found.setdefault(name, {})[key] = value
        try:
            return {
                name: Unit(
                    found[name]["LoadState"],
                    found[name].get("UnitFileState", ""),
                    found[name]["ActiveState"],
                    found[name]["SubState"],
                )
                for name in names
            }
        except KeyError as error:
            raise Unknown(f"systemctl did not say {error}") from None

    def active(self, pattern: str) -> tuple[str, ...]:
        """Return the units that match `pattern` and are neither inactive nor gone; a failed one counts."""
        rows = [line.split() for line in self.answer(self.listing(pattern)).splitlines() if line.strip()]
        return tuple(row[0] for row in rows if len(row) > 2 and row[2] != "inactive")


def systemd(host: Host) -> Systemd:
    """Return the module for `host`."""
    module: Systemd = Systemd.get_module(host)
    return module
