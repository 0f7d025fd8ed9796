"""Plays the table: each wish through our operations and through pyinfra's own, on fresh hosts of one state.

Nothing of a verdict is typed. Right is what a plain command on the host shows; what ``--dry`` announces, what a run
then does and whether a second run does anything is what pyinfra's own JSON says.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fleet.connector import REPORT_VARIABLE
from tests.lab.host import LabError, step
from tests.lab.lab import Lab, lab_directory
from tests.scenarios.hosts import FEW, Benches
from tests.scenarios.scenario import Scenario, Side, Wish
from tests.scenarios.table import SCENARIOS, calls, hosts, names

Pair = tuple[str, str]
"""An operation's name in a run, and a host."""

_SECONDS = 600
_HERE = Path(__file__).parent
_INVENTORY = """\
from tests.scenarios.measure import inventory

scenarios = inventory({index}, {side!r})
"""
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_STARTING = re.compile(r"--> Starting operation: (.*)")
_SAID = re.compile(r"\s*\[(\w+)\] (.*)")
# What pyinfra itself says of an operation's end.
_ENDS = re.compile(r"(Success|No changes|Error|Warning|Ignored)\b.*|.*FAILED: ")


@dataclass(frozen=True)
class Verdict:
    """How one side did: the end state is `right`, a failure that had to be was one; ``--dry`` was `true`; the second
    run was `empty`. `failed`: its exit code would not have been 0; `late`, calls that did something without having been
    announced; `shown`, the end state; `said`, the last words."""

    right: bool
    true: bool
    empty: bool
    failed: bool
    late: tuple[Wish, ...]
    shown: str
    said: str


@dataclass(frozen=True)
class Row:
    """A scenario and both verdicts."""

    scenario: Scenario
    ours: Verdict
    theirs: Verdict


@dataclass(frozen=True)
class _Run:
    """What a run of one side said: pairs of operation and host that were `announced`, `acted` or `failed`; `words`."""

    announced: frozenset[Pair]
    acted: frozenset[Pair]
    failed: frozenset[Pair]
    words: dict[Pair, list[str]]


def inventory(index: int, side: Side) -> list[tuple[str, dict[str, object]]]:
    """Return one side's hosts for pyinfra; ours are reached by our connector, theirs by its own."""
    lab = _lab(index)
    return [
        (
            f"@fleet/{name}" if side == "ours" else name,
            {
                "ssh_hostname": bench.host.connection.address,
                "ssh_port": 22,
                "ssh_user": bench.user,
                "ssh_key": str(lab.key),
                **_known(lab, side),
                "_doas": True,
            },
        )
        for name, bench in lab.stand_ins.hosts.items()
        if name.startswith(side[0])
    ]


def _known(lab: Lab, side: Side) -> dict[str, object]:
    if side == "ours":
        return {"known_hosts": [str(lab.known_hosts)]}
    return {"ssh_known_hosts_file": str(lab.known_hosts), "ssh_strict_host_key_checking": "yes"}


def _lab(index: int) -> Lab:
    lab = Lab(index, lab_directory(index), machines=())
    played = {_host(side, number): row for side in ("ours", "theirs") for number, row in enumerate(hosts())}
    lab.stand_ins = Benches(index, lab.directory, played)
    return lab


def _host(side: str, number: int) -> str:
    return f"{side[0]}{number:02}"


def play(index: int) -> list[Row]:
    """Play all scenarios in the lab number `index`, which is wiped before, and taken down afterwards.

    Raises LabError for a host whose state cannot be prepared, an invocation that a stand-in does not model, or a run
    that does not get to its end.
    """
    lab = _lab(index)
    lab.down(wipe=True)
    try:
        lab.up(list(lab.stand_ins.hosts), machines=False)
        with step("preparing the hosts"), ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: _prepare(lab, name), lab.stand_ins.hosts))
        with step("both sides"), ThreadPoolExecutor() as pool:
            ours, theirs = pool.map(lambda side: _side(lab, side), ("ours", "theirs"))
        asked = lab.stand_ins.unmodelled()
        if asked:
            raise LabError(f"not modelled: {asked}")
        return [Row(scenario, ours[scenario.name], theirs[scenario.name]) for scenario in SCENARIOS]
    finally:
        lab.stand_ins.down(grace=0)
        lab.down()


def _prepare(lab: Lab, name: str) -> None:
    for what, commands in (
        (name, FEW),
        *((scenario.name, scenario.before) for scenario in hosts()[int(name[1:])] if scenario.before),
    ):
        done = _in_host(lab, name, f"set -e\n{{\n{commands}\n}} </dev/null\n")
        if done.returncode:
            raise LabError(f"{what}: {done.stdout}{done.stderr}")


