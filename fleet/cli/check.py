"""`fleet check`: is the inventory sound, and what would not fit."""

from __future__ import annotations

import click

from fleet.load import load
from fleet.model.site import check_fleet


@click.command()
@click.argument("site", default="home")
def check(site: str) -> None:
    """Check all inventories, seen from SITE, and say which guests would not fit on one twin alone."""
    fleet, sites = load(site)
    for remark in check_fleet(fleet):
        click.echo(remark)
    for each in sites:
        hosts = ", ".join(host.name for host in each.hosts)
        click.echo(f"{each.name}: {len(each.hosts)} hosts: {hosts}")
