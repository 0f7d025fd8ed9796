"""What is asked of one host, all of it in one exec, and what it says; by operating system.

Each answer raises `Unknown` if it could not be had.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import PurePosixPath

from testinfra.host import Host as TestinfraHost

from deploys.services.nftables import CONF as NFTABLES_CONF
from deploys.services.pf import CONF as PF_CONF
from deploys.services.sshd import CONF as SSHD_CONF
from deploys.services.totp import SEEDS, USERS
from facts.filesets import FileSets, SetQuery, SetState, state_of_host
from facts.keys import Held, HeldQuery, HeldState, Keys, KeysState
from facts.linux.accounts import Accounts as UbuntuAccountsFact
from facts.linux.accounts import AccountsState as UbuntuAccounts
from facts.openbsd.accounts import Accounts
from facts.openbsd.accounts import AccountsState as OpenbsdAccounts
from facts.openbsd.crontab import Crontab, Crontabs
from facts.openbsd.logfiles import LogFiles
from facts.openbsd.pf import Pf, PfState
from facts.openbsd.pkg import OpenbsdPackages, Packages
from facts.openbsd.rcctl import Services, ServicesState
from facts.openbsd.sysctl import Sysctls, SysctlState
from fleet.model.site import Host
from tests.verify.declared import Declared
from tests.verify.modules import (
    dpkg,
    echo,
    facts,
    files,
    keys,
    libvirt,
    links,
    logs,
    lvm,
    netstat,
    nftables,
    oath,
    pfctl,
    processes,
    sockets,
    sshd,
    systemd,
)
from tests.verify.modules.files import Found
from tests.verify.modules.libvirt import Domain
from tests.verify.modules.sockets import Listening

MIGRATION_FILES = ("/run/homefleet/migration*",)
MIGRATION_KEYS = "/run/homefleet/migration.keys"
MIGRATION_UNITS = "homefleet-migration*"
MIGRATION_ACCOUNT = "moves"

ROOT_KEYS = ("/root/.ssh/authorized_keys",)
ROOT_KEYS_TOO = "/root/.ssh/authorized_keys2"
"""Where sshd(8) looks for root's keys."""


