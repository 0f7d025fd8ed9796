"""Process 1 of a stand-in's boot: it starts rc, adopts orphans, and ends the boot.

Models init(8) as far as contract 1.8 and 9 (`shutdown`) show it: rc runs at boot, `rc shutdown` at the end, then every
process gets SIGTERM and SIGKILL. SIGTERM halts, SIGINT reboots, SIGHUP takes the host's name from
/var/standin/boot/hostname. What a real system forgets at a reboot is forgotten: addresses, routes, packet filter,
/var/run, /tmp.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from .place import root
from .unmodelled import RECORD

NOT_MODELLED = (
    "base: users and groups of daemons that the stand-in has not, most of hier(7), manual pages, compilers",
    "base: limits of login classes; uptime(1) and the load are those of the machine below",
    "base: smtpd.conf and other files of Debian's daemons that name the interface lo0 (Linux calls it lo)",
    "init: getty and the login on the console, single-user mode, securelevels",
    "boot: fsck, softraid and its passphrase, relinking of kernel and libraries",
    "reboot: shared memory and semaphores stay; a halted stand-in is gone from its console too",
)

RC = "/etc/rc"
HOSTNAME = "/var/standin/boot/hostname"

BOOTTIME = "/var/standin/boot/boottime"
"""The second of the boot since the epoch: what kern.boottime is made of."""

REBOOT = 3
"""The exit code that asks whoever holds the power to boot again."""

CONSOLE = "/dev/console"
PROGRAMS = "/usr/lib/standin/bin"
# What can reach the machine below stays with nobody: no clock, no devices, no mounts, no modules.
CAPABILITIES = (
    "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_broadcast,net_admin,net_raw,"
    "sys_chroot"
)
_SHUTDOWN_SECONDS = 30.0
_TERM_SECONDS = 3.0
_WATCHED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_ENVIRONMENT = {"HOME": "/", "PATH": "/sbin:/bin:/usr/sbin:/usr/bin", "TERM": "vt220"}
_SWITCHES = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


def confined(argv: Sequence[str]) -> list[str]:
    """Return the command that runs another one without any right over the machine below.

    Args:
        argv: the command.
    """
    words = ",".join(f"+{name}" for name in CAPABILITIES.split(","))
    return [f"{PROGRAMS}/setpriv", f"--bounding-set=-all,{words}", "--inh-caps=-all", *argv]


def clear_volatile() -> None:
    """Remove what lives until the next boot only, and begin the records of this one."""
    for name in ("/var/run", "/tmp", "/var/standin/boot"):
        directory = root(name)
        directory.mkdir(parents=True, exist_ok=True)
        for path in directory.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    root("/var/run/sshd").mkdir()
    root(BOOTTIME).write_text(f"{int(time.time())}\n")
    record = root(RECORD)
    record.touch()
    record.chmod(0o666)


def forgotten_links(links: Sequence[dict[str, object]]) -> list[str]:
    """Return the commands of ip(8) that make interfaces what they were before anything was configured.

    Args:
        links: what `ip -json -details link` printed.

    Returns:
        Lines for `ip -batch`: interfaces made by the system are deleted, the wires lose addresses and go down.
    """
    commands = []
    for link in links:
        name = str(link["ifname"])
        info = link.get("linkinfo")
        kind = info.get("info_kind") if isinstance(info, dict) else None
        if kind in (None, "veth"):
            commands += [f"address flush dev {name}", f"link set dev {name} down"]
        else:
            commands.append(f"link delete dev {name}")
    return commands


def _forget_network() -> None:
    ip, nft = f"{PROGRAMS}/ip", f"{PROGRAMS}/nft"
    shown = subprocess.run([ip, "-json", "-details", "link"], capture_output=True, text=True, check=True).stdout
    batch = "".join(f"{line}\n" for line in forgotten_links(json.loads(shown)))
    subprocess.run([ip, "-force", "-batch", "-"], input=batch, text=True, check=False)
    subprocess.run([nft, "flush", "ruleset"], check=True)
    subprocess.run([f"{PROGRAMS}/conntrack", "-F"], capture_output=True, check=False)
    for switch in _SWITCHES:
        Path("/proc/sys/net", switch).write_text("0")


def _set_hostname() -> None:
    for name in (HOSTNAME, "/etc/myname"):
        path = root(name)
        if path.exists() and (words := path.read_text().split()):
            socket.sethostname(words[0])
            return


class _Console:
    """The terminal behind /dev/console: what is written to it ends up in the log of the stand-in."""

    def __init__(self) -> None:
        master, slave = os.openpty()
        self.path = os.ttyname(slave)
        # Kept open, so that reading never ends between two writers.
        self._slave = slave
        threading.Thread(target=self._copy, args=(master,), daemon=True).start()
        place = root(CONSOLE)
        place.unlink(missing_ok=True)
        place.symlink_to(self.path)

    @staticmethod
    def _copy(master: int) -> None:
        while True:
            try:
                os.write(1, os.read(master, 65536).replace(b"\r\n", b"\n"))
            except OSError:
                return

    def spawn(self, argv: Sequence[str]) -> int:
        """Start a command on the console and return its process number."""
        null = os.open("/dev/null", os.O_RDONLY)
        try:
            return os.posix_spawn(
                argv[0],
                list(argv),
                _ENVIRONMENT,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, null, 0),
                    (os.POSIX_SPAWN_DUP2, self._slave, 1),
                    (os.POSIX_SPAWN_DUP2, self._slave, 2),
                ],
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE],
                setsid=True,
            )
        finally:
            os.close(null)


def _reap() -> set[int]:
    gone = set()
    with contextlib.suppress(ChildProcessError):
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            gone.add(pid)
    return gone


def _serve() -> signal.Signals:
    """Adopt orphans until somebody wants the system to end; return SIGTERM or SIGINT."""
    while True:
        received = signal.sigwait(_WATCHED)
        _reap()
        if received == signal.SIGHUP:
            _set_hostname()
        elif received in (signal.SIGTERM, signal.SIGINT):
            return signal.Signals(received)


def _wait(pid: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while pid not in _reap() and (left := until - time.monotonic()) > 0:
        signal.sigtimedwait({signal.SIGCHLD}, left)


def _end_processes() -> None:
    for number, seconds in ((signal.SIGTERM, _TERM_SECONDS), (signal.SIGKILL, _TERM_SECONDS)):
        try:
            os.kill(-1, number)
        except ProcessLookupError:
            return
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            _reap()
            try:
                os.kill(-1, 0)
            except ProcessLookupError:
                return
            signal.sigtimedwait({signal.SIGCHLD}, min(left, 0.05))


def main(argv: Sequence[str]) -> int:
    """Be process 1 until the stand-in is halted.

    Args:
        argv: none.

    Returns:
        0 after a halt, `REBOOT` when the next boot shall begin.
    """
    del argv
    os.chdir("/")
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    os.umask(0o022)
    clear_volatile()
    _forget_network()
    _set_hostname()
    console = _Console()
    console.spawn(confined([RC]))
    wanted = _serve()
    _wait(console.spawn(confined([RC, "shutdown"])), _SHUTDOWN_SECONDS)
    _end_processes()
    return REBOOT if wanted == signal.SIGINT else 0
