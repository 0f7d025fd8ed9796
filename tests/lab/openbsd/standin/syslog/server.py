"""Messages that other hosts send over TLS: acceptcb(), tls_handshakecb(), tcp_readcb() and tcp_closecb()."""

import selectors
import socket
import ssl
from contextlib import suppress

from ..unmodelled import unmodelled  # noqa: TID252 (as in `daemon`)
from . import tls
from .conf import PORTS, address
from .forward import SOCKBUF
from .hub import Hub
from .message import DEBUG, ERR, INFO, NOTICE, frames, word

NOT_MODELLED = ("syslogd: a wait of one second after too many open files; certificates with several common names",)

_BACKLOG = 10
_READ = 16384


def bound(hub: Hub, text: str, family: socket.AddressFamily) -> socket.socket | None:
    """Listen where a ``-S`` says (socket_bind()).

    Args:
        hub: is told what fails.
        text: host, and port if it is not 6514.
        family: that addresses must have.

    Returns:
        The socket; `None` if there is none.

    Raises:
        ValueError: the text is no address.
    """
    proto, host, port = address(text)
    if proto is not None:
        raise ValueError(text)
    name = port or "syslog-tls"
    try:
        found = socket.getaddrinfo(
            host, PORTS.get(name, name), family, socket.SOCK_STREAM, socket.IPPROTO_TCP, socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else error
        hub.log(ERR, f"getaddrinfo proto tls, host {host}, port {name}: {reason}")
        return None
    for family_found, kind, number, _, place in found:
        made = socket.socket(family_found, kind, number)
        made.setblocking(False)
        for option, value in ((socket.SO_SNDBUF, SOCKBUF), (socket.SO_RCVBUF, SOCKBUF)):
            made.setsockopt(socket.SOL_SOCKET, option, value)
        for option in (socket.SO_KEEPALIVE, socket.SO_REUSEADDR):
            made.setsockopt(socket.SOL_SOCKET, option, 1)
        doing = "bind"
        try:
            if family_found == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(place)
            doing = "listen"
            made.listen(_BACKLOG)
        except OSError as error:
            at, portnum = map(str, place[:2])
            hub.log(ERR, f"{doing} protocol {number}, address {at}, portnum {portnum}: {error.strerror}")
            made.close()
            continue
        return made
    return None


class Listener:
    """A socket that hosts connect to.

    Args:
        hub: the daemon.
        listening: the socket.
        context: what is presented to them and expected of them.
        numeric: whether no name is looked up for their addresses.
    """

    def __init__(self, hub: Hub, listening: socket.socket, context: ssl.SSLContext, *, numeric: bool) -> None:
        self._hub = hub
        self._socket = listening
        self._context = context
        self._numeric = numeric
        hub.selector.register(listening, selectors.EVENT_READ, self._accept)

    def _accept(self, events: int) -> None:
        del events
        try:
            accepted, source = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self._hub.log(ERR, f"accept tcp socket: {error.strerror}")
            return
        accepted.setblocking(False)
        try:
            connection = self._context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        except OSError:
            # Gone before it said a word.
            accepted.close()
            return
        host = source[0]
        if not self._numeric:
            with suppress(socket.gaierror):
                host, _ = socket.getnameinfo(source, socket.NI_NOFQDN | socket.NI_NAMEREQD)
        where = f"[{source[0]}]:{source[1]}" if ":" in source[0] else f"{source[0]}:{source[1]}"
        Peer(self._hub, connection, host, where)


class Peer:
    """A host that sends messages.

    Args:
        hub: the daemon.
        connection: from it.
        host: its name as its address has it.
        where: its address and port.
    """

    def __init__(self, hub: Hub, connection: ssl.SSLSocket, host: str, where: str) -> None:
        self._hub = hub
        self._tls = connection
        self._host = host
        self._where = where
        self._named = False
        self._input = bytearray()
        hub.selector.register(connection, selectors.EVENT_READ, self._handshake)
        hub.log(DEBUG, f'tls logger "{where}" accepted')

    def _handshake(self, events: int) -> None:
        del events
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._hub.selector.modify(self._tls, selectors.EVENT_READ, self._handshake)
        except ssl.SSLWantWriteError:
            self._hub.selector.modify(self._tls, selectors.EVENT_WRITE, self._handshake)
        except OSError as error:
            self._close(tls.told(error, "handshake"))
        else:
            self._hub.selector.modify(self._tls, selectors.EVENT_READ, self._read)

    def _read(self, events: int) -> None:
        del events
        try:
            data = self._tls.recv(_READ)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self._close(tls.told(error, "read"))
            return
        if not data:
            self._close("")
            return
        if not self._named:
            self._name()
        self._input += data
        for message in frames(self._input):
            self._hub.receive(self._host, message)

    def _name(self) -> None:
        """Call the sender what its certificate does; syslogd looks when the first message is there."""
        self._named = True
        certificate = self._tls.getpeercert()
        if not certificate:
            return
        names = [pair[1] for part in certificate.get("subject", ()) for pair in part if pair[0] == "commonName"]
        if len(names) > 1:
            unmodelled("syslogd", [self._where], f"a certificate with the common names {', '.join(map(str, names))}")
        if not names or not names[0]:
            self._hub.log(NOTICE, "cannot get hostname from peer certificate")
            return
        name = word(str(names[0]))
        self._hub.log(INFO, f'{self._host} using hostname "{name}" from certificate')
        self._host = name

    def _close(self, why: str) -> None:
        """End the connection; what came of a message is lost.

        Args:
            why: empty if the peer closed it.
        """
        if why:
            self._hub.log(NOTICE, f'tls logger "{self._where}" connection error: {why}')
        else:
            self._hub.log(DEBUG, f'tls logger "{self._where}" connection close')
        self._hub.selector.unregister(self._tls)
        with suppress(OSError, ValueError):
            self._tls.unwrap()
        self._tls.close()
