"""The connector without a network: what it does when a connection is lost."""

from __future__ import annotations

import json
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import SecretStr
from pyinfra.api import StringCommand
from pyinfra.api.host import Host

from fleet import connector
from fleet.connector import (
    FleetConnector,
    Outcome,
    Presence,
    closing_lines,
    never_show,
    read,
    record_of,
    report,
    run,
)
from fleet.load import host_data, load
from fleet.model.secret import MASK

ANSWER = SimpleNamespace(stdout_lines=["done"], stderr_lines=[])


class Fact:
    """Enough of a fact for `read`; its command is the test's."""


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host whose connection dies at its first command, and can be made again as often as `spares` says."""
    monkeypatch.setattr(connector, "_OUTCOMES", {"ns3": Outcome("ns3")})
    made = SimpleNamespace(name="ns3", data={}, state=None, connector_data={}, spares=1)
    link = FleetConnector.__new__(FleetConnector)
    link.host, link._lock, link._presence = cast(Any, made), cast(Any, nullcontext()), Presence.REACHED
    link.client = cast(Any, SimpleNamespace(get_transport=lambda: None, dead=True))
    made.connector = link

    def reconnect(_: int) -> bool:
        made.spares -= 1
        link.client = cast(Any, SimpleNamespace(get_transport=lambda: None, dead=False))
        return bool(made.spares >= 0)

    def execute(self: FleetConnector, _: StringCommand) -> Any:
        if cast(Any, self.client).dead:
            raise EOFError("gone")
        return True, ANSWER

    monkeypatch.setattr(link, "reconnect", reconnect)
    monkeypatch.setattr("fleet.connector.SSHConnector.run_shell_command", execute)
    made.get_fact = lambda _: link.run_shell_command(StringCommand("question"))[1].stdout_lines
    return cast(Host, made)


def test_a_question_is_asked_again_over_a_new_connection(host: Host) -> None:
    assert read(host, cast(Any, Fact)) == ["done"]
    assert record_of("ns3").notes == ["the connection was lost: gone; asked again over a new one"]
    assert record_of("ns3").execs == 2


def test_a_change_is_never_repeated(host: Host) -> None:
    assert run(host, "change") is None
    assert record_of("ns3").failed == {"connection": "the connection was lost: gone"}
    assert record_of("ns3").execs == 1


def test_a_question_to_a_host_that_is_gone_fails(host: Host) -> None:
    cast(Any, host).spares = 0
    with pytest.raises(OSError, match="gone"):
        read(host, cast(Any, Fact))


def _knocking(
    monkeypatch: pytest.MonkeyPatch, first: int | None, answers: set[int]
) -> tuple[FleetConnector, list[int]]:
    knocked: list[int] = []

    def connect(address: tuple[str, int], timeout: float) -> Any:
        assert timeout == 5
        knocked.append(address[1])
        if address[1] not in answers:
            raise ConnectionRefusedError(f"refused {address[1]}")
        return nullcontext()

    monkeypatch.setattr("socket.create_connection", connect)
    link = FleetConnector.__new__(FleetConnector)
    link.host = cast(Any, SimpleNamespace(name="ns3", data={"first_port": first} if first else {}))
    link.data = cast(Any, {"ssh_hostname": "192.0.2.53", "ssh_port": 2247})
    return link, knocked


@pytest.mark.parametrize(
    ("first", "answers", "port", "knocks"),
    [(None, {2247}, 2247, [2247]), (22, {22, 2247}, 2247, [2247]), (22, {22}, 22, [2247, 22])],
)
def test_a_fresh_system_is_found_where_its_installer_left_sshd(
    monkeypatch: pytest.MonkeyPatch, first: int | None, answers: set[int], port: int, knocks: list[int]
) -> None:
    link, knocked = _knocking(monkeypatch, first, answers)
    link._probe(5)
    assert (link._port, knocked) == (port, knocks)


@pytest.mark.parametrize("first", [None, 22])
def test_a_host_that_is_not_there_is_said_by_the_port_that_should_be_open(
    monkeypatch: pytest.MonkeyPatch, first: int | None
) -> None:
    link, _ = _knocking(monkeypatch, first, set())
    with pytest.raises(OSError, match="refused 2247"):
        link._probe(5)


def test_only_production_looks_for_a_fresh_system() -> None:
    """In the lab the relay does: port 22 of the computer itself may be anybody's."""
    production, _ = load("vultr")
    lab, _ = load("lab")
    found = [host_data(fleet.site_of(fleet.host("ns3")), fleet.host("ns3")) for fleet in (production, lab)]
    assert [data.get("first_port") for data in found] == [22, None]


def test_no_line_or_report_has_a_secret_of_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(connector, "_SECRETS", set())
    monkeypatch.setattr(connector, "_OUTCOMES", {})
    never_show([SecretStr("a canary sings in here")])
    record = record_of("ns3")
    record.concerned = True
    record.fail("nsd", "line 3: 'a canary sings in here'")
    record.change("unbound", "given 'canary sings'")
    record.note("it said: sings in here")
    said = capsys.readouterr().err + json.dumps(report()) + "".join(closing_lines())
    assert "sings" not in said
    assert f"nsd: FAILED: line 3: '{MASK}'" in said and f"given '{MASK}'" in said and MASK in record.notes[0]
