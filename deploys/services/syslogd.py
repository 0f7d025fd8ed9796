"""syslogd(8) of an OpenBSD host: its own files, and a copy of everything to the log server; syslog.conf(5)."""

from __future__ import annotations

from collections.abc import Iterable

from deploys.certificates import certificate_sets, is_published
from deploys.services.logserver import (
    FACILITIES,
    OTHER,
    SENT,
    Logging,
    LogServer,
    client_certificate,
    log_server,
    path_of,
    senders_to,
    settings_of,
)
from deploys.services.pf import Connect, Talking, alone
from deploys.services.router import address_of
from deploys.templates import template
from fleet.model.pki import Certificate
from fleet.model.service import Daemon, Declaration, FileSet, none_to_keep
from fleet.model.site import Fleet, Host

CONF = "/etc/syslog.conf"


class Syslogd(Logging, Talking):
    """Logs as OpenBSD does by default, with UTC times, and to the log server over TLS once it has its certificate."""

    base = True

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare the daemon, which reads certificates when it starts and not on SIGHUP, and its certificate."""
        certificates = client_certificate(host, fleet)
        named = [each.name for each in (*certificates, *_servers(host, fleet))]
        return Declaration(
            daemons=(Daemon(name="syslogd", flags=" ".join(_flags(host, fleet)), restart_on=("syslogd", *named)),),
            certificates=certificates,
            state=none_to_keep("what is worth keeping is on the log server"),
        )

    def connects(self, host: Host, fleet: Fleet) -> tuple[Connect, ...]:
        """Return the log server."""
        server = log_server(fleet)
        if server is None or server.name == host.name:
            return ()
        return (Connect(ports=(settings_of(server).port,), to=(alone(address_of(server, host, fleet)),)),)

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield its certificates and syslog.conf; there is no check for that: syslogd skips a line that is wrong."""
        certificates = client_certificate(host, fleet)
        yield from certificate_sets((*certificates, *_servers(host, fleet)), host, fleet)
        server = log_server(fleet)
        serving = server is not None and server.name == host.name
        target = None
        if server is not None and not serving and all(is_published(it, host, fleet) for it in certificates):
            target = f"{fleet.name_of(server)}:{settings_of(server).port}"
        yield FileSet(
            name="syslogd",
            files=(
                template(
                    CONF,
                    group="wheel",
                    target=target,
                    senders=[
                        (each.name, [(name, path_of(each, name)) for name in SENT])
                        for each in (senders_to(host, fleet) if serving else ())
                    ],
                    own=[(name, path_of(host, name)) for name in FACILITIES] if serving else [],
                    name=host.name,
                    other=OTHER,
                ),
            ),
        )


def _servers(host: Host, fleet: Fleet) -> tuple[Certificate, ...]:
    server = host.service(LogServer)
    return (server.certificate(host, fleet),) if server is not None else ()


def _flags(host: Host, fleet: Fleet) -> Iterable[str]:
    # Without -n the server asks for the name of each address before it goes on, and takes it from the certificate.
    yield "-n -Z" if host.service(LogServer) is not None else "-Z"
    for path in sorted({path for service in host.services for path in service.log_sockets()}):
        yield f"-a {path}"
    for mine in client_certificate(host, fleet):
        if is_published(mine, host, fleet):
            yield f"-C {mine.roots_path} -c {mine.certificate_path} -k {mine.key_path}"
    for mine in _servers(host, fleet):
        if is_published(mine, host, fleet):
            yield f"-S {settings_of(host).address(host)} -K {mine.roots_path}"
