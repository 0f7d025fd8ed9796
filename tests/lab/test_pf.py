"""The stand-in's pf for real: its rules in nftables, in network namespaces of the test's own; contract 3."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import images
from tests.lab.host import need_root
from tests.lab.openbsd.pf_oracle import Oracle, Packet
from tests.lab.openbsd.standin.pf.kernel import STATE
from tests.lab.openbsd.standin.rc import BUILT_IN_RULES

HERE = Path(__file__).resolve().parents[2]
WALL6, NET6 = "2001:db8:9::2", "2001:db8:9::9"
WALL, NET, LAN = "203.0.113.2", "203.0.113.9", "192.168.1.9"
SECOND = "203.0.113.10"
# Without `site`: the stand-in has the standard library only, and starts faster.
PYTHON = (sys.executable, "-S", "-c")

SERVER = """
import socket, sys, threading
def serve(sock):
    while True:
        conn, peer = sock.accept()
        def talk(conn=conn, peer=peer):
            with conn:
                conn.sendall(peer[0].removeprefix("::ffff:").encode() + b"\\n")
                while data := conn.recv(100):
                    conn.sendall(data)
        threading.Thread(target=talk, daemon=True).start()
for port in map(int, sys.argv[1:]):
    tcp = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    threading.Thread(target=serve, args=(tcp,), daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""

# One connection for each line of "SOURCE DEST PORT", all of them kept until the end; then each is asked once more.
CLIENT = """
import json, socket, sys
found, kept = [], []
for line in sys.stdin.read().splitlines():
    source, dest, port = line.split()
    sock = socket.socket(socket.AF_INET6 if ":" in dest else socket.AF_INET)
    sock.settimeout(0.6)
    try:
        sock.bind((source, 0))
        sock.connect((dest, int(port)))
        found.append(sock.recv(100).decode().strip() or "closed")
        kept.append(sock)
    except TimeoutError:
        found.append("timeout")
    except OSError as error:
        found.append(type(error).__name__)
alive = []
for sock in kept:
    try:
        sock.sendall(b"x")
        alive.append(sock.recv(1) == b"x")
    except OSError:
        alive.append(False)
print(json.dumps({"found": found, "alive": alive}))
"""

# A connection that stays: each line on standard input is sent, and the answer written, `dead` without one.
HELD = """
import socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2)
print(sock.recv(100).decode().strip(), flush=True)
sock.settimeout(0.6)
for line in sys.stdin:
    try:
        sock.sendall(b"x")
        print("alive" if sock.recv(1) == b"x" else "dead", flush=True)
    except OSError:
        print("dead", flush=True)
"""


class Place:
    """Three hosts: the one with pf, `net` on its em0 and `lan` on its em1."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = {name: f"hfpf{os.getpid()}{name}" for name in ("wall", "net", "lan")}
        self.started: list[subprocess.Popen[str]] = []
        (root / "etc").mkdir()
        shutil.copy("/etc/passwd", root / "etc")
        shutil.copy(images.packages_image() / "root/etc/services", root / "etc")
        toolbox = images.packages_image() / "root"
        library = toolbox / "usr/lib/x86_64-linux-gnu"
        nft = root / "nft"
        nft.write_text(
            f"#!/bin/sh\nexec {toolbox}/lib64/ld-linux-x86-64.so.2 --library-path {library} "
            f'{toolbox}/usr/sbin/nft "$@"\n'
        )
        nft.chmod(0o755)

    def up(self) -> None:
        for name in self.names.values():
            _run(["ip", "netns", "add", name])
            _run(["ip", "-n", name, "link", "set", "lo", "up"])
        for interface, other in (("em0", "net"), ("em1", "lan")):
            peer = ["peer", "name", "eth0", "netns", self.names[other]]
            _run(["ip", "-n", self.names["wall"], "link", "add", interface, "type", "veth", *peer])
            _run(["ip", "-n", self.names["wall"], "link", "set", interface, "up"])
            _run(["ip", "-n", self.names[other], "link", "set", "eth0", "up"])
        for name, interface, address in (
            ("wall", "em0", f"{WALL}/24"),
            ("wall", "em1", "192.168.1.1/24"),
            ("net", "eth0", f"{NET}/24"),
            ("net", "eth0", f"{SECOND}/24"),
            ("lan", "eth0", f"{LAN}/24"),
        ):
            _run(["ip", "-n", self.names[name], "address", "add", address, "dev", interface])
        for name, interface, address in (("wall", "em0", WALL6), ("net", "eth0", NET6)):
            _run(["ip", "-n", self.names[name], "address", "add", f"{address}/64", "dev", interface, "nodad"])
        _run(["ip", "-n", self.names["lan"], "route", "add", "default", "via", "192.168.1.1"])
        _run(["ip", "-n", self.names["wall"], "route", "add", "default", "via", NET])
        self.run("wall", ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])
        for name in self.names:
            server = self.start(name, [*PYTHON, SERVER, "22", "25", "80", "2222", "8080"])
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"

    def down(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
        for name in self.names.values():
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True, timeout=20)

    def start(self, name: str, argv: list[str]) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = ["ip", "netns", "exec", self.names[name], *argv]
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.started.append(process)
        return process

    def run(self, name: str, argv: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "STANDIN_ROOT": str(self.root),
            "STANDIN_NFT": str(self.root / "nft"),
            "STANDIN_IP": shutil.which("ip") or "/usr/sbin/ip",
            "PYTHONPATH": str(HERE),
        }
        return subprocess.run(
            ["ip", "netns", "exec", self.names[name], *argv],
            input=stdin,
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )

    def pfctl(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        code = "import sys; from tests.lab.openbsd.standin.pfctl import main; sys.exit(main(sys.argv[1:]))"
        return self.run("wall", [*PYTHON, code, *words], stdin)

    def load(self, rules: str) -> None:
        done = self.pfctl("-f", "-", stdin=rules)
        assert (done.returncode, done.stderr) == (0, "")

    def table(self, name: str) -> list[str]:
        return self.pfctl("-t", name, "-T", "show").stdout.split()

    def tries(self, name: str, *connections: tuple[str, str, int]) -> tuple[list[str], list[bool]]:
        """Connect from one of the hosts; an answer is the address that the other side saw."""
        lines = "".join(f"{source} {dest} {port}\n" for source, dest, port in connections)
        done = self.run(name, [*PYTHON, CLIENT], lines)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        return found["found"], found["alive"]

    def hold(self, name: str, dest: str, port: int) -> Held:
        return Held(self.start(name, [*PYTHON, HELD, dest, str(port)]))


class Held:
    """A connection that is asked from time to time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        self.seen_as = self._out.readline().strip()

    def alive(self) -> bool:
        self._in.write("\n")
        self._in.flush()
        return self._out.readline() == "alive\n"


def _run(argv: list[str]) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=20)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    need_root()
    place = Place(tmp_path_factory.mktemp("pf"))
    try:
        place.up()
        yield place
    finally:
        place.down()


