"""The root file system of the OpenBSD stand-ins: Debian's programs at OpenBSD's places, and nothing else in sight.

It is two directories that overlayfs puts on top of each other: `base`, a Debian 13 whose programs were moved to
/usr/lib/standin/bin, and `system`, what OpenBSD's base has: the commands of `standin`, its users and its files in
/etc. The first takes half a minute to build and seldom changes; the second takes seconds.
"""

import ast
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.lab.host import LabError, cached, run
from tests.lab.openbsd import mirror
from tests.lab.openbsd.debian import CONTAINED, PATH, PYTHON, TOOLS, base
from tests.lab.openbsd.standin.sshd import STYLES
from tests.lab.openbsd.standin.users import NO_PASSWORD, Account, Group, write

HERE = Path(__file__).parent
HOME = "/usr/lib/standin"
_COMPILER = ("gcc", "-O2", "-Wall", "-Wextra", "-Werror")

_BUILDER = ast.dump(ast.parse(Path(__file__).read_text()))


_NOLOGIN = "/sbin/nologin"


def _user(name: str, uid: int, gid: int, login_class: str, gecos: str, home: str, shell: str) -> Account:
    return Account(name, "*", uid, gid, login_class, 0, 0, gecos, home, shell)


# Accounts of base's daemons with their numbers, which are those of their groups too: with /var/empty, and with no home.
_PRIVSEP = """
    sshd 27 _portmap 28 _identd 29 _rstatd 30 _rusersd 32 _fingerd 33 _x11 35 _unwind 48 _traceroute 50 _ping 51
    _dpb 54 _spamd 62 _isakmpd 68 _syslogd 73 _pflogd 74 _bgpd 75 _tcpdump 76 _dhcp 77 _mopd 78 _tftpd 79
    _rbootd 80 _ppp 82 _ntp 83 _ftp 84 _ospfd 85 _hostapd 86 _dvmrpd 87 _ripd 88 _relayd 89 _ospf6d 90 _snmpd 91
    _ypldap 93 _rad 94 _smtpd 95 _rwalld 96 _ldpd 98 _sndio 99 _ldapd 100 _iked 101 _iscsid 102 _smtpq 103
    _file 104 _radiusd 105 _eigrpd 106 _vmd 107 _sndiop 110 _syspatch 112 _slaacd 115
"""
_HOMELESS = """
    _pbuild 55 _pfetch 56 _pkgfetch 57 _pkguntar 58 _rpki-client 70 _tftp_proxy 108 _ftp_proxy 109 nobody 32767
"""
_PEOPLE = (
    _user("root", 0, 0, "daemon", "Charlie &", "/root", "/bin/ksh"),
    _user("daemon", 1, 1, "", "The devil himself", "/root", _NOLOGIN),
    _user("operator", 2, 5, "", "System &", "/operator", _NOLOGIN),
    _user("bin", 3, 7, "", "Binaries Commands and Source", "/", _NOLOGIN),
    _user("build", 21, 21, "", "base and xenocara build", "/var/empty", "/bin/ksh"),
    _user("_unbound", 53, 53, "unbound", "Unbound Daemon", "/var/unbound", _NOLOGIN),
    _user("www", 67, 67, "", "HTTP Server", "/var/www", _NOLOGIN),
    _user("_nsd", 97, 97, "", "NSD Daemon", "/var/empty", _NOLOGIN),
)


def _numbered(text: str) -> Iterator[tuple[str, int]]:
    words = text.split()
    return zip(words[::2], map(int, words[1::2]), strict=True)


USERS = sorted(
    (
        *_PEOPLE,
        *(_user(name, uid, uid, "", f"{name} privsep", "/var/empty", _NOLOGIN) for name, uid in _numbered(_PRIVSEP)),
        *(_user(name, uid, uid, "", name, "/nonexistent", _NOLOGIN) for name, uid in _numbered(_HOMELESS)),
    ),
    key=lambda account: account.uid,
)
"""The accounts of OpenBSD's base."""

