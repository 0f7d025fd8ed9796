"""The base on a real Ubuntu-like machine: who is let in by what it made, and how a hypervisor gets it that had less."""

from __future__ import annotations

import hmac
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.host import run
from tests.lab.pair import GUESTS, NOW, Pair

HOST, ADDRESS = "kvm1", "192.168.1.11"
# Of the lab's own end of the flat: one that deployments come from, and one that is nobody's.
NEIGHBOUR, STRANGER = "192.168.1.254", "10.77.0.254"

# What the first deploys left: the firewall passes port 22 alone, sshd and sudo are as they were installed.
AS_BEFORE = r"""
set -e
cp /usr/share/openssh/sshd_config /etc/ssh/sshd_config
echo 'deploy ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/90-installer
rm /etc/sudoers.d/homefleet
cd /var/lib/homefleet/manifest && rm sudo sshd totp nftables
rm /etc/users.oath /etc/users.oath.wanted
sed -i -e '/dport 2247/d' -e 's/dport 2022/dport 22/' /etc/nftables.conf
systemctl restart ssh && nft -f /etc/nftables.conf
"""
LEAVER = """\
_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f leaver"
_leaver = {"name": "leaver", "uid": 1777, "public_keys": (_key,), "retired": True}
_leaver = site.people[0].model_copy(update=_leaver)
site = site.model_copy(update={"people": (*site.people, _leaver)})
"""


@pytest.fixture(scope="module")
def pair(grown: Pair) -> Iterator[Pair]:
    """The pair, with a way back to who is nobody's; it is left as it was."""
    grown.ssh(HOST, f"ip route replace {STRANGER}/32 dev br0")
    yield grown
    grown.ssh(HOST, f"ip route del {STRANGER}/32 dev br0")
    assert grown.deploy(changes=NOW).code == 0


def opens(pair: Pair, port: int, source: str = NEIGHBOUR) -> bool:
    connect = f"import socket; socket.create_connection(('{ADDRESS}', {port}), 3, ('{source}', 0))"
    return pair.lab.in_network([sys.executable, "-c", connect]).returncode == 0


