"""route(8) and the routing table of netstat(1): contract 4."""

import ipaddress
import json
import sys
from collections.abc import Sequence
from typing import Any

from . import ifconfig
from .program import privileged, warn
from .unmodelled import unmodelled

NOT_MODELLED = (
    "route: monitor, exec, nameserver, sourceaddr, flush, rtables, labels, priorities, multipath, -interface",
    "route show: the numbers of references and uses",
)

_HEAD = f"{'Destination':<18} {'Gateway':<18} {'Flags':<6} {'Refs':>6} {'Use':>8} {'Mtu':>5}  {'Prio':>4} Iface\n"
_HEAD6 = _HEAD.replace(f"{'Destination':<18}", f"{'Destination':<42}").replace(f"{'Gateway':<18}", f"{'Gateway':<42}")


def _short(text: str) -> str:
    """Return a network as netstat(1) prints it: 192.168.1/24, a host without its length."""
    if text == "default":
        return text
    network = ipaddress.ip_network(text)
    if network.prefixlen == network.max_prefixlen:
        return str(network.network_address)
    if network.version == 6:
        return str(network)
    octets = str(network.network_address).split(".")[: max(1, -(-network.prefixlen // 8))]
    return f"{'.'.join(octets)}/{network.prefixlen}"


def _rows(family: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ifconfig.ip("-j", family, "route", "show") or "[]")
    return [route for route in found if route.get("type", "unicast") == "unicast"]


def table(families: Sequence[str]) -> str:
    """Return the routing tables as `route -n show` prints them.

    Args:
        families: `inet` and `inet6`, those that are wanted.
    """
    text = "Routing tables\n"
    for family in families:
        six = family == "inet6"
        width = 42 if six else 18
        text += f"\nInternet{'6' if six else ''}:\n" + (_HEAD6 if six else _HEAD)
        for route in _rows("-6" if six else "-4"):
            device = ifconfig.openbsd_name(route["dev"])
            gateway = route.get("gateway", f"link#{device}")
            flags = (
                ("UGS" if "gateway" in route else "UCn") if "/" in route["dst"] or route["dst"] == "default" else "UGHS"
            )
            text += (
                f"{_short(route['dst']):<{width}} {gateway:<{width}} {flags:<6} "
                f"{0:>6} {0:>8} {'-':>5}  {8 if 'gateway' in route else 4:>4} {device}\n"
            )
    return text


def _kind(argv: Sequence[str], words: list[str]) -> tuple[str, str, list[str]]:
    family, kind = "-4", ""
    rest = []
    for word in words:
        if word in {"-inet", "-inet6"}:
            family = "-6" if word == "-inet6" else "-4"
        elif word in {"-host", "-net"}:
            kind = word[1:]
        elif word.startswith("-"):
            unmodelled("route", argv, f"option {word}")
        else:
            rest.append(word)
    if not rest:
        unmodelled("route", argv, "a destination is missing")
    if any(":" in word for word in rest):
        family = "-6"
    return family, kind, rest


def _gateway(argv: Sequence[str], text: str) -> list[str]:
    address, percent, interface = text.partition("%")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        unmodelled("route", argv, f"gateway {text}")
    return ["via", address, *(["dev", ifconfig.linux_name(interface)] if percent else [])]


def _change(argv: Sequence[str], verb: str, words: list[str], *, quiet: bool) -> int:
    if not privileged():
        unmodelled("route", argv, "changes by another user than root")
    family, kind, rest = _kind(argv, words)
    destination = rest[0]
    if len(rest) > 2 or (len(rest) == 1 and verb != "delete"):
        unmodelled("route", argv, "one destination and one gateway are wanted")
    if destination != "default":
        try:
            destination = str(ipaddress.ip_network(destination))
        except ValueError:
            unmodelled("route", argv, f"destination {destination}")
    kind = kind or ("host" if destination.endswith(("/32", "/128")) else "net")
    via = _gateway(argv, rest[1]) if len(rest) == 2 else []
    gateway = f": gateway {rest[1]}" if len(rest) == 2 else ""
    present = any(route["dst"] in {destination, rest[0]} for route in _rows(family))
    if verb == "add" and present:
        if not quiet:
            warn("add", f"{kind} {rest[0]}{gateway}: File exists")
        return 1
    if verb == "delete" and not present:
        sys.stdout.write("" if quiet else f"delete {kind} {rest[0]}{gateway}: not in table\n")
        return 1
    action = {"add": "add", "change": "replace", "delete": "del"}[verb]
    try:
        ifconfig.ip(family, "route", action, destination, *via)
    except ifconfig.KernelError as error:
        if "unreachable" not in str(error) and "Nexthop" not in str(error):
            unmodelled("route", argv, str(error))
        if not quiet:
            sys.stdout.write(f"{verb} {kind} {rest[0]}{gateway}: Network is unreachable\n")
        return 1
    if not quiet:
        sys.stdout.write(f"{verb} {kind} {rest[0]}{gateway}\n")
    return 0


def main(argv: Sequence[str]) -> int:
    """Run route(8).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    words = list(argv)
    quiet = numeric = False
    while words and words[0].startswith("-"):
        for letter in words.pop(0)[1:]:
            if letter not in "nqv":
                unmodelled("route", argv, f"option -{letter}")
            quiet = quiet or letter == "q"
            numeric = numeric or letter == "n"
    if not words:
        unmodelled("route", argv, "a command is missing")
    verb, *rest = words
    if verb == "show":
        families = {"-inet": ["inet"], "-inet6": ["inet6"]}
        if not numeric or len(rest) > 1 or not set(rest) <= set(families):
            unmodelled("route", argv, "route -n show [-inet | -inet6]")
        sys.stdout.write(table(families[rest[0]] if rest else ["inet", "inet6"]))
        return 0
    if verb not in {"add", "change", "delete"}:
        unmodelled("route", argv, f"command {verb}")
    return _change(argv, verb, rest, quiet=quiet)
