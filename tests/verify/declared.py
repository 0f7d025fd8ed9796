"""What is declared of a host, merged: what the checks are made from."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from functools import cached_property

from deploys.certificates import is_published
from deploys.services.hypervisor import Hypervisor
from deploys.services.logserver import Logging, client_certificate, log_server
from deploys.services.nftables import Nftables
from deploys.services.pf import Pf
from deploys.services.totp import Totp
from fleet.model.service import (
    Account,
    Daemon,
    Declaration,
    FileSet,
    Group,
    Job,
    Listen,
    LogFile,
    LoginClass,
    Table,
    VolumeGroup,
)
from fleet.model.site import Fleet, Host, Os
from fleet.pki.wanted import Wanted, wanted


class Declared:
    """What the services of a host declare and render, merged.

    Arguments: `today` decides which guests and disks are given up; `token` is a word that no other survey has.
    """

    def __init__(self, fleet: Fleet, host: Host, today: date, token: str = "") -> None:
        self.fleet, self.host, self.today, self.token = fleet, host, today, token

    @cached_property
    def _said(self) -> tuple[Declaration, ...]:
        return tuple(said for _, said in self.fleet.declarations(self.host))

    @property
    def openbsd(self) -> bool:
        """True if the host is OpenBSD's."""
        return self.host.os is Os.OPENBSD

    @property
    def packages(self) -> tuple[str, ...]:
        """Every package."""
        return self.fleet.packages(self.host)

    @property
    def daemons(self) -> tuple[Daemon, ...]:
        """Every daemon, each once."""
        return tuple({daemon.name: daemon for daemon in self.fleet.daemons(self.host)}.values())

    @property
    def listens(self) -> tuple[Listen, ...]:
        """Every socket that is declared."""
        return self.fleet.listens(self.host)

    @property
    def classes(self) -> tuple[LoginClass, ...]:
        """Every login class."""
        return tuple(each for said in self._said for each in said.classes)

    @property
    def unix_groups(self) -> tuple[Group, ...]:
        """Every group of group(5)."""
        return tuple(each for said in self._said for each in said.groups)

    @property
    def accounts(self) -> tuple[Account, ...]:
        """Every account."""
        return tuple(each for said in self._said for each in said.accounts)

    @property
    def people(self) -> tuple[str, ...]:
        """The names of those who come in with a code."""
        if self.host.service(Totp) is None:
            return ()
        return tuple(person.name for person in self.fleet.site_of(self.host).people if not person.retired)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every job, in the order of the crontabs."""
        return tuple(each for said in self._said for each in said.jobs)

    @property
    def job_users(self) -> tuple[str, ...]:
        """Whose crontabs have our jobs, or none: root and every account."""
        return tuple(sorted({"root", *(account.name for account in self.accounts)}))

    @property
    def tables(self) -> tuple[Table, ...]:
        """Every table of pf(4)."""
        return tuple(each for said in self._said for each in said.tables)

    @property
    def bounded(self) -> tuple[str, ...]:
        """The names of the sets of addresses that are empty at rest."""
        return _names(listen.during for listen in self.listens)

    @property
    def sysctls(self) -> tuple[tuple[str, str], ...]:
        """Every kernel variable, name and value, in the order of sysctl.conf(5)."""
        return tuple(each for said in self._said for each in said.sysctls)

    @property
    def groups(self) -> tuple[VolumeGroup, ...]:
        """Every volume group."""
        return self.fleet.volume_groups(self.host)

    @cached_property
    def sets(self) -> tuple[FileSet, ...]:
        """Every set of files."""
        return tuple(each for service in self.host.services for each in service.renders(self.host, self.fleet))

    @property
    def paths(self) -> tuple[str, ...]:
        """The path of every file."""
        return tuple(file.path for each in self.sets for file in each.files)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns that only our files may match."""
        return tuple(pattern for each in self.sets for pattern in each.exclusive)

    @cached_property
    def certificates(self) -> tuple[Wanted, ...]:
        """Every private certificate."""
        return tuple(each for each in wanted(self.fleet) if each.host == self.host.name)

    @property
    def logs(self) -> tuple[LogFile, ...]:
        """Every file that a daemon logs into."""
        return tuple(each for said in self._said for each in said.logs)

    @cached_property
    def log_server(self) -> Host | None:
        """The log server, if it shall have what this host logs: it is that host, or has its certificate."""
        server = log_server(self.fleet)
        if server is None or self.host.service(Logging) is None:
            return None
        mine = client_certificate(self.host, self.fleet)
        return server if all(is_published(each, self.host, self.fleet) for each in mine) else None

    @property
    def log_line(self) -> str:
        """What the host logs for this survey alone."""
        return f"{self.token}-{self.host.name}"

    @property
    def is_hypervisor(self) -> bool:
        """True if guests can live here."""
        return self.host.service(Hypervisor) is not None

    @property
    def filters(self) -> bool:
        """True if the host has our firewall."""
        return self.host.service(Pf if self.openbsd else Nftables) is not None

    @cached_property
    def guests(self) -> tuple[Host, ...]:
        """Who can live here and is not given up."""
        if not self.is_hypervisor:
            return ()
        return tuple(guest for guest in self.fleet.guests(self.host) if not given_up(guest, self.today))


def given_up(guest: Host, today: date) -> bool:
    """True if `guest` is retired: nothing of it is expected any more."""
    return guest.guest is not None and guest.guest.retired is not None and guest.guest.retired <= today


def _names(given: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({name for name in given if name is not None}))
