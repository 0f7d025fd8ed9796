"""A dangerous set is confirmed by the deployment's new login and by a person who gets as far as the code."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import paramiko  # noqa: TID251 - plays the other side
import pytest
from paramiko import PKey  # noqa: TID251
from paramiko.common import AUTH_FAILED, AUTH_PARTIALLY_SUCCESSFUL, AUTH_SUCCESSFUL  # noqa: TID251
from pyinfra.context import ctx_host

from facts.filesets import SetState
from fleet import connector
from fleet.connector import FleetConnector, Outcome, Result, keys_at_hand
from fleet.model.service import File, FileSet, PersonLogin
from operations import filesets as operation
from operations.filesets import filesets
from operations.swap import UNDO_SECONDS
from tests.lab.host import run

WAYS = {
    "the code is asked for": (AUTH_PARTIALLY_SUCCESSFUL, "keyboard-interactive", ""),
    "the key alone lets in": (AUTH_SUCCESSFUL, "", "a key is enough to be let in, without a code"),
    "the key is refused": (AUTH_FAILED, "publickey", "the key is refused"),
    "a password is asked for": (AUTH_PARTIALLY_SUCCESSFUL, "password", "what is asked after the key is password"),
}


def made_key(path: Path) -> PKey:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path])
    return PKey.from_path(path)


class Server(paramiko.ServerInterface):
    """An sshd that answers a key as it is told."""

    def __init__(self, answer: int, next_methods: str) -> None:
        self.answer = answer
        self.next_methods = next_methods
        self.users: list[str] = []

    def check_auth_publickey(self, username: str, key: PKey) -> int:
        del key
        self.users.append(username)
        return self.answer

    def get_allowed_auths(self, username: str) -> str:
        del username
        return self.next_methods


@pytest.fixture
def serve() -> Iterator[Callable[[Server, PKey], int]]:
    """Starts servers, for one connection each; returns their port."""
    opened: list[Any] = []

    def start(server: Server, host_key: PKey) -> int:
        listener = socket.create_server(("127.0.0.1", 0))

        def answer() -> None:
            transport = paramiko.Transport(listener.accept()[0])
            opened.append(transport)
            transport.add_server_key(host_key)
            # A client that does not like the key goes away in the middle.
            with contextlib.suppress(paramiko.SSHException, EOFError):
                transport.start_server(server=server)

        threading.Thread(target=answer, daemon=True).start()
        opened.append(listener)
        return int(listener.getsockname()[1])

    yield start
    for each in opened:
        each.close()


def linked(host_key: PKey) -> FleetConnector:
    """Return a connector whose host may show `host_key`."""
    link = FleetConnector.__new__(FleetConnector)
    link.host = cast(Any, SimpleNamespace(name="ns3", data={"first_contact": f"ns3={host_key.fingerprint}"}))
    link.data = cast(Any, {"ssh_hostname": "127.0.0.1", "ssh_port": 2247})
    link._port = 2247
    return link


@pytest.mark.parametrize("way", WAYS)
def test_a_person_gets_as_far_as_the_code_and_no_further(
    way: str, serve: Callable[[Server, PKey], int], tmp_path: Path
) -> None:
    answer, methods, wrong = WAYS[way]
    ours, person = made_key(tmp_path / "host"), made_key(tmp_path / "person")
    server = Server(answer, methods)
    port = serve(server, ours)
    login = PersonLogin(user="owner", ports=(port,), public_keys=("x",))
    said = linked(ours).as_far_as_the_code(login, person, time.monotonic())
    assert said.startswith(f"owner at port {port}: {wrong}") if wrong else said == ""
    assert set(server.users) == {"owner"}


def test_a_host_that_shows_another_key_gets_no_signature(serve: Callable[[Server, PKey], int], tmp_path: Path) -> None:
    server = Server(AUTH_PARTIALLY_SUCCESSFUL, "keyboard-interactive")
    port = serve(server, made_key(tmp_path / "strange"))
    login = PersonLogin(user="owner", ports=(port,), public_keys=("x",))
    said = linked(made_key(tmp_path / "host")).as_far_as_the_code(login, made_key(tmp_path / "person"), 0)
    assert "ns3 shows the host key" in said and server.users == []


def test_one_open_port_is_enough_and_none_is_said_with_all(
    serve: Callable[[Server, PKey], int], tmp_path: Path
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        shut = int(listener.getsockname()[1])
    ours, person = made_key(tmp_path / "host"), made_key(tmp_path / "person")
    port = serve(Server(AUTH_PARTIALLY_SUCCESSFUL, "keyboard-interactive"), ours)
    login = PersonLogin(user="owner", ports=(shut, port), public_keys=("x",))
    assert linked(ours).as_far_as_the_code(login, person, time.monotonic()) == ""
    closed = login.model_copy(update={"ports": (shut,)})
    said = linked(ours).as_far_as_the_code(closed, person, time.monotonic() + 1)
    assert said.startswith(f"owner cannot come in: port {shut}: ")


def test_a_key_is_at_hand_in_the_agent_or_where_the_inventory_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = made_key(tmp_path / "mine"), made_key(tmp_path / "other")
    login = PersonLogin(user="owner", ports=(2022,), public_keys=(f"ssh-ed25519 {mine.get_base64()} owner",))
    somebody = PersonLogin(user="anna", ports=(2022,), public_keys=("ssh-ed25519 AAAA anna",))
    host = cast(Any, SimpleNamespace(data={}))
    for held, expected in ([], []), ([other], []), ([other, mine], ["owner"]):
        monkeypatch.setattr(connector, "Agent", lambda held=held: SimpleNamespace(get_keys=lambda: tuple(held)))
        assert [each.user for each, _ in keys_at_hand(host, (somebody, login))] == expected
    monkeypatch.setattr(connector, "Agent", lambda: SimpleNamespace(get_keys=tuple))
    host.data["person_key"] = str(tmp_path / "mine")
    assert [each.user for each, _ in keys_at_hand(host, (somebody, login))] == ["owner"]
    host.data["person_key"] = str(tmp_path / "nothing")
    assert keys_at_hand(host, (login,)) == []


PEOPLE = (PersonLogin(user="owner", ports=(2022,), public_keys=("ssh-ed25519 AAAA owner",)),)


def _set(name: str, **fields: Any) -> FileSet:
    return FileSet(name=name, files=(File(path=f"/etc/{name}", text="x\n"),), **fields)


class Told:
    """A host that keeps what it is told; `results` says how the scripts and the confirmation of a set end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, confirmed: Result | None, keys: bool = True) -> None:
        self.record = Outcome("ns3")
        self.scripts: list[tuple[str, int]] = []
        self.silent: set[str] = set()
        self.confirmed = confirmed
        self.tried: list[tuple[PersonLogin, ...]] = []
        self.waited: list[str] = []
        host = SimpleNamespace(name="ns3", data={}, state=None, noop=lambda _: None)
        monkeypatch.setattr(operation, "outcome", lambda _: self.record)
        monkeypatch.setattr(operation, "read", lambda *_, sets, **__: {it.name: SetState() for it in sets})
        monkeypatch.setattr(operation, "run", self._run)
        monkeypatch.setattr(operation, "confirm", self._confirm)
        monkeypatch.setattr(operation, "keys_at_hand", lambda _, people: [(it, None) for it in people if keys])
        self.host = cast(Any, host)

    def _run(self, _: Any, command: str, stdin: str, timeout: int) -> Result | None:
        assert command == "sh -s"
        name = stdin.partition(" name=")[2].split(maxsplit=1)[0]
        self.scripts.append((name, timeout))
        if name in self.silent:
            self.record.fail("connection", "timed out")
            return None
        return Result(True, (), ())

    def _confirm(self, _: Any, command: str, seconds: int, people: tuple[PersonLogin, ...] = ()) -> Result | None:
        assert seconds < UNDO_SECONDS
        if "rollback confirm" not in command:
            assert not self.tried, "the end of the script is waited for before the login that counts"
            self.waited.append(command)
            return self.confirmed
        self.tried.append(people)
        return self.confirmed

    def bring(self, *sets: FileSet) -> list[bool]:
        """Bring sets about, and return what the commands gave back to pyinfra."""
        with ctx_host.use(self.host):
            commands = list(filesets._inner(sets=sets, openbsd=True))
        return [cast(Any, it).function(None, self.host) for it in commands]


