"""install(1): contract 9, `usr.bin/xinstall/xinstall.c`."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from . import users
from .program import fail, operand, options
from .unmodelled import unmodelled

NOT_MODELLED = ("install: -f (file flags), -s (strip), modes that are not octal",)

_USAGE = (
    "usage: install [-bCcDdFpSs] [-B suffix] [-f flags] [-g group] [-m mode] [-o owner]\n"
    "               source ... target ...\n"
)


def _number(name: str, known: dict[str, int], what: str) -> int:
    if name in known:
        return known[name]
    if name.isdigit():
        return int(name)
    return fail("install", f"unknown {what} {name}")


def _same(source: Path, target: Path) -> bool:
    return target.is_file() and source.read_bytes() == target.read_bytes()


def _install(source: str, target: Path, given: dict[str, str], mode: int) -> None:
    origin = operand(source)
    if source != "/dev/null" and not origin.exists():
        fail("install", f"{source}: No such file or directory")
    if source != "/dev/null" and not origin.is_file():
        fail("install", f"{source}: Inappropriate file type or format")
    if "-D" in given:
        target.parent.mkdir(parents=True, exist_ok=True)
    if "-C" in given and _same(origin, target):
        return
    if "-b" in given and target.exists():
        target.replace(target.with_name(target.name + given.get("-B", ".old")))
    new = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        if source == "/dev/null":
            new.touch()
        else:
            shutil.copyfile(origin, new)
        if "-p" in given:
            shutil.copystat(origin, new)
        new.chmod(mode)
        new.replace(target)
    except OSError as error:
        new.unlink(missing_ok=True)
        fail("install", f"{target}: {os.strerror(error.errno or 0)}")


def main(argv: Sequence[str]) -> int:
    """Run install(1).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    flags, operands = options("install", argv, "B:bCcDdFf:g:m:o:pSs", _USAGE)
    given = dict(flags)
    if given.keys() & {"-f", "-s"}:
        unmodelled("install", argv, "-f and -s")
    text = given.get("-m", "755")
    if not text or set(text) - set("01234567"):
        unmodelled("install", argv, f"mode {text}")
    mode = int(text, 8)
    uid = _number(given["-o"], {a.name: a.uid for a in users.accounts()}, "user") if "-o" in given else -1
    gid = _number(given["-g"], {g.name: g.gid for g in users.groups()}, "group") if "-g" in given else -1
    made: list[Path] = []
    if "-d" in given:
        if given.keys() & {"-C", "-S"}:
            sys.stderr.write(_USAGE)
            return 1
        for name in operands:
            path = operand(name)
            path.mkdir(parents=True, exist_ok=True)
            made.append(path)
    elif len(operands) < 2 or (len(operands) > 2 and not operand(operands[-1]).is_dir()):
        sys.stderr.write(_USAGE)
        return 1
    else:
        last = operand(operands[-1])
        for source in operands[:-1]:
            target = last / Path(source).name if last.is_dir() else last
            _install(source, target, given, mode)
            made.append(target)
    for path in made:
        try:
            if uid != -1 or gid != -1:
                os.chown(path, uid, gid)
            # chown(2) may have taken the set-user-ID bits away.
            path.chmod(mode)
        except OSError as error:
            fail("install", f"{path}: chown/chgrp: {os.strerror(error.errno or 0)}")
    return 0
