"""The lab that the tests share: two hypervisors, deployed once, from the image that has the packages in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.lab.pair import GUESTS, NOW, Pair

INDEX = int(os.environ.get("LAB_INDEX", "8"))
"""The number of the tests' lab: beside the owner's own, which is 0."""

KEEP = bool(os.environ.get("LAB_KEEP"))
"""While working on a test: save the deployed machines, and go back to that state instead of deploying again."""

STATE = "deployed"

# The bare start is a pair of its own, so the shared one must be switched off before: these files run last.
LAST = ("test_bare.py",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files in the order of their story: the deploy first, the bare start last."""
    here = [item for item in items if item.path.parent == Path(__file__).parent]
    here.sort(key=lambda item: (item.path.name in LAST, item.path.name != "test_deploy.py"))
    items[:] = [item for item in items if item not in here] + here


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two machines with the roles' packages installed and nothing else, on disks of their own."""
    lab = Lab(INDEX, _folder(), image="packages")
    kept = KEEP and (_folder() / "saved" / STATE).exists()
    if not kept:
        lab.down(wipe=True)
        lab.up()
        for name in lab.machines:
            # What counts execs is the host's own sshd, not our connector.
            lab.ssh(name, "echo LogLevel VERBOSE >/etc/ssh/sshd_config.d/90-lab.conf && systemctl reload ssh")
    yield Pair(lab, tmp_path_factory.mktemp("pair"))
    # The disks and console logs stay, to be looked at; the next start wipes them.
    lab.down()


@pytest.fixture(scope="session")
def deployed(machines: Pair) -> Pair:
    """The machines after the first deploy of the role; the tests of a file leave them as they found them."""
    if KEEP and (_folder() / "saved" / STATE).exists():
        machines.lab.restore(STATE)
        return machines
    first = machines.deploy()
    assert first.code == 0, first.output
    assert len(machines.heartbeats()) == len(GUESTS)
    if KEEP:
        machines.lab.save(STATE)
    return machines


@pytest.fixture(scope="session")
def grown(deployed: Pair) -> Pair:
    """The same as the story of `test_deploy` leaves it: two disks have grown, once and for all."""
    run = deployed.deploy(changes=NOW)
    assert run.code == 0, run.output
    return deployed


@pytest.fixture(scope="session")
def deployed_pair(deployed: Pair) -> Pair:
    """The same, for tests of what is opened between the two."""
    return deployed


def _folder() -> Path:
    return Path(__file__).resolve().parents[2] / ".lab" / str(INDEX)
