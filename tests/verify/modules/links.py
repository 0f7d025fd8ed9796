"""Interfaces, bridges and addresses; ip-link(8), ip-address(8)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

from testinfra.host import Host

from tests.verify.modules.base import Asking, Unknown

SHOW = "ip -j -d address show"


@dataclass(frozen=True)
class Link:
    """An interface: `kind` is iproute2's (``bridge``, ``tun``; empty for hardware), `addresses` without link-local."""

    name: str
    kind: str
    mac: str
    up: bool
    master: str | None
    addresses: frozenset[str]


class Links(Asking):
    """All interfaces, from one command.

    >>> links(host).all["br0"].kind
    'bridge'
    """

    @cached_property
    def all(self) -> dict[str, Link]:
        """Every interface by name."""
        try:
            return {link.name: link for link in map(_link, json.loads(self.answer(SHOW)))}
        except (ValueError, KeyError, TypeError) as error:
            raise Unknown(f"ip said what is not understood: {error!r}") from None

    def ports(self, bridge: str) -> tuple[Link, ...]:
        """Return the interfaces in `bridge`."""
        return tuple(link for link in self.all.values() if link.master == bridge)


def _link(said: dict[str, object]) -> Link:
    info = said.get("linkinfo") or {}
    rows = said.get("addr_info") or []
    flags = said.get("flags") or []
    assert isinstance(info, dict) and isinstance(rows, list) and isinstance(flags, list)
    master = said.get("master")
    return Link(
        name=str(said["ifname"]),
        kind=str(info.get("info_kind", "")),
        mac=str(said.get("address", "")),
        up="UP" in flags,
        master=None if master is None else str(master),
        addresses=frozenset(f"{row['local']}/{row['prefixlen']}" for row in rows if row and row.get("scope") != "link"),
    )


def links(host: Host) -> Links:
    """Return the module for `host`."""
    module: Links = Links.get_module(host)
    return module
