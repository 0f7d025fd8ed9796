"""crontab(1) and the format of crontab(5): contract 5.10, `usr.sbin/cron/entry.c`."""

import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import users
from .place import root
from .program import fail, operand, privileged, replace, warn
from .unmodelled import unmodelled

NOT_MODELLED = (
    "crontab -e, crontab by another user than root (set-group-ID, cron.allow, cron.deny)",
    "crontab: the warning that cron is not running",
    "crontab: flags in one word (-ns), a * with anything but a step behind it",
    "at(1) and batch(1)",
)

TABS = "/var/cron/tabs"
_HEADER = 3
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_FIELDS: tuple[tuple[str, int, int, list[str]], ...] = (
    ("bad minute", 0, 59, []),
    ("bad hour", 0, 23, []),
    ("bad day-of-month", 1, 31, []),
    ("bad month", 1, 12, _MONTHS),
    ("bad day-of-week", 0, 7, _DAYS),
)
_ALL = (range(60), range(24), range(1, 32), range(1, 13), range(8))
_SPECIAL = {
    "reboot": (),
    "yearly": ("0", "0", "1", "1", "*"),
    "annually": ("0", "0", "1", "1", "*"),
    "monthly": ("0", "0", "1", "*", "*"),
    "weekly": ("0", "0", "*", "*", "0"),
    "daily": ("0", "0", "*", "*", "*"),
    "midnight": ("0", "0", "*", "*", "*"),
    "hourly": ("0", "*", "*", "*", "*"),
}
_ENVIRONMENT = re.compile(r"""\s*("[^"]*"|'[^']*'|[^\s='"]+)\s*=\s*(.*?)\s*$""")
_RANGE = re.compile(r"(?:(\w*)~(\w*)|(\w+)-(\w+)|(\w+)|(\*))(?:/(\w*))?")

Draw = Callable[[int, int], int]
"""Draws a number between two, both included."""


class FormatError(ValueError):
    """A crontab that cron does not take.

    Args:
        line: the number of the line.
        message: crontab's words.
    """

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class UnsureError(ValueError):
    """What the contract does not say; the message says what it is."""


@dataclass(frozen=True)
class Entry:
    """A job of a crontab.

    Args:
        times: minutes, hours, days of the month, months and days of the week at which it runs; empty of `@reboot`.
        any_day: whether the days of the month are `*`, and whether those of the week are.
        flags: the letters of `-n`, `-q` and `-s`.
        command: the command with its percent signs.
        environment: the variables that the lines before it set.
    """

    times: tuple[frozenset[int], ...]
    any_day: tuple[bool, bool]
    flags: frozenset[str]
    command: str
    environment: dict[str, str] = field(default_factory=dict)

    def due(self, now: time.struct_time) -> bool:
        """Return whether the job runs in a minute.

        Args:
            now: the local time.
        """
        if not self.times:
            return False
        minute, hour, day, month, weekday = self.times
        if now.tm_min not in minute or now.tm_hour not in hour or now.tm_mon not in month:
            return False
        of_month, of_week = now.tm_mday in day, (now.tm_wday + 1) % 7 in weekday
        return of_month and of_week if any(self.any_day) else of_month or of_week


def _number(text: str, low: int, names: Sequence[str]) -> int:
    if text.isdigit():
        return int(text)
    return names.index(text.lower()) + low


def _range(text: str, low: int, high: int, names: Sequence[str], draw: Draw) -> Iterator[int]:
    if text.startswith("*") and not re.match(r"\*(/|$)", text):
        raise UnsureError(f"the range {text!r}")
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    from_random, to_random, first, last, single, star, step = match.groups()
    by = 1
    if step is not None:
        if not step.isdigit() or int(step) == 0:
            raise ValueError(text)
        by = int(step)
    if single is not None:
        if step is not None:
            raise ValueError(text)
        begin = end = _number(single, low, names)
    elif star is not None:
        begin, end = low, high
    elif first is not None:
        begin, end = _number(first, low, names), _number(last, low, names)
    else:
        begin = _number(from_random, low, names) if from_random else low
        end = _number(to_random, low, names) if to_random else high
    if begin > end or begin < low or end > high:
        raise ValueError(text)
    if from_random is not None and step is None:
        begin = end = draw(begin, end)
    elif from_random is not None:
        # crontab.5: with a step the random value is the offset of the first run.
        begin += draw(0, by - 1)
    yield from range(begin, end + 1, by)


def _field(text: str, low: int, high: int, names: Sequence[str], draw: Draw) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        found.update(_range(part, low, high, names, draw))
    if high == 7 and found & {0, 7}:
        found |= {0, 7}
    return frozenset(found)


