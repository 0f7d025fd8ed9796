"""What the lab changes in an inventory (DESIGN I4): connection, boot source, where secrets are, and one person's key.

Nobody but its owner has a private key of production's people, and their way in is tried at every change of sshd.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from fleet.model.secret import lab_place
from fleet.model.site import Connection, Guest, Host, KernelBoot, Person, Site

GUEST_KERNEL = "/var/lib/lab-guest/vmlinux"
GUEST_INITRD = "/var/lib/lab-guest/initrd"

RELAY_PORT = 2222
"""Where the lab's relay listens: a machine whose sshd takes port 22 of every address has no 22 left."""

ROOT = Path(__file__).resolve().parents[2]
"""The project's folder, in which the labs are."""

PERSON_KEY = "person_ed25519"
"""The private key of a person in a lab's folder; beside it is the public half, with ``.pub`` at its end."""

GUEST_OFFSET = 180
"""Added to the last octet of a guest's address: where its heartbeat system answers, beside the production ones."""


def in_the_lab(site: Site, index: int = 0) -> Site:
    """Return `site` as it is in the lab number `index` of this machine: frozen, so a copy with the differences."""
    hosts = tuple(_host(host, index) for host in site.hosts)
    update = {"hosts": hosts, "people": _people(site.people, index), "secrets": lab_place(index)}
    return site.model_copy(update=update)


def relay_address(host: Host, index: int = 0) -> str:
    """Return the loopback address at which lab number `index` relays to `host`'s sshd."""
    return f"127.77.{index}.{int(_first_ipv4(host)) & 255}"


def _people(people: tuple[Person, ...], index: int) -> tuple[Person, ...]:
    """Return `people` with the key that the lab has made, once it is there, for the first who has not left."""
    made = ROOT / _folder(index) / f"{PERSON_KEY}.pub"
    someone = next((person for person in people if not person.retired), None)
    if someone is None or not made.exists():
        return people
    keys = (*someone.public_keys, made.read_text().strip())
    return tuple(it.model_copy(update={"public_keys": keys}) if it is someone else it for it in people)


def _folder(index: int) -> str:
    return f".lab/{index}"


def _host(host: Host, index: int) -> Host:
    folder = _folder(index)
    connection = Connection(
        address=relay_address(host, index),
        port=RELAY_PORT,
        user=host.connection.user,
        escalate=host.connection.escalate,
        key=f"{folder}/id_ed25519",
        known_hosts=f"{folder}/known_hosts",
        person_key=f"{folder}/{PERSON_KEY}",
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
