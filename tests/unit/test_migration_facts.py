"""What of a migration path is on a host: the parser, on output recorded in the lab."""

from pathlib import Path

import pytest
from pyinfra.api.exceptions import FactProcessError

from facts.linux import migration
from facts.linux.migration import Accepted, Ends, MigrationPath, MigrationState, parse

RECORDED = Path(__file__).parent / "recorded"
ENDS = Ends("kvm1", "192.168.1.11", "kvm2", "192.168.1.12")


def read(name: str) -> MigrationState:
    state = MigrationPath().process((RECORDED / f"migration-{name}.txt").read_text().splitlines())
    assert state is not None
    return state


def test_the_source_of_an_open_path() -> None:
    state = read("source-open")
    assert (state.role, state.ends, state.left, state.closer) == ("source", ENDS, 279, True)
    assert state.key is not None
    assert state.key.startswith("ssh-ed25519 AAAA")
    assert "move" not in state.key
    assert len(state.known_hosts) == 1
    assert state.known_hosts[0].startswith("[192.168.1.12]:2022 ssh-ed25519 ")
    assert (state.accepted, state.firewall, state.processes) == ((), {}, 0)
    assert not state.at_rest


def test_the_peer_of_an_open_path() -> None:
    state, source = read("peer-open"), read("source-open")
    assert (state.role, state.ends, state.left, state.closer) == ("peer", ENDS, 167, True)
    assert state.accepted == (Accepted("192.168.1.11", "20261123155203", source.key or ""),)
    assert state.firewall == {"192.168.1.11": 167}
    # A login that asked for nothing: sshd, and what systemd starts for whoever logs in.
    assert (state.processes, state.streams) == (3, 0)


def test_a_host_at_rest_has_an_empty_set_and_nothing_else() -> None:
    state = read("rest")
    assert state == MigrationState(firewall={})
    assert state.at_rest


def test_without_the_last_line_the_state_is_unknown() -> None:
    lines = (RECORDED / "migration-peer-open.txt").read_text().splitlines()
    assert MigrationPath().process(lines[:-1]) is None
    assert MigrationPath().process([]) is None
    assert MigrationPath.default() is None


@pytest.mark.parametrize(
    "line",
    [
        "path peer kvm1 192.168.1.11 kvm2 192.168.1.12",
        "path both kvm1 192.168.1.11 kvm2 192.168.1.12 17",
        "path peer kvm1 192.168.1.11 kvm2 192.168.1.12 soon",
        "streams many",
        "set {}",
        "set not-json",
        "what is this",
        "unit",
        "uptime x",
    ],
)
def test_a_bad_line_is_named(line: str) -> None:
    with pytest.raises(FactProcessError, match="not understood"):
        parse(["uptime 5", line])


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("key ", "key", ""),
        ("accepts ssh-ed25519 AAAA me@home", "accepted", (Accepted("anywhere", "never", "ssh-ed25519 AAAA"),)),
        ("accepts # nothing", "accepted", (Accepted("anywhere", "never", ""),)),
        ("streams 2", "streams", 2),
        ("left /run/homefleet/migration.keys.new", "files", ("/run/homefleet/migration.keys.new",)),
        ("process virt-ssh-helper", "processes", 1),
        ("unit homefleet-migration-close.service loaded activating start Close", "closer", True),
        ("unit homefleet-migration-close.service loaded inactive dead Close", "closer", False),
    ],
)
def test_one_line(line: str, field: str, value: object) -> None:
    assert getattr(parse(["uptime 5", line]), field) == value


def test_an_element_without_a_time_out_stays_for_ever() -> None:
    line = 'set {"nftables": [{"set": {"name": "migration_peers", "elem": ["192.0.2.1"]}}]}'
    state = parse(["uptime 5", line])
    assert state.firewall == {"192.0.2.1": -1}
    assert not state.at_rest


def test_the_private_key_is_never_read() -> None:
    assert migration.KEY + ".pub" in migration.COMMAND
    assert f"cat {migration.KEY} " not in migration.COMMAND
