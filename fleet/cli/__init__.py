"""The `fleet` command: thin verbs on top of everything else."""

from __future__ import annotations

from importlib import import_module

import click

VERBS = {
    "check": "fleet.cli.check:check",
    "console": "fleet.cli.console:console",
    "lab": "fleet.cli.lab:lab",
    "logs": "fleet.cli.logs:logs",
    "migration": "fleet.cli.migration:migration",
    "pki": "fleet.cli.pki:pki",
    "render": "fleet.cli.render:render",
    "run": "fleet.cli.run:run",
    "secrets": "fleet.cli.secrets:secrets",
    "status": "fleet.cli.status:status",
    "verify": "fleet.cli.verify:verify",
}
"""Verbs by name; each is imported when it is used, since pyinfra takes a third of a second."""


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in VERBS:
            return None
        module, _, attribute = VERBS[cmd_name].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="homefleet")
def main() -> None:
    """Run, look at and verify the fleet; every verb is a few plain commands that --show prints."""
