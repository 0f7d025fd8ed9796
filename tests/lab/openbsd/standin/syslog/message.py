"""A message on its way in: frames, vis(3) and header (usr.sbin/syslogd/parsemsg.c 1.1, printline(), tcp_readcb())."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAXLINE = 8192
"""Octets of the longest message, LOG_MAXLINE of sys/syslog.h."""

_FACILITIES = ("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp")
_LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
_LOCAL = {f"local{number}": 16 + number for number in range(8)}

FACILITIES = {name: number for number, name in enumerate(_FACILITIES)} | _LOCAL | {"security": 4, "mark": 24}
LEVELS = {name: number for number, name in enumerate(_LEVELS)} | {"panic": 0, "error": 3, "warn": 4}
MARK = FACILITIES["mark"]
SYSLOG = FACILITIES["syslog"] * 8
EMERG, ALERT, CRIT, ERR, WARNING, NOTICE, INFO, DEBUG = range(8)

_USER = FACILITIES["user"] * 8
_LONGEST_FRAME = 5 + 1 + MAXLINE + 1
_PLAIN = re.compile(rb"[\t -~]*")
_PRIORITY = re.compile(r"<(\d{1,10})>")
_BSD_TIME = re.compile(r"(.{3} .{2} .{2}:.{2}:.{2}) ")
_ISO_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)) ")
_PROGRAM = re.compile(r"[A-Za-z0-9._-]{0,255}")
_COUNTED = re.compile(rb"(\d{1,5}) ")
_TRAILER = re.compile(rb"[\0\n]")


@dataclass(frozen=True)
class Message:
    """What is logged.

    Args:
        priority: facility times eight plus level.
        stamp: the time as text.
        program: who sent it, for blocks ``!prog``.
        text: the message, with the sender's name.
    """

    priority: int
    stamp: str
    program: str
    text: str


def _vis(code: int, *, slash: str) -> str:
    """Return how vis(3) writes an octet that is not to be seen."""
    low = code & 0x7F
    if low == 0x20:
        return f"\\{code:03o}"
    meta = "M" if code & 0x80 else ""
    if low < 0x20 or low == 0x7F:
        return f"{slash}{meta}^{chr(low ^ 0x40)}"
    return f"{slash}{meta}-{chr(low)}"


_SEEN = [chr(code) if code == 9 or 32 <= code < 127 else _vis(code, slash="") for code in range(256)]
_SEEN[ord("\n")] = " "
_WORD = [chr(code) if 32 < code < 127 else _vis(code, slash="\\") for code in range(256)]
_WORD[ord("\\")] = "\\\\"


def word(name: str) -> str:
    """Return a name of a certificate as one word: stravis(3) with VIS_WHITE (tls_handshakecb())."""
    return "".join(_WORD[code] for code in name.encode())


def received(data: bytes, now: Callable[[], str], *, zulu: bool) -> Message:
    """Take a message apart that came from a program or another host, as printline() and parsemsg() do.

    Args:
        data: as it came, without its frame.
        now: returns the time as text, for a message without one.
        zulu: whether times are ISO 8601, which BSD's are then not.

    Returns:
        The message: user.notice without a priority, of facility user if it says kern, with its own time if it has one
        of RFC 5424 or, unless `zulu`, of RFC 3164. What cannot be seen is written as vis(3) does with VIS_NOSLASH.
    """
    data = data.partition(b"\0")[0]
    text = data.decode("ascii") if _PLAIN.fullmatch(data) else "".join(_SEEN[code] for code in data)
    text = text[:MAXLINE]
    priority = -1
    if (found := _PRIORITY.match(text)) and int(found[1]) < 1 << 31:
        text = text[found.end() :]
        priority = int(found[1]) if int(found[1]) < 1 << 10 else -1
    if priority == -1:
        priority = _USER | NOTICE
    elif priority < 8:
        priority |= _USER
    stamp = ""
    if found := _BSD_TIME.match(text):
        stamp = "" if zulu else found[1]
        text = text[found.end() :]
    elif found := _ISO_TIME.match(text):
        stamp = found[1]
        text = text[found.end() :]
    elif text.startswith("- "):
        text = text[2:]
    text = text.lstrip()
    program = _PROGRAM.match(text)
    return Message(priority, stamp or now(), program[0] if program else "", text)


def counted(buffer: bytes | bytearray, start: int = 0) -> tuple[int, int] | None:
    """Read the count of a frame by octet counting (RFC 6587, 3.4.1).

    Args:
        buffer: what came.
        start: where the frame begins.

    Returns:
        Where its message begins and how many octets it has; `None` if it is not framed so.
    """
    found = _COUNTED.match(buffer, start)
    return (found.end(), int(found[1])) if found else None


def frames(buffer: bytearray) -> Iterator[bytes]:
    """Take whole frames off a stream as tcp_readcb() does: counted octets, or up to a line's end or NUL.

    Args:
        buffer: what came; what was taken is gone from it when the iteration ends.

    Yields:
        Messages; also, as one, what is too long to become a frame.
    """
    start = 0
    while start < len(buffer):
        if count := counted(buffer, start):
            begin, length = count
            if begin + length > len(buffer):
                break
            message = bytes(buffer[begin : begin + length])
            start = begin + length
            yield message.removesuffix(b"\n")[:MAXLINE]
        elif trailer := _TRAILER.search(buffer, start):
            message = bytes(buffer[start : trailer.start()])
            start = trailer.end()
            yield message.removesuffix(b"\r") if trailer[0] == b"\n" else message
        else:
            break
    del buffer[:start]
    if len(buffer) >= _LONGEST_FRAME:
        message = bytes(buffer[: _LONGEST_FRAME - 1])
        buffer.clear()
        yield message
