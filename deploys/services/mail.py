"""What cron and daily write to root goes to the owner: smtpd(8) as a client alone; smtpd.conf(5), aliases(5)."""

from __future__ import annotations

from collections.abc import Iterable

from deploys.rcd import restarted
from deploys.services.pf import Connect, Talking
from deploys.templates import template
from fleet.model.service import Daemon, Declaration, FileSet, none_to_keep
from fleet.model.site import Fleet, Host, Os

# Where the two systems have the same daemon's files.
_CONF = {Os.OPENBSD: "/etc/mail/smtpd.conf", Os.UBUNTU: "/etc/smtpd.conf"}
_ALIASES = {Os.OPENBSD: "/etc/mail/aliases", Os.UBUNTU: "/etc/aliases"}


class Mail(Talking):
    """No mail comes in over the network. A host with a mail server of its own has that instead of this.

    Arguments: `relay`, a mail server that takes everything; None hands each mail to the server of its domain.
    """

    base = True

    relay: str | None = None

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare OpenSMTPD: in OpenBSD's base system, a package of Ubuntu's."""
        del fleet
        openbsd = host.os is Os.OPENBSD
        return Declaration(
            # Without the certificates that it checks others by, smtpd ends at once.
            packages=() if openbsd else ("ca-certificates", "opensmtpd"),
            daemons=(Daemon(name="smtpd" if openbsd else "opensmtpd"),),
            state=none_to_keep("mail that waits in the queue is about the host itself"),
        )

    def connects(self, host: Host, fleet: Fleet) -> tuple[Connect, ...]:
        """Return the mail servers that it delivers to."""
        del host, fleet
        return (Connect(ports=(25,), user="_smtpd"),)

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield smtpd.conf and the aliases, which smtpd reads as they are."""
        site = fleet.site_of(host)
        conf, aliases = _CONF[host.os], _ALIASES[host.os]
        group = "wheel" if host.os is Os.OPENBSD else "root"
        follow = restarted("smtpd") if host.os is Os.OPENBSD else "systemctl try-restart opensmtpd"
        yield FileSet(
            name="mail",
            files=(
                template(conf, group=group, aliases=aliases, name=fleet.name_of(host), relay=self.relay),
                template(
                    aliases,
                    group=group,
                    owner_address=site.owner,
                    people=sorted(person.name for person in site.people),
                ),
            ),
            check=f"smtpd -n -f {{new}}{conf}",
            apply=follow,
            undo=follow,
        )
