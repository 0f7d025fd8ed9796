"""A change of sshd counts only if the deployment and people still come in: what shuts one of them out goes back."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import relay
from tests.lab.host import Process, run
from tests.lab.pair import Pair

CONF = "/etc/ssh/sshd_config"
STATE = f"sha256 -q {CONF} /etc/pf.conf; pfctl -sr"
BENT = """\
from deploys.services.sshd import Sshd

class Bent(Sshd):
    old: str
    new: str

    def renders(self, host, fleet):
        for made in super().renders(host, fleet):
            files = [it.model_copy(update={"text": it.text.replace(self.old, self.new)}) for it in made.files]
            yield made.model_copy(update={"files": tuple(files)})

def with_sshd(site, name, sshd, **update):
    services = tuple(sshd if isinstance(it, Sshd) else it for it in site.host(name).services)
    return change_host(site, name, services=services, **update)

"""
NEW_PORT = 2023
UNDONE_SECONDS = 70


def root(site: Pair, name: str, command: str) -> str:
    """Run a command as the stand-in's root, past its sshd, and return what it printed."""
    return run(site.lab.stand_ins.hosts[name].enter(["/bin/ksh", "-c", command]))


def wait_for_rest(site: Pair, *names: str) -> None:
    """Wait until nothing is armed or pending on the hosts."""
    until = time.monotonic() + UNDONE_SECONDS
    for name in names:
        while root(site, name, "ls /var/db/homefleet/armed /var/db/homefleet/pending").split()[1:-1]:
            assert time.monotonic() < until, name
            time.sleep(0.5)


@pytest.fixture
def new_port(site: Pair) -> Iterator[None]:
    """manicouagan1's new port for people, as the relay makes the old one reachable."""
    host = site.lab.stand_ins.hosts["manicouagan1"]
    holder = host.process()
    assert holder is not None
    argv = [
        *(sys.executable, str(Path(relay.__file__)), "--outside", f"{host.relay[0]}:{NEW_PORT}"),
        *("--inside", f"{host.answers_at}:{NEW_PORT}", "--namespace", f"/run/netns/hf{site.index}-{host.seen_from}"),
        *("--qemu", str(holder.pid)),
    ]
    process = Process.spawn(argv, site.folder / "relay.log")
    yield
    process.stop()


@pytest.mark.usefixtures("new_port")
def test_what_shuts_people_out_is_taken_back(site: Pair) -> None:
    """Three mistakes on three hosts, none of which the deployment would notice."""
    names = ("db1", "web1", "manicouagan1")
    before = {name: root(site, name, STATE) for name in names}
    changes = (
        BENT
        + 'site = with_sshd(site, "db1", Bent(old="AllowUsers owner", new="AllowUsers somebody"))\n'
        + 'site = with_sshd(site, "web1", Bent(old="publickey,keyboard-interactive:bsdauth", new="publickey"))\n'
        + f'site = with_sshd(site, "manicouagan1", Sshd(), sshd_port={NEW_PORT})\n'
    )
    done = site.deploy("--limit", "db1", "--limit", "web1", "--limit", "manicouagan1", changes=changes, role="site")
    assert done.code != 0, done.output
    assert "owner at port 2022: the key is refused" in done.failed("db1")["sshd"], done.output
    assert "a key is enough to be let in, without a code" in done.failed("web1")["sshd"], done.output
    moved = done.failed("manicouagan1")
    assert f"owner cannot come in: port {NEW_PORT}" in moved["sshd"], done.output
    assert "not touched" in moved["pf"], done.output
    wait_for_rest(site, *names)
    assert {name: root(site, name, STATE) for name in names} == before
    again = site.deploy("--limit", "db1", "--limit", "web1", "--limit", "manicouagan1", role="site")
    assert again.code == 0, again.output
    assert [again.changes(name) for name in names] == [0, 0, 0], again.output


@pytest.mark.usefixtures("new_port")
def test_people_move_to_another_port_in_two_runs(site: Pair) -> None:
    def move(port: int, also: str) -> None:
        changes = BENT + f'site = with_sshd(site, "manicouagan1", Sshd(also={also}), sshd_port={port})\n'
        done = site.deploy("--limit", "manicouagan1", changes=changes, role="site")
        assert done.code == 0, done.output
        assert "confirmed by a new login" in done.output

    def listening() -> set[str]:
        shown = root(site, "manicouagan1", "netstat -na -f inet").splitlines()
        return {line.split()[3].rpartition(".")[2] for line in shown if "LISTEN" in line} & {"2022", str(NEW_PORT)}

    move(NEW_PORT, "(2022,)")
    assert listening() == {"2022", str(NEW_PORT)}
    move(NEW_PORT, "()")
    assert listening() == {str(NEW_PORT)}
    move(2022, f"({NEW_PORT},)")
    back = site.deploy("--limit", "manicouagan1", role="site")
    assert back.code == 0, back.output
    assert listening() == {"2022"}


def test_without_a_persons_key_nothing_is_touched_and_the_agent_may_have_it(
    site: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = root(site, "db1", STATE)
    keyless = (
        "_connection = site.host('db1').connection.model_copy(update={'person_key': None})\n"
        "site = change_host(site, 'db1', connection=_connection)\n"
    )
    changes = BENT + 'site = with_sshd(site, "db1", Bent(old="LoginGraceTime 60", new="LoginGraceTime 59"))\n'
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    done = site.deploy("--limit", "db1", changes=changes, late=keyless, role="site")
    assert done.code != 0, done.output
    assert "ssh-add" in done.failed("db1")["sshd"], done.output
    assert root(site, "db1", STATE) == before
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", tmp_path / "agent"], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        until = time.monotonic() + 5
        while not (tmp_path / "agent").exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        run(["ssh-add", "-q", site.lab.person_key])
        done = site.deploy("--limit", "db1", changes=changes, late=keyless, role="site")
        assert done.code == 0, done.output
        assert "LoginGraceTime 59" in root(site, "db1", f"cat {CONF}")
        back = site.deploy("--limit", "db1", late=keyless, role="site")
        assert back.code == 0, back.output
    finally:
        agent.terminate()
        agent.wait()
    assert root(site, "db1", STATE) == before
