"""Scenarios of sysctls, crontabs and tables of pf: openbsd-contract 3.1, 5.10, 11, 14."""

from __future__ import annotations

from io import StringIO
from typing import Any

from pyinfra.operations import crontab, files, server

from fleet.model.service import Account, File, FileSet, Job
from operations.filesets import filesets
from operations.openbsd.accounts import accounts
from operations.openbsd.jobs import jobs
from operations.openbsd.sysctls import sysctls
from operations.openbsd.tables import tables
from tests.scenarios.scenario import Scenario, Wish

_PF = "table <bans> persist\ntable <fixed> const { 192.0.2.9 }\npass\nblock in from <fixed>\n"
_PF_ON = f"cat >/etc/pf.conf <<'END'\n{_PF}END\npfctl -q -f /etc/pf.conf; pfctl -q -e"
_NO_TABLE = "table <bans> persist\npass\n"
_OURS = "# homefleet: begin"
_SYSTEM = "crontab -l | grep -c -e bin/newsyslog -e /etc/daily -e /etc/weekly -e /etc/monthly"
_OTHER = "(crontab -l; echo '0 4 * * * /usr/local/bin/sweep now') >/tmp/tab; crontab /tmp/tab"


def _sysctl(key: str, value: str) -> dict[str, Any]:
    return {
        "ours": (Wish(sysctls, {"wanted": [(key, value)]}),),
        "theirs": (Wish(server.sysctl, {"key": key, "value": value, "persist": True}),),
    }


def _jobs(*wanted: Job, users: tuple[str, ...] = ("root",)) -> tuple[Wish, ...]:
    return (Wish(jobs, {"wanted": wanted, "users": users}),)


def _tables(addresses: tuple[str, ...], name: str = "bans") -> dict[str, Any]:
    command = f"pfctl -q -t {name} -T replace {' '.join(addresses)}"
    return {
        "ours": (Wish(tables, {"wanted": {name: addresses}}),),
        # It has no operation for them.
        "theirs": (Wish(server.shell, {"commands": [command]}),),
    }


