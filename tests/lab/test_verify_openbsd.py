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

HOST, SERVER = "ns3", "manicouagan1"
"""What is broken is on the first, unless only the log server has it."""

# Broken together, each on an object of its own, so that one verification shows them all; then mended.
BATCHES = (
    {
        *("package", "service-enabled", "service-running", "service-flags", "service-off"),
        *("file-content", "file-owner", "file-mode", "file-stray", "set-pending", "set-armed"),
        *("login-class", "account", "account-class", "account-shell", "account-groups"),
        *("account-password", "account-keys", "root-login", "sysctl", "sysctl-boot", "jobs"),
        *("port-listening", "port-stray", "pf-enabled", "bounded-set"),
        *("private-key", "certificate", "clock", "log-file"),
    },
    {"pf-rules"},
    # syslogd that is started again has to find its certificate, and rules by which its connection has a state.
    {"pf-table", "log-arrives"},
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
    survey = ask_everything(fleet, sites, date(2026, 11, 23), [HOST, SERVER])
    return Report(survey, verify(survey))


def _type(site: Pair, host: str, command: str) -> None:
    """Type a command as root of `host`, past its sshd; what it starts holds no pipe of ours open."""
    enter = site.lab.stand_ins.hosts[host].enter
    argv = enter(["/bin/ksh", "-c", f"{{ {command}\n}} >/tmp/typed 2>&1"])
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=60, check=False)
    if done.returncode:
        shown = subprocess.run(enter(["/bin/cat", "/tmp/typed"]), capture_output=True, text=True, check=True)
        raise AssertionError(f"{host}: {command}: {shown.stdout}")


def test_every_kind_is_broken_once() -> None:
    broken = [kind for batch in BATCHES for kind in batch]
    assert sorted(broken) == sorted(kinds_of(Os.OPENBSD))


def test_all_is_asked_in_one_exec_and_the_log_server_once_more(green: Report) -> None:
    hosts = green.data()["hosts"]
    assert {name: hosts[name]["execs"] for name in (HOST, SERVER)} == {HOST: 1, SERVER: 2}
    assert {f"{name}: {hosts[name]['green']} green" for name in (HOST, SERVER)} <= set(green.lines())
    assert sum(hosts[name]["green"] for name in (HOST, SERVER)) == len(green.results)


@pytest.mark.parametrize("number", range(len(BATCHES)))
def test_what_is_broken_is_red(site: Pair, green: Report, number: int) -> None:
    checks: dict[str, Check] = {}
    for result in sorted(green.results, key=lambda each: each.check.host != HOST):
        if result.check.kind.name in BATCHES[number] and result.check.can_be_broken():
            checks.setdefault(result.check.kind.name, result.check)
    assert set(checks) == BATCHES[number]
    try:
        for check in checks.values():
            _type(site, check.host, check.breakage())
        red = _report(site).red
        missed = [kind for kind, check in checks.items() if check.id not in red]
        assert missed == [], f"still green although broken: {missed}; red: {red}"
    finally:
        for check in reversed(checks.values()):
            _type(site, check.host, check.mend())
        until = time.monotonic() + SELF_MENDING_SECONDS
        while not answers(site.lab.stand_ins.hosts[HOST].relay) and time.monotonic() < until:
            time.sleep(0.2)
    assert _report(site).red == {}
