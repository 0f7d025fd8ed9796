"""Where the encrypted files are, what is in one, and how it is read and written.

`Store` knows the paths: ``SITE/HOST.age``, ``SITE/readers.txt``, ``SITE/known_hosts/HOST`` and
``pairs/A--B.age`` below the folder of the inventory's `SecretPlace`. The plain text of a file is JSON::

    {"version": 1, "kind": "production", "of": "virtie", "readers": ["age1..."],
     "values": {"totp-alice": {"value": "...", "changed": "2026-11-23", "seen_by": ["age1..."]}}}

`readers` are the public keys that this file is for. ``seen_by`` are those that a value was ever readable for since it
was last changed: whoever was a reader once has the repository's history.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from fleet.load import ROOT, known_hosts_file, resolve
from fleet.model.secret import SSH_HOST_KEY, SecretPlace, pair_name
from fleet.model.site import Fleet, Host, Site
from fleet.secrets import age, hostkeys

READERS = "readers.txt"
PAIRS = "pairs"


class SecretsError(Exception):
    """Secrets that cannot be used: one line that names the file and what would be right, and never a value."""


class _Strict(BaseModel):
    # pydantic puts what it could not read into its messages; here that may be a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Entry(_Strict):
    """A value, the day of its last change, and the public keys that it was readable for since then."""

    value: SecretStr
    changed: date
    seen_by: tuple[str, ...]


class Document(_Strict):
    """What is in one file: `of` is the host, or the pair as ``A--B``, whose values these are."""

    version: Literal[1] = 1
    kind: Literal["production", "lab"]
    of: str
    readers: tuple[str, ...] = ()
    values: Mapping[str, Entry] = {}

    def with_values(self, values: Mapping[str, SecretStr], today: date) -> Document:
        """Return the document with exactly `values`; one that is the same keeps its day and who has seen it."""
        kept = {
            name: self.values[name]
            if name in self.values and self.values[name].value == value
            else Entry(value=value, changed=today, seen_by=())
            for name, value in values.items()
        }
        return self.model_copy(update={"values": kept})

    def for_readers(self, readers: Iterable[str]) -> Document:
        """Return the document as it is once `readers` can read it: they have seen every value, too."""
        who = tuple(sorted(readers))
        seen = {
            name: entry.model_copy(update={"seen_by": tuple(sorted({*entry.seen_by, *who}))})
            for name, entry in self.values.items()
        }
        return self.model_copy(update={"readers": who, "values": seen})


@dataclass(frozen=True)
class Owned:
    """A file of the store: its path, the host or pair that it is of, and the sites whose readers it is for.

    `host` is None for a pair.
    """

    path: Path
    of: str
    sites: tuple[Site, ...]
    host: Host | None = None


@dataclass(frozen=True)
class Store:
    """The files of a fleet.

    Arguments: `place` tells where a site has them.
    """

    fleet: Fleet
    place: Callable[[Site], SecretPlace]

    def folder(self, site: Site) -> Path:
        """Return the folder of all sites' files, as `site` has it."""
        return resolve(self.place(site).folder)

    def of_host(self, host: Host) -> Owned:
        """Return the file of `host`."""
        site = self.fleet.site_of(host)
        return Owned(self.folder(site) / site.name / f"{host.name}.age", host.name, (site,), host)

    def of_pair(self, pair: tuple[str, str]) -> Owned:
        """Return the file that two hosts share; SecretsError if they make no pair, or the fleet does not have both."""
        known = {host.name: host for host in self.fleet.hosts()}
        try:
            name = pair_name(pair)
        except ValueError as error:
            raise SecretsError(f"no pair of hosts: {error}") from None
        for one in pair:
            if one not in known:
                raise SecretsError(f"no pair of hosts: {name}: there is no host {one!r} in any site")
        sites = {site.name: site for one in sorted(pair) for site in [self.fleet.site_of(known[one])]}
        folder = self.folder(next(iter(sites.values())))
        return Owned(folder / PAIRS / f"{name}.age", name, tuple(sites.values()))

    def paths(self, site: Site) -> list[Path]:
        """Return the encrypted files of `site` and all those of pairs, whosever they are."""
        folder = self.folder(site)
        return [*sorted((folder / site.name).glob("*.age")), *sorted((folder / PAIRS).glob("*.age"))]

    def owner(self, path: Path) -> Owned:
        """Return whose file `path` is; SecretsError if it is no host's and no pair's."""
        known = {host.name: host for host in self.fleet.hosts()}
        try:
            owned = self.of_pair(_two(path.stem)) if path.parent.name == PAIRS else self.of_host(known[path.stem])
        except KeyError:
            raise SecretsError(f"{shown(path)}: there is no host {path.stem!r}; rename or remove the file") from None
        except SecretsError as error:
            raise SecretsError(f"{shown(path)}: {error}") from None
        if owned.path != path:
            raise SecretsError(f"{shown(path)}: should be {shown(owned.path)}")
        return owned

    def of_site(self, site: Site) -> list[Owned]:
        """Return the files there are of `site`: its hosts' and those of the pairs that one of them is in.

        Raises SecretsError for a file that belongs to nobody.
        """
        found = [self.owner(path) for path in self.paths(site)]
        return [owned for owned in found if any(each.name == site.name for each in owned.sites)]

    def readers_file(self, site: Site) -> Path:
        """Return the file with the public keys that may read the secrets of `site`."""
        return self.folder(site) / site.name / READERS

    def readers(self, sites: Iterable[Site]) -> tuple[str, ...]:
        """Return the public keys that may read what belongs to all of `sites` together, sorted.

        Raises SecretsError if a site has none, or a line of its file is none.
        """
        return tuple(sorted({one for site in sites for one in parse_readers(self.readers_file(site))}))

    def identity_file(self, site: Site) -> Path:
        """Return where the owner's private key for `site` is."""
        return resolve(self.place(site).identity.replace("{site}", site.name))

    def identities(self, site: Site) -> tuple[SecretStr, ...]:
        """Return the owner's private keys for `site`.

        Raises SecretsError if the file is missing, in the repository, open to others, or has no key of age-keygen(1).
        """
        path = self.identity_file(site)
        real = path.resolve()
        if self.place(site).kind == "production" and any(
            real.is_relative_to(folder.resolve()) for folder in (ROOT, self.folder(site))
        ):
            raise SecretsError(f"{shown(path)}: a private key does not belong in the repository; move it out of it")
        try:
            if path.stat().st_mode & 0o077:
                raise SecretsError(f"{shown(path)}: others may read this private key: chmod 600 {shown(path)}")
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not a text"
            raise SecretsError(f"{shown(path)}: the age key of {site.name} cannot be read: {why}") from None
        keys = tuple(SecretStr(line.strip()) for line in lines if line.strip() and not line.startswith("#"))
        try:
            for key in keys:
                age.recipient_of(key)
        except age.AgeError:
            keys = ()
        if not keys:
            raise SecretsError(f"{shown(path)}: is no private key as age-keygen(1) makes it")
        return keys

    def public_key_file(self, host: Host) -> Path:
        """Return where the public half of the SSH host key of `host` is, in clear: a line of known_hosts."""
        site = self.fleet.site_of(host)
        return known_hosts_file(self.place(site), site.name, host.name)

    def public_key(self, host: Host) -> str | None:
        """Return the public half of the SSH host key of `host`, ``ssh-ed25519 AAAA...``, or None without one."""
        try:
            name, _, public = self.public_key_file(host).read_text().strip().partition(" ")
        except FileNotFoundError:
            return None
        return public if name == host.name else None

    def read(self, owned: Owned, with_keys_of: Iterable[Site]) -> Document:
        """Return what is in a file.

        Arguments: `with_keys_of`, the sites whose private keys may be used. Raises SecretsError, naming the file, if
        it is missing, cannot be decrypted, is of another kind than the site, or of another host or pair.
        """
        try:
            sealed = owned.path.read_bytes()
        except FileNotFoundError:
            verb = f"fleet secrets edit {owned.of}"
            raise SecretsError(f"{shown(owned.path)}: is missing; {verb} makes it") from None
        except OSError as error:
            raise SecretsError(f"{shown(owned.path)}: cannot be read: {error.strerror}") from None
        ours = {site.name for site in owned.sites}
        plain = self._decrypt(owned, sealed, [site for site in with_keys_of if site.name in ours])
        document = _parse(owned, plain)
        kind = self.place(owned.sites[0]).kind
        if document.kind != kind:
            raise SecretsError(f"{shown(owned.path)}: is a {document.kind} file among those of {kind}")
        if document.of != owned.of:
            raise SecretsError(f"{shown(owned.path)}: has the secrets of {document.of}, not of {owned.of}")
        return document

    def _decrypt(self, owned: Owned, sealed: bytes, sites: list[Site]) -> bytes:
        tried: list[str] = []
        for site in sites:
            path = shown(self.identity_file(site))
            try:
                identities = self.identities(site)
            except SecretsError as error:
                tried.append(str(error))
                continue
            mine = {age.recipient_of(one) for one in identities}
            listed = bool(mine & self._known_readers(site))
            others = [other.name for other in self.fleet.sites if mine & self._known_readers(other)]
            if others and not listed:
                tried.append(f"{path}: is a key of {', '.join(others)}, not of {site.name}")
                continue
            try:
                return age.decrypt(sealed, identities)
            except age.AgeError as error:
                tried.append(f"not with {path}, the age key of {site.name}: {error}")
            if listed:
                who = shown(self.readers_file(site))
                tried.append(f"it is in {who}: the file is damaged, or another reader has to run fleet secrets rekey")
        why = "; ".join(tried) or f"the run has no key of {' or '.join(site.name for site in owned.sites)}"
        raise SecretsError(f"{shown(owned.path)}: cannot be decrypted: {why}")

    def _known_readers(self, site: Site) -> set[str]:
        """Return the readers of a site as far as they can be read: reading a file does not need them."""
        try:
            return set(self.readers([site]))
        except SecretsError:
            return set()

    def readers_for(self, owned: Owned) -> tuple[str, ...]:
        """Return the public keys that a file has to be encrypted for, sorted.

        Raises SecretsError if the owner's own key is not among them: he would lock himself out.
        """
        readers = self.readers(owned.sites)
        refused: list[str] = []
        for site in owned.sites:
            try:
                if {age.recipient_of(one) for one in self.identities(site)} & set(readers):
                    return readers
            except SecretsError as error:
                refused.append(str(error))
            else:
                refused.append(f"{shown(self.readers_file(site))}: lacks the key in {shown(self.identity_file(site))}")
        raise SecretsError(f"{shown(owned.path)}: is not written, you could not read it: {'; '.join(refused)}")

    def write(self, owned: Owned, document: Document) -> None:
        """Encrypt `document` for the readers of its sites and put it in place whole, readable to us only.

        The public half of an SSH host key in it is put beside it, in clear. Raises SecretsError, and writes nothing,
        as `readers_for`.
        """
        for_all = document.for_readers(self.readers_for(owned))
        key = for_all.values.get(SSH_HOST_KEY.name)
        try:
            public = None if key is None or owned.host is None else hostkeys.public_half(key.value)
        except ValueError as error:
            raise SecretsError(f"{shown(owned.path)}: is not written: {SSH_HOST_KEY.name}: {error}") from None
        replace(owned.path, age.encrypt(_plain(for_all), for_all.readers))
        if public is not None and owned.host is not None:
            replace(self.public_key_file(owned.host), hostkeys.known_hosts_line(owned.of, public).encode(), 0o644)


