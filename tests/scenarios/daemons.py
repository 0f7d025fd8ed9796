"""Scenarios of daemons: rcctl(8), rc.conf.local(8), openbsd-contract 1."""

from __future__ import annotations

from io import StringIO
from typing import Any

from pyinfra.operations import bsdinit, files, pkg, server

from fleet.model.service import Daemon, File, FileSet
from operations.filesets import filesets
from operations.openbsd.daemons import daemons
from operations.openbsd.packages import packages
from tests.scenarios.scenario import Scenario, Wish

_HTTPD = 'server "scenario" {\n\tlisten on 127.0.0.1 port 80\n\troot "/htdocs"\n}\n'
_HTTPD_CONF = f"cat >/etc/httpd.conf <<'END'\n{_HTTPD}END"
_META = """cat >/etc/rc.d/both <<'END'
#!/bin/ksh
for d in redis php83_fpm; do /etc/rc.d/$d $1; done
END
chmod 555 /etc/rc.d/both"""
_RESTART_IF_CHANGED = "the set that the daemon follows may change in this very run"


def _runs(name: str) -> str:
    return f"rcctl enable {name}; rcctl start {name}"


def _ours(*wanted: Daemon) -> tuple[Wish, ...]:
    return (Wish(daemons, {"wanted": wanted}),)


def _theirs(name: str, **arguments: Any) -> Wish:
    return Wish(bsdinit.service, {"service": name, **arguments})


def _flags(name: str, flags: str) -> Wish:
    """Return how pyinfra's users set flags: it has no operation for them."""
    line = f"{name}_flags={flags}"
    return Wish(files.line, {"path": "/etc/rc.conf.local", "line": f"^{name}_flags=", "replace": line})