def _in_host(lab: Lab, name: str, command: str) -> subprocess.CompletedProcess[str]:
    # Not as an argument, where pgrep -f would find it.
    argv = lab.stand_ins.hosts[name].enter(["/bin/ksh", "-s"])
    return subprocess.run(argv, input=command, capture_output=True, text=True, timeout=_SECONDS, check=False)


def _side(lab: Lab, side: Side) -> dict[str, Verdict]:
    dry = _run(lab, side, "--dry")
    run = _run(lab, side, "-y")
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda number: _shown(lab, side, number), range(len(hosts())))
        shown = {name: text for each in found for name, text in each.items()}
    again = _run(lab, side, "-y")
    return {it.name: _verdict(it, side, shown[it.name], dry, run, again) for it in SCENARIOS}


def _shown(lab: Lab, side: Side, number: int) -> dict[str, str]:
    row = hosts()[number]
    mark = "##SCENARIO##"
    commands = "\n".join(f"({scenario.shows}) </dev/null 2>/dev/null\necho '{mark}'" for scenario in row)
    texts = _in_host(lab, _host(side, number), commands).stdout.split(f"{mark}\n")
    return {scenario.name: text.rstrip("\n") for scenario, text in zip(row, texts, strict=False)}


def _run(lab: Lab, side: Side, flag: str) -> _Run:
    path = lab.directory / f"{side}.py"
    path.write_text(_INVENTORY.format(index=lab.index, side=side))
    pyinfra = Path(sys.executable).with_name("pyinfra")
    report = lab.directory / f"{side}{flag}.json"
    argv = ["env", "PYINFRA_PROGRESS=off", f"{REPORT_VARIABLE}={report}"]
    argv += [str(pyinfra), "--json", flag, str(path), str(_HERE / f"{side}.py")]
    done = lab.in_network(argv, "home", deadline=_SECONDS)
    (lab.directory / f"{side}{flag}.log").write_text(done.stdout + done.stderr)
    try:
        said = json.loads(done.stdout)
    except ValueError:
        raise LabError(f"{side} {flag}: no result:\n{done.stderr[-4000:]}") from None
    results = said["results"]["operations"] if said["results"] else []
    return _Run(
        frozenset((it["name"], host) for it in said["plan"] for host in it["hosts_with_change"]),
        frozenset((it["name"], host) for it in results for host in (*it["success"], *it["error"])),
        frozenset((it["name"], host) for it in results for host in it["error"]),
        _words(done.stderr),
    )


def _words(text: str) -> dict[Pair, list[str]]:
    """Return what was said of each operation of each host."""
    found: dict[Pair, list[str]] = {}
    name = ""
    for line in _ANSI.sub("", text).splitlines():
        if starting := _STARTING.match(line):
            name = starting[1].strip()
        elif name and (match := _SAID.match(line)):
            found.setdefault((name, match[1]), []).append(match[2].strip())
    return found


def _calls(side: Side) -> Iterator[tuple[Pair, Scenario, Wish]]:
    for number in range(len(hosts())):
        for name, (scenario, wish) in zip(names(side), calls(side, number), strict=False):
            yield (name, _host(side, number)), scenario, wish


def _verdict(scenario: Scenario, side: Side, shown: str, dry: _Run, run: _Run, again: _Run) -> Verdict:
    mine = {pair: wish for pair, other, wish in _calls(side) if other is scenario}
    words = [word for pair in mine for word in run.words.get(pair, [])]
    failed = bool(set(mine) & run.failed) or any("FAILED: " in word for word in words)
    unheard = [pair for pair in mine if pair not in run.words]
    if unheard and not failed:
        raise LabError(f"{scenario.name}: nothing was heard of {unheard}")
    named = side == "theirs" or any(scenario.fails in word for word in words)
    return Verdict(
        right=shown == scenario.right and (failed and named if scenario.fails else not failed),
        true=all((pair in dry.announced) == (pair in run.acted) for pair, wish in mine.items() if not wish.depends),
        empty=not set(mine) & again.acted,
        failed=failed,
        late=tuple(wish for pair, wish in mine.items() if pair in run.acted - dry.announced),
        shown=shown,
        said=" / ".join(word for word in words if not _ENDS.match(word))[-200:],
    )


def dependent() -> list[tuple[Scenario, Wish]]:
    """Return our calls of which ``--dry`` cannot know what they will do, with their scenarios."""
    return [(scenario, wish) for _, scenario, wish in _calls("ours") if wish.depends]
