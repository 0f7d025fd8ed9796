"""The OpenBSD stand-ins: they boot, forget what a reboot forgets, let in who may, and reach what is there."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import STAND_INS
from tests.lab.host import LabError, Process
from tests.lab.lab import Lab
from tests.lab.openbsd.standin.unmodelled import EXIT

PUBLIC = {"pancake": "203.0.113.2", "virtie": "198.51.100.80", "ns3": "192.0.2.53"}
FLAT = {"pancake": "192.168.1.1", "manicouagan1": "192.168.1.21", "db1": "192.168.1.22", "web1": "192.168.1.23"}
HIDDEN = ("bash", "dash", "sudo", "systemctl", "perl", "python3", "apt-get", "dpkg", "base64", "ip", "nft", "mount")


@pytest.fixture(scope="module")
def lab(stand_ins: Lab) -> Lab:
    """The six stand-ins before anything is deployed."""
    return stand_ins


def in_stand_in(lab: Lab, name: str, command: str, code: int = 0) -> str:
    """Run a command as the stand-in's root, past its sshd, and return what it printed."""
    argv = lab.stand_ins.hosts[name].enter(["/bin/ksh", "-c", command])
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=-1, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def forgive(lab: Lab, name: str) -> list[str]:
    """Return what a test asked on purpose, and forget it."""
    lines = lab.stand_ins.hosts[name].unmodelled()
    in_stand_in(lab, name, ": >/var/standin/unmodelled")
    return lines


def opens(lab: Lab, place: str, address: str, port: int = 22) -> bool:
    argv = ["timeout", "1", "bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"]
    return lab.in_network(argv, place).returncode == 0


def test_every_stand_in_is_openbsd_and_lets_the_deployment_in(lab: Lab) -> None:
    for name in lab.stand_ins.hosts:
        assert lab.ssh(name, "uname -s; id -un; doas id -un; hostname").split() == [
            *("OpenBSD", "deploy", "root", f"{name}.chown.me")
        ]


def test_a_running_stand_in_is_left_alone(lab: Lab) -> None:
    before = {name: host.init() for name, host in lab.stand_ins.hosts.items()}
    lab.up(list(lab.stand_ins.hosts), machines=False)
    assert {name: host.init() for name, host in lab.stand_ins.hosts.items()} == before
    assert all("running" in line for line in lab.stand_ins.status().values())


def test_what_is_enabled_runs_and_mail_is_delivered(lab: Lab) -> None:
    for name in lab.stand_ins.hosts:
        assert in_stand_in(lab, name, "rcctl ls failed") == "", name
    in_stand_in(lab, "virtie", "echo a letter | mail -s test deploy")
    until = time.monotonic() + 20
    while "a letter" not in in_stand_in(lab, "virtie", "cat /var/mail/deploy 2>&1 || true"):
        assert time.monotonic() < until
        time.sleep(0.2)


def test_the_shell_is_of_openbsds_family(lab: Lab) -> None:
    for name in lab.stand_ins.hosts:
        assert "MIRBSD KSH" in lab.ssh(name, "sh -c 'echo $KSH_VERSION'")


def test_debian_is_out_of_sight(lab: Lab) -> None:
    found = lab.ssh("db1", f"for name in {' '.join(HIDDEN)}; do command -v $name; done; echo $PATH; true")
    assert found.splitlines() == ["/usr/bin:/bin:/usr/sbin:/sbin:/usr/X11R6/bin:/usr/local/bin:/usr/local/sbin"]
    assert lab.ssh("db1", "ls -l /bin/ksh; ls -ld /bin /sbin").count("wheel") == 3


