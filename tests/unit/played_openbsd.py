"""An OpenBSD host that is played: it answers the questions of tests/verify in the formats of the contract."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from testinfra import host as testinfra_host
from testinfra.backend.base import BaseBackend

from facts.openbsd.crontab import BEGIN, END
from operations.openbsd.accounts import NO_PASSWORD, class_text
from tests.verify.declared import Declared
from tests.verify.evidence import evidence_of

Answer = tuple[int, str, str]

# What `pfctl -sr` shows of rules that were loaded, and `pfctl -nvf` of the file beside its macros, options and tables.
RULES = (
    "match in all scrub (no-df random-id)",
    "block drop log all",
    "pass out quick inet proto icmp all icmp-type echoreq",
    "block drop in quick from <api_bans> to any",
    "pass in quick proto tcp from <__automatic_5f2c_0> to (vio0) port = 2247 flags S/SA",
    "pass in quick proto tcp from any to (vio0) port = 2022 flags S/SA keep state (source-track rule, max-src-conn 20, "
    "max-src-conn-rate 15/60, overload <ssh_bruteforce> flush global, src.track 60)",
)
OPTIONS = (
    'ext = "vio0"',
    "set skip on { lo }",
    "set block-policy drop",
    "table <api_bans> persist",
    "table <__automatic_9d01_0> const { 203.0.113.2 2001:db8:1::/64 }",
)


@dataclass
class Service:
    """A service as rcctl(8) shows it."""

    enabled: bool = True
    running: bool = True
    kind: str = "base"
    flags: str = ""
    stored: dict[str, str] = field(default_factory=dict)


@dataclass
class OpenbsdMachine:
    """A host in the shape in which its tools show it, to be broken by a test."""

    packages: dict[str, str] = field(default_factory=dict)
    manual: list[str] = field(default_factory=list)
    services: dict[str, Service] = field(default_factory=dict)
    sets: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    matching: dict[str, list[str]] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)
    database: str = ""
    groups: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    logins: dict[str, list[str]] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    directories: dict[str, str] = field(default_factory=dict)
    authorized: dict[str, list[str]] = field(default_factory=dict)
    sysctl_conf: str | None = ""
    values: dict[str, str] = field(default_factory=dict)
    tabs: dict[str, list[str] | None] = field(default_factory=dict)
    sockets: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    permits: list[str] = field(default_factory=list)
    enabled: bool = True
    tables: dict[str, list[str]] = field(default_factory=dict)
    loaded: list[str] = field(default_factory=list)
    ruleset: list[str] = field(default_factory=list)
    silent: dict[str, Answer] = field(default_factory=dict)

    def answer(self, declared: Declared) -> dict[str, Answer]:
        """Return what the commands say, by command."""
        questions = evidence_of(declared, testinfra_host.Host(BaseBackend("played"))).questions()
        said = {
            "packages": self._packages(),
            "services": self._services(),
            "files": self._files(),
            "accounts": self._accounts(),
            "sysctls": self._sysctls(),
            "jobs": self._jobs(),
            "sockets": self._sockets(),
            "root keys": self.keys,
            "root": self.permits,
            "pf": self._pf(),
            "loaded": self.loaded,
            "ruleset": self.ruleset,
        } | self.matching
        return {
            command: self.silent.get(name, (0, "".join(f"{line}\n" for line in said.get(name, [])), ""))
            for name, command in questions.items()
        }

    def _packages(self) -> list[str]:
        names = sorted(self.packages.values())
        return ["##manual##", *self.manual, "##all##", *self.packages, "##names##", *names, "##PACKAGES##"]

    def _services(self) -> list[str]:
        lines = [f"order {' '.join(name for name, it in self.services.items() if it.kind == 'package')}"]
        for name, it in self.services.items():
            lines += [f"service {name} {0 if it.enabled else 1}", f"kind {it.kind}"]
            if it.kind in ("base", "package"):
                lines += ["value class daemon", "value rtable 0", "value timeout 30", "value user root"]
                lines += [f"value {key} {value}" for key, value in it.stored.items() if key != "flags"]
                lines.append(f"value flags {it.flags if it.enabled else 'NO'}")
                lines += [f"stored {key} {value}" for key, value in it.stored.items()]
                lines += ["running"] if it.running else []
        return [*lines, "##SERVICES##"]

    def _files(self) -> list[str]:
        lines = []
        for name, files in self.sets.items():
            lines += [f"set {name}", *(f"file {' '.join(words)} {path}" for path, words in files.items())]
            lines += [f"manifest {path}" for path in files]
        return [*lines, "##FILESETS##"]

    def _accounts(self) -> list[str]:
        lines = [f"database {self.database}"] if self.database else []
        lines += [f"group:{name}:{gid}:{','.join(members)}" for name, (gid, members) in self.groups.items()]
        lines += [f"class {name} {' '.join(words)}" for name, words in self.classes.items()]
        for name, fields in self.logins.items():
            starred = self.passwords[name].startswith("*")
            lines.append(f"login:{name}:{':'.join(fields)}:{1 if starred else 0}")
        for name in self.logins:
            lines.append(f"password {name} {digest(self.passwords[name])}")
            lines += [f"directory {name} {self.directories[name]}"] if name in self.directories else []
            lines += [f"keys {name} {' '.join(self.authorized[name])}"] if name in self.authorized else []
        return [*lines, "##ACCOUNTS##"]

    def _sysctls(self) -> list[str]:
        file = [] if self.sysctl_conf is None else [f"file root wheel 644 {digest(self.sysctl_conf)}"]
        return [*file, *(f"value {key} {value}" for key, value in self.values.items()), "##SYSCTLS##"]

    def _jobs(self) -> list[str]:
        lines = []
        for user, tab in self.tabs.items():
            if tab is None:
                lines.append(f"missing {user}")
                continue
            marks = [line for line in tab if line in (BEGIN, END)]
            ours = tab[tab.index(BEGIN) : tab.index(END) + 1] if marks == [BEGIN, END] else []
            lines += [f"user {user}", *(f"mark {'b' if line == BEGIN else 'e'}" for line in marks)]
            lines += [f"block {digest(''.join(f'{line}{chr(10)}' for line in ours))}"] if tab else []
        return [*lines, "##CRONTABS##"]

    def _sockets(self) -> list[str]:
        columns = "Proto   Recv-Q Send-Q  Local Address          Foreign Address        TCP-State"
        six = [line for line in self.sockets if line.split()[0].endswith("6")]
        four = [line for line in self.sockets if line not in six]
        title = "Active {} connections (including servers)"
        return [title.format("Internet"), columns, *four, title.format("Internet6"), columns, *six]

    def _pf(self) -> list[str]:
        status = "Enabled for 0 days 00:10:00" if self.enabled else "Disabled for 0 days 00:00:07"
        lines = [f"Status: {status}              Debug: err"]
        for name, entries in self.tables.items():
            lines += [f"table {name}", *(f"   {entry}" for entry in entries)]
        return [*lines, "##PF##"]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def healthy_openbsd(declared: Declared) -> OpenbsdMachine:
    """Return the host as it is after a deploy."""
    names = {text: f"{text.partition('--')[0]}-1.2.3" for text in declared.packages}
    accounts = declared.accounts
    return OpenbsdMachine(
        packages={"quirks--": "quirks-7.14", **names},
        manual=list(names),
        services={
            daemon.name: Service(
                enabled=daemon.enabled,
                running=daemon.enabled,
                flags=daemon.flags or "-c /default",
                stored=_own(daemon.flags),
            )
            for daemon in declared.daemons
        },
        sets={
            each.name: {
                # The host has the values of secrets, the inventory only their marks.
                file.path: [
                    file.owner,
                    file.group,
                    f"{file.mode:o}",
                    digest(file.text.replace("@@", "value")),
                ]
                for file in each.files
            }
            for each in declared.sets
        },
        classes={it.name: ["root", "wheel", "644", digest(class_text(it))] for it in declared.classes},
        groups={
            "wheel": (0, ["root", *(it.name for it in accounts if "wheel" in it.groups)]),
            "operator": (5, ["root"]),
            **{it.name: (it.uid or 1000, list[str]()) for it in accounts},
        },
        logins={
            it.name: [
                str(it.uid or 1000),
                "" if it.login_class == "default" else it.login_class,
                it.comment,
                it.home or f"/home/{it.name}",
                it.shell,
            ]
            for it in accounts
        },
        passwords={it.name: NO_PASSWORD if it.password is None else "$2b$10$abcdefg" for it in accounts},
        directories={it.name: f"700 {it.name}" for it in accounts if it.authorized_keys is not None},
        authorized={
            it.name: [it.name, it.name, "600", digest("".join(f"{key}\n" for key in it.authorized_keys))]
            for it in accounts
            if it.authorized_keys is not None
        },
        sysctl_conf="".join(f"{key}={value}\n" for key, value in declared.sysctls),
        values=dict(declared.sysctls),
        tabs={user: _tab(declared, user) for user in declared.job_users},
        sockets=_sockets(declared),
        permits=["no"],
        tables={name: [] for name in (*(table.name for table in declared.tables), *declared.bounded)},
        loaded=list(RULES),
        ruleset=[*OPTIONS, *(rule.replace("5f2c", "9d01") for rule in RULES)],
    )


def _own(flags: str | None) -> dict[str, str]:
    return {"flags": flags} if flags else {}


def _tab(declared: Declared, user: str) -> list[str]:
    lines = [
        f"{job.schedule} {''.join(f'-{flag} ' for flag in job.flags)}{job.command}"
        for job in declared.jobs
        if job.user == user
    ]
    system = ["0 * * * * /usr/bin/newsyslog", "30 1 * * * /bin/sh /etc/daily"] if user == "root" else []
    return [*system, BEGIN, *lines, END] if lines else system


def _sockets(declared: Declared) -> list[str]:
    lines = []
    for listen in declared.listens:
        for six in ("", "6"):
            state = " LISTEN" if listen.protocol == "tcp" else ""
            local = f"*.{listen.port}"
            lines.append(f"{listen.protocol + six:<7}      0      0  {local:<22} {'*.*':<22}{state}")
    return [
        *lines,
        "tcp          0      0  *.22                   *.*                    LISTEN",
        "tcp6         0      0  *.22                   *.*                    LISTEN",
        "tcp          0      0  127.0.0.1.53           *.*                    LISTEN",
        "tcp6         0      0  ::1.53                 *.*                    LISTEN",
        "tcp6         0      0  fe80::1%lo0.53         *.*                    LISTEN",
        "tcp          0     44  192.0.2.53.2247        203.0.113.2.40022      ESTABLISHED",
        "udp          0      0  127.0.0.1.53           *.*                   ",
        "udp          0      0  192.0.2.53.40001       198.51.100.7.123      ",
        "udp          0      0  *.514                  *.*                   ",
        "udp          0      0  *.*                    *.*                   ",
    ]