@pytest.fixture
def place(made: Place) -> Iterator[Place]:
    """A pf that is on, without rules, tables or states."""
    done = made.pfctl("-e")
    assert (done.returncode, done.stderr) == (0, "pf enabled\n")
    yield made
    made.pfctl("-F", "all")
    made.pfctl("-d")


@pytest.mark.parametrize(("action", "seen"), [("drop", "timeout"), ("return", "ConnectionRefusedError")])
def test_a_closed_port_is_closed(place: Place, action: str, seen: str) -> None:
    place.load(f"block {action} all\npass in on em0 proto tcp to port 25\n")
    assert place.tries("net", (NET, WALL, 22), (NET, WALL, 25))[0] == [seen, NET]


def test_default_deny_both_ways(place: Place) -> None:
    place.load("block return all\npass out on em0 proto tcp to port 80\n")
    assert place.tries("wall", (WALL, NET, 22), (WALL, NET, 80))[0] == ["ConnectionRefusedError", WALL]


def test_off_is_off_and_on_again_has_the_rules(place: Place) -> None:
    place.load("block all\n")
    assert place.pfctl("-d").stderr == "pf disabled\n"
    assert place.tries("net", (NET, WALL, 22))[0] == [NET]
    assert place.pfctl("-e").stderr == "pf enabled\n"
    assert place.tries("net", (NET, WALL, 22))[0] == ["timeout"]


