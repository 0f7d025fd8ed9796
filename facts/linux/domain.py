"""What this project manages of a libvirt domain, to and from libvirt's XML.

https://libvirt.org/formatdomain.html. A `Definition` holds the fields that differ between guests. Everything
else (cache mode, cpu mode, what happens on a crash, ...) is the same for all guests and written by `to_xml`
alone.

Reading is the reverse: the fields are taken out of the XML that was found, rendered again, and both trees are
compared after `_settle` has removed what libvirt fills in by itself (addresses, aliases, controllers, the
expanded machine name, ...). Whatever is then still different was put there or taken away by somebody, and
ends as words in `Definition.extras`. So nothing has to be foreseen: an unknown element is a difference, not
an oversight.
"""

from __future__ import annotations

import re
import uuid as uuids
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

# Never change it: the uuid of every guest of every owner hangs on it, and libvirt refuses to redefine a name
# with another uuid. Made once with uuid4.
NAMESPACE = uuids.UUID("b7a1b9a4-3f0c-4d0e-9a55-6d6f2c1f8e21")

# Letters first, because virsh takes a number for a domain's id.
NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
DEVICE = re.compile(r"/dev(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)+")
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
BRIDGE = re.compile(r"[a-z][a-z0-9_.-]{0,14}")
TARGET = re.compile(r"vd[a-z]")

Test = Callable[[ET.Element], bool]

PEERS = "migration_peers"
"""The nftables set of those who may send a guest here right now."""

PORTS = (49152, 49215)
"""libvirt's range for migration streams; qemu.conf(5), migration_port_min and migration_port_max."""

CONSOLE_ADDRESS = "127.0.0.1"
EMULATORS = frozenset({"/usr/bin/qemu-system-x86_64", "/usr/bin/kvm", "/usr/bin/kvm-spice"})


class DefinitionError(ValueError):
    """The text is not a domain that can be compared; the message says why."""


@dataclass(frozen=True)
class Kernel:
    """Boot of a kernel file of the hypervisor.

    Arguments: `path` and `initrd`, absolute paths on the hypervisor (`initrd` may be empty); `cmdline`.
    """

    path: str
    initrd: str = ""
    cmdline: str = ""


Boot = Literal["disk", "network-then-disk"] | Kernel


@dataclass(frozen=True)
class Disk:
    """A block device of the hypervisor handed to the guest: `device`, its path; `target`, vda to vdz."""

    device: str
    target: str


@dataclass(frozen=True)
class Interface:
    """A virtio network card: `mac`, lower case with colons; `bridge`, on the hypervisor."""

    mac: str
    bridge: str


@dataclass(frozen=True)
class Definition:
    """One guest as libvirt shall know it.

    Arguments: `name`; `uuid`, see `uuid_of`; `memory` in bytes, whole KiB; `vcpus`; `machine`, "pc" or "q35"
    when wanted, whatever was found otherwise; `boot`; `disks` in the order of their targets; `interfaces`, in
    order; `console`, the TCP port on 127.0.0.1 of the serial console, 0 if none was found; `extras`, only
    when found: everything else that is not as `to_xml` writes it, in words.
    """

    name: str
    uuid: str
    memory: int
    vcpus: int
    machine: str
    boot: Boot
    disks: tuple[Disk, ...]
    interfaces: tuple[Interface, ...]
    console: int
    extras: tuple[str, ...] = ()


def in_words(size: int) -> str:
    """Return `size`, in bytes, in the largest exact binary unit: "3 GiB", "1536 MiB", "1000 bytes"."""
    for factor, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size and size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} bytes"


def uuid_of(name: str) -> str:
    """Return the uuid of the guest `name`: the same on both twins and after every reinstallation."""
    return str(uuids.uuid5(NAMESPACE, name))


def console_log(name: str) -> str:
    """Return where the hypervisor keeps what guest `name` wrote to its console."""
    return f"/var/log/libvirt/qemu/{name}-console.log"


def disks(devices: Iterable[str]) -> tuple[Disk, ...]:
    """Return the disks of a guest for its `devices` in order: vda, vdb, ..."""
    return tuple(Disk(device, f"vd{chr(ord('a') + n)}") for n, device in enumerate(devices))


def to_xml(definition: Definition) -> str:
    """Return `definition` as libvirt's XML, the same bytes for the same definition.

    Fails: ValueError naming the guest and the field that cannot be written.
    """
    for complaint in _complaints(definition):
        raise ValueError(f"{definition.name}: {complaint}")
    tree = _tree(definition)
    ET.indent(tree)
    return ET.tostring(tree, encoding="unicode") + "\n"


