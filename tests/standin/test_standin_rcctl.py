"""rcctl(8), rc.subr(8) and rc.d scripts of the stand-in, line by line as contract 1.1 to 1.7 and 0.3 have them."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.openbsd.standin import rcconf, rcctl, unmodelled
from tests.unit.openbsd.scratch import as_user, daemon, mode, processes, program, scratch, script

REDIS = """#!/bin/ksh

daemon="/usr/local/sbin/redis-server"
daemon_flags="/etc/redis/redis.conf"

. /etc/rc.d/rc.subr

pexp="redis-server: ${daemon}.*"
rc_reload=NO

rc_cmd $1
"""
FOO = """#!/bin/ksh

daemon="/usr/local/sbin/foo"
daemon_flags="-a -b"

. /etc/rc.d/rc.subr

rc_configtest() {
	[ ! -f {root}/etc/foo.bad ] || { echo "foo.bad:1: syntax error" >&2; return 1; }
}

rc_cmd $1
"""
META = """#!/bin/ksh
for i in smbd nmbd; do
	[ -x /etc/rc.d/$i ] && /etc/rc.d/$i $1
done
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with scratch(tmp_path, monkeypatch) as directory:
        script(directory, "redis", REDIS)
        script(directory, "foo", FOO.replace("{root}", str(directory)))
        script(directory, "samba", META)
        for path in ("/usr/local/sbin/redis-server", "/usr/local/sbin/foo", "/usr/sbin/httpd", "/usr/sbin/snmpd"):
            daemon(directory, path)
        (directory / "etc/httpd.conf").write_text('server "x" {\n\tlisten on * port 80\n}\n')
        yield directory


class Call:
    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.capfd = capfd

    def __call__(self, line: str, *more: str) -> tuple[str, str, int]:
        code = rcctl.main([*line.split(), *more])
        captured = self.capfd.readouterr()
        return captured.out, captured.err, code


@pytest.fixture
def call(root: Path, capfd: pytest.CaptureFixture[str]) -> Call:
    assert root
    return Call(capfd)


def local(root: Path) -> str | None:
    path = root / "etc/rc.conf.local"
    return path.read_text() if path.exists() else None


# 1.1: "A wrong call prints four usage lines on stderr, exit 1."
@pytest.mark.parametrize(
    "line", ["", "bogus", "-x ls all", "ls", "ls bogus", "get", "start", "set sshd bogus x", "-d -q check sshd"]
)
def test_usage(call: Call, line: str) -> None:
    out, err, code = call(line)
    assert (out, code, len(err.splitlines())) == ("", 1, 4)
    assert err.startswith("usage:\trcctl get|getdef|set ")


