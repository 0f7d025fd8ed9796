"""sysctl(8) (contract 0.3 item 2, 6.2, 7.5, 9, 11): it leaves 0 whatever happened."""

import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from . import release
from .init import BOOTTIME
from .place import root
from .power import hostname
from .unmodelled import unmodelled

NOT_MODELLED = (
    "sysctl -a, -A, sysctl without a name, and names of whole nodes",
    "sysctl: values that are structures, sensors and statistics",
    "sysctl: what a value does, except forwarding, the hostname and the security level",
)
STATE = "/var/standin/boot/sysctl.json"
"""What was set since the boot: a real kernel forgets it."""

_INT_MIN, _INT_MAX = -(2**31), 2**31 - 1


@dataclass(frozen=True)
class Variable:
    """A name of sysctl(2): what it is after a boot, whether it is a number, whether it can be set."""

    default: str | Callable[[], str]
    number: bool = True
    writable: bool = True
    linux: str | None = None


def _booted() -> str:
    return root(BOOTTIME).read_text().strip()


def _memory() -> str:
    return str(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _number(default: int) -> Variable:
    return Variable(str(default))


def _fixed(default: str | Callable[[], str], *, number: bool = False) -> Variable:
    return Variable(default, number=number, writable=False)


VARIABLES = {
    "kern.ostype": _fixed("OpenBSD"),
    "kern.osrelease": _fixed(release.number),
    "kern.osrevision": _fixed("202611", number=True),
    "kern.version": _fixed(release.kern_version),
    "kern.osversion": _fixed(release.build),
    "kern.boottime": _fixed(_booted, number=True),
    "kern.hostname": Variable(socket.gethostname, number=False),
    "kern.domainname": Variable("", number=False),
    "kern.hostid": _number(0),
    "kern.securelevel": _number(1),
    "kern.maxvnodes": _number(38560),
    "kern.maxproc": _number(1310),
    "kern.maxthread": _number(2620),
    "kern.maxfiles": _number(7030),
    "kern.argmax": _fixed("524288", number=True),
    "kern.ngroups": _fixed("16", number=True),
    "kern.somaxconn": _number(128),
    "kern.sominconn": _number(80),
    "kern.nosuidcoredump": _number(1),
    "kern.splassert": _number(1),
    "kern.maxpartitions": _fixed("52", number=True),
    "kern.maxlocksperuid": _number(1024),
    "kern.bufcachepercent": _number(20),
    "kern.wxabort": _number(0),
    "kern.global_ptrace": _number(0),
    "kern.audio.record": _number(0),
    "kern.video.record": _number(0),
    "kern.allowdt": _number(0),
    "kern.seminfo.semmni": _number(10),
    "kern.seminfo.semmns": _number(60),
    "kern.seminfo.semmnu": _number(30),
    "kern.seminfo.semmsl": _number(60),
    "kern.seminfo.semopm": _number(100),
    "kern.seminfo.semume": _fixed("10", number=True),
    "kern.seminfo.semusz": _fixed("112", number=True),
    "kern.seminfo.semvmx": _fixed("32767", number=True),
    "kern.seminfo.semaem": _fixed("16384", number=True),
    "kern.shminfo.shmmax": _number(33554432),
    "kern.shminfo.shmmin": _number(1),
    "kern.shminfo.shmmni": _number(128),
    "kern.shminfo.shmseg": _number(128),
    "kern.shminfo.shmall": _number(8192),
    "vm.swapencrypt.enable": _number(1),
    "vm.malloc_conf": Variable("", number=False),
    "hw.machine": _fixed(release.ARCH),
    "hw.model": _fixed("stand-in"),
    "hw.ncpu": _fixed(lambda: str(os.cpu_count() or 1), number=True),
    "hw.ncpufound": _fixed(lambda: str(os.cpu_count() or 1), number=True),
    "hw.ncpuonline": _fixed(lambda: str(os.cpu_count() or 1), number=True),
    "hw.byteorder": _fixed("1234", number=True),
    "hw.pagesize": _fixed("4096", number=True),
    "hw.physmem": _fixed(_memory, number=True),
    "hw.usermem": _fixed(_memory, number=True),
    "hw.smt": _number(0),
    "hw.allowpowerdown": _number(1),
    "net.inet.ip.forwarding": Variable("0", linux="/proc/sys/net/ipv4/ip_forward"),
    "net.inet.ip.redirect": _number(1),
    "net.inet.ip.ttl": _number(64),
    "net.inet.ip.sourceroute": _number(0),
    "net.inet.ip.directed-broadcast": _number(0),
    "net.inet.ip.portfirst": _number(1024),
    "net.inet.ip.portlast": _number(49151),
    "net.inet.ip.porthifirst": _number(49152),
    "net.inet.ip.porthilast": _number(65535),
    "net.inet.ip.maxqueue": _number(300),
    "net.inet.ip.mforwarding": _number(0),
    "net.inet.ip.multipath": _number(0),
    "net.inet.ip.arpqueued": _fixed("0", number=True),
    "net.inet.icmp.maskrepl": _number(0),
    "net.inet.icmp.bmcastecho": _number(0),
    "net.inet.icmp.errppslimit": _number(100),
    "net.inet.icmp.rediraccept": _number(0),
    "net.inet.icmp.redirtimeout": _number(600),
    "net.inet.icmp.tstamprepl": _number(1),
    "net.inet.tcp.rfc1323": _number(1),
    "net.inet.tcp.keepinittime": _number(150),
    "net.inet.tcp.keepidle": _number(14400),
    "net.inet.tcp.keepintvl": _number(150),
    "net.inet.tcp.always_keepalive": _number(0),
    "net.inet.tcp.sack": _number(1),
    "net.inet.tcp.ecn": _number(0),
    "net.inet.tcp.syncachelimit": _number(10255),
    "net.inet.tcp.synbucketlimit": _number(105),
    "net.inet.udp.checksum": _number(1),
    "net.inet.udp.recvspace": _number(41600),
    "net.inet.udp.sendspace": _number(9216),
    "net.inet.esp.enable": _number(1),
    "net.inet.ah.enable": _number(1),
    "net.inet.gre.allow": _number(0),
    "net.inet.ipip.allow": _number(0),
    "net.inet.carp.allow": _number(1),
    "net.inet.carp.preempt": _number(0),
    "net.inet.carp.log": _number(2),
    "net.inet6.ip6.forwarding": Variable("0", linux="/proc/sys/net/ipv6/conf/all/forwarding"),
    "net.inet6.ip6.redirect": _number(1),
    "net.inet6.ip6.hlim": _number(64),
    "net.inet6.ip6.mforwarding": _number(0),
    "net.inet6.ip6.multipath": _number(0),
    "net.inet6.icmp6.redirtimeout": _number(600),
    "machdep.allowaperture": _number(0),
    "machdep.lidaction": _number(1),
    "ddb.panic": _number(1),
    "ddb.console": _number(0),
}
_TOP = ("kern", "vm", "fs", "net", "debug", "hw", "machdep", "user", "ddb", "vfs")
# Names that a kernel has and the stand-in does not: of those nothing is said to be invalid.
_OTHER = re.compile(
    r"debug\b|user\b|vfs\b|fs\b|machdep\b|ddb\b|vm\b|net\.(unix|link|bpf|mpls|pipex|pflow|inet6?\.\w+$|key|route)"
    r"|net\.inet\.(tcp|udp|ip|icmp|igmp|ipcomp|etherip|divert|pfsync)\.(stats|baddynamic|rootonly|ifq|ipsec-|encdebug)"
    r"|kern\.(clockrate|profiling|posix1version|job_control|saved_ids|rawpartition|fsync|sysvmsg|sysvsem|sysvshm|"
    r"msgbufsize|malloc|cp_time2?|nchstats|forkstat|tty|ccpu|fscale|nprocs|msgbuf|pool|pool_debug|stackgap_random|"
    r"sysvipc_info|allowkmem|witnesswatch|witness|procargs|nfiles|ttycount|numvnodes|mbstat|intrcnt|watchdog|evcount|"
    r"timecounter|file2?|consdev|netlivelocks|nthreads|proc2?|vnode|emul|cpustats|pfstatus|timeout_stats|utc_offset|"
    r"dnsjackport|arandom|maxclusters|netisr|seminfo$|shminfo$|audio$|video$)\b"
    r"|hw\.(disknames|diskcount|diskstats|sensors|cpuspeed|setperf|vendor|product|version|serialno|uuid|perfpolicy|"
    r"power|battery|blockcpu|ucomnames|physmem64|usermem64)\b"
)


def _state() -> dict[str, str]:
    try:
        found = json.loads(root(STATE).read_text())
    except FileNotFoundError:
        return {}
    return {str(name): str(text) for name, text in found.items()}


def value(name: str) -> str:
    """Return what a variable is now.

    Args:
        name: one of `VARIABLES`.

    Returns:
        Its text as `sysctl -n` prints it.
    """
    variable = VARIABLES[name]
    stored = _state().get(name)
    if stored is not None and name != "kern.hostname":
        return stored
    return variable.default if isinstance(variable.default, str) else variable.default()


def _complain(text: str) -> None:
    print(f"sysctl: {text}", file=sys.stderr)


def _unknown(name: str) -> None:
    if _OTHER.match(name):
        unmodelled("sysctl", [name], "no value for it")
    levels = name.split(".")
    for depth, word in enumerate(("top", "second", "third", "fourth")):
        if depth >= len(levels):
            unmodelled("sysctl", [name], "a whole node")
        prefix = ".".join(levels[: depth + 1])
        known = levels[0] in _TOP if depth == 0 else any(f"{found}.".startswith(f"{prefix}.") for found in VARIABLES)
        if not known:
            _complain(f"{word} level name {levels[depth]} in {name} is invalid")
            return
    unmodelled("sysctl", [name], "more than four levels")


def _problem(text: str) -> str | None:
    if not re.fullmatch(r"\s*[+-]?[0-9]+", text):
        return "invalid"
    if int(text) > _INT_MAX:
        return "too large"
    if int(text) < _INT_MIN:
        return "too small"
    return None


def _write(name: str, text: str, *, bare: bool, quiet: bool) -> None:
    variable = VARIABLES[name]
    if variable.number:
        problem = _problem(text)
        if problem:
            _complain(f"{name}: value is {problem}: {text}")
            return
        text = str(int(text))
    old = value(name)
    lowered = name == "kern.securelevel" and int(text) < int(old)
    if os.geteuid() != 0 or not variable.writable or lowered:
        _complain(f"{name}: Operation not permitted")
        return
    if name == "kern.hostname":
        hostname([text])
    if variable.linux and int(text) not in (0, 1):
        unmodelled("sysctl", [f"{name}={text}"], "forwarding other than 0 and 1")
    if variable.linux:
        root(variable.linux).write_text(f"{text}\n")
    path = root(STATE)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f"{path.name}.{os.getpid()}")
    staged.write_text(json.dumps({**_state(), name: text}))
    staged.replace(path)
    if not quiet:
        print(text if bare else f"{name}: {old} -> {text}")


