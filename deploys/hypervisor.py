"""kvm1 and kvm2: bare Ubuntu machines become hypervisors with their guests on LVM."""

from deploys.base import BASE
from deploys.converge import converge
from deploys.services.hypervisor import Hypervisor
from deploys.services.netplan import Netplan

converge(*BASE, Netplan, Hypervisor)
