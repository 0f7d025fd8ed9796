"""The convergence of an OpenBSD host: a few operations for all of its services together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import SecretStr

from deploys.parts import hooks, own_sets, sets
from fleet.model.secret import fill
from fleet.model.service import Service
from fleet.model.site import Fleet, Host
from operations.filesets import filesets, settle, unsettled
from operations.openbsd.accounts import accounts
from operations.openbsd.daemons import daemons
from operations.openbsd.jobs import jobs
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
    hooks(fleet, me, mine, "prepares")
    filesets(
        sets=tuple(sets(fleet, me, mine)),
        openbsd=True,
        values=values,
        followed=unsettled(wished),
        name="Configuration",
    )
    daemons(wanted=wished, own=own_sets(fleet, me, mine), name="Daemons")
    settle(daemons=wished, openbsd=True, name="Settled sets")
    sysctls(wanted=[pair for what in everything for pair in what.sysctls], name="Sysctls")
    jobs(
        wanted=[job for what in everything for job in what.jobs],
        users=sorted({"root", *(account.name for account in logins)}),
        name="Jobs",
    )
    hooks(fleet, me, mine, "converges")
    verdict(name="Verdict")
