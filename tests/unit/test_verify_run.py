"""tests/verify as it is typed: exit codes and closing lines, with hosts that are played; and how it asks a host."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet import load as load_module
from fleet.load import ROOT, load
from fleet.model.site import Connection
from tests.unit.test_verify_checks import World, world
from tests.verify import survey
from tests.verify.backend import bundle, probe, ssh_config, unbundle
from tests.verify.modules.echo import Echo
from tests.verify.modules.files import Files
from tests.verify.modules.keys import Keys
from tests.verify.modules.sockets import Listening

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the verification as a pytest in this one, the hosts played; returns its exit code and what it printed."""
    # The lab of this machine may have a register: the hosts that are played have no certificate.
    monkeypatch.setattr(load_module, "pki_folder", lambda _: tmp_path / "pki")

    def run(*arguments: str, change: Callable[[World], object] = lambda _: None) -> tuple[int, str]:
        there = world(load("lab")[0])
        change(there)
        monkeypatch.setattr(survey, "over_ssh", lambda _: there)
        monkeypatch.chdir(ROOT)
        capfd.readouterr()
        own = ["-s", "-p", "no:cacheprovider", "-p", "no:timeout", "-o", "addopts=--import-mode=importlib"]
        code = pytest.main(["tests/verify", *own, *arguments])
        said = capfd.readouterr()
        return int(code), said.out + said.err

    return run


def test_green_ends_with_0_and_a_line_a_host(run: Run, tmp_path: Path) -> None:
    code, said = run("--site", "lab", "--json", str(tmp_path / "report.json"))
    assert code == 0, said
    assert re.search(r"^kvm1: \d+ green$", said, re.M)
    assert "db1: runs on kvm1" in said.splitlines()
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["exit"] == 0 and data["hosts"]["kvm1"]["red"] == {} and data["hosts"]["kvm1"]["green"] > 50


def test_red_ends_with_1_and_names_what_and_why(run: Run, tmp_path: Path) -> None:
    def stopped(there: World) -> None:
        there.machines["kvm2"].units["nftables.service"][1] = "inactive"

    code, said = run("--site", "lab", "--json", str(tmp_path / "report.json"), change=stopped)
    assert code == 1
    closing = said.partition("verification of lab")[2].splitlines()
    assert closing[1].startswith("kvm2: 1 of ") and closing[1].endswith(" red: service nftables running")
    assert "a daemon that does not run serves nobody" in said
    assert "Traceback" not in said
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["exit"] == 1
    assert data["hosts"]["kvm2"]["red"] == {"kvm2/service/nftables/running": "it is inactive (dead)"}


def test_who_is_away_does_not_fail_the_run(run: Run) -> None:
    code, said = run("--site", "lab", change=lambda there: there.gone.update(kvm2="off"))
    assert code == 0
    assert "kvm2: away" in said.splitlines()


def test_only_who_is_away_ends_with_0_and_says_so(run: Run) -> None:
    code, said = run("--site", "lab", "--limit", "kvm2", change=lambda there: there.gone.update(kvm2="off"))
    assert code == 0
    assert "kvm2: away" in said.splitlines()


def test_who_should_be_there_fails_the_run_in_one_test(run: Run) -> None:
    code, said = run("--site", "lab", "--limit", "kvm1", change=lambda there: there.gone.update(kvm1="off"))
    assert code == 1
    assert "kvm1: not reached: off" in said.splitlines()
    assert re.search(r"\b1 failed\b.* in ", said)


def test_a_passphrase_that_is_waited_for_is_a_line_of_its_own_and_no_skip(run: Run) -> None:
    code, said = run("--site", "lab", change=lambda there: there.machines["kvm1"].answering.clear())
    assert code == 0
    assert "db1: waits for its passphrase: fleet console db1" in said.splitlines()
    assert re.search(r"^kvm1: \d+ green, 4 waiting$", said, re.M)
    assert "skipped" not in said and "xfailed" not in said


def test_a_site_without_any_service_says_so_and_ends_with_0(run: Run, tmp_path: Path) -> None:
    inventory = tmp_path / "bare.py"
    inventory.write_text(
        "from fleet.load import publish\nfrom inventories import vultr\n"
        "hosts = tuple(host.model_copy(update={'services': ()}) for host in vultr.site.hosts)\n"
        "site = vultr.site.model_copy(update={'hosts': hosts})\npublish(globals(), site)\n"
    )
    code, said = run("--site", str(inventory))
    assert code == 0
    assert "nothing was verified: none of these hosts has a service" in said.splitlines()


def test_a_limit_to_hosts_without_services_does_not_look_green(run: Run) -> None:
    code, said = run("--site", "lab", "--limit", "docker2")
    assert code == 5
    assert "nothing was verified: none of these hosts has a service" in said.splitlines()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "needs --site SITE"),
        (("--site", "hom"), "no inventory 'hom': there are exoscale, home, lab, vultr"),
        (("--site", "lab", "--limit", "kvm3"), "no host 'kvm3'"),
        (("--site", "lab", "--limit", ""), "no host ''"),
    ],
)
def test_a_mistyped_command_line_asks_nobody(run: Run, arguments: tuple[str, ...], words: str) -> None:
    there: list[World] = []
    code, said = run(*arguments, change=there.append)
    assert code == 4
    assert words in said
    assert "Traceback" not in said
    assert there[0].asked == []


