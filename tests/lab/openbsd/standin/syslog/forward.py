"""Messages on their way to another host over TLS (usr.sbin/syslogd/syslogd.c 1.287, evbuffer_tls.c 1.3)."""

import errno
import os
import selectors
import socket
import ssl
import time
from contextlib import suppress

from . import tls
from .conf import PORTS, Loghost
from .hub import Hub, Ready
from .message import ERR, WARNING, counted

MAX_TCPBUF = 256 * 1024
"""Octets that wait from which on messages are dropped."""

LONGEST_WAIT = 600
"""Seconds between two attempts at most."""

SOCKBUF = 65536
_RECORD = 16384
_FAMILIES = {0: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}


class Forward:
    """A line of syslog.conf that sends to another host: one buffer, and one connection at a time.

    The name is resolved when syslog.conf is read; only if that failed it is tried again before a connection.

    Args:
        hub: the daemon.
        loghost: where to.
        client: certificates, as they were when the daemon started.
        name: this host's name for ``-h``, empty for messages without one.
    """

    def __init__(self, hub: Hub, loghost: Loghost, client: tls.Client, name: str) -> None:
        self.dropped = 0
        self.due: float | None = time.monotonic()
        self._hub = hub
        self._loghost = loghost
        self._client = client
        self._name = f"{name} " if name else ""
        self._wait = 0
        self._output = bytearray()
        self._socket: socket.socket | None = None
        self._tls: ssl.SSLSocket | None = None
        self._open = False
        self._address: tuple[int, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]] | None = None
        self._resolve()

    def write(self, priority: int, stamp: str, host: str, body: str) -> None:
        """Send a message, later, or drop it if too much waits already.

        Args:
            priority: facility times eight plus level.
            stamp: the time.
            host: from where it came, which is not sent.
            body: the text.
        """
        del host
        if len(self._output) >= MAX_TCPBUF:
            self.dropped += 1
            return
        text = f"<{priority}>{stamp} {self._name}{body}\n".encode()
        idle = not self._output
        self._output += b"%d %s" % (len(text), text)
        if idle and self._open:
            self._watch(selectors.EVENT_READ | selectors.EVENT_WRITE, self._ready)

    def waiting(self) -> int:
        """Return how many messages wait (tcpbuf_countmsg())."""
        return self._output.count(b"\n")

    def close(self) -> None:
        """End the connection; what waits is lost."""
        self._disconnect()
        self.due = None

    def connect(self) -> None:
        """Begin a connection (tcp_connectcb())."""
        self.due = None
        if self._address is None and not self._resolve():
            self._retry()
            return
        assert self._address is not None
        family, address = self._address
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            made.setsockopt(socket.SOL_SOCKET, option, SOCKBUF)
        number = made.connect_ex(address)
        if number not in (0, errno.EINPROGRESS):
            self._hub.log(ERR, f'connect "{self._loghost.text}": {os.strerror(number)}')
            made.close()
            self._retry()
            return
        try:
            self._client.context()
        except tls.TlsError as error:
            self._hub.log(ERR, f'tls_connect_socket "{self._loghost.text}": {error}')
            made.close()
            self._retry()
            return
        self._socket = made
        self._watch(selectors.EVENT_WRITE, self._connected)

    def _resolve(self) -> bool:
        host, port = self._loghost.host, self._loghost.port
        try:
            family, _, _, _, address = socket.getaddrinfo(
                host, PORTS.get(port, port), _FAMILIES[self._loghost.version], socket.SOCK_STREAM
            )[0]
        except (OSError, UnicodeError):
            self._hub.log(ERR, f'bad hostname "{self._loghost.text}"')
            return False
        self._address = (family, address)
        return True

    def _retry(self) -> None:
        self._wait = min(self._wait * 2 or 1, LONGEST_WAIT)
        self.due = time.monotonic() + self._wait

    def _watch(self, events: int, ready: Ready) -> None:
        found = self._tls or self._socket
        assert found is not None
        if found.fileno() in self._hub.selector.get_map():
            self._hub.selector.modify(found, events, ready)
        else:
            self._hub.selector.register(found, events, ready)

    def _disconnect(self) -> None:
        found = self._tls or self._socket
        if found is None:
            return
        if found.fileno() in self._hub.selector.get_map():
            self._hub.selector.unregister(found)
        if self._tls is not None:
            with suppress(OSError, ValueError):
                self._tls.unwrap()
        found.close()
        self._tls = self._socket = None
        self._open = False

    def _connected(self, events: int) -> None:
        del events
        assert self._socket is not None
        if number := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._failed(tls.told(OSError(number, os.strerror(number)), "handshake"))
            return
        self._hub.selector.unregister(self._socket)
        name = self._loghost.host.removesuffix(".")
        try:
            context = self._client.context()
            self._tls = context.wrap_socket(self._socket, server_hostname=name, do_handshake_on_connect=False)
        except OSError as error:
            self._failed(tls.told(error, "handshake"))
            return
        self._socket = None
        self._handshake(0)

    def _handshake(self, events: int) -> None:
        del events
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(selectors.EVENT_READ, self._handshake)
        except ssl.SSLWantWriteError:
            self._watch(selectors.EVENT_WRITE, self._handshake)
        except OSError as error:
            self._failed(tls.told(error, "handshake", name=self._loghost.host))
        else:
            self._open = True
            self._watch(selectors.EVENT_READ | (selectors.EVENT_WRITE if self._output else 0), self._ready)

    def _ready(self, events: int) -> None:
        # A server has nothing to say: what is read shows that it is gone.
        if events & selectors.EVENT_READ and not self._read():
            return
        if events & selectors.EVENT_WRITE and self._output:
            self._write()

    def _read(self) -> bool:
        """Drop what came; return whether the connection is still there."""
        assert self._tls is not None
        try:
            if self._tls.recv(_RECORD):
                return True
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except OSError as error:
            self._failed(tls.told(error, "read"))
            return False
        self._failed("")
        return False

    def _write(self) -> None:
        assert self._tls is not None
        try:
            del self._output[: self._tls.send(bytes(self._output[:_RECORD]))]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self._failed(tls.told(error, "write"))
            return
        if self._output:
            return
        self._watch(selectors.EVENT_READ, self._ready)
        self._wait = 0
        lost, self.dropped = self.dropped, 0
        self._hub.dropped(lost, f'to loghost "{self._loghost.text}"')

    def _failed(self, why: str) -> None:
        """End a connection that failed and try again later (tcp_errorcb()).

        Args:
            why: empty if the server closed it.
        """
        self._disconnect()
        count = counted(self._output)
        end = sum(count) if count else 0
        if self._output and not (count and count[1] > 0 and self._output[end - 1 : end] == b"\n"):
            cut = self._output.find(b"\n")
            del self._output[: cut + 1 if cut >= 0 else len(self._output)]
            self.dropped += 1
        self._retry()
        happened = f"connection error: {why}" if why else "connection close"
        self._hub.log(WARNING, f'loghost "{self._loghost.text}" {happened}')
