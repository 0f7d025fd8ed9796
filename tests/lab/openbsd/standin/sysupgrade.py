"""sysupgrade(8) (contract 7.1): its refusals, and a snapshot that is already the latest one.

The mirror's snapshot is the latest one if its BUILDINFO is that of /var/db/installed.BUILDINFO.
"""

import os
import re

from . import program, release
from .place import root
from .unmodelled import unmodelled

NOT_MODELLED = ("sysupgrade: an upgrade: sets, /bsd.upgrade, the reboot into the installer",)
_USAGE = "usage: sysupgrade [-fkns] [-b base-directory] [-R version] [installurl | path]"


def _refusal(letters: str, version: str) -> str | None:
    if "s" in letters and "R" in letters:
        return "incompatible options: -s -R"
    if "f" in letters and "s" not in letters:
        return "-f without -s"
    if "R" in letters and not re.fullmatch(r"[0-9]\.[0-9]|[1-9][0-9]\.[0-9]", version):
        return f"invalid version: {version}"
    if os.geteuid() != 0:
        return "need root privileges"
    return None


def main(argv: list[str]) -> int:
    """Run sysupgrade.

    Args:
        argv: its arguments.

    Returns:
        0 if the system is the latest snapshot already, 1 for its refusals.
    """
    options, words = program.options("sysupgrade", argv, "b:fknR:s", _USAGE)
    letters = "".join(option[1] for option, _ in options)
    refusal = _refusal(letters, dict(options).get("-R", ""))
    if refusal:
        program.warn("sysupgrade", refusal)
        return 1
    lines = root("/etc/installurl").read_text().splitlines()
    base = words[0] if words else next((line.strip() for line in lines if line.strip() and line[0] != "#"), "")
    if "s" not in letters or "f" in letters or not base.startswith(("/", "file:")):
        unmodelled("sysupgrade", argv, "an upgrade")
    latest = root(f"{base.removeprefix('file://').rstrip('/')}/snapshots/{release.ARCH}/BUILDINFO")
    present = root("/var/db/installed.BUILDINFO")
    if not (latest.exists() and present.exists() and latest.read_text() == present.read_text()):
        unmodelled("sysupgrade", argv, "an upgrade")
    print("Already on latest snapshot.")
    return 0