def from_xml(text: str) -> Definition:
    """Return the definition in `text`, the output of `virsh dumpxml`, live or inactive.

    Fails: DefinitionError if it is no domain, or lacks a name, memory or vcpus. Anything else that is odd is
    no failure but one of the `extras`.
    """
    try:
        # libvirt's own output, over an authenticated channel: no hostile XML is read here.
        found = ET.fromstring(text)  # noqa: S314
    except ET.ParseError as error:
        raise DefinitionError(f"not XML: {error}") from error
    if found.tag != "domain":
        raise DefinitionError(f"<{found.tag}> instead of <domain>")
    definition = _fields(found)
    wanted = _tree(definition)
    for tree in (found, wanted):
        _settle(tree)
    extras = tuple(_compare("", wanted, found))
    return replace(definition, extras=extras)


def networks_of(text: str) -> frozenset[str]:
    """Return the names of the libvirt networks that the interfaces of a domain's XML `text` hang on."""
    try:
        found = ET.fromstring(text)  # noqa: S314
    except ET.ParseError:
        return frozenset()
    sources = found.findall("./devices/interface[@type='network']/source")
    return frozenset(source.get("network", "") for source in sources) - {""}


def differences(wanted: Definition, found: Definition) -> tuple[str, ...]:
    """Return in words what of `found` is not as `wanted`, a phrase per field, () if a redefinition is not
    due.

    What libvirt fills in by itself is no difference; what somebody added or removed is.
    """
    return (*_field_differences(wanted, found), *found.extras)


def needs_restart(wanted: Definition, live: Definition) -> tuple[str, ...]:
    """Return in words what a running guest, `live`, only gets at its next start, () if it is as `wanted`.

    The size of a disk is not among them: it is told to the running guest (virsh blockresize).
    """
    return differences(wanted, live)


def boot_in_words(boot: Boot) -> str:
    """Return `boot` as printed in a difference."""
    if isinstance(boot, str):
        return boot
    return " ".join(part for part in (f"kernel {boot.path}", boot.initrd, boot.cmdline) if part)


def _field_differences(wanted: Definition, found: Definition) -> Iterator[str]:
    for label, have, want in (
        ("name", found.name, wanted.name),
        ("uuid", found.uuid, wanted.uuid),
        ("memory", in_words(found.memory), in_words(wanted.memory)),
        ("vcpus", str(found.vcpus), str(wanted.vcpus)),
        ("machine", found.machine, wanted.machine),
        ("boot", boot_in_words(found.boot), boot_in_words(wanted.boot)),
        ("console", str(found.console or "none"), str(wanted.console)),
    ):
        if have != want:
            yield f"{label}: {have}, wanted {want}"
    yield from _pairs(
        "disk",
        {disk.target: disk.device for disk in wanted.disks},
        {disk.target: disk.device for disk in found.disks},
    )
    yield from _pairs(
        "interface",
        {card.mac: card.bridge for card in wanted.interfaces},
        {card.mac: card.bridge for card in found.interfaces},
    )
    macs = [card.mac for card in wanted.interfaces], [card.mac for card in found.interfaces]
    if macs[0] != macs[1] and sorted(macs[0]) == sorted(macs[1]):
        yield f"interfaces: order {' '.join(macs[1])}, wanted {' '.join(macs[0])}"


