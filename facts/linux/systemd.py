"""Units of a systemd host, from systemctl(1)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pyinfra.api import FactBase, FactProcessError

DONE = "##UNITS##"


@dataclass(frozen=True)
class Unit:
    """A unit as it is: does it exist, is it enabled, active, and does its main process run a deleted binary."""

    exists: bool
    enabled: bool
    active: bool
    stale: bool = False


def unit_name(name: str) -> str:
    """Return the whole name of a unit: ``libvirtd.socket`` as it is, ``libvirtd`` as ``libvirtd.service``."""
    return name if "." in name else f"{name}.service"


class Units(FactBase[dict[str, Unit] | None]):
    """State of each of `names`, a name without a dot being a service; None if unknown (F2)."""

    @staticmethod
    def default() -> None:
        """Return None: not known."""
        return

    def command(self, names: Sequence[str]) -> str:
        """Return one command that shows all units and looks at their main processes."""
        units = " ".join(shlex.quote(unit_name(name)) for name in names)
        return (
            f"for u in {units}; do "
            "LoadState='' UnitFileState='' ActiveState='' MainPID=''; "
            'eval "$(systemctl show -p LoadState,UnitFileState,ActiveState,MainPID "$u")"; '
            'case "$(readlink "/proc/$MainPID/exe" 2>/dev/null)" in *"(deleted)") s=stale;; *) s=fresh;; esac; '
            'echo "$u|$LoadState|$UnitFileState|$ActiveState|$s"; '
            f"done; echo {shlex.quote(DONE)}"
        )

    def process(self, output: list[str]) -> dict[str, Unit] | None:
        """Read the command's output; FactProcessError names a line that is not understood."""
        if not output or output[-1].strip() != DONE:
            return None
        found: dict[str, Unit] = {}
        for line in output[:-1]:
            pieces = line.split("|")
            if len(pieces) != 5:
                raise FactProcessError(f"Units: not understood: {line!r}")
            name, load, file, active, age = pieces
            found[name.removesuffix(".service")] = Unit(
                exists=load == "loaded",
                enabled=file in ("enabled", "static", "alias", "indirect"),
                active=active in ("active", "activating", "reloading"),
                stale=age == "stale",
            )
        return found