_DEPLOY_ID = 1000

_GROUPS = {
    "wheel": (0, "root"),
    "daemon": (1, "daemon"),
    "kmem": (2, "root"),
    "sys": (3, "root"),
    "tty": (4, "root"),
    "operator": (5, "root"),
    "bin": (7, ""),
    "wsrc": (9, ""),
    "users": (10, ""),
    "auth": (11, ""),
    "games": (13, ""),
    "staff": (20, "root"),
    "wobj": (21, ""),
    "guest": (31, "root"),
    "_sshagnt": (34, ""),
    "utmp": (45, ""),
    "_token": (64, ""),
    "_shadow": (65, ""),
    "crontab": (66, ""),
    "network": (69, ""),
    "authpf": (72, ""),
    "dialer": (117, ""),
    "nogroup": (32766, ""),
}


@dataclass(frozen=True)
class Entry:
    """A directory, or a file with its text, of the stand-in's system.

    Arguments: `path`, below the root; `text`, None for a directory; `mode`, `uid` and `gid` as they shall be.
    """

    path: str
    text: str | None
    mode: int
    uid: int = 0
    gid: int = 0


def _write_accounts(root: Path, user: str) -> None:
    """Write the accounts into a root as the stand-in's own commands do."""
    deploy = Account(user, NO_PASSWORD, _DEPLOY_ID, _DEPLOY_ID, "", 0, 0, "deployment", f"/home/{user}", "/bin/ksh")
    users = (*USERS, deploy)
    own = {name: (gid, tuple(members.split())) for name, (gid, members) in _GROUPS.items()}
    taken = {gid for gid, _ in own.values()}
    own |= {account.name: (account.gid, ()) for account in users if account.gid not in taken}
    groups = [Group(name, "*", gid, members) for name, (gid, members) in sorted(own.items(), key=lambda it: it[1][0])]
    os.environ["STANDIN_ROOT"] = str(root)
    try:
        write(users, groups)
    finally:
        del os.environ["STANDIN_ROOT"]


