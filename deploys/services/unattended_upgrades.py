"""unattended-upgrades(8), security updates of an Ubuntu host; apt.conf(5), needrestart(1).

A hypervisor's guests and a container host's containers are what it is for: nothing here reboots the machine or
restarts what they run in. What has to wait for the owner is in a mail to him.
"""

from __future__ import annotations

from collections.abc import Iterable

from deploys.templates import template
from fleet.model.service import Daemon, Declaration, FileSet, Service, none_to_keep
from fleet.model.site import Fleet, Host

# Beginnings of names of packages whose maintainer scripts restart what guests and containers run in.
_WAITING = ("containerd", "docker", "libvirt", "qemu", "runc")

# Beginnings of names of units that needrestart leaves alone, beside those that it leaves alone anyway.
_UNTOUCHED = ("containerd", "docker", "libvirt", "qemu", "virt")


class UnattendedUpgrades(Service):
    """Security updates alone, every day."""

    base = True

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare the packages; cron for the daily word about what waits."""
        del host, fleet
        return Declaration(
            packages=("cron", "needrestart", "unattended-upgrades"),
            daemons=(Daemon(name="cron"), Daemon(name="unattended-upgrades")),
            state=none_to_keep("which updates there are is asked every day"),
        )

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield what apt, needrestart and cron are told."""
        del host, fleet
        yield FileSet(
            name="unattended-upgrades",
            files=(
                template("/etc/apt/apt.conf.d/60homefleet", waiting=_WAITING),
                template("/etc/needrestart/conf.d/homefleet.conf", untouched=_UNTOUCHED),
                template("/etc/cron.d/homefleet-updates"),
            ),
            check="apt-config -c {new}/etc/apt/apt.conf.d/60homefleet dump >/dev/null",
        )
