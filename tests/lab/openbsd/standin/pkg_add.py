"""pkg_add(1) (contract 0.3 items 1 and 12, 2.2, 2.5): 0 also when it installed nothing."""

import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .pkgdb import (
    Installed,
    Mirror,
    Package,
    Wanted,
    addresses,
    installed,
    locked,
    order,
    put,
    record,
    spec_fits,
    wanted,
)
from .place import root
from .unmodelled import unmodelled

NOT_MODELLED = (
    "pkg_add: questions on a terminal, files and URLs as arguments, patterns as arguments",
    "pkg_add -n without -u, -v without -nu, -c when an update happens, and options that contract 2.2 does not have",
    "pkg_add -u of a package that the mirror no longer has",
)
_USAGE = "Usage: pkg_add [-acdiInqrsUuVvxz] [-A arch] [-B pkg-destdir] [-D name[=value]] [-L localbase] [-l file] \
[-P type] [pkg-name ...]"


@dataclass
class _Run:
    """What an invocation was asked and what it has to say at its end."""

    argv: Sequence[str]
    letters: str = ""
    definitions: set[str] = field(default_factory=set)
    lists: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    code: int = 0
    notices: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    readmes: list[str] = field(default_factory=list)
    greeted: bool = False


def _wrong(text: str) -> int:
    print(f"pkg_add: {text}\n{_USAGE}", file=sys.stderr)
    return 1


def _options(argv: Sequence[str]) -> _Run | int:
    run = _Run(argv)
    words = list(argv)
    while words and words[0].startswith("-") and words[0] != "-":
        letters = words.pop(0)[1:]
        if letters == "-":
            break
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in "lD" and (letters or words):
                argument, letters = letters or words.pop(0), ""
                (run.lists.append if letter == "l" else run.definitions.add)(argument)
            elif letter in "aIncurUzvxm":
                run.letters += letter
            elif letter in "dhiLPqsVAB":
                unmodelled("pkg_add", argv, f"option -{letter}")
            else:
                return _wrong(f"Unknown option -{letter}")
    run.names = words
    return run


def _plain(run: _Run) -> None:
    for name in run.names:
        if "/" in name or any(sign in name for sign in "*<>="):
            unmodelled("pkg_add", run.argv, f"{name} is no stem and no name")
    other = run.definitions - {"snap", "unsigned", "nolock"}
    if other:
        unmodelled("pkg_add", run.argv, f"-D {other.pop()}")
    if "n" in run.letters and "u" not in run.letters:
        unmodelled("pkg_add", run.argv, "-n without -u")
    if "v" in run.letters and not {"n", "u"} <= set(run.letters):
        unmodelled("pkg_add", run.argv, "-v without -nu")
    if "I" not in run.letters and sys.stdin is not None and sys.stdin.isatty():
        unmodelled("pkg_add", run.argv, "questions on a terminal: there is no -I")


def _cannot_find(run: _Run, argument: Wanted) -> None:
    if argument.exact:
        print(f"Can't find {argument.text}\nCouldn't install {argument.text}")
        run.code = 1
    else:
        print(f"Can't find {argument.text}", file=sys.stderr)


def _greet(run: _Run, mirror: Mirror) -> None:
    if run.greeted:
        return
    run.greeted = True
    quirks = mirror.find(wanted("quirks"))
    if not quirks:
        return
    print(f"{quirks[0].name} signed on 2026-11-21T10:22:33Z")
    if quirks[0].name not in installed():
        old = next((entry for entry in installed().values() if entry.package.stem == "quirks"), None)
        put(quirks[0], manual=True, needs=(), replaced=old)


def _signed(run: _Run, mirror: Mirror, package: Package) -> bool:
    if not package.unsigned or "unsigned" in run.definitions:
        return True
    print(f"{mirror.address_of(package)}{package.name}.tgz: signify: unsigned or bad input", file=sys.stderr)
    print(f"Couldn't install {package.name}")
    run.code = 1
    return False


def _needs(run: _Run, mirror: Mirror, package: Package) -> list[str] | None:
    names = []
    for spec in package.depends:
        present = next((name for name in installed() if spec_fits(spec, name)), None)
        candidates = mirror.satisfying(spec)
        newer = bool(candidates) and present is not None and candidates[0].name != present
        if present is not None and not ("U" in run.letters and newer):
            names.append(present)
            continue
        if not candidates:
            print(f"Can't install {package.name}: can't resolve {spec}")
            run.code = 1
            return None
        old = installed().get(present) if present else None
        if not _place(run, mirror, candidates[0], manual=old.manual if old else False, old=old):
            return None
        names.append(candidates[0].name)
    return names


def _place(run: _Run, mirror: Mirror, package: Package, *, manual: bool, old: Installed | None) -> bool:
    """Install one package with what it needs; False if something was in the way, which is then said."""
    if not _signed(run, mirror, package):
        return False
    needs = _needs(run, mirror, package)
    if needs is None:
        return False
    _greet(run, mirror)
    put(package, manual=manual, needs=needs, replaced=old)
    if old:
        _follow(old.package.name, package.name)
    if "m" in run.letters:
        print(f"\r{package.name}: ok")
    if old is None:
        run.scripts += [path for path in package.files if path.startswith("/etc/rc.d/")]
        run.readmes += [path for path in package.files if path.startswith("/usr/local/share/doc/pkg-readmes/")]
        if package.message:
            run.notices.append(f"--- +{package.name} -------------------\n{package.message.rstrip()}")
    return True