# Owner, group and mode as /etc/mtree has them.
_DIRECTORIES = (
    Entry("etc/examples", None, 0o755),
    Entry("etc/login.conf.d", None, 0o755),
    Entry("etc/rc.d", None, 0o755),
    Entry("etc/skel", None, 0o755),
    Entry("etc/ssl/private", None, 0o700),
    Entry("etc/signify", None, 0o755),
    Entry("root", None, 0o700),
    Entry("root/.ssh", None, 0o700),
    Entry("tmp", None, 0o1777),
    Entry("usr/libexec/auth", None, 0o755),
    Entry("usr/local/bin", None, 0o755),
    Entry("usr/local/lib", None, 0o755),
    Entry("usr/local/libexec/auth", None, 0o755),
    Entry("usr/local/sbin", None, 0o755),
    Entry("usr/local/share/doc/pkg-readmes", None, 0o755),
    Entry("usr/local/share/examples", None, 0o755),
    Entry("var/backups", None, 0o700),
    Entry("var/cron", None, 0o555),
    Entry("var/cron/atjobs", None, 0o1770, 0, 66),
    Entry("var/cron/tabs", None, 0o1730, 0, 66),
    Entry("var/db", None, 0o755),
    Entry("var/db/pkg", None, 0o755),
    Entry("var/empty", None, 0o755),
    Entry("var/log", None, 0o755),
    Entry("var/mail", None, 0o755),
    Entry("var/nsd", None, 0o755),
    Entry("var/nsd/db", None, 0o775, 0, 97),
    Entry("var/nsd/etc", None, 0o750, 0, 97),
    Entry("var/nsd/run", None, 0o775, 0, 97),
    Entry("var/nsd/run/xfr", None, 0o770, 0, 97),
    Entry("var/nsd/zones", None, 0o755),
    Entry("var/nsd/zones/master", None, 0o755),
    Entry("var/nsd/zones/slave", None, 0o755, 97, 97),
    Entry("var/run", None, 0o755),
    Entry("var/spool/smtpd", None, 0o711),
    Entry("var/standin", None, 0o755),
    Entry("var/standin/boot", None, 0o755),
    Entry("var/sysmerge", None, 0o755),
    Entry("var/syspatch", None, 0o755),
    Entry("var/tmp", None, 0o1777),
    Entry("var/unbound", None, 0o755),
    Entry("var/unbound/db", None, 0o775, 0, 53),
    Entry("var/unbound/etc", None, 0o750, 0, 53),
    Entry("var/www", None, 0o755),
    Entry("var/www/acme", None, 0o755),
    Entry("var/www/htdocs", None, 0o755),
    Entry("var/www/logs", None, 0o755),
    Entry("var/www/run", None, 0o755),
    # Debian's smtpd has it compiled in.
    Entry("var/lib/opensmtpd/empty", None, 0o711),
)
_LOGS = {
    "authlog": 0o640,
    "daemon": 0o640,
    "lastlog": 0o644,
    "lpd-errs": 0o640,
    "maillog": 0o600,
    "messages": 0o644,
    "secure": 0o600,
    "wtmp": 0o644,
    "xferlog": 0o640,
}
_LOGIN_CONF = """\
auth-defaults:auth=passwd,skey:

auth-ftp-defaults:auth-ftp=passwd:

default:\\
	:path=/usr/bin /bin /usr/sbin /sbin /usr/X11R6/bin /usr/local/bin /usr/local/sbin:\\
	:umask=022:\\
	:datasize-max=1024M:\\
	:datasize-cur=1024M:\\
	:maxproc-max=256:\\
	:maxproc-cur=128:\\
	:openfiles-max=1024:\\
	:openfiles-cur=512:\\
	:stacksize-cur=4M:\\
	:localcipher=blowfish,a:\\
	:tc=auth-defaults:\\
	:tc=auth-ftp-defaults:

daemon:\\
	:ignorenologin:\\
	:datasize=infinity:\\
	:maxproc=infinity:\\
	:openfiles-max=1024:\\
	:openfiles-cur=128:\\
	:stacksize-cur=8M:\\
	:tc=default:

staff:\\
	:datasize-cur=1536M:\\
	:datasize-max=infinity:\\
	:maxproc-max=512:\\
	:maxproc-cur=256:\\
	:ignorenologin:\\
	:requirehome@:\\
	:tc=default:

authpf:\\
	:welcome=/etc/motd.authpf:\\
	:shell=/usr/sbin/authpf:\\
	:tc=default:

bgpd:\\
	:openfiles=512:\\
	:tc=daemon:

unbound:\\
	:openfiles=512:\\
	:tc=daemon:
"""
_CRONTAB = """\
SHELL=/bin/sh
PATH=/bin:/sbin:/usr/bin:/usr/sbin
HOME=/var/log
#
#minute	hour	mday	mon	wday	[flags] command
#
# rotate log files every hour, if necessary
0	*	*	*	*	/usr/bin/newsyslog
# do daily/weekly/monthly maintenance
30	1	*	*	*	/bin/sh /etc/daily
30	3	*	*	6	/bin/sh /etc/weekly
30	5	1	*	*	/bin/sh /etc/monthly
"""
_NEWSYSLOG = """\
# logfile_name		owner:group     mode count size when  flags
/var/cron/log		root:wheel	600  3     10   *     Z
/var/log/authlog	root:wheel	640  7     *    168   Z
/var/log/daemon				640  5     300  *     Z
/var/log/lpd-errs			640  7     10   *     Z
/var/log/maillog			640  7     *    24    Z
/var/log/messages			644  5     300  *     Z
/var/log/secure				600  7     *    168   Z
/var/log/wtmp				644  7     *    $W6D4 B
/var/log/xferlog			640  7     250  *     Z
"""
_SYSLOG = """\
*.notice;auth,authpriv,cron,ftp,kern,lpr,mail,user.none	/var/log/messages
kern.debug;syslog,user.info				/var/log/messages
auth.info						/var/log/authlog
authpriv.debug						/var/log/secure
cron.info						/var/cron/log
daemon.info						/var/log/daemon
ftp.info						/var/log/xferlog
lpr.debug						/var/log/lpd-errs
mail.info						/var/log/maillog
"""
_ALIASES_FILE = """\
MAILER-DAEMON: postmaster
postmaster: root

daemon:	root
operator: root
www:	root

_dhcp:  /dev/null
_ntp:   /dev/null
_nsd:   /dev/null
_unbound: /dev/null
bin:	/dev/null
build:  /dev/null
nobody:	/dev/null
sshd:	/dev/null

# root:
abuse:	root
security:	root
"""
_SMTPD_CONF = """\
table aliases file:/etc/mail/aliases

listen on socket

action "local_mail" mbox alias <aliases>
action "outbound" relay

match from local for local action "local_mail"
match from local for any action "outbound"
"""
_PF_CONF = """\
set skip on lo

block return	# block stateless traffic
pass		# establish keep-state

# By default, do not permit remote connections to X11
block return in on ! lo0 proto tcp to port 6000:6010

# Port build user does not need network
block return out log proto {tcp udp} user _pbuild
"""
_SSHD_CONFIG = """\
# The defaults of the installed system: root cannot log in, as the installer was told.
PermitRootLogin no
AuthorizedKeysFile	.ssh/authorized_keys
Subsystem	sftp	/usr/libexec/sftp-server
"""
_PROFILE = f"PATH=$HOME/bin:{PATH}\nexport PATH HOME TERM\n"
_FSTAB = """\
1f0d3a7c8e6b5294.b none swap sw
1f0d3a7c8e6b5294.a / ffs rw 1 1
1f0d3a7c8e6b5294.k /home ffs rw,nodev,nosuid 1 2
1f0d3a7c8e6b5294.d /tmp ffs rw,nodev,nosuid 1 2
1f0d3a7c8e6b5294.f /usr ffs rw,nodev 1 2
1f0d3a7c8e6b5294.h /usr/local ffs rw,wxallowed,nodev 1 2
1f0d3a7c8e6b5294.e /var ffs rw,nodev,nosuid 1 2
"""
# sshd(8) asks PAM where OpenBSD's would ask bsdauth: a program of ours answers, the modules carry it over.
_PAM = {
    "standin": (
        "auth required pam_exec.so quiet expose_authtok type=auth /usr/lib/standin/login-sshd\n"
        # pam_exec(8) has nothing to say on credentials, and somebody must.
        "auth required pam_permit.so\n"
        "account required pam_permit.so\nsession required pam_permit.so\npassword required pam_deny.so\n"
    ),
    "doas": "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n",
    "su": (
        "auth sufficient pam_rootok.so\nauth required pam_unix.so\n"
        "account required pam_permit.so\nsession required pam_permit.so\n"
    ),
    "other": (
        "auth required pam_deny.so\naccount required pam_deny.so\n"
        "session required pam_deny.so\npassword required pam_deny.so\n"
    ),
}


