"""Where a guest lives, and what is done about it: the decision table, and thousands of random twins."""

import os
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facts.linux.domain import Definition, Interface, disks, uuid_of
from facts.linux.libvirt import Domain, LibvirtState, Network, Unreadable
from facts.linux.lvm import Device, LogicalVolume
from operations.linux.domains import plan_domains, plan_guests, plan_networks
from operations.linux.places import (
    Both,
    Create,
    Elsewhere,
    Guest,
    Here,
    LeftBehind,
    Nowhere,
    Unknown,
    needs_peers,
    place,
    places_of,
)
from operations.linux.volumes import Volume, VolumeGroup, plan_volumes
from tests.model_libvirt import ModelHost
from tests.model_lvm import ModelLvm

EXAMPLES = int(os.environ.get("EXAMPLES", "700"))  # a long run sets more
GIB = 2**30
EXTENT = 4 * 2**20
TODAY = date(2026, 3, 1)


def definition(name: Any, memory: Any = GIB, volumes: Any = ("root",)) -> Any:
    return Definition(
        name=name,
        uuid=uuid_of(name),
        memory=memory,
        vcpus=1,
        machine="pc",
        boot="disk",
        disks=disks(f"/dev/vg0/{name}-{volume}" for volume in volumes),
        interfaces=(Interface("52:54:00:00:00:01", "br0"),),
        console=5001,
    )


DB1 = Guest(definition("db1"))
USED = LogicalVolume("vg0", "db1-root", 2 * GIB, frozenset({"homefleet", "guest=db1"}))
NEW = replace(USED, tags=USED.tags | {"fresh"})


def domain(state: Any = "running", reason: Any = "", guest: Any = DB1, **changes: Any) -> Any:
    active = state != "shut off"
    made = Domain(
        guest.name,
        guest.definition.uuid,
        state,
        reason,
        autostart=True,
        definition=guest.definition,
        live=guest.definition if active else None,
        capacities={disk.device: 2 * GIB for disk in guest.definition.disks} if active else {},
    )
    return replace(made, **changes)


def libvirt(*domains: Any, **more: Any) -> Any:
    return LibvirtState(host="kvm1", domains={it.name: it for it in domains}, **more)


NONE = libvirt()
RUNS, OFF = domain(), domain("shut off", "shutdown")
MOVED, PAUSED = domain("shut off", "migrated"), domain("paused", "migrating")

HAS_ITS_VOLUMES = replace(NONE, booted={"db1": ("db1-root",)})
NOT_ASKED_FOR_LVM = replace(NONE, booted=None)

TABLE = [
    # here, peer ("": not asked), volumes here, home, create; the place
    ([RUNS], "", [USED], True, False, Here(RUNS)),
    ([OFF], "", [USED], True, False, Here(OFF)),
    ([RUNS], NONE, [USED], False, False, Here(RUNS)),
    ([OFF], None, [USED], True, False, Here(OFF)),
    ([RUNS], libvirt(MOVED), [USED], True, False, Here(RUNS)),
    ([RUNS], libvirt(OFF), [USED], True, False, Both("running", "kvm2", "shut off (shutdown)")),
    ([RUNS], libvirt(PAUSED), [USED], True, False, Both("running", "kvm2", "paused (migrating)")),
    ([OFF], libvirt(RUNS), [USED], True, True, Both("shut off (shutdown)", "kvm2", "running")),
    ([], libvirt(RUNS), [], True, False, Elsewhere("kvm2", "running")),
    ([], libvirt(OFF), [USED], True, True, Elsewhere("kvm2", "shut off (shutdown)", ("vg0/db1-root",))),
    ([MOVED], libvirt(RUNS), [USED], True, False, Elsewhere("kvm2", "running", ("vg0/db1-root",))),
    ([], None, [], True, False, Unknown(("kvm2",))),
    ([], None, [USED], True, False, Unknown(("kvm2",))),
    ([], None, [], False, False, Unknown(("kvm2",))),
    ([MOVED], None, [USED], True, False, Unknown(("kvm2",))),
    ([], None, [USED], True, True, Create("the owner's word")),
    ([], None, [], False, True, Create("the owner's word")),
    ([MOVED], None, [USED], True, True, Create("the owner's word")),
    ([], NONE, [], True, False, Create()),
    ([], NONE, [NEW], True, False, Create()),
    ([], NONE, [NEW, USED], True, False, LeftBehind(("vg0/db1-root",))),
    ([], NONE, [USED], True, False, LeftBehind(("vg0/db1-root",))),
    ([MOVED], NONE, [USED], True, False, LeftBehind(("vg0/db1-root",))),
    ([MOVED], NONE, [], True, False, LeftBehind(())),
    ([MOVED], NONE, [NEW], True, True, Create("the owner's word")),
    ([], libvirt(MOVED), [USED], True, False, LeftBehind(("vg0/db1-root",))),
    ([], NONE, [USED], True, True, Create("the owner's word")),
    ([], NONE, [], False, False, Nowhere()),
    ([], NONE, [USED], False, True, Create("the owner's word")),
    ([], HAS_ITS_VOLUMES, [USED], False, True, Nowhere()),
    ([], HAS_ITS_VOLUMES, [], True, False, LeftBehind(("db1-root",), "kvm2")),
    ([], HAS_ITS_VOLUMES, [], True, True, LeftBehind(("db1-root",), "kvm2")),
    ([], HAS_ITS_VOLUMES, [NEW], True, True, LeftBehind(("db1-root",), "kvm2")),
    ([], HAS_ITS_VOLUMES, [USED], True, True, Create("the owner's word")),
    ([], NOT_ASKED_FOR_LVM, [], True, False, Unknown(("kvm2",))),
]


