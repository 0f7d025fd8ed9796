"""`fleet console GUEST`: the serial console of a guest, over SSH to the hypervisor that it lives on."""

from __future__ import annotations

import os
import shlex
import subprocess

import click

from fleet.load import load, resolve, ssh_options
from fleet.model.site import Fleet, Host, Site


def ssh(site: Site, host: Host, *options: str) -> list[str]:
    """Return the ssh(1) command that reaches `host` of `site` as the inventory says, without a remote command."""
    connection = host.connection
    argv = [
        "ssh",
        "-p",
        str(connection.port),
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "ConnectTimeout=10",
        *options,
    ]
    if connection.key is not None:
        argv += ["-i", str(resolve(connection.key)), "-o", "IdentitiesOnly=yes"]
    argv += [word for name, value in ssh_options(site, host).items() for word in ("-o", f"{name}={value}")]
    return [*argv, f"{connection.user}@{connection.address}"]


def as_root(host: Host, command: str) -> str:
    """Return what a login to `host` types to have root's shell run `command`."""
    escalate = host.connection.escalate
    return command if escalate is None else f"{escalate} -n sh -c {shlex.quote(command)}"


def ask(site: Site, host: Host, command: str) -> subprocess.CompletedProcess[str]:
    """Have root's shell on `host` of `site` run `command`, and return what it said: 255 is ssh(1)'s own failure.

    Nothing is asked on the terminal. A host that falls silent is given up after half a minute.
    """
    silent = ("-o", "BatchMode=yes", "-o", "ServerAliveInterval=10")
    return subprocess.run(
        [*ssh(site, host, *silent), as_root(host, command)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def attach(port: int) -> str:
    """Return the command on a hypervisor that attaches the terminal to the console at `port`; Ctrl-] ends it."""
    return f"socat -,rawer,escape=0x1d TCP:127.0.0.1:{port}"


def whereabouts(fleet: Fleet, guest: Host) -> list[Host]:
    """Return the hypervisors that have `guest` running, asked one after the other; unreachable ones are left out."""
    found = []
    site = fleet.site_of(guest)
    for host in (other for other in site.hosts if fleet.volume_groups(other)):
        asked = ask(site, host, f"virsh domstate {shlex.quote(guest.name)}")
        if asked.returncode == 0 and asked.stdout.strip() == "running":
            found.append(host)
    return found


@click.command()
@click.argument("guest")
@click.option("--site", default="home", show_default=True)
@click.option("--show", is_flag=True, help="Print the plain command instead of running it.")
def console(guest: str, site: str, show: bool) -> None:
    """Attach to the serial console of GUEST, where an encrypted guest asks for its passphrase. Ctrl-] ends it."""
    fleet, sites = load(site)
    names = {host.name: host for each in sites for host in each.hosts if host.guest is not None}
    if guest not in names:
        raise SystemExit(f"{site}: no guest {guest!r}: there are {', '.join(sorted(names))}")
    there = whereabouts(fleet, names[guest])
    if not there:
        raise SystemExit(f"{guest}: runs on no hypervisor that answers")
    settings = names[guest].guest
    assert settings is not None
    argv = [*ssh(fleet.site_of(there[0]), there[0], "-t"), attach(settings.console)]
    if show:
        click.echo(shlex.join(argv))
        return
    click.echo(f"{guest} on {there[0].name}; Ctrl-] ends it", err=True)
    os.execvp(argv[0], argv)  # noqa: S606 - the terminal is handed over
