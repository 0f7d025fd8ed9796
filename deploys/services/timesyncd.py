"""systemd-timesyncd(8), the clock of an Ubuntu host; timesyncd.conf(5)."""

from __future__ import annotations

from collections.abc import Iterable

from deploys.templates import template
from fleet.model.service import Daemon, Declaration, FileSet, Service, none_to_keep
from fleet.model.site import Fleet, Host


class Timesyncd(Service):
    """A client of `servers`, names or addresses."""

    base = True

    servers: tuple[str, ...] = ("pool.ntp.org",)

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare the daemon."""
        del host, fleet
        return Declaration(
            packages=("systemd-timesyncd",),
            daemons=(Daemon(name="systemd-timesyncd", restart_on=("timesyncd",)),),
            state=none_to_keep("the time comes from the network"),
        )

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield the one file beside the system's own."""
        del host, fleet
        yield FileSet(
            name="timesyncd",
            files=(template("/etc/systemd/timesyncd.conf.d/homefleet.conf", servers=self.servers),),
        )
