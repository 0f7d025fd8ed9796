"""Kernel, boot time, patches and single files of an OpenBSD host; sysctl(8), syspatch(8), contract 7."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pyinfra.api import FactBase, FactProcessError

from facts.filesets import FileState

DONE = "##SYSTEM##"


@dataclass(frozen=True)
class System:
    """`kernel`, the first line of kern.version, and `booted`, the second of the boot since the epoch.

    `patches` are those that syspatch(8) would install; None where it was not asked or did not answer, with its
    words in `refused`.
    """

    kernel: str
    booted: int
    patches: tuple[str, ...] | None = None
    refused: str = ""

    @property
    def follows_snapshots(self) -> bool:
        """True if the kernel says so itself; in the weeks before a release it does not (contract 7.5)."""
        return "-current" in self.kernel or "-beta" in self.kernel


class Systems(FactBase[System | None]):
    """The system as it is; None if unknown (F2). With `patches` it asks the mirror, and needs root."""

    @staticmethod
    def default() -> None:
        """Return None: not known."""
        return

    def command(self, patches: bool = False) -> str:
        """Return one command that reads it; a kernel that follows snapshots is not asked for patches."""
        lines = ["k=$(sysctl -n kern.version | sed 1q)", "printf 'kernel %s\\n' \"$k\""]
        lines.append("printf 'booted %s\\n' \"$(sysctl -n kern.boottime)\"")
        if patches:
            lines.append(
                "case $k in *-current*|*-beta*) ;; *) "
                'if o=$(syspatch -c 2>&1); then echo answered; [ -z "$o" ] || printf \'%s\\n\' "$o" | '
                "sed 's/^/patch /'; else printf 'refused %s\\n' \"$(printf '%s\\n' \"$o\" | tail -n 1)\"; fi ;; esac"
            )
        return "\n".join([*lines, f"echo '{DONE}'"])

    def process(self, output: list[str]) -> System | None:
        """Read the command's output; FactProcessError names a line that is not understood."""
        if not output or output[-1].strip() != DONE:
            return None
        return parse(output[:-1])


def parse(lines: Sequence[str]) -> System:
    """Turn the output of `Systems.command` without its last line into a system."""
    kernel, refused = "", ""
    booted: int | None = None
    patches: list[str] | None = None
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "kernel" and rest:
            kernel = rest
        elif word == "booted" and rest.isdigit():
            booted = int(rest)
        elif word == "answered":
            patches = []
        elif word == "patch" and patches is not None and re.fullmatch(r"[0-9A-Za-z_.-]+", rest):
            patches.append(rest)
        elif word == "refused":
            refused = rest
        else:
            raise FactProcessError(f"Systems: not understood: {line!r}")
    if not kernel or booted is None:
        raise FactProcessError("Systems: no kernel or no boot time")
    return System(kernel, booted, tuple(patches) if patches is not None else None, refused)


class SingleFile(FactBase[tuple[FileState, ...] | None]):
    """State of the one file `path`, empty where there is none; None if unknown (F2)."""

    @staticmethod
    def default() -> None:
        """Return None: not known."""
        return

    def command(self, path: str) -> str:
        """Return one command that reads it."""
        quoted = shlex.quote(path)
        return (
            f"[ ! -f {quoted} ] || printf '%s %s\\n' \"$(stat -f '%Su %Sg %Lp' {quoted})\" \"$(sha256 -q {quoted})\"; "
            f"echo '{DONE}'"
        )

    def process(self, output: list[str]) -> tuple[FileState, ...] | None:
        """Read the command's output; FactProcessError names a line that is not understood."""
        if not output or output[-1].strip() != DONE:
            return None
        if len(output) == 1:
            return ()
        pieces = output[0].split(" ")
        if len(pieces) != 4 or not pieces[2].isdigit():
            raise FactProcessError(f"SingleFile: not understood: {output[0]!r}")
        return (FileState(pieces[0], pieces[1], int(pieces[2], 8), pieces[3]),)
