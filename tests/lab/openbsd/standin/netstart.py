"""netstart(8) and hostname.if(5): contract 4, `etc/netstart`."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import ifconfig, route
from .place import root
from .program import own, privileged, warn
from .unmodelled import unmodelled

NOT_MODELLED = (
    "hostname.if: words of the shell ($, `, ;, |, <, >, &) in other lines than those that begin with !",
    "netstart: the reject routes of IPv6, multicast routes, /etc/myname (hostname(1) at boot is rc's)",
)

ETC = "/etc"
MYGATE = "/etc/mygate"
_CLONERS = (
    *("aggr", "bpe", "bridge", "carp", "egre", "eoip", "etherip", "gif", "gre", "lo", "mgre", "nvgre", "pair", "pflog"),
    *("pflow", "ppp", "pppoe", "svlan", "tap", "tpmr", "trunk", "tun", "veb", "vether", "vlan", "vport", "vxlan", "wg"),
)
_AFTER = ("aggr", "trunk", "svlan", "vlan", "carp", "pppoe")
_LAST = ("tun", "tap", "gif", "etherip", "gre", "egre", "pflow", "wg")
_NAME = re.compile(r"[a-z]+[0-9]+")
_SHELL = re.compile(r"[$`;|<>&]")


class Start:
    """One run of netstart.

    Args:
        argv: its arguments, for what is not modelled.
        print_only: whether the commands are printed instead of run.
    """

    def __init__(self, argv: Sequence[str], *, print_only: bool) -> None:
        self._argv = argv
        self._print_only = print_only
        self.autoconf: set[str] = set()

    def _file(self, name: str) -> Path | None:
        # hostname.if.5: the file named by the hardware address comes before that of the name.
        if not self._print_only or self._has_ip():
            link = ifconfig.links().get(name, {})
            by_address = root(f"{ETC}/hostname.{link.get('address', '')}")
            if link.get("address") and by_address.is_file():
                return by_address
        by_name = root(f"{ETC}/hostname.{name}")
        return by_name if by_name.is_file() else None

    def _has_ip(self) -> bool:
        return Path(os.environ.get("STANDIN_IP", "/usr/lib/standin/bin/ip").split()[0]).exists()

    def commands(self, name: str, lines: Sequence[str]) -> Iterator[str]:
        """Return the commands of an interface's file, and remember the families that configure themselves.

        Args:
            name: the interface.
            lines: the file's lines.
        """
        found: list[str] = []
        for line in lines:
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if line.lstrip().startswith("!"):
                found.append(" ".join(words)[1:].replace("$if", name))
            elif words[0] == "dest" and len(words) == 2 and found:
                found[-1] = self._with_destination(found[-1], words[1])
            else:
                found.append(self._command(name, line, words))
        yield from found

    @staticmethod
    def _with_destination(command: str, destination: str) -> str:
        words = command.split()
        at = 4 if words[3:4] != ["alias"] else 5
        return " ".join([*words[:at], destination, *words[at:]])

    def _command(self, name: str, line: str, words: list[str]) -> str:
        if _SHELL.search(line):
            unmodelled("netstart", self._argv, f"hostname.{name}: {line}")
        if words[0] == "dhcp":
            words = ["inet", "autoconf", *words[1:]]
        if words[0] in {"inet", "inet6"} and words[1:2] == ["autoconf"]:
            self.autoconf.add(words[0])
        elif words[0] in {"inet", "inet6"} and len(words) > 1:
            alias = 1 if words[1] == "alias" else 0
            mask = 2 + alias
            if words[0] == "inet" and len(words) > mask + 1:
                broadcast = words[mask + 1]
                words[mask + 1 : mask + 2] = [] if broadcast == "NONE" else ["broadcast", broadcast]
            if len(words) > mask:
                words.insert(mask, "netmask" if words[0] == "inet" else "prefixlen")
        return " ".join(["ifconfig", name, *words])

    def _run(self, name: str, command: str, *, shell: bool) -> None:
        if self._print_only:
            sys.stdout.write(f"{command}\n")
            sys.stdout.flush()
        elif shell:
            subprocess.run(["/bin/sh", "-c", command], check=False)
        else:
            words = shlex.split(command)
            main = route.main if words[0] == "route" else ifconfig.main
            try:
                main(words[1:])
            except SystemExit as end:
                # A line that fails does not stop the others; one that is not modelled has been recorded.
                if end.code == 99:
                    warn("netstart", f"{name}: {command}: not modelled")

    def create(self, name: str) -> None:
        """Create a virtual interface unless it is there.

        Args:
            name: the interface.
        """
        if self._print_only:
            sys.stdout.write(f"{{ ifconfig {name} || ifconfig {name} create; }}\n")
        elif name not in ifconfig.links():
            self._run(name, f"ifconfig {name} create", shell=False)

    def interface(self, name: str) -> None:
        """Configure an interface by its file.

        Args:
            name: the interface.
        """
        if not _NAME.fullmatch(name):
            return
        path = self._file(name)
        if path is None:
            warn("netstart", f"{ETC}/hostname.{name}: No such file or directory.")
            return
        status = path.stat()
        owned = (status.st_uid, status.st_gid) == (0, 0) or "STANDIN_ROOT" in os.environ
        if status.st_mode & 0o777 != 0o640 or not owned:
            sys.stderr.write(f"WARNING: {ETC}/{path.name} is insecure, fixing permissions.\n")
            sys.stderr.flush()
            path.chmod(0o640)
            own(path, 0, 0)
        if not self._print_only and name not in ifconfig.links():
            return
        lines = path.read_text().splitlines()
        commands = list(self.commands(name, lines))
        for command in commands:
            words = command.split()
            self._run(name, command, shell=words[:2] != ["ifconfig", name])

    def default_routes(self) -> None:
        """Add the default routes of mygate, of the families that do not configure themselves."""
        gateways: dict[str, str] = {}
        for line in root(MYGATE).read_text().splitlines() if root(MYGATE).is_file() else []:
            text = line.partition("#")[0].strip()
            if text.startswith("!"):
                self._run("mygate", text[1:], shell=True)
            elif text:
                gateways.setdefault("inet6" if ":" in text else "inet", text)
        for family, gateway in sorted(gateways.items()):
            if family not in self.autoconf:
                option = "-inet6 " if family == "inet6" else ""
                self._run("mygate", f"route -qn add -host {option}default {gateway}", shell=False)

    def everything(self) -> None:
        """Configure all interfaces that have a file, in the order of boot."""
        names = []
        for path in sorted(root(ETC).glob("hostname.*")):
            name = path.name.removeprefix("hostname.")
            if _NAME.fullmatch(name):
                names.append(name)
        names += [name for name in self._by_address() if name not in names]
        self._run("lo0", "ifconfig lo0 inet 127.0.0.1/8", shell=False)
        kinds = {name: name.rstrip("0123456789") for name in names}
        for name in names:
            if kinds[name] in _CLONERS and name != "lo0":
                self.create(name)
        for name in names:
            if kinds[name] not in (*_AFTER, *_LAST):
                self.interface(name)
        self._each(_AFTER, kinds)
        self.default_routes()
        self._each(_LAST, kinds)

    def _each(self, order: Sequence[str], kinds: dict[str, str]) -> None:
        for kind in order:
            for name in sorted(name for name in kinds if kinds[name] == kind):
                self.interface(name)

    def _by_address(self) -> list[str]:
        if self._print_only and not self._has_ip():
            return []
        found = ifconfig.links()
        return sorted(
            name for name, link in found.items() if root(f"{ETC}/hostname.{link.get('address', '')}").is_file()
        )


def main(argv: Sequence[str]) -> int:
    """Run netstart(8).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    words = list(argv)
    print_only = words[:1] == ["-n"]
    names = words[1:] if print_only else words
    if any(name.startswith("-") for name in names):
        sys.stderr.write("usage: netstart [-n] [interface ...]\n")
        return 1
    if not privileged():
        warn("netstart", "need root privileges")
        return 1
    start = Start(argv, print_only=print_only)
    with contextlib.suppress(BrokenPipeError):
        if not names:
            start.everything()
            return 0
        for name in names:
            if name.rstrip("0123456789") in _CLONERS and name != "lo0":
                start.create(name)
            start.interface(name)
        start.default_routes()
    return 0
