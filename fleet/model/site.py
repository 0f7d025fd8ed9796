"""Sites, networks, hosts, guests, disks: the inventory's words, and the rules that cross them (DESIGN I1 to I4)."""

from __future__ import annotations

import hashlib
import re
import struct
from base64 import b64decode
from collections.abc import Hashable, Iterable, Iterator
from datetime import date
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from itertools import combinations
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, SerializeAsAny, field_validator, model_validator

from fleet.model.base import InventoryError, Model
from fleet.model.pki import Published
from fleet.model.secret import SecretPlace
from fleet.model.service import Account, Daemon, Declaration, Listen, Service, Volume, VolumeGroup
from fleet.model.types import Mac, Name, Port, Size, human

HYPERVISOR_RESERVE = 2 * 2**30
"""Bytes of memory that a hypervisor keeps for itself."""

EMERGENCY_PORT = 22
"""The one TCP port that the ruleset of OpenBSD's rc(8) passes when /etc/pf.conf does not load at boot."""

# The kinds of keys that are accepted, and of how many strings each consists: its kind, the key, a token's purpose.
_KEYS = {"ssh-ed25519": 2, "sk-ssh-ed25519@openssh.com": 3}

S = TypeVar("S", bound=Service)


def _public_key(value: str) -> str:
    kind, _, rest = value.partition(" ")
    try:
        strings = _strings(b64decode(rest.partition(" ")[0], validate=True))
    except (ValueError, struct.error):
        strings = []
    if len(strings) != _KEYS.get(kind) or strings[0] != kind.encode() or len(strings[1]) != 32:
        raise ValueError(f"{value!r} is no public key: a line such as 'ssh-ed25519 AAAA... comment'")
    if "\n" in value:
        raise ValueError(f"{value!r} has more than one line")
    return value


def _strings(blob: bytes) -> list[bytes]:
    """Return the strings of RFC 4251, 5, that `blob` consists of; struct.error if one is cut."""
    found = []
    while blob:
        (size,) = struct.unpack_from(">I", blob)
        found.append(struct.unpack_from(f"{size}s", blob, 4)[0])
        blob = blob[4 + size :]
    return found


def _mail_address(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._+-]+@([a-z0-9-]+\.)+[a-z]+", value):
        raise ValueError(f"{value!r} is no mail address")
    return value


PublicKey = Annotated[str, AfterValidator(_public_key)]
"""An Ed25519 public key as a line of ssh-keygen(1), also one of a hardware token; never with options before it."""

MailAddress = Annotated[str, AfterValidator(_mail_address)]
"""A mail address that needs no quoting anywhere."""


class Os(StrEnum):
    """The operating systems of the fleet; also the names of pyinfra groups."""

    OPENBSD = "openbsd"
    UBUNTU = "ubuntu"


class Network(Model):
    """A network of a site: its prefixes, and the router on it."""

    name: Name
    ipv4: IPv4Network | None = None
    ipv6: IPv6Network | None = None
    gateway: IPv4Address | None = None

    @model_validator(mode="after")
    def _gateway_inside(self) -> Network:
        if self.gateway is not None and (self.ipv4 is None or self.gateway not in self.ipv4):
            raise ValueError(f"gateway {self.gateway} is not in {self.ipv4}")
        return self


class Interface(Model):
    """A network interface of a host: which network it is on, with which addresses; `mac` where it is known."""

    network: Name
    name: str | None = None
    mac: Mac | None = None
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()


class Disk(Model):
    """A guest's disk, a logical volume ``GUEST-NAME`` in `group`.

    `retired` and `destroy` are the two words of the end of its life (DESIGN O4): on the first date it is renamed,
    on the second it is removed, never both in one run, and only if `none_to_keep` says why nothing is lost.
    """

    group: Name
    name: Name
    size: Size
    retired: date | None = None
    destroy: date | None = None
    none_to_keep: str | None = None

    @model_validator(mode="after")
    def _two_words(self) -> Disk:
        if self.destroy is None:
            return self
        if self.retired is None:
            raise ValueError("destroy needs retired: a disk is renamed before it is destroyed")
        if self.destroy <= self.retired:
            raise ValueError(f"destroy ({self.destroy}) must be a later day than retired ({self.retired})")
        if not self.none_to_keep:
            raise ValueError("destroy needs none_to_keep: say why nothing of it has to be kept")
        return self


