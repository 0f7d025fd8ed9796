"""The networks of the lab: the production ones, an internet between the sites, and the places that tests look from.

The internet is one namespace that routes between the networks that have their gateway there. A network whose gateway
is one of the fleet's hosts (the flat, behind its router) hangs on that host alone: nothing routes private addresses.
The flat's bridge is in the lab's own namespace, where the hypervisors' taps are.

Four places are nobody's host. `home` is the owner's computer on the flat. `owner` is the owner elsewhere, `stranger`
anybody: their addresses are of 100.64.0.0/10, which is carriers' own (RFC 6598), because the documentation networks
(RFC 5737) are all taken by the sites, and neither range can be anybody's production address. `deployer` is the owner's
computer once more, for sites that are reached through the flat's router: the internet gives it the address that the
site accepts deployments from, so that the site's hosts can be deployed while that router is off or not yet one.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, IPv6Network, ip_interface
from pathlib import Path

from fleet.model.site import Host, Network, Os, Site
from tests.lab.host import run
from tests.lab.openbsd.debian import base, loader

FLAT = "flat"
"""The bridge that the hypervisors are on."""

INTERNET = "internet"
PLACES = {
    "owner": ("100.64.1.10/24", "2001:db8:ff01::10/64"),
    "stranger": ("100.64.2.10/24", "2001:db8:ff02::10/64"),
}
DEPLOYER = "deployer"
_DEPLOYER_ADDRESSES = ("100.64.3.10/24",)
HOME = "home"
HOME_ADDRESSES = ("192.168.1.100/24", "2001:db8:1::100/64")
_UPLINK = "up0"


@dataclass(frozen=True)
class Wire:
    """One interface of a namespace, plugged into a bridge.

    Arguments: `namespace` and `interface`, whose wire it is; `mac`; `bridge_namespace` and `bridge`, where it ends.
    """

    namespace: str
    interface: str
    mac: str
    bridge_namespace: str
    bridge: str

    @property
    def peer(self) -> str:
        """The name of the bridge's end: at most 15 letters, and the same every time."""
        return "w" + hashlib.sha256(f"{self.namespace}/{self.interface}".encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Bridge:
    """A network: a bridge in a namespace, with the addresses that the namespace has on it."""

    namespace: str
    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """A namespace that is nobody's host: its addresses on `interface`, and its default routes."""

    namespace: str
    interface: str
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """All that has to be there before the hosts are switched on.

    Arguments: `router`, the namespace that routes; `translations`, pairs of a network and the address that the
    deployer is given towards it.
    """

    namespaces: tuple[str, ...]
    bridges: tuple[Bridge, ...]
    wires: tuple[Wire, ...]
    places: tuple[Place, ...]
    router: str
    translations: tuple[tuple[str, str], ...]


def stand_ins(sites: Iterable[Site]) -> list[Host]:
    """Return the hosts that the lab plays as OpenBSD stand-ins, in the inventory's order.

    Args:
        sites: the production sites.
    """
    return [host for site in sites for host in site.hosts if host.os is Os.OPENBSD]


def interface_name(host: Host, index: int) -> str:
    """Return what an interface of a host is called: its name, or that of a guest's virtio(4).

    Args:
        host: the host.
        index: which of its interfaces.
    """
    return host.interfaces[index].name or f"vio{index}"


def mac(host: Host, index: int) -> str:
    """Return the MAC of an interface: the inventory's, a guest's own, or one made of the names.

    Args:
        host: the host.
        index: which of its interfaces.
    """
    if host.guest is not None and index < len(host.guest.nics):
        return host.mac(index)
    given = host.interfaces[index].mac
    digest = hashlib.sha256(f"{host.name}/{index}".encode()).digest()
    return given or "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def gateway6(network: Network) -> str | None:
    """Return the IPv6 address of a network's router: its first one; None without a prefix.

    Args:
        network: the network.
    """
    return None if network.ipv6 is None else str(network.ipv6[1])


def inside(site: Site, network: Network) -> bool:
    """Tell whether a network's router is a host of the site, so that the internet does not route it.

    Args:
        site: the site.
        network: one of its networks.
    """
    return any(
        address.ip == network.gateway
        for host in site.hosts
        for interface in host.interfaces
        for address in interface.addresses
    )


def plan(sites: Iterable[Site], prefix: str) -> Plan:
    """Return the lab's networks.

    Args:
        sites: the production sites.
        prefix: the lab's own namespace, such as `hf0`; it has the flat's bridge already, the others are `hf0-NAME`.
    """
    sites = tuple(sites)
    internet = f"{prefix}-{INTERNET}"
    bridges: list[Bridge] = []
    wires: list[Wire] = []
    places: list[Place] = []
    where: dict[tuple[str, str], tuple[str, str]] = {}
    for site in sites:
        for network in site.networks:
            if inside(site, network):
                where[site.name, network.name] = (prefix, FLAT)
                continue
            name = f"net{len(bridges)}"
            where[site.name, network.name] = (internet, name)
            bridges.append(Bridge(internet, name, tuple(_router_addresses(network))))
        for host in stand_ins((site,)):
            for index, interface in enumerate(host.interfaces):
                ends = where[site.name, interface.network]
                wires.append(
                    Wire(f"{prefix}-{host.name}", interface_name(host, index), mac(host, index), ends[0], ends[1])
                )
    for name, addresses in {**PLACES, DEPLOYER: _DEPLOYER_ADDRESSES}.items():
        namespace = f"{prefix}-{name}"
        bridges.append(Bridge(internet, name, tuple(_first_of(address) for address in addresses)))
        wires.append(Wire(namespace, _UPLINK, _place_mac(name), internet, name))
        gateways = tuple(_first_of(address).partition("/")[0] for address in addresses)
        places.append(Place(namespace, _UPLINK, addresses, gateways))
    wires.append(Wire(f"{prefix}-{HOME}", _UPLINK, _place_mac(HOME), prefix, FLAT))
    gateways = tuple(_first_of(address).partition("/")[0] for address in HOME_ADDRESSES)
    places.append(Place(f"{prefix}-{HOME}", _UPLINK, HOME_ADDRESSES, gateways))
    namespaces = dict.fromkeys([internet, *(wire.namespace for wire in wires)])
    return Plan(tuple(namespaces), tuple(bridges), tuple(wires), tuple(places), internet, tuple(_translations(sites)))


def _translations(sites: Iterable[Site]) -> Iterator[tuple[str, str]]:
    for site in sites:
        single = [net for net in site.deployment.addresses if net.num_addresses == 1] if site.deployment else []
        accepted = next((net.network_address for net in single if net.version == 4), None)
        for network in site.networks:
            if accepted is not None and network.ipv4 is not None and not inside(site, network):
                yield str(network.ipv4), str(accepted)


def _router_addresses(network: Network) -> Iterator[str]:
    if network.gateway is not None and network.ipv4 is not None:
        yield f"{network.gateway}/{network.ipv4.prefixlen}"
    if network.ipv6 is not None:
        yield f"{gateway6(network)}/{network.ipv6.prefixlen}"


def _first_of(address: str) -> str:
    found = ip_interface(address).network
    return f"{found[1]}/{found.prefixlen}"


def _place_mac(name: str) -> str:
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in hashlib.sha256(name.encode()).digest()[:3])


