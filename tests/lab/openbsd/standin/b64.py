"""b64encode(1) and b64decode(1): contract 9, `usr.bin/uuencode/uuencode.c`."""

import base64
import binascii
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .program import fail, operand, options
from .unmodelled import unmodelled

NOT_MODELLED = ("b64decode: -c -i -s, several files in one input", "uuencode, uudecode")

_LINE = 57
_DECODE_USAGE = "usage: b64decode [-cimprs] [file ...]\n       b64decode [-i] -o output_file [file]\n"


def encode(argv: Sequence[str]) -> int:
    """Run b64encode(1).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    usage = "usage: b64encode [-o output_file] [file] name\n"
    flags, operands = options("b64encode", argv, "o:", usage)
    if len(operands) not in {1, 2}:
        sys.stderr.write(usage)
        return 1
    mode = 0o644
    if len(operands) == 2:
        source = operand(operands[0])
        if not source.exists():
            fail("b64encode", f"{operands[0]}: No such file or directory")
        mode, data = source.stat().st_mode & 0o777, source.read_bytes()
    else:
        mask = os.umask(0)
        os.umask(mask)
        mode, data = 0o666 & ~mask, sys.stdin.buffer.read()
    lines = [base64.b64encode(data[at : at + _LINE]).decode() for at in range(0, len(data), _LINE)]
    text = "\n".join([f"begin-base64 {mode:o} {operands[-1]}", *lines, "====", ""])
    output = dict(flags).get("-o")
    if output:
        operand(output).write_text(text)
    else:
        sys.stdout.write(text)
    return 0


def _decoded(argv: Sequence[str], text: str, *, raw: bool) -> tuple[str, int, bytes]:
    lines = text.splitlines()
    name, mode = "", 0o644
    if not raw:
        begin = next((n for n, line in enumerate(lines) if line.startswith("begin-base64 ")), None)
        if begin is None or "====" not in lines[begin:]:
            unmodelled("b64decode", argv, "an input without its begin or end")
        _, number, name = lines[begin].split(None, 2)
        mode, lines = int(number, 8), lines[begin + 1 : lines.index("====", begin)]
    try:
        return name, mode, base64.b64decode("".join(lines), validate=True)
    except binascii.Error as error:
        return fail("b64decode", f"error decoding base64 input stream: {error}")


def decode(argv: Sequence[str]) -> int:
    """Run b64decode(1).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    flags, operands = options("b64decode", argv, "cimo:prs", _DECODE_USAGE)
    given = dict(flags)
    if given.keys() & {"-c", "-i", "-s"} or len(operands) > 1:
        unmodelled("b64decode", argv, "-c, -i, -s and several files")
    if operands and not operand(operands[0]).exists():
        fail("b64decode", f"{operands[0]}: No such file or directory")
    text = operand(operands[0]).read_text() if operands else sys.stdin.read()
    name, mode, data = _decoded(argv, text, raw="-r" in given)
    if "-p" in given or ("-r" in given and "-o" not in given):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return 0
    target = operand(given.get("-o", name))
    target.write_bytes(data)
    target.chmod(mode & 0o666)
    return 0


def main(argv: Sequence[str]) -> int:
    """Run the command whose name the program was started under.

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    return encode(argv) if Path(sys.argv[0]).name == "b64encode" else decode(argv)
