"""libvirt of a host: domains with their definitions, networks, and what the host can give.

virsh(1), https://libvirt.org/formatdomain.html. virsh costs 0.3 s a call in the lab, so everything is asked
in two calls of it, whatever the number of domains.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pyinfra import logger
from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from facts.linux.domain import Definition, DefinitionError, from_xml, networks_of
from facts.linux.lvm import FRESH

MARK = "##virt##"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# States in which a domain has a QEMU process (virsh(1), domstate). "crashed" may have one too: it is left
# alone.
ACTIVE = frozenset({"running", "idle", "paused", "in shutdown", "pmsuspended", "crashed"})

# A command that fails does not stop the others of a virsh call, and the last one alone decides the exit code:
# so the list of domains comes last. virsh's echo ends no line by itself; an end of line in its quotes does.
SCRIPT = r"""LC_ALL=C; export LC_ALL
echo "MARK host $(uname -n)"
PINGS
[ ! -c /dev/kvm ] || echo 'MARK kvm'
if command -v lvs >/dev/null 2>&1; then
  if v=$(lvs --noheadings -o lv_tags,lv_name 2>/dev/null); then echo 'MARK volumes'; printf '%s\n' "$v"
  else echo 'MARK volumes-unknown'; fi
fi
if ! command -v virsh >/dev/null 2>&1; then echo 'MARK absent'; echo 'MARK end'; exit 0; fi
if ! first=$(virsh -q "echo 'MARK nodeinfo
'; nodeinfo; echo 'MARK networks
'; net-list --all; echo 'MARK uuids
'; list --all --uuid" 2>&1); then
  echo 'MARK unreachable'; printf '%s\n' "$first"; echo 'MARK end'; exit 0
fi
printf '%s\n' "$first"
commands=
for u in $(printf '%s\n' "$first" | sed '1,/MARK uuids/d'); do
  commands="$commands echo 'MARK domain $u
'; domstate $u --reason; dominfo $u; echo 'MARK inactive
'; dumpxml $u --inactive; echo 'MARK live
'; dumpxml $u;"
done
[ -z "$commands" ] || virsh -q "$commands echo 'MARK blocks
'; domstats --list-active --block" 2>&1
echo 'MARK end'"""


@dataclass(frozen=True)
class Unreadable:
    """A definition that is there and cannot be compared, and why."""

    reason: str


@dataclass(frozen=True)
class Domain:
    """A domain of this host.

    Arguments: `state` and `reason` as virsh domstate --reason says ("shut off", "migrated"); `definition`,
    the one of the next start, None if it is transient; `live`, the one that runs, None if it is off;
    `capacities`, size in bytes of each block device, by path, as the running guest sees it; `networks`,
    libvirt's networks that it uses.
    """

    name: str
    uuid: str
    state: str
    reason: str = ""
    persistent: bool = True
    autostart: bool = False
    definition: Definition | Unreadable | None = None
    live: Definition | Unreadable | None = None
    capacities: Mapping[str, int] = field(default_factory=dict)
    networks: frozenset[str] = frozenset()

    @property
    def active(self) -> bool:
        """True if it has a process on this host, whatever that process does."""
        return self.state in ACTIVE

    @property
    def moved_away(self) -> bool:
        """True for what a move left behind: it runs on the other twin, and is never started here."""
        return self.state == "shut off" and self.reason == "migrated"

    @property
    def in_words(self) -> str:
        """State and reason as printed."""
        return f"{self.state} ({self.reason})" if self.reason else self.state


@dataclass(frozen=True)
class Network:
    """One of libvirt's own networks."""

    name: str
    active: bool
    autostart: bool


@dataclass(frozen=True)
class LibvirtState:
    """What libvirt has on a host.

    Arguments: `installed` is False where it is not there yet, and then there is nothing; `host`, the host's
    own name; `domains` and `networks` by name; `memory` in bytes and `cpus` of the host; `kvm`, /dev/kvm is
    there; `answers`, for each probed guest: it answered a ping, None where that could not be tried; `booted`, names
    of volumes by guest that a guest has written to and that are not retired, None where LVM could not be asked. The
    other twin wants to know them: where they are, a guest without a domain may still have its data.
    """

    installed: bool = True
    host: str = ""
    domains: Mapping[str, Domain] = field(default_factory=dict)
    networks: Mapping[str, Network] = field(default_factory=dict)
    memory: int = 0
    cpus: int = 0
    kvm: bool = False
    answers: Mapping[str, bool | None] = field(default_factory=dict)
    booted: Mapping[str, tuple[str, ...]] | None = field(default_factory=dict)


class Libvirt(FactBase["LibvirtState | None"]):
    """libvirt's state, in one exec; None where it could not be known (DESIGN F2), which is said in one line.

    Argument: `probes`, the address of each guest that is to be pinged: three times two seconds, all at once.
    """

    @staticmethod
    def default() -> None:
        """Unknown."""

    def command(self, probes: Mapping[str, str] | None = None) -> str:
        """Return a script that exits with 0 also where libvirt does not answer: to be asked is no failure."""
        pings = "".join(
            f"( for _ in 1 2 3; do ping -c 1 -W 2 {shlex.quote(address)} >/dev/null 2>&1 && break; done;"
            f" echo '{MARK} ping' {shlex.quote(guest)} $? ) &\n"
            for guest, address in sorted((probes or {}).items())
        )
        return SCRIPT.replace("MARK", MARK).replace("PINGS", f"{pings}wait" if pings else ":")

    def process(self, output: list[str]) -> LibvirtState | None:
        """Return the parsed state, or None if libvirt is there and does not answer.

        Fails: FactProcessError naming the line that is not understood.
        """
        found = parse(output)
        if isinstance(found, Unreadable):
            logger.warning("libvirt cannot be asked: %s", found.reason)
            return None
        return found


def parse(output: Sequence[str]) -> LibvirtState | Unreadable:
    """Return the state in `output`, the lines of the script, or why libvirt could not be asked.

    Fails: FactProcessError naming the bad line, also for output that ends too early.
    """
    sections = list(_sections(output))
    if not sections or sections[-1][0] != "end":
        raise FactProcessError(f"libvirt: the output ends too early, after: {output[-1] if output else 'nothing'}")
    single: dict[str, list[str]] = {}
    host, answers = "", dict[str, bool | None]()
    domains: list[dict[str, list[str]]] = []
    for title, lines in sections:
        kind, _, argument = title.partition(" ")
        if kind == "host":
            host = argument
        elif kind == "ping":
            guest, _, status = argument.rpartition(" ")
            answers[guest] = {"0": True, "1": False}.get(status)
        elif kind == "domain":
            domains.append({"uuid": [argument], "info": lines})
        elif kind in {"inactive", "live"} and domains:
            domains[-1][kind] = lines
        elif kind in {
            "volumes",
            "volumes-unknown",
            "kvm",
            "absent",
            "unreachable",
            "nodeinfo",
            "networks",
            "uuids",
            "blocks",
            "end",
        }:
            single[kind] = lines
        else:
            raise FactProcessError(f"libvirt: unknown section: {title}")
    kvm = "kvm" in single
    if "absent" in single:
        return LibvirtState(installed=False, host=host, kvm=kvm, answers=answers, booted=_booted(single))
    if "unreachable" in single:
        reasons = [line.strip() for line in single["unreachable"] if line.startswith("error:")]
        return Unreadable(" / ".join(reasons[-2:]) or "virsh said nothing")
    blocks = _blocks(single.get("blocks", []))
    made = [_domain(sections_of, blocks) for sections_of in domains]
    memory, cpus = _nodeinfo(single.get("nodeinfo", []))
    networks = [_network(line) for line in single.get("networks", []) if line.strip()]
    return LibvirtState(
        host=host,
        domains={domain.name: domain for domain in made if domain is not None},
        networks={network.name: network for network in networks},
        memory=memory,
        cpus=cpus,
        kvm=kvm,
        answers=answers,
        booted=_booted(single),
    )


def _booted(sections: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]] | None:
    """Return the volumes that were booted, by guest, from lines of tags and a name; None for unknown."""
    if "volumes-unknown" in sections:
        return None
    found: dict[str, tuple[str, ...]] = {}
    for line in sections.get("volumes", []):
        words = line.split()
        if len(words) != 2:
            continue
        tags, name = words[0].split(","), words[1]
        for guest in (tag.removeprefix("guest=") for tag in tags if tag.startswith("guest=")):
            if FRESH not in tags and not name.startswith("retired-"):
                found[guest] = (*found.get(guest, ()), name)
    return found