def test_verification_leaves_threads_and_sockets_as_they_are() -> None:
    """It reads with the facts' parsers, and reaches hosts with nothing of pyinfra, which would patch all of Python."""
    code = (
        "import sys, tests.verify.conftest, gevent.monkey; "
        "print(gevent.monkey.saved, [name for name in sys.modules if name.startswith('pyinfra_cli')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "{} []"


def sh(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)


def test_many_commands_in_one_script_keep_their_answers_apart() -> None:
    commands = ["printf 'no newline'", "echo out; echo err >&2; exit 3", "cat", "printf 'a\\n\\n'", "true"]
    done = sh(bundle(commands, "##m"))
    assert done.returncode == 0
    answers = unbundle(done.stdout, done.stderr, "##m", len(commands))
    assert [(code, out.rstrip("\n")) for code, out, _ in answers] == [
        (0, "no newline"),
        (3, "out"),
        (0, ""),
        (0, "a"),
        (0, ""),
    ]
    assert answers[1][2].strip() == "err"


@pytest.mark.parametrize("length", range(0, 60, 7))
def test_an_answer_that_broke_off_is_no_answer(length: int) -> None:
    done = sh(bundle(["echo one", "echo two"], "##m"))
    with pytest.raises(RuntimeError, match="broke off"):
        unbundle(done.stdout[: -1 - length], done.stderr, "##m", 2)


def test_ssh_is_strict_and_follows_the_inventory(tmp_path: Path) -> None:
    control = tmp_path / "kvm1"
    connection = Connection(address="127.77.0.11", port=2222, key=".lab/0/id_ed25519")
    lines = ssh_config(connection, {"HostKeyAlias": "kvm1"}, control).splitlines()
    assert "HostKeyAlias kvm1" in lines
    assert "StrictHostKeyChecking yes" in lines and "BatchMode yes" in lines and "Port 2222" in lines
    assert f'IdentityFile "{ROOT}/.lab/0/id_ed25519"' in lines
    assert not [line for line in lines if line.startswith("Include")]
    owners = ssh_config(Connection(address="192.168.1.11"), {}, control).splitlines()
    assert "Include ~/.ssh/config" in owners and owners.index("StrictHostKeyChecking yes") < owners.index(
        "Include ~/.ssh/config"
    )
    config = tmp_path / "config"
    config.write_text(ssh_config(connection, {}, control))
    done = subprocess.run(["ssh", "-G", "-F", str(config), "127.77.0.11"], capture_output=True, text=True, check=True)
    assert "stricthostkeychecking true" in done.stdout


def test_a_closed_port_is_a_reason() -> None:
    assert "no TCP connection to 127.0.0.1:1" in (probe(Connection(address="127.0.0.1", port=1), 1) or "")


def test_files_are_read_by_what_they_are(tmp_path: Path) -> None:
    file, link = tmp_path / "with space", tmp_path / "dangling"
    file.write_text("text\n")
    file.chmod(0o640)
    link.symlink_to(tmp_path / "nowhere")
    done = sh(Files.look([str(file), str(link), str(tmp_path / "missing"), str(tmp_path)]))
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines()]
    assert [row[5] for row in rows] == [str(file), str(link), str(tmp_path)]
    assert rows[0][2:4] == ["640", "regular file"] and len(rows[0][4]) == 64
    assert rows[1][3:5] == ["symbolic link", ""] and rows[2][4] == ""


def test_keys_are_found_by_what_they_look_like(tmp_path: Path) -> None:
    folder = tmp_path / "migration"
    folder.mkdir()
    (folder / "path").write_text("source kvm1\n")
    (folder / "id_ed25519").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    (tmp_path / "migration.keys").write_text('restrict,from="192.168.1.11" ssh-ed25519 AAAAC3Nza x\n')
    link = tmp_path / "authorized_keys2"
    link.symlink_to(tmp_path / "migration.keys")
    done = sh(Keys.question((f"{tmp_path}/migration*",), str(link)))
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"link {tmp_path}/migration.keys"
    assert set(lines[1:]) == {f"{folder}/id_ed25519", f"{tmp_path}/migration.keys", str(link)}
    (tmp_path / "migration.keys").write_text("")
    (folder / "id_ed25519").unlink()
    assert sh(Keys.question((f"{tmp_path}/migration*",), str(link))).stdout.splitlines() == lines[:1]


def test_who_answers_is_asked_at_the_same_time(tmp_path: Path) -> None:
    ping = tmp_path / "ping"
    ping.write_text('#!/bin/sh\nfor a; do :; done\n[ "$a" = 192.0.2.1 ]\n')
    ping.chmod(0o755)
    done = sh(f"PATH={tmp_path}:$PATH\n{Echo.question(['192.0.2.1', '192.0.2.2'])}")
    assert (done.returncode, done.stdout.split()) == (0, ["192.0.2.1"])
    assert sh(f"PATH=/nonexistent\n{Echo.question(['192.0.2.1'])}").returncode == 1


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.0.0.53%lo", True),
        ("[::1]", True),
        ("[::ffff:127.0.0.1]", True),
        ("0.0.0.0", False),
        ("[::]", False),
        ("*", False),
        ("[fe80::1]%br0", False),
        ("192.168.1.11%br0", False),
    ],
)
def test_a_loopback_address_is_seen_as_such(address: str, loopback: bool) -> None:
    assert Listening("tcp", address, 22, "").loopback is loopback
