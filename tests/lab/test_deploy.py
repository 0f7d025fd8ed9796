"""The story of an ordinary evening: deploy, deploy again, grow a disk, take a guest out, retire a disk."""

from __future__ import annotations

from datetime import date

import pytest

from tests.lab.pair import GROWN, GUESTS, NOW, Pair

MAX_EXECS = 10
REGION = "dd if=/dev/guests/db1-data bs=1M skip=1 count=1 iflag=direct 2>/dev/null | sha256sum"


def test_every_guest_beats_on_its_console_and_on_its_volume(deployed: Pair) -> None:
    shown = deployed.fleet("status", "@")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for name in GUESTS:
        (line,) = (line for line in shown.stdout.splitlines() if f" {name} " in line)
        assert "kvm1" in line and "running" in line
        assert len([word for word in line.split() if word.isdigit()]) == 2


def test_verification_is_green(deployed: Pair) -> None:
    done = deployed.verify()
    assert done.returncode == 0, done.stdout
    assert "kvm1:" in done.stdout and "kvm2:" in done.stdout


def test_a_second_run_changes_nothing_and_is_cheap(deployed: Pair) -> None:
    pids = {name: deployed.lab.pid(name) for name in deployed.lab.machines}
    before = deployed.heartbeats()
    since = {name: deployed.now(name) for name in deployed.lab.machines}
    run = deployed.deploy()
    assert run.code == 0, run.output
    assert {name: run.changes(name) for name in deployed.lab.machines} == {"kvm1": 0, "kvm2": 0}
    assert "kvm1: 0 changes" in run.output and "kvm2: 0 changes" in run.output
    for name in deployed.lab.machines:
        counted = deployed.execs(name, since[name])
        assert 0 < counted <= MAX_EXECS, f"{name}: {counted} execs"
    assert {name: deployed.lab.pid(name) for name in deployed.lab.machines} == pids
    deployed.wait_for("kvm1", "sleep 6", 60)
    after = deployed.heartbeats()
    assert sorted(after) == GUESTS
    assert all(after[name] > before[name] for name in GUESTS)


def test_a_dry_run_names_the_changes_and_makes_none(deployed: Pair) -> None:
    run = deployed.deploy("--dry", "--diff", changes='site = grow(site, "web1", "root", "13 GiB")', yes=False)
    assert run.code == 0, run.output
    assert "Volumes" in run.output
    assert run.changes("kvm1") == 0
    assert deployed.ssh("kvm1", "blockdev --getsize64 /dev/guests/web1-root").strip() == str(12 * 2**30)


def test_a_grown_disk_is_seen_by_the_running_guest_and_keeps_its_data(deployed: Pair) -> None:
    before = deployed.ssh("kvm1", REGION)
    changes = 'site = grow(site, "db1", "data", "21 GiB")\nsite = grow(site, "db1", "root", "12 GiB")'
    run = deployed.deploy(changes=changes)
    assert run.code == 0, run.output
    assert deployed.ssh("kvm1", "blockdev --getsize64 /dev/guests/db1-data").strip() == str(21 * 2**30)
    listen = "timeout 60 socat -u TCP:127.0.0.1:7022 - | grep -a -m 1 vdb="
    assert f"vdb={21 * 2**30}" in deployed.ssh("kvm1", listen)
    assert deployed.ssh("kvm1", REGION) == before
    assert deployed.deploy(changes=changes).changes("kvm1") == 0


def test_the_region_that_the_guest_wrote_survives_a_grown_root(deployed: Pair) -> None:
    region = REGION.replace("db1-data", "docker2-root")
    before = deployed.ssh("kvm1", region)
    empty = deployed.ssh("kvm1", "head -c 1048576 /dev/zero | sha256sum")
    assert before != empty
    grown = 'site = grow(site, "docker2", "root", "31 GiB")'
    assert deployed.deploy(changes=GROWN + grown).code == 0
    assert deployed.ssh("kvm1", region) == before


def test_shrinking_is_refused_by_name_before_anything_else(deployed: Pair) -> None:
    deployed.ssh("kvm1", "virsh -q autostart --disable web1")
    run = deployed.deploy(changes=NOW + 'site = grow(site, "db1", "data", "5 GiB")')
    assert run.code != 0
    assert "guests/db1-data has 21 GiB, wanted 5 GiB" in run.output
    assert run.changes("kvm1") == 0
    assert "disable" in deployed.ssh("kvm1", "virsh dominfo web1 | grep Autostart")
    again = deployed.deploy(changes=NOW)
    assert again.code == 0, again.output
    assert again.changes("kvm1") == 1


