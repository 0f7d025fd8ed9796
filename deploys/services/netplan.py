"""netplan(5), the addresses and bridges of an Ubuntu host, applied by systemd-networkd."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from pydantic import model_validator

from deploys.templates import template
from fleet.model.base import Model
from fleet.model.service import Declaration, FileSet, Service, none_to_keep
from fleet.model.site import Fleet, Host
from fleet.model.types import Mac, Name


class Bridge(Model):
    """A bridge with one physical interface in it, found by its MAC, since interface names change with the hardware.

    The bridge takes the addresses that the host has on `network`, and the MAC of its `uplink`, so neighbours
    notice nothing.
    """

    name: Name
    network: Name
    uplink: Mac


class Netplan(Service):
    """The network of a host: its bridges, all that netplan is told."""

    bridges: tuple[Bridge, ...]

    @model_validator(mode="after")
    def _one_each(self) -> Netplan:
        names = [bridge.name for bridge in self.bridges]
        if len(set(names)) != len(names):
            raise ValueError("each bridge has a name of its own")
        return self

    def networks_named(self) -> Iterable[tuple[str, str]]:
        """Yield the networks that the bridges are on."""
        return (("bridges", bridge.network) for bridge in self.bridges)

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare the bridges that guests can be connected to."""
        del host, fleet
        return Declaration(
            packages=("netplan.io",),
            bridges=tuple(bridge.name for bridge in self.bridges),
            state=none_to_keep("addresses are made from the inventory"),
        )

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield the one netplan file, which takes the place of the installer's (D3)."""
        networks = {network.name: network for network in fleet.site_of(host).networks}
        addresses = {interface.network: interface.addresses for interface in host.interfaces}
        # A bridge that was not there before is taken away again; one that was keeps its guests.
        gone = "; ".join(
            f"[ -e /sys/class/net/{name} ] || echo {shlex.quote(f'ip link delete {name} 2>/dev/null || :')}"
            for name in (bridge.name for bridge in self.bridges)
        )
        yield FileSet(
            name="netplan",
            files=(
                template(
                    "/etc/netplan/60-homefleet.yaml",
                    mode=0o600,
                    bridges=self.bridges,
                    addresses=addresses,
                    networks=networks,
                ),
            ),
            exclusive=("/etc/netplan/*.yaml",),
            check=f"{_cards(self.bridges)}netplan generate --root-dir {{new}}",
            before=gone,
            apply="netplan apply",
            undo="netplan apply",
            undo_at_boot="netplan generate",
            dangerous=True,
        )


def _cards(bridges: tuple[Bridge, ...]) -> str:
    """Return a command that fails unless each uplink is a network card of the host.

    A card that is in a bridge stays in it when the file names another one, so the running network would go on and
    confirm, and the next reboot would lock the owner out.
    """
    return "".join(
        f'for card in /sys/class/net/*/device; do cat "${{card%/device}}/address"; done | grep -qix {bridge.uplink} '
        f"|| {{ echo 'no network card has the MAC {bridge.uplink}'; exit 1; }}; "
        for bridge in bridges
    )
