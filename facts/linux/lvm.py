"""LVM of a host: groups, physical and logical volumes, and what is on the devices that a group is to be made
of.

lvm(8), lvm fullreport, lvmreport(7), wipefs(8), blockdev(8).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

MARK = "##lvm##"

T = TypeVar("T")

MANAGED = "homefleet"
"""Tag of every volume that this project made or took over."""

FRESH = "fresh"
"""Tag of a volume that no definition of a guest has named yet: it is off before the guest's first start."""

UNWIPED = "unwiped"
"""Tag of a volume that was made and may still show what lay there before: no guest gets it."""

# One process for all three reports: a third of the time of pvs, vgs and lvs. pvseg and seg cannot be left
# out, so they are made short.
REPORT = (
    "lvm fullreport --reportformat json --units b --nosuffix"
    " --configreport vg -o vg_name,vg_size,vg_extent_size,vg_free"
    " --configreport pv -o vg_name,pv_name,pv_major,pv_minor,dev_size"
    " --configreport lv -o vg_name,lv_name,lv_size,lv_tags,lv_active,lv_device_open,lv_layout,lv_role"
    " --configreport pvseg -o pv_name --configreport seg -o lv_name"
)


@dataclass(frozen=True)
class PhysicalVolume:
    """A device of LVM: `device`, its path as LVM calls it; `number`, "major:minor"; `group`, "" for none;
    `size` of the device in bytes.
    """

    device: str
    number: str
    group: str
    size: int


@dataclass(frozen=True)
class VolumeGroup:
    """A volume group: `size`, `extent` and `free` in bytes."""

    name: str
    size: int
    extent: int
    free: int


@dataclass(frozen=True)
class LogicalVolume:
    """A visible logical volume.

    Arguments: `group`, `name`; `size` in bytes; `tags`; `active`, its device exists; `open`, somebody has the
    device open; both None where LVM does not know. `layout` is "linear" for all that this project makes.
    """

    group: str
    name: str
    size: int
    tags: frozenset[str] = frozenset()
    active: bool | None = True
    open: bool | None = False
    layout: str = "linear"

    @property
    def path(self) -> str:
        """The device, as a domain's definition names it."""
        return f"/dev/{self.group}/{self.name}"

    @property
    def spec(self) -> str:
        """Group and name, as LVM's commands take it."""
        return f"{self.group}/{self.name}"


@dataclass(frozen=True)
class Device:
    """A device that a group is to be made of.

    Arguments: `path` as asked for; `exists`, it is there and a block device; `number`, "major:minor"; `size`
    in bytes; `signatures`, what wipefs found on it, () for a blank device, None if that could not be read.
    """

    path: str
    exists: bool
    number: str = ""
    size: int = 0
    signatures: tuple[str, ...] | None = ()


@dataclass(frozen=True)
class LvmState:
    """What LVM has on a host; `installed` is False where lvm2 is not there yet, and then there is nothing."""

    installed: bool = True
    groups: Mapping[str, VolumeGroup] = field(default_factory=dict)
    physical: tuple[PhysicalVolume, ...] = ()
    volumes: Mapping[str, LogicalVolume] = field(default_factory=dict)
    devices: Mapping[str, Device] = field(default_factory=dict)

    def of_guest(self, guest: str) -> tuple[LogicalVolume, ...]:
        """The volumes tagged as those of `guest`, without retired ones."""
        return tuple(
            volume
            for volume in self.volumes.values()
            if f"guest={guest}" in volume.tags and not any(tag.startswith("retired=") for tag in volume.tags)
        )

    def by_path(self, path: str) -> LogicalVolume | None:
        """The volume whose device is `path` (/dev/GROUP/NAME), or None."""
        return self.volumes.get(path.removeprefix("/dev/"))


class Lvm(FactBase["LvmState | None"]):
    """LVM's state, in one exec; None where it could not be known (DESIGN F2).

    Argument: `devices`, paths of block devices to look at as well.
    """

    @staticmethod
    def default() -> None:
        """Unknown."""

    def command(self, devices: Sequence[str] = ()) -> str:
        """Return a script that fails if LVM is there and does not answer."""
        names = " ".join(shlex.quote(device) for device in devices)
        # wipefs reads the device itself, not blkid's cache, names every signature where blkid names none if
        # there are several, and exits with 0 for a blank device, where blkid exits with 2.
        look = (
            f"for d in {names}; do\n"
            f'  printf "{MARK} device %s\\n" "$d"\n'
            '  if [ -b "$d" ]; then\n'
            "    stat -L -c 'number %Hr:%Lr' \"$d\"\n"
            '    echo "size $(blockdev --getsize64 "$d")"\n'
            f'    wipefs --no-act --json "$d" || echo unreadable\n'
            "  else echo absent; fi\n"
            "done\n"
        )
        return (
            "PATH=$PATH:/usr/sbin:/sbin LC_ALL=C; export PATH LC_ALL\n"
            + (look if names else "")
            + "if command -v lvm >/dev/null 2>&1; then\n"
            f"  echo '{MARK} report'\n"
            f"  {REPORT} || exit 1\n"
            f"else echo '{MARK} absent'; fi\n"
            f"echo '{MARK} end'"
        )

    def process(self, output: list[str]) -> LvmState | None:
        """Return the parsed state.

        Fails: FactProcessError naming the line that is not understood.
        """
        return parse(output)


