"""What a service says of itself: `Service`, `Declaration`, `File` (DESIGN, "How data flows")."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from fleet.model.base import Model
from fleet.model.types import Name, Port, Size

if TYPE_CHECKING:
    from fleet.model.site import Fleet, Host

ANYONE: tuple[IPv4Network | IPv6Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
"""For `Listen.source`: the whole internet."""


class Listen(Model):
    """A socket that a service listens on, and for whom: the firewall lets in nothing else.

    `during` names a table of addresses that is empty at rest and filled for a bounded time; without it the
    socket is open to `source` always.
    """

    port: Port
    protocol: Literal["tcp", "udp"] = "tcp"
    last_port: Port | None = None
    source: tuple[IPv4Network | IPv6Network, ...] = ANYONE
    during: str | None = None


class Daemon(Model):
    """A daemon by the name its init knows it by; with systemd a name without a dot is a service.

    `restart_on` names the file sets whose change needs a restart; those in `reload_on` need a reload only. A
    socket-activated daemon is `activated`: it shall be enabled, whether it runs is its socket's business.
    """

    name: str
    reload_on: tuple[str, ...] = ()
    restart_on: tuple[str, ...] = ()
    activated: bool = False


class File(Model):
    """One file as it is on the host: absolute path, whole text, owner, group and mode.

    A text ends with a newline. `secret` text is never shown in a diff or a log (DESIGN O5).
    """

    path: str
    text: str
    owner: str = "root"
    group: str = "root"
    mode: int = Field(default=0o644, ge=0, le=0o777)
    secret: bool = False

    @field_validator("path")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not value.startswith("/") or "/../" in value or value.endswith("/") or "\n" in value:
            raise ValueError(f"{value!r} is no absolute path of a file")
        return value

    @field_validator("text")
    @classmethod
    def _whole_lines(cls, value: str) -> str:
        if value and not value.endswith("\n"):
            raise ValueError("a file's text ends with a newline")
        if "\0" in value:
            raise ValueError("a file's text has no NUL in it")
        return value


class FileSet(Model):
    """Files that are checked, swapped in and rolled back together (DESIGN D2).

    Arguments: `name`, of the set, such as ``nsd``; `check`, a command that reads the staged tree at ``{new}`` and
    exits non-zero if a file is wrong; `apply`, a command that makes the running system follow the files; `undo`,
    the same for the old files after they were put back, and `undo_at_boot`, the same while the machine boots and
    the daemon has not started yet; `before`, a command whose standard output (sh) is added to the undo script, for
    running state that files do not have; `exclusive`, glob patterns of files that are moved away with the swap,
    because the daemon would read them beside ours; `dangerous`: it can lock the owner out, so it is applied with
    confirm-or-rollback (D3).
    """

    name: Name
    files: tuple[File, ...]
    check: str | None = None
    apply: str | None = None
    undo: str | None = None
    undo_at_boot: str | None = None
    before: str | None = None
    exclusive: tuple[str, ...] = ()
    dangerous: bool = False


class NoState(Model):
    """Says that a service keeps nothing worth a backup, and why."""

    reason: str = Field(min_length=8)


class Backup(Model):
    """What of a service is backed up: absolute paths, and the command that proves a restore."""

    paths: tuple[str, ...] = Field(min_length=1)
    proof: str


def none_to_keep(reason: str) -> NoState:
    """Say that there is no state to back up, for `reason`."""
    return NoState(reason=reason)


class VolumeGroup(Model):
    """An LVM volume group on one device; lvm(8). `size` is the least that the device must have, in bytes."""

    name: Name
    device: str
    size: Size

    @field_validator("device")
    @classmethod
    def _stable(cls, value: str) -> str:
        if not value.startswith("/dev/disk/by-"):
            raise ValueError(f"{value!r} is not stable: name the device below /dev/disk/by-id or by-partlabel")
        return value


class Volume(Model):
    """A logical volume of a guest as it shall be; `retired` and `destroy` are the two words of DESIGN O4."""

    group: Name
    name: str
    size: Size
    guest: str
    retired: date | None = None
    destroy: date | None = None
    none_to_keep: str | None = None

    @property
    def path(self) -> str:
        """The device of the volume."""
        return f"/dev/{self.group}/{self.name}"


class Declaration(Model):
    """All that a service wants of its host, said once (DESIGN, "One declaration, many uses").

    `state` has no default: a service that forgets its backup is an error.
    """

    packages: tuple[str, ...] = ()
    daemons: tuple[Daemon, ...] = ()
    listens: tuple[Listen, ...] = ()
    volume_groups: tuple[VolumeGroup, ...] = ()
    volumes: tuple[Volume, ...] = ()
    guests: tuple[str, ...] = ()
    bridges: tuple[str, ...] = ()
    state: NoState | Backup


class Service(Model):
    """One daemon or concern of a host; a subclass is a module in deploys/services.

    `base` marks what every host of an operating system has: it never makes a host concerned by a run.
    """

    base: ClassVar[bool] = False

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Return what this service wants of `host`. Pure: no remote command, no clock."""
        raise NotImplementedError

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield the service's sets of files for `host`, with every declaration of the fleet in sight."""
        del host, fleet
        return ()

    def documents(self, host: Host, fleet: Fleet) -> Iterable[File]:
        """Yield what is rendered for `host` and kept there by a program of its own, such as a guest's definition.

        The paths are below the folder of the program; for review and for parsers, never written by us.
        """
        del host, fleet
        return ()

    def prepares(self, host: Host, fleet: Fleet) -> None:
        """Call operations that have to come before the configuration. By default none."""

    def converges(self, host: Host, fleet: Fleet) -> None:
        """Call operations that have to come after the daemons. By default none."""
