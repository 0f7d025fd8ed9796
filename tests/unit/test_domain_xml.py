"""A guest's definition: to XML and back, and what is a difference to libvirt's own output and what is not."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facts.linux.domain import (
    Definition,
    DefinitionError,
    Disk,
    Interface,
    Kernel,
    differences,
    disks,
    from_xml,
    in_words,
    needs_restart,
    networks_of,
    to_xml,
    uuid_of,
)

RECORDED = sorted((Path(__file__).parent / "recorded").glob("libvirt-*.xml"))

DB1 = Definition(
    name="db1",
    uuid=uuid_of("db1"),
    memory=2 * 2**30,
    vcpus=2,
    machine="pc",
    boot="disk",
    disks=disks(["/dev/vg0/db1-root", "/dev/vg0/db1-data"]),
    interfaces=(Interface("52:54:00:12:34:56", "br0"), Interface("52:54:00:12:34:57", "br1")),
    console=5001,
)

text = st.text(st.characters(categories=("L", "N", "P", "S")), max_size=20)
kernels = st.builds(Kernel, path=text.map("/{}".format), initrd=st.just("") | text.map("/{}".format), cmdline=text)
names = st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True)
definitions = st.builds(
    Definition,
    name=names,
    uuid=st.uuids().map(str),
    memory=st.integers(1, 2**32).map(lambda kib: kib * 1024),
    vcpus=st.integers(1, 64),
    machine=st.sampled_from(["pc", "q35"]),
    boot=st.sampled_from(["disk", "network-then-disk"]) | kernels,
    disks=st.lists(names.map("/dev/vg0/{}".format), max_size=5, unique=True).map(disks),
    interfaces=st.lists(st.integers(0, 2**24 - 1), max_size=4, unique=True).map(
        lambda macs: tuple(
            Interface(f"52:54:00:{m >> 16:02x}:{m >> 8 & 255:02x}:{m & 255:02x}", f"br{m % 3}") for m in macs
        )
    ),
    console=st.integers(1, 65535),
)


@settings(deadline=None)
@given(definitions)
def test_xml_and_back(definition: Any) -> None:
    assert from_xml(to_xml(definition)) == definition
    assert differences(definition, from_xml(to_xml(definition))) == ()


@settings(deadline=None)
@given(definitions, definitions)
def test_a_difference_is_seen_whatever_it_is(one: Any, other: Any) -> None:
    assert bool(differences(one, other)) == (one != other)


@settings(deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=50).map(repr))
def test_nonsense_is_a_definition_error(nonsense: Any) -> None:
    with pytest.raises(DefinitionError):
        from_xml(nonsense)


def live() -> Any:
    """What a running guest's dumpxml has on top of the recorded inactive one."""
    xml = next(path for path in RECORDED if "9.0-pc-disk" in path.name).read_text()
    found = from_xml(xml)
    xml = xml.replace("<domain type='kvm'>", "<domain type='kvm' id='3'>")
    xml = xml.replace("<on_poweroff>", "<resource><partition>/machine</partition></resource><on_poweroff>")
    xml = re.sub(r"(<source dev='[^']+')/>", r"\1 index='1'/><backingStore/><alias name='virtio-disk0'/>", xml)
    xml = xml.replace("<model type='virtio'/>", "<target dev='vnet0'/><model type='virtio'/><alias name='net0'/>")
    xml = xml.replace(
        "</devices>",
        "</devices><seclabel type='dynamic' model='dac' relabel='yes'><label>+64055:+107</label>"
        "<imagelabel>+64055:+107</imagelabel></seclabel>",
    )
    return found, xml


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_what_libvirt_fills_in_is_no_difference(path: Any) -> None:
    found = from_xml(path.read_text())
    assert found.extras == ()
    wanted = from_xml(to_xml(found))
    assert differences(wanted, found) == needs_restart(wanted, found) == ()


def test_there_are_recordings_of_both_versions() -> None:
    assert {"9.0", "11.3"} <= {path.name.split("-")[1] for path in RECORDED}


def test_what_a_running_guest_has_on_top_is_no_difference() -> None:
    found, xml = live()
    assert from_xml(xml) == found


