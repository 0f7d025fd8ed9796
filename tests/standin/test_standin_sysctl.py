"""sysctl(8) and the kernel's words of the stand-in: contract 0.3 item 2, 6.2, 7.5, 9, 12 item 1."""

import os
import socket
import time
from pathlib import Path

import pytest

from tests.lab.openbsd.standin import arch, dmesg, init, machine, release, sysctl, uname, unmodelled

ROUTES = "proc/sys/net/ipv4/ip_forward"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STANDIN_ROOT", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for path in (ROUTES, "proc/sys/net/ipv6/conf/all/forwarding"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("0\n")
    boot = tmp_path / init.BOOTTIME.lstrip("/")
    boot.parent.mkdir(parents=True)
    boot.write_text("1795000000\n")
    return tmp_path


@pytest.fixture
def kernel(root: Path) -> Path:
    path = root / release.OVERRIDE.lstrip("/")
    path.parent.mkdir(parents=True)
    return path


# 6.2: reading, writing, -n, -q; "exit code stays 0" for all that fails.
ROWS = [
    (["net.inet.ip.forwarding"], "net.inet.ip.forwarding=0\n", ""),
    (["-n", "net.inet.ip.forwarding"], "0\n", ""),
    (["net.inet.ip.forwarding=1"], "net.inet.ip.forwarding: 0 -> 1\n", ""),
    (["-q", "net.inet.ip.forwarding=1"], "", ""),
    (["-n", "net.inet.ip.forwarding=1"], "1\n", ""),
    (["kern.maxfiles=9000", "kern.maxfiles"], "kern.maxfiles: 7030 -> 9000\nkern.maxfiles=9000\n", ""),
    (["kern.maxfiles= 9000"], "kern.maxfiles: 7030 -> 9000\n", ""),
    (["nosuch"], "", "sysctl: top level name nosuch in nosuch is invalid\n"),
    (["nosuch.x=1"], "", "sysctl: top level name nosuch in nosuch.x is invalid\n"),
    (["kern.nosuch"], "", "sysctl: second level name nosuch in kern.nosuch is invalid\n"),
    (["net.nosuch.x"], "", "sysctl: second level name nosuch in net.nosuch.x is invalid\n"),
    (["net.inet.nosuch.x=1"], "", "sysctl: third level name nosuch in net.inet.nosuch.x is invalid\n"),
    (["net.inet.ip.nosuch"], "", "sysctl: fourth level name nosuch in net.inet.ip.nosuch is invalid\n"),
    (["kern.seminfo.nosuch"], "", "sysctl: third level name nosuch in kern.seminfo.nosuch is invalid\n"),
    (["kern.maxfiles=abc"], "", "sysctl: kern.maxfiles: value is invalid: abc\n"),
    (["kern.maxfiles=99999999999"], "", "sysctl: kern.maxfiles: value is too large: 99999999999\n"),
    (["kern.maxfiles=-99999999999"], "", "sysctl: kern.maxfiles: value is too small: -99999999999\n"),
    (["kern.ostype=Linux"], "", "sysctl: kern.ostype: Operation not permitted\n"),
    (["kern.securelevel=0"], "", "sysctl: kern.securelevel: Operation not permitted\n"),
    # 14: "`key = value` is three words", each of which is handed to sysctl.
    (["kern.maxfiles"], "kern.maxfiles=7030\n", ""),
    (["="], "", "sysctl: top level name  in  is invalid\n"),
    (["9000"], "", "sysctl: top level name 9000 in 9000 is invalid\n"),
    # 7.5.
    (["-n", "kern.osrelease"], "7.9\n", ""),
    (["-n", "hw.machine"], "amd64\n", ""),
    (["-n", "kern.osversion"], "GENERIC.MP#123\n", ""),
    # sysctl.c: the seconds with -n, ctime(3) without.
    (["-n", "kern.boottime"], "1795000000\n", ""),
    (["kern.boottime"], f"kern.boottime={time.ctime(1795000000)}\n", ""),
]


@pytest.mark.parametrize(("words", "out", "err"), ROWS, ids=[" ".join(row[0]) for row in ROWS])
def test_row(capsys: pytest.CaptureFixture[str], words: list[str], out: str, err: str) -> None:
    assert sysctl.main(words) == 0
    assert tuple(capsys.readouterr()) == (out, err)


