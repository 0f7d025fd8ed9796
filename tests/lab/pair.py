"""Two deployed hypervisors for tests: what a test types is what the owner types, through the same verbs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.connector import REPORT_VARIABLE
from fleet.load import ROOT
from tests.lab.lab import Lab

INVENTORY = """\
from fleet.load import publish
from fleet.model.lab import in_the_lab
from inventories import exoscale, home, vultr
from tests.lab import transcript
from tests.lab.variants import *

transcript.begin()

site = home.site
{changes}
site = in_the_lab(site, {index})
{late}
publish(globals(), site, *(in_the_lab(place, {index}) for place in (exoscale.site, vultr.site)))
"""

RUN_SECONDS = 900

HYPERVISORS = ["kvm1", "kvm2"]
"""What a pair consists of: the stand-ins of the guests are in labs of their own."""

GUESTS = ["db1", "docker2", "manicouagan1", "web1"]

GROWN = 'site = grow(site, "db1", "data", "21 GiB")\n'
NOW = GROWN + 'site = grow(site, "docker2", "root", "31 GiB")\n'
"""The changes that the story of `test_deploy` makes for good: volumes only grow, so later tests have them too."""


@dataclass(frozen=True)
class Run:
    """How a run ended: pyinfra's exit code, our report of the hosts, and all that was printed."""

    code: int
    report: dict[str, Any]
    output: str

    def changes(self, host: str) -> int:
        """Return how many changes were made on `host`."""
        return int(self.report["hosts"][host]["changes"])

    def failed(self, host: str) -> dict[str, str]:
        """Return what failed on `host`, and why."""
        return dict(self.report["hosts"][host]["failed"])

    def notes(self, host: str) -> str:
        """Return the lines for the owner about `host`."""
        return "\n".join(self.report["hosts"][host]["notes"])


@dataclass
class Pair:
    """kvm1 and kvm2 in a lab of their own, and the inventory that describes them."""

    lab: Lab
    folder: Path
    count: int = field(default=0)

    @property
    def index(self) -> int:
        """The lab's number."""
        return self.lab.index

    def reboot(self, host: str) -> None:
        """Reboot a machine from inside and wait until it is back."""
        self.lab.reboot(host)

    def inventory(self, changes: str = "", late: str = "") -> Path:
        """Write an inventory file: production's, in this lab, with `changes`: Python that rebinds ``site``.

        `late` does the same after the way to the hosts was settled: an address changed there changes on the host,
        and is still looked for at its old one.
        """
        self.count += 1
        path = self.folder / f"lab{self.count}.py"
        path.write_text(INVENTORY.format(changes=changes, late=late, index=self.lab.index))
        return path

    def command(
        self, arguments: Sequence[str] = (), changes: str = "", role: str = "hypervisor", late: str = ""
    ) -> list[str]:
        """Return the plain pyinfra command of a run."""
        pyinfra = str(Path(sys.executable).with_name("pyinfra"))
        return [pyinfra, *arguments, str(self.inventory(changes, late)), f"deploys/{role}.py"]

    def deploy(
        self, *arguments: str, changes: str = "", late: str = "", role: str = "hypervisor", yes: bool = True
    ) -> Run:
        """Run a role and return how it ended."""
        report = self.folder / f"report{self.count}.json"
        report.unlink(missing_ok=True)
        done = subprocess.run(
            self.command([*(["-y"] if yes else []), *arguments], changes, role, late),
            cwd=ROOT,
            env={**os.environ, REPORT_VARIABLE: str(report), "PYINFRA_PROGRESS": "off"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        found = json.loads(report.read_text()) if report.exists() else {"hosts": {}}
        return Run(done.returncode, found, done.stdout)

    def fleet(self, *arguments: str, changes: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a verb of `fleet`; ``@`` in the arguments stands for this pair's inventory."""
        path = str(self.inventory(changes or ""))
        argv = [sys.executable, "-c", "from fleet.cli import main; main()"]
        argv += [path if word == "@" else word for word in arguments]
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)

    def verify(self, *arguments: str, changes: str = "") -> subprocess.CompletedProcess[str]:
        """Run tests/verify over this pair, or over what `arguments` limit it to."""
        limits = arguments or tuple(word for name in HYPERVISORS for word in ("--limit", name))
        return self.fleet("verify", "@", *limits, changes=changes)

    def ssh(self, host: str, command: str, deadline: float = 120) -> str:
        """Run a command as root on `host` and return what it printed; LabError if it fails."""
        return self.lab.ssh(host, command, deadline=deadline)

    def execs(self, host: str, since: str) -> int:
        """Count the commands that sshd on `host` itself says it started since its clock showed `since`."""
        log = self.ssh(host, f"journalctl --since {shlex.quote(since)} -o cat _COMM=sshd-session + _COMM=sshd")
        # The commands of this counting are among them: `now` before, and this one.
        return len(re.findall(r"^Starting session: command", log, re.MULTILINE)) - 1

    def now(self, host: str) -> str:
        """Return the host's own clock, as journalctl reads it, a second later than everything before."""
        time.sleep(1.1)
        return self.ssh(host, "date '+%Y-%m-%d %H:%M:%S'").strip()

    def heartbeats(self, on: str = "kvm1") -> dict[str, int]:
        """Return the heartbeat counters that the guests of `on` wrote to their volumes, by guest.

        One that is still booting is waited for.
        """
        read = (
            "for g in $(virsh -q list --name); do n=0; while [ $n -lt 90 ]; do "
            "b=$(dd if=/dev/guests/$g-root bs=512 skip=8 count=1 iflag=direct 2>/dev/null | tr -d '\\000'); "
            'case $b in heartbeat*) echo "$b"; break;; esac; sleep 2; n=$((n + 1)); done; done'
        )
        lines = [line.split() for line in self.ssh(on, read, deadline=400).splitlines()]
        return {words[1]: int(words[2]) for words in lines}

    def wait_for(self, host: str, condition: str, seconds: float) -> None:
        """Wait until a shell condition holds on `host`; AssertionError after `seconds`."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            # A machine that is starting its guests may answer only after a while.
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = subprocess.run(self.lab.ssh_argv(host, condition), capture_output=True, timeout=60, check=False)
                if done.returncode == 0:
                    return
            time.sleep(1)
        raise AssertionError(f"{host}: not within {seconds:.0f} s: {condition}")
