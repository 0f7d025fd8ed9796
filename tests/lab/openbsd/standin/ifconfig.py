"""ifconfig(8) on the interfaces of the stand-in's namespace: contract 4.

Addresses, links and routes are the kernel's, by the real `ip`. What Linux does not keep (a vlan without its parent yet,
autoconf, the parameters of pflow) is in `/var/standin/boot/ifconfig.json`, which a boot empties.
"""

import contextlib
import ipaddress
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from .place import root
from .program import fail, privileged
from .unmodelled import unmodelled

NOT_MODELLED = (
    "ifconfig: aggr, trunk, carp, gif, gre, tun, tap, veb, bridge, pair, pppoe, vxlan, and any of their options",
    "ifconfig: media, rdomain, priority, metric, wol, and the media line of the output",
    "ifconfig wg: the tunnel (the kernel's module and wg(8) are needed), pflow: the flows",
    "ifconfig autoconf: DHCP and router advertisements (only the flag is kept)",
    "ifconfig vlan: without 802.1Q in the kernel",
    "ifconfig: Linux gives every interface that is up an IPv6 link-local address",
)

STATE = "/var/standin/boot/ifconfig.json"
_FLAGS = {"UP": 0x1, "BROADCAST": 0x2, "LOOPBACK": 0x8, "POINTOPOINT": 0x10, "RUNNING": 0x40, "MULTICAST": 0x8000}
_FLAG_SIMPLEX = 0x800
_NAME = re.compile(r"[a-z]+[0-9]+")
# A bridge without ports is the only kind of interface without a wire that every kernel has.
_WIRELESS = ("vether", "lo")
_CREATED = ("vlan", "wg", "pflow", *_WIRELESS)

State = dict[str, dict[str, Any]]
Links = dict[str, dict[str, Any]]


class KernelError(RuntimeError):
    """The real `ip` refused; the message has its words."""


