"""Migration paths: what is decided, and that the scripts arm the closing before they open anything."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import operations.linux.migration as paths
from deploys.services.sshd import CONF
from facts.linux.migration import COMMAND, KEYS, Accepted, Ends, MigrationState
from fleet.load import load
from operations.linux.migration import (
    CLOSE,
    OVERRUN_SECONDS,
    Move,
    between,
    obstacle,
    plan_close,
    plan_peer,
    plan_rest,
    plan_source,
    words,
)
from operations.steps import Plan
from tests.shell import check_scripts

ENDS = Ends("kvm1", "192.168.1.11", "kvm2", "192.168.1.12")
BACK = Ends("kvm2", "192.168.1.12", "kvm1", "192.168.1.11")
MOVE = Move(ENDS, 22, 1800)
KEY = "ssh-ed25519 AAAAsource"
HOST_KEY = "ssh-ed25519 AAAAhost"
ARRIVING = '0 0 192.168.1.12:49152 192.168.1.11:40000 users:(("qemu-system-x86",pid=7))\n'
REST = MigrationState(firewall={})
SOURCE = MigrationState(
    role="source",
    ends=ENDS,
    left=1790,
    key=KEY,
    known_hosts=(f"192.168.1.12 {HOST_KEY}",),
    firewall={},
    closer=True,
    files=("/run/homefleet/migration",),
)
PEER = MigrationState(
    role="peer",
    ends=ENDS,
    left=1795,
    accepted=(Accepted("192.168.1.11", "20300101000000", KEY),),
    firewall={"192.168.1.11": 1795},
    closer=True,
    files=("/run/homefleet/migration", KEYS),
)


def change(state: MigrationState, **fields: object) -> MigrationState:
    return MigrationState(**{**state.__dict__, **fields})


def states(ends: st.SearchStrategy[Ends | None]) -> st.SearchStrategy[MigrationState]:
    keys = st.sampled_from(["", KEY, "ssh-ed25519 AAAAother"])
    accepted = st.builds(Accepted, st.sampled_from(["192.168.1.11", "anywhere"]), st.just("20300101000000"), keys)
    left = st.one_of(st.integers(-2 * OVERRUN_SECONDS, 4000), st.sampled_from([0, 1, -OVERRUN_SECONDS]))

    def recorded(state: MigrationState, between: Ends | None, role: str, seconds: int) -> MigrationState:
        if between is None:
            return state
        return change(state, ends=between, role=role, left=seconds, files=("/run/homefleet/migration",))

    bare = st.builds(
        MigrationState,
        key=st.one_of(st.none(), keys),
        known_hosts=st.sampled_from([(), SOURCE.known_hosts, ("x y z",)]),
        accepted=st.lists(accepted, max_size=2).map(tuple),
        firewall=st.one_of(
            st.none(), st.dictionaries(st.sampled_from(["192.168.1.11", "192.0.2.9"]), st.integers(-1, 4000))
        ),
        closer=st.booleans(),
        processes=st.integers(0, 2),
        streams=st.integers(0, 2),
    )
    return st.builds(recorded, bare, ends, st.sampled_from(["source", "peer"]), left)


ANY = states(st.sampled_from([None, ENDS, BACK]))
MAYBE = st.one_of(st.none(), ANY)


def labels(plan: Plan) -> list[str]:
    return [step.label for step in plan.steps]


def test_from_rest_both_ends_are_made() -> None:
    source = plan_source(MOVE, REST, REST, HOST_KEY)
    assert labels(source) == ["made the key of a move to kvm2"]
    assert not source.refused
    assert labels(plan_peer(MOVE, SOURCE, REST)) == ["accepts kvm1 for 30 min"]


def test_a_second_run_finds_everything_in_place() -> None:
    assert plan_source(MOVE, SOURCE, PEER, HOST_KEY) == Plan()
    assert plan_peer(MOVE, SOURCE, PEER) == Plan()


def test_opening_again_later_extends_with_the_same_key() -> None:
    source, peer = change(SOURCE, left=600), change(PEER, left=601, firewall={"192.168.1.11": 600})
    assert labels(plan_source(MOVE, source, peer, HOST_KEY)) == ["kept the key of a move to kvm2 for 30 min"]
    assert labels(plan_peer(MOVE, SOURCE, peer)) == ["accepts kvm1 for 30 min"]


@pytest.mark.parametrize(
    ("source", "peer", "said"),
    [
        (None, REST, "kvm1 cannot be asked"),
        (REST, None, "kvm2 cannot be asked"),
        (change(PEER, ends=BACK), REST, r"from kvm2 to kvm1 is open on kvm1 \(30 min\); close it first"),
        (REST, change(SOURCE, ends=BACK), "from kvm2 to kvm1 is open on kvm2"),
        (change(PEER, ends=BACK, left=-5, streams=1), REST, "from kvm2 to kvm1 is open on kvm1"),
        (REST, change(REST, firewall=None), "no nftables set migration_peers"),
    ],
)
def test_what_refuses_an_opening_on_both_ends(
    source: MigrationState | None, peer: MigrationState | None, said: str
) -> None:
    for plan in (plan_source(MOVE, source, peer, HOST_KEY), plan_peer(MOVE, source, peer)):
        assert not plan.steps
        assert re.search(said, plan.refused[0].message)


def test_without_a_verified_host_key_nothing_is_made() -> None:
    assert "showed no host key" in plan_source(MOVE, REST, REST, None).refused[0].message


def test_without_the_key_of_this_move_nothing_is_accepted() -> None:
    for source in (REST, change(SOURCE, key=None), change(SOURCE, key="")):
        assert "has no key" in plan_peer(MOVE, source, REST).refused[0].message


def test_what_a_path_of_others_left_is_swept_before() -> None:
    old = change(PEER, ends=BACK, left=-5)
    assert labels(plan_source(MOVE, old, REST, HOST_KEY))[0] == "removed what was left of one"
    assert labels(plan_peer(MOVE, SOURCE, change(REST, accepted=PEER.accepted)))[0] == "removed what was left of one"


def test_closing() -> None:
    assert plan_close(ENDS, REST) == Plan()
    assert [step.command for step in plan_close(ENDS, PEER).steps] == ["sh -s now"]
    assert "another" not in str(plan_close(ENDS, None).refused)
    assert plan_close(ENDS, None).refused
    assert "goes from kvm2 to kvm1" in plan_close(ENDS, change(PEER, ends=BACK)).refused[0].message
    arriving = change(PEER, streams=1)
    assert "a guest is arriving" in plan_close(ENDS, arriving).refused[0].message
    assert plan_close(ENDS, arriving, force=True).steps


def test_at_rest_an_open_path_is_said_and_left_alone() -> None:
    plan = plan_rest(PEER)
    assert plan == Plan(notes=("a migration path from kvm1 to kvm2 is open (30 min)",))


def test_at_rest_a_path_that_nothing_would_close_is_armed() -> None:
    assert labels(plan_rest(change(PEER, closer=False))) == ["armed its closing"]


def test_at_rest_a_guest_that_still_arrives_is_left_alone_for_a_while() -> None:
    late = change(PEER, left=-60, streams=1)
    assert plan_rest(late).notes == ("a migration path from kvm1 to kvm2 is over its time, a guest is still arriving",)
    assert not plan_rest(late).steps
    assert labels(plan_rest(change(late, left=-OVERRUN_SECONDS))) == ["removed what was left of one"]


@settings(max_examples=400)
@given(MAYBE)
def test_rest_never_closes_what_is_in_time_and_always_ends_what_is_not(found: MigrationState | None) -> None:
    plan = plan_rest(found)
    closes = [step for step in plan.steps if step.command == "sh -s now"]
    if found is None:
        assert plan.refused
        assert not plan.steps
    elif found.left is not None and (found.left > 0 or (found.streams and found.left > -OVERRUN_SECONDS)):
        assert not closes
        assert bool(plan.steps) == (not found.closer)
        assert plan.notes
    else:
        assert bool(closes) == (not found.at_rest)
        assert not plan.notes


@settings(max_examples=400)
@given(MAYBE, MAYBE, st.one_of(st.none(), st.just(HOST_KEY)))
def test_an_opening_is_refused_or_leads_to_a_state_that_needs_nothing(
    source: MigrationState | None, peer: MigrationState | None, known: str | None
) -> None:
    first, second = plan_source(MOVE, source, peer, known), plan_peer(MOVE, source, peer)
    for plan in (first, second):
        assert not (plan.refused and plan.steps)
    if obstacle(MOVE, source, peer) is not None:
        assert first.refused
        assert second.refused
        return
    assert source is not None
    assert peer is not None
    for state in (source, peer):
        assert state.ends in (None, ENDS) or (state.left or 0) <= 0
    assert bool(first.refused) == (known is None)
    if known is not None:
        after = change(SOURCE, key=source.key if source.ends == ENDS and source.key else KEY)
        opened = change(PEER, accepted=(Accepted("192.168.1.11", "20300101000000", after.key or ""),))
        assert plan_source(MOVE, after, opened, known) == Plan()
        assert plan_peer(MOVE, after, opened) == Plan()


@settings(max_examples=400)
@given(MAYBE, st.booleans())
def test_closing_ends_at_rest_or_is_refused(found: MigrationState | None, force: bool) -> None:
    plan = plan_close(ENDS, found, force)
    assert not (plan.refused and plan.steps)
    if found is None:
        assert plan.refused
    elif found.at_rest:
        assert plan == Plan()
    assert "\n" not in words(found)


def test_the_model_gives_the_addresses() -> None:
    fleet, _ = load("home")
    assert between(fleet, "kvm1", "kvm2", 30) == Move(ENDS, 2022, 1800)
    in_lab, _ = load("lab")
    assert between(in_lab, "kvm2", "kvm1", 5) == Move(BACK, 2022, 300)


@pytest.mark.parametrize(
    ("source", "peer", "minutes", "said"),
    [
        ("kvm1", "kvm1", 30, "both ends"),
        ("kvm1", "kvm9", 30, "no host kvm9"),
        ("kvm1", "", 30, "no host "),
        ("kvm1", "ns3", 30, "not at the same site"),
        ("kvm1", "kvm2", 0, "minutes: 1 to"),
        ("kvm1", "kvm2", 9999, "minutes: 1 to"),
    ],
)
def test_wrong_arguments_are_refused_before_anything(source: str, peer: str, minutes: int, said: str) -> None:
    fleet, _ = load("home")
    with pytest.raises(ValueError, match=said):
        between(fleet, source, peer, minutes)


def test_another_port_is_in_the_uri_and_in_known_hosts() -> None:
    move = Move(ENDS, 2222, 60)
    assert "qemu+libssh://moves@192.168.1.12:2222/system?keyfile=" in move.uri()
    assert move.known_host(HOST_KEY) == f"[192.168.1.12]:2222 {HOST_KEY}"
    assert "known_hosts_verify=normal" in MOVE.uri()


def test_the_peer_lets_the_account_in_with_the_keys_of_a_path_alone() -> None:
    fleet, _ = load("home")
    kvm2 = fleet.host("kvm2")
    made = [file for service in kvm2.services for each in service.renders(kvm2, fleet) for file in each.files]
    (text,) = (file.text for file in made if file.path == CONF)
    (own,) = (block for block in text.split("\n\n") if block.startswith("Match User moves\n"))
    assert {f"AuthorizedKeysFile {KEYS}", "AuthenticationMethods publickey"} <= {
        line.strip() for line in own.splitlines()
    }
    (allowed,) = (line.split()[1:] for line in text.splitlines() if line.startswith("AllowUsers "))
    assert "moves" in allowed
    assert "root" not in allowed


SCRIPTS = {
    "fact": COMMAND,
    "close": CLOSE,
    "source": paths.source_script(MOVE, MOVE.known_host(HOST_KEY)),
    "peer": paths.peer_script(MOVE, KEY),
    "arm": paths.arm_script(60),
    "proof": paths.proof_script(MOVE),
}


def test_a_host_can_run_every_script() -> None:
    check_scripts(*SCRIPTS.values(), openbsd=False)


class Place:
    """A host in a folder: its /run, and shims that write down what they are asked."""

    SHIMS = {
        "nft": """\
