"""Volume groups and logical volumes of a host, as one set: made, grown, retired, and in the end destroyed.

lvm(8), vgcreate(8), lvcreate(8), lvextend(8), lvrename(8), lvremove(8), fallocate(1). Volumes only grow, and
nothing that holds data goes because it left the inventory (DESIGN O4): `plan_volumes` never removes anything,
`plan_retirement` renames what has a date, and destroys only with a second word.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from pyinfra import host
from pyinfra.api import FunctionCommand, operation

from facts.linux.domain import in_words
from facts.linux.libvirt import Libvirt, LibvirtState
from facts.linux.lvm import FRESH, MANAGED, UNWIPED, Device, LogicalVolume, Lvm, LvmState
from facts.linux.lvm import VolumeGroup as FoundGroup
from fleet.connector import ask, recall
from fleet.connector import outcome as outcome_of
from operations.linux.places import Create, Guest, Here, places_of
from operations.steps import Plan, Refusal, Step, perform

EXTENT = 4 * 2**20
"""Bytes of an extent in groups made here: LVM's own default, named because sizes are computed with it."""

LABEL = 2**20
"""Bytes that LVM keeps for itself at the start of a device (data alignment)."""

# lvm(8), VALID NAMES: plus what we refuse to be able to quote nothing and to tell retired volumes apart.
NAME = re.compile(r"(?!retired-|snapshot|pvmove)[a-z0-9][a-z0-9_.-]{0,80}")
DEVICE = re.compile(r"/dev(/[A-Za-z0-9_][A-Za-z0-9_.:+-]*)+")
RETIRED = re.compile(r"retired-(\d{8})-(.+)")


@dataclass(frozen=True)
class VolumeGroup:
    """A group as wanted: `name`; `device`, the whole device it is made of; `size`, the least it has, in
    bytes.

    Fails: ValueError naming the group.
    """

    name: str
    device: str
    size: int

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"volume group {self.name!r}: not a name: lower case letters, digits, . _ -")
        if not DEVICE.fullmatch(self.device) or ".." in self.device:
            raise ValueError(f"volume group {self.name}: {self.device!r} is no path of a device")
        if self.size <= 0:
            raise ValueError(f"volume group {self.name}: size {self.size} bytes")


@dataclass(frozen=True)
class Volume:
    """A volume as wanted.

    Arguments: `group`, `name`; `size` in bytes, rounded up to whole extents; `guest` that it belongs to;
    `retired`, from when it is out of use; `destroy`, later than that, from when it may be destroyed;
    `none_to_keep`, why no backup of it is needed.

    Fails: ValueError naming the volume.
    """

    group: str
    name: str
    size: int
    guest: str
    retired: date | None = None
    destroy: date | None = None
    none_to_keep: str | None = None

    def __post_init__(self) -> None:
        for what in (self.group, self.name, self.guest):
            if not NAME.fullmatch(what):
                raise ValueError(f"volume {self.spec}: {what!r} is no name: lower case letters, digits, . _ -")
        if self.size <= 0:
            raise ValueError(f"volume {self.spec}: size {self.size} bytes")
        if self.destroy and not self.retired:
            raise ValueError(f"volume {self.spec}: destroy={self.destroy} without retired=")
        if self.destroy and self.retired and self.destroy <= self.retired:
            raise ValueError(
                f"volume {self.spec}: destroy={self.destroy} is not after retired={self.retired}: "
                "a volume is never destroyed by the run that renames it"
            )

    @property
    def spec(self) -> str:
        """Group and name, as LVM's commands take it."""
        return f"{self.group}/{self.name}"

    @property
    def path(self) -> str:
        """The device, as a domain's definition names it."""
        return f"/dev/{self.spec}"

    @property
    def retired_name(self) -> str:
        """What it is called once retired."""
        return f"retired-{self.retired:%Y%m%d}-{self.name}"

    def is_retired(self, today: date) -> bool:
        """True from the date of its retirement on."""
        return self.retired is not None and self.retired <= today


