"""The last operation of every host: it fails the host if anything of it failed (DESIGN, "How data flows")."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host as current_host
from pyinfra.api import FunctionCommand, operation
from pyinfra.api.host import Host
from pyinfra.api.state import State

from fleet.connector import Presence, record_of


@operation(is_idempotent=False)
def verdict() -> Generator[FunctionCommand, None, None]:
    """Fail the host if a set, guest or daemon of it failed in this run, or if it could not be reached."""
    record = record_of(current_host.name)
    if record.failed or record.presence is Presence.FAILED:
        yield FunctionCommand(_fail, (), {})
    else:
        current_host.noop("nothing failed")


def _fail(state: State, host: Host) -> bool:
    del state, host
    return False
