"""What the lab's tests sent to hosts: each command line with what it read on standard input.

The inventory of a lab says `begin`, so every process that uses it writes down what it sends: a run of pyinfra, a verb
of `fleet`, the verification. The product knows nothing of this.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from paramiko import SSHClient  # noqa: TID251 - the one place where a run's commands leave, for all who send any

from fleet.load import current
from tests.verify.backend import FleetBackend

VARIABLE = "LAB_TRANSCRIPT"
"""Environment variable: the file that is written to; nothing is written without it."""


@dataclass(frozen=True)
class Sent:
    """A command `line` that was sent to `host`, an operating system `os`, with its `stdin`."""

    host: str
    os: str
    line: str
    stdin: str = ""


def make(path: Path) -> None:
    """Begin a new transcript, which only its owner reads: there are secrets of the lab in it.

    Args:
        path: the file; this process and those that it starts write to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    os.environ[VARIABLE] = str(path)


def read(paths: Iterable[Path]) -> Iterator[Sent]:
    """Yield all that was sent, as the transcripts `paths` have it, in order."""
    for path in paths:
        with path.open() as lines:
            yield from (Sent(**json.loads(line)) for line in lines)


@cache
def begin() -> None:
    """Write down what this process sends to hosts from now on, if there is a transcript."""
    path = os.environ.get(VARIABLE)
    if path is None:
        return
    execute, verify = SSHClient.exec_command, FleetBackend.run_ssh

    def exec_command(self: SSHClient, command: str, *args: Any, **kwargs: Any) -> Any:
        transport = self.get_transport()
        assert transport is not None
        address = transport.getpeername()[0]
        streams = execute(self, command, *args, **kwargs)
        stdin, written = streams[0], bytearray()
        write, close = stdin.write, stdin.close

        def keep(data: bytes) -> None:
            written.extend(data)
            write(data)

        def end() -> None:
            if not stdin.closed:
                _append(path, address, command, written.decode())
            close()

        stdin.write = keep  # type: ignore[method-assign]
        stdin.close = end  # type: ignore[method-assign]
        return streams

    def run_ssh(self: FleetBackend, command: str) -> Any:
        _append(path, self.host.name, command)
        return verify(self, command)

    SSHClient.exec_command = exec_command  # type: ignore[method-assign]
    FleetBackend.run_ssh = run_ssh  # type: ignore[method-assign]


def _append(path: str, address: str, line: str, stdin: str = "") -> None:
    host = {host.connection.address: host for site in current().sites for host in site.hosts}[address]
    text = json.dumps(asdict(Sent(host.name, str(host.os), line, stdin))) + "\n"
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)