def rounded(size: int, extent: int) -> int:
    """Return `size` rounded up to whole extents of `extent`, all in bytes."""
    return -(-size // extent) * extent


def check_set(groups: Sequence[VolumeGroup], volumes: Sequence[Volume]) -> None:
    """Raise ValueError for a set that contradicts itself: doubles, or a volume of no declared group."""
    for label, specs in (
        ("volume group", [group.name for group in groups]),
        ("device", [group.device for group in groups]),
        ("volume", [volume.spec for volume in volumes]),
    ):
        for spec in specs:
            if specs.count(spec) > 1:
                raise ValueError(f"{label} {spec} is there twice")
    names = {group.name for group in groups}
    for volume in volumes:
        if volume.group not in names:
            raise ValueError(f"volume {volume.spec}: there is no volume group {volume.group}")


def plan_volumes(
    groups: Sequence[VolumeGroup],
    volumes: Sequence[Volume],
    found: LvmState,
    today: date,
    declared: Collection[str] = (),
) -> Plan:
    """Return what makes and grows the volumes of one host.

    Arguments: `groups` and `volumes` as wanted on this host (a guest that lives elsewhere has none here);
    `found`, with the groups' devices looked at; `today`; `declared`, all guests of the inventory: volumes of
    one that is not wanted here are left to `plan_domains` to speak of.

    Returns a plan without any step if something would shrink or does not fit: either all is done or nothing.
    Fails: ValueError for a set that contradicts itself.
    """
    check_set(groups, volumes)
    wanted = [volume for volume in volumes if not volume.is_retired(today)]
    notes = tuple(_unmanaged(groups, volumes, found, declared))
    shrinking = [*_shrinking(wanted, found)]
    if shrinking:
        return Plan(refused=tuple(shrinking), notes=notes)
    steps: list[Step] = []
    refused: list[Refusal] = []
    usable: dict[str, FoundGroup] = {}
    for group in groups:
        outcome = _group(group, found)
        if isinstance(outcome, Refusal):
            refused.append(outcome)
            continue
        usable[group.name] = outcome
        if group.name not in found.groups:
            steps.append(_make_group(group))
    too_much = [*_too_much(wanted, found, usable)]
    if too_much:
        return Plan(refused=(*refused, *too_much), notes=notes)
    for volume in wanted:
        for item in _volume(volume, found, usable):
            if isinstance(item, Refusal):
                refused.append(item)
            else:
                steps.append(item)
    return Plan(tuple(steps), tuple(refused), notes)


def _shrinking(wanted: Sequence[Volume], found: LvmState) -> Iterator[Refusal]:
    for volume in wanted:
        have = found.volumes.get(volume.spec)
        group = found.groups.get(volume.group)
        if have and group and rounded(volume.size, group.extent) < have.size:
            yield Refusal(
                volume.guest,
                f"{volume.spec} has {in_words(have.size)}, wanted {in_words(volume.size)}: volumes only grow, "
                "and nothing is done to any volume until that is settled",
            )


def _group(group: VolumeGroup, found: LvmState) -> FoundGroup | Refusal:
    device = found.devices.get(group.device)
    if device is None or not device.exists:
        return Refusal(group.name, f"its device {group.device} is not there")
    existing = found.groups.get(group.name)
    if existing:
        members = [physical for physical in found.physical if physical.group == group.name]
        if any(member.number == device.number for member in members):
            return existing
        where = ", ".join(member.device for member in members) or "no device"
        return Refusal(group.name, f"it is on {where}, wanted on {group.device}")
    complaint = _not_blank(device, found) or (
        f"{group.device} has {in_words(device.size)}, {in_words(group.size)} were declared"
        if device.size < group.size
        else ""
    )
    if complaint:
        return Refusal(group.name, complaint)
    usable = (device.size - LABEL) // EXTENT * EXTENT
    return FoundGroup(group.name, usable, EXTENT, usable)


def _not_blank(device: Device, found: LvmState) -> str:
    """Why nothing may be made on `device`, or nothing."""
    owner = next((pv.group or "no group" for pv in found.physical if pv.number == device.number), None)
    if owner is not None:
        return f"{device.path} is a physical volume of {owner}: nothing is overwritten"
    if device.signatures is None:
        return f"{device.path} cannot be read: nothing is overwritten"
    if device.signatures:
        what = ", ".join(device.signatures)
        return f"{device.path} is not empty, {what} was found: nothing is overwritten"
    return ""


def _make_group(group: VolumeGroup) -> Step:
    # Without --yes, and with nothing to read an answer from: where there is a signature after all, vgcreate
    # asks, takes the end of file for a no, and fails.
    name, device = shlex.quote(group.name), shlex.quote(group.device)
    return Step(
        group.name,
        f"volume group {group.name} made on {group.device}",
        f"vgcreate -s {EXTENT}b {name} {device} </dev/null",
    )


def _too_much(wanted: Sequence[Volume], found: LvmState, usable: dict[str, FoundGroup]) -> Iterator[Refusal]:
    for name, group in usable.items():
        sizes = {v.spec: rounded(v.size, group.extent) for v in wanted if v.group == name}
        have = {spec: found.volumes[spec].size for spec in sizes if spec in found.volumes}
        needed = sum(size - have.get(spec, 0) for spec, size in sizes.items())
        if needed > group.free:
            yield Refusal(
                name,
                f"{in_words(needed)} more are wanted, {in_words(group.free)} are free: "
                "nothing is done to any volume until they fit",
            )


def _volume(volume: Volume, found: LvmState, usable: dict[str, FoundGroup]) -> Iterator[Step | Refusal]:
    group = usable.get(volume.group)
    have = found.volumes.get(volume.spec)
    if group is None:
        if have is None:
            yield Refusal(volume.guest, f"{volume.spec} is not made: {volume.group} is not as declared")
        return
    size = rounded(volume.size, group.extent)
    if have is None:
        yield _make(volume, size)
        return
    owners = sorted(tag.removeprefix("guest=") for tag in have.tags if tag.startswith("guest="))
    if owners not in ([], [volume.guest]):
        yield Refusal(volume.guest, f"{volume.spec} belongs to {', '.join(owners)} (its tags)")
        return
    if have.layout != "linear":
        yield Refusal(volume.guest, f"{volume.spec} is a {have.layout} volume, not a plain one: left alone")
        return
    yield from _keep(volume, have, size)


def _make(volume: Volume, size: int) -> Step:
    # Its extents may have been another guest's, and a guest must not see, let alone boot, what that one
    # wrote. lvcreate's own wiping (-Wy -Zy) takes away the start only: a partition table's copy at the end
    # and every block in between stay readable, and a plain discard promises no zeroes. So all of it is
    # zeroed, see `_wipe`. The tag makes that safe to be interrupted: until it is off no guest gets the
    # volume, and the next run wipes again.
    tags = " ".join(f"--addtag {shlex.quote(tag)}" for tag in (MANAGED, f"guest={volume.guest}", FRESH, UNWIPED))
    return Step(
        volume.guest,
        f"{volume.spec} made, {in_words(size)}",
        f"lvcreate -y -Wn -Zn -L {size}b -n {shlex.quote(volume.name)} {tags} {shlex.quote(volume.group)}"
        f" && {_wipe(volume, size)}",
    )


def _wipe(volume: Volume, size: int) -> str:
    # A hole punched in a block device is certain zeroes that take no space (fallocate(2); the kernel refuses
    # where the disk cannot do that). blkdiscard -z alone would fill a thin or sparse disk below: it asks for
    # zeroes that stay allocated. It is the second choice, written out once, at creation.
    spec, path = shlex.quote(volume.spec), shlex.quote(volume.path)
    return f"{{ fallocate -p -o 0 -l {size} {path} || blkdiscard -z {path}; }} && lvchange --deltag {UNWIPED} {spec}"


def _keep(volume: Volume, have: LogicalVolume, size: int) -> Iterator[Step]:
    spec = shlex.quote(volume.spec)
    if have.active is False:
        yield Step(volume.guest, f"{volume.spec} activated", f"lvchange -ay {spec}")
    if UNWIPED in have.tags:
        yield Step(volume.guest, f"{volume.spec} wiped", _wipe(volume, have.size))
    if size > have.size:
        yield Step(
            volume.guest,
            f"{volume.spec} grown from {in_words(have.size)} to {in_words(size)}",
            f"lvextend -L {size}b {spec}",
        )
    missing = [tag for tag in (MANAGED, f"guest={volume.guest}") if tag not in have.tags]
    # A retirement that was written down, begun, and taken back.
    surplus = sorted(tag for tag in have.tags if tag.startswith("retired="))
    if missing or surplus:
        tags = [f"--addtag {shlex.quote(tag)}" for tag in missing]
        tags += [f"--deltag {shlex.quote(tag)}" for tag in surplus]
        tags += ["--setautoactivation y"] if surplus else []
        yield Step(volume.guest, f"{volume.spec} tagged", f"lvchange {' '.join(tags)} {spec}")


def _unmanaged(
    groups: Sequence[VolumeGroup], volumes: Sequence[Volume], found: LvmState, declared: Collection[str]
) -> Iterator[str]:
    names = {group.name for group in groups}
    known = {volume.spec for volume in volumes}
    for spec, have in sorted(found.volumes.items()):
        if spec in known or (have.group not in names and MANAGED not in have.tags):
            continue
        if is_retired(have) or any(f"guest={guest}" in have.tags for guest in declared):
            continue
        yield f"unmanaged: {have.name} (left alone)"


def is_retired(volume: LogicalVolume) -> bool:
    """True for a volume that was renamed and tagged by a retirement."""
    match = RETIRED.fullmatch(volume.name)
    return match is not None and f"retired={match[1]}" in volume.tags


def plan_retirement(
    volumes: Sequence[Volume],
    found: LvmState,
    in_use: Collection[str],
    today: date,
    released: Collection[str] = (),
) -> Plan:
    """Return what renames the volumes whose date has come, and destroys those whose second date has.

    Arguments: `volumes`, as wanted, those without a date are left out here; `found`; `in_use`, paths of all
    devices in any domain's definition, inactive or live; `today`; `released`, guests whose definition goes
    earlier in the same run: if that fails, their volumes stay as they are.

    A volume is destroyed only if it is *found* renamed: never by the run that renames it.
    """
    steps: list[Step] = []
    refused: list[Refusal] = []
    for volume in volumes:
        if not volume.is_retired(today):
            continue
        subject = volume.guest if volume.guest in released else volume.spec
        live = found.volumes.get(volume.spec)
        gone = found.volumes.get(f"{volume.group}/{volume.retired_name}")
        outcome: Step | Refusal | None = None
        if live and gone:
            outcome = Refusal(subject, f"both {live.spec} and {gone.spec} are there: left alone")
        elif live:
            outcome = _retire(subject, volume, live, in_use)
        elif gone and volume.destroy and volume.destroy <= today:
            outcome = _destroy(subject, volume, gone, in_use)
        if isinstance(outcome, Refusal):
            refused.append(outcome)
        elif outcome:
            steps.append(outcome)
    return Plan(tuple(steps), tuple(refused))


def _held(volume: LogicalVolume, in_use: Collection[str]) -> str:
    """Why `volume` cannot be retired or destroyed now, or nothing."""
    if volume.path in in_use:
        return "it is in the definition of a guest"
    if volume.open:
        return "it is open"
    if volume.open is None and volume.active is not False:
        return "whether it is open cannot be known"
    return ""


def _retire(subject: str, volume: Volume, live: LogicalVolume, in_use: Collection[str]) -> Step | Refusal:
    held = _held(live, in_use)
    if held:
        return Refusal(subject, f"{volume.spec} is not retired: {held}")
    owners = [tag for tag in live.tags if tag.startswith("guest=")]
    if owners not in ([], [f"guest={volume.guest}"]):
        return Refusal(subject, f"{volume.spec} is not retired: it belongs to another ({', '.join(owners)})")
    group, name, spec = (shlex.quote(text) for text in (volume.group, volume.name, volume.spec))
    # Deactivation is the kernel's own word that nobody has it open, and leaves no device to boot by mistake. Each
    # change of metadata is an event at which udev may activate the group again (lvmautoactivation(7)): so that is
    # taken from the volume, and it is deactivated once more under its last name.
    return Step(
        subject,
        f"{volume.spec} retired, now {volume.retired_name}",
        f"lvchange -an {spec} && lvchange --setautoactivation n --addtag {MANAGED} "
        f"--addtag retired={volume.retired:%Y%m%d} {spec} && lvrename {group} {name} "
        f"{shlex.quote(volume.retired_name)} && lvchange -an {shlex.quote(f'{volume.group}/{volume.retired_name}')}",
    )


def _destroy(subject: str, volume: Volume, gone: LogicalVolume, in_use: Collection[str]) -> Step | Refusal:
    held = _held(gone, in_use)
    if held:
        return Refusal(subject, f"{gone.spec} is not destroyed: {held}")
    if not is_retired(gone):
        return Refusal(subject, f"{gone.spec} is not destroyed: it has no tag of its retirement")
    if not (volume.none_to_keep or "").strip():
        return Refusal(
            subject,
            f"{gone.spec} is not destroyed: no fresh backup is known, and no none_to_keep says why not",
        )
    spec = shlex.quote(gone.spec)
    tag = f"retired={volume.retired:%Y%m%d}"
    # lvs and lvremove exit with 0 also if nothing is selected: the name printed is what counts.
    return Step(
        subject,
        f"{gone.spec} destroyed ({volume.none_to_keep})",
        f"lvs --noheadings -o lv_name -S 'lv_tags={{\"{tag}\"}}' {spec} | grep -qF {shlex.quote(gone.name)}"
        f" && lvremove -y {spec}",
    )


def check_guests(guests: Sequence[Guest], wanted: Sequence[Volume]) -> None:
    """Raise ValueError for a volume of no guest, or a guest that is there twice."""
    names = [guest.name for guest in guests]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"guest {name} is there twice")
    for volume in wanted:
        if volume.guest not in names:
            raise ValueError(f"volume {volume.spec}: there is no guest {volume.guest}")