def test_a_guest_that_left_the_inventory_is_named_and_runs_on(deployed: Pair) -> None:
    before = deployed.heartbeats()["web1"]
    run = deployed.deploy(changes=NOW + 'site = without(site, "web1")')
    assert run.code == 0, run.output
    assert "unmanaged: web1 (left running)" in run.notes("kvm1")
    assert "unmanaged: web1-www" in run.notes("kvm1")
    assert run.changes("kvm1") == 0
    deployed.wait_for("kvm1", "sleep 6", 60)
    assert deployed.heartbeats()["web1"] > before


TEMPORARY = NOW + 'site = add_guest(site, "docker2", "tmp1", 29, 7029)\n'
END = TEMPORARY + (
    'from datetime import date\nsite = end_disk(site, "tmp1", "root", {retired}, {destroy}, "a test made it")\n'
    'site = change_guest(site, "tmp1", retired={retired})\n'
)


def _end(retired: date, destroy: date | None) -> str:
    return END.format(
        retired=f"date({retired.year}, {retired.month}, {retired.day})",
        destroy=f"date({destroy.year}, {destroy.month}, {destroy.day})" if destroy else None,
    )


def test_retired_renames_and_only_destroy_destroys(deployed: Pair) -> None:
    lvs = "lvs --noheadings -o lv_name guests"
    made = deployed.deploy("--limit", "kvm1", changes=TEMPORARY)
    assert made.code == 0, made.output
    assert "tmp1-root" in deployed.ssh("kvm1", lvs)
    ending = _end(date(2026, 1, 10), date(2026, 2, 10))
    running = deployed.deploy("--limit", "kvm1", "--data", "today=2026-01-10", changes=ending)
    assert running.code != 0, "a running guest is not retired"
    assert "shut it down first" in running.output
    # The owner pulls its plug: this guest has nothing to write down.
    deployed.ssh("kvm1", "virsh -q destroy tmp1")
    renamed = deployed.deploy("--limit", "kvm1", "--data", "today=2026-03-10", changes=ending)
    assert renamed.code == 0, renamed.output
    assert "retired-20260110-tmp1-root" in deployed.ssh("kvm1", lvs), "never destroyed by the run that renames"
    early = deployed.deploy("--limit", "kvm1", "--data", "today=2026-02-09", changes=ending)
    assert early.changes("kvm1") == 0
    assert "retired-20260110-tmp1-root" in deployed.ssh("kvm1", lvs)
    gone = deployed.deploy("--limit", "kvm1", "--data", "today=2026-02-10", changes=ending)
    assert gone.code == 0, gone.output
    assert "tmp1" not in deployed.ssh("kvm1", lvs)
    assert deployed.deploy("--limit", "kvm1", changes=NOW).changes("kvm1") == 0


def test_a_change_that_needs_a_restart_is_said_and_left_to_the_owner(deployed: Pair) -> None:
    more = NOW + 'site = change_guest(site, "docker2", memory="4608 MiB")'
    run = deployed.deploy("--limit", "kvm1", changes=more)
    assert run.code == 0, run.output
    assert "docker2" in run.notes("kvm1") and "next start" in run.notes("kvm1")
    boot = deployed.heartbeats()["docker2"]
    again = deployed.deploy("--limit", "kvm1", changes=more)
    assert again.changes("kvm1") == 0
    assert "next start" in again.notes("kvm1"), "it is said until it is done"
    back = deployed.deploy("--limit", "kvm1", changes=NOW)
    assert back.code == 0, back.output
    assert "next start" not in back.notes("kvm1")
    assert deployed.heartbeats()["docker2"] >= boot


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "hoem", "hypervisor"), "no inventory 'hoem'"),
        (("run", "@", "hypervisr"), "no role 'hypervisr'"),
        (("run", "@", "hypervisor", "--limit", "kvm3"), "no host 'kvm3'"),
        (("run", "@", "hypervisor", "--limit", "virtie"), "no host was concerned"),
        (("run", "@", "hypervisor", "--create", "db9"), "create=db9: there is no such guest"),
    ],
)
def test_a_mistyped_run_is_no_success(deployed: Pair, arguments: tuple[str, ...], words: str) -> None:
    done = deployed.fleet(*arguments)
    assert done.returncode != 0
    assert words in done.stdout + done.stderr
