"""`fleet status SITE`: where each guest lives, how it is, and in the lab the heartbeat that proves it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import click
from rich.console import Console
from rich.table import Table

from fleet.cli.console import as_root, ssh
from fleet.load import load
from fleet.model.site import Fleet, Host, KernelBoot, Site

HEARTBEAT_AT = 4096
"""Where a lab guest writes its heartbeat on its first disk, in bytes."""

BEAT_SECONDS = 180
"""How long to listen on a console for a heartbeat: they come every 5 seconds, but a guest may still be booting."""


@dataclass
class Answer:
    """What one hypervisor says of the guests: state, and the last heartbeat on console and volume, by name."""

    reached: bool = False
    states: dict[str, str] = field(default_factory=dict)
    consoles: dict[str, str] = field(default_factory=dict)
    volumes: dict[str, str] = field(default_factory=dict)


def question(guests: Iterable[Host]) -> str:
    """Return the one sh command that asks a hypervisor for every guest; guests are asked at the same time."""
    parts = []
    for guest in guests:
        settings = guest.guest
        assert settings is not None
        name = shlex.quote(guest.name)
        state = f'state=$(virsh domstate {name} 2>/dev/null | head -n 1); echo "state {guest.name} ${{state:-none}}"'
        if isinstance(settings.boot, KernelBoot):
            device = shlex.quote(guest.volumes()[0].path)
            state += (
                '; [ "$state" != running ] || { '
                f"timeout {BEAT_SECONDS} socat -u TCP:127.0.0.1:{settings.console} - | grep -a -m 1 '^heartbeat .*vda='"
                f" | sed 's/^/console {guest.name} /'; "
                f"dd if={device} bs=512 skip={HEARTBEAT_AT // 512} count=1 iflag=direct 2>/dev/null"
                f" | tr -d '\\000' | grep -a -m 1 heartbeat | sed 's/^/volume {guest.name} /'; }}"
            )
        parts.append(f"( {state} ) &")
    return "\n".join([*parts, "wait"])


def ask(site: Site, hypervisor: Host, guests: list[Host]) -> Answer:
    """Ask one hypervisor of `site` over ssh(1); one that cannot be reached gives an empty answer."""
    done = subprocess.run(
        [*ssh(site, hypervisor, "-o", "BatchMode=yes"), as_root(hypervisor, question(guests))],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    answer = Answer(reached=done.returncode != 255)
    for line in done.stdout.splitlines():
        word, _, rest = line.strip().partition(" ")
        name, _, value = rest.partition(" ")
        kept = {"state": answer.states, "console": answer.consoles, "volume": answer.volumes}.get(word)
        if kept is not None:
            kept[name] = value
    return answer


def survey(fleet: Fleet, guests: list[Host]) -> dict[str, Answer]:
    """Ask every hypervisor of the guests' sites at the same time."""
    sites = {fleet.site_of(guest).name for guest in guests}
    hypervisors = [host for host in fleet.hosts() if fleet.site_of(host).name in sites and fleet.volume_groups(host)]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda host: ask(fleet.site_of(host), host, guests), hypervisors))
    return {host.name: answer for host, answer in zip(hypervisors, answers, strict=True)}


def counter(heartbeat: str) -> int | None:
    """Return the count in a line ``heartbeat NAME COUNT vda=BYTES ...``, or None if it is none."""
    words = heartbeat.split()
    return int(words[2]) if len(words) > 2 and words[0] == "heartbeat" and words[2].isdigit() else None


def row(guest: Host, answers: dict[str, Answer]) -> tuple[list[str], bool]:
    """Return a guest's row of the table, and True if it is really running somewhere.

    In the lab it counts as running only if its heartbeat came from its console and from its volume.
    """
    settings = guest.guest
    assert settings is not None
    for name, answer in answers.items():
        if answer.states.get(guest.name) != "running":
            continue
        if not isinstance(settings.boot, KernelBoot):
            return [guest.name, name, "running", "", ""], True
        console = counter(answer.consoles.get(guest.name, ""))
        volume = counter(answer.volumes.get(guest.name, ""))
        alive = console is not None and volume is not None
        shown = [str(count) if count is not None else "none" for count in (console, volume)]
        return [guest.name, name, "running" if alive else "no heartbeat", *shown], alive
    states = {
        answer.states[guest.name] for answer in answers.values() if answer.states.get(guest.name, "none") != "none"
    }
    return [guest.name, "-", ", ".join(sorted(states)) or "nowhere that was asked", "", ""], False


@click.command()
@click.argument("site", default="home")
def status(site: str) -> None:
    """Show where each guest of SITE lives and whether it really runs; exits with 1 if one does not."""
    fleet, sites = load(site)
    guests = [host for each in sites for host in each.hosts if host.guest is not None]
    if not guests:
        click.echo(f"{site}: no guests")
        return
    answers = survey(fleet, guests)
    table = Table("guest", "lives on", "state", "heartbeat on console", "on volume")
    fine = True
    for guest in guests:
        cells, alive = row(guest, answers)
        table.add_row(*cells, style=None if alive else "red")
        fine = fine and alive
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    for name, answer in answers.items():
        if not answer.reached:
            click.echo(f"{name}: not reached")
    sys.exit(0 if fine else 1)
