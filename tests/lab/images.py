"""What the lab builds once and keeps: kernel, root directories, disk images, the repository of packages."""

import ast
import importlib
import lzma
import re
import shutil
import stat
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from fleet.load import SITES
from fleet.model.site import Fleet, Os
from tests.lab.apt import Downloads, Source, acquire_settings, machine_sources
from tests.lab.cpio import Entry, archive, with_parents
from tests.lab.host import LabError, run
from tests.lab.host import cached as _cached

REPOSITORY_ADDRESS = "192.168.1.254"
RELEASE = "trixie"

_HERE = Path(__file__).parent
# The syntax tree: neither a comment nor a formatter's new line makes another image.
_BUILDER = ast.dump(ast.parse(Path(__file__).read_text()))
# What a build runs ends with it, also if it is killed, and so does everything that it had mounted.
_CONTAINED = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
)
# virt-xml-validate is a script around xmllint, which libvirt-clients only suggests.
_TOOLBOX_EXTRAS = ("libxml2-utils",)
_BARE_PACKAGES = (
    "dbus",
    "fdisk",
    "iproute2",
    "iputils-ping",
    "kmod",
    "login",
    "netplan.io",
    "openssh-server",
    "procps",
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
)
_OLD_LIBVIRT_PACKAGES = ("libvirt-clients", "libvirt-daemon-system", "qemu-system-x86")
_MACHINE_MODULES = ("virtio_blk", "virtio_net", "virtio-rng")
_GUEST_MODULES = ("virtio_blk", "virtio_net", "button", "evdev")
_ROOT_BYTES = 16 << 30
DEPLOY = "deploy"
DEPLOY_ID = 1000
"""The account that the installer makes for deployments, and its number."""
# Units that only cost time on an emulated processor.
_MASKED_UNITS = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "systemd-pstore.service",
    "systemd-tmpfiles-clean.timer",
    # A service manager for each login of a user.
    "user@.service",
)
_FILES = {
    "etc/fstab": "",
    "etc/resolv.conf": "",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/apt/sources.list": f"deb [trusted=yes] http://{REPOSITORY_ADDRESS}/ ./\n",
    "etc/apt/apt.conf.d/90lab": 'APT::Install-Recommends "false";\nAcquire::Languages "none";\n',
    "etc/ssh/sshd_config.d/50-lab.conf": "UsePAM no\nUseDNS no\n",
    # Ubuntu's rsyslogd becomes the user syslog, Debian's stays root.
    "etc/rsyslog.d/00-ubuntu.conf": "$PrivDropToUser syslog\n$PrivDropToGroup syslog\n$FileOwner syslog\n",
    "etc/systemd/system/rsyslog.service.d/ubuntu.conf": "[Service]\nCapabilityBoundingSet=CAP_SETGID CAP_SETUID\n",
    "etc/sudoers.d/90-installer": f"{DEPLOY} ALL=(ALL) NOPASSWD: ALL\n",
    "etc/systemd/system/serial-getty@ttyS0.service.d/lab.conf": (
        "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200 %I vt220\n"
    ),
}
_ACCOUNTS = (
    f"useradd -m -u {DEPLOY_ID} -G sudo -s /bin/bash -p * {DEPLOY}",
    "useradd -r -U -G adm -d /nonexistent -s /usr/sbin/nologin syslog",
    "install -d -m 775 -g syslog /var/log",
    "install -d -m 700 -o syslog -g adm /var/spool/rsyslog",
)
"""The account of deployments, and the one that Ubuntu has for its log, with its folders."""

_NOT_UNPACKED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")


def cached(kind: str, recipe: object, build: Callable[[Path], None]) -> Path:
    """Return what a recipe builds; how it is built, this module, is a part of every recipe.

    Args:
        kind: what it is.
        recipe: everything else that the result depends on.
        build: fills the empty directory it is given.

    Raises:
        LabError: the build failed.
    """
    return _cached(kind, [recipe, _BUILDER], build)


