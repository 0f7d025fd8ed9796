"""What a verification found, in lines for the owner and as data for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.verify.checks import checks
from tests.verify.evidence import UbuntuEvidence
from tests.verify.kinds import Check, Red
from tests.verify.modules.base import Unknown
from tests.verify.survey import Place, Presence, Survey


class State(StrEnum):
    """How a check ended. Waiting is neither green nor red, and says for what."""

    GREEN = "green"
    RED = "red"
    WAITING = "waiting"


@dataclass(frozen=True)
class Result:
    """A check and how it ended; `text` says why it is red or what it waits for."""

    check: Check
    state: State
    text: str = ""


def judge(check: Check) -> Result:
    """Return how `check` ends. What could not be known is red: it was not verified."""
    try:
        waits = check.judge()
    except Red as error:
        return Result(check, State.RED, str(error))
    except Unknown as error:
        return Result(check, State.RED, f"could not be known: {error}")
    return Result(check, State.GREEN) if waits is None else Result(check, State.WAITING, waits)


@dataclass
class Report:
    """A survey with its results.

    >>> report = Report(survey, verify(survey))
    >>> report.red
    {'kvm1/volume/db1-root/size': 'it has 12889096192 bytes, not 12884901888'}
    """

    survey: Survey
    results: list[Result] = field(default_factory=list)

    @property
    def red(self) -> dict[str, str]:
        """What is red, by the id of its check, and why."""
        return {each.check.id: each.text for each in self.results if each.state is State.RED}

    @property
    def waiting(self) -> dict[str, str]:
        """What waits for the owner, by the id of its check."""
        return {each.check.id: each.text for each in self.results if each.state is State.WAITING}

    def lines(self) -> list[str]:
        """Return one line a host, red first, then one a guest, then who has nothing to verify."""
        red, rest = [], []
        for name, found in self.survey.found.items():
            if not found.wanted:
                continue
            if found.presence is Presence.AWAY:
                rest.append(f"{name}: away")
            elif f"{name}/reached" in self.waiting:
                # The line of the guest says it.
                continue
            elif found.presence is Presence.FAILED:
                red.append(f"{name}: not reached: {found.reason}")
            else:
                is_red, line = self._host(name)
                (red if is_red else rest).append(line)
        return [*red, *rest, *self._guests(), *self._idle()]

    def _host(self, name: str) -> tuple[bool, str]:
        mine = [each for each in self.results if each.check.host == name]
        count = {state: sum(each.state is state for each in mine) for state in State}
        waits = f", {count[State.WAITING]} waiting" if count[State.WAITING] else ""
        if not count[State.RED]:
            return False, f"{name}: {count[State.GREEN]} green{waits}"
        named = "; ".join(each.check.name.replace("/", " ") for each in mine if each.state is State.RED)
        return True, f"{name}: {count[State.RED]} of {len(mine)} red{waits}: {named}"

    def _guests(self) -> Iterator[str]:
        for place in self.survey.places:
            yield f"{place.guest.name}: {self._guest(place)}"

    def _guest(self, place: Place) -> str:
        if place.on:
            waits = [text for name, text in self.waiting.items() if name.endswith(f"/guest/{place.guest.name}/answers")]
            if len(place.on) == 1:
                return waits[0] if waits else f"{self._state(place)} on {place.on[0]}"
            return f"is on {' and '.join(place.on)}"
        if place.unasked or place.silent:
            return f"its place is unknown ({' and '.join((*place.unasked, *place.silent))} cannot be asked)"
        return "is nowhere"

    def _state(self, place: Place) -> str:
        evidence = self.survey.found[place.on[0]].evidence
        domain = evidence.domain(place.guest) if isinstance(evidence, UbuntuEvidence) else None
        state = domain.state if domain is not None else "unknown"
        return "runs" if state == "running" else f"is {state}"

    def _idle(self) -> Iterator[str]:
        idle = self.survey.idle
        if idle:
            verb = "has" if len(idle) == 1 else "have"
            yield f"{len(idle)} without a service {verb} nothing to verify: {', '.join(idle)}"

    def data(self) -> dict[str, Any]:
        """Return everything for a program, as JSON can have it."""
        hosts: dict[str, Any] = {}
        for name, found in self.survey.found.items():
            if found.wanted:
                mine = [each for each in self.results if each.check.host == name]
                hosts[name] = {
                    "presence": str(found.presence),
                    "reason": found.reason,
                    "execs": found.evidence.remote.backend.execs if found.evidence is not None else 0,
                    "green": sum(each.state is State.GREEN for each in mine),
                    "red": _by_id(mine, State.RED),
                    "waiting": _by_id(mine, State.WAITING),
                }
        guests = {place.guest.name: {"on": list(place.on), "words": self._guest(place)} for place in self.survey.places}
        return {"hosts": hosts, "guests": guests, "nothing_to_verify": list(self.survey.idle)}


def verify(survey: Survey) -> list[Result]:
    """Return how every check of `survey` ends; for programs, pytest runs them one by one."""
    return [judge(check) for check in checks(survey)]


def _by_id(results: Iterable[Result], state: State) -> dict[str, str]:
    return {each.check.id: each.text for each in results if each.state is state}
