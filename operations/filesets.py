"""Configuration sets: staged, checked, swapped in whole or rolled back whole (DESIGN D2, D3).

Everything of one set happens in one remote script, which a controller that dies does not stop: it traps the
broken pipe. A marker in ``pending/`` is born before the swap and removed after the daemon followed; the undo
script lies beside it the whole time, so that any later run, or the host itself, can finish by rolling back.

A *dangerous* set (network, firewall, sshd) ends with the undo armed: a timer of the host runs it after
`UNDO_SECONDS`, and so does the next boot, unless a new TCP connection and a new login confirm.
"""

from __future__ import annotations

import difflib
import hashlib
import shlex
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pyinfra import host as current_host
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.host import Host
from pyinfra.api.state import State

from facts.filesets import STATE, FileSets, FileState, SetQuery, SetState
from fleet.connector import confirm, outcome, read, run
from fleet.model.service import File, FileSet

UNDO_SECONDS = 50
"""How long a host waits for the confirming login before it puts the old files and the old state back.

A little less than the minute after which all has to be as it was: the old state takes some seconds to apply.
"""

CONFIRM_SECONDS = 35
"""How long the controller tries to log in anew; less than the undo needs, so that it never confirms too late."""

SCRIPT_SECONDS = 300
"""After so long without an answer the connection counts as cut by the change itself."""

UNDO_UNIT = """\
[Unit]
Description=Roll back a change of network or firewall that nobody confirmed
DefaultDependencies=no
ConditionDirectoryNotEmpty={state}/armed
After=local-fs.target systemd-tmpfiles-setup.service
Before=network-pre.target systemd-networkd.service nftables.service ssh.service
Wants=network-pre.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'for undo in {state}/armed/*; do sh "$undo" boot; done'

[Install]
WantedBy=sysinit.target
"""


@dataclass(frozen=True)
class Due:
    """Why a set has to be applied: the paths that differ, those that left it, and strays to move aside."""

    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    pending: bool = False

    def __bool__(self) -> bool:
        """True if there is anything to do."""
        return bool(self.changed or self.removed or self.strays or self.pending)

    def words(self) -> str:
        """Return what was done, for the closing lines."""
        said = [PurePosixPath(path).name for path in self.changed]
        said += [f"without {PurePosixPath(path).name}" for path in (*self.removed, *self.strays)]
        if self.pending:
            said.append("finished after an interruption")
        return ", ".join(said)


def query(wanted: FileSet) -> SetQuery:
    """Return what the fact has to look for."""
    return SetQuery(wanted.name, tuple(file.path for file in wanted.files), wanted.exclusive)


def plan_set(wanted: FileSet, found: SetState) -> Due:
    """Return what of `wanted` is due on a host that has `found`. Pure."""
    ours = {file.path for file in wanted.files}
    return Due(
        changed=tuple(file.path for file in wanted.files if found.files.get(file.path) != state_of(file)),
        removed=tuple(path for path in found.manifest if path not in ours),
        strays=tuple(path for path in found.strays if path not in ours),
        pending=found.pending or found.armed,
    )


def state_of(file: File) -> FileState:
    """Return the state that a host has once `file` is on it."""
    return FileState(file.owner, file.group, file.mode, hashlib.sha256(file.text.encode()).hexdigest())


def script(wanted: FileSet, due: Due, seconds: int = UNDO_SECONDS) -> str:
    """Return the POSIX sh that brings `wanted` about, or leaves everything as it was and exits non-zero.

    Arguments: `seconds` until an armed undo runs. The script reads no standard input and shows the text of no
    file; it is itself fed to ``sh`` on standard input, so a secret is in no argument list (DESIGN O5).
    """
    name = wanted.name
    staged = f"{STATE}/stage/{name}"
    parts = [_PREAMBLE.format(state=STATE, name=name)]
    for file in wanted.files:
        parts.append(_stage(file, staged))
    if wanted.check is not None:
        parts.append(_check(wanted.check.replace("{new}", staged), staged))
    touched = [*(file.path for file in wanted.files), *due.removed, *due.strays]
    parts.append(_undo(wanted, touched))
    parts.append(f"echo {shlex.quote(name)} >{STATE}/pending/{name}")
    if wanted.dangerous:
        parts.append(_arm(name, seconds))
    parts += [_swap(file, staged) for file in wanted.files]
    parts += [f"rm -f {shlex.quote(path)}" for path in (*due.removed, *due.strays)]
    manifest = "".join(f"{file.path}\n" for file in wanted.files)
    parts.append(f"cat >{STATE}/manifest/{name} <<'END-OF-MANIFEST'\n{manifest}END-OF-MANIFEST")
    if wanted.apply is not None:
        parts.append(_apply(wanted.apply))
    parts.append(f"rm -rf {staged}")
    if not wanted.dangerous:
        parts.append(f"rm -rf {STATE}/pending/{name} {STATE}/undo/{name} {STATE}/backup/{name}")
    return "\n".join(parts) + "\n"


