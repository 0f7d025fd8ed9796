"""rc(8): what happens between the kernel and the last daemon, and at the end (contract 1.8, 14).

The first process has already emptied /var/run and /tmp and set the host's name, and is what reboots.
"""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

from . import rcconf, release
from .place import root
from .sysctl import value
from .unmodelled import unmodelled

NOT_MODELLED = (
    "rc: fsck, mounts, swap, quotas, accounting, ipsec.conf, YP, NFS, X, crash dumps, kernel and library relinking",
    "rc: pfsync and carp's demotion, /etc/mixerctl.conf, /etc/wsconsctl.conf, seeds, login class limits",
)
BUILT_IN_RULES = """\
block all
pass on lo0
pass in proto tcp from any to any port ssh keep state
pass out proto { tcp, udp } from any to any port domain keep state
pass out inet proto icmp all icmp-type echoreq keep state
pass out inet proto udp from any port bootpc to any port bootps
pass in inet proto udp from any port bootps to any port bootpc
pass out inet6 proto icmp6 all icmp6-type neighbrsol
pass in inet6 proto icmp6 all icmp6-type neighbradv
pass out inet6 proto icmp6 all icmp6-type routersol
pass in inet6 proto icmp6 all icmp6-type routeradv
pass out inet6 proto udp from any port dhcpv6-client to any port dhcpv6-server
pass in inet6 proto udp from any port dhcpv6-server to any port dhcpv6-client
pass in proto carp keep state (no-sync)
pass out proto carp !received-on any keep state (no-sync)
"""
"""In force until /etc/pf.conf is loaded, and after that if it cannot be."""

FIRST = ("slaacd", "dhcpleased", "resolvd")
EARLY = (
    *("syslogd", "ldattach", "bpflogd", "pflogd", "nsd", "unbound", "ntpd", "lldpd"),
    *("iscsid", "isakmpd", "iked", "sasyncd", "ldapd", "npppd"),
)
NETWORK = (
    *("sshd", "snmpd", "ldpd", "ripd", "ospfd", "ospf6d", "bgpd", "ifstated", "relayd", "dhcpd", "dhcrelay"),
    *("dhcrelay6", "mrouted", "dvmrpd", "radiusd", "eigrpd", "route6d", "rad", "hostapd", "lpd", "smtpd", "slowcgi"),
    *("httpd", "ftpd", "ftpproxy", "ftpproxy6", "tftpd", "tftpproxy", "identd", "inetd", "rarpd", "bootparamd"),
    *("rbootd", "mopd", "vmd", "spamd", "spamlogd", "sndiod"),
)
LAST = ("apmd", "sensorsd", "hotplugd", "watchdogd", "cron", "wsmoused", "xenodm")


def _say(text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)


def _environment() -> dict[str, str]:
    return {**os.environ, "INRC": "1", "HOME": "/"}


