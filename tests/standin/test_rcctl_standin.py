"""Daemons of an OpenBSD host, on the stand-in's rcctl and rc.d: right end state, and a second run that is empty."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from facts.openbsd.rcctl import Kind, Services
from fleet.model.service import Daemon
from operations.openbsd.daemons import plan_daemons
from tests.unit.openbsd.scratch import daemon, scratch, script
from tests.unit.openbsd.scripted import OnStandIn

REDIS = """#!/bin/ksh
daemon="/usr/local/sbin/redis-server"
daemon_flags="-c redis.conf"
. /etc/rc.d/rc.subr
rc_reload=NO
rc_cmd $1
"""
SAMBA = "#!/bin/ksh\nfor i in smbd nmbd; do /etc/rc.d/$i $1; done\n"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnStandIn]:
    with scratch(tmp_path, monkeypatch) as root:
        for name in ("redis", "foo"):
            script(root, name, REDIS.replace("redis-server", name))
            daemon(root, f"/usr/local/sbin/{name}")
        script(root, "samba", SAMBA)
        for name in ("slowcgi", "tftpd"):
            text = f'#!/bin/ksh\ndaemon="/usr/sbin/{name}"\n. /etc/rc.d/rc.subr\nrc_cmd $1\n'
            script(root, name, text)
            daemon(root, f"/usr/sbin/{name}")
        yield OnStandIn(root, {"rcctl": "rcctl"})


def converge(host: OnStandIn, wanted: Any, changed: Any = ()) -> Any:
    """Run once, and again: the second plan is empty but for what failed. Returns labels and failures."""
    fact = Services()
    command = fact.command([it.name for it in wanted])
    first = plan_daemons(wanted, host.read(fact, command), set(changed))
    failed = host.perform(first)
    second = plan_daemons(wanted, host.read(fact, command), set())
    assert [step.label for step in second.steps if step.subject not in failed] == []
    return [f"{step.subject}: {step.label}" for step in first.steps], failed


def local(host: OnStandIn) -> list[str]:
    path = host.root / "etc/rc.conf.local"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    ("daemons", "labels", "lines"),
    [
        ([Daemon(name="slowcgi")], ["slowcgi: enabled, started"], ["slowcgi_flags="]),
        (
            [Daemon(name="slowcgi", flags="-v -D x='a b'", timeout=60)],
            ["slowcgi: enabled, flags -v -D x='a b', timeout 60, started"],
            ["slowcgi_flags=-v -D x='a b'", "slowcgi_timeout=60"],
        ),
        (
            [Daemon(name="redis", flags="-x"), Daemon(name="foo")],
            ["redis: enabled, flags -x, started", "foo: enabled, started"],
            ["pkg_scripts=redis foo", "redis_flags=-x"],
        ),
        ([Daemon(name="redis", flags="-c redis.conf")], None, ["pkg_scripts=redis"]),
        ([Daemon(name="samba")], ["samba: enabled"], ["pkg_scripts=samba"]),
        ([Daemon(name="accounting")], ["accounting: enabled"], ["accounting=YES"]),
        ([Daemon(name="pf", enabled=False)], ["pf: disabled"], ["pf=NO"]),
        ([Daemon(name="sndiod", enabled=False)], ["sndiod: disabled"], ["sndiod_flags=NO"]),
    ],
)
def test_end_states(host: OnStandIn, daemons: Any, labels: Any, lines: Any) -> None:
    done, failed = converge(host, daemons)
    assert failed == {}
    assert labels is None or done == labels
    assert local(host) == lines


def test_flags_of_a_running_daemon_change_with_its_restart_and_go_back(host: OnStandIn) -> None:
    converge(host, [Daemon(name="slowcgi")])
    done, failed = converge(host, [Daemon(name="slowcgi", flags="-v")])
    assert (done, failed) == (["slowcgi: flags -v, restarted"], {})
    assert "daemon_flags=-v" in host.text("/var/run/rc.d/slowcgi")
    done, failed = converge(host, [Daemon(name="slowcgi")])
    assert (done, failed) == (["slowcgi: flags as by default, restarted"], {})
    assert local(host) == ["slowcgi_flags="]


def test_reload_restart_and_stop(host: OnStandIn) -> None:
    wanted = [Daemon(name="tftpd", reload_on=("web",)), Daemon(name="redis", reload_on=("cache",))]
    converge(host, wanted)
    done, failed = converge(host, wanted, ["web", "cache"])
    assert (done, failed) == (["tftpd: reloaded", "redis: restarted, it cannot reload"], {})
    done, failed = converge(host, [Daemon(name="redis", enabled=False)])
    assert (done, failed) == (["redis: stopped, disabled"], {})
    assert not (host.root / "var/run/rc.d/redis").exists()


def test_the_declared_order_of_package_scripts(host: OnStandIn) -> None:
    converge(host, [Daemon(name="redis"), Daemon(name="foo")])
    done, failed = converge(host, [Daemon(name="foo"), Daemon(name="redis")])
    assert (done, failed) == (["pkg_scripts: ordered foo redis"], {})
    assert local(host) == ["pkg_scripts=foo redis"]


def test_a_replaced_binary_restarts_its_daemon_once(host: OnStandIn) -> None:
    converge(host, [Daemon(name="slowcgi")])
    binary = host.root / "usr/sbin/slowcgi"
    new = binary.with_suffix(".new")
    new.write_bytes(binary.read_bytes())
    new.chmod(0o755)
    new.rename(binary)
    done, failed = converge(host, [Daemon(name="slowcgi")])
    assert (done, failed) == (["slowcgi: restarted, its binary or a library was replaced"], {})


def test_failures_have_rcctls_words_and_stay_alone(host: OnStandIn) -> None:
    wanted = [
        Daemon(name="nosuch"),
        Daemon(name="slowcgi", user="nobodyx"),
        Daemon(name="samba", flags="-x"),
        Daemon(name="pf", flags="-x"),
        Daemon(name="redis"),
    ]
    done, failed = converge(host, wanted)
    assert "service nosuch does not exist" in failed["nosuch"]
    assert 'user "nobodyx" does not exist' in failed["slowcgi"]
    assert "meta script" in failed["samba"] and "special variable" in failed["pf"]
    assert set(failed) == {"nosuch", "slowcgi", "samba", "pf"} and "redis: enabled, started" in done


def test_what_the_fact_calls_them(host: OnStandIn) -> None:
    fact = Services()
    found = host.read(fact, fact.command(["sshd", "httpd", "redis", "samba", "pf", "nosuch"]))
    kinds = {name: service.kind for name, service in found.services.items()}
    assert kinds == {
        "sshd": Kind.BASE,
        "httpd": Kind.BASE,
        "redis": Kind.PACKAGE,
        "samba": Kind.META,
        "pf": Kind.SPECIAL,
    }
    assert found.services["sshd"].enabled and not found.services["httpd"].enabled