def make(wanted: Plan) -> None:
    """Make what is missing of the networks; what is there stays as it is.

    Args:
        wanted: the plan.

    Raises:
        LabError: a command failed.
    """
    there = {path.name for path in Path("/run/netns").iterdir()}
    for namespace in wanted.namespaces:
        if namespace not in there:
            run(["ip", "netns", "add", namespace])
            settings = ["net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.default.accept_ra=0"]
            if namespace == wanted.router:
                settings += ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]
            for setting in settings:
                name, _, value = setting.partition("=")
                enter = ["nsenter", f"--net=/run/netns/{namespace}"]
                run([*enter, "sh", "-c", f"echo {value} >/proc/sys/{name.replace('.', '/')}"])
    links = {name: _links(name) for name in {*wanted.namespaces, *(wire.bridge_namespace for wire in wanted.wires)}}
    for bridge in wanted.bridges:
        if bridge.name not in links[bridge.namespace]:
            _batch(bridge.namespace, _bridge_commands(bridge))
    for wire in wanted.wires:
        if wire.interface not in links[wire.namespace]:
            _batch(
                wire.namespace,
                [
                    f"link add {wire.interface} address {wire.mac} type veth peer name {wire.peer} "
                    f"netns {wire.bridge_namespace}"
                ],
            )
            _batch(wire.bridge_namespace, [f"link set {wire.peer} master {wire.bridge} up"])
    if any(bridge.name not in links[bridge.namespace] for bridge in wanted.bridges):
        _translate(wanted)
    for place in wanted.places:
        if place.interface not in links[place.namespace]:
            _batch(place.namespace, _place_commands(place))


