"""The table of scenarios (tests/scenarios): ours is right, `--dry` tells the truth, a second run does nothing."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from tests.lab.conftest import INDEX
from tests.scenarios import report
from tests.scenarios.measure import Row, dependent, play

SCENARIOS = INDEX + 64


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return play(SCENARIOS)


def test_every_wish_comes_true_or_fails_by_name(rows: list[Row]) -> None:
    assert len(rows) >= 40
    assert {row.scenario.name: row.ours for row in rows if not row.ours.right} == {}


def test_dry_announces_what_then_changes(rows: list[Row]) -> None:
    assert {row.scenario.name: row.ours for row in rows if not row.ours.true} == {}


def test_only_what_depends_on_an_earlier_operation_comes_unannounced(rows: list[Row]) -> None:
    expected = [(scenario.name, wish.depends) for scenario, wish in dependent()]
    assert sorted((row.scenario.name, wish.depends) for row in rows for wish in row.ours.late) == sorted(expected)
    print(*(f"{name}: {why}" for name, why in expected), sep="\n")


def test_a_second_run_is_empty(rows: list[Row]) -> None:
    due = {row.scenario.name: row.ours for row in rows if not row.ours.empty and not row.scenario.fails}
    assert due == {}


def test_the_same_checks_find_pyinfras_own_operations_wrong(rows: list[Row]) -> None:
    # That an announcement can be missing is seen by what depends on an earlier operation.
    assert not all(row.theirs.right for row in rows)
    assert not all(row.theirs.empty for row in rows)


def test_the_page_has_what_was_found(rows: list[Row]) -> None:
    written, verdicts = report.committed()
    columns = slice(None) if written == version("pyinfra") else slice(3)
    found = {row.scenario.name: report.cells(row)[columns] for row in rows}
    assert {name: cells[columns] for name, cells in verdicts.items()} == found, "make scenarios writes it anew"
