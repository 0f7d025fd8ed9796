"""doas(1), how people and the deployment become root on OpenBSD; doas.conf(5)."""

from __future__ import annotations

from collections.abc import Iterable

from deploys.templates import template
from fleet.model.service import Declaration, FileSet, Service, none_to_keep
from fleet.model.site import Fleet, Host

CONF = "/etc/doas.conf"


class Doas(Service):
    """People in wheel give their password, which holds for a while; the deployment has none to give."""

    base = True

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare nothing but the file: doas is in the base system."""
        del host, fleet
        return Declaration(state=none_to_keep("the rules are made from the inventory"))

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield doas.conf, with confirm-or-rollback: no run could mend one that shuts the deployment out."""
        deployment = fleet.site_of(host).deployment
        yield FileSet(
            name="doas",
            files=(
                template(CONF, group="wheel", mode=0o600, deployment=None if deployment is None else deployment.user),
            ),
            check=f"doas -C {{new}}{CONF}",
            dangerous=True,
        )
