"""Where a guest lives is a fact: twins that are off, guests that moved, volumes that were left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fleet.model.site import Host
from tests.lab.pair import GUESTS, NOW, Pair

START_SECONDS = 300


@pytest.fixture(scope="module")
def pair(grown: Pair) -> Iterator[Pair]:
    """The pair as the story before left it, and as the story after finds it: all guests at home."""
    yield grown
    for name in grown.lab.machines:
        grown.lab.start(name)
    assert grown.deploy(changes=NOW).code == 0


def _guests(pair: Pair) -> list[Host]:
    from fleet.load import load

    fleet, _ = load(str(pair.inventory(NOW)))
    return [fleet.host(name) for name in GUESTS]


def _move_by_hand(pair: Pair, source: str, target: str) -> None:
    """Put all guests from one twin to the other, with new disks: the old volumes stay behind."""
    for guest in _guests(pair):
        xml = pair.ssh(source, f"virsh dumpxml --inactive {guest.name}")
        pair.ssh(source, f"virsh -q destroy {guest.name}; virsh -q undefine {guest.name}")
        for volume in guest.volumes():
            size = f"lvs --noheadings --nosuffix --units b -o lv_size guests/{volume.name}"
            pair.ssh(
                target,
                f"lvcreate -y -q -Wn -Zn -L {pair.ssh(source, size).strip()}b -n {volume.name} "
                f"--addtag homefleet --addtag guest={guest.name} guests",
            )
        pair.lab.ssh(target, "cat >/run/moved.xml", stdin=xml)
        pair.ssh(target, f"virsh -q define /run/moved.xml; virsh -q autostart {guest.name}")
        pair.ssh(target, f"virsh -q start {guest.name}", deadline=START_SECONDS)


def _domains(pair: Pair, host: str) -> list[str]:
    return sorted(pair.ssh(host, "virsh -q list --all --name").split())


def test_guests_that_live_on_the_twin_are_left_alone_and_said(pair: Pair) -> None:
    _move_by_hand(pair, "kvm1", "kvm2")
    run = pair.deploy(changes=NOW)
    assert run.code == 0, run.output
    for name in GUESTS:
        assert f"{name}: lives on kvm2" in run.notes("kvm1")
    assert _domains(pair, "kvm1") == []
    assert run.changes("kvm1") == run.changes("kvm2") == 0, run.output
    done = pair.verify(changes=NOW)
    assert done.returncode == 0, done.stdout


def test_no_second_one_is_made_while_the_twin_cannot_be_asked(pair: Pair) -> None:
    pair.lab.kill("kvm2")
    run = pair.deploy(changes=NOW)
    assert run.code == 0, run.output
    assert "db1: its place is unknown (kvm2 cannot be asked); --data create=db1 makes it here" in run.notes("kvm1")
    assert run.changes("kvm1") == 0
    assert _domains(pair, "kvm1") == []
    done = pair.verify(changes=NOW)
    assert done.returncode == 0, done.stdout
    assert "unknown" in done.stdout


def test_with_kvm1_off_kvm2_alone_is_green_and_the_site_is_not(pair: Pair) -> None:
    pair.lab.kill("kvm1")
    pair.lab.start("kvm2")
    pair.wait_for("kvm2", f'[ "$(virsh -q list --state-running --name | grep -c .)" = {len(GUESTS)} ]', START_SECONDS)
    run = pair.deploy("--limit", "kvm2", changes=NOW)
    assert run.code == 0, run.output
    assert run.changes("kvm2") == 0, run.output
    done = pair.verify("--limit", "kvm2", changes=NOW)
    assert done.returncode == 0, done.stdout
    whole = pair.deploy(changes=NOW)
    assert whole.code != 0
    assert "kvm1: FAILED: no TCP connection" in whole.output
    assert whole.changes("kvm2") == 0
    red = pair.verify(changes=NOW)
    assert red.returncode != 0
    assert "kvm1" in red.stdout
    pair.lab.start("kvm1")


def test_what_was_left_behind_is_booted_only_on_the_owners_word(pair: Pair) -> None:
    for guest in _guests(pair):
        pair.ssh("kvm2", f"virsh -q destroy {guest.name}; virsh -q undefine {guest.name}")
        names = " ".join(f"guests/{volume.name}" for volume in guest.volumes())
        pair.ssh("kvm2", f"lvremove -q -y {names}")
    refused = pair.deploy(changes=NOW)
    assert refused.code != 0
    assert "if they are its disks: --data create=db1" in refused.failed("kvm1")["db1"]
    assert _domains(pair, "kvm1") == []
    run = pair.deploy("--data", f"create={','.join(GUESTS)}", changes=NOW)
    assert run.code == 0, run.output
    assert _domains(pair, "kvm1") == GUESTS
    assert pair.deploy(changes=NOW).changes("kvm1") == 0


def test_a_guest_that_waits_for_its_passphrase_is_neither_green_nor_broken(pair: Pair) -> None:
    """A guest with the word in its kernel's command line asks on its console, as an encrypted OpenBSD does."""
    xml = pair.ssh("kvm1", "virsh dumpxml --inactive db1")
    asking = xml.replace("guest.name=db1", "guest.passphrase guest.name=db1")
    pair.ssh("kvm1", "virsh -q destroy db1")
    pair.lab.ssh("kvm1", "cat >/run/asking.xml; virsh -q define /run/asking.xml", stdin=asking)
    pair.ssh("kvm1", "virsh -q start db1", deadline=START_SECONDS)
    pair.wait_for("kvm1", "timeout 20 tail -c 200 /var/log/libvirt/qemu/db1-console.log | grep -a passphrase", 120)
    pair.lab.ssh("kvm1", "cat >/run/plain.xml; virsh -q define /run/plain.xml", stdin=xml)
    run = pair.deploy(changes=NOW)
    assert run.code == 0, run.output
    assert "db1: waits for its passphrase: fleet console db1" in run.notes("kvm1")
    refused = pair.deploy("--data", "restart=db1", changes=NOW)
    assert "passphrase" in refused.failed("kvm1").get("db1", refused.notes("kvm1"))
    done = pair.verify(changes=NOW)
    assert "db1: waits for its passphrase" in done.stdout
    assert "running" in pair.ssh("kvm1", "virsh domstate db1")
    pair.ssh("kvm1", "printf 'secret\\n' | timeout 5 socat - TCP:127.0.0.1:7022 >/dev/null || :")
    pair.wait_for("kvm1", "ping -c 1 -W 2 192.168.1.202", 120)
    # Its live definition still has the word in it; a plug pulled by the test puts that right.
    pair.ssh("kvm1", "virsh -q destroy db1; virsh -q start db1", deadline=START_SECONDS)