def system_files(user: str) -> Iterator[Entry]:
    """Return the files and directories that a freshly installed OpenBSD has, as far as the stand-in needs them.

    Args:
        user: the account that the installer's answers made, by which the first deploy logs in.

    Yields:
        Each directory before what is in it.
    """
    yield from _DIRECTORIES
    yield Entry(f"home/{user}", None, 0o755, _DEPLOY_ID, _DEPLOY_ID)
    yield Entry(f"home/{user}/.ssh", None, 0o700, _DEPLOY_ID, _DEPLOY_ID)
    yield Entry(f"home/{user}/.profile", _PROFILE, 0o644, _DEPLOY_ID, _DEPLOY_ID)
    for name, mode in _LOGS.items():
        yield Entry(f"var/log/{name}", "", mode)
    yield Entry("var/cron/log", "", 0o600)
    yield Entry("var/cron/tabs/root", _CRONTAB, 0o600, 0, 66)
    yield Entry("etc/doas.conf", f"permit nopass {user} as root\n", 0o600)
    yield Entry("etc/examples/pf.conf", _PF_CONF, 0o644)
    yield Entry("etc/examples/doas.conf", "permit keepenv :wheel\n", 0o644)
    yield Entry("etc/fstab", _FSTAB, 0o644)
    yield Entry("etc/hosts", "127.0.0.1	localhost\n::1		localhost\n", 0o644)
    yield Entry("etc/installurl", f"{mirror.TREE}\n", 0o644)
    yield Entry("etc/login.conf", _LOGIN_CONF, 0o644)
    yield Entry("etc/mail/aliases", _ALIASES_FILE, 0o644)
    yield Entry("etc/mail/smtpd.conf", _SMTPD_CONF, 0o644)
    yield Entry(
        "etc/motd",
        "OpenBSD 7.9-current\n\nWelcome to OpenBSD: The proactively secure Unix-like operating system.\n",
        0o644,
    )
    yield Entry("etc/newsyslog.conf", _NEWSYSLOG, 0o644)
    yield Entry("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n", 0o644)
    yield Entry("etc/ntpd.conf", "servers pool.ntp.org\nsensor *\n", 0o644)
    yield Entry("etc/pf.conf", _PF_CONF, 0o600)
    yield Entry("etc/profile", "", 0o644)
    yield Entry("etc/skel/.profile", _PROFILE, 0o644)
    yield Entry("etc/ssh/sshd_config", _SSHD_CONFIG, 0o644)
    yield Entry("etc/ssh/ssh_config", "", 0o644)
    yield Entry("etc/shells", "/bin/sh\n/bin/csh\n/bin/ksh\n", 0o644)
    yield Entry("etc/syslog.conf", _SYSLOG, 0o644)
    yield Entry("etc/ttys", 'console	"/usr/libexec/getty std.9600"	vt220	on  secure\n', 0o644)
    yield Entry("root/.profile", _PROFILE, 0o644)
    for name, text in _PAM.items():
        yield Entry(f"usr/lib/pam.d/{name}", text, 0o644)