# 1.3, the rows whose output is one fixed text; rcctl.sh.
ROWS = [
    ("get sshd status", "", "", 0),
    ("get httpd status", "", "", 1),
    ("get httpd flags", "NO\n", "", 0),
    ("get sshd flags", "", "", 0),
    ("get redis flags", "NO\n", "", 0),
    ("get redis status", "", "", 1),
    ("get sshd user", "root\n", "", 0),
    ("get sshd timeout", "30\n", "", 0),
    ("get sshd rtable", "0\n", "", 0),
    ("get sshd class", "daemon\n", "", 0),
    ("getdef unbound flags", "-c /var/unbound/etc/unbound.conf\n", "", 0),
    ("getdef redis flags", "/etc/redis/redis.conf\n", "", 0),
    ("getdef httpd status", "", "", 1),
    ("get pf", "pf=YES\n", "", 0),
    ("get pf flags", "YES\n", "", 0),
    ("get pf status", "", "", 0),
    ("get accounting status", "", "", 1),
    ("get pf user", "", 'rcctl: "pf" is a special variable, cannot "get user"\n', 1),
    ("set pf flags x", "", 'rcctl: "pf" is a special variable, cannot "set flags"\n', 1),
    ("get nosuch", "", "rcctl: service nosuch does not exist\n", 2),
    ("get nosuch flags", "", "rcctl: service nosuch does not exist\n", 2),
    ("enable nosuch", "", "rcctl: service nosuch does not exist\n", 2),
    ("set nosuch flags x", "", "rcctl: service nosuch does not exist\n", 2),
    ("start nosuch", "", "rcctl: service nosuch does not exist\n", 2),
    ("check nosuch", "", "rcctl: service nosuch does not exist\n", 2),
    ("order nosuch", "", "rcctl: service nosuch does not exist\n", 2),
    ("disable nosuch", "", "", 0),
    ("disable no-such", "", "rcctl: service no-such does not exist\n", 2),
    ("get 9x", "", "rcctl: service 9x does not exist\n", 2),
    ("enable sshd", "", "", 0),
    ("set httpd flags -x", "", "rcctl: httpd is not enabled\n", 1),
    ("set redis user root", "", "rcctl: redis is not enabled\n", 1),
    ("set sshd flags NO", "", 'rcctl: "flags NO" contradicts "set"\n', 1),
    ("set sshd status maybe", "", 'rcctl: invalid status "maybe"\n', 1),
    ("set sshd timeout 0", "", 'rcctl: "0" is not a positive integer\n', 1),
    ("set sshd timeout abc", "", 'rcctl: "abc" is not a positive integer\n', 1),
    ("set sshd rtable x", "", 'rcctl: "x" is not an integer\n', 1),
    ("set sshd user nobodyx", "", 'rcctl: user "nobodyx" does not exist\n', 1),
    ("set sshd logger bogus.info", "", 'rcctl: unknown priority name: "bogus.info"\n', 1),
    ("set sshd execdir tmp", "", 'rcctl: "tmp" must be an absolute path\n', 1),
    ("set sshd class x", "", 'rcctl: "sshd_class" is a read-only variable set in login.conf(5)\n', 1),
    ("order", "", "", 0),
    ("order httpd", "", "rcctl: httpd is not a pkg script\n", 1),
    ("order redis", "", "rcctl: redis is not enabled\n", 1),
    ("get samba flags", "", 'rcctl: /etc/rc.d/samba is a meta script, cannot "get flags"\n', 1),
    ("set samba flags x", "", 'rcctl: /etc/rc.d/samba is a meta script, cannot "set flags"\n', 1),
    ("get samba status", "", "", 1),
    ("start pf", "", 'rcctl: "pf" is a special variable, no rc.d(8) script\n', 1),
]


@pytest.mark.parametrize(("line", "out", "err", "code"), ROWS, ids=[row[0] for row in ROWS])
def test_row_of_1_3(call: Call, root: Path, line: str, out: str, err: str, code: int) -> None:
    assert call(line) == (out, err, code)
    assert local(root) is None


# 1.3: lines in the order class, execdir, flags, logger, rtable, timeout, user; exit 0 enabled, 1 disabled.
def test_get_whole_service(call: Call) -> None:
    lines = [
        f"sshd_{word}"
        for word in ("class=daemon", "execdir=", "flags=", "logger=", "rtable=0", "timeout=30", "user=root")
    ]
    assert call("get sshd") == ("".join(f"{line}\n" for line in lines), "", 0)
    out, err, code = call("get httpd")
    assert (out.splitlines()[2], err, code) == ("httpd_flags=NO", "", 1)


# 1.2: "All arguments are checked first: one unknown name means nothing is done for any of them, exit 2."
def test_arguments_are_checked_first(call: Call, root: Path) -> None:
    assert call("enable httpd nosuch") == ("", "rcctl: service nosuch does not exist\n", 2)
    assert local(root) is None


# 1.2: a base daemon of OpenBSD that the stand-in has no script for must not look unknown.
def test_base_daemon_without_script_is_not_modelled(call: Call) -> None:
    with pytest.raises(SystemExit) as end:
        call("enable tftpd")
    assert end.value.code == unmodelled.EXIT