class Nic(Model):
    """A guest's network interface: the bridge of its hypervisor, and the MAC, derived where none is given."""

    bridge: Name
    mac: Mac | None = None


class DiskBoot(Model):
    """The guest boots from its first disk."""

    kind: Literal["disk"] = "disk"


class NetworkBoot(Model):
    """The guest boots from the network once its disk does not boot, as for autoinstall(8)."""

    kind: Literal["network"] = "network"


class KernelBoot(Model):
    """The hypervisor loads a kernel for the guest: paths on the hypervisor, and the kernel's command line.

    `address` is the one that such a system answers at.
    """

    kind: Literal["kernel"] = "kernel"
    kernel: str
    initrd: str
    cmdline: str
    address: IPv4Address


Boot = DiskBoot | NetworkBoot | KernelBoot


class Guest(Model):
    """What makes a host a guest of a hypervisor.

    `home` is the twin that makes it; it may live on another one. `console` is the TCP port on the hypervisor's
    loopback address where its serial console is. An `encrypted` guest waits for its passphrase at each start.
    `retired` is the day from which it is given up: its domain is undefined once it is shut off.
    """

    home: Name
    vcpus: int = Field(ge=1, le=64, strict=True)
    memory: Size
    disks: tuple[Disk, ...] = Field(min_length=1)
    nics: tuple[Nic, ...] = Field(min_length=1)
    console: Port
    boot: Boot = Field(default=DiskBoot(), discriminator="kind")
    autostart: bool = True
    encrypted: bool = False
    retired: date | None = None


class Connection(Model):
    """How the controller reaches a host. `key`, `known_hosts` and `person_key` are relative to the project or the home.

    `public_key` is the public half of the key that it uses: the only one that the account `user` accepts. None
    leaves that account's keys as they are. `first_port` is tried where `port` takes no connection: a system that was
    just installed listens there. The keys in `known_hosts` count beside the repository's. `person_key` is a private
    key of a person, with which people's way in is tried; None means one in the SSH agent.
    """

    address: str
    port: Port = 22
    first_port: Port | None = None
    user: str = "root"
    escalate: Literal["doas", "sudo"] | None = None
    key: str | None = None
    known_hosts: str | None = None
    person_key: str | None = None
    public_key: PublicKey | None = None


class Host(Model):
    """A machine: what it is for, what it has, where it is, and the services that it runs.

    `presence` is ``sometimes`` for a machine that is often off: a run without it is no failure. `memory`, `cpus`
    and `disk` are what the machine has, in bytes and cores. `sshd_port` is where its sshd listens for people.
    """

    name: Name
    os: Os
    roles: tuple[Name, ...] = ()
    purpose: str = ""
    presence: Literal["always", "sometimes"] = "always"
    connection: Connection
    sshd_port: Port = 22
    memory: Size | None = None
    cpus: int | None = Field(default=None, ge=1, le=256, strict=True)
    disk: Size | None = None
    interfaces: tuple[Interface, ...] = ()
    guest: Guest | None = None
    services: tuple[SerializeAsAny[Service], ...] = ()

    @field_validator("roles")
    @classmethod
    def _no_os(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        taken = {*Os, "all"} & set(value)
        if taken:
            raise ValueError(f"{sorted(taken)[0]!r} is a group of its own, not a role")
        return value

    def service(self, wanted: type[S]) -> S | None:
        """Return the host's service of class `wanted`, or None."""
        return next((service for service in self.services if isinstance(service, wanted)), None)

    def answers_at(self) -> str | None:
        """Return the IPv4 address at which this host answers an echo request on its own network, or None."""
        if self.guest is not None and isinstance(self.guest.boot, KernelBoot):
            return str(self.guest.boot.address)
        addresses = (address for interface in self.interfaces for address in interface.addresses)
        return next((str(address.ip) for address in addresses if isinstance(address, IPv4Interface)), None)

    def mac(self, index: int) -> str:
        """Return the MAC of the guest's interface number `index`: given, or derived and stable.

        52:54:00 is QEMU's own prefix; the rest is a digest of the name, so a reinstalled guest keeps it.
        """
        assert self.guest is not None
        given = self.guest.nics[index].mac
        if given is not None:
            return given
        digest = hashlib.sha256(f"{self.name}/{index}".encode()).digest()
        return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])

    def volumes(self) -> tuple[Volume, ...]:
        """Return the logical volumes of this guest, in the order of its disks."""
        assert self.guest is not None
        return tuple(
            Volume(
                group=disk.group,
                name=f"{self.name}-{disk.name}",
                size=disk.size,
                guest=self.name,
                retired=_earlier(disk.retired, self.guest.retired),
                destroy=disk.destroy,
                none_to_keep=disk.none_to_keep,
            )
            for disk in self.guest.disks
        )


