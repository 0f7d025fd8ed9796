"""Packages of an Ubuntu host as one set; apt-get(8), dpkg(1)."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence

from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand, operation

from facts.linux.dpkg import DebianPackages, Packages
from fleet.connector import read
from operations.steps import Plan, Step, perform

LOCK_SECONDS = 1800
"""How long a run waits for the installation that an earlier, killed run left going."""

# A package must not start its daemon before the daemon's configuration is there (DESIGN D2); invoke-rc.d and
# deb-systemd-invoke ask this program. It only refuses for us: unattended upgrades restart what they like.
POLICY = '[ -z "${HOMEFLEET_HOLD:-}" ] || exit 101'


def plan_packages(wanted: Sequence[str], found: Packages) -> Plan:
    """Return what installs the missing ones of `wanted`, after finishing what was interrupted. Pure."""
    missing = sorted(set(wanted) - found.installed)
    if not missing and not found.broken:
        return Plan()
    label = "installed " + ", ".join(missing) if missing else "finished an interrupted installation"
    return Plan(steps=(Step("packages", label, _command(missing)),))


def _command(missing: Sequence[str]) -> str:
    """Return a command that a dying controller does not stop half-way.

    flock(1) is inherited by apt, so a later run waits for it; the output goes to a file, not to the connection.
    """
    install = [
        "dpkg --configure -a --force-confdef --force-confold",
        "apt-get -q -y -f install",
    ]
    if missing:
        names = " ".join(shlex.quote(name) for name in missing)
        install += [
            "apt-get -q update",
            "apt-get -q -y --no-install-recommends -o DPkg::Options::=--force-confdef "
            f"-o DPkg::Options::=--force-confold -o DPkg::Lock::Timeout={LOCK_SECONDS} install {names}",
        ]
    inner = (
        "trap '' PIPE HUP; umask 022; export DEBIAN_FRONTEND=noninteractive HOMEFLEET_HOLD=1; "
        "[ -e /usr/sbin/policy-rc.d ] || "
        f"{{ printf '#!/bin/sh\\n%s\\n' {shlex.quote(POLICY)} >/usr/sbin/policy-rc.d.new && "
        "chmod 755 /usr/sbin/policy-rc.d.new && mv /usr/sbin/policy-rc.d.new /usr/sbin/policy-rc.d; }; "
        + " && ".join(install)
    )
    log = "/var/log/homefleet-apt.log"
    return (
        f"flock -w {LOCK_SECONDS} /run/homefleet-apt.lock setsid -w sh -c {shlex.quote(inner)} "
        f"</dev/null >{log} 2>&1 || {{ tail -n 4 {log} >&2; exit 1; }}"
    )


@operation()
def packages(names: Sequence[str]) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Install all of `names` that are missing; never removes, never upgrades.

    The state is read back by the next fact, not believed from apt's exit code: a run that follows would say.
    """
    found = read(host, DebianPackages, names=list(names))
    if found is None:
        yield StringCommand("echo 'the packages of this host could not be read' >&2; exit 1")
        return
    yield from perform(plan_packages(names, found))
