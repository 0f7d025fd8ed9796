"""The kinds of verification: what each is for, and how it is broken and mended to see it red once (DESIGN T4).

`breakage` and `mend` are POSIX sh for root on the hypervisor that the check is of. Words between at signs
(``@path@``) come from the check, quoted. `target` is a shell pattern of checks that can be broken there without
harm to anything else, matched with the part of a check's name after the host.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Kind:
    """A kind of check: `why` it matters in one line, and how it is shown red; see the module."""

    name: str
    why: str
    breakage: str
    mend: str
    target: str = "*"


KINDS: dict[str, Kind] = {}
"""Every kind by name; each check has one of them."""


class Red(Exception):
    """A check failed; the text says what was found and what is declared."""


@dataclass(frozen=True)
class Check:
    """One thing to verify on `host`.

    Arguments: `name`, such as ``volume/db1-root/size``; `judge` raises `Red`, or returns None for green, or the
    words of a state that is neither green nor red; `words`, what the kind's commands need to know.
    """

    kind: Kind
    host: str
    name: str
    judge: Callable[[], str | None]
    words: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The name of the check in a report, such as ``kvm1/volume/db1-root/size``."""
        return f"{self.host}/{self.name}"

    def can_be_broken(self) -> bool:
        """True if breaking this one harms nothing else."""
        return fnmatchcase(self.name, self.kind.target)

    def breakage(self) -> str:
        """Return the command that turns this check red."""
        return self._filled(self.kind.breakage)

    def mend(self) -> str:
        """Return the command that makes it green again."""
        return self._filled(self.kind.mend)

    def _filled(self, command: str) -> str:
        for word, value in self.words.items():
            command = command.replace(f"@{word}@", shlex.quote(value))
        return command


def _kind(name: str, why: str, breakage: str, mend: str, target: str = "*") -> Kind:
    kind = Kind(name, why, breakage, mend, target)
    assert KINDS.setdefault(name, kind) is kind, name
    return kind


# A host that cannot be reached cannot be mended over the network: it mends itself after a while.
_SELF_MENDING = (
    "systemd-run -q --collect --unit=homefleet-broken-ssh --on-active=@seconds@ --timer-property=AccuracySec=1s "
    "systemctl start ssh.service"
)
_SSH_BACK = (
    "systemctl start ssh.service; systemctl stop homefleet-broken-ssh.timer 2>/dev/null || :; "
    "systemctl reset-failed 'homefleet-broken*' 2>/dev/null || :"
)

REACHED = _kind(
    "reached",
    "a host that should be there and does not answer is the worst of all findings",
    f"{_SELF_MENDING}; systemctl -q stop ssh.socket 2>/dev/null; systemctl stop ssh.service",
    _SSH_BACK,
)

PACKAGE = _kind(
    "package",
    "what is not installed cannot run, and half an installation stops the next upgrade",
    "dpkg --force-depends --remove @name@",
    "apt-get -qq update && apt-get -qq -y --no-install-recommends install @name@",
    "package/socat",
)

SERVICE_ENABLED = _kind(
    "service-enabled",
    "a daemon that is not enabled is gone after the next reboot",
    "systemctl -q disable @unit@",
    "systemctl -q enable @unit@",
    "service/libvirt-guests/*",
)

SERVICE_RUNNING = _kind(
    "service-running",
    "a daemon that does not run serves nobody",
    "systemctl stop @unit@",
    "systemctl start @unit@",
    # Stopping libvirt-guests would shut the guests down.
    "service/nftables/*",
)

FILE_CONTENT = _kind(
    "file-content",
    "a file changed by hand is lost with the next run, or hides what the run should have done",
    "echo '# changed by hand' >>@path@",
    "sed -i '$d' @path@",
    "file/etc/default/libvirt-guests/*",
)

FILE_OWNER = _kind(
    "file-owner",
    "who owns a configuration file can change it",
    "chown 1:1 @path@",
    "chown @owner@ @path@",
    "file/etc/default/libvirt-guests/*",
)