@pytest.mark.parametrize(("here", "peer", "volumes", "home", "create", "expected"), TABLE)
def test_the_decision_table(here: Any, peer: Any, volumes: Any, home: Any, create: Any, expected: Any) -> None:
    peers = {} if peer == "" else {"kvm2": peer}
    named = {"db1"} if create else set()
    assert place(replace(DB1, home=home), libvirt(*here), peers, volumes, named) == expected


@pytest.mark.parametrize(
    ("here", "home", "create", "retired", "expected"),
    [
        ([RUNS], True, False, False, False),
        ([OFF], True, False, False, True),
        ([OFF], False, False, False, True),
        ([MOVED], True, False, False, True),
        ([], True, False, False, True),
        ([], False, False, False, False),
        ([], False, True, False, True),
        ([], True, False, True, True),
    ],
)
def test_peers_are_asked_only_if_it_matters(here: Any, home: Any, create: Any, retired: Any, expected: Any) -> None:
    guest = replace(DB1, home=home, retired=retired)
    assert needs_peers([guest], libvirt(*here), model().lvm.state(), {"db1"} if create else ()) is expected


def test_peers_are_asked_once_or_not_at_all() -> None:
    calls: list[int] = []

    def ask() -> dict[str, LibvirtState | None]:
        calls.append(1)
        return {}

    places_of([DB1], libvirt(RUNS), ModelLvm().state(), ask)
    assert calls == []
    places_of([DB1, Guest(definition("web1"))], NONE, ModelLvm().state(), ask)
    assert calls == [1]


def model(*domains: Any, volumes: Any = (USED,), **more: Any) -> Any:
    lvm = ModelLvm(
        groups={"vg0": EXTENT},
        devices={"/dev/vdb": Device("/dev/vdb", True, "254:16", 100 * GIB, ("LVM2_member",))},
        members={"/dev/vdb": "vg0"},
        volumes={volume.spec: volume for volume in volumes},
    )
    return ModelHost(lvm=lvm, domains={it.name: it for it in domains}, **more)


def plan(host: Any, *guests: Any, peers: Any = None, create: Any = (), restart: Any = ()) -> Any:
    state, lvm = host.state(), host.lvm.state()
    places = places_of(guests, state, lvm, lambda: peers or {}, create)
    return plan_domains(guests, state, lvm, places, restart)


def labels(plan: Any) -> Any:
    return [step.label for step in plan.steps]


def test_a_new_guest_is_defined_taken_into_use_and_started_in_this_order() -> None:
    host = model(volumes=[NEW])
    first = plan(host, DB1)
    assert [step.command for step in first.steps] == [
        "virsh -q define /dev/stdin",
        "lvchange --deltag fresh vg0/db1-root",
        "virsh -q autostart db1",
        "virsh -q start db1",
    ]
    assert host.apply(first) == {}
    assert host.domains["db1"].state == "running"
    second = plan(host, DB1)
    assert second.steps == second.refused == second.notes == ()


