"""Repetitions (DESIGN T6): ten bare starts, each killed at another moment, and a hundred random plans of each kind.

The seed is printed; LAB_SEED repeats a run. Results with their date are kept in docs/measured.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.lab.agreement import Machine, domains_agree, volumes_agree
from tests.lab.pair import Pair
from tests.lab.test_bare import SEED, after, bare_pair, fingerprint, installing, killed, settle

OPERATIONS = ("Packages", "Configuration", "Daemons", "Volumes", "Guests")


def test_a_hundred_plans(deployed: Pair) -> None:
    machine = Machine(deployed, "kvm2")
    try:
        print(f"LAB_SEED={SEED}")
        assert volumes_agree(machine, SEED, 100) > 0
        assert domains_agree(machine, SEED, 100) > 0
    finally:
        machine.clear()


@pytest.fixture(scope="module")
def expected(deployed: Pair) -> dict[str, str]:
    """What a pair looks like that was deployed without any accident; it is switched off then."""
    found = {name: fingerprint(deployed, name) for name in deployed.lab.machines}
    deployed.lab.down()
    return found


@pytest.mark.parametrize("number", range(10))
def test_a_bare_start_that_is_killed(expected: dict[str, str], number: int, tmp_path: Path) -> None:
    chance = random.Random(SEED + number)
    operation = OPERATIONS[number % len(OPERATIONS)]
    delay = chance.uniform(0, 40 if operation in ("Packages", "Guests") else 8)
    print(f"LAB_SEED={SEED}: killed {delay:.1f} s into {operation}")
    with bare_pair(tmp_path) as pair:
        due = installing(pair, delay) if operation == "Packages" else after(operation, delay)
        killed(pair, due, 1500)
        settle(pair, expected)