SCENARIOS = (
    Scenario(
        name="sysctl",
        wanted="a value, now and at the next boot",
        shows="sysctl -n net.inet.ip.ttl; for w in $(sed 's/#.*//' /etc/sysctl.conf); do echo \"$w\"; done",
        right="32\nnet.inet.ip.ttl=32",
        **_sysctl("net.inet.ip.ttl", "32"),
        uses=("sysctl.conf",),
    ),
    Scenario(
        name="sysctl-another-value",
        wanted="another value than the file has",
        before="echo net.inet.ip.ttl=16 >/etc/sysctl.conf; sysctl -q net.inet.ip.ttl=16",
        shows="sysctl -n net.inet.ip.ttl; for w in $(sed 's/#.*//' /etc/sysctl.conf); do echo \"$w\"; done",
        right="32\nnet.inet.ip.ttl=32",
        **_sysctl("net.inet.ip.ttl", "32"),
        uses=("sysctl.conf",),
    ),
    Scenario(
        name="sysctl-read-only",
        wanted="a value that the kernel does not let be changed: to fail",
        shows="sysctl -n kern.ngroups",
        right="16",
        fails="Operation not permitted",
        **_sysctl("kern.ngroups", "32"),
        uses=("sysctl.conf",),
    ),
    Scenario(
        name="sysctl-unknown",
        wanted="a name that the kernel has not: to fail",
        shows="sysctl -n net.inet.ip.ttl",
        right="64",
        fails="this kernel has no net.inet.ip.nosuch",
        **_sysctl("net.inet.ip.nosuch", "1"),
        uses=("sysctl.conf",),
    ),
    Scenario(
        name="sysctl-reads-back-otherwise",
        wanted="a value that the kernel says in another way, which would be due for ever: to fail",
        shows="sysctl -n net.inet.ip.ttl",
        right="32",
        fails="it is 32",
        **_sysctl("net.inet.ip.ttl", "032"),
        uses=("sysctl.conf",),
    ),
    Scenario(
        name="crontab-random-minute",
        wanted="a job at a random minute that mails only on failure, beside the system's",
        ours=_jobs(Job(schedule="~ 3 * * *", command="/usr/local/bin/sweep", flags="n")),
        theirs=(Wish(crontab.crontab, {"command": "-n /usr/local/bin/sweep", "minute": "~", "hour": "3"}),),
        shows=f"crontab -l | grep sweep; {_SYSTEM}",
        right="~ 3 * * * -n /usr/local/bin/sweep\n4",
        uses=("crontab",),
    ),
    Scenario(
        name="crontab-refused",
        wanted="a job at a time that crontab(5) does not know: to fail",
        ours=_jobs(Job(schedule="*/5~10 * * * *", command="/usr/local/bin/sweep")),
        theirs=(Wish(crontab.crontab, {"command": "/usr/local/bin/sweep", "minute": "*/5~10"}),),
        shows=f"crontab -l | grep sweep; {_SYSTEM}",
        right="4",
        fails="bad minute",
        uses=("crontab",),
    ),
    Scenario(
        name="crontab-letters-of-a-pattern",
        wanted="a job whose command has letters of a regular expression",
        ours=_jobs(Job(schedule="0 4 * * *", command="find /var/x -name '*.[ab]+' -delete")),
        theirs=(Wish(crontab.crontab, {"command": "find /var/x -name '*.[ab]+' -delete", "minute": "0", "hour": "4"}),),
        shows="crontab -l | grep -F /var/x",
        right="0 4 * * * find /var/x -name '*.[ab]+' -delete",
        uses=("crontab",),
    ),
    Scenario(
        name="crontab-job-gone",
        wanted="a job that left, the system's and somebody's stay",
        before=f"(crontab -l; printf '%s\\n' '{_OURS}' '0 4 * * * /usr/local/bin/sweep' '# homefleet: end') "
        ">/tmp/tab; crontab /tmp/tab; (crontab -l; echo '0 5 * * * /usr/local/bin/other') >/tmp/tab; "
        "crontab /tmp/tab",
        ours=_jobs(),
        theirs=(Wish(crontab.crontab, {"command": "/usr/local/bin/sweep", "present": False}),),
        shows=f"crontab -l | grep -e sweep -e other; {_SYSTEM}",
        right="0 5 * * * /usr/local/bin/other\n4",
        uses=("crontab",),
    ),
    Scenario(
        name="crontab-beside-a-like-one",
        wanted="a job whose command is the beginning of somebody's",
        before=_OTHER,
        ours=_jobs(Job(schedule="0 5 * * *", command="/usr/local/bin/sweep")),
        theirs=(Wish(crontab.crontab, {"command": "/usr/local/bin/sweep", "minute": "0", "hour": "5"}),),
        shows="crontab -l | grep sweep | sort",
        right="0 4 * * * /usr/local/bin/sweep now\n0 5 * * * /usr/local/bin/sweep",
        uses=("crontab",),
    ),
    Scenario(
        name="crontab-expire",
        wanted="a table whose addresses leave it after a day",
        before=_PF_ON,
        ours=_jobs(Job(schedule="~ * * * *", command="pfctl -q -t bans -T expire 86400", flags="n")),
        theirs=(Wish(crontab.crontab, {"command": "-n pfctl -q -t bans -T expire 86400", "minute": "~"}),),
        shows="crontab -l | grep pfctl; pfctl -q -t bans -T expire 86400 && echo accepted",
        right="~ * * * * -n pfctl -q -t bans -T expire 86400\naccepted",
        uses=(
            "crontab",
            "pf",
        ),
    ),
    Scenario(
        name="crontab-user-of-the-run",
        wanted="a job of a user who is made in the same run",
        ours=(
            Wish(accounts, {"classes": (), "groups": (), "wanted": [Account(name="kay")]}),
            Wish(
                jobs,
                {"wanted": [Job(user="kay", schedule="0 5 * * *", command="true")], "users": ["kay"]},
                depends="the user is made by the operation before",
            ),
        ),
        theirs=(
            Wish(server.user, {"user": "kay"}),
            Wish(
                crontab.crontab,
                {"command": "true", "minute": "0", "hour": "5", "user": "kay"},
                depends="the user is made by the operation before",
            ),
        ),
        shows="crontab -l -u kay | grep true",
        right="0 5 * * * true",
    ),
    Scenario(
        name="table-replaced",
        wanted="other addresses in a table",
        before=f"{_PF_ON}; pfctl -q -t bans -T add 192.0.2.1 192.0.2.2",
        shows="pfctl -t bans -T show",
        right="   192.0.2.2\n   198.51.100.0/24",
        **_tables(("192.0.2.2", "198.51.100.0/24")),
        uses=("pf",),
    ),
    Scenario(
        name="table-in-another-spelling",
        wanted="the addresses that the table has, spelt in another way",
        before=f"{_PF_ON}; pfctl -q -t bans -T add 192.0.2.2 '!192.0.2.3'",
        shows="pfctl -t bans -T show",
        right="   192.0.2.2\n  !192.0.2.3",
        **_tables(("192.0.2.2/32", "!192.0.2.3")),
        uses=("pf",),
    ),
    Scenario(
        name="table-undeclared",
        wanted="addresses in a table that pf.conf does not have, gone with its next load: to be refused",
        before=_PF_ON,
        shows="pfctl -sT",
        right="bans\nfixed",
        fails="pf has no table <nosuch>",
        **_tables(("192.0.2.1",), "nosuch"),
        uses=("pf",),
    ),
    Scenario(
        name="table-const",
        wanted="addresses in a table that is const: to fail",
        before=_PF_ON,
        shows="pfctl -t fixed -T show",
        right="   192.0.2.9",
        fails="table fixed",
        **_tables(("192.0.2.1",), "fixed"),
        uses=("pf",),
    ),
    Scenario(
        name="table-of-the-run",
        wanted="addresses in a table that the new pf.conf declares",
        before="echo pass >/etc/pf.conf; pfctl -q -f /etc/pf.conf; pfctl -q -e",
        ours=(
            Wish(
                filesets,
                {
                    "sets": (
                        FileSet(
                            name="pf",
                            files=(File(path="/etc/pf.conf", text=_NO_TABLE, group="wheel", mode=0o600),),
                            check="pfctl -nf {new}/etc/pf.conf",
                            apply="pfctl -f /etc/pf.conf",
                        ),
                    ),
                    "openbsd": True,
                },
            ),
            Wish(tables, {"wanted": {"bans": ["192.0.2.1"]}}, depends="the new pf.conf declares the table"),
        ),
        theirs=(
            Wish(files.put, {"src": StringIO(_NO_TABLE), "dest": "/etc/pf.conf", "user": "root", "mode": "600"}),
            Wish(server.shell, {"commands": ["pfctl -f /etc/pf.conf"]}),
            Wish(server.shell, {"commands": ["pfctl -q -t bans -T replace 192.0.2.1"]}),
        ),
        shows="pfctl -t bans -T show; pfctl -sT",
        right="   192.0.2.1\nbans",
        uses=("pf",),
    ),
)
