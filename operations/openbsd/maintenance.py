"""Patches, firmware, reboots and downloads of an OpenBSD host; openbsd-contract 7, 9."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Generator
from typing import cast

from pyinfra import host as current_host
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.host import Host
from pyinfra.api.state import State

from facts.filesets import FileState
from facts.openbsd.system import SingleFile, System, Systems
from fleet.connector import FleetConnector, outcome, read, run
from operations.openbsd.scripts import STATE, refuse, unattended
from operations.steps import Plan, Refusal, Step, perform

BOOT_SECONDS = 600
"""How long a host may take from the order to reboot until it answers again; file systems may have to be checked."""

POLL_SECONDS = 5

MINUTE = 60

PATCH_RUNS = 3
"""syspatch(8) wants to be run again after it has updated itself."""


def plan_patches(found: System) -> Plan:
    """Return what installs the patches of a release; a host that follows snapshots gets a note. Pure."""
    if found.follows_snapshots:
        return Plan(notes=("there are no patches for -current: sysupgrade -s brings the next snapshot",))
    if found.patches is None:
        message = f"syspatch -c: {found.refused or 'it said nothing'}"
        return Plan(refused=(Refusal("syspatch", message),))
    if not found.patches:
        return Plan()
    # Exit 2 is "nothing to do" as well as "run me again" (contract 7.2): what is left decides.
    lines = [
        f'n=0; while [ $n -lt {PATCH_RUNS} ] && [ -n "$(syspatch -c)" ]; do n=$((n + 1)); syspatch; done; :',
        """left=$(syspatch -c | awk '{ printf "%s%s", s, $0; s = " " }')""",
        '{ [ -z "$left" ] || { echo "not installed: $left"; false; }; }',
    ]
    label = f"installed {', '.join(found.patches)}; they count after a reboot"
    return Plan(steps=(Step("syspatch", label, unattended("syspatch", lines)),))


@operation()
def patches() -> Generator[StringCommand | FunctionCommand, None, None]:
    """Install the binary patches of a release with syspatch(8); never reboots."""
    found = read(current_host, Systems, patches=True)
    if found is None:
        yield StringCommand("echo 'the patches of this host could not be read' >&2; exit 1")
        return
    yield from perform(plan_patches(found))


FIRMWARE = r"""have() { pkg_info -q | grep -e '-firmware-'; }
before=$(have)
fw_update || exit 1
[ "$before" = "$(have)" ] || echo changed"""
"""What fw_update(8) would do it says in no form that the contract has: the packages before and after tell."""


@operation(is_idempotent=False)
def firmware() -> Generator[FunctionCommand, None, None]:
    """Bring the firmware of the host's devices up to date with fw_update(8), from the network.

    It is run each time, and reported as a change only if a firmware package came, went or is another.
    """
    yield FunctionCommand(_firmware, (), {})


def _firmware(state: State, host: Host) -> bool:
    del state
    record = outcome(host)
    result = run(host, FIRMWARE)
    if result is None:
        return False
    if not result.ok:
        record.fail("firmware", result.error)
    elif "changed" in result.stdout:
        record.change("firmware", "updated; it counts after a reboot")
    return True


# The shutdown outlives the connection that ordered it, and begins when the order has been answered.
REBOOT = "nohup sh -c 'sleep 2; shutdown -r now' </dev/null >/dev/null 2>&1 &"

BOOTED = "sysctl -n kern.boottime"


@operation()
def reboot(when: int, seconds: int = BOOT_SECONDS) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Reboot the host unless it has booted since `when`, and wait until it answers over a new connection.

    Arguments: `when`, seconds since the epoch; the moment of a change that counts after a reboot. A second run with
    the same `when` does nothing. `seconds` is how long it may take. It has rebooted when kern.boottime is another,
    not when it answers.
    """
    found = read(current_host, Systems)
    if found is None:
        yield StringCommand("echo 'the time of the last boot could not be read' >&2; exit 1")
        return
    if found.booted >= when or outcome(current_host).halted:
        current_host.noop(f"booted since {when}")
        return
    yield FunctionCommand(_reboot, (found.booted, seconds), {})


