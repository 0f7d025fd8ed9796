"""Small daemons and matching of processes of the stand-in: contract 1.4, 5.5, 7.1, 7.2, 7.3, 9."""

import os
import signal
import socket
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
    syslogd,
    syspatch,
    sysupgrade,
    unmodelled,
)
from tests.unit.openbsd.scratch import as_user, daemon, executable, processes, scratch

SYSLOG_CONF = """# a comment
*.notice;auth,authpriv,cron,ftp,kern,lpr,mail,user.none\t/var/log/messages
mail.info\t\t/var/log/maillog
!!doas
*.*\t/var/log/doas
!*
*.emerg\t*
auth.info;authpriv.err\t/var/log/authlog
"""
KERN, USER, MAIL, DAEMON, AUTH = 0, 1, 2, 3, 4
EMERG, ERR, NOTICE, INFO, DEBUG = 0, 3, 5, 6, 7


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


# 5.5: selectors, `none`, blocks `!prog` and `!!prog` (stop after match), `!*`.
@pytest.mark.parametrize(
    ("facility", "level", "sender", "files"),
    [
        (DAEMON, NOTICE, "ntpd", ["/var/log/messages"]),
        (DAEMON, INFO, "ntpd", []),
        (MAIL, INFO, "smtpd", ["/var/log/maillog"]),
        (MAIL, DEBUG, "smtpd", []),
        (USER, EMERG, "x", []),
        (AUTH, INFO, "sshd", ["/var/log/authlog"]),
        (AUTH, NOTICE, "doas", ["/var/log/doas"]),
        (DAEMON, ERR, "doas", ["/var/log/messages", "/var/log/doas"]),
        (10, INFO, "sshd", []),
        (10, ERR, "sshd", ["/var/log/authlog"]),
    ],
)
def test_selectors(facility: int, level: int, sender: str, files: list[str]) -> None:
    assert syslogd.targets(syslogd.rules(SYSLOG_CONF), facility * 8 + level, sender) == files


# 5.5: "later selectors of a line override earlier ones (`mail.crit;*.err` logs mail from err upward)".
def test_later_selectors_override() -> None:
    rules = syslogd.rules("mail.crit;*.err\t/f\n")
    assert syslogd.targets(rules, MAIL * 8 + ERR, "x") == ["/f"]


@pytest.mark.parametrize(
    "line",
    [
        "*.* @tls://logs:6514",
        "*.* |exec cat",
        "*.* :64:memory",
        "+host",
        "*.bogus /f",
        "bogus.info /f",
        "nodot /f",
        "!two words",
    ],
)
def test_what_syslog_conf_may_not_have(line: str) -> None:
    with pytest.raises(syslogd.BadLine):
        syslogd.rules(f"{line}\n")


def test_messages() -> None:
    assert syslogd.message(b"<38>Nov 23 12:00:00 sshd[1]: hello\n\0") == (38, "sshd[1]: hello")
    assert syslogd.message(b"plain") == (13, "plain")


def test_syslogd_runs(root: Path) -> None:
    executable(
        root / "usr/sbin/syslogd",
        f"#!{sys.executable} -IS\nimport sys; sys.path.insert(0, {str(Path(standin.__file__).parent.parent)!r})\n"
        "from standin.syslogd import main; sys.exit(main(sys.argv[1:]))\n",
    )
    for name in ("dev", "var/log", "var/run", "var/www/dev"):
        (root / name).mkdir(parents=True)
    (root / "etc/syslog.conf").write_text(SYSLOG_CONF)
    messages = root / "var/log/messages"
    messages.touch()
    subprocess.run([root / "usr/sbin/syslogd", "-a", "/var/www/dev/log"], check=True, timeout=20)
    pid_file = root / "var/run/syslog.pid"
    assert until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
    pid = int(pid_file.read_text())
    try:
        assert Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") == b"syslogd: [priv]"
        for path in ("dev/log", "var/www/dev/log"):
            sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            sender.connect(str(root / path))
            sender.send(f"<{DAEMON * 8 + ERR}>Nov 23 12:00:00 x[1]: by {path}".encode())
            sender.send(f"<{MAIL * 8 + ERR}>x: the file is not there".encode())
            sender.close()
        assert until(lambda: "by var/www/dev/log" in messages.read_text())
        assert " x[1]: by dev/log\n" in messages.read_text()
        assert not (root / "var/log/maillog").exists(), "must pre-exist, not created"
        (root / "etc/syslog.conf").write_text("*.*\t/var/log/all\n")
        (root / "var/log/all").touch()
        os.kill(pid, signal.SIGHUP)
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sender.connect(str(root / "dev/log"))

        def arrived() -> bool:
            sender.send(b"<30>y: after HUP")
            return "y: after HUP" in (root / "var/log/all").read_text()

        assert until(arrived)
        sender.close()
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "words", [["-S", "127.0.0.1"], ["-T", "127.0.0.1:1"], ["-K", "/x"], ["-U", "127.0.0.1"], ["-d"]]
)
def test_options_of_syslogd_that_are_not_modelled(root: Path, words: list[str]) -> None:
    assert root
    with pytest.raises(SystemExit) as end:
        syslogd.main(words)
    assert end.value.code == unmodelled.EXIT


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
