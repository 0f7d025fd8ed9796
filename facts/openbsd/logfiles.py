"""The files that an OpenBSD host's daemons log into: they have to be there before the daemon; syslog.conf(5)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from pyinfra.api import FactBase, FactProcessError

DONE = "##LOGFILES##"

_LINE = re.compile(r"(\S+) (\S+) ([0-7]+) (/.+)")


class LogFiles(FactBase[dict[str, tuple[str, str, int]] | None]):
    """Owner, group and mode of log files and of their folders by path, absent ones missing; None if unknown (F2)."""

    @staticmethod
    def default() -> None:
        """Return None: not known."""
        return

    def command(self, paths: Sequence[str]) -> str:
        """Return one command that looks at `paths`; stat(1) says of a missing one on standard error only."""
        words = " ".join(shlex.quote(path) for path in paths)
        return f"stat -f '%Su %Sg %OLp %N' {words} 2>/dev/null\necho '{DONE}'"

    def process(self, output: list[str]) -> dict[str, tuple[str, str, int]] | None:
        """Read the command's output; FactProcessError names a line that is not understood."""
        if not output or output[-1].strip() != DONE:
            return None
        found: dict[str, tuple[str, str, int]] = {}
        for line in output[:-1]:
            match = _LINE.fullmatch(line)
            if match is None:
                raise FactProcessError(f"LogFiles: not understood: {line!r}")
            found[match[4]] = (match[1], match[2], int(match[3], 8))
        return found
