"""sendsyslog(2): how syslog(3) reaches syslogd(8), and what the kernel keeps while there is none.

sys/kern/subr_log.c 1.81; lib/libc/gen/syslog_r.c 1.20, which sends no time. The kernel's memory is a file here.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from .place import root

NOT_MODELLED = (
    "sendsyslog: programs of Linux send to /dev/log, with a time, and lose messages while syslogd is not there",
    "sendsyslog: a sender waits for a slow syslogd; OpenBSD's kernel keeps 1 MB for it and then stashes",
    "sendsyslog: until root or syslogd logged once since the boot, messages of others are lost and not stashed",
)

SOCKET = "/var/standin/boot/sendsyslog"
STASH = "/var/standin/boot/logstash"

LOGSTASH_SIZE = 100
"""Messages that are kept."""

ENOTCONN = 57
"""OpenBSD's number, which it logs."""

_LOG_MAXLINE = 8192
_KERN_WARNING = 4


class Stash:
    """Messages that wait for syslogd, oldest first, and how many more there were.

    Args:
        text: as it was kept.
    """

    def __init__(self, text: str) -> None:
        kept = json.loads(text) if text else {}
        self.messages: list[str] = kept.get("messages", [])
        self.dropped: int = kept.get("dropped", 0)
        self._error: int = kept.get("error", 0)
        self._pid: int = kept.get("pid", 0)

    def text(self) -> str:
        """Return how it is kept, nothing if nothing waits."""
        if not self.messages:
            return ""
        kept = {"messages": self.messages, "dropped": self.dropped, "error": self._error, "pid": self._pid}
        return json.dumps(kept)

    def insert(self, data: bytes, error: int, pid: int) -> None:
        """Keep a message, or count it if there is no room (logstash_insert()).

        Args:
            data: the message.
            error: why it could not be sent, OpenBSD's number.
            pid: the sender's process.
        """
        if len(self.messages) < LOGSTASH_SIZE:
            self.messages.append(data.decode("latin-1"))
            return
        if self.dropped == 0:
            self._error, self._pid = error, pid
        self.dropped += 1

    def first(self) -> bytes:
        """Return the oldest message."""
        return self.messages[0].encode("latin-1")

    def remove(self) -> None:
        """Drop the oldest message, which was sent; the count follows the others (logstash_remove())."""
        del self.messages[0]
        if self.dropped:
            plural = "" if self.dropped == 1 else "s"
            self.messages.append(
                f"<{_KERN_WARNING}>sendsyslog: dropped {self.dropped} message{plural}, "
                f"error {self._error}, pid {self._pid}"
            )
            self.dropped = self._error = self._pid = 0


@contextmanager
def _kept(operation: int = fcntl.LOCK_EX) -> Iterator[Stash]:
    """Hold the stash; what was done to it is kept. Raises OSError: it is not there, or another holds it."""
    place = root(STASH)
    if not place.exists() and os.access(place.parent, os.W_OK):
        place.touch(0o666)
        place.chmod(0o666)
    with place.open("r+") as file:
        fcntl.flock(file, operation)
        before = file.read()
        stash = Stash(before)
        yield stash
        if (after := stash.text()) != before:
            file.seek(0)
            file.truncate()
            file.write(after)
            file.flush()


@cache
def _sender() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def _sent(data: bytes) -> bool:
    try:
        _sender().sendto(data, str(root(SOCKET)))
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    return True


def _waiting() -> bool:
    try:
        return root(STASH).stat().st_size > 0
    except OSError:
        return False


def receiver() -> socket.socket:
    """Return the socket that messages come to from now on: what syslogd(8) tells the kernel with LIOCSFD."""
    place = root(SOCKET)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    bound.bind(str(place))
    place.chmod(0o666)
    bound.setblocking(False)
    return bound


def stashed() -> list[bytes]:
    """Take everything that waits, as the first message after syslogd's start makes the kernel send it.

    Returns:
        The messages, and after them how many were dropped; nothing while a sender is just sending them.
    """
    found = []
    with suppress(BlockingIOError, FileNotFoundError), _kept(fcntl.LOCK_EX | fcntl.LOCK_NB) as stash:
        while stash.messages:
            found.append(stash.first())
            stash.remove()
    return found


def sendsyslog(data: bytes) -> None:
    """Send a message to syslogd, after what waits for it, or keep it until there is one.

    Args:
        data: the message with its priority; cut to 8192 octets.
    """
    data = data[:_LOG_MAXLINE]
    with suppress(OSError):
        if _waiting():
            with _kept() as stash:
                while stash.messages and _sent(stash.first()):
                    stash.remove()
        if not _sent(data):
            with _kept() as stash:
                stash.insert(data, ENOTCONN, os.getpid())
