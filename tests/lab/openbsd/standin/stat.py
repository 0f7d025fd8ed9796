"""stat(1): contract 9, `usr.bin/stat/stat.c`."""

import grp
import os
import pwd
import re
import stat
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .program import fail, operand, options, warn
from .unmodelled import unmodelled

NOT_MODELLED = (
    "stat: %B, %v, %Sd, %Sr, %Z of a device",
    "stat: file flags (%f is 0)",
)

_DEFAULT = '%d %i %Sp %l %Su %Sg %r %z "%Sa" "%Sm" "%Sc" %k %b %#Xf %N'
_FORMATS = {
    "r": "%d %i %#p %l %u %g %r %z %a %m %c %k %b %f %N",
    "l": "%Sp %l %Su %Sg %Z %Sm %N%SY",
    "s": (
        "st_dev=%d st_ino=%i st_mode=%#p st_nlink=%l st_uid=%u st_gid=%g st_rdev=%r st_size=%z "
        "st_atime=%a st_mtime=%m st_ctime=%c st_blksize=%k st_blocks=%b st_flags=%f"
    ),
    "x": (
        '  File: "%N"%n  Size: %-11z  FileType: %HT%n'
        "  Mode: (%01Mp%03OLp/%.10Sp)         Uid: (%5u/%8Su)  Gid: (%5g/%8Sg)%n"
        "Device: %Hd,%Ld   Inode: %i    Links: %l%nAccess: %Sa%nModify: %Sm%nChange: %Sc"
    ),
}
_LONG_WITH_TYPE = "%Sp %l %Su %Sg %Z %Sm %N%T%SY"
_USAGE = "usage: stat [-FLnq] [-f format | -l | -r | -s | -x] [-t timefmt] [file ...]\n"
_FIELD = re.compile(r"%(?:([nt%@])|([-# +0]*)(\d*)(?:\.(\d*))?([DOUXFS]?)([HML]?)([diplugramcBzbkfvYTNZ]))")
_NUMERIC = "DOUX"
_MARKS = {stat.S_IFIFO: "|", stat.S_IFDIR: "/", stat.S_IFLNK: "@", stat.S_IFSOCK: "="}
_TYPES = {
    stat.S_IFIFO: "Fifo File",
    stat.S_IFCHR: "Character Device",
    stat.S_IFDIR: "Directory",
    stat.S_IFBLK: "Block Device",
    stat.S_IFREG: "Regular File",
    stat.S_IFLNK: "Symbolic Link",
    stat.S_IFSOCK: "Socket",
}


@dataclass(frozen=True)
class _Datum:
    """What a field can print: a number, a text, in which forms, and in which without being told."""

    number: int
    text: str | None
    forms: str
    default: str


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"({uid})"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"({gid})"


def _mode(status: os.stat_result, piece: str) -> _Datum:
    text, number = stat.filemode(status.st_mode), status.st_mode
    number = {"H": number >> 12, "M": number >> 9 & 0o7, "L": number & 0o777}.get(piece, number)
    text = {"H": text[1:4], "M": text[4:7], "L": text[7:10]}.get(piece, text)
    return _Datum(number, text, _NUMERIC + "S", "O")


def _type(status: os.stat_result, piece: str) -> _Datum:
    kind = stat.S_IFMT(status.st_mode)
    if piece == "H":
        return _Datum(0, _TYPES.get(kind, "???"), "S", "S")
    mark = "*" if kind == stat.S_IFREG and status.st_mode & 0o111 else _MARKS.get(kind, "")
    return _Datum(0, mark, "S", "S")


def _link(status: os.stat_result, file: str, form: str) -> _Datum:
    if not stat.S_ISLNK(status.st_mode):
        return _Datum(0, "", "S", "S")
    return _Datum(0, (" -> " if form == "S" else "") + str(operand(file).readlink()), "S", "S")


def _time(status: os.stat_result, what: str, form: str) -> _Datum:
    nanoseconds = {"a": status.st_atime_ns, "m": status.st_mtime_ns, "c": status.st_ctime_ns}[what]
    seconds = nanoseconds // 10**9
    return _Datum(seconds, time.strftime(form, time.localtime(seconds)), _NUMERIC + "S", "D")


