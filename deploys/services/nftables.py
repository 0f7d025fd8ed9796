"""nftables(8), the firewall of an Ubuntu host, derived from what the host's services listen on."""

from __future__ import annotations

from collections.abc import Iterable

from deploys.services.sshd import Sshd
from deploys.templates import template
from fleet.model.service import Daemon, Declaration, FileSet, Listen, Service, none_to_keep
from fleet.model.site import Fleet, Host

CONF = "/etc/nftables.conf"

# What undoes a rule set is the one that was loaded, not the one that an older file describes.
SAVE_RUNNING = f"""\
if systemctl -q is-enabled nftables.service; then :; else echo 'systemctl -q disable nftables.service'; fi
echo "nft -f - <<'END-OF-RULES'"
echo 'flush ruleset'
nft list ruleset
echo 'END-OF-RULES'
: {CONF}"""


class Nftables(Service):
    """Default deny for what comes in: SSH, echo requests and what a service of the host declares."""

    base = True

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare nftables, and the port of an sshd that is not ours, without which nobody could ever come back."""
        del fleet
        others = () if host.service(Sshd) is not None else (Listen(port=host.sshd_port),)
        return Declaration(
            packages=("nftables",),
            daemons=(Daemon(name="nftables"),),
            listens=others,
            state=none_to_keep("the rules are made from the inventory"),
        )

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield nftables.conf, applied with confirm-or-rollback (DESIGN D3)."""
        listens = fleet.listens(host)
        yield FileSet(
            name="nftables",
            files=(
                template(
                    CONF,
                    mode=0o644,
                    always=[listen for listen in listens if listen.during is None],
                    bridges=any(said.bridges for _, said in fleet.declarations(host)),
                    bounded=[listen for listen in listens if listen.during is not None],
                ),
            ),
            check=f"nft -c -f {{new}}{CONF}",
            before=SAVE_RUNNING,
            apply=f"nft -f {CONF} && {{ systemctl -q is-enabled nftables.service || "
            "systemctl -q enable nftables.service; } && systemctl start nftables.service",
            undo=":",
            dangerous=True,
        )
