"""Guests of a hypervisor, as one set: defined, started, told of grown disks, and in the end undefined.

virsh(1). A guest that runs is never disturbed: what takes a restart is said, and done only on the owner's
word. Nothing here destroys (virsh destroy pulls the plug) or deletes storage.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from datetime import date

from pyinfra import host
from pyinfra.api import FunctionCommand, operation

from facts.linux.domain import NAME, Definition, differences, in_words, needs_restart, to_xml
from facts.linux.libvirt import Domain, Libvirt, LibvirtState, Unreadable
from facts.linux.lvm import FRESH, UNWIPED, Lvm, LvmState
from fleet.connector import recall
from operations.linux.places import (
    Both,
    Create,
    Elsewhere,
    Guest,
    Here,
    LeftBehind,
    Place,
    Unknown,
    places_of,
)
from operations.linux.volumes import UNASKED, Volume, ask_peers, check_guests, plan_retirement
from operations.steps import Plan, Refusal, Step, perform

SHUTDOWN_SECONDS = 180
"""How long a guest that was asked to shut down may take before it is left as it is."""

Item = Step | Refusal | str  # a str is a note


def plan_domains(
    guests: Sequence[Guest],
    here: LibvirtState,
    lvm: LvmState,
    places: Mapping[str, Place],
    restart: Collection[str] = (),
) -> Plan:
    """Return what defines, starts, resizes and undefines the guests of one host.

    Arguments: `guests`, all that may live here; `here` and `lvm`, as found on this host; `places`, of each
    guest (`places_of`); `restart`, guests that the owner said to restart if that is due.

    Fails: ValueError for a definition that cannot be written, or a name in `restart` that is no guest.
    """
    names = {guest.name for guest in guests}
    for name in sorted({*restart} - names):
        raise ValueError(f"restart={name}: there is no such guest")
    items: list[Item] = []
    for guest in guests:
        items += _guest(guest, here, lvm, places[guest.name], guest.name in restart)
    for name, domain in sorted(here.domains.items()):
        if name not in names:
            items.append(f"unmanaged: {name} (left {domain.state})")
    return Plan(
        tuple(item for item in items if isinstance(item, Step)),
        tuple(item for item in items if isinstance(item, Refusal)),
        tuple(item for item in items if isinstance(item, str)),
    )


def definitions_in_use(here: LibvirtState, without: Collection[str] = ()) -> frozenset[str]:
    """Return the devices in any definition on a host, inactive or live, but for domains named in `without`.

    An unreadable definition has none: see `unreadable`.
    """
    return frozenset(
        disk.device
        for domain in here.domains.values()
        if domain.name not in without
        for definition in (domain.definition, domain.live)
        if isinstance(definition, Definition)
        for disk in definition.disks
    )


def unreadable(here: LibvirtState) -> tuple[str, ...]:
    """Return the domains whose definition cannot be read: what they use is unknown, so nothing is retired."""
    return tuple(
        name
        for name, domain in sorted(here.domains.items())
        if isinstance(domain.definition, Unreadable) or isinstance(domain.live, Unreadable)
    )


def plan_guests(
    guests: Sequence[Guest],
    volumes: Sequence[Volume],
    here: LibvirtState,
    lvm: LvmState,
    places: Mapping[str, Place],
    *,
    today: date,
    restart: Collection[str] = (),
) -> Plan:
    """Return `plan_domains`, then `plan_retirement` of `volumes`: a guest undefined first has its volumes
    free.

    Only volumes of guests that have no domain on a peer, and whose place is known, are renamed. What was
    renamed before depends on this host alone.
    """
    plan = plan_domains(guests, here, lvm, places, restart)
    undefined = {guest.name for guest in guests for step in plan.steps if step.command == _undefine(guest.name).command}
    due = [volume for volume in volumes if volume.is_retired(today)]
    odd = unreadable(here)
    if due and odd:
        refusal = Refusal("volumes", f"nothing is retired: the definition of {', '.join(odd)} cannot be read")
        return Plan(plan.steps, (*plan.refused, refusal), plan.notes)
    known = {name for name, place in places.items() if not isinstance(place, Unknown | Both | Elsewhere)}
    end = plan_retirement(
        [volume for volume in due if volume.guest in known or volume.spec not in lvm.volumes],
        lvm,
        definitions_in_use(here, without=undefined),
        today,
        released=undefined,
    )
    return Plan((*plan.steps, *end.steps), (*plan.refused, *end.refused), (*plan.notes, *end.notes))


def plan_networks(here: LibvirtState) -> Plan:
    """Return what removes libvirt's own network `default`: guests are on the bridges of the inventory.

    It is left alone while a domain that runs hangs on it.
    """
    network = here.networks.get("default")
    if network is None:
        return Plan()
    users = sorted(name for name, it in here.domains.items() if it.active and network.name in it.networks)
    if users:
        return Plan(refused=(Refusal("network default", f"it is in use by {', '.join(users)}: left alone"),))
    commands = [
        *(["virsh -q net-destroy default"] if network.active else []),
        *(["virsh -q net-autostart default --disable"] if network.autostart else []),
        "virsh -q net-undefine default",
    ]
    return Plan((Step("network default", "removed", " && ".join(commands)),))


def _guest(guest: Guest, here: LibvirtState, lvm: LvmState, place: Place, restart: bool) -> Iterator[Item]:
    """Yield what is to be done for one guest, by its place."""
    if not NAME.fullmatch(guest.name):
        raise ValueError(f"guest {guest.name!r}: a name is a letter, then letters, digits and hyphens")
    stale = here.domains.get(guest.name)
    if stale is not None and stale.moved_away and not isinstance(place, Create):
        yield f"{guest.name}: a definition was left behind by a move ({stale.in_words}), it is never started"
    match place:
        case Here(domain):
            yield from _retired(guest, domain) if guest.retired else _here(guest, domain, here, lvm, restart)
        case Create():
            if not guest.retired:
                yield from _create(guest, stale, lvm)
        case _:
            yield from _not_here(guest, here, place)


def _not_here(guest: Guest, here: LibvirtState, place: Place) -> Iterator[Item]:
    match place:
        case Elsewhere(peer, _, volumes) if volumes:
            yield f"{guest.name}: lives on {peer}; left behind here, never booted: {', '.join(volumes)}"
        case Elsewhere(peer) if guest.home:
            yield f"{guest.name}: lives on {peer}"
        case Unknown(peers) if not guest.retired:
            yield (
                f"{guest.name}: its place is unknown ({', '.join(peers)} cannot be asked); "
                f"--data create={guest.name} makes it here"
            )
        case LeftBehind(volumes, peer) if not guest.retired:
            owner = peer or here.host or "this host"
            what = (
                f"has volumes on {owner} that were booted before ({', '.join(volumes)})"
                if volumes
                else f"was moved away from {owner}"
            )
            word = f"--data create={guest.name}"
            yield Refusal(
                guest.name,
                f"{what} but no domain on either twin; if {'they are its disks' if volumes else 'it is lost'}: {word}",
            )
        case Both(state, peer, there):
            yield Refusal(guest.name, f"has two domains, {state} here and {there} on {peer}: both left alone")
        case _:
            pass


def _retired(guest: Guest, domain: Domain) -> Iterator[Item]:
    if domain.active:
        yield Refusal(guest.name, f"it is retired, but {domain.in_words}: shut it down first")
    elif domain.persistent:
        yield _undefine(guest.name)


def _undefine(name: str) -> Step:
    # No flag: with storage, snapshots or a saved state virsh refuses, and that is right.
    return Step(name, "undefined", f"virsh -q undefine {shlex.quote(name)}")


def _create(guest: Guest, stale: Domain | None, lvm: LvmState) -> Iterator[Item]:
    refusal = _unready(guest, lvm)
    if refusal:
        yield refusal
        return
    if stale is not None and stale.uuid != guest.definition.uuid:
        yield _other(guest, stale)
        return
    old = stale.definition if stale is not None else None
    if not isinstance(old, Definition) or differences(guest.definition, old):
        yield _define(guest, "defined")
    yield from _unfresh(guest, lvm)
    if guest.autostart != (stale is not None and stale.autostart):
        yield _autostart(guest)
    if guest.runs:
        yield _start(guest)


def _here(guest: Guest, domain: Domain, here: LibvirtState, lvm: LvmState, restart: bool) -> Iterator[Item]:
    refusal = _left_alone(guest, domain) or _unready(guest, lvm)
    if refusal:
        yield refusal
        return
    if domain.state == "in shutdown":
        yield f"{guest.name}: is shutting down; left alone until it has"
        return
    if isinstance(domain.definition, Definition):
        words = differences(guest.definition, domain.definition)
        if words:
            yield _define(guest, f"redefined ({'; '.join(words)})")
    else:
        yield _define(guest, "made persistent")
    yield from _unfresh(guest, lvm)
    if domain.autostart != guest.autostart:
        yield _autostart(guest)
    if domain.active:
        yield from _running(guest, domain, here, lvm, restart)
    elif guest.runs:
        yield _start(guest)


def _left_alone(guest: Guest, domain: Domain) -> Refusal | None:
    """Why nothing is done to a domain that is here, if that is so."""
    if domain.uuid != guest.definition.uuid:
        return _other(guest, domain)
    calm = domain.state in {"running", "idle", "in shutdown"}
    if not calm and not (domain.state == "shut off" and domain.reason != "crashed"):
        return Refusal(guest.name, f"it is {domain.in_words}: left alone")
    if isinstance(domain.definition, Unreadable):
        return Refusal(guest.name, f"its definition cannot be compared: {domain.definition.reason}")
    return None


def _other(guest: Guest, domain: Domain) -> Refusal:
    return Refusal(
        guest.name,
        f"a domain of that name is here that is not ours (uuid {domain.uuid}, ours is {guest.definition.uuid})",
    )


def _unready(guest: Guest, lvm: LvmState) -> Refusal | None:
    """Why its disks cannot be handed to a guest, if that is so."""
    for disk in guest.definition.disks:
        volume = lvm.by_path(disk.device)
        if volume is None:
            return Refusal(guest.name, f"its disk {disk.target}, {disk.device}, is not there")
        if UNWIPED in volume.tags:
            return Refusal(guest.name, f"its disk {disk.target}, {disk.device}, is not wiped yet")
    return None


def _define(guest: Guest, label: str) -> Step:
    return Step(guest.name, label, "virsh -q define /dev/stdin", stdin=to_xml(guest.definition))


def _unfresh(guest: Guest, lvm: LvmState) -> Iterator[Item]:
    """Before the first start and before autostart, but after the definition: a run that is killed in between
    finds either fresh volumes and no domain, or a domain.
    """
    specs = [
        volume.spec
        for disk in guest.definition.disks
        if (volume := lvm.by_path(disk.device)) is not None and FRESH in volume.tags
    ]
    if specs:
        words = " ".join(shlex.quote(spec) for spec in specs)
        yield Step(guest.name, f"{', '.join(specs)} taken into use", f"lvchange --deltag {FRESH} {words}")


def _autostart(guest: Guest) -> Step:
    name = shlex.quote(guest.name)
    if guest.autostart:
        return Step(guest.name, "autostart on", f"virsh -q autostart {name}")
    return Step(guest.name, "autostart off", f"virsh -q autostart --disable {name}")


def _start(guest: Guest) -> Step:
    return Step(guest.name, "started", f"virsh -q start {shlex.quote(guest.name)}")


def _running(guest: Guest, domain: Domain, here: LibvirtState, lvm: LvmState, restart: bool) -> Iterator[Item]:
    waits = guest.encrypted and here.answers.get(guest.name) is False
    due = () if isinstance(domain.live, Unreadable | None) else needs_restart(guest.definition, domain.live)
    if waits:
        yield f"{guest.name}: waits for its passphrase: {guest.console or console_command(guest.definition)}"
    if isinstance(domain.live, Unreadable):
        yield f"{guest.name}: what runs cannot be compared: {domain.live.reason}"
    elif due and not restart:
        yield (
            f"{guest.name}: {'; '.join(due)}: takes effect at its next start (--data restart={guest.name} does it now)"
        )
    yield from _resize(guest, domain, lvm)
    if not restart:
        return
    if not due:
        yield f"{guest.name}: runs as it is declared, not restarted"
    elif guest.encrypted and here.answers.get(guest.name) is not True:
        why = "waits for its passphrase" if waits else "may wait for its passphrase"
        yield Refusal(guest.name, f"not restarted: it {why}, {'; '.join(due)}")
    else:
        yield _restart(guest, due)


def _resize(guest: Guest, domain: Domain, lvm: LvmState) -> Iterator[Item]:
    for disk in guest.definition.disks:
        volume, seen = lvm.by_path(disk.device), domain.capacities.get(disk.device)
        if volume is not None and seen is not None and volume.size > seen:
            yield Step(
                guest.name,
                f"{disk.target} grown from {in_words(seen)} to {in_words(volume.size)}",
                f"virsh -q blockresize {shlex.quote(guest.name)} {shlex.quote(disk.device)} {volume.size}B",
            )


def _restart(guest: Guest, due: Sequence[str]) -> Step:
    name = shlex.quote(guest.name)
    # Asked once; a guest that does not hear is left running and the step fails.
    return Step(
        guest.name,
        f"restarted ({'; '.join(due)})",
        f"virsh -q shutdown {name} && end=$(( $(date +%s) + {SHUTDOWN_SECONDS} ))"
        f' && while [ "$(virsh -q domstate {name})" != "shut off" ]; do'
        f' [ "$(date +%s)" -lt "$end" ] || {{ echo "still running after {SHUTDOWN_SECONDS} s, left alone" >&2;'
        f" exit 1; }}; sleep 1; done && virsh -q start {name}",
    )


def console_command(definition: Definition) -> str:
    """Return the command that opens the console of a guest, to be typed on its hypervisor; Ctrl-] leaves it."""
    return f"socat -,rawer,escape=0x1d TCP:127.0.0.1:{definition.console}"


@operation()
def domains(
    guests: Sequence[Guest],
    volumes: Sequence[Volume],
    today: date,
    *,
    devices: Sequence[str] = (),
    probes: Mapping[str, str] | None = None,
    peers: Sequence[str] = (),
    create: Collection[str] = (),
    restart: Collection[str] = (),
) -> Generator[FunctionCommand, None, None]:
    """Bring the guests of this host to what is declared, and retire the volumes whose time has come.

    libvirt's own network goes in the same operation: it is the same fact.

    Arguments: `guests`, all that may live here; `volumes`, all of theirs, for the retired ones; `today`;
    `devices`, of the volume groups; `probes`, the addresses of encrypted guests, pinged once; `peers`, names
    of the hosts that may have a guest instead; `create` and `restart`, guests that the owner said to make
    here, or to restart if that is due.

    Fails: ValueError for wrong arguments, before anything is touched.
    """
    check_guests(guests, volumes)
    for word, names in (("create", create), ("restart", restart)):
        for name in sorted({*names} - {guest.name for guest in guests}):
            raise ValueError(f"{word}={name}: there is no such guest")
    lvm = recall(host, Lvm, devices=list(devices))
    libvirt = recall(host, Libvirt, probes=probes)
    unknown = [name for name, fact in (("lvm", lvm), ("libvirt", libvirt)) if fact is None]
    if lvm is None or libvirt is None:
        yield from perform(Plan(refused=tuple(Refusal(name, UNASKED[name]) for name in unknown)))
        return
    places = places_of(guests, libvirt, lvm, lambda: ask_peers(peers), create)
    plans = (
        plan_networks(libvirt),
        plan_guests(guests, volumes, libvirt, lvm, places, today=today, restart=restart),
    )
    yield from perform(
        Plan(
            tuple(step for plan in plans for step in plan.steps),
            tuple(refusal for plan in plans for refusal in plan.refused),
            tuple(note for plan in plans for note in plan.notes),
        )
    )
