"""What OpenBSD's daily(8) tells the owner beside its own parts."""

from __future__ import annotations

from collections.abc import Iterable

from deploys.templates import template
from fleet.model.service import Declaration, FileSet, Service, none_to_keep
from fleet.model.site import Fleet, Host

LOCAL = "/etc/daily.local"


class Daily(Service):
    """How many addresses are banned, and what an interrupted deployment left. What daily says goes to root by mail."""

    base = True

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare nothing but the file: root's crontab runs daily anyway."""
        del host, fleet
        return Declaration(state=none_to_keep("a script that is made from the inventory"))

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield daily.local, which daily reads as sh; it has to be root's alone to write."""
        tables = sorted({table.name for _, said in fleet.declarations(host) for table in said.tables})
        yield FileSet(
            name="daily",
            files=(template(LOCAL, group="wheel", tables=tables),),
            check=f"sh -n {{new}}{LOCAL}",
        )
