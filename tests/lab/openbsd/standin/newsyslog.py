"""newsyslog(8): contract 5.6, `usr.bin/newsyslog/newsyslog.c`."""

import calendar
import glob
import gzip
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import users
from .place import root
from .program import fail, operand, options, own, privileged, warn
from .unmodelled import unmodelled

NOT_MODELLED = (
    "newsyslog: -a and -m, entries with flag M (they are read and left alone)",
    "newsyslog: dates with @ other than @Thh",
    "newsyslog: the commands that -n shows for each log",
    "newsyslog: the wait of five seconds between the signal and gzip is one second",
)

CONF = "/etc/newsyslog.conf"
PID = "/var/run/syslog.pid"
SETTLE = 1.0
"""Seconds that a daemon has to open its new log before the old one is compressed."""

_MIN_SIZE = 256
_HOUR = 3600
_USAGE = "usage: newsyslog [-Fmnrv] [-a directory] [-f config_file] [log ...]\n"


@dataclass(frozen=True)
class Log:
    """A line of newsyslog.conf(5).

    Args:
        path: the log.
        owner: its user and group by name or number, `""` what it has; such as `root:wheel`.
        mode: the permissions of the new and the old files.
        count: how many old ones are kept.
        size: the size in bytes from which it is rotated; -1 is none.
        hours: its age in hours from which it is rotated; 0 is none.
        at: the moment in whose hour it is rotated, in seconds since 1970; `None` is none.
        flags: the letters.
        pid_file: whose process gets the signal.
        command: what runs instead of the signal.
        signal: the signal's name.
    """

    path: str
    owner: str
    mode: int
    count: int
    size: int
    hours: int
    at: float | None
    flags: str
    pid_file: str = PID
    command: str = ""
    signal: str = "SIGHUP"

    def label(self) -> str:
        """Return how `-v` calls it."""
        return f"{self.path} <{self.count}{''.join(f for f in 'ZBF' if f in self.flags)}>"


class FieldError(ValueError):
    """A field that newsyslog does not take: the entry is skipped."""


def _moment(text: str, now: time.struct_time) -> float:
    """Return the moment that `$D0`, `$W0D23`, `$M1D0` or `@T00` means on a day."""
    match = re.fullmatch(r"\$(?:W([0-6])|M(\d{1,2}|L))?(?:D(\d{1,2}))?", text)
    weekday, day, hour = now.tm_wday, now.tm_mday, 0
    if match and match[0] != "$":
        hour = int(match[3] or 0)
        if match[1]:
            day += (int(match[1]) - (weekday + 1)) % 7
        if match[2]:
            last = calendar.monthrange(now.tm_year, now.tm_mon)[1]
            day = last if match[2] == "L" else int(match[2])
            if not 1 <= day <= 31:
                raise FieldError(f"bad time: {text[1:]}")
            day = min(day, last)
    else:
        match = re.fullmatch(r"@T(\d\d)", text)
        if match is None:
            raise FieldError(f"bad time: {text[1:]}")
        hour = int(match[1])
    if hour > 23:
        raise FieldError(f"bad time: {text[1:]}")
    return time.mktime((now.tm_year, now.tm_mon, day, hour, 0, 0, 0, 0, -1))


def parse_line(text: str, now: time.struct_time) -> Log:
    """Parse a line that is neither empty nor a comment.

    Args:
        text: the line.
        now: the local time, to which `when` refers.

    Returns:
        The log it is about.

    Raises:
        FieldError: a field that newsyslog does not take.
        IndexError: a field is missing.
    """
    words = shlex.split(text, posix=False)
    path = words.pop(0)
    owner = words.pop(0) if ":" in words[0] or "." in words[0] else ""
    mode, count, size, when = (words.pop(0) for _ in range(4))
    if not re.fullmatch(r"[0-7]{1,4}", mode):
        raise FieldError(f"bad permissions: {mode}")
    if not count.isdigit():
        raise FieldError(f"bad number: {count}")
    if size != "*" and not size.isdigit():
        raise FieldError(f"invalid size {size}")
    match = re.fullmatch(r"(\d*)([$@].*)?|\*", when)
    if match is None:
        raise FieldError(f"bad interval/at: {when}")
    hours = int(match[1] or 0)
    at = _moment(match[2], now) if match[2] else None
    flags, pid_file, command, name = "", PID, "", "SIGHUP"
    if words and words[0][0] in "ZzBbMmFf":
        flags = words.pop(0).upper()
        if set(flags) - set("ZBMF"):
            raise FieldError(f"illegal flag: `{next(iter(set(flags) - set('ZBMF')))}'")
    for word in words:
        if word.startswith("/"):
            pid_file = word
        elif word.startswith('"') and word.endswith('"') and len(word) > 1:
            command, pid_file = word[1:-1], ""
        elif word.startswith("SIG") and word in signal.Signals.__members__:
            name = word
        elif "M" not in flags:
            raise FieldError(f"unrecognized field: {word}")
    bytes_from = -1 if size == "*" else int(size) * 1024
    return Log(path, owner, int(mode, 8), int(count), bytes_from, hours, at, flags, pid_file, command, name)


