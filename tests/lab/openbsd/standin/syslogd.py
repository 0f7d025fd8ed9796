"""syslogd(8) and syslog.conf(5) (contract 5.5): local messages into files that exist."""

import os
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass

from . import program
from .place import root
from .title import set_title
from .unmodelled import unmodelled

NOT_MODELLED = (
    "syslogd: everything that comes from or goes to the network, memory buffers, commands, terminals of users",
    "syslogd: options other than -a, -f, -h, -p and -Z; host blocks",
)
_FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("_", "_", "_", "_"),
    *(f"local{n}" for n in range(8)),
)
_LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
_ALIASES = {"panic": "emerg", "error": "err", "warn": "warning", "security": "auth"}
_NONE = -1
_USAGE = "usage: syslogd [-46dFhnruVZ] [-a path] [-f config_file] [-p log_socket]"
PID_FILE = "/var/run/syslog.pid"


class BadLine(Exception):
    """A line of syslog.conf that is not modelled."""


@dataclass(frozen=True)
class Rule:
    """A line of syslog.conf.

    Args:
        levels: for each facility the least urgent level that is logged, -1 for none.
        path: the file; empty for an action that reaches nobody here.
        program: whose messages it takes; empty for everybody's.
        last: whether no later line sees what this one took (``!!``).
    """

    levels: tuple[int, ...]
    path: str
    program: str = ""
    last: bool = False


def _selector(text: str, line: str) -> tuple[int, ...]:
    levels = [_NONE] * len(_FACILITIES)
    for part in text.split(";"):
        names, dot, word = part.strip().rpartition(".")
        if not dot:
            raise BadLine(line)
        if word == "none":
            level = _NONE
        elif word == "*":
            level = len(_LEVELS) - 1
        elif _ALIASES.get(word, word) in _LEVELS:
            level = _LEVELS.index(_ALIASES.get(word, word))
        else:
            raise BadLine(line)
        for name in names.split(","):
            if name == "*":
                levels = [level] * len(levels)
            elif _ALIASES.get(name, name) in _FACILITIES and name != "_":
                levels[_FACILITIES.index(_ALIASES.get(name, name))] = level
            else:
                raise BadLine(line)
    return tuple(levels)


def rules(text: str) -> list[Rule]:
    """Read syslog.conf.

    Args:
        text: the file.

    Returns:
        Its lines in order.

    Raises:
        BadLine: a line is not modelled.
    """
    found = []
    whose, last = "", False
    for raw in text.splitlines():
        line = raw.strip()
        if not line or (line.startswith("#") and not line.startswith(("#!", "#+"))):
            continue
        if line.startswith("!"):
            last = line.startswith("!!")
            whose = line.lstrip("!").strip()
            if not re.fullmatch(r"\*|[\w.-]+", whose):
                raise BadLine(line)
            whose = "" if whose == "*" else whose
            last = last and whose != ""
            continue
        selector, _, action = line.partition("\t") if "\t" in line else line.partition(" ")
        action = action.strip()
        if action.startswith("/"):
            found.append(Rule(_selector(selector, line), action, whose, last))
        elif re.fullmatch(r"\*|[a-z_][\w-]*(,[a-z_][\w-]*)*", action):
            found.append(Rule(_selector(selector, line), "", whose, last))
        else:
            raise BadLine(line)
    return found


def targets(lines: Iterable[Rule], priority: int, sender: str) -> list[str]:
    """Return the files that a message goes to.

    Args:
        lines: of syslog.conf.
        priority: facility times eight plus level.
        sender: the program's name, before its process number.
    """
    paths = []
    for rule in lines:
        if rule.program and rule.program != sender:
            continue
        facility, level = divmod(priority, 8)
        if facility < len(rule.levels) and level <= rule.levels[facility]:
            if rule.path:
                paths.append(rule.path)
            if rule.last:
                break
    return paths


def message(data: bytes) -> tuple[int, str]:
    """Take a datagram of syslog(3) apart.

    Args:
        data: as it came.

    Returns:
        Priority, 13 (user.notice) without one, and the text without its time.
    """
    text = data.decode(errors="replace").rstrip("\0\n")
    match = re.match(r"<(\d{1,3})>", text)
    priority = int(match[1]) if match else 13
    text = text[match.end() :] if match else text
    return priority, re.sub(r"^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d ", "", text)


def _log(lines: Iterable[Rule], data: bytes, *, iso: bool) -> None:
    priority, text = message(data)
    sender = re.split(r"[\[:\s]", text, maxsplit=1)[0]
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) if iso else time.strftime("%b %e %H:%M:%S")
    line = f"{stamp} {socket.gethostname().partition('.')[0]} {text}\n"
    for path in targets(lines, priority, sender):
        place = root(path)
        # A file that is not there is not made (syslog.conf(5)).
        if place.exists():
            with place.open("a") as file:
                file.write(line)


def _listen(path: str) -> socket.socket:
    place = root(path)
    place.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(place))
    place.chmod(0o666)
    return listener


def _read(argv: list[str], path: str) -> list[Rule]:
    try:
        return rules(root(path).read_text())
    except BadLine as error:
        unmodelled("syslogd", argv, f"{path}: {error}")


def main(argv: list[str]) -> int:
    """Run syslogd in the background.

    Args:
        argv: `-a PATH` (repeatable), `-f FILE`, `-h`, `-p PATH`, `-Z`.

    Returns:
        0 once it listens.
    """
    options, operands = program.options("syslogd", argv, "46dFhnruVZa:C:c:f:K:k:m:p:S:s:T:U:", _USAGE)
    if operands:
        print(_USAGE, file=sys.stderr)
        return 1
    for option, _ in options:
        if option not in ("-a", "-f", "-h", "-p", "-Z"):
            unmodelled("syslogd", argv, f"option {option}")
    conf = dict(options).get("-f", "/etc/syslog.conf")
    paths = [dict(options).get("-p", "/dev/log"), *(value for option, value in options if option == "-a")]
    iso = ("-Z", "") in options
    lines = _read(argv, conf)
    listeners = [_listen(path) for path in paths]
    if os.fork():
        return 0
    os.setsid()
    set_title("syslogd: [priv]")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    root(PID_FILE).write_text(f"{os.getpid()}\n")
    again: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _: again.append(number))
    while True:
        ready, _, _ = select.select(listeners, [], [], 1)
        if again:
            again.clear()
            lines = _read(argv, conf)
        for listener in ready:
            _log(lines, listener.recv(65536), iso=iso)
