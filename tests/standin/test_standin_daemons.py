"""Small daemons and matching of processes of the stand-in: contract 1.4, 7.1, 7.2, 7.3, 9."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.lab.openbsd import standin
from tests.lab.openbsd.standin import (
    fw_update,
    idle,
    pgrep,
    rcctl,
    release,
    syspatch,
    sysupgrade,
    unmodelled,
)
from tests.unit.openbsd.scratch import as_user, daemon, executable, processes, scratch


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with scratch(tmp_path, monkeypatch) as directory:
        yield directory


def until(found: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if found():
            return True
        time.sleep(0.05)
    return found()


# 1.4: a daemon whose title the rc.d script looks for.
@pytest.mark.parametrize("name", ["slaacd", "dhcpleased", "resolvd", "sndiod"])
def test_idle_daemons_are_found(root: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    path = next(
        line.split('"')[1] for line in (root / "etc/rc.d" / name).read_text().splitlines() if line.startswith("daemon=")
    )
    daemon(root, path.removeprefix(str(root)))
    assert rcctl.main(["start", name]) == 0
    assert rcctl.main(["check", name]) == 0
    assert rcctl.main(["stop", name]) == 0
    assert capfd.readouterr().out == f"{name}(ok)\n" * 3
    assert not processes(f"{root}/")


# pflogd's script looks for a title that another stand-in's has as well: found here by its environment, ended by number.
def test_pflogd_calls_itself_what_its_script_looks_for(root: Path) -> None:
    subprocess.run([daemon(root, "/sbin/pflogd")], check=True, timeout=20)

    def ours() -> list[int]:
        mark = f"STANDIN_ROOT={root}\0".encode()
        found = []
        for pid in processes(r"^pflogd: \[priv\]$"):
            with suppress(OSError):
                if mark in Path(f"/proc/{pid}/environ").read_bytes():
                    found.append(pid)
        return found

    assert until(lambda: len(ours()) == 1)
    os.kill(ours()[0], signal.SIGTERM)
    assert until(lambda: not ours())


# 5 and 0.3: `httpd -n` says "configuration OK" on stderr; nothing is said of what is not modelled.
@pytest.mark.parametrize(
    ("conf", "err", "code"),
    [
        ('server "a" {\n\tlisten on * port 80\n\troot "/htdocs"\n}\n', "configuration OK\n", 0),
        ('server "a" {\n\troot "/htdocs"\n}\n', '/etc/httpd.conf: server "a": listen address not specified\n', 1),
        ('server "a" {\n\tlisten on * port 80\n', "/etc/httpd.conf:2: syntax error\n", 1),
        ("# nothing\n", "no actions, nothing to do\n", 1),
        (None, "/etc/httpd.conf: No such file or directory\nno actions, nothing to do\n", 1),
    ],
)
def test_httpd_configuration(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    conf: str | None,
    err: str,
    code: int,
) -> None:
    if conf is not None:
        (root / "etc/httpd.conf").write_text(conf)
    monkeypatch.setattr(sys, "argv", ["/usr/sbin/httpd"])
    assert idle.main(["-n"]) == code
    assert capsys.readouterr().err == err


@pytest.mark.parametrize(("name", "conf"), [("httpd", 'server "a" {\n\ttls { }\n}\n'), ("relayd", ""), ("dhcpd", "")])
def test_configurations_that_are_not_modelled(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str, conf: str
) -> None:
    (root / f"etc/{name}.conf").write_text(conf)
    monkeypatch.setattr(sys, "argv", [f"/usr/sbin/{name}"])
    with pytest.raises(SystemExit) as end:
        idle.main(["-n"])
    assert end.value.code == unmodelled.EXIT


# 9: "-T rtable, -f -x -u -U -l, -q".
@pytest.mark.parametrize(
    ("name", "words", "passed", "quiet"),
    [
        ("pgrep", ["-T", "0", "-q", "-xf", "sshd: .*"], ["-x", "-f", "--", "sshd: .*"], True),
        ("pgrep", ["-lf", "cron"], ["-a", "-f", "--", "cron"], False),
        ("pgrep", ["-l", "cron"], ["-l", "--", "cron"], False),
        ("pgrep", ["-u", "www", "httpd"], ["-u", "www", "--", "httpd"], False),
        ("pkill", ["-HUP", "-T0", "-xf", "x"], ["HUP", "-x", "-f", "--", "x"], False),
        ("pkill", ["-U0", "x"], ["-U", "0", "--", "x"], False),
    ],
)
def test_arguments_of_pgrep(name: str, words: list[str], passed: list[str], quiet: bool) -> None:
    found, silent = pgrep.translated(name, words)
    assert (found, silent) == ([f"-{word}" if word == "HUP" else word for word in passed], quiet)


def test_pgrep_finds_and_pkill_ends(root: Path) -> None:
    library = str(Path(standin.__file__).parent.parent)
    code = f"import sys; sys.path.insert(0, {library!r}); from standin.{{0}} import main; sys.exit(main(sys.argv[1:]))"
    for name in ("pgrep", "pkill"):
        executable(root / name, f"#!{sys.executable} -IS\n" + code.replace("{0}", name) + "\n")
    daemon(root, "/sbin/slaacd")
    subprocess.run([root / "sbin/slaacd"], check=True, timeout=20)
    pattern = f"{root}/sbin/slaacd"
    assert until(lambda: subprocess.run([root / "pgrep", "-q", "-xf", pattern], check=False).returncode == 0)
    done = subprocess.run([root / "pgrep", "-q", "-xf", pattern], capture_output=True, check=False)
    assert (done.stdout, done.returncode) == (b"", 0)
    assert subprocess.run([root / "pkill", "-T", "0", "-xf", pattern], check=False).returncode == 0
    assert until(lambda: subprocess.run([root / "pgrep", "-xf", pattern], check=False).returncode == 1)
    assert subprocess.run([root / "pgrep", "-z"], capture_output=True, check=False).returncode == 2


@pytest.mark.parametrize("words", [["-T", "1", "x"], ["-P", "1"], ["-t", "p0"], ["a", "b"]])
def test_pgrep_that_is_not_modelled(root: Path, words: list[str]) -> None:
    assert root
    with pytest.raises(SystemExit) as end:
        pgrep.translated("pgrep", words)
    assert end.value.code == unmodelled.EXIT


# 7.2: "-current: Unsupported release: X-current, exit 1"; exit 2 when there is nothing to do.
def test_syspatch(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert syspatch.main(["-c"]) == 1
    assert capsys.readouterr().err == "syspatch: Unsupported release: 7.9-current\n"
    kernel = root / release.OVERRIDE.lstrip("/")
    kernel.parent.mkdir(parents=True)
    kernel.write_text("OpenBSD 7.9 (GENERIC.MP) #1: x\n    y\n")
    (root / "etc/installurl").write_text("/mirror\n")
    (root / "mirror/7.9").mkdir(parents=True)
    assert syspatch.main(["-c"]) == 0
    assert syspatch.main([]) == 2
    (root / "mirror/7.9/syspatch").write_text("001_ssh\n002_pf\n")
    assert syspatch.main(["-c"]) == 0
    assert capsys.readouterr().out == "001_ssh\n002_pf\n"
    assert syspatch.main([]) == 0
    assert syspatch.main(["-l"]) == 0
    assert capsys.readouterr().out == "001_ssh\n002_pf\n"
    assert syspatch.main(["-c"]) == 0
    assert capsys.readouterr().out == ""
    assert syspatch.main([]) == 2
    assert syspatch.main(["-x"]) == 1
    as_user(monkeypatch)
    assert syspatch.main(["-c"]) == 1
    with pytest.raises(SystemExit):
        syspatch.main(["-r"])


# 7.3: "Status line prefixed fw_update:; exit 0 unless a real error."
def test_fw_update(capsys: pytest.CaptureFixture[str], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert root
    assert fw_update.main([]) == 0
    assert capsys.readouterr().out.startswith("fw_update: ")
    assert fw_update.main(["-x"]) == 1
    as_user(monkeypatch)
    assert fw_update.main([]) == 1
    assert fw_update.main(["-n"]) == 0
    with pytest.raises(SystemExit):
        fw_update.main(["-p", "http://x"])


# 7.1: the errors, and "Already on latest snapshot.", exit 0.
def test_sysupgrade(capsys: pytest.CaptureFixture[str], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, message in (
        (["-s", "-R", "7.9"], "incompatible options: -s -R"),
        (["-f"], "-f without -s"),
        (["-R", "next"], "invalid version"),
    ):
        assert sysupgrade.main(words) == 1
        assert message in capsys.readouterr().err
    (root / "etc/installurl").write_text("/mirror\n")
    for path in ("mirror/snapshots/amd64/BUILDINFO", "var/db/installed.BUILDINFO"):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text("Build date: 1795000000\n")
    assert sysupgrade.main(["-s"]) == 0
    assert capsys.readouterr().out == "Already on latest snapshot.\n"
    with pytest.raises(SystemExit) as end:
        sysupgrade.main([])
    assert end.value.code == unmodelled.EXIT
    (root / "var/db/installed.BUILDINFO").write_text("Build date: 1\n")
    with pytest.raises(SystemExit):
        sysupgrade.main(["-s"])
    as_user(monkeypatch)
    assert sysupgrade.main(["-s"]) == 1
