"""A running lab: machines on a network of their own, made, started, saved and removed as one.

Everything about one lab lies in one directory: `id_ed25519`, `person_ed25519` and `known_hosts` for whoever logs in, a
directory for each machine with its disks, console log and sockets, and `saved` with states to go back to.
"""

import contextlib
import json
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

from fleet.load import known_hosts_file
from fleet.model.lab import PERSON_KEY
from fleet.model.secret import lab_place
from tests.lab import images
from tests.lab.host import LabError, Process, digest, give_to_user, locked, need_root, run, step
from tests.lab.machine import (
    MachineSpec,
    accelerator,
    copy_sparse,
    machine_arguments,
    make_disks,
    memory_factor,
    own_files,
    spawn,
    tap,
)
from tests.lab.openbsd.fleet import StandIns, production
from tests.lab.qmp import monitor

Image = Literal["bare", "packages"]

# Not 22: a computer whose own sshd listens on every address has that port taken on the loopback network too.
RELAY_PORT = 2222
BRIDGE = "flat"
BRIDGE_ADDRESSES = (f"{images.REPOSITORY_ADDRESS}/24", "10.77.0.254/24")
MACHINES = (
    MachineSpec("kvm1", 20 << 30, 2, 256 * 10**9, "52:54:00:c8:01:0b", "192.168.1.11/24", "192.168.1.1"),
    MachineSpec("kvm2", 16 << 30, 2, 256 * 10**9, "52:54:00:c8:01:0c", "192.168.1.12/24", "192.168.1.1"),
)

_DISKS = ("root.raw", "data.qcow2")
_OWNERS = Path("/run/homefleet")


def lab_directory(index: int) -> Path:
    """Return where the lab of this checkout keeps its state.

    Args:
        index: the lab's number.
    """
    return Path(__file__).resolve().parents[2] / ".lab" / str(index)


class _Built(NamedTuple):
    """What a lab was made from; it keeps these when the recipes change."""

    kind: str
    image: Path
    toolbox: Path
    repository: Path


