"""What the log server has of a host's log: the commands that read it there, and how a line is shown here.

The files are plain ones of syslogd(8) and those that newsyslog(8) rotated: ``HOST/auth``, ``HOST/auth.0.gz``.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""The name of a sender, as it may stand in a path and in a pattern of find(1)."""

UNKNOWN = 3
"""Exit code of a command of this module: there is no log of that name."""

# How far a sender's clock, which is in the lines, may be from the server's, which is in the times of its files.
_CLOCK_MINUTES = 24 * 60


@dataclass(frozen=True)
class Query:
    """Which lines are wanted: of the sender `host`, below `folder` of the server.

    Arguments: `since` and `until`, with their time zone, the second excluded; `facilities`, none for all; `text`, that
    is in the line as it stands.
    """

    folder: str
    host: str
    since: datetime
    until: datetime | None = None
    facilities: tuple[str, ...] = ()
    text: str | None = None


def reading(query: Query, now: datetime) -> str:
    """Return the command that prints the lines of `query`, oldest first; what has no time follows what it came after.

    It exits with `UNKNOWN` if the server has no such log, and says on standard error which it has (`names_in`).
    """
    old = math.ceil((now - query.since).total_seconds() / 60) + _CLOCK_MINUTES
    wanted = f"key >= {_awk_text(stamp(query.since))}"
    if query.until is not None:
        wanted += f" && key < {_awk_text(stamp(query.until))}"
    program = f"/^[0-9]+-[0-9]+-[0-9]+T[0-9]/ {{ key = $1 }} {wanted} {{ print key, $0 }}"
    steps = [
        f"find {shlex.quote(query.folder)} -type f {_paths(query)} -mmin -{max(old, 1)} -exec gzip -cdf -- {{}} +",
        f"awk {shlex.quote(program)}",
        "sort -s -k 1,1",
        "cut -d ' ' -f 2-",
    ]
    if query.text is not None:
        steps.append(f"grep -a -F -e {shlex.quote(query.text)}")
    return f"{_or_unknown(query)}\nLC_ALL=C\nexport LC_ALL\n{' | '.join(steps)}"


def following(query: Query) -> str:
    """Return the command that prints what comes from now on, until its standard input ends.

    tail(1) says between the lines which file they are in (`is_header`). It exits as `reading` does.
    """
    place = f"{query.folder}/{query.host}"
    files = " ".join(shlex.quote(f"{place}/{name}") for name in query.facilities) or f"{place} {place}/*"
    return f"""\
{_or_unknown(query)}
for file in {files}; do
	[ ! -f "$file" ] || case $file in *.gz | *.[0-9]*) ;; *) set -- "$@" "$file" ;; esac
done
[ $# -gt 0 ] || {{ echo 'there is no such file' >&2; exit 1; }}
tail -n 0 -f "$@" &
cat >/dev/null
kill $!"""


def is_header(line: str) -> bool:
    """Tell whether a line is one that tail(1) puts before the lines of another file."""
    return re.fullmatch(r"(==> .* <==)?", line) is not None


def stamp(moment: datetime) -> str:
    """Return a moment as syslogd writes it with -Z: ``2026-11-23T19:07:27.123Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def printable(line: str) -> str:
    r"""Return `line` with everything that a terminal could obey as ``\x1b``: whoever can log could write it."""
    return "".join(
        each if each.isprintable() or each == "\t" else each.encode("unicode_escape").decode() for each in line
    )


def _paths(query: Query) -> str:
    """Return the primaries of find(1) for the files of `query`; the place itself is one for those without a folder."""
    place = f"{query.folder}/{query.host}"
    names = [f"{place}/{name}" for name in query.facilities]
    wanted = [each for name in names for each in (name, f"{name}.*")] or [place, f"{place}.*", f"{place}/*"]
    return f"\\( {' -o '.join(f'-path {shlex.quote(each)}' for each in wanted)} \\)"


def _or_unknown(query: Query) -> str:
    """Return the beginning of a command that ends if there is no log of this name."""
    folder, place = shlex.quote(query.folder), shlex.quote(f"{query.folder}/{query.host}")
    return f"[ -e {place} ] || {{ find {folder} -mindepth 1 -maxdepth 1 -type d >&2; exit {UNKNOWN}; }}"


def _awk_text(text: str) -> str:
    assert re.fullmatch(r"[0-9TZ:.-]+", text)
    return f'"{text}"'


def names_in(listing: Sequence[str], folder: str) -> tuple[str, ...]:
    """Return the names of the senders in what a command said that ended with `UNKNOWN`, sorted."""
    return tuple(sorted(line.removeprefix(f"{folder}/") for line in listing if line.startswith(f"{folder}/")))
