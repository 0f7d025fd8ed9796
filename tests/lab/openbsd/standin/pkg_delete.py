"""pkg_delete(1) (contract 2.4): unlike pkg_add(1) it tells the truth in its exit code."""

import os
import sys

from .pkgdb import Installed, installed, locked, take, wanted
from .unmodelled import unmodelled

NOT_MODELLED = ("pkg_delete: -n, -q, -s, -v, -V, -X, questions on a terminal",)
_USAGE = "Usage: pkg_delete [-acdiImnqsVvXx] [-B pkg-destdir] [-D name[=value]] [pkg-name ...]"


def _unneeded() -> list[Installed]:
    entries = installed()
    needed: set[str] = set()
    todo = [entry for entry in entries.values() if entry.manual]
    while todo:
        entry = todo.pop()
        for name in entry.needs:
            if name not in needed and name in entries:
                needed.add(name)
                todo.append(entries[name])
    return [entry for entry in entries.values() if not entry.manual and entry.package.name not in needed]


def _in_order(entries: list[Installed]) -> list[Installed]:
    """Sort so that nothing is removed before what needs it."""
    names = {entry.package.name for entry in entries}
    left, sorted_entries = list(entries), []
    while left:
        free = [entry for entry in left if not any(entry.package.name in other.needs for other in left)]
        assert free, f"a circle of dependencies in {names}"
        sorted_entries += free
        left = [entry for entry in left if entry not in free]
    return sorted_entries


def _options(argv: list[str]) -> tuple[str, list[str]] | None:
    letters = ""
    words = list(argv)
    while words and words[0].startswith("-"):
        for letter in words.pop(0)[1:]:
            if letter in "nqsvVXidBD":
                unmodelled("pkg_delete", argv, f"option -{letter}")
            if letter not in "Iacmx":
                print(f"pkg_delete: Unknown option -{letter}\n{_USAGE}", file=sys.stderr)
                return None
            letters += letter
    if not words and "a" not in letters:
        print(f"pkg_delete: Missing pkgname\n{_USAGE}", file=sys.stderr)
        return None
    if os.geteuid() != 0:
        print("pkg_delete: pkg_delete must be run as root", file=sys.stderr)
        return None
    if "I" not in letters and sys.stdin is not None and sys.stdin.isatty():
        unmodelled("pkg_delete", argv, "questions on a terminal: there is no -I")
    return letters, words


def _delete(argv: list[str], letters: str, words: list[str]) -> int:
    code = 0
    chosen: list[Installed] = _unneeded() if "a" in letters and not words else []
    for word in words:
        fitting = [entry for entry in installed().values() if wanted(word).fits(entry.package)]
        if not fitting:
            print(f"Problem finding {word}")
            print(f"Can't find {word}", file=sys.stderr)
            code = 1
        elif len(fitting) > 1:
            unmodelled("pkg_delete", argv, f"{word} is several packages")
        chosen += fitting
    names = {entry.package.name for entry in chosen}
    for name in names:
        others = [other for other, entry in installed().items() if name in entry.needs and other not in names]
        if others:
            print(f"can't delete {name} without deleting {' '.join(others)}", file=sys.stderr)
            return 1
    for entry in _in_order(chosen):
        advice = take(entry, extra="c" in letters)
        if advice:
            print(f"--- -{entry.package.name} -------------------")
            print("\n".join(advice))
    return code


def main(argv: list[str]) -> int:
    """Run pkg_delete.

    Args:
        argv: `-I`, `-a`, `-c`, `-m`, `-x`, then names as pkg_add(1) takes them.

    Returns:
        0; 1 for what is not installed or is needed by others.
    """
    asked = _options(argv)
    if asked is None:
        return 1
    with locked():
        return _delete(argv, *asked)