class Evidence(ABC):
    """What one host that was reached says, as far as both systems have it.

    Arguments: `remote`, the testinfra host.
    """

    def __init__(self, declared: Declared, remote: TestinfraHost) -> None:
        self.declared, self.remote = declared, remote

    @property
    def name(self) -> str:
        """The host's name."""
        return self.declared.host.name

    @property
    def markers(self) -> dict[str, str]:
        """Patterns of what a run leaves on a host that it did not finish with: ``pending`` and ``armed``."""
        return {word: f"{state_of_host(self.declared.openbsd)}/{word}/*" for word in ("pending", "armed")}

    def questions(self) -> dict[str, str]:
        """Return every command that the checks of this host will run, by a short name, to be asked in one exec."""
        patterns = (*self.markers.values(), *self.declared.patterns)
        root = {"root keys": keys.Keys.question(ROOT_KEYS, ROOT_KEYS_TOO), "root": sshd.Sshd.question(SSHD_CONF)}
        matching = {pattern: files.Files.match((pattern,)) for pattern in patterns}
        return self._asked() | self._pki_asked() | root | matching

    def _pki_asked(self) -> dict[str, str]:
        asked = {"private keys": facts.question(Keys(), **self._private_keys)}
        if self.declared.certificates:
            asked["certificates"] = facts.question(Held(), **self._held)
        if self.declared.log_server is not None:
            asked["line"] = logs.Logs.log(self.declared.log_line)
        return asked

    @abstractmethod
    def _asked(self) -> dict[str, str]:
        """Return what is asked of this system alone."""

    @property
    @abstractmethod
    def files(self) -> dict[str, Found]:
        """The declared files, as they are."""

    @property
    @abstractmethod
    def listening(self) -> tuple[Listening, ...]:
        """Every listening socket."""

    @property
    @abstractmethod
    def accounts(self) -> UbuntuAccounts | OpenbsdAccounts:
        """Groups and accounts."""

    @property
    @abstractmethod
    def owners(self) -> Mapping[str, tuple[str, str, int]]:
        """Owner, group and mode of the declared log files, and of the folders of private keys; by path."""

    @cached_property
    def private_keys(self) -> KeysState:
        """The declared private keys, as far as anybody may know them, and the host's clock."""
        return self._facts.read(Keys(), **self._private_keys)

    @cached_property
    def held(self) -> dict[str, HeldState]:
        """The declared certificates, by name."""
        return self._facts.read(Held(), **self._held)

    @property
    def asked(self) -> tuple[float, float]:
        """Our clock before the host was asked, and when it had answered; in seconds since the epoch."""
        between: tuple[float, float] = self.remote.backend.asked
        return between

    def logged(self) -> None:
        """Raise `Unknown` if the host could not log its line."""
        logs.logs(self.remote).answer(logs.Logs.log(self.declared.log_line))

    def arrived(self, lines: Mapping[str, str]) -> frozenset[str]:
        """Return which of `lines` are here, in the file that each belongs to; asked now, in an exec of its own."""
        return logs.logs(self.remote).arrived(lines)

    @cached_property
    def root_keys(self) -> tuple[str, ...]:
        """Files with a key that opens root's account."""
        return keys.keys(self.remote).look(ROOT_KEYS, ROOT_KEYS_TOO).holding

    @cached_property
    def root_login(self) -> tuple[str, ...]:
        """What sshd_config(5) says of root's login, each value as often as it is there."""
        return sshd.sshd(self.remote).permits(SSHD_CONF)

    @property
    def _facts(self) -> facts.Facts:
        return facts.facts(self.remote)

    @property
    def _key_folders(self) -> tuple[str, ...]:
        paths = (PurePosixPath(each.declared.key_path) for each in self.declared.certificates)
        return tuple(dict.fromkeys(str(path.parent) for path in paths))

    @property
    def _private_keys(self) -> dict[str, object]:
        paths = [each.declared.key_path for each in self.declared.certificates]
        return {"paths": paths, "openbsd": self.declared.openbsd}

    @property
    def _held(self) -> dict[str, object]:
        said = (each.declared for each in self.declared.certificates)
        queries = [HeldQuery(each.name, each.certificate_path, each.roots_path) for each in said]
        return {"sets": queries, "openbsd": self.declared.openbsd}

    def matching(self, pattern: str) -> tuple[str, ...]:
        """Return the files that match one of the patterns that were asked for."""
        return files.files(self.remote).matching((pattern,))


