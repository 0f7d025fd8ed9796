"""The bare start, and a first deploy whose controller is killed three times in a row.

One pair of machines that have nothing installed: two of the kills come while packages are being installed. What a
last, undisturbed run leaves has to be what a run leaves that was never killed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.load import ROOT
from tests.lab.lab import Lab
from tests.lab.pair import GUESTS, Pair

INDEX = 9
SEED = int(os.environ.get("LAB_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
INSTALLING = "pgrep -x dpkg >/dev/null"


@contextmanager
def bare_pair(folder: Path) -> Iterator[Pair]:
    """Give a pair of machines with nothing installed, and take it away afterwards."""
    lab = Lab(INDEX, Path(__file__).resolve().parents[2] / ".lab" / str(INDEX), image="bare")
    lab.down(wipe=True)
    try:
        lab.up()
        yield Pair(lab, folder)
    finally:
        lab.down(wipe=True)


@pytest.fixture
def bare(deployed: Pair, tmp_path: Path) -> Iterator[tuple[Pair, dict[str, str]]]:
    """A bare pair, and what the shared pair looks like, which was deployed without any accident."""
    expected = {name: fingerprint(deployed, name) for name in deployed.lab.machines}
    deployed.lab.down()
    with bare_pair(tmp_path) as pair:
        yield pair, expected


def fingerprint(pair: Pair, host: str) -> str:
    """Return all that a deploy is answerable for on a host, in words that do not depend on when it ran."""
    return pair.ssh(
        host,
        r"""
        dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n' | sort
        set -- /etc/netplan/* /etc/nftables.conf /etc/default/libvirt-guests /etc/ssh/sshd_config /etc/pam.d/sshd \
            /etc/sudoers.d/* /etc/smtpd.conf /etc/aliases /etc/apt/apt.conf.d/60homefleet
        sha256sum "$@"
        stat -c '%n %U %G %a' /etc/netplan "$@"
        getent passwd owner deploy; id -nG owner; id -nG deploy
        ls /var/lib/homefleet/pending /var/lib/homefleet/armed /var/lib/homefleet/undo
        systemctl is-enabled libvirtd libvirtd.socket libvirt-guests nftables homefleet-undo ssh opensmtpd cron
        nft -s list ruleset
        ip -o -br addr show dev br0 | awk '{print $1, $3, $4}'
        lvs --noheadings --units b -o vg_name,lv_name,lv_tags --sort lv_name
        virsh -q net-list --all --name
        for guest in $(virsh -q list --all --name | sort); do
            virsh dumpxml --inactive "$guest"; virsh domstate "$guest"; virsh dominfo "$guest" | grep Autostart
        done
        """,
        deadline=300,
    )


def killed(pair: Pair, due: Callable[[list[str]], bool], seconds: float) -> bool:
    """Start a first deploy and kill its controller once `due` says so of the lines that it printed.

    Returns False if the run ended by itself before that.
    """
    log = pair.folder / f"killed{time.monotonic_ns()}.txt"
    with log.open("w") as out:
        process = subprocess.Popen(
            pair.command(["-y"]), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
        until = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < until:
            if due(log.read_text().splitlines()):
                process.send_signal(signal.SIGKILL)
                process.wait()
                return True
            time.sleep(0.3)
    assert process.poll() is not None, f"neither killed nor done after {seconds:.0f} s"
    return False


def installing(pair: Pair, delay: float) -> Callable[[list[str]], bool]:
    """Due `delay` seconds after dpkg was seen at work on kvm1."""
    seen: list[float] = []

    def due(lines: list[str]) -> bool:
        if not seen and any("Packages" in line for line in lines):
            found = subprocess.run(pair.lab.ssh_argv("kvm1", INSTALLING), capture_output=True, check=False)
            if found.returncode == 0:
                seen.append(time.monotonic())
        return bool(seen) and time.monotonic() - seen[0] >= delay

    return due


def after(operation: str, delay: float) -> Callable[[list[str]], bool]:
    """Due `delay` seconds after an operation was started."""
    seen: list[float] = []

    def due(lines: list[str]) -> bool:
        if not seen and any(f"Starting operation: {operation}" in line for line in lines):
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() - seen[0] >= delay

    return due


def settle(pair: Pair, expected: dict[str, str]) -> None:
    """Deploy undisturbed and compare with a pair that never saw an accident."""
    last = pair.deploy()
    assert last.code == 0, last.output
    again = pair.deploy()
    assert again.changes("kvm1") == again.changes("kvm2") == 0, again.output
    for name in pair.lab.machines:
        assert fingerprint(pair, name) == expected[name]
    assert sorted(pair.heartbeats()) == GUESTS


def test_a_first_deploy_that_is_killed_three_times(bare: tuple[Pair, dict[str, str]]) -> None:
    pair, expected = bare
    chance = random.Random(SEED)
    print(f"LAB_SEED={SEED}")
    missing = pair.ssh("kvm1", "command -v virsh lvs qemu-system-x86_64 nft || echo nothing")
    assert missing.strip() == "nothing", "the bare image has a hypervisor's programs in it"
    assert killed(pair, installing(pair, chance.uniform(1, 10)), 300)
    assert killed(pair, installing(pair, chance.uniform(1, 20)), 600)
    assert killed(pair, after(chance.choice(["Configuration", "Volumes", "Guests"]), chance.uniform(0, 15)), 1200)
    settle(pair, expected)
