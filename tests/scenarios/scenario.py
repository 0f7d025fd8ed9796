"""What a scenario is: a state of a host, a wish, and what a plain command shall show afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Side = Literal["ours", "theirs"]

NEWER = "/var/newer/pub/OpenBSD"
"""A mirror on each host that has moved on, for its /etc/installurl."""


@dataclass(frozen=True)
class Wish:
    """One call of a pyinfra operation.

    `depends` says why ``--dry`` cannot know what this call will do: it needs what an earlier one brings.
    """

    operation: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    depends: str = ""


@dataclass(frozen=True)
class Scenario:
    """A row of the table.

    Arguments: `name`, unique; `wanted`, the wish in words; `before`, POSIX sh that root runs on the fresh host; `ours`
    and `theirs`, the same wish through this project's operations and through pyinfra's own, or the nearest that
    pyinfra has; `shows`, a plain command, and `right`, what it prints once the wish has come true; `fails`, words of
    the message where it cannot come true: then `right` is the state of before. `kernel` is another kern.version of
    the host. Scenarios that `uses` the same thing, a package, a daemon or a file, get different hosts, and one that is
    `alone` shares its host with none.
    """

    name: str
    wanted: str
    ours: tuple[Wish, ...]
    theirs: tuple[Wish, ...]
    shows: str
    right: str
    before: str = ""
    fails: str = ""
    kernel: str = ""
    uses: tuple[str, ...] = ()
    alone: bool = False

    def wishes(self, side: Side) -> tuple[Wish, ...]:
        """Return the calls of one side."""
        return self.ours if side == "ours" else self.theirs
