"""Configuration sets: staged, checked, swapped in whole or rolled back whole (DESIGN D2, D3).

Everything of one set happens in one remote script, which a controller that dies does not stop: see `operations.swap`
for its steps and for who takes the way back. Here is what is due, and how a run tells the host.

A *dangerous* set (network, firewall, sshd, doas) ends with the undo armed: a timer of the host runs it after
`operations.swap.UNDO_SECONDS`, and so does the next boot, unless a new TCP connection and a new login confirm. A set
that people come in by is confirmed by one of them too, who gets as far as the question for a code.
"""

from __future__ import annotations

import difflib
import hashlib
import shlex
import sys
from collections.abc import Callable, Collection, Generator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import PurePosixPath
from secrets import token_hex

from pydantic import SecretStr
from pyinfra import host as current_host
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.host import Host
from pyinfra.api.state import State

from facts.filesets import FileSets, FileState, SetQuery, SetState
from fleet.connector import confirm, keys_at_hand, outcome, read, run
from fleet.model.secret import fill
from fleet.model.service import Daemon, File, FileSet
from operations.steps import Refusal
from operations.swap import UNDO_SECONDS, confirmation, ended, script, settled

CONFIRM_SECONDS = 35
"""How long the controller tries to log in anew; less than the undo needs, so that it never confirms too late."""

SCRIPT_SECONDS = 300
"""After so long without an answer the connection counts as lost: longer than a script waits and its parts may take."""

SILENT_SECONDS = UNDO_SECONDS // 2
"""After so long without an answer from the script of a dangerous set the connection counts as cut by the change.

The script goes on without it, and the confirmation waits for its end: half of the undo's time is left for that.
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


def unsettled(daemons: Sequence[Daemon]) -> frozenset[str]:
    """Return the names of the sets whose change makes one of `daemons` reload or restart."""
    return frozenset(name for daemon in daemons for name in (*daemon.reload_on, *daemon.restart_on))


def held_back(daemons: Sequence[Daemon], own: Mapping[str, Set[str]], failed: Set[str]) -> tuple[Refusal, ...]:
    """Return why those of `daemons` that lean on a set that failed stay as they are. Pure.

    Arguments: `own`, the sets of the service that declares a daemon, by its name; `failed` in this run. Its package may
    have come in this very run, with a configuration that is not ours.
    """
    found = ((it, sorted((own.get(it.name, frozenset()) | unsettled([it])) & failed)) for it in daemons)
    return tuple(Refusal(it.name, f"left as it is: its configuration {sets[0]} failed") for it, sets in found if sets)


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
    `settle`. A set that is refused or rolled back is recorded as failed; the others go on. But dangerous ones lean on
    each other, as rules for a port lean on who listens there: after one that failed the next are not touched.
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
        if what and whole.confirm_logins and not keys_at_hand(current_host, whole.confirm_logins):
            users = " or ".join(login.user for login in whole.confirm_logins)
            message = f"not touched: it needs a key of {users} to try the way in of people with; ssh-add it"
            outcome(current_host).fail(wanted.name, message)
        elif what:
            due.append((whole, what))
    if not due:
        current_host.noop("every configuration set is in place")
        return
    _show(current_host, due)
    for whole, what in sorted(due, key=lambda pair: pair[0].dangerous):
        others = [other for other in sets if other.name != whole.name]
        command = _applied(whole, what, openbsd, whole.name in followed, others)
        yield FunctionCommand(command, (), {})


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
    followed: bool,
    others: Sequence[FileSet],
) -> Callable[[State, Host], bool]:
    """Return what applies one set. A function holds the filled texts: pyinfra prints the arguments of commands."""
    kept = {file.path for other in others for file in other.files}

    def apply(state: State, host: Host) -> bool:
        del state
        record = outcome(host)
        before = [other.name for other in others if other.dangerous and record.has_failed(other.name)]
        if whole.dangerous and before:
            record.fail(whole.name, f"not touched: it may shut the way in that {before[0]} has left open")
            return True
        ticket = token_hex(8)
        text = script(whole, openbsd=openbsd, followed=followed, kept=kept, ticket=ticket)
        result = run(host, "sh -s", stdin=text, timeout=SILENT_SECONDS if whole.dangerous else SCRIPT_SECONDS)
        if result is not None and not result.ok:
            record.fail(whole.name, result.error)
            return True
        if not whole.dangerous:
            if result is not None:
                record.change(whole.name, what.words())
            return result is not None
        if result is None:
            # The script may still be at work, and a login that comes before its end proves nothing of what it does.
            confirm(host, ended(whole.name, openbsd, ticket), CONFIRM_SECONDS)
        record.failed.pop("connection", None)
        return _confirmed(host, whole, what.words(), confirmation(whole.name, openbsd, ticket))

    return apply


def _confirmed(host: Host, whole: FileSet, done: str, command: str) -> bool:
    """Confirm a dangerous set by `command`, record how it went, and return whether the host is still reached."""
    record = outcome(host)
    result = confirm(host, command, CONFIRM_SECONDS, whole.confirm_logins)
    if result is None:
        record.fail(whole.name, f"no new login was possible, {host.name} puts the old state back within a minute")
    elif result.ok:
        record.change(whole.name, f"{done}; confirmed by a new login")
    else:
        record.fail(whole.name, f"not confirmed, {host.name} puts the old state back within a minute: {result.error}")
    return result is not None


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
