"""Secrets that sing: a value in every slot of an inventory, and what finds them where they do not belong.

Slots are found by reflection, as a run finds them: whatever a service marks. A part of a value of `PIECE` characters
counts, also in base64, base32 or hexadecimal digits.
"""

from __future__ import annotations

import base64
import os
import re
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints
from urllib.parse import quote

from pydantic import BaseModel, SecretStr

from fleet.model.base import Model
from fleet.model.secret import BCRYPT, SSH_ED25519, TOKEN, Kind, Secret, Shape, ssh_key_halves, ssh_public_blob
from fleet.model.service import Account, Declaration, File, FileSet, Service, none_to_keep
from fleet.model.site import Fleet, Host, Os, Site

HOSTS = ("db1", "ns3")
"""The hosts whose slots are full: of two sites, so that their pair is one across sites."""

PATH = "/etc/canaries"
"""The file with a secret of every kind."""

PIECE = 12

_TOKEN = re.compile(rb"[A-Za-z0-9+/=_.$~:%-]{12,}")
_SIZED = (Kind.BASE64, Kind.HEX)
_SECONDS = 0.02


class Slots(Service):
    """A service with a secret of every kind, one that a pair of hosts shares, and one of an account.

    Arguments: `own`, one that is a field of the service; `check` and `apply`, of its file; `HOSTS` are the pair.
    """

    own: Secret = Secret("canary-field", TOKEN)
    check: str = "true"
    apply: str = "true"

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare an account with a password."""
        del host, fleet
        account = Account(name="canary", uid=1990, comment="Canary", password=str(Secret("password-canary", BCRYPT)))
        return Declaration(accounts=(account,), state=none_to_keep("a test keeps nothing"))

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield the file, each secret on a line of its own."""
        del fleet
        group = "wheel" if host.os is Os.OPENBSD else "root"
        secrets = [Secret(f"canary-{kind}", Shape(kind, 24 if kind in _SIZED else None)) for kind in Kind]
        secrets += [self.own, Secret("canary", TOKEN, pair=(HOSTS[0], HOSTS[1]))]
        text = "".join(f"{secret}\n" for secret in secrets)
        file = File(path=PATH, text=text, group=group, mode=0o600)
        yield FileSet(name="canaries", files=(file,), check=self.check, apply=self.apply)


def with_slots(site: Site, **settings: str) -> Site:
    """Return `site` with `Slots` on those of `HOSTS` that are in it."""
    hosts = [
        host.model_copy(update={"services": (*host.services, Slots(**settings))}) if host.name in HOSTS else host
        for host in site.hosts
    ]
    return site.model_copy(update={"hosts": tuple(hosts)})


def models() -> Iterator[type[BaseModel]]:
    """Yield every model that an inventory can consist of: all that are imported, services too."""
    found: list[type[BaseModel]] = [Model]
    for cls in found:
        found.extend(sub for sub in cls.__subclasses__() if sub not in found)
    yield from found


def fields_of(cls: type[BaseModel], wanted: type) -> Iterator[str]:
    """Yield the fields of a model whose type has `wanted` somewhere in it."""
    for name, hint in get_type_hints(cls).items():
        if name in cls.model_fields and wanted in _types(hint):
            yield f"{cls.__name__}.{name}"


def _types(hint: Any) -> Iterator[Any]:
    yield hint
    for inner in get_args(hint):
        yield from _types(inner)


