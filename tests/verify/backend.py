"""How verification reaches a host: testinfra's ssh backend with the inventory's connection, and nothing of pyinfra.

OpenSSH does it, one connection a host that all commands share. What is going to be asked is asked in one exec
beforehand (`FleetBackend.prefetch`), so that modules can be written as if each command were cheap.
"""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from testinfra.backend.base import CommandResult
from testinfra.backend.ssh import SshBackend
from testinfra.host import Host as TestinfraHost

from fleet.load import resolve, ssh_options
from fleet.model.site import Connection, Host, Site

PROBE_SECONDS = 5.0
"""How long a host may take to accept a TCP connection before it counts as not there; as in a run."""

EXEC_SECONDS = 180.0
"""How long one command may take, so that a hanging daemon ends in a red line and not in silence."""


class FleetBackend(SshBackend):  # type: ignore[misc]
    """testinfra's ssh backend with one configuration file a host, a deadline, escalation and remembered answers.

    Arguments: `destination`, the address; `config`, ssh_config(5) of this host alone; `escalate`, ``sudo`` or
    ``doas`` where the login is not root's.
    """

    NAME = "fleet"

    def __init__(self, destination: str, config: Path, escalate: str | None = None) -> None:
        host = f"[{destination}]" if ":" in destination else destination
        super().__init__(host, ssh_config=str(config), controlpersist=0)
        self.escalate = escalate
        self.execs = 0
        self.asked = (0.0, 0.0)
        self._known: dict[str, CommandResult] = {}
        # testinfra would ask the host, at the price of two commands, once an answer is not ASCII.
        self._encoding = "utf-8"

    def get_command(self, command: str, *args: str) -> str:
        """Return what the remote login shell is given: the command in sh, whatever that shell is."""
        line: str = self.quote(command, *args)
        words = [*([self.escalate, "-n"] if self.escalate else []), "sh", "-c", line]
        return shlex.join(words)

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        """Run a command, or return what it said when it was asked beforehand."""
        del kwargs
        line: str = self.quote(command, *args)
        known = self._known.get(line)
        return known if known is not None else self.run_ssh(self.get_command(line))

    def run_local(self, command: str, *args: str) -> CommandResult:
        """Run ssh; RuntimeError if it takes longer than `EXEC_SECONDS`."""
        line = self.encode(self.quote(command, *args))
        self.execs += 1
        process = subprocess.Popen(
            line,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(timeout=EXEC_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise RuntimeError(f"no answer within {EXEC_SECONDS:.0f} s") from None
        return self.result(process.returncode, line, stdout, stderr)

    def decode(self, data: bytes) -> str:
        """Return text; a byte that is no UTF-8 is shown as such, one odd file name stops nothing."""
        return data.decode("utf-8", errors="replace")

    def prefetch(self, commands: Sequence[str]) -> None:
        """Run `commands` in one exec, and remember the answer of each, and in `asked` our clock before and after it.

        Raises RuntimeError with ssh's last words if the host cannot be asked at all.
        """
        mark = f"##{secrets.token_hex(8)}"
        before = time.time()
        result = self.run_ssh(self.get_command(bundle(commands, mark)))
        self.asked = (before, time.time())
        for command, (rc, out, err) in zip(
            commands, unbundle(result.stdout, result.stderr, mark, len(commands)), strict=True
        ):
            self._known[command] = self.result(rc, self.encode(command), out, err)

    def run_ssh(self, command: str) -> CommandResult:
        """Run a command; RuntimeError with ssh's last words where ssh itself fails."""
        try:
            return super().run_ssh(command)
        except RuntimeError as error:
            result = error.args[0]
            if not isinstance(result, CommandResult):
                raise
            lines = [line for line in result.stderr.splitlines() if line.strip()]
            raise RuntimeError(lines[-1].strip() if lines else "ssh failed without a word") from None


def bundle(commands: Sequence[str], mark: str) -> str:
    """Return the one POSIX sh script that runs `commands` one after the other, `mark` between their answers."""
    parts = []
    for number, command in enumerate(commands):
        parts.append(
            f"echo '{mark} {number}'; echo '{mark} {number}' >&2\n"
            f"(\n{command}\n) </dev/null\n"
            # The newline before it ends an answer's last line where that has none.
            f"printf '\\n%s %s\\n' '{mark} end' $?; printf '\\n%s\\n' '{mark} end' >&2"
        )
    return "\n".join(parts) + "\nexit 0\n"


def unbundle(out: str, err: str, mark: str, count: int) -> list[tuple[int, str, str]]:
    """Return exit code, standard output and standard error of each of `count` commands of a `bundle`.

    RuntimeError if the answer is not whole: a connection that broke is never taken for an empty answer.
    """
    answers = []
    for number in range(count):
        text, code = _between(out, mark, number)
        words, _ = _between(err, mark, number)
        answers.append((int(code), text, words))
    return answers


def _between(text: str, mark: str, number: int) -> tuple[str, str]:
    _, begin, rest = text.partition(f"{mark} {number}\n")
    body, end, rest = rest.partition(f"\n{mark} end")
    code, newline, _ = rest.partition("\n")
    if not (begin and end and newline):
        raise RuntimeError("the answer broke off")
    return body, code


def connect(site: Site, host: Host, folder: Path) -> TestinfraHost:
    """Return the testinfra host for `host` of `site`; no connection is made before the first command.

    Arguments: `folder`, a private directory for the configuration and the socket of the shared connection; its
    path has to be short, see unix(7).
    """
    config = folder / f"{host.name}.conf"
    config.write_text(ssh_config(host.connection, ssh_options(site, host), folder / host.name))
    backend = FleetBackend(host.connection.address, config, host.connection.escalate)
    made = TestinfraHost(backend)
    backend.set_host(made)
    return made


def disconnect(folder: Path) -> None:
    """End the shared connections whose sockets are in `folder`."""
    for config in folder.glob("*.conf"):
        subprocess.run(["ssh", "-F", str(config), "-O", "exit", "any"], capture_output=True, timeout=10, check=False)


def ssh_config(connection: Connection, known: Mapping[str, str], control: Path) -> str:
    """Return the ssh_config(5) that reaches a host as the inventory says, with its host key checked.

    Arguments: `known`, the options by which its key is known; `control`, the socket of the shared connection. The
    owner's own configuration counts, as it does for a run, unless the inventory names a key.
    """
    lines = [
        f"Port {connection.port}",
        f"User {connection.user}",
        "BatchMode yes",
        "StrictHostKeyChecking yes",
        f"ConnectTimeout {PROBE_SECONDS * 2:.0f}",
        "ServerAliveInterval 15",
        "LogLevel ERROR",
        "ControlMaster auto",
        "ControlPersist 60",
        f"ControlPath {_quoted(control)}",
    ]
    if connection.key is not None:
        lines += [f"IdentityFile {_quoted(resolve(connection.key))}", "IdentitiesOnly yes"]
    lines += [f"{name} {value}" for name, value in known.items()]
    if connection.key is None:
        lines += ["Include ~/.ssh/config", "Include /etc/ssh/ssh_config"]
    return "\n".join(lines) + "\n"


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("%", "%%") + '"'


def probe(connection: Connection, seconds: float = PROBE_SECONDS) -> str | None:
    """Return None if the host accepts a TCP connection, else why not."""
    try:
        with socket.create_connection((connection.address, connection.port), timeout=seconds):
            return None
    except OSError as error:
        return f"no TCP connection to {connection.address}:{connection.port}: {error}"