def parse(text: str, conf: str, now: time.struct_time) -> tuple[list[Log], int]:
    """Parse newsyslog.conf(5).

    Args:
        text: its content.
        conf: its name, for messages.
        now: the local time.

    Returns:
        The logs, globs expanded, and the exit code: 1 if an entry was skipped.
    """
    logs: list[Log] = []
    code = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            log = parse_line(line, now)
        except IndexError:
            warn("newsyslog", f"{conf}:{number}: missing field")
            sys.stderr.write(f"{line.strip()}\n")
            raise SystemExit(1) from None
        except FieldError as error:
            warn("newsyslog", f"{conf}:{number}: {error} --> skipping")
            code = 1
            continue
        names = sorted(glob.glob(str(root(log.path)))) if re.search(r"[*?\[]", log.path) else []  # noqa: PTH207 - the pattern is absolute
        base = len(str(root("/"))) if str(root("/")) != "/" else 0
        logs += [Log(**{**vars(log), "path": name[base:]}) for name in names] or [log]
    return logs, code


def _ids(log: Log, status: os.stat_result) -> tuple[int, int]:
    user, _, group = log.owner.replace(".", ":").partition(":")
    uids = {a.name: a.uid for a in users.accounts()}
    gids = {g.name: g.gid for g in users.groups()}
    uid = status.st_uid if not user else int(user) if user.isdigit() else uids.get(user)
    gid = status.st_gid if not group else int(group) if group.isdigit() else gids.get(group)
    if uid is None or gid is None:
        unmodelled("newsyslog", [log.path], f"unknown owner {log.owner}")
    return uid, gid