def within(value: object) -> Iterator[Secret | SecretStr]:
    """Yield each secret, or value of one, that a model has anywhere in it."""
    if isinstance(value, Secret | SecretStr):
        yield value
    elif isinstance(value, BaseModel):
        for _, inner in value:
            yield from within(inner)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from within(inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from within(inner)


@dataclass(frozen=True)
class Canaries:
    """What knows the values again.

    Arguments: `values`, by host and slot; a host that is named ``""`` is the controller.
    """

    values: Mapping[str, Mapping[str, SecretStr]]
    _pieces: dict[bytes, set[str]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        owners: dict[bytes, dict[SecretStr, set[str]]] = {}
        for host, slots in self.values.items():
            for slot, value in slots.items():
                for piece in _pieces(value.get_secret_value()):
                    owners.setdefault(piece, {}).setdefault(value, set()).add(f"{host}:{slot}")
        # What two values have in common is the form of their kind.
        self._pieces.update({piece: set(*there.values()) for piece, there in owners.items() if len(there) == 1})

    def find(self, text: bytes | str) -> set[str]:
        """Return which secrets a text has a part of, each as HOST:SLOT."""
        raw = text.encode(errors="replace") if isinstance(text, str) else text
        found: set[str] = set()
        for token in _TOKEN.finditer(raw):
            word = token[0]
            for start in range(len(word) - PIECE + 1):
                found |= self._pieces.get(word[start : start + PIECE], set())
        return found

    def in_files(self, paths: Iterable[Path]) -> dict[Path, set[str]]:
        """Return the files with a part of a secret in them; what is gone meanwhile is passed over."""
        found = {}
        for path in paths:
            with suppress(FileNotFoundError):
                if there := self.find(path.read_bytes()):
                    found[path] = there
        return found


def files(folder: Path) -> Iterator[Path]:
    """Yield the plain files below a folder, whatever their mode; what is gone meanwhile is passed over."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with suppress(FileNotFoundError):
                if stat.S_ISREG(path.lstat().st_mode):
                    yield path


def world_readable(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder that everybody may read, as ``find -type f -perm -4`` does."""
    for path in files(folder):
        with suppress(FileNotFoundError):
            if path.stat().st_mode & stat.S_IROTH:
                yield path


class Watch(threading.Thread):
    """Looks at every process of this computer, and so of its stand-ins, and at world-readable files, all the time.

    Arguments: `canaries`; `folders`, of the files. What was found is in `seen`, with how often it looked in `rounds`.
    """

    def __init__(self, canaries: Canaries, folders: Iterable[Path]) -> None:
        super().__init__(daemon=True)
        self.seen: set[str] = set()
        self.rounds = 0
        self._canaries = canaries
        self._folders = tuple(folders)
        self._known: set[bytes] = set()
        self._read: dict[Path, tuple[int, int]] = {}
        self._end = threading.Event()

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()
        self._files()

    def run(self) -> None:
        """Look until it is over."""
        while not self._end.wait(_SECONDS):
            self._processes()
            if self.rounds % 10 == 0:
                self._files()
            self.rounds += 1

    def _processes(self) -> None:
        for place in Path("/proc").iterdir():
            if not place.name.isdigit():
                continue
            for name in ("cmdline", "environ"):
                # A process that has ended cannot be asked any more.
                with suppress(OSError):
                    text = (place / name).read_bytes()
                    if text not in self._known:
                        self._known.add(text)
                        self._note(f"{name} of {text[:40]!r}", text)

    def _files(self) -> None:
        for folder in self._folders:
            for path in world_readable(folder):
                with suppress(FileNotFoundError):
                    now = path.stat()
                    stamp = (now.st_mtime_ns, now.st_ctime_ns)
                    if self._read.get(path) != stamp:
                        self._read[path] = stamp
                        self._note(str(path), path.read_bytes())

    def _note(self, where: str, text: bytes) -> None:
        self.seen |= {f"{where}: {slot}" for slot in self._canaries.find(text)}


def _pieces(value: str) -> set[bytes]:
    """Return what counts as a part of a value; the public half of a key does not."""
    forms = _windows(_forms(value))
    if SSH_ED25519.fits(value):
        _, public = ssh_key_halves(value)
        forms -= _windows(_encoded(ssh_public_blob(public)))
    return forms


def _forms(value: str) -> Iterator[str]:
    yield from value.splitlines()
    yield "".join(value.splitlines())
    yield quote(value, safe="")
    yield from _encoded(value.encode())
    for decode in (bytes.fromhex, lambda text: base64.b64decode(text, validate=True)):
        with suppress(ValueError):
            yield from _encoded(decode("".join(line for line in value.splitlines() if not line.startswith("-----"))))


def _encoded(raw: bytes) -> Iterator[str]:
    """Yield base64, wherever it begins in a longer text, base32 and hexadecimal digits of `raw`."""
    for skipped in range(3):
        first, end = -(-skipped * 8 // 6), (skipped + len(raw)) * 8 // 6
        yield base64.b64encode(b"\0" * skipped + raw).decode()[first:end]
    yield base64.b32encode(raw).decode().rstrip("=")
    yield raw.hex()
    yield raw.hex().upper()


def _windows(texts: Iterable[str]) -> set[bytes]:
    return {text[start : start + PIECE].encode() for text in texts for start in range(len(text) - PIECE + 1)}


def wait_for(path: Path, seconds: float) -> None:
    """Wait until a file is there; AssertionError after `seconds`."""
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path}: not there after {seconds:.0f} s"
        time.sleep(0.05)
