"""No secret shows anywhere (DESIGN O5, I2): canaries in every slot of two hosts, and whatever a run says and leaves."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr

from fleet.connector import REPORT_VARIABLE
from fleet.load import ROOT, load
from fleet.model.secret import MASK, SSH_HOST_KEY, Kind, Secret, ssh_key_halves, ssh_private_key
from fleet.model.site import Fleet
from fleet.secrets import hostkeys
from fleet.secrets.store import Store
from fleet.secrets.vault import open_for
from fleet.secrets.wanted import wanted
from tests.lab.canaries import HOSTS, PATH, Canaries, Watch, fields_of, files, models, wait_for, within, world_readable
from tests.lab.conftest import INDEX
from tests.lab.lab import Lab, lab_directory

# Beside the labs of the machines and of the other stand-ins.
CAGE = INDEX + 63
LIMIT = [word for name in HOSTS for word in ("--limit", name)]
PYINFRA = str(Path(sys.executable).with_name("pyinfra"))
FLEET = [sys.executable, "-c", "from fleet.cli import main; main()"]
SITE = str(ROOT / "deploys" / "site.py")
LOUD = ["-vvv", "--debug", "--debug-all"]
RUN_SECONDS = 300

INVENTORY = """\
from fleet.load import publish
from fleet.model.lab import in_the_lab
from inventories import exoscale, home, vultr
from tests.lab import transcript
from tests.lab.canaries import with_slots

transcript.begin()
{code}
publish(globals(), *(in_the_lab(with_slots(place.site, **{settings!r}), {index}) for place in (home, exoscale, vultr)))
"""

# What a run of pyinfra cannot be asked to do: the secrets of the lab are in a folder of their own.
CHECK = """\
import sys
from fleet.cli.secrets import secrets
from fleet.load import load
from fleet.secrets.store import Store
fleet, _ = load(sys.argv[1])
secrets.main(["check"], obj=Store(fleet, lambda site: site.secrets))
"""


@dataclass
class Said:
    """What a command printed and left behind on the controller, all of it."""

    code: int
    text: str
    report: str

    @property
    def everything(self) -> str:
        """All of it as one text."""
        return self.text + self.report


@dataclass
class Cage:
    """Two stand-ins whose slots are full, and what was found out about them."""

    lab: Lab
    folder: Path
    fleet: Fleet
    canaries: Canaries
    said: dict[str, Said] = field(default_factory=dict)
    count: int = 0

    @property
    def uppers(self) -> dict[str, Path]:
        """Everything that each host ever wrote."""
        return {name: self.lab.stand_ins.hosts[name].directory / "upper" for name in HOSTS}

    def inventory(self, code: str = "", **settings: str) -> str:
        """Write an inventory; `settings` are those of `Slots`, `code` runs before it is published."""
        self.count += 1
        path = self.folder / f"cage{self.count}.py"
        path.write_text(INVENTORY.format(code=code, settings=settings, index=self.lab.index))
        return str(path)

    def watch(self) -> Watch:
        """Return what looks at processes and at world-readable files while something runs."""
        return Watch(self.canaries, [*self.uppers.values(), self.folder])

    def run(self, *argv: str) -> Said:
        """Run a command in the scratch folder, where pyinfra puts its debug log, and return what it said."""
        process = self.start(*argv)
        text, _ = process.communicate(timeout=RUN_SECONDS)
        return self.ended(process.returncode, text)

    def start(self, *argv: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            argv,
            cwd=self.folder,
            env={**os.environ, REPORT_VARIABLE: str(self.folder / "report.json"), "PYINFRA_PROGRESS": "off"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ended(self, code: int, text: str) -> Said:
        report = ""
        for name in ("report.json", "pyinfra-debug.log", "verified.json"):
            path = self.folder / name
            with contextlib.suppress(FileNotFoundError):
                report += path.read_text()
                path.unlink()
        return Said(code, text, report)

    def deploy(self, *arguments: str, code: str = "", **settings: str) -> Said:
        """Run the whole role on the two hosts."""
        return self.run(PYINFRA, *arguments, *LIMIT, self.inventory(code, **settings), SITE)

    def root(self, name: str, command: str, stdin: str = "") -> str:
        """Run a command as a stand-in's root, past its sshd."""
        argv = self.lab.stand_ins.hosts[name].enter(["/bin/ksh", "-c", command])
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60, check=True).stdout

    def value(self, host: str, slot: str) -> str:
        return self.canaries.values[host][slot].get_secret_value()


