"""What a service says of itself: `Service`, `Declaration`, `File` (DESIGN, "How data flows")."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from fleet.model.base import Model
from fleet.model.pki import Certificate
from fleet.model.secret import is_marked
from fleet.model.types import FilePath, Name, Port, Size

if TYPE_CHECKING:
    from fleet.model.site import Fleet, Host

ANYONE: tuple[IPv4Network | IPv6Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
"""For `Listen.source`: the whole internet."""


class Listen(Model):
    """A socket that a service listens on, and for whom: the firewall lets in nothing else.

    `during` names a table of addresses that is empty at rest and filled for a bounded time; without it the
    socket is open to `source` always. What `crosses` is for peers at other sites too: the router of this one lets in
    those of `source` that are outside, and hands them on. `shut` are peers that shall not come in any more: what they
    have open is cut.
    """

    port: Port
    protocol: Literal["tcp", "udp"] = "tcp"
    last_port: Port | None = None
    source: tuple[IPv4Network | IPv6Network, ...] = ANYONE
    during: str | None = None
    crosses: bool = False
    shut: tuple[IPv4Network | IPv6Network, ...] = ()


class Daemon(Model):
    """A daemon by the name its init knows it by; with systemd a name without a dot is a service.

    `restart_on` names the file sets whose change needs a restart; those in `reload_on` need a reload only. A
    socket-activated daemon is `activated`: it shall be enabled, whether it runs is its socket's business. One that
    is not `enabled` shall be stopped and stay off: smtpd(8) where postfix takes its place.

    For rcctl(8) alone: `flags`, the text after the daemon's name, evaluated by a shell at each start (None: its own
    default); `user`, `rtable`, and `timeout` in seconds. Package daemons start in the order of their declaration.
    """

    name: str
    reload_on: tuple[str, ...] = ()
    restart_on: tuple[str, ...] = ()
    activated: bool = False
    enabled: bool = True
    flags: str | None = None
    user: str | None = None
    rtable: int | None = Field(default=None, ge=0)
    timeout: int | None = Field(default=None, ge=1)


class LoginClass(Model):
    """A login class in a file of its own in /etc/login.conf.d; login.conf(5). OpenBSD only.

    Arguments: `capabilities`, such as ``auth-ssh=-totp``; what they do not say comes from the class `inherits`.
    """

    name: Name
    capabilities: tuple[str, ...] = Field(min_length=1)
    inherits: str = "default"


class Group(Model):
    """A group that is ours to make; `gid` None takes the next free one."""

    name: str
    gid: int | None = Field(default=None, ge=1000, le=60000)


class Account(Model):
    """An account of a person, of a service or of the deployment.

    `groups` are all its secondary groups, no more; `login_class` counts on OpenBSD only; `authorized_keys` are whole
    lines, None leaves the file alone; `password` is a hash, None one that no password fits. `removed` locks it and
    takes its keys away: it is never deleted, its files would belong to whoever gets the number next.
    """

    name: str
    uid: int | None = Field(default=None, ge=1000, le=60000)
    comment: str = ""
    home: str | None = None
    shell: str = "/bin/ksh"
    groups: tuple[str, ...] = ()
    login_class: str = "default"
    authorized_keys: tuple[str, ...] | None = None
    password: str | None = None
    removed: bool = False


class Job(Model):
    """A line of a user's crontab; crontab(5). `schedule` is five fields or ``@daily``; ``~`` is OpenBSD's random.

    `flags` are OpenBSD's own before the command: ``n`` mails only on failure, ``s`` runs one at a time.
    """

    user: str = "root"
    schedule: str
    command: str
    flags: str = ""


class Table(Model):
    """A table of addresses of pf(4) that something else than pf.conf fills; it is declared persist there.

    `file` is one that is loaded with the rules, and `expires` the seconds after which an address leaves it.
    """

    name: str
    file: str | None = None
    expires: int | None = Field(default=None, ge=60)


class LogFile(Model):
    """A file that a daemon writes its log into: it has to be there, and its content is not ours; newsyslog.conf(5).

    Arguments: `keep`, how many rotated ones are kept; `when` it is rotated, such as ``$D0``, each midnight;
    `kilobytes`, at what size besides, None for any.
    """

    path: FilePath
    owner: str = "root"
    group: str = "wheel"
    mode: int = Field(default=0o640, ge=0, le=0o777)
    keep: int = Field(ge=0, le=3660)
    when: str = "$D0"
    kilobytes: int | None = Field(default=None, ge=1)


class File(Model):
    """One file as it is on the host: absolute path, whole text, owner, group and mode.

    A text ends with a newline. `secret` text is never shown in a diff or a log (DESIGN O5); one with the mark of a
    secret in it always counts as such.
    """

    path: FilePath
    text: str
    owner: str = "root"
    group: str = "root"
    mode: int = Field(default=0o644, ge=0, le=0o777)
    secret: bool = False

    @field_validator("text")
    @classmethod
    def _whole_lines(cls, value: str) -> str:
        if value and not value.endswith("\n"):
            raise ValueError("a file's text ends with a newline")
        if "\0" in value:
            raise ValueError("a file's text has no NUL in it")
        return value

    @model_validator(mode="after")
    def _marked(self) -> File:
        if is_marked(self.text) and not self.secret:
            object.__setattr__(self, "secret", True)
        return self


class PersonLogin(Model):
    """A person's way into a host, as a change that might shut it is tried: with a key, as far as the code.

    Arguments: `user`, the account; `ports` of sshd(8), of which one has to let in; `public_keys`, each a line of
    ssh-keygen(1): the private half of one has to be where the run is.
    """

    user: str
    ports: tuple[Port, ...] = Field(min_length=1)
    public_keys: tuple[str, ...] = Field(min_length=1)


class FileSet(Model):
    """Files that are checked, swapped in and rolled back together (DESIGN D2).

    Arguments: `name`, of the set, such as ``nsd``; `check`, a command that reads the staged tree at ``{new}`` and
    exits non-zero if a file is wrong; `check_in_place`: the daemon's parser cannot be pointed at a tree completely
    (absolute includes), so ``{new}`` is empty and the check runs after the swap and before `apply`; `apply`, a
    command that makes the running system follow the files; `undo`, the same for the old files after they were put
    back, and `undo_at_boot`, the same while the machine boots and the daemon has not started yet; `before`, a
    command that may read ``{new}`` and whose standard output (sh) is added to the undo script, for running state
    that files do not have: also to stop who would write the files meanwhile, with the command that starts him again;
    `exclusive`, glob patterns of files that are moved away with the swap, because the daemon would read them beside
    ours; `dangerous`: it can lock the owner out, so it is applied with confirm-or-rollback (D3); `confirm_logins`,
    people's ways in that a dangerous set must leave open: those whose key is at hand are tried before it counts as
    confirmed, and without any key it is not touched.
    """

    name: Name
    files: tuple[File, ...]
    check: str | None = None
    check_in_place: bool = False
    apply: str | None = None
    undo: str | None = None
    undo_at_boot: str | None = None
    before: str | None = None
    exclusive: tuple[str, ...] = ()
    dangerous: bool = False
    confirm_logins: tuple[PersonLogin, ...] = ()


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
    classes: tuple[LoginClass, ...] = ()
    groups: tuple[Group, ...] = ()
    accounts: tuple[Account, ...] = ()
    jobs: tuple[Job, ...] = ()
    tables: tuple[Table, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    volume_groups: tuple[VolumeGroup, ...] = ()
    volumes: tuple[Volume, ...] = ()
    guests: tuple[str, ...] = ()
    bridges: tuple[str, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    logs: tuple[LogFile, ...] = ()
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

    def log_sockets(self) -> Iterable[str]:
        """Yield the sockets that syslogd(8) opens beside its own, for a chrooted daemon that knows no sendsyslog(2)."""
        return ()

    def networks_named(self) -> Iterable[tuple[str, str]]:
        """Yield, field by field, the networks that this service counts on its host to be on: field and network."""
        return ()

    def prepares(self, host: Host, fleet: Fleet) -> None:
        """Call operations that have to come before the configuration. By default none."""

    def converges(self, host: Host, fleet: Fleet) -> None:
        """Call operations that have to come after the daemons. By default none."""