class Launcher(NamedTuple):
    """A command of the stand-in: where it is, and the module whose `main` it runs."""

    path: str
    module: str


def launchers() -> list[Launcher]:
    """Return the commands that the stand-in brings itself.

    Raises:
        LabError: a line of commands.d is no path and module, or two files name one path differently.
    """
    found: dict[str, str] = {}
    for table in sorted((HERE / "standin/commands.d").glob("*.txt")):
        for line in table.read_text().splitlines():
            words = line.partition("#")[0].split()
            if not words:
                continue
            if len(words) != 2 or not words[0].startswith("/"):
                raise LabError(f"{table.name}: not a path and a module: {line}")
            if found.setdefault(words[0], words[1]) != words[1]:
                raise LabError(f"{table.name}: {words[0]} is {found[words[0]]} already")
    return [Launcher(path, module) for path, module in sorted(found.items())]


def launcher_text(module: str) -> str:
    """Return the program that runs a module of the stand-in.

    Args:
        module: its dotted name, such as `standin.rcctl`.
    """
    return (
        f"#!{PYTHON} -IS\n"
        f'import sys; sys.path.insert(0, "{HOME}"); from {module} import main; sys.exit(main(sys.argv[1:]))\n'
    )


def _tree(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def system(user: str = "deploy") -> Path:
    """Return the directory whose `root` lies over the one of `base`: OpenBSD's commands, accounts and files.

    Args:
        user: the account that the installer's answers made.

    Raises:
        LabError: a step of the build failed.
    """
    base_directory = base()
    trees = [path for name in ("standin", "etc", "packages") for path in _tree(HERE / name)]
    inputs = [*trees, HERE / "mirror.py", *sorted(HERE.glob("*.c"))]
    recipe = [
        base_directory.name,
        _BUILDER,
        user,
        *((str(path.relative_to(HERE)), path.read_text()) for path in inputs),
    ]

    def build(part: Path) -> None:
        _lay_out(part / "root", user)
        work = part / "work"
        work.mkdir()
        run([*CONTAINED, "sh", "-c", _COMPILE, "sh", base_directory / "root", part / "root", work])
        shutil.rmtree(work)

    return cached("standin-system", recipe, build)


# Byte code of the stand-in's own Python, made once: an ordinary user of it could not keep it.
_COMPILE = """set -e
mkdir "$3/work" "$3/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3/work" "$3/root"
chroot "$3/root" /usr/lib/standin/python -IS -m compileall -q /usr/lib/standin/standin
"""


def _lay_out(root: Path, user: str) -> None:
    root.mkdir()
    for entry in system_files(user):
        path = root / entry.path
        for parent in reversed(path.relative_to(root).parents):
            (root / parent).mkdir(mode=0o755, exist_ok=True)
        if entry.text is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_text(entry.text)
        os.chown(path, entry.uid, entry.gid)
        path.chmod(entry.mode)
    _write_accounts(root, user)
    for source in _tree(HERE / "etc"):
        path = root / "etc" / source.relative_to(HERE / "etc")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read_bytes())
        path.chmod(0o555 if source.parent.name == "rc.d" and source.name != "rc.subr" else 0o644)
    package = root / HOME.lstrip("/") / "standin"
    shutil.copytree(HERE / "standin", package, ignore=shutil.ignore_patterns("__pycache__"))
    # Debian's smtpd has no other path for it.
    (root / "etc/smtpd.conf").symlink_to("mail/smtpd.conf")
    _compile_programs(root)
    mirror.write(root / mirror.TREE.lstrip("/"))
    for launcher in launchers():
        path = root / launcher.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(launcher_text(launcher.module))
        path.chmod(0o555)


