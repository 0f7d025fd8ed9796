"""Files without their text: owner, mode and digest; stat(1), sha256sum(1)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from testinfra.host import Host

from tests.verify.modules.base import Asking, Unknown


@dataclass(frozen=True)
class Found:
    """A file as it is. `kind` is stat's word (``regular file``), `sha256` empty where it is no regular file."""

    owner: str
    group: str
    mode: int
    kind: str
    sha256: str


class Files(Asking):
    """Many files in one command, and what matches patterns. The text of no file is read over the wire.

    >>> files(host).found(["/etc/passwd"])["/etc/passwd"].mode
    420
    """

    @staticmethod
    def look(paths: Sequence[str]) -> str:
        """Return the command that `found` asks with."""
        lines = [
            'f() { [ -e "$1" ] || [ -L "$1" ] || return 0; '
            'd=; [ ! -f "$1" ] || d=$(sha256sum <"$1") || exit; '
            'echo "$(stat -c \'%U|%G|%a|%F\' "$1")|${d%% *}|$1"; }'
        ]
        return "\n".join([*lines, *(f"f {shlex.quote(path)}" for path in paths)])

    @staticmethod
    def match(patterns: Sequence[str]) -> str:
        """Return the command that `matching` asks with."""
        # A pattern is the inventory's own and meant for the shell.
        return f'for p in {" ".join(patterns)}; do [ ! -e "$p" ] || echo "$p"; done'

    def found(self, paths: Sequence[str]) -> dict[str, Found]:
        """Return those of `paths` that are there."""
        made = {}
        for line in self.answer(self.look(paths)).splitlines():
            pieces = line.split("|", 5)
            if len(pieces) != 6:
                raise Unknown(f"stat said {line!r}")
            owner, group, mode, kind, digest, path = pieces
            made[path] = Found(owner, group, int(mode, 8), kind, digest)
        return made

    def matching(self, patterns: Sequence[str]) -> tuple[str, ...]:
        """Return the paths that match shell `patterns`, sorted."""
        return tuple(sorted(self.answer(self.match(patterns)).splitlines()))


def files(host: Host) -> Files:
    """Return the module for `host`."""
    module: Files = Files.get_module(host)
    return module
