"""The lab's package mirror: OpenBSD's tree of directories, with descriptions in the place of archives.

A stand-in reaches it as a directory of its own or over HTTP; what it names in /etc/installurl is the tree's root.
"""

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.lab.openbsd.standin import release
from tests.lab.openbsd.standin.pkgdb import INDEX, Package, decode, encode, split

DESCRIPTIONS = Path(__file__).parent / "packages"
"""One file a port: its pkgpath, and the names that are built of it."""

TREE = "/usr/lib/standin/mirror/pub/OpenBSD"
"""Where a stand-in's root has its mirror, and so what /etc/installurl says there."""


def packages(directory: Path = DESCRIPTIONS, newer: Mapping[str, str] | None = None) -> list[Package]:
    """Read the descriptions.

    Args:
        directory: of TOML files.
        newer: versions by stem, for a mirror that has moved on.

    Returns:
        The packages, sorted by name.

    Raises:
        KeyError: `newer` has a stem that is in no description.
    """
    versions = dict(newer or {})
    found = []
    known = set()
    for path in sorted(directory.glob("*.toml")):
        port = tomllib.loads(path.read_text())
        for name in port.pop("names"):
            stem, _, flavours = split(name)
            known.add(stem)
            if stem in versions:
                name = "-".join((stem, versions[stem], *flavours))  # noqa: PLW2901 - the same package, newer
            found.append(decode({"name": name, **port}))
    unknown = set(versions) - known
    if unknown:
        raise KeyError(f"no description of {', '.join(sorted(unknown))}")
    return sorted(found, key=lambda package: package.name)


def _index(directory: Path, found: Iterable[Package]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / INDEX).write_text(json.dumps({"packages": [encode(package) for package in found]}))


def write(tree: Path, newer: Mapping[str, str] | None = None) -> None:
    """Write a mirror.

    Args:
        tree: the directory that /etc/installurl shall name.
        newer: versions by stem that snapshots and packages-stable have and the release has not.
    """
    moved_on = packages(newer=newer)
    number = release.number()
    _index(tree / "snapshots/packages" / release.ARCH, moved_on)
    _index(tree / number / "packages" / release.ARCH, packages())
    stable = [package for package in moved_on if package.stem in (newer or {})]
    _index(tree / number / "packages-stable" / release.ARCH, stable)
