"""What play.yml needs: variables and files of each host, from the declarations and files of our own deploy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from fleet.model.secret import fill
from fleet.model.service import Account, Daemon, File, FileSet, Job
from fleet.model.site import Fleet, Host
from fleet.secrets.vault import Vault
from operations.openbsd.accounts import NO_PASSWORD, class_text

Vars = dict[str, Any]

PLAY = Path(__file__).with_name("play.yml")

SUBSTITUTED = (
    "`community.general.openbsd_pkg` asks `pkg_info -Iq inst:NAME`, which the stand-ins do not model. In its place is "
    "one `pkg_info -mz` for all packages, and `pkg_add` for what is missing (`ansible.builtin.command`).",
    "`community.general.doas` switches pipelining off. In its place `ansible.builtin.sudo` calls `doas -n`.",
)
"""Plugins that could not be used as they are, and what is in their place."""

COPIES = (
    "`ansible.builtin.copy` takes five commands for each file, also for one that it leaves alone: where the home is, a "
    "temporary directory, stat, file, and the directory's removal."
)
"""Why the play takes so many commands."""

LACKING = (
    "whether the files of a set came together, and what an interrupted run left of one;",
    "files that left a set, and our jobs in crontabs of users for whom none is declared any more;",
    "daemons whose program or libraries were replaced since their start; rcctl's flags, user, rtable and timeout;",
    "whether `login.conf.db` is as new as what it is made of;",
    "owner and mode of `~/.ssh`, of `authorized_keys` and of `sysctl.conf`;",
    "and of a change: checks by the daemons' own parsers, rollback, confirm-or-rollback of doas, sshd and pf.",
)
"""What our run looks at, or would do, and the play does not."""


def write(folder: Path, fleet: Fleet, hosts: Sequence[Host], vault: Vault) -> None:
    """Write the play, the variables of each host and its files as they shall be, secrets included.

    Args:
        folder: where; private to its owner.
        fleet: all sites.
        hosts: those that the play is for.
        vault: their secrets.

    Raises:
        ValueError: a host declares what the play cannot do.
    """
    shutil.copy(PLAY, folder)
    (folder / "host_vars").mkdir()
    handlers = {handler["name"] for handler in yaml.safe_load(PLAY.read_text())[0]["handlers"]}
    for host in hosts:
        variables = _variables(fleet, host, vault)
        for name in sorted({name for file in variables["files"] for name in file["follow"]} - handlers):
            raise ValueError(f"{host.name}: the play has no handler {name}")
        (folder / "host_vars" / f"{host.name}.yml").write_text(yaml.safe_dump(variables))
        for _, file in _files(fleet, host):
            path = folder / "files" / host.name / file.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(fill(file.text, vault.values(host.name)))


def _variables(fleet: Fleet, host: Host, vault: Vault) -> Vars:
    said = [what for _, what in fleet.declarations(host)]
    if any(what.groups for what in said):
        raise ValueError(f"{host.name}: the play makes no groups")
    accounts = fleet.accounts(host)
    values = vault.values(host.name)
    return {
        "packages": list(fleet.packages(host)),
        "classes": [{"name": it.name, "text": class_text(it)} for what in said for it in what.classes],
        "users": [_user(it) for it in accounts],
        # Apart from the users: Ansible prints what a loop goes through.
        "passwords": {it.name: fill(it.password, values) if it.password else NO_PASSWORD for it in accounts},
        "keys": [
            {"user": it.name, "lines": "\n".join(it.authorized_keys)}
            for it in accounts
            if it.authorized_keys is not None
        ],
        "files": [_file(made, file) for made, file in _files(fleet, host)],
        "applies": {made.name: made.apply for made, _ in _files(fleet, host) if made.apply},
        "daemons": [_daemon(it) for it in fleet.daemons(host)],
        "sysctls": [{"name": name, "value": value} for what in said for name, value in what.sysctls],
        "jobs": [_job(it) for what in said for it in what.jobs],
    }


def _files(fleet: Fleet, host: Host) -> Iterator[tuple[FileSet, File]]:
    for service in host.services:
        for made in service.renders(host, fleet):
            yield from ((made, file) for file in made.files)


def _file(made: FileSet, file: File) -> Vars:
    return {
        "dest": file.path,
        "owner": file.owner,
        "group": file.group,
        "mode": f"{file.mode:04o}",
        "follow": [made.name.capitalize()] if made.apply else [],
    }


def _user(it: Account) -> Vars:
    if it.removed:
        raise ValueError(f"account {it.name}: the play locks no accounts")
    given = {"uid": it.uid, "home": it.home}
    return {
        "name": it.name,
        "comment": it.comment,
        "shell": it.shell,
        "groups": list(it.groups),
        "login_class": it.login_class,
        **{key: value for key, value in given.items() if value is not None},
    }


def _daemon(it: Daemon) -> Vars:
    if (it.flags, it.user, it.rtable, it.timeout) != (None, None, None, None):
        raise ValueError(f"daemon {it.name}: ansible.builtin.service sets no flags, user, rtable or timeout")
    return {"name": it.name, "enabled": it.enabled, "state": "started" if it.enabled else "stopped"}


def _job(it: Job) -> Vars:
    fields = it.schedule.split()
    if len(fields) != 5:
        raise ValueError(f"job {it.command!r}: the play wants five fields")
    job = " ".join([*(f"-{flag}" for flag in it.flags), it.command])
    when = dict(zip(("minute", "hour", "day", "month", "weekday"), fields, strict=True))
    return {"user": it.user, "job": job, **when}
