"""The flat: the router, the two hypervisors and their guests."""

from deploys.base import base
from deploys.services.hypervisor import Hypervisor
from deploys.services.logserver import LogServer
from deploys.services.netplan import Bridge, Netplan
from deploys.services.resolver import Resolver
from deploys.services.router import Router
from fleet.load import publish
from fleet.model.service import VolumeGroup
from fleet.model.site import Connection, Deployment, Disk, Guest, Host, Interface, Network, Nic, Os, Person, Site

_port = 2247
_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK7qk80DdvghM/paBeJ/zLqbB8P7GsTNqdmQr2hg42lj deploy@home"
_owner = Person(
    name="owner",
    full_name="The owner",
    uid=1100,
    public_keys=("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGIGSwtQOKkJldj8LAMGh3I4DO65Ll5yeJjBVOR2zjBP owner",),
)

# The installer leaves one partition with this label; all guests are in it.
_guests = VolumeGroup(name="guests", device="/dev/disk/by-partlabel/guests", size="220 GiB")
_lan = (Nic(bridge="br0"),)

site = Site(
    name="home",
    domain="chown.me",
    networks=(
        Network(name="isp", ipv4="203.0.113.0/24", gateway="203.0.113.1"),
        Network(name="flat", ipv4="192.168.1.0/24", ipv6="2001:db8:1::/64", gateway="192.168.1.1"),
    ),
    people=(_owner,),
    owner="owner@chown.me",
    deployment=Deployment(port=_port, addresses=("192.168.1.0/24", "2001:db8:1::/64")),
    hosts=(
        Host(
            name="pancake",
            os=Os.OPENBSD,
            roles=("router", "metrics"),
            purpose="the flat's router, flows and graphs",
            connection=Connection(
                address="192.168.1.1", port=_port, first_port=22, user="deploy", escalate="doas", public_key=_key
            ),
            sshd_port=2022,
            memory="4 GiB",
            cpus=4,
            interfaces=(
                Interface(network="isp", name="em0", addresses=("203.0.113.2/24",)),
                Interface(network="flat", name="em1", addresses=("192.168.1.1/24", "2001:db8:1::1/64")),
            ),
            services=(*base(Os.OPENBSD, Resolver(networks=("flat",))), Router(inside="flat", outside="isp")),
        ),
        Host(
            name="kvm1",
            os=Os.UBUNTU,
            roles=("hypervisor",),
            purpose="the hypervisor that is always on",
            connection=Connection(
                address="192.168.1.11", port=_port, first_port=22, user="deploy", escalate="sudo", public_key=_key
            ),
            sshd_port=2022,
            memory="20 GiB",
            cpus=4,
            disk="256 GB",
            interfaces=(Interface(network="flat", addresses=("192.168.1.11/24", "2001:db8:1::11/64")),),
            services=(
                *base(Os.UBUNTU),
                Netplan(bridges=(Bridge(name="br0", network="flat", uplink="52:54:00:c8:01:0b"),)),
                Hypervisor(volume_groups=(_guests,)),
            ),
        ),
        Host(
            name="kvm2",
            os=Os.UBUNTU,
            roles=("hypervisor",),
            purpose="a desktop that is a second hypervisor when its Ubuntu is booted",
            presence="sometimes",
            connection=Connection(
                address="192.168.1.12", port=_port, first_port=22, user="deploy", escalate="sudo", public_key=_key
            ),
            sshd_port=2022,
            memory="16 GiB",
            cpus=4,
            disk="256 GB",
            interfaces=(Interface(network="flat", addresses=("192.168.1.12/24", "2001:db8:1::12/64")),),
            services=(
                *base(Os.UBUNTU),
                Netplan(bridges=(Bridge(name="br0", network="flat", uplink="52:54:00:c8:01:0c"),)),
                Hypervisor(volume_groups=(_guests,)),
            ),
        ),
        Host(
            name="manicouagan1",
            os=Os.OPENBSD,
            roles=("backup", "logs"),
            purpose="backups of every machine, and the log server",
            connection=Connection(
                address="192.168.1.21", port=_port, first_port=22, user="deploy", escalate="doas", public_key=_key
            ),
            sshd_port=2022,
            interfaces=(Interface(network="flat", name="vio0", addresses=("192.168.1.21/24", "2001:db8:1::21/64")),),
            services=(*base(Os.OPENBSD), LogServer()),
            guest=Guest(
                home="kvm1",
                vcpus=1,
                memory="2 GiB",
                disks=(
                    Disk(group="guests", name="root", size="16 GiB"),
                    Disk(group="guests", name="backup", size="60 GiB"),
                ),
                nics=_lan,
                console=7021,
                encrypted=True,
            ),
        ),
        Host(
            name="db1",
            os=Os.OPENBSD,
            roles=("database",),
            purpose="PostgreSQL and Redis",
            connection=Connection(
                address="192.168.1.22", port=_port, first_port=22, user="deploy", escalate="doas", public_key=_key
            ),
            sshd_port=2022,
            interfaces=(Interface(network="flat", name="vio0", addresses=("192.168.1.22/24", "2001:db8:1::22/64")),),
            services=base(Os.OPENBSD),
            guest=Guest(
                home="kvm1",
                vcpus=2,
                memory="2 GiB",
                disks=(
                    Disk(group="guests", name="root", size="12 GiB"),
                    Disk(group="guests", name="data", size="20 GiB"),
                ),
                nics=_lan,
                console=7022,
                encrypted=True,
            ),
        ),
        Host(
            name="web1",
            os=Os.OPENBSD,
            roles=("web",),
            purpose="all websites but the blog, and the proxy of the containers",
            connection=Connection(
                address="192.168.1.23", port=_port, first_port=22, user="deploy", escalate="doas", public_key=_key
            ),
            sshd_port=2022,
            interfaces=(Interface(network="flat", name="vio0", addresses=("192.168.1.23/24", "2001:db8:1::23/64")),),
            services=base(Os.OPENBSD),
            guest=Guest(
                home="kvm1",
                vcpus=2,
                memory="3 GiB",
                disks=(
                    Disk(group="guests", name="root", size="12 GiB"),
                    Disk(group="guests", name="www", size="40 GiB"),
                ),
                nics=_lan,
                console=7023,
                encrypted=True,
            ),
        ),
        Host(
            name="docker2",
            os=Os.UBUNTU,
            roles=("containers",),
            purpose="the containers, none of which keeps anything",
            connection=Connection(address="192.168.1.24"),
            interfaces=(Interface(network="flat", addresses=("192.168.1.24/24", "2001:db8:1::24/64")),),
            guest=Guest(
                home="kvm1",
                vcpus=2,
                memory="4 GiB",
                disks=(Disk(group="guests", name="root", size="30 GiB"),),
                nics=_lan,
                console=7024,
                encrypted=True,
            ),
        ),
    ),
)

publish(globals(), site)
