"""How a host is reached, and what is remembered of a run.

The one module that knows pyinfra's internals, paramiko and gevent (DESIGN, "One connector"). It serves production
and lab alike: hosts are named ``@fleet/NAME`` in an inventory and keep their plain names everywhere else.

A connection is made at the first command, so a run touches only the hosts that its role concerns.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, cast

import gevent
from gevent.lock import RLock
from paramiko import Agent, HostKeys, MissingHostKeyPolicy, PKey, Transport
from paramiko.hostkeys import HostKeyEntry, InvalidHostKey
from paramiko.ssh_exception import AuthenticationException, SSHException
from pydantic import SecretStr
from pyinfra import inventory
from pyinfra.api import FactBase, StringCommand
from pyinfra.api.exceptions import ConnectError, FactProcessError
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.connectors.ssh import SSHConnector

from fleet.model.secret import SSH_HOST_KEY, mask
from fleet.model.service import PersonLogin

T = TypeVar("T")

PROBE_SECONDS = 5
"""How long a host may take to accept a TCP connection before it counts as not there."""

RETRY_SECONDS = 0.5
"""How long `FleetConnector.reconnect` waits between two attempts."""

KEEPALIVE_SECONDS = 30
"""Interval of SSH keepalives, so that a NAT does not forget a long package installation."""

ANSWER_SECONDS = 120
"""How long a host may take to answer a confirmation: a connection that a change has cut says nothing any more."""

REPORT_VARIABLE = "FLEET_REPORT"
"""Environment variable: where a run writes its report for the wrapper that judges it."""


class Presence(StrEnum):
    """What `FleetConnector.reach` found."""

    REACHED = "reached"
    AWAY = "away"
    FAILED = "failed"


@dataclass
class Outcome:
    """Our own record of one host in one run, kept apart from pyinfra's (reference 9.1).

    `failed` maps a set, guest or daemon to what went wrong, `changed` to what was done to it. `halted`: what was
    found forbids to touch anything on this host.
    """

    name: str = ""
    presence: Presence | None = None
    reason: str = ""
    concerned: bool = False
    halted: bool = False
    execs: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    changed: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def fail(self, subject: str, message: str) -> None:
        """Remember that `subject` failed; later operations leave it alone, `verdict` fails the host."""
        message = mask(message, _SECRETS)
        if self.failed.setdefault(subject, message) is message:
            self._print(f"{subject}: FAILED: {message}")

    def has_failed(self, subject: str) -> bool:
        """True if `subject` failed earlier in this run."""
        return subject in self.failed

    def change(self, subject: str, what: str) -> None:
        """Remember one change, in the past tense."""
        what = mask(what, _SECRETS)
        self.changed.setdefault(subject, []).append(what)
        self._print(f"{subject}: {what}")

    def note(self, text: str) -> None:
        """Remember one line for the owner that is neither a change nor a failure."""
        text = mask(text, _SECRETS)
        if text not in self.notes:
            self.notes.append(text)

    def _print(self, text: str) -> None:
        if self.name:
            sys.stderr.write(f"    [{self.name}] {text}\n")

    @property
    def changes(self) -> int:
        """How many changes were made."""
        return sum(len(done) for done in self.changed.values())


@dataclass(frozen=True)
class Result:
    """What a remote command returned: `ok` if it exited with 0, its output, and `error`, its last words."""

    ok: bool
    stdout: tuple[str, ...]
    stderr: tuple[str, ...]

    @property
    def error(self) -> str:
        """The last lines of standard error, or of standard output where that is empty."""
        lines = [line for line in (self.stderr or self.stdout) if line.strip()]
        return " / ".join(lines[-4:]) if lines else "it said nothing"


_SECRETS: set[SecretStr] = set()
_OUTCOMES: dict[str, Outcome] = {}
_PLANNED: dict[str, Outcome] = {}
_EXECUTED: set[str] = set()
_REMARKS: dict[str, None] = {}
_READS: ContextVar[bool] = ContextVar("reads", default=False)


def _never_raise(state: State) -> bool:
    """Replace pyinfra's prompt for each failed host: other hosts go on, the exit code tells (reference 9.1)."""
    del state
    return False


