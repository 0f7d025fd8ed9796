"""The stand-in's root, process 1 and networks, as far as no root and no namespace is needed for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from ipaddress import ip_interface
from pathlib import Path

import pytest

from fleet.model.site import Host, Site
from tests.lab import host as computer
from tests.lab.openbsd import debian, networks, root, standin
from tests.lab.openbsd.fleet import StandIns, production
from tests.lab.openbsd.standin import init, power
from tests.lab.openbsd.standin.place import root as place
from tests.lab.openbsd.standin.unmodelled import EXIT, RECORD, unmodelled

SITES = production()
PLAN = networks.plan(SITES, "hf7")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STANDIN_ROOT", str(tmp_path))
    return tmp_path


def site_and_host(name: str) -> tuple[Site, Host]:
    return next((site, host) for site in SITES for host in site.hosts if host.name == name)


@pytest.mark.parametrize("path", ["/etc/motd", "etc/motd", "//etc/motd"])
def test_every_path_is_below_the_root(scratch: Path, path: str) -> None:
    assert place(path) == scratch / "etc/motd"


def test_what_is_not_modelled_is_said_kept_and_fails(scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        with pytest.raises(SystemExit) as ended:
            unmodelled("ls", ["-Z", f"a\nb{number}"], "no such option")
        assert ended.value.code == EXIT == 99
    lines = (scratch / RECORD.lstrip("/")).read_text().splitlines()
    assert lines == [f"standin: not modelled: ls -Z a b{number}: no such option" for number in (1, 2)]
    assert capsys.readouterr().err.splitlines() == lines


def test_not_modelled_is_loud_also_where_it_cannot_be_kept(scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (scratch / "var").write_text("no directory")
    with pytest.raises(SystemExit) as ended:
        unmodelled("ls", [], "x")
    assert ended.value.code == EXIT
    assert "not modelled: ls" in capsys.readouterr().err


def test_every_launcher_has_a_module_with_a_main() -> None:
    found = root.launchers()
    assert len({launcher.path for launcher in found}) == len(found) > 20
    package = Path(standin.__file__).parent
    for launcher in found:
        name, _, module = launcher.module.partition(".")
        path = package.joinpath(*module.split("."))
        assert name == "standin"
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), launcher


def test_a_launcher_runs_its_module(scratch: Path) -> None:
    text = root.launcher_text("standin.hostname").replace(debian.PYTHON, sys.executable)
    program = scratch / "hostname"
    program.write_text(text.replace(root.HOME, str(Path(standin.__file__).parent.parent)))
    program.chmod(0o755)
    done = subprocess.run([program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == os.uname().nodename


def test_everything_that_is_not_modelled_is_listed() -> None:
    lines = root.not_modelled()
    modules = {line.partition(":")[0] for line in lines}
    assert {"init", "login", "power", "sshd"} <= modules
    assert all(": " in line for line in lines)


def test_a_constant_in_a_program_is_patched_once_and_in_place() -> None:
    assert debian.patched(b"a\0ntpd\0b", b"\0ntpd\0", b"\0_ntp\0") == b"a\0_ntp\0b"
    assert debian.patched(b"a\0long\0b", b"\0long\0", b"\0x\0") == b"a\0x\0\0\0\0b"
    for content in (b"a\0nsd\0b", b"\0ntpd\0\0ntpd\0"):
        with pytest.raises(computer.LabError):
            debian.patched(content, b"\0ntpd\0", b"\0_ntp\0")
    with pytest.raises(computer.LabError):
        debian.patched(b"\0ab\0", b"\0ab\0", b"\0abc\0")


def test_nobody_below_process_1_has_a_right_over_the_machine() -> None:
    command = init.confined(["/bin/x", "y"])
    assert command[-2:] == ["/bin/x", "y"]
    assert "--bounding-set=-all," in " ".join(command)
    for name in (
        "sys_admin",
        "sys_time",
        "sys_module",
        "sys_rawio",
        "sys_boot",
        "mknod",
        "sys_ptrace",
        "dac_read_search",
    ):
        assert name not in init.CAPABILITIES.split(",")


def test_an_interface_that_the_system_made_is_gone_after_a_reboot_and_a_wire_is_bare() -> None:
    links: list[dict[str, object]] = [
        {"ifname": "lo", "linkinfo": None},
        {"ifname": "em0", "linkinfo": {"info_kind": "veth"}},
        {"ifname": "vlan10", "linkinfo": {"info_kind": "vlan"}},
    ]
    assert init.forgotten_links(links) == [
        "address flush dev lo",
        "link set dev lo down",
        "address flush dev em0",
        "link set dev em0 down",
        "link delete dev vlan10",
    ]


def test_a_boot_begins_with_empty_volatile_directories(scratch: Path) -> None:
    for name in ("var/run/rc.d/x", "tmp/y", "var/standin/boot/z", "etc/motd"):
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        (scratch / name).write_text("old")
    (scratch / RECORD.lstrip("/")).write_text("kept\n")
    init.clear_volatile()
    assert [path.name for path in (scratch / "var/run").iterdir()] == ["sshd"]
    assert not list((scratch / "tmp").iterdir())
    assert [path.name for path in (scratch / "var/standin/boot").iterdir()] == ["boottime"]
    assert (scratch / "etc/motd").read_text() == "old"
    assert (scratch / RECORD.lstrip("/")).read_text() == "kept\n"
    assert (scratch / RECORD.lstrip("/")).stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize(
    ("command", "argv", "sent"),
    [
        (power.reboot, [], signal.SIGINT),
        (power.halt, [], signal.SIGTERM),
        (power.halt, ["-p"], signal.SIGTERM),
        (power.shutdown, ["-r", "now"], signal.SIGINT),
        (power.shutdown, ["-r", "now", "upgrade"], signal.SIGINT),
        (power.shutdown, ["-h", "now"], signal.SIGTERM),
        (power.reboot, ["-q"], None),
        (power.shutdown, ["-r", "+5"], None),
        (power.shutdown, ["now"], None),
        (power.hostname, ["-x"], None),
        (power.hostname, ["new.example"], signal.SIGHUP),
    ],
)
def test_power(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, command: object, argv: list[str], sent: signal.Signals | None
) -> None:
    """Contract 9: `shutdown -r now [msg]`, `reboot`, `halt`."""
    kills: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: kills.append((pid, number)))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (scratch / "var/standin/boot").mkdir(parents=True)
    assert callable(command)
    if sent is None:
        with pytest.raises(SystemExit) as ended:
            command(argv)
        assert ended.value.code == EXIT
        assert not kills
    else:
        assert command(argv) == 0
        assert kills == [(1, sent)]


def test_only_root_ends_the_system(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert [power.reboot([]), power.halt([]), power.shutdown(["-r", "now"])] == [1, 1, 1]
    assert "reboot: Operation not permitted" in capsys.readouterr().err


def test_all_openbsd_hosts_of_the_inventory_have_a_stand_in() -> None:
    names = {host.name for site in SITES for host in site.hosts if host.os == "openbsd"}
    assert set(StandIns(7, Path("/nowhere")).hosts) == names
    assert len(names) == 6


def test_every_wire_ends_on_a_bridge_that_is_there() -> None:
    bridges = {(bridge.namespace, bridge.name) for bridge in PLAN.bridges} | {("hf7", networks.FLAT)}
    assert {(wire.bridge_namespace, wire.bridge) for wire in PLAN.wires} == bridges
    names = [wire.peer for wire in PLAN.wires] + [wire.interface for wire in PLAN.wires]
    assert all(len(name) <= 15 for name in names)
    assert len({wire.peer for wire in PLAN.wires}) == len(PLAN.wires)
    assert {wire.namespace for wire in PLAN.wires} < set(PLAN.namespaces)


def test_the_flat_hangs_on_its_router_and_the_internet_has_no_private_address() -> None:
    on_flat = {wire.namespace for wire in PLAN.wires if wire.bridge == networks.FLAT}
    assert on_flat == {f"hf7-{name}" for name in ("pancake", "manicouagan1", "db1", "web1", "home")}
    routed = {address for bridge in PLAN.bridges for address in bridge.addresses}
    assert not [address for address in routed if address.startswith(("192.168.", "10.", "2001:db8:1:"))]
    assert {"203.0.113.1/24", "198.51.100.1/24", "192.0.2.1/24"} <= routed


def test_the_places_of_tests_have_addresses_of_nobody() -> None:
    own = {address.network for site in SITES for host in site.hosts for i in host.interfaces for address in i.addresses}
    for name in ("owner", "stranger", "deployer"):
        (there,) = (place for place in PLAN.places if place.namespace == f"hf7-{name}")
        for address in there.addresses:
            assert not [net for net in own if ip_interface(address).ip in net]


def test_deployments_come_from_the_address_that_a_site_expects() -> None:
    for site in SITES:
        for network in site.networks:
            translated = dict(PLAN.translations).get(str(network.ipv4))
            if translated is not None:
                assert site.deployment is not None
                assert f"{translated}/32" in {str(net) for net in site.deployment.addresses}
    assert set(dict(PLAN.translations)) == {"198.51.100.0/24", "192.0.2.0/24"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "virtie",
            {
                "etc/myname": "virtie.chown.me\n",
                "etc/hostname.vio0": "inet 198.51.100.80 255.255.255.0\ninet6 2001:db8:2::80 64\n",
                "etc/mygate": "198.51.100.1\n2001:db8:2::1\n",
            },
        ),
        (
            "pancake",
            {
                "etc/myname": "pancake.chown.me\n",
                "etc/hostname.em0": "inet 203.0.113.2 255.255.255.0\n",
                "etc/hostname.em1": "inet 192.168.1.1 255.255.255.0\ninet6 2001:db8:1::1 64\n",
                "etc/mygate": "203.0.113.1\n",
            },
        ),
        (
            "db1",
            {
                "etc/myname": "db1.chown.me\n",
                "etc/hostname.vio0": "inet 192.168.1.22 255.255.255.0\ninet6 2001:db8:1::22 64\n",
                "etc/mygate": "192.168.1.1\n2001:db8:1::1\n",
            },
        ),
    ],
)
def test_the_installer_leaves_the_network_of_the_inventory(name: str, expected: dict[str, str]) -> None:
    assert networks.installed_files(*site_and_host(name)) == expected


@pytest.mark.parametrize(
    ("name", "seen_from", "answers_at"),
    [
        ("pancake", "home", "192.168.1.1"),
        ("db1", "home", "192.168.1.22"),
        ("virtie", "deployer", "198.51.100.80"),
        ("ns3", "deployer", "192.0.2.53"),
    ],
)
def test_the_relay_comes_from_where_the_owner_is(name: str, seen_from: str, answers_at: str) -> None:
    host = StandIns(7, Path("/nowhere")).hosts[name]
    assert (host.seen_from, host.answers_at) == (seen_from, answers_at)
    assert host.ssh_ports()[-1] == 22
