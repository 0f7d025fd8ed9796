"""Domains and networks; virsh(1), over libvirt's read-only connection."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from testinfra.host import Host

from tests.verify.modules.base import Asking, Unknown

STATES = {0: "no state", 1: "running", 2: "blocked", 3: "paused", 4: "shutting down", 5: "shut off", 6: "crashed"}
STATES[7] = "suspended"
"""virDomainState in words."""

_STAT = re.compile(r"\s+([a-z0-9._-]+)=(.*)")


@dataclass(frozen=True)
class Domain:
    """A domain: `capacity` maps a block device's path to the bytes that the running guest sees.

    `definition` is the inactive one in libvirt's XML, None if it was not asked for or could not be had.
    """

    state: str
    persistent: bool
    autostart: bool
    capacity: dict[str, int] = field(default_factory=dict)
    definition: str | None = None


@dataclass(frozen=True)
class Answer:
    """All domains by name, and the names of all networks."""

    domains: dict[str, Domain]
    networks: frozenset[str]


class Libvirt(Asking):
    """A hypervisor's domains and networks, from one call of virsh, since each call costs a connection.

    >>> libvirt(host).ask(["db1"]).domains["db1"].state
    'running'
    """

    @staticmethod
    def question(definitions: Sequence[str]) -> str:
        """Return the command that `ask` asks with; the definitions of the named domains come along."""
        parts = [
            "echo @@stats@@; domstats --state --block",
            "echo @@persistent@@; list --all --name --persistent",
            "echo @@autostart@@; list --all --name --autostart",
            "echo @@networks@@; net-list --all --name",
        ]
        for name in definitions:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]*", name):
                raise ValueError(f"{name!r} is no domain's name")
            parts.append(f"echo @@{name}@@; dumpxml --inactive {name}")
        line = "; ".join([*parts, "echo @@end@@"])
        # A domain that is not there is an error of its own command only; that all was said is seen by the end.
        return f"virsh -q -r -c qemu:///system '{line}' || [ $? -eq 1 ]"

    def ask(self, definitions: Sequence[str]) -> Answer:
        """Return what libvirt says; `Unknown` if it did not answer to the end."""
        command = self.question(definitions)
        result = self.run(command)
        pieces = re.split(r"@@([A-Za-z0-9._-]+)@@", result.stdout)
        said = dict(zip(pieces[1::2], pieces[2::2], strict=True))
        if "end" not in said:
            lines = [line for line in result.stderr.splitlines() if line.strip()]
            raise Unknown(lines[-1].strip() if lines else "virsh broke off")
        persistent, autostart = _names(said["persistent"]), _names(said["autostart"])
        domains = {
            name: Domain(
                state=STATES.get(int(stats.get("state.state", "0")), "unknown"),
                persistent=name in persistent,
                autostart=name in autostart,
                capacity=_capacity(stats),
                definition=said.get(name, "").strip() or None,
            )
            for name, stats in _stats(said["stats"]).items()
        }
        return Answer(domains, _names(said["networks"]))


def _names(text: str) -> frozenset[str]:
    return frozenset(line.strip() for line in text.splitlines() if line.strip())


def _stats(text: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("Domain: "):
            current = found.setdefault(line.removeprefix("Domain: ").strip().strip("'"), {})
        elif match := _STAT.fullmatch(line):
            current[match[1]] = match[2]
    return found


def _capacity(stats: dict[str, str]) -> dict[str, int]:
    paths = {key.removesuffix(".path"): path for key, path in stats.items() if key.endswith(".path")}
    return {path: int(stats[f"{block}.capacity"]) for block, path in paths.items() if f"{block}.capacity" in stats}


def libvirt(host: Host) -> Libvirt:
    """Return the module for `host`."""
    module: Libvirt = Libvirt.get_module(host)
    return module
