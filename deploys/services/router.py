"""An OpenBSD host that stands between a network of ours and the internet; pf.conf(5), "Translation"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from pydantic import model_validator

from deploys.services.pf import Net, Talking, alone, braces, collapsed, is_private, shown
from fleet.model.service import Declaration, Listen, none_to_keep
from fleet.model.site import Fleet, Host
from fleet.model.types import Name


class Router(Talking):
    """Lets out what comes from the network `inside`, over the one `outside`; nothing comes in that was not asked for.

    IPv4 leaves with the router's own address, IPv6 as it is. What a host inside declares to cross comes in over IPv4,
    from the peers that it names and nobody else.
    """

    inside: Name
    outside: Name

    @model_validator(mode="after")
    def _two(self) -> Router:
        if self.inside == self.outside:
            raise ValueError(f"{self.inside!r} is inside and outside: a router is between two networks")
        return self

    def networks_named(self) -> Iterable[tuple[str, str]]:
        """Yield the networks that it is between."""
        return (("inside", self.inside), ("outside", self.outside))

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare that the kernel passes packets on."""
        del host, fleet
        return Declaration(
            sysctls=(("net.inet.ip.forwarding", "1"), ("net.inet6.ip6.forwarding", "1")),
            state=none_to_keep("rules are made from the inventory, states of connections come again"),
        )

    def translates(self, host: Host, fleet: Fleet) -> tuple[str, ...]:
        """Return what gives IPv4 the router's own address on its way out, and a host inside what crosses.

        Raises ValueError if two hosts inside want the same port.
        """
        outside = _names(host)[self.outside]
        crossing = tuple(self._crossing(host, fleet))
        ports = [(listen.protocol, listen.port) for _, listen, _ in crossing]
        for protocol, port in {it for it in ports if ports.count(it) > 1}:
            raise ValueError(f"{host.name}: {protocol} port {port} crosses to more than one host")
        return (
            f"match out on {outside} inet tagged through nat-to ({outside})",
            *(
                f"match in on {outside} inet proto {listen.protocol} from {_list(peers)} to ({outside})"
                f" port {listen.port} rdr-to {server}"
                for server, listen, peers in crossing
            ),
        )

    def admits(self, host: Host, fleet: Fleet) -> tuple[str, ...]:
        """Return the rules for what crosses."""
        inside, outside = _names(host)[self.inside], _names(host)[self.outside]
        crossing = [
            f"pass in quick on {outside} inet proto {listen.protocol} from {_list(peers)} to {server}"
            f" port {listen.port} tag crossing"
            for server, listen, peers in self._crossing(host, fleet)
        ]
        return (*crossing, f"pass out quick on {inside} tagged crossing") if crossing else ()

    def filters(self, host: Host, fleet: Fleet) -> tuple[str, ...]:
        """Return the rules for what goes through; the router's own sockets are none of it."""
        del fleet
        inside, outside = _names(host)[self.inside], _names(host)[self.outside]
        here = braces([f"({interface.name})" for interface in host.interfaces])
        return (
            f"block in log quick on {inside} to {here}",
            f"pass in quick on {inside} from ({inside}:network) to any tag through",
            f"pass out quick on {outside} tagged through",
        )

    def shuts(self, host: Host, fleet: Fleet) -> tuple[Net, ...]:
        """Return the peers of what crosses that shall not come in any more."""
        listens = (listen for each in self._inside(host, fleet) for listen in fleet.listens(each) if listen.crosses)
        return tuple(net for listen in listens for net in listen.shut)

    def _inside(self, host: Host, fleet: Fleet) -> Iterator[Host]:
        for other in fleet.site_of(host).hosts:
            if other.name != host.name and any(nic.network == self.inside for nic in other.interfaces):
                yield other

    def _crossing(self, host: Host, fleet: Fleet) -> Iterator[tuple[IPv4Address, Listen, tuple[Net, ...]]]:
        """Yield each socket of a host inside that peers outside may reach: its address, it, and those peers."""
        networks = [it.network for nic in host.interfaces if nic.network == self.inside for it in nic.addresses]
        for other in self._inside(host, fleet):
            for listen in fleet.listens(other):
                peers = tuple(
                    peer
                    for peer in listen.source
                    if isinstance(peer, IPv4Network)
                    and not any(isinstance(net, IPv4Network) and peer.subnet_of(net) for net in networks)
                )
                if listen.crosses and peers:
                    yield first_ipv4(other), listen, peers


def address_of(server: Host, host: Host, fleet: Fleet) -> IPv4Address:
    """Return the address by which `host` reaches what of `server` crosses: at another site its router's, if need be.

    Raises ValueError if the server's site has no router that could hand it on.
    """
    site = fleet.site_of(server)
    own = first_ipv4(server)
    if any(other.name == host.name for other in site.hosts) or not is_private(own):
        return own
    for each in site.hosts:
        router = each.service(Router)
        if router is not None and any(nic.network == router.inside for nic in server.interfaces):
            found = (it.ip for nic in each.interfaces if nic.network == router.outside for it in nic.addresses)
            return next(ip for ip in found if isinstance(ip, IPv4Address))
    raise ValueError(f"{site.name}: {server.name} has no public address, and no router would hand on to it")


def peers_of(server: Host, hosts: Iterable[Host], fleet: Fleet) -> tuple[Net, ...]:
    """Return the IPv4 addresses with which `hosts` come to `server`: at other sites the public ones."""
    site = fleet.site_of(server)
    found = [
        alone(address.ip)
        for host in hosts
        for interface in host.interfaces
        for address in interface.addresses
        if isinstance(address, IPv4Interface)
        and (
            any(address.ip in it.network for nic in server.interfaces for it in nic.addresses)
            if fleet.site_of(host) == site
            else not is_private(address.ip)
        )
    ]
    return collapsed(found)


def first_ipv4(host: Host) -> IPv4Address:
    """Return the first IPv4 address of `host`; ValueError if it has none."""
    for interface in host.interfaces:
        for address in interface.addresses:
            if isinstance(address, IPv4Interface):
                return address.ip
    raise ValueError(f"{host.name} has no IPv4 address")


def _names(host: Host) -> dict[str, str | None]:
    return {interface.network: interface.name for interface in host.interfaces}


def _list(nets: Iterable[Net]) -> str:
    return braces([shown(net) for net in collapsed(nets)])
