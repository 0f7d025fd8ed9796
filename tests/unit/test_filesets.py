"""Configuration sets: the planner, and the script it leads to, run for real below a temporary folder.

The scripts of both systems run in the shells that are here: dash, which Ubuntu has, and mksh, of the family of
OpenBSD's ksh. Faults at every step of a script are in tests/lab/test_sets.py.
"""

from __future__ import annotations

import os
import stat
import subprocess
import time
from pathlib import Path

import pytest
from pydantic import SecretStr
from pyinfra.api.exceptions import FactProcessError

from deploys.services.resolver import Resolver
from facts.filesets import STATE_OPENBSD, FileSets, FileState, SetState, parse
from fleet.load import load
from fleet.model.secret import Secret, hex_of
from fleet.model.service import Daemon, File, FileSet
from operations.filesets import (
    SCRIPT_SECONDS,
    Due,
    filled,
    held_back,
    plan_set,
    query,
    state_of,
    to_settle,
    unsettled,
)
from operations.swap import (
    CHECK_SECONDS,
    FOLLOW_SECONDS,
    LOCK_SECONDS,
    PATIENT_SECONDS,
    UNDO_SECONDS,
    confirmation,
    ended,
    script,
    settled,
)
from tests.sets import DEADLINE, EXTERNAL, KSH, NEW, OLD, SHELLS, Place, begin, finish, now
from tests.shell import check_scripts


