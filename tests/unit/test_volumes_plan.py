"""The planners of volumes, case by case and on thousands of random states."""

import os
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facts.linux.lvm import Device, LogicalVolume, LvmState
from operations.linux.volumes import Volume, VolumeGroup, plan_retirement, plan_volumes
from tests.model_lvm import CommandError, ModelLvm

MIB, GIB = 2**20, 2**30
EXTENT = 4 * MIB
EXAMPLES = int(os.environ.get("EXAMPLES", "700"))  # a long run sets more
TODAY = date(2026, 3, 1)
VG0 = VolumeGroup("vg0", "/dev/vdb", 100 * GIB)
OURS = frozenset({"homefleet", "guest=db1"})
LATER = {"retired": TODAY - timedelta(9), "destroy": TODAY, "none_to_keep": "a test"}


def machine(*volumes: Any, extent: Any = EXTENT, size: Any = 200 * GIB) -> Any:
    return ModelLvm(
        groups={"vg0": extent},
        devices={"/dev/vdb": Device("/dev/vdb", True, "254:16", size, ("LVM2_member",))},
        members={"/dev/vdb": "vg0"},
        volumes={volume.spec: volume for volume in volumes},
    )


def blank(**changes: Any) -> Any:
    return ModelLvm(devices={"/dev/vdb": replace(Device("/dev/vdb", True, "254:16", 200 * GIB), **changes)})


def root(**changes: Any) -> Any:
    return replace(LogicalVolume("vg0", "db1-root", 8 * GIB, OURS), **changes)


def want(name: Any = "db1-root", size: Any = 8 * GIB, guest: Any = "db1", **changes: Any) -> Any:
    return Volume("vg0", name, size, guest, **changes)


def plan(model: Any, *volumes: Any, groups: Any = (VG0,), today: Any = TODAY, **more: Any) -> Any:
    return plan_volumes(groups, volumes, model.state(), today, **more)


def apply(model: Any, plan: Any) -> None:
    for step in plan.steps:
        model.apply(step)


def test_from_nothing_to_settled() -> None:
    model = blank()
    first = plan(model, want(size=8 * GIB + 1), want("db1-data", GIB))
    assert [step.label for step in first.steps] == [
        "volume group vg0 made on /dev/vdb",
        "vg0/db1-root made, 8196 MiB",
        "vg0/db1-data made, 1 GiB",
    ]
    assert [step.subject for step in first.steps] == ["vg0", "db1", "db1"]
    apply(model, first)
    assert model.volumes["vg0/db1-root"].tags == {"homefleet", "guest=db1", "fresh"}
    assert model.dirty == set()
    second = plan(model, want(size=8 * GIB + 1), want("db1-data", GIB))
    assert (second.steps, second.refused, second.notes) == ((), (), ())


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (blank(signatures=("ext4 home",)), "/dev/vdb is not empty, ext4 home was found: nothing is overwritten"),
        (blank(signatures=("gpt", "PMBR")), "/dev/vdb is not empty, gpt, PMBR was found"),
        (blank(signatures=None), "/dev/vdb cannot be read"),
        (blank(exists=False), "its device /dev/vdb is not there"),
        (blank(size=99 * GIB), "/dev/vdb has 99 GiB, 100 GiB were declared"),
        (ModelLvm(), "its device /dev/vdb is not there"),
        (
            ModelLvm(
                groups={"old": EXTENT},
                members={"/dev/vdb": "old"},
                devices={"/dev/vdb": Device("/dev/vdb", True, "254:16", 200 * GIB, ("LVM2_member",))},
            ),
            "/dev/vdb is a physical volume of old: nothing is overwritten",
        ),
        (
            ModelLvm(
                groups={"vg0": EXTENT},
                members={"/dev/vdc": "vg0"},
                devices={
                    "/dev/vdb": Device("/dev/vdb", True, "254:16", 200 * GIB),
                    "/dev/vdc": Device("/dev/vdc", True, "254:32", 200 * GIB, ("LVM2_member",)),
                },
            ),
            "it is on /dev/vdc, wanted on /dev/vdb",
        ),
    ],
)
def test_a_device_is_never_overwritten(model: Any, words: Any) -> None:
    found = plan(model, want())
    assert found.steps == ()
    assert found.refused[0].subject == "vg0"
    assert found.refused[0].message.startswith(words)
    assert found.refused[1].subject == "db1"


def test_a_device_by_another_path_is_the_same_device() -> None:
    model = machine(root())
    model.devices["/dev/disk/by-id/x"] = replace(model.devices["/dev/vdb"], path="/dev/disk/by-id/x")
    assert plan(model, want(), groups=(replace(VG0, device="/dev/disk/by-id/x"),)).refused == ()


