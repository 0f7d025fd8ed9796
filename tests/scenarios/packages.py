"""Scenarios of packages: pkg_add(1), pkg_delete(1), openbsd-contract 2."""

from __future__ import annotations

from typing import Any

from pyinfra.operations import pkg, server

from operations.openbsd.packages import packages
from tests.scenarios.scenario import NEWER, Scenario, Wish

_RELEASE = "OpenBSD 8.0 (GENERIC.MP) #54: Mon Nov 16 10:00:00 MST 2026\n    deraadt@amd64.openbsd.org:/usr/src/sys\n"
_MIRROR = "/usr/lib/standin/mirror/pub/OpenBSD"
_SNAPSHOT = f"""\
mkdir -p {_MIRROR}/snapshots/amd64
echo 'Build date: 1' | tee {_MIRROR}/snapshots/amd64/BUILDINFO >/var/db/installed.BUILDINFO
echo file://{_MIRROR} >/etc/installurl"""


def _ours(*wanted: str, **arguments: Any) -> tuple[Wish, ...]:
    return (Wish(packages, {"wanted": wanted, **arguments}),)


def _theirs(*names: str, **arguments: Any) -> tuple[Wish, ...]:
    return (Wish(pkg.packages, {"packages": list(names), **arguments}),)


SCENARIOS = (
    Scenario(
        name="package-without-flavour",
        wanted="rsync, of which there is one without and one with a flavour",
        ours=_ours("rsync--"),
        theirs=_theirs("rsync--"),
        shows="pkg_info -mz | grep rsync",
        right="rsync--",
        uses=("rsync",),
    ),
    Scenario(
        name="package-ambiguous",
        wanted="rsync, which could be two packages: to be refused",
        ours=_ours("rsync"),
        theirs=_theirs("rsync"),
        shows="pkg_info -mz | grep rsync",
        right="",
        fails="write it as pkg_info -mz does",
        alone=True,
    ),
    Scenario(
        name="package-flavour",
        wanted="vim without X",
        ours=_ours("vim--no_x11"),
        theirs=_theirs("vim--no_x11"),
        shows="pkg_info -mz | grep vim",
        right="vim--no_x11",
        uses=("vim",),
    ),
    Scenario(
        name="package-other-flavour",
        wanted="vim without X in the place of the one with GTK",
        before="pkg_add -I vim--gtk3",
        ours=_ours("vim--no_x11"),
        theirs=_theirs("vim--no_x11"),
        shows="pkg_info -mz | grep vim",
        right="vim--no_x11",
        uses=("vim",),
    ),
    Scenario(
        name="package-branches-together",
        wanted="PHP of two branches side by side",
        before="pkg_add -I php%8.3",
        ours=_ours("php--%8.3", "php--%8.4"),
        theirs=_theirs("php%8.3", "php%8.4"),
        shows="pkg_info -mz | grep php | sort",
        right="php--%8.3\nphp--%8.4",
        uses=("php",),
    ),
    Scenario(
        name="package-other-branch",
        wanted="Redis of the branch main in the place of bsd",
        before="pkg_add -I redis%bsd",
        ours=_ours("redis--%main", absent=("redis--%bsd",)),
        theirs=(*_theirs("redis%bsd", present=False), *_theirs("redis%main")),
        shows="pkg_info -mz | grep redis",
        right="redis--%main",
        uses=("redis",),
    ),
    Scenario(
        name="package-dead-mirror",
        wanted="jq from a mirror that does not answer: to fail",
        before="echo http://127.0.0.1:9/pub/OpenBSD >/etc/installurl",
        ours=_ours("jq--"),
        theirs=_theirs("jq"),
        shows="pkg_info -mz | grep jq",
        right="",
        fails="not installed: jq--",
        alone=True,
    ),
    Scenario(
        name="package-older-stays",
        wanted="jq, which is there; the mirror's newer one is not asked for",
        before=f"pkg_add -I jq--; echo {NEWER} >/etc/installurl",
        ours=_ours("jq--", "rsync--"),
        theirs=_theirs("jq", "rsync--"),
        shows="pkg_info -q | grep -e jq -e rsync",
        right="jq-1.8.1\nrsync-3.4.1p0",
        uses=(
            "jq",
            "rsync",
        ),
    ),
    Scenario(
        name="package-latest",
        wanted="jq, and everything as new as the mirror has it",
        before=f"pkg_add -I jq--; echo {NEWER} >/etc/installurl",
        ours=_ours("jq--", latest=True),
        theirs=(Wish(server.packages, {"packages": ["jq"]}),),
        shows="pkg_info -q | grep jq",
        right="jq-1.9.0",
        uses=("jq",),
    ),
    Scenario(
        name="package-absent",
        wanted="jq gone",
        before="pkg_add -I jq--",
        ours=_ours(absent=("jq--",)),
        theirs=_theirs("jq", present=False),
        shows="pkg_info -q | grep jq",
        right="",
        uses=("jq",),
    ),
    Scenario(
        name="package-absent-but-needed",
        wanted="gone what another package needs: to fail",
        before="pkg_add -I nginx--",
        ours=_ours(absent=("pcre2--",)),
        theirs=_theirs("pcre2", present=False),
        shows="pkg_info -zq | grep -e nginx -e pcre2",
        right="nginx--\npcre2--",
        fails="without deleting",
        uses=("nginx",),
    ),
    Scenario(
        name="package-autoremove",
        wanted="gone what was only there for another package",
        before="pkg_add -I nginx-- jq--; pkg_delete -I nginx",
        ours=_ours("jq--", autoremove=True),
        theirs=_theirs("jq"),
        shows="pkg_info -zq | grep -e nginx -e pcre2 -e jq",
        right="jq--",
        uses=(
            "jq",
            "nginx",
        ),
    ),
    Scenario(
        name="package-dependency-asked-for",
        wanted="pcre2 to stay without nginx, which brought it",
        before="pkg_add -I nginx--",
        ours=_ours("nginx--", "pcre2--"),
        theirs=_theirs("nginx", "pcre2"),
        shows="pkg_info -mz | grep -e nginx -e pcre2 | sort",
        right="nginx--\npcre2--",
        uses=("nginx",),
    ),
    Scenario(
        name="package-snapshot-before-release",
        wanted="jq on a snapshot whose kernel no longer says -current",
        before=_SNAPSHOT,
        ours=_ours("jq--"),
        theirs=_theirs("jq"),
        shows="pkg_info -mz | grep jq",
        right="jq--",
        kernel=_RELEASE,
        alone=True,
    ),
    Scenario(
        name="package-not-found",
        wanted="a package that no mirror has: to fail",
        ours=_ours("nosuch--"),
        theirs=_theirs("nosuch"),
        shows="pkg_info -mz | grep nosuch",
        right="",
        fails="Can't find nosuch--",
        uses=("packages",),
    ),
    Scenario(
        name="package-unsigned",
        wanted="a package that nobody signed: to fail",
        ours=_ours("unsigned--"),
        theirs=_theirs("unsigned"),
        shows="pkg_info -mz | grep unsigned",
        right="",
        fails="signify",
        uses=("packages",),
    ),
)
