"""The small tools of the stand-in that are its own: contract 9, 5.6 and 6."""

import gzip
import hashlib
import http.server
import importlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.lab.openbsd.standin import b64, date, digest, encrypt, ftp, install, newsyslog, stat, title, wc

Output = pytest.CaptureFixture[str]
Main = Callable[[Sequence[str]], int]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STANDIN_ROOT", str(tmp_path))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/master.passwd").write_text("root:*:0:0::0:0::/root:/bin/ksh\n")
    (tmp_path / "etc/group").write_text("wheel:*:0:root\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    return tmp_path


def call(main: Main, *argv: str) -> int:
    try:
        return main(argv)
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("%Sp", "-rw-r-----"),
        ("%OLp", "640"),
        ("%Lp", "640"),
        ("%Mp%Lp", "0640"),
        ("%p", "100640"),
        ("%#p", "0100640"),
        ("%03OLp", "640"),
        ("%z %m %N", "3 1767323045 /f"),
        ("%Sm", "Jan  2 03:04:05 2026"),
        ("%HT%T", "Regular File"),
        ("%8z|%-8z|", "       3|3       |"),
        ("%l%n%t%%%@", "1\n\t%1"),
        ("%SHp %SMp %SLp", "rw- r-- ---"),
        ("%Y%SY", ""),
    ],
)
def test_stat_formats(form: str, shown: str, place: Path, capsys: Output) -> None:
    file = place / "f"
    file.write_text("abc")
    file.chmod(0o640)
    os.utime(file, (1767323045, 1767323045))
    assert call(stat.main, "-f", form, "/f") == 0
    assert capsys.readouterr().out == f"{shown}\n"


def test_stat_of_owners_links_and_missing_files(place: Path, capsys: Output) -> None:
    (place / "f").touch()
    (place / "l").symlink_to("f")
    assert call(stat.main, "-f", "%u:%g", "f") == 0
    assert call(stat.main, "-f", "%HT%SY %Y", "l") == 0
    assert call(stat.main, "-L", "-f", "%HT", "l") == 0
    own = (place / "f").stat()
    assert capsys.readouterr().out == f"{own.st_uid}:{own.st_gid}\nSymbolic Link -> f f\nRegular File\n"
    assert call(stat.main, "-f", "%N", "missing", "f") == 1
    assert call(stat.main, "-q", "missing") == 1
    assert capsys.readouterr() == ("f\n", "stat: missing: No such file or directory\n")


def test_stat_has_no_option_c(capsys: Output) -> None:
    assert call(stat.main, "-c", "%a", "f") == 1
    assert capsys.readouterr().err.startswith("stat: unknown option -- c\nusage: stat [-FLnq]")


def test_stat_says_what_it_cannot(place: Path, capsys: Output) -> None:
    (place / "f").touch()
    assert call(stat.main, "-f", "%Q", "f") == 1
    assert call(stat.main, "-f", "%Sz", "f") == 1
    assert call(stat.main, "-f", "%B", "f") == 99
    assert capsys.readouterr().err.splitlines()[:2] == ["stat: %Q: bad format", "stat: %Sz: bad format"]


