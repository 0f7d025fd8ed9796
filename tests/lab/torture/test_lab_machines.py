"""The lab itself, with one small machine: what every other test in it takes for granted."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import images
from tests.lab.host import LabError
from tests.lab.lab import Lab
from tests.lab.machine import MachineSpec
from tests.lab.qmp import connect
from tests.lab.roots import libvirt_in_root, toolbox_run

SPEC = MachineSpec("kvm9", 1 << 30, 2, 20 * 10**9, "52:54:00:c8:01:09", "192.168.1.9/24", "192.168.1.1")
GUEST = """<domain type='kvm'>
  <name>g1</name>
  <uuid>5b0f5a0e-7f4e-4c0b-9d3c-0d1f0e0a0901</uuid>
  <memory unit='MiB'>96</memory>
  <os>
    <type machine='pc'>hvm</type>
    <kernel>/var/lib/lab-guest/vmlinux</kernel>
    <initrd>/var/lib/lab-guest/initrd</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 guest.name=g1 guest.address=10.77.0.31/24 guest.beat=1 WORDS</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <disk type='block' device='disk'>
      <driver name='qemu' type='raw' cache='none'/><source dev='/dev/guests/g1'/><target dev='vda' bus='virtio'/>
    </disk>
    <interface type='bridge'><source bridge='br0'/><model type='virtio'/></interface>
    <serial type='pty'><log file='/var/log/libvirt/g1.log' append='on'/></serial>
  </devices>