@pytest.fixture(params=[True, False], ids=["openbsd", "ubuntu"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, request.param, KSH if request.param else SHELLS[0])


def test_a_set_is_made_and_the_second_run_is_nothing(place: Place) -> None:
    wanted = FileSet(name="web", files=(place.file("a.conf", "one\n"), place.file("key", "s3cret\n", 0o600)))
    done = place.apply(wanted)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (place.etc / "a.conf").read_text() == "one\n"
    assert stat.S_IMODE((place.etc / "key").stat().st_mode) == 0o600
    assert not plan_set(wanted, place.found(wanted))
    assert place.leftovers() == []
    assert stat.S_IMODE(place.state.stat().st_mode) == 0o700
    place.rest()


def test_text_that_looks_like_shell_arrives_as_it_is(place: Place) -> None:
    text = "$HOME `id` \\n 'x' \"y\" $(id)\nEND\n\tEND-OF-MANIFEST\n"
    wanted = FileSet(name="web", files=(place.file("a b's.conf", text),))
    assert place.apply(wanted).returncode == 0
    assert (place.etc / "a b's.conf").read_text() == text
    assert not plan_set(wanted, place.found(wanted))


def test_a_refused_set_leaves_everything(place: Place) -> None:
    (place.etc / "a.conf").write_text("old\n")
    wanted = FileSet(
        name="web", files=(place.file("a.conf", "bad\n"),), check="! grep bad {new}" + str(place.etc / "a.conf")
    )
    done = place.apply(wanted)
    assert done.returncode != 0
    assert "the check refused the new files, the old ones are in place" in done.stderr
    assert "bad" in done.stderr
    assert place.files() == {"a.conf": "old\n"}
    assert place.leftovers() == []


def test_a_check_in_place_sees_the_swapped_files_and_the_daemon_never_does(place: Place) -> None:
    (place.etc / "a.conf").write_text("old\n")
    wanted = FileSet(
        name="web",
        files=(place.file("a.conf", "new\n"), place.file("b.conf", "born\n")),
        check=f"grep new {{new}}{place.etc}/a.conf && exit 3",
        check_in_place=True,
        apply=place.reload(),
        undo=place.reload(),
    )
    done = place.apply(wanted)
    assert done.returncode != 0
    assert "the check refused the new files, the old ones are back:" in done.stderr
    assert "new" in done.stderr.splitlines()
    assert place.files() == {"a.conf": "old\n"}
    assert not place.running.exists()
    assert place.leftovers() == []


def test_a_daemon_that_does_not_accept_the_files_gets_the_old_ones_back(place: Place) -> None:
    (place.etc / "a.conf").write_text("old\n")
    (place.etc / "a.conf").chmod(0o640)
    (place.etc / "stray.conf").write_text("stray\n")
    wanted = FileSet(
        name="web",
        files=(place.file("a.conf", "new\n"), place.file("b.conf", "born\n")),
        exclusive=(f"{place.etc}/*.conf",),
        apply=f"grep old {place.etc}/a.conf",
        undo=place.reload("a.conf"),
    )
    assert place.apply(wanted).returncode != 0
    assert place.files() == {"a.conf": "old\n", "stray.conf": "stray\n"}
    assert stat.S_IMODE((place.etc / "a.conf").stat().st_mode) == 0o640
    assert place.running.read_text() == "old\n"
    assert place.leftovers() == []


def test_a_symbolic_link_comes_back_as_one(place: Place) -> None:
    (place.root / "elsewhere").write_text("old\n")
    (place.etc / "a.conf").symlink_to("../elsewhere")
    wanted = FileSet(name="web", files=(place.file("a.conf", "new\n"),), apply="false")
    assert place.apply(wanted).returncode != 0
    assert (place.etc / "a.conf").readlink() == Path("../elsewhere")
    good = wanted.model_copy(update={"apply": None})
    assert place.apply(good).returncode == 0
    assert not (place.etc / "a.conf").is_symlink()
    assert (place.root / "elsewhere").read_text() == "old\n"


def test_a_file_that_left_the_set_and_a_stray_go_with_the_swap(place: Place) -> None:
    (place.etc / "stray.conf").write_text("stray\n")
    first = FileSet(name="web", files=(place.file("a.conf", "1\n"), place.file("b.conf", "2\n")))
    assert place.apply(first).returncode == 0
    second = FileSet(name="web", files=(place.file("a.conf", "1\n"),), exclusive=(f"{place.etc}/*.conf",))
    due = plan_set(second, place.found(second))
    assert due.removed == (str(place.etc / "b.conf"),)
    assert due.away == (str(place.etc / "b.conf"), str(place.etc / "stray.conf"))
    assert place.apply(second).returncode == 0
    assert sorted(p.name for p in place.etc.iterdir()) == ["a.conf"]
    assert not plan_set(second, place.found(second))


def test_a_file_that_moved_to_another_set_stays(place: Place) -> None:
    moved = place.file("b.conf", "b\n")
    assert place.apply(FileSet(name="web", files=(place.file("a.conf", "a\n"), moved))).returncode == 0
    assert place.apply(FileSet(name="other", files=(moved,))).returncode == 0
    wanted = FileSet(name="web", files=(place.file("a.conf", "a\n"),))
    assert plan_set(wanted, place.found(wanted)).removed == (moved.path,)
    assert place.sh(place.script(wanted, kept={moved.path})).returncode == 0
    assert (place.etc / "b.conf").read_text() == "b\n"
    assert not plan_set(wanted, place.found(wanted))


def test_a_planted_link_is_not_followed(place: Place) -> None:
    """Who owns a folder can put a link where root is about to write."""
    victim = place.etc.parent / "victim"
    victim.write_text("not theirs\n")
    (place.etc / "a.conf.homefleet-new").symlink_to(victim)
    assert place.apply(FileSet(name="web", files=(place.file("a.conf", "a\n"),))).returncode == 0
    assert victim.read_text() == "not theirs\n"
    assert (place.etc / "a.conf").read_text() == "a\n"
    assert not (place.etc / "a.conf").is_symlink()


def test_what_a_swap_puts_beside_a_file_is_no_stray() -> None:
    found = parse(["set web", "stray /etc/a.conf.homefleet-old", "stray /etc/b", "stray /etc/c.homefleet-new"])
    assert found["web"].strays == ("/etc/b",)


def test_a_script_that_does_not_arrive_whole_does_nothing(place: Place) -> None:
    wanted = FileSet(name="web", files=(place.file("a.conf", "new\n"),), apply=place.reload())
    text = place.script(wanted)
    lines = text.splitlines(keepends=True)
    for count in range(1, len(lines) - 1, 4):
        # Also in the middle of a line: `rm -rf /a/b` that is cut short is a command too.
        place.sh("".join(lines[:count]) + lines[count][: len(lines[count]) // 2])
        assert place.files() == {}
        assert not place.state.exists(), lines[count]
    assert place.sh(text).returncode == 0


def test_two_runs_at_once_do_not_meet(place: Place) -> None:
    slow = FileSet(name="web", files=(place.file("a.conf", "slow\n"),), apply=f"/bin/sleep 0.5; {place.reload()}")
    fast = FileSet(name="web", files=(place.file("a.conf", "fast\n"),), apply=place.reload())
    texts = [place.here(place.script(wanted)) for wanted in (slow, fast)]
    runs = []
    for text in texts:
        run = subprocess.Popen(
            [place.shell, "-s"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=place.environment(), text=True
        )
        assert run.stdin is not None
        run.stdin.write(text)
        run.stdin.close()
        runs.append(run)
        place.wait((place.run / "web").is_symlink)
    for run in runs:
        assert run.wait(DEADLINE) == 0, run.stderr and run.stderr.read()
    assert place.files() == {"a.conf": "fast\n"}
    assert place.running.read_text() == "fast\n"
    assert place.leftovers() == []


def test_all_helpers_dead_and_no_boot_the_next_run_finishes(place: Place) -> None:
    wanted = begin(place, False)
    text = place.script(wanted)
    at = text.index("step='applying")
    place.sh(text[:at] + 'kill -9 "-$(/bin/cat "$MAIN")"\n' + text[at:])
    assert place.files() == NEW[0]
    assert place.running.read_text() == OLD[1]
    assert plan_set(wanted, place.found(wanted)) == Due(pending=True)
    finish(place, wanted)


def test_a_run_that_has_ended_holds_no_lock_though_nobody_asked_how(place: Place) -> None:
    wanted = FileSet(name="web", files=(place.file("a.conf", "1\n"),))
    assert place.apply(wanted).returncode == 0
    with subprocess.Popen(["/bin/true"]) as ended:
        while "State:\tZ" not in Path(f"/proc/{ended.pid}/status").read_text():
            time.sleep(0.01)
        (place.run / "web").symlink_to(str(ended.pid))
        before = time.monotonic()
        assert place.apply(FileSet(name="web", files=(place.file("a.conf", "2\n"),))).returncode == 0
        assert time.monotonic() - before < LOCK_SECONDS / 4


def test_a_daemon_that_follows_later_keeps_its_set_pending_until_it_did(place: Place) -> None:
    wanted = FileSet(name="web", files=(place.file("a.conf", "1\n"),))
    assert place.apply(wanted, followed=True).returncode == 0
    assert plan_set(wanted, place.found(wanted)) == Due(pending=True)
    assert place.leftovers() == ["state/pending/web"]
    assert place.sh(settled(["web"], place.openbsd)).returncode == 0
    assert not plan_set(wanted, place.found(wanted))


def test_a_set_is_settled_when_every_daemon_that_follows_it_did() -> None:
    daemons = (Daemon(name="a", reload_on=("web",)), Daemon(name="b", restart_on=("dns", "web")))
    assert unsettled(daemons) == {"web", "dns"}
    assert to_settle(daemons, changed={"web", "a", "other"}, failed=set()) == ("web",)
    assert to_settle(daemons, changed={"web", "dns"}, failed={"a"}) == ("dns",)
    assert to_settle(daemons, changed={"web", "dns"}, failed={"dns"}) == ("web",)
    assert to_settle(daemons, changed=set(), failed=set()) == ()


# What can lock the owner out.


def _dangerous(place: Place, text: str) -> FileSet:
    return FileSet(
        name="net",
        files=(place.file("net.conf", text),),
        apply=place.reload("net.conf"),
        undo=place.reload("net.conf"),
        before="echo 'echo restored >>\"$SHIM_LOG\"'",
        undo_at_boot='echo booted >>"$SHIM_LOG"',
        dangerous=True,
    )


def _armed(place: Place, seconds: int = 1000) -> FileSet:
    (place.etc / "net.conf").write_text("old\n")
    wanted = _dangerous(place, "new\n")
    done = place.apply(wanted, seconds)
    assert done.returncode == 0, done.stderr
    return wanted


def test_a_dangerous_set_ends_armed_and_a_confirmation_disarms_it(place: Place) -> None:
    wanted = _armed(place)
    found = place.found(wanted)
    assert found.pending and found.armed
    if not place.openbsd:
        log = place.log.read_text()
        assert "systemd-run -q --unit=homefleet-undo-net --on-active=1000" in log
        assert "enable homefleet-undo.service" in log
    assert place.confirm("net")
    assert not plan_set(wanted, place.found(wanted))
    assert place.leftovers() == []
    assert place.files() == {"net.conf": "new\n"}


def test_an_unconfirmed_set_is_put_back_with_its_running_state(place: Place) -> None:
    _armed(place)
    assert place.running.read_text() == "new\n"
    assert place.sh(f"sh {place.state}/rollback timer net 0\n").returncode == 0
    assert place.files() == {"net.conf": "old\n"}
    assert place.running.read_text() == "old\n"
    assert "restored" in place.log.read_text()
    assert not place.confirm("net"), "a late confirmation must not claim success"
    assert place.leftovers() == []


@pytest.mark.parametrize("shell", SHELLS)
def test_openbsds_timer_puts_an_unconfirmed_set_back_by_itself(shell: str, tmp_path: Path) -> None:
    """It outlives the session: the whole process group of the script hangs up before."""
    place = Place(tmp_path, True, shell)
    (place.etc / "net.conf").write_text("old\n")
    wanted = _dangerous(place, "new\n")
    text = place.script(wanted, seconds=30)
    assert place.sh(text.removesuffix("}\n") + 'kill -HUP "-$(/bin/cat "$MAIN")"\n}\n').returncode == 0
    assert place.running.read_text() == "new\n"
    place.wait(lambda: not place.found(wanted).armed)
    place.rest()
    assert place.files() == {"net.conf": "old\n"}
    assert place.running.read_text() == "old\n"
    assert place.leftovers() == []


def test_the_timer_of_a_confirmed_set_does_nothing_to_the_next_one(tmp_path: Path) -> None:
    place = Place(tmp_path, True)
    _armed(place, seconds=40)
    assert place.confirm("net")
    second = _dangerous(place, "second\n")
    assert place.apply(second, seconds=100000).returncode == 0
    time.sleep(1)
    assert place.found(second).armed
    assert place.confirm("net")
    assert place.files() == {"net.conf": "second\n"}


@pytest.mark.parametrize("shell", SHELLS)
def test_of_confirmation_and_undo_exactly_one_wins(shell: str, tmp_path: Path) -> None:
    """In most rounds they start at once; a head start in two shows that both can win."""
    winners = set()
    place = Place(tmp_path, True, shell)
    for undo, confirm in ((0.5, 0.0), (0.0, 0.5), *[(0.0, delay / 1000) for delay in range(8)]):
        _armed(place)
        rivals = [
            subprocess.Popen(
                [shell, "-c", f"/bin/sleep {delay}; sh {place.state}/rollback {verb}"],
                env=place.environment(),
                stderr=subprocess.DEVNULL,
            )
            for verb, delay in (("timer net 0", undo), ("confirm net", confirm))
        ]
        codes = [rival.wait(DEADLINE) for rival in rivals]
        place.rest()
        confirmed = codes[1] == 0
        expected = "new\n" if confirmed else "old\n"
        assert place.files() == {"net.conf": expected}
        assert place.running.read_text() == expected
        assert place.leftovers() == []
        winners.add(confirmed)
    assert winners == {True, False}


def test_at_boot_only_the_files_go_back(place: Place) -> None:
    wanted = _armed(place)
    place.boot()
    assert place.files() == {"net.conf": "old\n"}
    log = place.log.read_text()
    assert "booted" in log and "restored" not in log
    assert place.leftovers() == []
    assert not place.found(wanted).pending


def test_a_run_that_finds_an_armed_undo_without_a_timer_rolls_back_first(place: Place) -> None:
    _armed(place)
    if place.openbsd:
        os.kill(int((place.run / "net.timer").readlink().name), 9)
    refused = _dangerous(place, "second\n").model_copy(update={"check": "false"})
    assert place.apply(refused).returncode != 0
    assert place.files() == {"net.conf": "old\n"}
    assert place.running.read_text() == "old\n"
    assert place.leftovers() == []


def test_a_run_that_finds_an_armed_undo_waits_for_it(tmp_path: Path) -> None:
    place = Place(tmp_path, True)
    _armed(place, seconds=20)
    second = _dangerous(place, "second\n")
    assert place.apply(second, seconds=1000).returncode == 0
    assert "restored" in place.log.read_text()
    assert place.confirm("net")
    assert place.files() == {"net.conf": "second\n"}


def test_a_change_that_takes_longer_than_its_undo_fails(tmp_path: Path) -> None:
    place = Place(tmp_path, True)
    (place.etc / "net.conf").write_text("old\n")
    wanted = _dangerous(place, "new\n").model_copy(update={"apply": "/bin/sleep 1"})
    done = place.apply(wanted, seconds=10)
    assert done.returncode != 0
    assert "it took too long, the old state is back" in done.stderr
    place.rest()
    assert place.files() == {"net.conf": "old\n"}


def test_the_boot_hook_of_openbsd_comes_first_and_leaves_what_is_there(tmp_path: Path) -> None:
    place = Place(tmp_path, True)
    place.securelevel.write_text("sysctl kern.securelevel=2\nexit 0\n")
    place.securelevel.chmod(0o600)
    wanted = FileSet(name="web", files=(place.file("a.conf", "1\n"),))
    assert place.apply(wanted).returncode == 0
    hook = place.here(f"[ ! -f {STATE_OPENBSD}/rollback ] || sh {STATE_OPENBSD}/rollback boot\n")
    assert place.securelevel.read_text() == f"{hook}sysctl kern.securelevel=2\nexit 0\n"
    assert stat.S_IMODE(place.securelevel.stat().st_mode) == 0o600
    again = FileSet(name="web", files=(place.file("a.conf", "2\n"),))
    assert place.apply(again).returncode == 0
    assert place.securelevel.read_text().count(hook) == 1


# Secrets (O5).

TOTP = Secret("totp", hex_of(20))
VALUES = {"totp": SecretStr("0123456789abcdef0123456789abcdef01234567")}


def test_marks_are_filled_just_before_and_compared_filled(place: Place) -> None:
    wanted = FileSet(name="web", files=(place.file("key", f"k {TOTP}\n", 0o600), place.file("plain", "p\n")))
    whole = filled(wanted, VALUES)
    assert [file.secret for file in whole.files] == [True, False]
    assert place.apply(whole).returncode == 0
    assert (place.etc / "key").read_text() == f"k {VALUES['totp'].get_secret_value()}\n"
    assert not plan_set(whole, place.found(whole))
    other = {"totp": SecretStr("f" * 40)}
    assert plan_set(filled(wanted, other), place.found(whole)).changed == (str(place.etc / "key"),)
    with pytest.raises(ValueError, match="no value for the secret totp"):
        filled(wanted, {})


def test_no_secret_is_in_an_argument_or_stays_in_our_state(place: Place) -> None:
    wanted = FileSet(name="web", files=(place.file("key", "s3cret\n", 0o600),), apply="true")
    assert "s3cret" not in FileSets().command(sets=[query(wanted)], openbsd=place.openbsd)
    for name in EXTERNAL:
        shim = place.struck / name
        shim.write_text(shim.read_text().replace("exec ", f'echo "$0 $*" >>{place.log}\nexec ', 1))
    assert place.sh(place.script(wanted), strike=0).returncode == 0
    assert "cp -p" in place.log.read_text()
    assert "s3cret" not in place.log.read_text()
    assert [p for p in place.state.rglob("*") if p.is_file() and "s3cret" in p.read_text()] == []


def test_a_new_file_is_never_open_to_others(place: Place) -> None:
    wanted = FileSet(name="web", files=(place.file("key", "s3cret\n", 0o600),))
    before = "sync\nstep='swapping'"
    text = place.script(wanted)
    assert before in text
    assert place.sh(text.replace(before, f"ls -l {place.etc} >{place.root}/seen\n{before}")).returncode == 0
    assert (place.root / "seen").read_text().split("\n")[1].startswith("-rw-------")


# Facts.


def test_a_line_that_is_not_understood_is_named() -> None:
    with pytest.raises(FactProcessError, match="what is this"):
        parse(["set web", "what is this"])
    with pytest.raises(FactProcessError, match="root wheel 644  /etc/a"):
        parse(["set web", "file root wheel 644  /etc/a"])


def test_a_file_is_read_as_it_is() -> None:
    digest = "0" * 64
    found = parse(["set web", f"file root wheel 640 {digest} /etc/a b", "manifest /etc/a b", "pending", "armed"])
    assert found == {
        "web": SetState({"/etc/a b": FileState("root", "wheel", 0o640, digest)}, ("/etc/a b",), (), True, True)
    }
    assert state_of(File(path="/a", text="")).mode == 0o644


def test_no_last_line_is_unknown() -> None:
    assert FileSets().process(["set web"]) is None
    assert FileSets().process([]) is None


@pytest.mark.parametrize("openbsd", [True, False])
def test_a_host_can_run_every_script(openbsd: bool, tmp_path: Path) -> None:
    place = Place(tmp_path, openbsd)
    plain = FileSet(name="web", files=(place.file("a", "x\n"),), check="true", apply="true", check_in_place=True)
    texts = [ended("web", openbsd), confirmation("web", openbsd), settled(["web"], openbsd)]
    for wanted in (_dangerous(place, "x\n"), plain):
        texts += [script(wanted, openbsd=openbsd), FileSets().command(sets=[query(wanted)], openbsd=openbsd)]
    assert place.apply(_dangerous(place, "x\n"), seconds=1000).returncode == 0
    written = [(place.state / name).read_text() for name in ("rollback", "armed/net")]
    check_scripts(*texts, *written, openbsd=openbsd)


# Sets whose daemon, or whose folder, is somebody else's.

RESOLVD = """\
was=$(ls -i "$1")
while :; do
	if [ "$(ls -i "$1")" != "$was" ]; then
		{ echo 'nameserver 203.0.113.1 # resolvd: vio0'; cat "$1"; } >"$1.new"
		mv "$1.new" "$1"
		was=$(ls -i "$1")
	fi
	/bin/sleep 0.01
done
"""


@pytest.mark.parametrize("accepted", [True, False])
def test_resolvd_does_not_write_into_our_resolv_conf(tmp_path: Path, accepted: bool) -> None:
    """It rebuilds the file when it is replaced, with the name servers that it has learned (resolvd(8))."""
    place = Place(tmp_path, True)
    fleet, _ = load("vultr")
    host = fleet.host("ns3")
    (real,) = (each for it in host.services if isinstance(it, Resolver) for each in it.renders(host, fleet))
    text = next(file.text for file in real.files if file.path == "/etc/resolv.conf")
    conf = place.file("resolv.conf", text)
    wanted = real.model_copy(
        update={"files": (conf,), "check": None, "apply": None if accepted else "/bin/sleep 0.2; false", "undo": None}
    )
    Path(conf.path).write_text("old\n")
    resolvd = subprocess.Popen(["/bin/dash", "-c", RESOLVD, "resolvd", conf.path])
    place.shim("rcctl", f'echo "$*" >>"$SHIM_LOG"; [ "$1" != stop ] || kill {resolvd.pid}')
    try:
        assert (place.apply(wanted).returncode == 0) is accepted
        time.sleep(0.2)
    finally:
        resolvd.kill()
        resolvd.wait()
    assert Path(conf.path).read_text() == (text if accepted else "old\n")
    assert ("start resolvd" in place.log.read_text().splitlines()) is not accepted


def test_what_is_in_somebodys_folder_is_written_as_him(place: Place) -> None:
    """He can put a link where root is about to write, between any two of root's commands."""
    home = place.etc / "home"
    home.mkdir()
    stat = "case $2 in %Su | %U) echo anna ;; *) exit 99 ;; esac"
    place.shim("find", f'for it in "$@"; do [ "$it" != {home} ] || echo "$it"; done')
    place.shim("stat", stat)
    place.shim("chown", "exit 0")
    place.shim("su", 'echo "su $1 $2 $3" >>"$SHIM_LOG"; [ "$1 $2 $4" = "-s /bin/sh -c" ] && exec sh -c "$5"')
    for name in ("rm", "mv", "ln", "cp"):
        # What root itself does with a path of that folder.
        place.shim(name, f'case " $* " in *" {home}/"*) [ -n "$P" ] || exit 99 ;; esac; exec /bin/{name} "$@"')
    for text in ("one\n", "two\n"):
        key = File(path=f"{home}/key", text=text, owner="anna", group="anna", mode=0o400)
        done = place.apply(FileSet(name="web", files=(key,)))
        assert done.returncode == 0, done.stderr
        assert (home / "key").read_text() == text
        assert (home / "key").stat().st_mode & 0o777 == 0o400
    refused = FileSet(name="web", files=(key.model_copy(update={"text": "three\n"}),), apply="false")
    assert place.apply(refused).returncode != 0
    assert [(path.name, path.read_text()) for path in home.iterdir()] == [("key", "two\n")]
    assert "su -s /bin/sh anna" in place.log.read_text()
    strange = FileSet(name="other", files=(File(path=f"{home}/roots", text="x\n"),))
    done = place.apply(strange)
    assert done.returncode != 0 and "would be root's in a folder of anna" in done.stderr
    gone = FileSet(name="web", files=(place.file("a.conf", "a\n"),))
    assert place.apply(gone).returncode == 0
    assert list(home.iterdir()) == []


def test_a_daemon_whose_set_failed_is_held_back() -> None:
    daemons = (Daemon(name="unbound"), Daemon(name="smtpd", reload_on=("aliases",)), Daemon(name="sshd"))
    own = {"unbound": frozenset({"resolver"}), "sshd": frozenset({"sshd"})}
    held = held_back(daemons, own, {"resolver", "aliases", "other"})
    assert [(it.subject, it.message) for it in held] == [
        ("unbound", "left as it is: its configuration resolver failed"),
        ("smtpd", "left as it is: its configuration aliases failed"),
    ]
    assert held_back(daemons, own, {"unbound"}) == ()


# A connection that is lost in the middle.


@pytest.mark.parametrize("dangerous", [True, False])
def test_what_hangs_ends_and_goes_back(place: Place, dangerous: bool) -> None:
    wanted = begin(place, dangerous).model_copy(update={"apply": "/bin/sleep 100"})
    place.shim("timeout", 'shift 3; exec /usr/bin/timeout -k 1 0.3 "$@"')
    done = place.apply(wanted, seconds=1000)
    assert done.returncode != 0
    assert f"it took longer than {FOLLOW_SECONDS if dangerous else PATIENT_SECONDS} seconds" in done.stderr
    assert now(place) == OLD
    assert FOLLOW_SECONDS < UNDO_SECONDS and LOCK_SECONDS + CHECK_SECONDS + PATIENT_SECONDS < SCRIPT_SECONDS
    place.rest()


def test_a_login_that_is_older_than_the_change_does_not_confirm_it(tmp_path: Path) -> None:
    place = Place(tmp_path, True)
    (place.etc / "net.conf").write_text("old\n")
    wanted = _dangerous(place, "new\n").model_copy(update={"apply": "/bin/sleep 0.5"})
    text = place.here(script(wanted, openbsd=True, seconds=1000, ticket="mine"))
    run = subprocess.Popen([place.shell, "-s"], stdin=subprocess.PIPE, env=place.environment(), text=True)
    assert run.stdin is not None
    run.stdin.write(text)
    run.stdin.close()
    place.wait((place.run / "net").is_symlink)
    place.shim("sleep", "exec /bin/sleep 0.1")
    early = place.sh(confirmation("net", True, "mine"))
    assert early.returncode != 0 and "it is still being applied" in early.stderr
    assert place.sh(ended("net", True, "mine")).returncode == 0
    assert run.wait(DEADLINE) == 0
    assert (place.state / "armed/net").exists()
    assert place.sh(confirmation("net", True, "mine")).returncode == 0
    assert place.files() == {"net.conf": "new\n"}
    assert place.leftovers() == []


def test_a_confirmation_is_for_its_own_run_alone(tmp_path: Path) -> None:
    """The script of a run that finds an earlier one's undo armed waits: what it has not applied is not confirmed."""
    place = Place(tmp_path, True)
    _armed(place, seconds=100000)
    place.shim("sleep", ":")
    assert place.sh(ended("net", True, "another")).returncode == 0
    assert place.sh(confirmation("net", True, "another")).returncode != 0
    assert (place.state / "armed/net").exists()
    assert place.sh(f"sh {place.state}/rollback timer net 0\n").returncode == 0
    done = place.sh(confirmation("net", True, "another"))
    assert done.returncode != 0 and "it was undone before it could be confirmed" in done.stderr
    assert place.files() == {"net.conf": "old\n"}
