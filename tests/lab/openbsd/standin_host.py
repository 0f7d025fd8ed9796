"""One OpenBSD stand-in: a root of its own over the shared one, namespaces of its own, and its way in.

Its directory in the lab has `upper`, everything it ever wrote, which outlives reboots and `down`; `console.log`; its
public key as installed; and `layers`, the root directories that it was installed from, which it keeps when the
recipes change.
"""

import contextlib
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.model.lab import RELAY_PORT, relay_address
from fleet.model.site import Host, Site
from tests.lab import relay
from tests.lab.host import LabError, Process, give_to_user, run
from tests.lab.openbsd import networks, root
from tests.lab.openbsd.debian import PATH, base
from tests.lab.openbsd.standin.init import CAPABILITIES, confined
from tests.lab.openbsd.standin.unmodelled import RECORD

_BOOT_SECONDS = 30.0
_HOST_KEY = "etc/ssh/ssh_host_ed25519_key"
_PUBLIC_KEY = "installed_key.pub"
_LAYERS = "layers"

# $1 is the directory of the host, $2 the lower directories. What is mounted goes with the mount namespace.
_PREPARE = """set -e
cd "$1"
mount -t overlay overlay -o "lowerdir=$2,upperdir=upper,workdir=work" root
cd root
mkdir -p dev proc
mount -t tmpfs -o mode=755,size=16m,nosuid,noexec dev dev
mkdir dev/pts dev/shm
chmod 1777 dev/shm
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 644 dev/random c 1 8
mknod -m 644 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=4,nosuid,noexec devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
pivot_root . mnt
exec /bin/sh -c "$3" sh "$4"
"""
# In the new root: one process namespace for each boot, so that nothing of one boot is seen in the next.
_POWER = """PATH=/usr/lib/standin/bin
cd /
# umount(8) reads what is mounted.
mount -t proc proc /proc
umount -l /mnt
umount /proc
while :; do
	setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child=KILL /bin/sh -c "$1"
	code=$?
	[ "$code" = 3 ] || exit "$code"
done
"""
# /proc/sys and the triggers in /proc are the machine's own: root without any capability could write to them.
_BOOT = """PATH=/usr/lib/standin/bin
set -e
mount -t proc -o nosuid,nodev,noexec proc /proc
mount --bind /proc/sys /proc/sys
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,ro /proc/sys
for path in acpi asound bus driver fs irq latency_stats mtrr scsi sysrq-trigger tty; do
	if [ -d "/proc/$path" ]; then
		mount --bind "/proc/$path" "/proc/$path"
		mount -o remount,bind,ro "/proc/$path"
	elif [ -e "/proc/$path" ]; then
		mount --bind /dev/null "/proc/$path"
	fi
done
exec setpriv --bounding-set="-all,+sys_admin,CAPABILITIES" --inh-caps=-all /usr/lib/standin/init
""".replace("CAPABILITIES", ",".join(f"+{name}" for name in CAPABILITIES.split(",")))