def _earlier(one: date | None, other: date | None) -> date | None:
    known = [day for day in (one, other) if day is not None]
    return min(known) if known else None


class Person(Model):
    """Somebody with an account on every host of a site, who comes in with one of `public_keys` and a code.

    `admin` may become root with a password. `retired` is for one who left: the account stays, locked and without keys.
    """

    name: Name
    full_name: str
    uid: int = Field(ge=1000, le=60000)
    public_keys: tuple[PublicKey, ...] = Field(min_length=1)
    admin: bool = True
    retired: bool = False

    @field_validator("full_name")
    @classmethod
    def _one_field(cls, value: str) -> str:
        if not value or not value.isprintable() or set(value) & set(":,\\"):
            raise ValueError(f"{value!r} does not fit in a field of passwd(5): no colon, comma or backslash")
        return value


class Deployment(Model):
    """How deployments come in: the account, sshd's port for it alone, and the networks that they come from."""

    user: Name = "deploy"
    port: Port
    addresses: tuple[IPv4Network | IPv6Network, ...] = Field(min_length=1)


class Site(Model):
    """One place: its networks and the hosts in it. It stands alone (DESIGN I2).

    `people` have accounts on its hosts; `owner` is the address that root's mail goes to; `secrets`, where the site's
    are.
    """

    name: Name
    domain: str
    networks: tuple[Network, ...] = Field(min_length=1)
    hosts: tuple[Host, ...] = Field(min_length=1)
    people: tuple[Person, ...] = ()
    owner: MailAddress | None = None
    deployment: Deployment | None = None
    secrets: SecretPlace = SecretPlace()

    def host(self, name: str) -> Host:
        """Return the host called `name`; KeyError if the site has none."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)


class Fleet(Model):
    """All sites of an inventory, seen together, and what the PKI has for them: what services render from."""

    sites: tuple[Site, ...]
    published: Published = Published()

    def hosts(self) -> Iterator[Host]:
        """Yield every host of every site."""
        for site in self.sites:
            yield from site.hosts

    def host(self, name: str) -> Host:
        """Return the host called `name`; KeyError if there is none."""
        for host in self.hosts():
            if host.name == name:
                return host
        raise KeyError(name)

    def site_of(self, host: Host) -> Site:
        """Return the site that `host` is in."""
        return next(site for site in self.sites if any(other.name == host.name for other in site.hosts))

    def declarations(self, host: Host) -> tuple[tuple[Service, Declaration], ...]:
        """Return what each service of `host` declares, in the inventory's order."""
        return tuple((service, service.declares(host, self)) for service in host.services)

    def accounts(self, host: Host) -> tuple[Account, ...]:
        """Return every account that a service of `host` declares."""
        return tuple(account for _, said in self.declarations(host) for account in said.accounts)

    def name_of(self, host: Host) -> str:
        """Return the fully qualified name of `host`."""
        return f"{host.name}.{self.site_of(host).domain}"

    def listens(self, host: Host) -> tuple[Listen, ...]:
        """Return every socket that a service of `host` declares."""
        return tuple(listen for _, said in self.declarations(host) for listen in said.listens)

    def daemons(self, host: Host) -> tuple[Daemon, ...]:
        """Return every daemon of `host`."""
        return tuple(daemon for _, said in self.declarations(host) for daemon in said.daemons)

    def packages(self, host: Host) -> tuple[str, ...]:
        """Return every package of `host`, sorted."""
        return tuple(sorted({name for _, said in self.declarations(host) for name in said.packages}))

    def volume_groups(self, host: Host) -> tuple[VolumeGroup, ...]:
        """Return the volume groups of `host`."""
        return tuple(group for _, said in self.declarations(host) for group in said.volume_groups)

    def peers(self, host: Host, service: type[Service]) -> tuple[Host, ...]:
        """Return the other hosts of the same site that have a service of class `service`."""
        return tuple(
            other
            for other in self.site_of(host).hosts
            if other.name != host.name and other.service(service) is not None
        )

    def guests(self, hypervisor: Host) -> tuple[Host, ...]:
        """Return the hosts of the site that are guests, of whichever twin: each may live on either."""
        return tuple(host for host in self.site_of(hypervisor).hosts if host.guest is not None)