FILE_MODE = _kind(
    "file-mode",
    "a file that all can read keeps no secret, one that all can write keeps nothing",
    "chmod 606 @path@",
    "chmod @mode@ @path@",
    "file/etc/default/libvirt-guests/*",
)

FILE_STRAY = _kind(
    "file-stray",
    "a file beside ours is read too, and the last one wins",
    "touch @stray@",
    "rm -f @stray@",
)

SET_PENDING = _kind(
    "set-pending",
    "a run was interrupted half-way through a configuration set",
    "mkdir -p /var/lib/homefleet/pending && touch /var/lib/homefleet/pending/broken",
    "rm -f /var/lib/homefleet/pending/broken",
)

SET_ARMED = _kind(
    "set-armed",
    "an undo that is still armed will put the old network or firewall back",
    "mkdir -p /var/lib/homefleet/armed && touch /var/lib/homefleet/armed/broken",
    "rm -f /var/lib/homefleet/armed/broken",
)

BRIDGE = _kind(
    "bridge",
    "without its bridge no guest has a network",
    # networkd would take the addresses away from an interface that it no longer knows.
    "systemctl -q stop systemd-networkd.socket systemd-networkd.service 2>/dev/null; ip link set @bridge@ name broken0",
    "ip link set broken0 name @bridge@; systemctl start systemd-networkd.socket systemd-networkd.service",
)

BRIDGE_UPLINK = _kind(
    "bridge-uplink",
    "a bridge without its uplink connects the guests to nobody",
    "ip link set @uplink@ address 02:00:00:00:00:01",
    "ip link set @uplink@ address @mac@",
)

BRIDGE_ADDRESSES = _kind(
    "bridge-addresses",
    "an address that is missing is missed, one too many answers where the firewall expects nobody",
    "ip address add 198.51.100.222/32 dev @bridge@",
    "ip address del 198.51.100.222/32 dev @bridge@",
)

GROUP = _kind(
    "group",
    "all guests' disks are in the volume group",
    "vgrename -qq @group@ broken",
    "vgrename -qq broken @group@",
)

VOLUME = _kind(
    "volume",
    "a guest without its disk does not start again",
    "lvrename -qq @group@ @volume@ broken",
    "lvrename -qq @group@ broken @volume@",
)

VOLUME_SIZE = _kind(
    "volume-size",
    "the volume on the host and the inventory have to agree before either twin makes or moves it",
    "lvextend -qq -l +1 @group@/@volume@",
    "lvreduce -qq -f -y -L @size@b @group@/@volume@",
)

VOLUME_TAGS = _kind(
    "volume-tags",
    "by its tags a volume is known as managed and as whose it is",
    "lvchange -qq --deltag @tag@ @group@/@volume@",
    "lvchange -qq --addtag @tag@ @group@/@volume@",
)

_SAVED = "/run/homefleet-broken-@guest@.xml"

GUEST_PLACE = _kind(
    "guest-place",
    "a guest lives on exactly one twin: nowhere is an outage, on both it destroys its own disks",
    f"virsh -q dumpxml --inactive @guest@ >{_SAVED}; virsh -q destroy @guest@; virsh -q undefine @guest@",
    f"virsh -q define {_SAVED}; virsh -q autostart @guest@; virsh -q start @guest@; rm -f {_SAVED}",
)

GUEST_DEFINED = _kind(
    "guest-defined",
    "a guest that runs without being defined is gone with its first power-off",
    f"virsh -q dumpxml --inactive @guest@ >{_SAVED}; virsh -q undefine @guest@",
    f"virsh -q define {_SAVED}; virsh -q autostart @guest@; rm -f {_SAVED}",
)

GUEST_DEFINITION = _kind(
    "guest-definition",
    "what somebody changed by hand takes effect at the guest's next start",
    f"virsh -q dumpxml --inactive @guest@ >{_SAVED}; "
    f"sed '/<on_crash>/s/>[a-z-]*</>preserve</' {_SAVED} | virsh -q define /dev/stdin",
    f"virsh -q define {_SAVED}; rm -f {_SAVED}",
)

