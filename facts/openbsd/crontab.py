"""Crontabs of an OpenBSD host; crontab(1), contract 5.10."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pyinfra.api import FactBase, FactProcessError

DONE = "##CRONTABS##"

BEGIN, END = "# homefleet: begin", "# homefleet: end"
"""The lines between these two, and they themselves, are ours; all others belong to the system or to a person."""


@dataclass(frozen=True)
class Crontab:
    """A user's crontab: `exists`, the user does; `marks`, our two marks in their order (``be``); `block`, the SHA-256
    in hexadecimal of what is between the marks, with them.

    The text of other people's lines never leaves the host: it may hold a secret (DESIGN O5).
    """

    exists: bool
    marks: str = ""
    block: str | None = None


class Crontabs(FactBase[dict[str, Crontab] | None]):
    """Our part of the crontab of each of `users`; None if unknown (F2). Needs root."""

    @staticmethod
    def default() -> None:
        """Return None: not known."""
        return

    def command(self, users: Sequence[str]) -> str:
        """Return one command that lists all crontabs; ``crontab -l`` leaves the three header lines out."""
        script = (
            'tab() { id -u "$1" >/dev/null 2>&1 || { echo "missing $1"; return 0; }; '
            'echo "user $1"; [ -e "/var/cron/tabs/$1" ] || return 0; '
            f'crontab -l -u "$1" | sed -n -e "s/^{BEGIN}\\$/mark b/p" -e "s/^{END}\\$/mark e/p"; '
            f'printf \'block %s\\n\' "$(crontab -l -u "$1" | sed -n "/^{BEGIN}\\$/,/^{END}\\$/p" | sha256 -q)"; }}'
        )
        return "\n".join([script, *(f"tab {shlex.quote(user)}" for user in users), f"echo '{DONE}'"])

    def process(self, output: list[str]) -> dict[str, Crontab] | None:
        """Read the command's output; FactProcessError names a line that is not understood."""
        if not output or output[-1].strip() != DONE:
            return None
        return parse(output[:-1])


def parse(lines: Sequence[str]) -> dict[str, Crontab]:
    """Turn the output of `Crontabs.command` without its last line into crontabs by user."""
    found: dict[str, Crontab] = {}
    user = ""
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "missing" and rest:
            found[rest] = Crontab(exists=False)
        elif word == "user" and rest:
            user = rest
            found[user] = Crontab(exists=True)
        elif word == "mark" and user and rest in ("b", "e"):
            found[user] = Crontab(True, found[user].marks + rest, found[user].block)
        elif word == "block" and user and len(rest) == 64:
            found[user] = Crontab(True, found[user].marks, rest)
        else:
            raise FactProcessError(f"Crontabs: not understood: {line!r}")
    return found
