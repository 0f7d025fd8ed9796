"""Patches, firmware, reboots and downloads of an OpenBSD host."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.exceptions import FactProcessError

from facts.filesets import FileState
from facts.openbsd.system import SingleFile, System, Systems, parse
from operations.openbsd import maintenance
from operations.openbsd.maintenance import plan_download, plan_patches, wait_for_boot
from tests.shell import check_scripts
from tests.unit.openbsd.scripted import Scratch

CURRENT = "OpenBSD 7.9-current (GENERIC.MP) #123: Sat Nov 21 03:00:00 MST 2026"
RELEASE = "OpenBSD 7.9 (GENERIC.MP) #1: Sat Nov 21 03:00:00 MST 2026"
BOOTED = 1795433434

TEXT = "what was asked for\n"
SUM = hashlib.sha256(TEXT.encode()).hexdigest()
URL = "https://mirror.example/x.tgz"


def test_recorded_output() -> None:
    found = parse([f"kernel {CURRENT}", f"booted {BOOTED}"])
    assert found == System(CURRENT, BOOTED) and found.follows_snapshots
    release = parse([f"kernel {RELEASE}", f"booted {BOOTED}", "answered", "patch 001_x", "patch 002_y"])
    assert release.patches == ("001_x", "002_y") and not release.follows_snapshots
    assert parse([f"kernel {RELEASE}", "booted 1", "answered"]).patches == ()
    refused = parse([f"kernel {RELEASE}", "booted 1", "refused ftp: no"])
    assert (refused.patches, refused.refused) == (None, "ftp: no")


@pytest.mark.parametrize("line", ["what is this", "booted yesterday", "patch 001_x", "kernel "])
def test_what_is_not_understood_is_named(line: Any) -> None:
    with pytest.raises(FactProcessError, match=line.strip()):
        parse([line])


def test_unknown() -> None:
    assert Systems().process([f"kernel {CURRENT}"]) is None
    assert SingleFile().process([]) is None and SingleFile().process(["##SYSTEM##"]) == ()
    with pytest.raises(FactProcessError, match="no kernel"):
        parse([f"kernel {CURRENT}"])


def test_patches_are_for_releases() -> None:
    note = plan_patches(System(CURRENT, 1))
    assert note.steps == () and "no patches for -current" in note.notes[0]
    assert plan_patches(System(RELEASE, 1, ())).steps == ()
    refused = plan_patches(System(RELEASE, 1, None, "syspatch: no"))
    assert refused.steps == () and refused.refused[0].message == "syspatch -c: syspatch: no"
    (step,) = plan_patches(System(RELEASE, 1, ("001_x",))).steps
    assert step.label == "installed 001_x; they count after a reboot"


# It lists what is left; the first call only updates itself and exits with 2 (contract 7.2).
SYSPATCH = r"""
case $1 in
-c) cat "$0.left" ;;
"") if [ -e "$0.new" ]; then [ -e "$0.stuck" ] || : >"$0.left"; else : >"$0.new"; exit 2; fi ;;
esac
"""


def test_syspatch_is_run_again_and_what_is_left_decides(tmp_path: Path) -> None:
    place = Scratch(tmp_path)
    place.fake("syspatch", SYSPATCH)
    place.fake("sysctl", f"case $2 in kern.version) echo '{RELEASE}'; echo built;; *) echo {BOOTED};; esac")
    left = place.bin / "syspatch.left"
    left.write_text("001_x\n002_y\n")

    def read() -> Any:
        return Systems().process(place.run(Systems().command(patches=True)).stdout.splitlines())

    assert read() == System(RELEASE, BOOTED, ("001_x", "002_y"))
    (step,) = plan_patches(read()).steps
    done = place.run(step)
    assert done.returncode == 0, done.stderr
    assert plan_patches(read()).steps == ()
    left.write_text("003_z\n")
    (place.bin / "syspatch.stuck").touch()
    done = place.run(plan_patches(read()).steps[0])
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "not installed: 003_z")
    place.fake("syspatch", "echo 'syspatch: Unsupported release: 7.9' >&2; exit 1")
    assert read().refused == "syspatch: Unsupported release: 7.9"
    place.fake("sysctl", f"case $2 in kern.version) echo '{CURRENT}';; *) echo {BOOTED};; esac")
    assert read() == System(CURRENT, BOOTED)


def test_firmware_is_a_change_only_if_a_package_is_another(tmp_path: Path) -> None:
    place = Scratch(tmp_path)
    place.fake("pkg_info", f"cat {place.root}/have")
    place.fake("fw_update", "")
    place.file("/have", "intel-firmware-1\nrsync-3.4.1\n")
    assert place.run(maintenance.FIRMWARE).stdout == ""
    place.fake("fw_update", f"echo intel-firmware-2 >{place.root}/have")
    assert place.run(maintenance.FIRMWARE).stdout == "changed\n"
    place.fake("fw_update", "echo 'fw_update: no' >&2; exit 1")
    assert place.run(maintenance.FIRMWARE).returncode == 1


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def read(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("answers", "came_back"),
    [
        ([None, None, 2000], True),
        ([1000, None, 2000], True),
        # Still the old system, whose clock was set by two seconds.
        ([1000, 1002, 1002, 1002], False),
        ([None] * 4, False),
    ],
)
def test_a_reboot_is_another_boot_time_within_the_time(answers: Any, came_back: Any) -> None:
    clock, left = Clock(), list(answers)
    assert wait_for_boot(lambda: left.pop(0), 1000, 20, clock.sleep, clock.read) is came_back
    assert clock.now <= 20


def test_the_order_to_reboot_comes_back_at_once(tmp_path: Path) -> None:
    place = Scratch(tmp_path)
    place.fake("nohup", "cat >/dev/null; exit 0")
    assert place.run(maintenance.REBOOT).returncode == 0


def test_a_download_is_due_only_if_the_file_differs() -> None:
    right = FileState("root", "wheel", 0o644, SUM)
    assert plan_download(URL, "/etc/x", SUM, 0o644, right).steps == ()
    (step,) = plan_download(URL, "/etc/x", SUM, 0o600, right).steps
    assert (step.label, "ftp" in step.command) == ("owner and mode", False)
    for found in (None, FileState("root", "wheel", 0o644, "0" * 64)):
        (step,) = plan_download(URL, "/etc/x", SUM, 0o644, found).steps
        assert step.label == f"fetched from {URL}"


@pytest.mark.parametrize(
    ("url", "dest", "sha256"),
    [
        (URL, "/etc/x", "abc"),
        (URL, "etc/x", SUM),
        (URL, "/etc/", SUM),
        ("x", "/etc/x", SUM),
        ("file:///a b", "/x", SUM),
    ],
)
def test_wrong_arguments_fail_early(url: Any, dest: Any, sha256: Any) -> None:
    with pytest.raises(ValueError, match=r"/?etc/|/x"):
        plan_download(url, dest, sha256, 0o644, None)


@pytest.mark.parametrize(("body", "kept"), [(f"printf '{TEXT}'", False), ("echo other", True), ("exit 1", True)])
def test_a_wrong_file_never_gets_the_name(tmp_path: Path, body: Any, kept: Any) -> None:
    place = Scratch(tmp_path)
    place.fake("ftp", f'exec >"$2"\n{body}'.replace("\\n", "\n"))
    place.file("/etc/x", "old\n")
    done_state = SingleFile().process(place.run(SingleFile().command("/etc/x")).stdout.splitlines())
    assert done_state and done_state[0].sha256 == hashlib.sha256(b"old\n").hexdigest()
    (step,) = plan_download(URL, "/etc/x", SUM, 0o640, done_state[0]).steps
    done = place.run(step)
    assert (done.returncode != 0) is kept
    assert place.text("/etc/x") == ("old\n" if kept else TEXT)
    assert [path.name for path in (place.root / "etc").iterdir()] == ["x"]
    if not kept:
        assert (place.root / "etc/x").stat().st_mode & 0o777 == 0o640
    assert any(line.startswith("ftp ") and line.endswith(URL) for line in place.said)


def test_openbsd_can_run_every_script() -> None:
    check_scripts(Systems().command(patches=True))
    check_scripts(SingleFile().command("/etc/x"))
    check_scripts(maintenance.FIRMWARE)
    check_scripts(maintenance.REBOOT)
    check_scripts(plan_patches(System(RELEASE, 1, ("001_x",))).steps[0].command)
    check_scripts(plan_download(URL, "/etc/x", SUM, 0o644, None).steps[0].command)
    check_scripts(plan_download(URL, "/etc/x", SUM, 0o644, FileState("a", "b", 0, SUM)).steps[0].command)
