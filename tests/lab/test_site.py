"""The base on every OpenBSD host: deployed from nothing, again, after a reboot, and who is let in by what it made."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fleet.load import ROOT, load
from tests.lab.conftest import STAND_INS
from tests.lab.host import run
from tests.lab.pair import Pair

OPENBSD = ("db1", "manicouagan1", "ns3", "pancake", "virtie", "web1")
MAX_EXECS = 10
EVERYTHING = ("--limit", "openbsd")
RULES = "pfctl -sr; sha256 -q /etc/pf.conf"
# pf.conf of ns3 with some words of it replaced, as a mistake in a template would do.
BENT = """\
from deploys.services.pf import Pf

vultr.site = bend(vultr.site, "ns3", Pf, "{old}", "{new}")
"""


def root(site: Pair, name: str, command: str) -> str:
    """Run a command as the stand-in's root, past its sshd, and return what it printed."""
    argv = site.lab.stand_ins.hosts[name].enter(["/bin/ksh", "-c", command])
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=-1, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def opens(site: Pair, place: str, address: str, port: int) -> bool:
    argv = ["timeout", "2", "bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"]
    return site.lab.in_network(argv, place).returncode == 0


PEOPLE = """\
from inventories import vultr

_people = tuple(it.model_copy(update={{"public_keys": {keys!r}}}) for it in vultr.site.people)
vultr.site = vultr.site.model_copy(update={{"people": _people}})
"""


def armed(site: Pair, changes: str) -> subprocess.Popen[bytes]:
    """Start a run on ns3 and return its process once the way back of pf's rules is armed."""
    log = site.folder / f"armed{time.monotonic_ns()}.txt"
    with log.open("w") as out:
        process = subprocess.Popen(
            site.command(["-y", "--limit", "ns3"], changes, "site"),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, "PYINFRA_PROGRESS": "off"},
        )
    until = time.monotonic() + 120
    while "pf" not in root(site, "ns3", "ls /var/db/homefleet/armed").split():
        if time.monotonic() > until or process.poll() is not None:
            process.kill()
            raise AssertionError(log.read_text())
        time.sleep(0.1)
    return process


def wait_for_rest(site: Pair, seconds: float) -> None:
    """Wait until nothing of pf's set is armed or pending on ns3."""
    until = time.monotonic() + seconds
    while "pf" in root(site, "ns3", "ls /var/db/homefleet/armed /var/db/homefleet/pending").split():
        assert time.monotonic() < until, f"not within {seconds:.0f} s"
        time.sleep(0.5)


def sessions(site: Pair, name: str, kind: str) -> int:
    """Return how many sessions of a kind, ``command`` or ``subsystem`` (sftp), the host's own sshd has started."""
    return int(root(site, name, f"grep -c 'Starting session: {kind}' /var/log/authlog || :"))


def test_a_second_run_changes_nothing_and_is_cheap(site: Pair) -> None:
    before = {(name, kind): sessions(site, name, kind) for name in OPENBSD for kind in ("command", "subsystem")}
    run = site.deploy(*EVERYTHING, role="site")
    assert run.code == 0, run.output
    for name in OPENBSD:
        assert run.changes(name) == 0, run.output
        used = sessions(site, name, "command") - before[name, "command"]
        assert 0 < used <= MAX_EXECS, f"{name}: {used} commands"
        assert sessions(site, name, "subsystem") == before[name, "subsystem"], f"{name}: an upload"


def test_a_run_after_a_reboot_changes_nothing(site: Pair) -> None:
    """What was confirmed survives, the rules of pf that rc loads among it."""
    before = {name: root(site, name, RULES) for name in OPENBSD}
    with ThreadPoolExecutor() as pool:
        list(pool.map(site.reboot, OPENBSD))
    assert {name: root(site, name, RULES) for name in OPENBSD} == before
    run = site.deploy(*EVERYTHING, role="site")
    assert run.code == 0, run.output
    assert [run.changes(name) for name in OPENBSD] == [0] * len(OPENBSD), run.output
    for name in OPENBSD:
        assert root(site, name, "rcctl ls failed || :") == "", name


def test_our_rules_load_in_the_state_of_early_boot(site: Pair) -> None:
    """Without an interface, an address, a resolver or a daemon, as pf.conf may find it; as good as later."""
    for name in OPENBSD:
        loaded = root(site, name, "pfctl -sr")
        load = site.lab.stand_ins.hosts[name].enter(["/bin/ksh", "-c", "pfctl -f /etc/pf.conf && pfctl -sr"])
        argv = ["unshare", "--net", *(word for word in load if word != "--net")]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=-1, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (0, loaded), name
        assert root(site, name, "pfctl -sr") == loaded


