"""The table of scenarios, and on which host each of them is played."""

from __future__ import annotations

from functools import cache

from tests.scenarios import accounts, daemons, files, packages, system
from tests.scenarios.scenario import Scenario, Side, Wish

SCENARIOS: tuple[Scenario, ...] = (
    *packages.SCENARIOS,
    *daemons.SCENARIOS,
    *accounts.SCENARIOS,
    *system.SCENARIOS,
    *files.SCENARIOS,
)

_SHARED = 9
"""So many hosts at least: the calls of one run one after the other, those of several beside each other."""


@cache
def hosts() -> tuple[tuple[Scenario, ...], ...]:
    """Return the scenarios of each host: each one is where the fewest are, and nothing that it uses is used already."""
    rows: list[list[Scenario]] = [[] for _ in range(_SHARED)]
    for scenario in SCENARIOS:
        row = min((row for row in rows if _fits(scenario, row)), key=len, default=None)
        if row is None:
            row = []
            rows.append(row)
        row.append(scenario)
    return tuple(tuple(row) for row in rows)


def _fits(scenario: Scenario, row: list[Scenario]) -> bool:
    if row and (scenario.alone or row[0].alone):
        return False
    return not set(scenario.uses) & {used for other in row for used in other.uses}


@cache
def calls(side: Side, number: int) -> tuple[tuple[Scenario, Wish], ...]:
    """Return the calls of one side on the host `number`, in their order."""
    return tuple((scenario, wish) for scenario in hosts()[number] for wish in scenario.wishes(side))


def names(side: Side) -> list[str]:
    """Return what the first, second, ... call of each host is called in a run: one operation for all hosts."""
    return [f"Step {step:02}" for step in range(max(len(calls(side, number)) for number in range(len(hosts()))))]
