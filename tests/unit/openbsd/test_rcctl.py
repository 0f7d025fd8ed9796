"""Services: the fact, the planner, thousands of hosts, and the real scripts."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyinfra.api.exceptions import FactProcessError

from facts.openbsd.rcctl import Kind, Service, Services, ServicesState, parse
from fleet.model.service import Daemon
from operations.openbsd.daemons import plan_daemons
from tests.model_openbsd import ModelServices, Unit, follow
from tests.shell import check_scripts
from tests.unit.openbsd.scripted import Scratch

EXAMPLES = int(os.environ.get("EXAMPLES", "200"))  # a long run sets more

# The forms of contract 1.3 and 1.6.
RECORDED = """\
order postgresql redis
service httpd 0
kind base
value class daemon
value execdir 
value flags -v
value logger 
value rtable 0
value timeout 30
value user root
value flags -v -D x="a b"
stored flags -v -D x="a b"
running
stale
service redis 0
kind package
value timeout 60
value user _redis
value flags 
stored timeout 60
noreload
service smtpd 1
kind base
value user root
value flags NO
stored flags NO
service pf 0
kind special
service samba 1
kind meta
service nosuch 2
""".splitlines()  # noqa: W291


def state(**services: Any) -> Any:
    order = tuple(name for name, it in services.items() if it.kind is Kind.PACKAGE and it.enabled)
    return ServicesState(services, order)


def service(**changes: Any) -> Any:
    values = {"flags": "", "user": "root", "rtable": "0", "timeout": "30"}
    return Service(**{"kind": Kind.BASE, "enabled": True, "running": True, "values": values, **changes})


def lines(step: Any) -> Any:
    return step.command.split("{ umask 022\n")[1].split("\n} </dev/null")[0].split(" &&\n")


def test_recorded_output() -> None:
    found = parse(RECORDED)
    assert found.order == ("postgresql", "redis")
    assert found.services["httpd"] == Service(
        Kind.BASE,
        enabled=True,
        running=True,
        stale=True,
        values={"flags": '-v -D x="a b"', "user": "root", "rtable": "0", "timeout": "30"},
        stored=frozenset({"flags"}),
    )
    assert found.services["redis"].stored == {"timeout"} and not found.services["redis"].reloads
    assert found.services["smtpd"] == Service(Kind.BASE, enabled=False, values={"user": "root"})
    assert found.services["pf"] == Service(Kind.SPECIAL, enabled=True)
    assert found.services["samba"] == Service(Kind.META, enabled=False)
    assert "nosuch" not in found.services


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (["what is this"], "what is this"),
        (["service httpd 0", "kind odd"], "kind odd"),
        (["service httpd 1"], "nothing was said of httpd"),
        (["service httpd 99"], "rcctl get failed"),
        (["service httpd 0", "kind base", "running fast"], "running fast"),
    ],
)
def test_what_is_not_understood_is_named(text: Any, message: Any) -> None:
    with pytest.raises(FactProcessError, match=message):
        parse(text)


def test_no_last_line_is_unknown() -> None:
    assert Services().process(["order "]) is None


def test_from_nothing_in_one_step() -> None:
    found = state(httpd=service(enabled=False, running=False, values={"user": "root"}))
    (step,) = plan_daemons([Daemon(name="httpd", flags="-D a='b c' $x")], found, set()).steps
    assert (step.subject, step.label) == ("httpd", "enabled, flags -D a='b c' $x, started")
    assert lines(step) == [
        "rcctl enable httpd",
        "rcctl get httpd status",
        """rcctl set httpd flags '-D a='"'"'b c'"'"' $x'""",
        """is httpd flags '-D a='"'"'b c'"'"' $x'""",
        "rcctl start httpd",
        "rcctl check httpd",
    ]


@pytest.mark.parametrize(
    ("daemon", "found", "changed", "label"),
    [
        ({}, {}, set(), None),
        ({"restart_on": ("web",)}, {}, {"web"}, "restarted"),
        ({"reload_on": ("web",)}, {}, {"web"}, "reloaded"),
        ({"reload_on": ("web",)}, {}, {"dns"}, None),
        ({"reload_on": ("web",)}, {"reloads": False}, {"web"}, "restarted, it cannot reload"),
        ({"reload_on": ("web",), "restart_on": ("web",)}, {}, {"web"}, "restarted"),
        ({}, {"stale": True}, set(), "restarted, its binary or a library was replaced"),
        ({"restart_on": ("web",)}, {"running": False}, {"web"}, "started"),
        ({"activated": True}, {"running": False}, set(), None),
        ({"flags": "-v"}, {}, set(), "flags -v, restarted"),
        ({"flags": "-v", "user": "www"}, {"running": False}, set(), "flags -v, user www, started"),
        ({"rtable": 0, "timeout": 30, "user": "root", "flags": ""}, {}, set(), None),
        ({"timeout": 60}, {}, set(), "timeout 60, restarted"),
        ({}, {"stored": frozenset({"flags"})}, set(), "flags as by default, restarted"),
        ({"enabled": False}, {}, set(), "stopped, disabled"),
        ({"enabled": False}, {"running": False}, set(), "disabled"),
        ({"enabled": False}, {"enabled": False}, set(), "stopped"),
        ({"enabled": False}, {"enabled": False, "running": False}, set(), None),
        ({"enabled": False, "reload_on": ("web",)}, {"enabled": False, "running": False}, {"web"}, None),
        ({}, {"kind": Kind.SPECIAL, "running": False}, set(), None),
        ({}, {"kind": Kind.SPECIAL, "running": False, "enabled": False}, set(), "enabled"),
        ({"enabled": False}, {"kind": Kind.SPECIAL, "running": False}, set(), "disabled"),
    ],
)
def test_what_is_due(daemon: Any, found: Any, changed: Any, label: Any) -> None:
    plan = plan_daemons([Daemon(name="x", **daemon)], state(x=service(**found)), changed)
    assert [step.label for step in plan.steps] == ([] if label is None else [label])
    assert plan.refused == ()


@pytest.mark.parametrize(
    ("daemon", "kind", "message"),
    [
        ({"flags": "NO"}, Kind.BASE, "contradicts"),
        ({"flags": " -v"}, Kind.BASE, "would not be read back"),
        ({"flags": "-v "}, Kind.BASE, "would not be read back"),
        ({"flags": '"-v"'}, Kind.BASE, "would not be read back"),
        ({"flags": "-v\n-x"}, Kind.BASE, "would not be read back"),
        ({"flags": "-v"}, Kind.META, "x is a meta script: it has no flags"),
        ({"user": "www"}, Kind.SPECIAL, "x is a special variable: it has no user"),
    ],
)
def test_what_rcctl_cannot_do_is_refused_by_name(daemon: Any, kind: Any, message: Any) -> None:
    plan = plan_daemons([Daemon(name="x", **daemon)], state(x=service(kind=kind)), set())
    assert plan.steps == ()
    assert plan.refused[0].subject == "x" and message in plan.refused[0].message


def test_an_unknown_service_is_refused_unless_it_shall_be_off() -> None:
    plan = plan_daemons([Daemon(name="nosuch"), Daemon(name="other", enabled=False)], state(), set())
    assert plan.steps == ()
    assert [it.subject for it in plan.refused] == ["nosuch"]
    assert "service nosuch does not exist" in plan.refused[0].message


def test_the_order_is_ours_and_only_if_it_is_wrong() -> None:
    package = service(kind=Kind.PACKAGE)
    found = ServicesState({"a": package, "b": package, "httpd": service()}, ("x", "a", "y", "b"))
    names = [Daemon(name="a"), Daemon(name="httpd"), Daemon(name="b")]
    assert plan_daemons(names, found, set()).steps == ()
    (step,) = plan_daemons(list(reversed(names)), found, set()).steps
    assert (step.subject, step.label) == ("pkg_scripts", "ordered b a")
    assert lines(step) == ["rcctl order b a", "first 'b a'"]
    # A role that declares one of them finds nothing to do.
    assert plan_daemons([Daemon(name="b")], found, set()).steps == ()


def test_a_new_one_that_belongs_before_another_is_put_there() -> None:
    found = ServicesState(
        {"a": service(kind=Kind.PACKAGE, enabled=False, running=False), "b": service(kind=Kind.PACKAGE)}, ("b",)
    )
    plan = plan_daemons([Daemon(name="a"), Daemon(name="b")], found, set())
    assert [step.label for step in plan.steps] == ["enabled, started", "ordered a b"]


# --- the scripts, for real ---

RCCTL = r"""
case "$1 $2 $3" in
"order  ") echo redis ;;
"get httpd ") printf 'httpd_class=daemon\nhttpd_flags=-v\nhttpd_rtable=0\nhttpd_timeout=30\nhttpd_user=root\n' ;;
"get httpd flags") printf '%s\n' '-v -D x="\t $y"' ;;
"get httpd status") ;;
"get pf ") echo pf=NO; exit 1 ;;
"get samba ") exit 1 ;;
"get redis ") echo redis_user=_redis ;;
"get redis flags") ;;
"check httpd ") echo 'httpd(ok)' ;;
"check redis ") echo 'redis(failed)'; exit 1 ;;
"set httpd flags") ;;
"restart httpd ") [ ! -e "$0.broken" ] || { echo '(failed)'; exit 1; } ;;
*) echo "rcctl: service $2 does not exist" >&2; exit 2 ;;
esac
"""


def scratch(tmp_path: Path) -> Scratch:
    place = Scratch(tmp_path)
    place.fake("rcctl", RCCTL)
    place.fake(
        "ldd", f"printf '%s:\\n\\tStart End Type Open Ref GrpRef Name\\n\\t0 0 rlib 0 1 0 %s\\n' $1 {place.root}/lib"
    )
    place.file("/lib", "")
    place.file("/sbin/httpd", "")
    place.file("/etc/rc.conf", "httpd_flags=NO\n")
    place.file("/etc/rc.conf.local", 'httpd_flags=-v -D x="\\t $y"\nredis_timeout=60\npkg_scripts=redis\n')
    place.file("/etc/rc.d/httpd", f'daemon="{place.root}/sbin/httpd"\n. /etc/rc.d/rc.subr\nrc_cmd $1\n', 0o555)
    place.file("/etc/rc.d/redis", 'daemon="/usr/local/sbin/redis"\nrc_reload=NO\nrc_cmd $1\n', 0o555)
    place.file("/etc/rc.d/samba", "for d in smbd nmbd; do /etc/rc.d/$d $1; done\n", 0o555)
    place.file("/var/run/rc.d/httpd", "pexp=httpd\n")
    return place


NAMES = ["httpd", "pf", "samba", "redis", "nosuch"]


def read(place: Scratch) -> ServicesState:
    done = place.run(Services().command(NAMES))
    found = Services().process(done.stdout.splitlines())
    assert found is not None, done.stderr
    return found


def test_the_fact_is_read_by_a_shell(tmp_path: Path) -> None:
    found = read(scratch(tmp_path))
    assert found.order == ("redis",)
    assert set(found.services) == {"httpd", "pf", "samba", "redis"}
    httpd = found.services["httpd"]
    assert (httpd.kind, httpd.running, httpd.stale, httpd.reloads) == (Kind.BASE, True, False, True)
    assert httpd.values["flags"] == '-v -D x="\\t $y"' and httpd.stored == {"flags"}
    redis = found.services["redis"]
    assert (redis.kind, redis.running, redis.reloads, redis.stored) == (
        Kind.PACKAGE,
        False,
        False,
        frozenset({"timeout"}),
    )
    assert found.services["pf"] == Service(Kind.SPECIAL, enabled=False)
    assert found.services["samba"] == Service(Kind.META, enabled=False)


@pytest.mark.parametrize("replaced", ["/sbin/httpd", "/lib"])
def test_a_replaced_binary_or_library_is_seen_even_with_an_old_mtime(tmp_path: Path, replaced: Any) -> None:
    place = scratch(tmp_path)
    run_file = place.root / "var/run/rc.d/httpd"
    # As if the daemon had been started before; ctime cannot be set, so the library's is the present.
    os.utime(run_file, (1_000_000_000, 1_000_000_000))
    for path in ("/sbin/httpd", "/lib"):
        if path != replaced:
            (place.root / path.lstrip("/")).unlink()
    os.utime(place.root / replaced.lstrip("/"), (900_000_000, 900_000_000))
    assert read(place).services["httpd"].stale
    run_file.unlink()
    assert not read(place).services["httpd"].stale


def test_a_step_runs_to_its_end_or_fails_with_the_last_words(tmp_path: Path) -> None:
    place = scratch(tmp_path)
    flags = '-v -D x="\\t $y"'
    found = ServicesState({"httpd": service(values={"flags": "", "user": "root", "rtable": "0", "timeout": "30"})})
    (step,) = plan_daemons([Daemon(name="httpd", flags=flags)], found, set()).steps
    done = place.run(step)
    assert done.returncode == 0, done.stderr
    assert f"rcctl set httpd flags {flags}" in place.said and place.said[-1] == "rcctl check httpd"
    (place.bin / "rcctl.broken").touch()
    done = place.run(step)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "(failed)")
    (step,) = plan_daemons([Daemon(name="httpd", flags="-q")], found, set()).steps
    done = place.run(step)
    assert done.returncode == 1 and "rcctl get httpd flags says: -v" in done.stderr
    assert (place.root / "var/db/homefleet").stat().st_mode & 0o777 == 0o700


def test_openbsd_can_run_every_script() -> None:
    check_scripts(Services().command(NAMES))
    package = service(kind=Kind.PACKAGE, stored=frozenset({"flags"}))
    found = ServicesState({"a": package, "b": package}, ("b", "a"))
    plan = plan_daemons([Daemon(name="a", user="www"), Daemon(name="b"), Daemon(name="c")], found, set())
    assert len(plan.steps) == 3
    for step in plan.steps:
        check_scripts(step.command)


# --- thousands of random hosts ---

ALL = ["a", "b", "c", "d", "e"]
SETS = ["web", "dns"]


@st.composite
def hosts(draw: Any) -> Any:
    model = ModelServices()
    for name in draw(st.permutations(ALL)):
        kind = draw(st.sampled_from([Kind.BASE, Kind.BASE, Kind.PACKAGE, Kind.PACKAGE, Kind.META, Kind.SPECIAL, None]))
        if kind is None:
            continue
        unit = Unit(kind, works=draw(st.booleans() | st.just(True)), reloads=draw(st.booleans()))
        unit.defaults["flags"] = draw(st.sampled_from(["", "-c /x.conf"]))
        if draw(st.booleans()):
            model.units[name] = unit
            model._enable(name, unit)
        model.units[name] = unit
        if kind in (Kind.BASE, Kind.PACKAGE):
            unit.running = unit.works and draw(st.booleans())
            unit.stale = unit.running and draw(st.booleans())
            if draw(st.booleans()):
                unit.stored = {"flags": "-old", "timeout": "99"}
    return model


@st.composite
def daemons(draw: Any) -> Any:
    wanted = []
    for name in draw(st.lists(st.sampled_from(ALL), unique=True)):
        plain = draw(st.booleans())
        wanted.append(
            Daemon(
                name=name,
                enabled=draw(st.booleans() | st.just(True)),
                reload_on=tuple(draw(st.sets(st.sampled_from(SETS)))),
                restart_on=tuple(draw(st.sets(st.sampled_from(SETS)))),
                flags=None if plain else draw(st.sampled_from([None, "", "-c /x.conf", "-o x='a b' $y", "NO", " x"])),
                user=None if plain else draw(st.sampled_from([None, "root", "www"])),
                timeout=None if plain else draw(st.sampled_from([None, 30, 60])),
            )
        )
    return wanted


@settings(deadline=None, max_examples=EXAMPLES)
@given(hosts(), daemons(), st.sets(st.sampled_from(SETS)))
def test_the_next_plan_is_empty_and_only_what_is_declared_off_is_stopped(model: Any, wanted: Any, changed: Any) -> None:
    before = {name: (unit.enabled, unit.running) for name, unit in model.units.items()}
    others = [name for name in model.order if name not in {it.name for it in wanted}]
    failed = follow(plan_daemons(wanted, model.state(), changed), model.apply)
    off = {it.name for it in wanted if not it.enabled}
    on = {it.name: it for it in wanted if it.enabled}
    for words in model.commands:
        if words[:2] in (["rcctl", "disable"], ["rcctl", "stop"]):
            assert words[2] in off, words
    for name, unit in model.units.items():
        if name in failed:
            continue
        if name in off:
            assert not unit.enabled and not unit.running
        elif name in on:
            assert unit.enabled
            if unit.kind in (Kind.BASE, Kind.PACKAGE):
                assert unit.running and not unit.stale
                # What runs has what is set: no restart was forgotten.
                assert not unit.force or all(unit.force[it] == unit.value(it) for it in unit.force)
                assert on[name].flags in (None, "", unit.value("flags"))
        else:
            assert (unit.enabled, unit.running) == before[name]
    assert [name for name in model.order if name in others] == others
    second = plan_daemons(wanted, model.state(), set())
    assert [step.label for step in second.steps if step.subject not in failed] == []
    if not failed:
        scripts = [it.name for it in wanted if it.enabled and model.units[it.name].kind in (Kind.PACKAGE, Kind.META)]
        assert [name for name in model.order if name in scripts] == scripts