@dataclass(frozen=True)
class StandIn:
    """A stand-in of one host.

    Arguments: `host` and `site`, from the production inventory; `index`, the lab's number; `lab`, its directory.
    """

    host: Host
    site: Site
    index: int
    lab: Path

    @property
    def name(self) -> str:
        """The host's name."""
        return self.host.name

    @property
    def user(self) -> str:
        """Who logs in: root cannot, as the installer was told."""
        return self.site.deployment.user if self.site.deployment is not None else "deploy"

    @property
    def directory(self) -> Path:
        """Where its state is."""
        return self.lab / self.name

    @property
    def namespace(self) -> str:
        """The name of its network namespace."""
        return f"hf{self.index}-{self.name}"

    @property
    def console(self) -> Path:
        """The log of what it wrote to its console."""
        return self.directory / "console.log"

    @property
    def relay(self) -> tuple[str, int]:
        """Address and port at which its SSH is reached from outside the lab."""
        return relay_address(self.host, self.index), RELAY_PORT

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its own addresses, without prefix lengths."""
        return tuple(str(address.ip) for interface in self.host.interfaces for address in interface.addresses)

    @property
    def seen_from(self) -> str:
        """The place in the lab's networks that the relay connects from: on the flat, or as if from there."""
        network = {network.name: network for network in self.site.networks}
        flat = any(networks.inside(self.site, network[interface.network]) for interface in self.host.interfaces)
        return networks.HOME if flat else networks.DEPLOYER

    @property
    def answers_at(self) -> str:
        """Its IPv4 address on the network that the relay's place reaches it by."""
        network = {network.name: network for network in self.site.networks}
        wanted = self.seen_from == networks.HOME
        for interface in self.host.interfaces:
            if networks.inside(self.site, network[interface.network]) == wanted:
                return next(str(address.ip) for address in interface.addresses if address.version == 4)
        raise LabError(f"{self.name}: no address on the network that {self.seen_from} is on")

    def process(self) -> Process | None:
        """Return the process that holds the stand-in's namespaces, None if it is off."""
        process = Process.load(self.directory / "standin.json")
        return process if process is not None and process.alive() else None

    def init(self) -> int | None:
        """Return the number of its process 1 outside its namespace, None while there is none."""
        holder = self.process()
        for _ in range(2):
            if holder is None:
                return None
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
                holder = Process.of(int(children[0])) if children else None
                continue
            return None
        return None if holder is None else holder.pid

    def file(self, path: str) -> Path | None:
        """Return where a file that the stand-in has is on this computer, None if it has none.

        Args:
            path: as the stand-in knows it; not through symbolic links.
        """
        for layer in (self.directory / "upper", *self._layers()):
            found = layer / path.lstrip("/")
            if found.is_char_device():
                return None
            if found.exists():
                return found
        return None

    def unmodelled(self) -> list[str]:
        """Return what was asked of the stand-in that it does not model, since it was installed."""
        path = self.directory / "upper" / RECORD.lstrip("/")
        return path.read_text().splitlines() if path.exists() else []

    def made(self) -> bool:
        """Tell whether it was ever installed."""
        return (self.directory / _LAYERS).exists()

    def known_hosts(self) -> list[str]:
        """Return the lines of known_hosts for it as it was installed: its name, the relay's address and its own."""
        address, port = self.relay
        key = " ".join((self.directory / _PUBLIC_KEY).read_text().split()[:2])
        return [f"{names} {key}" for names in (self.name, f"[{address}]:{port}", *self.addresses)]

    def install(self, public_key: str) -> None:
        """Put on an empty stand-in what the installer and its answers leave behind.

        Args:
            public_key: who may log in as the deployment.
        """
        if self.made():
            return
        shutil.rmtree(self.directory, ignore_errors=True)
        for name in ("upper", "work", "root"):
            (self.directory / name).mkdir(parents=True)
        upper = self.directory / "upper"
        files = {path: (text, 0o644) for path, text in networks.installed_files(self.site, self.host).items()}
        for path, (text, _) in list(files.items()):
            if path.startswith("etc/hostname."):
                files[path] = (text, 0o640)
        files["etc/resolv.conf"] = ("lookup file bind\n", 0o644)
        files[f"home/{self.user}/.ssh/authorized_keys"] = (public_key, 0o600)
        layers = [root.system(self.user) / "root", base() / "root"]
        for path, (text, mode) in files.items():
            place = upper / path
            _copy_up(layers, upper, place.parent)
            place.write_text(text)
            place.chmod(mode)
            os.chown(place, place.parent.stat().st_uid, place.parent.stat().st_gid)
        key = upper / _HOST_KEY
        _copy_up(layers, upper, key.parent)
        # rc makes the keys at the first boot; here the controller has seen them on the console already.
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{self.name}", "-f", key])
        shutil.copy(f"{key}.pub", self.directory / _PUBLIC_KEY)
        # Last: without it the installation begins anew.
        (self.directory / _LAYERS).write_text("".join(f"{layer}\n" for layer in layers))

    def start(self) -> bool:
        """Switch it on; its networks must be there. Tell whether it was off.

        Raises:
            LabError: what it was installed from is gone.
        """
        begin = self.process() is None
        if begin:
            self._forget()
            argv = ["nsenter", f"--net=/run/netns/{self.namespace}"]
            argv += ["unshare", "--mount", "--uts", "--ipc", "--propagation", "private"]
            lower = ":".join(map(str, self._layers()))
            argv += ["sh", "-c", _PREPARE, "sh", str(self.directory), lower, _POWER, _BOOT]
            Process.spawn(argv, self.console).save(self.directory / "standin.json")
        self._start_relay()
        return begin

    def _layers(self) -> list[Path]:
        found = [Path(line) for line in (self.directory / _LAYERS).read_text().splitlines()]
        for path in found:
            if not path.is_dir():
                raise LabError(f"{self.name}: {path} from which it was installed is gone: wipe the lab first")
        return found

    def _start_relay(self) -> None:
        record = self.directory / "relay.json"
        running = Process.load(record)
        holder = self.process()
        if holder is None or (running is not None and running.alive()):
            return
        address, port = self.relay
        argv = [
            *(sys.executable, str(Path(relay.__file__)), "--outside", f"{address}:{port}"),
            *(word for inner in self.ssh_ports() for word in ("--inside", f"{self.answers_at}:{inner}")),
            *("--people", f"{address}:{self.host.sshd_port}", f"{self.answers_at}:{self.host.sshd_port}"),
            *("--namespace", f"/run/netns/hf{self.index}-{self.seen_from}", "--qemu", str(holder.pid)),
        ]
        Process.spawn(argv, self.directory / "relay.log").save(record)

    def ssh_ports(self) -> tuple[int, ...]:
        """Return the ports that a deployment may find its sshd at: the inventory's, until then the installer's."""
        return tuple(dict.fromkeys((self.host.connection.port, 22)))

    def wait(self) -> None:
        """Wait until its sshd answers through the relay.

        Raises:
            LabError: not in time, or it has ended.
        """
        until = time.monotonic() + _BOOT_SECONDS
        while not answers(self.relay):
            if self.process() is None:
                raise LabError(f"{self.name}: has ended, see {self.console}")
            if time.monotonic() > until:
                raise LabError(f"{self.name}: no ssh after {_BOOT_SECONDS:.0f} s, see {self.console}")
            time.sleep(0.05)

    def stop(self, *, grace: float = 40) -> None:
        """Halt it, by force if it takes too long.

        Args:
            grace: seconds it gets; 0 takes its power away at once.
        """
        holder, init = self.process(), self.init()
        if holder is not None and init is not None and grace:
            with contextlib.suppress(ProcessLookupError):
                os.kill(init, signal.SIGTERM)
            until = time.monotonic() + grace
            while holder.alive() and time.monotonic() < until:
                time.sleep(0.02)
        self._forget()

    def reboot(self) -> None:
        """Reboot it as its own `reboot` does, and wait until it is back.

        Raises:
            LabError: it is off, or not back in time.
        """
        before = self.init()
        if before is None:
            raise LabError(f"{self.name}: is off")
        os.kill(before, signal.SIGINT)
        until = time.monotonic() + _BOOT_SECONDS
        while self.init() in (before, None):
            if time.monotonic() > until:
                raise LabError(f"{self.name}: does not go down, see {self.console}")
            time.sleep(0.02)
        self.wait()

    def enter(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs another one in the stand-in as its root, past its sshd.

        Args:
            argv: the command.

        Raises:
            LabError: it is off.
        """
        init = self.init()
        if init is None:
            raise LabError(f"{self.name}: is off")
        spaces = [f"--{space}" for space in ("mount", "uts", "ipc", "net", "pid", "root")]
        home = ["/usr/lib/standin/bin/env", "-i", "HOME=/root", f"PATH={PATH}"]
        return ["nsenter", "--target", str(init), *spaces, "--wd=/", *confined([*home, *argv])]

    def _forget(self) -> None:
        for name in ("relay.json", "standin.json"):
            path = self.directory / name
            if process := Process.load(path):
                process.stop(grace=0)
            path.unlink(missing_ok=True)

    def hand_over(self) -> None:
        """Let the invoking user read the console's log."""
        if self.console.exists():
            give_to_user(self.console)


def _copy_up(layers: Sequence[Path], upper: Path, directory: Path) -> None:
    """Make a directory in the upper layer with the owner and mode that it has below."""
    for parent in (*reversed(directory.relative_to(upper).parents), directory.relative_to(upper)):
        place = upper / parent
        if place.is_dir():
            continue
        place.mkdir()
        below = next((layer / parent for layer in layers if (layer / parent).is_dir()), None)
        if below is not None:
            found = below.stat()
            os.chown(place, found.st_uid, found.st_gid)
            place.chmod(found.st_mode & 0o7777)


def answers(address: tuple[str, int]) -> bool:
    """Tell whether an SSH server answers.

    Args:
        address: where.
    """
    with contextlib.suppress(OSError), socket.create_connection(address, 2) as connection:
        connection.settimeout(5)
        return connection.recv(4) == b"SSH-"
    return False
