"""The secrets of one run: opened before the first connection, each host's own and nobody else's (DESIGN I2)."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType

from pydantic import SecretStr

from fleet.model.secret import SSH_HOST_KEY, Secret, SecretPlace
from fleet.model.site import Fleet, Host, Site
from fleet.secrets import age, generate
from fleet.secrets.store import Document, Owned, SecretsError, Store, replace, shown

Wanted = Callable[[Host], Iterable[Secret]]
"""Tells which secrets a host wants."""


@dataclass(frozen=True)
class Vault:
    """What each host of the run is sent, by the host's name and then by `Secret.slot`."""

    _values: Mapping[str, Mapping[str, SecretStr]] = field(repr=False)

    def values(self, host: str) -> Mapping[str, SecretStr]:
        """Return the wanted values that are `host`'s own or of a pair that it is in, by `Secret.slot`.

        Raises KeyError for a host that the vault was not opened for.
        """
        return self._values[host]

    def everything(self) -> Iterator[SecretStr]:
        """Yield every value of every host of the run: none of them is ever shown."""
        for values in self._values.values():
            yield from values.values()


def open_for(
    fleet: Fleet,
    sites: Sequence[Site],
    hosts: Sequence[Host],
    wanted: Wanted,
    *,
    place: Callable[[Site], SecretPlace],
    today: date,
) -> Vault:
    """Return the secrets that `hosts` want; nothing else is decrypted.

    Arguments: `sites`, those that the run is of: only their private keys are used; `place`, where a site's secrets
    are. In a lab, what is missing is made: keys, files and values, changed on `today`; never in production.

    Raises SystemExit, with one line that names the file, if one is missing, cannot be decrypted, is of the wrong
    kind, or lacks a wanted value.
    """
    store = Store(fleet, place)
    try:
        return Vault(MappingProxyType({host.name: _values(store, sites, host, wanted(host), today) for host in hosts}))
    except SecretsError as error:
        raise SystemExit(str(error)) from None


def _values(
    store: Store, sites: Sequence[Site], host: Host, wanted: Iterable[Secret], today: date
) -> Mapping[str, SecretStr]:
    found: dict[str, SecretStr] = {}
    for owned, secrets in by_file(store, host, wanted):
        if store.place(owned.sites[0]).kind == "lab":
            _complete(store, owned, secrets, today)
        document = store.read(owned, sites)
        for problem in lacking(document, secrets):
            raise SecretsError(f"{shown(owned.path)}: {problem}; {_remedy(owned, document, secrets)}")
        found |= {secret.slot: document.values[secret.name].value for secret in secrets}
    return MappingProxyType(found)


def _remedy(owned: Owned, document: Document, secrets: Iterable[Secret]) -> str:
    edit = f"fleet secrets edit {owned.of} puts it right"
    if SSH_HOST_KEY not in secrets or SSH_HOST_KEY.name in document.values:
        return edit
    return f"fleet secrets hostkey adopt {owned.of} takes the key that it has, hostkey make a new one; {edit} otherwise"


def by_file(store: Store, host: Host, wanted: Iterable[Secret]) -> Iterator[tuple[Owned, list[Secret]]]:
    """Yield each file that `host` needs with the secrets that it takes from it.

    Raises SecretsError for a secret of a pair that the host is not in.
    """
    files: dict[str, tuple[Owned, list[Secret]]] = {}
    for secret in wanted:
        if secret.pair is not None and host.name not in secret.pair:
            raise SecretsError(f"{host.name}: wants {secret.slot}, which is of two other hosts")
        owned = store.of_host(host) if secret.pair is None else store.of_pair(secret.pair)
        files.setdefault(owned.of, (owned, []))[1].append(secret)
    yield from files.values()


def lacking(document: Document, secrets: Iterable[Secret]) -> list[str]:
    """Return a line for the `secrets` that a document has not, and one for each that has not its shape."""
    wanted = list(secrets)
    missing = sorted(secret.name for secret in wanted if secret.name not in document.values)
    lines = [f"lacks {', '.join(missing)}"] if missing else []
    return lines + [
        f"{secret.name} is not {secret.shape.words}"
        for secret in wanted
        if secret.name in document.values
        and not secret.shape.fits(document.values[secret.name].value.get_secret_value())
    ]


def _complete(store: Store, owned: Owned, secrets: Iterable[Secret], today: date) -> None:
    """Make what a lab has not yet; SecretsError, before a value is made, if what is there is not a lab's."""
    with _alone(store, owned):
        for site in owned.sites:
            _found(store, site)
        there = owned.path.exists()
        document = store.read(owned, owned.sites) if there else Document(kind="lab", of=owned.of)
        kept = {name: entry.value for name, entry in document.values.items()}
        new = {
            secret.name: (_of_others(store, owned, secret) if secret.common else None) or generate.value(secret.shape)
            for secret in secrets
            if secret.name not in kept or not secret.shape.fits(kept[secret.name].get_secret_value())
        }
        if new:
            store.write(owned, document.with_values(kept | new, today))


def _of_others(store: Store, owned: Owned, secret: Secret) -> SecretStr | None:
    """Return the value that another host of the site has already."""
    (site,) = owned.sites
    for other in store.of_site(site):
        if other.host is not None and other.path != owned.path:
            entry = store.read(other, [site]).values.get(secret.name)
            if entry is not None and secret.shape.fits(entry.value.get_secret_value()):
                return entry.value
    return None


def _found(store: Store, site: Site) -> None:
    """Make the key of a lab's site, and its one reader."""
    path = store.identity_file(site)
    if not path.exists():
        replace(path, f"{age.new_identity().get_secret_value()}\n".encode())
    readers = store.readers_file(site)
    if not readers.exists():
        mine = "".join(f"{age.recipient_of(one)} # the lab\n" for one in store.identities(site))
        replace(readers, mine.encode(), 0o644)


@contextmanager
def _alone(store: Store, owned: Owned) -> Iterator[None]:
    """Keep two runs of one lab from making the same secret twice."""
    folder = store.folder(owned.sites[0])
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
