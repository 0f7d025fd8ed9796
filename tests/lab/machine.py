"""One machine of the lab: its own files, its disks and its QEMU."""

import contextlib
import ipaddress
import json
import os
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.cpio import Entry, archive, directory, with_parents
from tests.lab.host import LabError, Process, boot_id, cache_directory, run
from tests.lab.images import DEPLOY, DEPLOY_ID

KERNEL_COMMAND_LINE = (
    "console=ttyS0 quiet panic=-1 mitigations=off init_on_alloc=0 audit=0 nokaslr apparmor=0 net.ifnames=0"
)
_NAMESPACE_UUID = uuid.UUID("6f1d0d5e-2c0b-4e57-9a57-0c2f1c6b7a10")
_LVM_TYPE = "E6D6D379-F507-44C2-A23C-238F2A3DF928"


@dataclass(frozen=True)
class MachineSpec:
    """What a machine is made of.

    Args:
        name: its host name.
        memory: bytes of memory, given out as they are used.
        cpus: its processors; an emulated machine has one.
        disk: bytes of its data disk, a sparse file with one partition labelled `guests`.
        mac: the address of its network card.
        address: its IPv4 address with the prefix length.
        gateway: its router.
    """

    name: str
    memory: int
    cpus: int
    disk: int
    mac: str
    address: str
    gateway: str

    @property
    def ip(self) -> str:
        """The address without the prefix length."""
        return str(ipaddress.ip_interface(self.address).ip)

    @property
    def uuid(self) -> uuid.UUID:
        """The system's UUID: libvirt refuses to migrate between two hosts that have the same."""
        return uuid.uuid5(_NAMESPACE_UUID, self.name)


def own_files(spec: MachineSpec, neighbours: Sequence[MachineSpec], host_key: Path, login_key: str) -> bytes:
    """Return the archive of the files that only this machine has, copied over its root at its first boot.

    Args:
        spec: the machine.
        neighbours: all machines of the lab, for /etc/hosts.
        host_key: its private SSH host key; the public one lies beside it.
        login_key: the public key that may log in as the deployment.
    """
    hosts = ["127.0.0.1 localhost", "::1 localhost", *(f"{other.ip} {other.name}" for other in neighbours)]
    netplan = f"""network:
  version: 2
  renderer: networkd
  ethernets:
    nic0:
      match:
        macaddress: "{spec.mac}"
      dhcp4: false
      dhcp6: false
      addresses:
        - {spec.address}
      routes:
        - to: default
          via: {spec.gateway}
"""
    public = host_key.with_name(host_key.name + ".pub").read_bytes()
    regular = 0o100000
    files = (
        ("etc/hostname", f"{spec.name}\n".encode(), 0o644),
        ("etc/hosts", "\n".join([*hosts, ""]).encode(), 0o644),
        ("etc/machine-id", f"{spec.uuid.hex}\n".encode(), 0o444),
        ("etc/netplan/50-installer.yaml", netplan.encode(), 0o600),
        ("etc/ssh/ssh_host_ed25519_key", host_key.read_bytes(), 0o600),
        ("etc/ssh/ssh_host_ed25519_key.pub", public, 0o644),
    )
    entries = [Entry(f"machine/{path}", content, regular | mode) for path, content, mode in files]
    home = f"machine/home/{DEPLOY}"
    entries += [directory(home, 0o700, DEPLOY_ID), directory(f"{home}/.ssh", 0o700, DEPLOY_ID)]
    entries.append(Entry(f"{home}/.ssh/authorized_keys", login_key.encode(), regular | 0o600, DEPLOY_ID))
    return archive(with_parents(entries))


def partition_script() -> str:
    """Return what sfdisk(8) makes of the data disk: a GPT with one partition over all of it."""
    return f"label: gpt\ntype={_LVM_TYPE}, name=guests\n"


