"""`fleet verify SITE`: tests/verify over a site; the plain command is ``pytest tests/verify --site SITE``."""

from __future__ import annotations

import shlex
import subprocess
import sys

import click

from fleet.load import ROOT, load


@click.command()
@click.argument("site", default="home")
@click.option("--limit", multiple=True, metavar="HOST", help="Only these hosts (repeatable).")
@click.option("--show", is_flag=True, help="Print the plain command instead of running it.")
def verify(site: str, limit: tuple[str, ...], show: bool) -> None:
    """Check that what runs is what the inventory declares; read-only."""
    load(site)
    argv = [sys.executable, "-m", "pytest", "-q", "tests/verify", "--site", site]
    for host in limit:
        argv += ["--limit", host]
    if show:
        click.echo(shlex.join(argv))
        return
    sys.exit(subprocess.run(argv, cwd=ROOT, check=False).returncode)