def test_root_does_not_reach_the_machine_below(lab: Lab) -> None:
    now = time.time()
    for command in (
        "/usr/lib/standin/bin/date -s 2020-01-01",
        "/usr/lib/standin/bin/mknod /tmp/disk b 254 0",
        "/usr/lib/standin/bin/mount -t sysfs sysfs /mnt",
        "/usr/lib/standin/bin/unshare --mount true",
        "echo 0 >/proc/sys/kernel/panic",
        "/usr/lib/standin/bin/hostname elsewhere",
    ):
        in_stand_in(lab, "db1", f"if {command}; then exit 7; fi")
    # Where the kernel of the machine below has it, what is written there goes nowhere: it is /dev/null.
    trigger = "/proc/sysrq-trigger"
    shown = in_stand_in(lab, "db1", f"! [ -e {trigger} ] || /usr/lib/standin/bin/stat -c '%F %t:%T' {trigger}")
    assert shown == ("character special file 1:3\n" if Path(trigger).exists() else "")
    status = in_stand_in(lab, "db1", "cat /proc/self/status")
    (bounding,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd"))
    for number in (16, 17, 19, 21, 22, 25, 27):  # module, rawio, ptrace, admin, boot, time, mknod
        assert not bounding >> number & 1
    assert abs(time.time() - now) < 60
    assert len(in_stand_in(lab, "db1", "ls -d /proc/[0-9]*").split()) < 100


def test_the_internet_reaches_what_is_there_and_nothing_else(lab: Lab) -> None:
    reached = {
        (place, name)
        for place in ("stranger", "owner")
        for name, address in {**PUBLIC, **{f"{n} (flat)": a for n, a in FLAT.items()}}.items()
        if opens(lab, place, address)
    }
    assert reached == {(place, name) for place in ("stranger", "owner") for name in PUBLIC}
    assert opens(lab, "stranger", "2001:db8:2::80") and opens(lab, "stranger", "2001:db8:3::53")
    assert not opens(lab, "stranger", "2001:db8:1::21")
    assert all(opens(lab, "home", address) for address in FLAT.values())
    assert opens(lab, "home", "2001:db8:1::22")
    # The router forwards nothing before it was told to.
    assert not opens(lab, "home", PUBLIC["virtie"])
    assert opens(lab, "virtie", PUBLIC["ns3"]) and not opens(lab, "virtie", FLAT["db1"])


def test_a_deployment_comes_from_the_address_that_the_site_expects(lab: Lab) -> None:
    assert lab.ssh("virtie", "echo $SSH_CONNECTION").split()[0] == "203.0.113.2"
    assert lab.ssh("ns3", "echo $SSH_CONNECTION").split()[0] == "203.0.113.2"
    assert lab.ssh("db1", "echo $SSH_CONNECTION").split()[0] == "192.168.1.100"


def test_a_reboot_forgets_what_a_reboot_forgets(lab: Lab) -> None:
    before = lab.ssh("web1", "sysctl -n kern.boottime")
    in_stand_in(
        lab,
        "web1",
        "ifconfig vio0 inet alias 192.168.1.99/32 && echo kept >/etc/kept && echo gone >/tmp/gone && "
        "echo gone >/var/run/gone && /usr/lib/standin/bin/nft add table inet leftover",
    )
    assert opens(lab, "home", "192.168.1.99")
    time.sleep(1)
    lab.reboot("web1")
    assert lab.ssh("web1", "sysctl -n kern.boottime") != before
    assert not opens(lab, "home", "192.168.1.99")
    shown = in_stand_in(
        lab, "web1", "cat /etc/kept; ls /tmp/gone /var/run/gone; /usr/lib/standin/bin/nft list tables; true"
    )
    assert shown.splitlines()[0] == "kept"
    assert shown.count("No such file") == 2 and "leftover" not in shown


@pytest.mark.parametrize("command", ["reboot", "shutdown -r now"])
def test_it_reboots_from_inside(lab: Lab, command: str) -> None:
    host = lab.stand_ins.hosts["db1"]
    before = host.init()
    with contextlib.suppress(LabError):
        lab.ssh("db1", f"doas {command}")
    until = time.monotonic() + 30
    while host.init() in (before, None):
        assert time.monotonic() < until
        time.sleep(0.05)
    host.wait()


def test_a_halted_one_is_off_and_a_lost_power_loses_no_file(lab: Lab) -> None:
    host = lab.stand_ins.hosts["manicouagan1"]
    with contextlib.suppress(LabError):
        lab.ssh("manicouagan1", "doas shutdown -h now")
    until = time.monotonic() + 40
    while host.process() is not None:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert lab.status()["manicouagan1"] == "off"
    lab.start("manicouagan1")
    in_stand_in(lab, "manicouagan1", "echo written >/etc/written")
    pid = host.process()
    lab.kill("manicouagan1")
    assert pid is not None and not pid.alive()
    lab.start("manicouagan1")
    assert lab.ssh("manicouagan1", "cat /etc/written") == "written\n"


def test_an_invocation_that_is_not_modelled_is_kept_even_if_the_caller_swallowed_it(lab: Lab) -> None:
    assert lab.ssh("web1", "doas shutdown -r +5 || echo swallowed").endswith("swallowed\n")
    (line,) = forgive(lab, "web1")
    assert line.startswith("standin: not modelled: shutdown -r +5")


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("Port 22\n", 0, ""),
        ("Port 22\nFoo yes\n", 255, "/tmp/sshd: line 2: Bad configuration option: Foo"),
        ("Port 22\nUsePAM yes\n", 255, "/tmp/sshd: line 2: Bad configuration option: UsePAM"),
        ("Port none\n", 255, "/tmp/sshd line 1: Badly formatted port number."),
        ("Match LocalPort 22\n\tAuthenticationMethods publickey,keyboard-interactive:bsdauth\n", 0, ""),
        ("AuthenticationMethods nonsense\n", 255, "/tmp/sshd line 1"),
    ],
)
def test_sshd_reads_its_configuration_as_the_contract_says(lab: Lab, text: str, code: int, message: str) -> None:
    """Section 5: silent and 0, or `F line N: ...` and 255."""
    said = in_stand_in(lab, "web1", f"printf '{text}' >/tmp/sshd; sshd -t -f /tmp/sshd", code)
    assert message.lower() in said.lower() and bool(said) == bool(code)


