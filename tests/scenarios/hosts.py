"""The hosts of the scenarios: stand-ins on one network, whose daemons are off so that many boot in seconds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fleet.model.site import Connection, Deployment, Host, Interface, Network, Os, Site
from tests.lab.host import LabError, step
from tests.lab.openbsd import mirror, networks
from tests.lab.openbsd.fleet import StandIns
from tests.lab.openbsd.standin import release
from tests.lab.openbsd.standin_host import StandIn
from tests.scenarios.scenario import NEWER, Scenario

_BOOT_SECONDS = 120.0
_NETWORK = "192.168.1"
_OFF = ("cron", "dhcpleased", "ntpd", "pflogd", "resolvd", "slaacd", "smtpd", "sndiod", "syslogd")

FEW = """\
cd /etc/rc.d && rm cron dhcpd nsd ntpd pflogd relayd smtpd snmpd syslogd unbound
few='^(root|nobody|sshd|www|_unbound|_pkgfetch|deploy):'
grep -E "$few" /etc/master.passwd >/etc/ptmp && pwd_mkdb -p /etc/ptmp"""
"""What makes few accounts and rc.d scripts of many: for each call pyinfra's own facts look at every one of them."""


class Bench(StandIn):
    """One of the hosts. The controller is in its network, so it needs no relay."""

    def install(self, public_key: str) -> None:
        """Install it as the installer does, and switch off what no scenario needs at boot."""
        super().install(public_key)
        upper = self.directory / "upper"
        lines = [*(f"{name}_flags=NO" for name in _OFF), "pf=NO"]
        (upper / "etc/rc.conf.local").write_text("".join(f"{line}\n" for line in sorted(lines)))

    def give_newer_mirror(self) -> None:
        """Put a mirror on it that has moved on; before its first start."""
        mirror.write(self.directory / "upper" / NEWER.lstrip("/"), {"jq": "1.9.0"})

    def play(self, kernel: str) -> None:
        """Let it be another build; before its first start."""
        path = self.directory / "upper" / release.OVERRIDE.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(kernel)

    def _start_relay(self) -> None:
        """Nobody comes from outside."""

    def wait(self) -> None:
        """Wait until its sshd listens."""
        until = time.monotonic() + _BOOT_SECONDS
        while not (self.directory / "upper/var/run/sshd.pid").exists():
            if self.process() is None:
                raise LabError(f"{self.name}: has ended, see {self.console}")
            if time.monotonic() > until:
                raise LabError(f"{self.name}: no sshd after {_BOOT_SECONDS:.0f} s, see {self.console}")
            time.sleep(0.05)


class Benches(StandIns):
    """The hosts of the scenarios in the place of the fleet's.

    Arguments: `index`, the lab's number; `directory`, the lab's; `played`, the scenarios of each host.
    """

    def __init__(self, index: int, directory: Path, played: Mapping[str, Sequence[Scenario]]) -> None:
        super().__init__(index, directory)
        site = _site(list(played))
        self._sites = (site,)
        self._played = played
        self.benches = {host.name: Bench(host, site, index, directory) for host in site.hosts}
        self.hosts = dict(self.benches)

    def up(self, names: Sequence[str], public_key: str) -> None:
        """Install and start them, all at once."""
        for name in names:
            bench = self.benches[name]
            bench.install(public_key)
            for scenario in self._played[name]:
                if NEWER in scenario.before:
                    bench.give_newer_mirror()
                if scenario.kernel:
                    bench.play(scenario.kernel)
        networks.make(networks.plan(self._sites, self._prefix))
        with step(f"starting {len(names)} hosts"):
            for name in names:
                self.benches[name].start()
            for name in names:
                self.benches[name].wait()


def _site(names: Sequence[str]) -> Site:
    # The first one has the gateway's address: so the lab takes the network for the flat, where the controller is.
    return Site(
        name="scenarios",
        domain="chown.me",
        networks=(Network(name="flat", ipv4=f"{_NETWORK}.0/24", gateway=f"{_NETWORK}.1"),),
        deployment=Deployment(port=2247, addresses=(f"{_NETWORK}.0/24",)),
        hosts=tuple(_host(name, f"{_NETWORK}.{number}") for number, name in enumerate(names, 1)),
    )


def _host(name: str, address: str) -> Host:
    return Host(
        name=name,
        os=Os.OPENBSD,
        connection=Connection(address=address, user="deploy", escalate="doas"),
        interfaces=(Interface(network="flat", name="vio0", addresses=(f"{address}/24",)),),
    )