def test_a_ruleset_with_an_error_leaves_the_old_one(place: Place) -> None:
    place.load("block all\npass in proto tcp to port 25\n")
    done = place.pfctl("-f", "-", stdin="pass all\nblock nonsense\n")
    assert done.returncode == 1
    assert "pf rules not loaded" in done.stderr
    assert place.tries("net", (NET, WALL, 22), (NET, WALL, 25))[0] == ["timeout", NET]


def test_a_state_outlives_the_rule_until_it_is_killed(place: Place) -> None:
    place.load("block all\npass in proto tcp to port 22\n")
    held = place.hold("net", WALL, 22)
    assert held.alive()
    place.load("block all\n")
    assert held.alive()
    assert place.tries("net", (NET, WALL, 22))[0] == ["timeout"]
    states = place.pfctl("-ss").stdout
    assert f"all tcp {WALL}:22 <- {NET}:" in states
    assert "ESTABLISHED:ESTABLISHED" in states
    assert place.pfctl("-k", NET).stderr.startswith("killed 1 states from 1 sources and 0 destinations")
    assert not held.alive()


def test_a_connection_from_before_pf_has_no_state(made: Place) -> None:
    held = made.hold("net", WALL, 22)
    assert held.alive()
    made.pfctl("-e")
    try:
        made.load("block all\npass in proto tcp to port 22\n")
        assert not held.alive()
    finally:
        made.pfctl("-F", "all")
        made.pfctl("-d")


def test_tables_are_asked_at_once_and_survive_a_load(place: Place) -> None:
    rules = "table <bans> persist\nblock in quick from <bans>\npass all\n"
    place.load(rules)
    assert place.tries("net", (SECOND, WALL, 22))[0] == [SECOND]
    assert place.pfctl("-t", "bans", "-T", "add", "203.0.113.0/24", f"!{NET}").stderr == "2/2 addresses added.\n"
    assert place.tries("net", (SECOND, WALL, 22), (NET, WALL, 22))[0] == ["timeout", NET]
    place.load(rules)
    assert place.tries("net", (SECOND, WALL, 22))[0] == ["timeout"]
    assert place.pfctl("-t", "bans", "-T", "flush").stderr == "2 addresses deleted.\n"
    assert place.tries("net", (SECOND, WALL, 22))[0] == [SECOND]


def _limited(options: str) -> str:
    return (
        "table <brutes> persist\nblock in all\nblock in quick from <brutes>\npass in proto tcp to port 25\n"
        f"pass in proto tcp to port 2222 keep state ({options}, overload <brutes> flush global)\n"
    )


def test_too_many_connections_end_in_the_table(place: Place) -> None:
    place.load(_limited("max-src-conn 3"))
    other = place.hold("net", WALL, 25)
    assert other.seen_as == NET
    found, alive = place.tries("net", *[(NET, WALL, 2222)] * 3)
    assert (found, alive) == ([NET] * 3, [True] * 3)
    time.sleep(0.2)
    assert place.table("brutes") == []
    found, alive = place.tries("net", *[(NET, WALL, 2222)] * 4, (SECOND, WALL, 2222))
    assert found == [NET] * 3 + ["timeout", SECOND]
    # `flush global` ends what the offender had, and nobody else's.
    assert alive == [False] * 3 + [True]
    assert not other.alive()
    assert place.table("brutes") == [NET]
    assert place.tries("net", (NET, WALL, 25))[0] == ["timeout"]
    assert place.pfctl("-t", "brutes", "-T", "expire", "1000").stderr == "0/0 addresses expired.\n"
    assert place.pfctl("-t", "brutes", "-T", "delete", NET).stderr == "1/1 addresses deleted.\n"
    assert place.tries("net", (NET, WALL, 25))[0] == [NET]
    assert not other.alive()


def test_too_fast_connections_end_in_the_table(place: Place) -> None:
    place.load(_limited("max-src-conn-rate 2/60"))
    assert place.tries("net", *[(NET, WALL, 2222)] * 2)[0] == [NET] * 2
    assert place.table("brutes") == []
    place.tries("net", (NET, WALL, 2222))
    assert place.table("brutes") == [NET]
    assert place.table("brutes") == [NET]
    time.sleep(2)
    assert place.pfctl("-t", "brutes", "-T", "expire", "1").stderr == "1/1 addresses expired.\n"
    assert place.table("brutes") == []


