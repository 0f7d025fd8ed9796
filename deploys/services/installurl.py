"""Where sets, patches, firmware and packages of an OpenBSD host come from; installurl(5)."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import field_validator

from deploys.services.pf import Connect, Talking
from deploys.templates import template
from fleet.model.service import Declaration, FileSet, none_to_keep
from fleet.model.site import Fleet, Host

# Those that pkg_add(1), syspatch(8), sysupgrade(8) and fw_update(8) fetch as, and root for ftp(1) by hand.
_FETCHERS = ("_file", "_pkgfetch", "_syspatch", "root")


class Installurl(Talking):
    """The mirror, and the way to it: nobody else on the host has anything to fetch."""

    base = True

    url: str = "https://cdn.openbsd.org/pub/OpenBSD"

    @field_validator("url")
    @classmethod
    def _alone(cls, value: str) -> str:
        if not value.startswith(("https://", "http://")) or value != value.strip() or set(value) & set(" \t#\n"):
            raise ValueError(f"{value!r} is no URL of a mirror: pkg_add takes all that is on the line for it")
        return value

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare nothing but the file."""
        del host, fleet
        return Declaration(state=none_to_keep("one line from the inventory"))

    def connects(self, host: Host, fleet: Fleet) -> tuple[Connect, ...]:
        """Return the way to web servers: a mirror may refer to another, and firmware has a server of its own."""
        del host, fleet
        return tuple(Connect(ports=(80, 443), user=user) for user in _FETCHERS)

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield the one line; a comment beside it would count as a part of the URL."""
        del host, fleet
        yield FileSet(name="installurl", files=(template("/etc/installurl", group="wheel", url=self.url),))