def _one(word: str, *, bare: bool, quiet: bool) -> None:
    name, equals, text = word.partition("=")
    text = text.lstrip()
    if name not in VARIABLES:
        _unknown(name)
    elif equals and text:
        _write(name, text, bare=bare, quiet=quiet)
    elif name == "kern.boottime" and not bare:
        # ctime(3) of the sysctl that prints a name, the seconds of the one that does not.
        print(f"{name}={time.ctime(int(value(name)))}")
    else:
        print(value(name) if bare else f"{name}={value(name)}")


def main(argv: list[str]) -> int:
    """Run sysctl.

    Args:
        argv: options `-n`, `-q`, `-f FILE`, then names or assignments.

    Returns:
        0, or 1 for a wrong call or a file that cannot be read.
    """
    bare = quiet = False
    files: list[str] = []
    words = list(argv)
    while words and words[0].startswith("-"):
        letters = words.pop(0)[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter == "f" and (letters or words):
                files.append(letters or words.pop(0))
                letters = ""
            elif letter in "nq":
                bare, quiet = bare or letter == "n", quiet or letter == "q"
            elif letter in "aA":
                unmodelled("sysctl", argv, "a list of all")
            elif letter != "w":
                print("usage: sysctl [-Aanq] [name[=value] ...]\n       sysctl [-nq] -f file", file=sys.stderr)
                return 1
    if not files and not words:
        unmodelled("sysctl", argv, "a list of all")
    for file in files:
        try:
            lines = root(file).read_text().splitlines()
        except OSError as error:
            _complain(f"{file}: {error.strerror}")
            return 1
        words += [line.partition("#")[0].strip() for line in lines if line.partition("#")[0].strip()]
    for word in words:
        if files and re.search(r"\s", word):
            unmodelled("sysctl", argv, f"blanks in {word!r} of a file")
        _one(word, bare=bare, quiet=quiet)
    return 0