def check_fleet(fleet: Fleet) -> list[str]:
    """Raise `InventoryError` for the first rule that the sites break together; return remarks that are no errors.

    A remark names a guest that would not fit on a twin alone with all others.
    """
    problems = [*_duplicates(fleet), *_references(fleet)]
    remarks: list[str] = []
    if not problems:
        for site in fleet.sites:
            found, said = _capacity(fleet, site)
            problems += found
            remarks += said
    if problems:
        raise InventoryError("\n".join(dict.fromkeys(problems)))
    return remarks


def _duplicates(fleet: Fleet) -> Iterator[str]:
    rows: list[tuple[str, str, str, Hashable]] = []
    for site in fleet.sites:
        for host in site.hosts:
            rows.append((site.name, host.name, "name", host.name))
            rows.append((site.name, host.name, "connection", (host.connection.address, host.connection.port)))
            for interface in host.interfaces:
                rows += [(site.name, host.name, "address", str(address.ip)) for address in interface.addresses]
                if interface.mac is not None:
                    rows.append((site.name, host.name, "mac", interface.mac))
            if host.guest is not None:
                rows.append((site.name, host.name, "console port", (site.name, host.guest.console)))
                rows += [(site.name, host.name, "mac", host.mac(i)) for i in range(len(host.guest.nics))]
                rows += [(site.name, host.name, "disk", (host.name, disk.name)) for disk in host.guest.disks]
            rows += [(site.name, host.name, "service", (host.name, type(it).__name__)) for it in host.services]
            rows += [(site.name, host.name, "role", (host.name, role)) for role in host.roles]
    yield from _twice(rows)
    yield from _twice([("fleet", site.name, "site", site.name) for site in fleet.sites])
    for site in fleet.sites:
        yield from _twice([(site.name, network.name, "network", network.name) for network in site.networks])
        yield from _people_twice(site)
    yield from _keys_twice(fleet)


def _people_twice(site: Site) -> Iterator[str]:
    for first, person in combinations(site.people, 2):
        shared = [("key", key) for key in sorted(_bare(first.public_keys) & _bare(person.public_keys))]
        shared += [("name", person.name)] if first.name == person.name else []
        shared += [("uid", str(person.uid))] if first.uid == person.uid else []
        for field, value in shared:
            yield f"{site.name}: people: {person.name}: {field} {value} is already used by {first.name}"


