import os
import stat
import struct
from pathlib import Path

import pytest
import yaml

from tests.lab.cpio import Entry, archive, directory, with_parents
from tests.lab.host import LabError, Process, cached, run
from tests.lab.images import module_order, payload
from tests.lab.lab import MACHINES, Lab
from tests.lab.machine import own_files, partition_script


def unpack(data: bytes) -> dict[str, tuple[int, bytes]]:
    found: dict[str, tuple[int, bytes]] = {}
    offset = 0
    while True:
        assert data[offset : offset + 6] == b"070701"
        fields = [int(data[offset + 6 + 8 * n : offset + 14 + 8 * n], 16) for n in range(13)]
        name = data[offset + 110 : offset + 109 + fields[11]].decode()
        begin = (offset + 110 + fields[11] + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], data[begin : begin + fields[6]])
        offset = (begin + fields[6] + 3) // 4 * 4


def test_archive_round_trip() -> None:
    entries = with_parents([Entry("a/b/c", b"text\n"), Entry("a/d", b"", stat.S_IFREG | 0o600), directory("a", 0o700)])
    assert archive([Entry("a", owner=1000)]) != archive([Entry("a")])
    data = archive(entries)
    assert len(data) % 512 == 0
    found = unpack(data)
    assert list(found) == ["a", "a/b", "a/b/c", "a/d"]
    assert found["a"] == (stat.S_IFDIR | 0o700, b"")
    assert found["a/b/c"] == (stat.S_IFREG | 0o644, b"text\n")
    assert archive(entries) == data


def test_a_machines_own_files(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("private")
    (tmp_path / "key.pub").write_text("public")
    found = unpack(own_files(MACHINES[0], MACHINES, key, "ssh-ed25519 AAAA"))
    mode, text = found["machine/etc/netplan/50-installer.yaml"]
    assert stat.S_IMODE(mode) == 0o600
    nic = yaml.safe_load(text)["network"]["ethernets"]["nic0"]
    assert nic["match"]["macaddress"] == "52:54:00:c8:01:0b"
    assert nic["addresses"] == ["192.168.1.11/24"]
    assert found["machine/etc/hostname"][1] == b"kvm1\n"
    assert stat.S_IMODE(found["machine/home/deploy"][0]) == 0o700
    mode, text = found["machine/home/deploy/.ssh/authorized_keys"]
    assert (stat.S_IMODE(mode), text) == (0o600, b"ssh-ed25519 AAAA")
    assert stat.S_IMODE(found["machine/etc/ssh/ssh_host_ed25519_key"][0]) == 0o600


def test_machines_differ_in_what_libvirt_compares() -> None:
    assert len({spec.uuid for spec in MACHINES}) == len(MACHINES)


def test_the_data_disk_has_one_labelled_partition(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.touch()
    os.truncate(disk, 256 * 10**9)
    run(["sfdisk", "-q", disk], stdin=partition_script())
    dump = run(["sfdisk", "-d", disk])
    lines = [line for line in dump.splitlines() if line.startswith(str(disk))]
    assert len(lines) == 1
    assert 'name="guests"' in lines[0]
    assert int(lines[0].split("size=")[1].split(",")[0]) * 512 > 255 * 10**9
    assert disk.stat().st_blocks * 512 < 1 << 20


def test_kernel_payload_is_found() -> None:
    frame = b"\x28\xb5\x2f\xfd" + b"frame"
    image = bytearray(4 * 512)
    image[0x1F1] = 1
    struct.pack_into("<II", image, 0x248, 100, len(frame) + 4)
    image[2 * 512 + 100 : 2 * 512 + 100 + len(frame)] = frame
    assert payload(bytes(image)) == frame
    image[2 * 512 + 100] = 0
    with pytest.raises(LabError, match="zstd"):
        payload(bytes(image))


def test_modules_come_after_what_they_need() -> None:
    dependencies = "a/x.ko.xz: b/y.ko.xz b/z.ko.xz\nb/y.ko.xz: b/z.ko.xz\nb/z.ko.xz:\n"
    assert module_order(dependencies, ["x", "built_in", "y"]) == ["b/z.ko.xz", "b/y.ko.xz", "a/x.ko.xz"]


def test_a_process_is_told_from_a_later_one_with_its_number(tmp_path: Path) -> None:
    process = Process.spawn(["sleep", "60"], tmp_path / "log")
    process.save(tmp_path / "record")
    assert Process.load(tmp_path / "record") == process
    later = Process(process.pid, process.started + 1, process.boot)
    assert process.alive()
    assert not later.alive()
    later.stop()
    assert process.alive()
    process.stop()
    assert not process.alive()
    assert Process.load(tmp_path / "none") is None


def test_a_half_built_result_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("tests.lab.host.need_root", lambda: None)
    (tmp_path / "homefleet").mkdir()

    def fail(part: Path) -> None:
        (part / "half").touch()
        raise LabError("no")

    def work(part: Path) -> None:
        assert not list(part.iterdir())
        (part / "whole").touch()

    with pytest.raises(LabError):
        cached("thing", ["recipe"], fail)
    made = cached("thing", ["recipe"], work)
    assert [path.name for path in made.iterdir()] == ["whole"]
    assert cached("thing", ["recipe"], fail) == made
    assert cached("thing", ["other"], work) != made


def test_a_lab_of_another_checkout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.lab.lab._OWNERS", tmp_path / "owners")
    monkeypatch.setattr("tests.lab.lab.need_root", lambda: None)
    other = tmp_path / "other"
    other.mkdir()
    Process.of(os.getpid()).save(other / "relay.json")
    (tmp_path / "owners").mkdir()
    (tmp_path / "owners/250").write_text(str(other))
    with pytest.raises(LabError, match=f"lab 250 of this computer belongs to {other}"):
        Lab(250, tmp_path / "mine").up()
    assert (tmp_path / "owners/250").read_text() == str(other)
