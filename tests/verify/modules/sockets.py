"""Listening sockets with their owners; ss(8)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address

from testinfra.host import Host

from tests.verify.modules.base import Asking, Unknown

LISTENING = "ss -H -tulnp"

_OWNER = re.compile(r'\("([^"]*)"')


@dataclass(frozen=True)
class Listening:
    """A listening socket: `protocol` tcp or udp, `address` as ss shows it, `owner` a program's name or empty."""

    protocol: str
    address: str
    port: int
    owner: str

    @property
    def loopback(self) -> bool:
        """True if only this host itself can reach it."""
        address, _, interface = self.address.partition("%")
        address = address.strip("[]")
        if interface in ("lo", "lo0"):
            return True
        if address == "*":
            return False
        found = ip_address(address)
        mapped = getattr(found, "ipv4_mapped", None)
        return found.is_loopback or (mapped is not None and mapped.is_loopback)


class Sockets(Asking):
    """All listening TCP and UDP sockets, from one command.

    >>> [socket.port for socket in sockets(host).listening if not socket.loopback]
    [22, 22]
    """

    @cached_property
    def listening(self) -> tuple[Listening, ...]:
        """Every listening socket."""
        return tuple(_socket(line) for line in self.answer(LISTENING).splitlines() if line.strip())


def _socket(line: str) -> Listening:
    pieces = line.split(None, 6)
    address, _, port = pieces[4].rpartition(":") if len(pieces) > 4 else ("", "", "")
    owner = _OWNER.search(pieces[6]) if len(pieces) > 6 else None
    try:
        made = Listening(pieces[0], address, int(port), owner[1] if owner else "")
        _ = made.loopback
    except ValueError:
        raise Unknown(f"ss said {line!r}") from None
    return made


def sockets(host: Host) -> Sockets:
    """Return the module for `host`."""
    module: Sockets = Sockets.get_module(host)
    return module
