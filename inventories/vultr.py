"""The machine at Vultr: ns3, which this repository alone can rebuild."""

from fleet.load import publish
from fleet.model.site import Connection, Host, Interface, Network, Os, Site

site = Site(
    name="vultr",
    domain="chown.me",
    networks=(Network(name="internet", ipv4="192.0.2.0/24", ipv6="2001:db8:3::/64", gateway="192.0.2.1"),),
    hosts=(
        Host(
            name="ns3",
            os=Os.OPENBSD,
            roles=("dns-secondary", "monitoring"),
            purpose="the secondary name server, and the eye on everything else",
            connection=Connection(address="192.0.2.53", escalate="doas"),
            memory="512 MiB",
            cpus=1,
            interfaces=(Interface(network="internet", name="vio0", addresses=("192.0.2.53/24", "2001:db8:3::53/64")),),
        ),
    ),
)

publish(globals(), site)
