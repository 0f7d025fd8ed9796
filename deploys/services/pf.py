"""pf(4), the firewall of an OpenBSD host: default deny both ways, derived from what the host's services declare.

Read pf.conf(5) with this. The rules load at boot, before any daemon and without a name service: numbers, users of the
base system, and the addresses of an interface as ``(em0)``, which pf looks up when a packet comes (contract, 14).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses
from typing import Literal

from pydantic import Field

from deploys.templates import template
from fleet.model.base import Model
from fleet.model.service import ANYONE, Declaration, FileSet, Job, Listen, Service, Table, none_to_keep
from fleet.model.site import Fleet, Host
from fleet.model.types import Port
from operations.openbsd.network import SAVE_RULES

CONF = "/etc/pf.conf"

BANS = Table(name="api_bans")
"""Addresses that the whole fleet bans: filled from outside pf.conf, and kept when the rules are loaded anew."""

Net = IPv4Network | IPv6Network

# What is private to a site says nothing about another site's network of the same number.
_PRIVATE = (
    tuple(IPv4Network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
    (IPv6Network("fc00::/7"),),
)

_ENABLED = "pfctl -si | grep -q '^Status: Enabled' || pfctl -e"


class Limited(Listen):
    """A TCP socket whose too eager clients are banned from the host; pf.conf(5), "Stateful Tracking Options".

    Arguments: `table`, that takes them, declared beside; `connections`, how many a client has open at once; `rate`,
    how many new ones in how many seconds.
    """

    protocol: Literal["tcp"] = "tcp"
    table: str
    connections: int = Field(default=20, ge=1)
    rate: tuple[int, int] = (15, 60)


class Connect(Model):
    """What a service of the host opens a connection to: pf lets out nothing else.

    Arguments: `ports`; `to`, networks; `user`, of the base system, that the socket belongs to, None for any.
    """

    ports: tuple[Port, ...] = Field(min_length=1)
    protocols: tuple[Literal["tcp", "udp"], ...] = ("tcp",)
    to: tuple[Net, ...] = ANYONE
    user: str | None = None


class Talking(Service):
    """A service that opens connections of its own, or that needs rules of its own."""

    def connects(self, host: Host, fleet: Fleet) -> tuple[Connect, ...]:
        """Return what it connects to. Pure."""
        del host, fleet
        return ()

    def translates(self, host: Host, fleet: Fleet) -> tuple[str, ...]:
        """Return ``match`` lines of pf.conf(5), which come before every rule that could end the evaluation."""
        del host, fleet
        return ()

    def admits(self, host: Host, fleet: Fleet) -> tuple[str, ...]:
        """Return lines of pf.conf(5) for peers that the inventory names, who come in whatever the bans say."""
        del host, fleet
        return ()

    def filters(self, host: Host, fleet: Fleet) -> tuple[str, ...]:
        """Return lines of pf.conf(5) for what is neither a socket of the host nor a connection of it: routing."""
        del host, fleet
        return ()

    def shuts(self, host: Host, fleet: Fleet) -> tuple[Net, ...]:
        """Return who shall not come in any more, beside those that sockets of the host are shut for."""
        del host, fleet
        return ()


def expiry(table: Table) -> Job:
    """Return the job that takes addresses out of `table` when they have been in it for its time."""
    return Job(schedule="~ * * * *", flags="n", command=f"pfctl -q -t {table.name} -T expire {table.expires}")


def own_addresses(host: Host, fleet: Fleet) -> tuple[Net, ...]:
    """Return what no ban may hit on `host`: the hosts of its site, the others' public ones, the deployment's."""
    site = fleet.site_of(host)
    found: list[Net] = list(site.deployment.addresses) if site.deployment is not None else []
    for other in fleet.sites:
        addresses = [address.ip for each in other.hosts for nic in each.interfaces for address in nic.addresses]
        found += [alone(address) for address in addresses if other.name == site.name or not is_private(address)]
    return collapsed(found)


def collapsed(nets: Iterable[Net]) -> tuple[Net, ...]:
    """Return `nets` sorted, IPv4 first, without those that lie in others of them: pf refuses such a table."""
    given = list(nets)
    four = collapse_addresses(net for net in given if isinstance(net, IPv4Network))
    six = collapse_addresses(net for net in given if isinstance(net, IPv6Network))
    return (*four, *six)


def shown(net: Net) -> str:
    """Return `net` as pf.conf(5) and sshd_config(5) have it: a single address without its length."""
    return str(net.network_address) if net.prefixlen == net.max_prefixlen else str(net)


class Pf(Service):
    """The ruleset. It is derived from everything that the host declares, whichever role is deployed.

    Arguments: `state_defaults`, options of every state, such as ``pflow``: repeated wherever a rule has state options
    of its own, which would replace them (contract, 0.3).
    """

    base = True

    state_defaults: tuple[str, ...] = ()

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare the table of the fleet's bans. pf itself is enabled by rc.conf(8)."""
        del host, fleet
        return Declaration(
            tables=(BANS,),
            state=none_to_keep("rules are made from the inventory, bans come again"),
        )

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield pf.conf, checked by pfctl(8) and applied with confirm-or-rollback (DESIGN D3)."""
        listens = fleet.listens(host)
        talking = [service for service in host.services if isinstance(service, Talking)]
        tables = {table.name: table for _, said in fleet.declarations(host) for table in said.tables}
        for listen in listens:
            for name in _tables_of(listen):
                tables.setdefault(name, Table(name=name))
        shut = collapsed(
            [
                *(net for listen in listens for net in listen.shut),
                *(net for service in talking for net in service.shuts(host, fleet)),
            ]
        )
        banning = {listen.table for listen in listens if isinstance(listen, Limited)} | {BANS.name}
        yield FileSet(
            name="pf",
            files=(
                template(
                    CONF,
                    group="wheel",
                    mode=0o600,
                    own=[shown(net) for net in own_addresses(host, fleet)],
                    tables=[tables[name] for name in sorted(tables)],
                    banning=sorted(banning),
                    here=braces([f"({interface.name})" for interface in host.interfaces]),
                    attached=[
                        (interface.name, _numbers(address.network for address in interface.addresses))
                        for interface in host.interfaces
                        if interface.addresses
                    ],
                    itself=_numbers(alone(it.ip) for interface in host.interfaces for it in interface.addresses),
                    spared=[_words(listen) for listen in listens if _is_for_anyone(listen)],
                    known=[
                        (_words(listen), _source(listen), self._limits(listen))
                        for listen in listens
                        if not _is_for_anyone(listen) and (listen.source or listen.during)
                    ],
                    open=[(_words(listen), self._limits(listen)) for listen in listens if _is_for_anyone(listen)],
                    going_out=[line for service in talking for line in _out(service.connects(host, fleet))],
                    matches=[line for service in talking for line in service.translates(host, fleet)],
                    admitted=[line for service in talking for line in service.admits(host, fleet)],
                    rules=[line for service in talking for line in service.filters(host, fleet)],
                    defaults=", ".join(self.state_defaults),
                ),
            ),
            check=f"pfctl -nf {{new}}{CONF}",
            before=SAVE_RULES,
            undo=":",
            # A state outlives the rule that made it.
            apply="".join([f"pfctl -f {CONF} && {{ {_ENABLED}; }}", *(f" && pfctl -k {shown(net)}" for net in shut)]),
            undo_at_boot=f"pfctl -f {CONF}",
            dangerous=True,
        )

    def _limits(self, listen: Listen) -> str:
        if not isinstance(listen, Limited):
            return ""
        options = (
            f"max-src-conn {listen.connections}",
            f"max-src-conn-rate {listen.rate[0]}/{listen.rate[1]}",
            f"overload <{listen.table}> flush global",
            *self.state_defaults,
        )
        return f" keep state ({', '.join(options)})"


def _tables_of(listen: Listen) -> Iterator[str]:
    if listen.during is not None:
        yield listen.during
    if isinstance(listen, Limited):
        yield listen.table


def _is_for_anyone(listen: Listen) -> bool:
    return listen.during is None and set(listen.source) >= set(ANYONE)


def _words(listen: Listen) -> tuple[str, str]:
    """Return protocol and port of a socket, in pf's words."""
    return listen.protocol, f"{listen.port}:{listen.last_port}" if listen.last_port else str(listen.port)


