"""What syslogd(8) has of libtls: files that are read at start, contexts made of them, and its words for errors.

lib/libtls: tls.c 1.104, tls_config.c 1.71, tls_client.c 1.51, tls_server.c 1.52; main() of syslogd.c 1.287.
TLS_PROTOCOLS_ALL of tls.h 1.68 is TLS 1.2 and 1.3. X509_verify_cert() is told by libssl that a server looks at a client
and a client at a server, so that the extended key usage of either counts; no CRL is ever loaded.
"""

import ssl
from collections.abc import Callable

from ..place import root  # noqa: TID252 (as in `daemon`)

NOT_MODELLED = (
    "syslogd: LibreSSL's codes and places in its texts of errors, and where its words differ from OpenSSL's",
    "syslogd: a server with a wrong name gets an alert; LibreSSL's client looks at the name after the handshake",
)

Warn = Callable[[str], None]

_MISMATCH = "private/public key mismatch"
_NAMES = {62, 64}
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""

_WORDS = {
    18: "self signed certificate",
    19: "self signed certificate in certificate chain",
    26: "unsupported certificate purpose",
}
"""What LibreSSL says of a certificate where OpenSSL has other words since version 3, by code."""


class TlsError(Exception):
    """A context that cannot be used; in libtls' words."""


def _load(kind: str, path: str) -> str:
    """Read a file as tls_config_load_file() does. Raises TlsError."""
    try:
        return root(path).read_text(errors="replace")
    except OSError as error:
        raise TlsError(f"failed to open {kind} file '{path}': {error.strerror}") from None


def _context(protocol: int, ciphers: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    context.options |= ssl.OP_NO_TICKET
    return context


def _trust(context: ssl.SSLContext, text: str) -> None:
    """Trust what a file of certificates has. Raises TlsError if that is nothing."""
    try:
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise TlsError("ssl verify memory setup failure") from None


def _present(context: ssl.SSLContext, certificate: str | None, key: str | None) -> None:
    """Present a certificate; both are paths of files that were there. Raises TlsError."""
    if certificate is None or key is None:
        raise TlsError(_MISMATCH)
    try:
        context.load_cert_chain(root(certificate), root(key), password=lambda: "")
    except (ssl.SSLError, OSError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise TlsError(_MISMATCH) from None
        try:
            _trust(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), root(certificate).read_text(errors="replace"))
        except TlsError:
            raise TlsError("failed to load certificate") from None
        raise TlsError("failed to read private key") from None


class Client:
    """What is presented to and expected of other hosts that messages go to; read once.

    Args:
        authorities: the file of ``-C``.
        certificate: the file of ``-c``, empty for none.
        key: the file of ``-k``, empty for none.
        warn: is told what cannot be read.
    """

    def __init__(self, authorities: str, certificate: str, key: str, warn: Warn) -> None:
        self._context = _context(ssl.PROTOCOL_TLS_CLIENT, "ALL:!aNULL:!eNULL")
        self._error = ""
        trusted = ""
        try:
            trusted = _load("CA", authorities)
        except TlsError as error:
            warn(f"load client TLS CA: {error}")
        found: dict[str, str] = {}
        if certificate and key:
            for short, kind, path in (("cert", "certificate", certificate), ("key", "key", key)):
                try:
                    _load(kind, path)
                    found[short] = path
                except TlsError as error:
                    warn(f"load client TLS {short}: {error}")
        elif certificate or key:
            warn("options -c and -k must be used together")
        try:
            if found:
                _present(self._context, found.get("cert"), found.get("key"))
            _trust(self._context, trusted)
        except TlsError as error:
            self._error = str(error)

    def context(self) -> ssl.SSLContext:
        """Return the context.

        Raises:
            TlsError: its files do not do; libtls says so at each connection.
        """
        if self._error:
            raise TlsError(self._error)
        return self._context


def server(names: tuple[str, str], authorities: str, warn: Warn) -> ssl.SSLContext:
    """Return what is presented to and expected of hosts that send messages.

    Args:
        names: the first ``-S`` as it is written, and its host alone: what files are looked for under, in this order.
        authorities: the file of ``-K``; empty asks no certificate of anybody.
        warn: is told what cannot be read.

    Returns:
        The context.

    Raises:
        TlsError: the files do not do; nobody can connect.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, "HIGH:!aNULL")
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    certificate: str | None = None
    key: str | None = None
    for name in names:
        try:
            found = f"/etc/ssl/private/{name}.key"
            key = None
            _load("key", found)
            key = found
        except TlsError as error:
            warn(f"load server TLS key: {error}")
            continue
        try:
            found = f"/etc/ssl/{name}.crt"
            certificate = None
            _load("certificate", found)
            certificate = found
        except TlsError as error:
            warn(f"load server TLS cert: {error}")
            continue
        break
    trusted = ""
    if authorities:
        try:
            trusted = _load("CA", authorities)
        except TlsError as error:
            warn(f"load server TLS CA: {error}")
    _present(context, certificate, key)
    if authorities:
        _trust(context, trusted)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def told(error: OSError, doing: str, *, name: str = "") -> str:
    """Return what tls_error() says.

    Args:
        error: what went wrong.
        doing: `handshake`, `read` or `write`.
        name: of the server, for a client; a server says of a certificate only that it is not verified, because libtls
            keeps the reason with the listener and not with the connection (tls_configure_ssl_verify()).
    """
    if isinstance(error, ssl.SSLCertVerificationError) and name:
        if error.verify_code in _NAMES:
            return f"name `{name}' not present in server certificate"
        reason = _WORDS.get(error.verify_code, error.verify_message)
        return f"certificate verification failed: {reason}"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return f"{doing} failed: unexpected EOF"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "unknown error").lower().replace("_", " ")
        return f"{doing} failed: error:SSL routines:{reason}"
    return f"{doing} failed: {error.strerror or error}"