def _follow(old: str, new: str) -> None:
    """Let the packages that needed the old one need the new one."""
    for entry in installed().values():
        if old in entry.needs:
            record(replace(entry, needs=tuple(new if name == old else name for name in entry.needs)))


def _conflicting(package: Package) -> list[Installed]:
    return [
        entry
        for entry in installed().values()
        if entry.package.stem == package.stem and not (package.coexists and entry.package.pkgpath != package.pkgpath)
    ]


def _same(entry: Installed, package: Package) -> bool:
    mine = entry.package
    return mine.pkgpath == package.pkgpath and mine.stem == package.stem and set(mine.flavours) == set(package.flavours)


def _mark(run: _Run, entry: Installed) -> None:
    manual = entry.manual
    if run.letters.count("a") > 1:
        manual = False
    elif "a" not in run.letters:
        manual = True
    if manual != entry.manual:
        record(replace(entry, manual=manual))


def _add(run: _Run, mirror: Mirror, name: str) -> None:
    argument = wanted(name)
    found = mirror.find(argument)
    if not found:
        present = installed().get(name) if argument.exact and mirror.alive else None
        if present:
            _mark(run, present)
            return
        _cannot_find(run, argument)
        return
    if len(found) > 1:
        names = [package.name for package in found]
        # Perl's hashes have no order: nothing may be read out of it.
        random.shuffle(names)
        print(f"Ambiguous: {name} could be {' '.join(names)}", file=sys.stderr)
        return
    package = found[0]
    entry = next((entry for entry in installed().values() if _same(entry, package)), None)
    newer = entry is None or order(package.version) > order(entry.package.version)
    if entry and (not newer or package.name == entry.package.name):
        _mark(run, entry)
        return
    others = [other for other in _conflicting(package) if not _same(other, package)]
    if others and "r" not in run.letters:
        names = [other.package.name for other in others]
        print(f"--- {package.name} -------------------")
        print(f"Can't install {package.name}: conflicts\nCouldn't install {package.name}")
        print(f"Can't install {package.name} because of conflicts ({','.join(names)})", file=sys.stderr)
        run.code = 1
        return
    old = entry or (others[0] if others else None)
    _place(run, mirror, package, manual="a" not in run.letters, old=old)


def _candidate(mirror: Mirror, entry: Installed) -> Package | None:
    found = [package for _, package in mirror.packages if _same(entry, package)]
    return max(found, key=lambda package: order(package.version)) if found else None


def _update(run: _Run, mirror: Mirror) -> None:
    if not mirror.alive:
        for name in run.names:
            print(f"Can't find {name}", file=sys.stderr)
        print("Couldn't find any update")
        run.code = 1
        return
    entries = list(installed().values())
    if run.names:
        entries = []
        for name in run.names:
            fitting = [entry for entry in installed().values() if wanted(name).fits(entry.package)]
            if not fitting:
                print(f"Problem finding {name}")
                print(f"Can't find {name}", file=sys.stderr)
            entries += fitting
    for entry in entries:
        package = _candidate(mirror, entry)
        if package is None:
            unmodelled("pkg_add", run.argv, f"the mirror no longer has {entry.package.name}")
        newer = order(package.version) > order(entry.package.version)
        if "n" in run.letters:
            if "v" in run.letters:
                print(f"Update candidates: {entry.package.name} -> {package.name}")
                if newer:
                    print(f"Adding {entry.package.name}->{package.name}(pretending)")
            continue
        if newer and entry.package.name in installed():
            if "c" in run.letters:
                unmodelled("pkg_add", run.argv, "-c with an update")
            _place(run, mirror, package, manual=entry.manual, old=entry)


def _read_lists(run: _Run) -> int:
    for path in run.lists:
        try:
            lines = root(path).read_text().splitlines()
        except OSError as error:
            print(f"pkg_add: bad list {path}: {error.strerror}", file=sys.stderr)
            return 1
        names = [line.split()[0] for line in lines if line.strip()]
        run.names += [_fuzzy(name) if "z" in run.letters else name for name in names]
    return 0


def _fuzzy(name: str) -> str:
    argument = wanted(name)
    return Package(name, "", "").fuzzy if argument.exact else name


def main(argv: list[str]) -> int:
    """Run pkg_add.

    Args:
        argv: its arguments.

    Returns:
        Its exit code: 0 also for what is not found, is ambiguous, or when the mirror is dead (contract 0.3 item 1).
    """
    run = _options(argv)
    if isinstance(run, int):
        return run
    if _read_lists(run):
        return 1
    if not run.names and "u" not in run.letters and not run.lists:
        return _wrong("Missing pkgname")
    if os.geteuid() != 0 and "n" not in run.letters:
        print("pkg_add: pkg_add must be run as root", file=sys.stderr)
        return 1
    _plain(run)
    if "n" in run.letters:
        _update(run, Mirror(addresses(snapshots="snap" in run.definitions)))
        return run.code
    with locked():
        mirror = Mirror(addresses(snapshots="snap" in run.definitions))
        if "u" in run.letters:
            _update(run, mirror)
        else:
            for name in run.names:
                _add(run, mirror, name)
    if run.scripts:
        print(f"The following new rcscripts were installed: {' '.join(run.scripts)}")
        print("See rcctl(8) for details.")
    if run.readmes:
        print("New and changed readme(s):")
        for path in run.readmes:
            print(f"\t{path}")
    for notice in run.notices:
        print(notice)
    return run.code
