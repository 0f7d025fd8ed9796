"""Kernel state of an OpenBSD host, and the file that sets it at boot; sysctl(8), sysctl.conf(5), contract 6.2, 14."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from pyinfra.api import FactBase, FactProcessError

from facts.filesets import FileState

DONE = "##SYSCTLS##"

PATH = "/etc/sysctl.conf"


@dataclass(frozen=True)
class SysctlState:
    """`file`, None where there is none, and the running `values` by name; one that the kernel lacks is missing."""

    file: FileState | None = None
    values: dict[str, str] = field(default_factory=dict)


class Sysctls(FactBase[SysctlState | None]):
    """State of /etc/sysctl.conf and of each of `keys`; None if unknown (F2).

    sysctl exits with 0 for a name that does not exist (contract 0.3.2): it is known by its silence.
    """

    @staticmethod
    def default() -> None:
        """Return None: not known."""
        return

    def command(self, keys: Sequence[str]) -> str:
        """Return one command that reads the file's state and the values."""
        lines = [
            f"[ ! -f {PATH} ] || printf 'file %s %s\\n' \"$(stat -f '%Su %Sg %Lp' {PATH})\" \"$(sha256 -q {PATH})\"",
            'v() { printf \'value %s %s\\n\' "$1" "$(sysctl -n "$1" 2>/dev/null)"; }',
        ]
        return "\n".join([*lines, *(f"v {shlex.quote(key)}" for key in keys), f"echo '{DONE}'"])

    def process(self, output: list[str]) -> SysctlState | None:
        """Read the command's output; FactProcessError names a line that is not understood."""
        if not output or output[-1].strip() != DONE:
            return None
        return parse(output[:-1])


def parse(lines: Sequence[str]) -> SysctlState:
    """Turn the output of `Sysctls.command` without its last line into a state."""
    file: FileState | None = None
    values: dict[str, str] = {}
    for line in lines:
        word, _, rest = line.partition(" ")
        pieces = rest.split(" ", 3)
        if word == "file" and len(pieces) == 4 and pieces[2].isdigit():
            file = FileState(pieces[0], pieces[1], int(pieces[2], 8), pieces[3])
        elif word == "value" and rest:
            key, _, value = rest.partition(" ")
            if value.strip():
                values[key] = value.strip()
        else:
            raise FactProcessError(f"Sysctls: not understood: {line!r}")
    return SysctlState(file, values)
