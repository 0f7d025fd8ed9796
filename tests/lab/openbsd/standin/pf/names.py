"""Names in pf.conf(5) that mean numbers: services(5), passwd(5), group(5), icmp(4), hosts."""

from __future__ import annotations

import ipaddress
import socket

from ..place import root  # noqa: TID252 (the package has one name in the tests, another in the root)
from .model import ICMP6, Net

place = root
"""Where a file of the stand-in is; `standin.place`."""

ICMP_TYPES = {
    "echorep": 0,
    "unreach": 3,
    "squench": 4,
    "redir": 5,
    "althost": 6,
    "echoreq": 8,
    "routeradv": 9,
    "routersol": 10,
    "timex": 11,
    "paramprob": 12,
    "timereq": 13,
    "timerep": 14,
    "inforeq": 15,
    "inforep": 16,
    "maskreq": 17,
    "maskrep": 18,
    "trace": 30,
}
ICMP6_TYPES = {
    "unreach": 1,
    "toobig": 2,
    "timex": 3,
    "paramprob": 4,
    "echoreq": 128,
    "echorep": 129,
    "groupqry": 130,
    "grouprep": 131,
    "groupterm": 132,
    "routersol": 133,
    "routeradv": 134,
    "neighbrsol": 135,
    "neighbradv": 136,
    "redir": 137,
    "routrrenum": 138,
}
UNREACH_CODES = {
    "net-unr": 0,
    "host-unr": 1,
    "proto-unr": 2,
    "port-unr": 3,
    "needfrag": 4,
    "srcfail": 5,
    "net-prohib": 9,
    "host-prohib": 10,
    "filter-prohib": 13,
}


def icmp_types(proto: int) -> dict[str, int]:
    """Return the names of the types of ICMP or of ICMPv6; icmp(4), icmp6(4)."""
    return ICMP6_TYPES if proto == ICMP6 else ICMP_TYPES


def service(name: str) -> int | None:
    """Return the port that services(5) has for a name, whatever its protocol; None for an unknown one."""
    for words in _lines("/etc/services"):
        fields = " ".join(words).split()
        if len(fields) >= 2 and name in (fields[0], *fields[2:]):
            return int(fields[1].partition("/")[0])
    return None


def user(name: str) -> int | None:
    """Return a user's number, None for an unknown one."""
    return _number("/etc/passwd", name)


def group(name: str) -> int | None:
    """Return a group's number, None for an unknown one."""
    return _number("/etc/group", name)


def addresses(name: str) -> tuple[Net, ...]:
    """Return all addresses of a host by hosts(5) and the resolver, none for an unknown one."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(ipaddress.ip_network(str(entry[4][0]).partition("%")[0]) for entry in found))


def _number(path: str, name: str) -> int | None:
    if name.isdigit():
        return int(name)
    for words in _lines(path):
        fields = words[0].split(":") if words else []
        if fields[0:1] == [name]:
            return int(fields[2])
    return None


def _lines(path: str) -> list[list[str]]:
    try:
        text = root(path).read_text()
    except FileNotFoundError:
        return []
    return [line.partition("#")[0].split() for line in text.splitlines()]
