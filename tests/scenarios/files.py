"""Scenarios of configuration files: DESIGN D2, and what pyinfra's users write instead."""

from __future__ import annotations

import hashlib
from io import StringIO
from typing import Any

from pyinfra.operations import files, server

from fleet.model.service import File, FileSet
from operations.filesets import filesets
from operations.openbsd.maintenance import download
from tests.scenarios.scenario import Scenario, Wish

_DATA = "a file to fetch\n"
_SUM = hashlib.sha256(_DATA.encode()).hexdigest()
_GOOD = "pass\n"
_BAD = "pass frobnicate\n"
_KEEP = f"printf '{_GOOD}' >/etc/pf.conf; chmod 600 /etc/pf.conf"


def _set(name: str, *wanted: File, **arguments: Any) -> FileSet:
    return FileSet(name=name, files=wanted, **arguments)


def _ours(*sets: FileSet) -> tuple[Wish, ...]:
    return (Wish(filesets, {"sets": sets, "openbsd": True}),)


def _file(path: str, text: str = "ours\n", mode: int = 0o644, group: str = "wheel") -> File:
    return File(path=path, text=text, group=group, mode=mode)


def _theirs(path: str, text: str = "ours\n", mode: str = "644", group: str = "wheel") -> Wish:
    return Wish(files.put, {"src": StringIO(text), "dest": path, "user": "root", "group": group, "mode": mode})


SCENARIOS = (
    Scenario(
        name="file",
        wanted="a new file",
        ours=_ours(_set("one", _file("/etc/scenario/one.conf"))),
        theirs=(_theirs("/etc/scenario/one.conf"),),
        shows="cat /etc/scenario/one.conf; stat -f '%Su %Sg %OLp' /etc/scenario/one.conf",
        right="ours\nroot wheel 644",
    ),
    Scenario(
        name="file-owner-and-mode",
        wanted="a file that only a daemon's group may read, changed by hand before",
        before="echo ours >/etc/two.conf; chmod 666 /etc/two.conf",
        ours=_ours(_set("two", _file("/etc/two.conf", mode=0o640, group="_unbound"))),
        theirs=(_theirs("/etc/two.conf", mode="640", group="_unbound"),),
        shows="cat /etc/two.conf; stat -f '%Su %Sg %OLp' /etc/two.conf",
        right="ours\nroot _unbound 640",
    ),
    Scenario(
        name="file-refused-by-its-check",
        wanted="a pf.conf with a mistake in it: to fail",
        before=_KEEP,
        ours=_ours(_set("pf", _file("/etc/pf.conf", _BAD, 0o600), check="pfctl -nf {new}/etc/pf.conf")),
        theirs=(_theirs("/etc/pf.conf", _BAD, "600"), Wish(server.shell, {"commands": ["pfctl -nf /etc/pf.conf"]})),
        shows="cat /etc/pf.conf",
        right=_GOOD.strip(),
        fails="syntax error",
        uses=("pf",),
    ),
    Scenario(
        name="file-that-does-not-apply",
        wanted="a file with which its daemon does not start: to fail, and the old one to be back",
        before="echo old >/etc/three.conf; chmod 644 /etc/three.conf",
        ours=_ours(_set("three", _file("/etc/three.conf"), apply="grep -q old /etc/three.conf")),
        theirs=(_theirs("/etc/three.conf"), Wish(server.shell, {"commands": ["grep -q old /etc/three.conf"]})),
        shows="cat /etc/three.conf",
        right="old",
        fails="old",
    ),
    Scenario(
        name="file-left-its-set",
        wanted="a file gone that a set no longer has",
        before="mkdir -p -m 700 /var/db/homefleet; mkdir -p /var/db/homefleet/manifest; "
        "printf '%s\\n' /etc/five.conf /etc/five-b.conf >/var/db/homefleet/manifest/five; "
        "echo ours >/etc/five.conf; echo ours >/etc/five-b.conf",
        ours=_ours(_set("five", _file("/etc/five.conf"))),
        theirs=(_theirs("/etc/five.conf"),),
        shows="ls /etc/five.conf /etc/five-b.conf 2>/dev/null",
        right="/etc/five.conf",
    ),
    Scenario(
        name="file-moved-to-another-set",
        wanted="a file that moved from one set to another: still there",
        before="mkdir -p -m 700 /var/db/homefleet; mkdir -p /var/db/homefleet/manifest; "
        "printf '%s\\n' /etc/six.conf /etc/six-b.conf >/var/db/homefleet/manifest/six; "
        "echo ours >/etc/six.conf; echo ours >/etc/six-b.conf",
        ours=_ours(_set("six", _file("/etc/six.conf")), _set("six-b", _file("/etc/six-b.conf"))),
        theirs=(_theirs("/etc/six.conf"), _theirs("/etc/six-b.conf")),
        shows="ls /etc/six.conf /etc/six-b.conf",
        right="/etc/six-b.conf\n/etc/six.conf",
    ),
    Scenario(
        name="file-strays",
        wanted="files gone that a daemon would read beside ours",
        before="mkdir -p /etc/seven.d; echo stray >/etc/seven.d/stray.conf",
        ours=_ours(_set("seven", _file("/etc/seven.d/ours.conf"), exclusive=("/etc/seven.d/*.conf",))),
        theirs=(_theirs("/etc/seven.d/ours.conf"),),
        shows="ls /etc/seven.d/*.conf",
        right="/etc/seven.d/ours.conf",
    ),
    Scenario(
        name="file-of-an-odd-name",
        wanted="a file whose name has a blank and a dollar in it",
        ours=_ours(_set("odd", _file("/etc/an odd $name.conf"))),
        theirs=(_theirs("/etc/an odd $name.conf"),),
        shows="cat '/etc/an odd $name.conf'",
        right="ours",
    ),
    Scenario(
        name="file-fetched",
        wanted="a file from a server, by its checksum",
        before=f"printf '{_DATA}' >/var/tmp/data",
        ours=(Wish(download, {"url": "file:///var/tmp/data", "dest": "/etc/data", "sha256": _SUM}),),
        theirs=(Wish(files.download, {"src": "file:///var/tmp/data", "dest": "/etc/data", "sha256sum": _SUM}),),
        shows="cat /etc/data",
        right=_DATA.strip(),
        uses=("/etc/data",),
    ),
)
