"""The path over which one twin may move a guest to the other: what of it is there; one exec (DESIGN F1).

Access to the peer's libvirt is as good as root there, so a path is opened for one move and closed by the hosts
themselves. All of it lies in /run, a tmpfs: a host that restarts has closed it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyinfra.api import FactBase, FactProcessError

from facts.linux.domain import PEERS, PORTS

ACCOUNT = "moves"
"""Who the source logs in as on the peer; nobody else uses it, so each of its processes belongs to a path."""

GROUP = "libvirt"
"""The group of `ACCOUNT` that libvirt lets in: by its socket's mode on Ubuntu, by its rule for polkit on Debian."""

FOLDER = "/run/homefleet"
"""Where everything of a path is: root's, and others may pass through it, because sshd reads `KEYS` as `ACCOUNT`."""

MINE = f"{FOLDER}/migration"
"""The folder that a path's two ends have: `path` on both, key and known_hosts on the source."""

KEY = f"{MINE}/id_ed25519"
KNOWN_HOSTS = f"{MINE}/known_hosts"
KEYS = f"{FOLDER}/migration.keys"
"""The only keys that the peer's sshd accepts for `ACCOUNT`, which cannot write it; AuthorizedKeysFile, sshd_config(5).

It is there while a path is open, and at no other time.
"""

CLOSER = "homefleet-migration-close"
"""The timer, and the service that it starts, which closes a path."""

TABLE = "inet homefleet"
STREAMS = (
    f"ss -Htnp state established '( sport >= :{PORTS[0]} and sport <= :{PORTS[1]} )' 2>/dev/null | "
    "grep -c '\"qemu' || :"
)
"""Counts the streams of guests that arrive here: ephemeral ports overlap the range, so only QEMU's own count."""

DONE = "##MIGRATION##"

COMMAND = f"""\
read -r up _ </proc/uptime
echo "uptime ${{up%%.*}}"
[ ! -e {MINE}/path ] || sed 's/^/path /' {MINE}/path
[ ! -e {KEY} ] || echo "key $(cat {KEY}.pub 2>/dev/null)"
[ ! -e {KNOWN_HOSTS} ] || sed 's/^/known /' {KNOWN_HOSTS}
[ ! -e {KEYS} ] || sed 's/^/accepts /' {KEYS}
for f in {FOLDER}/migration*; do [ ! -e "$f" ] || echo "left $f"; done
nft -j list set {TABLE} {PEERS} 2>/dev/null | sed 's/^/set /'
systemctl list-units --all --plain --no-legend --full '{CLOSER}.*' | sed 's/^/unit /'
ps -e -o user= -o comm= | sed -n 's/^{ACCOUNT}  */process /p'
[ ! -e {MINE}/path ] || echo "streams $({STREAMS})"
echo '{DONE}'"""

_EXPIRY = re.compile(r'expiry-time="(\d{14})Z"')
_FROM = re.compile(r'from="([^"]+)"')


@dataclass(frozen=True)
class Ends:
    """The two ends of a path: names, and the addresses at which they see each other."""

    source: str
    source_address: str
    peer: str
    peer_address: str


@dataclass(frozen=True)
class Accepted:
    """A key that sshd accepts: from which address, until when (UTC, ``YYYYMMDDHHMMSS``), and its public half."""

    source: str
    expires: str
    key: str


@dataclass(frozen=True)
class MigrationState:
    """What of a path is on a host; all fields at their defaults is the state at rest.

    `role` is ``source`` or ``peer`` of the path between `ends`; `left`, the seconds until its time is over,
    negative afterwards. `key` is the public half of the source's key, `known_hosts` the lines of the path's own
    file. `accepted` is what sshd accepts here. `firewall` has the seconds left for each address that is let in; None
    if the set does not exist. `closer`: the unit that will close the path waits or runs. `processes` and `streams`
    count what runs as `ACCOUNT`, and connections of guests that are arriving. `files` is all that lies about in
    `FOLDER`.
    """

    role: str | None = None
    ends: Ends | None = None
    left: int | None = None
    key: str | None = None
    known_hosts: tuple[str, ...] = ()
    accepted: tuple[Accepted, ...] = ()
    firewall: dict[str, int] | None = None
    closer: bool = False
    processes: int = 0
    streams: int = 0
    files: tuple[str, ...] = ()

    @property
    def at_rest(self) -> bool:
        """True if nothing of a path is here."""
        return not (
            self.ends or self.key or self.known_hosts or self.accepted or self.files or self.firewall
            or self.closer or self.processes or self.streams
        )  # fmt: skip


class MigrationPath(FactBase[MigrationState | None]):
    """State of a migration path on this host; None if unknown (F2).

    Reads no secret: of the key only the public half. Raises FactProcessError naming a line not understood.
    """

    @staticmethod
    def default() -> None:
        """Return None: not known."""
        return

    def command(self) -> str:
        """Return the one command that reads everything."""
        return COMMAND

    def process(self, output: list[str]) -> MigrationState | None:
        """Read the command's output."""
        if not output or output[-1].strip() != DONE:
            return None
        return parse(output[:-1])


def parse(lines: Sequence[str]) -> MigrationState:
    """Turn the output of `COMMAND` without its last line into a state."""
    state = MigrationState()
    uptime = 0
    for line in lines:
        word, _, rest = line.partition(" ")
        try:
            if word == "uptime":
                uptime = int(rest)
            else:
                state = _add(state, uptime, word, rest)
        except (ValueError, KeyError, TypeError):
            raise FactProcessError(f"MigrationPath: not understood: {line!r}") from None
    return state


def _add(state: MigrationState, uptime: int, word: str, rest: str) -> MigrationState:
    change: dict[str, Any]
    match word:
        case "path":
            role, source, source_address, peer, peer_address, until = rest.split()
            if role not in ("source", "peer"):
                raise ValueError(role)
            ends = Ends(source, source_address, peer, peer_address)
            change = {"role": role, "ends": ends, "left": int(until) - uptime}
        case "key":
            change = {"key": _key(rest)}
        case "known":
            change = {"known_hosts": (*state.known_hosts, rest)}
        case "accepts":
            change = {"accepted": (*state.accepted, _accepted(rest))}
        case "left":
            change = {"files": (*state.files, rest)}
        case "set":
            change = {"firewall": _elements(json.loads(rest))}
        case "unit":
            change = {"closer": state.closer or _runs(rest)}
        case "process":
            change = {"processes": state.processes + 1}
        case "streams":
            change = {"streams": int(rest)}
        case _:
            raise ValueError(word)
    return replace(state, **change)


def _key(line: str) -> str:
    """Return type and base64 of a public key without its comment; empty where only the private half is there."""
    return " ".join(line.split()[:2])


def _accepted(line: str) -> Accepted:
    source, expires = _FROM.search(line), _EXPIRY.search(line)
    _, found, key = f" {line}".rpartition(" ssh-ed25519 ")
    return Accepted(
        source=source.group(1) if source else "anywhere",
        expires=expires.group(1) if expires else "never",
        key=_key(f"ssh-ed25519 {key}") if found else "",
    )


def _elements(answer: Any) -> dict[str, int]:
    """Return the seconds left of each element; -1 for one that never leaves. libnftables-json(5)."""
    found: dict[str, int] = {}
    for item in answer["nftables"]:
        for element in item.get("set", {}).get("elem", ()):
            if isinstance(element, str):
                found[element] = -1
            else:
                found[element["elem"]["val"]] = int(element["elem"].get("expires", -1))
    return found


def _runs(unit: str) -> bool:
    _, _, active, *_ = unit.split()
    return active in ("active", "activating", "deactivating", "reloading")