def code(seed: str, step: int = 0) -> str:
    """Return the code of a moment, `step` times thirty seconds from now; RFC 6238."""
    counter = struct.pack(">Q", int(time.time()) // 30 + step)
    digest = hmac.new(bytes.fromhex(seed), counter, "sha1").digest()
    (number,) = struct.unpack_from(">I", digest, digest[-1] & 15)
    return f"{(number & 0x7FFFFFFF) % 10**6:06}"


def test_only_what_is_declared_is_open(pair: Pair) -> None:
    assert {port: opens(pair, port) for port in (22, 25, 2022, 2247)} == {22: False, 25: False, 2022: True, 2247: True}
    assert opens(pair, 2022, STRANGER) and not opens(pair, 2247, STRANGER)


def test_a_person_opens_the_deployments_port_for_an_address(pair: Pair) -> None:
    pair.ssh(HOST, f"nft add element inet homefleet deploy_allowed '{{ {STRANGER} timeout 5m }}'")
    assert opens(pair, 2247, STRANGER)
    pair.ssh(HOST, "nft flush set inet homefleet deploy_allowed")
    assert not opens(pair, 2247, STRANGER)


def test_who_is_let_in_and_who_is_not(pair: Pair, tmp_path: Path) -> None:
    """All from an address of our own, which no penalty of sshd applies to: it spares nobody the code."""
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "stranger"])
    mine, strange, deploy = pair.lab.person_key, tmp_path / "stranger", pair.lab.key
    seed = pair.ssh(HOST, "awk '$2 == \"owner\" { print $4 }' /etc/users.oath").strip()

    def login(user: str, port: int, key: Path, said: str = "") -> bool:
        askpass = tmp_path / "askpass"
        askpass.write_text(f"#!/bin/sh\necho '{said}'\n")
        askpass.chmod(0o755)
        options = {
            "NumberOfPasswordPrompts": "1" if said else "0",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "IdentitiesOnly": "yes",
            "ConnectTimeout": "10",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        argv = ["env", f"SSH_ASKPASS={askpass}", "SSH_ASKPASS_REQUIRE=force", "ssh", "-F", "none", *words]
        argv += ["-i", str(key), "-p", str(port), "-l", user, ADDRESS, "id -un"]
        done = pair.lab.in_network(argv)
        assert done.returncode == 0 or "Permission denied" in done.stderr, done.stderr
        return done.returncode == 0

    assert not login("owner", 2022, mine), "the key alone"
    assert not login("owner", 2022, mine, "000000"), "a wrong code"
    assert not login("owner", 2022, strange, code(seed)), "the code alone"
    now = code(seed)
    assert login("owner", 2022, mine, now)
    assert not login("owner", 2022, mine, now), "a replayed code"
    assert not login("owner", 2247, mine, code(seed, 1)), "a person on the deployment's port"
    assert not login("deploy", 2022, deploy), "the deployment on the people's port"
    assert not login("deploy", 2247, strange), "a deploy key of another site"
    assert login("deploy", 2247, deploy)
    for port in (2022, 2247):
        assert not login("root", port, deploy)
    pair.ssh(HOST, "cp -p /etc/users.oath /etc/users.oath.kept && sed -i '/owner/d' /etc/users.oath")
    try:
        assert not login("owner", 2022, mine, code(seed, 1)), "an account without a secret"
    finally:
        pair.ssh(HOST, "mv /etc/users.oath.kept /etc/users.oath")


def test_who_left_is_locked_and_keyless_and_stays(pair: Pair) -> None:
    pair.ssh(
        HOST,
        "useradd -m -u 1777 leaver && echo leaver:$(openssl passwd -6 secret) | chpasswd -e && "
        "install -d -m 700 -o leaver -g leaver /home/leaver/.ssh && "
        "install -m 600 -o leaver -g leaver /home/owner/.ssh/authorized_keys /home/leaver/.ssh/authorized_keys",
    )
    gone = pair.deploy("--limit", HOST, changes=NOW + LEAVER)
    assert gone.code == 0, gone.output
    assert "leaver: locked, keys taken away" in gone.output
    assert pair.ssh(HOST, "passwd -S leaver").split()[1] == "L"
    assert pair.ssh(HOST, "getent shadow leaver").split(":")[7] == "1"
    assert pair.ssh(HOST, "stat -c '%s %U %a' /home/leaver/.ssh/authorized_keys").split() == ["0", "leaver", "600"]
    assert pair.deploy("--limit", HOST, changes=NOW + LEAVER).changes(HOST) == 0
    pair.ssh(HOST, "userdel -r leaver 2>/dev/null")


def test_a_hypervisor_without_the_base_gets_it_and_loses_no_guest(pair: Pair) -> None:
    """The old firewall passes port 22 alone, where sshd will listen no more: no order of the two sets would do."""
    before = pair.heartbeats()
    started = pair.ssh(HOST, "pgrep -a qemu-system | sort")
    pair.ssh(HOST, AS_BEFORE)
    assert opens(pair, 22) and not opens(pair, 2247)
    moved = pair.deploy("--limit", HOST, changes=NOW)
    assert moved.code == 0, moved.output
    for name in ("sudo", "sshd", "nftables"):
        assert f"{name}: " in moved.output
    assert moved.output.count("confirmed by a new login") >= 3
    assert pair.ssh(HOST, "pgrep -a qemu-system | sort") == started
    test_only_what_is_declared_is_open(pair)
    assert "dport 22 " not in pair.ssh(HOST, "nft list ruleset")
    assert pair.deploy("--limit", HOST, changes=NOW).changes(HOST) == 0
    after = pair.heartbeats()
    assert sorted(after) == GUESTS and all(after[name] > before[name] for name in GUESTS)
