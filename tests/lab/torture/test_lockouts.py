"""Twenty ways to lock the owner out, each with a controller that is killed at another moment (DESIGN D3).

Each round bends one file on every host, in a run of its own, and kills that run: mostly while the way back is armed,
sometimes before. Within a minute the host has its old files and rules and lets the deployment in.

The seed is printed; LAB_SEED repeats a run. Results with their date are kept in docs/measured.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fleet.load import ROOT
from tests.lab.openbsd.standin_host import answers
from tests.lab.pair import Pair
from tests.lab.test_bare import SEED

COUNT = 20
BEFORE = 0.25
"""The share of controllers that die before the way back is armed."""

BACK_SECONDS = 60
"""From the moment on which the way back is armed."""

RUN_SECONDS = 240

# Service, what is looked for in its files, and what comes in its place. All of them load: no parser refuses them.
LOCKOUTS = {
    "the deployment's port closed": ("pf.Pf", "port 2247", "port 2299"),
    "everything blocked": ("pf.Pf", "block log all", "block log quick all"),
    "the wrong table": ("pf.Pf", r"from \{[^}]*\} to (.* port 2247)", r"from <api_bans> to \1"),
    "our own network blocked": ("pf.Pf", "(block log all)", r"\1\nblock in quick from <own>"),
    "sshd on another port": ("sshd.Sshd", "2247", "2299"),
    "nobody let in by sshd": ("sshd.Sshd", "AllowUsers deploy", "AllowUsers nobody"),
    "a code wanted of the deployment": (
        "sshd.Sshd",
        r"publickey\n\tKbdInteractiveAuthentication no",
        "publickey,keyboard-interactive:bsdauth",
    ),
    "root refused by doas": ("doas.Doas", "permit nopass deploy", "deny deploy"),
}
CHANGE = """\
from deploys.services import doas, pf, sshd

{site} = bend({site}, "{host}", {kind}, {pattern!r}, {words!r})
"""
SITES = {"virtie": "exoscale.site", "ns3": "vultr.site"}
"""Where a host is in the inventory of `Pair`, if not at home."""

STAGED, ARMED, PENDING = (f"db/homefleet/{name}" for name in ("stage", "armed", "pending"))
LOCKED = "run/homefleet"
"""What a host has of a set that is not at rest, below /var."""

STATE = "pfctl -sr; sha256 /etc/pf.conf /etc/ssh/sshd_config /etc/doas.conf; rcctl check sshd"


@dataclass
class Lockout:
    """A host that is going to be locked out, and how: `kind` of `LOCKOUTS`, `before` or `delay` s after it is armed."""

    host: str
    kind: str
    before: bool
    delay: float
    seconds: float = 0.0

    @property
    def set_name(self) -> str:
        """The configuration set that is bent."""
        return LOCKOUTS[self.kind][0].partition(".")[0]

    def change(self) -> str:
        """Return the change of the inventory."""
        kind, pattern, words = LOCKOUTS[self.kind]
        site = SITES.get(self.host, "site")
        return CHANGE.format(site=site, host=self.host, kind=kind, pattern=pattern, words=words)


def plan(chance: random.Random, hosts: list[str]) -> list[list[Lockout]]:
    """Return rounds of lock-outs, one a host, in which every kind is there twice before one is there thrice."""
    kinds = [kind for _ in range(COUNT) for kind in chance.sample(sorted(LOCKOUTS), len(LOCKOUTS))][:COUNT]
    made = [
        Lockout(hosts[number % len(hosts)], kind, chance.random() < BEFORE, chance.uniform(0, 20))
        for number, kind in enumerate(kinds)
    ]
    return [made[start : start + len(hosts)] for start in range(0, COUNT, len(hosts))]


def state(site: Pair, host: str) -> str:
    """Return the rules that are loaded, the files, and whether sshd runs."""
    argv = site.lab.stand_ins.hosts[host].enter(["/bin/ksh", "-c", STATE])
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout


def there(site: Pair, lockout: Lockout, *folders: str) -> bool:
    """Tell whether the set is in one of these folders of the host's records; nothing is asked of the host."""
    records = site.lab.stand_ins.hosts[lockout.host].directory / "upper/var"
    return any(os.path.lexists(records / folder / lockout.set_name) for folder in folders)


def wait(site: Pair, lockout: Lockout, folder: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + RUN_SECONDS
    while not there(site, lockout, folder):
        assert time.monotonic() < until and process.poll() is None, f"{lockout}: no {folder}: {log.read_text()}"
        time.sleep(0.02)


def suffer(site: Pair, lockout: Lockout, folder: Path) -> None:
    """Lock a host out, kill the controller, and wait until all is as it was."""
    before = state(site, lockout.host)
    own = Pair(site.lab, folder)
    log = folder / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            own.command(["-y", "--limit", lockout.host], lockout.change(), "site"),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, "PYINFRA_PROGRESS": "off"},
        )
    wait(site, lockout, STAGED if lockout.before else ARMED, process, log)
    armed, start = not lockout.before, time.monotonic()
    if armed:
        time.sleep(lockout.delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while there(site, lockout, LOCKED, STAGED, ARMED, PENDING) or not answers(site.lab.relay(lockout.host)):
        if not armed and there(site, lockout, ARMED):
            armed, start = True, time.monotonic()
        assert time.monotonic() - start < 2 * BACK_SECONDS, f"{lockout}: not back"
        time.sleep(0.1)
    lockout.seconds = time.monotonic() - start
    assert site.lab.ssh(lockout.host, "doas id -un") == "root\n", lockout
    assert state(site, lockout.host) == before, lockout


def test_twenty_of_twenty_are_undone(site: Pair, tmp_path: Path) -> None:
    print(f"LAB_SEED={SEED}")
    number = 0
    late: list[Lockout] = []
    for ordeals in plan(random.Random(SEED), sorted(site.lab.stand_ins.hosts)):
        folders = [tmp_path / f"{number + place}" for place in range(len(ordeals))]
        number += len(ordeals)
        for folder in folders:
            folder.mkdir()
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda each, folder: suffer(site, each, folder), ordeals, folders))
        for each in ordeals:
            print(f"{each.seconds:3.0f} s  {each.host}: {each.kind}{', before it was armed' if each.before else ''}")
        again = site.deploy("--limit", "openbsd", role="site")
        assert again.code == 0, again.output
        assert {name: again.changes(name) for name in again.report["hosts"]} == dict.fromkeys(
            site.lab.stand_ins.hosts, 0
        )
        late += [each for each in ordeals if each.seconds > BACK_SECONDS]
    assert number == COUNT
    assert late == []
