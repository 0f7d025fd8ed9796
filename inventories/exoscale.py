"""The machine at Exoscale: virtie, the oldest and the most visible one."""

from deploys.base import base
from fleet.load import publish
from fleet.model.site import Connection, Deployment, Host, Interface, Network, Os, Person, Site

_port = 2247
_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPOnvgR0PYddoToSZqBZP/DmT+mvRFOP9Q4zTBQNvPPB deploy@exoscale"
_owner = Person(
    name="owner",
    full_name="The owner",
    uid=1100,
    public_keys=("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGIGSwtQOKkJldj8LAMGh3I4DO65Ll5yeJjBVOR2zjBP owner",),
)

site = Site(
    name="exoscale",
    domain="chown.me",
    networks=(Network(name="internet", ipv4="198.51.100.0/24", ipv6="2001:db8:2::/64", gateway="198.51.100.1"),),
    people=(_owner,),
    owner="owner@chown.me",
    deployment=Deployment(port=_port, addresses=("203.0.113.2/32", "2001:db8:1::/64")),
    hosts=(
        Host(
            name="virtie",
            os=Os.OPENBSD,
            roles=("dns-primary", "mail", "blog", "git"),
            purpose="blog, mail, git and the primary name server",
            connection=Connection(
                address="198.51.100.80", port=_port, first_port=22, user="deploy", escalate="doas", public_key=_key
            ),
            sshd_port=2022,
            memory="1 GiB",
            cpus=1,
            disk="50 GB",
            interfaces=(
                Interface(network="internet", name="vio0", addresses=("198.51.100.80/24", "2001:db8:2::80/64")),
            ),
            services=base(Os.OPENBSD),
        ),
    ),
)

publish(globals(), site)
