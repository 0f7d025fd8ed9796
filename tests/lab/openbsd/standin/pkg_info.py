"""pkg_info(1) (contract 2.3, 0.3 item 3): what is installed, and where it looks at the mirror instead."""

import sys
from collections.abc import Sequence

from .pkgdb import Installed, Mirror, Package, addresses, installed, spec_fits, wanted
from .unmodelled import unmodelled

NOT_MODELLED = ("pkg_info: descriptions of packages, archives as arguments, options that contract 2.3 does not have",)
_USAGE = "Usage: pkg_info [-AaCcdfIKLMmPqRSstUVvz] [-D nolock] [-E filename] [-e pkg-name] [-l str] [-Q query] \
[-r pkgspec] [pkg-name ...]"


def _line(package: Package, letters: str) -> str:
    if "z" in letters:
        return package.fuzzy
    return package.name if "q" in letters else f"{package.name:<19} {package.comment}"


def _listed(letters: str) -> list[Installed]:
    entries = list(installed().values())
    needed = {name for entry in entries for name in entry.needs}
    return [
        entry
        for entry in entries
        if ("m" not in letters or entry.manual) and ("t" not in letters or entry.package.name not in needed)
    ]


def _exists(spec: str, letters: str) -> int:
    entries = installed().values()
    if "/" in spec:
        found = [
            entry.package.name
            for entry in entries
            if entry.package.pkgpath == spec or entry.package.pkgpath.startswith(f"{spec}/")
        ]
        lines = found
    else:
        if spec_fits(spec, "nothing-0") is None:
            print(f"Invalid spec: {spec}", file=sys.stderr)
            return 1
        found = [entry.package.name for entry in entries if spec_fits(spec, entry.package.name)]
        lines = [f"inst:{name}" for name in found]
    if "q" not in letters:
        for line in lines:
            print(line)
    return 0 if found else 1


def _one(name: str) -> Installed | None:
    entries = installed()
    if name in entries:
        return entries[name]
    return next((entry for entry in entries.values() if wanted(name).fits(entry.package)), None)


def _short(names: Sequence[str], letters: str) -> int:
    code = 0
    for name in names:
        entry = _one(name)
        packages = [entry.package] if entry else Mirror(addresses(snapshots=False)).find(wanted(name))
        for package in packages:
            print(_line(package, letters))
        if not packages:
            print(f"Can't find {name}", file=sys.stderr)
            code = 1
    return code


def _about(names: Sequence[str], letter: str, letters: str, argv: Sequence[str]) -> int:
    for name in names:
        entry = _one(name)
        if entry is None:
            unmodelled("pkg_info", argv, f"-{letter} of {name}, which is not installed")
        if "q" not in letters:
            unmodelled("pkg_info", argv, f"-{letter} without -q")
        package = entry.package
        lines = {
            "L": sorted([*package.files, *package.samples]),
            "P": [package.pkgpath],
            "S": [",".join([package.name, "1", *(f"@{needed}" for needed in entry.needs)])],
            "M": package.message.splitlines(),
        }[letter]
        for line in lines:
            print(line)
    return 0


def _owner(path: str, letters: str) -> int:
    for entry in installed().values():
        if path in entry.package.files or path in entry.package.samples:
            print(f"{path}: {entry.package.name}")
            if "q" not in letters:
                print(_line(entry.package, letters))
            return 0
    return 1


def _query(word: str) -> None:
    present = installed()
    names = sorted({package.name for _, package in Mirror(addresses(snapshots=False)).packages})
    for name in names:
        if word.lower() in name.lower():
            print(f"{name} (installed)" if name in present else name)


class _Wrong(Exception):
    """A letter that pkg_info(1) does not have."""


def _options(argv: Sequence[str]) -> tuple[str, list[tuple[str, str]], list[str]]:
    letters = ""
    asked: list[tuple[str, str]] = []
    words = list(argv)
    while words and words[0].startswith("-") and words[0] != "-":
        cluster = words.pop(0)[1:]
        while cluster:
            letter, cluster = cluster[0], cluster[1:]
            if letter in "eEQD" and (cluster or words):
                asked.append((letter, cluster or words.pop(0)))
                cluster = ""
            elif letter in "qamtzILPSM":
                letters += letter
            elif letter in "ACcdfKRsUVvlr":
                unmodelled("pkg_info", argv, f"option -{letter}")
            else:
                raise _Wrong(letter)
    for letter, value in asked:
        if letter == "D" and value != "nolock":
            unmodelled("pkg_info", argv, f"-D {value}")
    return letters, [(letter, value) for letter, value in asked if letter != "D"], words


def main(argv: list[str]) -> int:
    """Run pkg_info.

    Args:
        argv: its arguments.

    Returns:
        Its exit code; `-Q` leaves 0 also with a dead mirror.
    """
    try:
        letters, asked, words = _options(argv)
    except _Wrong as error:
        print(f"pkg_info: Unknown option -{error}\n{_USAGE}", file=sys.stderr)
        return 1
    code = 0
    for letter, value in asked:
        if letter == "e":
            code = _exists(value, letters) or code
        elif letter == "E":
            code = _owner(value, letters) or code
        else:
            _query(value)
    if asked:
        return code
    detail = next((letter for letter in "LPSM" if letter in letters), None)
    if detail:
        return _about(words or [entry.package.name for entry in _listed(letters)], detail, letters, argv)
    if words and "I" in letters:
        return _short(words, letters)
    if words:
        unmodelled("pkg_info", argv, "the description of a package")
    for entry in _listed(letters):
        print(_line(entry.package, letters))
    return 0