def test_digests(place: Path, capsys: Output) -> None:
    (place / "f").write_text("abc")
    wanted = hashlib.sha256(b"abc").hexdigest()
    assert digest.run("sha256", ["f"]) == 0
    assert digest.run("sha256", ["-q", "/f"]) == 0
    assert digest.run("sha256", ["-r", "f"]) == 0
    assert digest.run("sha256", ["-b", "f"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"SHA256 (f) = {wanted}",
        wanted,
        f"{wanted} f",
        "SHA256 (f) = ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
    ]
    assert digest.run("sha256", ["-h", "sum", "f"]) == 0
    assert digest.run("sha256", ["-c", "sum"]) == 0
    assert capsys.readouterr().out == "(SHA256) f: OK\n"
    assert digest.run("md5", ["-s", "abc"]) == 0
    assert capsys.readouterr().out == 'MD5 ("abc") = 900150983cd24fb0d6963f7d28e17f72\n'


def test_digests_that_are_wrong(place: Path, capsys: Output) -> None:
    """9: check lines `(SHA256) file: OK|FAILED|MISSING`."""
    (place / "f").write_text("abd")
    wanted = hashlib.sha256(b"abc").hexdigest()
    (place / "sum").write_text(f"SHA256 (f) = {wanted}\nSHA256 (g) = {wanted}\n")
    assert digest.run("sha256", ["-c", "sum"]) == 1
    assert capsys.readouterr().out == "(SHA256) f: FAILED\n(SHA256) g: MISSING\n"
    (place / "sum").write_text("nothing\n")
    assert digest.run("sha256", ["-c", "sum"]) == 1
    assert digest.run("sha256", ["-q", "missing"]) == 1


def test_date(capsys: Output) -> None:
    assert call(date.main, "-u", "-r", "0", "+%Y-%m-%dT%H:%M:%S") == 0
    assert call(date.main, "-z", "CET-1", "-r", "0", "+%H") == 0
    assert call(date.main, "-r", "0") == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["1970-01-01T00:00:00", "01"]
    assert call(date.main, "-d", "yesterday") == 1
    assert capsys.readouterr().err.startswith("date: unknown option -- d\n")
    assert call(date.main, "+%N") == 99
    assert call(date.main, "202601020304") == 99


def test_wc_pads_its_columns(place: Path, capsys: Output) -> None:
    (place / "f").write_text("a b\nc\n")
    assert call(wc.main, "-l", "f") == 0
    assert call(wc.main, "f", "f") == 0
    assert capsys.readouterr().out.splitlines() == [
        "       2 f",
        "       2       3       6 f",
        "       2       3       6 f",
        "       4       6      12 total",
    ]


def test_install(place: Path, capsys: Output) -> None:
    me = f"{os.getuid()}"
    (place / "f").write_text("new\n")
    assert call(install.main, "-d", "-m", "700", "-o", me, "/a/b") == 0
    assert (place / "a/b").stat().st_mode & 0o777 == 0o700
    assert call(install.main, "-m", "640", "f", "/a/b") == 0
    target = place / "a/b/f"
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("new\n", 0o640)
    before = target.stat().st_mtime_ns, target.stat().st_ino
    assert call(install.main, "-C", "-m", "600", "f", "/a/b/f") == 0
    assert (target.stat().st_mtime_ns, target.stat().st_ino) == before
    assert target.stat().st_mode & 0o777 == 0o600
    (place / "f").write_text("newer\n")
    assert call(install.main, "-b", "-B", ".bak", "f", "/a/b/f") == 0
    assert ((place / "a/b/f.bak").read_text(), target.read_text()) == ("new\n", "newer\n")
    assert target.stat().st_mode & 0o777 == 0o755
    assert call(install.main, "-D", "f", "/x/y/z") == 0
    assert (place / "x/y/z").exists()
    assert call(install.main, "missing", "/a/b/f") == 1
    assert call(install.main, "-o", "nobodyx", "f", "g") == 1
    assert call(install.main, "-s", "f", "g") == 99
    assert "install: missing: No such file or directory\ninstall: unknown user nobodyx\n" in capsys.readouterr().err


def test_b64_round_trip(place: Path, capsys: Output) -> None:
    data = bytes(range(256))
    (place / "f").write_bytes(data)
    (place / "f").chmod(0o600)
    assert b64.encode(["f", "name"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("begin-base64 600 name\nAAECAwQF")
    assert text.endswith("====\n")
    (place / "e").write_text(text)
    assert b64.decode(["-o", "g", "e"]) == 0
    assert (place / "g").read_bytes() == data
    (place / "e").write_text("YWJj\n")
    assert b64.decode(["-r", "-p", "e"]) == 0
    assert capsys.readouterr().out == "abc"


def test_encrypt_makes_a_bcrypt_hash(capsys: Output) -> None:
    assert call(encrypt.main, "-b", "4", "secret") == 0
    hashed = capsys.readouterr().out.strip()
    assert hashed.startswith("$2b$04$")
    assert len(hashed) == 60
    assert call(encrypt.main, "-b", "99", "secret") == 1
    assert call(encrypt.main, "-p") == 99


class _Files(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"hello\n"
        self.send_response(200 if self.path == "/f" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Files) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def test_ftp_fetches(server: str, place: Path, capsys: Output) -> None:
    assert call(ftp.main, "-V", "-o", "/out", f"{server}/f") == 0
    assert (place / "out").read_text() == "hello\n"
    assert call(ftp.main, "-V", f"{server}/f") == 0
    assert (place / "f").read_text() == "hello\n"
    assert call(ftp.main, "-MV", "-o", "out", f"{server}/missing") == 1
    assert (place / "out").read_text() == "hello\n"
    assert call(ftp.main, "-V", "-o", "x", "http://127.0.0.1:9/f") == 1
    assert "Connection refused" in capsys.readouterr().err
    assert call(ftp.main, "-V", "-o", "y", "file:/out") == 0
    assert (place / "y").read_text() == "hello\n"
    assert not (place / "x").exists()
    assert call(ftp.main, "-V", "-o", "y", "file:/missing") == 1
    assert call(ftp.main, "-o", "y", "ftp://127.0.0.1/f") == 99
    assert list(place.glob("*.part")) == []


CONF = """# comment
/var/log/small		root:wheel	640  3     10   *     Z
/var/log/big		600  2     1    *
/var/log/old			644  7     *    24 Z
/var/log/wtmp			644  7     *    $W6D4 B
"""


@pytest.fixture
def logs(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(newsyslog, "SETTLE", 0.0)
    directory = place / "var/log"
    directory.mkdir(parents=True)
    (place / "etc/newsyslog.conf").write_text(CONF)
    for name, size in (("small", 300), ("big", 2000), ("old", 300), ("wtmp", 1)):
        (directory / name).write_text("x" * size)
    return directory


def test_newsyslog_shows_its_plan(logs: Path, capsys: Output) -> None:
    """5.6: `newsyslog -nv` shows the plan."""
    assert call(newsyslog.main, "-nv") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "/var/log/small <3Z>: size (KB): 0.29 [10] --> skipping"
    assert lines[1] == "/var/log/big <2>: size (KB): 1.95 [1] --> trimming log...."
    assert lines[2] == "/var/log/old <7Z>: age (hr): -1 [24] --> trimming log...."
    assert lines[3].startswith("/var/log/wtmp <7B>: --> ")
    assert not (logs / "big.0").exists()


def test_newsyslog_rotates_and_signals(logs: Path, place: Path) -> None:
    # What nohup(1) started hands its deafness on.
    hears = "import signal, time; signal.signal(signal.SIGHUP, signal.SIG_DFL); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hears], stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None and daemon.stdout.readline() == b"\n"
        (place / "var/run").mkdir(parents=True)
        (place / "var/run/syslog.pid").write_text(f"{daemon.pid}\n")
        os.chown(logs / "old", -1, os.getgid())
        assert call(newsyslog.main) == 0
        assert daemon.wait(10) == -1
    assert (logs / "big.0").read_text().startswith("x" * 2000)
    assert "newsyslog[" in (logs / "big").read_text()
    assert (logs / "big").read_text().endswith(": logfile turned over\n")
    assert (logs / "big").stat().st_mode & 0o777 == 0o600
    assert gzip.decompress((logs / "old.0.gz").read_bytes()).startswith(b"x" * 300)
    assert not (logs / "old.0").exists()


def test_newsyslog_keeps_count_old_ones(logs: Path, place: Path) -> None:
    (place / "etc/newsyslog.conf").write_text('/var/log/big 600 2 1 * "true"\n')
    for turn in range(4):
        (logs / "big").write_text(f"{turn}" * 2000)
        assert call(newsyslog.main) == 0
    assert [(logs / f"big.{n}").read_text()[0] for n in (0, 1)] == ["3", "2"]
    assert not (logs / "big.2").exists()


def test_newsyslog_with_another_count(logs: Path, place: Path) -> None:
    """rotate(): what is too many goes, up to the first number that is not there; what stays gets the mode."""
    (place / "etc/newsyslog.conf").write_text(f'/var/log/old 640 3 * {time.strftime("@T%H")} Z "true"\n')
    for name in ("old.0.gz", "old.1", "old.1.gz", "old.2.gz", "old.3", "old.5.gz"):
        (logs / name).write_text(name)
        (logs / name).chmod(0o600)
    assert call(newsyslog.main) == 0
    found = {path.name: path.stat().st_mode & 0o777 for path in logs.glob("old*")}
    assert found == {
        "old": 0o640,
        "old.0.gz": 0o640,
        "old.1.gz": 0o640,
        "old.2.gz": 0o640,
        "old.1": 0o600,
        "old.5.gz": 0o600,
    }
    assert (logs / "old.2.gz").read_text() == "old.1.gz"


def test_newsyslog_skips_what_is_not_there(logs: Path, place: Path, capsys: Output) -> None:
    (place / "etc/newsyslog.conf").write_text("/var/log/none 640 3 1 * Z\n")
    assert call(newsyslog.main, "-F") == 0
    assert capsys.readouterr() == ("", "")
    assert list(logs.glob("none*")) == []


def test_newsyslog_small_files_and_force(logs: Path, place: Path, capsys: Output) -> None:
    (place / "etc/newsyslog.conf").write_text('/var/log/wtmp 644 7 * 24 "true"\n')
    assert call(newsyslog.main) == 0
    assert not (logs / "wtmp.0").exists()
    assert call(newsyslog.main, "-F") == 0
    assert (logs / "wtmp.0").exists()
    assert call(newsyslog.main, "/var/log/other") == 1
    assert capsys.readouterr().err.endswith("newsyslog: /etc/newsyslog.conf: no specified log files\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/l root:wheel 999 1 * *", "bad permissions: 999"),
        ("/l 644 x * *", "bad number: x"),
        ("/l 644 1 x *", "invalid size x"),
        ("/l 644 1 * x", "bad interval/at: x"),
        ("/l 644 1 * $D24", "bad time: D24"),
        ("/l 644 1 * * Q", "unrecognized field: Q"),
    ],
)
def test_newsyslog_skips_what_it_does_not_take(line: str, message: str, capsys: Output) -> None:
    assert newsyslog.parse(f"\n{line}\n", "c", time.gmtime(0)) == ([], 1)
    assert capsys.readouterr().err == f"newsyslog: c:2: {message} --> skipping\n"


@pytest.mark.parametrize(
    ("when", "moment"),
    [
        ("$D0", "2026-11-23 00"),
        ("$W0D23", "2026-11-29 23"),
        ("$W1", "2026-11-23 00"),
        ("$M1D5", "2026-11-01 05"),
        ("$MLD5", "2026-11-30 05"),
        ("@T07", "2026-11-23 07"),
    ],
)
def test_newsyslog_moments(when: str, moment: str) -> None:
    now = time.strptime("2026-11-23 12:00", "%Y-%m-%d %H:%M")
    log = newsyslog.parse_line(f"/l 644 1 * {when}", now)
    assert log.at == time.mktime(time.strptime(moment, "%Y-%m-%d %H"))


def test_globs_of_newsyslog(logs: Path) -> None:
    found, code = newsyslog.parse("/var/log/*d* 644 1 * 24\n", "c", time.gmtime())
    assert ([log.path for log in found], code) == (["/var/log/old"], 0)
    assert logs.is_dir()


def test_every_command_has_its_module() -> None:
    directory = Path(title.__file__).parent
    lines = (directory / "commands.d/tools.txt").read_text().splitlines()
    assert len(lines) == len({line.split()[0] for line in lines})
    for line in lines:
        path, module = line.split()
        found = importlib.import_module(f"tests.lab.openbsd.{module}")
        assert path.startswith("/")
        assert callable(found.main)
        assert all(isinstance(text, str) and text for text in found.NOT_MODELLED)


@pytest.mark.parametrize("name", ["daily", "weekly", "monthly", "netstart"])
def test_the_scripts_of_etc(name: str, place: Path) -> None:
    """5.11: NAME.local with next_part, `rcctl ls failed` in daily; what they print is mailed."""
    source = Path(title.__file__).parents[1] / "etc" / name
    done = subprocess.run(["shellcheck", "-s", "sh", "-S", "warning", source], timeout=60, check=False)
    assert done.returncode == 0
    if name == "netstart":
        return
    (place / "bin").mkdir()
    for tool, body in (("rcctl", "echo sshd"), ("mail", f"cat >{place}/mail"), ("hostname", "echo host")):
        (place / "bin" / tool).write_text(f"#!/bin/sh\n{body}\n")
        (place / "bin" / tool).chmod(0o755)
    (place / "var/log").mkdir(parents=True)
    (place / f"etc/{name}.local").write_text('next_part "mine:"\necho done\n')
    for script in {"daily", name}:
        text = (source.parent / script).read_text().replace("/etc/", f"{place}/etc/").replace("/var/", f"{place}/var/")
        (place / f"etc/{script}").write_text(text)
    environment = {"PATH": f"{place}/bin:/usr/bin:/bin"}
    subprocess.run([shutil.which("mksh") or "sh", place / f"etc/{name}"], env=environment, timeout=20, check=True)
    mail = (place / "mail").read_text()
    assert "\nmine:\ndone\n" in mail
    assert ("\nsshd\n" in mail) is (name == "daily")


def test_a_title_is_what_ps_shows() -> None:
    code = f"import sys; sys.path.insert(0, {str(Path.cwd())!r}); "
    source = Path(title.__file__).read_text()
    script = f"{code}exec({source!r}); set_title('/usr/sbin/cron'); print(open('/proc/self/cmdline').read())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.rstrip("\n").rstrip("\0") == "/usr/sbin/cron"


def test_date_sets_a_clock_of_its_own(place: Path, capsys: Output) -> None:
    (place / "var/standin/boot").mkdir(parents=True)
    assert call(date.main, "-u", "203001020304.05") == 0
    assert call(date.main, "-u", "+%Y%m%d%H%M") == 0
    assert capsys.readouterr().out.splitlines()[1] == "203001020304"
    assert call(date.main, "203013020304.05") == 99