def _sources_recipe(release: str) -> list[object]:
    return [asdict(source) for source in machine_sources(release)]


def kernel() -> Path:
    """Return the directory of the kernel: `vmlinux`, `version`, and its modules in `lib/modules`.

    It is Debian's cloud flavour, uncompressed: it starts a second faster than the compressed one.

    Raises:
        LabError: it cannot be had from the computer's sources.
    """

    def build(part: Path) -> None:
        work = part / "work"
        downloads = Downloads(work, machine_sources(RELEASE))
        package = downloads.dependency("linux-image-cloud-amd64", "linux-image-")
        run(["dpkg-deb", "-x", downloads.only(package), work / "tree"])
        version = package.removeprefix("linux-image-")
        compressed = work / "vmlinux.zst"
        compressed.write_bytes(payload((work / "tree/boot" / f"vmlinuz-{version}").read_bytes()))
        run(["zstd", "-q", "-d", compressed, "-o", part / "vmlinux"])
        (part / "lib/modules").mkdir(parents=True)
        shutil.move(work / "tree/usr/lib/modules" / version, part / "lib/modules" / version)
        run(["depmod", "-b", part, version])
        (part / "version").write_text(version)
        run(["dpkg-deb", "-x", downloads.only("busybox-static"), work / "busybox"])
        shutil.move(next((work / "busybox").glob("**/bin/busybox")), part / "busybox")
        shutil.rmtree(work)

    return cached("kernel", _sources_recipe(RELEASE), build)


def payload(image: bytes) -> bytes:
    """Take the compressed kernel out of a bzImage, Documentation/arch/x86/boot.rst.

    Args:
        image: the content of vmlinuz.

    Returns:
        The zstd frame.

    Raises:
        LabError: it holds no zstd frame.
    """
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    begin = (setup_sectors + 1) * 512 + offset
    # The last four bytes are the size after decompression.
    frame = image[begin : begin + length - 4]
    if frame[:4] != b"\x28\xb5\x2f\xfd":
        raise LabError("the kernel is not compressed with zstd")
    return frame


def module_order(dependencies: str, wanted: Iterable[str]) -> list[str]:
    """Return the modules to load, each after what it needs.

    Args:
        dependencies: the content of modules.dep(5).
        wanted: names of modules, without directory and suffix; one that is built in is left out.

    Returns:
        Paths of modules below the kernel's module directory.
    """
    needs = {}
    for line in dependencies.splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    by_name = {re.sub(r"\.ko.*$", "", path.rpartition("/")[2]): path for path in needs}
    order: list[str] = []
    for name in wanted:
        if name in by_name:
            # modules.dep lists what is needed last first.
            order += [path for path in (*reversed(needs[by_name[name]]), by_name[name]) if path not in order]
    return order


def _initrd(kernel_directory: Path, modules: Iterable[str], files: Iterable[Entry]) -> bytes:
    version = (kernel_directory / "version").read_text()
    tree = kernel_directory / "lib/modules" / version
    entries = list(files)
    names = []
    for path in module_order((tree / "modules.dep").read_text(), modules):
        content = (tree / path).read_bytes()
        name = path.rpartition("/")[2].removesuffix(".xz")
        names.append(name)
        entries.append(Entry(f"modules/{name}", lzma.decompress(content) if path.endswith(".xz") else content))
    entries.append(Entry("modules/order", "".join(f"{name}\n" for name in names).encode()))
    return archive(with_parents(entries))


def _program(path: Path, name: str) -> Entry:
    return Entry(name, path.read_bytes(), stat.S_IFREG | 0o755)


def machine_initrd(kernel_directory: Path) -> bytes:
    """Return the initial ramdisk of the lab's machines.

    Args:
        kernel_directory: what `kernel` returned.
    """
    return _initrd(
        kernel_directory,
        _MACHINE_MODULES,
        [
            _program(kernel_directory / "busybox", "bin/busybox"),
            _program(_HERE / "initrd/init", "init"),
            *(Entry(f"{name}/.keep") for name in ("proc", "sys", "dev", "root", "machine")),
        ],
    )


