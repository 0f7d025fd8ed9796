"""pkg_add(1), pkg_info(1), pkg_delete(1) of the stand-in, row by row as contract 0.3, 2.1 to 2.6 have them."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.lab.openbsd import mirror
from tests.lab.openbsd.standin import pkg_add, pkg_check, pkg_delete, pkg_info, pkgdb, release, unmodelled
from tests.unit.openbsd.scratch import as_user, executable, mode, scratch

ADDING = """#!/bin/sh
echo "${0##*/} $*" >>{root}/calls
for name; do :; done
case $0 in
*useradd) echo "$name:x:$2:$4::/:/sbin/nologin" >>{root}/etc/passwd ;;
*groupadd) echo "$name:x:$2:" >>{root}/etc/group ;;
esac
"""
SNAPSHOTS = "snapshots/packages/amd64/"
RELEASE_KERNEL = "OpenBSD 7.9 (GENERIC.MP) #1: Mon Oct 12 09:00:00 MDT 2026\n    built\n"


class Host:
    def __init__(self, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.capfd = capfd

    def _run(self, command: object, words: tuple[str, ...]) -> tuple[str, str, int]:
        code = command(list(words))  # type: ignore[operator]
        captured = self.capfd.readouterr()
        out = "".join(line for line in captured.out.splitlines(keepends=True) if " signed on " not in line)
        return out, captured.err, code

    def add(self, *words: str) -> tuple[str, str, int]:
        return self._run(pkg_add.main, words)

    def info(self, *words: str) -> tuple[str, str, int]:
        return self._run(pkg_info.main, words)

    def delete(self, *words: str) -> tuple[str, str, int]:
        return self._run(pkg_delete.main, words)

    @property
    def names(self) -> list[str]:
        return [name for name in pkgdb.installed() if not name.startswith("quirks-")]

    def mirror(self, **newer: str) -> None:
        mirror.write(self.root / mirror.TREE.lstrip("/"), {name.replace("_", "-"): v for name, v in newer.items()})

    def kernel(self, text: str) -> None:
        path = self.root / release.OVERRIDE.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def installurl(self, text: str) -> None:
        (self.root / "etc/installurl").write_text(text)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Host]:
    for variable in ("PKG_PATH", "TRUSTED_PKG_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(sys, "stdin", None)
    with scratch(tmp_path, monkeypatch) as root:
        for name in ("useradd", "groupadd", "userdel", "groupdel"):
            executable(root / "usr/sbin" / name, ADDING.replace("{root}", str(root)))
        (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/ksh\nwww:x:67:67::/var/www:/sbin/nologin\n")
        (root / "etc/group").write_text("wheel:x:0:root\nbin:x:7:\nauth:x:11:\nwww:x:67:\n")
        found = Host(root, capfd)
        found.mirror()
        found.installurl(f"{mirror.TREE}\n")
        yield found


# 2.1: "version part begins with a digit; flavours are the -words after the version".
@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("rsync-3.4.1p0-iconv", ("rsync", "3.4.1p0", ("iconv",))),
        ("redis-6.2.20", ("redis", "6.2.20", ())),
        ("vim-9.1.1706-no_x11-perl-python3-ruby", ("vim", "9.1.1706", ("no_x11", "perl", "python3", "ruby"))),
        ("postgresql-server-18.0", ("postgresql-server", "18.0", ())),
        ("php-gd-8.3.14", ("php-gd", "8.3.14", ())),
        ("rsync", ("rsync", "", ())),
    ],
)
def test_parts_of_a_name(name: str, parts: tuple[str, str, tuple[str, ...]]) -> None:
    assert pkgdb.split(name) == parts


# 2.1: stem--, stem--flavour, stem%branch, both; 2.3 `-mz`.
@pytest.mark.parametrize(
    ("argument", "fuzzy"),
    [
        ("rsync--", ["rsync--"]),
        ("rsync--iconv", ["rsync--iconv"]),
        ("rsync", ["rsync--", "rsync--iconv"]),
        ("redis%bsd", ["redis--%bsd"]),
        ("redis--%bsd", ["redis--%bsd"]),
        ("redis", ["redis--%bsd", "redis--%main"]),
        ("php%8.4", ["php--%8.4"]),
        ("vim--no_x11", ["vim--no_x11"]),
        ("vim--", []),
        ("vim--python3-perl-ruby-no_x11", ["vim--no_x11-perl-python3-ruby"]),
        ("borgbackup%1.4", ["borgbackup--%1.4"]),
        ("rsync-3.4.1p0", ["rsync--"]),
        ("jq", ["jq--"]),
    ],
)
def test_what_an_argument_means(host: Host, argument: str, fuzzy: list[str]) -> None:
    found = pkgdb.Mirror(pkgdb.addresses(snapshots=False)).find(pkgdb.wanted(argument))
    assert sorted(package.fuzzy for package in found) == sorted(fuzzy)
    assert host


def test_every_description_is_installed_and_removed(host: Host) -> None:
    for package in mirror.packages():
        name = package.name
        if name.startswith("quirks"):
            continue
        options = ("-D", "unsigned") if package.unsigned else ()
        assert host.add("-I", *options, name)[1:] == ("", 0), name
        assert name in host.names
        for path in [*package.files, *package.samples]:
            assert os.path.lexists(host.root / path.lstrip("/")), path
        assert host.delete("-I", name)[1:] == ("", 0), name
        assert host.delete("-Ia")[2] == 0
    assert host.names == []


# 2.2: "pkg_add -I stem: success or already there: nothing, exit 0".
def test_success_and_already_there(host: Host) -> None:
    assert host.add("-I", "jq") == ("", "", 0)
    assert host.add("-I", "jq") == ("", "", 0)
    assert host.names == ["jq-1.8.1"]


# 2.2: "same with -m: carriage-return meter, then NAME: ok per installed package; nothing if already installed".
def test_meter(host: Host) -> None:
    assert host.add("-Im", "jq") == ("\rjq-1.8.1: ok\n", "", 0)
    assert host.add("-Im", "jq") == ("", "", 0)


# 0.3 item 1: "pkg_add returns 0 for "Can't find" and for "Ambiguous" and for a dead mirror".
def test_not_in_the_repository(host: Host) -> None:
    assert host.add("-I", "nosuch") == ("", "Can't find nosuch\n", 0)
    assert host.add("-I", "nosuch", "jq") == ("", "Can't find nosuch\n", 0)
    assert host.names == ["jq-1.8.1"]


def test_ambiguous(host: Host) -> None:
    assert host.add("-I", "redis--%bsd")[2] == 0
    out, err, code = host.add("-I", "redis")
    assert (out, code) == ("", 0)
    assert err.startswith("Ambiguous: redis could be ")
    assert sorted(err.split()[4:]) == ["redis-6.2.20", "redis-8.2.3"]
    assert host.names == ["redis-6.2.20"], "installed one untouched"


# 2.2: "exact name-version absent: Can't find X + Couldn't install X on stdout, exit 1".
def test_exact_name(host: Host) -> None:
    assert host.add("-I", "rsync-9.9") == ("Can't find rsync-9.9\nCouldn't install rsync-9.9\n", "", 1)
    assert host.add("-I", "rsync-3.4.1p0")[1:] == ("", 0)
    assert "rsync-3.4.1p0" in host.names


def test_conflict_and_replacement(host: Host) -> None:
    assert host.add("-I", "vim--no_x11") == ("", "", 0)
    gtk, terminal = "vim-9.1.1706-gtk3", "vim-9.1.1706-no_x11"
    assert host.add("-I", "vim--gtk3") == (
        f"--- {gtk} -------------------\nCan't install {gtk}: conflicts\nCouldn't install {gtk}\n",
        f"Can't install {gtk} because of conflicts ({terminal})\n",
        1,
    )
    assert host.names == [terminal]
    assert host.add("-Ir", "vim--gtk3") == ("", "", 0)
    assert host.names == [gtk]


def test_branches_that_may_be_there_together(host: Host) -> None:
    assert host.add("-I", "php%8.3", "php%8.4")[1:] == ("", 0)
    assert host.add("-I", "php-gd%8.3") == ("", "", 0)
    assert host.info("-mz")[0].split() == ["php--%8.3", "php--%8.4", "php-gd--%8.3", "quirks--"]


def test_unsigned(host: Host) -> None:
    out, err, code = host.add("-I", "unsigned")
    assert (out, code) == ("Couldn't install unsigned-1.0\n", 1)
    assert err == f"{mirror.TREE}/{SNAPSHOTS}unsigned-1.0.tgz: signify: unsigned or bad input\n"
    assert host.names == []
    assert host.add("-I", "-Dunsigned", "unsigned") == ("", "", 0)


# 2.2: "dead mirror / DNS / 404: URL: ftp … line, URL: empty, Can't find X, also for installed packages, exit 0".
@pytest.mark.parametrize("base", ["/nowhere", "http://127.0.0.1:9/pub/OpenBSD"])
def test_dead_mirror(host: Host, base: str) -> None:
    assert host.add("-I", "jq")[2] == 0
    host.installurl(f"{base}\n")
    out, err, code = host.add("-I", "jq")
    lines = err.splitlines()
    assert (out, code, len(lines)) == ("", 0, 3)
    assert lines[0].startswith(f"{base}/{SNAPSHOTS}: ftp: ")
    assert lines[1:] == [f"{base}/{SNAPSHOTS}: empty", "Can't find jq"]
    assert host.info("-Q", "jq")[2] == 0
    out, err, code = host.add("-Iu")
    assert (out, code) == ("Couldn't find any update\n", 1)
    assert f"{base}/{SNAPSHOTS}: empty\n" in err


def test_mirror_over_http(host: Host) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(host.root / mirror.TREE.lstrip("/")))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        host.installurl(f"http://127.0.0.1:{server.server_port}\n")
        assert host.add("-I", "jq") == ("", "", 0)
        host.installurl(f"http://127.0.0.1:{server.server_port}/gone\n")
        assert "404" in host.add("-I", "xxhash")[1]
    finally:
        server.shutdown()
        server.server_close()
    assert host.names == ["jq-1.8.1"]


def test_update_of_nothing_known(host: Host) -> None:
    assert host.add("-Iu", "nosuch") == ("Problem finding nosuch\n", "Can't find nosuch\n", 0)


# 2.2: "-Inu updates pending: nothing"; "-Inuv: Update candidates for every installed package (A and B may be equal!)".
def test_dry_updates(host: Host) -> None:
    assert host.add("-I", "jq", "xxhash")[2] == 0
    host.mirror(jq="1.9.0")
    assert host.add("-Inu") == ("", "", 0)
    out, err, code = host.add("-Inuv")
    lines = out.splitlines()
    assert (err, code) == ("", 0)
    assert "Update candidates: jq-1.8.1 -> jq-1.9.0" in lines
    assert "Adding jq-1.8.1->jq-1.9.0(pretending)" in lines
    assert "Update candidates: xxhash-0.8.3 -> xxhash-0.8.3" in lines
    assert sum("pretending" in line for line in lines) == 1
    assert host.names == ["jq-1.8.1", "xxhash-0.8.3"]


# 2.2: "pkg_add -I stem updates an installed older version of the same stem/flavour when the mirror has a newer one."
def test_adding_updates(host: Host) -> None:
    assert host.add("-I", "jq", "rsync--")[1:] == ("", 0)
    host.mirror(jq="1.9.0", rsync="3.5.0", redis="9.9")
    assert host.add("-I", "jq") == ("", "", 0)
    assert host.names == ["jq-1.9.0", "rsync-3.4.1p0", "xxhash-0.8.3"]
    assert host.add("-Iu", "rsync") == ("", "", 0)
    assert "rsync-3.5.0" in host.names
    assert host.info("-mz")[0].split() == ["jq--", "quirks--", "rsync--"]


# 2.2: an older mirror (behind the host) changes nothing.
def test_no_downgrade(host: Host) -> None:
    host.mirror(jq="1.9.0")
    assert host.add("-I", "jq")[2] == 0
    host.mirror()
    assert host.add("-I", "jq") == ("", "", 0)
    assert host.add("-Iu") == ("", "", 0)
    assert host.names == ["jq-1.9.0"]


@pytest.mark.parametrize(
    ("words", "err"),
    [
        (("-I", "-l", "/no/list"), "pkg_add: bad list /no/list: No such file or directory"),
        (("-I",), "pkg_add: Missing pkgname"),
        (("-I", "-Y", "jq"), "pkg_add: Unknown option -Y"),
    ],
)
def test_wrong_calls(host: Host, words: tuple[str, ...], err: str) -> None:
    out, found, code = host.add(*words)
    assert (out, found.splitlines()[0], code) == ("", err, 1)


def test_without_root(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(monkeypatch)
    assert host.add("-I", "jq") == ("", "pkg_add: pkg_add must be run as root\n", 1)
    assert host.add("-Inu") == ("", "", 0)
    assert host.info("-q") == ("", "", 0)
    assert host.delete("-I", "jq") == ("", "pkg_delete: pkg_delete must be run as root\n", 1)


def test_lists(host: Host) -> None:
    (host.root / "tmp").mkdir()
    (host.root / "tmp/list").write_text("jq-1.0\nredis--%bsd\n")
    out, err, code = host.add("-I", "-l", "/tmp/list")
    assert (err, code) == ("", 1)
    assert out.startswith("Can't find jq-1.0\nCouldn't install jq-1.0\n")
    assert host.add("-Iz", "-l", "/tmp/list") == ("", "", 0)
    assert host.names == ["jq-1.8.1", "redis-6.2.20"]


# 2.2: "Re-adding an automatically installed dependency marks it manual; -a/-aa does the opposite at install."
def test_automatic_and_manual(host: Host) -> None:
    assert host.add("-I", "rsync--")[2] == 0
    assert host.info("-mq")[0].split() == ["quirks-7.163", "rsync-3.4.1p0"]
    assert host.add("-I", "xxhash") == ("", "", 0)
    assert "xxhash-0.8.3" in host.info("-mq")[0].split()
    assert host.add("-Iaa", "xxhash") == ("", "", 0)
    assert "xxhash-0.8.3" not in host.info("-mq")[0].split()
    assert host.add("-Ia", "jq")[2] == 0
    assert "jq-1.8.1" not in host.info("-mq")[0].split()
    assert host.info("-tq")[0].split() == ["jq-1.8.1", "quirks-7.163", "rsync-3.4.1p0"]


# 2.2: "Notices on stdout after a first install"; 10: samples, rc scripts (0555), users.
def test_what_a_package_brings(host: Host) -> None:
    out, err, code = host.add("-I", "postgresql-server")
    assert (err, code) == ("", 0)
    assert out == (
        "The following new rcscripts were installed: /etc/rc.d/postgresql\nSee rcctl(8) for details.\n"
        "New and changed readme(s):\n\t/usr/local/share/doc/pkg-readmes/postgresql-server\n"
        "--- +postgresql-server-18.0 -------------------\n"
        "At least two different READMEs exist: one for clusters, one for upgrades.\n"
    )
    assert mode(host.root / "etc/rc.d/postgresql") == 0o555
    calls = (host.root / "calls").read_text()
    assert calls.splitlines() == [
        "groupadd -g 503 _postgresql",
        "useradd -u 503 -g _postgresql -L daemon -c PostgreSQL Manager -d /var/postgresql -s /bin/sh"
        " -p ************* _postgresql",
    ]
    assert (host.root / "etc/login.conf.d/postgresql").read_text().startswith("postgresql:\\\n")
    assert (host.root / "usr/local/share/examples/login.conf.d/postgresql").exists()
    contents = (host.root / "var/db/pkg/postgresql-server-18.0/+CONTENTS").read_text()
    assert "@option manual-installation\n" in contents
    assert host.add("-I", "postgresql-server") == ("", "", 0), "they appear once"
    assert host.names == ["postgresql-client-18.0", "postgresql-server-18.0"]


# 10: "Config changes are never overwritten by updates."
def test_samples(host: Host) -> None:
    assert host.add("-I", "redis--%bsd")[2] == 0
    conf = host.root / "etc/redis/redis.conf"
    assert mode(conf) == 0o640
    conf.write_text("ours\n")
    host.mirror(redis="9.9")
    assert host.add("-Iu", "redis%bsd") == ("", "", 0)
    assert (host.names, conf.read_text()) == (["redis-9.9"], "ours\n")


# 2.5: snapshots by kern.version, -D snap, the trailing comment, the environment.
@pytest.mark.parametrize(
    ("kernel", "snapshots", "expected"),
    [
        (None, False, [SNAPSHOTS]),
        (RELEASE_KERNEL, False, ["7.9/packages-stable/amd64/", "7.9/packages/amd64/"]),
        (RELEASE_KERNEL, True, [SNAPSHOTS]),
        (RELEASE_KERNEL.replace("7.9 ", "8.0-beta "), False, [SNAPSHOTS]),
        (RELEASE_KERNEL.replace("7.9 ", "7.9-stable "), False, ["7.9/packages-stable/amd64/", "7.9/packages/amd64/"]),
    ],
)
def test_mirror_selection(host: Host, kernel: str | None, snapshots: bool, expected: list[str]) -> None:
    if kernel:
        host.kernel(kernel)
    host.installurl("\n# a comment\nhttps://example.org/pub/OpenBSD/\nhttps://example.org/second\n")
    found = pkgdb.addresses(snapshots=snapshots)
    assert found == [f"https://example.org/pub/OpenBSD/{path}" for path in expected]


def test_mirror_of_a_trailing_comment_and_of_the_environment(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.installurl("https://example.org # ours\n")
    assert pkgdb.addresses(snapshots=False) == [f"https://example.org # ours/{SNAPSHOTS}"]
    monkeypatch.setenv("PKG_PATH", "/mine")
    assert pkgdb.addresses(snapshots=False) == ["/mine"]
    monkeypatch.setenv("TRUSTED_PKG_PATH", "/trusted")
    assert pkgdb.addresses(snapshots=False) == ["/trusted"]


# 0.3 item 12: near a release a snapshot has no suffix: the release's directory is not there yet, unless -D snap.
def test_snapshot_without_suffix(host: Host) -> None:
    host.kernel(RELEASE_KERNEL.replace("7.9", "8.0"))
    out, err, code = host.add("-I", "jq")
    assert (out, code, err.splitlines()[-1]) == ("", 0, "Can't find jq")
    assert host.add("-I", "-D", "snap", "jq") == ("", "", 0)


def test_packages_stable_comes_first(host: Host) -> None:
    host.mirror(jq="1.8.1p0")
    host.kernel(RELEASE_KERNEL)
    assert host.add("-I", "jq") == ("", "", 0)
    assert host.names == ["jq-1.8.1p0"]


# 2.3, row by row.
def test_pkg_info(host: Host) -> None:
    assert host.add("-I", "redis--%bsd", "rsync--", "vim--no_x11", "php%8.3")[1:] == ("", 0)
    names = ["php-8.3.14", "quirks-7.163", "redis-6.2.20", "rsync-3.4.1p0", "vim-9.1.1706-no_x11", "xxhash-0.8.3"]
    assert pkg_info.main(["-q"]) == 0
    assert host.capfd.readouterr().out.split() == names
    assert pkg_info.main(["-aq"]) == 0
    assert host.capfd.readouterr().out.split() == names
    assert host.info("-mz") == ("php--%8.3\nquirks--\nredis--%bsd\nrsync--\nvim--no_x11\n", "", 0)
    assert host.info("-zq")[0].split()[-1] == "xxhash--"
    assert host.info()[0].splitlines()[-1] == "xxhash-0.8.3        extremely fast non-cryptographic hash algorithm"
    assert host.info("-e", "redis-*") == ("inst:redis-6.2.20\n", "", 0)
    assert host.info("-e", "redis->=7") == ("", "", 1)
    assert host.info("-e", "redis->=6,<7") == ("inst:redis-6.2.20\n", "", 0)
    assert host.info("-qe", "redis-*") == ("", "", 0)
    assert host.info("-qe", "jq-*") == ("", "", 1)
    assert host.info("-e", "redis") == ("", "Invalid spec: redis\n", 1)
    assert host.info("-e", "databases/redis/bsd") == ("redis-6.2.20\n", "", 0)
    assert host.info("-e", "databases/redis") == ("redis-6.2.20\n", "", 0)
    assert host.info("-e", "net/haproxy") == ("", "", 1)
    assert host.info("-qI", "rsync") == ("rsync-3.4.1p0\n", "", 0)
    assert host.info("-qI", "jq") == ("jq-1.8.1\n", "", 0), "silently falls back to the mirror"
    assert host.info("-I", "nosuch") == ("", "Can't find nosuch\n", 1)
    assert host.info("-Q", "rsync") == ("rsync-3.4.1p0 (installed)\nrsync-3.4.1p0-iconv\n", "", 0)
    assert "/etc/rc.d/redis\n" in host.info("-qL", "redis")[0]
    assert host.info("-qP", "redis") == ("databases/redis/bsd\n", "", 0)
    assert host.info("-qS", "rsync") == ("rsync-3.4.1p0,1,@xxhash-0.8.3\n", "", 0)
    assert host.info("-qE", "/usr/local/bin/rsync") == ("/usr/local/bin/rsync: rsync-3.4.1p0\n", "", 0)
    out, err, code = host.info("-y")
    assert (out, err.splitlines()[0], code) == ("", "pkg_info: Unknown option -y", 1)


# 2.4.
def test_pkg_delete(host: Host) -> None:
    assert host.add("-I", "redis--%bsd", "rsync--")[2] == 0
    assert host.delete("-I", "nosuch") == ("Problem finding nosuch\n", "Can't find nosuch\n", 1)
    assert host.delete("-I", "xxhash") == ("", "can't delete xxhash-0.8.3 without deleting rsync-3.4.1p0\n", 1)
    assert host.delete("-I", "redis-*")[2] == 1, "globs are not accepted"
    (host.root / "etc/redis/redis.conf").write_text("ours\n")
    out, err, code = host.delete("-I", "redis%bsd")
    assert (err, code) == ("", 0)
    assert out.splitlines() == [
        "--- -redis-6.2.20 -------------------",
        "You should also remove /etc/redis/redis.conf (which was modified)",
        "You should also remove /etc/redis",
        "You should also run /usr/sbin/userdel _redis",
        "You should also run /usr/sbin/groupdel _redis",
    ]
    assert not (host.root / "etc/rc.d/redis").exists()
    assert host.delete("-I", "rsync--")[1:] == ("", 0)
    assert host.names == ["xxhash-0.8.3"]
    assert host.delete("-Ia") == ("", "", 0)
    assert host.names == []


def test_pkg_delete_of_everything(host: Host) -> None:
    assert host.add("-I", "redis--%bsd", "jq")[2] == 0
    (host.root / "var/redis/dump.rdb").write_text("data")
    assert host.delete("-Ic", "redis") == ("", "", 0)
    assert not (host.root / "var/redis").exists()
    assert (host.root / "calls").read_text().splitlines()[-2:] == ["userdel _redis", "groupdel _redis"]
    assert host.delete("-I", "jq") == ("", "", 0), "success is silent"


# 2.2: "database locked: message that it is already locked and waits".
def test_lock(host: Host) -> None:
    (host.root / "var/db/pkg").mkdir(parents=True)
    code = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX);"
        "print('held', flush=True); time.sleep(0.5)"
    )
    lock = host.root / "var/db/pkg/.lock"
    with subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        out, err, result = host.add("-I", "jq")
    assert (out, result) == ("", 0)
    assert "already locked" in err
    assert "awaiting release" in err
    assert host.names == ["jq-1.8.1"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (pkg_add.main, ["-In", "jq"]),
        (pkg_add.main, ["-Iv", "jq"]),
        (pkg_add.main, ["-I", "rsync-*"]),
        (pkg_add.main, ["-I", "./jq.tgz"]),
        (pkg_add.main, ["-I", "-D", "allversions", "jq"]),
        (pkg_add.main, ["-Is", "jq"]),
        (pkg_info.main, ["-d", "jq"]),
        (pkg_info.main, ["jq"]),
        (pkg_delete.main, ["-In", "jq"]),
        (pkg_check.main, ["-n"]),
    ],
)
def test_not_modelled(host: Host, command: object, words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command(words)  # type: ignore[operator]
    assert end.value.code == unmodelled.EXIT
    assert (host.root / "var/standin/unmodelled").read_text().startswith("standin: not modelled: pkg_")


def test_versions_are_ordered() -> None:
    versions = ["1.8.1", "1.8.1p0", "1.8.1p1", "1.8.10", "1.9.0", "1.2v1"]
    assert sorted(versions, key=pkgdb.order) == versions


def test_a_description_survives_json() -> None:
    for package in mirror.packages():
        assert pkgdb.decode(json.loads(json.dumps(pkgdb.encode(package)))) == package


def test_a_newer_version_of_what_is_not_described_is_refused() -> None:
    with pytest.raises(KeyError, match="nosuch"):
        mirror.packages(newer={"nosuch": "1"})