def parse(output: Sequence[str]) -> LvmState:
    """Return the state in `output`, the lines of the fact's script.

    Fails: FactProcessError naming the bad line, also for output that ends too early.
    """
    devices: dict[str, Device] = {}
    report: LvmState | None = None
    ended = False
    for title, lines in _sections(output):
        kind, _, argument = title.partition(" ")
        if kind == "device":
            devices[argument] = _device(argument, lines)
        elif kind == "report":
            report = _report(lines)
        elif kind == "absent":
            report = LvmState(installed=False)
        elif kind == "end":
            ended = True
        else:
            raise FactProcessError(f"lvm: unknown section: {title}")
    if report is None or not ended:
        raise FactProcessError(f"lvm: the output ends too early, after: {output[-1] if output else 'nothing'}")
    return LvmState(report.installed, report.groups, report.physical, report.volumes, devices)


def _sections(output: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    title, lines = "", list[str]()
    for line in output:
        if line.startswith(MARK):
            if title:
                yield title, lines
            title, lines = line.removeprefix(MARK).strip(), []
        elif title:
            lines.append(line)
        elif line.strip():
            raise FactProcessError(f"lvm: not expected: {line}")
    if title:
        yield title, lines


def _device(path: str, lines: list[str]) -> Device:
    if lines == ["absent"]:
        return Device(path, exists=False)
    if len(lines) < 3 or not lines[0].startswith("number ") or not lines[1].startswith("size "):
        raise FactProcessError(f"lvm: {path}: not understood: {' '.join(lines)}")
    size = lines[1].removeprefix("size ")
    if not size.isdecimal():
        raise FactProcessError(f"lvm: {path}: no size: {lines[1]}")
    number = lines[0].removeprefix("number ")
    if lines[-1] == "unreadable":
        return Device(path, exists=True, number=number, size=int(size), signatures=None)
    found = _json(lines[2:])
    entries = found.get("signatures")
    if not isinstance(entries, list):
        raise FactProcessError(f"lvm: {path}: no list of signatures: {lines[2]}")
    signatures = dict.fromkeys(" ".join(_words(entry)) for entry in entries)
    return Device(path, exists=True, number=number, size=int(size), signatures=tuple(signatures))


def _words(entry: Any) -> Iterator[str]:
    for key in ("type", "label"):
        if entry.get(key):
            yield str(entry[key])


def _report(lines: list[str]) -> LvmState:
    groups: dict[str, VolumeGroup] = {}
    physical: list[PhysicalVolume] = []
    volumes: dict[str, LogicalVolume] = {}
    for entry in _json(lines).get("report", []):
        for row in entry.get("vg", []):
            group = _row(_group, row)
            groups[group.name] = group
        physical += [_row(_physical, row) for row in entry.get("pv", [])]
        for row in entry.get("lv", []):
            # Parts of mirrors, pools and the like are hidden without --all; the role catches what is not.
            if "private" not in str(row.get("lv_role", "")).split(","):
                volume = _row(_volume, row)
                volumes[volume.spec] = volume
    return LvmState(True, groups, tuple(physical), volumes)


def _row(make: Callable[[dict[str, str]], T], row: dict[str, str]) -> T:
    try:
        return make(row)
    except (KeyError, ValueError, AttributeError) as error:
        raise FactProcessError(f"lvm: {error!r} in: {json.dumps(row)}") from error


def _group(row: dict[str, str]) -> VolumeGroup:
    return VolumeGroup(row["vg_name"], int(row["vg_size"]), int(row["vg_extent_size"]), int(row["vg_free"]))


def _physical(row: dict[str, str]) -> PhysicalVolume:
    number = f"{int(row['pv_major'])}:{int(row['pv_minor'])}"
    return PhysicalVolume(row["pv_name"], number, row["vg_name"], int(row["dev_size"]))


def _volume(row: dict[str, str]) -> LogicalVolume:
    return LogicalVolume(
        group=row["vg_name"],
        name=row["lv_name"],
        size=int(row["lv_size"]),
        tags=frozenset(tag for tag in row["lv_tags"].split(",") if tag),
        active={"active": True, "": False}.get(row["lv_active"]),
        open={"open": True, "": False}.get(row["lv_device_open"]),
        layout=row["lv_layout"],
    )


def _json(lines: list[str]) -> dict[str, Any]:
    try:
        found = json.loads("\n".join(lines))
    except json.JSONDecodeError as error:
        bad = lines[error.lineno - 1] if error.lineno <= len(lines) else "nothing"
        raise FactProcessError(f"lvm: not JSON: {bad.strip()}") from error
    if not isinstance(found, dict):
        raise FactProcessError(f"lvm: no JSON object: {lines[0]}")
    return found
