"""`fleet logs HOST`: what a host logged, from the log server, where nobody on that host can change it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta

import click

from deploys.services.logserver import FACILITIES, FOLDER, log_server
from facts import logs as facts
from fleet.cli.console import as_root, ssh
from fleet.load import load

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, now: datetime) -> datetime:
    """Return the moment that `text` says: ``2h`` before `now` (s, m, h, d, w), or a time of ISO 8601.

    A time without a zone is one of this computer's. Raises ValueError for another text.
    """
    ago = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if ago is not None:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time: 2h, 3d, 2026-11-23T10:00, 2026-11-23T10:00Z") from None


def _moment(context: click.Context, option: click.Parameter, text: str | None) -> datetime | None:
    del context, option
    try:
        return None if text is None else moment(text, datetime.now(UTC))
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("host")
@click.option(
    "--since",
    metavar="TIME",
    callback=_moment,
    help="2h, 3d, or 2026-11-23T10:00 (local time; Z for UTC). By default 24h.",
)
@click.option("--until", metavar="TIME", callback=_moment, help="In the same way.")
@click.option("--facility", multiple=True, type=click.Choice(FACILITIES), help="Only this one (repeatable).")
@click.option("--grep", "text", metavar="TEXT", help="Only lines with TEXT in them, as it stands.")
@click.option("--follow", is_flag=True, help="What comes from now on, until Ctrl-C.")
@click.option("--site", default="home", show_default=True, help="An inventory in inventories/.")
@click.option("--show", is_flag=True, help="Print the plain command instead of running it.")
def logs(
    host: str,
    since: datetime | None,
    until: datetime | None,
    facility: tuple[str, ...],
    text: str | None,
    follow: bool,
    site: str,
    show: bool,
) -> None:
    """Show what HOST logged, oldest first, in UTC: a host of the fleet, or one that was."""
    fleet, _ = load(site)
    server = log_server(fleet)
    if server is None:
        raise SystemExit(f"{site}: no host of this fleet is a log server")
    if not facts.NAME.fullmatch(host):
        raise SystemExit(f"{facts.printable(host)!r} is no name of a host")
    if text is not None and not text.isprintable():
        raise SystemExit("--grep wants one line of text")
    if follow and (since is not None or until is not None):
        raise SystemExit("--follow begins now: without --since and --until")
    now = datetime.now(UTC)
    query = facts.Query(FOLDER, host, since or now - timedelta(days=1), until, facility, text)
    command = facts.following(query) if follow else facts.reading(query, now)
    argv = [*ssh(fleet.site_of(server), server, "-o", "BatchMode=yes"), as_root(server, command)]
    if show:
        click.echo(shlex.join(argv))
        return
    _read(argv, server.name, query, follow)


def _read(argv: list[str], server: str, query: facts.Query, follow: bool) -> None:
    """Run the command and print what it says, line by line; SystemExit with one line where it cannot."""
    with tempfile.TemporaryFile() as said:
        # Standard input is held open: its end is what ends tail(1) on the server.
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
        assert process.stdout is not None
        try:
            for raw in process.stdout:
                line = raw.decode(errors="backslashreplace").rstrip("\n")
                if not follow or (not facts.is_header(line) and (query.text or "") in line):
                    click.echo(facts.printable(line))
            code = process.wait()
        except KeyboardInterrupt:
            return
        finally:
            process.kill()
            process.communicate()
        said.seek(0)
        errors = [facts.printable(line) for line in said.read().decode(errors="backslashreplace").splitlines()]
    if code == facts.UNKNOWN:
        known = ", ".join(facts.names_in(errors, query.folder)) or "none"
        raise SystemExit(f"{server} has no log of {query.host}: there are {known}")
    if code == 255:
        raise SystemExit(f"{server}: not reached: {errors[-1] if errors else 'ssh says nothing'}")
    for line in errors:
        click.echo(f"{server}: {line}", err=True)
    sys.exit(1 if errors else 0)
