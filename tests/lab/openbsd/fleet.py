"""All OpenBSD stand-ins of a lab, and the networks between them."""

import importlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fleet.load import SITES
from fleet.model.site import Site
from tests.lab.host import Process, run, step
from tests.lab.openbsd import networks
from tests.lab.openbsd.standin_host import StandIn


def production() -> tuple[Site, ...]:
    """Return the production sites, whose OpenBSD hosts the lab plays."""
    return tuple(importlib.import_module(f"inventories.{name}").site for name in SITES)


class StandIns:
    """The stand-ins of one lab.

    Args:
        index: the lab's number; their namespaces are `hfINDEX-NAME`.
        directory: the lab's directory.
    """

    def __init__(self, index: int, directory: Path) -> None:
        self._prefix = f"hf{index}"
        self._sites = production()
        self.hosts = {
            host.name: StandIn(host, site, index, directory)
            for site in self._sites
            for host in networks.stand_ins((site,))
        }

    def up(self, names: Sequence[str], public_key: str) -> None:
        """Install what is missing and switch on what is off, all at once.

        Args:
            names: which of them.
            public_key: who may log in as the deployment.

        Raises:
            LabError: one does not come up; the message names its console.
        """
        wanted = [self.hosts[name] for name in names]
        for host in wanted:
            host.install(public_key)
        networks.make(networks.plan(self._sites, self._prefix))
        if begun := [host for host in wanted if host.start()]:
            with step(f"starting {', '.join(host.name for host in begun)}"), ThreadPoolExecutor() as pool:
                list(pool.map(StandIn.wait, begun))
        for host in wanted:
            host.hand_over()

    def down(self, *, grace: float = 40) -> None:
        """Halt all that run.

        Args:
            grace: seconds they get; 0 takes their power away.
        """
        running = [host for host in self.hosts.values() if host.process() is not None]
        if running:
            with step("halting the stand-ins"), ThreadPoolExecutor() as pool:
                list(pool.map(lambda host: host.stop(grace=grace), running))

    def sweep(self) -> None:
        """End every process in the stand-ins' namespaces and remove these."""
        for path in sorted(Path("/run/netns").glob(f"{self._prefix}-*")):
            for pid in run(["ip", "netns", "pids", path.name]).split():
                Process.of(int(pid)).stop(grace=0)
            run(["ip", "netns", "del", path.name])

    def status(self) -> dict[str, str]:
        """Return one line for each stand-in that was ever installed."""
        return {name: _status(host) for name, host in self.hosts.items() if host.made()}

    def known_hosts(self) -> list[str]:
        """Return the lines of known_hosts of all that were installed."""
        return [line for host in self.hosts.values() if host.made() for line in host.known_hosts()]

    def unmodelled(self) -> dict[str, list[str]]:
        """Return what was asked of each stand-in that it does not model, by host; nothing is the good answer."""
        return {name: lines for name, host in self.hosts.items() if (lines := host.unmodelled())}


def _status(host: StandIn) -> str:
    process = host.process()
    if process is None:
        return "off"
    address, port = host.relay
    refused = len(host.unmodelled())
    warning = f"; {refused} invocations not modelled, see fleet lab unmodelled" if refused else ""
    return f"running, pid {process.pid}, {host.user}@{address}:{port}{warning}"
