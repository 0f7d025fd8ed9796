"""The accounts of people and of the deployment; passwd(5)."""

from __future__ import annotations

from deploys.services.login_classes import PERSON
from fleet.model.secret import BCRYPT, Secret
from fleet.model.service import Account, Declaration, Service, none_to_keep
from fleet.model.site import Fleet, Host, Os, Person

# The group whose members may become root, and the shell that is in the base system.
_ADMINS = {Os.OPENBSD: "wheel", Os.UBUNTU: "sudo"}
_SHELL = {Os.OPENBSD: "/bin/ksh", Os.UBUNTU: "/bin/bash"}


class Accounts(Service):
    """Everybody of the site, and the deployment's own account, which no password opens."""

    base = True

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare the accounts. Root has none of the keys: nobody logs in as root."""
        site = fleet.site_of(host)
        accounts = [_of_person(person, host) for person in site.people]
        if site.deployment is not None:
            # As long as a host is deployed to as root, the key that does it is no key of this account.
            ours = host.connection.user == site.deployment.user
            key = host.connection.public_key if ours else None
            accounts.append(
                Account(
                    name=site.deployment.user,
                    comment="Deployment",
                    home=f"/home/{site.deployment.user}",
                    shell=_SHELL[host.os],
                    # What the installer lets it become root by may be that group, and goes only with our own rule.
                    groups=(_ADMINS[host.os],) if host.os is Os.UBUNTU else (),
                    authorized_keys=None if key is None else (key,),
                )
            )
        return Declaration(
            accounts=tuple(accounts),
            state=none_to_keep("accounts are made from the inventory, homes of people are not for keeping things"),
        )


def _of_person(person: Person, host: Host) -> Account:
    return Account(
        name=person.name,
        uid=person.uid,
        comment=person.full_name,
        home=f"/home/{person.name}",
        shell=_SHELL[host.os],
        groups=(_ADMINS[host.os],) if person.admin else (),
        login_class=PERSON,
        authorized_keys=person.public_keys,
        password=str(Secret(f"password-{person.name}", BCRYPT)),
        removed=person.retired,
    )
