"""What is on a host of the configuration sets that it shall have: one exec for all of them (DESIGN D2, F1)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from pyinfra.api import FactBase, FactProcessError

STATE = "/var/lib/homefleet"
"""Where a host keeps what is in flight: pending markers, manifests, backups, armed undos. Mode 0700."""

DONE = "##FILESETS##"


@dataclass(frozen=True)
class FileState:
    """A file as it is: owner, group, mode (as an int) and the SHA-256 of its bytes in hexadecimal."""

    owner: str
    group: str
    mode: int
    sha256: str


@dataclass(frozen=True)
class SetState:
    """A set as it is: `files` by path (absent ones are missing), `manifest`, the paths of the set that was applied
    last, `strays`, files that match its exclusive patterns, `pending` and `armed`: it was left in the middle, and
    its undo is still to come."""

    files: dict[str, FileState] = field(default_factory=dict)
    manifest: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    pending: bool = False
    armed: bool = False


@dataclass(frozen=True)
class SetQuery:
    """What to look for: the set's name, its paths and its exclusive glob patterns."""

    name: str
    paths: tuple[str, ...]
    exclusive: tuple[str, ...] = ()


class FileSets(FactBase[dict[str, SetState] | None]):
    """States of sets by name; None if they could not be read (F2).

    Arguments: `sets`, the queries; `openbsd`, which tools the host has: stat(1) and sha256(1) of OpenBSD, or GNU's.
    Raises FactProcessError naming a line that is not understood.
    """

    @staticmethod
    def default() -> None:
        """Return None: not known."""
        return

    def command(self, sets: Sequence[SetQuery], openbsd: bool = False) -> str:
        """Return the one command that reads all sets."""
        stat = "stat -f '%Su %Sg %Lp'" if openbsd else "stat -c '%U %G %a'"
        digest = "sha256 -q" if openbsd else "sha256sum"
        lines = [
            f'f() {{ [ -f "$1" ] || return 0; set -- "$1" "$({stat} "$1")" "$({digest} <"$1")"; '
            'echo "file $2 ${3%% *} $1"; }'
        ]
        for query in sets:
            name = shlex.quote(query.name)
            lines.append(f"echo set {name}")
            lines += [f"f {shlex.quote(path)}" for path in query.paths]
            lines += [f'for p in {glob}; do [ ! -e "$p" ] || echo "stray $p"; done' for glob in query.exclusive]
            lines.append(f"[ ! -e {STATE}/manifest/{name} ] || sed 's/^/manifest /' {STATE}/manifest/{name}")
            lines.append(f"[ ! -e {STATE}/pending/{name} ] || echo pending")
            lines.append(f"[ ! -e {STATE}/armed/{name} ] || echo armed")
        lines.append(f"echo '{DONE}'")
        return "\n".join(lines)

    def process(self, output: list[str]) -> dict[str, SetState] | None:
        """Read the command's output."""
        if not output or output[-1].strip() != DONE:
            return None
        return parse(output[:-1])


def parse(lines: Sequence[str]) -> dict[str, SetState]:
    """Turn the output of `FileSets.command` without its last line into states by name of set."""
    found: dict[str, SetState] = {}
    name = ""
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "set" and rest:
            name = rest
            found[name] = SetState()
            continue
        if name not in found:
            raise FactProcessError(f"FileSets: not understood: {line!r}")
        found[name] = _add(found[name], word, rest, line)
    return found


def _add(state: SetState, word: str, rest: str, line: str) -> SetState:
    files, manifest, strays = dict(state.files), state.manifest, state.strays
    pending, armed = state.pending, state.armed
    pieces = rest.split(" ", 4)
    if word == "file" and len(pieces) == 5 and pieces[2].isdigit():
        owner, group, mode, digest, path = pieces
        files[path] = FileState(owner, group, int(mode, 8), digest)
    elif word == "manifest" and rest:
        manifest = (*manifest, rest)
    elif word == "stray" and rest:
        strays = (*strays, rest)
    elif word == "pending" and not rest:
        pending = True
    elif word == "armed" and not rest:
        armed = True
    else:
        raise FactProcessError(f"FileSets: not understood: {line!r}")
    return SetState(files, manifest, strays, pending, armed)