case "$1" in
list) ;;
-f) echo "nft $(cat | tr "\\n" ";")" >>"$LOG" ;;
*) echo "nft $*" >>"$LOG" ;;
esac""",
        "systemctl": """\
echo "systemctl $*" >>"$LOG"
case "$*" in
*is-active*.timer*) [ -e "$TIMER" ]; exit ;;
*is-active*) exit 1 ;;
*stop*close.timer*) rm -f "$TIMER" ;;
esac""",
        "systemd-run": 'echo "systemd-run $*" >>"$LOG"; : >"$TIMER"',
        "id": 'echo "${GROUPS_THERE-moves libvirt}"',
        "sshd": """\
echo "sshd $*" >>"$LOG"
echo "authorizedkeysfile ${KEYSFILE:-$KEYS}"
echo "pubkeyauthentication ${PUBKEYS:-yes}\"""",
        # What the account still runs is in a file, by the signals that it survives.
        "pkill": """\
echo "pkill $*" >>"$LOG"
[ -e "$RUNS" ] || exit 1
if [ "$1" = -KILL ]; then rm "$RUNS"; else sed -i 1d "$RUNS"; fi""",
        "pgrep": '[ -s "$RUNS" ]',
        "virt-ssh-helper": ":",
        "logger": 'echo "logger $*" >>"$LOG"',
        "ss": 'cat "$STREAMS" 2>/dev/null || :',
        "sleep": 'echo "sleep $*" >>"$LOG"; rm -f "$STREAMS"',
    }
    COUNTED = ("nft", "systemctl", "systemd-run", "sshd", "mkdir", "mv", "cat", "rm", "chmod", "date")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("run", "bin"):
            (folder / name).mkdir()
        for name in {*self.SHIMS, *self.COUNTED}:
            real = "" if name in self.SHIMS else f'exec {shutil.which(name)} "$@"'
            dying = 'echo . >>"$COUNT"; [ "$(wc -l <"$COUNT")" -ne "$DIE" ] || { kill -KILL "$VICTIM"; exit 1; }\n'
            counted = dying if name in self.COUNTED else ""
            shim = folder / "bin" / name
            shim.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{counted}{self.SHIMS.get(name, real)}\n")
            shim.chmod(0o755)

    def run(
        self, script: str, *words: str, die: int = 0, uptime: int = 1000, there: dict[str, str] | None = None
    ) -> int:
        """Run a script of ours in here, `there` being what the shims find; at the `die`-th command it is killed."""
        (self.folder / "uptime").write_text(f"{uptime}.42 99.00\n")
        (self.folder / "count").write_text("")
        for real, here in (
            ("/run/homefleet", f"{self.folder}/run/homefleet"),
            ("/proc/uptime", f"{self.folder}/uptime"),
            ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"PATH={self.folder}/bin:/usr/bin:/bin"),
        ):
            script = script.replace(real, here)
        names = {
            "LOG": "log",
            "TIMER": "timer",
            "STREAMS": "streams",
            "COUNT": "count",
            "RUNS": "runs",
            "KEYS": KEYS[1:],
        }
        files = {name: str(self.folder / file) for name, file in names.items()}
        argv = ["sh", "-c", 'VICTIM=$$; export VICTIM; exec sh -s "$@"', "sh", *words]
        known = {**files, "DIE": str(die), "PATH": "/usr/bin:/bin", **(there or {})}
        return subprocess.run(argv, input=script, text=True, env=known, check=False).returncode

    @property
    def log(self) -> list[str]:
        file = self.folder / "log"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def accepts(self) -> bool:
        return (self.folder / "run/homefleet/migration.keys").exists()

    @property
    def lets_in(self) -> bool:
        changes = [line for line in self.log if line.startswith("nft ")]
        return bool(changes) and "add element" in changes[-1]

    @property
    def has_key(self) -> bool:
        return (self.folder / "run/homefleet/migration/id_ed25519").exists()

    @property
    def armed(self) -> bool:
        return (self.folder / "timer").exists()

    @property
    def path(self) -> str:
        return (self.folder / "run/homefleet/migration/path").read_text().strip()

    @property
    def empty(self) -> bool:
        return not list((self.folder / "run/homefleet").glob("migration*"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_peer_accepts_one_key_for_one_command(place: Place) -> None:
    assert place.run(SCRIPTS["peer"]) == 0
    keys = place.folder / "run/homefleet/migration.keys"
    line = keys.read_text()
    assert line.startswith('restrict,from="192.168.1.11",expiry-time="')
    assert f"command=\"grep -qsF AAAAsource {keys} && exec virt-ssh-helper 'qemu:///system'\" ssh-ed25519" in line
    assert line.endswith(" ssh-ed25519 AAAAsource\n")
    # sshd reads it as the account, which writes neither the file nor the folder.
    assert (keys.stat().st_mode & 0o777, keys.parent.stat().st_mode & 0o777) == (0o644, 0o711)
    assert (keys.parent / "migration").stat().st_mode & 0o077 == 0
    assert place.path == "peer kvm1 192.168.1.11 kvm2 192.168.1.12 2800"
    assert "add element inet homefleet migration_peers { 192.168.1.11 timeout 1800s }" in place.log[-1]


def test_the_source_has_a_private_key_that_only_root_reads(place: Place) -> None:
    assert place.run(SCRIPTS["source"]) == 0
    mine = place.folder / "run/homefleet/migration"
    assert (mine / "known_hosts").read_text() == f"192.168.1.12 {HOST_KEY}\n"
    assert {file.stat().st_mode & 0o077 for file in (mine, mine / "id_ed25519")} == {0}
    before = (mine / "id_ed25519").read_text()
    assert place.run(SCRIPTS["source"], uptime=1600) == 0
    assert (mine / "id_ed25519").read_text() == before
    assert place.path.endswith(" 3400")
    assert len([line for line in place.log if line.startswith("systemd-run")]) == 1


@pytest.mark.parametrize("end", ["source", "peer"])
def test_whatever_moment_the_script_dies_nothing_is_open_that_nothing_closes(end: str, tmp_path: Path) -> None:
    died = 0
    for moment in range(1, 60):
        folder = tmp_path / str(moment)
        folder.mkdir()
        place = Place(folder)
        code = place.run(SCRIPTS[end], die=moment)
        if place.accepts or place.has_key or place.lets_in:
            assert place.armed, moment
        if code == 0:
            break
        died += 1
        assert place.run(SCRIPTS[end], uptime=1001) == 0
        assert place.armed
        assert place.accepts if end == "peer" else place.has_key
    assert died > 8
    assert code == 0


def test_opening_again_moves_the_end_and_never_back(place: Place) -> None:
    place.run(SCRIPTS["peer"])
    place.run(paths.peer_script(Move(ENDS, 22, 60), KEY), uptime=1010)
    assert place.path.endswith(" 2800")
    assert "timeout 1790s" in place.log[-1]
    place.run(SCRIPTS["peer"], uptime=1500)
    assert place.path.endswith(" 3300")


def test_two_openings_at_once_do_not_both_win(place: Place) -> None:
    assert place.run(paths.peer_script(Move(BACK), KEY)) == 0
    assert place.run(SCRIPTS["source"]) != 0
    assert not place.has_key


def test_a_path_whose_timer_is_gone_gets_a_new_one(place: Place) -> None:
    place.run(SCRIPTS["peer"])
    (place.folder / "timer").unlink()
    assert place.run(SCRIPTS["peer"]) == 0
    assert place.armed


@pytest.mark.parametrize(
    "wrong",
    [
        {"KEYSFILE": ".ssh/authorized_keys .ssh/authorized_keys2"},
        {"KEYSFILE": "none"},
        {"PUBKEYS": "no"},
        {"GROUPS_THERE": "moves"},
        {"GROUPS_THERE": ""},
    ],
    ids=str,
)
def test_a_peer_that_would_not_let_the_account_in_refuses_loudly(place: Place, wrong: dict[str, str]) -> None:
    assert place.run(SCRIPTS["peer"], there=wrong) != 0
    assert not place.accepts
    assert not place.lets_in


def test_sshd_is_asked_about_the_very_login_that_will_come(place: Place) -> None:
    assert place.run(paths.peer_script(Move(ENDS, 2022, 60), KEY)) == 0
    asked = "user=moves,host=192.168.1.11,addr=192.168.1.11,laddr=192.168.1.12,lport=2022"
    assert f"sshd -T -C {asked}" in place.log


@pytest.mark.parametrize("end", ["source", "peer"])
def test_after_its_time_nothing_is_left(place: Place, end: str) -> None:
    place.run(SCRIPTS[end])
    assert place.run(CLOSE, uptime=2800) == 0
    assert place.empty
    assert "pkill -TERM -u moves" in place.log
    assert not place.lets_in


@pytest.mark.parametrize("survived", range(5))
def test_what_the_account_runs_is_ended_whatever_it_survives(place: Place, survived: int) -> None:
    place.run(SCRIPTS["peer"])
    (place.folder / "runs").write_text("survives\n" * (survived + 1))
    assert place.run(CLOSE, uptime=2800) == 0
    sent = [line.split()[1] for line in place.log if line.startswith("pkill")]
    assert sent == ["-TERM", "-TERM", "-TERM", "-KILL"][: survived + 1]
    assert not (place.folder / "runs").exists() or not (place.folder / "runs").read_text()
    assert place.empty


def test_closing_at_once_does_not_wait_and_takes_the_timer_along(place: Place) -> None:
    place.run(SCRIPTS["peer"])
    assert place.run(CLOSE, "now") == 0
    assert place.empty
    assert not place.armed
    assert place.run(CLOSE, "now") == 0


def test_a_guest_that_is_still_arriving_may_arrive_but_the_door_is_shut(place: Place) -> None:
    place.run(SCRIPTS["peer"])
    (place.folder / "streams").write_text(
        '0 0 192.168.1.12:49152 192.168.1.11:40000 users:(("qemu-system-x86",pid=7))\n'
    )
    assert place.run(CLOSE, uptime=2801) == 0
    said = place.log
    assert said.index("sleep 10") > next(i for i, line in enumerate(said) if line.startswith("nft flush"))
    assert said.index("sleep 10") < said.index("pkill -TERM -u moves")
    assert place.empty


def test_a_guest_that_never_arrives_is_ended_and_the_journal_says_so(place: Place) -> None:
    place.run(SCRIPTS["peer"])
    (place.folder / "streams").write_text(
        '0 0 192.168.1.12:49152 192.168.1.11:40000 users:(("qemu-system-x86",pid=7))\n'
    )
    assert place.run(CLOSE, uptime=2800 + OVERRUN_SECONDS) == 0
    assert any("daemon.err" in line for line in place.log)
    assert "sleep 10" not in place.log
    assert place.empty