def confirmation(name: str) -> str:
    """Return the command that disarms the undo of set `name`; it fails if the undo came first."""
    return (
        f"mv {STATE}/armed/{name} {STATE}/undo/{name} "
        f"&& rm -rf {STATE}/pending/{name} {STATE}/undo/{name} {STATE}/backup/{name} "
        f"&& {{ systemctl -q stop homefleet-undo-{name}.timer 2>/dev/null || :; }}"
    )


_PREAMBLE = """\
set -eu
name={name}
umask 077
trap '' PIPE HUP
mkdir -p {state}
cd {state}
mkdir -p stage backup pending armed undo manifest
chmod 700 {state}
say() {{ printf '%s\\n' "$*" >&2; }}
# An undo that is armed belongs to a run that did not live to confirm: the host rolls back, we wait for it.
if [ -e armed/{name} ]; then
	if systemctl -q is-active homefleet-undo-{name}.timer; then
		n=0
		while [ -e armed/{name} ] && [ $n -lt 100 ]; do sleep 1; n=$((n + 1)); done
	fi
	[ ! -e armed/{name} ] || sh armed/{name}
fi
if [ -e pending/{name} ]; then
	if [ -e undo/{name} ]; then sh undo/{name}; else rm -f pending/{name}; fi
fi
rm -rf stage/{name} backup/{name}
mkdir -p stage/{name} backup/{name}"""


def _stage(file: File, staged: str) -> str:
    target = shlex.quote(staged + file.path)
    folder = shlex.quote(str(PurePosixPath(staged + file.path).parent))
    end = "END-" + hashlib.sha256(file.text.encode()).hexdigest()[:16]
    return (
        f"mkdir -p {folder}\n"
        f"cat >{target} <<'{end}'\n{file.text}{end}\n"
        f"chown {shlex.quote(file.owner)}:{shlex.quote(file.group)} {target}\n"
        f"chmod {file.mode:o} {target}"
    )


def _check(command: str, staged: str) -> str:
    return (
        f"if ( {command} ) </dev/null >log 2>&1; then :; else\n"
        f"	say 'the check refused the new files, the old ones are in place:'\n"
        f"	tail -n 5 log >&2; rm -rf {staged} log; exit 1\n"
        "fi"
    )


def _undo(wanted: FileSet, paths: Sequence[str]) -> str:
    """Back up what is there, and write the script that puts it back: also from a timer and at boot."""
    name = wanted.name
    lines = [
        "(",
        "	echo 'set -u; umask 077; trap \"\" PIPE HUP'",
        f"	echo 'cd {STATE} || exit 1'",
        # Whoever renames the armed script first has decided: the timer, or the confirming login.
        f"	echo '[ ! -e armed/{name} ] || mv armed/{name} undo/{name} || exit 1'",
    ]
    for number, path in enumerate(paths):
        quoted = shlex.quote(path)
        kept = f"backup/{name}/{number}"
        new = shlex.quote(f"{path}.homefleet-old")
        restore = shlex.quote(f"cp -p {kept} {new} && mv -f {new} {quoted}")
        lines.append(
            f"	if [ -e {quoted} ]; then cp -p {quoted} {kept} && echo {restore}; "
            f"else echo {shlex.quote(f'rm -f {quoted}')}; fi"
        )
    lines.append(
        f"	if [ -e manifest/{name} ]; then cp -p manifest/{name} backup/{name}/manifest; "
        f"echo 'cp -p backup/{name}/manifest manifest/{name}'; else echo 'rm -f manifest/{name}'; fi"
    )
    at_boot = 'if [ "${1:-}" = boot ]; then ' + (wanted.undo_at_boot or ":") + "; else :"
    lines.append(f"	echo {shlex.quote(at_boot)}")
    lines.append(f"	echo {shlex.quote(wanted.undo or ':')}")
    if wanted.before is not None:
        lines.append(wanted.before)
    lines.append("	echo 'fi'")
    lines.append(f"	echo 'rm -rf pending/{name} backup/{name} stage/{name} undo/{name}'")
    lines.append(f") >undo/{name}")
    lines.append("sync")
    return "\n".join(lines)


