"""Which certificates the fleet wants, from what its services declare. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.model.pki import Authority, Certificate, Use
from fleet.model.site import Fleet


class PkiError(Exception):
    """A PKI that cannot be used, or a request that is refused: one line, never with a key or a passphrase in it."""


@dataclass(frozen=True)
class Wanted:
    """A certificate that a host shall have.

    `names` are its subject alternative names, the host's own first; `service` is the class that declares it, as it is
    `declared`.
    """

    host: str
    names: tuple[str, ...]
    service: str
    declared: Certificate

    @property
    def authority(self) -> Authority:
        """Who signs it."""
        return self.declared.authority

    @property
    def use(self) -> Use:
        """What it is for."""
        return self.declared.use

    @property
    def slot(self) -> str:
        """What tells this certificate from all others of the fleet, such as ``log.virtie.client``."""
        return slot(self.authority.name, self.host, self.use)


def slot(authority: str, host: str, use: Use) -> str:
    """Return the name of a certificate: its authority, host and use, with dots, which none of them has."""
    return f"{authority}.{host}.{use}"


def wanted(fleet: Fleet) -> tuple[Wanted, ...]:
    """Return every certificate that a service of `fleet` declares, sorted by slot.

    Raises PkiError, naming the host and its service, for a name that is not below the authority's domains, for an
    authority that is declared in two ways, and for a certificate that two services of a host declare.
    """
    found: dict[str, Wanted] = {}
    known: dict[str, Authority] = {}
    for host in fleet.hosts():
        for service, said in fleet.declarations(host):
            called = type(service).__name__
            where = f"{fleet.site_of(host).name}: host {host.name}: {called}"
            for declared in said.certificates:
                authority = declared.authority
                if known.setdefault(authority.name, authority) != authority:
                    raise PkiError(f"{where}: the authority {authority.name} is declared in another way elsewhere")
                names = tuple(dict.fromkeys((fleet.name_of(host), *declared.names)))
                outside = [name for name in names if not authority.may_name(name)]
                if outside:
                    domains = ", ".join(authority.domains)
                    raise PkiError(f"{where}: {', '.join(outside)}: not below {domains}, as {authority.name} requires")
                this = Wanted(host.name, names, called, declared)
                if this.slot in found:
                    raise PkiError(f"{where}: {this.slot} is a certificate of {found[this.slot].service} already")
                found[this.slot] = this
    return tuple(found[name] for name in sorted(found))
