"""What `fleet logs` asks the log server, and what of the answer reaches the terminal."""

from __future__ import annotations

import gzip
import os
import shlex
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from facts.logs import UNKNOWN, Query, following, is_header, names_in, printable, reading, stamp
from fleet.cli import logs as verb
from fleet.cli import main
from tests.shell import check_scripts

NOW = datetime.now(UTC)
NUMBERS = ("one", "two", "three", "four", "five", "six")
EARLY = NOW - timedelta(hours=3)


def line(minutes: float, text: str, host: str = "kvm1") -> str:
    """Return a line of `minutes` after EARLY, as syslogd writes it."""
    return f"{stamp(EARLY + timedelta(minutes=minutes))} {host} {text}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A log server's folder: two facilities of kvm1, one of them rotated twice, and somebody who is in no inventory."""
    kvm1 = tmp_path / "kvm1"
    kvm1.mkdir()
    (tmp_path / "db1").mkdir()
    (kvm1 / "auth").write_text(line(100, "sshd[1]: four") + line(120, "sshd[1]: six \x1b[31mred\x1b[0m"))
    (kvm1 / "auth.0.gz").write_bytes(gzip.compress((line(60, "sshd[1]: two") + "not of syslogd\n").encode()))
    (kvm1 / "auth.1.gz").write_bytes(gzip.compress(line(10, "sshd[1]: one").encode()))
    (kvm1 / "authpriv").write_text(line(90, "sudo: three"))
    (kvm1 / "daemon").write_text(line(110, "x[2]: five ☃"))
    (tmp_path / "other").write_text(line(5, "x: a stranger", "gone"))
    return tmp_path


def run(command: str) -> tuple[int, list[str], list[str]]:
    done = subprocess.run(["mksh", "-c", command], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def words(found: list[str]) -> list[str]:
    """Return which of the numbered lines are there."""
    return [word for each in found for word in each.split() if word in NUMBERS]


def asked(folder: Path, **changes: object) -> Query:
    return Query(**{"folder": str(folder), "host": "kvm1", "since": EARLY, **changes})  # type: ignore[arg-type]


def test_lines_of_all_files_come_by_their_time(folder: Path) -> None:
    code, found, errors = run(reading(asked(folder), NOW))
    assert (code, errors) == (0, [])
    assert words(found) == list(NUMBERS)
    assert found[2] == "not of syslogd"
    assert found[-1] == line(120, "sshd[1]: six \x1b[31mred\x1b[0m").rstrip("\n")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"since": EARLY + timedelta(minutes=90)}, "three four five six"),
        ({"until": EARLY + timedelta(minutes=90)}, "one two"),
        ({"since": EARLY + timedelta(minutes=60), "until": EARLY + timedelta(minutes=100)}, "two three"),
        ({"facilities": ("auth",)}, "one two four six"),
        ({"facilities": ("auth", "daemon")}, "one two four five six"),
        ({"facilities": ("lpr",)}, ""),
        ({"text": "sshd[1]"}, "one two four six"),
        ({"text": "five ☃"}, "five"),
        ({"text": '-e two\'s "$(id)"'}, ""),
    ],
)
def test_what_is_not_wanted_is_left_out(folder: Path, changes: dict[str, object], expected: str) -> None:
    _, found, errors = run(reading(asked(folder, **changes), NOW))
    assert (words(found), errors) == (expected.split(), [])


def test_files_that_are_too_old_are_not_opened(folder: Path) -> None:
    ancient = folder / "kvm1/auth.1.gz"
    ancient.write_bytes(b"\x1f\x8b no gzip at all")
    assert run(reading(asked(folder), NOW))[2]
    then = (EARLY - timedelta(hours=25)).timestamp()
    os.utime(ancient, (then, then))
    assert run(reading(asked(folder), NOW))[2] == []


def test_who_has_no_folder_has_a_file(folder: Path) -> None:
    code, found, _ = run(reading(asked(folder, host="other"), NOW))
    assert (code, found) == (0, [line(5, "x: a stranger", "gone").rstrip("\n")])


@pytest.mark.parametrize("follow", [True, False])
def test_who_is_not_there_is_said_with_those_who_are(folder: Path, follow: bool) -> None:
    query = asked(folder, host="kvm9")
    code, found, errors = run(following(query) if follow else reading(query, NOW))
    assert (code, found, names_in(errors, str(folder))) == (UNKNOWN, [], ("db1", "kvm1"))