def _compile_programs(root: Path) -> None:
    library = root / STYLES.lstrip("/")
    library.parent.mkdir(parents=True)
    strict = HERE / "strict.c"
    front = root / HOME.lstrip("/") / "strict"
    run([*_COMPILER, "-shared", "-fPIC", "-o", library, HERE / "styles.c"])
    # Static: the C library of this computer is not the stand-in's.
    run([*_COMPILER, "-static", "-o", front, strict])
    names = re.findall(r'^\t\{"([^"]+)",', strict.read_text(), re.MULTILINE)
    for directory, tools in TOOLS.items():
        for tool in set(tools.split()) & set(names):
            path = root / directory.lstrip("/") / tool
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(front, path)


def not_modelled() -> list[str]:
    """Return everything that the stand-in says it does not model, one line each, by module.

    Raises:
        LabError: a module's `NOT_MODELLED` is no tuple of strings.
    """
    lines: list[str] = []
    for path in sorted((HERE / "standin").rglob("*.py")):
        tree = ast.parse(path.read_text())
        name = path.relative_to(HERE / "standin").with_suffix("").as_posix()
        for node in tree.body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if isinstance(target, ast.Name) and target.id == "NOT_MODELLED":
                value = getattr(node, "value", None)
                said = ast.literal_eval(value) if value is not None else None
                if not isinstance(said, tuple) or not all(isinstance(line, str) for line in said):
                    raise LabError(f"{name}: NOT_MODELLED is no tuple of strings")
                lines += [f"{name}: {line}" for line in said]
    return lines
