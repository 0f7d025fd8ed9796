"""The key by which a host is known: at the first contact, afterwards, and while it changes (DESIGN I2)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from fleet.cli.secrets import secrets
from fleet.load import load
from fleet.model.secret import SSH_HOST_KEY
from fleet.secrets import hostkeys
from fleet.secrets.store import Store
from tests.lab.conftest import INDEX
from tests.lab.lab import Lab, lab_directory
from tests.lab.pair import Pair

# Beside the labs of the machines and of the other stand-ins.
KEYS = INDEX + 62
HOSTS = ("db1", "ns3")
LIMIT = ("--limit", "db1", "--limit", "ns3")
LOGINS = "grep -c 'Accepted publickey' /var/log/authlog || :"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two systems that were just installed; the known_hosts of the lab has a wrong key for ns3."""
    lab = Lab(KEYS, lab_directory(KEYS), machines=())
    lab.down(wipe=True)
    lab.up(HOSTS, machines=False)
    wrong = hostkeys.public_half(hostkeys.make())
    lines = [line.split(" ") for line in lab.known_hosts.read_text().splitlines()]
    right = {names: f"{kind} {key}" for names, kind, key in lines}
    ours = {names for names, key in right.items() if key == right["ns3"]}
    lab.known_hosts.write_text("".join(f"{names} {wrong if names in ours else key}\n" for names, key in right.items()))
    pair = Pair(lab, tmp_path_factory.mktemp("keys"))
    yield pair
    asked = lab.stand_ins.unmodelled()
    lab.down()
    assert asked == {}


def root(pair: Pair, name: str, command: str) -> str:
    """Run a command as the stand-in's root, past its sshd, and return what it printed."""
    argv = pair.lab.stand_ins.hosts[name].enter(["/bin/ksh", "-c", command])
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout


def shown_by(pair: Pair, name: str) -> str:
    """Return the fingerprint that ssh-keygen(1) tells the owner on the console of a host."""
    return root(pair, name, f"ssh-keygen -lf /etc/ssh/{SSH_HOST_KEY.name}").split()[1]


def store(pair: Pair) -> Store:
    fleet, _ = load(str(pair.inventory()))
    return Store(fleet, lambda site: site.secrets)


def ours(pair: Pair, name: str) -> str:
    """Return the fingerprint of the key that the repository has for a host."""
    kept = store(pair)
    public = kept.public_key(kept.fleet.host(name))
    assert public is not None
    return hostkeys.fingerprint(public)


def test_a_wrong_key_at_the_first_contact_stops_that_host_only(fresh: Pair) -> None:
    run = fresh.deploy(*LIMIT, role="site")
    assert run.code != 0
    assert run.changes("db1") > 10 and not run.failed("db1"), run.output
    assert run.changes("ns3") == 0
    reason = run.report["hosts"]["ns3"]["reason"]
    assert f"ns3 shows the host key {shown_by(fresh, 'ns3')}, its own is SHA256:" in reason
    assert ours(fresh, "ns3") in reason
    assert run.output.count("shows the host key") == 1, run.output
    assert "REMOTE HOST" not in run.output
    assert root(fresh, "ns3", LOGINS).strip() == "0"


def test_the_owner_s_word_is_for_one_host_and_one_key(fresh: Pair) -> None:
    key = shown_by(fresh, "ns3")
    for word in (f"db1={key}", f"ns3={ours(fresh, 'ns3')}", "ns3=", key):
        run = fresh.deploy("--limit", "ns3", "--data", f"first_contact={word}", role="site")
        assert run.code != 0 and "shows the host key" in run.output, word
    assert root(fresh, "ns3", LOGINS).strip() == "0"


def test_after_the_first_contact_the_repository_s_key_counts(fresh: Pair) -> None:
    first = fresh.deploy("--limit", "ns3", "--data", f"first_contact=ns3={shown_by(fresh, 'ns3')}", role="site")
    assert first.code == 0, first.output
    assert shown_by(fresh, "ns3") == ours(fresh, "ns3")
    second = fresh.deploy(*LIMIT, role="site")
    assert second.code == 0, second.output
    assert [second.changes(name) for name in HOSTS] == [0, 0]
    # OpenSSH knows it the same way.
    assert fresh.lab.ssh("ns3", "uname -s").strip() == "OpenBSD"
    verified = fresh.verify("--limit", "ns3")
    assert verified.returncode == 0, verified.stdout


def test_a_new_key_is_given_to_a_host_that_the_owner_still_knows_by_its_old_one(fresh: Pair) -> None:
    old = shown_by(fresh, "ns3")
    kept = store(fresh)
    assert CliRunner().invoke(secrets, ["hostkey", "make", "ns3", "--replace"], obj=kept).exit_code == 0
    new = ours(fresh, "ns3")
    refused = fresh.deploy("--limit", "ns3", role="site")
    assert refused.code != 0 and old in refused.output and new in refused.output
    changed = fresh.deploy("--limit", "ns3", "--data", f"first_contact=ns3={old}", role="site")
    assert changed.code == 0, changed.output
    assert "confirmed by a new login" in changed.output
    assert shown_by(fresh, "ns3") == new
    again = fresh.deploy("--limit", "ns3", role="site")
    assert again.code == 0 and again.changes("ns3") == 0, again.output
