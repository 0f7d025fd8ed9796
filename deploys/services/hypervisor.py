"""libvirt, QEMU and LVM: a host that runs guests, each on logical volumes of its own."""

from __future__ import annotations

from collections.abc import Iterable

from deploys.services.sshd import Restricted
from deploys.templates import template
from facts.linux.domain import PEERS, PORTS, Definition, Interface, Kernel, disks, to_xml, uuid_of
from facts.linux.migration import ACCOUNT, GROUP, KEYS
from fleet.model.service import (
    Daemon,
    Declaration,
    File,
    FileSet,
    Listen,
    Service,
    VolumeGroup,
    none_to_keep,
)
from fleet.model.site import Fleet, Host, KernelBoot, NetworkBoot

MOVES = Restricted(  # noqa: S604 - the shell of passwd(5)
    name=ACCOUNT,
    comment="Moves of guests",
    home=f"/var/lib/{ACCOUNT}",
    shell="/bin/sh",
    groups=(GROUP,),
    keys_file=KEYS,
)
"""Who the twin logs in as while a guest moves. At rest no key opens it: each comes with a path and its own command."""


class Hypervisor(Service):
    """The twins' service. A guest has a home, but each twin can run all of them."""

    volume_groups: tuple[VolumeGroup, ...]

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare the packages, libvirtd, the volume groups, and the account and ports that a move needs."""
        return Declaration(
            packages=(
                "iputils-ping",
                "libvirt-clients",
                "libvirt-daemon-system",
                "lvm2",
                "openssh-client",
                "qemu-system-x86",
                "qemu-utils",
                "socat",
            ),
            # libvirtd ends when it has nothing to do and its socket starts it again; at boot it starts the guests.
            daemons=(
                Daemon(name="libvirtd", activated=True),
                Daemon(name="libvirtd.socket"),
                Daemon(name="libvirt-guests"),
            ),
            listens=(Listen(port=PORTS[0], last_port=PORTS[1], during=PEERS),),
            accounts=(MOVES,),
            volume_groups=self.volume_groups,
            guests=tuple(guest.name for guest in fleet.guests(host)),
            state=none_to_keep("the guests back up what is theirs; their definitions are made from the inventory"),
        )

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield what happens to guests when the host goes down."""
        del host, fleet
        yield FileSet(
            name="libvirt-guests",
            files=(template("/etc/default/libvirt-guests"),),
            check="sh -n {new}/etc/default/libvirt-guests",
        )

    def converges(self, host: Host, fleet: Fleet) -> None:
        """Remove what is left of a migration path whose time is over; one that is in time is only said."""
        # Inventories are also read by what has nothing to do with pyinfra: verification, rendering, checks.
        from operations.linux.migration import migration_rest  # noqa: PLC0415

        del host, fleet
        migration_rest(name="Migration paths")

    def documents(self, host: Host, fleet: Fleet) -> Iterable[File]:
        """Yield the definition of every guest that may live here, as libvirt is told it."""
        for guest in fleet.guests(host):
            yield File(path=f"/etc/libvirt/qemu/{guest.name}.xml", text=to_xml(definition(guest)), mode=0o600)


def definition(guest: Host) -> Definition:
    """Return the libvirt definition of `guest`, the same on either twin."""
    wanted = guest.guest
    assert wanted is not None
    boot = wanted.boot
    return Definition(
        name=guest.name,
        uuid=uuid_of(guest.name),
        memory=wanted.memory,
        vcpus=wanted.vcpus,
        machine="pc",
        boot=Kernel(boot.kernel, boot.initrd, boot.cmdline)
        if isinstance(boot, KernelBoot)
        else ("network-then-disk" if isinstance(boot, NetworkBoot) else "disk"),
        disks=disks(volume.path for volume in guest.volumes()),
        interfaces=tuple(Interface(guest.mac(number), nic.bridge) for number, nic in enumerate(wanted.nics)),
        console=wanted.console,
    )