def _pairs(label: str, wanted: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    for key in sorted({*wanted, *found}):
        have, want = found.get(key), wanted.get(key)
        if want is None:
            yield f"{label} {key}: {have}, not wanted"
        elif have is None:
            yield f"{label} {key}: missing, wanted {want}"
        elif have != want:
            yield f"{label} {key}: {have}, wanted {want}"


# --- writing ---


def _complaints(definition: Definition) -> Iterator[str]:
    if not NAME.fullmatch(definition.name):
        yield "a guest's name is a lower case letter, then letters, digits and hyphens"
    try:
        uuids.UUID(definition.uuid)
    except ValueError:
        yield f"uuid: {definition.uuid} is none"
    if definition.memory <= 0 or definition.memory % 1024:
        yield f"memory: {definition.memory} bytes are not whole KiB"
    if definition.vcpus < 1:
        yield f"vcpus: {definition.vcpus}, at least 1"
    if definition.machine not in {"pc", "q35"}:
        yield f"machine: {definition.machine}, pc or q35"
    if not 0 < definition.console < 65536:
        yield f"console: {definition.console} is no port"
    if definition.extras:
        yield f"was found, not wanted: {'; '.join(definition.extras)}"
    yield from _boot_complaints(definition.boot)
    yield from _device_complaints(definition)


def _device_complaints(definition: Definition) -> Iterator[str]:
    for disk in definition.disks:
        if not DEVICE.fullmatch(disk.device) or not TARGET.fullmatch(disk.target):
            yield f"disk {disk.target}: {disk.device} cannot be written"
    targets = [disk.target for disk in definition.disks]
    if targets != sorted(set(targets)):
        yield f"disks: targets {' '.join(targets)} are not in order, each once"
    if len({disk.device for disk in definition.disks}) != len(targets):
        yield "disks: a device is there twice"
    for card in definition.interfaces:
        if not MAC.fullmatch(card.mac) or not BRIDGE.fullmatch(card.bridge):
            yield f"interface {card.mac} on {card.bridge} cannot be written"
    if len({card.mac for card in definition.interfaces}) != len(definition.interfaces):
        yield "interfaces: a mac is there twice"


def _boot_complaints(boot: Boot) -> Iterator[str]:
    if isinstance(boot, str):
        if boot not in {"disk", "network-then-disk"}:
            yield f"boot: {boot}, disk, network-then-disk or a kernel"
        return
    if not boot.path.startswith("/"):
        yield f"boot: {boot.path} is not absolute"
    if boot.initrd and not boot.initrd.startswith("/"):
        yield f"boot: {boot.initrd} is not absolute"
    for text in (boot.path, boot.initrd, boot.cmdline):
        # What XML or libvirt would not give back as it was.
        if not text.isprintable() or text != text.strip():
            yield f"boot: {text!r} has a character that cannot be written"


def _tree(definition: Definition) -> ET.Element:
    domain = ET.Element("domain", type="kvm")
    _add(domain, "name", definition.name)
    _add(domain, "uuid", definition.uuid)
    _add(domain, "memory", str(definition.memory // 1024), unit="KiB")
    _add(domain, "vcpu", str(definition.vcpus))
    system = _add(domain, "os")
    _add(system, "type", "hvm", arch="x86_64", machine=definition.machine)
    if isinstance(definition.boot, Kernel):
        for tag, text in (
            ("kernel", definition.boot.path),
            ("initrd", definition.boot.initrd),
            ("cmdline", definition.boot.cmdline),
        ):
            if text:
                _add(system, tag, text)
    # libvirt adds "hd" to a kernel too if there is no boot device: it is said, so that it is no difference.
    for device in ("network", "hd") if definition.boot == "network-then-disk" else ("hd",):
        _add(system, "boot", dev=device)
    features = _add(domain, "features")
    _add(features, "acpi")
    _add(features, "apic")
    # The twins have the same CPU or a migration fails early and says so; migratable=on leaves out what QEMU
    # cannot carry over (an invariant TSC).
    _add(domain, "cpu", mode="host-passthrough", migratable="on")
    _add(domain, "clock", offset="utc")
    _add(domain, "on_poweroff", "destroy")
    _add(domain, "on_reboot", "restart")
    _add(domain, "on_crash", "restart")
    devices = _add(domain, "devices")
    for disk in definition.disks:
        element = _add(devices, "disk", type="block", device="disk")
        _add(element, "driver", name="qemu", type="raw", cache="none", io="native", discard="unmap")
        _add(element, "source", dev=disk.device)
        _add(element, "target", dev=disk.target, bus="virtio")
    for card in definition.interfaces:
        element = _add(devices, "interface", type="bridge")
        _add(element, "mac", address=card.mac)
        _add(element, "source", bridge=card.bridge)
        _add(element, "model", type="virtio")
    if definition.console:
        _console(devices, definition)
    rng = _add(devices, "rng", model="virtio")
    _add(rng, "backend", "/dev/urandom", model="random")
    # Nobody balloons: a guest has what the inventory says, and that is checked to fit. Without the device the
    # memory seen live is the memory defined, so a difference is always a real one. libvirt adds one if none
    # is named.
    _add(devices, "memballoon", model="none")
    return domain


def _console(devices: ET.Element, definition: Definition) -> None:
    # The log is virtlogd's: it rolls it at 2 MiB (virtlogd.conf), and it stays behind when the guest moves.
    # The same character device is named twice because libvirt's <console> is a second name of the first
    # <serial>.
    for tag in ("serial", "console"):
        element = _add(devices, tag, type="tcp")
        _add(element, "source", mode="bind", host=CONSOLE_ADDRESS, service=str(definition.console))
        _add(element, "protocol", type="raw")
        _add(element, "log", file=console_log(definition.name), append="on")
        if tag == "serial":
            target = _add(element, "target", type="isa-serial", port="0")
            _add(target, "model", name="isa-serial")
        else:
            _add(element, "target", type="serial", port="0")


def _add(parent: ET.Element, tag: str, text: str = "", **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    if text:
        element.text = text
    return element


# --- reading ---

UNITS = {
    "b": 1, "bytes": 1, "KB": 10**3, "k": 2**10, "KiB": 2**10, "MB": 10**6, "M": 2**20, "MiB": 2**20,
    "GB": 10**9, "G": 2**30, "GiB": 2**30, "TB": 10**12, "T": 2**40, "TiB": 2**40,
}  # fmt: skip


def _fields(domain: ET.Element) -> Definition:
    try:
        name = _text(domain, "name")
        memory = _bytes(domain.find("memory"))
        vcpus = int(_text(domain, "vcpu"))
    except (ValueError, KeyError) as error:
        raise DefinitionError(f"no usable name, memory or vcpu: {error}") from error
    return Definition(
        name=name,
        uuid=domain.findtext("uuid", "").strip(),
        memory=memory,
        vcpus=vcpus,
        machine=_machine(domain.find("./os/type")),
        boot=_boot(domain),
        disks=tuple(
            Disk(_attribute(disk, "source", "dev"), _attribute(disk, "target", "dev"))
            for disk in domain.findall("./devices/disk[@type='block']")
            if disk.get("device", "disk") == "disk" and _attribute(disk, "target", "bus") == "virtio"
        ),
        interfaces=tuple(
            Interface(_attribute(card, "mac", "address").lower(), _attribute(card, "source", "bridge"))
            for card in domain.findall("./devices/interface[@type='bridge']")
        ),
        console=_console_port(domain),
    )


def _boot(domain: ET.Element) -> Boot:
    if domain.find("./os/kernel") is not None:
        # A path or a command line is compared as it is: no stripping.
        return Kernel(*(domain.findtext(f"./os/{tag}", "") for tag in ("kernel", "initrd", "cmdline")))
    devices = [boot.get("dev") for boot in domain.findall("./os/boot")]
    return "network-then-disk" if devices[:1] == ["network"] else "disk"


def _console_port(domain: ET.Element) -> int:
    port = _attribute(domain.find("./devices/serial[@type='tcp']"), "source", "service")
    return int(port) if port.isdecimal() else 0


def _machine(kind: ET.Element | None) -> str:
    machine = kind.get("machine", "") if kind is not None else ""
    for alias, pattern in (("pc", "pc|pc-i440fx-.+"), ("q35", "q35|pc-q35-.+")):
        if re.fullmatch(pattern, machine):
            return alias
    return machine


def _text(parent: ET.Element, tag: str) -> str:
    text = parent.findtext(tag, "").strip()
    if not text:
        raise ValueError(f"<{tag}> is missing")
    return text


def _attribute(parent: ET.Element | None, tag: str, attribute: str) -> str:
    element = parent.find(tag) if parent is not None else None
    return element.get(attribute, "") if element is not None else ""


def _bytes(element: ET.Element | None) -> int:
    if element is None or element.text is None:
        raise ValueError("<memory> is missing")
    return int(element.text) * UNITS[element.get("unit", "KiB")]


def _settle(domain: ET.Element) -> None:
    """Remove from `domain` what libvirt fills in by itself, and write the rest in one way."""
    for attribute in ("id",):
        domain.attrib.pop(attribute, None)
    for tag in ("metadata", "title", "description"):  # the owner's own notes, nothing a guest sees
        _drop(domain, tag)
    memory = _bytes(domain.find("memory"))
    for tag in ("memory", "currentMemory"):
        for element in domain.findall(tag):
            if tag == "currentMemory" and _bytes(element) == memory:
                domain.remove(element)
            else:
                element.text, element.attrib["unit"] = str(_bytes(element) // 1024), "KiB"
    for vcpu in domain.findall("vcpu"):
        _forget(vcpu, placement="static")
    _drop(domain, "resource", lambda it: it.findtext("partition") == "/machine")
    # Labels given at start by a security driver; one that the owner wrote is static or none, and stays.
    _drop(domain, "seclabel", lambda it: it.get("type", "dynamic") == "dynamic")
    for kind in domain.findall("./os/type"):
        kind.set("machine", _machine(kind))
    for cpu in domain.findall("cpu"):
        _forget(cpu, check="none")
    for devices in domain.findall("devices"):
        _settle_devices(devices)
    for element in domain.iter():
        element.text = (element.text or "") if not len(element) else ""
        element.tail = ""
        if element.text and element.tag not in {"kernel", "initrd", "cmdline"}:
            element.text = element.text.strip()


def _settle_devices(devices: ET.Element) -> None:
    _drop(devices, "emulator", lambda it: (it.text or "").strip() in EMULATORS)
    _drop(devices, "controller", lambda it: it.get("type") in {"usb", "pci", "sata", "ide"})
    _drop(devices, "input", lambda it: it.get("bus") == "ps2" and it.get("type") in {"mouse", "keyboard"})
    _drop(devices, "audio", lambda it: it.get("type") == "none")
    # libvirt 11 gives it to every q35 (the chipset has it); without a driver's ping it never fires.
    _drop(devices, "watchdog", lambda it: it.get("model") == "itco" and it.get("action") == "reset")
    for device in devices:
        _drop(device, "address", lambda it: it.get("type") in {"pci", "isa", "usb", "drive"})
        _drop(device, "alias", lambda it: not it.get("name", "").startswith("ua-"))  # ua-: the owner's own
    for disk in devices.findall("disk"):
        _drop(disk, "backingStore", lambda it: not it.attrib and not len(it))
        _drop(disk, "mirror")  # a copy under way, gone with it
        for source in disk.findall("source"):
            source.attrib.pop("index", None)
    for card in devices.findall("interface"):
        _drop(card, "target", lambda it: re.fullmatch(r"vnet\d+", it.get("dev", "")) is not None)
        for mac in card.findall("mac"):
            mac.set("address", mac.get("address", "").lower())
    for console in (*devices.findall("serial"), *devices.findall("console")):
        for source in console.findall("source"):
            _forget(source, tls="no")
        console.attrib.pop("tty", None)


def _drop(parent: ET.Element, tag: str, when: Test | None = None) -> None:
    for element in parent.findall(tag):
        if when is None or when(element):
            parent.remove(element)


def _forget(element: ET.Element, **attributes: str) -> None:
    for name, value in attributes.items():
        if element.get(name) == value:
            del element.attrib[name]


def _compare(path: str, wanted: ET.Element, found: ET.Element) -> Iterator[str]:
    """Yield in words how the settled tree `found` is not the settled tree `wanted`."""
    for name in sorted({*wanted.attrib, *found.attrib}):
        want, have = wanted.get(name), found.get(name)
        if want != have:
            yield f"{_where(path, name)}: {have or 'not set'}, wanted {want or 'not set'}"
    if wanted.text != found.text:
        yield f"{path or found.tag}: {found.text or 'empty'}, wanted {wanted.text or 'empty'}"
    left = list(found)
    for child in wanted:
        same = [other for other in left if other.tag == child.tag]
        match = next((other for other in same if _key(other) == _key(child)), None)
        if match is None:
            yield f"{_where(path, _title(child))}: missing"
            continue
        left.remove(match)
        yield from _compare(_where(path, _title(child)), child, match)
    for child in left:
        yield f"{_where(path, _title(child))}: not wanted: {_shown(child)}"


def _key(element: ET.Element) -> tuple[str, ...]:
    if element.tag == "disk":
        return (_attribute(element, "target", "dev"),)
    if element.tag == "interface":
        return (_attribute(element, "mac", "address"),)
    if element.tag == "boot":
        return (element.get("dev", ""),)
    if element.tag in {"serial", "console"}:
        return (_attribute(element, "target", "port"),)
    return ()


def _title(element: ET.Element) -> str:
    return " ".join((_plain(element.tag), *(part for part in _key(element) if part)))


def _where(path: str, name: str) -> str:
    return f"{path} {name}" if path and path != "devices" else name


def _plain(tag: str) -> str:
    return tag.rpartition("}")[2]  # ElementTree writes a namespace as {URI}tag


def _shown(element: ET.Element) -> str:
    copy = ET.fromstring(ET.tostring(element))  # noqa: S314
    for part in copy.iter():
        part.tag = _plain(part.tag)
    text = " ".join(ET.tostring(copy, encoding="unicode").split())
    return text if len(text) <= 160 else text[:157] + "..."