def guest_payload() -> Path:
    """Return the directory with the `vmlinux` and `initrd` that the guests of the lab boot."""
    source = _HERE / "guest/init.c"
    kernel_directory = kernel()

    def build(part: Path) -> None:
        program = part / "init"
        run(["gcc", "-O2", "-static", "-s", "-Wall", "-Wextra", "-Werror", "-o", program, source])
        initrd = _initrd(kernel_directory, _GUEST_MODULES, [_program(program, "init"), Entry("dev/.keep")])
        (part / "initrd").write_bytes(initrd)
        program.unlink()
        shutil.copy(kernel_directory / "vmlinux", part / "vmlinux")

    return cached("guest", [kernel_directory.name, source.read_text(), _GUEST_MODULES], build)


def _debootstrap(root: Path, release: str, sources: Sequence[Source], packages: Iterable[str]) -> None:
    source_list = root.parent / "sources.list"
    source_list.write_text("".join(source.line() + "\n" for source in sources))
    settings = ['APT::Install-Recommends "false";', 'Acquire::Languages "none";', *acquire_settings()]
    run(
        [
            *_CONTAINED,
            "mmdebstrap",
            "--mode=root",
            "--variant=apt",
            "--format=directory",
            "--skip=essential/unlink",
            *(f"--aptopt={setting}" for setting in settings),
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in _NOT_UNPACKED),
            "--dpkgopt=force-unsafe-io",
            f"--include={','.join(packages)}",
            release,
            root,
            source_list,
        ],
        deadline=1800,
    )
    source_list.unlink()
    # How this computer reaches its archives is none of the image's business.
    (root / "etc/apt/apt.conf.d/99mmdebstrap").unlink()
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    for path in (root / "etc/apt/sources.list.d").iterdir():
        path.unlink()


def bare() -> Path:
    """Return the directory of the stand-in for a freshly installed Ubuntu: `root` and `disk.raw`.

    It is Debian 13 with netplan, OpenSSH and an account for deployments that may become root, as an installer that
    answers its own questions leaves it, and none of a hypervisor's packages. Beside it lie the `vmlinux` and `initrd`
    that boot it.

    Raises:
        LabError: a step of the build failed.
    """
    kernel_directory = kernel()
    guest_directory = guest_payload()

    def build(part: Path) -> None:
        root = part / "root"
        _debootstrap(root, RELEASE, machine_sources(RELEASE), _BARE_PACKAGES)
        for name, content in _FILES.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_text(content)
        for unit in _MASKED_UNITS:
            path = root / "etc/systemd/system" / unit
            path.unlink(missing_ok=True)
            path.symlink_to("/dev/null")
        for path in (root / "etc/ssh").glob("ssh_host_*"):
            path.unlink()
        run(["chroot", root, "systemctl", "enable", "systemd-networkd.service"])
        for line in _ACCOUNTS:
            run(["chroot", root, *line.split()])
        run(["cp", "-a", kernel_directory / "lib/modules", root / "usr/lib/"])
        payload_directory = root / "var/lib/lab-guest"
        payload_directory.mkdir()
        for name in ("vmlinux", "initrd"):
            shutil.copy(guest_directory / name, payload_directory / name)
        _finish(part)

    recipe = [
        _sources_recipe(RELEASE),
        _BARE_PACKAGES,
        _FILES,
        _ACCOUNTS,
        _MASKED_UNITS,
        _NOT_UNPACKED,
        _ROOT_BYTES,
        guest_directory.name,
        (_HERE / "initrd/init").read_text(),
        _MACHINE_MODULES,
    ]
    return cached("bare", recipe, build)


