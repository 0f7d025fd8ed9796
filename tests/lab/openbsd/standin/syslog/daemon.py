"""The daemon: which lines take a message, what is repeated, what happens at a signal and at the end."""

import errno
import os
import selectors
import signal
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn, Protocol

from .. import sendsyslog  # noqa: TID252 (as in pf: the package has one name in the tests, another in the root)
from ..place import root  # noqa: TID252 (as above)
from . import tls
from .conf import Loghost, Rule, rules
from .forward import Forward
from .hub import Hub
from .message import DEBUG, ERR, INFO, MARK, MAXLINE, SYSLOG, WARNING, Message, received
from .server import Listener

CONSOLE = "/dev/console"
PID_FILE = "/var/run/syslog.pid"

TIMERINTVL = 30
"""Seconds between looks at what is repeated."""

MARK_INTERVAL = 20 * 60
"""Seconds between two marks."""

REPEAT_INTERVALS = (30, 120, 600)
"""Seconds after which repeated messages are counted in the log, the last one for ever."""

MAXSVLINE = 120
"""Characters from which on a message is never taken for a repeated one."""

_EARLY, _FORWARDED, _FILED = "during initialization", "to remote loghost", "to file"
_BURST = 256
_MATCHES = 4096


@dataclass(frozen=True)
class Settings:
    """What the command line says.

    Args:
        conf: the path of syslog.conf.
        numeric: ``-n``, no names for addresses.
        names: ``-h``, this host's name goes with messages to other hosts.
        repeat: how often ``-r`` is there: once, repeated messages are counted in files only, twice, nowhere.
        zulu: ``-Z``, times in ISO 8601.
    """

    conf: str
    numeric: bool
    names: bool
    repeat: int
    zulu: bool


class _Output(Protocol):
    dropped: int

    def write(self, priority: int, stamp: str, host: str, body: str) -> None: ...

    def close(self) -> None: ...