GUEST_RUNNING = _kind(
    "guest-running",
    "a guest that is stopped serves nobody",
    "virsh -q destroy @guest@",
    "virsh -q start @guest@",
)

GUEST_AUTOSTART = _kind(
    "guest-autostart",
    "after a power failure nobody is there to start the guests by hand",
    "virsh -q autostart --disable @guest@",
    "virsh -q autostart @guest@",
)

GUEST_DISK = _kind(
    "guest-disk",
    "a disk that was grown is of no use before its guest sees it",
    "lvextend -qq -l +1 @group@/@volume@",
    "lvreduce -qq -f -y -L @size@b @group@/@volume@",
)

GUEST_ANSWERS = _kind(
    "guest-answers",
    "running means that its system answers, not that there is a process; an encrypted one may wait to be unlocked",
    "ip route add blackhole @address@/32",
    "ip route del blackhole @address@/32",
)

# sshd goes to another port, which the firewall is told to take for the declared one, so that it can be mended.
PORT_LISTENING = _kind(
    "port-listening",
    "a service that does not listen where it is declared is down, whatever its daemon says",
    f"{_SELF_MENDING}; $(command -v sshd) -p 2200 -o PidFile=/run/homefleet-broken-sshd.pid; "
    "nft 'add table ip homefleet_broken; "
    "add chain ip homefleet_broken prerouting { type nat hook prerouting priority -100; }; "
    "add rule ip homefleet_broken prerouting tcp dport @port@ redirect to :2200; "
    "insert rule inet homefleet input tcp dport 2200 accept'; "
    # The unit takes its directory along when it stops, and no sshd lets anybody in without it.
    "systemctl -q stop ssh.socket 2>/dev/null; systemctl stop ssh.service; mkdir -p /run/sshd",
    f"{_SSH_BACK}; nft 'delete table ip homefleet_broken'; nft -f /etc/nftables.conf; "
    # Whoever sends this comes in through the sshd that it ends: the connection may be cut, exit code 255.
    "setsid sh -c 'sleep 10; kill $(cat /run/homefleet-broken-sshd.pid)' </dev/null >/dev/null 2>&1 &",
    "port/tcp-22/*",
)

PORT_STRAY = _kind(
    "port-stray",
    "a program that listens without being declared waits for the day on which the firewall is off",
    "systemd-run -q --collect --unit=homefleet-broken socat TCP-LISTEN:9999,fork OPEN:/dev/null",
    "systemctl stop homefleet-broken.service",
)

FIREWALL_RULES = _kind(
    "firewall-rules",
    "the rules in the kernel are what filters, not those in the file",
    "nft 'insert rule inet homefleet forward accept'",
    "nft -f /etc/nftables.conf",
)

FIREWALL_PORTS = _kind(
    "firewall-ports",
    "what is not declared is closed, and what is declared is open to those it is declared for",
    "nft 'add rule inet homefleet input tcp dport 9998 accept'",
    "nft -f /etc/nftables.conf",
)

BOUNDED_SET = _kind(
    "bounded-set",
    "a port that is open for a bounded time only is closed at rest",
    "nft add element inet homefleet @set@ '{ 192.0.2.9 timeout 1h }'",
    "nft flush set inet homefleet @set@",
)

DEFAULT_NETWORK = _kind(
    "default-network",
    "libvirt's default network brings a DHCP and name server and rules of its own along",
    "echo '<network><name>default</name></network>' | virsh -q net-define /dev/stdin",
    "virsh -q net-undefine default",
)

MIGRATION_KEY = _kind(
    "migration-key",
    "a key that is left opens one twin to root of the other",
    "(umask 077; mkdir -p /run/homefleet; echo 'ssh-ed25519 AAAAbroken' >/run/homefleet/migration.keys)",
    "rm -f /run/homefleet/migration.keys",
)

MIGRATION_UNIT = _kind(
    "migration-unit",
    "a path between the twins is open, or its closing hangs",
    "systemd-run -q --collect --unit=homefleet-migration-broken sleep 3600",
    "systemctl stop homefleet-migration-broken.service",
)
