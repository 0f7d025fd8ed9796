"""The states, which are the kernel's connections with a bit of ours in their mark, over netlink.

Linux: include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass

from .model import TCP, UDP, Ip

_NETLINK_NETFILTER = 12
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_GET, _DELETE = 0x101, 0x102
_ERROR, _DONE = 2, 3
_TUPLE_ORIG, _PROTOINFO, _STATUS, _MARK = 1, 4, 3, 8
_SEEN_REPLY = 0x2
_TCP_STATES = {
    1: ("SYN_SENT", "CLOSED"),
    2: ("SYN_SENT", "ESTABLISHED"),
    3: ("ESTABLISHED", "ESTABLISHED"),
    4: ("FIN_WAIT_2", "ESTABLISHED"),
    5: ("ESTABLISHED", "CLOSING"),
    6: ("FIN_WAIT_2", "FIN_WAIT_2"),
    7: ("TIME_WAIT", "TIME_WAIT"),
    8: ("CLOSED", "CLOSED"),
}
"""The kernel's state of a TCP connection, as pf has it for the side that began and for the other."""


@dataclass(frozen=True)
class Connection:
    """A connection that pf has states for; ports are 0 where the protocol has none.

    Args:
        proto: its number.
        source, source_port, dest, dest_port: of its first packet.
        mark: ours; a rule made a state for it in the directions of its lowest bits.
        answered: there was a packet the other way.
        tcp_state: the kernel's number, 0 for other protocols.
        key: what the kernel knows it by.
    """

    proto: int
    source: Ip
    source_port: int
    dest: Ip
    dest_port: int
    mark: int
    answered: bool
    tcp_state: int
    key: bytes

    @property
    def states(self) -> int:
        """Return how many states pf would have for it."""
        return (self.mark & 0x3).bit_count()

    def lines(self) -> list[str]:
        """Return a line of `pfctl -ss` for each state."""
        name = {TCP: "tcp", UDP: "udp", 1: "icmp", 58: "ipv6-icmp"}.get(self.proto, str(self.proto))
        ends = _end(self.source, self.source_port), _end(self.dest, self.dest_port)
        if self.proto == TCP:
            progress = _TCP_STATES.get(self.tcp_state, ("CLOSED", "CLOSED"))
        elif self.proto in {1, 58}:
            progress = ("0", "0")
        else:
            progress = ("MULTIPLE", "MULTIPLE") if self.answered else ("SINGLE", "NO_TRAFFIC")
        found = []
        if self.mark & 0x1:
            found.append(f"all {name} {ends[1]} <- {ends[0]}       {progress[1]}:{progress[0]}")
        if self.mark & 0x2:
            found.append(f"all {name} {ends[0]} -> {ends[1]}       {progress[0]}:{progress[1]}")
        return found


def _end(address: Ip, port: int) -> str:
    if not port:
        return str(address)
    return f"{address}[{port}]" if address.version == 6 else f"{address}:{port}"


def connections() -> list[Connection]:
    """Return the connections with states of pf.

    Returns:
        Those of this network namespace.

    Raises:
        OSError: the kernel refuses.
    """
    found = []
    with _Socket() as netlink:
        for kind, payload in netlink.ask(_GET, _REQUEST | _DUMP, b""):
            if kind == _GET & 0xFF00 and (connection := _decode(payload)).states:
                found.append(connection)
    return found


def kill(connection: Connection) -> None:
    """Remove a connection, and with it its states; one that has gone by itself is none the less gone.

    Args:
        connection: as `connections` gave it.

    Raises:
        OSError: the kernel refuses.
    """
    with _Socket() as netlink:
        try:
            netlink.ask(_DELETE, _REQUEST | _ACK, connection.key, connection.source.version)
        except FileNotFoundError:
            return


class _Socket:
    def __enter__(self) -> _Socket:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.settimeout(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, kind: int, flags: int, attributes: bytes, version: int = 0) -> list[tuple[int, bytes]]:
        family = {0: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}[version]
        body = struct.pack("=BBH", family, 0, 0) + attributes
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        answers: list[tuple[int, bytes]] = []
        while True:
            data = self._socket.recv(1 << 20)
            at = 0
            while at < len(data):
                length, answer = struct.unpack_from("=IH", data, at)
                payload = data[at + 16 : at + length]
                at += (length + 3) & ~3
                if answer == _DONE:
                    return answers
                if answer == _ERROR:
                    code = struct.unpack_from("=i", payload)[0]
                    if code:
                        raise OSError(-code, "nf_conntrack")
                    return answers
                answers.append((answer, payload))


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _decode(payload: bytes) -> Connection:
    top = _attributes(payload[4:])
    direction = _attributes(top[_TUPLE_ORIG])
    addresses, protocol = _attributes(direction[1]), _attributes(direction[2])
    source, dest = (addresses[1], addresses[2]) if 1 in addresses else (addresses[3], addresses[4])
    tcp = _attributes(_attributes(top.get(_PROTOINFO, b"")).get(1, b""))
    key = struct.pack("=HH", 4 + len(top[_TUPLE_ORIG]), _TUPLE_ORIG | 0x8000) + top[_TUPLE_ORIG]
    return Connection(
        proto=protocol[1][0],
        source=ipaddress.ip_address(source),
        source_port=struct.unpack(">H", protocol.get(2, bytes(2)))[0],
        dest=ipaddress.ip_address(dest),
        dest_port=struct.unpack(">H", protocol.get(3, bytes(2)))[0],
        mark=struct.unpack(">I", top.get(_MARK, bytes(4)))[0],
        answered=bool(struct.unpack(">I", top.get(_STATUS, bytes(4)))[0] & _SEEN_REPLY),
        tcp_state=tcp[1][0] if 1 in tcp else 0,
        key=key,
    )