# 1.3 and 1.6: what each write leaves in rc.conf.local.
WRITES: list[tuple[list[list[str]], str | None]] = [
    ([["enable", "httpd"]], "httpd_flags=\n"),
    ([["enable", "httpd"], ["enable", "httpd"]], "httpd_flags=\n"),
    ([["enable", "httpd"], ["disable", "httpd"]], None),
    ([["disable", "sshd"]], "sshd_flags=NO\n"),
    ([["disable", "sshd"], ["enable", "sshd"]], None),
    ([["set", "httpd", "status", "on"]], "httpd_flags=\n"),
    ([["set", "httpd", "status", "on"], ["set", "httpd", "status", "off"]], None),
    ([["enable", "redis"]], "pkg_scripts=redis\n"),
    ([["enable", "redis", "foo"]], "pkg_scripts=redis foo\n"),
    ([["enable", "redis", "foo"], ["order", "foo"]], "pkg_scripts=foo redis\n"),
    ([["enable", "redis", "foo"], ["disable", "redis"]], "pkg_scripts=foo\n"),
    ([["enable", "redis"], ["set", "redis", "timeout", "60"]], "pkg_scripts=redis\nredis_timeout=60\n"),
    ([["enable", "redis"], ["set", "redis", "timeout", "60"], ["disable", "redis"]], None),
    (
        [["enable", "redis"], ["set", "redis", "timeout", "60"], ["set", "redis", "timeout", "30"]],
        "pkg_scripts=redis\n",
    ),
    ([["enable", "redis"], ["set", "redis", "flags", "/etc/redis/redis.conf"]], "pkg_scripts=redis\n"),
    ([["disable", "pf"]], "pf=NO\n"),
    ([["disable", "pf"], ["enable", "pf"]], None),
    ([["enable", "accounting"]], "accounting=YES\n"),
    ([["enable", "unbound"], ["set", "unbound", "flags", "-v", "-c /x.conf"]], "unbound_flags=-v -c /x.conf\n"),
    ([["set", "sshd", "flags", "-o", "a b", "c"]], "sshd_flags=-o a b c\n"),
    ([["set", "sshd", "flags", " -4"]], 'sshd_flags=" -4"\n'),
    ([["set", "sshd", "flags", '"-4 -6"']], 'sshd_flags="-4 -6"\n'),
    ([["set", "sshd", "flags", '-o x="a b" -p $HOME']], 'sshd_flags=-o x="a b" -p $HOME\n'),
    ([["set", "sshd", "flags", "-4"], ["set", "sshd", "flags", ""]], None),
    ([["set", "sshd", "flags", "-4"], ["set", "sshd", "flags"]], None),
    ([["enable", "samba"]], "pkg_scripts=samba\n"),
]


@pytest.mark.parametrize(("calls", "text"), WRITES, ids=[" ; ".join(" ".join(c) for c in calls) for calls, _ in WRITES])
def test_what_is_written(root: Path, calls: list[list[str]], text: str | None) -> None:
    for words in calls:
        assert rcctl.main(words) == 0
    assert local(root) == text


# 1.6: the example of the format rcctl writes, sorted.
def test_format_of_rc_conf_local(root: Path) -> None:
    for words in (
        ["enable", "accounting", "httpd", "unbound", "foo", "redis"],
        ["disable", "pf", "sshd"],
        ["order", "redis"],
        ["set", "redis", "timeout", "60"],
        ["set", "unbound", "flags", "-v -c /x.conf"],
    ):
        assert rcctl.main(words) == 0
    assert local(root) == (
        "accounting=YES\nhttpd_flags=\npf=NO\npkg_scripts=redis foo\nredis_timeout=60\nsshd_flags=NO\n"
        "unbound_flags=-v -c /x.conf\n"
    )
    assert mode(root / "etc/rc.conf.local") == 0o644


# 0.3 item 7: "rcctl re-sorts /etc/rc.conf.local (sort -u) and rewrites it: comments and order are lost."
def test_sorting_of_what_somebody_wrote(root: Path) -> None:
    path = root / "etc/rc.conf.local"
    path.write_text("sshd_flags=-4\n# a comment\nntpd_flags=NO\nsshd_flags=-4\n")
    assert rcctl.main(["enable", "httpd"]) == 0
    assert local(root) == "# a comment\nhttpd_flags=\nntpd_flags=NO\nsshd_flags=-4\n"


# 1.6: "a disabled entry can leave pkg_scripts=# …".
def test_trailing_comments_get_mangled(root: Path) -> None:
    (root / "etc/rc.conf.local").write_text("pkg_scripts=redis # the cache\n")
    assert rcctl.main(["disable", "redis"]) == 0
    assert local(root) == "pkg_scripts=# the cache\n"


# 1.3: "enable SVC (again): file untouched if unchanged".
def test_unchanged_file_is_untouched(root: Path) -> None:
    assert rcctl.main(["enable", "redis"]) == 0
    before = (root / "etc/rc.conf.local").stat().st_ino
    assert rcctl.main(["enable", "redis"]) == 0
    assert (root / "etc/rc.conf.local").stat().st_ino == before