@pytest.fixture(scope="module")
def cage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cage]:
    """The two hosts, deployed while everything that a run can say is written down."""
    lab = Lab(CAGE, lab_directory(CAGE), machines=())
    lab.down(wipe=True)
    lab.up(HOSTS, machines=False)
    folder = tmp_path_factory.mktemp("cage")
    made = Cage(lab, folder, Fleet(sites=()), Canaries({}))
    made.fleet, sites = load(made.inventory())
    made.canaries = Canaries(_values(made.fleet, lab))
    with made.watch() as watch:
        for name, argv in _verbs(made).items():
            made.said[name] = made.run(*argv)
    made.said["processes and world-readable files"] = Said(0, "\n".join(sorted(watch.seen)), "")
    assert watch.rounds > 100, "it hardly looked"
    assert {site.name for site in sites} == {site.name for site in made.fleet.sites}
    yield made
    asked = lab.stand_ins.unmodelled()
    lab.down()
    assert asked == {}


def _values(fleet: Fleet, lab: Lab) -> dict[str, dict[str, SecretStr]]:
    """Fill every slot of the two hosts, and return that with what only the controller has."""
    hosts = [fleet.host(name) for name in HOSTS]
    vault = open_for(
        fleet,
        fleet.sites,
        hosts,
        lambda host: wanted(fleet, host),
        place=lambda site: site.secrets,
        today=date(2026, 11, 23),
    )
    store = Store(fleet, lambda site: site.secrets)
    sites = {fleet.site_of(host).name: fleet.site_of(host) for host in hosts}
    own = {f"age-{name}": key for name, site in sites.items() for key in store.identities(site)}
    # Without its comment, which others have, too.
    own["deployment"] = SecretStr(ssh_private_key(*ssh_key_halves(lab.key.read_text().strip())))
    return {**{host.name: dict(vault.values(host.name)) for host in hosts}, "": own}


def _verbs(cage: Cage) -> dict[str, Sequence[str]]:
    """Return every way in which a run can be made to talk, the first deploy among them."""
    inventory = cage.inventory()
    deploy = [PYINFRA, *LIMIT, inventory, SITE]
    return {
        "debug-inventory": [PYINFRA, *LOUD, inventory, "debug-inventory"],
        "render": [*FLEET, "render", "--site", inventory],
        "dry run of everything": [*deploy, "--dry", "--diff", *LOUD],
        "first deploy": [*deploy, "-y", "--diff", *LOUD],
        "run as JSON": [*deploy, "-y", "--json", *LOUD],
        "no answer to its question": deploy,
        "fleet run": [*FLEET, "run", inventory, "site", *LIMIT],
        "fleet secrets check": [sys.executable, "-c", CHECK, inventory],
        "verification": [
            *(sys.executable, "-m", "pytest", "-q", str(ROOT / "tests" / "verify"), "--rootdir", str(ROOT)),
            *("-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider"),
            *("--site", inventory, *LIMIT, "--json", str(cage.folder / "verified.json")),
        ],
    }


class _Bad(BaseModel):
    value: dict[str, tuple[SecretStr, ...]] = {}


def test_every_slot_is_full(cage: Cage) -> None:
    """No model has a field for a value; what is a secret anywhere in the inventory or marked by a service has one."""
    assert list(fields_of(_Bad, SecretStr)) == ["_Bad.value"]
    assert [name for cls in models() for name in fields_of(cls, SecretStr)] == []
    assert "Slots.own" in [name for cls in models() for name in fields_of(cls, Secret)]
    for name in HOSTS:
        host = cage.fleet.host(name)
        slots = {secret.slot: secret for secret in wanted(cage.fleet, host)}
        assert set(slots) == set(cage.canaries.values[name])
        assert {secret.shape.kind for secret in slots.values()} == set(Kind)
        inside = [found for found in within(host) if isinstance(found, Secret)]
        assert inside and all(found.slot in slots for found in inside)
    assert set(cage.canaries.values[""]) == {"age-home", "age-vultr", "deployment"}


