"""The migration path between the twins, for real: what it lets through, what it does not, and that it closes."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from facts.linux.domain import PORTS
from facts.linux.migration import ACCOUNT, COMMAND, DONE, FOLDER, KEY, KEYS, KNOWN_HOSTS, MigrationState, parse
from fleet.load import ROOT, load
from operations.linux.migration import between
from tests.lab.host import LabError
from tests.lab.pair import Pair

SOURCE, PEER = "kvm1", "kvm2"
SOURCE_ADDRESS, PEER_ADDRESS = "192.168.1.11", "192.168.1.12"
STRANGER = "192.168.1.77"
LOGIN = f"{ACCOUNT}@{PEER_ADDRESS}"
MOVE = between(load("home")[0], SOURCE, PEER, 30)

SSH = (
    "ssh -F none -o BatchMode=yes -o ConnectTimeout=10 -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes "
    f"-o UserKnownHostsFile={KNOWN_HOSTS} -o GlobalKnownHostsFile=none -o Port={MOVE.port} -i {KEY}"
)

ENDS_BY_ITSELF = 100
"""Seconds after which a path of one minute has to be closed, on a slow machine."""


class Twins:
    """Two deployed hypervisors: commands on them, and runs of the entry file against them."""

    def __init__(self, lab: Pair, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.inventory = folder / "twins.py"
        self.inventory.write_text(
            textwrap.dedent(f"""\
                from fleet.load import publish
                from fleet.model.lab import in_the_lab
                from inventories import exoscale, home, vultr

                publish(globals(), *(in_the_lab(place.site, {lab.index}) for place in (home, exoscale, vultr)))
                """)
        )
        self.rest = folder / "rest.py"
        self.rest.write_text(
            textwrap.dedent("""\
                from pyinfra import host

                from fleet.connector import record_of
                from operations.linux.migration import migration_rest
                from operations.verdict import verdict

                record_of(host.name).concerned = True
                migration_rest(name="Rest")
                verdict(name="Verdict")
                """)
        )

    def sh(self, name: str, command: str) -> str:
        """Run a command on a twin; LabError if it fails."""
        return self.lab.ssh(name, command, deadline=90)

    def fails(self, name: str, command: str) -> str:
        """Run a command on a twin that has to fail; return what it said."""
        return self.sh(name, f"if ( {command} ) 2>&1; then echo UNEXPECTED-SUCCESS; fi")

    def state(self, name: str) -> MigrationState:
        lines = self.sh(name, COMMAND).splitlines()
        assert lines[-1] == DONE
        return parse(lines[:-1])

    def start(self, deploy: Path, *data: str) -> subprocess.Popen[str]:
        program = Path(sys.executable).with_name("pyinfra")
        words = [word for pair in data for word in ("--data", pair)]
        argv = [str(program), "-y", "--limit", SOURCE, "--limit", PEER, *words, str(self.inventory), str(deploy)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=pipe, text=True, start_new_session=True
        )

    def run(self, deploy: Path, *data: str) -> tuple[int, str]:
        """Run pyinfra to its end; return its exit code and the closing lines."""
        process = self.start(deploy, *data)
        _, said = process.communicate(timeout=180)
        return process.returncode, said.rpartition("--> Homefleet:")[2]

    def path(self, *data: str, source: str = SOURCE, peer: str = PEER) -> tuple[int, str]:
        return self.run(ROOT / "deploys" / "migration_path.py", f"source={source}", f"peer={peer}", *data)

    def opened(self, minutes: int = 30) -> str:
        """Open the path and return the URI that it says."""
        code, said = self.path(f"minutes={minutes}")
        assert code == 0, said
        found = re.search(r"qemu\+\S+", said)
        assert found, said
        return found.group()

    def at_rest(self, *names: str) -> bool:
        return all(self.state(name).at_rest for name in names or (SOURCE, PEER))

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(LabError):
                if condition():
                    return True
            time.sleep(2)
        return False

    def reaches(self, port: int, address: str = SOURCE_ADDRESS) -> bool:
        """Tell whether the source gets an answer, of any kind, from a port of the peer, calling from `address`."""
        call = f"socat -u OPEN:/dev/null TCP:{PEER_ADDRESS}:{port},bind={address},connect-timeout=4"
        said = self.sh(SOURCE, f"({call}) 2>&1; echo end $?")
        return said.endswith("end 0\n") or "refused" in said


@pytest.fixture(scope="module")
def twins(deployed_pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    pair = Twins(deployed_pair, tmp_path_factory.mktemp("twins"))
    pair.path("close=true", "force=true")
    yield pair
    pair.path("close=true", "force=true")


@pytest.fixture(scope="module")
def uri(twins: Twins) -> str:
    return twins.opened()


def test_the_peers_libvirt_answers_the_source(twins: Twins, uri: str) -> None:
    assert twins.sh(SOURCE, f"virsh -q -c '{uri}' hostname").strip() == PEER
    assert twins.state(PEER).closer
    assert twins.state(SOURCE).closer


def test_the_key_is_private_and_leaves_no_host(twins: Twins, uri: str) -> None:
    assert uri
    assert twins.sh(SOURCE, f"stat -c %a:%U {KEY} {KEY.rpartition('/')[0]}").split() == ["600:root", "700:root"]
    assert twins.fails(PEER, f"cat {KEY}").strip().endswith("No such file or directory")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (f"{SSH} {LOGIN} 'touch /tmp/was-here' </dev/null", "could not proxy traffic"),
        (f"{SSH} -tt {LOGIN} id </dev/null", "PTY allocation request failed"),
        (f"{SSH} -W 127.0.0.1:22 {LOGIN} </dev/null", "administratively prohibited"),
        (
            f"timeout 20 {SSH} -o ExitOnForwardFailure=yes -N -R 2999:127.0.0.1:22 {LOGIN} </dev/null",
            "remote port forwarding failed",
        ),
        (f"echo pwd | sftp -b - {SSH.removeprefix('ssh ')} {LOGIN}", "Connection closed"),
        (f"{SSH} root@{PEER_ADDRESS} id </dev/null", "Permission denied"),
    ],
    ids=["command", "terminal", "forwarding", "reverse forwarding", "sftp", "root"],
)
def test_the_key_opens_nothing_but_libvirt(twins: Twins, uri: str, what: str, said: str) -> None:
    assert uri
    answer = twins.fails(SOURCE, what)
    assert said in answer
    assert "uid=" not in answer
    assert "UNEXPECTED" not in answer
    assert twins.fails(PEER, "test -e /tmp/was-here") == ""


@pytest.mark.parametrize(
    "what",
    [
        f"echo x >>{KEYS}",
        f"mv -f {KEYS} {KEYS}.mine",
        f"rm -f {KEYS}",
        f": >{FOLDER}/mine",
        f"ls {FOLDER}",
        f"cat {KEY}",
    ],
    ids=["write", "rename", "remove", "new file", "list", "private key"],
)
def test_the_account_cannot_change_what_lets_it_in(twins: Twins, uri: str, what: str) -> None:
    assert uri
    said = twins.fails(PEER, f'runuser -u {ACCOUNT} -- sh -c "{what}"')
    assert "Permission denied" in said
    assert "UNEXPECTED" not in said
    assert twins.state(PEER).accepted


def test_a_key_in_the_home_of_the_account_opens_nothing(twins: Twins, uri: str) -> None:
    assert uri
    place = f"~{ACCOUNT}/.ssh"
    twins.sh(SOURCE, "rm -f /tmp/k /tmp/k.pub; ssh-keygen -q -t ed25519 -N '' -f /tmp/k")
    key = twins.sh(SOURCE, "cat /tmp/k.pub").strip()
    for name in ("authorized_keys", "authorized_keys2"):
        line = f"install -d -o {ACCOUNT} -m 700 {place}; echo '{key}' >{place}/{name}; chown {ACCOUNT} {place}/{name}"
        twins.sh(PEER, line)
    assert "Permission denied" in twins.fails(SOURCE, f"{SSH.replace(KEY, '/tmp/k')} {LOGIN} id </dev/null")
    twins.sh(PEER, f"rm -r {place}")
    twins.sh(SOURCE, "rm -f /tmp/k /tmp/k.pub")


def test_another_address_is_let_in_neither_by_sshd_nor_by_the_firewall(twins: Twins, uri: str) -> None:
    assert uri
    device = twins.sh(SOURCE, f"ip -o route get {PEER_ADDRESS} | sed 's/.* dev //; s/ .*//'").strip()
    twins.sh(SOURCE, f"ip address add {STRANGER}/24 dev {device}")
    try:
        answer = twins.fails(SOURCE, f"{SSH} -b {STRANGER} {LOGIN} id </dev/null")
        assert "Permission denied" in answer
        assert not twins.reaches(PORTS[0], STRANGER)
    finally:
        twins.sh(SOURCE, f"ip address del {STRANGER}/24 dev {device}")


def test_a_peer_with_another_host_key_is_not_believed(twins: Twins, uri: str) -> None:
    twins.sh(SOURCE, "rm -f /tmp/k /tmp/k.pub; ssh-keygen -q -t ed25519 -N '' -f /tmp/k")
    other = MOVE.known_host("$(cut -d' ' -f1,2 /tmp/k.pub)")
    twins.sh(SOURCE, f'echo "{other}" >/tmp/other_hosts')
    wrong = uri.replace(KNOWN_HOSTS, "/tmp/other_hosts")
    assert "HOST KEY VERIFICATION FAILED" in twins.fails(SOURCE, f"virsh -q -c '{wrong}' hostname")
    twins.sh(SOURCE, ": >/tmp/other_hosts")
    assert "was not accepted" in twins.fails(SOURCE, f"virsh -q -c '{wrong}' hostname </dev/null")
    twins.sh(SOURCE, "rm -f /tmp/k /tmp/k.pub /tmp/other_hosts")


def test_the_migration_ports_and_no_others_answer_the_source(twins: Twins, uri: str) -> None:
    assert uri
    assert [twins.reaches(port) for port in (PORTS[0] - 1, *PORTS, PORTS[1] + 1)] == [False, True, True, False]


def test_a_second_opening_changes_nothing(twins: Twins, uri: str) -> None:
    # Of a path whose time is nearly whole: the tests before took some of it.
    assert twins.opened() == uri
    code, said = twins.path("minutes=30")
    assert code == 0
    assert said.count(": 0 changes") == 2
    assert uri in said


def test_the_other_direction_is_refused_while_one_is_open(twins: Twins, uri: str) -> None:
    before = twins.state(PEER).accepted
    code, said = twins.path("minutes=5", source=PEER, peer=SOURCE)
    assert code != 0
    assert f"a path from {SOURCE} to {PEER} is open" in said
    assert twins.state(PEER).accepted == before
    assert twins.sh(SOURCE, f"virsh -q -c '{uri}' hostname").strip() == PEER


def test_opening_for_longer_extends_with_the_same_key(twins: Twins, uri: str) -> None:
    before = twins.state(PEER)
    assert twins.opened(60) == uri
    after = twins.state(PEER)
    assert (after.left or 0) > 3000
    assert after.firewall
    assert after.firewall[SOURCE_ADDRESS] > 3000
    assert after.accepted[0].key == before.accepted[0].key
    assert after.accepted[0].expires > before.accepted[0].expires


def test_at_rest_an_open_path_is_said_and_left_alone(twins: Twins, uri: str) -> None:
    code, said = twins.run(twins.rest)
    assert code == 0
    assert said.count(": 0 changes") == 2
    assert said.count(f"a migration path from {SOURCE} to {PEER} is open") == 2
    assert twins.sh(SOURCE, f"virsh -q -c '{uri}' hostname").strip() == PEER


def test_closing_closes_at_once(twins: Twins, uri: str) -> None:
    code, _ = twins.path("close=true")
    assert code == 0
    assert twins.at_rest()
    assert twins.fails(SOURCE, f"virsh -q -c '{uri}' hostname")
    assert not twins.reaches(PORTS[0])
    code, said = twins.path("close=true")
    assert code == 0
    assert said.count(": 0 changes") == 2


def test_what_somebody_left_behind_is_removed_without_being_asked(twins: Twins) -> None:
    twins.sh(PEER, f"mkdir -p -m 711 {FOLDER}; echo 'ssh-ed25519 AAAA stray' >{KEYS}")
    twins.sh(PEER, f"setsid runuser -u {ACCOUNT} -- sleep 3600 >/dev/null 2>&1 </dev/null &")
    twins.sh(PEER, "nft add element inet homefleet migration_peers '{ 192.0.2.1 timeout 1h }'")
    twins.sh(SOURCE, f"mkdir -p -m 700 {KEY.rpartition('/')[0]}; ssh-keygen -q -t ed25519 -N '' -f {KEY}")
    assert not twins.at_rest(SOURCE)
    assert not twins.at_rest(PEER)
    code, said = twins.run(twins.rest)
    assert code == 0
    assert said.count("removed what was left of one") == 2
    assert twins.at_rest()
    code, said = twins.run(twins.rest)
    assert code == 0
    assert said.count(": 0 changes") == 2


def test_a_path_whose_time_is_over_is_closed_by_the_hosts_and_ends_its_sessions(twins: Twins) -> None:
    uri = twins.opened(1)
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    print(f"seed {seed}")
    held, kept = "/tmp/held", "/tmp/kept"
    twins.sh(SOURCE, f"cp {KEY} {kept}")
    twins.sh(
        SOURCE,
        f"setsid sh -c \"sleep 600 | virsh -c '{uri}' >{held} 2>&1\" >/dev/null 2>&1 </dev/null &",
    )
    master = f"{SSH} -S /tmp/idle"
    twins.sh(SOURCE, f"setsid {master} -M -N {LOGIN} >/dev/null 2>&1 </dev/null & sleep 5; test -S /tmp/idle")
    for _ in range(3):
        process = twins.start(ROOT / "deploys" / "migration_path.py", f"source={SOURCE}", f"peer={PEER}", "minutes=1")
        time.sleep(chance.uniform(1, 10))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for name in (SOURCE, PEER):
            state = twins.state(name)
            assert state.at_rest or state.closer, (name, state)
    assert twins.wait(twins.at_rest, ENDS_BY_ITSELF)
    assert "Disconnected from qemu" in twins.sh(SOURCE, f"sleep 2; cat {held}")
    # A login that asked for nothing has ended as well, and a copy of the key is worth nothing.
    assert "No such file" in twins.fails(SOURCE, f"{master} -O check {LOGIN}")
    copied = SSH.replace(KEY, kept).replace("StrictHostKeyChecking=yes", "StrictHostKeyChecking=no")
    assert "Permission denied" in twins.fails(SOURCE, f"{copied} {LOGIN} id </dev/null")
    twins.sh(SOURCE, f"rm -f {held} {kept}")
    assert not twins.reaches(PORTS[0])


def test_a_restart_closes_the_path(twins: Twins) -> None:
    uri = twins.opened(30)
    twins.lab.reboot(PEER)
    assert twins.at_rest(PEER)
    assert twins.fails(SOURCE, f"virsh -q -c '{uri}' hostname")
    assert twins.wait(lambda: twins.state(PEER).firewall == {}, 60)
    assert not twins.reaches(PORTS[0])
