"""The models of the property tests agree with real LVM and libvirt; a hundred plans of each are in `make torture`."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from tests.lab.agreement import Machine, domains_agree, volumes_agree
from tests.lab.pair import Pair

PLANS = int(os.environ.get("LAB_PLANS", "0")) or 10
SEED = int(os.environ.get("LAB_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)


@pytest.fixture(scope="module")
def machine(deployed: Pair) -> Iterator[Machine]:
    """kvm2 with a group for random plans, taken away afterwards."""
    made = Machine(deployed, "kvm2")
    yield made
    made.clear()


def test_lvm_and_its_model_agree(machine: Machine) -> None:
    print(f"LAB_SEED={SEED}: {PLANS} plans")
    assert volumes_agree(machine, SEED, PLANS) > 0


def test_libvirt_and_its_model_agree(machine: Machine) -> None:
    print(f"LAB_SEED={SEED}: {PLANS} plans")
    assert domains_agree(machine, SEED, PLANS) > 0
