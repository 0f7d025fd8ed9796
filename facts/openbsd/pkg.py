"""Packages of an OpenBSD host, from pkg_info(1) and pkg_add(1); openbsd-contract 2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pyinfra.api import FactBase, FactProcessError

DONE = "##PACKAGES##"

SECTIONS = ("##manual##", "##all##", "##names##", "##unneeded##", "##updates##")

DIRECTORY = r"""directory() {
	case $(sysctl -n kern.version | sed 1q) in *-current*|*-beta*) return 0 ;; esac
	u=$(sed -n '/^[^#]/{p;q;}' /etc/installurl)
	if b=$(ftp -MVo - "${u%/}/$(uname -r)/$(uname -m)/BUILDINFO" 2>/dev/null); then
		[ -e /var/db/installed.BUILDINFO ] || return 0
		[ "$b" != "$(cat /var/db/installed.BUILDINFO)" ] || return 0
	elif ! ftp -MVo - "${u%/}/snapshots/$(uname -m)/BUILDINFO" >/dev/null 2>&1; then
		echo "$u does not answer: whether this is a release or a snapshot is not known" >&2
		return 1
	fi
	echo snap
}
"""
"""A shell function that prints ``snap`` if pkg_add(1) has to be told to look among the snapshots' packages.

It fails where that cannot be known.

It looks there by itself while the kernel calls itself -current or -beta. A snapshot of the last weeks before a release
has neither word, and pkg_add then takes the release's packages (contract 2.5, 0.3.12). So the build that is installed,
which the installer and sysupgrade(8) write down, is compared with the release of that number on the mirror: no such
release yet on a mirror that has snapshots, or another build, means a snapshot."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+_.%-]*")
_UPDATE = re.compile(r"Adding (?:(?P<old>[^>]+)->)?(?P<new>[^>()]+)\(pretending\)")


@dataclass(frozen=True)
class Packages:
    """What is installed.

    `manual` and `every` are in the form of ``pkg_info -z`` (``php--%8.3``), those that somebody asked for and all;
    `names` are full names (``php-8.3.12``). `unneeded`, names of automatic packages that nothing needs, and
    `updates`, old and new names (old is empty for a new dependency), are None where they were not asked for or
    could not be known.
    """

    manual: frozenset[str] = frozenset()
    every: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    unneeded: tuple[str, ...] | None = None
    updates: tuple[tuple[str, str], ...] | None = None


class OpenbsdPackages(FactBase[Packages | None]):
    """The packages of the host; None if unknown (F2).

    Arguments: `unneeded` looks for automatic packages that nothing needs; `updates` asks the mirror what
    ``pkg_add -u`` would do, which takes its time and says nothing if the mirror is dead.
    """

    @staticmethod
    def default() -> None:
        """Return None: not known."""
        return

    def command(self, unneeded: bool = False, updates: bool = False) -> str:
        """Return one command that reads the package database."""
        parts = [
            "echo '##manual##' && pkg_info -mz",
            "echo '##all##' && pkg_info -zq",
            "echo '##names##' && pkg_info -q",
        ]
        if unneeded:
            parts.append("echo '##unneeded##' && pkg_info -tq && echo '##asked##' && pkg_info -mq")
        if updates:
            parts.append("echo '##updates##' && { d=$(directory) && pkg_add ${d:+-D \"$d\"} -Inuv 2>&1 || :; }")
        return (DIRECTORY if updates else "") + " && ".join([*parts, f"echo '{DONE}'"])

    def process(self, output: list[str]) -> Packages | None:
        """Read the command's output; FactProcessError names a line that is not understood."""
        if not output or output[-1].strip() != DONE:
            return None
        return parse(output[:-1])


def parse(lines: Sequence[str]) -> Packages:
    """Turn the output of `OpenbsdPackages.command` without its last line into packages."""
    parts: dict[str, list[str]] = {}
    section = ""
    for line in lines:
        if line.startswith("##"):
            section = line.strip()
            parts[section] = []
        elif section == "##updates##":
            parts[section].append(line)
        elif section and _NAME.fullmatch(line.strip()):
            parts[section].append(line.strip())
        elif line.strip():
            raise FactProcessError(f"OpenbsdPackages: not understood: {line!r}")
    if not {"##manual##", "##all##", "##names##"} <= set(parts):
        raise FactProcessError("OpenbsdPackages: a part of the answer is missing")
    asked = set(parts.get("##asked##", ()))
    return Packages(
        manual=frozenset(parts["##manual##"]),
        every=frozenset(parts["##all##"]),
        names=frozenset(parts["##names##"]),
        # quirks is what pkg_add reads before any update; it asks for it by itself.
        unneeded=tuple(
            sorted(name for name in parts["##unneeded##"] if name not in asked and not name.startswith("quirks-"))
        )
        if "##unneeded##" in parts
        else None,
        updates=_updates(parts["##updates##"]) if "##updates##" in parts else None,
    )


def _updates(lines: Sequence[str]) -> tuple[tuple[str, str], ...] | None:
    """Return what would be updated, or None if the mirror did not answer (contract 2.2)."""
    if not any(line.startswith("Update candidates: ") for line in lines):
        return None
    if any(line.startswith(("Couldn't find any update", "Can't find")) for line in lines):
        return None
    found = (_UPDATE.match(line.strip()) for line in lines)
    return tuple((match["old"] or "", match["new"]) for match in found if match)