class UbuntuEvidence(Evidence):
    """What an Ubuntu host says."""

    def _asked(self) -> dict[str, str]:
        what = self.declared
        asked = {
            "packages": dpkg.LIST,
            "links": links.SHOW,
            "sockets": sockets.LISTENING,
            "units": systemd.Systemd.show(self._units),
            "files": files.Files.look(what.paths),
            "owners": files.Files.look(self._key_folders),
            "accounts": facts.question(UbuntuAccountsFact(), logins=self._logins),
        }
        if what.people:
            asked["codes"] = oath.Oath.question(SEEDS, USERS)
        if what.groups:
            asked |= {"groups": lvm.GROUPS, "volumes": lvm.VOLUMES}
        if what.filters:
            asked |= {"kernel": nftables.KERNEL, "ruleset": nftables.Nftables.trial(NFTABLES_CONF)}
        if what.is_hypervisor:
            asked["libvirt"] = libvirt.Libvirt.question(self._guests)
            asked["echo"] = echo.Echo.question(self._addresses)
            asked["keys"] = keys.Keys.question(MIGRATION_FILES, MIGRATION_KEYS)
            asked["migration"] = systemd.Systemd.listing(MIGRATION_UNITS)
            asked["moves"] = processes.Processes.question(MIGRATION_ACCOUNT)
        return asked

    @cached_property
    def dpkg(self) -> dpkg.Dpkg:
        """Packages."""
        return dpkg.dpkg(self.remote)

    @cached_property
    def units(self) -> dict[str, systemd.Unit]:
        """The declared daemons' units."""
        return systemd.systemd(self.remote).units(self._units)

    @cached_property
    def files(self) -> dict[str, Found]:
        """The declared files, as they are."""
        return files.files(self.remote).found(self.declared.paths)

    @cached_property
    def owners(self) -> Mapping[str, tuple[str, str, int]]:
        """Owner, group and mode of the folders of private keys; log files are declared on OpenBSD only."""
        found = files.files(self.remote).found(self._key_folders)
        return {path: (it.owner, it.group, it.mode) for path, it in found.items()}

    @cached_property
    def accounts(self) -> UbuntuAccounts:
        """Groups and accounts."""
        return self._facts.read(UbuntuAccountsFact(), logins=self._logins)

    @cached_property
    def codes(self) -> frozenset[str]:
        """Who has the secret of codes that is declared."""
        return oath.oath(self.remote).users(SEEDS, USERS)

    @cached_property
    def links(self) -> links.Links:
        """Interfaces."""
        return links.links(self.remote)

    @cached_property
    def lvm(self) -> lvm.Lvm:
        """Volumes."""
        return lvm.lvm(self.remote)

    @cached_property
    def nftables(self) -> nftables.Nftables:
        """The packet filter."""
        return nftables.nftables(self.remote)

    @property
    def listening(self) -> tuple[Listening, ...]:
        """Every listening socket."""
        return sockets.sockets(self.remote).listening

    @cached_property
    def libvirt(self) -> libvirt.Answer:
        """Domains and networks."""
        return libvirt.libvirt(self.remote).ask(self._guests)

    @cached_property
    def answering(self) -> frozenset[str]:
        """Which of the guests' addresses answer."""
        return echo.echo(self.remote).answering(self._addresses)

    @cached_property
    def keys(self) -> keys.KeyFiles:
        """What is there of keys for moving guests."""
        return keys.keys(self.remote).look(MIGRATION_FILES, MIGRATION_KEYS)

    @cached_property
    def migration_units(self) -> tuple[str, ...]:
        """Which units of a path between the twins are active."""
        return systemd.systemd(self.remote).active(MIGRATION_UNITS)

    @cached_property
    def migration_logins(self) -> tuple[str, ...]:
        """What runs as the account that the twin logs in as."""
        return processes.processes(self.remote).of(MIGRATION_ACCOUNT)

    def domain(self, guest: Host) -> Domain | None:
        """Return the domain of `guest` here, None if there is none."""
        return self.libvirt.domains.get(guest.name)

    @property
    def _logins(self) -> list[str]:
        return [account.name for account in self.declared.accounts]

    @property
    def _units(self) -> tuple[str, ...]:
        return tuple(unit_of(daemon.name) for daemon in self.declared.daemons)

    @property
    def _guests(self) -> tuple[str, ...]:
        return tuple(guest.name for guest in self.declared.guests)

    @property
    def _addresses(self) -> tuple[str, ...]:
        known = (guest.answers_at() for guest in self.declared.guests)
        return tuple(address for address in known if address is not None)