def test_a_grown_volume_grows_to_the_extent_and_once() -> None:
    model = machine(root())
    found = plan(model, want(size=9 * GIB + 1))
    assert [(step.label, step.command) for step in found.steps] == [
        ("vg0/db1-root grown from 8 GiB to 9220 MiB", f"lvextend -L {9 * GIB + EXTENT}b vg0/db1-root")
    ]
    apply(model, found)
    assert plan(model, want(size=9 * GIB + 1)).steps == ()


def test_shrinking_is_refused_by_name_and_nothing_else_is_done() -> None:
    model = machine(root(), root(name="web1-root", tags=frozenset({"homefleet", "guest=web1"})))
    found = plan(
        model, want(size=GIB), want("web1-root", 9 * GIB, "web1"), want("new", GIB, "db1"), want("x", GIB, "db1")
    )
    assert found.steps == ()
    assert [refusal.subject for refusal in found.refused] == ["db1"]
    assert "vg0/db1-root has 8 GiB, wanted 1 GiB: volumes only grow" in found.refused[0].message


def test_what_does_not_fit_as_a_whole_is_not_begun() -> None:
    model = machine(root(), size=20 * GIB)
    found = plan(model, want(), want("db1-data", 10 * GIB), want("db1-more", 10 * GIB))
    assert found.steps == ()
    assert found.refused[0].subject == "vg0"
    assert "20 GiB more are wanted, 12284 MiB are free" in found.refused[0].message


def test_an_interrupted_creation_is_wiped_again() -> None:
    model = blank()
    first = plan(model, want())
    model.apply(first.steps[0])
    model.run(first.steps[1].command.split(" && ")[0])
    assert model.dirty == {"vg0/db1-root"}
    again = plan(model, want())
    assert [step.label for step in again.steps] == ["vg0/db1-root wiped"]
    apply(model, again)
    assert model.dirty == set() and plan(model, want()).steps == ()


def test_a_volume_made_by_hand_is_taken_over_but_not_another_guests() -> None:
    found = plan(machine(root(tags=frozenset())), want())
    assert [step.command for step in found.steps] == ["lvchange --addtag homefleet --addtag guest=db1 vg0/db1-root"]
    found = plan(machine(root(tags=frozenset({"guest=web1"}))), want())
    assert found.steps == () and "belongs to web1" in found.refused[0].message
    found = plan(machine(root(layout="snapshot")), want(size=9 * GIB))
    assert found.steps == () and "is a snapshot volume" in found.refused[0].message
    found = plan(machine(root(active=False)), want())
    assert [step.command for step in found.steps] == ["lvchange -ay vg0/db1-root"]