def ip(*argv: str) -> str:
    """Run the real ip(8).

    Args:
        argv: its arguments.

    Returns:
        What it printed.

    Raises:
        KernelError: it failed.
    """
    program = os.environ.get("STANDIN_IP", "/usr/lib/standin/bin/ip")
    done = subprocess.run([*program.split(), *argv], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise KernelError(f"ip {' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def linux_name(name: str) -> str:
    """Return Linux's name of an interface: `lo` is `lo0`.

    Args:
        name: OpenBSD's.
    """
    return "lo" if name == "lo0" else name


def openbsd_name(name: str) -> str:
    """Return OpenBSD's name of an interface.

    Args:
        name: Linux's.
    """
    return "lo0" if name == "lo" else name


def load() -> State:
    """Return what is kept beside the kernel, by interface."""
    if not root(STATE).exists():
        return {}
    state: State = json.loads(root(STATE).read_text())
    return state


def _save(state: State) -> None:
    root(STATE).parent.mkdir(parents=True, exist_ok=True)
    root(STATE).write_text(json.dumps(state))


def links() -> Links:
    """Return the kernel's interfaces with their addresses, by OpenBSD's names; what is only kept has no `ifindex`."""
    found: Links = {openbsd_name(link["ifname"]): link for link in json.loads(ip("-j", "-d", "addr", "show"))}
    for name in load():
        found.setdefault(name, {"ifname": name, "flags": [], "mtu": 1500, "addr_info": []})
    return found


def groups(name: str) -> list[str]:
    """Return the interface groups of an interface, sorted.

    Args:
        name: the interface.
    """
    found = set(load().get(name, {}).get("groups", []))
    kind = name.rstrip("0123456789")
    if kind in _CREATED:
        found.add(kind)
    for family in ("-4", "-6"):
        routes = json.loads(ip("-j", family, "route", "show", "default") or "[]")
        if any(openbsd_name(route.get("dev", "")) == name for route in routes):
            found.add("egress")
    return sorted(found)


def _flags(link: dict[str, Any]) -> str:
    names = set(link["flags"])
    if "LOWER_UP" in names and "UP" in names:
        names.add("RUNNING")
    ordered = [name for name in _FLAGS if name in names]
    number = sum(_FLAGS[name] for name in ordered)
    if "LOOPBACK" not in names:
        number += _FLAG_SIMPLEX
        at = ordered.index("MULTICAST") if "MULTICAST" in ordered else len(ordered)
        ordered.insert(at, "SIMPLEX")
    return f"{number:x}<{','.join(ordered)}>"


def _lines(name: str, link: dict[str, Any], kept: dict[str, Any]) -> Iterator[str]:
    autoconf = {"inet": "AUTOCONF4", "inet6": "AUTOCONF6"}
    flags = _flags(link)
    for family in kept.get("autoconf", []):
        flags = flags[:-1] + f",{autoconf[family]}>"
    yield f"{name}: flags={flags} mtu {link['mtu']}"
    if link.get("link_type") == "ether":
        yield f"\tlladdr {link['address']}"
    if link.get("ifalias"):
        yield f"\tdescription: {link['ifalias']}"
    yield f"\tindex {link.get('ifindex', 0)} priority 0 llprio 3"
    if "vnetid" in kept:
        yield f"\tencap: vnetid {kept['vnetid']} parent {kept.get('parent', 'none')}"
    if kept.get("pflow"):
        words = kept["pflow"]
        yield "\tpflow: " + " ".join(
            f"{key}: {words[key]}" for key in ("sender", "receiver", "version") if key in words
        )
    member_of = groups(name)
    if member_of:
        yield f"\tgroups: {' '.join(member_of)}"
    if link.get("link_type") == "ether":
        yield f"\tstatus: {'active' if 'LOWER_UP' in link['flags'] else 'no carrier'}"
    for address in link["addr_info"]:
        local, length = address["local"], address["prefixlen"]
        if address["family"] == "inet":
            mask = int(ipaddress.ip_network(f"0.0.0.0/{length}").netmask)
            peer = f" --> {address['address']}" if "address" in address else ""
            broadcast = f" broadcast {address['broadcast']}" if "broadcast" in address else ""
            yield f"\tinet {local}{peer} netmask {mask:#010x}{broadcast}"
        else:
            link_local = address["scope"] == "link"
            where = f"%{name}" if link_local else ""
            scope = f" scopeid {link['ifindex']:#x}" if link_local else ""
            yield f"\tinet6 {local}{where} prefixlen {length}{scope}"


def show(names: Sequence[str]) -> str:
    """Return what `ifconfig` prints of interfaces.

    Args:
        names: the interfaces.
    """
    found, kept = links(), load()
    return "".join(f"{line}\n" for name in names for line in _lines(name, found[name], kept.get(name, {})))


class _Command:
    """One run of ifconfig for one interface.

    Args:
        argv: all arguments, for what is not modelled.
        name: the interface.
        words: the parameters behind it.
    """

    def __init__(self, argv: Sequence[str], name: str, words: Sequence[str]) -> None:
        self.argv = argv
        self.name = name
        self.words = list(words)
        self.state = load()
        self.kept = self.state.setdefault(name, {}) if name in self.state else {}

    def refuse(self, why: str) -> NoReturn:
        unmodelled("ifconfig", self.argv, why)

    def take(self) -> str:
        if not self.words:
            self.refuse("a value is missing")
        return self.words.pop(0)

    def keep(self, **values: object) -> None:
        self.kept.update(values)
        self.state[self.name] = self.kept
        _save(self.state)

    @property
    def in_kernel(self) -> bool:
        return "ifindex" in links().get(self.name, {})

    def ip(self, *argv: str) -> None:
        try:
            ip(*argv)
        except KernelError as error:
            self.refuse(str(error))

    def create(self) -> None:
        kind = self.name.rstrip("0123456789")
        if kind not in _CREATED:
            self.refuse(f"{kind} interfaces")
        if self.name in links():
            fail("ifconfig", "SIOCIFCREATE: File exists")
        if kind in _WIRELESS:
            self.ip("link", "add", self.name, "type", "bridge")
        elif kind == "wg":
            self.ip("link", "add", self.name, "type", "wireguard")
        else:
            self.keep()

    def destroy(self) -> None:
        if self.in_kernel:
            self.ip("link", "del", linux_name(self.name))
        self.state.pop(self.name, None)
        _save(self.state)

    def vlan(self, **values: str) -> None:
        if not self.name.startswith("vlan"):
            self.refuse("parent and vnetid of other interfaces than vlan")
        self.keep(**values)
        if {"parent", "vnetid"} <= set(self.kept) and not self.in_kernel:
            parent = linux_name(self.kept["parent"])
            tag = ("type", "vlan", "id", self.kept["vnetid"])
            self.ip("link", "add", "link", parent, "name", self.name, *tag)

    def address(self, family: str) -> None:
        """Carry out `inet` or `inet6` with what follows."""
        following = self.words[:1]
        if not following:
            return
        word = self.words[0]
        if word in {"autoconf", "-autoconf"}:
            self.take()
            others = [known for known in self.kept.get("autoconf", []) if known != family]
            self.keep(autoconf=sorted([*others, family] if word == "autoconf" else others))
            return
        alias = word == "alias"
        if word in {"alias", "-alias", "delete"}:
            self.take()
        if word in {"-alias", "delete"}:
            self.remove(family, self.words.pop(0) if self.words else None)
            return
        self.add(family, self.take(), alias=alias)

    def remove(self, family: str, text: str | None) -> None:
        present = [a for a in links()[self.name]["addr_info"] if a["family"] == family]
        wanted = text.partition("/")[0].partition("%")[0] if text else None
        found = [a for a in present if wanted is None or a["local"] == wanted]
        if not found:
            fail("ifconfig", "SIOCDIFADDR: Can't assign requested address")
        first = found[0]
        self.ip("addr", "del", f"{first['local']}/{first['prefixlen']}", "dev", linux_name(self.name))

    def add(self, family: str, text: str, *, alias: bool) -> None:
        if family == "inet6" and text == "eui64":
            self.refuse("eui64")
        local, slash, length = text.partition("/")
        options: dict[str, str] = {}
        while self.words and self.words[0] in {"netmask", "broadcast", "prefixlen"}:
            key = self.take()
            options[key] = self.take()
        if self.words and re.fullmatch(r"[0-9.]+", self.words[0]):
            self.refuse("a destination address")
        try:
            network = self._network(family, local, length if slash else "", options)
        except ValueError as error:
            self.refuse(str(error))
        device = ("dev", linux_name(self.name))
        if family == "inet" and not alias:
            # ifconfig.8: without alias the first address gives way.
            old = [a for a in links()[self.name]["addr_info"] if a["family"] == "inet"]
            for first in old[:1]:
                if f"{first['local']}/{first['prefixlen']}" != str(network):
                    self.ip("addr", "del", f"{first['local']}/{first['prefixlen']}", *device)
        extra = ["nodad"] if family == "inet6" else []
        if family == "inet" and network.network.prefixlen < 31:
            extra = ["broadcast", options.get("broadcast", str(network.network.broadcast_address))]
        self.ip("addr", "replace", str(network), *extra, *device)
        self.up()

    @staticmethod
    def _network(
        family: str, local: str, length: str, options: dict[str, str]
    ) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
        if family == "inet6":
            length = length or options.get("prefixlen", "64")
            return ipaddress.IPv6Interface(f"{local.partition('%')[0]}/{length}")
        mask = options.get("netmask", "")
        if mask.startswith("0x"):
            mask = str(ipaddress.IPv4Address(int(mask, 16)))
        if not (length or mask):
            raise ValueError("an address without its mask")
        return ipaddress.IPv4Interface(f"{local}/{length or mask}")

    def up(self) -> None:
        if self.in_kernel:
            self.ip("link", "set", linux_name(self.name), "up")

    def pflow(self, key: str, value: str) -> None:
        if not self.name.startswith("pflow"):
            self.refuse("flows of other interfaces than pflow")
        self.keep(pflow={**self.kept.get("pflow", {}), key: value})

    def flush(self, family: str) -> None:
        number = "-4" if family == "inet" else "-6"
        if self.in_kernel:
            self.ip(number, "addr", "flush", "dev", linux_name(self.name))
        self.keep(autoconf=[known for known in self.kept.get("autoconf", []) if known != family])

    def simple(self, word: str) -> bool:
        """Carry out a parameter that sets one thing; return whether it is one of those."""
        device = linux_name(self.name)
        if word in {"up", "down"}:
            if self.in_kernel:
                self.ip("link", "set", device, word)
        elif word == "mtu":
            self.ip("link", "set", device, "mtu", self.take())
        elif word == "lladdr":
            self.ip("link", "set", device, "address", self.take())
        elif word in {"description", "descr"}:
            self.ip("link", "set", device, "alias", self.take())
        elif word in {"-description", "-descr"}:
            self.ip("link", "set", device, "alias", "")
        elif word in {"group", "-group"}:
            name = self.take()
            others = [known for known in self.kept.get("groups", []) if known != name]
            self.keep(groups=[*others, name] if word == "group" else others)
        else:
            return False
        return True

    def run(self) -> None:
        """Carry out all parameters."""
        while self.words:
            word = self.take()
            if self.simple(word):
                continue
            if word == "create":
                self.create()
            elif word == "destroy":
                self.destroy()
            elif word in {"inet", "inet6"}:
                self.address(word)
            elif word in {"-inet", "-inet6"}:
                self.flush(word[1:])
            elif word in {"alias", "-alias", "delete"}:
                self.words.insert(0, word)
                self.address("inet")
            elif word in {"parent", "vnetid"}:
                self.vlan(**{word: self.take()})
            elif word in {"flowsrc", "flowdst", "pflowproto"}:
                keys = {"flowsrc": "sender", "flowdst": "receiver", "pflowproto": "version"}
                self.pflow(keys[word], self.take())
            elif re.fullmatch(r"[0-9.]+(/[0-9]+)?", word):
                self.add("inet", word, alias=False)
            else:
                self.refuse(f"parameter {word}")


def main(argv: Sequence[str]) -> int:
    """Run ifconfig(8).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    if not argv or argv == ["-a"]:
        sys.stdout.write(show(list(links())))
        return 0
    name, *words = argv
    if name.startswith("-") or not _NAME.fullmatch(name):
        if name in links() or name.startswith("-"):
            unmodelled("ifconfig", argv, "options, and interfaces without a number")
        fail("ifconfig", f"{name}: no such interface")
    found = links()
    if words[:1] != ["create"] and name not in found:
        fail("ifconfig", f"{name}: no such interface")
    if not words:
        sys.stdout.write(show([name]))
        return 0
    if len(words) == 1 and words[0] in {"inet", "inet6"}:
        lines = show([name]).splitlines(keepends=True)
        sys.stdout.write(lines[0] + "".join(line for line in lines if line.startswith(f"\t{words[0]} ")))
        return 0
    if not privileged():
        unmodelled("ifconfig", argv, "changes by another user than root")
    with contextlib.suppress(BrokenPipeError):
        _Command(argv, name, words).run()
    return 0