class Rotation:
    """One run.

    Args:
        now: seconds since 1970.
        dry: whether it only says what it would do.
        verbose: whether it says what it does.
        force: whether every log is rotated.
    """

    def __init__(self, now: float, *, dry: bool, verbose: bool, force: bool) -> None:
        self._now = now
        self._dry = dry
        self._verbose = verbose
        self._force = force

    def _say(self, text: str) -> None:
        if self._verbose:
            sys.stdout.write(text)

    def _age(self, log: Log) -> int:
        """Return the hours since the last rotation; -1 if there was none."""
        suffixes = [".0.gz", ".0"] if "Z" in log.flags else [".0", ".0.gz"]
        for suffix in suffixes:
            old = root(log.path + suffix)
            if old.exists():
                return int(self._now - old.stat().st_mtime + 1800) // _HOUR
        return -1

    def entry(self, log: Log) -> bool:
        """Rotate a log if it is due; return whether it was."""
        path = root(log.path)
        if not path.exists() and not path.is_symlink():
            return False
        if not path.is_file() or (path.is_symlink() and "F" not in log.flags):
            return False
        size = path.stat().st_size
        oversized = 0 < log.size <= size
        age = self._age(log)
        self._say(f"{log.label()}: ")
        if log.at is not None and not self._force and not oversized and not 0 <= self._now - log.at < _HOUR:
            self._say(f"--> will trim at {time.ctime(log.at)}\n")
            return False
        if log.at is not None and log.hours <= 0 and not self._force and not oversized:
            self._say("--> time is up\n")
        if log.size > 0:
            self._say(f"size (KB): {size / 1024:.2f} [{log.size // 1024}] ")
        if log.hours > 0:
            self._say(f"age (hr): {age} [{log.hours}] ")
        old = log.hours > 0 and (age >= log.hours or age < 0) and ("B" in log.flags or size >= _MIN_SIZE)
        if not (self._force or oversized or (log.hours <= 0 and log.at is not None) or old):
            self._say("--> skipping\n")
            return False
        self._say("--> trimming log....\n")
        if self._dry:
            if not self._verbose:
                sys.stdout.write(f"{log.label()}\n")
        else:
            self._trim(log)
        return True

    def _trim(self, log: Log) -> None:
        path = root(log.path)
        uid, gid = _ids(log, path.stat())
        if log.count > 0:
            self._rotate(log, uid, gid)
        turned = ""
        if "B" not in log.flags:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self._now)) + f".{int(self._now * 1000) % 1000:03}Z"
            turned = f"{stamp} {os.uname().nodename.partition('.')[0]} newsyslog[{os.getpid()}]: logfile turned over\n"
        with path.open("a") as file:
            file.write(turned)
        new = path.with_name(f"{path.name}.{os.getpid()}")
        new.write_text(turned)
        if log.count > 0:
            first = root(f"{log.path}.0")
            path.replace(first)
            own(first, uid, gid)
            first.chmod(log.mode)
        own(new, uid, gid)
        new.chmod(log.mode)
        new.replace(path)

    @staticmethod
    def _rotate(log: Log, uid: int, gid: int) -> None:
        """Remove the old logs that are too many, and move the others on; all of them get owner and mode (rotate())."""
        suffixes = (".gz", "") if "Z" in log.flags else ("", ".gz")
        number = log.count - 1
        while old := [path for suffix in suffixes if (path := root(f"{log.path}.{number}{suffix}")).exists()]:
            for path in old:
                path.unlink()
            number += 1
        for number in range(log.count - 2, -1, -1):
            for suffix in suffixes:
                path = root(f"{log.path}.{number}{suffix}")
                if path.exists():
                    moved = path.replace(root(f"{log.path}.{number + 1}{suffix}"))
                    moved.chmod(log.mode)
                    own(moved, uid, gid)
                    break

    def tell(self, logs: Sequence[Log]) -> None:
        """Signal the daemons, or run the commands, of the logs that were rotated.

        Args:
            logs: those.
        """
        for pid_file, command, name in dict.fromkeys((log.pid_file, log.command, log.signal) for log in logs):
            if command and self._dry:
                sys.stdout.write(f"run {command}\n")
            elif command:
                subprocess.run(["/bin/sh", "-c", command], check=False)
            else:
                self._signal(pid_file, name)

    def _signal(self, pid_file: str, name: str) -> None:
        path = root(pid_file)
        if not path.exists():
            warn("newsyslog", f"can't open {pid_file}: No such file or directory")
            return
        text = path.read_text().strip()
        if not text.isdigit():
            warn("newsyslog", f"{'invalid number in' if text else 'empty'} pid file: {pid_file}")
        elif self._dry:
            sys.stdout.write(f"kill -{name[3:]} {text}\n")
        else:
            try:
                os.kill(int(text), signal.Signals[name])
            except OSError:
                warn("newsyslog", f"warning - could not send {name} to PID from pid file {pid_file}")

    @staticmethod
    def compress(log: Log) -> None:
        """Compress the newest old log.

        Args:
            log: whose.
        """
        first = root(f"{log.path}.0")
        if "Z" not in log.flags or log.count == 0 or not first.exists():
            return
        status = first.stat()
        target: Path = first.with_name(f"{first.name}.gz")
        target.write_bytes(gzip.compress(first.read_bytes()))
        own(target, status.st_uid, status.st_gid)
        target.chmod(status.st_mode & 0o7777)
        os.utime(target, (status.st_atime, status.st_mtime))
        first.unlink()


def main(argv: Sequence[str]) -> int:
    """Run newsyslog(8).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    flags, wanted = options("newsyslog", argv, "Fmnrva:f:", _USAGE)
    given = dict(flags)
    if given.keys() & {"-a", "-m"}:
        unmodelled("newsyslog", argv, "-a and -m")
    if not privileged() and not given.keys() & {"-n", "-r"}:
        fail("newsyslog", "You must be root.")
    conf = given.get("-f", CONF)
    if conf != "-" and not operand(conf).exists():
        fail("newsyslog", f"can't open {conf}: No such file or directory")
    now = time.time()
    text = sys.stdin.read() if conf == "-" else operand(conf).read_text()
    logs, code = parse(text, conf, time.localtime(now))
    for name in wanted:
        if not any(log.path == name for log in logs):
            warn("newsyslog", f"{conf}: {name} not found")
    logs = [log for log in logs if not wanted or log.path in wanted]
    if not logs:
        fail("newsyslog", f"{conf}: no specified log files")
    dry = "-n" in given
    rotation = Rotation(now, dry=dry, verbose="-v" in given, force="-F" in given)
    rotated = [log for log in logs if rotation.entry(log)]
    rotation.tell(rotated)
    if rotated and not dry:
        time.sleep(SETTLE)
        for log in rotated:
            rotation.compress(log)
    return code
