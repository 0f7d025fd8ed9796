"""What the modules share."""

from __future__ import annotations

from testinfra.modules.base import InstanceModule


class Unknown(Exception):
    """What was asked could not be known: the tool is missing, failed, or said what is not understood."""


class Asking(InstanceModule):  # type: ignore[misc]
    """A testinfra module that takes an answer only from a command that succeeded."""

    def answer(self, command: str) -> str:
        """Return the standard output of `command`; `Unknown` with its last words if it failed."""
        result = self.run(command)
        if result.rc != 0:
            lines = [line for line in (result.stderr or result.stdout).splitlines() if line.strip()]
            raise Unknown(lines[-1].strip() if lines else f"exit code {result.rc}: {command.split(maxsplit=1)[0]}")
        text: str = result.stdout
        return text