class _Noise(logging.Filter):
    """Drops pyinfra's lines that are untrue here: `Connected` before a connection is made, and `Skipped`."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not any(word in message and "[" in message for word in ("Connected", "Skipped"))


class _OfThisHost(MissingHostKeyPolicy):
    """Asks the connector whether a key is its host's: paramiko itself knows no host and asks for each."""

    def __init__(self, connector: FleetConnector) -> None:
        self._connector = connector

    def missing_host_key(self, client: Any, hostname: str, key: PKey) -> None:
        del client, hostname
        self._connector.check_host_key(key)


class FleetConnector(SSHConnector):
    """SSH with a connection at the first command, TCP_NODELAY, counted execs and a notion of presence."""

    @staticmethod
    def make_names_data(name: str) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        """Yield the host with its plain name; connection data is in the inventory's host data."""
        yield name, {}, []

    def __init__(self, state: State, host: Host) -> None:
        super().__init__(state, host)
        self._lock = RLock()
        self._presence: Presence | None = None
        self._port = 22
        if hasattr(state, "should_raise_failed_hosts"):
            state.should_raise_failed_hosts = _never_raise
        logger = logging.getLogger("pyinfra")
        if not any(isinstance(known, _Noise) for known in logger.filters):
            logger.addFilter(_Noise())
            logging.getLogger("paramiko").setLevel(logging.CRITICAL)

    def make_paramiko_kwargs(self) -> dict[str, Any]:
        """Return pyinfra's arguments for paramiko, with the transport of this module."""
        kwargs = super().make_paramiko_kwargs()
        extra = dict(kwargs.get("_pyinfra_ssh_paramiko_connect_kwargs") or {})
        kwargs["_pyinfra_ssh_paramiko_connect_kwargs"] = {**extra, "transport_factory": self._transport}
        kwargs["_pyinfra_ssh_strict_host_key_checking"] = "yes"
        kwargs["_pyinfra_ssh_known_hosts_file"] = os.devnull
        kwargs["port"] = self._port
        return kwargs

    def _transport(self, sock: Any, **kwargs: Any) -> Transport:
        """Make paramiko's transport, and give its client our judge of host keys.

        The socket gets TCP_NODELAY: 13 times faster a command (reference 5.2).
        """
        if hasattr(sock, "setsockopt"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made = Transport(sock, **kwargs)
        assert self.client is not None
        self.client.set_missing_host_key_policy(_OfThisHost(self))
        kinds = {key.get_name() for key in self._host_keys()}
        kinds |= {"rsa-sha2-256", "rsa-sha2-512"} if "ssh-rsa" in kinds else set()
        options = made.get_security_options()
        # A host has a key of each kind; it has to show one that is known.
        options.key_types = sorted(options.key_types, key=lambda kind: kind not in kinds)
        return made

    def _host_keys(self) -> list[PKey]:
        """Return the keys that this host may show: the repository's, then those of known_hosts.

        The owner's own ~/.ssh/known_hosts count as long as there is no other file.
        """
        address = str(self.data["ssh_hostname"] or self.host.name)
        names = {self.host.name, address if self._port == 22 else f"[{address}]:{self._port}"}
        files = [path for path in map(Path, self.host.data.get("known_hosts") or ()) if path.exists()]
        return [key for path in files or [Path("~/.ssh/known_hosts").expanduser()] for key in _known_keys(path, names)]

    def check_host_key(self, key: PKey) -> None:
        """Raise SSHException, before anything is sent, if `key` is not one that this host may show.

        It may be the repository's, which a deployment gives the host, or one in the file that the inventory names; or
        the owner's word for this run, ``--data first_contact=HOST=SHA256:...``, has its fingerprint.
        """
        name = self.host.name
        word = f"{name}={key.fingerprint}"
        known = self._host_keys()
        if key in known or word in str(self.host.data.get("first_contact", "")).split(","):
            return
        right = " or ".join(dict.fromkeys(each.fingerprint for each in known)) or "not known"
        raise SSHException(
            f"{name} shows the host key {key.fingerprint}, its own is {right}; nothing was sent. A new system is let "
            f"in by --data first_contact={word}, if ssh-keygen -lf /etc/ssh/{SSH_HOST_KEY.name} on its console agrees"
        )

    def connect(self) -> None:
        """Do nothing: the connection is made by `reach` at the first command."""

    def reach(self) -> Presence:
        """Connect once and say whether the host is there.

        *Away* means only: declared as sometimes absent, and no TCP connection. A refused login or a wrong host
        key is always a failure. The answer is kept for the run; the reason is in the host's `Outcome`.
        """
        with self._lock:
            if self._presence is None:
                record = record_of(self.host.name)
                self._presence, record.reason = self._try()
                record.presence = self._presence
            return self._presence

    def reconnect(self, seconds: int) -> bool:
        """Drop the connection and try to make a new one, new TCP and new login, for `seconds`.

        Returns True if it was made. For hosts that restart and for changes that may lock us out (DESIGN D3).
        """
        until = time.monotonic() + seconds
        with self._lock:
            self.close()
            # A daemon that reads its files again refuses connections for a moment.
            while not self._connected():
                if time.monotonic() >= until:
                    return False
                gevent.sleep(RETRY_SECONDS)
            self._after_login()
            self._presence = Presence.REACHED
            return True

    def _connected(self) -> bool:
        try:
            self._probe(PROBE_SECONDS)
            super().connect()
        except (OSError, EOFError, SSHException, ConnectError):
            self.close()
            return False
        return True

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self.client is not None:
            self.client.close()
            self.client = None

    def disconnect(self) -> None:
        """Close the connection at the end of a run."""
        super().disconnect()
        self.close()

    def host_key(self) -> str | None:
        """Return the verified public host key of the connection, as `TYPE BASE64`, or None without one."""
        transport = self.client.get_transport() if self.client is not None else None
        if transport is None:
            return None
        key = transport.get_remote_server_key()
        return f"{key.get_name()} {key.get_base64()}"

    def as_far_as_the_code(self, login: PersonLogin, key: PKey, until: float) -> str:
        """Return why a person does not get as far as the question for a code, or further without it; "" if all is well.

        Arguments: `key`, one of the person's; `until`, of the monotonic clock, for as long as no port answers with a
        host key that `check_host_key` accepts.
        """
        while True:
            said = []
            for port in login.ports:
                try:
                    wrong = self._second_factor(login.user, port, key)
                except (OSError, EOFError, SSHException) as error:
                    said.append(f"port {port}: {error}")
                    continue
                return wrong and f"{login.user} at port {port}: {wrong}"
            if time.monotonic() >= until:
                return f"{login.user} cannot come in: {', '.join(said)}"
            gevent.sleep(RETRY_SECONDS)

    def _second_factor(self, user: str, port: int, key: PKey) -> str:
        """Return what is wrong with the way in of `user` at `port`; OSError or SSHException where nobody answers."""
        address = str(self.data["ssh_hostname"] or self.host.name)
        with contextlib.closing(Transport(socket.create_connection((address, port), PROBE_SECONDS))) as transport:
            transport.start_client(timeout=PROBE_SECONDS)
            self.check_host_key(transport.get_remote_server_key())
            try:
                left = transport.auth_publickey(user, key)
            except AuthenticationException as error:
                return f"the key is refused: {error}"
        if not left:
            return "a key is enough to be let in, without a code"
        return "" if left == ["keyboard-interactive"] else f"what is asked after the key is {', '.join(left)}, no code"

    def run_shell_command(self, command: StringCommand, *args: Any, **kwargs: Any) -> Any:
        """Run a command over the connection, making it first if need be; a dead one is an OSError.

        What only reads (`read`, `ask`) is asked once more over a new connection if the first one is lost meanwhile.
        """
        if self.reach() is not Presence.REACHED:
            raise OSError(record_of(self.host.name).reason)
        client = self.client
        try:
            return self._run_once(command, *args, **kwargs)
        except OSError as error:
            if not (_READS.get() and self._made_again(client)):
                raise
            record_of(self.host.name).note(f"{error}; asked again over a new one")
            return self._run_once(command, *args, **kwargs)

    def _made_again(self, lost: Any) -> bool:
        """Return True if there is another connection than `lost`, made here or by who shares this connector."""
        with self._lock:
            if self.client is lost:
                return self.reconnect(PROBE_SECONDS)
            return self.client is not None

    def _run_once(self, command: StringCommand, *args: Any, **kwargs: Any) -> Any:
        if self.client is None:
            raise OSError("the connection was lost")
        record_of(self.host.name).execs += 1
        try:
            done = super().run_shell_command(command, *args, **kwargs)
        except (EOFError, AttributeError) as error:
            raise OSError(f"the connection was lost: {error}") from error
        # A connection that dies while a command runs looks to paramiko like a command that failed without a word.
        transport = self.client.get_transport() if self.client is not None else None
        if not done[0] and (transport is None or not transport.is_active()):
            cause = transport.get_exception() if transport is not None else None
            raise OSError("the connection was lost while a command ran" + (f": {cause!r}" if cause else ""))
        return done

    def _probe(self, seconds: float) -> None:
        """Find the port that takes TCP connections: the inventory's, or the one of a freshly installed system."""
        address = str(self.data["ssh_hostname"] or self.host.name)
        wanted = int(self.data["ssh_port"] or 22)
        first = self.host.data.get("first_port")
        try:
            _connect(address, wanted, seconds)
            self._port = wanted
        except OSError:
            if not first or int(first) == wanted:
                raise
            # What it says of the port that should be open is what the owner has to know, not what 22 says.
            with contextlib.suppress(OSError):
                _connect(address, int(first), seconds)
                self._port = int(first)
                return
            raise

    def _try(self) -> tuple[Presence, str]:
        sometimes = self.host.data.get("presence") == "sometimes"
        try:
            self._probe(PROBE_SECONDS)
        except OSError as error:
            where = f"{self.data['ssh_hostname']}:{self.data['ssh_port']}"
            reason = f"no TCP connection to {where}: {error}"
            return (Presence.AWAY if sometimes else Presence.FAILED), reason
        try:
            super().connect()
        except (ConnectError, EOFError, OSError, SSHException) as error:
            return Presence.FAILED, str(error)
        self._after_login()
        return Presence.REACHED, ""

    def _after_login(self) -> None:
        transport = self.client.get_transport() if self.client is not None else None
        if transport is not None:
            transport.set_keepalive(KEEPALIVE_SECONDS)


def _known_keys(path: Path, names: Collection[str]) -> list[PKey]:
    """Return the keys that a file of known_hosts, which may not be there, has for one of `names`, in its order.

    Source: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT. Lines with a marker or a pattern count for nobody.
    """
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in (text.strip() for text in lines):
        with contextlib.suppress(SSHException, InvalidHostKey):
            entry = HostKeyEntry.from_line(line)
            if entry is not None and entry.key is not None and any(_is_named(one, names) for one in entry.hostnames):
                found.append(entry.key)
    return found


def _is_named(entry: str, names: Collection[str]) -> bool:
    return entry in names or (
        entry.startswith("|1|") and any(HostKeys.hash_host(name, entry) == entry for name in names)
    )


def _connect(address: str, port: int, seconds: float) -> None:
    with socket.create_connection((address, port), timeout=seconds):
        pass


def never_show(values: Iterable[SecretStr]) -> None:
    """Mask `values`, the secrets of this run, in every line and report of every host (DESIGN O5)."""
    _SECRETS.update(values)


def remark(text: str) -> None:
    """Have the run end with a line that is about no host in particular; the same one only once."""
    _REMARKS.setdefault(text)


def record_of(name: str) -> Outcome:
    """Return the record of the host called `name`, made at the first call; at exit all are written down."""
    if not _OUTCOMES:
        atexit.register(_close)
    return _OUTCOMES.setdefault(name, Outcome(name))


def outcome(host: Host) -> Outcome:
    """Return the record of `host` for this phase: what is only planned does not mix with what is done."""
    done = record_of(host.name)
    state = host.state
    if state is not None and not state.is_executing:
        return _PLANNED.setdefault(host.name, Outcome())
    _EXECUTED.add(host.name)
    return done


def reach(host: Host) -> Presence:
    """Ask once in a run whether `host` is there; see `FleetConnector.reach`."""
    return cast(FleetConnector, host.connector).reach()


def run(host: Host, command: str, stdin: str | None = None, timeout: int | None = None) -> Result | None:
    """Run `command`, POSIX sh, on `host` with its usual privileges; nothing of it is printed.

    Arguments: `stdin`, text for its standard input; `timeout` in seconds, after which the connection counts as
    lost (the remote process is not killed). Returns None if the connection was lost.
    """
    arguments: dict[str, Any] = {key: host.data.get(key) for key in ("_doas", "_sudo") if host.data.get(key)}
    if stdin is not None:
        arguments["_stdin"] = stdin.removesuffix("\n")
    if timeout is not None:
        arguments["_timeout"] = timeout
    try:
        ok, output = host.connector.run_shell_command(StringCommand(command), **arguments)
    except (OSError, SSHException, EOFError) as error:
        outcome(host).fail("connection", str(error) or type(error).__name__)
        return None
    return Result(ok, tuple(output.stdout_lines), tuple(output.stderr_lines))


def recall(host: Host, fact: type[FactBase[T]], **kwargs: Any) -> T:
    """Return a fact of `host`, fetched again only if this run changed or failed anything on it since.

    pyinfra has no cache of facts (reference 0.2); this one holds what several operations of one run ask for, and
    forgets it at the first change.
    """
    record = outcome(host)
    stamp = (record.changes, len(record.failed))
    kept = host.connector_data.setdefault("recalled", {})
    key = (record is _PLANNED.get(host.name), fact, repr(sorted(kwargs.items())))
    if key not in kept or kept[key][0] != stamp or kept[key][1] is None:
        kept[key] = (stamp, read(host, fact, **kwargs))
    return cast(T, kept[key][1])


def read(host: Host, fact: type[FactBase[T]], **kwargs: Any) -> T:
    """Return a fact of `host`; a connection that is lost meanwhile is made again, once: a question changes nothing."""
    with _reading():
        return host.get_fact(fact, **kwargs)


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    token = _READS.set(True)
    try:
        yield
    finally:
        _READS.reset(token)


def ask(name: str, fact: FactBase[Any], *args: Any, **kwargs: Any) -> Any:
    """Return `fact` of another host of the inventory, or None where that could not be known.

    The other host is never failed for being asked: it may be away, refuse the login or answer nonsense.
    """
    other = inventory.get_host(name)
    if other is None or reach(other) is not Presence.REACHED:
        return None
    command = fact.command(*args, **kwargs)
    text = command if isinstance(command, str) else command.get_raw_value()
    arguments: dict[str, Any] = {key: other.data.get(key) for key in ("_doas", "_sudo") if other.data.get(key)}
    try:
        with _reading():
            ok, output = other.connector.run_shell_command(StringCommand(text), **arguments)
        lines = output.stdout_lines
        return fact.process(lines) if ok and lines else None
    except (OSError, SSHException, EOFError, FactProcessError):
        return None


def confirm(host: Host, command: str, seconds: int, people: Sequence[PersonLogin] = ()) -> Result | None:
    """Run `command` over a *new* TCP connection and login, the proof that DESIGN D3 asks for.

    Each of `people` whose key is at hand (`keys_at_hand`) has to get as far as the question for a code before; if one
    does not, the command is not run, and the result says why. The old connection is kept unless the new one works.
    Returns None if no new login was possible within `seconds`.
    """
    state = host.state
    assert state is not None
    until = time.monotonic() + seconds
    fresh = FleetConnector(state, host)
    if not fresh.reconnect(seconds):
        return None
    old = cast(FleetConnector, host.connector)
    host.connector = fresh
    old.close()
    for login, key in keys_at_hand(host, people):
        wrong = fresh.as_far_as_the_code(login, key, until)
        if wrong:
            return Result(False, (), (wrong,))
    return run(host, command, timeout=ANSWER_SECONDS)


def keys_at_hand(host: Host, people: Sequence[PersonLogin]) -> list[tuple[PersonLogin, PKey]]:
    """Return those of `people` whose private key is here, each with it: in the SSH agent, or where the inventory says.

    Raises SSHException or OSError for a file of the inventory's that is no private key.
    """
    keys: list[PKey] = list(Agent().get_keys())
    named = host.data.get("person_key")
    if named is not None and Path(named).exists():
        keys.append(PKey.from_path(named))
    found = []
    for login in people:
        wanted = {line.split()[1] for line in login.public_keys}
        key = next((each for each in keys if each.get_base64() in wanted), None)
        if key is not None:
            found.append((login, key))
    return found


def host_key(host: Host) -> str | None:
    """Return the verified public host key of `host`'s connection as `TYPE BASE64`, or None."""
    return cast(FleetConnector, host.connector).host_key()


def report() -> dict[str, Any]:
    """Return what is known of every host that this run concerned, as the wrapper reads it."""
    hosts: dict[str, Any] = {}
    for name, record in sorted(_OUTCOMES.items()):
        if record.concerned:
            shown = record if name in _EXECUTED else _merge(record, _PLANNED.get(name))
            hosts[name] = {**asdict(shown), "changes": shown.changes, "executed": name in _EXECUTED}
    return {"hosts": hosts}


def _merge(record: Outcome, planned: Outcome | None) -> Outcome:
    if planned is not None:
        record.failed = {**planned.failed, **record.failed}
        record.notes = [*record.notes, *(note for note in planned.notes if note not in record.notes)]
    return record


def closing_lines() -> list[str]:
    """Return the lines that end a run: one a host, red first, then what to know of it; at last what is remarked."""
    red, rest = [], []
    for name, facts in report()["hosts"].items():
        if facts["presence"] == Presence.AWAY:
            rest.append(f"{name}: away")
            continue
        lines = [f"    {note}" for note in facts["notes"]]
        if facts["presence"] == Presence.FAILED:
            red.append(f"{name}: FAILED: {facts['reason']}; nothing was touched")
        elif facts["failed"]:
            red.append(f"{name}: FAILED: " + "; ".join(f"{what}: {why}" for what, why in facts["failed"].items()))
            red.extend(lines)
        else:
            made = "; ".join(f"{what}: {', '.join(done)}" for what, done in facts["changed"].items())
            count = facts["changes"]
            said = f"{count} change{'' if count == 1 else 's'}" if facts["executed"] else "nothing was executed"
            rest.append(f"{name}: {said}" + (f": {made}" if made else ""))
            rest.extend(lines)
    return [*red, *rest, *_REMARKS]


def _close() -> None:
    """Print the closing lines and write the report, whatever way pyinfra ends."""
    lines = closing_lines()
    if lines:
        sys.stderr.write("\n--> Homefleet:\n" + "".join(f"    {line}\n" for line in lines))
    path = os.environ.get(REPORT_VARIABLE)
    if path:
        target = Path(path)
        temporary = target.with_suffix(".part")
        temporary.write_text(json.dumps(report(), indent=1))
        temporary.replace(target)
