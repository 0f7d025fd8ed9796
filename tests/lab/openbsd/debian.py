"""The lower half of a stand-in's root: a Debian 13 with its programs out of sight, or at the places OpenBSD has them.

Debian's programs are moved to /usr/lib/standin/bin and linked from the places that OpenBSD has them at; its packaging,
its shell and its interpreters are in nobody's path.
"""

import ast
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from tests.lab.apt import acquire_settings, machine_sources
from tests.lab.host import LabError, cached, run

PROGRAMS = Path("usr/lib/standin/bin")
"""Where Debian's programs are, below the root."""

PYTHON = "/usr/lib/standin/python"
PATH = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/X11R6/bin:/usr/local/bin:/usr/local/sbin"
"""What login.conf(5) gives every user."""

# What a build runs ends with it, also if it is killed, and so does everything that it had mounted.
CONTAINED = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
)

_RELEASE = "trixie"
_BUILDER = ast.dump(ast.parse(Path(__file__).read_text()))
_PACKAGES = (
    "bsd-mailx",
    "ca-certificates",
    "conntrack",
    "ed",
    "iproute2",
    "iputils-ping",
    "libfaketime",
    "mksh",
    "netcat-openbsd",
    "nftables",
    "nsd",
    "oathtool",
    "opendoas",
    "openntpd",
    "openssh-client",
    "openssh-server",
    "openssl",
    "opensmtpd",
    "original-awk",
    "procps",
    "python3",
    "rsync",
    "signify-openbsd",
    "unbound",
    "unbound-anchor",
)
_NOT_UNPACKED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")

# OpenBSD's base has these programs at these places (its own hier(7)); Debian's are close enough to stand behind them.
TOOLS = {
    "/bin": (
        "[ cat chgrp chmod cp date dd df echo ed expr hostname kill ksh ln ls mkdir mv ps pwd rm rmdir sh sleep stty "
        "sync tar test"
    ),
    "/sbin": "chown ping ping6",
    "/usr/bin": (
        "awk basename cmp comm cut diff dirname doas du egrep env expand expr false fgrep find fmt fold getconf getent "
        "getopt grep groups gunzip gzip head id join locale logger logname mail mkfifo mktemp more nc nice nl nohup "
        "od openssl passwd paste pgrep pkill pr printenv printf readlink realpath renice scp sed seq sftp signify "
        "sort split ssh ssh-add ssh-agent ssh-keygen ssh-keyscan su tail tee timeout top touch tput tr true tset "
        "tsort tty unexpand uniq uptime users vmstat w wall wc which who whoami xargs yes zcat"
    ),
    "/usr/sbin": (
        "chroot nsd nsd-checkconf nsd-checkzone nsd-control ntpctl ntpd sendmail smtpctl smtpd unbound "
        "unbound-anchor unbound-checkconf unbound-control"
    ),
}
_ALIASES = {"sh": "mksh", "ksh": "mksh", "awk": "original-awk", "signify": "signify-openbsd", "mail": "bsd-mailx"}
"""Tools whose program has another name in Debian."""

# Names of accounts and files that Debian compiled into the daemons, and OpenBSD's. A shorter one is filled with NULs.
_PATCHES = (
    ("sshd", b"\0/etc/ssh/sshd_config\0", b"\0/var/standin/sshd.cf\0"),
    ("ntpd", b"\0ntpd\0", b"\0_ntp\0"),
    ("ntpd", b"\0/etc/openntpd/ntpd.conf\0", b"\0/etc/ntpd.conf\0"),
    ("ntpd", b"\0/var/lib/openntpd/db/ntpd.drift\0", b"\0/var/db/ntpd.drift\0"),
    ("ntpd", b"\0/var/lib/openntpd/run/ntpd.sock\0", b"\0/var/run/ntpd.sock\0"),
    ("smtpd", b"unknown user opensmtpd\0", b"unknown user _smtpd\0"),
    ("smtpd", b"unknown user opensmtpq\0", b"unknown user _smtpq\0"),
    ("smtpd", b"\0/etc/ssl/certs/ca-certificates.crt\0", b"\0/etc/ssl/cert.pem\0"),
    ("smtpctl", b"\0opensmtpq\0", b"\0_smtpq\0"),
    ("unbound", b"\0/etc/unbound\0", b"\0/var/unbound\0"),
    ("unbound-checkconf", b"\0/etc/unbound\0", b"\0/var/unbound\0"),
)
_SETUID = ("doas", "passwd", "ping", "su")
# Kept of Debian's /etc: what its C library and its programs cannot do without.
_KEPT_IN_ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "protocols", "rpc", "services", "ssl")


def patched(content: bytes, old: bytes, new: bytes) -> bytes:
    """Return a program in which one constant string is another one, filled with NULs to its length.

    Args:
        content: the program.
        old: the string, with the NULs around it.
        new: the other one; not longer.

    Raises:
        LabError: it is not there exactly once, or the new one does not fit.
    """
    if content.count(old) != 1 or len(new) > len(old):
        raise LabError(f"{old!r} is in the program {content.count(old)} times, {new!r} cannot take its place")
    return content.replace(old, new.ljust(len(old), b"\0"))


