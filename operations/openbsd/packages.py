"""Packages of an OpenBSD host as one set; pkg_add(1), pkg_delete(1), openbsd-contract 2."""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand, operation

from facts.openbsd.pkg import DIRECTORY, OpenbsdPackages, Packages
from fleet.connector import read
from operations.openbsd.scripts import STATE, refuse
from operations.steps import Plan, Refusal, Step, perform

_SPEC = re.compile(
    r"(?P<stem>[A-Za-z0-9][A-Za-z0-9+_.]*(?:-[A-Za-z0-9+_.]+)*)--"
    r"(?P<flavours>(?:[A-Za-z][A-Za-z0-9+_.]*(?:-[A-Za-z][A-Za-z0-9+_.]*)*)?)(?:%(?P<branch>[A-Za-z0-9._-]+))?"
)
_NAME = re.compile(r"(?P<stem>.+?)-\d[^-]*(?:-(?P<flavours>.+))?")

# What pkg_add says of a package that it did not install (contract 2.2), and what ftp and signify say before it.
_WORDS = "[Cc]an't|Couldn't|Ambiguous|Problem|Fatal|ftp|signify|: empty|locked"

_FRAME = f"""\
trap '' PIPE HUP
umask 077
mkdir -p {STATE} || exit 1
log={STATE}/packages.log
: >"$log"
umask 022
quietly() {{ "$@" </dev/null >>"$log" 2>&1; }}
failed() {{
	echo "$1:" >&2
	grep -E "{_WORDS}" "$log" | awk '!said[$0]++' | tail -n 3 >&2
	exit 1
}}
"""


@dataclass(frozen=True)
class Spec:
    """A package in the form of ``pkg_info -z``: ``php--%8.3`` is stem php, no flavours, branch 8.3."""

    text: str
    stem: str
    flavours: str
    branch: str


def spec(text: str) -> Spec:
    """Read a package as the inventory names it. Fails: ValueError saying what would be right."""
    match = _SPEC.fullmatch(text)
    if match is None:
        raise ValueError(f"package {text!r}: write it as pkg_info -mz does: rsync--, vim--no_x11, php--%8.3")
    return Spec(text, match["stem"], match["flavours"], match["branch"] or "")


def plan_packages(
    wanted: Sequence[str],
    absent: Sequence[str],
    found: Packages,
    latest: bool = False,
    autoremove: bool = False,
) -> Plan:
    """Return what installs the missing ones of `wanted` and deletes those in `absent`. Pure.

    What is installed is left at its version: ``pkg_add`` would update it, so it is not called. A package that is
    there only because another needs it is marked as asked for. Another flavour of a wanted package is replaced, and
    so is another branch that is in `absent`. `latest` updates everything that the mirror has newer, `autoremove`
    deletes automatic packages that nothing needs. Nothing else is ever deleted.

    Fails: ValueError for a name that is not in the form of ``pkg_info -z``, or is wanted and unwanted at once.
    """
    ours, gone = [spec(text) for text in dict.fromkeys(wanted)], [spec(text) for text in dict.fromkeys(absent)]
    _check(ours, gone)
    missing = [it for it in ours if it.text not in found.manual]
    replacing = [it for it in missing if _replaces(it, gone, found)]
    adding = [it for it in missing if it not in replacing]
    steps = []
    if adding:
        steps.append(_add(adding))
    steps += [_replace(it) for it in replacing]
    deleted, refused = _delete([it for it in gone if it.text in found.every], found)
    steps += deleted
    if latest:
        if found.updates is None:
            refused.append(
                Refusal("updates", "the mirror did not say what is newer: see /etc/installurl and pkg_add -nuv")
            )
        elif any(old != new for old, new in found.updates):
            steps.append(_update([new for old, new in found.updates if old != new]))
    if autoremove and found.unneeded:
        steps.append(_autoremove(found.unneeded))
    return Plan(tuple(steps), tuple(refused))


def _check(ours: Sequence[Spec], gone: Sequence[Spec]) -> None:
    both = {it.text for it in ours} & {it.text for it in gone}
    if both:
        raise ValueError(f"package {min(both)}: wanted and absent at once")
    seen: dict[tuple[str, str], str] = {}
    for it in ours:
        other = seen.setdefault((it.stem, it.branch), it.text)
        if other != it.text:
            raise ValueError(f"package {it.text}: another flavour is wanted as well, {other}; there can be one")


