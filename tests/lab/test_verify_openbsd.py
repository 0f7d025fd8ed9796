"""Each kind of verification of OpenBSD hosts is shown red once, by breaking a stand-in (DESIGN T4)."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import date

import pytest

from fleet.load import load
from fleet.model.site import Os
from tests.lab.openbsd.standin_host import answers
from tests.lab.pair import Pair
from tests.verify.kinds import Check, kinds_of
from tests.verify.report import Report, verify
from tests.verify.survey import ask_everything

HOST = "ns3"

# Broken together, each on an object of its own, so that one verification shows them all; then mended.
BATCHES = (
    {
        *("package", "service-enabled", "service-running", "service-flags", "service-off"),
        *("file-content", "file-owner", "file-mode", "file-stray", "set-pending", "set-armed"),
        *("login-class", "account", "account-class", "account-shell", "account-groups"),
        *("account-password", "account-keys", "root-login", "sysctl", "sysctl-boot", "jobs"),
        *("port-listening", "port-stray", "pf-enabled", "bounded-set"),
    },
    {"pf-rules"},
    {"pf-table"},
    {"reached"},
)
SELF_MENDING_SECONDS = 60


@pytest.fixture(scope="module")
def green(site: Pair) -> Iterator[Report]:
    """A report that is green before and after; no run is between them."""
    before = _report(site)
    assert before.red == {}
    yield before
    assert _report(site).red == {}


def _report(site: Pair) -> Report:
    fleet, sites = load(str(site.inventory()))
    survey = ask_everything(fleet, sites, date(2026, 11, 23), [HOST])
    return Report(survey, verify(survey))


def _type(site: Pair, command: str) -> None:
    """Type a command as the host's root, past its sshd; what it starts holds no pipe of ours open."""
    argv = site.lab.stand_ins.hosts[HOST].enter(["/bin/ksh", "-c", f"{{ {command}\n}} >/tmp/typed 2>&1"])
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=60, check=False)
    if done.returncode:
        shown = subprocess.run(
            site.lab.stand_ins.hosts[HOST].enter(["/bin/cat", "/tmp/typed"]), capture_output=True, text=True, check=True
        )
        raise AssertionError(f"{command}: {shown.stdout}")


def test_every_kind_is_broken_once() -> None:
    broken = [kind for batch in BATCHES for kind in batch]
    assert sorted(broken) == sorted(kinds_of(Os.OPENBSD))


def test_all_is_asked_in_one_exec(green: Report) -> None:
    assert green.data()["hosts"][HOST]["execs"] == 1
    assert green.lines() == [f"{HOST}: {len(green.results)} green", *green.lines()[1:]]


@pytest.mark.parametrize("number", range(len(BATCHES)))
def test_what_is_broken_is_red(site: Pair, green: Report, number: int) -> None:
    checks: dict[str, Check] = {}
    for result in green.results:
        if result.check.kind.name in BATCHES[number] and result.check.can_be_broken():
            checks.setdefault(result.check.kind.name, result.check)
    assert set(checks) == BATCHES[number]
    try:
        for check in checks.values():
            _type(site, check.breakage())
        red = _report(site).red
        missed = [kind for kind, check in checks.items() if check.id not in red]
        assert missed == [], f"still green although broken: {missed}; red: {red}"
    finally:
        for check in reversed(checks.values()):
            _type(site, check.mend())
        until = time.monotonic() + SELF_MENDING_SECONDS
        while not answers(site.lab.stand_ins.hosts[HOST].relay) and time.monotonic() < until:
            time.sleep(0.2)
    assert _report(site).red == {}
