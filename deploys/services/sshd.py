"""sshd(8), the ways into a host; sshd_config(5).

Three kinds of accounts, on three ports. People come in with a key and a code, from anywhere. The deployment comes in
with its key, on a port of its own and from its addresses. Services such as git come in with a key and get one command.
"""

from __future__ import annotations

from collections.abc import Iterable

from deploys.rcd import back, reloaded
from deploys.services.pf import Limited, expiry, own_addresses, shown
from deploys.templates import template
from fleet.model.secret import SSH_HOST_KEY
from fleet.model.service import (
    Account,
    Daemon,
    Declaration,
    File,
    FileSet,
    Listen,
    PersonLogin,
    Service,
    Table,
    none_to_keep,
)
from fleet.model.site import EMERGENCY_PORT, Fleet, Host, Os
from fleet.model.types import Port

CONF = "/etc/ssh/sshd_config"
_CODES = "[ -x /usr/libexec/auth/login_-totp ] || { echo 'login_oath is not installed'; exit 1; }; "

HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"

ALLOWED = "deploy_allowed"
"""The table of addresses that a person opens the deployment's port to, beside those of the inventory."""

BRUTEFORCE = Table(name="ssh_bruteforce", expires=86400)
"""Who tried too often."""

# Ubuntu hands sshd its sockets; the ports of sshd_config then count for the generator of the socket alone.
_UBUNTU_APPLY = (
    "if systemctl -q is-enabled ssh.socket 2>/dev/null; then systemctl -q disable --now ssh.socket; fi; "
    "{ systemctl -q is-enabled ssh.service || systemctl -q enable ssh.service; } && systemctl restart ssh.service"
)
_UBUNTU_BEFORE = (
    "if systemctl -q is-enabled ssh.socket 2>/dev/null; then "
    "echo 'systemctl stop ssh.service; systemctl -q disable ssh.service; systemctl -q enable --now ssh.socket'; "
    "else echo 'systemctl restart ssh.service'; fi"
)

# The rules that are loaded do not pass a port that is new, and their own set comes after this one: until then, in the
# same run, they pass it to everybody. The way back is the file that they were loaded from.
_SHUT = """\
rules=$(nft list chain inet homefleet input 2>/dev/null) || rules=''
for port in {ports}; do case $rules in '' | *"dport $port "*) ;; *) {then} ;; esac; done
"""


class Restricted(Account):
    """An account of a service that others reach over SSH: key only, no terminal, no forwarding, one command.

    Arguments: `command`, that every login gets; None where each of its keys names its own, as gitolite's do;
    `keys_file`, where sshd(8) looks for its keys instead of in its home: a file that the account can read, not write.
    """

    command: str | None = None
    keys_file: str | None = None


class Sshd(Service):
    """The whole of sshd_config, and the host's key from the repository.

    Arguments: `host_key`, whether the key of the host is ours to give: it was adopted or made by the controller, and
    a machine that is installed anew has it after its first run; `also`, ports that people find it at beside the host's
    own. Moving it takes two runs: with the old port here, which the firewall that is still loaded passes, and without.
    """

    base = True

    host_key: bool = True
    also: tuple[Port, ...] = ()

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        """Declare the ports of people and of the deployment. Port 22 of OpenBSD is no one's: pf never passes it."""
        listens: list[Listen] = [Limited(port=port, table=BRUTEFORCE.name) for port in (host.sshd_port, *self.also)]
        deployment = fleet.site_of(host).deployment
        if deployment is not None:
            listens.append(Listen(port=deployment.port, source=deployment.addresses))
            listens.append(Listen(port=deployment.port, during=ALLOWED))
        openbsd = host.os is Os.OPENBSD
        return Declaration(
            packages=() if openbsd else ("openssh-server",),
            daemons=(Daemon(name="sshd" if openbsd else "ssh"),),
            listens=tuple(listens),
            tables=(Table(name=ALLOWED), BRUTEFORCE) if openbsd else (),
            jobs=(expiry(BRUTEFORCE),) if openbsd else (),
            state=none_to_keep("the host key is in the repository"),
        )

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        """Yield sshd_config, with confirm-or-rollback (DESIGN D3)."""
        site = fleet.site_of(host)
        openbsd = host.os is Os.OPENBSD
        group = "wheel" if openbsd else "root"
        accounts = sorted(fleet.accounts(host), key=lambda account: account.name)
        services = [it for it in accounts if isinstance(it, Restricted) and not it.removed]
        people = [person for person in site.people if not person.retired]
        asked = {host.sshd_port, *self.also, *([site.deployment.port] if site.deployment is not None else [])}
        ports = sorted(asked | ({EMERGENCY_PORT} if openbsd else set()))
        files = [
            template(
                CONF,
                group=group,
                mode=0o600,
                ports=ports,
                openbsd=openbsd,
                emergency=EMERGENCY_PORT,
                host_key=HOST_KEY,
                device="bsdauth" if openbsd else "pam",
                allowed=sorted([person.name for person in people] + [account.name for account in services]),
                deployment=site.deployment,
                services=services,
                exempt=",".join(shown(net) for net in own_addresses(host, fleet)),
                sftp="/usr/libexec/sftp-server" if openbsd else "/usr/lib/openssh/sftp-server",
            )
        ]
        if self.host_key:
            files.append(File(path=HOST_KEY, text=f"{SSH_HOST_KEY}\n", group=group, mode=0o600, secret=True))
        shut = _SHUT.replace("{ports}", " ".join(map(str, ports)))
        passed = shut.replace("{then}", 'nft insert rule inet homefleet input tcp dport "$port" accept')
        again = shut.replace("{then}", "echo 'nft -f /etc/nftables.conf'; break")
        yield FileSet(
            name="sshd",
            files=tuple(files),
            # People without the program that checks their code would be shut out, and the deployment would not notice.
            check=f"{_CODES if openbsd and site.people else ''}sshd -t -f {{new}}{CONF}",
            before=None if openbsd else again + _UBUNTU_BEFORE,
            apply=reloaded("sshd") if openbsd else passed + _UBUNTU_APPLY,
            undo=back("sshd", "reload") if openbsd else None,
            # ssh-keygen -l prefers it to the key itself, and would show the one of the installation.
            exclusive=(f"{HOST_KEY}.pub",) if self.host_key else (),
            dangerous=True,
            confirm_logins=tuple(
                PersonLogin(user=it.name, ports=(host.sshd_port, *self.also), public_keys=it.public_keys)
                for it in people
            ),
        )
