"""A run of the base that changes nothing, against an Ansible play that does the same: `make compare`.

pyinfra deploys the stand-ins, then they are copied, and Ansible takes over the copy. What each of the two looks at is
read from its own words. Then they run in turn, and the hosts' own logs count what it took.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from fleet.load import ROOT, load
from fleet.secrets.vault import open_for
from fleet.secrets.wanted import wanted
from tests.compare.covered import by_ansible, by_pyinfra, changed_by_ansible
from tests.compare.play import write
from tests.compare.playbook import Playbook, copy
from tests.compare.report import Cost, Seen, Tool, ours, page
from tests.lab.conftest import INDEX
from tests.lab.host import give_to_user, run
from tests.lab.lab import Lab, lab_directory
from tests.lab.pair import Pair

# Those of other tests that are not run beside this one.
ORIGINAL, COPY = INDEX + 60, INDEX + 61
OPENBSD = ("db1", "manicouagan1", "ns3", "pancake", "virtie", "web1")
EVERYTHING = ("--limit", "openbsd")
ROUNDS = 5
MAX_EXECS = 10
RESULT = ROOT / "docs/measured/ansible.md"

DAMAGED = "ns3"
# What is done to it behind Ansible's back, and what the play has to find.
DAMAGE = {
    "chmod 600 /etc/hosts": "file /etc/hosts root:wheel 0644",
    "echo '# more' >>/etc/ntpd.conf": "file /etc/ntpd.conf root:wheel 0644",
    "usermod -c somebody owner": "user owner",
    "rcctl disable smtpd": "service smtpd enabled",
    "sysctl ddb.panic=1": "sysctl ddb.panic 0",
}


@dataclass(frozen=True)
class Both:
    """The two labs and what manages them.

    Arguments: `first`, the report of the first deployment; `ansible`, its version; `busy`, the load average before.
    """

    pair: Pair
    lab: Lab
    playbook: Playbook
    first: Mapping[str, Any]
    ansible: str
    busy: float


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    """The stand-ins with the base on them, and their copy with an Ansible that was never run."""
    busy = os.getloadavg()[0]
    original, other = (Lab(index, lab_directory(index), machines=()) for index in (ORIGINAL, COPY))
    with tempfile.TemporaryDirectory(prefix="compare-") as name:
        folder = Path(name)
        try:
            for lab in (original, other):
                lab.down(wipe=True)
            pair = Pair(original, folder)
            first = _deployed(pair)
            uname = run(original.stand_ins.hosts[DAMAGED].enter(["uname", "-a"]))
            original.down()
            _copied(original, other, uname)
            for lab in (original, other):
                lab.up(OPENBSD, machines=False)
            playbook = Playbook(folder)
            ansible = playbook.install()
            playbook.configure(other, OPENBSD)
            _write_play(pair, folder)
            yield Both(pair, other, playbook, first, ansible, busy)
            assert [lab.stand_ins.unmodelled() for lab in (original, other)] == [{}, {}]
        finally:
            for lab in (original, other):
                lab.down(wipe=True)


def _deployed(pair: Pair) -> Mapping[str, Any]:
    pair.lab.up(OPENBSD, machines=False)
    first = pair.deploy(*EVERYTHING, role="site")
    assert first.code == 0, first.output
    return first.report


def _copied(original: Lab, other: Lab, uname: str) -> None:
    """Copy the stand-ins, and who may log in to them."""
    for name in OPENBSD:
        copy(original.stand_ins.hosts[name], other.stand_ins.hosts[name], uname)
    for path in (original.key, original.key.with_suffix(".pub")):
        run(["cp", "-a", path, other.directory])


def _write_play(pair: Pair, folder: Path) -> None:
    fleet, _ = load(str(pair.inventory()))
    hosts = [fleet.host(name) for name in OPENBSD]
    sites = [site for site in fleet.sites if any(host in site.hosts for host in hosts)]
    vault = open_for(
        fleet,
        sites,
        hosts,
        lambda host: wanted(fleet, host),
        place=lambda site: site.secrets,
        today=date.today(),
    )
    write(folder, fleet, hosts, vault)


def seen(lab: Lab, name: str) -> Seen:
    log = lab.stand_ins.hosts[name].file("/var/log/authlog")
    assert log is not None
    text = log.read_text()
    words = ("Accepted publickey for", "Starting session: command", "Starting session: subsystem")
    return Seen(*(text.count(word) for word in words))


def timed(lab: Lab, do: Callable[[], object]) -> tuple[Cost, dict[str, Seen]]:
    """Return what `do` cost, and what the hosts of `lab` saw of it."""
    logged = {name: seen(lab, name) for name in OPENBSD}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    do()
    after, end = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    cost = Cost(end - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return cost, {
        name: Seen(*(now - then for now, then in zip(seen(lab, name), logged[name], strict=True))) for name in OPENBSD
    }


def unchanged_by_pyinfra(both: Both, *arguments: str) -> str:
    done = both.pair.deploy(*EVERYTHING, *arguments, role="site")
    assert done.code == 0, done.output
    assert {name: done.changes(name) for name in OPENBSD} == dict.fromkeys(OPENBSD, 0), done.output
    return done.output


def unchanged_by_ansible(both: Both) -> None:
    assert both.playbook.play() == dict.fromkeys(OPENBSD, (0, 0, 0))


def test_the_play_finds_what_differs(both: Both) -> None:
    """What the copy already has, the play only marks as its own; damage of every kind it finds and repairs."""
    taken_over = changed_by_ansible(both.playbook.report())
    # It writes the name of its job above the line in the crontab, and the default login class into an empty field.
    assert taken_over == dict.fromkeys(OPENBSD, frozenset({"crontab root", "user deploy"}))
    for command in DAMAGE:
        run(both.lab.stand_ins.hosts[DAMAGED].enter(["/bin/ksh", "-c", command]))
    repaired = changed_by_ansible(both.playbook.report("--limit", DAMAGED))
    assert repaired == {DAMAGED: frozenset(DAMAGE.values())}


def test_how_long_both_take_to_look_at_the_same_things(both: Both) -> None:
    """In turn, and neither changes any of them. The page with the numbers is written if all of that holds."""
    report = both.playbook.report()
    assert {(it["changed"], it["failures"], it["unreachable"]) for it in report["stats"].values()} == {(0, 0, 0)}
    covered = by_pyinfra(unchanged_by_pyinfra(both, "-vvv"), both.first)
    assert by_ansible(report) == covered
    for name in OPENBSD:
        print(f"\n{name}: {', '.join(sorted(covered[name]))}")
    mine, theirs = [], []
    for turn in range(ROUNDS):
        mine.append(timed(both.pair.lab, lambda: unchanged_by_pyinfra(both)))
        theirs.append(timed(both.lab, lambda: unchanged_by_ansible(both)))
        print(f"\n{turn + 1}: pyinfra {mine[-1][0].wall:.1f} s, Ansible {theirs[-1][0].wall:.1f} s")
    pyinfra = Tool(ours(), [cost for cost, _ in mine], mine[-1][1])
    ansible = Tool(both.ansible, [cost for cost, _ in theirs], theirs[-1][1])
    for name in OPENBSD:
        assert 0 < pyinfra.seen[name].commands <= MAX_EXECS
        assert pyinfra.seen[name].subsystems == 0
    RESULT.write_text(page(pyinfra, ansible, covered, both.busy))
    give_to_user(RESULT)
