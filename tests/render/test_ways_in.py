"""Who is let in where, as the real sshd works it out of the rendered sshd_config for one connection; sshd(8), -T."""

from __future__ import annotations

import re
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from deploys.services.sshd import CONF
from fleet.cli.render import tree
from tests.lab.roots import toolbox_run

# Debian's sshd has no bsdauth, and wants a host key that it can read. One process for all: a start of it is slow.
_ASK = """\
ssh-keygen -q -t ed25519 -N '' -f /tmp/key
while read -r host connection; do
	sed 's/keyboard-interactive:bsdauth$/keyboard-interactive:pam/' "/tmp/rendered/$host" >/tmp/sshd_config
	echo "connection $host $connection"
	sshd -T -f /tmp/sshd_config -h /tmp/key -C "$connection"
done
"""

HOSTS = ("db1", "kvm1")
USERS = ("owner", "deploy", "root", "nobody")
PORTS = (22, 2022, 2247)
ADDRESSES = ("192.168.1.99", "192.168.1.11", "203.0.113.2", "198.51.100.9")

BOTH = "publickey,keyboard-interactive:pam"
KEY = "publickey"

Settings = dict[str, list[str]]


def _connection(user: str, port: int, address: str) -> str:
    return f"user={user},host={address},addr={address},laddr=192.168.1.22,lport={port}"


@cache
def _all() -> dict[tuple[str, str], Settings]:
    """Return what counts for each connection, by host and connection."""
    asked = [(host, _connection(*it)) for host in HOSTS for it in product(USERS, PORTS, ADDRESSES)]
    with TemporaryDirectory() as name:
        for host in HOSTS:
            Path(name, host).write_text(tree("home", host)[f"{host}{CONF}"])
        done = toolbox_run(
            ["sh", "-ec", _ASK],
            binds={Path(name): "/tmp/rendered"},
            stdin="".join(f"{host} {connection}\n" for host, connection in asked),
        )
    assert done.returncode == 0, done.stderr
    found: dict[tuple[str, str], Settings] = {}
    settings: Settings = {}
    for line in done.stdout.splitlines():
        word, _, value = line.partition(" ")
        if word == "connection":
            host, _, connection = value.partition(" ")
            settings = found.setdefault((host, connection), {})
        else:
            settings.setdefault(word, []).append(value)
    assert set(found) == set(asked)
    return found


def settings(host: str, user: str, port: int, address: str = ADDRESSES[0]) -> Settings:
    """Return the settings that count for a login of `user` at `port`, by their names in small letters."""
    return _all()[host, _connection(user, port, address)]


def let_in(host: str, user: str, port: int, address: str = ADDRESSES[0]) -> str | None:
    """Return what `user` has to show at `port`, None if there is no way in at all."""
    found = settings(host, user, port, address)
    if user not in found.get("allowusers", []):
        return None
    if user == "root" and found["permitrootlogin"] == ["no"]:
        return None
    (methods,) = found["authenticationmethods"]
    return methods


@pytest.mark.parametrize(
    ("host", "user", "port", "wanted"),
    [
        ("db1", "owner", 2022, BOTH),
        ("db1", "owner", 22, BOTH),
        ("db1", "owner", 2247, None),
        ("db1", "deploy", 2247, KEY),
        ("db1", "deploy", 2022, None),
        ("db1", "deploy", 22, None),
        ("db1", "root", 2022, None),
        ("db1", "root", 2247, None),
        ("db1", "root", 22, None),
        ("db1", "nobody", 2022, None),
        ("kvm1", "owner", 2022, BOTH),
        ("kvm1", "owner", 2247, None),
        ("kvm1", "deploy", 2247, KEY),
        ("kvm1", "deploy", 2022, None),
        ("kvm1", "root", 2022, None),
        ("kvm1", "root", 2247, None),
    ],
)
def test_each_account_has_its_port_and_its_proof(host: str, user: str, port: int, wanted: str | None) -> None:
    assert let_in(host, user, port) == wanted


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("address", ADDRESSES)
def test_no_address_spares_a_person_the_code(host: str, address: str) -> None:
    assert let_in(host, "owner", 2022, address) == BOTH


@pytest.mark.parametrize("user", ["owner", "deploy"])
def test_nobody_forwards_or_uses_a_password(user: str) -> None:
    found = settings("db1", user, 2247 if user == "deploy" else 2022)
    assert found["disableforwarding"] == ["yes"]
    assert found["passwordauthentication"] == ["no"]
    assert found["kbdinteractiveauthentication"] == (["no"] if user == "deploy" else ["yes"])
    assert re.search(r"192\.168\.1\.0/24", found["persourcepenaltyexemptlist"][0])
