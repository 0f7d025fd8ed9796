"""What the parts of syslogd(8) share."""

import selectors
from collections.abc import Callable
from typing import Protocol

Ready = Callable[[int], None]
"""What a registered file has for data: it is called with the events."""


class Hub(Protocol):
    """The daemon, as its connections see it."""

    selector: selectors.BaseSelector

    def log(self, level: int, text: str) -> None:
        """Log a message of the daemon's own.

        Args:
            level: of `message`, such as `NOTICE`.
            text: what it says.
        """

    def dropped(self, count: int, where: str) -> None:
        """Log that messages were lost, if any were.

        Args:
            count: how many.
            where: where they did not get to, such as `to file "/var/log/x"`.
        """

    def receive(self, host: str, data: bytes) -> None:
        """Log a message that came from elsewhere.

        Args:
            host: the sender's name.
            data: the message without its frame.
        """
