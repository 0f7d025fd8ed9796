"""The stand-in's interfaces, as pf(4) asks for them: by name, by group, and by the address they have now."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
from dataclasses import dataclass
from typing import Any

from ..ifconfig import load as kept_by_ifconfig  # noqa: TID252 (as in `names`)
from .model import Addr, Ip, Net

IP = "/usr/lib/standin/bin/ip"
_CLONED = frozenset(
    """
    aggr bridge carp enc gif gre lo pair pflog pflow pppoe svlan tap tpmr trunk tun veb vether vlan vport vxlan wg
    """.split()  # noqa: SIM905 (as in `parser`)
)
"""The interfaces that are made by name, each in a group of its kind; ifconfig(8)."""


@dataclass(frozen=True)
class Interface:
    """An interface and its addresses; link-local ones are left out, which Linux does not tell apart by interface."""

    name: str
    loopback: bool = False
    addresses: tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, ...] = ()
    broadcasts: tuple[Ip, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Network:
    """All interfaces, and the names of those in the group `egress`: the ones with a default route."""

    interfaces: tuple[Interface, ...] = ()
    egress: tuple[str, ...] = ()

    def members(self, name: str) -> tuple[Interface, ...]:
        """Return the interfaces that a name means.

        Args:
            name: an interface, a group (which ends in no digit; ifconfig(8)), or `self` for all.

        Returns:
            Those that are there.
        """
        if name == "self":
            return self.interfaces
        if name == "egress":
            return tuple(found for found in self.interfaces if found.name in self.egress)
        if is_group(name):
            return tuple(found for found in self.interfaces if name in found.groups or name == kind(found))
        return tuple(found for found in self.interfaces if openbsd(found) == name)

    def linux_names(self, name: str) -> tuple[str, ...]:
        """Return the names by which nftables knows an interface or the members of a group, there yet or not."""
        found = tuple(member.name for member in self.members(name))
        return found or (() if is_group(name) else (name,))

    def networks(self, name: str, modifiers: tuple[str, ...]) -> tuple[Net, ...]:
        """Return the addresses that `IF`, `IF:0`, `IF:network` or `IF:broadcast` stands for; pf.conf(5).

        Args:
            name: an interface, a group or `self`.
            modifiers: what follows its name after colons.

        Returns:
            Networks, of full length for an address.
        """
        result: list[Net] = []
        for member in self.members(name):
            if "broadcast" in modifiers:
                result += [ipaddress.ip_network(address) for address in member.broadcasts]
                continue
            seen: set[int] = set()
            for address in member.addresses:
                if "0" in modifiers and address.version in seen:
                    continue
                seen.add(address.version)
                result.append(address.network if "network" in modifiers else ipaddress.ip_network(address.ip))
        return tuple(dict.fromkeys(result))

    def resolved(self, addr: Addr) -> tuple[Net, ...]:
        """Return what an address in parentheses means at this moment."""
        return self.networks(addr.name, addr.modifiers)


def is_group(name: str) -> bool:
    """Return whether a name is one of a group of interfaces."""
    return not name[-1:].isdigit()


def kind(interface: Interface) -> str:
    """Return the group that an interface is in by its birth, empty for one of hardware."""
    name = openbsd(interface).rstrip("0123456789")
    return name if name in _CLONED else ""


def openbsd(interface: Interface) -> str:
    """Return an interface's name on OpenBSD: the loopback is lo0."""
    return "lo0" if interface.loopback else interface.name


def present() -> Network:
    """Return the network as it is.

    Returns:
        The interfaces of this network namespace.

    Raises:
        subprocess.CalledProcessError: ip(8) failed.
    """
    interfaces, kept = [], kept_by_ifconfig()
    for link in _ip("address", "show"):
        addresses, broadcasts = [], []
        for info in link.get("addr_info", ()):
            if "local" not in info or info.get("scope") == "link":
                continue
            addresses.append(ipaddress.ip_interface(f"{info['local']}/{info['prefixlen']}"))
            if "broadcast" in info:
                broadcasts.append(ipaddress.ip_address(info["broadcast"]))
        loopback = "LOOPBACK" in link["flags"]
        own = tuple(kept.get(link["ifname"], {}).get("groups", ()))
        interfaces.append(Interface(link["ifname"], loopback, tuple(addresses), tuple(broadcasts), own))
    routes = _ip("-4", "route", "show", "default") + _ip("-6", "route", "show", "default")
    return Network(tuple(interfaces), tuple(sorted({route["dev"] for route in routes if "dev" in route})))


def _ip(*words: str) -> list[dict[str, Any]]:
    argv = [os.environ.get("STANDIN_IP", IP), "-json", *words]
    out = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout
    found: list[dict[str, Any]] = json.loads(out or "[]")
    return found