def test_killed_after_any_step_a_second_run_ends_the_same() -> None:
    whole = model(volumes=[NEW])
    whole.apply(plan(whole, DB1))
    for done in range(len(plan(model(volumes=[NEW]), DB1).steps)):
        host = model(volumes=[NEW])
        for step in plan(host, DB1).steps[:done]:
            host.carry_out(step)
        assert host.apply(plan(host, DB1)) == {}
        assert (host.domains, host.lvm.volumes) == (whole.domains, whole.lvm.volumes)


def test_a_disk_that_is_missing_or_not_wiped_makes_no_guest() -> None:
    found = plan(model(volumes=[]), DB1)
    assert found.steps == () and "vda, /dev/vg0/db1-root, is not there" in found.refused[0].message
    found = plan(model(volumes=[replace(NEW, tags=NEW.tags | {"unwiped"})]), DB1)
    assert found.steps == () and "is not wiped yet" in found.refused[0].message


def test_a_changed_definition_is_redefined_and_the_restart_left_to_the_owner() -> None:
    host = model(RUNS)
    bigger = replace(DB1, definition=definition("db1", 3 * GIB))
    first = plan(host, bigger)
    assert labels(first) == ["redefined (memory: 1 GiB, wanted 3 GiB)"]
    note = "db1: memory: 1 GiB, wanted 3 GiB: takes effect at its next start (--data restart=db1 does it now)"
    assert first.notes == (note,)
    host.apply(first)
    second = plan(host, bigger)
    assert second.steps == () and second.notes == (note,)
    third = plan(host, bigger, restart={"db1"})
    assert labels(third) == ["restarted (memory: 1 GiB, wanted 3 GiB)"]
    host.apply(third)
    assert host.domains["db1"].state == "running"
    assert plan(host, bigger).steps == plan(host, bigger).notes == ()
    assert plan(host, bigger, restart={"db1"}).notes == ("db1: runs as it is declared, not restarted",)


def test_a_guest_that_does_not_hear_is_left_running() -> None:
    host = model(RUNS, deaf={"db1"})
    bigger = replace(DB1, definition=definition("db1", 3 * GIB))
    failed = host.apply(plan(host, bigger, restart={"db1"}))
    assert "still running" in failed["db1"]
    assert host.domains["db1"].state == "running"


@pytest.mark.parametrize("answer", [False, None])
def test_nothing_restarts_a_guest_that_waits_for_its_passphrase(answer: Any) -> None:
    host = model(RUNS, answers={"db1": answer})
    guest = replace(DB1, encrypted=True, definition=definition("db1", 3 * GIB))
    found = plan(host, guest, restart={"db1"})
    assert labels(found) == ["redefined (memory: 1 GiB, wanted 3 GiB)"]
    assert "wait" in found.refused[0].message and "passphrase" in found.refused[0].message
    waits = "db1: waits for its passphrase: socat -,rawer,escape=0x1d TCP:127.0.0.1:5001"
    assert (waits in found.notes) == (answer is False)


def test_an_encrypted_guest_that_answers_is_as_any_other() -> None:
    host = model(RUNS, answers={"db1": True})
    guest = replace(DB1, encrypted=True, definition=definition("db1", 3 * GIB))
    assert len(plan(host, guest, restart={"db1"}).steps) == 2
    assert plan(host, replace(DB1, encrypted=True)).notes == ()


def test_a_grown_disk_is_told_to_the_running_guest() -> None:
    host = model(RUNS, volumes=[replace(USED, size=5 * GIB)])
    found = plan(host, DB1)
    assert [step.command for step in found.steps] == [f"virsh -q blockresize db1 /dev/vg0/db1-root {5 * GIB}B"]
    host.apply(found)
    assert plan(host, DB1).steps == ()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (domain("paused", "I/O error"), "it is paused (I/O error): left alone"),
        (domain("crashed", "panicked"), "it is crashed (panicked): left alone"),
        (domain("shut off", "crashed"), "it is shut off (crashed): left alone"),
        (domain("pmsuspended"), "it is pmsuspended: left alone"),
        (domain(uuid="6d0f6a36-6d7c-5b7e-8d7e-0f3b1f5b0a01"), "a domain of that name is here that is not ours"),
        (domain(definition=Unreadable("not XML")), "its definition cannot be compared: not XML"),
    ],
)
def test_what_is_odd_is_left_alone(state: Any, words: Any) -> None:
    found = plan(model(state), replace(DB1, definition=definition("db1", 3 * GIB)))
    assert found.steps == ()
    assert found.refused[0].message.startswith(words)


