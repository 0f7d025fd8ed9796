"""The table as it is printed, and as docs/measured has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from importlib.metadata import version

from fleet.load import ROOT
from tests.scenarios.measure import Row, Verdict, dependent
from tests.scenarios.scenario import Scenario

PATH = ROOT / "docs" / "measured" / "scenarios.md"

_HEAD = """\
# Scenarios: the operations of this project beside pyinfra's own

Written by `make scenarios` on {day}, with pyinfra {version}. Each wish is carried out on an OpenBSD stand-in by this
project's operations, with `--dry`, with `-y`, and once more; and on another one of the same state by pyinfra's own
operation, or what it has that is nearest. Nothing in the columns is typed:

- **right**: a plain command on the host shows the wanted state; where the wish cannot come true, the run failed and
  the host is as before (of ours it also has to say why).
- **dry**: `--dry` announced exactly what the run then did.
- **again**: the second run did nothing; *fails* is what it has to do again.
- **exit**: what pyinfra's exit code says.

The stand-ins have a handful of accounts and rc.d scripts: pyinfra's facts look at every one of them in every call.

| | right | dry | again |
|---|---|---|---|
{sums}

| scenario | wanted | right | dry | again | pyinfra: right | dry | again | exit | what it left or said |
|---|---|---|---|---|---|---|---|---|---|
"""
_TAIL = """
`--dry` cannot know what these do, because they depend on an operation before them in the same run:

{dependent}
"""


def cells(row: Row) -> tuple[str, ...]:
    """Return the verdicts of a row as the table has them, ours first."""
    return (*_verdict(row.scenario, row.ours), *_verdict(row.scenario, row.theirs), "1" if row.theirs.failed else "0")


def _verdict(scenario: Scenario, it: Verdict) -> tuple[str, str, str]:
    again = "yes" if it.empty else "fails" if scenario.fails and it.failed else "no"
    return _word(it.right), _word(it.true), again


def _word(value: bool) -> str:
    return "yes" if value else "no"


def text(rows: Sequence[Row], day: date) -> str:
    """Return the whole page."""
    found = [cells(row) for row in rows]
    sums = [
        f"| {who} | "
        + " | ".join(
            f"{sum(row[column] != 'no' for row in found)} of {len(found)}" for column in range(first, first + 3)
        )
        + " |"
        for who, first in (("this project", 0), ("pyinfra's own", 3))
    ]
    head = _HEAD.format(day=day, version=version("pyinfra"), sums="\n".join(sums))
    listed = "\n".join(f"- `{scenario.name}`: {wish.depends}" for scenario, wish in dependent())
    return head + "\n".join(_line(row) for row in rows) + "\n" + _TAIL.format(dependent=listed)


def _line(row: Row) -> str:
    return "| " + " | ".join((row.scenario.name, row.scenario.wanted, *cells(row), _remark(row))) + " |"


def _remark(row: Row) -> str:
    if row.theirs.right:
        return ""
    what = row.theirs.said if row.theirs.failed else row.theirs.shown
    return (
        f"`{' / '.join(what.split(chr(10))).replace('|', chr(92) + '|').replace('`', '')}`"
        if what.strip()
        else "nothing"
    )


def committed() -> tuple[str, dict[str, tuple[str, ...]]]:
    """Return the version of pyinfra that the page was written with, and its verdicts by scenario."""
    lines = PATH.read_text().splitlines()
    written = next(line.split("with pyinfra ")[1].split(". ")[0] for line in lines if "with pyinfra " in line)
    return written, dict(_verdicts(lines))


def _verdicts(lines: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for line in lines:
        columns = [column.strip() for column in line.split(" | ")]
        if len(columns) >= 9 and columns[2] in ("yes", "no"):
            yield columns[0].removeprefix("| "), tuple(columns[2:9])
