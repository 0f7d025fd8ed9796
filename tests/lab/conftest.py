"""The labs that the tests share: six stand-ins with the base, and two hypervisors, each deployed once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.lab import transcript
from tests.lab.lab import Lab, lab_directory
from tests.lab.pair import GUESTS, NOW, Pair

INDEX = int(os.environ.get("LAB_INDEX", "8"))
"""The number of the tests' lab: beside the owner's own, which is 0."""

KEEP = bool(os.environ.get("LAB_KEEP"))
"""While working on a test: save the deployed machines, and go back to that state instead of deploying again."""

STATE = "deployed"

STAND_INS = INDEX + 60
"""The number of the stand-ins' lab: beside that of the machines, whose own tests wipe it."""

FIRST = ("test_standins.py", "test_site.py", "test_verify_openbsd.py", "test_deploy.py")
"""The stand-ins as they are installed, the base on them, what is verified of it; then the machines' deploy."""

LAST = ("test_bare.py", "test_commands.py")
"""A pair of its own, for which the shared one is switched off; and what all others have sent."""

MACHINES = frozenset(
    f"test_{name}.py"
    for name in ("agreement", "away", "bare", "deploy", "lockout", "migration_path", "places", "ubuntu_base", "verify")
)
"""The files whose tests are about QEMU machines; those of the others need none, and run beside them (pytest -n 2)."""


class _ByLab(LoadScopeScheduling):  # type: ignore[misc]
    """Gives one process all that shares a lab, and every other test to whoever has nothing to do."""

    def _split_scope(self, nodeid: str) -> str:
        path = Path(nodeid.partition("::")[0])
        if path.parent.name != Path(__file__).parent.name:
            return nodeid
        return "machines" if path.name in MACHINES else "stand-ins"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByLab:
    """Return how the tests are dealt out to processes (pytest -n 2)."""
    return _ByLab(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files in the order of their story."""
    story = (*FIRST, "", *LAST)
    here = [item for item in items if item.path.parent == Path(__file__).parent]
    here.sort(key=lambda item: story.index(item.path.name if item.path.name in story else ""))
    items[:] = [item for item in items if item not in here] + here


@pytest.fixture(scope="session", autouse=True)
def sent(worker_id: str) -> None:
    """Everything that the tests send to a host is written down, by each process in a file of its own."""
    transcript.make(lab_directory(INDEX).with_name(f"{INDEX}.{worker_id}.sent"))


@pytest.fixture(scope="session")
def stand_ins() -> Iterator[Lab]:
    """The six stand-ins, freshly installed; the run fails if anything was asked of them that is not modelled."""
    lab = Lab(STAND_INS, lab_directory(STAND_INS), machines=())
    lab.down(wipe=True)
    lab.up(list(lab.stand_ins.hosts), machines=False)
    yield lab
    asked = lab.stand_ins.unmodelled()
    lab.down()
    assert asked == {}


@pytest.fixture(scope="session")
def site(stand_ins: Lab, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The same with the base on all of them, and with their certificates; each file leaves them as it found them."""
    pair = Pair(stand_ins, tmp_path_factory.mktemp("site"))
    first = pair.deploy("--limit", "openbsd", role="site")
    assert first.code == 0, first.output
    assert "fleet pki init" in first.output
    for verb in ("init", "renew"):
        done = pair.fleet("pki", "--site", "@", verb)
        # The hypervisors are no part of this lab, and what lacks is said by the exit code.
        assert done.returncode == (verb == "renew"), done.stdout + done.stderr
    second = pair.deploy("--limit", "openbsd", role="site")
    assert second.code == 0, second.output
    return pair


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
            lab.ssh(name, "echo SSHD_OPTS=-oLogLevel=VERBOSE >/etc/default/ssh && systemctl restart ssh")
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