def _arm(name: str, seconds: int) -> str:
    unit = UNDO_UNIT.format(state=STATE)
    place = "/etc/systemd/system/homefleet-undo.service"
    return (
        f"cat >stage/undo.service <<'END-OF-UNIT'\n{unit}END-OF-UNIT\n"
        f"if cmp -s stage/undo.service {place} && systemctl -q is-enabled homefleet-undo.service; then :; else\n"
        f"	chmod 644 stage/undo.service; cp stage/undo.service {place}\n"
        "	systemctl daemon-reload; systemctl -q enable homefleet-undo.service\n"
        "fi\n"
        f"mv undo/{name} armed/{name}\n"
        "sync\n"
        f"systemctl -q stop homefleet-undo-{name}.timer homefleet-undo-{name}.service 2>/dev/null || :\n"
        f"systemctl reset-failed homefleet-undo-{name}.service 2>/dev/null || :\n"
        f"systemd-run -q --unit=homefleet-undo-{name} --on-active={seconds} --timer-property=AccuracySec=1s "
        f"sh {STATE}/armed/{name} || "
        f"{{ say 'no timer for the undo, nothing was changed'; sh armed/{name}; exit 1; }}"
    )


def _swap(file: File, staged: str) -> str:
    new = shlex.quote(f"{file.path}.homefleet-new")
    target = shlex.quote(file.path)
    return (
        f"( umask 022; mkdir -p {shlex.quote(str(PurePosixPath(file.path).parent))} )\n"
        f"cp -p {shlex.quote(staged + file.path)} {new} && mv -f {new} {target}"
    )


def _apply(command: str) -> str:
    return (
        f"if ( {command} ) </dev/null >log 2>&1; then :; else\n"
        "	say 'the new files were not accepted, the old ones are back:'\n"
        "	tail -n 5 log >&2\n"
        '	if [ -e "armed/$name" ]; then sh "armed/$name"; else sh "undo/$name"; fi\n'
        "	exit 1\n"
        "fi"
    )


@operation()
def filesets(sets: Sequence[FileSet], openbsd: bool = False) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Bring all configuration sets of a host about, ordinary ones first, dangerous ones last and one at a time.

    Arguments: `sets`; `openbsd`, which tools the host has. A set that is refused or rolled back is recorded as
    failed; the others go on.
    """
    found = read(current_host, FileSets, sets=[query(wanted) for wanted in sets], openbsd=openbsd)
    if found is None:
        yield StringCommand("echo 'the configuration sets of this host could not be read' >&2; exit 1")
        return
    due = [(wanted, plan_set(wanted, found.get(wanted.name, SetState()))) for wanted in sets]
    due = [(wanted, what) for wanted, what in due if what]
    if not due:
        current_host.noop("every configuration set is in place")
        return
    _show(current_host, due)
    for wanted, what in sorted(due, key=lambda pair: pair[0].dangerous):
        yield FunctionCommand(_apply_set, (wanted, what), {})


def _apply_set(state: State, host: Host, wanted: FileSet, due: Due) -> bool:
    del state
    record = outcome(host)
    result = run(host, "sh -s", stdin=script(wanted, due), timeout=SCRIPT_SECONDS)
    if not wanted.dangerous:
        if result is None:
            return False
        if result.ok:
            record.change(wanted.name, due.words())
        else:
            record.fail(wanted.name, result.error)
        return True
    if result is not None and not result.ok:
        record.fail(wanted.name, result.error)
        return True
    record.failed.pop("connection", None)
    confirmed = confirm(host, confirmation(wanted.name), CONFIRM_SECONDS)
    if confirmed is not None and confirmed.ok:
        record.change(wanted.name, f"{due.words()}; confirmed by a new login")
        return True
    record.fail(wanted.name, f"no new login was possible, {host.name} puts the old state back within a minute")
    return confirmed is not None


def _show(host: Host, due: Sequence[tuple[FileSet, Due]]) -> None:
    """Print the differences under ``--diff``, once in either mode; never of a secret file (DESIGN O5)."""
    state = host.state
    if state is None or not state.config.DIFF or state.is_executing == state.check_for_changes:
        return
    for wanted, what in due:
        for file in wanted.files:
            if file.path not in what.changed:
                continue
            if file.secret:
                sys.stderr.write(f"    {host.name}: {file.path} differs (secret, not shown)\n")
                continue
            result = run(host, f"cat {shlex.quote(file.path)} 2>/dev/null || :")
            old = [] if result is None else [f"{line}\n" for line in result.stdout]
            new = file.text.splitlines(keepends=True)
            sys.stderr.writelines(difflib.unified_diff(old, new, f"{host.name}:{file.path}", file.path))