def parse_readers(path: Path) -> dict[str, str]:
    """Return the public keys in a readers.txt with the name behind each ``#``; SecretsError if there is none."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise SecretsError(
            f"{shown(path)}: is missing; put the public key of each reader into it, a line each"
        ) from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        key, _, name = (piece.strip() for piece in line.partition("#"))
        if not key:
            continue
        if key.upper().startswith("AGE-SECRET-KEY-"):
            raise SecretsError(
                f"{shown(path)}: line {number} is a private key: make a new one, and put its public half"
            )
        try:
            age.check_recipient(key)
        except age.AgeError as error:
            raise SecretsError(f"{shown(path)}: line {number}: {error}") from None
        if key in found:
            raise SecretsError(f"{shown(path)}: line {number}: that key is there twice")
        found[key] = name
    if not found:
        raise SecretsError(f"{shown(path)}: has no reader; put the public key of each into it, a line each")
    return found


def replace(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put `content` in place of the file `path`, whole or not at all; its folders are made.

    Arguments: `mode` of the file, which is born 0600.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def shown(path: Path) -> str:
    """Return a path as a person types it: from the project's folder, or from home."""
    if path.is_relative_to(ROOT):
        return str(path.relative_to(ROOT))
    if path.is_relative_to(Path.home()):
        return f"~/{path.relative_to(Path.home())}"
    return str(path)


def _two(stem: str) -> tuple[str, str]:
    one, _, other = stem.partition("--")
    return one, other


def _parse(owned: Owned, plain: bytes) -> Document:
    try:
        return Document.model_validate_json(plain)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SecretsError(f"{shown(owned.path)}: is no file of secrets: {where}: {first['type']}") from None


def _plain(document: Document) -> bytes:
    """Return the JSON of a document: written out here, because the model's own dump masks the values."""
    values = {
        name: {
            "value": entry.value.get_secret_value(),
            "changed": entry.changed.isoformat(),
            "seen_by": list(entry.seen_by),
        }
        for name, entry in sorted(document.values.items())
    }
    data = {
        "version": document.version,
        "kind": document.kind,
        "of": document.of,
        "readers": list(document.readers),
        "values": values,
    }
    return json.dumps(data).encode()