def test_each_part_of_each_value_is_known_again(cage: Cage) -> None:
    for host, slots in cage.canaries.values.items():
        for slot, value in slots.items():
            text = value.get_secret_value()
            # Of a key some lines are its kind and its public half, which all may know.
            line = next(line for line in text.splitlines() if cage.canaries.find(line[:40]))
            for shown in (line, f"'{line}'", text.encode().hex(), repr(text.encode()), f"({line[:40]}"):
                assert f"{host}:{slot}" in cage.canaries.find(f"line 3: {shown}: syntax error"), (slot, shown)
    assert cage.canaries.find(f"nothing in it, {MASK}") == set()
    for name in HOSTS:
        key = cage.canaries.values[name][SSH_HOST_KEY.slot]
        assert cage.canaries.find(hostkeys.known_hosts_line(name, hostkeys.public_half(key))) == set()


def test_what_was_run_did_what_it_was_asked(cage: Cage) -> None:
    """What says nothing about secrets because it did nothing proves nothing."""
    code = {name: said.code for name, said in cage.said.items()}
    # The lab has no secrets of the hosts that nobody deployed yet.
    assert {name for name, each in code.items() if each} == {"no answer to its question", "fleet secrets check"}, {
        name: said.text[-2000:] for name, said in cage.said.items() if said.code
    }
    check = cage.said["fleet secrets check"].text
    assert "pancake.age: is missing" in check and not any(f"{name}.age" in check for name in HOSTS)
    assert f"{PATH} differs (secret, not shown)" in cage.said["dry run of everything"].text
    for name in HOSTS:
        assert f"[{name}] canaries: canaries" in cage.said["first deploy"].text
        assert json.loads(cage.said["run as JSON"].report)["hosts"][name]["changes"] == 0
    assert "pyinfra-debug" in cage.said["no answer to its question"].text
    assert "EOFError" in cage.said["no answer to its question"].report
    assert json.loads(cage.said["verification"].report)["exit"] == 0


def test_nothing_sings(cage: Cage) -> None:
    found = {name: cage.canaries.find(said.everything) for name, said in cage.said.items()}
    found["processes and world-readable files"] = set(cage.said["processes and world-readable files"].text.split("\n"))
    assert {name: there for name, there in found.items() if there - {""}} == {}


def test_on_a_host_secrets_are_only_where_they_are_kept(cage: Cage) -> None:
    """Nobody else's at all; its own in the files that were rendered and in the password database, closed to others."""
    for name, upper in cage.uppers.items():
        host = cage.fleet.host(name)
        kept = {f"/{path}" for path in ("etc/master.passwd", "etc/spwd.db", "etc/shadow")}
        kept |= {
            file.path
            for service in host.services
            for made in service.renders(host, cage.fleet)
            for file in made.files
            if file.secret
        }
        there = cage.canaries.in_files(files(upper))
        singers = {slot for slots in there.values() for slot in slots}
        # What two hosts share, both have.
        strange = {slot for slot in singers if slot.split(":")[0] != name} - _shared(cage, name)
        assert strange == set()
        assert {f"/{path.relative_to(upper)}" for path in there} - kept == set()
        assert {f"{name}:{slot}" for slot in cage.canaries.values[name]} <= singers
        assert cage.canaries.in_files(world_readable(upper)) == {}


def _shared(cage: Cage, name: str) -> set[str]:
    """Return the slots of other hosts whose value `name` has, too."""
    mine = cage.canaries.values[name]
    return {
        f"{other}:{slot}"
        for other, slots in cage.canaries.values.items()
        for slot, value in slots.items()
        if other != name and mine.get(slot) == value
    }


def test_on_the_controller_they_are_encrypted(cage: Cage) -> None:
    """Whatever the lab keeps but its hosts' own disks: consoles, relays, known hosts, secrets."""
    uppers = tuple(cage.uppers.values())
    own = [path for path in files(cage.lab.directory) if not any(path.is_relative_to(upper) for upper in uppers)]
    found = cage.canaries.in_files(own)
    keys = {path for path in found if path.suffix == ".age-key" or path == cage.lab.key}
    assert set(found) == keys and len(keys) == 3
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys)
    assert any(path.suffix == ".age" for path in own)
    assert cage.canaries.in_files(files(cage.folder)) == {}


def test_nothing_of_it_is_under_version_control(cage: Cage, tmp_path: Path) -> None:
    assert cage.canaries.in_files(_versioned(ROOT)) == {}
    (tmp_path / "leak.txt").write_text(f"{cage.value('ns3', 'canary-field')}\n")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert list(cage.canaries.in_files(_versioned(tmp_path))) == [tmp_path / "leak.txt"]


