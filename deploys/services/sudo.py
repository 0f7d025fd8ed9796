"""sudo(8), how the deployment becomes root on Ubuntu; sudoers(5). People are in the group that Ubuntu lets in."""

from __future__ import annotations

from collections.abc import Iterable

from deploys.templates import template
from fleet.model.service import Declaration, FileSet, Service, none_to_keep
from fleet.model.site import Fleet, Host

CONF = "/etc/sudoers.d/homefleet"


class Sudo(Service):
    """The deployment's rule, alone in the folder beside sudoers, which itself stays the system's."""

    base = True

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare the package."""
        del host, fleet
        return Declaration(packages=("sudo",), state=none_to_keep("the rule is made from the inventory"))

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield the rule, with confirm-or-rollback: no run could mend one that shuts the deployment out."""
        deployment = fleet.site_of(host).deployment
        yield FileSet(
            name="sudo",
            files=(template(CONF, mode=0o440, deployment=None if deployment is None else deployment.user),),
            exclusive=("/etc/sudoers.d/*",),
            check=f"visudo -q -c -f {{new}}{CONF}",
            dangerous=True,
        )