UNASKED = {
    "lvm": "LVM's state could not be read, so nothing is done to any volume",
    "libvirt": "libvirt is installed and cannot be asked, so nothing is done to any guest or volume",
}


def ask_peers(peers: Sequence[str]) -> Mapping[str, LibvirtState | None]:
    """Return what libvirt has on each of `peers`, None where that is unknown; none fails by it."""
    return {peer: ask(peer, Libvirt()) for peer in peers}


@operation()
def volumes(
    groups: Sequence[VolumeGroup],
    wanted: Sequence[Volume],
    guests: Sequence[Guest],
    today: date,
    *,
    probes: Mapping[str, str] | None = None,
    peers: Sequence[str] = (),
    create: Collection[str] = (),
) -> Generator[FunctionCommand, None, None]:
    """Make and grow the volumes of this host, as one set.

    Arguments: `groups` of this host; `wanted`, the volumes of all guests that may live here; `guests`, those
    guests: only volumes of one that is here, or is to be made here, are touched; `today`; `probes`, as for
    `domains`, which then need not ask again; `peers`, names of the hosts that may have a guest instead;
    `create`, guests that the owner said to make here.

    Fails: ValueError for a set that contradicts itself, before anything is touched.
    """
    check_set(groups, wanted)
    check_guests(guests, wanted)
    lvm = recall(host, Lvm, devices=[group.device for group in groups])
    libvirt = recall(host, Libvirt, probes=probes)
    unknown = [name for name, fact in (("lvm", lvm), ("libvirt", libvirt)) if fact is None]
    if lvm is None or libvirt is None:
        yield from perform(Plan(refused=tuple(Refusal(name, UNASKED[name]) for name in unknown)))
        return
    places = places_of(guests, libvirt, lvm, lambda: ask_peers(peers), create)
    here = {name for name, place in places.items() if isinstance(place, Here | Create)}
    mine = [volume for volume in wanted if volume.guest in here]
    yield from perform(plan_volumes(groups, mine, lvm, today, declared={guest.name for guest in guests}))


@operation()
def preflight(
    groups: Sequence[VolumeGroup], wanted: Sequence[Volume], today: date
) -> Generator[FunctionCommand, None, None]:
    """Stop everything else on this host if a volume would have to shrink: that is refused before anything is
    touched.

    Arguments: `groups` of this host; `wanted`, the volumes of all guests that may live here; `today`.
    """
    lvm = recall(host, Lvm, devices=[group.device for group in groups])
    shrinking = () if lvm is None else (*_shrinking([it for it in wanted if not it.is_retired(today)], lvm),)
    if shrinking:
        outcome_of(host).halted = True
    yield from perform(Plan(refused=shrinking))