def test_overload_outlives_a_load(place: Place) -> None:
    place.load(_limited("max-src-conn 1"))
    place.tries("net", *[(NET, WALL, 2222)] * 2)
    place.load(_limited("max-src-conn 1"))
    assert place.table("brutes") == [NET]
    assert place.tries("net", (NET, WALL, 25))[0] == ["timeout"]


def test_max_src_states_refuses_without_an_overload(place: Place) -> None:
    place.load("block in all\npass in proto tcp to port 22 keep state (max-src-states 2)\n")
    assert place.tries("net", *[(NET, WALL, 22)] * 3, (SECOND, WALL, 22))[0] == [NET, NET, "timeout", SECOND]


def test_a_router_translates(place: Place) -> None:
    place.load(
        "block all\nmatch out on em0 inet from !(em0:network) to any nat-to (em0:0)\n"
        "pass in on em1 proto tcp\npass out on em0 proto tcp from (em0) to port 80\n"
        "pass in on em0 inet proto tcp to (em0) port 8080 rdr-to 192.168.1.9 port 80\n"
        "pass out on em1 proto tcp to 192.168.1.9 port 80\n"
    )
    assert place.tries("lan", (LAN, NET, 80), (LAN, NET, 25))[0] == [WALL, "timeout"]
    assert place.tries("net", (NET, WALL, 8080), (NET, WALL, 80))[0] == [NET, "timeout"]


# 3: what `match` translates is seen translated by the rules after it; the source stays what it was.
def test_what_crosses_the_router_is_known_by_its_tag(place: Place) -> None:
    place.load(
        "block all\nmatch out on em0 inet from !(em0:network) to any nat-to (em0:0)\n"
        f"match in on em0 inet proto tcp from {{ {NET} 203.0.113.11 }} to (em0) port 8080 rdr-to 192.168.1.9\n"
        f"pass in quick on em0 inet proto tcp from {{ {NET} 203.0.113.11 }} to 192.168.1.9 port 8080 tag crossing\n"
        "pass out quick on em1 tagged crossing\n"
    )
    seen = place.tries("net", (NET, WALL, 8080), (SECOND, WALL, 8080), (NET, WALL, 80), (NET, WALL, 22))[0]
    assert seen == [NET, "timeout", "timeout", "timeout"]
    assert place.tries("wall", ("192.168.1.1", LAN, 8080))[0] != ["192.168.1.1"]


def test_what_goes_out_is_known_by_its_user(place: Place) -> None:
    place.load("block return out all\npass out proto tcp to port 80 user nobody\n")
    uid = place.run("wall", ["id", "-u", "nobody"]).stdout.strip()
    as_nobody = ["setpriv", f"--reuid={uid}", "--clear-groups", *PYTHON, CLIENT]
    done = place.run("wall", as_nobody, f"{WALL} {NET} 80\n")
    assert json.loads(done.stdout)["found"] == [WALL]
    assert place.tries("wall", (WALL, NET, 80))[0] == ["ConnectionRefusedError"]


def test_an_anchor_filled_later(place: Place) -> None:
    place.load('block in all\nanchor "jails/*"\n')
    assert place.pfctl("-a", "jails/one", "-f", "-", stdin="pass in proto tcp to port 25\n").returncode == 0
    assert place.tries("net", (NET, WALL, 22), (NET, WALL, 25))[0] == ["timeout", NET]
    assert place.pfctl("-sA").stdout == "  jails\n"


def test_rules_follow_an_interface(place: Place) -> None:
    place.load("block in all\npass in proto tcp to (em0) port 22\n")
    wall = place.names["wall"]
    _run(["ip", "-n", wall, "address", "add", "203.0.113.77/24", "dev", "em0"])
    try:
        assert place.tries("net", (NET, "203.0.113.77", 22))[0] == ["timeout"]
        code = "from tests.lab.openbsd.standin.pf.kernel import refresh; refresh()"
        assert place.run("wall", [*PYTHON, code]).returncode == 0
        assert place.tries("net", (NET, "203.0.113.77", 22))[0] == [NET]
    finally:
        _run(["ip", "-n", wall, "address", "delete", "203.0.113.77/24", "dev", "em0"])


