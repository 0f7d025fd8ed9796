"""Changes to an inventory, for tests: each returns a copy of the site, as if the owner had edited the file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from typing import Any

from pydantic import ByteSize, TypeAdapter

from fleet.model.service import FileSet, Service
from fleet.model.site import Fleet, Host, Site

__all__ = ["add_guest", "bend", "change_guest", "change_host", "end_disk", "grow", "without"]

_SIZE: TypeAdapter[ByteSize] = TypeAdapter(ByteSize)


def change_host(site: Site, name: str, **update: Any) -> Site:
    """Give fields of a host other values."""
    hosts = tuple(host.model_copy(update=update) if host.name == name else host for host in site.hosts)
    return site.model_copy(update={"hosts": hosts})


def bend(site: Site, name: str, kind: type[Service], pattern: str, words: str) -> Site:
    """Replace what matches `pattern` in the files of a host's service by `words`, as a mistake in a template would.

    AssertionError where nothing matches.
    """

    class Bent(kind):  # type: ignore[valid-type, misc]
        def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
            made = list(super().renders(host, fleet))
            assert any(re.search(pattern, file.text) for each in made for file in each.files), pattern
            for each in made:
                files = [it.model_copy(update={"text": re.sub(pattern, words, it.text)}) for it in each.files]
                yield each.model_copy(update={"files": tuple(files)})

    # A host has one service of a name.
    Bent.__name__ = kind.__name__
    services = site.host(name).services
    assert any(isinstance(it, kind) for it in services), kind
    bent = (Bent.model_construct(**dict(it)) if isinstance(it, kind) else it for it in services)
    return change_host(site, name, services=tuple(bent))


def change_guest(site: Site, name: str, **update: Any) -> Site:
    """Give fields of a guest other values; sizes as texts."""
    guest = site.host(name).guest
    assert guest is not None
    if isinstance(update.get("memory"), str):
        update["memory"] = _SIZE.validate_python(update["memory"])
    return change_host(site, name, guest=guest.model_copy(update=update))


def _change_disk(site: Site, name: str, disk: str, **update: Any) -> Site:
    guest = site.host(name).guest
    assert guest is not None
    assert any(it.name == disk for it in guest.disks)
    disks = tuple(it.model_copy(update=update) if it.name == disk else it for it in guest.disks)
    return change_guest(site, name, disks=disks)


def grow(site: Site, name: str, disk: str, size: str) -> Site:
    """Give a disk another size, larger or smaller."""
    return _change_disk(site, name, disk, size=_SIZE.validate_python(size))


def end_disk(
    site: Site, name: str, disk: str, retired: date | None, destroy: date | None = None, why: str | None = None
) -> Site:
    """Write down the end of a disk's life."""
    return _change_disk(site, name, disk, retired=retired, destroy=destroy, none_to_keep=why)


def without(site: Site, name: str) -> Site:
    """Take a host out of the inventory."""
    return site.model_copy(update={"hosts": tuple(host for host in site.hosts if host.name != name)})


def add_guest(site: Site, like: str, name: str, octet: int, console: int) -> Site:
    """Add a guest that is like another one, with a small disk, a name, an address and a console of its own."""
    model = site.host(like)
    guest = model.guest
    assert guest is not None
    text = model.model_dump(mode="json", exclude={"services"})
    text.update(name=name, roles=(), interfaces=[{"network": "flat", "addresses": [f"192.168.1.{octet}/24"]}])
    text["connection"]["address"] = f"192.168.1.{octet}"
    text["guest"].update(console=console, disks=[{"group": "guests", "name": "root", "size": "64 MiB"}])
    text["guest"].update(memory="256 MiB", vcpus=1)
    return site.model_copy(update={"hosts": (*site.hosts, Host.model_validate(text))})
