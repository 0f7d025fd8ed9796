"""The fact of LVM: recorded output of LVM 2.03, and what is not understood."""

from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.exceptions import FactProcessError

from facts.linux.lvm import Device, LogicalVolume, Lvm, LvmState, PhysicalVolume, VolumeGroup, parse

RECORDED = (Path(__file__).parent / "recorded" / "lvm-2.03.txt").read_text().splitlines()


def test_recorded_output() -> None:
    found = parse(RECORDED)
    assert found.installed
    assert found.groups == {"vgtest": VolumeGroup("vgtest", 1069547520, 4194304, 1044381696)}
    assert found.physical == (PhysicalVolume("/dev/loop0", "7:0", "vgtest", 1073741824),)
    assert found.volumes["vgtest/db2-root"] == LogicalVolume(
        "vgtest",
        "db2-root",
        12582912,
        frozenset({"fresh", "guest=db2", "homefleet"}),
        active=False,
        open=None,
    )
    assert found.devices == {
        "/dev/loop0": Device("/dev/loop0", True, "7:0", 1073741824, ("LVM2_member",)),
        "/dev/nosuch": Device("/dev/nosuch", False),
        "/dev/loop7": Device("/dev/loop7", True, "7:7", 104857600, ()),
    }
    assert [volume.name for volume in found.of_guest("db2")] == ["db2-root"]
    assert found.of_guest("db1") == ()  # retired
    assert found.by_path("/dev/vgtest/db2-root") == found.volumes["vgtest/db2-root"]


def test_not_installed_is_nothing_there_and_known() -> None:
    assert parse(["##lvm## absent", "##lvm## end"]) == LvmState(installed=False)


def test_several_signatures_are_all_named() -> None:
    lines = [
        "##lvm## device /dev/vdb",
        "number 254:16",
        "size 1000",
        '{"signatures": [{"type": "gpt", "label": null}, {"type": "gpt"}, {"type": "ext4", "label": "home"}]}',
        "##lvm## absent",
        "##lvm## end",
    ]
    assert parse(lines).devices["/dev/vdb"].signatures == ("gpt", "ext4 home")
    lines[3] = "unreadable"
    assert parse(lines).devices["/dev/vdb"].signatures is None


def changed(old: Any, new: Any) -> Any:
    text = "\n".join(RECORDED)
    assert old in text
    return text.replace(old, new, 1).splitlines()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "ends too early"),
        (RECORDED[:-1], "ends too early"),
        (RECORDED[:14], "ends too early"),
        (["junk", *RECORDED], "not expected: junk"),
        (["##lvm## what", *RECORDED], "unknown section: what"),
        (changed('"lv_size":"12582912"', '"lv_size":"12m"'), "12m"),
        (changed('"vg_free":"1044381696"', '"vg_gone":"1"'), "vg_free"),
        (changed('"vg_name":"vgtest", "vg_size"', '"vg_size"'), "vg_name"),
        (changed('"pv_major":"7"', '"pv_major":""'), "pv_major"),
        (changed('"report": [', '"report": [['), "not JSON: "),
        (changed("size 1073741824", "size big"), "no size: size big"),
        (changed("number 7:0", "nothing"), "/dev/loop0: not understood"),
        (changed('"signatures": [', '"signatures": 3, "x": ['), "no list of signatures"),
    ],
)
def test_a_bad_line_is_named(lines: Any, message: Any) -> None:
    with pytest.raises(FactProcessError, match=message):
        parse(lines)


def test_unknown_is_none_and_one_exec() -> None:
    assert Lvm.default() is None
    command = Lvm().command(devices=["/dev/vdb; reboot"])
    assert "'/dev/vdb; reboot'" in command
    assert "wipefs" not in Lvm().command()
