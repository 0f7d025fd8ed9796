"""What is on a host of the configuration sets that it shall have: one exec for all of them (DESIGN D2, F1)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from pyinfra.api import FactBase, FactProcessError

STATE = "/var/lib/homefleet"
"""Where an Ubuntu host keeps what is in flight: pending markers, manifests, armed undos. Mode 0700."""

STATE_OPENBSD = "/var/db/homefleet"
"""The same on OpenBSD; hier(7) has no /var/lib."""

ASIDE = (".homefleet-old", ".homefleet-new")
"""Ends of the names that a file's old and new version have beside it while its set is swapped."""

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
    its undo is still to come. What a swap puts beside a file is no stray."""

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


def state_of_host(openbsd: bool) -> str:
    """Return the folder of our own state on a host."""
    return STATE_OPENBSD if openbsd else STATE


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
        state = state_of_host(openbsd)
        stat = "stat -f '%Su %Sg %OLp'" if openbsd else "stat -c '%U %G %a'"
        digest = 'sha256 -q "$1"' if openbsd else 'sha256sum <"$1"'
        lines = [
            f'f() {{ [ -f "$1" ] || return 0; set -- "$1" "$({stat} "$1")" "$({digest})"; '
            'echo "file $2 ${3%% *} $1"; }'
        ]
        for query in sets:
            name = shlex.quote(query.name)
            lines.append(f"echo set {name}")
            lines += [f"f {shlex.quote(path)}" for path in query.paths]
            lines += [f'for p in {glob}; do [ ! -e "$p" ] || echo "stray $p"; done' for glob in query.exclusive]
            lines.append(f"[ ! -e {state}/manifest/{name} ] || sed 's/^/manifest /' {state}/manifest/{name}")
            lines.append(f"[ ! -e {state}/pending/{name} ] || echo pending")
            lines.append(f"[ ! -e {state}/armed/{name} ] || echo armed")
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
    if word == "file" and len(pieces) == 5 and pieces[2].isdigit() and len(pieces[3]) == 64:
        owner, group, mode, digest, path = pieces
        files[path] = FileState(owner, group, int(mode, 8), digest)
    elif word == "manifest" and rest:
        manifest = (*manifest, rest)
    elif word == "stray" and rest:
        strays = strays if rest.endswith(ASIDE) else (*strays, rest)
    elif word == "pending" and not rest:
        pending = True
    elif word == "armed" and not rest:
        armed = True
    else:
        raise FactProcessError(f"FileSets: not understood: {line!r}")
    return SetState(files, manifest, strays, pending, armed)
