"""A host in a folder, for the scripts of configuration sets: they run for real, and faults strike at their steps.

The scripts of both systems run in the shells that are here: dash, which Ubuntu has, and mksh, of the family of
OpenBSD's ksh.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from facts.filesets import STATE, STATE_OPENBSD, FileSets, SetState
from fleet.model.service import File, FileSet
from operations.filesets import plan_set, query
from operations.swap import RUN, SECURELEVEL, UNIT, confirmation, script

USER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name
SHELLS = tuple(path for name in ("dash", "mksh") if (path := shutil.which(name)))
KSH = SHELLS[-1]

DEADLINE = 20
"""Seconds until a script that does not end is a failure."""

# The other system's tools end a script, so that neither leans on what it does not have.
COMMON = {"sleep": 'exec /bin/sleep "${SLEEP:-0.01}"'}
UBUNTU = {
    "systemctl": 'echo "systemctl $*" >>"$SHIM_LOG"; case "$*" in *is-active*|*is-enabled*) exit 1;; esac; exit 0',
    "systemd-run": 'echo "systemd-run $*" >>"$SHIM_LOG"',
    "sha256": "exit 99",
}
OPENBSD = {
    "stat": 'case "$2" in "%Su %Sg %OLp") exec /usr/bin/stat -c "%U %G %a" "$3";; esac; exit 99',
    "sha256": '[ "$1" = -q ] && set -- "$(/usr/bin/sha256sum <"$2")" && echo "${1%% *}"',
    "sha256sum": "exit 99",
    "systemctl": "exit 99",
    "systemd-run": "exit 99",
}

EXTERNAL = (
    *("cat", "chmod", "chown", "cmp", "cp", "find", "grep", "ln", "mkdir"),
    *("mv", "printf", "readlink", "rm", "sed", "sync", "tail", "timeout"),
)

# Counts the external commands of the script, not those of its guard or timer, and strikes at one of them.
STRIKE = """\
[ -z "$STRIKE" ] || [ -n "$APART" ] || {{
	echo {name} >>"$STRIKE_LOG"
	[ "$(($(wc -l <"$STRIKE_LOG")))" != "$STRIKE" ] || case $STRIKE_HOW in
	full) echo '{name}: No space left on device' >&2; exit 2;;
	script) kill -9 "$(/bin/cat "$MAIN")";;
	*) kill -9 "-$(/bin/cat "$MAIN")";;
	esac
}}
exec {real} "$@"
"""


class Place:
    """A host in a folder: its state, a folder for files, a daemon that is the files it last read, and shims."""

    def __init__(self, root: Path, openbsd: bool = False, shell: str = KSH, shims: Path | None = None) -> None:
        self.root = root
        self.openbsd = openbsd
        self.shell = shell
        self.etc = root / "etc"
        self.etc.mkdir(parents=True)
        self.state = root / "state"
        self.run = root / "run"
        self.securelevel = root / "rc.securelevel"
        self.unit = root / "homefleet-undo.service"
        self.running = root / "running"
        shims = shims or root
        self.log = shims / "log"
        self.strikes = shims / "strikes"
        self.main = shims / "main"
        self.bin = shims / "bin"
        self.bin.mkdir(parents=True)
        self.struck = shims / "struck"
        self.struck.mkdir()
        for name in EXTERNAL:
            self.shim(name, STRIKE.format(name=name, real=shutil.which(name)), self.struck)
        for name, text in (COMMON | (OPENBSD if openbsd else UBUNTU)).items():
            self.shim(name, text)
        self.shim("sh", f'case "$2" in guard|timer) APART=1; export APART;; esac; exec {shell} "$@"')

    def shim(self, name: str, text: str, folder: Path | None = None) -> None:
        made = (folder or self.bin) / name
        made.write_text(f"#!/bin/dash\n{text}\n")
        made.chmod(0o755)

    def file(self, name: str, text: str, mode: int = 0o644) -> File:
        return File(path=str(self.etc / name), text=text, owner=USER, group=GROUP, mode=mode)

    def here(self, text: str) -> str:
        for real, ours in (
            (STATE_OPENBSD if self.openbsd else STATE, self.state),
            (RUN, self.run),
            (SECURELEVEL, self.securelevel),
            (UNIT, self.unit),
        ):
            text = text.replace(real, str(ours))
        return text

    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "SHIM_LOG": str(self.log),
            "STRIKE_LOG": str(self.strikes),
            "MAIN": str(self.main),
            "HOME": "/",
        }

    def sh(self, text: str, strike: int | None = None, how: str = "") -> subprocess.CompletedProcess[str]:
        """Feed `text` to the shell on standard input; `strike` at that external command, in the manner of `how`."""
        self.strikes.write_text("")
        striking = {}
        if strike is not None:
            path = f"{self.struck}:{self.environment()['PATH']}"
            striking = {"PATH": path, "STRIKE": str(strike), "STRIKE_HOW": how}
        return subprocess.run(
            ["/bin/dash", "-c", f'echo $$ >"$MAIN"; exec {self.shell} -s'],
            input=self.here(text),
            env=self.environment() | striking,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
            start_new_session=True,
        )

    def found(self, wanted: FileSet) -> SetState:
        command = FileSets().command(sets=[query(wanted)], openbsd=self.openbsd)
        states = FileSets().process(self.sh(command).stdout.splitlines())
        assert states is not None
        return states[wanted.name]

    def script(self, wanted: FileSet, seconds: int = 50, followed: bool = False, kept: Collection[str] = ()) -> str:
        return script(wanted, openbsd=self.openbsd, seconds=seconds, followed=followed, kept=kept)

    def apply(self, wanted: FileSet, seconds: int = 50, followed: bool = False) -> subprocess.CompletedProcess[str]:
        return self.sh(self.script(wanted, seconds, followed))

    def confirm(self, name: str) -> bool:
        return self.sh(confirmation(name, self.openbsd)).returncode == 0

    def boot(self) -> None:
        """Run what the host itself runs at boot."""
        if self.openbsd and self.securelevel.exists():
            assert self.sh(self.securelevel.read_text()).returncode == 0
        if not self.openbsd and self.unit.exists():
            assert self.sh(self.unit.read_text().split("ExecStart=")[1].split("\n")[0]).returncode == 0

    def files(self) -> dict[str, str]:
        """Return the files as they are, without what a swap puts beside them."""
        return {path.name: path.read_text() for path in self.etc.iterdir() if "homefleet" not in path.name}

    def reload(self, what: str = "*.conf") -> str:
        """Return the command that makes the daemon read its files."""
        return f"/bin/cat {self.etc}/{what} >{self.running}"

    def leftovers(self) -> list[str]:
        folders = ("stage", "pending", "undo", "final", "armed", "away", "tmp")
        there = [path for name in folders for path in (self.state / name).glob("*")]
        there += [path for path in self.etc.iterdir() if "homefleet" in path.name]
        return sorted(str(path.relative_to(self.root)) for path in there)

    def wait(self, until: Callable[[], bool], seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, f"not in {seconds} seconds: {self.leftovers()}"
            time.sleep(0.01)

    def working(self) -> list[str]:
        """Return who is at work on a set: a lock whose process is gone is nobody."""
        links = [link for link in self.run.glob("*") if not link.name.endswith(".timer") and link.is_symlink()]
        found = []
        for link in links:
            # Whoever was at work may have ended since the folder was listed.
            with contextlib.suppress(FileNotFoundError):
                if Path("/proc", link.readlink()).exists():
                    found.append(link.name)
        return found

    def rest(self) -> None:
        """Wait until nobody is at work on a set."""
        self.wait(lambda: not self.working())


# What a fault may leave: the old set or the new one, whole, with the daemon on it.

OLD = ({"a.conf": "old a\n", "c.conf": "old c\n", "stray.conf": "stray\n"}, "old a\nold c\nstray\n")
NEW = ({"a.conf": "new a\n", "b.conf": "new b\n"}, "new a\nnew b\n")


def begin(place: Place, dangerous: bool) -> FileSet:
    """Put the old state in place and return the set that makes the new one."""
    first = (place.file("a.conf", "old a\n", 0o640), place.file("c.conf", "old c\n"))
    assert place.apply(FileSet(name="web", files=first)).returncode == 0
    (place.etc / "stray.conf").write_text("stray\n")
    place.running.write_text(OLD[1])
    return FileSet(
        name="web",
        files=(place.file("a.conf", "new a\n", 0o600), place.file("b.conf", "new b\n")),
        exclusive=(f"{place.etc}/*.conf",),
        check=f"grep new {{new}}{place.etc}/a.conf",
        apply=place.reload(),
        undo=place.reload(),
        undo_at_boot=place.reload(),
        dangerous=dangerous,
    )


def now(place: Place) -> tuple[dict[str, str], str]:
    return place.files(), place.running.read_text()


def finish(place: Place, wanted: FileSet) -> None:
    """Do the next run, and assert that it ends with the new set whole and the daemon on it."""
    due = plan_set(wanted, place.found(wanted))
    if due:
        done = place.apply(wanted, seconds=1000)
        assert done.returncode == 0, done.stderr
        if wanted.dangerous:
            assert place.confirm("web")
    assert now(place) == NEW, now(place)
    assert not plan_set(wanted, place.found(wanted))
    assert place.leftovers() == [], place.leftovers()
    assert stat.S_IMODE((place.etc / "a.conf").stat().st_mode) == 0o600
    place.rest()


KINDS = {"openbsd": (True, False), "openbsd-dangerous": (True, True), "ubuntu": (False, False)}


@cache
def points(kind: str) -> tuple[str, ...]:
    """Return every external command of a script that succeeds, in its order: the places where a fault can strike."""
    openbsd, dangerous = KINDS[kind]
    with TemporaryDirectory() as folder:
        place = Place(Path(folder), openbsd)
        wanted = begin(place, dangerous)
        done = place.sh(place.script(wanted, seconds=1000), strike=0)
        assert done.returncode == 0, done.stderr
        struck = tuple(place.strikes.read_text().split())
        if dangerous:
            assert place.confirm("web")
        assert now(place) == NEW
        place.rest()
    return struck