def _keys_twice(fleet: Fleet) -> Iterator[str]:
    """Yield who shares a key with a site's deployment: another site, which then falls with it, or a person."""
    first: dict[str, str] = {}
    for site in fleet.sites:
        people = _bare(key for person in site.people for key in person.public_keys)
        for host in site.hosts:
            for key in _bare(each for each in [host.connection.public_key] if each is not None):
                where = f"{site.name}: host {host.name}: connection.public_key"
                if key in people:
                    yield f"{where} is a person's; the deployment has a key of its own"
                if first.setdefault(key, site.name) != site.name:
                    yield f"{where} is already used by {first[key]}; each site has a key of its own"


def _bare(keys: Iterable[str]) -> set[str]:
    """Return the keys without their comments."""
    return {" ".join(key.split()[:2]) for key in keys}


def _twice(rows: Iterable[tuple[str, str, str, Hashable]]) -> Iterator[str]:
    """Yield a message for each (site, host, field, value) whose field and value an earlier row has."""
    seen: dict[tuple[str, Hashable], str] = {}
    for site, host, field, value in rows:
        first = seen.get((field, value))
        if first is None:
            seen[(field, value)] = host
            continue
        shown = ":".join(map(str, value)) if field == "connection" and isinstance(value, tuple) else value
        shown = shown[-1] if isinstance(shown, tuple) else shown
        yield f"{site}: host {host}: {field} {shown} is already used by {first}; it has to be unique"


def _references(fleet: Fleet) -> Iterator[str]:
    for site in fleet.sites:
        networks = {network.name: network for network in site.networks}
        names = {host.name: host for host in site.hosts}
        yield from _ways_in(site)
        for host in site.hosts:
            where = f"{site.name}: host {host.name}"
            for interface in host.interfaces:
                network = networks.get(interface.network)
                if network is None:
                    known = ", ".join(sorted(networks))
                    yield f"{where}: interfaces: unknown network {interface.network!r}; this site has {known}"
                    continue
                for address in interface.addresses:
                    prefix = network.ipv4 if isinstance(address, IPv4Interface) else network.ipv6
                    if prefix is None or address.network != prefix:
                        yield f"{where}: address {address} is not in network {network.name} ({prefix})"
            on = {interface.network for interface in host.interfaces}
            for service in host.services:
                for field, name in service.networks_named():
                    if name not in on:
                        told = f"{name!r} is no network of this host; it is on {_list(on)}"
                        yield f"{where}: services: {type(service).__name__}: {field}: {told}"
            if host.guest is not None:
                yield from _guest_references(fleet, host, names, where)


def _ways_in(site: Site) -> Iterator[str]:
    """Yield what would mix up the ways into the site's hosts, or shut them."""
    deployment = site.deployment
    if deployment is not None:
        for name in (person.name for person in site.people):
            if name in ("root", deployment.user):
                yield f"{site.name}: people: {name} is no person: the name of the account of another way in"
        if all(person.retired for person in site.people):
            yield f"{site.name}: people: nobody; somebody has to come in when a deployment cannot"
        if deployment.user == "root":
            yield f"{site.name}: deployment.user: root is closed to every login; name an account of its own"
        if deployment.port == EMERGENCY_PORT:
            yield f"{site.name}: deployment.port: {EMERGENCY_PORT} is for rc's ruleset alone; choose another port"
    for host in site.hosts:
        yield from _ways_into(host, deployment, f"{site.name}: host {host.name}")


def _ways_into(host: Host, deployment: Deployment | None, where: str) -> Iterator[str]:
    if deployment is not None and host.sshd_port == deployment.port:
        yield f"{where}: sshd_port: {host.sshd_port} is the deployment's port; people and it have one each"
    if not any(service.base for service in host.services):
        return
    if host.os is Os.OPENBSD and host.sshd_port == EMERGENCY_PORT:
        yield f"{where}: sshd_port: {EMERGENCY_PORT} is for rc's ruleset alone, pf.conf never passes it"
    if deployment is None:
        yield f"{where}: services: its site has no deployment, so nothing could ever come in again"
    elif host.connection.user != deployment.user:
        yield f"{where}: connection.user: {host.connection.user} comes in nowhere; it has to be {deployment.user}"
    if host.os is Os.OPENBSD and any(interface.name is None for interface in host.interfaces):
        yield f"{where}: interfaces: each needs the name that OpenBSD gives it, such as vio0"


