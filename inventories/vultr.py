"""The machine at Vultr: ns3, which this repository alone can rebuild."""

from deploys.base import base
from fleet.load import publish
from fleet.model.site import Connection, Deployment, Host, Interface, Network, Os, Person, Site

_port = 2247
_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFOLQtR8G2A7AjPTXktSbgecWxzKwEdbsuyy1OgNL4aG deploy@vultr"
_owner = Person(
    name="owner",
    full_name="The owner",
    uid=1100,
    public_keys=("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGIGSwtQOKkJldj8LAMGh3I4DO65Ll5yeJjBVOR2zjBP owner",),
)

site = Site(
    name="vultr",
    domain="chown.me",
    networks=(Network(name="internet", ipv4="192.0.2.0/24", ipv6="2001:db8:3::/64", gateway="192.0.2.1"),),
    people=(_owner,),
    owner="owner@chown.me",
    deployment=Deployment(port=_port, addresses=("203.0.113.2/32", "2001:db8:1::/64")),
    hosts=(
        Host(
            name="ns3",
            os=Os.OPENBSD,
            roles=("dns-secondary", "monitoring"),
            purpose="the secondary name server, and the eye on everything else",
            connection=Connection(
                address="192.0.2.53", port=_port, first_port=22, user="deploy", escalate="doas", public_key=_key
            ),
            sshd_port=2022,
            memory="512 MiB",
            cpus=1,
            interfaces=(Interface(network="internet", name="vio0", addresses=("192.0.2.53/24", "2001:db8:3::53/64")),),
            services=base(Os.OPENBSD),
        ),
    ),
)

publish(globals(), site)