def test_other_cases_of_a_domain_here() -> None:
    assert labels(plan(model(OFF), DB1)) == ["started"]
    assert labels(plan(model(OFF), replace(DB1, runs=False))) == []
    assert labels(plan(model(RUNS), replace(DB1, autostart=False))) == ["autostart off"]
    assert labels(plan(model(domain(definition=None, persistent=False)), DB1)) == ["made persistent"]
    shutting = plan(model(domain("in shutdown")), replace(DB1, autostart=False))
    assert shutting.steps == () and "is shutting down" in shutting.notes[0]
    odd = plan(model(domain(live=Unreadable("x"))), DB1, restart={"db1"})
    assert odd.steps == () and "cannot be compared" in odd.notes[0]


@pytest.mark.parametrize(
    ("here", "volumes", "peer", "home", "notes", "refused"),
    [
        ([], [], libvirt(RUNS), True, ["db1: lives on kvm2"], []),
        ([], [], libvirt(RUNS), False, [], []),
        (
            [],
            [USED],
            libvirt(RUNS),
            True,
            ["db1: lives on kvm2; left behind here, never booted: vg0/db1-root"],
            [],
        ),
        (
            [MOVED],
            [],
            libvirt(RUNS),
            True,
            [
                "db1: a definition was left behind by a move (shut off (migrated)), it is never started",
                "db1: lives on kvm2",
            ],
            [],
        ),
        (
            [],
            [USED],
            None,
            True,
            ["db1: its place is unknown (kvm2 cannot be asked); --data create=db1 makes it here"],
            [],
        ),
        (
            [],
            [USED],
            NONE,
            True,
            [],
            [
                "has volumes on kvm1 that were booted before (vg0/db1-root) but no domain on either twin; "
                "if they are its disks: --data create=db1"
            ],
        ),
        (
            [OFF],
            [USED],
            libvirt(RUNS),
            True,
            [],
            ["has two domains, shut off (shutdown) here and running on kvm2: both left alone"],
        ),
    ],
)
def test_a_guest_that_is_not_here_is_left_alone_and_said(
    here: Any, volumes: Any, peer: Any, home: Any, notes: Any, refused: Any
) -> None:
    host = model(*here, volumes=volumes)
    found = plan(host, replace(DB1, home=home), peers={"kvm2": peer})
    assert found.steps == ()
    assert list(found.notes) == notes
    assert [refusal.message for refusal in found.refused] == refused


def test_unmanaged_domains_are_named_and_left_alone() -> None:
    other, off = domain(guest=Guest(definition("foo"))), domain("shut off", guest=Guest(definition("bar")))
    found = plan(model(RUNS, other, off), DB1)
    assert found.steps == ()
    assert found.notes == ("unmanaged: bar (left shut off)", "unmanaged: foo (left running)")


def test_wrong_arguments_fail_early() -> None:
    with pytest.raises(ValueError, match="restart=db9"):
        plan(model(RUNS), DB1, restart={"db9"})
    with pytest.raises(ValueError, match="a name is a letter"):
        plan(model(), Guest(replace(definition("db1"), name="1")))


RETIRED = replace(DB1, retired=True)
OLD = Volume("vg0", "db1-root", 2 * GIB, "db1", TODAY - timedelta(5), TODAY, "a test")


def whole(host: Any, guests: Any, volumes: Any, peers: Any = None, **more: Any) -> Any:
    state, lvm = host.state(), host.lvm.state()
    places = places_of(guests, state, lvm, lambda: peers or {})
    return plan_guests(guests, volumes, state, lvm, places, today=TODAY, **more)


def test_a_retired_guest_is_undefined_its_volume_renamed_and_a_later_run_destroys() -> None:
    host = model(OFF)
    first = whole(host, [RETIRED], [OLD])
    assert [step.command.split()[0] for step in first.steps] == ["virsh", "lvchange"]
    assert first.steps[0].command == "virsh -q undefine db1"
    assert {step.subject for step in first.steps} == {"db1"}
    host.apply(first)
    assert host.domains == {} and set(host.lvm.volumes) == {"vg0/retired-20260224-db1-root"}
    host.apply(whole(host, [RETIRED], [OLD]))
    assert host.lvm.volumes == {}
    last = whole(host, [RETIRED], [OLD])
    assert last.steps == last.refused == last.notes == ()


