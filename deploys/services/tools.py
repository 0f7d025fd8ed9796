"""Packages that no service needs and that every OpenBSD host has; packages(7)."""

from __future__ import annotations

from fleet.model.service import Declaration, Service, none_to_keep
from fleet.model.site import Fleet, Host


class Tools(Service):
    """`packages`, in the form that ``pkg_info -mz`` prints: ``rsync--``, ``vim--no_x11``."""

    base = True

    packages: tuple[str, ...] = ("rsync--",)

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare the packages."""
        del host, fleet
        return Declaration(packages=self.packages, state=none_to_keep("packages are installed again"))