def test_what_is_not_declared_is_closed(site: Pair) -> None:
    """Port 22 listens, for the day on which pf.conf does not load, and nobody reaches it."""
    public = {"virtie": "198.51.100.80", "ns3": "192.0.2.53", "pancake": "203.0.113.2"}
    for name in public:
        assert root(site, name, "netstat -na -f inet | grep -c '[.]22 .*LISTEN'").strip() != "0"
    tried = [(name, place, port) for name in public for place in ("stranger", "owner") for port in (22, 53, 2022, 2247)]
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda it: opens(site, it[1], public[it[0]], it[2]), tried))
    assert {it for it, open_ in zip(tried, found, strict=True) if open_} == {it for it in tried if it[2] == 2022}
    assert opens(site, "deployer", public["virtie"], 2247) and opens(site, "deployer", public["ns3"], 2247)


def test_a_person_opens_the_deployments_port_for_an_address(site: Pair) -> None:
    assert not opens(site, "owner", "192.0.2.53", 2247)
    root(site, "ns3", "pfctl -q -t deploy_allowed -T add 100.64.1.10")
    assert opens(site, "owner", "192.0.2.53", 2247)
    assert not opens(site, "stranger", "192.0.2.53", 2247)
    root(site, "ns3", "pfctl -q -t deploy_allowed -T delete 100.64.1.10")
    assert not opens(site, "owner", "192.0.2.53", 2247)


def test_a_banned_address_is_shut_out_of_everything_but_stays_out_of_nobodys_way(site: Pair) -> None:
    root(site, "virtie", "pfctl -q -t api_bans -T add 100.64.2.10 203.0.113.2")
    assert not opens(site, "stranger", "198.51.100.80", 2022)
    assert opens(site, "owner", "198.51.100.80", 2022)
    # Our own address is passed before any ban.
    assert opens(site, "deployer", "198.51.100.80", 2247)
    root(site, "virtie", "pfctl -q -t api_bans -T flush")


def test_what_a_host_receives_is_its_own(site: Pair) -> None:
    """A person's code is one a site, a host's key its own, and no secret is where others of the host can read it."""
    fleet, _ = load(str(site.inventory()))
    places = {name: fleet.site_of(fleet.host(name)).name for name in OPENBSD}
    seeds = {name: root(site, name, "cat /home/owner/.totp-key").strip() for name in OPENBSD}
    assert len(set(seeds.values())) == len(set(zip(places.values(), seeds.values(), strict=True))) == 3
    keys = {name: root(site, name, "sed -n 5p /etc/ssh/ssh_host_ed25519_key").strip() for name in OPENBSD}
    assert len(set(keys.values())) == len(OPENBSD)
    for name, seed in seeds.items():
        others = [keys[other] for other in OPENBSD if other != name]
        others += [value for other, value in seeds.items() if places[other] != places[name]]
        words = " ".join(f"-e {value}" for value in others)
        found = root(site, name, f"grep -rlF {words} /etc /home /root /var 2>/dev/null || :")
        assert found == "", f"{name}: another host's secret is in {found}"
        where = root(site, name, f"grep -rl {seed} /etc /home /root /var /tmp 2>/dev/null || :")
        assert where == "/home/owner/.totp-key\n"
        assert root(site, name, "stat -f '%Su %Lp' /home/owner/.totp-key").split() == ["owner", "400"]


def test_an_error_in_pf_conf_never_loads(site: Pair) -> None:
    before = root(site, "ns3", RULES)
    run = site.deploy("--limit", "ns3", changes=BENT.format(old="keep state", new="keep stat"), role="site")
    assert run.code != 0, run.output
    assert "the check refused the new files" in run.failed("ns3")["pf"], run.output
    assert root(site, "ns3", RULES) == before


