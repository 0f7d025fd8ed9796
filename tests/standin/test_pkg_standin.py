"""Packages of an OpenBSD host, on the stand-in's pkg_add and its mirror: right end state, an empty second run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from facts.openbsd.pkg import OpenbsdPackages
from operations.openbsd.packages import plan_packages
from tests.lab.openbsd import mirror
from tests.unit.openbsd.scratch import executable, scratch
from tests.unit.openbsd.scripted import OnStandIn

COMMANDS = ("pkg_add", "pkg_delete", "pkg_info", "sysctl", "uname")
ADDING = '#!/bin/sh\nfor name; do :; done\necho "$name:x:900:900::/:/sbin/nologin" >>{root}/etc/{file}\n'


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnStandIn]:
    for variable in ("PKG_PATH", "TRUSTED_PKG_PATH"):
        monkeypatch.delenv(variable, raising=False)
    with scratch(tmp_path, monkeypatch) as root:
        for name, file in (
            ("useradd", "passwd"),
            ("groupadd", "group"),
            ("userdel", "deleted"),
            ("groupdel", "deleted"),
        ):
            executable(root / "usr/sbin" / name, ADDING.format(root=root, file=file))
        (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/ksh\nwww:x:67:67::/var/www:/sbin/nologin\n")
        (root / "etc/group").write_text("wheel:x:0:root\nbin:x:7:\nauth:x:11:\nwww:x:67:\n")
        mirror.write(root / mirror.TREE.lstrip("/"))
        (root / "etc/installurl").write_text(f"{mirror.TREE}\n")
        yield OnStandIn(root, {name: name for name in COMMANDS})


def read(host: OnStandIn, **more: bool) -> Any:
    fact = OpenbsdPackages()
    return host.read(fact, fact.command(**more))


def converge(host: OnStandIn, wanted: Any, absent: Any = (), latest: bool = False, autoremove: bool = False) -> Any:
    """Run once, and again: the second plan is empty but for what failed. Returns labels and failures."""
    asked = {"updates": latest, "unneeded": autoremove}
    first = plan_packages(wanted, absent, read(host, **asked), latest, autoremove)
    failed = host.perform(first)
    second = plan_packages(wanted, absent, read(host, **asked), latest, autoremove)
    assert [step.label for step in second.steps if step.subject not in failed] == []
    return [step.label for step in first.steps], failed


def test_present_flavours_and_branches(host: OnStandIn) -> None:
    done, failed = converge(host, ["rsync--", "redis--%bsd", "php--%8.3", "vim--no_x11"])
    assert (done, failed) == (["installed rsync--, redis--%bsd, php--%8.3, vim--no_x11"], {})
    assert {"rsync--", "redis--%bsd", "php--%8.3", "vim--no_x11"} <= read(host).manual


def test_what_is_there_is_not_updated_by_present_but_by_latest(host: OnStandIn) -> None:
    converge(host, ["rsync--"])
    mirror.write(host.root / mirror.TREE.lstrip("/"), {"rsync": "99.1"})
    assert converge(host, ["rsync--"]) == ([], {})
    done, failed = converge(host, ["rsync--"], latest=True)
    assert (done, failed) == (["updated to rsync-99.1"], {})


def test_another_flavour_is_a_replacement(host: OnStandIn) -> None:
    converge(host, ["rsync--"])
    done, failed = converge(host, ["rsync--iconv"])
    assert (done, failed) == (["installed rsync--iconv in place of what was there"], {})
    assert "rsync--" not in read(host).every


def test_a_branch_that_conflicts_fails_until_the_other_is_unwanted(host: OnStandIn) -> None:
    converge(host, ["redis--%bsd"])
    _, failed = converge(host, ["redis--%main"])
    assert "not installed: redis--%main" in failed["packages"] and "conflicts" in failed["packages"]
    _, failed = converge(host, ["redis--%main"], ["redis--%bsd"])
    assert failed == {} and "redis--%bsd" not in read(host).every


@pytest.mark.parametrize(
    ("name", "words"),
    [("nosuch--", "Can't find nosuch--"), ("redis--", "Ambiguous: redis--"), ("vim--nosuch", "Can't find vim--nosuch")],
)
def test_what_pkg_add_does_not_install_fails_with_its_words_and_the_rest_is_there(
    host: OnStandIn, name: Any, words: Any
) -> None:
    _, failed = converge(host, ["rsync--", name])
    assert failed["packages"].splitlines()[0] == f"not installed: {name}:"
    assert words in failed["packages"]
    assert "rsync--" in read(host).manual


def test_a_dead_mirror_is_a_failure_and_no_change(host: OnStandIn) -> None:
    converge(host, ["rsync--"])
    (host.root / "etc/installurl").write_text("/nowhere\n")
    assert converge(host, ["rsync--"]) == ([], {})
    _, failed = converge(host, ["rsync--", "haproxy--"])
    assert "not installed: haproxy--" in failed["packages"]
    _, failed = converge(host, ["rsync--"], latest=True)
    assert "the mirror did not say" in failed["updates"]


def test_absent_and_what_nothing_needs(host: OnStandIn) -> None:
    converge(host, ["login_oath--", "php--%8.3"])
    before = read(host)
    done, failed = converge(host, [], ["login_oath--", "php--%8.3"])
    assert (done, failed) == (["deleted login_oath--", "deleted php--%8.3"], {})
    assert read(host).every == before.every - {"login_oath--", "php--%8.3"}, "and nothing else"
    done, failed = converge(host, [], autoremove=True)
    assert failed == {} and len(done) == 1 and done[0].startswith("deleted, nothing needs them: ")


def test_a_dependency_is_marked_when_it_is_wanted_itself(host: OnStandIn) -> None:
    converge(host, ["login_oath--"])
    (needed,) = [it for it in read(host).every - read(host).manual if not it.startswith("quirks")]
    done, failed = converge(host, ["login_oath--", needed])
    assert (done, failed) == ([f"installed {needed}"], {})