def _guest_references(fleet: Fleet, host: Host, names: dict[str, Host], where: str) -> Iterator[str]:
    assert host.guest is not None
    home = names.get(host.guest.home)
    if home is None or home.guest is not None or not fleet.volume_groups(home):
        yield f"{where}: home: {host.guest.home!r} is no hypervisor of this site"
        return
    for twin in _twins(fleet, home):
        groups = {group.name for group in fleet.volume_groups(twin)}
        bridges = {bridge for _, said in fleet.declarations(twin) for bridge in said.bridges}
        for disk in host.guest.disks:
            if disk.group not in groups:
                yield f"{where}: disk {disk.name}: unknown volume group {disk.group!r}; {twin.name} has {_list(groups)}"
        for nic in host.guest.nics:
            if nic.bridge not in bridges:
                yield f"{where}: nics: unknown bridge {nic.bridge!r}; {twin.name} has {_list(bridges)}"


def _twins(fleet: Fleet, host: Host) -> tuple[Host, ...]:
    return tuple(other for other in fleet.site_of(host).hosts if fleet.volume_groups(other))


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _capacity(fleet: Fleet, site: Site) -> tuple[list[str], list[str]]:
    problems: list[str] = []
    remarks: list[str] = []
    for host in site.hosts:
        groups = {group.name: group.size for group in fleet.volume_groups(host)}
        if not groups:
            continue
        if host.disk is not None and sum(groups.values()) > host.disk:
            problems.append(
                f"{site.name}: host {host.name}: volume groups: {human(sum(groups.values()))} are declared, "
                f"the disk has {human(host.disk)}"
            )
        guests = [guest for guest in fleet.guests(host) if guest.guest and guest.guest.retired is None]
        at_home = [guest for guest in guests if guest.guest and guest.guest.home == host.name]
        problems += _overfull(site, host, groups, at_home)
        if not problems and len(at_home) < len(guests):
            remarks += [f"{host.name} alone: {line}" for line in _not_fitting(host, groups, guests)]
    return problems, remarks


def _overfull(site: Site, host: Host, groups: dict[str, Size], guests: list[Host]) -> Iterator[str]:
    where = f"{site.name}: host {host.name}"
    for line in _not_fitting(host, groups, guests):
        yield f"{where}: {line}"
    for guest in guests:
        assert guest.guest is not None
        if host.cpus is not None and guest.guest.vcpus > host.cpus:
            yield f"{site.name}: host {guest.name}: vcpus: {guest.guest.vcpus}, {host.name} has {host.cpus}"


def _not_fitting(host: Host, groups: dict[str, Size], guests: list[Host]) -> Iterator[str]:
    """Yield a line for each guest that no longer fits when they are put on `host` one after the other."""
    memory = 0
    disk = dict.fromkeys(groups, 0)
    room = None if host.memory is None else host.memory - HYPERVISOR_RESERVE
    for guest in guests:
        assert guest.guest is not None
        memory += guest.guest.memory
        if room is not None and memory > room:
            yield (
                f"memory: {guest.name} does not fit: {human(memory)} are wanted, {human(room)} are there "
                f"({human(HYPERVISOR_RESERVE)} stay with the host)"
            )
        for volume in guest.volumes():
            if volume.retired is None and volume.group in disk:
                disk[volume.group] += volume.size
                if disk[volume.group] > groups[volume.group]:
                    yield (
                        f"disk: {volume.name} does not fit in {volume.group}: {human(disk[volume.group])} are "
                        f"wanted, {human(groups[volume.group])} are there"
                    )