class File:
    """A file or terminal that stays open until the next SIGHUP, wherever it is moved to.

    Args:
        hub: the daemon.
        path: its name.

    Raises:
        OSError: it cannot be opened; it is never made.
    """

    def __init__(self, hub: Hub, path: str) -> None:
        self.dropped = 0
        self._hub = hub
        self._path = path
        self._silent = False
        self._file = os.open(root(path), os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY)
        self._terminal = os.isatty(self._file)
        os.set_blocking(self._file, not self._terminal)

    def write(self, priority: int, stamp: str, host: str, body: str) -> None:
        """Write a line; while the file system is full it is counted, and the first time said.

        Args:
            priority: is not written.
            stamp: the time.
            host: from where the message is.
            body: its text.
        """
        del priority
        if self._file < 0 or self._silent:
            return
        end = "\r\n" if self._terminal else "\n"
        try:
            os.write(self._file, f"{stamp} {host} {body}{end}".encode())
        except OSError as error:
            self._failed(error)
            return
        if self.dropped and not self._terminal:
            lost, self.dropped = self.dropped, 0
            self._hub.dropped(lost, f'to file "{self._path}"')

    def _failed(self, error: OSError) -> None:
        if error.errno == errno.ENOSPC and not self._terminal:
            self.dropped += 1
            if self.dropped == 1:
                self._silent = True
                self._hub.log(ERR, f'write to file "{self._path}": {error.strerror}')
                self._silent = False
        elif error.errno != errno.EAGAIN:
            self.close()
            self._hub.log(ERR, f'writev "{self._path}": {error.strerror}')

    def close(self) -> None:
        """Close it; nothing is written any more."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


@dataclass(eq=False)
class _Line:
    """A line of syslog.conf, and what it last had to log."""

    rule: Rule
    output: _Output | None
    written: int = 0
    stamp: str = ""
    host: str = ""
    priority: int = 0
    previous: str = ""
    count: int = 0
    interval: int = 0

    def due(self) -> int:
        """Return the second from which on a count is written."""
        return self.written + REPEAT_INTERVALS[self.interval]

    def back_off(self) -> None:
        self.interval = min(self.interval + 1, len(REPEAT_INTERVALS) - 1)


def _woken(number: int, frame: object) -> None:
    """Let the number of a signal come to the wakeup file."""
    del number, frame


class Daemon:
    """syslogd(8).

    Args:
        settings: what the command line says.

    Attributes:
        started: whether it is in the background; until then its messages go to stderr.
        selector: what it waits for.
    """

    def __init__(self, settings: Settings) -> None:
        self.started = False
        self.selector: selectors.BaseSelector = selectors.DefaultSelector()
        self._settings = settings
        self._client: tls.Client | None = None
        self._lines: list[_Line] = []
        self._matching: dict[tuple[int, int, str, str], list[_Line]] = {}
        self._initialized = False
        self._lost: Counter[str] = Counter()
        self._conf = (0, 0)
        self._second = (0, "")
        self._marked = 0
        self._host = socket.gethostname().partition(".")[0] or "-"
        self._console = -1
        try:
            self._console = os.open(root(CONSOLE), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            self.log(ERR, f"open {CONSOLE}: {error.strerror}")

    def trust(self, client: tls.Client) -> None:
        """Take the certificates for connections to other hosts.

        Args:
            client: as they are at the start, which is what counts until the next one.
        """
        self._client = client

    def listen(self, sockets: Iterable[socket.socket]) -> None:
        """Take messages from programs.

        Args:
            sockets: where they send them to.
        """
        for each in sockets:
            each.setblocking(False)

            def ready(events: int, source: socket.socket = each) -> None:
                del events
                self._drain(source)

            self.selector.register(each, selectors.EVENT_READ, ready)

    def serve(self, sockets: Iterable[socket.socket], context: ssl.SSLContext) -> None:
        """Take messages from other hosts.

        Args:
            sockets: where they connect to.
            context: of `tls.server`.
        """
        for each in sockets:
            Listener(self, each, context, numeric=self._settings.numeric)

    def now(self) -> str:
        """Return the time as it is written."""
        exact = time.time()
        second = int(exact)
        if self._second[0] != second:
            local = time.strftime("%b %e %H:%M:%S", time.localtime(second))
            self._second = (second, time.strftime("%FT%T", time.gmtime(second)) if self._settings.zulu else local)
        if not self._settings.zulu:
            return self._second[1]
        return f"{self._second[1]}.{int(exact * 1000) % 1000:03}Z"

    def log(self, level: int, text: str) -> None:
        """Log a message of its own, of facility syslog (vlogmsg())."""
        line = f"syslogd[{os.getpid()}]: {text}"
        if not self.started:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
            self._lost[_EARLY] += 1
            return
        self._log(Message(SYSLOG | level, self.now(), "syslogd", line), self._host)

    def dropped(self, count: int, where: str) -> None:
        """Log that messages were lost, if any were (dropped_warn())."""
        if count:
            self.log(WARNING, f"dropped {count} message{'' if count == 1 else 's'} {where}")

    def receive(self, host: str, data: bytes) -> None:
        """Log a message from elsewhere (printline())."""
        self._log(received(data, self.now, zulu=self._settings.zulu), host)

    def begin(self) -> None:
        """Read syslog.conf, for the first time or again (init()).

        Raises:
            FileNotFoundError: there is none.
            Refused: it is not modelled.
        """
        self._initialized = False
        for line in self._lines:
            if line.count:
                self._print(line, None)
            self._count(line)
            if line.output is not None:
                line.output.close()
        self._lines = []
        self._matching = {}
        place = root(self._settings.conf)
        self._conf = self._stamp()
        self._lines = [
            _Line(rule, self._open(rule.action))
            for rule in rules(place.read_text(errors="replace"), lambda text: self.log(ERR, text))
        ]
        self._initialized = True
        self._tell(_EARLY)

    def run(self) -> NoReturn:
        """Log messages until a signal ends it; SIGHUP opens everything anew, and itself if syslog.conf is another."""
        woken, waking = socket.socketpair()
        for end in (woken, waking):
            end.setblocking(False)
        signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, _woken)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        self.selector.register(woken, selectors.EVENT_READ, lambda _: self._signalled(woken.recv(64)))
        self.log(INFO, "start")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        # Its first message by syslog(3) makes the kernel send what it kept.
        for data in sendsyslog.stashed():
            self.receive(self._host, data)
        self.receive(self._host, f"<{SYSLOG | DEBUG}>syslogd[{os.getpid()}]: running".encode())
        tick = time.monotonic() + TIMERINTVL
        while True:
            forwards = [line.output for line in self._lines if isinstance(line.output, Forward)]
            due = min([tick, *(forward.due for forward in forwards if forward.due is not None)])
            for key, events in self.selector.select(max(0.0, due - time.monotonic())):
                # What was ready may be closed by what was ready before it.
                found = self.selector.get_map().get(key.fd)
                if found is not None and found.fileobj is key.fileobj:
                    found.data(events)
            reached = time.monotonic()
            for forward in forwards:
                if forward.due is not None and forward.due <= reached:
                    forward.connect()
            if tick <= reached:
                self.mark()
                tick = time.monotonic() + TIMERINTVL

    def mark(self) -> None:
        """Log the mark and what was repeated, as every 30 seconds (markit())."""
        self._marked += TIMERINTVL
        if self._marked >= MARK_INTERVAL:
            self._log(Message(INFO, self.now(), "", "-- MARK --"), self._host, mark=True)
            self._marked = 0
        now = int(time.time())
        for line in self._lines:
            if line.count and now >= line.due():
                self._print(line, None)
                line.back_off()

    def _drain(self, source: socket.socket) -> None:
        for _ in range(_BURST):
            try:
                data = source.recv(MAXLINE)
            except BlockingIOError:
                return
            except OSError as error:
                self.log(ERR, f"recvfrom unix: {error.strerror}")
                return
            if data:
                self.receive(self._host, data)

    def _signalled(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGTERM:
                self._end(number)
            elif number == signal.SIGHUP:
                if self._modified():
                    self._end(0)
                self.begin()
                self.log(INFO, "restart")
                self._tell(_FORWARDED, _FILED)

    def _stamp(self) -> tuple[int, int]:
        status = root(self._settings.conf).stat()
        return status.st_mtime_ns, status.st_size

    def _modified(self) -> bool:
        try:
            time_now, size = self._stamp()
        except OSError:
            return True
        return time_now > self._conf[0] or size != self._conf[1]

    def _end(self, number: int) -> NoReturn:
        """End as die() does; 0 is for a changed syslog.conf, with which the daemon begins anew."""
        for line in self._lines:
            if line.count:
                self._print(line, None)
            self._count(line)
        self._tell(_EARLY, _FORWARDED, _FILED)
        if number:
            self.log(ERR, f"exiting on signal {number}")
            root(PID_FILE).unlink(missing_ok=True)
            # At once: what is sent while Python tidies up would be lost, and nobody would know.
            os._exit(0)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        os.execv(sys.argv[0], sys.argv)

    def _count(self, line: _Line) -> None:
        """Count what a line's output has lost, and what waits in it, as lost."""
        if isinstance(line.output, Forward):
            self._lost[_FORWARDED] += line.output.dropped + line.output.waiting()
        elif line.output is not None:
            self._lost[_FILED] += line.output.dropped
        if line.output is not None:
            line.output.dropped = 0

    def _tell(self, *places: str) -> None:
        for place in places:
            self.dropped(self._lost.pop(place, 0), place)

    def _open(self, action: str | Loghost | None) -> _Output | None:
        if isinstance(action, Loghost):
            assert self._client is not None
            return Forward(self, action, self._client, self._host if self._settings.names else "")
        if action is None:
            return None
        try:
            return File(self, action)
        except OSError as error:
            opener = "priv_open_tty" if action == CONSOLE else "priv_open_log"
            self.log(ERR, f'{opener} "{action}": {error.strerror}')
            return None

    def _log(self, message: Message, host: str, *, mark: bool = False) -> None:
        """Give a message to the lines that take it (logmsg())."""
        if not self._initialized:
            with suppress(OSError):
                os.write(self._console, f"{message.stamp} {host} {message.text}\r\n".encode())
            self._lost[_EARLY] += 1
            return
        facility, level = divmod(message.priority, 8)
        now = int(time.time())
        for line in self._match(MARK if mark else facility, level, message.program, host):
            if mark and now - line.written < MARK_INTERVAL / 2:
                continue
            if not mark and self._repeated(line, message, host):
                line.stamp = message.stamp
                line.count += 1
                if now > line.due():
                    self._print(line, None)
                    line.back_off()
                continue
            if line.count:
                self._print(line, None)
            line.interval = 0
            line.priority, line.stamp, line.host = message.priority, message.stamp, host
            line.previous = message.text if len(message.text) < MAXSVLINE else ""
            self._print(line, message.text)

    def _repeated(self, line: _Line, message: Message, host: str) -> bool:
        counted = self._settings.repeat == 0 or (self._settings.repeat == 1 and not isinstance(line.output, Forward))
        lost = line.output.dropped if line.output is not None else 0
        return counted and lost == 0 and (message.text, host) == (line.previous, line.host)

    def _match(self, facility: int, level: int, program: str, host: str) -> list[_Line]:
        """Return the lines that take a message, up to one that lets no later line see it."""
        key = (facility, level, program, host)
        if (known := self._matching.get(key)) is not None:
            return known
        found = []
        for line in self._lines:
            if line.rule.takes(facility, level, program, host):
                found.append(line)
                if line.rule.quick:
                    break
        if len(self._matching) >= _MATCHES:
            self._matching.clear()
        self._matching[key] = found
        return found

    def _print(self, line: _Line, text: str | None) -> None:
        """Write a message, or, without a text, the last one again with its count (fprintlog())."""
        if text is None:
            text = f"last message repeated {line.count} times" if line.count > 1 else line.previous
        line.written = int(time.time())
        if line.output is not None:
            line.output.write(line.priority, line.stamp, line.host, text)
        line.count = 0
