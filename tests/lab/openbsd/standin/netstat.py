"""netstat(1): the routing tables and the sockets; contract 4 and 9."""

import ipaddress
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .route import table
from .unmodelled import unmodelled

NOT_MODELLED = (
    "netstat: anything but -rn and -an with -f inet and -f inet6",
    "netstat -an: sockets of the local domain, raw sockets, the address of the socket in the kernel",
)

_STATES = {
    "01": "ESTABLISHED",
    "02": "SYN_SENT",
    "03": "SYN_RCVD",
    "04": "FIN_WAIT_1",
    "05": "FIN_WAIT_2",
    "06": "TIME_WAIT",
    "07": "CLOSED",
    "08": "CLOSE_WAIT",
    "09": "LAST_ACK",
    "0A": "LISTEN",
    "0B": "CLOSING",
}


def _address(text: str) -> str:
    host, _, port = text.partition(":")
    words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return f"{'*' if int(address) == 0 else mapped or address}.{int(port, 16) or '*'}"


def _sockets(family: str) -> Iterator[str]:
    suffix = "6" if family == "inet6" else ""
    for protocol in ("tcp", "udp"):
        path = Path(f"/proc/net/{protocol}{suffix}")
        if not path.exists():
            continue
        for line in path.read_text().splitlines()[1:]:
            fields = line.split()
            queues = [int(text, 16) for text in fields[4].split(":")]
            state = _STATES.get(fields[3], "") if protocol == "tcp" else ""
            ends = f"{_address(fields[1]):<22} {_address(fields[2]):<22}"
            yield f"{protocol + suffix:<7} {queues[1]:>6} {queues[0]:>6}  {ends} {state}".rstrip()


def main(argv: Sequence[str]) -> int:
    """Run netstat(1).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    letters, families, words = set(), ["inet", "inet6"], list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            unmodelled("netstat", argv, f"operand {word}")
        for at, letter in enumerate(word[1:], 1):
            if letter == "f":
                family = word[at + 1 :] or (words.pop(0) if words else "")
                if family not in families:
                    unmodelled("netstat", argv, f"family {family!r}")
                families = [family]
                break
            letters.add(letter)
    if letters == {"r", "n"}:
        sys.stdout.write(table(families))
    elif letters == {"a", "n"}:
        for family in families:
            title = "Internet6" if family == "inet6" else "Internet"
            sys.stdout.write(f"Active {title} connections (including servers)\n")
            sys.stdout.write(
                f"{'Proto':<7} {'Recv-Q':>6} {'Send-Q':>6}  {'Local Address':<22} {'Foreign Address':<22} TCP-State\n"
            )
            sys.stdout.write("".join(f"{line}\n" for line in _sockets(family)))
    else:
        unmodelled("netstat", argv, "only -rn and -an")
    return 0