def test_unmanaged_volumes_are_named_and_left_alone() -> None:
    model = machine(
        root(),
        root(name="db2-root", tags=frozenset({"homefleet", "guest=db2"})),
        root(name="by-hand", tags=frozenset()),
        root(name="web1-root", tags=frozenset({"homefleet", "guest=web1"})),
        root(name="retired-20260101-old", tags=frozenset({"homefleet", "retired=20260101"})),
        replace(root(), group="system", name="root", tags=frozenset()),
        replace(root(), group="system", name="lost", tags=frozenset({"homefleet"})),
    )
    found = plan(model, want(), declared={"db1", "web1"})
    assert found.steps == ()
    assert found.notes == (
        "unmanaged: lost (left alone)",
        "unmanaged: by-hand (left alone)",
        "unmanaged: db2-root (left alone)",
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: want("-x"), "no name"),
        (lambda: want("x; reboot"), "no name"),
        (lambda: want("retired-20260101-x"), "no name"),
        (lambda: want("X"), "no name"),
        (lambda: want(guest="db 1"), "no name"),
        (lambda: want(size=0), "size 0"),
        (lambda: want(destroy=TODAY), "without retired="),
        (lambda: want(retired=TODAY, destroy=TODAY), "not after retired="),
        (lambda: want(retired=TODAY, destroy=TODAY - timedelta(1)), "not after retired="),
        (lambda: VolumeGroup("vg0", "vdb", 1), "no path of a device"),
        (lambda: VolumeGroup("vg0", "/dev/../etc", 1), "no path of a device"),
        (lambda: VolumeGroup("vg 0", "/dev/vdb", 1), "not a name"),
        (lambda: VolumeGroup("vg0", "/dev/vdb", 0), "size 0"),
        (lambda: plan(machine(), want(), want()), "volume vg0/db1-root is there twice"),
        (lambda: plan(machine(), groups=(VG0, VG0)), "volume group vg0 is there twice"),
        (lambda: plan(machine(), Volume("vg1", "a", 1, "db1")), "there is no volume group vg1"),
    ],
)
def test_wrong_arguments_fail_early(make: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_retire_renames_and_a_later_run_destroys() -> None:
    model = machine(root())
    wanted = want(**LATER)
    first = plan_retirement([wanted], model.state(), (), TODAY)
    assert [step.label for step in first.steps] == ["vg0/db1-root retired, now retired-20260220-db1-root"]
    assert plan(model, wanted).steps == ()
    apply(model, first)
    assert set(model.volumes) == {"vg0/retired-20260220-db1-root"}
    assert plan(model, wanted).steps == plan(model, wanted).notes == ()
    early = plan_retirement([replace(wanted, destroy=TODAY + timedelta(1))], model.state(), (), TODAY)
    assert not early.steps and not early.refused
    second = plan_retirement([wanted], model.state(), (), TODAY)
    assert [step.label for step in second.steps] == ["vg0/retired-20260220-db1-root destroyed (a test)"]
    apply(model, second)
    assert model.volumes == {}
    assert plan_retirement([wanted], model.state(), (), TODAY).steps == ()


GONE = root(name="retired-20260220-db1-root", tags=OURS | {"retired=20260220"}, active=False)


@pytest.mark.parametrize(
    ("volumes", "wanted", "in_use", "message"),
    [
        ([root(open=True)], want(**LATER), (), "is not retired: it is open"),
        ([root(open=None)], want(**LATER), (), "cannot be known"),
        ([root()], want(**LATER), ("/dev/vg0/db1-root",), "is in the definition of a guest"),
        ([root(tags=frozenset({"guest=web1"}))], want(**LATER), (), "belongs to another"),
        ([root(), GONE], want(**LATER), (), "both vg0/db1-root and"),
        ([replace(GONE, open=True)], want(**LATER), (), "is not destroyed: it is open"),
        ([replace(GONE, tags=OURS)], want(**LATER), (), "has no tag of its retirement"),
        ([GONE], want(**LATER), (GONE.path,), "is in the definition of a guest"),
        ([GONE], want(**{**LATER, "none_to_keep": None}), (), "no fresh backup is known"),
        ([GONE], want(**{**LATER, "none_to_keep": " "}), (), "no fresh backup is known"),
    ],
)
def test_retirement_is_refused(volumes: Any, wanted: Any, in_use: Any, message: Any) -> None:
    found = plan_retirement([wanted], machine(*volumes).state(), in_use, TODAY)
    assert found.steps == ()
    assert message in found.refused[0].message


def test_the_destroying_command_itself_looks_at_the_tag_again() -> None:
    model = machine(GONE)
    found = plan_retirement([want(**LATER)], model.state(), (), TODAY)
    model.volumes[GONE.spec] = replace(GONE, tags=OURS)
    with pytest.raises(CommandError):
        apply(model, found)
    assert GONE.spec in model.volumes


def test_a_retirement_taken_back_half_way_is_a_volume_again() -> None:
    model = machine(root(tags=OURS | {"retired=20260220"}, active=False))
    found = plan(model, want())
    apply(model, found)
    assert model.volumes["vg0/db1-root"] == root()
    assert plan(model, want()).steps == ()


# --- thousands of random states ---

NAMES = ["a", "b", "c", "d"]
GUESTS = ["g", "h"]
dates = st.none() | st.integers(-3, 3).map(lambda days: TODAY + timedelta(days))
extents = st.integers(1, 12)


@st.composite
def wanted_volumes(draw: Any) -> Any:
    volumes = []
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
        retired, destroy = draw(dates), None
        if retired and draw(st.booleans()):
            destroy = retired + timedelta(draw(st.integers(1, 3)))
        size = draw(extents) * EXTENT - draw(st.integers(0, EXTENT - 1))
        keep = draw(st.sampled_from([None, "", "a test"]))
        volumes.append(Volume("vg0", name, size, draw(st.sampled_from(GUESTS)), retired, destroy, keep))
    return volumes


@st.composite
def hosts(draw: Any, wanted: Any) -> Any:
    signatures = draw(st.sampled_from([(), ("ext4",), None]))
    device = Device("/dev/vdb", draw(st.booleans() | st.just(True)), "254:16", 41 * EXTENT, signatures)
    model = ModelLvm(devices={"/dev/vdb": device})
    kind = draw(st.sampled_from(["bare", "group", "group", "group", "other"]))
    if kind == "bare":
        return model
    model.groups["vg0" if kind == "group" else "vg9"] = EXTENT
    model.members["/dev/vdb"] = "vg0" if kind == "group" else "vg9"
    model.devices["/dev/vdb"] = replace(device, exists=True, signatures=("LVM2_member",))
    group = next(iter(model.groups))
    names = NAMES + [volume.retired_name for volume in wanted if volume.retired] + ["by-hand"]
    for name in draw(st.lists(st.sampled_from(names), unique=True, max_size=4)):
        tags = draw(st.sets(st.sampled_from(["homefleet", "fresh", "unwiped", "guest=g", "guest=h"])))
        if name.startswith("retired-") and draw(st.booleans() | st.just(True)):
            tags.add(f"retired={name.split('-')[1]}")
        size = draw(st.integers(1, 9)) * EXTENT
        active = draw(st.booleans() | st.just(True))
        volume = LogicalVolume(
            group,
            name,
            size,
            frozenset(tags),
            active=active,
            open=active and "unwiped" not in tags and draw(st.booleans()),
            layout=draw(st.sampled_from(["linear"] * 5 + ["snapshot"])),
        )
        model.volumes[volume.spec] = volume
        if "unwiped" in tags:
            model.dirty.add(volume.spec)
    return model


@st.composite
def cases(draw: Any) -> Any:
    wanted = draw(wanted_volumes())
    return wanted, draw(hosts(wanted))


def follow(model: Any, plan: Any) -> None:
    """Carry out a plan as `perform` does; nothing may fail."""
    refused = {refusal.subject for refusal in plan.refused}
    for step in plan.steps:
        if step.subject not in refused:
            model.apply(step)


@settings(deadline=None, max_examples=EXAMPLES)
@given(cases())
def test_no_plan_destroys_and_the_next_plan_is_empty(case: Any) -> None:
    wanted, model = case
    before = dict(model.volumes)
    first = plan_volumes((VolumeGroup("vg0", "/dev/vdb", 40 * EXTENT),), wanted, model.state(), TODAY)
    follow(model, first)
    verbs = {command[0] for command in model.commands}
    assert verbs <= {"vgcreate", "lvcreate", "lvextend", "lvchange", "fallocate"}
    for spec, volume in before.items():
        assert model.volumes[spec].size >= volume.size
        if model.volumes[spec] != volume:
            assert any(it.spec == spec and not it.is_retired(TODAY) for it in wanted), "not wanted, but touched"
    second = plan_volumes((VolumeGroup("vg0", "/dev/vdb", 40 * EXTENT),), wanted, model.state(), TODAY)
    refused = {refusal.subject for refusal in first.refused}
    assert [step for step in second.steps if step.subject not in refused] == []
    live = [volume for volume in wanted if not volume.is_retired(TODAY)]
    too_small = [it for it in live if it.spec in before and it.size <= before[it.spec].size - EXTENT]
    growth = sum(-(-it.size // EXTENT) * EXTENT - getattr(before.get(it.spec), "size", 0) for it in live)
    group = model.state().groups.get("vg0")
    if too_small or (group and before and growth > group.size - sum(it.size for it in before.values())):
        assert first.steps == () and first.refused


@settings(deadline=None, max_examples=EXAMPLES)
@given(cases(), st.sets(st.sampled_from(NAMES)))
def test_only_what_was_written_down_goes_and_never_in_the_run_that_renamed(case: Any, used: Any) -> None:
    wanted, model = case
    before = dict(model.volumes)
    in_use = {f"/dev/vg0/{name}" for name in used}
    first = plan_retirement(wanted, model.state(), in_use, TODAY)
    follow(model, first)
    written = {f"vg0/{v.retired_name}": v for v in wanted if v.retired and v.destroy and v.destroy <= TODAY}
    for spec, volume in before.items():
        if spec in model.volumes:
            continue
        assert not volume.open and volume.path not in in_use
        renamed = [it for it in wanted if it.spec == spec and it.retired and it.retired <= TODAY]
        if renamed:
            kept = model.volumes[f"vg0/{renamed[0].retired_name}"]
            assert kept.size == volume.size and f"retired={renamed[0].retired:%Y%m%d}" in kept.tags
        else:
            assert written[spec].none_to_keep and f"retired={written[spec].retired:%Y%m%d}" in volume.tags
    for kept in model.volumes:
        assert kept in before or kept.startswith("vg0/retired-")
    # Two more runs on the same day: what was renamed may be destroyed by the second word, and then it is quiet.
    follow(model, plan_retirement(wanted, model.state(), in_use, TODAY))
    assert plan_retirement(wanted, model.state(), in_use, TODAY).steps == ()


def test_lvm_that_is_not_installed_has_nothing_to_plan_on() -> None:
    found = plan_volumes((VG0,), [want()], LvmState(installed=False), TODAY)
    assert found.steps == ()