def _versioned(folder: Path) -> Iterator[Path]:
    """Yield what is under version control, or would be after ``git add``; git's own files, too."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    yield from (folder / name for name in listed.stdout.split("\0") if name and (folder / name).is_file())


DUE = f"rm -f {PATH}"
QUOTES = f"tr '\\n' ' ' <{{new}}{PATH} >&2; exit 1"
CODED = f"od -An -tx1 {{new}}{PATH} | tr -d ' \\n' >&2; exit 1"


def test_a_parser_that_quotes_the_file_is_masked(cage: Cage) -> None:
    cage.root("ns3", DUE)
    with cage.watch() as watch:
        said = cage.deploy("-y", *LOUD, check=QUOTES)
    assert said.code != 0
    assert "canaries" in json.loads(said.report)["hosts"]["ns3"]["failed"]
    assert f"ns3: FAILED: canaries: the check refused the new files, the old ones are in place: / {MASK}" in said.text
    assert cage.canaries.find(said.everything) == set()
    assert watch.seen == set()
    # Hexadecimal digits are nothing that a mask looks for: the detector does.
    leak = cage.deploy("-y", check=CODED)
    assert "ns3:canary-field" in cage.canaries.find(leak.text)
    assert "ns3:canary-field" in cage.canaries.find(leak.report)


CRASH = """\
from operations import filesets
def script(whole, *args, **kwargs):
    raise RuntimeError({what})
filesets.script = script
"""


def test_an_exception_in_an_operation_shows_no_value(cage: Cage) -> None:
    """The whole texts are in the frames and arguments that the traceback goes through."""
    cage.root("ns3", DUE)
    said = cage.deploy("-y", *LOUD, code=CRASH.format(what="'unexpected'"))
    assert said.code != 0
    assert "RuntimeError: unexpected" in said.everything
    assert cage.canaries.find(said.everything) == set()
    leak = cage.deploy("-y", code=CRASH.format(what="whole.files[0].text"))
    assert "ns3:canary-field" in cage.canaries.find(leak.everything)


def test_a_host_that_dies_meanwhile_takes_nothing_with_it(cage: Cage) -> None:
    cage.root("ns3", DUE)
    process = cage.start(PYINFRA, "-y", *LOUD, *LIMIT, cage.inventory(apply="touch /tmp/reached; sleep 20"), SITE)
    wait_for(cage.uppers["ns3"] / "tmp" / "reached", 120)
    cage.lab.kill("ns3")
    text, _ = process.communicate(timeout=RUN_SECONDS)
    said = cage.ended(process.returncode, text)
    assert said.code != 0 and "ns3: FAILED" in said.text
    assert cage.canaries.find(said.everything) == set()
    cage.lab.start("ns3")
    again = cage.deploy("-y")
    assert again.code == 0, again.text
    assert cage.canaries.in_files(world_readable(cage.uppers["ns3"])) == {}
    test_on_a_host_secrets_are_only_where_they_are_kept(cage)


LEAKS = {
    "argument": f"sh -c 'sleep 2; :' \"$(sed -n '$p' {PATH})\"",
    "environment": f"CANARY=$(sed -n '$p' {PATH}) sleep 2",
    "file": f"cp {PATH} /tmp/open; chmod 644 /tmp/open",
}


def test_the_watch_sees_an_argument_an_environment_and_a_file(cage: Cage) -> None:
    cage.root("ns3", DUE)
    with cage.watch() as watch:
        done = cage.deploy("-y", apply="; ".join(LEAKS.values()))
    cage.root("ns3", "rm /tmp/open")
    assert done.code == 0, done.text
    for kind in ("cmdline of", "environ of", str(cage.uppers["ns3"] / "tmp" / "open")):
        assert any(line.startswith(kind) for line in watch.seen), (kind, watch.seen)


def test_a_leak_into_a_log_or_onto_another_host_is_found(cage: Cage) -> None:
    upper = cage.uppers["db1"]
    cage.root("db1", "logger -t leak -f /dev/stdin", stdin=cage.value("ns3", "canary-field") + "\n")
    cage.root("db1", "umask 077; cat >/root/leak", stdin=cage.value("ns3", SSH_HOST_KEY.slot) + "\n")
    until = time.monotonic() + 10
    while len(found := cage.canaries.in_files(files(upper))) < 2 or upper / "var/log/messages" not in found:
        assert time.monotonic() < until, found
        time.sleep(0.2)
    assert "ns3:canary-field" in found[upper / "var/log/messages"]
    assert "ns3:ssh_host_ed25519_key" in found[upper / "root/leak"]
