"""Answers PAM for sshd as BSD authentication does: the styles of the user's login class; contract 5.9, 14.

sshd asks for the authentication type `auth-ssh`; a class without that list uses its `auth`. Without a wish of the
user's the first style of the list is the one. Called by pam_exec(8): PAM_USER is the user, the answer comes on stdin.
"""

import ctypes
import hashlib
import hmac
import os
import struct
import sys
import time
from collections.abc import Sequence

from . import login_conf, users
from .place import root
from .unmodelled import unmodelled

NOT_MODELLED = (
    "login styles: all but passwd, reject and -totp (skey passes nobody: nobody has keys)",
    "login_-totp: other codes than six digits of SHA-1 in half minutes",
    "login_-totp: that a code counts once, and that one step to either side does, is ours: the contract is silent",
)

TYPE = "auth-ssh"
PROGRAMS = "/usr/libexec/auth"
KEY = ".totp-key"
USED = "/var/standin/totp"
"""The last step that each user's code was of."""

STEP = 30
_DRIFT = 1
_DIGITS = 6
_REJECTED = 1


def styles(login_class: str) -> list[str]:
    """Return the styles that sshd may use for a class; login.conf(5).

    Args:
        login_class: the class.
    """
    for name in (TYPE, "auth"):
        value = login_conf.capability(login_class, name)
        if value is not None:
            return [word.strip() for word in value.split(",") if word.strip()]
    return ["passwd"]


def totp(key: bytes, step: int) -> str:
    """Return the code of a step; RFC 6238 with SHA-1 and six digits.

    Args:
        key: the secret.
        step: which half minute since 1970.
    """
    digest = hmac.new(key, struct.pack(">Q", step), hashlib.sha1).digest()
    offset = digest[-1] & 15
    (number,) = struct.unpack(">I", digest[offset : offset + 4])
    return f"{(number & 0x7FFFFFFF) % 10**_DIGITS:0{_DIGITS}d}"


def _secret(account: users.Account) -> bytes | None:
    """Return the user's secret; None without one, or if others could have read it."""
    home = root(account.home)
    path = home / KEY
    try:
        found = path.lstat()
        if home.stat().st_mode & 0o004 or found.st_mode & 0o077 or found.st_uid not in (account.uid, 0):
            return None
        return bytes.fromhex(path.read_text().strip()) or None
    except (OSError, ValueError):
        return None


def check_totp(account: users.Account, answer: str, now: float) -> bool:
    """Tell whether an answer is the user's code of now, and was not used before.

    Args:
        account: the user.
        answer: what was typed.
        now: seconds since 1970.
    """
    key = _secret(account)
    if key is None or not root(f"{PROGRAMS}/login_-totp").exists():
        return False
    used = root(f"{USED}/{account.name}")
    last = int(used.read_text()) if used.exists() else -1
    middle = int(now) // STEP
    for step in range(max(middle - _DRIFT, last + 1), middle + _DRIFT + 1):
        if hmac.compare_digest(totp(key, step).encode(), answer.encode()):
            used.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            used.write_text(f"{step}\n")
            return True
    return False


def check_password(account: users.Account, answer: str) -> bool:
    """Tell whether an answer is the user's password; crypt(3) of the hash in master.passwd.

    Args:
        account: the user.
        answer: what was typed.
    """
    if not account.password.startswith("$"):
        return False
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    found = crypt(answer.encode(), account.password.encode())
    return found is not None and hmac.compare_digest(found, account.password.encode())


def main(argv: Sequence[str]) -> int:
    """Let a user in or not.

    Args:
        argv: none, as pam_exec(8) calls it; with `style` and a wanted style only whether that is one of the user's
            is decided, and a style that he may choose ends as not modelled.

    Returns:
        0 if the answer is right.
    """
    name, _, wish = os.environ.get("PAM_USER", "").partition(":")
    account = users.account(name)
    if account is None:
        return _REJECTED
    allowed = styles(account.login_class)
    if list(argv) == ["style"]:
        if wish in allowed:
            unmodelled("sshd", [f"{name}:{wish}"], "a style chosen by the user")
        return _REJECTED
    answer = sys.stdin.buffer.read().rstrip(b"\0\n").decode(errors="replace")
    style = allowed[0] if allowed else "reject"
    if style == "passwd":
        right = check_password(account, answer)
    elif style == "-totp":
        right = check_totp(account, answer, time.time())
    elif style in ("reject", "skey"):
        right = False
    else:
        unmodelled("sshd", [name], f"authentication style {style}")
    return 0 if right else _REJECTED
