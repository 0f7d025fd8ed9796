"""Tables of pf: the fact, the planner, random hosts, and the real scripts."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyinfra.api.exceptions import FactProcessError

from facts.openbsd.pf import Pf, PfState, normal, parse
from operations.openbsd.tables import plan_tables
from tests.model_openbsd import ModelHost, follow
from tests.shell import check_scripts
from tests.unit.openbsd.scripted import Scratch

EXAMPLES = int(os.environ.get("EXAMPLES", "200"))  # a long run sets more

STATUS = "Status: Enabled for 0 days 01:02:03           Debug: err"

PFCTL = r"""
[ "$1" != -q ] || shift
case "$2 $4" in
" ") echo 'Status: Enabled for 0 days 01:02:03           Debug: err'; echo; echo 'State Table' ;;
"own show") sed 's/^/   /' ROOT/own ;;
"own replace") cat "$6" >ROOT/own ;;
"own flush") : >ROOT/own ;;
"fixed "*) echo 'pfctl: Operation not permitted.' >&2; exit 255 ;;
*) echo 'pfctl: Table does not exist.' >&2; exit 255 ;;
esac
"""


def state(**tables: Any) -> Any:
    return PfState(True, {name: frozenset(entries) for name, entries in tables.items()})


def test_recorded_output() -> None:
    lines = [STATUS, "table bans", "   192.0.2.1", "   198.51.100.0/24", "  !2001:db8::1", "table empty"]
    assert parse(lines) == state(bans=["192.0.2.1", "198.51.100.0/24", "!2001:db8::1"], empty=[])
    assert not parse(["Status: Disabled"]).enabled


@pytest.mark.parametrize("lines", [["what is this"], [STATUS, "table a", "   x"], [STATUS, "failed a pfctl: odd"]])
def test_what_is_not_understood_is_named(lines: Any) -> None:
    with pytest.raises(FactProcessError, match="not understood"):
        parse(lines)


def test_unknown_is_not_nothing() -> None:
    assert Pf().process([STATUS]) is None
    with pytest.raises(FactProcessError, match="no status"):
        parse([])


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("192.0.2.1/32", "192.0.2.1"),
        ("192.0.2.9/24", "192.0.2.0/24"),
        ("2001:DB8::1/128", "2001:db8::1"),
        ("! 192.0.2.1", "!192.0.2.1"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_one_form_of_an_entry(given: Any, shown: Any) -> None:
    assert normal(given) == shown


def test_contents_are_replaced_only_if_they_differ() -> None:
    wanted = {"own": ["192.0.2.1/32", "198.51.100.0/24"]}
    assert plan_tables(wanted, state(own=["198.51.100.0/24", "192.0.2.1"])).steps == ()
    (step,) = plan_tables(wanted, state(own=["192.0.2.2", "192.0.2.1"])).steps
    assert (step.subject, step.label) == ("table own", "+198.51.100.0/24, -192.0.2.2")
    assert step.stdin == "192.0.2.1\n198.51.100.0/24\n"
    (step,) = plan_tables({"own": []}, state(own=["192.0.2.2"], other=["192.0.2.3"])).steps
    assert step.command == "pfctl -q -t own -T flush"


def test_a_table_that_nobody_declared_is_refused() -> None:
    found = plan_tables({"own": ["192.0.2.1"]}, state())
    assert found.steps == ()
    assert found.refused[0].message == "pf has no table <own>: declare it in pf.conf, persist"


@pytest.mark.parametrize("wanted", [{"a b": []}, {"own": ["ns1.example"]}, {"own": ["192.0.2.1/33"]}])
def test_wrong_arguments_fail_early(wanted: Any) -> None:
    with pytest.raises(ValueError, match="table"):
        plan_tables(wanted, state())


def test_the_scripts_run_in_a_shell(tmp_path: Path) -> None:
    place = Scratch(tmp_path)
    place.fake("pfctl", PFCTL.replace("ROOT", str(place.root)))
    place.file("/own", "192.0.2.2\n!198.51.100.1\n")

    def read(*names: str) -> Any:
        return Pf().process(place.run(Pf().command(names)).stdout.splitlines())

    assert read("own", "nosuch") == state(own=["192.0.2.2", "!198.51.100.1"])
    with pytest.raises(FactProcessError, match="Operation not permitted"):
        read("fixed")
    for entries in (["192.0.2.1", "2001:db8::/32"], []):
        (step,) = plan_tables({"own": entries}, read("own")).steps
        done = place.run(step)
        assert done.returncode == 0, done.stderr
        assert plan_tables({"own": entries}, read("own")).steps == ()
    (step,) = plan_tables({"fixed": ["192.0.2.1"]}, state(fixed=[])).steps
    done = place.run(step)
    assert (done.returncode != 0, done.stderr.strip()) == (True, "pfctl: Operation not permitted.")
    assert list((place.root / "var/db/homefleet").iterdir()) == []


def test_openbsd_can_run_every_script() -> None:
    check_scripts(Pf().command(["own", "other"]))
    for step in plan_tables({"own": ["192.0.2.1"], "gone": []}, state(own=[], gone=["192.0.2.1"])).steps:
        check_scripts(step.command)


ENTRIES = ["192.0.2.1", "192.0.2.1/32", "198.51.100.0/24", "!192.0.2.7", "2001:db8::1"]
TABLES = ["own", "bans", "nosuch"]
contents = st.lists(st.sampled_from(ENTRIES))


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.dictionaries(st.sampled_from(TABLES), contents), st.dictionaries(st.sampled_from(TABLES[:2]), contents))
def test_the_next_plan_is_empty_and_other_tables_stay(wanted: Any, tables: Any) -> None:
    model = ModelHost(tables={name: {normal(it) for it in entries} for name, entries in tables.items()})
    before = {name: set(entries) for name, entries in model.tables.items()}
    failed = follow(plan_tables(wanted, model.pf()), model.apply)
    assert failed == {f"table {name}" for name in wanted if name not in tables}
    assert plan_tables(wanted, model.pf()).steps == ()
    assert all(model.tables[name] == entries for name, entries in before.items() if name not in wanted)
