"""syspatch(8) (contract 0.3 item 11, 7.2): for releases only.

Patches that a release could have are names in the mirror's `RELEASE/syspatch`, one a line, as in
``001_xserver``; installed ones are directories of /var/syspatch.
"""

import os
import sys

from . import release
from .place import root
from .unmodelled import unmodelled

NOT_MODELLED = (
    "syspatch: the content of patches, its update of itself, mirrors that are no directory",
    "syspatch -r and -R",
)
_DIRECTORY = "/var/syspatch"


def _available() -> list[str]:
    lines = root("/etc/installurl").read_text().splitlines()
    base = next((line.strip() for line in lines if line.strip() and not line.startswith("#")), "")
    if not base.startswith(("/", "file:")):
        unmodelled("syspatch", [], f"the mirror {base} is no directory")
    path = root(f"{base.removeprefix('file://').rstrip('/')}/{release.number()}/syspatch")
    return path.read_text().split() if path.exists() else []


def _installed() -> list[str]:
    directory = root(_DIRECTORY)
    names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    return [name.partition("-")[2] for name in names]


def _patch(argv: list[str]) -> int:
    missing = [] if argv == ["-l"] else [name for name in _available() if name not in _installed()]
    if argv:
        for name in _installed() if argv == ["-l"] else missing:
            print(name)
        return 0
    for name in missing:
        (root(_DIRECTORY) / f"{release.number().replace('.', '')}-{name}").mkdir(parents=True)
    return 0 if missing else 2


def main(argv: list[str]) -> int:
    """Run syspatch.

    Args:
        argv: nothing, ``-c`` or ``-l``.

    Returns:
        0; 1 for errors, also on -current; 2 if there was nothing to install.
    """
    if len(argv) > 1 or argv[:1] not in ([], ["-c"], ["-l"], ["-r"], ["-R"]):
        print("usage: syspatch [-c | -l | -R | -r]", file=sys.stderr)
        return 1
    if argv[:1] in (["-r"], ["-R"]):
        unmodelled("syspatch", argv, "reverting")
    if os.geteuid() != 0:
        print("syspatch: need root privileges", file=sys.stderr)
        return 1
    if release.suffix() == "-current":
        print(f"syspatch: Unsupported release: {release.number()}{release.suffix()}", file=sys.stderr)
        return 1
    if release.suffix():
        unmodelled("syspatch", argv, f"a kernel that is {release.suffix()}")
    return _patch(argv)