def base() -> Path:
    """Return the directory whose `root` has Debian's programs, out of sight.

    Raises:
        LabError: a step of the build failed.
    """
    sources = machine_sources(_RELEASE)

    def build(part: Path) -> None:
        root = part / "root"
        source_list = part / "sources.list"
        source_list.write_text("".join(source.line() + "\n" for source in sources))
        settings = ['APT::Install-Recommends "false";', 'Acquire::Languages "none";', *acquire_settings()]
        run(
            [
                *(*CONTAINED, "mmdebstrap", "--mode=root", "--variant=essential", "--format=directory"),
                *(f"--aptopt={setting}" for setting in settings),
                *(f"--dpkgopt=path-exclude={pattern}" for pattern in _NOT_UNPACKED),
                *("--dpkgopt=force-unsafe-io", f"--include={','.join(_PACKAGES)}", _RELEASE, root, source_list),
            ],
            deadline=1800,
        )
        source_list.unlink()
        hide_debian(root)

    return cached("standin-base", [[source.line() for source in sources], _BUILDER], build)


def hide_debian(root: Path) -> None:
    """Move Debian's programs out of the path, remove its packaging and put OpenBSD's names in their place.

    Args:
        root: the installed root directory.

    Raises:
        LabError: a program is missing, or is not what it was when this was written.
    """
    hidden = _move_programs(root)
    for name in ("bin", "sbin"):
        (root / name).unlink()
    (root / "etc/ssl/certs/ca-certificates.crt").rename(root / "etc/ssl/cert.pem")
    shutil.rmtree(root / "etc/ssl/certs")
    _empty(root / "etc", _KEPT_IN_ETC)
    _empty(root / "var", ())
    _empty(root / "usr/share", ("misc", "zoneinfo", "tabset", "terminfo"))
    for name in (
        "boot",
        "media",
        "sys",
        "opt",
        "srv",
        "run",
        "usr/lib/systemd",
        "usr/lib/pam.d",
        "usr/lib/dpkg",
        "usr/games",
    ):
        shutil.rmtree(root / name, ignore_errors=True)
    _empty(root / "root", ())
    run(["chown", "-hR", "0:0", root])
    _patch(hidden)
    for name in _SETUID:
        (hidden / name).chmod(0o4755)
    os.chown(hidden / "smtpctl", 0, 103)
    (hidden / "smtpctl").chmod(0o2755)
    (root / "usr/libexec/opensmtpd/mail.local").chmod(0o4755)
    os.link(hidden / "python3.13", root / PYTHON.lstrip("/"))
    _link_tools(root, hidden)
    (root / "usr/libexec").mkdir(exist_ok=True)
    os.link(root / "usr/lib/openssh/sftp-server", root / "usr/libexec/sftp-server")
    (root / "sbin/nologin").write_text("#!/bin/sh\necho 'This account is currently not available.'\nexit 1\n")
    (root / "sbin/nologin").chmod(0o555)
    # /run is Debian's name for it.
    (root / "run").symlink_to("var/run")


def _move_programs(root: Path) -> Path:
    """Move every program out of the path; return the directory where they are now."""
    hidden = root / PROGRAMS
    hidden.mkdir(parents=True)
    links: dict[str, str] = {}
    for directory in (root / "usr/bin", root / "usr/sbin"):
        for path in directory.iterdir():
            if path.is_symlink():
                links[path.name] = _final(root, path).name
            elif path.is_file():
                path.rename(hidden / path.name)
        shutil.rmtree(directory)
    for name, target in links.items():
        if name != target and (hidden / target).exists() and not (hidden / name).exists():
            os.link(hidden / target, hidden / name)
    return hidden


def _patch(hidden: Path) -> None:
    for name, old, new in _PATCHES:
        program = hidden / name
        # In place: its other names, sendmail's for one, are hard links to it.
        program.write_bytes(patched(program.read_bytes(), old, new))


def _link_tools(root: Path, hidden: Path) -> None:
    for directory_name, tools in TOOLS.items():
        directory = root / directory_name.lstrip("/")
        directory.mkdir(parents=True)
        for tool in tools.split():
            program = hidden / _ALIASES.get(tool, tool)
            if not program.exists():
                raise LabError(f"{tool}: Debian has no {program.name}")
            os.link(program, directory / tool)


def _final(root: Path, link: Path) -> Path:
    """Return what a symbolic link below a root leads to, without ever leaving the root."""
    path = link
    for _ in range(10):
        if not path.is_symlink():
            return path
        target = path.readlink()
        path = root / str(target).lstrip("/") if target.is_absolute() else path.parent / target
    raise LabError(f"{link}: a symbolic link that does not end")


def _empty(directory: Path, kept: Iterable[str]) -> None:
    for path in directory.iterdir():
        if path.name in kept:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def loader(root: Path, program: str) -> list[str]:
    """Return the command that runs one of Debian's programs of a root on this computer, with the root's own libraries.

    Args:
        root: the root directory of `base`.
        program: its name.
    """
    libraries = ":".join(str(root / "usr/lib" / directory) for directory in ("x86_64-linux-gnu", ""))
    return [str(root / "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", libraries, str(root / PROGRAMS / program)]