def _run(argv: Sequence[str], *, text: str | None = None, silent: bool = False) -> int:
    """Run a command of the stand-in; one that is not there is said as a shell says it, and the boot goes on."""
    target = subprocess.DEVNULL if silent else None
    command = [str(root(argv[0])), *argv[1:]]
    try:
        done = subprocess.run(
            command, input=text, text=True, stdout=target, stderr=target, env=_environment(), check=False
        )
    except OSError as error:
        print(f"/etc/rc: {argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
        return 127
    return done.returncode


def _shell(path: str, *arguments: str) -> None:
    if root(path).is_file():
        _run(["/bin/sh", str(root(path)), *arguments])


def _start(names: Sequence[str], *, silent: bool = False) -> None:
    values = rcconf.effective()
    for name in names:
        if values.get(f"{name}_flags") == "NO":
            continue
        if not rcconf.script(name).exists():
            if f"{name}_flags" in values:
                with contextlib.suppress(SystemExit):
                    unmodelled("rc", [name], "a base daemon that the stand-in has no script for")
            continue
        _run([f"{rcconf.SCRIPTS}/{name}", "start"], silent=silent)


def _set_of(title: str, names: Sequence[str]) -> None:
    _say(f"starting {title}:", end="")
    _start(names)
    _say(".")


def _words(path: str) -> list[str]:
    """Return the blank-separated words of a file without its comments: `key = value` is three of them."""
    return [word for line in rcconf.text_of(path).splitlines() for word in line.partition("#")[0].split()]


def _upgrade_script(suffix: str) -> None:
    """Run a script once, mail what it prints to root, and see that it is gone."""
    path = root(f"/etc/rc.{suffix}")
    running = root(f"/etc/rc.{suffix}.run")
    if path.is_file():
        _say(f"running rc.{suffix}")
        path.replace(running)
        done = subprocess.run(
            [root("/bin/sh"), running],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(),
            check=False,
        )
        _say(done.stdout, end="")
        subject = f"{socket.gethostname()} rc.{suffix} output"
        _run(["/usr/bin/mail", "-Es", subject, "root"], text=done.stdout, silent=True)
    running.unlink(missing_ok=True)


def rewrite_motd() -> None:
    """Put the kernel's first line before the first empty line of /etc/motd; what follows that line is kept (14)."""
    path = root("/etc/motd")
    old = path.read_text() if path.exists() else ""
    lines = old.splitlines(keepends=True)
    empty = next((n for n, line in enumerate(lines) if line.rstrip("\n") == ""), len(lines))
    new = release.first_line() + "\n" + "".join(lines[empty:])
    if not path.exists():
        path.touch()
        path.chmod(0o664)
    if new != old:
        path.write_text(new)


def boot() -> int:
    """Bring the system up.

    Returns:
        0: what fails is said on the console and passed over.
    """
    values = rcconf.effective()
    if values.get("pf") != "NO":
        _run(["/sbin/pfctl", "-f", "-"], text=BUILT_IN_RULES)
        _run(["/sbin/pfctl", "-e"])
    for word in _words("/etc/sysctl.conf"):
        _run(["/sbin/sysctl", word])
    _start(FIRST, silent=True)
    _say("starting network")
    _shell("/etc/netstart")
    _start(["unwind"], silent=True)
    if values.get("pf") != "NO" and root("/etc/pf.conf").is_file():
        _run(["/sbin/pfctl", "-f", "/etc/pf.conf"])
    root("/etc/nologin").unlink(missing_ok=True)
    messages = subprocess.run([root("/sbin/dmesg")], stdout=subprocess.PIPE, check=False).stdout
    root("/var/run/dmesg.boot").write_bytes(messages)
    _run(["/usr/bin/ssh-keygen", "-A"])
    _set_of("early daemons", EARLY)
    _shell("/etc/rc.securelevel")
    if value("kern.securelevel") == "0":
        _run(["/sbin/sysctl", "kern.securelevel=1"])
    rewrite_motd()
    _upgrade_script("sysmerge")
    _set_of("network daemons", NETWORK)
    _upgrade_script("firsttime")
    scripts = values.get("pkg_scripts", "").split()
    if scripts:
        _say("starting package daemons:", end="")
        for name in scripts:
            path = rcconf.script(name)
            if path.exists() and os.access(path, os.X_OK):
                _start([name])
            else:
                _say(f" {name}(absent)", end="")
        _say(".")
    _shell("/etc/rc.local")
    _set_of("local daemons", LAST)
    return 0


def shutdown() -> int:
    """Bring the system down: rc.shutdown, then the packages' daemons in reverse order.

    Returns:
        0.
    """
    _shell("/etc/rc.shutdown")
    names = rcconf.effective().get("pkg_scripts", "").split()
    if names:
        _say("stopping package daemons:", end="")
        for name in reversed(names):
            path = rcconf.script(name)
            if path.exists() and os.access(path, os.X_OK):
                _run([f"{rcconf.SCRIPTS}/{name}", "stop"])
        _say(".")
    return 0


def main(argv: list[str]) -> int:
    """Run rc.

    Args:
        argv: nothing or ``autoboot`` to boot, ``shutdown`` to end.

    Returns:
        0.
    """
    if argv == ["shutdown"]:
        return shutdown()
    if argv not in ([], ["autoboot"]):
        unmodelled("rc", argv, "only autoboot and shutdown")
    return boot()