def test_rules_that_lock_out_go_back_within_a_minute_though_the_controller_is_dead(site: Pair) -> None:
    """The real minute: the host's own timer puts the old rules back."""
    before = root(site, "ns3", RULES)
    process = armed(site, BENT.format(old="port 2247", new="port 2299"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    start = time.monotonic()
    wait_for_rest(site, 60)
    assert time.monotonic() - start > 20
    assert root(site, "ns3", RULES) == before
    again = site.deploy("--limit", "ns3", role="site")
    assert again.code == 0, again.output
    assert again.changes("ns3") == 0, again.output


def test_a_reboot_within_that_minute_comes_back_with_the_old_rules(site: Pair) -> None:
    before = root(site, "ns3", RULES)
    process = armed(site, BENT.format(old="port 2247", new="port 2299"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    site.lab.kill("ns3")
    site.lab.start("ns3")
    wait_for_rest(site, 20)
    assert root(site, "ns3", RULES) == before
    again = site.deploy("--limit", "ns3", role="site")
    assert again.code == 0, again.output
    assert again.changes("ns3") == 0, again.output


def test_who_is_let_in_and_who_is_not(site: Pair, tmp_path: Path) -> None:
    """All from the owner's own address, which no ban and no penalty of sshd applies to: it spares nobody the code."""
    keys = {}
    for name in ("person", "stranger"):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", tmp_path / name])
        keys[name] = (tmp_path / f"{name}.pub").read_text().strip()
    people = PEOPLE.format(keys=(keys["person"],))
    assert site.deploy("--limit", "ns3", changes=people, role="site").code == 0

    def login(user: str, port: int, key: Path, code: str = "") -> bool:
        askpass = tmp_path / "askpass"
        askpass.write_text(f"#!/bin/sh\necho '{code}'\n")
        askpass.chmod(0o755)
        options = {
            "NumberOfPasswordPrompts": "1" if code else "0",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "IdentitiesOnly": "yes",
            "ConnectTimeout": "5",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        argv = ["env", f"SSH_ASKPASS={askpass}", "SSH_ASKPASS_REQUIRE=force", "ssh", "-F", "none", *words]
        argv += ["-i", str(key), "-p", str(port), "-l", user, "192.0.2.53", "id -un"]
        return site.lab.in_network(argv, "deployer").returncode == 0

    def code(step: int = 0) -> str:
        seed = root(site, "ns3", "cat /home/owner/.totp-key").strip()
        oath = f"/usr/lib/standin/bin/oathtool --totp --now '@{int(time.time()) + 30 * step}' {seed}"
        return root(site, "ns3", oath).strip()

    mine, strange, deploy = tmp_path / "person", tmp_path / "stranger", site.lab.key
    assert not login("owner", 2022, mine), "the key alone"
    assert not login("owner", 2022, mine, "000000"), "a wrong code"
    assert not login("owner", 2022, strange, code()), "the code alone"
    now = code()
    assert login("owner", 2022, mine, now)
    assert not login("owner", 2022, mine, now), "a replayed code"
    assert not login("owner:passwd", 2022, mine, code(1)), "another style"
    assert not login("owner", 2247, mine, code(1)), "a person on the deployment's port"
    assert not login("deploy", 2022, deploy), "the deployment on the people's port"
    assert not login("deploy", 2247, strange), "a deploy key of another site"
    assert login("deploy", 2247, deploy)
    assert not login("root", 2022, deploy)
    root(site, "ns3", "rm /home/owner/.totp-key")
    assert not login("owner", 2022, mine, "123456"), "an account without a secret"
    back = site.deploy("--limit", "ns3", role="site")
    assert back.code == 0, back.output
    assert "totp" in back.output


def test_a_broken_secret_stops_the_run_before_the_first_connection(site: Pair) -> None:
    """A file that only another site's key reads: one line that names it, and nobody was asked anything."""
    folder = Path(ROOT, f".lab/{STAND_INS}/secrets")
    file = folder / "vultr" / "ns3.age"
    kept = file.read_bytes()
    count = "grep -c 'Accepted publickey for deploy' /var/log/authlog || :"
    before = root(site, "ns3", count)
    file.write_bytes((folder / "home" / "db1.age").read_bytes())
    try:
        refused = site.deploy(*EVERYTHING, role="site")
    finally:
        file.write_bytes(kept)
    assert refused.code != 0
    assert "ns3.age" in refused.output
    assert "Starting operation" not in refused.output, refused.output
    assert root(site, "ns3", count) == before


def test_nothing_of_a_lab_is_asked_of_production(site: Pair) -> None:
    """The lab's secrets are in the lab's own folder, of the lab's own kind."""
    fleet, _ = load(str(site.inventory()))
    assert {place.secrets.kind for place in fleet.sites} == {"lab"}
    assert {place.secrets.folder for place in fleet.sites} == {f".lab/{STAND_INS}/secrets"}
    assert Path(ROOT, f".lab/{STAND_INS}/secrets/home/db1.age").is_file()
