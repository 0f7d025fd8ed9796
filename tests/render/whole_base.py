"""The flat with the whole base on its hypervisors, which have only the firewall of it yet: an inventory for tests."""

from deploys.base import base
from deploys.services.nftables import Nftables
from fleet.load import publish
from fleet.model.site import Host, Os
from inventories import home


def _based(host: Host) -> Host:
    if host.os is not Os.UBUNTU or not host.services:
        return host
    others = tuple(service for service in host.services if not isinstance(service, Nftables))
    return host.model_copy(update={"services": (*base(Os.UBUNTU), *others)})


site = home.site.model_copy(update={"hosts": tuple(_based(host) for host in home.site.hosts)})
publish(globals(), site)
