"""Who can read what, who has seen what, and whether everything wanted is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydantic import SecretStr

from fleet.model.secret import SSH_HOST_KEY, Secret
from fleet.model.site import Host, Site
from fleet.secrets import age, hostkeys
from fleet.secrets.store import Document, Owned, SecretsError, Store, shown
from fleet.secrets.vault import Wanted, by_file, lacking


@dataclass(frozen=True)
class Seen:
    """A value that somebody knows who is no reader any more: it has to be changed where it came from."""

    reader: str
    of: str
    name: str
    changed: date

    def __str__(self) -> str:
        return f"{self.of}: {self.name}, of {self.changed}, was seen by {self.reader}, no reader any more: change it"


@dataclass(frozen=True)
class Rekeyed:
    """What a rekeying did: the files that were written, and what has to be changed now, by reader, host and name."""

    written: tuple[Path, ...]
    seen: tuple[Seen, ...]


def seen(document: Document, readers: Iterable[str]) -> list[Seen]:
    """Return what of a document others than `readers` know."""
    now = set(readers)
    return [
        Seen(reader, document.of, name, entry.changed)
        for name, entry in sorted(document.values.items())
        for reader in entry.seen_by
        if reader not in now
    ]


def rekey(store: Store, site: Site) -> Rekeyed:
    """Encrypt every file of `site` for the readers that readers.txt names now.

    What a removed reader knows is listed each time until its value is changed. Raises SecretsError, before any file
    is written, if one cannot be read or would be locked away from its owner.
    """
    files = [
        (owned, store.read(owned, [site]), owned.path.read_bytes(), store.readers_for(owned))
        for owned in store.of_site(site)
    ]
    written: list[Path] = []
    known: list[Seen] = []
    for owned, document, sealed, readers in files:
        if not _is_for(document, sealed, readers):
            store.write(owned, document)
            written.append(owned.path)
        known += seen(document, readers)
    return Rekeyed(tuple(written), tuple(sorted(known, key=lambda one: (one.reader, one.of, one.name))))


def problems(store: Store, sites: Sequence[Site], wanted: Wanted) -> list[str]:
    """Return a line for each thing that is wrong with the secrets of `sites`.

    Every file has to be readable, of the right kind and owner, for the readers of readers.txt, and free of what
    others know; what a host wants has to be there in its shape, public halves have to be those of the keys, and what
    is common to a site's hosts the same there and nowhere else.
    """
    lines = [line for site in sites for line in _of_site(store, site, wanted)]
    return list(dict.fromkeys([*lines, *_common(store, sites, wanted)]))


def _of_site(store: Store, site: Site, wanted: Wanted) -> Iterator[str]:
    needs: dict[str, list[Secret]] = {}
    files: dict[str, Owned] = {}
    for host in site.hosts:
        try:
            for owned, secrets in by_file(store, host, wanted(host)):
                files[owned.of] = owned
                needs.setdefault(owned.of, []).extend(secrets)
        except SecretsError as error:
            yield str(error)
    for path in store.paths(site):
        try:
            owned = store.owner(path)
        except SecretsError as error:
            yield str(error)
            continue
        if site.name in {each.name for each in owned.sites}:
            files[owned.of] = owned
    for of, owned in sorted(files.items()):
        try:
            document = store.read(owned, [site])
            yield from (f"{shown(owned.path)}: {line}" for line in _of_file(store, owned, document, needs.get(of, [])))
        except SecretsError as error:
            yield str(error)


def _common(store: Store, sites: Iterable[Site], wanted: Wanted) -> Iterator[str]:
    """Yield a line for each common secret that differs within a site, or that two sites share."""
    owners: dict[str, dict[SecretStr, dict[str, list[str]]]] = {}
    for site in sites:
        for host in site.hosts:
            # What cannot be read was said already.
            with suppress(SecretsError):
                common = [secret.name for secret in wanted(host) if secret.common]
                values = store.read(store.of_host(host), [site]).values if common else {}
                for name in common:
                    if name in values:
                        where = owners.setdefault(name, {}).setdefault(values[name].value, {})
                        where.setdefault(site.name, []).append(host.name)
    for name, places in sorted(owners.items()):
        for site_name in sorted({site_name for where in places.values() for site_name in where}):
            groups = [", ".join(where[site_name]) for where in places.values() if site_name in where]
            if len(groups) > 1:
                yield f"{site_name}: {name} has to be the same on all hosts, and differs: {'; '.join(groups)}"
        for where in places.values():
            if len(where) > 1:
                yield f"{name} is the same at {' and '.join(sorted(where))}: each site has to have its own"


def _of_file(store: Store, owned: Owned, document: Document, needs: Iterable[Secret]) -> Iterator[str]:
    yield from lacking(document, dict.fromkeys(needs))
    readers = store.readers_for(owned)
    if not _is_for(document, owned.path.read_bytes(), readers):
        yield f"is not for the readers of readers.txt: fleet secrets rekey {owned.sites[0].name}"
    yield from map(str, seen(document, readers))
    if SSH_HOST_KEY.name in document.values and owned.host is not None:
        yield from _public_half(store, owned.host, document)


def _public_half(store: Store, host: Host, document: Document) -> Iterator[str]:
    try:
        right = hostkeys.public_half(document.values[SSH_HOST_KEY.name].value)
    except ValueError as error:
        yield f"{SSH_HOST_KEY.name}: {error}"
        return
    if store.public_key(host) != right:
        yield f"{shown(store.public_key_file(host))} is not the public half of {SSH_HOST_KEY.name}: {right}"


def _is_for(document: Document, sealed: bytes, readers: Sequence[str]) -> bool:
    """Tell whether a file is for `readers` and says so; who wrote it by hand may have forgotten one of both."""
    return document.readers == tuple(readers) and age.readers(sealed) == len(readers)
