"""Services of an OpenBSD host, from rcctl(8), rc.d(8) and rc.conf(8); openbsd-contract 1."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pyinfra.api import FactBase, FactProcessError

DONE = "##SERVICES##"

VARIABLES = ("flags", "user", "rtable", "timeout")
"""Those that we set; a login class is read-only for rcctl(8)."""


class Kind(StrEnum):
    """What a name is to rcctl(8): contract 1.2. Of a meta script and a special variable it knows only the status."""

    BASE = "base"
    PACKAGE = "package"
    META = "meta"
    SPECIAL = "special"


@dataclass(frozen=True)
class Service:
    """A service as it is.

    `values` by variable, as ``rcctl get`` says them (flags of a disabled one are left out); `stored` are the
    variables that have a value of their own in rc.conf.local, the others have their default. `running` is never
    true for a meta script or a special variable. `stale`: its binary or a library of it was replaced since it
    was started. `reloads`: its script knows ``reload``.
    """

    kind: Kind
    enabled: bool
    running: bool = False
    stale: bool = False
    reloads: bool = True
    values: dict[str, str] = field(default_factory=dict)
    stored: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ServicesState:
    """`services` by name, those that do not exist are missing; `order` is pkg_scripts, as ``rcctl order`` says it."""

    services: dict[str, Service] = field(default_factory=dict)
    order: tuple[str, ...] = ()


# rc.subr(8) writes /var/run/rc.d/NAME when it has started a daemon, and nothing touches it until the daemon is
# stopped. A file that was put in place later has a later ctime: an update keeps the mtime of the build. What is
# not seen: modules loaded at run time, helper programs, and daemons that rc.d(8) has not started.
_STALE = r"""stale() {
	[ -e "/var/run/rc.d/$1" ] || return 1
	d=$(sed -n 's/^daemon="*\(\/[^ "]*\).*/\1/p' "/etc/rc.d/$1")
	[ -n "$d" ] || return 1
	[ -n "$({ echo "$d"; ldd "$d" 2>/dev/null | awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^\/.*[^:]$/) print $i }'; } |
		sort -u | xargs sh -c 'find -L "$@" -cnewer "$0"' "/var/run/rc.d/$1" 2>/dev/null)" ]
}
"""

# ``get NAME flags`` is asked apart, and last: it prints the value raw, ``get NAME`` through echo.
_LOOK = r"""look() {
	g=$(rcctl get "$1" 2>/dev/null)
	e=$?
	echo "service $1 $e"
	[ "$e" -lt 2 ] || return 0
	if [ ! -e "/etc/rc.d/$1" ]; then
		echo kind special
		return 0
	elif ! grep -qw '^rc_cmd' "/etc/rc.d/$1"; then
		echo kind meta
		return 0
	elif grep -q "^$1_flags" /etc/rc.conf; then
		echo kind base
	else
		echo kind package
	fi
	printf '%s\n' "$g" | sed -n "s/^$1_\([a-z]*\)=/value \1 /p"
	printf 'value flags %s\n' "$(rcctl get "$1" flags)"
	[ ! -e /etc/rc.conf.local ] || sed -n "s/^$1_\([a-z]*\)=\(..*\)/stored \1 \2/p" /etc/rc.conf.local
	! grep -q '^rc_reload="*NO' "/etc/rc.d/$1" || echo noreload
	if rcctl check "$1" >/dev/null 2>&1; then
		echo running
		! stale "$1" || echo stale
	fi
}
"""


class Services(FactBase[ServicesState | None]):
    """State of each of `names` and the order of package scripts; None if unknown (F2). Needs root.

    Raises FactProcessError naming a line that is not understood, or a service that rcctl would not speak of.
    """

    @staticmethod
    def default() -> None:
        """Return None: not known."""
        return

    def command(self, names: Sequence[str]) -> str:
        """Return one command that asks rcctl for all of them."""
        lines = [_STALE + _LOOK + "printf 'order %s\\n' \"$(rcctl order)\""]
        lines += [f"look {shlex.quote(name)}" for name in names]
        return "\n".join([*lines, f"echo '{DONE}'"])

    def process(self, output: list[str]) -> ServicesState | None:
        """Read the command's output."""
        if not output or output[-1].strip() != DONE:
            return None
        return parse(output[:-1])


def parse(lines: Sequence[str]) -> ServicesState:
    """Turn the output of `Services.command` without its last line into services."""
    order: tuple[str, ...] = ()
    found: dict[str, _Reading] = {}
    reading: _Reading | None = None
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "order":
            order = tuple(rest.split())
        elif word == "service":
            reading = _begin(rest, line)
            if reading is not None:
                found[rest.partition(" ")[0]] = reading
        elif reading is None or not reading.take(word, rest):
            raise FactProcessError(f"Services: not understood: {line!r}")
    return ServicesState({name: it.service(name) for name, it in found.items()}, order)


def _begin(rest: str, line: str) -> _Reading | None:
    """Start reading a service; None if it does not exist (contract 1.3: exit 2)."""
    _, _, code = rest.partition(" ")
    if code == "2":
        return None
    if code not in ("0", "1"):
        raise FactProcessError(f"Services: rcctl get failed: {line!r}")
    return _Reading(enabled=code == "0")


@dataclass
class _Reading:
    enabled: bool
    kind: Kind | None = None
    words: set[str] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=dict)
    stored: dict[str, str] = field(default_factory=dict)

    def take(self, word: str, rest: str) -> bool:
        """Take one line; False if it is not understood."""
        name, _, value = rest.partition(" ")
        if word == "kind" and rest in set(Kind):
            self.kind = Kind(rest)
        elif word in ("running", "stale", "noreload") and not rest:
            self.words.add(word)
        elif word == "value" and name:
            self.values[name] = value
        elif word == "stored" and name:
            self.stored[name] = value
        else:
            return False
        return True

    def service(self, name: str) -> Service:
        if self.kind is None:
            raise FactProcessError(f"Services: nothing was said of {name}")
        values = {key: self.values[key] for key in VARIABLES if key in self.values}
        if not self.enabled:
            values.pop("flags", None)
        return Service(
            kind=self.kind,
            enabled=self.enabled,
            running="running" in self.words,
            stale="stale" in self.words,
            reloads="noreload" not in self.words,
            values=values,
            # "" and NO, quoted or not, are no flags of ours: contract 1.6.
            stored=frozenset(key for key in VARIABLES if self.stored.get(key, "").strip("\"' ") not in ("", "NO")),
        )
