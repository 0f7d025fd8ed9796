"""rc(8) of the stand-in: contract 1.8, 1.9 and 14, with commands that only write down that they ran."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.openbsd.standin import init, rc, rcconf, release, unmodelled
from tests.unit.openbsd.scratch import ETC, executable, program, scratch

RECORD = '#!/bin/sh\necho "{name} $*" >>{root}/calls\n'
PFCTL = '#!/bin/sh\necho "pfctl $*" >>{root}/calls\n[ "$2" != - ] || cat >{root}/rules\n'
MAIL = '#!/bin/sh\n{ echo "mail $*"; cat; } >>{root}/calls\n'


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with scratch(tmp_path, monkeypatch) as directory:
        for name in ("sbin/sysctl", "usr/bin/ssh-keygen", "etc/netstart", "sbin/dmesg"):
            text = RECORD.replace("{name}", Path(name).name).replace("{root}", str(directory))
            executable(directory / name, text)
        executable(directory / "sbin/dmesg", "#!/bin/sh\necho 'OpenBSD 7.9-current'\n")
        executable(directory / "sbin/pfctl", PFCTL.replace("{root}", str(directory)))
        executable(directory / "usr/bin/mail", MAIL.replace("{root}", str(directory)))
        (directory / "bin").mkdir()
        (directory / "bin/sh").symlink_to(program("mksh"))
        for path in (directory / "etc/rc.d").iterdir():
            if path.name != "rc.subr":
                record(directory, path.name)
        for name in ("redis", "foo"):
            record(directory, name)
        (directory / "var/run").mkdir(parents=True)
        boot = directory / init.BOOTTIME.lstrip("/")
        boot.parent.mkdir(parents=True)
        boot.write_text("1\n")
        (directory / "etc/pf.conf").write_text("pass\n")
        yield directory


def record(root: Path, name: str) -> None:
    executable(root / "etc/rc.d" / name, RECORD.replace("{name}", f"rc.d/{name}").replace("{root}", str(root)))


def calls(root: Path) -> list[str]:
    path = root / "calls"
    return path.read_text().splitlines() if path.exists() else []


# 1.8, from the built-in ruleset to cron.
def test_boot_order(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (root / "etc/sysctl.conf").write_text("net.inet.ip.forwarding=1 # router\nkern.maxfiles = 9000\n")
    (root / "etc/rc.conf.local").write_text("pkg_scripts=redis gone foo\nnsd_flags=\nunbound_flags=\nhttpd_flags=\n")
    (root / "etc/rc.local").write_text(f"echo rc.local >>{root}/calls\n")
    (root / "etc/rc.securelevel").write_text(f"echo rc.securelevel >>{root}/calls\n")
    assert rc.main([]) == 0
    assert calls(root) == [
        "pfctl -f -",
        "pfctl -e",
        "sysctl net.inet.ip.forwarding=1",
        "sysctl kern.maxfiles",
        "sysctl =",
        "sysctl 9000",
        "rc.d/slaacd start",
        "rc.d/dhcpleased start",
        "rc.d/resolvd start",
        "netstart ",
        "pfctl -f /etc/pf.conf",
        "ssh-keygen -A",
        "rc.d/syslogd start",
        "rc.d/pflogd start",
        "rc.d/nsd start",
        "rc.d/unbound start",
        "rc.d/ntpd start",
        "rc.securelevel",
        "rc.d/sshd start",
        "rc.d/smtpd start",
        "rc.d/httpd start",
        "rc.d/sndiod start",
        "rc.d/redis start",
        "rc.d/foo start",
        "rc.local",
        "rc.d/cron start",
    ]
    assert "gone(absent)" in capfd.readouterr().out
    assert (root / "var/run/dmesg.boot").read_text() == "OpenBSD 7.9-current\n"
    assert not (root / "var/standin/unmodelled").exists()


# 14: "block all, lo0, tcp in to port ssh (22 from services(5)), DNS and DHCP and ping out, neighbour discovery, carp".
def test_rules_before_pf_conf(root: Path) -> None:
    assert rc.main(["autoboot"]) == 0
    rules = (root / "rules").read_text()
    assert rules.startswith("block all\npass on lo0\npass in proto tcp from any to any port ssh keep state\n")
    for words in ("port domain", "icmp-type echoreq", "port bootps", "icmp6-type neighbrsol", "proto carp"):
        assert words in rules


def test_without_pf(root: Path) -> None:
    (root / "etc/rc.conf.local").write_text("pf=NO\n")
    assert rc.main([]) == 0
    assert not [line for line in calls(root) if line.startswith(("pfctl", "rc.d/pflogd"))]


# 14: "at each boot everything before the first empty line is replaced by the first line of kern.version".
@pytest.mark.parametrize(
    ("old", "kept"),
    [
        ("OpenBSD 6.0\n\nWelcome.\n\nMore.\n", "\nWelcome.\n\nMore.\n"),
        ("no empty line\n", ""),
        ("\nours\n", "\nours\n"),
        (None, ""),
    ],
)
def test_motd(root: Path, old: str | None, kept: str) -> None:
    if old is not None:
        (root / "etc/motd").write_text(old)
    rc.rewrite_motd()
    assert (root / "etc/motd").read_text() == f"{release.first_line()}\n{kept}"


# 1.8: "rc.firsttime (mailed to root, file removed)", after the network daemons and before pkg_scripts.
def test_first_time_script(root: Path) -> None:
    (root / "etc/rc.conf.local").write_text("pkg_scripts=foo\n")
    (root / "etc/rc.firsttime").write_text("echo once\n")
    assert rc.main([]) == 0
    found = calls(root)
    begin = next(n for n, line in enumerate(found) if line.startswith("mail -Es "))
    assert found[begin].endswith(" rc.firsttime output root")
    assert found[begin + 1] == "once"
    assert found.index("rc.d/sndiod start") < begin < found.index("rc.d/foo start")
    assert not list((root / "etc").glob("rc.firsttime*"))


# 1.8: "Shutdown: /etc/rc.shutdown, then pkg_scripts stopped in reverse order."
def test_shutdown(root: Path) -> None:
    (root / "etc/rc.conf.local").write_text("pkg_scripts=redis gone foo\n")
    (root / "etc/rc.shutdown").write_text(f"echo rc.shutdown >>{root}/calls\n")
    assert rc.main(["shutdown"]) == 0
    assert calls(root) == ["rc.shutdown", "rc.d/foo stop", "rc.d/redis stop"]


# A base daemon that was enabled and cannot run here fails the lab's run, and not the boot.
def test_enabled_daemon_without_script(root: Path) -> None:
    (root / "etc/rc.conf.local").write_text("tftpd_flags=/tftpboot\n")
    assert rc.main([]) == 0
    assert "rc.d/cron start" in calls(root)
    assert "rc tftpd" in (root / "var/standin/unmodelled").read_text()


def test_wrong_call(root: Path) -> None:
    assert root
    with pytest.raises(SystemExit) as end:
        rc.main(["single"])
    assert end.value.code == unmodelled.EXIT


# A missing command is said and the boot goes on, as a shell script does.
def test_missing_command(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (root / "sbin/pfctl").unlink()
    assert rc.main([]) == 0
    assert "/sbin/pfctl: No such file or directory" in capfd.readouterr().err
    assert "rc.d/sshd start" in calls(root)


# Every daemon that is on by default (1.9) and the ones that base needs here have a script in OpenBSD's form.
def test_scripts_are_in_openbsds_form() -> None:
    values = rcconf.assignments((ETC / "rc.conf").read_text())
    on = {key.removesuffix("_flags") for key, value in values.items() if key.endswith("_flags") and value != "NO"}
    names = {path.name for path in (ETC / "rc.d").iterdir()} - {"rc.subr"}
    assert on - names == {"spamlogd"}, "only with spamd"
    assert {"unbound", "nsd", "httpd", "relayd", "dhcpd", "snmpd"} <= names
    for name in names:
        lines = (ETC / "rc.d" / name).read_text().splitlines()
        assert lines[0] == "#!/bin/ksh"
        assert any(line.startswith('daemon="/') for line in lines)
        assert ". /etc/rc.d/rc.subr" in lines
        assert lines[-1] == "rc_cmd $1"
