"""LVM in memory: interprets the commands of a plan, so that a plan can be applied and compared with real lvs.

It knows the commands that the planners write and nothing else: another one is an error, not a guess.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, replace

from facts.linux.lvm import Device, LogicalVolume, LvmState, PhysicalVolume, VolumeGroup
from operations.steps import Step

LABEL = 2**20
NAME = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]*")


class CommandError(Exception):
    """The real command would have exited non-zero."""


@dataclass
class ModelLvm:
    """A host's LVM. `dirty` volumes still show what lay on their extents before."""

    groups: dict[str, int] = field(default_factory=dict)  # name -> extent
    devices: dict[str, Device] = field(default_factory=dict)
    members: dict[str, str] = field(default_factory=dict)  # device -> group
    volumes: dict[str, LogicalVolume] = field(default_factory=dict)
    dirty: set[str] = field(default_factory=set)
    commands: list[list[str]] = field(default_factory=list)

    def state(self) -> LvmState:
        """What the fact would report."""
        return LvmState(
            groups={name: self._group(name) for name in self.groups},
            physical=tuple(
                PhysicalVolume(path, self.devices[path].number, group, self.devices[path].size)
                for path, group in self.members.items()
            ),
            volumes=dict(self.volumes),
            devices=dict(self.devices),
        )

    def apply(self, step: Step) -> None:
        """Carry out one step. Fails: CommandError where a real command would fail."""
        for command in step.command.split(" && "):
            self.run(command)

    def run(self, command: str) -> None:
        """Carry out one simple command, or the one pipeline that the planners write."""
        if command.startswith("{"):
            self._wipe(command)
            return
        check, _, rest = command.partition(" | ")
        words = shlex.split(check)
        self.commands.append(words)
        handler = {
            "vgcreate": self._vgcreate,
            "lvcreate": self._lvcreate,
            "lvchange": self._lvchange,
            "lvextend": self._lvextend,
            "lvrename": self._lvrename,
            "lvremove": self._lvremove,
            "lvs": self._lvs,
        }.get(words[0])
        if handler is None:
            raise AssertionError(f"not modelled: {command}")
        printed = handler(words[1:])
        if rest:
            grep = shlex.split(rest)
            assert grep[:2] == ["grep", "-qF"], f"not modelled: {command}"
            if grep[2] not in (printed or ""):
                raise CommandError(f"grep: no {grep[2]}")

    def _group(self, name: str) -> VolumeGroup:
        extent = self.groups[name]
        size = sum(
            (self.devices[path].size - LABEL) // extent * extent
            for path, group in self.members.items()
            if group == name
        )
        used = sum(volume.size for volume in self.volumes.values() if volume.group == name)
        return VolumeGroup(name, size, extent, size - used)

    def _vgcreate(self, words: list[str]) -> None:
        assert words[0] == "-s" and words[4] == "</dev/null", words
        extent, name, path = int(words[1].removesuffix("b")), words[2], words[3]
        device = self.devices.get(path)
        if name in self.groups or device is None or not device.exists or path in self.members:
            raise CommandError(f"vgcreate {name} {path}")
        if device.signatures != ():
            raise CommandError("signature detected: [n]")
        self.groups[name] = extent
        self.members[path] = name
        self.devices[path] = replace(device, signatures=("LVM2_member",))

    def _lvcreate(self, words: list[str]) -> None:
        assert words[:3] == ["-y", "-Wn", "-Zn"] and words[3] == "-L" and words[5] == "-n", words
        name, group = words[6], words[-1]
        tags = frozenset(word for word in words[7:-1] if word != "--addtag")
        volume = LogicalVolume(group, name, self._size(group, words[4]), tags)
        if volume.spec in self.volumes or not NAME.fullmatch(name):
            raise CommandError(f"{volume.spec} exists, or is no name")
        if volume.size > self._group(group).free:
            raise CommandError("insufficient free space")
        self.volumes[volume.spec] = volume
        self.dirty.add(volume.spec)

    def _wipe(self, command: str) -> None:
        match = re.fullmatch(r"\{ fallocate -p -o 0 -l (\d+) (\S+) \|\| blkdiscard -z (\S+); \}", command)
        assert match is not None and match[2] == match[3], f"not modelled: {command}"
        self.commands.append(["fallocate", match[2]])
        volume = self._volume(match[2].removeprefix("/dev/"))
        assert "unwiped" in volume.tags, f"{volume.spec} holds data and would be wiped"
        assert int(match[1]) == volume.size, f"{volume.spec} would be wiped in part"
        if not volume.active:
            raise CommandError("no such device")
        self.dirty.discard(volume.spec)

    def _lvchange(self, words: list[str]) -> None:
        add, remove, specs = set[str](), set[str](), list[str]()
        active: bool | None = None
        rest = iter(words)
        for word in rest:
            if word == "--addtag":
                add.add(next(rest))
            elif word == "--deltag":
                remove.add(next(rest))
            elif word in {"-an", "-ay"}:
                active = word == "-ay"
            elif word == "--setautoactivation":
                # What udev would do at an event; the model has no events.
                next(rest)
            else:
                assert not word.startswith("-"), f"not modelled: lvchange {word}"
                specs.append(word)
        for spec in specs:
            volume = self._volume(spec)
            if active is False and volume.open:
                raise CommandError(f"{spec} in use")
            state = volume.active if active is None else active
            self.volumes[spec] = replace(volume, tags=(volume.tags - remove) | add, active=state)

    def _lvextend(self, words: list[str]) -> None:
        assert words[0] == "-L" and len(words) == 3, words
        volume = self._volume(words[2])
        size = self._size(volume.group, words[1])
        if size <= volume.size or size - volume.size > self._group(volume.group).free:
            raise CommandError("no growth, or insufficient free space")
        self.volumes[volume.spec] = replace(volume, size=size)

    def _lvrename(self, words: list[str]) -> None:
        group, old, new = words
        volume = self._volume(f"{group}/{old}")
        if f"{group}/{new}" in self.volumes:
            raise CommandError(f"{new} exists")
        del self.volumes[volume.spec]
        self.volumes[f"{group}/{new}"] = replace(volume, name=new)

    def _lvremove(self, words: list[str]) -> None:
        assert words[0] == "-y" and len(words) == 2, words
        volume = self._volume(words[1])
        if volume.open:
            raise CommandError(f"{volume.spec} in use")
        del self.volumes[volume.spec]
        self.dirty.discard(volume.spec)

    def _lvs(self, words: list[str]) -> str:
        assert words[:4] == ["--noheadings", "-o", "lv_name", "-S"], words
        match = re.fullmatch(r'lv_tags=\{"(.+)"\}', words[4])
        assert match is not None, words
        volume = self._volume(words[5])
        return f"  {volume.name}" if match[1] in volume.tags else ""

    def _volume(self, spec: str) -> LogicalVolume:
        if spec not in self.volumes:
            raise CommandError(f"failed to find {spec}")
        return self.volumes[spec]

    def _size(self, group: str, word: str) -> int:
        if group not in self.groups:
            raise CommandError(f"no volume group {group}")
        assert word.endswith("b"), word
        extent = self.groups[group]
        return -(-int(word.removesuffix("b")) // extent) * extent