CHANGES = {
    "on_crash": ("<on_crash>restart", "<on_crash>preserve", "on_crash: preserve, wanted restart"),
    "on_reboot": ("<on_reboot>restart", "<on_reboot>destroy", "on_reboot: destroy, wanted restart"),
    "cpu mode": ("mode='host-passthrough'", "mode='host-model'", "cpu mode: host-model, wanted host-passthrough"),
    "migratable": ("migratable='on'", "migratable='off'", "cpu migratable: off, wanted on"),
    "cache": ("cache='none'", "cache='writeback'", "disk vda driver cache: writeback, wanted none"),
    "io": ("io='native'", "io='threads'", "disk vda driver io: threads, wanted native"),
    "discard": (" discard='unmap'", "", "disk vda driver discard: not set, wanted unmap"),
    "readonly": ("bus='virtio'/>", "bus='virtio'/><readonly/>", "disk vda readonly: not wanted: <readonly />"),
    "acpi": ("<acpi/>", "", "features acpi: missing"),
    "clock": ("offset='utc'", "offset='localtime'", "clock offset: localtime, wanted utc"),
    "console": ("mode='bind'", "mode='connect'", "serial 0 source mode: connect, wanted bind"),
    "log": (" append='on'", "", "serial 0 log append: not set, wanted on"),
    "emulator": ("qemu-system-x86_64", "wrapper", "emulator: not wanted: <emulator>/usr/bin/wrapper</emulator>"),
    "type": ("type='kvm'", "type='qemu'", "type: qemu, wanted kvm"),
    "balloon": ("model='none'/>", "model='virtio'/>", "memballoon model: virtio, wanted none"),
    "rng": ("/dev/urandom", "/dev/hwrng", "rng backend: /dev/hwrng, wanted /dev/urandom"),
    "current": (">524288</currentMemory>", ">1024</currentMemory>", "currentMemory: not wanted"),
    "no rng": ("<rng model='virtio'>", "<rng model='virtio-transitional'>", "rng model: virtio-transitional"),
    "arguments": (
        "</devices>",
        "</devices><q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><q:arg value='-s'/>"
        "</q:commandline>",
        "commandline: not wanted",
    ),
}
ADDITIONS = {
    "hostdev": "<hostdev mode='subsystem' type='pci'><source/></hostdev>",
    "filesystem": "<filesystem type='mount'><source dir='/'/><target dir='x'/></filesystem>",
    "graphics": "<graphics type='vnc' port='-1'/>",
    "video": "<video><model type='vga'/></video>",
    "sound": "<sound model='ich6'/>",
    "channel": "<channel type='unix'><target type='virtio' name='x'/></channel>",
    "usb tablet": "<input type='tablet' bus='usb'/>",
    "scsi controller": "<controller type='scsi' index='0' model='virtio-scsi'/>",
    "file disk": "<disk type='file' device='disk'><source file='/x'/><target dev='vdx' bus='virtio'/></disk>",
    "cdrom": "<disk type='block' device='cdrom'><source dev='/dev/sr0'/><target dev='sda' bus='sata'/></disk>",
    "nat interface": "<interface type='network'><mac address='52:54:00:00:00:ff'/><source network='default'/>"
    "<model type='virtio'/></interface>",
    "second serial": "<serial type='pty'><target port='1'/></serial>",
    "tpm": "<tpm model='tpm-tis'><backend type='emulator'/></tpm>",
    "watchdog": "<watchdog model='i6300esb' action='poweroff'/>",
    "something new": "<quantum-bridge/>",
}


def recorded() -> Any:
    return next(path for path in RECORDED if "9.0-pc-disk" in path.name).read_text()


@pytest.mark.parametrize("change", CHANGES)
def test_what_somebody_changed_is_a_difference(change: Any) -> None:
    old, new, words = CHANGES[change]
    xml = recorded()
    if change == "current":
        old = next(line for line in xml.splitlines() if "currentMemory" in line).strip()
        new = old.replace(">5", ">4")
    assert old in xml
    found = from_xml(xml.replace(old, new, 1))
    wanted = from_xml(to_xml(replace(found, extras=())))
    assert len(differences(wanted, found)) == 1
    assert differences(wanted, found)[0].startswith(words)
    with pytest.raises(ValueError, match="was found, not wanted"):
        to_xml(found)


@pytest.mark.parametrize("addition", ADDITIONS)
def test_what_somebody_added_is_a_difference(addition: Any) -> None:
    found = from_xml(recorded().replace("</devices>", ADDITIONS[addition] + "</devices>"))
    assert len(found.extras) == 1
    assert "not wanted" in found.extras[0]


