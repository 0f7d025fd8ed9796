"""`fleet migration`: the path over which one twin moves a guest to the other, opened for one move."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from typing import Any

import click

from fleet.cli.run import command, run_pyinfra
from fleet.connector import Presence

DEPLOY = "migration_path"

_Verb = Callable[..., None]


def arguments(source: str, peer: str, **data: str | int | bool) -> list[str]:
    """Return what the entry file deploys/migration_path.py is told, as arguments of pyinfra."""
    words = ["-y", "--limit", source, "--limit", peer]
    for key, value in {"source": source, "peer": peer, **data}.items():
        words += ["--data", f"{key}={str(value).lower() if isinstance(value, bool) else value}"]
    return words


@click.group()
def migration() -> None:
    """Open, close or look at the way over which a guest moves from SOURCE to PEER."""


def _common(verb: _Verb) -> _Verb:
    for decorate in (
        click.option("--show", is_flag=True, help="Print the plain command instead of running it."),
        click.option("--site", default="home", show_default=True, help="An inventory in inventories/."),
        click.argument("peer"),
        click.argument("source"),
    ):
        verb = decorate(verb)
    return verb


@migration.command(name="open")
@_common
@click.option("--minutes", type=click.IntRange(1, 24 * 60), default=30, show_default=True)
def open_path(source: str, peer: str, site: str, show: bool, minutes: int) -> None:
    """Let SOURCE move a guest to PEER for some minutes; PEER closes by itself. Again: for longer."""
    _run(site, show, arguments(source, peer, minutes=minutes))


@migration.command(name="close")
@_common
@click.option("--force", is_flag=True, help="Also if a guest is arriving: its move is given up, it stays where it was.")
def close_path(source: str, peer: str, site: str, show: bool, force: bool) -> None:
    """Close the way at once."""
    data = {"close": True, **({"force": True} if force else {})}
    _run(site, show, arguments(source, peer, **data))


@migration.command()
@_common
def status(source: str, peer: str, site: str, show: bool) -> None:
    """Say what of a path is on either host."""
    words = arguments(source, peer, status=True)
    if show:
        click.echo(shlex.join(command(site, DEPLOY, words)))
        return
    code, report = run_pyinfra(site, DEPLOY, words, quiet=True)
    for line in lines(report):
        click.echo(line)
    sys.exit(code)


def lines(report: dict[str, Any]) -> list[str]:
    """Return one line for each note of each host in a run's report."""
    said: list[str] = []
    for name, facts in report["hosts"].items():
        if facts["presence"] == Presence.AWAY:
            said.append(f"{name}: away")
        elif facts["presence"] == Presence.FAILED:
            said.append(f"{name}: {facts['reason']}")
        said += [f"{name}: {note}" for note in facts["notes"]]
        said += [f"{name}: {what}: {why}" for what, why in facts["failed"].items()]
    return said or ["nobody could be asked"]


def _run(site: str, show: bool, words: list[str]) -> None:
    if show:
        click.echo(shlex.join(command(site, DEPLOY, words)))
        return
    code, _ = run_pyinfra(site, DEPLOY, words)
    sys.exit(code)