def _datum(status: os.stat_result, file: str, what: str, piece: str, form: str, time_form: str) -> _Datum | None:
    """Return what a field prints; None if it is not modelled."""
    simple = {"i": status.st_ino, "l": status.st_nlink, "z": status.st_size, "b": status.st_blocks}
    simple |= {"k": status.st_blksize, "f": 0}
    if what == "Z" and not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        what = "z"
    found: _Datum | None = None
    if what in simple:
        found = _Datum(simple[what], None, _NUMERIC, "U")
    elif what == "p":
        found = _mode(status, piece)
    elif what in "ug":
        name = _user(status.st_uid) if what == "u" else _group(status.st_gid)
        found = _Datum(status.st_uid if what == "u" else status.st_gid, name, _NUMERIC + "S", "U")
    elif what in "amc":
        found = _time(status, what, time_form)
    elif what in "dr" and form != "S":
        device = status.st_dev if what == "d" else status.st_rdev
        number = {"H": os.major(device), "L": os.minor(device)}.get(piece, device)
        found = _Datum(number, None, _NUMERIC, "U")
    elif what == "N":
        found = _Datum(0, file, "S", "S")
    elif what == "T":
        found = _type(status, piece)
    elif what == "Y":
        found = _link(status, file, form)
    return found


def _printf(flags: str, width: str, precision: str | None, form: str, datum: _Datum) -> str:
    conversion = {"D": "d", "O": "o", "U": "d", "X": "x", "S": "s"}[form]
    value: int | str = datum.number
    if form == "S":
        value, flags = datum.text or "", "-" if "-" in flags else ""
    elif form == "O":
        # C writes a leading 0 where Python would write 0o.
        text = f"{datum.number:o}"
        value, conversion = ("0" if "#" in flags and datum.number else "") + text, "s"
        if "0" in flags and "-" not in flags and width:
            value = value.rjust(int(width), "0")
        flags = "-" if "-" in flags else ""
    return f"%{flags}{width}{f'.{precision}' if precision is not None else ''}{conversion}" % value


def line(argv: Sequence[str], status: os.stat_result, file: str, form: str, number: int, time_form: str) -> str:
    """Return what a format prints of a file.

    Args:
        argv: all arguments, for what is not modelled.
        status: the file's.
        file: its name as it was given.
        form: the format.
        number: which of the files it is, from 1.
        time_form: how times are printed; strftime(3).
    """
    text, at = "", 0
    while at < len(form):
        if form[at] != "%":
            text, at = text + form[at], at + 1
            continue
        match = _FIELD.match(form, at)
        if match is None:
            fail("stat", f"{form[at : at + 2]}: bad format")
        simple, flags, width, precision, wanted, piece, what = match.groups()
        at = match.end()
        if simple:
            text += {"n": "\n", "t": "\t", "%": "%", "@": str(number)}[simple]
            continue
        datum = _datum(status, file, what, piece, wanted, time_form)
        if datum is None or wanted == "F":
            unmodelled("stat", argv, match[0])
        if (
            (piece and what not in "pdrT")
            or (piece == "M" and what != "p")
            or (wanted or datum.default) not in datum.forms
        ):
            fail("stat", f"{match[0]}: bad format")
        text += _printf(flags, width, precision, wanted or datum.default, datum)
    return text


def main(argv: Sequence[str]) -> int:
    """Run stat(1).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    flags, files = options("stat", argv, "f:FlLnqrst:x", _USAGE)
    given = {flag[1] for flag, _ in flags}
    chosen = [(flag[1], value) for flag, value in flags if flag[1] in "flrsx"]
    if len(chosen) > 1:
        fail("stat", f"can't use format '{chosen[0][0]}' with '{chosen[1][0]}'")
    letter, value = chosen[0] if chosen else ("l" if "F" in given else "f", _DEFAULT)
    if "F" in given and letter != "l":
        fail("stat", f"can't use format '{letter}' with -F")
    form = value if letter == "f" else _LONG_WITH_TYPE if "F" in given else _FORMATS[letter]
    time_form = next((text for flag, text in flags if flag == "-t"), "%c" if letter == "x" else "%b %e %T %Y")
    code = 0
    for number, file in enumerate(files or [""], 1):
        try:
            status = _status(file, follow="L" in given)
        except OSError as error:
            code = 1
            if "q" not in given:
                warn("stat", f"{file or '(stdin)'}: {os.strerror(error.errno or 0)}")
            continue
        text = line(argv, status, file, form, number, time_form)
        newline = "" if "n" in given or text.endswith("\n") else "\n"
        sys.stdout.write(text + newline)
    return code


def _status(file: str, *, follow: bool) -> os.stat_result:
    if not file:
        return os.fstat(0)
    path: Path = operand(file)
    try:
        return path.stat() if follow else path.lstat()
    except FileNotFoundError:
        if not follow:
            raise
        return path.lstat()