def _sections(output: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    title, lines = "", list[str]()
    for line in output:
        if line.startswith(MARK):
            if title:
                yield title, lines
            title, lines = line.removeprefix(MARK).strip(), []
        elif title:
            lines.append(line)
        elif line.strip():
            raise FactProcessError(f"libvirt: not expected: {line}")
    if title:
        yield title, lines


def _nodeinfo(lines: Sequence[str]) -> tuple[int, int]:
    values = _colons(lines)
    try:
        return int(values["Memory size"].removesuffix(" KiB")) * 1024, int(values["CPU(s)"])
    except (KeyError, ValueError) as error:
        raise FactProcessError(f"libvirt: nodeinfo: {error!r} in: {' / '.join(lines)}") from error


def _network(line: str) -> Network:
    match = re.fullmatch(r"\s*(\S+)\s+(active|inactive)\s+(yes|no)\s+(yes|no)\s*", line)
    if match is None:
        raise FactProcessError(f"libvirt: net-list: not understood: {line}")
    return Network(match[1], match[2] == "active", match[3] == "yes")


def _domain(sections: Mapping[str, list[str]], blocks: Mapping[str, Mapping[str, int]]) -> Domain | None:
    uuid, lines = sections["uuid"][0], [line for line in sections["info"] if line.strip()]
    if not UUID.fullmatch(uuid):
        raise FactProcessError(f"libvirt: no uuid: {uuid}")
    values = _colons(lines)
    match = re.fullmatch(r"([a-z ]+?)(?: \((.+)\))?", lines[0].strip()) if lines else None
    if "Name" not in values:
        if any("failed to get domain" in line for line in lines):
            return None  # gone between the two calls: it is not here
        raise FactProcessError(f"libvirt: domain {uuid}: no name in: {' / '.join(lines)}")
    if match is None:
        raise FactProcessError(f"libvirt: domain {values['Name']}: no state: {lines[0]}")
    name, state = values["Name"], match[1]
    persistent = values.get("Persistent") == "yes"
    inactive, live = sections.get("inactive", []), sections.get("live", [])
    return Domain(
        name=name,
        uuid=uuid,
        state=state,
        reason=match[2] or "",
        persistent=persistent,
        autostart=values.get("Autostart") == "enable",
        definition=_definition(inactive) if persistent else None,
        live=_definition(live) if state in ACTIVE else None,
        capacities=blocks.get(name, {}),
        networks=networks_of("\n".join(inactive)) | networks_of("\n".join(live)),
    )


def _definition(lines: Sequence[str]) -> Definition | Unreadable:
    try:
        return from_xml("\n".join(lines).strip())
    except DefinitionError as error:
        return Unreadable(str(error))


def _blocks(lines: Sequence[str]) -> dict[str, dict[str, int]]:
    """Per domain its block devices, by path, with the capacity that QEMU tells the guest (domstats)."""
    found: dict[str, dict[str, int]] = {}
    capacities: dict[str, int] = {}
    path = ""
    for line in map(str.strip, lines):
        domain = re.fullmatch(r"Domain: '(.+)'", line)
        key, _, value = line.partition("=")
        if domain:
            capacities, path = found.setdefault(domain[1], {}), ""
        elif re.fullmatch(r"block\.\d+\.name", key):
            path = ""
        elif re.fullmatch(r"block\.\d+\.path", key):
            path = value
        elif re.fullmatch(r"block\.\d+\.capacity", key) and path:
            if not value.isdecimal():
                raise FactProcessError(f"libvirt: domstats: not a size: {line}")
            capacities[path] = int(value)
    return found


def _colons(lines: Sequence[str]) -> dict[str, str]:
    """Lines of `Key: value`; the first of a key counts."""
    found: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found