def test_another_block_disk_or_bridge_is_a_difference_of_its_field() -> None:
    disk = (
        "<disk type='block' device='disk'><driver name='qemu' type='raw' cache='none' io='native' discard='unmap'/>"
        "<source dev='/dev/sdb'/><target dev='vdq' bus='virtio'/></disk>"
    )
    card = (
        "<interface type='bridge'><mac address='52:54:00:AA:00:01'/><source bridge='br9'/>"
        "<model type='virtio'/></interface>"
    )
    wanted = from_xml(recorded())
    found = from_xml(recorded().replace("</devices>", disk + card + "</devices>"))
    assert differences(wanted, found) == (
        "disk vdq: /dev/sdb, not wanted",
        "interface 52:54:00:aa:00:01: br9, not wanted",
    )


def test_fields_in_words() -> None:
    other = replace(
        DB1,
        memory=3 * 2**30,
        vcpus=4,
        machine="q35",
        boot=Kernel("/k", "/i", "a"),
        disks=(Disk("/dev/vg0/x", "vda"),),
        interfaces=DB1.interfaces[::-1],
        console=5002,
    )
    assert differences(other, DB1) == (
        "memory: 2 GiB, wanted 3 GiB",
        "vcpus: 2, wanted 4",
        "machine: pc, wanted q35",
        "boot: disk, wanted kernel /k /i a",
        "console: 5001, wanted 5002",
        "disk vda: /dev/vg0/db1-root, wanted /dev/vg0/x",
        "disk vdb: /dev/vg0/db1-data, not wanted",
        "interfaces: order 52:54:00:12:34:56 52:54:00:12:34:57, wanted 52:54:00:12:34:57 52:54:00:12:34:56",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "1db"}, "a guest's name"),
        ({"name": "db1;reboot"}, "a guest's name"),
        ({"uuid": "x"}, "uuid: x"),
        ({"memory": 1000}, "memory: 1000"),
        ({"vcpus": 0}, "vcpus: 0"),
        ({"machine": "microvm"}, "machine: microvm"),
        ({"console": 0}, "console: 0"),
        ({"console": 65536}, "console: 65536"),
        ({"boot": "floppy"}, "boot: floppy"),
        ({"boot": Kernel("k")}, "boot: k is not absolute"),
        ({"boot": Kernel("/k", "i")}, "boot: i is not absolute"),
        ({"boot": Kernel("/k", "/i", "a\nb")}, "has a character"),
        ({"disks": (Disk("/dev/../x", "vda"),)}, "disk vda"),
        ({"disks": (Disk("/dev/a", "sda"),)}, "disk sda"),
        ({"disks": (Disk("/dev/a", "vdb"), Disk("/dev/b", "vda"))}, "not in order"),
        ({"disks": (Disk("/dev/a", "vda"), Disk("/dev/a", "vdb"))}, "a device is there twice"),
        ({"interfaces": (Interface("52:54:00:12:34:5G", "br0"),)}, "interface"),
        ({"interfaces": (Interface("52:54:00:12:34:56", "br 0"),)}, "interface"),
        ({"interfaces": (Interface("52:54:00:12:34:56", "br0"),) * 2}, "a mac is there twice"),
    ],
)
def test_what_cannot_be_written_is_refused_by_field(change: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        to_xml(replace(DB1, **change))


@pytest.mark.parametrize("xml", ["", "<a/>", "<domain/>", "<domain><name>x</name></domain>", "<domain>"])
def test_what_is_no_domain_is_said(xml: Any) -> None:
    with pytest.raises(DefinitionError):
        from_xml(xml)


def test_networks_and_words() -> None:
    assert networks_of(to_xml(DB1)) == frozenset()
    xml = recorded().replace("</devices>", ADDITIONS["nat interface"] + "</devices>")
    assert networks_of(xml) == {"default"}
    assert networks_of("junk") == frozenset()
    assert [in_words(size) for size in (0, 1000, 2**20, 1536 * 2**20, 3 * 2**40)] == [
        "0 bytes",
        "1000 bytes",
        "1 MiB",
        "1536 MiB",
        "3 TiB",
    ]


def test_the_same_guest_has_the_same_uuid_for_ever() -> None:
    assert uuid_of("db1") == "ffa2e0ff-caed-509d-be38-0fb9c4a2e027"
    assert uuid_of("web1") != uuid_of("db1")
