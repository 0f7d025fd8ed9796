"""Sysctls, patches and downloads of an OpenBSD host, on the stand-in's own commands."""

import hashlib
from pathlib import Path

import pytest

from facts.openbsd.sysctl import Sysctls
from facts.openbsd.system import SingleFile, Systems
from operations.openbsd.maintenance import plan_download, plan_patches
from operations.openbsd.sysctls import plan_sysctls
from tests.lab.openbsd.standin.init import BOOTTIME
from tests.unit.openbsd.scripted import OnStandIn

COMMANDS = {name: name for name in ("sysctl", "syspatch", "uname", "ftp")}
WANTED = (("kern.maxproc", "2000"), ("kern.maxfiles", "20000"))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnStandIn:
    root = tmp_path / "root"
    for folder in ("etc", "var/db"):
        (root / folder).mkdir(parents=True)
    monkeypatch.setenv("STANDIN_ROOT", str(root))
    found = OnStandIn(root, {**COMMANDS, "sha256": "digest"})
    found.fake_owners()
    found.file(BOOTTIME, "1795000000\n")
    return found


def test_sysctls_are_set_and_stay(host: OnStandIn) -> None:
    fact = Sysctls()
    command = fact.command([key for key, _ in WANTED])
    assert host.perform(plan_sysctls(WANTED, host.read(fact, command))) == {}
    assert host.text("/etc/sysctl.conf") == "kern.maxproc=2000\nkern.maxfiles=20000\n"
    found = host.read(fact, command)
    assert found.values == dict(WANTED)
    assert plan_sysctls(WANTED, found).steps == ()


def test_a_name_that_is_not_there_and_a_value_that_is_refused(host: OnStandIn) -> None:
    wanted = (("net.inet.ip.nosuch", "1"), ("kern.version", "1"), ("kern.maxproc", "2000"))
    fact = Sysctls()
    found = host.read(fact, fact.command([key for key, _ in wanted if key != "kern.version"]))
    failed = host.perform(plan_sysctls(wanted, found))
    assert set(failed) == {"net.inet.ip.nosuch", "kern.version"}
    assert host.read(fact, fact.command(["kern.maxproc"])).values == {"kern.maxproc": "2000"}


def test_a_snapshot_has_no_patches(host: OnStandIn) -> None:
    fact = Systems()
    found = host.read(fact, fact.command(patches=True))
    assert (found.booted, found.follows_snapshots, found.patches) == (1795000000, True, None)
    assert "no patches for -current" in plan_patches(found).notes[0]


def test_a_download_with_its_checksum(host: OnStandIn) -> None:
    text = host.file("/srv/x", "what was asked for\n").read_bytes()
    right, wrong = hashlib.sha256(text).hexdigest(), "0" * 64
    fact = SingleFile()
    assert host.read(fact, fact.command("/etc/x")) == ()
    failed = host.perform(plan_download("file:///srv/x", "/etc/x", wrong, 0o644, None))
    assert f"its checksum is {right}, wanted {wrong}" in failed["/etc/x"]
    assert not (host.root / "etc/x").exists()
    assert host.perform(plan_download("file:///srv/x", "/etc/x", right, 0o644, None)) == {}
    (found,) = host.read(fact, fact.command("/etc/x"))
    assert plan_download("file:///srv/x", "/etc/x", right, 0o644, found).steps == ()