</domain>
"""
PREPARE = """set -e
vgcreate -y -q guests /dev/disk/by-partlabel/guests
lvcreate -y -q -Wn -Zn -L 64m -n g1 guests
ip link add br0 type bridge
ip link set br0 up
ip address add 10.77.0.9/24 dev br0
"""
RECORD = "dd if=/dev/guests/g1 bs=512 skip=8 count=1 iflag=direct status=none | tr -d '\\0'"
REGION = "dd if=/dev/guests/g1 bs=1M skip=1 count=1 iflag=direct status=none | sha256sum"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(209, tmp_path_factory.mktemp("lab"), [SPEC])
    try:
        made.up()
        yield made
    finally:
        made.down(wipe=True)
    assert not Path("/run/netns/hf209").exists()


def wait_for(lab: Lab, command: str, text: str, deadline: float = 300) -> str:
    until = time.monotonic() + deadline
    while True:
        try:
            found = lab.ssh("kvm9", command)
            if text in found:
                return found
        except LabError:
            pass
        assert time.monotonic() < until, f"no {text!r} from {command!r} after {deadline:.0f} s"
        time.sleep(0.5)


def count(record: str) -> int:
    return int(record.split()[2])


def refused(lab: Lab) -> bool:
    try:
        socket.create_connection(lab.relay("kvm9"), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_up_again_leaves_a_running_machine_alone(lab: Lab) -> None:
    pid = lab.pid("kvm9")
    assert pid
    lab.up()
    assert lab.pid("kvm9") == pid


def test_a_guest_beats_grows_and_goes_on_counting(lab: Lab) -> None:
    lab.ssh("kvm9", PREPARE)
    lab.ssh("kvm9", "virsh define /dev/stdin && virsh start g1", stdin=GUEST.replace("WORDS", ""))
    log = wait_for(lab, "cat /var/log/libvirt/g1.log", "heartbeat g1 2 boot=1 vda=67108864")
    assert log.startswith("heartbeat g1 1 boot=1")
    assert lab.ssh("kvm9", RECORD).startswith("heartbeat g1 ")
    lab.ssh("kvm9", "ping -c 1 -W 5 10.77.0.31")
    region = lab.ssh("kvm9", REGION)
    lab.ssh("kvm9", "lvextend -q -L 128m guests/g1 && virsh blockresize g1 /dev/guests/g1 128M")
    wait_for(lab, "tail -1 /var/log/libvirt/g1.log", "vda=134217728")
    before = count(lab.ssh("kvm9", RECORD))
    lab.ssh("kvm9", "virsh shutdown g1")
    wait_for(lab, "virsh domstate g1", "shut off")
    lab.ssh("kvm9", "virsh start g1")
    assert count(wait_for(lab, RECORD, "boot=2")) > before
    assert lab.ssh("kvm9", REGION) == region


def test_a_saved_state_comes_back_with_its_guests_and_the_right_time(lab: Lab) -> None:
    lab.save("beating")
    saved = count(lab.ssh("kvm9", RECORD))
    lab.ssh("kvm9", "virsh destroy g1 && lvremove -y -q guests/g1")
    lab.restore("beating")
    assert abs(float(lab.ssh("kvm9", "date +%s.%N")) - time.time()) < 5
    restored = wait_for(lab, RECORD, "boot=2")
    assert count(restored) >= saved - 2
    assert lab.ssh("kvm9", "virsh domstate g1").strip() == "running"


def test_a_passphrase_is_waited_for(lab: Lab) -> None:
    asking = GUEST.replace("WORDS", "guest.passphrase")
    lab.ssh("kvm9", "virsh destroy g1 && virsh define /dev/stdin && >/var/log/libvirt/g1.log", stdin=asking)
    before = lab.ssh("kvm9", RECORD)
    lab.ssh("kvm9", "virsh start g1")
    wait_for(lab, "cat /var/log/libvirt/g1.log", "passphrase: ")
    with pytest.raises(LabError):
        lab.ssh("kvm9", "ping -c 2 -W 2 10.77.0.31")
    assert lab.ssh("kvm9", RECORD) == before
    # QEMU notices only after a second that somebody has the terminal open.
    lab.ssh("kvm9", "{ sleep 3; echo secret; sleep 3; } >$(virsh ttyconsole g1)")
    wait_for(lab, RECORD, "boot=3")
    lab.ssh("kvm9", "ping -c 1 -W 5 10.77.0.31")


def test_the_console_is_a_login(lab: Lab) -> None:
    with connect(lab.console_socket("kvm9"), 60) as console:
        console.sendall(b"\necho $((6 * 7))\n")
        seen = b""
        while b"\r42\r" not in seen and b"\n42\r" not in seen:
            received = console.recv(4096)
            assert received, seen
            seen += received


def test_a_power_cut_loses_nothing_that_was_written(lab: Lab) -> None:
    lab.ssh("kvm9", "echo kept >/root/kept && sync /root /root/kept")
    before = count(lab.ssh("kvm9", RECORD))
    lab.kill("kvm9")
    assert not lab.running("kvm9")
    assert refused(lab)
    lab.start("kvm9")
    assert lab.ssh("kvm9", "cat /root/kept") == "kept\n"
    assert count(lab.ssh("kvm9", RECORD)) >= before


def test_a_reboot_from_inside_keeps_the_machines_files(lab: Lab) -> None:
    lab.ssh("kvm9", "echo '# mine' >>/etc/hosts")
    lab.reboot("kvm9")
    assert "# mine" in lab.ssh("kvm9", "cat /etc/hosts")


def test_packages_come_from_the_labs_repository(lab: Lab) -> None:
    lab.ssh("kvm9", "apt-get -q update && apt-get -q install -y --reinstall socat", deadline=180)


def test_both_libvirts_define_a_guest_and_keep_the_definition() -> None:
    for root in (images.packages_image() / "root", images.old_libvirt() / "root"):
        with libvirt_in_root(root) as run:
            assert run(["virsh", "define", "/dev/stdin"], input=GUEST).returncode == 0
            dumped = run(["virsh", "dumpxml", "--inactive", "g1"]).stdout
            assert "/var/lib/lab-guest/vmlinux" in dumped


def test_parsers_run_without_touching_the_root(tmp_path: Path) -> None:
    (tmp_path / "guest.xml").write_text(GUEST)
    assert toolbox_run(["virt-xml-validate", "guest.xml", "domain"], {tmp_path: "/given"}, "/given").returncode == 0
    broken = GUEST.replace("memory", "memmory")
    assert toolbox_run(["virt-xml-validate", "-", "domain"], stdin=broken).returncode != 0
    assert toolbox_run(["touch", "/etc/left-behind"]).returncode == 0
    assert not (images.packages_image() / "root/etc/left-behind").exists()