class OpenbsdEvidence(Evidence):
    """What an OpenBSD host says: mostly the answers of the facts that its operations read too."""

    def _asked(self) -> dict[str, str]:
        what = self.declared
        asked = {
            "packages": facts.question(OpenbsdPackages()),
            "services": facts.question(Services(), **self._services),
            "files": facts.question(FileSets(), **self._sets),
            "accounts": facts.question(Accounts(), **self._accounts),
            "sysctls": facts.question(Sysctls(), **self._sysctls),
            "jobs": facts.question(Crontabs(), **self._jobs),
            "sockets": netstat.SOCKETS,
        }
        if self._looked_at["paths"]:
            asked["owners"] = facts.question(LogFiles(), **self._looked_at)
        if what.filters:
            asked["pf"] = facts.question(Pf(), **self._tables)
            asked |= {"loaded": pfctl.LOADED, "ruleset": pfctl.Pfctl.trial(PF_CONF)}
        return asked

    @cached_property
    def packages(self) -> Packages:
        """Packages."""
        return self._facts.read(OpenbsdPackages())

    @cached_property
    def services(self) -> ServicesState:
        """The declared daemons."""
        return self._facts.read(Services(), **self._services)

    @cached_property
    def files(self) -> dict[str, Found]:
        """The declared files, as they are."""
        return {
            path: Found(it.owner, it.group, it.mode, "regular file", it.sha256)
            for state in self._states.values()
            for path, it in state.files.items()
        }

    @cached_property
    def owners(self) -> Mapping[str, tuple[str, str, int]]:
        """Owner, group and mode of the declared log files, and of the folders of private keys; by path."""
        return self._facts.read(LogFiles(), **self._looked_at)

    @cached_property
    def accounts(self) -> OpenbsdAccounts:
        """Login classes, groups and accounts."""
        return self._facts.read(Accounts(), **self._accounts)

    @cached_property
    def sysctls(self) -> SysctlState:
        """Kernel variables, and the file that sets them at boot."""
        return self._facts.read(Sysctls(), **self._sysctls)

    @cached_property
    def crontabs(self) -> dict[str, Crontab]:
        """Our part of the crontabs."""
        return self._facts.read(Crontabs(), **self._jobs)

    @cached_property
    def pf(self) -> PfState:
        """The packet filter's status and tables."""
        return self._facts.read(Pf(), **self._tables)

    @cached_property
    def pfctl(self) -> pfctl.Pfctl:
        """The packet filter's rules."""
        return pfctl.pfctl(self.remote)

    @property
    def listening(self) -> tuple[Listening, ...]:
        """Every listening socket."""
        return netstat.netstat(self.remote).listening

    @cached_property
    def _states(self) -> dict[str, SetState]:
        return self._facts.read(FileSets(), **self._sets)

    @property
    def _services(self) -> dict[str, object]:
        return {"names": [daemon.name for daemon in self.declared.daemons]}

    @property
    def _sets(self) -> dict[str, object]:
        queries = [SetQuery(each.name, tuple(file.path for file in each.files)) for each in self.declared.sets]
        return {"sets": queries, "openbsd": True}

    @property
    def _looked_at(self) -> dict[str, list[str]]:
        return {"paths": [*self._key_folders, *(each.path for each in self.declared.logs)]}

    @property
    def _accounts(self) -> dict[str, object]:
        what = self.declared
        return {"classes": [it.name for it in what.classes], "logins": [it.name for it in what.accounts]}

    @property
    def _sysctls(self) -> dict[str, object]:
        return {"keys": [key for key, _ in self.declared.sysctls]}

    @property
    def _jobs(self) -> dict[str, object]:
        return {"users": list(self.declared.job_users)}

    @property
    def _tables(self) -> dict[str, object]:
        names = (*(table.name for table in self.declared.tables), *self.declared.bounded)
        return {"tables": list(dict.fromkeys(names))}


def evidence_of(declared: Declared, remote: TestinfraHost) -> Evidence:
    """Return what is to be asked of a host, by its operating system."""
    return OpenbsdEvidence(declared, remote) if declared.openbsd else UbuntuEvidence(declared, remote)


def unit_of(daemon: str) -> str:
    """Return the unit of a daemon: without a dot in its name it is a service."""
    return daemon if "." in daemon else f"{daemon}.service"