def _replaces(wanted: Spec, gone: Sequence[Spec], found: Packages) -> bool:
    unwanted = {it.text for it in gone}
    for text in found.every - {wanted.text}:
        match = _SPEC.fullmatch(text)
        if match is None or match["stem"] != wanted.stem:
            continue
        if (match["branch"] or "") == wanted.branch or text in unwanted:
            return True
    return False


def _add(specs: Sequence[Spec]) -> Step:
    names = [it.text for it in specs]
    return Step("packages", "installed " + ", ".join(names), _script([f"quietly {_pkg_add('-I', *names)}"], names))


def _replace(it: Spec) -> Step:
    # A conflict makes pkg_add exit with 1, most failures with 0 (contract 0.3.1): the database decides.
    script = _script([f"quietly {_pkg_add('-I', '-r', it.text)}"], [it.text])
    return Step(it.text, f"installed {it.text} in place of what was there", script)


def _pkg_add(*words: str) -> str:
    return 'pkg_add ${d:+-D "$d"} ' + " ".join(shlex.quote(word) for word in words)


def _script(lines: Sequence[str], names: Sequence[str]) -> str:
    """Return a script of `lines` that fails unless `names` are then installed and asked for (DESIGN O6).

    It goes on if the controller dies; pkg_add itself waits for another one that holds the database.
    """
    return f"{DIRECTORY}{_FRAME}d=$(directory) || exit 1\n" + "\n".join(lines) + _each("-mz", names, "not installed")


def _each(option: str, names: Sequence[str], complaint: str, gone: bool = False) -> str:
    """Return the end of a script: it fails with `complaint` for those `names` that ``pkg_info`` does not list.

    Arguments: `option` of pkg_info; `gone`, it shall not list them.
    """
    test = f'{"! " if gone else ""}pkg_info {option} | grep -Fqx -e "$1"'
    calls = "".join(f"each {shlex.quote(name)}\n" for name in names)
    return f'\nleft=\neach() {{ {test} || left="$left $1"; }}\n{calls}[ -z "$left" ] || failed "{complaint}:$left"'


def _delete(specs: Sequence[Spec], found: Packages) -> tuple[list[Step], list[Refusal]]:
    steps, refused = [], []
    for it in specs:
        name = f"{it.stem}%{it.branch}" if it.branch else _full_name(it, found)
        if name is None:
            refused.append(Refusal(it.text, f"{it.text} is installed, but no name of pkg_info -q is its own"))
            continue
        quoted = shlex.quote(it.text)
        # One that was replaced, or went with another, is gone already.
        script = (
            f"{_FRAME}there() {{ pkg_info -zq | grep -Fqx -e {quoted}; }}\n"
            "there || exit 0\n"
            f"quietly pkg_delete -I {shlex.quote(name)}\n"
            f"! there || failed {shlex.quote(f'{it.text} is still installed')}"
        )
        steps.append(Step(it.text, f"deleted {it.text}", script))
    return steps, refused


def _full_name(it: Spec, found: Packages) -> str | None:
    matches = ((name, _NAME.fullmatch(name)) for name in sorted(found.names))
    names = [
        name for name, match in matches if match and (match["stem"], match["flavours"] or "") == (it.stem, it.flavours)
    ]
    return names[0] if len(names) == 1 else None


def _update(names: Sequence[str]) -> Step:
    lines = f"{DIRECTORY}{_FRAME}d=$(directory) || exit 1\nquietly {_pkg_add('-Iu')}"
    script = lines + _each("-q", names, "not updated to")
    return Step("updates", "updated to " + ", ".join(names), script)


def _autoremove(names: Sequence[str]) -> Step:
    script = f"{_FRAME}quietly pkg_delete -I -a" + _each("-q", names, "still installed", gone=True)
    return Step("autoremove", "deleted, nothing needs them: " + ", ".join(names), script)


@operation()
def packages(
    wanted: Sequence[str], absent: Sequence[str] = (), latest: bool = False, autoremove: bool = False
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Install, and on request delete or update, the packages of a host.

    Arguments: `wanted` and `absent`, in the form of ``pkg_info -z`` (``rsync--``, ``redis--%bsd``); `latest` updates
    all packages; `autoremove` deletes the automatic ones that nothing needs.

    Fails the host for wrong arguments, before anything is touched, and with pkg_add's words for what is not there
    afterwards.
    """
    try:
        plan_packages(wanted, absent, Packages())
    except ValueError as error:
        yield refuse(error)
        return
    found = read(host, OpenbsdPackages, unneeded=autoremove, updates=latest)
    if found is None:
        yield StringCommand("echo 'the packages of this host could not be read' >&2; exit 1")
        return
    yield from perform(plan_packages(wanted, absent, found, latest, autoremove))
