"""unbound(8) on the loopback address, the resolver of an OpenBSD host; unbound.conf(5), resolv.conf(5)."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from deploys.rcd import back, restarted
from deploys.services.pf import Connect, Talking, alone
from deploys.templates import template
from fleet.model.service import Daemon, Declaration, FileSet, Listen, none_to_keep
from fleet.model.site import Fleet, Host
from fleet.model.types import Name

CONF = "/var/unbound/etc/unbound.conf"

# unbound-checkconf wants the file inside its chroot, and a trust anchor that rc.d(8) fetches before the first start.
_CHECK = f"""\
{{ grep -v auto-trust-anchor-file {{new}}{CONF}; printf 'server:\\n\\tchroot: ""\\n'; }} >{{new}}/checked.conf \
&& unbound-checkconf {{new}}/checked.conf"""


# resolvd(8) watches resolv.conf: once it is replaced, it puts the name servers that it has learned before our lines,
# in a file of its own. So it stops before the swap, and the operation for daemons then finds it off.
_QUIET = """\
if rcctl check resolvd >/dev/null; then
	rcctl stop resolvd >/dev/null || exit 1
	echo 'rcctl start resolvd'
fi"""


class Resolver(Talking):
    """A validating resolver for the host, and for the `networks` named that the host is on.

    With `forwarders` it asks these, without it asks the world.
    """

    base = True

    networks: tuple[Name, ...] = ()
    forwarders: tuple[IPv4Address | IPv6Address, ...] = ()

    def networks_named(self) -> Iterable[tuple[str, str]]:
        """Yield the networks whose hosts may ask."""
        return (("networks", name) for name in self.networks)

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare unbound, and that resolvd(8), which would write resolv.conf, stays off."""
        listens = [
            Listen(port=53, protocol=protocol, source=self._clients(host, fleet))
            for protocol in ("tcp", "udp")
            if self.networks
        ]
        return Declaration(
            listens=tuple(listens),
            daemons=(Daemon(name="resolvd", enabled=False), Daemon(name="unbound")),
            state=none_to_keep("a cache, and a trust anchor that is fetched again"),
        )

    def connects(self, host: Host, fleet: Fleet) -> tuple[Connect, ...]:
        """Return the name servers that it asks."""
        del host, fleet
        asked = Connect(ports=(53,), protocols=("tcp", "udp"), user="_unbound")
        if not self.forwarders:
            return (asked,)
        return (asked.model_copy(update={"to": tuple(alone(address) for address in self.forwarders)}),)

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield unbound.conf and resolv.conf as one set: neither is of use without the other."""
        domain = fleet.site_of(host).domain
        here = [it.ip for nic in host.interfaces if nic.network in self.networks for it in nic.addresses]
        yield FileSet(
            name="resolver",
            files=(
                template(
                    CONF, group="wheel", forwarders=self.forwarders, here=here, clients=self._clients(host, fleet)
                ),
                template("/etc/resolv.conf", group="wheel", domain=domain),
            ),
            check=_CHECK,
            before=_QUIET,
            # A package may have to be fetched by the next operation: names are resolved at once.
            apply=f"rcctl enable unbound && {{ rcctl check unbound >/dev/null || rcctl start unbound; }} "
            # unbound.conf(5): interfaces are not changed on a reload.
            f"&& {restarted('unbound')}",
            undo=back("unbound", "restart"),
        )

    def _clients(self, host: Host, fleet: Fleet) -> tuple[IPv4Network | IPv6Network, ...]:
        networks = [network for network in fleet.site_of(host).networks if network.name in self.networks]
        return tuple(prefix for each in networks for prefix in (each.ipv4, each.ipv6) if prefix is not None)
