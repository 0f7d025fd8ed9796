"""Kernel variables of an OpenBSD host; sysctl.conf(5)."""

from __future__ import annotations

from fleet.model.service import Declaration, Service, none_to_keep
from fleet.model.site import Fleet, Host


class Sysctl(Service):
    """What every host has, and what `values` adds to it, pairs of name and value."""

    base = True

    values: tuple[tuple[str, str], ...] = ()

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare the variables; a machine that nobody looks at reboots after a panic instead of waiting in ddb(4)."""
        del host, fleet
        return Declaration(
            sysctls=(("ddb.panic", "0"), *self.values),
            state=none_to_keep("values are made from the inventory"),
        )
