"""Each kind of verification is shown red once, by breaking on a real hypervisor what it checks (DESIGN T4)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import date

import pytest

from fleet.load import load
from fleet.model.site import Os
from tests.lab.host import LabError
from tests.lab.pair import HYPERVISORS, NOW, Pair
from tests.verify.kinds import Check, kinds_of
from tests.verify.report import Report, verify
from tests.verify.survey import ask_everything

# Every guest here is encrypted, and one that does not answer only waits; unencrypted it has to be red.
UNENCRYPTED = NOW + (
    "for host in site.hosts:\n    if host.guest is not None:\n"
    "        site = change_guest(site, host.name, encrypted=False)\n"
)

# Broken together, each on an object of its own, so that one verification shows them all; then mended.
BATCHES = (
    {
        "service-enabled": "",
        "file-content": "",
        "file-owner": "",
        "file-mode": "",
        "file-stray": "",
        "set-pending": "",
        "set-armed": "",
        "account": "",
        "account-shell": "",
        "account-groups": "",
        "account-password": "",
        "account-keys": "",
        "account-code": "",
        "root-login": "",
        "private-key": "",
        "bridge-uplink": "",
        "bridge-addresses": "",
        "volume-size": "web1-www",
        "volume-tags": "docker2-root",
        "guest-defined": "manicouagan1",
        "guest-definition": "web1",
        "guest-running": "docker2",
        "guest-autostart": "db1",
        "guest-disk": "db1",
        "port-stray": "",
        "firewall-rules": "",
        "firewall-ports": "",
        "bounded-set": "",
        "default-network": "",
        "migration-key": "",
        "migration-unit": "",
        "migration-login": "",
    },
    {"package": "", "service-running": "", "volume": "web1-www", "bridge": "", "guest-answers": "db1"},
    {"group": "", "guest-place": "docker2", "port-listening": ""},
    {"reached": ""},
)
SELF_MENDING_SECONDS = 240


def _report(pair: Pair) -> Report:
    fleet, sites = load(str(pair.inventory(UNENCRYPTED)))
    survey = ask_everything(fleet, sites, date(2026, 11, 23), HYPERVISORS)
    return Report(survey, verify(survey))


def _check(report: Report, kind: str, object_: str) -> Check:
    """Return the check of a kind on kvm1 that is to be broken, of a certain guest or volume where that matters."""
    found = [
        result.check
        for result in report.results
        if result.check.kind.name == kind
        and (result.check.host == "kvm1" or kind == "guest-place")
        and result.check.can_be_broken()
        and object_ in result.check.id
    ]
    assert found, f"no {kind} of {object_ or 'anything'} can be broken"
    return found[0]


@pytest.fixture(scope="module")
def green(grown: Pair) -> Iterator[Report]:
    """A report that is green before and after."""
    before = _report(grown)
    assert before.red == {}
    yield before
    grown.lab.start("kvm1")
    # Only the owner restarts what was broken by hand; a run mends the rest.
    assert grown.deploy(changes=NOW).code == 0
    until = time.monotonic() + SELF_MENDING_SECONDS
    # A guest that was started again answers once it has booted.
    while (red := _report(grown).red) and time.monotonic() < until:
        time.sleep(5)
    assert red == {}


def test_every_kind_is_broken_once() -> None:
    broken = [kind for batch in BATCHES for kind in batch]
    assert sorted(broken) == sorted(kinds_of(Os.UBUNTU))
    assert len(broken) == len(set(broken))


@pytest.mark.parametrize("number", range(len(BATCHES)))
def test_what_is_broken_is_red(grown: Pair, green: Report, number: int) -> None:
    checks = {kind: _check(green, kind, object_) for kind, object_ in BATCHES[number].items()}
    try:
        for kind, check in checks.items():
            _type(grown, kind, check.breakage())
        red = _report(grown).red
        missed = [kind for kind, check in checks.items() if check.id not in red]
        assert missed == [], f"still green although broken: {missed}; red: {red}"
    finally:
        grown.wait_for("kvm1", "true", SELF_MENDING_SECONDS)
        for kind, check in reversed(checks.items()):
            _type(grown, kind, check.mend())
        grown.wait_for("kvm1", "sleep 12", SELF_MENDING_SECONDS)


def _type(pair: Pair, kind: str, command: str) -> None:
    """Type a command on kvm1; what breaks or mends the way in may take its own connection along."""
    with contextlib.suppress(LabError) if kind == "reached" else contextlib.nullcontext():
        pair.ssh("kvm1", command, deadline=300)