def test_an_option_of_sshd_that_cannot_be_carried_over_is_not_modelled(lab: Lab) -> None:
    in_stand_in(lab, "web1", "echo 'RDomain 1' >/tmp/sshd; sshd -t -f /tmp/sshd", EXIT)
    (line,) = forgive(lab, "web1")
    assert "RDomain" in line


TWO_FACTORS = """
set -e
pkg_add -I login_oath >/dev/null
echo 'totp:auth-ssh=-totp:tc=default:' >/etc/login.conf.d/totp
for user in alice bob; do
	useradd -m -L totp $user
	mkdir -p /home/$user/.ssh
	cp /home/deploy/.ssh/authorized_keys /home/$user/.ssh/authorized_keys
	chmod 750 /home/$user
done
openssl rand -hex 20 >/home/alice/.totp-key
chmod 400 /home/alice/.totp-key
chown -R alice:alice /home/alice
chown -R bob:bob /home/bob
cat >>/etc/ssh/sshd_config <<END
Port 22
Port 2022
KbdInteractiveAuthentication yes
PasswordAuthentication no
PerSourcePenalties no
AuthenticationMethods publickey,keyboard-interactive:bsdauth
Match User deploy
	AuthenticationMethods publickey
END
sshd -t
rcctl reload sshd
"""


@pytest.fixture(scope="module")
def two_factors(lab: Lab) -> Iterator[Lab]:
    """A host that wants a key and a code; it is installed anew afterwards."""
    in_stand_in(lab, "ns3", TWO_FACTORS)
    until = time.monotonic() + 10
    while not opens(lab, "owner", PUBLIC["ns3"], 2022):
        assert time.monotonic() < until
        time.sleep(0.1)
    yield lab
    host = lab.stand_ins.hosts["ns3"]
    assert host.unmodelled() == []
    host.stop(grace=0)
    shutil.rmtree(host.directory)
    lab.start("ns3")


