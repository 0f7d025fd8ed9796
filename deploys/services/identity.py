"""The name of an OpenBSD host, and those it talks to where no name server answers; myname(5), hosts(5)."""

from __future__ import annotations

from collections.abc import Iterable

from deploys.services.router import address_of
from deploys.templates import template
from fleet.model.service import Declaration, FileSet, Service, none_to_keep
from fleet.model.site import Fleet, Host


class Identity(Service):
    """/etc/myname and /etc/hosts: every host of the site by name, and those of other sites that it may come to."""

    base = True

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare nothing but files."""
        del host, fleet
        return Declaration(state=none_to_keep("names and addresses are made from the inventory"))

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield the two files; the running system takes its name from the first."""
        site = fleet.site_of(host)
        known = sorted(
            (address.version, address.ip.packed, f"{address.ip}\t{other.name}.{site.domain} {other.name}")
            for other in site.hosts
            for interface in other.interfaces
            for address in interface.addresses
        )
        others = sorted(
            f"{address_of(other, host, fleet)}\t{fleet.name_of(other)}"
            for other in fleet.hosts()
            if fleet.site_of(other) != site and any(listen.crosses for listen in fleet.listens(other))
        )
        renamed = 'hostname "$(cat /etc/myname)"'
        yield FileSet(
            name="identity",
            files=(
                template("/etc/myname", group="wheel", name=fleet.name_of(host)),
                template("/etc/hosts", group="wheel", lines=[*(line for _, _, line in known), *others]),
            ),
            apply=renamed,
            undo=renamed,
        )
