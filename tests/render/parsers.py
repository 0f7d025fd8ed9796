"""The parsers of files that no Ubuntu host has: Debian 13's own programs, unpacked beside the lab's root."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.lab import images
from tests.lab.host import run
from tests.lab.roots import toolbox_run

PLACE = "/parsers"
"""Where the programs are, beside the toolbox's own."""

STANDIN = "/standin"
"""Where Python finds the package `standin`, whose pf.conf(5) is the only parser of it outside OpenBSD."""

_PACKAGES = ("opendoas", "openntpd", "opensmtpd", "unbound")

# Users of OpenBSD's base system that rules may name: any other is refused, as pfctl(8) would at boot.
_USERS = ("root", "_file", "_ntp", "_pkgfetch", "_smtpd", "_syspatch", "_unbound")

_PREPARE = f"""\
mkdir -p /tmp/openbsd/etc
for user in {" ".join(_USERS)}; do echo "$user:*:$((n += 1)):1::/:/"; done >/tmp/openbsd/etc/passwd
exec "$@"
"""


def parsers() -> Path:
    """Return the directory of the programs with the libraries that they need.

    Raises:
        LabError: they are not unpacked yet, and cannot be had from the computer's sources or not by this user.
    """
    debs = images.repository(_PACKAGES)

    def build(part: Path) -> None:
        for package in sorted(debs.glob("*.deb")):
            run(["dpkg-deb", "-x", package, part])

    return images.cached("parsers", [debs.name], build)


def parse(argv: Sequence[str], folder: Path, seen: str) -> subprocess.CompletedProcess[str]:
    """Run a parser in the toolbox.

    Args:
        argv: the command.
        folder: what it reads.
        seen: where it finds that.

    Returns:
        The finished command, whatever its exit code.
    """
    standin = Path(__file__).parents[1] / "lab" / "openbsd" / "standin"
    libraries = f"LD_LIBRARY_PATH={PLACE}/usr/lib/x86_64-linux-gnu"
    here = ["env", "STANDIN_ROOT=/tmp/openbsd", f"PYTHONPATH={STANDIN}", "PYTHONDONTWRITEBYTECODE=1"]
    binds = {folder: seen, parsers(): PLACE, standin: f"{STANDIN}/standin"}
    # The toolbox's own programs do not need the libraries, and must not be given others.
    own = ["env", libraries] if shlex.join(argv).find(PLACE) >= 0 else []
    return toolbox_run([*here, "sh", "-c", _PREPARE, "sh", *own, *argv], binds=binds)
