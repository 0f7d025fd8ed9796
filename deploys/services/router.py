"""An OpenBSD host that stands between a network of ours and the internet; pf.conf(5), "Translation"."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import model_validator

from deploys.services.pf import Talking, braces
from fleet.model.service import Declaration, none_to_keep
from fleet.model.site import Fleet, Host
from fleet.model.types import Name


class Router(Talking):
    """Lets out what comes from the network `inside`, over the one `outside`; nothing comes in that was not asked for.

    IPv4 leaves with the router's own address, IPv6 as it is.
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
        """Return what gives IPv4 the router's own address on its way out."""
        del fleet
        outside = _names(host)[self.outside]
        return (f"match out on {outside} inet tagged through nat-to ({outside})",)

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


def _names(host: Host) -> dict[str, str | None]:
    return {interface.network: interface.name for interface in host.interfaces}