def test_ipv6_needs_its_neighbours(place: Place) -> None:
    neighbours = "pass inet6 proto icmp6 icmp6-type { neighbrsol neighbradv }\n"
    place.load(f"block all\n{neighbours}pass in inet6 proto tcp to port 22\n")
    assert place.tries("net", (NET6, WALL6, 22), (NET6, WALL6, 25), (NET, WALL, 22))[0] == [NET6, "timeout", "timeout"]
    _run(["ip", "-n", place.names["net"], "neighbour", "flush", "dev", "eth0"])
    place.load("block all\npass in inet6 proto tcp to port 22\n")
    assert place.tries("net", (NET6, WALL6, 22))[0] != [NET6]


def test_an_echo_and_an_unreachable_come_back(place: Place) -> None:
    place.load("block all\npass out inet proto icmp icmp-type echoreq\npass out proto udp to port 9\n")
    assert place.run("wall", ["ping", "-c1", "-W1", NET]).returncode == 0
    assert place.run("net", ["ping", "-c1", "-W1", WALL]).returncode == 1
    code = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)\n"
        f"s.connect(('{NET}', 9)); s.send(b'x')\n"
        "try: s.recv(1)\nexcept OSError as error: print(type(error).__name__)"
    )
    assert place.run("wall", [*PYTHON, code]).stdout == "ConnectionRefusedError\n"


def test_the_built_in_rules_of_rc(place: Place) -> None:
    place.load(BUILT_IN_RULES)
    assert place.tries("net", (NET, WALL, 22), (NET, WALL, 2222))[0] == [NET, "timeout"]
    assert place.run("wall", ["ping", "-c1", "-W1", NET]).returncode == 0


def test_a_new_boot_has_no_states(place: Place) -> None:
    place.load("block all\npass in proto tcp to port 22\n")
    held = place.hold("net", WALL, 22)
    assert held.alive()
    (place.root / STATE.lstrip("/")).unlink()
    assert place.pfctl("-f", "-", stdin="block all\n").returncode == 0
    assert place.pfctl("-e").returncode == 0
    assert not held.alive()


def test_random_rulesets_do_what_pf_would(place: Place) -> None:
    seed = int(os.environ.get("PF_SEED", "4"))
    dice = random.Random(seed)
    tables = {"t": ["203.0.113.0/24", f"!{SECOND}"], "u": ["192.168.0.0/16"]}
    declared = "".join(f"table <{name}> {{ {' '.join(entries)} }}\n" for name, entries in tables.items())
    for _ in range(10):
        rules = "block return in all\n" * dice.randint(0, 1) + "".join(_rule(dice) for _ in range(dice.randint(1, 7)))
        place.load(declared + rules)
        oracle = Oracle(rules, tables)
        flows = [(dice.choice((NET, SECOND)), WALL, dice.choice((22, 25, 80))) for _ in range(5)]
        expected = [
            source if oracle.passes(Packet("in", "em0", "tcp", source, dest, 40000, port)) else "ConnectionRefusedError"
            for source, dest, port in flows
        ]
        assert place.tries("net", *flows)[0] == expected, f"seed {seed}:\n{rules}"


def _rule(dice: random.Random) -> str:
    words = [dice.choice(("pass", "block return", "match"))]
    words.append(dice.choice(("in", "in", "out")))
    if words[0] != "match" and dice.random() < 0.3:
        words.append("quick")
    words.append(dice.choice(("", "on em0", "on em1", "on ! em0")))
    words.append("inet")
    words.append("proto tcp")
    words.append("from " + dice.choice(("any", NET, f"! {NET}", "<t>", "! <t>", "! <u>")))
    words.append("to any" + dice.choice(("", " port 22", " port 22:25", " port != 80", " port 22 >< 80")))
    if dice.random() < 0.3:
        words.append(dice.choice(("tagged A", "! tagged A")))
    if words[0] in {"match", "pass"} and dice.random() < 0.4:
        words.append("tag " + dice.choice("AB"))
    return " ".join(word for word in words if word) + "\n"
