"""Configuration sets: staged, checked, swapped in whole or rolled back whole (DESIGN D2, D3).

Everything of one set happens in one remote script, which a controller that dies does not stop: see `operations.swap`
for its steps and for who takes the way back. Here is what is due, and how a run tells the host.

A *dangerous* set (network, firewall, sshd, doas) ends with the undo armed: a timer of the host runs it after
`operations.swap.UNDO_SECONDS`, and so does the next boot, unless a new TCP connection and a new login confirm.
"""

from __future__ import annotations

import difflib
import hashlib
import shlex
import sys
from collections.abc import Callable, Collection, Generator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import SecretStr
from pyinfra import host as current_host
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.host import Host
from pyinfra.api.state import State

from facts.filesets import FileSets, FileState, SetQuery, SetState
from fleet.connector import confirm, outcome, read, run
from fleet.model.secret import MASK, fill, mask
from fleet.model.service import Daemon, File, FileSet
from operations.swap import confirmation, script, settled

CONFIRM_SECONDS = 35
"""How long the controller tries to log in anew; less than the undo needs, so that it never confirms too late."""

SCRIPT_SECONDS = 300
"""After so long without an answer the connection counts as cut by the change itself."""

MASKED_LENGTH = 8
"""So many characters of a secret in a row are never shown: a parser may quote a part of the line that it refuses."""


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

    @property
    def away(self) -> tuple[str, ...]:
        """The paths that go with the swap."""
        return tuple(dict.fromkeys((*self.removed, *self.strays)))

    def words(self) -> str:
        """Return what was done, for the closing lines."""
        said = [PurePosixPath(path).name for path in self.changed]
        said += [f"without {PurePosixPath(path).name}" for path in self.away]
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


def filled(wanted: FileSet, values: Mapping[str, SecretStr]) -> FileSet:
    """Return `wanted` with the secrets of `values` in the place of their marks; such a file counts as secret.

    Raises ValueError, without a value in it, for a mark that has none.
    """
    files = []
    for file in wanted.files:
        text = fill(file.text, values)
        files.append(file.model_copy(update={"text": text, "secret": file.secret or text != file.text}))
    return wanted.model_copy(update={"files": tuple(files)})


def masked(text: str, values: Collection[SecretStr]) -> str:
    """Return `text`, such as the words of a parser, without the secrets of `values` (DESIGN O5).

    Also what is only a part of a secret goes, from `MASKED_LENGTH` characters on.
    """
    text = mask(text, values)
    secret = [value.get_secret_value() for value in values]
    hidden: set[int] = set()
    for start in range(len(text) - MASKED_LENGTH + 1):
        piece = text[start : start + MASKED_LENGTH]
        if any(piece in value for value in secret):
            hidden.update(range(start, start + MASKED_LENGTH))
    shown = ""
    for at, letter in enumerate(text):
        if at not in hidden:
            shown += letter
        elif at - 1 not in hidden:
            shown += MASK
    return shown


def unsettled(daemons: Sequence[Daemon]) -> frozenset[str]:
    """Return the names of the sets whose change makes one of `daemons` reload or restart."""
    return frozenset(name for daemon in daemons for name in (*daemon.reload_on, *daemon.restart_on))


def to_settle(daemons: Sequence[Daemon], changed: Set[str], failed: Set[str]) -> tuple[str, ...]:
    """Return the sets that changed and whose `daemons` have all followed. Pure.

    Arguments: `changed` and `failed`, what changed and what failed in this run, sets and daemons alike.
    """
    waiting = unsettled([daemon for daemon in daemons if daemon.name in failed])
    return tuple(sorted((unsettled(daemons) & changed) - waiting - failed))


@operation()
def filesets(
    sets: Sequence[FileSet],
    openbsd: bool = False,
    values: Mapping[str, SecretStr] | None = None,
    followed: Collection[str] = (),
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Bring all configuration sets of a host about, ordinary ones first, dangerous ones last and one at a time.

    Arguments: `sets`, with marks for secrets; `openbsd`, which tools the host has; `values` of this host's secrets by
    slot; `followed`, the sets that a daemon of a later operation follows (`unsettled`): they stay pending until
    `settle`. A set that is refused or rolled back is recorded as failed; the others go on.
    """
    secrets = values or {}
    found = read(current_host, FileSets, sets=[query(wanted) for wanted in sets], openbsd=openbsd)
    if found is None:
        yield StringCommand("echo 'the configuration sets of this host could not be read' >&2; exit 1")
        return
    due: list[tuple[FileSet, Due]] = []
    for wanted in sets:
        try:
            whole = filled(wanted, secrets)
        except ValueError as error:
            outcome(current_host).fail(wanted.name, str(error))
            continue
        what = plan_set(whole, found.get(wanted.name, SetState()))
        if what:
            due.append((whole, what))
    if not due:
        current_host.noop("every configuration set is in place")
        return
    _show(current_host, due)
    for whole, what in sorted(due, key=lambda pair: pair[0].dangerous):
        kept = {file.path for other in sets if other.name != whole.name for file in other.files}
        yield FunctionCommand(_applied(whole, what, openbsd, secrets, whole.name in followed, kept), (), {})


@operation()
def settle(daemons: Sequence[Daemon], openbsd: bool = False) -> Generator[FunctionCommand, None, None]:
    """End the sets of this run whose `daemons` have followed: those of a failed daemon stay pending.

    So a run that dies between configuration and daemons is finished by the next one. Costs an exec only where a set
    that a daemon follows has changed.
    """
    record = outcome(current_host)
    names = to_settle(daemons, set(record.changed), set(record.failed))
    if not names:
        current_host.noop("no daemon had to follow a configuration set")
        return

    def end(state: State, host: Host) -> bool:
        del state
        return run(host, settled(names, openbsd)) is not None

    yield FunctionCommand(end, (), {})


def _applied(
    whole: FileSet,
    what: Due,
    openbsd: bool,
    secrets: Mapping[str, SecretStr],
    followed: bool,
    kept: Collection[str],
) -> Callable[[State, Host], bool]:
    """Return what applies one set. A function holds the filled texts: pyinfra prints the arguments of commands."""

    def apply(state: State, host: Host) -> bool:
        del state
        record = outcome(host)
        text = script(whole, openbsd=openbsd, followed=followed, kept=kept)
        result = run(host, "sh -s", stdin=text, timeout=SCRIPT_SECONDS)
        if result is not None and not result.ok:
            record.fail(whole.name, masked(result.error, secrets.values()))
            return True
        if not whole.dangerous:
            if result is not None:
                record.change(whole.name, what.words())
            return result is not None
        record.failed.pop("connection", None)
        confirmed = confirm(host, confirmation(whole.name, openbsd), CONFIRM_SECONDS)
        if confirmed is None:
            record.fail(whole.name, f"no new login was possible, {host.name} puts the old state back within a minute")
        elif confirmed.ok:
            record.change(whole.name, f"{what.words()}; confirmed by a new login")
        else:
            record.fail(whole.name, f"the new login came too late, {host.name} has put the old state back")
        return confirmed is not None

    return apply


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
