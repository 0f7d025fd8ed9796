"""Configuration sets under fire (DESIGN D2, D3): one test for each step at which a script can be struck.

A step is an external command of the script, counted by a run that succeeds; what the shell itself does lies between
two of them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from fleet.model.service import File, FileSet
from operations.swap import script
from tests.sets import DEADLINE, EXTERNAL, KINDS, NEW, OLD, SHELLS, Place, begin, finish, now, points

STRIKES = [
    pytest.param(kind, number, id=f"{kind}-{number}-{command}")
    for kind in KINDS
    for number, command in enumerate(points(kind), 1)
]
ON_OPENBSD = [strike for strike in STRIKES if KINDS[str(strike.values[0])][0]]


def test_no_point_is_missed() -> None:
    """Every external command of the script is one that strikes, but for those that only read or wait."""
    for kind, (openbsd, dangerous) in KINDS.items():
        wanted = FileSet(name="web", files=(File(path="/a", text=""),), check=":", apply=":", dangerous=dangerous)
        lines = [line for line in script(wanted, openbsd=openbsd).splitlines() if not line.lstrip().startswith("#")]
        words = set(" ".join(lines).replace("(", " ").replace(";", " ").split())
        known = set(os.listdir("/bin")) | set(os.listdir("/usr/bin"))  # noqa: PTH208 - names, not paths
        builtin = {"[", "case", "cd", "do", "done", "echo", "else", "exit", "false", "in", "kill", "read", "set", "sh"}
        builtin |= {"sleep", "test", "trap", "true", "umask", "until", "wait"}
        others = {"systemctl", "systemd-run", "name", "file", "host", "links", "last", "who", "link", "size"}
        # For what lies in somebody's folder.
        others |= {"su", "stat", "id", "date", "ps"}
        assert (words & known) - builtin - others - set(EXTERNAL) == set(), kind
        assert {"mv", "ln", "cp", "sync", "rm", "cat", "chmod", "mkdir"} <= set(points(kind))
        assert len(points(kind)) > 50


@pytest.mark.parametrize(("kind", "number"), STRIKES)
def test_a_script_that_is_killed(kind: str, number: int, tmp_path: Path) -> None:
    """Its guard, or the timer of a dangerous set, leaves the old set or the new one, whole, and the daemon on it."""
    place = Place(tmp_path, KINDS[kind][0])
    wanted = begin(place, KINDS[kind][1])
    done = place.sh(place.script(wanted, seconds=60), strike=number, how="script")
    assert done.returncode == -signal.SIGKILL
    place.rest()
    place.wait(lambda: not list((place.state / "armed").iterdir()))
    place.rest()
    assert now(place) in (OLD, NEW)
    assert now(place) == OLD or not wanted.dangerous
    finish(place, wanted)


@pytest.mark.parametrize(("kind", "number"), ON_OPENBSD)
def test_a_host_that_loses_power(kind: str, number: int, tmp_path: Path) -> None:
    """The next boot leaves the old files or the new ones, whole, before the daemon starts with them."""
    place = Place(tmp_path, KINDS[kind][0])
    wanted = begin(place, KINDS[kind][1])
    done = place.sh(place.script(wanted, seconds=1000), strike=number, how="power")
    assert done.returncode == -signal.SIGKILL
    place.boot()
    assert place.files() in (OLD[0], NEW[0])
    assert place.files() == OLD[0] or not wanted.dangerous
    place.running.write_text("".join(text for _, text in sorted(place.files().items())))
    finish(place, wanted)


@pytest.mark.parametrize(("kind", "number"), ON_OPENBSD)
def test_a_step_that_fails(kind: str, number: int, tmp_path: Path) -> None:
    """A script that cannot do a step says so and leaves everything as it was."""
    place = Place(tmp_path, KINDS[kind][0])
    wanted = begin(place, KINDS[kind][1])
    done = place.sh(place.script(wanted, seconds=1000), strike=number, how="full")
    if done.returncode:
        assert now(place) == OLD
        refused = "the check refused" in done.stderr or "the new files were not accepted" in done.stderr
        assert refused or "; the old files are in place" in done.stderr
        assert refused or "No space left on device" in done.stderr
    else:
        assert now(place) == NEW
        assert not wanted.dangerous or place.confirm("web")
        # A log that could not be removed stays for the set's next script, in our private folder.
        (place.state / "tmp/web.log").unlink(missing_ok=True)
    finish(place, wanted)


def test_an_undo_that_is_cut_short_goes_on(tmp_path: Path) -> None:
    place = Place(tmp_path, True)
    wanted = begin(place, False)
    text = place.script(wanted)
    at = text.index("step='applying")
    place.sh(text[:at] + 'kill -9 "-$(/bin/cat "$MAIN")"\n' + text[at:])
    undo = f"sh {place.state}/undo/web"
    assert place.sh(undo, strike=0).returncode == 0
    assert now(place) == OLD
    for number in range(1, len(place.strikes.read_text().split()) + 1):
        place.sh(text[:at] + 'kill -9 "-$(/bin/cat "$MAIN")"\n' + text[at:])
        place.sh(undo, strike=number, how="power")
        place.boot()
        assert place.files() == OLD[0], number
    place.running.write_text(OLD[1])
    finish(place, wanted)


IN_A_SMALL_PLACE = """\
mount -t tmpfs -o {limit} tmpfs "$1" || exit 77
cp -a "$2/." "$1"
n=0
case {kind} in
size) while dd if=/dev/zero of="$1/filler.$n" bs=4096 count=1 2>/dev/null; do n=$((n + 1)); done ;;
*) while (: >"$1/filler.$n") 2>/dev/null; do n=$((n + 1)); done ;;
esac
rm -f "$1/filler.$n"
n=$((n - {free}))
while [ -e "$1/filler.$n" ]; do rm -f "$1/filler.$n"; n=$((n + 1)); done
{shell} -s <"$3"
code=$?
/bin/sleep 0.1
rm -f "$1"/filler.*
cp -a "$1/." "$4"
exit $code
"""


@pytest.mark.parametrize("kind", ["size", "inodes"])
@pytest.mark.parametrize("shell", SHELLS)
def test_a_disk_that_fills_up_at_any_write(kind: str, shell: str, tmp_path: Path) -> None:
    """From no page (or file) free to one more than the script needs: the old set and a reason, or the new one."""
    room = tmp_path / "room"
    place = Place(room, True, shell, shims=tmp_path)
    wanted = begin(place, False)
    place.rest()
    shutil.copytree(room, tmp_path / "start", symlinks=True)
    (tmp_path / "script").write_text(place.here(place.script(wanted)))
    limit = "size=512k" if kind == "size" else "size=8m,nr_inodes=120"
    outcomes = []
    for free in range(40):
        after = tmp_path / f"after{free}"
        text = IN_A_SMALL_PLACE.format(limit=limit, kind=kind, free=free, shell=shell)
        done = subprocess.run(
            ["unshare", "-rm", "/bin/dash", "-c", text, "dash", room, tmp_path / "start", tmp_path / "script", after],
            env=place.environment(),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode != 77, done.stderr
        found = ({p.name: p.read_text() for p in (after / "etc").iterdir()}, (after / "running").read_text())
        assert found == (OLD if done.returncode else NEW), (free, done.stderr)
        said = "; the old files are in place" in done.stderr or "the check refused" in done.stderr
        assert not done.returncode or said, (free, done.stderr)
        outcomes.append(done.returncode)
        if not done.returncode and not outcomes[-3:][0]:
            break
    assert outcomes[0] != 0
    assert outcomes[-1] == 0
    assert outcomes.count(0) == 3, outcomes
