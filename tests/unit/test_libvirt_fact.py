"""The fact of libvirt: recorded output of libvirt 9.0, and what is not understood."""

from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.exceptions import FactProcessError

from facts.linux.domain import Definition
from facts.linux.libvirt import Libvirt, LibvirtState, Network, Unreadable, parse

RECORDED = (Path(__file__).parent / "recorded" / "libvirt-9.0.txt").read_text().splitlines()
DB1 = "6d0f6a36-6d7c-5b7e-8d7e-0f3b1f5b0a01"


def changed(*pairs: Any) -> Any:
    text = "\n".join(RECORDED)
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    return text.splitlines()


def test_recorded_output() -> None:
    found = parse(RECORDED)
    assert isinstance(found, LibvirtState)
    assert (found.installed, found.host, found.cpus, found.kvm) == (True, "kvm1", 2, True)
    assert found.memory > 2**30 and found.memory % 1024 == 0
    assert found.networks == {"default": Network("default", active=False, autostart=False)}
    assert found.answers == {"db1": True, "db2": True}
    db1 = found.domains["db1"]
    assert (db1.uuid, db1.state, db1.reason, db1.persistent, db1.autostart) == (
        DB1,
        "shut off",
        "unknown",
        True,
        False,
    )
    assert isinstance(db1.definition, Definition) and db1.definition.extras == ()
    assert db1.live is None and not db1.active and not db1.moved_away
    assert set(found.domains) == {"db1", "db2"}


def test_a_running_guest_and_what_it_sees_of_its_disk() -> None:
    found = parse(
        changed(
            ("shut off (unknown)", "running (migrated)"),
            ("Autostart:      disable", "Autostart:      enable"),
            (
                "##virt## end",
                "##virt## blocks\nDomain: 'db1'\n  block.count=2\n  block.0.name=vda\n"
                "  block.0.path=/dev/vg0/db1-root\n  block.0.capacity=10737418240\n"
                "  block.0.physical=10737418240\n  block.1.name=sda\n  block.1.capacity=5\n##virt## end",
            ),
        )
    )
    assert isinstance(found, LibvirtState)
    db1 = found.domains["db1"]
    assert db1.active and db1.autostart and db1.in_words == "running (migrated)" and not db1.moved_away
    assert db1.live == db1.definition
    assert db1.capacities == {"/dev/vg0/db1-root": 10737418240}


def test_what_a_move_left_behind() -> None:
    found = parse(changed(("shut off (unknown)", "shut off (migrated)")))
    assert isinstance(found, LibvirtState)
    assert found.domains["db1"].moved_away


def test_transient_unreadable_and_gone() -> None:
    found = parse(changed(("Persistent:     yes", "Persistent:     no"), ("<domain type='kvm'>", "<domain>>")))
    assert isinstance(found, LibvirtState)
    assert found.domains["db1"].definition is None
    found = parse(changed(("<domain type='kvm'>", "error: internal")))
    assert isinstance(found, LibvirtState)
    assert isinstance(found.domains["db1"].definition, Unreadable)
    lines = RECORDED[: RECORDED.index(f"##virt## domain {DB1}")]
    gone = f"error: failed to get domain '{DB1}'"
    found = parse([*lines, f"##virt## domain {DB1}", gone, gone, "##virt## inactive", gone, "##virt## end"])
    assert isinstance(found, LibvirtState)
    assert found.domains == {}


def test_not_installed_is_nothing_there_and_known() -> None:
    found = parse(["##virt## host kvm1", "##virt## ping db1 1", "##virt## absent", "##virt## end"])
    assert found == LibvirtState(installed=False, host="kvm1", answers={"db1": False})


def test_installed_and_not_answering_is_unknown_and_says_why() -> None:
    lines = [
        "##virt## host kvm1",
        "##virt## unreachable",
        "error: failed to connect to the hypervisor",
        "error: Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file or directory",
        "##virt## end",
    ]
    assert Libvirt().process(lines) is None
    assert isinstance(found := parse(lines), Unreadable)
    assert "No such file" in found.reason
    assert Libvirt.default() is None


def test_a_ping_that_could_not_be_tried_is_not_a_no() -> None:
    lines = ["##virt## ping a 0", "##virt## ping b 1", "##virt## ping c 127", "##virt## ping d 2"]
    found = parse([*lines, "##virt## absent", "##virt## end"])
    assert isinstance(found, LibvirtState)
    assert found.answers == {"a": True, "b": False, "c": None, "d": None}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "ends too early"),
        (RECORDED[:-1], "ends too early"),
        (["junk", *RECORDED], "not expected: junk"),
        (["##virt## what", *RECORDED], "unknown section: what"),
        (changed(("Memory size:", "Memory:")), "nodeinfo"),
        (changed((" default   inactive ", " default   dead ")), "net-list: not understood:  default   dead"),
        (changed((f"##virt## domain {DB1}", "##virt## domain x")), "no uuid: x"),
        (changed(("Name:           db1", "Nom: db1")), "no name in"),
        (changed(("shut off (unknown)", "??")), r"no state: \?\?"),
        (
            changed(
                (
                    "##virt## end",
                    "##virt## blocks\nDomain: 'db1'\nblock.0.path=/x\nblock.0.capacity=big\n##virt## end",
                )
            ),
            "not a size: block.0.capacity=big",
        ),
    ],
)
def test_a_bad_line_is_named(lines: Any, message: Any) -> None:
    with pytest.raises(FactProcessError, match=message):
        parse(lines)


def test_names_of_guests_are_quoted() -> None:
    command = Libvirt().command(probes={"db1": "192.0.2.1; reboot"})
    assert "'192.0.2.1; reboot'" in command
    assert "ping" not in Libvirt().command()


def test_volumes_that_a_guest_wrote_to_are_told_to_the_twin() -> None:
    lines = ["##virt## volumes", "  homefleet,guest=db1 db1-root", "  homefleet,guest=db1,fresh db1-data", "   swap"]
    lines += ["  homefleet,guest=web1,retired=20260101 retired-20260101-web1-root"]
    state = parse([*lines, "##virt## absent", "##virt## end"])
    assert not isinstance(state, Unreadable)
    assert state.booted == {"db1": ("db1-root",)}
    unknown = parse(["##virt## volumes-unknown", "##virt## absent", "##virt## end"])
    assert not isinstance(unknown, Unreadable)
    assert unknown.booted is None
