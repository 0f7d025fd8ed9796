"""encrypt(1): makes the bcrypt hashes of passwords; contract 6."""

import ctypes
import secrets
import sys
from collections.abc import Sequence

from .program import fail, options
from .unmodelled import unmodelled

NOT_MODELLED = ("encrypt: -c, and -p (which asks for the password)",)

_ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_DEFAULT_ROUNDS = 10
_SALT = 21


def bcrypt(password: str, rounds: int) -> str:
    """Return the hash of a password, with a new salt.

    Args:
        password: in clear.
        rounds: the logarithm of the number of rounds, 4 to 31.

    Returns:
        The hash as master.passwd has it.

    Raises:
        OSError: the C library has no bcrypt.
    """
    # The last of the 22 characters has four bits that count; crypt(5) wants the others to be 0.
    salt = "".join(secrets.choice(_ALPHABET) for _ in range(_SALT)) + secrets.choice(".Oeu")
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    result: bytes | None = crypt(password.encode(), f"$2b${rounds:02}${salt}".encode())
    if result is None or not result.startswith(b"$2b$"):
        raise OSError("crypt(3) has no bcrypt")
    return result.decode()


def main(argv: Sequence[str]) -> int:
    """Run encrypt(1).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    flags, operands = options("encrypt", argv, "b:c:p", "usage: encrypt [-b rounds] [-c class] [-p | string]\n")
    given = dict(flags)
    if given.keys() & {"-c", "-p"} or len(operands) > 1:
        unmodelled("encrypt", argv, "-c, -p and several strings")
    text = given.get("-b", str(_DEFAULT_ROUNDS))
    if not text.isdigit() or not 4 <= int(text) <= 31:
        if text == "a":
            text = str(_DEFAULT_ROUNDS)
        else:
            fail("encrypt", f"invalid rounds: {text}")
    for password in operands or sys.stdin.read().splitlines():
        sys.stdout.write(f"{bcrypt(password, int(text))}\n")
    return 0
