"""The login class of people; login.conf(5)."""

from __future__ import annotations

from fleet.model.service import Declaration, LoginClass, Service, none_to_keep
from fleet.model.site import Fleet, Host

PERSON = "person"
"""The class of everybody who comes in with a key and a code."""


class LoginClasses(Service):
    """Login classes that several accounts share; a daemon's own class is that daemon's business."""

    base = True

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare the class of people.

        Only `auth-ssh` is set: `auth` would ask for a code at the console and in doas(1) as well. There is no second
        style in it, because whoever logs in as ``user:passwd`` chooses among the styles (auth-bsdauth.c of sshd).
        """
        del host, fleet
        return Declaration(
            classes=(LoginClass(name=PERSON, capabilities=("auth-ssh=-totp",)),),
            state=none_to_keep("classes are made from the inventory"),
        )