def _finish(part: Path) -> None:
    """Make the disk of a finished root and put the kernel and its initial ramdisk beside it."""
    kernel_directory = kernel()
    disk = part / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(_ROOT_BYTES)
    run(
        [
            "mke2fs",
            "-q",
            "-t",
            "ext4",
            "-E",
            "lazy_itable_init=1",
            "-O",
            "^has_journal",
            "-d",
            part / "root",
            disk,
        ]
    )
    run(["tune2fs", "-O", "has_journal", disk])
    shutil.copy(kernel_directory / "vmlinux", part / "vmlinux")
    (part / "initrd").write_bytes(machine_initrd(kernel_directory))


def declared_packages() -> tuple[str, ...]:
    """Return the packages that the services of Ubuntu hosts declare in the production inventories, sorted."""
    sites = tuple(importlib.import_module(f"inventories.{name}").site for name in SITES)
    fleet = Fleet(sites=sites)
    of_ubuntu = (fleet.packages(host) for host in fleet.hosts() if host.os is Os.UBUNTU)
    return tuple(sorted({name for names in of_ubuntu for name in names}))


def repository(packages: Iterable[str]) -> Path:
    """Return a directory with a flat repository: what the packages need beyond the bare image, and its index.

    Args:
        packages: their names.
    """
    names = sorted({*packages, *_TOOLBOX_EXTRAS})
    bare_directory = bare()

    def build(part: Path) -> None:
        work = part / "work"
        downloads = Downloads(work, machine_sources(RELEASE), bare_directory / "root/var/lib/dpkg/status")
        downloads.with_dependencies(names)
        index = []
        for package in sorted(downloads.archives.glob("*.deb")):
            shutil.move(package, part / package.name)
            sums = run(["sha256sum", part / package.name]).split()[0]
            fields = run(["dpkg-deb", "-f", part / package.name]).rstrip()
            size = (part / package.name).stat().st_size
            index.append(f"{fields}\nFilename: ./{package.name}\nSize: {size}\nSHA256: {sums}\n")
        (part / "Packages").write_text("\n".join(index))
        shutil.rmtree(work)

    return cached("debs", [bare_directory.name, names], build)


# Runs in a mount namespace of its own: whatever it mounts is gone when it ends, however it ends.
_INSTALL = """set -e
mount --make-rprivate /
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/run"
mkdir "$1/run/debs"
mount --bind "$2" "$1/run/debs"
echo "deb [trusted=yes] file:/run/debs ./" >"$1/run/sources.list"
printf '#!/bin/sh\\nexit 101\\n' >"$1/usr/sbin/policy-rc.d"
chmod 755 "$1/usr/sbin/policy-rc.d"
root=$1
shift 2
apt() {
    DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get -q -y -o Dir::Etc::sourcelist=/run/sources.list \
        -o Dpkg::Options::=--force-unsafe-io -o APT::Sandbox::User=root "$@"
}
apt update
apt install --no-install-recommends "$@"
apt clean
rm "$root/usr/sbin/policy-rc.d"
rm -rf "$root"/var/lib/apt/lists/*
"""


def packages_image() -> Path:
    """Return the directory of the bare image with the declared packages installed; it has the same files as `bare`'s.

    Its root is also the toolbox that `tests.lab.roots` runs parsers and QEMU from.

    Raises:
        LabError: a step of the build failed.
    """
    packages = declared_packages()
    names = sorted({*packages, *_TOOLBOX_EXTRAS})
    bare_directory = bare()
    debs = repository(packages)

    def build(part: Path) -> None:
        root = part / "root"
        run(["cp", "-a", bare_directory / "root", root])
        run([*_CONTAINED, "sh", "-c", _INSTALL, "sh", root, debs, *names], deadline=1800)
        _finish(part)

    return cached("packages", [debs.name, _INSTALL, names], build)


def old_libvirt() -> Path:
    """Return the directory whose `root` is a Debian 12 with its libvirt, to read definitions with."""

    def build(part: Path) -> None:
        _debootstrap(part / "root", "bookworm", machine_sources("bookworm"), _OLD_LIBVIRT_PACKAGES)

    return cached("bookworm-libvirt", [_sources_recipe("bookworm"), _OLD_LIBVIRT_PACKAGES, _NOT_UNPACKED], build)
