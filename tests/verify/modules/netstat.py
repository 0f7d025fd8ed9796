"""Listening sockets of an OpenBSD host; netstat(1), which does not say whose they are."""

from __future__ import annotations

import re
from functools import cached_property

from testinfra.host import Host

from tests.verify.modules.base import Asking, Unknown
from tests.verify.modules.sockets import Listening

SOCKETS = "netstat -an -f inet && netstat -an -f inet6"

_SOCKET = re.compile(r"(?P<protocol>tcp|udp)6?\s+\d+\s+\d+\s+(?P<local>\S+)\s+(?P<foreign>\S+)(\s+(?P<state>\S+))?\s*")


class Netstat(Asking):
    """All listening TCP and UDP sockets, from one command.

    >>> [socket.port for socket in netstat(host).listening if not socket.loopback]
    [22, 2022]
    """

    @cached_property
    def listening(self) -> tuple[Listening, ...]:
        """Every listening socket. A UDP socket without another end listens; one without a port is not bound yet."""
        said = self.answer(SOCKETS).splitlines()
        if not any(line.startswith("Active ") for line in said):
            raise Unknown("netstat showed no table")
        found = (_socket(line) for line in said if line.startswith(("tcp", "udp")))
        return tuple(each for each in found if each is not None)


def _socket(line: str) -> Listening | None:
    match = _SOCKET.fullmatch(line)
    if match is None:
        raise Unknown(f"netstat said {line!r}")
    listens = match["state"] == "LISTEN" if match["protocol"] == "tcp" else match["foreign"] == "*.*"
    address, _, port = match["local"].rpartition(".")
    if not listens or port == "*":
        return None
    try:
        made = Listening(match["protocol"], address, int(port), "")
        _ = made.loopback
    except ValueError:
        raise Unknown(f"netstat said {line!r}") from None
    return made


def netstat(host: Host) -> Netstat:
    """Return the module for `host`."""
    module: Netstat = Netstat.get_module(host)
    return module
