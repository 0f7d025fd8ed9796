"""Which keys a host may show, without a network; the lab's test of the same name has the connections."""

from __future__ import annotations

import base64
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from paramiko import Ed25519Key, SSHException  # noqa: TID251 - what the connector is asked with

from fleet.connector import FleetConnector
from fleet.load import host_data, load, ssh_options
from fleet.model.site import Connection, Host, Os, Site
from fleet.secrets import hostkeys

ADDRESS = "192.0.2.53"


def public() -> str:
    return hostkeys.public_half(hostkeys.make())


OURS, OTHERS, FORMER, STRANGE = (public() for _ in range(4))


def key(half: str) -> Ed25519Key:
    return Ed25519Key(data=base64.b64decode(half.split()[1]))


def link(*files: Path, port: int = 2247, word: str | None = None) -> FleetConnector:
    """Return a connector to ns3 that knows `files` of the repository and the inventory, and the owner's word."""
    data: dict[str, Any] = {"known_hosts": [str(path) for path in files]}
    if word is not None:
        data["first_contact"] = word
    made = FleetConnector.__new__(FleetConnector)
    made.host = cast(Any, SimpleNamespace(name="ns3", data=data))
    made.data = cast(Any, {"ssh_hostname": ADDRESS, "ssh_port": 2247})
    made._port = port
    return made


def accepted(made: FleetConnector) -> set[str]:
    found = set()
    for half in (OURS, OTHERS, FORMER, STRANGE):
        try:
            made.check_host_key(key(half))
        except SSHException:
            continue
        found.add(half)
    return found


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "ns3"
    path.write_text(hostkeys.known_hosts_line("ns3", OURS))
    return path


@pytest.fixture
def named(tmp_path: Path) -> Path:
    path = tmp_path / "known_hosts"
    path.write_text(f"# a remark\n\nnot a line\nns4 {STRANGE}\n{ADDRESS} {FORMER}\n[{ADDRESS}]:2247,other {OTHERS}\n")
    return path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text(f"[{ADDRESS}]:2247 {STRANGE}\n")
    return tmp_path / ".ssh" / "known_hosts"


def test_the_repository_s_key_is_the_only_one(repository: Path) -> None:
    assert accepted(link(repository)) == {OURS}


def test_the_inventory_s_file_counts_beside_it_by_address_and_port(repository: Path, named: Path) -> None:
    assert accepted(link(repository, named)) == {OURS, OTHERS}
    assert accepted(link(repository, named, port=22)) == {OURS, FORMER}


def test_the_owner_s_own_known_hosts_count_where_there_is_nothing_else(tmp_path: Path, home: Path, named: Path) -> None:
    missing = tmp_path / "missing"
    assert accepted(link(missing)) == {STRANGE}
    assert accepted(link(missing, named)) == {OTHERS}
    home.unlink()
    assert accepted(link(missing)) == set()


def test_a_hashed_name_is_a_name(repository: Path, named: Path) -> None:
    named.write_text("".join(line for line in named.read_text().splitlines(keepends=True) if " ssh-" in line))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(named)], check=True, capture_output=True)
    assert all(line.startswith("|1|") for line in named.read_text().splitlines())
    assert accepted(link(repository, named)) == {OURS, OTHERS}


def test_a_word_is_for_one_host_and_one_key(repository: Path) -> None:
    former, strange = (key(half).fingerprint for half in (FORMER, STRANGE))
    assert accepted(link(repository, word=f"ns3={former}")) == {OURS, FORMER}
    assert accepted(link(repository, word=f"ns4={former}")) == {OURS}
    assert accepted(link(repository, word=f"ns4={former},ns3={strange}")) == {OURS, STRANGE}
    assert accepted(link(repository, word=former)) == {OURS}
    assert accepted(link(repository, word="ns3=")) == {OURS}


def test_a_refusal_names_the_host_both_keys_and_the_word(repository: Path) -> None:
    strange = key(STRANGE).fingerprint
    words = f"ns3 shows the host key {strange}, its own is {hostkeys.fingerprint(OURS)}; nothing was sent"
    with pytest.raises(SSHException, match=re.escape(words)) as refused:
        link(repository).check_host_key(key(STRANGE))
    assert f"--data first_contact=ns3={strange}" in str(refused.value)


def test_openssh_knows_a_host_by_the_same_files(tmp_path: Path) -> None:
    fleet, _ = load("vultr")
    site = fleet.sites[0]
    host = site.host("ns3")
    assert host_data(site, host)["known_hosts"] == [str(Path("secrets/vultr/known_hosts/ns3").absolute())]
    place = site.secrets.model_copy(update={"folder": str(tmp_path / "50%")})
    there = site.model_copy(update={"secrets": place})
    assert ssh_options(there, host) == {}
    path = Path(host_data(there, host)["known_hosts"][0])
    path.parent.mkdir(parents=True)
    path.write_text(hostkeys.known_hosts_line("ns3", OURS))
    words = [word for name, value in ssh_options(there, host).items() for word in ("-o", f"{name}={value}")]
    said = subprocess.run(["ssh", "-G", *words, ADDRESS], capture_output=True, text=True, check=True).stdout
    assert "hostkeyalias ns3\n" in said
    assert f"userknownhostsfile {path}\n" in said


def test_a_host_that_has_no_key_in_the_repository_yet_is_known_by_its_address(tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text("")
    connection = Connection(address=ADDRESS, known_hosts=str(known))
    host = Host(name="new", os=Os.OPENBSD, connection=connection)
    site = Site(name="vultr", domain="example", networks=load("vultr")[0].sites[0].networks, hosts=(host,))
    assert "HostKeyAlias" not in ssh_options(site, host)
