"""The host that keeps every other's log, where a burglar of theirs cannot change it; syslogd(8), contract 5.5, 14."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from deploys.services.router import first_ipv4, peers_of
from deploys.templates import template
from fleet.model.pki import Authority, Certificate, Use
from fleet.model.service import Backup, Declaration, FileSet, Job, Listen, LogFile, Service
from fleet.model.site import Fleet, Host
from fleet.model.types import Port
from fleet.pki.wanted import slot

FOLDER = "/var/log/hosts"
"""A folder a host, a file a facility in it; and OTHER, for a name that is nobody's any more."""

OTHER = f"{FOLDER}/other"

ROTATION = "/etc/newsyslog.hosts.conf"

FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *(f"local{number}" for number in range(8)),
)
"""Those of syslog.conf(5)."""

SENT = tuple(facility for facility in FACILITIES if facility != "kern")
"""Those that come from others: what another says as its kernel, syslogd takes as a user's."""


SYSLOG_TLS = 6514
"""The port that services(5) has for syslog over TLS; RFC 5425."""


class LogServer(Service):
    """Keeps what all hosts log for `keep_days`, a file a host and facility; the host's `Syslogd` does the work.

    Hosts come over TLS with a certificate of the authority ``log``, at `port`, and are called what their certificate
    says. `root_days` and `leaf_days` are how long that authority's root and certificates are valid.
    """

    port: Port = SYSLOG_TLS
    keep_days: int = Field(default=365, ge=1, le=3660)
    root_days: int = 3650
    leaf_days: int = 730

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare the socket, for those who log here; the certificate; the files, and that they are kept."""
        senders = senders_to(host, fleet)
        revoked = fleet.published.revoked
        shut = [each for each in senders if slot(authority(fleet).name, each.name, Use.CLIENT) in revoked]
        peers = peers_of(host, [each for each in senders if each not in shut], fleet)
        listen = Listen(port=self.port, source=peers, crosses=True, shut=peers_of(host, shut, fleet))
        return Declaration(
            listens=(listen,),
            certificates=(self.certificate(host, fleet),),
            logs=self._logs(host, fleet),
            # Half an hour after the system's own; one that misses its hour is not rotated that day.
            jobs=(Job(schedule="30 * * * *", command=f"newsyslog -f {ROTATION}"),),
            state=Backup(paths=(FOLDER,), proof=f"gzip -t {FOLDER}/*/*.gz"),
        )

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield what is rotated, beside the system's own newsyslog.conf, which sysmerge(8) looks after."""
        yield FileSet(
            name="rotation",
            files=(template(ROTATION, group="wheel", logs=self._logs(host, fleet)),),
            check=f"newsyslog -n -f {{new}}{ROTATION}",
        )

    def _logs(self, host: Host, fleet: Fleet) -> tuple[LogFile, ...]:
        own = (path_of(host, facility) for facility in FACILITIES)
        sent = (path_of(each, facility) for each in senders_to(host, fleet) for facility in SENT)
        return tuple(LogFile(path=path, keep=self.keep_days) for path in (OTHER, *own, *sent))

    def certificate(self, host: Host, fleet: Fleet) -> Certificate:
        """Return the server's certificate, where ``syslogd -S`` looks for it."""
        address = self.address(host)
        return Certificate(
            authority=authority(fleet),
            use=Use.SERVER,
            key=f"/etc/ssl/private/{address}.key",
            certificate=f"/etc/ssl/{address}.crt",
        )

    def address(self, host: Host) -> str:
        """Return the argument of ``syslogd -S``: a number, because no name is known when syslogd starts."""
        address = str(first_ipv4(host))
        return address if self.port == SYSLOG_TLS else f"{address}:{self.port}"


def log_server(fleet: Fleet) -> Host | None:
    """Return the fleet's log server, or None; ValueError if there are two."""
    found = [host for host in fleet.hosts() if host.service(LogServer) is not None]
    if len(found) > 1:
        raise ValueError(f"there are {len(found)} log servers: {', '.join(host.name for host in found)}; one is enough")
    return found[0] if found else None


def settings_of(server: Host) -> LogServer:
    """Return what the inventory says of the log server; KeyError if `server` is none."""
    settings = server.service(LogServer)
    if settings is None:
        raise KeyError(f"{server.name} is no log server")
    return settings


def authority(fleet: Fleet) -> Authority:
    """Return the authority of the log; KeyError without a log server."""
    server = log_server(fleet)
    if server is None:
        raise KeyError("there is no log server")
    settings = settings_of(server)
    domains = tuple(sorted({site.domain for site in fleet.sites}))
    return Authority(name="log", domains=domains, root_days=settings.root_days, leaf_days=settings.leaf_days)


def client_certificate(host: Host, fleet: Fleet) -> tuple[Certificate, ...]:
    """Return the certificate with which `host` comes to the log server, none if there is none or it is the server."""
    server = log_server(fleet)
    if server is None or server.name == host.name:
        return ()
    return (Certificate(authority=authority(fleet), use=Use.CLIENT),)


class Logging(Service):
    """A service that sends its host's log to the log server."""


def senders_to(server: Host, fleet: Fleet) -> tuple[Host, ...]:
    """Return the hosts that log to `server`."""
    return tuple(host for host in fleet.hosts() if host.name != server.name and host.service(Logging) is not None)


def path_of(host: Host, facility: str) -> str:
    """Return the file on the log server with what `host` logs under `facility`."""
    return f"{FOLDER}/{host.name}/{facility}"
