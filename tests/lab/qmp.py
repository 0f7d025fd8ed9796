"""QEMU's monitor protocol, as much of it as the lab needs; docs/interop/qmp-spec.rst of QEMU."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.lab.host import LabError


def connect(path: Path, deadline: float) -> socket.socket:
    """Connect to a Unix socket of any path length.

    Args:
        path: the socket.
        deadline: seconds that each later send or receive may take.

    Returns:
        The connected socket.

    Raises:
        OSError: nobody listens there.
    """
    # A socket's address has 108 bytes, a checkout's path may have more.
    parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(deadline)
        try:
            connection.connect(f"/proc/self/fd/{parent}/{path.name}")
        except OSError:
            connection.close()
            raise
        return connection
    finally:
        os.close(parent)


class Monitor:
    """An open monitor connection.

    Args:
        connection: the connected socket, before the greeting.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rwb")
        self._receive()
        self("qmp_capabilities")

    def _receive(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            raise LabError("QEMU closed its monitor")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __call__(self, command: str, **arguments: object) -> Any:
        """Give a command and wait for its answer.

        Args:
            command: its name.
            arguments: its arguments; an underscore stands for a dash.

        Returns:
            What it returned.

        Raises:
            LabError: QEMU refused it.
        """
        names = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._file.write(json.dumps({"execute": command, "arguments": names}).encode() + b"\n")
        self._file.flush()
        while True:
            answer = self._receive()
            if "error" in answer:
                raise LabError(f"QEMU: {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def migration(self, deadline: float) -> None:
        """Wait until a migration, in or out, is complete.

        Args:
            deadline: seconds it may take.

        Raises:
            LabError: it failed or took too long.
        """
        until = time.monotonic() + deadline
        while time.monotonic() < until:
            found = self("query-migrate")
            if found.get("status") == "completed":
                return
            if found.get("status") in ("failed", "cancelled"):
                raise LabError(f"QEMU: migration: {found.get('error-desc', found['status'])}")
            time.sleep(0.1)
        raise LabError(f"QEMU: migration not complete after {deadline:.0f} s")


@contextlib.contextmanager
def monitor(path: Path, deadline: float = 60) -> Iterator[Monitor]:
    """Open a machine's monitor.

    Args:
        path: its socket.
        deadline: seconds that one answer may take.

    Raises:
        LabError: nobody answers.
    """
    try:
        with connect(path, deadline) as connection:
            yield Monitor(connection)
    except OSError as error:
        raise LabError(f"{path}: QEMU does not answer: {error}") from error
