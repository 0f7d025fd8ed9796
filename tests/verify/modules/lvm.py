"""Volume groups and logical volumes; lvmreport(7)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from testinfra.host import Host

from tests.verify.modules.base import Asking, Unknown

_JSON = "--reportformat json --units b --nosuffix"
GROUPS = f"vgs {_JSON} -o vg_name,vg_size,vg_free,vg_extent_size"
VOLUMES = f"lvs {_JSON} -o vg_name,lv_name,lv_size,lv_attr,lv_tags"


@dataclass(frozen=True)
class Group:
    """A volume group; `size`, `free` and `extent` in bytes."""

    size: int
    free: int
    extent: int


@dataclass(frozen=True)
class LogicalVolume:
    """A logical volume; `size` in bytes, `attributes` the letters of lvs(8)."""

    size: int
    attributes: str
    tags: frozenset[str]


class Lvm(Asking):
    """All of LVM on a host, from two commands.

    >>> lvm(host).volumes["guests/db1-root"].size
    12884901888
    """

    @cached_property
    def groups(self) -> dict[str, Group]:
        """Every volume group by name."""
        return {
            row["vg_name"]: Group(int(row["vg_size"]), int(row["vg_free"]), int(row["vg_extent_size"]))
            for row in self._report(GROUPS, "vg")
        }

    @cached_property
    def volumes(self) -> dict[str, LogicalVolume]:
        """Every logical volume by ``group/name``."""
        return {
            f"{row['vg_name']}/{row['lv_name']}": LogicalVolume(
                int(row["lv_size"]), row["lv_attr"], frozenset(filter(None, row["lv_tags"].split(",")))
            )
            for row in self._report(VOLUMES, "lv")
        }

    def rounded(self, group: str, size: int) -> int:
        """Return `size` as a volume of `group` has it: whole extents; `Unknown` without such a group."""
        if group not in self.groups:
            raise Unknown(f"there is no volume group {group}")
        extent = self.groups[group].extent
        return -(-size // extent) * extent

    def _report(self, command: str, what: str) -> list[dict[str, str]]:
        try:
            said: Any = json.loads(self.answer(command))
            return [row for report in said["report"] for row in report[what]]
        except (ValueError, KeyError, TypeError) as error:
            raise Unknown(f"{command.split(maxsplit=1)[0]} said what is not understood: {error!r}") from None


def lvm(host: Host) -> Lvm:
    """Return the module for `host`."""
    module: Lvm = Lvm.get_module(host)
    return module
