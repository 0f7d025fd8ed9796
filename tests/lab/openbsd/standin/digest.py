"""md5(1), sha1(1), sha256(1), sha512(1) and kin: contract 9."""

import base64
import hashlib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from .program import operand, options, warn
from .unmodelled import unmodelled

NOT_MODELLED = (
    "md5, sha256 ...: -C -t -x, several algorithms at once (cksum -a)",
    "md5, sha256 -c: lines of GNU's form",
)

_NAMES = {"md5": "MD5", "sha1": "SHA1", "sha224": "SHA224", "sha256": "SHA256", "sha384": "SHA384", "sha512": "SHA512"}
_LINE = re.compile(r"\s*(\w+) \((.*)\) = (\S+)\s*")


def _encoded(data: bytes, *, as_base64: bool) -> str:
    return base64.b64encode(data).decode() if as_base64 else data.hex()


def _digest(name: str, data: bytes) -> bytes:
    return hashlib.new(name, data, usedforsecurity=False).digest()


def _check(program: str, lines: Iterable[str]) -> tuple[str, bool]:
    """Compare files with their checksums; return what to print, and whether everything was as it should be."""
    text, good, found = "", True, False
    known = {label: name for name, label in _NAMES.items()}
    for line in lines:
        match = _LINE.fullmatch(line.rstrip("\n"))
        if match is None or match[1] not in known:
            continue
        found = True
        label, file, wanted = match.groups()
        try:
            data = _digest(known[label], operand(file).read_bytes())
        except OSError as error:
            warn(program, f"cannot open {file}: {os.strerror(error.errno or 0)}")
            result = "MISSING"
        else:
            same = wanted in {_encoded(data, as_base64=False), _encoded(data, as_base64=True)}
            result = "OK" if same else "FAILED"
        good = good and result == "OK"
        text += f"({label}) {file}: {result}\n"
    return text, good and found


def run(program: str, argv: Sequence[str]) -> int:
    """Run one of the commands.

    Args:
        program: its name.
        argv: its arguments.

    Returns:
        The exit code.
    """
    usage = f"usage: {program} [-bcpqrtx] [-C checklist] [-h hashfile] [-s string] [file ...]\n"
    flags, files = options(program, argv, "bC:ch:pqrs:tx", usage)
    given = dict(flags)
    if given.keys() & {"-C", "-t", "-x"}:
        unmodelled(program, argv, "-C, -t and -x")
    label, as_base64 = _NAMES[program], "-b" in given
    if "-c" in given:
        text, good = "", True
        for file in files or ["-"]:
            try:
                lines = (sys.stdin.read() if file == "-" else operand(file).read_text()).splitlines()
            except OSError as error:
                warn(program, f"cannot open {file}: {os.strerror(error.errno or 0)}")
                good = False
                continue
            part, right = _check(program, lines)
            if not part:
                warn(program, f"{file}: no properly formatted checksum lines found")
            text, good = text + part, good and right
        sys.stdout.write(text)
        return 0 if good else 1

    def shown(what: str, data: bytes) -> str:
        digest = _encoded(_digest(program, data), as_base64=as_base64)
        if "-q" in given or not what:
            return f"{digest}\n"
        return f"{digest} {what}\n" if "-r" in given else f"{label} ({what}) = {digest}\n"

    text, code = "", 0
    if "-s" in given:
        text = shown(f'"{given["-s"]}"', given["-s"].encode())
    for file in files if files or "-s" in given else [""]:
        try:
            data = sys.stdin.buffer.read() if file in {"", "-"} else operand(file).read_bytes()
        except OSError as error:
            warn(program, f"cannot open {file}: {os.strerror(error.errno or 0)}")
            code = 1
            continue
        if "-p" in given and not file:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        text += shown("" if file in {"", "-"} else file, data)
    if "-h" in given:
        operand(given["-h"]).write_text(text)
    else:
        sys.stdout.write(text)
    return code


def main(argv: Sequence[str]) -> int:
    """Run the command whose name the program was started under.

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    return run(Path(sys.argv[0]).name, argv)