# 1.6: "The parser takes name=value lines, the last duplicate wins, quotes are stripped".
def test_parser() -> None:
    text = "a_flags=1\nb_flags='x y'\na_flags = 2 # no\nc_flags=\"-z\"\n#d_flags=1\nbogus=1\npkg_scripts=a b\n"
    assert rcconf.assignments(text) == {"a_flags": "2", "b_flags": "x y", "c_flags": "-z", "pkg_scripts": "a b"}


# 1.9: spamlogd in effect only with spamd; pflogd not without pf.
def test_forced_values(root: Path, call: Call) -> None:
    assert rcconf.effective()["spamlogd_flags"] == "NO"
    assert call("get pflogd status")[2] == 0
    (root / "etc/rc.conf.local").write_text("pf=NO\n")
    assert call("get pflogd status")[2] == 1


# 1.9: the daemons that are on after an installation, and the variables.
def test_default_state(call: Call) -> None:
    on = "check_quotas cron dhcpleased library_aslr ntpd pf pflogd resolvd slaacd smtpd sndiod sshd syslogd"
    assert call("ls on") == ("".join(f"{name}\n" for name in on.split()), "", 0)
    assert set(call("ls off")[0].split()) >= {
        "accounting",
        "httpd",
        "relayd",
        "dhcpd",
        "snmpd",
        "nsd",
        "unbound",
        "redis",
    }
    everything = call("ls all")[0].split()
    assert everything == sorted(everything)
    assert {"pf", "redis", "sshd", "samba"} <= set(everything)


# 1.3: "any write action / ls started as non-root"; 1.5: all on off need no root.
NON_ROOT = [
    ("enable sshd", 'rcctl: "enable" needs root privileges\n', 1),
    ("disable sshd", 'rcctl: "disable" needs root privileges\n', 1),
    ("set sshd flags -4", 'rcctl: "set" needs root privileges\n', 1),
    ("order redis", 'rcctl: "order" needs root privileges\n', 1),
    ("ls started", 'rcctl: "ls started" needs root privileges\n', 1),
    ("ls stopped", 'rcctl: "ls stopped" needs root privileges\n', 1),
    ("ls failed", 'rcctl: "ls failed" needs root privileges\n', 1),
    ("ls rogue", 'rcctl: "ls rogue" needs root privileges\n', 1),
    ("start foo", "{root}/etc/rc.d/foo: need root privileges\n", 1),
    ("check nsd", "{root}/etc/rc.d/nsd: need root privileges\n", 1),
    ("ls on", "", 0),
    ("get sshd user", "", 0),
]


@pytest.mark.parametrize(("line", "err", "code"), NON_ROOT, ids=[row[0] for row in NON_ROOT])
def test_without_root(call: Call, root: Path, monkeypatch: pytest.MonkeyPatch, line: str, err: str, code: int) -> None:
    as_user(monkeypatch)
    assert call(line)[1:] == (err.replace("{root}", str(root)), code)


