"""netstart(8), ifconfig(8), route(8) and netstat(1) of the stand-in: contract 4."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.openbsd.standin import ifconfig, netstart, netstat, route

Output = pytest.CaptureFixture[str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STANDIN_ROOT", str(tmp_path))
    monkeypatch.setenv("STANDIN_IP", "/nonexistent/ip")
    (tmp_path / "etc").mkdir()
    return tmp_path


@pytest.fixture
def kernel(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the commands a network namespace of their own with em0, which has a wire, and lo."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    with subprocess.Popen(["unshare", *user, "--net", "sleep", "60"]) as holder:
        own = Path("/proc/self/ns/net").readlink()
        until = time.monotonic() + 10
        while Path(f"/proc/{holder.pid}/ns/net").readlink() == own and time.monotonic() < until:
            time.sleep(0.01)
        option = ["--user", "--preserve-credentials"] if user else []
        enter = ["nsenter", "--target", str(holder.pid), *option, "--net", "ip"]
        monkeypatch.setenv("PATH", os.environ["PATH"] + ":/usr/sbin:/sbin")
        monkeypatch.setenv("STANDIN_IP", " ".join(enter))
        ifconfig.ip("link", "add", "em0", "type", "veth", "peer", "name", "wire")
        ifconfig.ip("link", "set", "wire", "up")
        ifconfig.ip("link", "set", "lo", "up")
        yield place
        holder.kill()


def hostname_if(place: Path, name: str, text: str, mode: int = 0o640) -> Path:
    path = place / f"etc/hostname.{name}"
    path.write_text(text)
    path.chmod(mode)
    return path


def call(main: object, *argv: str) -> int:
    try:
        code = main(list(argv))  # type: ignore[operator]
    except SystemExit as end:
        code = end.code
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("dhcp", "ifconfig em0 inet autoconf"),
        ("inet6 autoconf", "ifconfig em0 inet6 autoconf"),
        ("inet 10.0.0.1 255.255.255.0", "ifconfig em0 inet 10.0.0.1 netmask 255.255.255.0"),
        ("inet 10.0.0.1 255.255.255.0 NONE", "ifconfig em0 inet 10.0.0.1 netmask 255.255.255.0"),
        (
            "inet 10.0.0.1 255.255.255.0 10.0.0.255 mtu 1400",
            "ifconfig em0 inet 10.0.0.1 netmask 255.255.255.0 broadcast 10.0.0.255 mtu 1400",
        ),
        ("inet 10.0.0.1/24", "ifconfig em0 inet 10.0.0.1/24"),
        ("inet alias 10.0.0.2/32", "ifconfig em0 inet alias 10.0.0.2/32"),
        ("inet alias 10.0.0.2 255.255.255.255", "ifconfig em0 inet alias 10.0.0.2 netmask 255.255.255.255"),
        ("inet6 2001:db8::1 64", "ifconfig em0 inet6 2001:db8::1 prefixlen 64"),
        ("inet6 alias 2001:db8::2 128", "ifconfig em0 inet6 alias 2001:db8::2 prefixlen 128"),
        ("inet 10.0.0.1 255.255.255.0\ndest 10.0.0.2", "ifconfig em0 inet 10.0.0.1 10.0.0.2 netmask 255.255.255.0"),
        ('description "LAN side"', 'ifconfig em0 description "LAN side"'),
        ("!route add default $if", "route add default em0"),
        ("# comment\n\nup", "ifconfig em0 up"),
    ],
)
def test_lines_become_commands(line: str, command: str, place: Path, capsys: Output) -> None:
    hostname_if(place, "em0", f"{line}\n")
    assert call(netstart.main, "-n", "em0") == 0
    assert capsys.readouterr() == (f"{command}\n", "")


@pytest.mark.usefixtures("place")
def test_a_missing_file(capsys: Output) -> None:
    """Contract 4: stderr, still exit 0."""
    assert call(netstart.main, "-n", "em7") == 0
    assert capsys.readouterr().err == "netstart: /etc/hostname.em7: No such file or directory.\n"


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o660])
def test_a_wrong_mode_is_fixed_with_a_warning(mode: int, place: Path, capsys: Output) -> None:
    path = hostname_if(place, "em0", "up\n", mode)
    assert call(netstart.main, "-n", "em0") == 0
    assert capsys.readouterr().err == "WARNING: /etc/hostname.em0 is insecure, fixing permissions.\n"
    assert path.stat().st_mode & 0o777 == 0o640


def test_the_order_of_boot(place: Path, capsys: Output) -> None:
    for name in ("vlan10", "em1", "em0", "wg0", "pflow0"):
        hostname_if(place, name, "up\n")
    (place / "etc/mygate").write_text("# gateways\n2001:db8::1\n10.0.0.254\n10.0.0.253\n!echo done\n")
    assert call(netstart.main, "-n") == 0
    assert capsys.readouterr().out.splitlines() == [
        "ifconfig lo0 inet 127.0.0.1/8",
        "{ ifconfig pflow0 || ifconfig pflow0 create; }",
        "{ ifconfig vlan10 || ifconfig vlan10 create; }",
        "{ ifconfig wg0 || ifconfig wg0 create; }",
        "ifconfig em0 up",
        "ifconfig em1 up",
        "ifconfig vlan10 up",
        "echo done",
        "route -qn add -host default 10.0.0.254",
        "route -qn add -host -inet6 default 2001:db8::1",
        "ifconfig pflow0 up",
        "ifconfig wg0 up",
    ]


def test_a_family_that_configures_itself_gets_no_default_route(place: Path, capsys: Output) -> None:
    hostname_if(place, "em0", "dhcp\ninet6 2001:db8::9 64\n")
    (place / "etc/mygate").write_text("10.0.0.254\n2001:db8::1\n")
    assert call(netstart.main, "-n", "em0") == 0
    out = capsys.readouterr().out
    assert "route -qn add -host -inet6 default 2001:db8::1\n" in out
    assert "10.0.0.254" not in out


def test_words_of_the_shell_are_not_modelled(place: Path) -> None:
    hostname_if(place, "em0", "description $(id)\n")
    assert call(netstart.main, "-n", "em0") == 99


def test_an_interface_is_configured(kernel: Path, capsys: Output) -> None:
    hostname_if(
        kernel,
        "em0",
        'inet 10.0.0.1 255.255.255.0\ninet alias 10.0.0.2/32\ninet6 2001:db8::1 64\ndescription "LAN side"\n'
        "!touch $STANDIN_ROOT/ran-$if\n",
    )
    (kernel / "etc/mygate").write_text("10.0.0.254\n2001:db8::fe\n")
    assert call(netstart.main) == 0
    assert (kernel / "ran-em0").exists()
    assert capsys.readouterr() == ("", "")
    assert call(ifconfig.main, "em0") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "em0: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> mtu 1500"
    assert "\tdescription: LAN side" in lines
    assert "\tgroups: egress" in lines
    assert "\tstatus: active" in lines
    assert "\tinet 10.0.0.1 netmask 0xffffff00 broadcast 10.0.0.255" in lines
    assert "\tinet 10.0.0.2 netmask 0xffffffff" in lines
    assert "\tinet6 2001:db8::1 prefixlen 64" in lines
    assert call(route.main, "-n", "show", "-inet") == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[:3] == ["Routing tables", "", "Internet:"]
    assert rows[3].split() == ["Destination", "Gateway", "Flags", "Refs", "Use", "Mtu", "Prio", "Iface"]
    assert rows[4].split() == ["default", "10.0.0.254", "UGS", "0", "0", "-", "8", "em0"]
    assert any(row.startswith("10.0.0/24 ") for row in rows)
    assert call(netstat.main, "-rnf", "inet6") == 0
    assert "2001:db8::fe" in capsys.readouterr().out


def test_netstart_does_not_remove_what_left_the_file(kernel: Path) -> None:
    """Contract 4: use `ifconfig IF -inet` first for a clean apply."""
    hostname_if(kernel, "em0", "inet 10.0.0.1/24\ninet alias 10.0.0.2/32\n")
    assert call(netstart.main, "em0") == 0
    hostname_if(kernel, "em0", "inet 10.0.0.1/24\n")
    assert call(netstart.main, "em0") == 0
    assert [a["local"] for a in ifconfig.links()["em0"]["addr_info"] if a["family"] == "inet"] == [
        "10.0.0.1",
        "10.0.0.2",
    ]
    assert call(ifconfig.main, "em0", "-inet") == 0
    assert [a for a in ifconfig.links()["em0"]["addr_info"] if a["family"] == "inet"] == []


@pytest.mark.usefixtures("kernel")
def test_an_address_without_alias_replaces_the_first() -> None:
    assert call(ifconfig.main, "em0", "inet", "10.0.0.1/24") == 0
    assert call(ifconfig.main, "em0", "alias", "10.0.0.9/32") == 0
    assert call(ifconfig.main, "em0", "10.0.0.3", "netmask", "0xffffff00", "up") == 0
    found = {a["local"] for a in ifconfig.links()["em0"]["addr_info"] if a["family"] == "inet"}
    assert found == {"10.0.0.3", "10.0.0.9"}
    assert call(ifconfig.main, "em0", "inet", "10.0.0.9", "delete") == 99
    assert call(ifconfig.main, "em0", "inet", "-alias", "10.0.0.9") == 0
    assert call(ifconfig.main, "em0", "inet", "-alias", "10.0.0.9") == 1


@pytest.mark.usefixtures("kernel")
def test_state_of_interfaces(capsys: Output) -> None:
    assert call(ifconfig.main, "em9") == 1
    assert call(ifconfig.main, "em9", "up") == 1
    assert capsys.readouterr().err == "ifconfig: em9: no such interface\n" * 2
    assert call(ifconfig.main, "em0", "mtu", "1400", "lladdr", "02:00:00:00:00:01", "group", "lan", "up") == 0
    assert call(ifconfig.main, "em0") == 0
    out = capsys.readouterr().out
    assert "mtu 1400\n\tlladdr 02:00:00:00:00:01\n" in out
    assert "\tgroups: lan\n" in out
    assert call(ifconfig.main, "em0", "inet", "autoconf") == 0
    assert call(ifconfig.main, "em0", "down") == 0
    assert call(ifconfig.main, "em0") == 0
    assert "flags=8802<BROADCAST,SIMPLEX,MULTICAST,AUTOCONF4>" in capsys.readouterr().out
    assert call(ifconfig.main, "lo0") == 0
    assert capsys.readouterr().out.startswith("lo0: flags=49<UP,LOOPBACK,RUNNING> mtu 65536\n")


def test_the_file_of_the_hardware_address_comes_first(kernel: Path) -> None:
    assert call(ifconfig.main, "em0", "lladdr", "02:00:00:00:00:01") == 0
    hostname_if(kernel, "02:00:00:00:00:01", "inet 10.0.0.7/24\n")
    hostname_if(kernel, "em0", "inet 10.0.0.8/24\n")
    assert call(netstart.main) == 0
    assert [a["local"] for a in ifconfig.links()["em0"]["addr_info"] if a["family"] == "inet"] == ["10.0.0.7"]


def test_virtual_interfaces(kernel: Path, capsys: Output) -> None:
    assert call(ifconfig.main, "vether0", "create") == 0
    assert call(ifconfig.main, "vether0", "create") == 1
    assert call(ifconfig.main, "vether0", "inet", "10.9.0.1/24") == 0
    assert call(ifconfig.main, "vether0", "destroy") == 0
    assert "vether0" not in ifconfig.links()
    hostname_if(kernel, "pflow0", "flowsrc 10.0.0.1 flowdst 10.0.0.9:2055\npflowproto 10\n")
    assert call(netstart.main, "pflow0") == 0
    capsys.readouterr()
    assert call(ifconfig.main, "pflow0") == 0
    assert "\tpflow: sender: 10.0.0.1 receiver: 10.0.0.9:2055 version: 10\n" in capsys.readouterr().out
    assert call(ifconfig.main, "carp0", "create") == 99
    assert call(ifconfig.main, "em0", "media", "autoselect") == 99


def test_vlan_waits_for_its_parent_and_tag(kernel: Path) -> None:
    assert call(ifconfig.main, "vlan10", "create") == 0
    assert call(ifconfig.main, "vlan10", "vnetid", "10") == 0
    assert json.loads((kernel / "var/standin/boot/ifconfig.json").read_text())["vlan10"] == {"vnetid": "10"}
    # Not every kernel has 802.1Q: then it says so.
    assert call(ifconfig.main, "vlan10", "parent", "em0") in {0, 99}


@pytest.mark.usefixtures("kernel")
def test_routes(capsys: Output) -> None:
    assert call(ifconfig.main, "em0", "inet", "10.0.0.1/24") == 0
    assert call(route.main, "-n", "add", "-host", "default", "10.0.0.254") == 0
    assert call(route.main, "-n", "add", "default", "10.0.0.254") == 1
    assert call(route.main, "-qn", "add", "default", "10.0.0.254") == 1
    assert call(route.main, "add", "192.0.2.0/24", "10.0.0.253") == 0
    assert call(route.main, "change", "default", "10.0.0.252") == 0
    assert call(route.main, "-qn", "delete", "default") == 0
    assert call(route.main, "delete", "default") == 1
    assert call(route.main, "add", "default", "172.16.0.1") == 1
    out = capsys.readouterr()
    assert out.err == "add: net default: gateway 10.0.0.254: File exists\n"
    assert out.out.splitlines()[0] == "add host default: gateway 10.0.0.254"
    assert call(route.main, "monitor") == 99
    assert call(route.main, "show") == 99


@pytest.mark.usefixtures("place")
def test_sockets(capsys: Output) -> None:
    assert call(netstat.main, "-na", "-f", "inet") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Active Internet connections (including servers)"
    assert lines[1].split()[:3] == ["Proto", "Recv-Q", "Send-Q"]
    assert all(line.split()[0] in {"tcp", "udp"} for line in lines[2:])
    assert call(netstat.main, "-s") == 99
