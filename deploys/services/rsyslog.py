"""rsyslogd(8) of an Ubuntu host: a copy of everything goes to the log server over TLS, beside the host's own files.

As https://www.rsyslog.com/doc/ has it, its module omfwd with the driver gtls, and as OpenBSD's syslogd(8) reads it:
frames with their length before them (RFC 6587, 3.4.1), UTC times (parsemsg() in usr.sbin/syslogd), and no host name,
because the server takes the one in the certificate.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ByteSize

from deploys.certificates import certificate_sets, is_published
from deploys.services.logserver import Logging, client_certificate, log_server, settings_of
from deploys.services.router import address_of
from deploys.templates import template
from fleet.model.pki import Certificate
from fleet.model.service import Daemon, Declaration, File, FileSet, none_to_keep
from fleet.model.site import Fleet, Host
from fleet.model.types import Size

# Before the distribution's own rules, of which one may end the way of a line.
CONF = "/etc/rsyslog.d/10-homefleet.conf"
KEY = "/etc/rsyslog.d/log-client.key"
APPARMOR = "/etc/apparmor.d/rsyslog.d/homefleet"

# Ubuntu loads the profile anew when rsyslogd starts; the check runs before that, and Debian has none.
_LOAD_PROFILE = "/usr/lib/rsyslog/reload-apparmor-profile"


class Rsyslog(Logging):
    """Sends to the log server what the host logs, once it has its certificate; journald's own journal stays as it is.

    What the server does not take waits in memory, and what is too much for that in files of at most `queue`. When they
    are full, lines are dropped on this way, and are in the host's own files alone: logging itself never waits.
    """

    base = True

    queue: Size = ByteSize(256 * 2**20)

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare the daemon, which does not read its configuration again while it runs, and its certificate."""
        certificates = _certificates(host, fleet)
        return Declaration(
            packages=("rsyslog", "rsyslog-gnutls"),
            daemons=(Daemon(name="rsyslog", restart_on=("rsyslog", *(each.name for each in certificates))),),
            certificates=certificates,
            state=none_to_keep("what waits to be sent is in the host's own files too"),
        )

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield the certificate, and what sends with it: nothing is sent while there is none."""
        certificates = _certificates(host, fleet)
        yield from certificate_sets(certificates, host, fleet)
        published = [each for each in certificates if is_published(each, host, fleet)]
        yield FileSet(
            name="rsyslog",
            files=tuple(file for each in published for file in self._files(each, host, fleet)),
            check=f"[ ! -x {_LOAD_PROFILE} ] || {_LOAD_PROFILE} && rsyslogd -N1",
            check_in_place=True,
        )

    def _files(self, certificate: Certificate, host: Host, fleet: Fleet) -> Iterable[File]:
        server = log_server(fleet)
        assert server is not None
        yield template(APPARMOR, source="apparmor", certificate=certificate)
        yield template(
            CONF,
            certificate=certificate,
            address=address_of(server, host, fleet),
            port=settings_of(server).port,
            server=fleet.name_of(server),
            queue=int(self.queue),
        )


def _certificates(host: Host, fleet: Fleet) -> tuple[Certificate, ...]:
    """Return the host's certificate for the log server, if there is one.

    The driver reads the key for each connection, when Ubuntu's rsyslogd has become the user syslog: who may not enter
    /etc/ssl/private.
    """
    mine = client_certificate(host, fleet)
    return tuple(each.model_copy(update={"owner": "syslog", "key": KEY}) for each in mine)