def test_following_ends_with_its_input(folder: Path) -> None:
    process = subprocess.Popen(
        ["mksh", "-c", following(asked(folder))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    wait_until_open(folder / "kvm1/daemon")
    with (folder / "kvm1/daemon").open("a") as file:
        file.write(line(181, "x[2]: seven"))
    got = ""
    while "seven" not in got:
        got = process.stdout.readline()
    process.stdin.close()
    rest = process.stdout.read()
    assert process.wait(10) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    assert "one" not in rest


def wait_until_open(path: Path) -> None:
    """Wait until some process has `path` open, as tail(1) does."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            try:
                if link.readlink() == path:
                    return
            except OSError:
                continue
        time.sleep(0.05)
    raise AssertionError(f"nobody opened {path}")


def test_following_a_facility_that_there_is_not_ends(folder: Path) -> None:
    assert run(following(asked(folder, facilities=("lpr",)))) == (1, [], ["there is no such file"])


@pytest.mark.parametrize(
    "query",
    [
        Query("/var/log/hosts", "kvm1", EARLY),
        Query("/var/log/hosts", "kvm1", EARLY, NOW, ("auth", "local0"), "a 'quoted' text"),
        Query("/var/log/hosts", "other", NOW + timedelta(days=1)),
    ],
)
def test_openbsd_has_what_is_called(query: Query) -> None:
    check_scripts(reading(query, NOW), following(query))


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain ☃\ttext", "plain ☃\ttext"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("back\b\rward", "back\\x08\\rward"),
        ("\u202egnp", "\\u202egnp"),
    ],
)
def test_a_line_cannot_speak_to_the_terminal(raw: str, shown: str) -> None:
    assert printable(raw) == shown


@pytest.mark.parametrize(("text", "is_one"), [("==> a/auth <==", True), ("", True), ("2026 ==> a <==", False)])
def test_headers_of_tail(text: str, is_one: bool) -> None:
    assert is_header(text) is is_one


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", NOW - timedelta(hours=2)),
        ("90s", NOW - timedelta(seconds=90)),
        ("2w", NOW - timedelta(days=14)),
        ("2026-11-23T10:00Z", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2026-11-23T10:00+01:00", datetime(2026, 11, 23, 9, tzinfo=UTC)),
        ("2026-11-23T10:00", datetime(2026, 11, 23, 10).astimezone(UTC)),
    ],
)
def test_times_are_read(text: str, expected: datetime) -> None:
    assert verb.moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "2", "h", "yesterday", "2026-13-01", "-2h", "2026-11-23T25:00"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no time"):
        verb.moment(text, NOW)


def test_the_verb_says_which_times_there_are() -> None:
    done = fleet_logs("kvm1", "--since", "yesterday")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].endswith("'yesterday' is no time: 2h, 3d, 2026-11-23T10:00, 2026-11-23T10:00Z")


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the verb's commands run on this computer, on `folder`."""
    monkeypatch.setattr(verb, "FOLDER", str(folder))
    monkeypatch.setattr(verb, "ssh", lambda *_: ["env", "-u", "LC_ALL", "mksh", "-c"])
    monkeypatch.setattr(verb, "as_root", lambda _, command: command)
    return folder


def fleet_logs(*words: str) -> Result:
    return CliRunner().invoke(main, ["logs", *words])


def refusal(*words: str) -> str:
    """Return the one line with which the verb ends."""
    done = fleet_logs(*words)
    assert isinstance(done.exception, SystemExit)
    message = done.exception.code
    assert isinstance(message, str)
    assert done.output.splitlines() == [message]
    return message


@pytest.mark.usefixtures("here")
def test_the_verb_shows_lines_and_no_escapes() -> None:
    done = fleet_logs("kvm1", "--facility", "auth")
    assert done.exit_code == 0
    assert words(done.stdout.splitlines()) == ["one", "two", "four", "six"]
    assert "\x1b" not in done.stdout
    assert "\\x1b[31mred" in done.stdout


def test_what_the_server_says_is_shown_without_escapes_too(here: Path) -> None:
    (here / "kvm1/auth.1.gz").write_bytes(b"\x1f\x8b no gzip at all")
    done = fleet_logs("kvm1")
    assert done.exit_code == 1
    assert done.stderr.startswith("manicouagan1: ")
    assert words(done.stdout.splitlines()) == ["two", "three", "four", "five", "six"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kvm9"], "manicouagan1 has no log of kvm9: there are db1, kvm1"),
        (["kvm9", "--follow"], "manicouagan1 has no log of kvm9: there are db1, kvm1"),
        (["../kvm1"], "'../kvm1' is no name of a host"),
        (["*"], "'*' is no name of a host"),
        (["kvm1", "--grep", "a\nb"], "--grep wants one line of text"),
        (["kvm1", "--follow", "--since", "1h"], "--follow begins now: without --since and --until"),
        (["kvm1", "--facility", "auth", "--facility", "lpr", "--follow", "--until", "1h"], "--follow begins now: "),
    ],
)
def test_what_cannot_be_is_one_line(arguments: list[str], message: str) -> None:
    assert refusal(*arguments).startswith(message)


def test_a_server_that_is_away_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "ssh", lambda *_: ["sh", "-c", "echo 'ssh: no route' >&2; exit 255"])
    assert refusal("kvm1") == "manicouagan1: not reached: ssh: no route"


def test_show_prints_what_would_be_typed() -> None:
    done = fleet_logs("kvm1", "--show", "--grep", "it's")
    argv = shlex.split(done.stdout)
    assert argv[0] == "ssh"
    assert argv[-2] == "deploy@192.168.1.21"
    assert shlex.split(argv[-1])[:4] == ["doas", "-n", "sh", "-c"]
    assert shlex.split(argv[-1])[4].startswith("[ -e /var/log/hosts/kvm1 ] ||")