def test_a_retired_guest_that_runs_is_refused_and_keeps_its_volume() -> None:
    host = model(RUNS)
    found = whole(host, [RETIRED], [OLD])
    assert found.steps == ()
    assert [refusal.message for refusal in found.refused] == [
        "it is retired, but running: shut it down first",
        "vg0/db1-root is not retired: it is in the definition of a guest",
    ]


def test_nothing_is_retired_where_the_place_or_a_definition_is_not_known() -> None:
    host = model(OFF)
    found = whole(host, [RETIRED], [OLD], peers={"kvm2": libvirt(RUNS)})
    assert found.steps == ()
    odd = domain(guest=Guest(definition("foo")), definition=Unreadable("x"))
    found = whole(model(OFF, odd), [RETIRED], [OLD])
    assert not [step for step in found.steps if step.command.startswith("lv")]
    assert "the definition of foo cannot be read" in found.refused[0].message


def test_the_default_network() -> None:
    host = model(RUNS, networks={"default": Network("default", active=True, autostart=True)})
    found = plan_networks(host.state())
    assert found.steps[0].command == (
        "virsh -q net-destroy default && virsh -q net-autostart default --disable && virsh -q net-undefine default"
    )
    host.apply(found)
    assert host.networks == {} and plan_networks(host.state()).steps == ()
    user = domain(networks=frozenset({"default"}))
    busy = replace(libvirt(user), networks={"default": Network("default", active=True, autostart=False)})
    assert plan_networks(busy).steps == ()
    assert "in use by db1" in plan_networks(busy).refused[0].message


# --- thousands of random twins ---

NAMES = ["db1", "web1", "docker2"]
STATES = [
    ("running", "booted"),
    ("running", "migrated"),
    ("shut off", "shutdown"),
    ("shut off", "migrated"),
    ("shut off", "crashed"),
    ("paused", "migrating"),
]


@st.composite
def guests(draw: Any) -> Any:
    made = []
    for name in NAMES[: draw(st.integers(1, 3))]:
        made.append(
            Guest(
                definition(
                    name, draw(st.sampled_from([GIB, 2 * GIB])), draw(st.sampled_from([["root"], ["root", "x"]]))
                ),
                home=draw(st.booleans()),
                autostart=draw(st.booleans()),
                runs=draw(st.booleans() | st.just(True)),
                encrypted=draw(st.booleans()),
                retired=draw(st.sampled_from([False, False, False, True])),
            )
        )
    return made


@st.composite
def libvirts(draw: Any, guests: Any) -> Any:
    """What libvirt has: for each guest perhaps a domain, perhaps not as wanted, and one of somebody else's."""
    found = []
    for guest in guests:
        if draw(st.booleans()):
            had = replace(guest, definition=replace(guest.definition, memory=draw(st.sampled_from([GIB, 2 * GIB]))))
            state, reason = draw(st.sampled_from(STATES))
            found.append(replace(domain(state, reason, had), autostart=draw(st.booleans())))
    if draw(st.booleans()):
        found.append(domain(guest=Guest(definition("foo"))))
    return libvirt(*found)


@st.composite
def twins(draw: Any) -> Any:
    wanted = draw(guests())
    here = draw(libvirts(wanted))
    peer = draw(st.none() | libvirts(wanted))
    volumes = []
    for name in [*NAMES, "foo"]:
        state = here.domains.get(name)
        for part in ("root", "x"):
            held = state is not None and f"/dev/vg0/{name}-{part}" in state.capacities
            if held or draw(st.booleans()):
                tags = {"homefleet", f"guest={name}"}
                tags |= set() if state else draw(st.sampled_from([set(), {"fresh"}, {"fresh"}]))
                size = draw(st.sampled_from([2 * GIB, 2 * GIB, 3 * GIB])) if held else 2 * GIB
                volumes.append(LogicalVolume("vg0", f"{name}-{part}", size, frozenset(tags), open=held))
    answers = {guest.name: draw(st.sampled_from([True, False, None])) for guest in wanted}
    host = model(*here.domains.values(), volumes=volumes, answers=answers)
    host.deaf = draw(st.sets(st.sampled_from(NAMES)))
    names = st.sets(st.sampled_from([guest.name for guest in wanted]), max_size=2)
    return wanted, host, peer, draw(names), draw(names)


