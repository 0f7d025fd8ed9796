"""Programs run in the lab's root directories: parsers of rendered files, and libvirt without a machine.

Nothing is ever written into a root: what runs sees it below a layer in memory, in namespaces of its own and
without network. An ordinary user may do it too, in a user namespace, where only /run, /tmp and what is bound can be
written.
"""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.lab import images
from tests.lab.host import LabError, need_root

# $1 is the root, $2 what else overlayfs is told, $3 the number of binds; then pairs of paths, then a command,
# which finds the prepared root in `mnt/root` of its working directory.
_PREPARE = """set -e
PATH=$PATH:/usr/sbin:/sbin
cd "$1"
mount -t tmpfs tmpfs mnt
mkdir mnt/upper mnt/work mnt/root
mount -t overlay overlay -o "lowerdir=.,upperdir=mnt/upper,workdir=mnt/work$2" mnt/root
overlay=$2
binds=$3
shift 3
cd mnt/root
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir run/sshd dev/shm
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
for device in null zero full random urandom; do
    : >"dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
# libvirt takes KVM for absent if its user libvirt-qemu may not open the device.
if [ -e /dev/kvm ] && [ -z "$overlay" ]; then
    mknod -m 666 dev/kvm c 10 232
fi
while [ "$binds" -gt 0 ]; do
    if [ -d "$1" ]; then
        mkdir -p ".$2"
    else
        mkdir -p ".${2%/*}"
        : >".$2"
    fi
    mount --bind "$1" ".$2"
    binds=$((binds - 1))
    shift 2
done
cd ../..
exec "$@"
"""
_ENVIRONMENT = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8")


def _prepared(root: Path, binds: Mapping[Path, str], command: Sequence[str], *namespaces: str) -> list[str]:
    """Return the command line that runs a command beside a prepared root, as root or in a user namespace."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    options = ",userxattr" if user else ""
    pairs = [word for source, target in binds.items() for word in (str(source.resolve()), target)]
    unshare = ["unshare", *user, "--mount", "--pid", "--net", *namespaces, "--fork", "--kill-child"]
    return [*unshare, "sh", "-c", _PREPARE, "sh", str(root), options, str(len(binds)), *pairs, *command]


def toolbox_run(
    argv: Sequence[str],
    binds: Mapping[Path, str] | None = None,
    cwd: str = "/",
    *,
    stdin: str | None = None,
    deadline: float = 60,
    root: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program of the Debian 13 root, as its root user and without network.

    Args:
        argv: the program and its arguments.
        binds: files and directories of this computer, and the absolute paths at which the program sees them;
            it can write to them.
        cwd: its working directory.
        stdin: what it reads.
        deadline: seconds until it is killed.
        root: another root directory than the one with the hypervisors' packages.

    Returns:
        The finished program, whatever its exit code.

    Raises:
        subprocess.TimeoutExpired: it took too long.
        LabError: the root is not built yet and the process is not root's.
    """
    enter = ["chroot", "mnt/root", *_ENVIRONMENT, "sh", "-c", 'cd "$0" && exec "$@"', cwd, *argv]
    return subprocess.run(
        _prepared(root or images.packages_image() / "root", binds or {}, enter),
        input=stdin or "",
        capture_output=True,
        text=True,
        timeout=deadline,
        check=False,
    )


class LibvirtInRoot:
    """A libvirt daemon that runs in a root directory.

    Args:
        pid: the daemon's process, by whose namespaces commands reach it.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __call__(
        self, argv: Sequence[str], input: str | None = None, deadline: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command beside the daemon.

        Args:
            argv: the command, such as `virsh define /dev/stdin`.
            input: what it reads.
            deadline: seconds until it is killed.

        Returns:
            The finished command, whatever its exit code.
        """
        enter = ["nsenter", "--target", str(self._pid), "--mount", "--pid", "--net", "--root", "--wd"]
        return subprocess.run(
            [*enter, *_ENVIRONMENT, *argv],
            input=input or "",
            capture_output=True,
            text=True,
            timeout=deadline,
            check=False,
        )


@contextlib.contextmanager
def libvirt_in_root(root: Path, deadline: float = 120) -> Iterator[LibvirtInRoot]:
    """Run a root's libvirt for as long as the block lasts; domains can be defined there, not started.

    Args:
        root: a root directory in which libvirt and QEMU are installed.
        deadline: seconds until it must answer.

    Yields:
        A callable that runs commands beside it.

    Raises:
        LabError: it does not come up, the message has the end of its log; or the process is not root's.
    """
    need_root()
    # Process 1 must reap: libvirt waits for the QEMUs that it asks for their abilities, which are orphans.
    daemon = ["chroot", "mnt/root", *_ENVIRONMENT, "sh", "-c", "/usr/sbin/libvirtd & wait"]
    with tempfile.TemporaryFile() as log:
        started = subprocess.Popen(
            _prepared(root, {Path("/sys"): "/sys"}, daemon, "--uts", "--ipc"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            until = time.monotonic() + deadline
            while True:
                children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
                if children:
                    run = LibvirtInRoot(int(children[0]))
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        if run(["virsh", "version"], deadline=deadline).returncode == 0:
                            break
                if started.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise LabError(f"{root}: libvirt does not answer: {log.read().decode()[-1000:]}")
                time.sleep(0.1)
            yield run
        finally:
            started.kill()
            started.wait()