def _source(listen: Listen) -> str:
    return f"<{listen.during}>" if listen.during is not None else _numbers(listen.source)


def _numbers(nets: Iterable[Net]) -> str:
    return braces([shown(net) for net in collapsed(nets)])


def _out(connects: Sequence[Connect]) -> Iterator[str]:
    for connect in connects:
        to = "any" if set(connect.to) >= set(ANYONE) else _numbers(connect.to)
        user = "" if connect.user is None else f" user {connect.user}"
        ports = braces([str(port) for port in sorted(connect.ports)])
        yield f"proto {braces(sorted(connect.protocols))} to {to} port {ports}{user}"


def braces(words: Sequence[str]) -> str:
    """Return `words` as pf.conf(5) has a list of them, one word without braces."""
    return words[0] if len(words) == 1 else f"{{ {' '.join(words)} }}"


def alone(address: IPv4Address | IPv6Address) -> Net:
    """Return the network that has only `address` in it."""
    return IPv4Network(address) if isinstance(address, IPv4Address) else IPv6Network(address)


def is_private(address: IPv4Address | IPv6Address) -> bool:
    """Return whether `address` means something at its own site only; RFC 1918, RFC 4193."""
    if isinstance(address, IPv4Address):
        return any(address in net for net in _PRIVATE[0])
    return any(address in net for net in _PRIVATE[1])