# 1.4: "Non-root check works unless the script sets rc_usercheck=NO".
def test_check_without_root(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(monkeypatch)
    assert call("check foo") == ("foo(failed)\n", "", 1)


# 1.4, the rows on running services.
def test_start_check_stop(call: Call) -> None:
    assert call("check foo") == ("foo(failed)\n", "", 1)
    assert call("start foo") == ("foo(ok)\n", "", 0), "start PKGSVC not in pkg_scripts: starts normally"
    assert call("start foo") == ("", "", 0), "already running: nothing"
    assert call("check foo") == ("foo(ok)\n", "", 0)
    assert call("check foo redis") == ("foo(ok)\nredis(failed)\n", "", 1)
    assert call("reload foo") == ("foo(ok)\n", "", 0)
    assert call("restart foo") == ("foo(ok)\nfoo(ok)\n", "", 0)
    assert call("stop foo") == ("foo(ok)\n", "", 0)
    assert call("stop foo") == ("", "", 0)
    assert call("reload foo") == ("foo(failed)\n", "", 1)
    assert call("restart foo") == ("foo(ok)\n", "", 0), "one line if it was stopped"


def test_start_of_a_disabled_base_daemon(call: Call, root: Path) -> None:
    err = f"{root}/etc/rc.d/httpd: need -f to force start since httpd_flags=NO\n"
    assert call("start httpd") == ("", err, 1)
    assert call("-f start httpd") == ("httpd(ok)\n", "", 0)
    assert call("check httpd") == ("httpd(ok)\n", "", 0)
    assert call("ls rogue") == ("httpd\n", "", 1)


def test_what_a_script_does_not_support(call: Call, root: Path) -> None:
    assert call("reload redis") == ("", f"{root}/etc/rc.d/redis: reload is not supported\n", 1)
    assert call("configtest redis") == ("", f"{root}/etc/rc.d/redis: configtest is not supported\n", 1)
    for name in ("dhcpd", "ntpd", "smtpd", "snmpd"):
        assert call(f"reload {name}") == ("", f"{root}/etc/rc.d/{name}: reload is not supported\n", 1)


# 1.4: "restart SVC whose configtest fails: just (failed) without a name; tool's own messages; service keeps running".
def test_restart_with_a_failing_configtest(call: Call, root: Path) -> None:
    assert call("start foo")[2] == 0
    before = processes(f"{root}/usr/local/sbin/foo")
    (root / "etc/foo.bad").touch()
    assert call("restart foo") == ("(failed)\n", "foo.bad:1: syntax error\n", 1)
    assert processes(f"{root}/usr/local/sbin/foo") == before
    assert call("configtest foo")[::2] == ("foo(failed)\n", 1)
    assert call("reload foo") == ("foo(failed)\n", "", 1)
    assert call("stop foo") == ("foo(ok)\n", "", 0)
    assert call("start foo") == ("foo(failed)\n", "", 1)


# 1.4: "-d: debug lines `doing rc_check` …"; 1.1: -q since 7.8.
def test_debug_and_quiet(call: Call) -> None:
    out, _, code = call("-d check foo")
    assert (code, "doing rc_check\n" in out, out.endswith("(failed)\n")) == (1, True, True)
    assert call("-q start foo") == ("", "", 0)
    assert call("-q check foo") == ("", "", 0)
    assert call("-q stop foo") == ("", "", 0)
    assert call("-q check foo") == ("", "", 1)


# 1.5: failed = enabled but not running, exit 1 if the list is not empty.
def test_lists_of_running_services(call: Call, root: Path) -> None:
    for name in rcconf.scripts():
        if name not in ("foo", "redis", "httpd", "samba", "rc.subr"):
            (root / "etc/rc.d" / name).unlink()
    assert rcctl.main(["enable", "foo"]) == 0
    assert call("ls failed") == ("foo\n", "", 1)
    assert call("start foo redis")[0] == "foo(ok)\nredis(ok)\n"
    assert call("ls failed") == ("", "", 0)
    assert call("ls rogue") == ("redis\n", "", 1)
    assert call("ls started")[::2] == ("foo\nredis\n", 0)
    assert call("ls stopped")[0].split() == ["httpd", "samba"]


# 1.4: "the values in force are stored in /var/run/rc.d/SVC", so other flags do not lose the daemon.
def test_flags_changed_while_it_runs(call: Call, root: Path) -> None:
    assert rcctl.main(["enable", "foo"]) == 0
    assert call("start foo")[2] == 0
    runfile = (root / "var/run/rc.d/foo").read_text()
    keys = [line.partition("=")[0] for line in runfile.splitlines()]
    assert keys == [
        *(f"daemon_{word}" for word in ("class", "execdir", "flags", "logger", "rtable", "timeout", "user")),
        *("pexp", "rc_reload", "rc_reload_signal", "rc_stop_signal", "rc_usercheck"),
    ]
    assert f"pexp={root}/usr/local/sbin/foo -a -b\n" in runfile
    assert rcctl.main(["set", "foo", "flags", "-c"]) == 0
    assert call("check foo") == ("foo(ok)\n", "", 0)
    assert call("restart foo") == ("foo(ok)\nfoo(ok)\n", "", 0)
    assert len(processes(f"{root}/usr/local/sbin/foo -c")) == 1
    assert not processes(f"{root}/usr/local/sbin/foo -a")
    assert call("get foo flags") == ("-c\n", "", 0)


def test_start_while_it_runs_with_other_flags_is_not_modelled(call: Call, root: Path) -> None:
    assert rcctl.main(["enable", "foo"]) == 0
    assert call("start foo")[2] == 0
    assert rcctl.main(["set", "foo", "flags", "-c"]) == 0
    out, err, code = call("start foo")
    assert (out, code) == ("", 99)
    assert "not modelled" in err
    assert (root / "var/standin/unmodelled").read_text() == err


# 1.6: inner quotes and $ are stored raw and evaluated once by the shell at start.
def test_flags_with_blanks_and_dollars(call: Call, root: Path) -> None:
    assert rcctl.main(["enable", "foo"]) == 0
    flags = '-o x="a b" -p $LOGNAME'
    assert rcctl.main(["set", "foo", "flags", flags]) == 0
    assert call("get foo flags") == (flags + "\n", "", 0)
    (root / "usr/local/sbin/foo").write_text(
        (root / "usr/local/sbin/foo")
        .read_text()
        .replace("main(sys", f"open({str(root / 'argv')!r}, 'w').write(repr(sys.argv[1:])) and main(sys")
    )
    os.environ["LOGNAME"] = "root"
    assert call("start foo") == ("foo(ok)\n", "", 0)
    assert (root / "argv").read_text() == "['-o', 'x=a b', '-p', 'root']"
    assert call("check foo") == ("foo(ok)\n", "", 0)
    assert call("stop foo") == ("foo(ok)\n", "", 0)


# 1.4: after a SIGKILL `SVC(killed)`, exit 0; a daemon that stays in the foreground is `SVC(timeout)`, exit 1.
def test_killed_and_timeout(call: Call, root: Path) -> None:
    stubborn = root / "usr/local/sbin/foo"
    stubborn.write_text(
        stubborn.read_text().replace("from standin", "import signal; signal.signal(15, signal.SIG_IGN); from standin")
    )
    for words in (["enable", "foo"], ["set", "foo", "timeout", "3"]):
        assert rcctl.main(words) == 0
    assert call("start foo") == ("foo(ok)\n", "", 0)
    assert call("stop foo") == ("foo(killed)\n", "", 0)
    script(
        root,
        "bar",
        '#!/bin/ksh\n\ndaemon="/usr/local/sbin/bar"\ndaemon_timeout=1\n\n. /etc/rc.d/rc.subr\n\nrc_cmd $1\n',
    )
    (root / "usr/local/sbin/bar").symlink_to(program("sleep"))
    assert rcctl.main(["enable", "bar"]) == 0
    assert rcctl.main(["set", "bar", "flags", "60"]) == 0
    assert call("start bar") == ("bar(timeout)\n", "", 1)
    assert call("check bar") == ("bar(ok)\n", "", 0)
    assert call("stop bar")[2] == 0


def test_a_daemon_that_puts_itself_not_into_the_background(call: Call, root: Path) -> None:
    head = '#!/bin/ksh\n\ndaemon="/usr/local/sbin/bar"\ndaemon_flags="{n}"\n\n'
    text = f"{head}. /etc/rc.d/rc.subr\n\nrc_bg=YES\n\nrc_cmd $1\n"
    script(root, "bar", text.replace("{n}", "60"))
    (root / "usr/local/sbin/bar").symlink_to(program("sleep"))
    assert call("start bar") == ("bar(ok)\n", "", 0)
    assert call("stop bar") == ("bar(ok)\n", "", 0)
    script(root, "bar", text.replace("{n}", "bad"))
    assert call("start bar") == ("bar(failed)\n", "", 1)


def test_a_daemon_that_died_is_not_running(call: Call, root: Path) -> None:
    assert call("start foo")[2] == 0
    for pid in processes(f"{root}/usr/local/sbin/foo"):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    assert call("check foo") == ("foo(failed)\n", "", 1)
    assert call("start foo") == ("foo(ok)\n", "", 0)


def test_another_routing_table_is_not_modelled(call: Call) -> None:
    for words in (["enable", "foo"], ["set", "foo", "rtable", "1"]):
        assert rcctl.main(words) == 0
    assert call("start foo")[2] == 99


# 1.4: class = SVC if that login class exists, in login.conf.d or login.conf.
def test_login_class(call: Call, root: Path) -> None:
    (root / "etc/login.conf.d").mkdir()
    (root / "etc/login.conf.d/redis").write_text("redis:\\\n\t:openfiles=2048:\\\n\t:tc=daemon:\n")
    assert call("get redis class") == ("redis\n", "", 0)
    assert call("getdef redis class") == ("daemon\n", "", 0)


def test_get_all(call: Call) -> None:
    out, err, code = call("get all")
    assert (err, code) == ("", 0)
    assert "pf=YES\n" in out
    assert "redis_flags=NO\n" in out
    assert "unbound_flags=NO\n" in out
    assert "samba" not in out
