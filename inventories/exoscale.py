"""The machine at Exoscale: virtie, the oldest and the most visible one."""

from fleet.load import publish
from fleet.model.site import Connection, Host, Interface, Network, Os, Site

site = Site(
    name="exoscale",
    domain="chown.me",
    networks=(Network(name="internet", ipv4="198.51.100.0/24", ipv6="2001:db8:2::/64", gateway="198.51.100.1"),),
    hosts=(
        Host(
            name="virtie",
            os=Os.OPENBSD,
            roles=("dns-primary", "mail", "blog", "git"),
            purpose="blog, mail, git and the primary name server",
            connection=Connection(address="198.51.100.80", escalate="doas"),
            memory="1 GiB",
            cpus=1,
            disk="50 GB",
            interfaces=(
                Interface(network="internet", name="vio0", addresses=("198.51.100.80/24", "2001:db8:2::80/64")),
            ),
        ),
    ),
)

publish(globals(), site)