def _entry(number: int, line: str, environment: dict[str, str], draw: Draw) -> Entry:
    times: tuple[frozenset[int], ...]
    if line.startswith("@"):
        word, rest = (*line[1:].split(None, 1), "", "")[:2]
        if word not in _SPECIAL:
            raise FormatError(number, "bad time specifier")
        texts = _SPECIAL[word]
        times = tuple(_field(t, low, high, [], draw) for t, (_, low, high, _) in zip(texts, _FIELDS, strict=False))
        any_day = (False, word != "reboot" and word in {"yearly", "annually", "monthly", "weekly"})
    else:
        words = line.split(None, 5)
        parsed = []
        for index, (message, low, high, names) in enumerate(_FIELDS):
            if index >= len(words):
                raise FormatError(number, message)
            try:
                parsed.append(_field(words[index], low, high, names, draw))
            except UnsureError:
                raise
            except ValueError:
                raise FormatError(number, message) from None
        times = tuple(parsed)
        any_day = (words[2].startswith("*"), words[4].startswith("*"))
        rest = words[5] if len(words) == 6 else ""
    rest = rest.lstrip(" \t")
    if not rest or rest.startswith("*"):
        raise FormatError(number, "bad command")
    flags: set[str] = set()
    while rest.startswith("-"):
        word, _, following = rest.partition(" ")
        if len(word) > 2 and set(word[1:]) <= set("nqs"):
            raise UnsureError(f"flags in one word, {word}")
        if word[1:] not in {"n", "q", "s"}:
            raise FormatError(number, "bad flags")
        flags.add(word[1:])
        rest = following.lstrip(" \t")
        if not rest:
            raise FormatError(number, "bad command")
    return Entry(times, any_day, frozenset(flags), rest, dict(environment))


def parse(text: str, draw: Draw = random.randint) -> list[Entry]:
    """Parse a crontab.

    Args:
        text: its content.
        draw: how a number is drawn for `~`.

    Returns:
        Its jobs.

    Raises:
        FormatError: the first thing that cron does not take.
        UnsureError: the contract does not say what cron makes of it.
    """
    found = []
    environment: dict[str, str] = {}
    lines = text.split("\n")
    for number, full in enumerate(lines, 1):
        line = full.lstrip(" \t")
        if not line or line.startswith("#"):
            continue
        if number == len(lines):
            raise FormatError(number, "premature EOF")
        match = _ENVIRONMENT.fullmatch(line)
        if match:
            value = match[2]
            if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
                value = value[1:-1]
            environment[match[1].strip("'\"")] = value
            continue
        found.append(_entry(number, line, environment, draw))
    return found


def without_header(text: str) -> str:
    """Return a stored crontab as `crontab -l` prints it.

    Args:
        text: the file of `/var/cron/tabs`.

    Returns:
        It without its first comment lines, three at most.
    """
    lines = text.splitlines(keepends=True)
    hidden = 0
    while hidden < min(_HEADER, len(lines)) and lines[hidden].startswith("#"):
        hidden += 1
    return "".join(lines[hidden:])


def _install(argv: Sequence[str], user: str, file: str) -> int:
    try:
        text = sys.stdin.read() if file == "-" else operand(file).read_text()
    except OSError as error:
        unmodelled("crontab", argv, str(error))
    try:
        parse(text)
    except FormatError as error:
        sys.stderr.write(f'"{file}":{error.line}: {error.message}\n')
        fail("crontab", "errors in crontab file, unable to install")
    except UnsureError as error:
        unmodelled("crontab", argv, str(error))
    header = (
        "# DO NOT EDIT THIS FILE - edit the master and reinstall.\n"
        f"# ({file} installed on {time.ctime():<24.24})\n"
        "# (Cron version V5.0)\n"
    )
    found = users.account(user)
    replace(f"{TABS}/{user}", header + text, 0o600, found.uid if found else 0)
    os.utime(root(TABS))
    return 0


def main(argv: Sequence[str]) -> int:
    """Run crontab(1).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    if not privileged():
        unmodelled("crontab", argv, "only root")
    user, action, rest = "root", "", list(argv)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "-u" and rest:
            user = rest.pop(0)
        elif word.startswith("-u") and len(word) > 2:
            user = word[2:]
        elif word in {"-l", "-r"} and not action:
            action = word
        else:
            unmodelled("crontab", argv, f"option {word}")
    if users.account(user) is None:
        fail("crontab", f"unknown user {user}")
    tab = root(f"{TABS}/{user}")
    if not action and len(rest) == 1:
        return _install(argv, user, rest[0])
    if not action or rest:
        unmodelled("crontab", argv, "one file, -l or -r is wanted")
    if not tab.exists():
        fail("crontab", f"no crontab for {user}")
    if action == "-l":
        sys.stdout.write(without_header(tab.read_text()))
        return 0
    tab.unlink()
    os.utime(root(TABS))
    return 0


def load(path: Path, draw: Draw = random.randint) -> list[Entry]:
    """Load a stored crontab as cron(8) does, which leaves out a file that it does not take.

    Args:
        path: where it is.
        draw: how a number is drawn for `~`.

    Returns:
        Its jobs.
    """
    try:
        return parse(path.read_text(), draw)
    except (FormatError, UnsureError) as error:
        warn("cron", f"{path.name}: {error}")
        return []