def one_run(wanted: Any, host: Any, peer: Any, create: Any, restart: Any) -> Any:
    """A run of the two operations, as they are: volumes first, then guests. Returns all plans and failures."""
    state, lvm = host.state(), host.lvm.state()
    places = places_of(wanted, state, lvm, lambda: {"kvm2": peer}, create)
    volumes = [
        Volume(
            "vg0",
            disk.device.rpartition("/")[2],
            3 * GIB,
            guest.name,
            *((TODAY - timedelta(2), TODAY, "a test") if guest.retired else ()),
        )
        for guest in wanted
        for disk in guest.definition.disks
    ]
    mine = [volume for volume in volumes if isinstance(places[volume.guest], Here | Create)]
    first = plan_volumes([VolumeGroup("vg0", "/dev/vdb", GIB)], mine, lvm, TODAY, set(places))
    failed = host.apply(first)
    state, lvm = host.state(), host.lvm.state()
    places = places_of(wanted, state, lvm, lambda: {"kvm2": peer}, create)
    second = plan_guests(wanted, volumes, state, lvm, places, today=TODAY, restart=restart)
    failed |= host.apply(second)
    return places, (first, second), failed


def check_domains(case: Any, before: Any, peers: Any, asked: Any) -> None:
    """Nothing runs twice, and nothing that ran was stopped but on the owner's word."""
    wanted, host, peer, create, restart = case
    encrypted = {guest.name for guest in wanted if guest.encrypted}
    for name, after in host.domains.items():
        started = after.active and not (name in before and before[name].active)
        if started and asked:
            assert name not in peers, "runs twice"
        if started and name in before and before[name].moved_away:
            assert name in create
        if started and name not in before and peer is None:
            assert name in create
    for name, was in before.items():
        if was.active and name not in restart:
            assert host.domains[name].active, "a running guest was stopped"
        if was.active and was.state == "running" and name in encrypted:
            assert host.answers[name] is True or ["virsh", "-q", "shutdown", name] not in host.commands


@settings(deadline=None, max_examples=EXAMPLES)
@given(twins())
def test_nothing_is_lost_or_doubled_and_the_next_plan_is_empty(case: Any) -> None:
    wanted, host, peer, create, restart = case
    by_name = {guest.name: guest for guest in wanted}
    before, volumes = dict(host.domains), dict(host.lvm.volumes)
    peers = {} if peer is None else {name: it for name, it in peer.domains.items() if not it.moved_away}
    asked = needs_peers(wanted, host.state(), host.lvm.state(), create)
    places, plans, failed = one_run(wanted, host, peer, create, restart)
    assert set(failed) <= host.deaf & restart
    for plan in plans:
        for step in plan.steps:
            verbs = step.command.split()
            assert not {"destroy", "vgremove", "lvreduce", "wipefs", "reset"} & set(verbs)
            if "lvremove" in verbs or "undefine" in verbs:
                assert by_name[step.subject.split("/")[-1].split("-")[-2 if "/" in step.subject else 0]].retired
    for name, where in places.items():
        if isinstance(where, Unknown | Elsewhere | Both | LeftBehind | Nowhere) and not by_name[name].retired:
            assert host.domains.get(name) == before.get(name)
            assert [v for v in host.lvm.volumes.values() if f"guest={name}" in v.tags] == [
                v for v in volumes.values() if f"guest={name}" in v.tags
            ]
    check_domains(case, before, peers, asked)
    assert host.domains.get("foo") == before.get("foo")
    for spec, volume in volumes.items():
        owner = next(tag.removeprefix("guest=") for tag in volume.tags if tag.startswith("guest="))
        if owner not in by_name or not by_name[owner].retired:
            assert host.lvm.volumes[spec].size >= volume.size
    # Once more with the same words, then what is left must be quiet. A retired volume takes a second run to
    # go.
    one_run(wanted, host, peer, create, restart)
    _, (first, second), _ = one_run(wanted, host, peer, create, restart)
    refused = {refusal.subject for plan in (first, second) for refusal in plan.refused} | (host.deaf & restart)
    assert [step for step in (*first.steps, *second.steps) if step.subject not in refused] == []
