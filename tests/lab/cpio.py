"""Initial ramdisks: archives in the newc format, of which the kernel unpacks several, one after another."""

import stat
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One file of an archive.

    Args:
        path: its path without a leading slash.
        content: what a regular file holds, or where a symbolic link points.
        mode: type and permissions, as in stat(2).
        owner: the number of its user, and of that user's group.
    """

    path: str
    content: bytes = b""
    mode: int = stat.S_IFREG | 0o644
    owner: int = 0


def directory(path: str, permissions: int = 0o755, owner: int = 0) -> Entry:
    """Return an entry for a directory.

    Args:
        path: its path without a leading slash.
        permissions: its permission bits.
        owner: the number of its user, and of that user's group.
    """
    return Entry(path, mode=stat.S_IFDIR | permissions, owner=owner)


def with_parents(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries with every directory above them that is not among them, parents first.

    Args:
        entries: files in any order.
    """
    known = {entry.path: entry for entry in entries}
    for path in list(known):
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            above = "/".join(parts[:depth])
            known.setdefault(above, directory(above))
    return [known[path] for path in sorted(known)]


def archive(entries: Iterable[Entry]) -> bytes:
    """Write an archive.

    Args:
        entries: its files; a directory comes before what is in it.

    Returns:
        The bytes, padded to 512 so that another archive may follow. All times are 0: the same entries give
        the same bytes.
    """
    parts: list[bytes] = []
    for number, entry in enumerate((*entries, Entry("TRAILER!!!", mode=0)), start=1):
        name = entry.path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        fields = (number, entry.mode, entry.owner, entry.owner, links, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        parts += [header, bytes(-len(header) % 4), entry.content, bytes(-len(entry.content) % 4)]
    whole = b"".join(parts)
    return whole + bytes(-len(whole) % 512)
