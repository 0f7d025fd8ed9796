"""What every host has, by operating system: each a module of its own in deploys/services."""

from deploys.services.accounts import Accounts
from deploys.services.daily import Daily
from deploys.services.doas import Doas
from deploys.services.identity import Identity
from deploys.services.installurl import Installurl
from deploys.services.login_classes import LoginClasses
from deploys.services.mail import Mail
from deploys.services.motd import Motd
from deploys.services.nftables import Nftables
from deploys.services.ntpd import Ntpd
from deploys.services.pf import Pf
from deploys.services.resolver import Resolver
from deploys.services.rsyslog import Rsyslog
from deploys.services.sshd import Sshd
from deploys.services.sudo import Sudo
from deploys.services.sysctl import Sysctl
from deploys.services.syslogd import Syslogd
from deploys.services.timesyncd import Timesyncd
from deploys.services.tools import Tools
from deploys.services.totp import Totp
from deploys.services.unattended_upgrades import UnattendedUpgrades
from fleet.model.service import Service
from fleet.model.site import Os

OPENBSD: tuple[type[Service], ...] = (
    Identity,
    Installurl,
    Tools,
    LoginClasses,
    Accounts,
    Totp,
    Sysctl,
    Ntpd,
    Resolver,
    Syslogd,
    Mail,
    Motd,
    Daily,
    Doas,
    Sshd,
    Pf,
)
UBUNTU: tuple[type[Service], ...] = (
    Accounts,
    Totp,
    Timesyncd,
    Rsyslog,
    Mail,
    UnattendedUpgrades,
    Sudo,
    Sshd,
    Nftables,
)

BASE: tuple[type[Service], ...] = tuple(dict.fromkeys((*OPENBSD, *UBUNTU)))
"""Of both; what a host has of it, its inventory says, for which `base` is a short form."""


def base(os: Os, *chosen: Service) -> tuple[Service, ...]:
    """Return the base of `os`, each service with its defaults or as it is in `chosen`.

    They come in the order in which the ways into a host are changed: what gives root, sshd, the firewall. Raises
    ValueError for a service that is not of that base: it belongs beside it.
    """
    mine = {type(service): service for service in chosen}
    classes = OPENBSD if os is Os.OPENBSD else UBUNTU
    for cls in mine.keys() - set(classes):
        raise ValueError(f"{cls.__name__} is not of the base of {os}; name it beside the base")
    return tuple(mine.get(cls) or cls() for cls in classes)
