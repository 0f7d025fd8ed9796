"""The convergence of an OpenBSD host: a few operations for all of its services together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import SecretStr

from deploys.parts import certificate_keys, hooks, rendered
from fleet.model.secret import fill
from fleet.model.service import Service
from fleet.model.site import Fleet, Host
from operations.filesets import filesets, settle, unsettled
from operations.keys import keys
from operations.openbsd.accounts import accounts
from operations.openbsd.daemons import daemons
from operations.openbsd.jobs import jobs
from operations.openbsd.logfiles import logfiles
from operations.openbsd.packages import packages
from operations.openbsd.sysctls import sysctls
from operations.verdict import verdict


def openbsd(fleet: Fleet, me: Host, mine: Sequence[Service], values: Mapping[str, SecretStr]) -> None:
    """Bring `mine`, services of the OpenBSD host `me`, about; `values` are the host's secrets by slot."""
    said = [service.declares(me, fleet) for service in mine]
    # Of what is one list for the whole host, a role's run keeps the other services' part.
    everything = [what for _, what in fleet.declarations(me)]
    logins = [account for what in everything for account in what.accounts]
    wished = tuple(daemon for what in said for daemon in what.daemons)
    packages(wanted=sorted({name for what in said for name in what.packages}), name="Packages")
    accounts(
        classes=[it for what in everything for it in what.classes],
        groups=[it for what in everything for it in what.groups],
        wanted=logins,
        fill=lambda text: fill(text, values),
        name="Accounts",
    )
    keys(wanted=certificate_keys(fleet, me, mine), openbsd=True, name="Keys")
    if logs := [it for what in said for it in what.logs]:
        logfiles(wanted=logs, name="Log files")
    hooks(fleet, me, mine, "prepares")
    configuration = rendered(fleet, me, mine)
    filesets(
        sets=configuration.sets,
        openbsd=True,
        values=values,
        followed=unsettled(wished),
        name="Configuration",
    )
    daemons(wanted=wished, own=configuration.own, name="Daemons")
    settle(daemons=wished, openbsd=True, name="Settled sets")
    sysctls(wanted=[pair for what in everything for pair in what.sysctls], name="Sysctls")
    jobs(
        wanted=[job for what in everything for job in what.jobs],
        users=sorted({"root", *(account.name for account in logins)}),
        name="Jobs",
    )
    hooks(fleet, me, mine, "converges")
    verdict(name="Verdict")
