"""``pytest tests/verify --site SITE [--limit HOST,...] [--json FILE]``: ask the hosts what the inventory declares.

Nothing is changed; each host that sends its log away logs one line, to be looked for where it shall arrive.

Run it as a process of its own. Exit code 0: nothing is red, and every host that should be there was; hosts that may
be away, guests whose place is unknown and guests that wait for a passphrase are named in the closing lines and are
no failure. A site none of whose hosts has a service says so and ends with 0, there is nothing to be wrong. A
``--limit`` to hosts that have nothing to verify ends with 5, as pytest does when it runs no test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from fleet.load import load
from fleet.model.site import Fleet, Site
from tests.verify.checks import checks
from tests.verify.kinds import Check
from tests.verify.report import Report, Result, State, judge
from tests.verify.survey import Presence, SurveyError, ask_everything, check_limit


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for."""

    fleet: Fleet
    sites: Sequence[Site]
    limit: Sequence[str] | None


WANTED = pytest.StashKey[Wanted]()
REPORT = pytest.StashKey[Report]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this folder."""
    group = parser.getgroup("verify", "verification of deployed hosts")
    group.addoption("--site", help="the inventory to verify: home, exoscale, vultr, lab")
    group.addoption("--limit", action="append", metavar="HOST", help="only these hosts; comma-separated, repeatable")
    group.addoption("--json", metavar="FILE", help="write what was found as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to run without a site: which hosts are contacted is never a guess."""
    option = config.option
    # Options are missing where this folder is only collected along with others; it has no test then.
    if not hasattr(option, "site"):
        return
    if not option.site:
        raise pytest.UsageError("tests/verify needs --site SITE: home, exoscale, vultr or lab")
    try:
        fleet, sites = load(option.site)
        limit = None if option.limit is None else [name for text in option.limit for name in text.split(",")]
        check_limit(sites, limit)
    except (SystemExit, SurveyError) as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[WANTED] = Wanted(fleet, sites, limit)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect one item a check; they are filed under the module of the kinds."""
    if file_path == Path(__file__).with_name("kinds.py") and WANTED in parent.config.stash:
        collector: pytest.Collector = Declarations.from_parent(parent, path=file_path)
        return collector
    return None


class Declarations(pytest.File):
    """The checks of a site."""

    def collect(self) -> Iterator[pytest.Item]:
        """Ask all hosts at once and yield a check for each thing that is declared."""
        wanted = self.config.stash[WANTED]
        try:
            # It decides what is retired.
            survey = ask_everything(wanted.fleet, wanted.sites, date.today(), wanted.limit)
        except SurveyError as error:
            raise self.CollectError(str(error)) from None
        self.config.stash[REPORT] = Report(survey)
        for check in checks(survey):
            yield Verification.from_parent(self, name=check.id, check=check)


class CheckFailed(Exception):
    """A red check; pytest shows it by its words instead of a traceback."""


class Verification(pytest.Item):
    """One check as a test."""

    def __init__(self, *, check: Check, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.check = check

    def runtest(self) -> None:
        """Judge the check, and remember how it ended for the closing lines."""
        result = judge(self.check)
        self.config.stash[REPORT].results.append(result)
        if result.state is State.RED:
            raise CheckFailed(result)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        """Return what was found, and why it matters."""
        del style
        if isinstance(excinfo.value, CheckFailed):
            result: Result = excinfo.value.args[0]
            return f"{self.check.id}: {result.text}\n    {self.check.kind.why}"
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return the file of the kinds, and the check's name."""
        return self.path, None, self.check.id


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Close with a line a host, red first, and a line a guest."""
    report = config.stash.get(REPORT, None)
    if report is None:
        return
    terminalreporter.section(f"verification of {config.option.site}")
    for line in report.lines():
        terminalreporter.write_line(line)
    if not report.survey.found:
        terminalreporter.write_line("nothing was verified: none of these hosts has a service")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report, and give the exit code its meaning where there was no check to run."""
    report = session.config.stash.get(REPORT, None)
    if report is None:
        return
    if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and not session.testsfailed:
        found = report.survey.found.values()
        away = bool(found) and all(item.presence is Presence.AWAY for item in found if item.wanted)
        nothing = not found and session.config.option.limit is None
        if away or nothing:
            session.exitstatus = pytest.ExitCode.OK
    if session.config.option.json is not None:
        path = Path(session.config.option.json)
        part = path.with_name(f"{path.name}.part")
        data = {"site": session.config.option.site, "exit": int(session.exitstatus), **report.data()}
        part.write_text(json.dumps(data, indent=1) + "\n")
        part.replace(path)