def test_writing_as_a_user(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert sysctl.main(["kern.maxfiles=9000"]) == 0
    assert capsys.readouterr().err == "sysctl: kern.maxfiles: Operation not permitted\n"
    assert sysctl.value("kern.maxfiles") == "7030"


def test_forwarding_is_real(root: Path) -> None:
    assert sysctl.main(["net.inet.ip.forwarding=1"]) == 0
    assert (root / ROUTES).read_text() == "1\n"


def test_a_boot_forgets(root: Path) -> None:
    assert sysctl.main(["-q", "kern.maxfiles=9000"]) == 0
    assert sysctl.value("kern.maxfiles") == "9000"
    assert list((root / "var/standin/boot").glob("sysctl.*"))
    (root / sysctl.STATE.lstrip("/")).unlink()
    assert sysctl.value("kern.maxfiles") == "7030"


# 9: "-f FILE since 7.7".
def test_file(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "etc").mkdir()
    (root / "etc/sysctl.conf").write_text("# ours\nkern.maxfiles=9000 # more\n\nkern.nosuch=1\n")
    assert sysctl.main(["-f", "/etc/sysctl.conf"]) == 0
    assert tuple(capsys.readouterr()) == (
        "kern.maxfiles: 7030 -> 9000\n",
        "sysctl: second level name nosuch in kern.nosuch is invalid\n",
    )
    assert sysctl.main(["-f", "/no/file"]) == 1


@pytest.mark.parametrize(
    "words",
    [["-a"], [], ["kern"], ["kern.seminfo"], ["kern.cp_time"], ["net.inet.tcp.stats"], ["net.inet.ip.forwarding=2"]],
)
def test_not_modelled(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        sysctl.main(words)
    assert end.value.code == unmodelled.EXIT


def test_wrong_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert sysctl.main(["-p"]) == 1
    assert capsys.readouterr().err.startswith("usage: sysctl")


def test_hostname_is_for_the_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(sysctl, "hostname", calls.append)
    assert sysctl.main(["-q", "kern.hostname=db1.chown.me"]) == 0
    assert calls == [["db1.chown.me"]]


# 7.5, 12 item 1: "kern.version (two lines, with or without -current)"; "uname -r = 7.9 even on -current".
@pytest.mark.parametrize(
    ("text", "number", "suffix"),
    [
        ("OpenBSD 7.9-current (GENERIC.MP) #5: x\n    y\n", "7.9", "-current"),
        ("OpenBSD 8.0-beta (GENERIC) #7: x\n    y\n", "8.0", "-beta"),
        ("OpenBSD 8.0 (GENERIC) #8: x\n    y\n", "8.0", ""),
    ],
)
def test_kernels(kernel: Path, capsys: pytest.CaptureFixture[str], text: str, number: str, suffix: str) -> None:
    kernel.write_text(text)
    assert (release.number(), release.suffix()) == (number, suffix)
    assert sysctl.main(["-n", "kern.version"]) == 0
    assert capsys.readouterr().out == text
    assert uname.main(["-r"]) == 0
    assert capsys.readouterr().out == f"{number}\n"


def test_uname(capsys: pytest.CaptureFixture[str]) -> None:
    host = socket.gethostname()
    for words, out in (
        ([], "OpenBSD"),
        (["-srm"], "OpenBSD 7.9 amd64"),
        (["-a"], f"OpenBSD {host} 7.9 GENERIC.MP#123 amd64"),
        (["-n"], host),
        (["-v"], "GENERIC.MP#123"),
        (["-p"], "amd64"),
    ):
        assert uname.main(words) == 0
        assert capsys.readouterr().out == f"{out}\n"
    assert uname.main(["-o"]) == 1


def test_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    for command, words, out in (
        (machine.main, [], "amd64"),
        (machine.main, ["-a"], "amd64"),
        (arch.main, ["-s"], "amd64"),
        (arch.main, [], "OpenBSD.amd64"),
    ):
        assert command(words) == 0
        assert capsys.readouterr().out == f"{out}\n"
    with pytest.raises(SystemExit):
        machine.main(["octeon"])


def test_dmesg_begins_with_the_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    assert dmesg.main([]) == 0
    out = capsys.readouterr().out
    assert out.startswith(release.kern_version() + "\nreal mem = ")
