"""The second factor of people: a code of the moment, RFC 6238; login_-totp(8) of login_oath, pam_oath(8)."""

from __future__ import annotations

from collections.abc import Iterable

from deploys.templates import template
from fleet.model.secret import Secret, hex_of
from fleet.model.service import Declaration, File, FileSet, Service, none_to_keep
from fleet.model.site import Fleet, Host, Os, Person

USERS = "/etc/users.oath"
"""Where pam_oath(8) keeps the secrets and, in each line, the last code that was used: it writes this file itself."""

SEEDS = "/etc/users.oath.wanted"
"""The secrets alone, as they shall be."""

# Takes over the lines of USERS whose secret is still the wanted one, with the last code in them: were it forgotten,
# that code could be used again.
_TAKE_OVER = f"""\
umask 077; touch {USERS}; \
awk 'FILENAME == ARGV[1] {{ if (NF) kept[$2 " " $4] = $0; next }} /^#/ {{ next }} \
{{ was = kept[$2 " " $4]; print was == "" ? $0 : was }}' {USERS} {SEEDS} >{USERS}.new && mv {USERS}.new {USERS}"""

_SEED = hex_of(20)


def seed(person: Person) -> Secret:
    """Return the secret from which the codes of `person` at one site are made, 20 bytes as RFC 4226 recommends."""
    return Secret(f"totp-{person.name}", _SEED, common=True)


class Totp(Service):
    """The secrets of codes. An account without one is refused: neither system has a way around it."""

    base = True

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare the package that checks codes."""
        del fleet
        return Declaration(
            packages=("login_oath--",) if host.os is Os.OPENBSD else ("libpam-oath",),
            state=none_to_keep("the secrets are in the repository, encrypted"),
        )

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield each person's secret where the host's own way of logging in looks for it."""
        people = [person for person in fleet.site_of(host).people if not person.retired]
        if host.os is Os.OPENBSD:
            yield FileSet(name="totp", files=tuple(_key(person) for person in people))
            return
        yield FileSet(
            name="totp",
            files=(
                File(
                    path=SEEDS,
                    text="".join(f"HOTP/T30/6 {person.name} - {seed(person)}\n" for person in people),
                    mode=0o600,
                    secret=True,
                ),
                template("/etc/pam.d/sshd", users=USERS),
            ),
            apply=_TAKE_OVER,
            undo=f"[ ! -e {SEEDS} ] || {{ {_TAKE_OVER}; }}",
        )


def _key(person: Person) -> File:
    return File(
        path=f"/home/{person.name}/.totp-key",
        text=f"{seed(person)}\n",
        owner=person.name,
        group=person.name,
        mode=0o400,
        secret=True,
    )