SCENARIOS = (
    Scenario(
        name="daemon-of-base",
        wanted="httpd, which is off, on at boot and running",
        before=_HTTPD_CONF,
        ours=_ours(Daemon(name="httpd")),
        theirs=(_theirs("httpd", running=True, enabled=True),),
        shows="rcctl ls on | grep httpd; rcctl check httpd",
        right="httpd\nhttpd(ok)",
        uses=("httpd",),
    ),
    Scenario(
        name="daemon-of-package",
        wanted="redis of a package on at boot and running",
        before="pkg_add -I redis%bsd",
        ours=_ours(Daemon(name="redis")),
        theirs=(_theirs("redis", running=True, enabled=True),),
        shows="rcctl order; rcctl check redis",
        right="redis\nredis(ok)",
        uses=(
            "redis",
            "pkg_scripts",
        ),
    ),
    Scenario(
        name="daemon-with-underscore",
        wanted="php83_fpm, which is on and runs, left alone",
        before="pkg_add -I php%8.3; rcctl enable php83_fpm; rcctl start php83_fpm",
        ours=_ours(Daemon(name="php83_fpm")),
        theirs=(_theirs("php83_fpm", running=True),),
        shows="rcctl order; rcctl check php83_fpm",
        right="php83_fpm\nphp83_fpm(ok)",
        uses=(
            "php",
            "pkg_scripts",
        ),
    ),
    Scenario(
        name="daemon-off",
        wanted="dhcpleased, which runs, stopped and off at boot",
        before=_runs("dhcpleased"),
        ours=_ours(Daemon(name="dhcpleased", enabled=False)),
        theirs=(_theirs("dhcpleased", running=False, enabled=False),),
        shows="rcctl ls on | grep dhcpleased; rcctl check dhcpleased",
        right="dhcpleased(failed)",
        uses=("dhcpleased",),
    ),
    Scenario(
        name="daemon-flags-blanks-and-quotes",
        wanted="sndiod with an argument that has a blank in it",
        before="rcctl enable sndiod",
        ours=_ours(Daemon(name="sndiod", flags='-f "rsnd/0 x" -m play')),
        theirs=(_flags("sndiod", '-f "rsnd/0 x" -m play'), _theirs("sndiod", running=True)),
        shows="rcctl get sndiod flags; rcctl check sndiod; pgrep -lf sndiod | cut -d ' ' -f 2-",
        right='-f "rsnd/0 x" -m play\nsndiod(ok)\n/usr/bin/sndiod -f rsnd/0 x -m play',
        uses=("sndiod",),
    ),
    Scenario(
        name="daemon-flags-dollar",
        wanted="resolvd with an argument that has a dollar in it",
        before="rcctl enable resolvd",
        ours=_ours(Daemon(name="resolvd", flags="-s ${nothing:-any}")),
        theirs=(_flags("resolvd", "-s ${nothing:-any}"), _theirs("resolvd", running=True)),
        shows="rcctl get resolvd flags; pgrep -lf resolvd | cut -d ' ' -f 2-",
        right="-s ${nothing:-any}\n/sbin/resolvd -s any",
        uses=("resolvd",),
    ),
    Scenario(
        name="daemon-flags-while-running",
        wanted="other flags for slaacd, which runs",
        before=_runs("slaacd"),
        ours=_ours(Daemon(name="slaacd", flags="-m play")),
        theirs=(_flags("slaacd", "-m play"), _theirs("slaacd", running=True)),
        shows="rcctl get slaacd flags; pgrep -lf slaacd | cut -d ' ' -f 2-",
        right="-m play\n/sbin/slaacd -m play",
        uses=("slaacd",),
    ),
    Scenario(
        name="daemon-flags-by-default",
        wanted="dhcpleased, which runs with flags of somebody's, without them",
        before="rcctl enable dhcpleased; rcctl set dhcpleased flags -m play; rcctl start dhcpleased",
        ours=_ours(Daemon(name="dhcpleased")),
        theirs=(
            Wish(files.line, {"path": "/etc/rc.conf.local", "line": "^dhcpleased_flags=", "present": False}),
            _theirs("dhcpleased", running=True),
        ),
        shows="rcctl get dhcpleased flags; pgrep -lf dhcpleased | cut -d ' ' -f 2-",
        right="/sbin/dhcpleased",
        uses=("dhcpleased",),
    ),
    Scenario(
        name="daemon-unknown",
        wanted="a daemon that the host has not: to fail",
        ours=_ours(Daemon(name="nosuch")),
        theirs=(_theirs("nosuch", running=True, enabled=True),),
        shows="rcctl ls on | grep nosuch; grep nosuch /etc/rc.conf.local",
        right="",
        fails="service nosuch does not exist",
        uses=("nosuch",),
    ),
    Scenario(
        name="daemon-order",
        wanted="haproxy to start before redis: other way round",
        before="pkg_add -I redis%bsd haproxy--; rcctl enable redis haproxy; rcctl start redis haproxy",
        ours=_ours(Daemon(name="haproxy"), Daemon(name="redis")),
        theirs=(
            Wish(
                files.line,
                {"path": "/etc/rc.conf.local", "line": "^pkg_scripts=", "replace": "pkg_scripts=haproxy redis"},
            ),
        ),
        shows="rcctl order; rcctl check redis",
        right="haproxy redis\nredis(ok)",
        uses=(
            "redis",
            "pkg_scripts",
        ),
    ),
    Scenario(
        name="daemon-meta-script",
        wanted="a script that starts other daemons on at boot",
        before=f"pkg_add -I redis%bsd php%8.3; {_META}",
        ours=_ours(Daemon(name="both")),
        theirs=(_theirs("both", running=True, enabled=True),),
        shows="rcctl order",
        right="both",
        uses=(
            "redis",
            "php",
            "pkg_scripts",
        ),
    ),
    Scenario(
        name="daemon-special-variables",
        wanted="accounting on and check_quotas off, variables without a daemon",
        ours=_ours(Daemon(name="accounting"), Daemon(name="check_quotas", enabled=False)),
        theirs=(
            _theirs("accounting", running=None, enabled=True),
            _theirs("check_quotas", running=None, enabled=False),
        ),
        shows="rcctl get accounting; rcctl get check_quotas",
        right="accounting=YES\ncheck_quotas=NO",
    ),
    Scenario(
        name="daemon-replaced-binary",
        wanted="sndiod, whose program was replaced while it ran, started anew",
        before=_runs("sndiod") + "; sleep 1; cp -p /usr/bin/sndiod /tmp/new; mv /tmp/new /usr/bin/sndiod; "
        "pgrep sndiod >/tmp/old",
        ours=_ours(Daemon(name="sndiod")),
        theirs=(_theirs("sndiod", running=True),),
        shows="rcctl check sndiod; pgrep sndiod | cmp -s - /tmp/old || echo another process",
        right="sndiod(ok)\nanother process",
        uses=("sndiod",),
    ),
    Scenario(
        name="daemon-of-package-of-the-run",
        wanted="nginx, not yet installed, running",
        ours=(
            Wish(packages, {"wanted": ["nginx--"]}),
            Wish(daemons, {"wanted": [Daemon(name="nginx")]}, depends="the package brings the rc.d script"),
        ),
        theirs=(
            Wish(pkg.packages, {"packages": ["nginx"]}),
            Wish(bsdinit.service, {"service": "nginx", "enabled": True}, depends="the package brings the rc.d script"),
        ),
        shows="rcctl order; rcctl check nginx",
        right="nginx\nnginx(ok)",
        uses=(
            "packages",
            "nginx",
            "pkg_scripts",
        ),
    ),
    Scenario(
        name="daemon-follows-its-file",
        wanted="a new httpd.conf, and httpd reloaded with it",
        before=f"{_HTTPD_CONF}\nrcctl enable httpd; rcctl start httpd; rm -f /tmp/hup; "
        "sed 's/^rc_cmd/rc_reload() { echo reloaded >>\\/tmp\\/hup; }\\n&/' /etc/rc.d/httpd >/tmp/httpd; "
        "cat /tmp/httpd >/etc/rc.d/httpd",
        ours=(
            Wish(
                filesets,
                {
                    "sets": (
                        FileSet(
                            name="httpd",
                            files=(File(path="/etc/httpd.conf", text=f"# ours\n{_HTTPD}", group="wheel"),),
                            check_in_place=True,
                            check="httpd -n",
                        ),
                    ),
                    "openbsd": True,
                },
            ),
            Wish(daemons, {"wanted": [Daemon(name="httpd", reload_on=("httpd",))]}, depends=_RESTART_IF_CHANGED),
        ),
        theirs=(
            Wish(files.put, {"src": StringIO(f"# ours\n{_HTTPD}"), "dest": "/etc/httpd.conf", "user": "root"}),
            Wish(server.shell, {"commands": ["rcctl reload httpd"]}, depends=_RESTART_IF_CHANGED),
        ),
        shows="sed 1q /etc/httpd.conf; cat /tmp/hup",
        right="# ours\nreloaded",
        uses=("httpd",),
    ),
)
