"""Where a guest lives: a fact, asked of both twins, not the inventory's word.

A guest has a home and may live on either twin. Its volume is made, its domain defined or started, only where
it is, or where it is certain that it is nowhere. `place` is that decision, and nothing else decides it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from facts.linux.domain import Definition
from facts.linux.libvirt import Domain, LibvirtState
from facts.linux.lvm import FRESH, LogicalVolume, LvmState


@dataclass(frozen=True)
class Guest:
    """A guest as wanted.

    Arguments: `definition`, with its name; `home`, this host is its home; `autostart`; `runs`, it shall run;
    `encrypted`, it waits for a passphrase at boot; `retired`, all of its volumes are; `console`, the command
    that the owner types to see its console, for the line that asks for a passphrase.
    """

    definition: Definition
    home: bool = True
    autostart: bool = True
    runs: bool = True
    encrypted: bool = False
    retired: bool = False
    console: str = ""

    @property
    def name(self) -> str:
        """The guest's name, the same everywhere."""
        return self.definition.name


@dataclass(frozen=True)
class Here:
    """It has its domain on this host and on no other that could be asked."""

    domain: Domain


@dataclass(frozen=True)
class Elsewhere:
    """It has its domain on `peer`, in `state`; `left_behind`, its volumes that are here all the same."""

    peer: str
    state: str
    left_behind: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unknown:
    """It has no domain here, and `peers` could not be asked."""

    peers: tuple[str, ...]


@dataclass(frozen=True)
class Create:
    """It is nowhere and shall be made here; `why`, "" or the owner's word."""

    why: str = ""


@dataclass(frozen=True)
class LeftBehind:
    """It is nowhere, but was here or on `peer`: `volumes` of it were in a definition before, or a move left one."""

    volumes: tuple[str, ...]
    peer: str = ""


@dataclass(frozen=True)
class Both:
    """It has a domain in `state` here and in `there` on `peer`."""

    state: str
    peer: str
    there: str


@dataclass(frozen=True)
class Nowhere:
    """It is nowhere, and this is not its home."""


Place = Here | Elsewhere | Unknown | Create | LeftBehind | Both | Nowhere


def domain_of(name: str, host: LibvirtState) -> Domain | None:
    """Return the domain `name` of a host, or None; what a move left behind ("migrated") does not count."""
    domain = host.domains.get(name)
    return None if domain is None or domain.moved_away else domain


def place(
    guest: Guest,
    here: LibvirtState,
    peers: Mapping[str, LibvirtState | None],
    volumes_here: Sequence[LogicalVolume],
    create: Collection[str] = (),
) -> Place:
    """Return where `guest` is, or that it is to be made here.

    Arguments: `here`, this host; `peers`, the other hosts that may have it, None for one that could not be
    asked; `volumes_here`, its volumes on this host; `create`, guests that the owner said to make here.

    The owner's word overrides what is unknown and what was left behind, never a domain that was seen.
    """
    mine = domain_of(guest.name, here)
    for peer, state in sorted(peers.items()):
        theirs = domain_of(guest.name, state) if state is not None else None
        if theirs and mine:
            return Both(mine.in_words, peer, theirs.in_words)
        if theirs:
            return Elsewhere(peer, theirs.in_words, tuple(volume.spec for volume in volumes_here))
    return Here(mine) if mine else _made_here(guest, here, peers, volumes_here, create)


def _made_here(
    guest: Guest,
    here: LibvirtState,
    peers: Mapping[str, LibvirtState | None],
    volumes_here: Sequence[LogicalVolume],
    create: Collection[str],
) -> Place:
    """Return the place of a guest of which no domain was seen."""
    unknown = tuple(sorted(peer for peer, state in peers.items() if state is None or state.booted is None))
    if unknown:
        return Create("the owner's word") if guest.name in create else Unknown(unknown)
    used = tuple(volume.spec for volume in volumes_here if FRESH not in volume.tags)
    theirs = {
        peer: state.booted[guest.name]
        for peer, state in sorted(peers.items())
        if state is not None and state.booted and guest.name in state.booted
    }
    # The owner's word is given to all twins at once, so it must be clear to each of them whose volumes it means:
    # the home's where it has any, else those of the only other one.
    if not guest.home:
        return Create("the owner's word") if used and not theirs and guest.name in create else Nowhere()
    if theirs and not used:
        peer, names = next(iter(theirs.items()))
        return LeftBehind(names, peer)
    # What a move left behind says that the guest existed: a new and empty one would be a mistake.
    if used or guest.name in here.domains:
        return Create("the owner's word") if guest.name in create else LeftBehind(used)
    return Create()


def needs_peers(guests: Sequence[Guest], here: LibvirtState, lvm: LvmState, create: Collection[str] = ()) -> bool:
    """Return whether the place of any guest depends on a peer, so that peers have to be asked.

    A guest that runs here is here. One that is off here may run on the peer (libvirt forgets the reason
    "migrated" when it is restarted): that is asked before it is started. One that has no domain here is only
    made at its home or on the owner's word; where neither holds, nothing is done whatever the peer would say.
    """
    for guest in guests:
        domain = domain_of(guest.name, here)
        acted_on = bool(volumes_of(guest, lvm)) if guest.retired else guest.home or guest.name in create
        if domain is None and acted_on:
            return True
        if domain is not None and not domain.active:
            return True
    return False


def volumes_of(guest: Guest, lvm: LvmState) -> tuple[LogicalVolume, ...]:
    """Return the volumes of `guest` on a host: tagged as its own, or named by its definition."""
    found = {volume.spec: volume for volume in lvm.of_guest(guest.name)}
    for disk in guest.definition.disks:
        volume = lvm.by_path(disk.device)
        if volume:
            found[volume.spec] = volume
    return tuple(found[spec] for spec in sorted(found))


def places_of(
    guests: Sequence[Guest],
    here: LibvirtState,
    lvm: LvmState,
    ask: Callable[[], Mapping[str, LibvirtState | None]],
    create: Collection[str] = (),
) -> dict[str, Place]:
    """Return the place of each of `guests`; `ask` is called once, and only if a place depends on it."""
    peers = ask() if needs_peers(guests, here, lvm, create) else {}
    return {guest.name: place(guest, here, peers, volumes_of(guest, lvm), create) for guest in guests}
