"""`fleet run SITE ROLE`: the same pyinfra as by hand, with the checks that it lacks before and after (reference 6)."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from fleet.connector import REPORT_VARIABLE, Presence
from fleet.load import ROOT, inventory_path, load


def command(site: str, role: str, arguments: Sequence[str] = ()) -> list[str]:
    """Return the plain pyinfra command of a run, to be typed by hand on the day this verb is broken."""
    program = Path(sys.executable).with_name("pyinfra")
    path = inventory_path(site)
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return [str(program), *arguments, str(shown), f"deploys/{role}.py"]


def run_pyinfra(site: str, role: str, arguments: Sequence[str] = (), quiet: bool = False) -> tuple[int, dict[str, Any]]:
    """Run one role on one site and judge it by our own report, not by pyinfra's exit code.

    Arguments: `arguments` for pyinfra, such as ``-y`` or ``--limit kvm1``; `quiet` drops its output.
    Returns the exit code, 0 only if a host was concerned and none failed, and the report (`fleet.connector`).
    Raises SystemExit for a site or a role that does not exist.
    """
    load(site)
    deploy = ROOT / "deploys" / f"{role}.py"
    if not deploy.is_file():
        known = ", ".join(roles())
        raise SystemExit(f"no role {role!r}: there are {known}")
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        path = Path(folder) / "report.json"
        process = subprocess.run(
            command(site, role, arguments),
            cwd=ROOT,
            env={**os.environ, REPORT_VARIABLE: str(path)},
            stdout=subprocess.DEVNULL if quiet else None,
            stderr=subprocess.DEVNULL if quiet else None,
            check=False,
        )
        report = json.loads(path.read_text()) if path.exists() else {"hosts": {}}
    return judge(process.returncode, report, quiet), report


def judge(returncode: int, report: dict[str, Any], quiet: bool = False) -> int:
    """Return the exit code that a run deserves: pyinfra's 0 is not believed without a host that was looked at."""
    hosts: dict[str, Any] = report["hosts"]
    problem = ""
    if not hosts:
        problem = "no host was concerned: is the limit empty, or does no host of this site have the role?"
    elif any(facts["failed"] or facts["presence"] == Presence.FAILED for facts in hosts.values()):
        problem = "failed: " + ", ".join(
            name for name, facts in hosts.items() if facts["failed"] or facts["presence"] == Presence.FAILED
        )
    if problem and not quiet:
        click.secho(problem, fg="red", err=True)
    return returncode or (1 if problem else 0)


def roles() -> list[str]:
    """Return the entry files in deploys/, by name: those that call a role by ``converge``."""
    folder = ROOT / "deploys"
    return sorted(file.stem for file in folder.glob("*.py") if "\nconverge(" in file.read_text())


@click.command()
@click.argument("site")
@click.argument("role")
@click.option("--limit", multiple=True, metavar="HOST", help="Only these hosts (repeatable).")
@click.option("--create", metavar="GUEST[,GUEST]", help="Make these guests here although their place is unknown.")
@click.option("--restart", metavar="GUEST[,GUEST]", help="Shut down and start these guests for a pending change.")
@click.option("--dry", is_flag=True, help="Show what would change, with differences; touch nothing.")
@click.option("--show", is_flag=True, help="Print the plain command instead of running it.")
def run(
    site: str,
    role: str,
    limit: tuple[str, ...],
    create: str | None,
    restart: str | None,
    dry: bool,
    show: bool,
) -> None:
    """Deploy ROLE (a file in deploys/) on SITE (a file in inventories/)."""
    role = role.removesuffix(".py").replace("-", "_")
    arguments = ["--dry", "--diff"] if dry else ["-y"]
    for host in limit:
        arguments += ["--limit", host]
    for key, value in (("create", create), ("restart", restart)):
        if value:
            arguments += ["--data", f"{key}={value}"]
    if show:
        click.echo(shlex.join(command(site, role, arguments)))
        return
    _known_limit(site, limit)
    start = time.monotonic()
    code, _ = run_pyinfra(site, role, arguments)
    click.echo(f"fleet run {site} {role}: {time.monotonic() - start:.0f} s" + ("\a" if sys.stdout.isatty() else ""))
    sys.exit(code)


def _known_limit(site: str, limit: tuple[str, ...]) -> None:
    _, sites = load(site)
    known = {host.name for each in sites for host in each.hosts}
    for name in limit:
        if name not in known:
            raise SystemExit(f"{site}: no host {name!r}: there are {', '.join(sorted(known))}")