def _reboot(state: State, host: Host, booted: int, seconds: int) -> bool:
    del state
    record = outcome(host)
    ordered = run(host, REBOOT)
    if ordered is None:
        return False
    if not ordered.ok:
        record.fail("reboot", ordered.error)
        return True
    connector = cast(FleetConnector, host.connector)

    def ask() -> int | None:
        if not connector.reconnect(POLL_SECONDS):
            return None
        result = run(host, BOOTED)
        record.failed.pop("connection", None)
        return int(result.stdout[0]) if result is not None and result.ok and result.stdout else None

    if wait_for_boot(ask, booted, seconds):
        record.change("reboot", "rebooted")
        return True
    record.fail("reboot", f"it did not come back within {seconds} seconds")
    return False


def wait_for_boot(
    ask: Callable[[], int | None],
    booted: int,
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Call `ask` until it returns another boot time than `booted`, for at most `seconds`; True if it did.

    Arguments: `ask` returns seconds since the epoch, or None while the host does not answer. A clock that is set
    moves the boot time along by as much: differences below a minute do not count.
    """
    deadline = clock() + seconds
    while clock() < deadline:
        sleep(POLL_SECONDS)
        now = ask()
        if now is not None and abs(now - booted) >= MINUTE:
            return True
    return False


def plan_download(url: str, dest: str, sha256: str, mode: int, found: FileState | None) -> Plan:
    """Return what fetches `url` into `dest` if it has another checksum, owner or mode. Pure.

    Fails: ValueError for a path that is not absolute, or a checksum that is none.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"{dest}: {sha256!r} is no SHA-256 in hexadecimal")
    if not dest.startswith("/") or dest.endswith("/") or "\n" in dest:
        raise ValueError(f"{dest!r} is no absolute path of a file")
    if not re.fullmatch(r"(https?|file|ftp)://[^\s]+", url):
        raise ValueError(f"{dest}: {url!r} is nothing that ftp(1) fetches")
    wanted = FileState("root", "wheel", mode, sha256)
    if found == wanted:
        return Plan()
    target = shlex.quote(dest)
    finish = f'chown root:wheel "$t" && chmod {mode:o} "$t" && mv -f "$t" {target}'
    if found is not None and found.sha256 == sha256:
        return Plan(steps=(Step(dest, "owner and mode", f"chown root:wheel {target} && chmod {mode:o} {target}"),))
    # In the folder of `dest`, so that the last step is a rename.
    command = (
        f"umask 077; mkdir -p {STATE}; t=$(mktemp {shlex.quote(dest + '.XXXXXXXXXX')}) || exit 1\n"
        "trap 'rm -f \"$t\"' EXIT\n"
        f'ftp -MVo "$t" {shlex.quote(url)} </dev/null >&2 || exit 1\n'
        's=$(sha256 -q "$t")\n'
        f'[ "$s" = {sha256} ] || {{ echo "its checksum is $s, wanted {sha256}" >&2; exit 1; }}\n'
        f"{finish}"
    )
    return Plan(steps=(Step(dest, f"fetched from {url}", command),))


@operation()
def download(
    url: str, dest: str, sha256: str, mode: int = 0o644
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Fetch a file with ftp(1) unless it is there with that checksum; a wrong one never gets the name `dest`.

    Arguments: `sha256` in hexadecimal; `mode`. The file is root's.
    """
    try:
        plan_download(url, dest, sha256, mode, None)
    except ValueError as error:
        yield refuse(error)
        return
    found = read(current_host, SingleFile, path=dest)
    if found is None:
        yield StringCommand(f"echo {shlex.quote(f'{dest} could not be read')} >&2; exit 1")
        return
    yield from perform(plan_download(url, dest, sha256, mode, found[0] if found else None))