class Lab:
    """The lab's machines and their network.

    Args:
        index: its number on this computer, 0 to 255; it has the network namespace `hfINDEX` and the addresses
            127.77.INDEX.0/24.
        directory: where its state is; made if missing.
        machines: what it consists of.
        image: `bare`, a freshly installed system, or `packages`, one with the packages that are declared.
    """

    def __init__(
        self,
        index: int = 0,
        directory: Path | None = None,
        machines: Sequence[MachineSpec] = MACHINES,
        image: Image = "packages",
    ) -> None:
        self.index = index
        self.directory = (directory or lab_directory(index)).resolve()
        self.machines = {spec.name: spec for spec in machines}
        self.image: Image = image
        self.namespace = f"hf{index}"
        self.stand_ins = StandIns(index, self.directory)
        self.memory_factor = memory_factor()

    @property
    def key(self) -> Path:
        """The private key that logs in as the deployment."""
        return self.directory / "id_ed25519"

    @property
    def person_key(self) -> Path:
        """The private key of the first of a site's people."""
        return self.directory / PERSON_KEY

    @property
    def known_hosts(self) -> Path:
        """The host keys of machines and stand-ins as installed: by name, at the relay's address and their own."""
        return self.directory / "known_hosts"

    def relay(self, name: str) -> tuple[str, int]:
        """Return the address and port at which a machine's or stand-in's SSH is reached from outside the lab.

        Args:
            name: the machine.
        """
        if name in self.stand_ins.hosts:
            return self.stand_ins.hosts[name].relay
        return f"127.77.{self.index}.{self._spec(name).ip.rpartition('.')[2]}", RELAY_PORT

    def host_key(self, name: str) -> str:
        """Return the public SSH host key that a machine was installed with.

        Args:
            name: the machine.
        """
        words = (self._place(name) / "ssh_host_ed25519_key.pub").read_text().split()
        return " ".join(words[:2])

    def host_key_options(self, name: str) -> dict[str, str]:
        """Return the options of ssh by which a machine or stand-in is known, as installed and as deployed.

        Args:
            name: the machine.
        """
        sites = (site.name for site in production() for host in site.hosts if host.name == name)
        deployed = [known_hosts_file(lab_place(self.index), site, name) for site in sites]
        return {"HostKeyAlias": name, "UserKnownHostsFile": " ".join(map(str, (self.known_hosts, *deployed)))}

    def console(self, name: str) -> Path:
        """Return the log of everything a machine or stand-in wrote to its console.

        Args:
            name: the machine.
        """
        if name in self.stand_ins.hosts:
            return self.stand_ins.hosts[name].console
        return self._place(name) / "console.log"

    def console_socket(self, name: str) -> Path:
        """Return the Unix socket of a machine's serial console.

        Args:
            name: the machine.
        """
        return self._place(name) / "console.sock"

    def ssh_argv(self, name: str, *command: str) -> list[str]:
        """Return the ssh command that gives root on a machine, or logs in to a stand-in as the deployment.

        Args:
            name: the machine.
            command: what to run there; a shell if empty.
        """
        address, port = self.relay(name)
        if name in self.stand_ins.hosts:
            there = [f"{self.stand_ins.hosts[name].user}@{address}", *command]
        elif command:
            there = [f"{images.DEPLOY}@{address}", shlex.join(("sudo", "-n", "bash", "-c", " ".join(command)))]
        else:
            there = ["-t", f"{images.DEPLOY}@{address}", "sudo -n -i"]
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "10",
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
            "ServerAliveInterval": "15",
            "StrictHostKeyChecking": "yes",
            **self.host_key_options(name),
        }
        words = [word for option, value in options.items() for word in ("-o", f"{option}={value}")]
        return [
            "ssh",
            "-F",
            "none",
            "-i",
            str(self.key),
            *words,
            "-p",
            str(port),
            *there,
        ]

    def ssh(self, name: str, command: str, *, stdin: str = "", deadline: float = 300) -> str:
        """Run a command on a machine.

        Args:
            name: the machine.
            command: a line for its shell.
            stdin: what the command reads.
            deadline: seconds it may take.

        Returns:
            What it printed.

        Raises:
            LabError: it failed, the machine cannot be reached, or it took too long.
        """
        return run(self.ssh_argv(name, command), stdin=stdin, deadline=deadline)

    def in_network(
        self, argv: Sequence[str], place: str = "", *, deadline: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of this computer inside the lab's network, as a neighbour of the machines or at another place.

        Args:
            argv: the command.
            place: `home`, `owner`, `stranger`, `internet` or a stand-in: where in the lab's networks it runs; the
                machines' own network by default. The last three of `tests.lab.openbsd.networks` need the stand-ins.
            deadline: seconds it may take.

        Returns:
            The finished command, whatever its exit code.
        """
        need_root()
        namespace = f"{self.namespace}-{place}" if place else self.namespace
        enter = ["nsenter", f"--net=/run/netns/{namespace}"]
        return subprocess.run([*enter, *argv], capture_output=True, text=True, timeout=deadline, check=False)

    def running(self, name: str) -> bool:
        """Tell whether a machine is on.

        Args:
            name: the machine.
        """
        return (process := self._qemu(name)) is not None and process.alive()

    def pid(self, name: str) -> int | None:
        """Return the number of a machine's QEMU process, None if it is off.

        Args:
            name: the machine.
        """
        process = self._qemu(name)
        return process.pid if process and process.alive() else None

    def status(self) -> dict[str, str]:
        """Return one line for each machine."""
        return {
            name: (
                self._running_status(name)
                if self.running(name)
                else "off"
                if (self._place(name) / "root.raw").exists()
                else "not made"
            )
            for name in self.machines
        } | self.stand_ins.status()

    def _running_status(self, name: str) -> str:
        told = f"pid {self.pid(name)}, {images.DEPLOY}@{':'.join(map(str, self.relay(name)))}"
        try:
            with monitor(self._place(name) / "qmp.sock", 5) as command:
                state = command("query-status")["status"]
        except (LabError, PermissionError):
            state = "running"
        # QEMU stops a machine whose disk file cannot grow.
        return f"{state}, {told}" + (": is this computer's disk full?" if state == "io-error" else "")

    def up(self, stand_ins: Sequence[str] = (), *, machines: bool = True) -> None:
        """Make what is missing and start what is off; what runs is left alone.

        Args:
            stand_ins: names of the OpenBSD stand-ins wanted.
            machines: whether the machines are wanted.

        Raises:
            LabError: the index belongs to another checkout, the lab has another image, or a step failed.
        """
        need_root()
        with self._locked():
            self._claim()
            self._make_key()
            self._make_network()
            if stand_ins:
                self.stand_ins.up(stand_ins, self.key.with_name("id_ed25519.pub").read_text())
                self._write_known_hosts()
            if machines:
                built = self._built()
                self._make_host_keys()
                self._serve_packages(built)
                self._wait([name for name in self.machines if self._start(name, built)])

    def down(self, *, wipe: bool = False) -> None:
        """Stop everything, also what a crash left behind.

        Args:
            wipe: forget the disks, keys and saved states too.
        """
        need_root()
        with self._locked():
            if self._owner() in (None, self.directory):
                self.stand_ins.down(grace=0 if wipe else 40)
                with step("switching off"), ThreadPoolExecutor() as pool:
                    # A machine with guests first lets libvirt-guests.service put them away, one after another.
                    list(pool.map(lambda name: self._power_off(name, 0 if wipe else 120), self.machines))
                self._sweep()
            if wipe:
                for path in self.directory.iterdir():
                    if path.is_dir():
                        shutil.rmtree(path)
                    elif path.name != "lock":
                        path.unlink()

    def start(self, name: str) -> None:
        """Switch one machine or stand-in on and wait until it lets one in.

        Args:
            name: the machine.

        Raises:
            LabError: it does not come up.
        """
        if name in self.stand_ins.hosts:
            self.up([name], machines=False)
            return
        need_root()
        with self._locked():
            if self._start(name, self._built()):
                self._wait([name])

    def stop(self, name: str, *, grace: float = 120) -> None:
        """Switch one machine off by its power button; by force if it takes too long.

        Args:
            name: the machine.
            grace: seconds it gets.
        """
        need_root()
        with self._locked():
            if name in self.stand_ins.hosts:
                self.stand_ins.hosts[name].stop(grace=grace)
            else:
                self._power_off(name, grace)

    def kill(self, name: str) -> None:
        """Take a machine's power away. What it had written to its disks is on them.

        Args:
            name: the machine.
        """
        need_root()
        if name in self.stand_ins.hosts:
            self.stand_ins.hosts[name].stop(grace=0)
            return
        if process := self._qemu(name):
            # QEMU itself ends in order: what it keeps of a disk image in its memory is no part of the machine.
            with contextlib.suppress(LabError, OSError), monitor(self._place(name) / "qmp.sock", 10) as command:
                command("quit")
            until = time.monotonic() + 10
            while process.alive() and time.monotonic() < until:
                time.sleep(0.1)
            process.stop(grace=0)
        self._forget(name)

    def reboot(self, name: str, *, deadline: float = 180) -> None:
        """Reboot a machine from inside and wait until it is back.

        Args:
            name: the machine.
            deadline: seconds it may take.

        Raises:
            LabError: it is not back in time.
        """
        if name in self.stand_ins.hosts:
            need_root()
            self.stand_ins.hosts[name].reboot()
            return
        before = self.ssh(name, "cat /proc/sys/kernel/random/boot_id; systemctl --no-block reboot").split()[0]
        until = time.monotonic() + deadline
        while time.monotonic() < until:
            with contextlib.suppress(LabError):
                if self.ssh(name, "cat /proc/sys/kernel/random/boot_id", deadline=15).strip() != before:
                    return
            time.sleep(0.5)
        raise LabError(f"{name}: not back {deadline:.0f} s after its reboot")

    def save(self, label: str) -> None:
        """Keep the state of all machines, memory and disks, of one instant; they run on.

        Args:
            label: the state's name; an older one of that name is replaced.

        Raises:
            LabError: a machine cannot be saved.
        """
        need_root()
        with self._locked():
            part = self.directory / "saved" / f".{label}.part"
            shutil.rmtree(part, ignore_errors=True)
            built = self._built()
            on = [name for name in self.machines if self.running(name)]
            with ThreadPoolExecutor() as pool:
                try:
                    # All stand still before the first is copied: their clocks and connections stay in step.
                    list(pool.map(self._hold_guests, on))
                    list(pool.map(self._pause, on))
                    list(
                        pool.map(
                            lambda name: self._copy_out(name, part / name, with_memory=name in on),
                            self.machines,
                        )
                    )
                finally:
                    list(pool.map(self._continue, on))
                    list(pool.map(self._release_guests, on))
            (part / "machines.json").write_text(json.dumps(self._fingerprint(built)))
            final = part.with_name(label)
            shutil.rmtree(final, ignore_errors=True)
            part.rename(final)

    def saved(self, label: str) -> bool:
        """Tell whether there is a saved state that this lab can go back to.

        Args:
            label: its name.
        """
        found = self.directory / "saved" / label / "machines.json"
        return found.exists() and json.loads(found.read_text()) == self._fingerprint(self._built())

    def restore(self, label: str) -> None:
        """Go back to a saved state; machines that were off then are off afterwards.

        Args:
            label: its name.

        Raises:
            LabError: there is none, or it is one of differently made machines.
        """
        need_root()
        with self._locked():
            if not self.saved(label):
                raise LabError(f"lab {self.index} has no saved state {label!r} of machines like these")
            self._claim()
            built = self._built()
            source = self.directory / "saved" / label
            for name in self.machines:
                self.kill(name)
            self._make_network()
            self._serve_packages(built)
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda name: self._copy_in(name, source / name), self.machines))
                on = [name for name in self.machines if (source / name / "memory").exists()]
                list(pool.map(lambda name: self._start(name, built, source / name / "memory"), on))
                self._wait(on)
                list(pool.map(self._release_guests, on))

    def _spec(self, name: str) -> MachineSpec:
        try:
            return self.machines[name]
        except KeyError:
            raise LabError(f"the lab has no machine {name} (it has {', '.join(self.machines)})") from None

    def _place(self, name: str) -> Path:
        return self.directory / self._spec(name).name

    def _qemu(self, name: str) -> Process | None:
        return Process.load(self._place(name) / "qemu.json")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        for path in (self.directory.parent, self.directory):
            if not path.exists():
                path.mkdir(parents=True)
                give_to_user(path)
        with locked(self.directory / "lock"):
            yield

    def _owner(self) -> Path | None:
        with contextlib.suppress(FileNotFoundError):
            return Path((_OWNERS / str(self.index)).read_text())
        return None

    def _claim(self) -> None:
        _OWNERS.mkdir(exist_ok=True)
        owner = self._owner()
        if owner is not None and owner != self.directory:
            # A computer that was switched off, or a session that was ended, leaves the claim and nothing behind it.
            kept = (Process.load(path) for path in _records(owner))
            if any(process is not None and process.alive() for process in kept):
                raise LabError(
                    f"lab {self.index} of this computer belongs to {owner}: take it down there, or use another index"
                )
            self._sweep()
        (_OWNERS / str(self.index)).write_text(str(self.directory))

    def _sweep(self) -> None:
        """End every process of the lab and remove its namespace; the relays end with their machines."""
        found = [Process.load(path) for path in _records(self.directory)]
        for process in found:
            if process:
                process.stop()
        self.stand_ins.sweep()
        if (Path("/run/netns") / self.namespace).exists():
            for pid in run(["ip", "netns", "pids", self.namespace]).split():
                Process.of(int(pid)).stop()
            run(["ip", "netns", "del", self.namespace])
        (_OWNERS / str(self.index)).unlink(missing_ok=True)

    def _built(self) -> _Built:
        """Return what this lab was made from, or what is current if nothing is made yet."""
        record = self.directory / "built"
        wanted = f"lab {self.index}: take it down with --wipe first"
        if not record.exists():
            toolbox = images.packages_image()
            image = images.bare() if self.image == "bare" else toolbox
            built = _Built(self.image, image, toolbox / "root", images.repository(images.declared_packages()))
            record.write_text("\n".join(map(str, built)))
            return built
        kind, *paths = record.read_text().splitlines()
        if kind != self.image:
            raise LabError(f"{wanted}, it was made from the {kind} image")
        for path in paths:
            if not Path(path).is_dir():
                raise LabError(f"{wanted}, {path} from which it was made is gone")
        return _Built(kind, *map(Path, paths))

    def _arguments(self, name: str, built: _Built) -> list[str]:
        return machine_arguments(self._spec(name), built.image, self.memory_factor, accelerator(built.toolbox))

    def _fingerprint(self, built: _Built) -> dict[str, str]:
        return {name: digest(self._arguments(name, built)) for name in self.machines}

    def _make_key(self) -> None:
        if not self.key.exists():
            _keygen(self.key, f"homefleet lab {self.index}")
            give_to_user(self.key, self.key.with_name("id_ed25519.pub"))
        if not self.person_key.exists():
            _keygen(self.person_key, f"a person in homefleet lab {self.index}")
            give_to_user(self.person_key, self.person_key.with_name(f"{PERSON_KEY}.pub"))

    def _make_host_keys(self) -> None:
        for name in self.machines:
            place = self._place(name)
            place.mkdir(exist_ok=True)
            if not (place / "ssh_host_ed25519_key").exists():
                _keygen(place / "ssh_host_ed25519_key", name)
        self._write_known_hosts()

    def _write_known_hosts(self) -> None:
        lines = []
        for name, spec in self.machines.items():
            if (self._place(name) / "ssh_host_ed25519_key.pub").exists():
                address, port = self.relay(name)
                lines += [f"{names} {self.host_key(name)}" for names in (name, f"[{address}]:{port}", spec.ip)]
        lines += self.stand_ins.known_hosts()
        text = "".join(f"{line}\n" for line in lines)
        if not self.known_hosts.exists() or self.known_hosts.read_text() != text:
            self.known_hosts.write_text(text)
            give_to_user(self.known_hosts)

    def _make_network(self) -> None:
        ip = ("ip", "-n", self.namespace)
        if not (Path("/run/netns") / self.namespace).exists():
            run(["ip", "netns", "add", self.namespace])
        links = {link["ifname"] for link in json.loads(run([*ip, "-j", "link"]))}
        if BRIDGE not in links:
            run([*ip, "link", "set", "lo", "up"])
            run([*ip, "link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0"])
            for address in BRIDGE_ADDRESSES:
                run([*ip, "address", "add", address, "dev", BRIDGE])
            run([*ip, "link", "set", BRIDGE, "up"])
        for spec in self.machines.values():
            if tap(spec) not in links:
                run([*ip, "tuntap", "add", "dev", tap(spec), "mode", "tap"])
                run([*ip, "link", "set", tap(spec), "master", BRIDGE, "up"])

    def _serve_packages(self, built: _Built) -> None:
        record = self.directory / "http.json"
        served = Process.load(record)
        if served and served.alive():
            return
        server = [sys.executable, "-m", "http.server", "80", "--bind", images.REPOSITORY_ADDRESS]
        directory = ["--directory", str(built.repository)]
        enter = ["nsenter", f"--net=/run/netns/{self.namespace}"]
        Process.spawn([*enter, *server, *directory], self.directory / "http.log").save(record)

    def _start(self, name: str, built: _Built, memory: Path | None = None) -> bool:
        """Start a machine unless it runs; its relay too. Tell whether it was started now."""
        spec, place = self._spec(name), self._place(name)
        qemu = self._qemu(name)
        begin = qemu is None or not qemu.alive()
        if begin:
            self._forget(name)
            if not (place / "root.raw").exists():
                make_disks(spec, built.image, place, built.toolbox)
            own = own_files(
                spec,
                list(self.machines.values()),
                place / "ssh_host_ed25519_key",
                self.key.with_name("id_ed25519.pub").read_text(),
            )
            (place / "initrd").write_bytes((built.image / "initrd").read_bytes() + own)
            arguments = self._arguments(name, built)
            if memory:
                arguments += ["-incoming", f"file:{memory}"]
            qemu = spawn(place, Path("/run/netns") / self.namespace, built.toolbox, arguments)
            give_to_user(place / "console.sock")
            if memory:
                self._load(name)
        assert qemu is not None
        relay = Process.load(place / "relay.json")
        if relay is None or not relay.alive():
            address, port = self.relay(name)
            declared = [host for site in production() for host in site.hosts if host.name == name]
            # Until its first deploy it listens where the installer left its sshd.
            deployment = [*(host.connection.port for host in declared), 22]
            people = [f"{place}:{host.sshd_port}" for host in declared for place in (address, spec.ip)]
            argv = [
                *(sys.executable, str(Path(__file__).with_name("relay.py"))),
                *("--outside", f"{address}:{port}"),
                *(word for inner in deployment for word in ("--inside", f"{spec.ip}:{inner}")),
                *(("--people", *people) if people else ()),
                *("--namespace", f"/run/netns/{self.namespace}", "--qemu", str(qemu.pid)),
            ]
            Process.spawn(argv, place / "relay.log").save(place / "relay.json")
        return begin

    def _load(self, name: str) -> None:
        """Wait until a machine that was started with a saved state has it, and let it run."""
        place = self._place(name)
        try:
            with monitor(place / "qmp.sock") as command:
                command.migration(120)
                command("cont")
        except LabError as error:
            said = (place / "qemu.log").read_text().strip()[-500:]
            raise LabError(f"{name}: the saved state does not load: {error}; QEMU: {said or 'nothing'}") from error

    def _wait(self, names: Sequence[str], deadline: float = 240) -> None:
        """Wait until machines let the deployment in."""
        if not names:
            return
        with step(f"starting {', '.join(names)}"):
            until = time.monotonic() + deadline
            for name in names:
                while not (_answers(self.relay(name)) and self._lets_in(name)):
                    if not self.running(name):
                        raise LabError(f"{name}: QEMU has ended, see {self._place(name) / 'qemu.log'}")
                    if time.monotonic() > until:
                        raise LabError(f"{name}: no ssh after {deadline:.0f} s, see {self.console(name)}")
                    time.sleep(0.2)

    def _lets_in(self, name: str) -> bool:
        with contextlib.suppress(LabError):
            self.ssh(name, "udevadm settle --timeout=15", deadline=20)
            return True
        return False

    def _power_off(self, name: str, grace: float) -> None:
        process = self._qemu(name)
        if process and process.alive() and grace:
            with contextlib.suppress(LabError), monitor(self._place(name) / "qmp.sock", 10) as command:
                command("system_powerdown")
                until = time.monotonic() + grace
                while process.alive() and time.monotonic() < until:
                    time.sleep(0.1)
        self._forget(name)

    def _forget(self, name: str) -> None:
        """End a machine's relay and forget its processes."""
        for record in ("relay.json", "qemu.json"):
            path = self._place(name) / record
            process = Process.load(path)
            if process:
                process.stop()
            path.unlink(missing_ok=True)

    def _hold_guests(self, name: str) -> None:
        # QEMU cannot load a state in which an emulated processor is just running a guest of its own ("vCPU set in
        # guest-mode inconsistent with migrated kernel nested state", cpu_post_load of target/i386/machine.c).
        self.ssh(name, "pkill -STOP qemu-system; true")

    def _release_guests(self, name: str) -> None:
        # The machine's clock stood still with it.
        self.ssh(name, f"date -u -s @{time.time() + 0.3:.1f}; pkill -CONT qemu-system; true")

    def _pause(self, name: str) -> None:
        with monitor(self._place(name) / "qmp.sock") as command:
            command("stop")

    def _continue(self, name: str) -> None:
        with monitor(self._place(name) / "qmp.sock") as command:
            command("cont")

    def _copy_out(self, name: str, target: Path, *, with_memory: bool) -> None:
        target.mkdir(parents=True)
        if with_memory:
            with monitor(self._place(name) / "qmp.sock") as command:
                command("migrate-set-parameters", max_bandwidth=1 << 40)
                command("migrate", uri=f"file:{target / 'memory'}")
                command.migration(300)
        for disk in _DISKS:
            copy_sparse(self._place(name) / disk, target / disk)

    def _copy_in(self, name: str, source: Path) -> None:
        for disk in _DISKS:
            copy_sparse(source / disk, self._place(name) / disk)


def _records(directory: Path) -> list[Path]:
    """Return the files in a lab's directory that may name processes; a stand-in's own files are none of them."""
    return [*directory.glob("*.json"), *directory.glob("*/*.json")]


def _keygen(path: Path, comment: str) -> None:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path])


def _answers(address: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(address, 2) as connection:
        connection.settimeout(10)
        return connection.recv(4) == b"SSH-"
    return False
