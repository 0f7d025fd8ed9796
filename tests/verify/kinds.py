"""The kinds of verification: what each is for, and how it is broken and mended to see it red once (DESIGN T4).

Breakages and mends are POSIX sh for root on the host that the check is of, one pair for each operating system that
has checks of the kind to be shown red there. Words between at signs (``@path@``) come from the check, quoted.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from fleet.model.site import Os

Judge = Callable[[], str | None]
"""Raises `Red`, or returns None for green, or the words of a state that is neither."""


@dataclass(frozen=True)
class Trial:
    """How a kind is shown red on one operating system, and green again.

    `target` is a shell pattern of checks that can be broken there without harm to anything else, matched with the
    part of a check's name after the host.
    """

    breakage: str
    mend: str
    target: str = "*"


@dataclass(frozen=True)
class Kind:
    """A kind of check: `why` it matters in one line, and how it is shown red; see the module."""

    name: str
    why: str
    trials: Mapping[Os, Trial]


KINDS: dict[str, Kind] = {}
"""Every kind by name; each check has one of them."""


def kinds_of(os: Os) -> frozenset[str]:
    """Return the names of the kinds that are shown red on `os`."""
    return frozenset(name for name, kind in KINDS.items() if os in kind.trials)


class Red(Exception):
    """A check failed; the text says what was found and what is declared."""


@dataclass(frozen=True)
class Check:
    """One thing to verify on `host`.

    Arguments: `name`, such as ``volume/db1-root/size``; `judge`, see `Judge`; `words`, what the kind's commands need
    to know; `os` of the host.
    """

    kind: Kind
    host: str
    name: str
    judge: Judge
    words: Mapping[str, str] = field(default_factory=dict)
    os: Os = Os.UBUNTU

    @property
    def id(self) -> str:
        """The name of the check in a report, such as ``kvm1/volume/db1-root/size``."""
        return f"{self.host}/{self.name}"

    def can_be_broken(self) -> bool:
        """True if breaking this one harms nothing else."""
        trial = self.kind.trials.get(self.os)
        return trial is not None and fnmatchcase(self.name, trial.target)

    def breakage(self) -> str:
        """Return the command that turns this check red."""
        return self._filled(self.kind.trials[self.os].breakage)

    def mend(self) -> str:
        """Return the command that makes it green again."""
        return self._filled(self.kind.trials[self.os].mend)

    def _filled(self, command: str) -> str:
        for word, value in self.words.items():
            command = command.replace(f"@{word}@", shlex.quote(value))
        return command


def _kind(
    name: str, why: str, *, ubuntu: Trial | None = None, openbsd: Trial | None = None, both: Trial | None = None
) -> Kind:
    trials = {os: trial for os, trial in ((Os.UBUNTU, ubuntu or both), (Os.OPENBSD, openbsd or both)) if trial}
    kind = Kind(name, why, trials)
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
    ubuntu=Trial(f"{_SELF_MENDING}; systemctl -q stop ssh.socket 2>/dev/null; systemctl stop ssh.service", _SSH_BACK),
    openbsd=Trial(
        # A host that cannot be reached cannot be mended over the network: it mends itself after a while.
        "nohup sh -c 'sleep @seconds@; rcctl start sshd' </dev/null >/dev/null 2>&1 & rcctl stop sshd",
        "rcctl start sshd",
    ),
)

PACKAGE = _kind(
    "package",
    "what is not installed cannot run, and half an installation stops the next upgrade",
    ubuntu=Trial(
        "dpkg --force-depends --remove @name@",
        "apt-get -qq update && apt-get -qq -y --no-install-recommends install @name@",
        "package/socat",
    ),
    openbsd=Trial(
        # What pkg_info does not see is not there; the mirror is not needed to mend it.
        "mv /var/db/pkg/@stem@-[0-9]* /var/db/homefleet/",
        "mv /var/db/homefleet/@stem@-[0-9]* /var/db/pkg/",
        "package/rsync--",
    ),
)

SERVICE_ENABLED = _kind(
    "service-enabled",
    "a daemon that is not enabled is gone after the next reboot",
    ubuntu=Trial("systemctl -q disable @unit@", "systemctl -q enable @unit@", "service/libvirt-guests/*"),
    openbsd=Trial("rcctl disable @unit@", "rcctl enable @unit@", "service/smtpd/*"),
)

SERVICE_RUNNING = _kind(
    "service-running",
    "a daemon that does not run serves nobody",
    ubuntu=Trial(
        "systemctl stop @unit@",
        "systemctl start @unit@",
        # Stopping libvirt-guests would shut the guests down.
        "service/nftables/*",
    ),
    openbsd=Trial("rcctl stop @unit@", "rcctl start @unit@", "service/ntpd/*"),
)

FILE_CONTENT = _kind(
    "file-content",
    "a file changed by hand is lost with the next run, or hides what the run should have done",
    ubuntu=Trial("echo '# changed by hand' >>@path@", "sed -i '$d' @path@", "file/etc/default/libvirt-guests/*"),
    openbsd=Trial(
        "echo '# changed by hand' >>@path@",
        "sed -i '$d' @path@",
        "file/etc/daily.local/*",
    ),
)

FILE_OWNER = _kind(
    "file-owner",
    "who owns a configuration file can change it",
    ubuntu=Trial("chown 1:1 @path@", "chown @owner@ @path@", "file/etc/default/libvirt-guests/*"),
    openbsd=Trial("chown 1:1 @path@", "chown @owner@ @path@", "file/etc/daily.local/*"),
)

FILE_MODE = _kind(
    "file-mode",
    "a file that all can read keeps no secret, one that all can write keeps nothing",
    ubuntu=Trial("chmod 606 @path@", "chmod @mode@ @path@", "file/etc/default/libvirt-guests/*"),
    openbsd=Trial("chmod 606 @path@", "chmod @mode@ @path@", "file/etc/daily.local/*"),
)

FILE_STRAY = _kind(
    "file-stray",
    "a file beside ours is read too, and the last one wins",
    both=Trial("touch @stray@", "rm -f @stray@", "stray/etc/ssh/*"),
)

PRIVATE_KEY = _kind(
    "private-key",
    "whoever reads a host's private key is that host to everybody",
    both=Trial("chmod 640 @key@", "chmod 600 @key@"),
)

CERTIFICATE = _kind(
    "certificate",
    "a daemon whose certificate is over, or is not its key's, is heard by nobody",
    openbsd=Trial("mv @path@ @path@.broken", "mv @path@.broken @path@"),
)

CLOCK = _kind(
    "clock",
    "by a wrong clock certificates are not valid, codes are refused, and logs are no evidence",
    # An hour ahead: each certificate is still valid then.
    openbsd=Trial(
        'date "$(date -r "$(($(date +%s) + 3600))" +%Y%m%d%H%M.%S)"',
        'date "$(date -r "$(($(date +%s) - 3600))" +%Y%m%d%H%M.%S)"',
    ),
)

LOG_ARRIVES = _kind(
    "log-arrives",
    "what a burglar can delete is no log",
    openbsd=Trial("rcctl stop syslogd", "rcctl start syslogd", "log/arrives"),
)

SET_PENDING = _kind(
    "set-pending",
    "a run was interrupted half-way through a configuration set",
    ubuntu=Trial(
        "mkdir -p /var/lib/homefleet/pending && touch /var/lib/homefleet/pending/broken",
        "rm -f /var/lib/homefleet/pending/broken",
    ),
    openbsd=Trial(
        "(umask 077; mkdir -p /var/db/homefleet/pending) && touch /var/db/homefleet/pending/broken",
        "rm -f /var/db/homefleet/pending/broken",
    ),
)

SET_ARMED = _kind(
    "set-armed",
    "an undo that is still armed will put the old network or firewall back",
    ubuntu=Trial(
        "mkdir -p /var/lib/homefleet/armed && touch /var/lib/homefleet/armed/broken",
        "rm -f /var/lib/homefleet/armed/broken",
    ),
    openbsd=Trial(
        "(umask 077; mkdir -p /var/db/homefleet/armed) && touch /var/db/homefleet/armed/broken",
        "rm -f /var/db/homefleet/armed/broken",
    ),
)

ACCOUNT = _kind(
    "account",
    "files belong to a number, so everybody has the same one everywhere",
    both=Trial("usermod -c broken @name@", "usermod -c @comment@ @name@", "account/owner"),
)

ACCOUNT_SHELL = _kind(
    "account-shell",
    "with another shell somebody comes in who shall not, or does not who shall",
    both=Trial("usermod -s /bin/sh @name@", "usermod -s @shell@ @name@", "account/owner/*"),
)

ACCOUNT_GROUPS = _kind(
    "account-groups",
    "by its groups an account may become root",
    ubuntu=Trial("usermod -G operator @name@", "usermod -G @groups@ @name@", "account/owner/*"),
    openbsd=Trial("usermod -G operator @name@", "usermod -S @groups@ @name@", "account/owner/*"),
)

ACCOUNT_PASSWORD = _kind(
    "account-password",
    "who left, or has no password to give, opens an account with none",
    both=Trial("usermod -p @other@ @name@", "usermod -p @hash@ @name@", "account/deploy/*"),
)

ACCOUNT_KEYS = _kind(
    "account-keys",
    "whoever has a key in that file comes in",
    both=Trial("echo '# changed by hand' >>@keys@", "sed -i '$d' @keys@", "account/owner/*"),
)

ACCOUNT_CODE = _kind(
    "account-code",
    "without its secret somebody is shut out, with another one somebody else comes in",
    # On OpenBSD the secret is a file of a set.
    ubuntu=Trial("cp -p @users@ @users@.broken && sed -i '$d' @users@", "mv @users@.broken @users@"),
)

ROOT_LOGIN = _kind(
    "root-login",
    "nobody comes in as root, so that it is known who did what",
    both=Trial(
        "(umask 077; mkdir -p /root/.ssh; echo 'ssh-ed25519 AAAAbroken' >>/root/.ssh/authorized_keys)",
        "sed -i '$d' /root/.ssh/authorized_keys",
    ),
)

BRIDGE = _kind(
    "bridge",
    "without its bridge no guest has a network",
    # networkd would take the addresses away from an interface that it no longer knows.
    ubuntu=Trial(
        "systemctl -q stop systemd-networkd.socket systemd-networkd.service 2>/dev/null; "
        "ip link set @bridge@ name broken0",
        "ip link set broken0 name @bridge@; systemctl start systemd-networkd.socket systemd-networkd.service",
    ),
)

BRIDGE_UPLINK = _kind(
    "bridge-uplink",
    "a bridge without its uplink connects the guests to nobody",
    ubuntu=Trial("ip link set @uplink@ address 02:00:00:00:00:01", "ip link set @uplink@ address @mac@"),
)

BRIDGE_ADDRESSES = _kind(
    "bridge-addresses",
    "an address that is missing is missed, one too many answers where the firewall expects nobody",
    ubuntu=Trial("ip address add 198.51.100.222/32 dev @bridge@", "ip address del 198.51.100.222/32 dev @bridge@"),
)

GROUP = _kind(
    "group",
    "all guests' disks are in the volume group",
    ubuntu=Trial("vgrename -qq @group@ broken", "vgrename -qq broken @group@"),
)

VOLUME = _kind(
    "volume",
    "a guest without its disk does not start again",
    ubuntu=Trial("lvrename -qq @group@ @volume@ broken", "lvrename -qq @group@ broken @volume@"),
)

VOLUME_SIZE = _kind(
    "volume-size",
    "the volume on the host and the inventory have to agree before either twin makes or moves it",
    ubuntu=Trial("lvextend -qq -l +1 @group@/@volume@", "lvreduce -qq -f -y -L @size@b @group@/@volume@"),
)

VOLUME_TAGS = _kind(
    "volume-tags",
    "by its tags a volume is known as managed and as whose it is",
    ubuntu=Trial("lvchange -qq --deltag @tag@ @group@/@volume@", "lvchange -qq --addtag @tag@ @group@/@volume@"),
)

_SAVED = "/run/homefleet-broken-@guest@.xml"

GUEST_PLACE = _kind(
    "guest-place",
    "a guest lives on exactly one twin: nowhere is an outage, on both it destroys its own disks",
    ubuntu=Trial(
        f"virsh -q dumpxml --inactive @guest@ >{_SAVED}; virsh -q destroy @guest@; virsh -q undefine @guest@",
        f"virsh -q define {_SAVED}; virsh -q autostart @guest@; virsh -q start @guest@; rm -f {_SAVED}",
    ),
)

GUEST_DEFINED = _kind(
    "guest-defined",
    "a guest that runs without being defined is gone with its first power-off",
    ubuntu=Trial(
        f"virsh -q dumpxml --inactive @guest@ >{_SAVED}; virsh -q undefine @guest@",
        f"virsh -q define {_SAVED}; virsh -q autostart @guest@; rm -f {_SAVED}",
    ),
)

GUEST_DEFINITION = _kind(
    "guest-definition",
    "what somebody changed by hand takes effect at the guest's next start",
    ubuntu=Trial(
        f"virsh -q dumpxml --inactive @guest@ >{_SAVED}; "
        f"sed '/<on_crash>/s/>[a-z-]*</>preserve</' {_SAVED} | virsh -q define /dev/stdin",
        f"virsh -q define {_SAVED}; rm -f {_SAVED}",
    ),
)

GUEST_RUNNING = _kind(
    "guest-running",
    "a guest that is stopped serves nobody",
    ubuntu=Trial("virsh -q destroy @guest@", "virsh -q start @guest@"),
)

GUEST_AUTOSTART = _kind(
    "guest-autostart",
    "after a power failure nobody is there to start the guests by hand",
    ubuntu=Trial("virsh -q autostart --disable @guest@", "virsh -q autostart @guest@"),
)

GUEST_DISK = _kind(
    "guest-disk",
    "a disk that was grown is of no use before its guest sees it",
    ubuntu=Trial("lvextend -qq -l +1 @group@/@volume@", "lvreduce -qq -f -y -L @size@b @group@/@volume@"),
)

GUEST_ANSWERS = _kind(
    "guest-answers",
    "running means that its system answers, not that there is a process; an encrypted one may wait to be unlocked",
    ubuntu=Trial("ip route add blackhole @address@/32", "ip route del blackhole @address@/32"),
)

PORT_LISTENING = _kind(
    "port-listening",
    "a service that does not listen where it is declared is down, whatever its daemon says",
    # The deployment has a port of its own, which stays.
    ubuntu=Trial(
        "cp -p /etc/ssh/sshd_config /etc/ssh/broken && sed -i /^Port.@port@'$/d' /etc/ssh/sshd_config && "
        "systemctl restart ssh.service",
        "mv /etc/ssh/broken /etc/ssh/sshd_config && systemctl restart ssh.service",
        "port/tcp-2022/*",
    ),
    openbsd=Trial(
        "cp -p /etc/ssh/sshd_config /etc/ssh/broken && sed -i /^Port.@port@'$/d' /etc/ssh/sshd_config && "
        "rcctl reload sshd",
        "mv /etc/ssh/broken /etc/ssh/sshd_config && rcctl reload sshd",
        "port/tcp-2022/*",
    ),
)

PORT_STRAY = _kind(
    "port-stray",
    "a program that listens without being declared waits for the day on which the firewall is off",
    ubuntu=Trial(
        "systemd-run -q --collect --unit=homefleet-broken socat TCP-LISTEN:9999,fork OPEN:/dev/null",
        "systemctl stop homefleet-broken.service",
    ),
    openbsd=Trial(
        "nohup nc -lk 9999 </dev/null >/dev/null 2>&1 & echo $! >/var/run/homefleet-broken.pid",
        'kill "$(cat /var/run/homefleet-broken.pid)"; rm -f /var/run/homefleet-broken.pid',
    ),
)

FIREWALL_RULES = _kind(
    "firewall-rules",
    "the rules in the kernel are what filters, not those in the file",
    ubuntu=Trial("nft 'insert rule inet homefleet forward accept'", "nft -f /etc/nftables.conf"),
)

FIREWALL_PORTS = _kind(
    "firewall-ports",
    "what is not declared is closed, and what is declared is open to those it is declared for",
    ubuntu=Trial("nft 'add rule inet homefleet input tcp dport 9998 accept'", "nft -f /etc/nftables.conf"),
)

BOUNDED_SET = _kind(
    "bounded-set",
    "a port that is open for a bounded time only is closed at rest",
    ubuntu=Trial(
        "nft add element inet homefleet @set@ '{ 192.0.2.9 timeout 1h }'", "nft flush set inet homefleet @set@"
    ),
    openbsd=Trial(
        "pfctl -q -t @set@ -T add 192.0.2.9",
        "pfctl -q -t @set@ -T delete 192.0.2.9",
    ),
)

DEFAULT_NETWORK = _kind(
    "default-network",
    "libvirt's default network brings a DHCP and name server and rules of its own along",
    ubuntu=Trial(
        "echo '<network><name>default</name></network>' | virsh -q net-define /dev/stdin",
        "virsh -q net-undefine default",
    ),
)

MIGRATION_KEY = _kind(
    "migration-key",
    "a key that is left opens one twin to root of the other",
    ubuntu=Trial(
        "(umask 077; mkdir -p /run/homefleet; echo 'ssh-ed25519 AAAAbroken' >/run/homefleet/migration.keys)",
        "rm -f /run/homefleet/migration.keys",
    ),
)

MIGRATION_UNIT = _kind(
    "migration-unit",
    "a path between the twins is open, or its closing hangs",
    ubuntu=Trial(
        "systemd-run -q --collect --unit=homefleet-migration-broken sleep 3600",
        "systemctl stop homefleet-migration-broken.service",
    ),
)

MIGRATION_LOGIN = _kind(
    "migration-login",
    "a login of the twin has outlived its path",
    ubuntu=Trial(
        "systemd-run -q --collect --uid=moves --unit=homefleet-broken-login sleep 3600",
        "systemctl stop homefleet-broken-login.service",
    ),
)


# --- what only OpenBSD hosts have ---

SERVICE_FLAGS = _kind(
    "service-flags",
    "a daemon with other flags is another daemon",
    openbsd=Trial("rcctl set @unit@ flags -v", "rcctl set @unit@ flags @flags@", "service/unbound/*"),
)

SERVICE_OFF = _kind(
    "service-off",
    "a daemon that is off on purpose would undo what another one does",
    openbsd=Trial("rcctl enable @unit@", "rcctl disable @unit@", "service/resolvd/*"),
)

LOGIN_CLASS = _kind(
    "login-class",
    "the login class decides whether a code is asked for",
    openbsd=Trial("echo '# changed by hand' >>@path@", "sed -i '$d' @path@"),
)

ACCOUNT_CLASS = _kind(
    "account-class",
    "in another login class an account comes in without its code",
    openbsd=Trial("usermod -L default @name@", "usermod -L @class@ @name@", "account/owner/*"),
)

SYSCTL = _kind(
    "sysctl",
    "what the kernel does now is not what a file says",
    openbsd=Trial("sysctl -q @key@=1", "sysctl -q @key@=@value@", "sysctl/ddb.panic"),
)

SYSCTL_BOOT = _kind(
    "sysctl-boot",
    "what is not in the file is gone after the next boot",
    openbsd=Trial("echo '# changed by hand' >>@path@", "sed -i '$d' @path@"),
)

JOBS = _kind(
    "jobs",
    "a job that does not run is missed when it is too late",
    openbsd=Trial(
        "crontab -l -u @user@ >/var/db/homefleet/broken && "
        "sed '/^# homefleet: begin$/,/^# homefleet: end$/{/^#/!d;}' /var/db/homefleet/broken "
        ">/var/db/homefleet/broken.new && crontab -u @user@ /var/db/homefleet/broken.new",
        "crontab -u @user@ /var/db/homefleet/broken; rm -f /var/db/homefleet/broken /var/db/homefleet/broken.new",
        "jobs/root",
    ),
)

LOG_FILE = _kind(
    "log-file",
    "syslogd makes no file: what has none is lost, and a log that others read or write is everybody's",
    openbsd=Trial("chmod 644 @path@", "chmod @mode@ @path@", "log-file/var/log/hosts/other"),
)

PF_ENABLED = _kind(
    "pf-enabled",
    "without pf everything passes",
    openbsd=Trial("pfctl -q -d", "pfctl -q -e"),
)

PF_RULES = _kind(
    "pf-rules",
    "the rules in the kernel are what filters, not those in the file",
    openbsd=Trial("pfctl -q -F rules", "pfctl -q -f /etc/pf.conf"),
)

PF_TABLE = _kind(
    "pf-table",
    "a ban that goes into a table that is not there bans nobody",
    openbsd=Trial("pfctl -q -t @table@ -T kill", "pfctl -q -f /etc/pf.conf", "pf/table/ssh_bruteforce"),
)