def login(lab: Lab, folder: Path, user: str, code: str, *options: str) -> bool:
    """Log in to ns3 from elsewhere with the key and an answer; tell whether it was let in."""
    askpass = folder / "askpass"
    askpass.write_text(f"#!/bin/sh\necho '{code}'\n")
    askpass.chmod(0o755)
    words = ["-o", "NumberOfPasswordPrompts=1", "-o", f"UserKnownHostsFile={lab.known_hosts}", *options]
    argv = [*("env", f"SSH_ASKPASS={askpass}", "SSH_ASKPASS_REQUIRE=force", "ssh", "-F", "none"), *words]
    argv += ["-i", str(lab.key), "-l", user, PUBLIC["ns3"], "id -un"]
    done = lab.in_network(argv, "owner")
    assert not (done.returncode and done.stdout)
    return done.returncode == 0


def code(lab: Lab, step: int) -> str:
    """Return alice's code of a step of half a minute around now."""
    key = in_stand_in(lab, "ns3", "cat /home/alice/.totp-key").strip()
    oath = f"/usr/lib/standin/bin/oathtool --totp --now '@{int(time.time()) + 30 * step}' {key}"
    return in_stand_in(lab, "ns3", oath).strip()


def test_the_second_factor(two_factors: Lab, tmp_path: Path) -> None:
    lab = two_factors
    assert not login(lab, tmp_path, "alice", "000000")
    assert not login(lab, tmp_path, "alice", code(lab, 0), "-o", "KbdInteractiveAuthentication=no")
    first = code(lab, 0)
    assert login(lab, tmp_path, "alice", first)
    assert not login(lab, tmp_path, "alice", first), "a replayed code"
    assert not login(lab, tmp_path, "alice:passwd", code(lab, 1)), "another style"
    assert login(lab, tmp_path, "alice", code(lab, 1)), "a clock that is half a minute fast"
    assert not login(lab, tmp_path, "bob", code(lab, 1)), "without a secret"
    assert login(lab, tmp_path, "deploy", "")
    assert not login(lab, tmp_path, "root", "")


def test_a_style_that_is_permitted_is_not_modelled(two_factors: Lab, tmp_path: Path) -> None:
    assert not login(two_factors, tmp_path, "alice:-totp", "000000")
    lines = forgive(two_factors, "ns3")
    assert lines and all("alice:-totp" in line for line in lines)


def test_a_reload_with_a_broken_configuration_keeps_the_daemon(two_factors: Lab, tmp_path: Path) -> None:
    """Contract 1.4: sshd has a configtest, and rcctl does not reload past it."""
    broken = "cp /etc/ssh/sshd_config /tmp/kept; echo Foo >>/etc/ssh/sshd_config; rcctl reload sshd"
    in_stand_in(two_factors, "ns3", broken, 1)
    assert login(two_factors, tmp_path, "deploy", "")
    in_stand_in(two_factors, "ns3", "cp /tmp/kept /etc/ssh/sshd_config; rcctl reload sshd")


def test_everything_ends_with_the_lab(lab: Lab) -> None:
    hosts = lab.stand_ins.hosts.values()
    processes = [process for host in hosts if (process := host.process()) is not None]
    processes += [Process.of(pid) for host in hosts if (pid := host.init()) is not None]
    assert len(processes) == 2 * len(hosts) and all(process.alive() for process in processes)
    # A crash of the computer's own takes the records with it, not the processes.
    (lab.stand_ins.hosts["db1"].directory / "standin.json").unlink()
    lab.down()
    until = time.monotonic() + 5
    while any(process.alive() for process in processes):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not [name for name in os.listdir("/run/netns") if name.startswith(f"hf{STAND_INS}")]  # noqa: PTH208
    lab.up(list(lab.stand_ins.hosts), machines=False)
