"""Configuration sets: the planner, and the script it leads to, run for real below a temporary folder."""

import grp
import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from pyinfra.api.exceptions import FactProcessError

import facts.filesets
import operations.filesets
from facts.filesets import FileSets, SetState, parse
from fleet.model.service import File, FileSet
from operations.filesets import confirmation, plan_set, query, script

USER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name

SHIMS = {
    "systemctl": 'echo "systemctl $*" >>"$SHIM_LOG"; case "$*" in *is-active*|*is-enabled*) exit 1;; esac; exit 0',
    "systemd-run": 'echo "systemd-run $*" >>"$SHIM_LOG"',
}


class Place:
    """A host in a folder: the state directory, a folder for files, and shims for systemd."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.etc = root / "etc"
        self.etc.mkdir()
        self.state = root / "state"
        self.log = root / "log"
        self.bin = root / "bin"
        self.bin.mkdir()
        for name, text in SHIMS.items():
            (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
            (self.bin / name).chmod(0o755)

    def file(self, name: str, text: str, mode: int = 0o644) -> File:
        return File(path=str(self.etc / name), text=text, owner=USER, group=GROUP, mode=mode)

    def sh(self, text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-s"],
            input=text.replace("/etc/systemd/system", str(self.root)),
            env={**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}", "SHIM_LOG": str(self.log)},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    def found(self, wanted: FileSet) -> SetState:
        command = FileSets().command(sets=[query(wanted)])
        out = self.sh(command).stdout.splitlines()
        states = FileSets().process(out)
        assert states is not None
        return states[wanted.name]

    def apply(self, wanted: FileSet) -> subprocess.CompletedProcess[str]:
        return self.sh(script(wanted, plan_set(wanted, self.found(wanted))))

    def leftovers(self) -> list[str]:
        folders = ("stage", "pending", "undo", "backup", "armed")
        return sorted(str(p.relative_to(self.state)) for f in folders for p in (self.state / f).glob("*"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)
    monkeypatch.setattr(operations.filesets, "STATE", str(made.state))
    monkeypatch.setattr(facts.filesets, "STATE", str(made.state))
    return made


def test_a_set_is_made_and_the_second_run_is_nothing(place: Place) -> None:
    wanted = FileSet(name="web", files=(place.file("a.conf", "one\n"), place.file("key", "s3cret\n", 0o600)))
    assert place.apply(wanted).returncode == 0
    assert (place.etc / "a.conf").read_text() == "one\n"
    assert stat.S_IMODE((place.etc / "key").stat().st_mode) == 0o600
    assert not plan_set(wanted, place.found(wanted))
    assert place.leftovers() == []
    assert stat.S_IMODE(place.state.stat().st_mode) == 0o700


def test_text_that_looks_like_shell_arrives_as_it_is(place: Place) -> None:
    text = "$HOME `id` \\n 'x' \"y\" $(id)\nEND\n\tEND-OF-MANIFEST\n"
    wanted = FileSet(name="web", files=(place.file("a.conf", text),))
    assert place.apply(wanted).returncode == 0
    assert (place.etc / "a.conf").read_text() == text


def test_a_refused_set_leaves_everything(place: Place) -> None:
    (place.etc / "a.conf").write_text("old\n")
    wanted = FileSet(
        name="web",
        files=(place.file("a.conf", "bad\n"),),
        check="! grep bad {new}" + str(place.etc / "a.conf"),
    )
    done = place.apply(wanted)
    assert done.returncode != 0
    assert "the check refused" in done.stderr
    assert "bad" in done.stderr
    assert (place.etc / "a.conf").read_text() == "old\n"
    assert place.leftovers() == ["backup/web"]


def test_a_daemon_that_does_not_accept_the_files_gets_the_old_ones_back(place: Place) -> None:
    (place.etc / "a.conf").write_text("old\n")
    (place.etc / "a.conf").chmod(0o640)
    (place.etc / "stray.conf").write_text("stray\n")
    wanted = FileSet(
        name="web",
        files=(place.file("a.conf", "new\n"), place.file("b.conf", "born\n")),
        exclusive=(f"{place.etc}/*.conf",),
        apply=f"grep old {place.etc}/a.conf",
        undo=f"cp {place.etc}/a.conf {place.root}/reloaded",
    )
    assert place.apply(wanted).returncode != 0
    assert (place.etc / "a.conf").read_text() == "old\n"
    assert stat.S_IMODE((place.etc / "a.conf").stat().st_mode) == 0o640
    assert (place.etc / "stray.conf").read_text() == "stray\n"
    assert not (place.etc / "b.conf").exists()
    assert (place.root / "reloaded").read_text() == "old\n"
    assert place.leftovers() == []


def test_a_file_that_left_the_set_and_a_stray_go_with_the_swap(place: Place) -> None:
    (place.etc / "stray.conf").write_text("stray\n")
    first = FileSet(name="web", files=(place.file("a.conf", "1\n"), place.file("b.conf", "2\n")))
    assert place.apply(first).returncode == 0
    second = FileSet(name="web", files=(place.file("a.conf", "1\n"),), exclusive=(f"{place.etc}/*.conf",))
    due = plan_set(second, place.found(second))
    assert due.removed == (str(place.etc / "b.conf"),)
    assert place.apply(second).returncode == 0
    assert sorted(p.name for p in place.etc.iterdir()) == ["a.conf"]
    assert not plan_set(second, place.found(second))


def _cut(text: str, marker: str) -> str:
    """End a script where a machine that loses power would have left it."""
    assert marker in text
    return text[: text.index(marker)] + "exit 9\n"


@pytest.mark.parametrize("point", ["mv -f", "cat >{state}/manifest", "if ( true )", "rm -rf {state}/stage"])
def test_an_interrupted_swap_is_finished_by_the_next_run(place: Place, point: str) -> None:
    (place.etc / "a.conf").write_text("old\n")
    wanted = FileSet(name="web", files=(place.file("a.conf", "new\n"), place.file("b.conf", "new\n")), apply="true")
    whole = script(wanted, plan_set(wanted, place.found(wanted)))
    start = whole.index("echo web >")
    at = whole.index(point.format(state=place.state), start)
    assert place.sh(whole[:at] + "exit 9\n").returncode == 9
    found = place.found(wanted)
    assert found.pending
    assert plan_set(wanted, found).pending
    assert place.apply(wanted).returncode == 0
    assert (place.etc / "a.conf").read_text() == "new\n"
    assert not plan_set(wanted, place.found(wanted))
    assert place.leftovers() == []


def _dangerous(place: Place, text: str) -> FileSet:
    return FileSet(
        name="net",
        files=(place.file("net.conf", text),),
        apply=f"cp {place.etc}/net.conf {place.root}/running",
        undo=f"cp {place.etc}/net.conf {place.root}/running",
        before="echo 'echo restored >>\"$SHIM_LOG\"'",
        undo_at_boot='echo booted >>"$SHIM_LOG"',
        dangerous=True,
    )


def test_a_dangerous_set_ends_armed_and_a_confirmation_disarms_it(place: Place) -> None:
    wanted = _dangerous(place, "new\n")
    assert place.apply(wanted).returncode == 0
    found = place.found(wanted)
    assert found.pending and found.armed
    log = place.log.read_text()
    assert "systemd-run -q --unit=homefleet-undo-net --on-active=50" in log
    assert "enable homefleet-undo.service" in log
    assert place.sh(confirmation("net")).returncode == 0
    assert not plan_set(wanted, place.found(wanted))
    assert place.leftovers() == ["stage/undo.service"]


def test_an_unconfirmed_set_is_put_back_with_its_running_state(place: Place) -> None:
    (place.etc / "net.conf").write_text("old\n")
    wanted = _dangerous(place, "new\n")
    assert place.apply(wanted).returncode == 0
    assert (place.root / "running").read_text() == "new\n"
    assert place.sh(f"sh {place.state}/armed/net\n").returncode == 0
    assert (place.etc / "net.conf").read_text() == "old\n"
    assert (place.root / "running").read_text() == "old\n"
    assert "restored" in place.log.read_text()
    assert place.sh(confirmation("net")).returncode != 0, "a late confirmation must not claim success"


def test_at_boot_only_the_files_go_back(place: Place) -> None:
    (place.etc / "net.conf").write_text("old\n")
    wanted = _dangerous(place, "new\n")
    assert place.apply(wanted).returncode == 0
    assert place.sh(f"sh {place.state}/armed/net boot\n").returncode == 0
    assert (place.etc / "net.conf").read_text() == "old\n"
    log = place.log.read_text()
    assert "booted" in log and "restored" not in log


def test_a_run_that_finds_an_armed_undo_without_a_timer_rolls_back_first(place: Place) -> None:
    (place.etc / "net.conf").write_text("old\n")
    assert place.apply(_dangerous(place, "first\n")).returncode == 0
    second = _dangerous(place, "second\n")
    assert place.apply(second).returncode == 0
    assert place.sh(f"sh {place.state}/armed/net\n").returncode == 0
    assert (place.etc / "net.conf").read_text() == "old\n"


def test_no_secret_is_in_an_argument(place: Place) -> None:
    wanted = FileSet(name="web", files=(place.file("key", "s3cret\n", 0o600),))
    command = FileSets().command(sets=[query(wanted)])
    assert "s3cret" not in command


def test_a_line_that_is_not_understood_is_named() -> None:
    with pytest.raises(FactProcessError, match="what is this"):
        parse(["set web", "what is this"])


def test_no_last_line_is_unknown() -> None:
    assert FileSets().process(["set web"]) is None
    assert FileSets().process([]) is None


def test_every_script_passes_shellcheck(place: Place) -> None:
    assert shutil.which("shellcheck"), "shellcheck is one of the system packages"
    for wanted in (
        _dangerous(place, "x\n"),
        FileSet(name="web", files=(place.file("a", "x\n"),), check="true", apply="true"),
    ):
        for text in (script(wanted, plan_set(wanted, SetState())), FileSets().command(sets=[query(wanted)])):
            done = subprocess.run(
                ["shellcheck", "--shell=sh", "--severity=warning", "-"],
                input=text,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout
