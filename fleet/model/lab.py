"""What the lab changes in an inventory: connection, boot source and where secrets are, nothing else (DESIGN I4)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

from fleet.model.secret import lab_place
from fleet.model.site import Connection, Guest, Host, KernelBoot, Site

GUEST_KERNEL = "/var/lib/lab-guest/vmlinux"
GUEST_INITRD = "/var/lib/lab-guest/initrd"

RELAY_PORT = 2222
"""Where the lab's relay listens: a machine whose sshd takes port 22 of every address has no 22 left."""

GUEST_OFFSET = 180
"""Added to the last octet of a guest's address: where its heartbeat system answers, beside the production ones."""


def in_the_lab(site: Site, index: int = 0) -> Site:
    """Return `site` as it is in the lab number `index` of this machine: frozen, so a copy with the differences."""
    hosts = tuple(_host(host, index) for host in site.hosts)
    return site.model_copy(update={"hosts": hosts, "secrets": lab_place(index)})


def relay_address(host: Host, index: int = 0) -> str:
    """Return the loopback address at which lab number `index` relays to `host`'s sshd."""
    return f"127.77.{index}.{int(_first_ipv4(host)) & 255}"


def _host(host: Host, index: int) -> Host:
    folder = f".lab/{index}"
    connection = Connection(
        address=relay_address(host, index),
        port=RELAY_PORT,
        user=host.connection.user,
        escalate=host.connection.escalate,
        key=f"{folder}/id_ed25519",
        known_hosts=f"{folder}/known_hosts",
    )
    update: dict[str, object] = {"connection": connection}
    if host.guest is not None:
        update["guest"] = _guest(host, host.guest)
    return host.model_copy(update=update)


def _guest(host: Host, guest: Guest) -> Guest:
    address = IPv4Address(int(_first_ipv4(host)) + GUEST_OFFSET)
    boot = KernelBoot(
        kernel=GUEST_KERNEL,
        initrd=GUEST_INITRD,
        cmdline=f"console=ttyS0 quiet panic=-1 guest.name={host.name} guest.address={address}/24",
        address=address,
    )
    return guest.model_copy(update={"boot": boot})


def _first_ipv4(host: Host) -> IPv4Address:
    for interface in host.interfaces:
        for address in interface.addresses:
            if isinstance(address, IPv4Interface):
                return address.ip
    raise ValueError(f"{host.name}: the lab needs an IPv4 address of it")
