"""ntpd(8), the clock of an OpenBSD host; ntpd.conf(5)."""

from __future__ import annotations

from collections.abc import Iterable

from deploys.rcd import back, restarted
from deploys.services.pf import Connect, Talking
from deploys.templates import template
from fleet.model.service import Daemon, Declaration, FileSet, none_to_keep
from fleet.model.site import Fleet, Host

CONF = "/etc/ntpd.conf"


class Ntpd(Talking):
    """A client of `servers`, pools of names or addresses; `constraints` are web servers whose clock bounds theirs.

    Without a constraint ntpd never sets a clock that is far off, it only slews; codes and DNSSEC need the right time.
    """

    base = True

    servers: tuple[str, ...] = ("pool.ntp.org",)
    constraints: tuple[str, ...] = ("9.9.9.9", "2620:fe::fe")

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare the daemon."""
        del host, fleet
        return Declaration(daemons=(Daemon(name="ntpd"),), state=none_to_keep("the drift is measured again"))

    def connects(self, host: Host, fleet: Fleet) -> tuple[Connect, ...]:
        """Return what it asks for the time, and for the bounds."""
        del host, fleet
        asked = [Connect(ports=(123,), protocols=("udp",), user="_ntp")]
        return (*asked, Connect(ports=(443,), user="_ntp")) if self.constraints else tuple(asked)

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield ntpd.conf; ntpd cannot read it again while it runs."""
        del host, fleet
        yield FileSet(
            name="ntpd",
            files=(template(CONF, group="wheel", servers=self.servers, constraints=self.constraints),),
            check=f"ntpd -n -f {{new}}{CONF}",
            apply=restarted("ntpd"),
            undo=back("ntpd", "restart"),
        )