def _translate(wanted: Plan) -> None:
    source = str(ip_interface(_DEPLOYER_ADDRESSES[0]).ip)
    rules = "".join(
        f"ip saddr {source} ip daddr {network} snat to {address}\n" for network, address in wanted.translations
    )
    nft = [*("nsenter", f"--net=/run/netns/{wanted.router}"), *loader(base() / "root", "nft"), "-f", "-"]
    run(nft, stdin=f"table ip deployer {{\nchain out {{\ntype nat hook postrouting priority srcnat\n{rules}}}\n}}\n")


def _bridge_commands(bridge: Bridge) -> Iterator[str]:
    yield "link set lo up"
    yield f"link add {bridge.name} type bridge stp_state 0 forward_delay 0"
    for address in bridge.addresses:
        yield f"address add {address} dev {bridge.name}{_no_dad(address)}"
    yield f"link set {bridge.name} up"


def _place_commands(place: Place) -> Iterator[str]:
    yield "link set lo up"
    for address in place.addresses:
        yield f"address add {address} dev {place.interface}{_no_dad(address)}"
    yield f"link set {place.interface} up"
    for gateway in place.gateways:
        yield f"route add default via {gateway}"


def _no_dad(address: str) -> str:
    return " nodad" if isinstance(ip_interface(address), IPv6Interface) else ""


def _links(namespace: str) -> set[str]:
    return {link["ifname"] for link in json.loads(run(["ip", "-n", namespace, "-j", "link"]))}


def _batch(namespace: str, commands: Iterable[str]) -> None:
    run(["ip", "-n", namespace, "-batch", "-"], stdin="".join(f"{command}\n" for command in commands))


def installed_files(site: Site, host: Host) -> dict[str, str]:
    """Return the network files that the installer leaves on a host; hostname.if(5), mygate(5), myname(5).

    Args:
        site: the host's site.
        host: the host.

    Returns:
        Text by path below the root.
    """
    files = {"etc/myname": f"{host.name}.{site.domain}\n"}
    networks = {network.name: network for network in site.networks}
    own = {address.ip for interface in host.interfaces for address in interface.addresses}
    gateways: list[str] = []
    for index, interface in enumerate(host.interfaces):
        lines = [f"{_line(address)}\n" for address in interface.addresses]
        files[f"etc/hostname.{interface_name(host, index)}"] = "".join(lines)
        network = networks[interface.network]
        if network.gateway is not None and network.gateway not in own:
            gateways.append(str(network.gateway))
            if isinstance(network.ipv6, IPv6Network) and (router := gateway6(network)):
                gateways.append(router)
    files["etc/mygate"] = "".join(f"{gateway}\n" for gateway in gateways)
    return files


def _line(address: IPv4Interface | IPv6Interface) -> str:
    if isinstance(address, IPv4Interface):
        return f"inet {address.ip} {address.network.netmask}"
    return f"inet6 {address.ip} {address.network.prefixlen}"
