"""The measurement as a page for docs/measured."""

from __future__ import annotations

import os
import platform
import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from typing import NamedTuple

from tests.compare.covered import Covered
from tests.compare.play import COPIES, LACKING, SUBSTITUTED


class Seen(NamedTuple):
    """What a host's own sshd has logged: how many logins, commands and subsystems (sftp is one)."""

    logins: int
    commands: int
    subsystems: int


class Cost(NamedTuple):
    """Seconds that a run took, and seconds of processor that it took on the controller."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Tool:
    """One of the two.

    Arguments: `version`; `costs` of its runs, in their order; `seen` by host, of the last one.
    """

    version: str
    costs: Sequence[Cost]
    seen: Mapping[str, Seen]


def ours() -> str:
    """Return which pyinfra this is."""
    return f"pyinfra {version('pyinfra')}"


def page(pyinfra: Tool, ansible: Tool, covered: Covered, load: float) -> str:
    """Return the page.

    Args:
        pyinfra: our runs.
        ansible: those of the play, as many.
        covered: what both looked at, by host.
        load: of the computer before all this began; getloadavg(3).
    """
    parts = [
        f"# A run that changes nothing, against Ansible: measured on {date.today()}",
        _filled(
            f"""Written by `make compare`: {pyinfra.version} and {ansible.version}, Python {platform.python_version()},
            {len(pyinfra.costs)} runs each, in turn. The base of {len(pyinfra.seen)} OpenBSD hosts is in place: pyinfra
            deployed the stand-ins, Ansible manages a copy of them that has Python. Both use the same relays, key,
            account and doas. Ansible has pipelining and a fork for each host, gathers no facts, and keeps its
            connections from run to run (ControlPersist); pyinfra makes its own anew each time."""
        ),
        "\n".join(_table(pyinfra, ansible)),
        _filled(
            f"""Medians, and in brackets the least and the most; ratios are of neighbouring runs. Commands, logins and
            sessions were counted by the hosts' own sshd. Controller and hosts share {os.cpu_count()} processors, so
            that the hosts' own work slows both; the load average was {load:.0f} before all this began."""
        ),
        "## What both look at",
        _filled(
            """Read from what each of them says (`-vvv` of pyinfra, the JSON of Ansible's modules), and found equal.
            Before, damage of five kinds was done to one host of the copy, and the play found and repaired all of it.
            Every host:"""
        ),
        *_what(covered),
        "## Where they differ",
        "\n".join(_item(line) for line in (*SUBSTITUTED, COPIES, "Only our run looks at:"))
        + "".join(f"\n    - {line}" for line in LACKING),
    ]
    return "\n\n".join(parts) + "\n"


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 118, break_on_hyphens=False, break_long_words=False)


def _item(text: str) -> str:
    return textwrap.fill(text, 118, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)


def _table(pyinfra: Tool, ansible: Tool) -> Iterator[str]:
    yield "| | pyinfra | Ansible | Ansible / pyinfra |"
    yield "|---|---|---|---|"
    for title, index in (("seconds, whole run", 0), ("seconds of processor on the controller", 1)):
        mine, theirs = ([cost[index] for cost in tool.costs] for tool in (pyinfra, ansible))
        ratios = [their / my for my, their in zip(mine, theirs, strict=True)]
        yield f"| {title} | {_spread(mine)} | {_spread(theirs)} | {_spread(ratios)} |"
    for title, index in (("commands on a host", 1), ("logins on a host", 0), ("sftp sessions on a host", 2)):
        ours_there, theirs_there = (_range([seen[index] for seen in tool.seen.values()]) for tool in (pyinfra, ansible))
        yield f"| {title} | {ours_there} | {theirs_there} | |"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _range(values: Sequence[int]) -> str:
    return str(min(values)) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _what(covered: Covered) -> Iterator[str]:
    common = frozenset.intersection(*covered.values())
    yield "\n".join(f"- {line}" for line in sorted(common))
    for name, lines in sorted(covered.items()):
        if lines - common:
            yield _filled(f"{name} also: {', '.join(sorted(lines - common))}.")
