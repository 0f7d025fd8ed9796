"""What the machine is for, said at login; motd(5)."""

from __future__ import annotations

from collections.abc import Iterable

from deploys.templates import template
from fleet.model.service import Declaration, FileSet, Service, none_to_keep
from fleet.model.site import Fleet, Host

TEXT = "/etc/motd.local"

# rc(8) replaces all before the first empty line of /etc/motd at each boot and keeps what follows, which is ours.
_INSERT = f"""\
t=$(mktemp /etc/motd.XXXXXXXXXX) && {{ [ ! -f /etc/motd ] || sed '/^$/,$d' /etc/motd; echo; cat {TEXT}; }} >"$t" \
&& chown root:wheel "$t" && chmod 664 "$t" && mv "$t" /etc/motd"""


class Motd(Service):
    """The text is a file of its own, from which /etc/motd is made: of that file only a part is ours."""

    base = True

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare nothing but the text."""
        del host, fleet
        return Declaration(state=none_to_keep("the text is made from the inventory"))

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield the text; /etc/motd follows it."""
        yield FileSet(
            name="motd",
            files=(template(TEXT, group="wheel", name=fleet.name_of(host), host=host),),
            apply=_INSERT,
            undo=f"[ ! -e {TEXT} ] || {{ {_INSERT}; }}",
        )
