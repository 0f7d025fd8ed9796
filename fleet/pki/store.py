"""The PKI's files: the register, the encrypted keys of the roots, and copies for openssl(1).

Below one folder: ``register.jsonl`` is the truth. ``AUTHORITY/SERIAL.key.age`` are the roots' keys, 0600. All else in
``AUTHORITY/`` (``roots.pem``, ``SERIAL.pem``, ``crl.pem``, ``HOST-USE.pem``) are copies out of the register, made again
where they differ.

Whatever happens between two writes, the next run that writes puts it right: a line that was cut off is removed, as is
a key that was begun and never used. Every write is on the disk before the next one.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fleet.pki.published import published
from fleet.pki.register import Record, Register, Root, parse
from fleet.pki.wanted import PkiError

_KEY = ".key.age"
_NEW = ".new-"


@dataclass(frozen=True)
class Store:
    """The files of a fleet's PKI, below `folder`."""

    folder: Path

    @property
    def path(self) -> Path:
        """Where the register is."""
        return self.folder / "register.jsonl"

    def key_path(self, authority: str, serial: str) -> Path:
        """Return where the encrypted key of a root is."""
        return self.folder / authority / f"{serial}{_KEY}"

    def root_path(self, authority: str, serial: str) -> Path:
        """Return where the certificate of one root is, in PEM."""
        return self.folder / authority / f"{serial}.pem"

    def roots_path(self, authority: str) -> Path:
        """Return where the roots of an authority that are trusted are, in PEM."""
        return self.folder / authority / "roots.pem"

    def crl_path(self, authority: str) -> Path:
        """Return where the CRLs of an authority's trusted roots are, in PEM."""
        return self.folder / authority / "crl.pem"

    def certificate_path(self, authority: str, host: str, use: str) -> Path:
        """Return where the last certificate for a host and a use is, in PEM."""
        return self.folder / authority / f"{host}-{use}.pem"

    def read(self) -> Register:
        """Return the register; PkiError, naming the line, if it was tampered with. A line cut off is none."""
        return parse(_whole(self._raw()).splitlines(), str(self.path))

    def key(self, root: Root) -> bytes:
        """Return the encrypted key of `root`; PkiError if it is not there."""
        path = self.key_path(root.authority, root.serial)
        try:
            return path.read_bytes()
        except OSError as error:
            raise PkiError(f"{path}: the key of a root cannot be read: {error.strerror}") from None

    @contextmanager
    def opened(self) -> Iterator[Ledger]:
        """Let one process at a time write, with what an earlier one left half done put right first.

        Raises PkiError as `read`, if another process writes, or for a key that the register does not know.
        """
        _make_folder(self.folder)
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PkiError(f"{self.folder}: another fleet pki is at work there") from None
            self._cut()
            ledger = Ledger(self, self.read())
            self._sweep(ledger.register)
            ledger.copy()
            try:
                yield ledger
            finally:
                ledger.copy()
        finally:
            os.close(handle)

    def _raw(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise PkiError(f"{self.path}: cannot be read: {error.strerror}") from None

    def _cut(self) -> None:
        """Remove a last line that was not written to its end: what it was to record was never given out."""
        raw = self._raw()
        whole = _whole(raw)
        if whole != raw:
            handle = os.open(self.path, os.O_WRONLY)
            try:
                os.ftruncate(handle, len(whole))
                os.fsync(handle)
            finally:
                os.close(handle)

    def _sweep(self, register: Register) -> None:
        """Remove unfinished copies and keys that were begun and never used; stop at a key that nobody knows."""
        unused = {self.key_path(begun.authority, begun.serial) for begun in register.unused_keys()}
        known = {self.key_path(root.authority, root.serial) for root in register.all_roots()}
        for path in sorted(self.folder.glob(f"*/{_NEW}*")):
            path.unlink()
        for path in sorted(self.folder.glob(f"*/*{_KEY}")):
            if path in unused:
                path.unlink()
            elif path not in known:
                raise PkiError(f"{path}: the register knows no such root: is it the register of this folder?")


@dataclass
class Ledger:
    """The register while one process writes."""

    store: Store
    register: Register

    def append(self, record: Record) -> None:
        """Add `record`; it is on the disk when this returns."""
        path = self.store.path
        born = not path.exists()
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            rest = memoryview(self.register.line(record))
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        if born:
            _sync_folder(path.parent)
        self.register = self.register.with_(record)

    def put_key(self, authority: str, serial: str, sealed: bytes) -> None:
        """Write the encrypted key of a root, readable to us only from its first byte."""
        _replace(self.store.key_path(authority, serial), sealed, 0o600)

    def copy(self) -> None:
        """Make the copies for openssl(1) what the register says."""
        register, store = self.register, self.store
        given = published(register)
        wanted = {store.roots_path(authority): roots for authority, roots in given.roots.items()}
        wanted |= {store.crl_path(authority): lists for authority, lists in given.crls.items()}
        for root in register.all_roots():
            wanted[store.root_path(root.authority, root.serial)] = root.certificate
        for issued in register.issued():
            wanted[store.certificate_path(issued.authority, issued.host, issued.use)] = issued.certificate
        for path, text in wanted.items():
            if not path.is_file() or path.read_text(errors="replace") != text:
                _replace(path, text.encode(), 0o644)


def _whole(raw: bytes) -> bytes:
    """Return `raw` without a last line that has no newline."""
    return raw[: raw.rfind(b"\n") + 1]


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Put `content` in place of the file `path`, whole or not at all, and onto the disk."""
    _make_folder(path.parent)
    new = path.with_name(f"{_NEW}{secrets.token_hex(8)}")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    finally:
        os.close(handle)
    new.replace(path)
    _sync_folder(path.parent)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Put the names in `folder` onto the disk; fsync(2): syncing a file does not do that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