OK = Result(True, (), ())


def test_a_set_that_is_confirmed_on_both_ways_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, OK)
    assert told.bring(_set("sshd", dangerous=True, confirm_logins=PEOPLE)) == [True]
    assert told.tried == [PEOPLE] and told.waited == [] and told.record.failed == {}
    assert told.record.changed == {"sshd": ["sshd; confirmed by a new login"]}


def test_what_shuts_people_out_fails_by_name_and_what_leans_on_it_is_not_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Told(monkeypatch, Result(False, (), ("owner at port 2022: the key is refused",)))
    told.bring(_set("sshd", dangerous=True, confirm_logins=PEOPLE), _set("web"), _set("pf", dangerous=True))
    assert [name for name, _ in told.scripts] == ["web", "sshd"]
    assert told.record.failed["sshd"] == (
        "not confirmed, ns3 puts the old state back within a minute: owner at port 2022: the key is refused"
    )
    assert told.record.failed["pf"].startswith("not touched") and set(told.record.changed) == {"web"}


def test_without_a_persons_key_nothing_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, OK, keys=False)
    told.bring(_set("sshd", dangerous=True, confirm_logins=PEOPLE), _set("pf", dangerous=True), _set("web"))
    assert [name for name, _ in told.scripts] == ["web"]
    assert "ssh-add" in told.record.failed["sshd"] and "not touched" in told.record.failed["pf"]


def test_a_site_without_people_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, OK, keys=False)
    told.bring(_set("sshd", dangerous=True))
    assert told.tried == [()] and set(told.record.changed) == {"sshd"}


def test_a_silent_script_is_confirmed_while_its_undo_still_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, OK)
    told.silent = {"pf"}
    assert told.bring(_set("pf", dangerous=True), _set("web")) == [True, True]
    seconds = dict(told.scripts)
    assert seconds["pf"] < UNDO_SECONDS < seconds["web"]
    (waited,) = told.waited
    assert "rollback confirm" not in waited and "/pending/pf" in waited
    assert told.record.failed == {} and set(told.record.changed) == {"pf", "web"}


@pytest.mark.parametrize(
    ("confirmed", "said", "reached"),
    [
        (None, "no new login was possible", False),
        (Result(False, (), ("it was undone already: the old files are back",)), "the old files are back", True),
    ],
)
def test_a_silent_script_that_was_undone_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, confirmed: Result | None, said: str, reached: bool
) -> None:
    told = Told(monkeypatch, confirmed)
    told.silent = {"pf"}
    assert told.bring(_set("pf", dangerous=True)) == [reached]
    assert said in told.record.failed["pf"] and told.record.changed == {}
