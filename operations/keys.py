"""The private keys of a host: made there, and never anywhere else.

A key is born 0600, is of P-256, and belongs to one certificate. One that is there is never replaced: its certificate
would be worth nothing, and only a person knows why it is as it is.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand, operation

from facts.keys import Keys, KeysState, KeyState, digest
from fleet.connector import read
from fleet.pki import certificates
from operations.openbsd.scripts import refuse
from operations.steps import Plan, Refusal, Step, perform

CLOCK_SECONDS = 60
"""By how much a host's clock may differ from ours before it is said: a certificate is valid from an hour back."""

# Whoever owns a folder on the way can put a link there, and root would follow it.
_OURS = """\
foreign=$(find -H "$@" -prune ! -user root ! -user "$(id -un)" 2>/dev/null) || :
[ -z "$foreign" ] || { printf '%s\\n' "not root's alone, so nothing is done there:" "$foreign" >&2; exit 1; }
"""

# openssl(1) of OpenBSD exits with 0 though it could not write all of a key (usr.bin/openssl/ecparam.c): it is read
# back. The last step is a link, which replaces nothing, whoever else has made a key meanwhile.
_MAKE = """\
umask 022
[ -d "$folder" ] || { mkdir -p "${folder%/*}" && mkdir -m "$mode" "$folder"; } || exit 1
umask 077
rm -f "$folder"/.homefleet-key.??????????
new=$(mktemp "$folder/.homefleet-key.XXXXXXXXXX") || exit 1
trap 'rm -f "$new"' EXIT
openssl ecparam -genkey -noout -name prime256v1 -out "$new" </dev/null || exit 1
openssl pkey -noout -in "$new" </dev/null || exit 1
chown "$owner" "$new" && chmod 600 "$new" && sync && ln "$new" "$key" && sync
"""

_MEND = """\
[ -f "$key" ] && [ ! -L "$key" ] && chown "$owner" "$key" && chmod 600 "$key"
"""


@dataclass(frozen=True)
class Key:
    """A private key that a host shall have: absolute `path`, the user `owner` that reads it.

    `name` is what its certificate is called; `certificate` is that in PEM, as the register has it, None before the
    first.
    """

    name: str
    path: str
    owner: str = "root"
    certificate: str | None = None


def plan_keys(wanted: Sequence[Key], found: KeysState, now: float, openbsd: bool = False) -> Plan:
    """Return what makes the keys that are missing and mends who may read the others. Pure.

    Arguments: `now` in seconds since the epoch, which the host's clock is compared with; `openbsd`, whose groups and
    daemons the host has. What is no private key of P-256 is refused. Noted are a key that is not its certificate's, one
    that others may have read, and a clock that is wrong.

    Fails: ValueError for two keys in one file, and for a path that is not absolute.
    """
    check(wanted)
    group = "wheel" if openbsd else "root"
    steps: list[Step] = []
    refused: list[Refusal] = []
    notes = list(_clock(found.clock - now, "ntpd" if openbsd else "systemd-timesyncd"))
    for key in wanted:
        state = found.keys.get(key.path)
        if state is None:
            steps.append(Step(_subject(key), "made", _script(key, group, _MAKE)))
        elif state.public is None:
            message = f"{key.path} is no private key of P-256: move it away, deploy, fleet pki renew, deploy"
            refused.append(Refusal(_subject(key), message))
            continue
        elif (state.owner, state.group, state.mode) != (key.owner, group, 0o600):
            steps.append(Step(_subject(key), f"{_was(state)} -> 0600 {key.owner}:{group}", _script(key, group, _MEND)))
            notes += _read_by_others(key, state)
        if key.certificate is not None and (state is None or state.public != _public(key.certificate)):
            notes.append(f"{key.name}: a new key, its certificate is of another: fleet pki renew")
    return Plan(tuple(steps), tuple(refused), tuple(notes))


def check(wanted: Sequence[Key]) -> None:
    """Fail with ValueError for two keys in one file, and for a path that is not that of a file."""
    paths = [key.path for key in wanted]
    for key in wanted:
        if not key.path.startswith("/") or key.path.endswith("/") or "\n" in key.path:
            raise ValueError(f"key {key.name}: {key.path!r} is no absolute path of a file")
        if paths.count(key.path) > 1:
            raise ValueError(f"key {key.name}: another certificate has its key in {key.path} too")


def _subject(key: Key) -> str:
    return f"key {key.name}"


def _public(certificate: str) -> str:
    return digest(certificates.public_key(certificates.read_certificate(certificate)))


def _clock(ahead: float, daemon: str) -> Iterator[str]:
    """Yield what a clock that is `ahead` by so many seconds means, if it matters."""
    if ahead < -CLOCK_SECONDS:
        yield f"the clock is {-ahead:.0f} s behind: certificates may not be valid there yet: {daemon}"
    elif ahead > CLOCK_SECONDS:
        yield f"the clock is {ahead:.0f} s ahead: certificates may be over there already: {daemon}"


def _read_by_others(key: Key, state: KeyState) -> Iterator[str]:
    if state.mode & 0o077 or state.owner not in (key.owner, "root"):
        yield f"{key.name}: its key was {_was(state)}, others may have read it: docs/runbooks/pki.md, 5"


def _was(state: KeyState) -> str:
    return f"{state.mode:04o} {state.owner}:{state.group}"


def _script(key: Key, group: str, does: str) -> str:
    """Return a script that `does` something to a key, if only root can have a hand in it."""
    folders = PurePosixPath(key.path).parents
    values = {
        "key": key.path,
        "folder": str(folders[0]),
        "mode": "700" if folders[0].name == "private" else "755",
        "owner": f"{key.owner}:{group}",
    }
    given = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items() if f"${name}" in does)
    return f"{given}set -- {shlex.join(map(str, folders))}\n{_OURS}{does}"


@operation()
def keys(wanted: Sequence[Key], openbsd: bool = False) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Make the private keys that a host shall have, and mend whose they are; one that is there is never replaced.

    Arguments: `wanted`; `openbsd`, which tools the host has. Without a key to look after, nothing is asked.
    """
    try:
        check(wanted)
    except ValueError as error:
        yield refuse(error)
        return
    if not wanted:
        host.noop("no private key is wanted")
        return
    found = read(host, Keys, paths=[key.path for key in wanted], openbsd=openbsd)
    if found is None:
        yield StringCommand("echo 'the private keys of this host could not be read' >&2; exit 1")
        return
    yield from perform(plan_keys(wanted, found, time.time(), openbsd))