def make_disks(spec: MachineSpec, image: Path, place: Path, root: Path) -> None:
    """Make the disks of a new machine.

    The data disk is a qcow2 because a range that the machine asks to be zeroed (blkdiscard -z, a new volume) takes
    no space in it; in a raw file QEMU allocates it, and the real size of these disks fills this computer's. The
    root is raw: it has no tables of its own that a killed QEMU could have left unwritten.

    Args:
        spec: the machine.
        image: a directory that `tests.lab.images` built.
        place: the machine's directory; gets `data.qcow2` and, last, `root.raw`.
        root: the root directory that QEMU is run from.

    Raises:
        LabError: a tool failed.
    """
    blank = place / "blank.raw"
    with blank.open("wb") as file:
        file.truncate(spec.disk)
    run(["sfdisk", "-q", blank], stdin=partition_script())
    convert = ["convert", "-f", "raw", "-O", "qcow2", str(blank), str(place / "data.qcow2")]
    run([*qemu_command(root, "qemu-img"), *convert])
    blank.unlink()
    copy_sparse(image / "disk.raw", place / "root.raw")


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a sparse file, whole or not at all; a running QEMU that has the target open keeps the old one.

    Args:
        source: the file.
        target: the copy's name.
    """
    part = target.with_name(target.name + ".part")
    run(["cp", "--sparse=always", "--reflink=auto", source, part])
    part.rename(target)


def qemu_command(root: Path, program: str) -> list[str]:
    """Return how to run a program of QEMU out of a root directory with that root's own libraries.

    Args:
        root: a root directory in which QEMU is installed.
        program: the program's name.
    """
    libraries = ":".join(str(root / name) for name in ("usr/lib/x86_64-linux-gnu", "usr/lib"))
    return [
        "env",
        f"QEMU_MODULE_DIR={root}/usr/lib/x86_64-linux-gnu/qemu",
        f"{root}/usr/lib64/ld-linux-x86-64.so.2",
        "--library-path",
        libraries,
        f"{root}/usr/bin/{program}",
    ]


def _emulator(root: Path) -> list[str]:
    firmware = (f"{root}/usr/share/qemu", f"{root}/usr/share/seabios")
    return [*qemu_command(root, "qemu-system-x86_64"), *(word for path in firmware for word in ("-L", path))]


def machine_arguments(spec: MachineSpec, image: Path, factor: float, accelerator: str) -> list[str]:
    """Return the part of QEMU's command line that must be the same when a saved state is loaded.

    Args:
        spec: the machine.
        image: the directory that its kernel comes from.
        factor: the part of its memory that it gets.
        accelerator: the value of -accel.

    Returns:
        The arguments; file names in them are relative to the machine's directory, except the kernel.
    """
    disk = "if=virtio,cache=unsafe,discard=unmap,detect-zeroes=unmap"
    memory = int(spec.memory * factor) >> 20
    # QEMU's emulation of nested SVM corrupts a machine's kernel when two of its processors are emulated at once:
    # an oops, or a guest that never boots, within sixteen starts of guests (docs/measured).
    cpus = spec.cpus if accelerator == "kvm" else 1
    return [
        *("-name", spec.name, "-uuid", str(spec.uuid)),
        *("-accel", accelerator, "-cpu", "max", "-smp", str(cpus), "-m", f"{memory}M"),
        *("-object", f"memory-backend-ram,id=ram0,size={memory}M,reserve=off"),
        *("-machine", "pc,memory-backend=ram0", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-kernel", str(image / "vmlinux"), "-initrd", "initrd", "-append", KERNEL_COMMAND_LINE),
        *("-drive", f"file=root.raw,format=raw,{disk}", "-drive", f"file=data.qcow2,format=qcow2,{disk}"),
        *("-netdev", f"tap,id=net0,ifname={tap(spec)},script=no,downscript=no"),
        *("-device", f"virtio-net-pci,netdev=net0,mac={spec.mac},romfile="),
        *("-device", "virtio-rng-pci"),
        *(
            "-chardev",
            "socket,id=console,path=console.sock,server=on,wait=off,logfile=console.log,logappend=on",
        ),
        *("-serial", "chardev:console", "-qmp", "unix:qmp.sock,server=on,wait=off"),
    ]


def tap(spec: MachineSpec) -> str:
    """Return the name of a machine's network interface in the lab's namespace."""
    return f"tap-{spec.name}"[:15]


def memory_factor() -> float:
    """Return the part of their memory that the machines get.

    Returns:
        1.0; or 0.125 with vm.overcommit_memory = 2, where memory counts already when it is asked for.
    """
    return 0.125 if Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2" else 1.0


def accelerator(root: Path) -> str:
    """Return which of QEMU's accelerators works, found out once for each boot of the computer.

    A /dev/kvm may be there, open and answer, and still never run a machine: so one is run.

    Args:
        root: the root directory that QEMU is run from, with the guests' kernel and initial ramdisk in it.

    Returns:
        `kvm`, or `tcg,thread=multi`.
    """
    remembered = cache_directory() / "accelerator.json"
    with contextlib.suppress(FileNotFoundError, ValueError):
        found = json.loads(remembered.read_text())
        if found["boot"] == boot_id():
            return str(found["accelerator"])
    result = "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) and _kvm_runs(root) else "tcg,thread=multi"
    remembered.write_text(json.dumps({"boot": boot_id(), "accelerator": result}))
    return result


def _kvm_runs(root: Path) -> bool:
    guest = root / "var/lib/lab-guest"
    argv = [
        *_emulator(root),
        *("-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-no-reboot", "-kernel", str(guest / "vmlinux"), "-initrd", str(guest / "initrd")),
        *("-append", "console=ttyS0 quiet panic=-1", "-serial", "stdio"),
    ]
    probe = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    output = probe.stdout
    assert output is not None
    os.set_blocking(output.fileno(), False)
    seen = b""
    until = time.monotonic() + 10
    try:
        while time.monotonic() < until and probe.poll() is None and b"heartbeat" not in seen:
            seen += output.read() or b""
            time.sleep(0.05)
    finally:
        probe.kill()
        probe.wait()
    return b"heartbeat" in seen


def spawn(place: Path, namespace: Path, root: Path, arguments: Sequence[str]) -> Process:
    """Start a machine's QEMU.

    Args:
        place: the machine's directory; gets its sockets and logs.
        namespace: the lab's network namespace.
        root: the root directory that QEMU is run from.
        arguments: what `machine_arguments` returned, and more.

    Returns:
        The running process, also saved in `qemu.json`.

    Raises:
        LabError: it ended at once; the message is QEMU's.
    """
    log = place / "qemu.log"
    log.unlink(missing_ok=True)
    for name in ("qmp.sock", "console.sock"):
        (place / name).unlink(missing_ok=True)
    enter = ["nsenter", f"--net={namespace}", "env", f"--chdir={place}"]
    process = Process.spawn([*enter, *_emulator(root), *arguments], log)
    process.save(place / "qemu.json")
    until = time.monotonic() + 30
    while not (place / "qmp.sock").exists():
        if not process.alive() or time.monotonic() > until:
            process.stop(grace=0)
            raise LabError(f"{place.name}: QEMU does not start: {log.read_text().strip()[-500:]}")
        time.sleep(0.05)
    return process
