"""tests/verify of certificates, keys, clocks and logs without a network, on both systems: each kind green and red."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from fleet.load import load
from fleet.model.pki import Published, Use
from fleet.model.site import Fleet, Os, Site
from fleet.pki.wanted import Wanted, wanted
from tests.shell import check_scripts
from tests.unit.played_pki import KINDS as OF_THE_PKI
from tests.unit.played_pki import MARK, PlayedPki, healthy_pki, signed, with_pki
from tests.unit.test_verify_checks import TODAY, World, report, world
from tests.verify.declared import Declared
from tests.verify.evidence import evidence_of
from tests.verify.kinds import KINDS, Check, kinds_of
from tests.verify.modules.logs import Logs
from tests.verify.report import Report, State
from tests.verify.survey import Presence, survey

SERVER, CLIENTS = "manicouagan1", ("ns3", "kvm1")
HOSTS = (SERVER, *CLIENTS)
OTHER = "/var/log/hosts/other"

Break = Callable[[PlayedPki], object]


@dataclass(frozen=True)
class Deployed:
    """The lab's inventory with everything signed, and its hosts as they are after a deploy."""

    fleet: Fleet
    sites: tuple[Site, ...]
    world: World


@pytest.fixture(scope="module")
def deployed() -> Deployed:
    """Every host that logs, with a log server and its certificates; made once."""
    fleet, sites = load("lab")
    fleet = with_pki(fleet)
    return Deployed(fleet, tuple(sites), world(fleet))


@pytest.fixture
def there(deployed: Deployed) -> World:
    """The hosts, to be broken."""
    made = replace(deepcopy(deployed.world), asked=[])
    made.pki = {name: healthy_pki(Declared(deployed.fleet, deployed.fleet.host(name), TODAY)) for name in HOSTS}
    return made


@pytest.fixture(scope="module")
def green(deployed: Deployed) -> Report:
    return report(deployed.fleet, deployed.sites, deployed.world, list(HOSTS))


def _report(deployed: Deployed, there: World, *hosts: str) -> Report:
    return report(deployed.fleet, deployed.sites, there, list(hosts))


def _client(deployed: Deployed, host: str) -> Wanted:
    return next(each for each in wanted(deployed.fleet) if each.slot == f"log.{host}.client")


def test_a_fleet_that_logs_is_green(green: Report) -> None:
    assert green.red == {}
    ids = {each.check.id for each in green.results}
    both = {f"{host}/{name}" for host in CLIENTS for name in ("certificate/log-client", "private-key/log-client")}
    assert both <= ids
    assert {f"{host}/clock" for host in HOSTS} <= ids
    assert {f"{SERVER}/certificate/log-server", f"{SERVER}/log/own/arrives", f"{SERVER}/log-file{OTHER}"} <= ids
    assert {f"{host}/log/arrives" for host in CLIENTS} <= ids
    assert f"{SERVER}/log/arrives" not in ids


def _key(pki: PlayedPki, index: int, value: str) -> None:
    (words,) = pki.keys.values()
    words[index] = value


BROKEN: dict[str, tuple[Break, str]] = {
    "private-key": (lambda it: _key(it, 2, "640"), "private-key/log-client"),
    "certificate": (lambda it: it.held["log-client"].__setitem__(0, ""), "certificate/log-client"),
    "clock": (lambda it: setattr(it, "clock", it.clock + 3600), "clock"),
    "log-arrives": (lambda it: it.silent.update(line=(1, "", "logger: no\n")), "log/arrives"),
}


@pytest.mark.parametrize("host", CLIENTS)
@pytest.mark.parametrize("kind", BROKEN)
def test_each_kind_is_red_when_what_it_checks_is_broken(deployed: Deployed, there: World, kind: str, host: str) -> None:
    breakage, name = BROKEN[kind]
    breakage(there.pki[host])
    made = _report(deployed, there, host)
    assert set(made.red) == {f"{host}/{name}"}
    (check,) = (each.check for each in made.results if each.check.id == f"{host}/{name}")
    assert check.kind is KINDS[kind]


def test_a_log_file_that_is_not_as_declared_is_red(deployed: Deployed, there: World) -> None:
    there.pki[SERVER].owners[OTHER][2] = "644"
    del there.pki[SERVER].owners["/var/log/hosts/ns3/user"]
    made = _report(deployed, there, SERVER)
    assert made.red == {
        f"{SERVER}/log-file{OTHER}": "it is 0644 root:wheel, not 0640 root:wheel: deploy",
        f"{SERVER}/log-file/var/log/hosts/ns3/user": "it is missing: deploy",
    }
    assert {each.check.kind.name for each in made.results if each.state is State.RED} == {"log-file"}


def test_each_kind_can_be_broken_on_each_system_that_has_it(green: Report) -> None:
    assert {*BROKEN, "log-file"} == OF_THE_PKI
    for os in Os:
        targets: dict[str, Check] = {}
        for check in (each.check for each in green.results):
            if check.os is os and check.kind.name in OF_THE_PKI and check.can_be_broken():
                targets.setdefault(check.kind.name, check)
        assert set(targets) == OF_THE_PKI & kinds_of(os)
        commands = [command for check in targets.values() for command in (check.breakage(), check.mend())]
        assert [command for command in commands if "@" in command] == []
        check_scripts(*commands, openbsd=os is Os.OPENBSD)


REDS: dict[str, tuple[Break, str, str]] = {
    "no key": (lambda it: it.keys.clear(), "private-key", "there is none: deploy"),
    "no P-256": (
        lambda it: _key(it, 3, "-"),
        "private-key",
        "it is no private key of P-256: move it away, deploy, fleet pki renew, deploy",
    ),
    "key of another": (
        lambda it: _key(it, 0, "nobody"),
        "private-key",
        "it is 0600 nobody, not 0600 root: others may have read it",
    ),
    "open folder": (
        lambda it: it.owners["/etc/ssl/private"].__setitem__(2, "755"),
        "private-key",
        "its folder is 0755 root:wheel: others may put another key there, or see what is in it",
    ),
    "folder of another": (
        lambda it: it.owners["/etc/ssl/private"].__setitem__(0, "www"),
        "private-key",
        "its folder is 0700 www:wheel: others may put another key there, or see what is in it",
    ),
    "no folder": (lambda it: it.owners.clear(), "private-key", "its folder is missing"),
    "no key any more": (
        lambda it: it.keys.clear(),
        "certificate",
        "it is not of the key on the host: fleet pki renew, deploy",
    ),
    "no certificate": (
        lambda it: it.held.update({"log-client": ["", ""]}),
        "certificate",
        "it is not on the host: deploy",
    ),
    "pending": (lambda it: it.held.clear(), "certificate", "its daemon does not run with it yet: deploy"),
    "two certificates": (
        lambda it: it.held["log-client"].__setitem__(0, it.held["log-client"][0] * 2),
        "certificate",
        "it is another one than the register has: deploy",
    ),
    "two roots": (
        lambda it: it.held["log-client"].__setitem__(1, it.held["log-client"][1] * 2),
        "certificate",
        "the roots beside it are not those that are published: deploy",
    ),
    "no certificate at all": (
        lambda it: it.held["log-client"].__setitem__(0, f"{MARK}\nAAAA\n{MARK.replace('BEGIN', 'END')}\n"),
        "certificate",
        "it cannot be read: ",
    ),
    "a clock before the certificate": (
        lambda it: setattr(it, "clock", it.clock - 7200),
        "certificate",
        "it is not valid yet by the host's clock",
    ),
    "a clock after the certificate": (
        lambda it: setattr(it, "clock", it.clock + 710 * 86400),
        "certificate",
        "19 days left by the host's clock: fleet pki renew, deploy",
    ),
    "behind": (
        lambda it: it.__dict__.update(asked=(1000000000.2, 1000000001.0), clock=999996400),
        "clock",
        "it is 3600 s behind: certificates may not be valid there yet, times in the log are wrong",
    ),
    "ahead": (
        lambda it: it.__dict__.update(asked=(1000000000.2, 1000000001.0), clock=1000003601),
        "clock",
        "it is 3600 s ahead: certificates may be over there already, times in the log are wrong",
    ),
    "no clock": (
        lambda it: it.silent.update({"private keys": (0, "##KEYS##\n", "")}),
        "clock",
        "could not be known: Keys: the host does not say what time it is",
    ),
}


@pytest.mark.parametrize("name", REDS)
def test_what_else_is_red(deployed: Deployed, there: World, name: str) -> None:
    breakage, check, words = REDS[name]
    breakage(there.pki["ns3"])
    found = _report(deployed, there, "ns3").red[f"ns3/{check}" if check == "clock" else f"ns3/{check}/log-client"]
    assert found == words or (words.endswith(" ") and found.startswith(words))


def test_a_slow_host_has_no_wrong_clock(deployed: Deployed, there: World) -> None:
    now = time.time()
    for clock in (now - 59, now, now + 90, now + 180 + 59):
        there.pki["ns3"].asked, there.pki["ns3"].clock = (now, now + 180), int(clock)
        assert _report(deployed, there, "ns3").red == {}


@pytest.mark.parametrize(
    ("days", "start", "words"),
    [
        (12, timedelta(), "11 days left: fleet pki renew, deploy"),
        (31, timedelta(), None),
        (10, timedelta(days=-20), "it has expired: fleet pki renew, deploy"),
        (730, timedelta(hours=2), "it is not valid yet"),
    ],
)
def test_how_long_a_certificate_is_valid(
    deployed: Deployed, there: World, days: int, start: timedelta, words: str | None
) -> None:
    given = signed(_client(deployed, "ns3"), days, start)
    assert _of(deployed, there, given) == words


def test_whose_and_for_what_a_certificate_is(deployed: Deployed, there: World) -> None:
    mine = _client(deployed, "ns3")
    server = replace(mine, declared=mine.declared.model_copy(update={"use": Use.SERVER}))
    assert _of(deployed, there, signed(server)) == "it is not for a client alone: fleet pki renew, deploy"
    other = _client(deployed, "virtie")
    assert _of(deployed, there, signed(other)) == (
        f"it is of virtie, {other.names[0]}, not of ns3, {mine.names[0]}: fleet pki renew, deploy"
    )


def _of(deployed: Deployed, there: World, certificate: str) -> str | None:
    """Return what is said of ns3's certificate if the register itself has this one."""
    published = deployed.fleet.published
    given = {**published.certificates, "log.ns3.client": certificate}
    fleet = deployed.fleet.model_copy(update={"published": published.model_copy(update={"certificates": given})})
    pki = healthy_pki(Declared(fleet, fleet.host("ns3"), TODAY))
    there.pki["ns3"].keys, there.pki["ns3"].held = pki.keys, pki.held
    return report(fleet, deployed.sites, there, ["ns3"]).red.get("ns3/certificate/log-client")


def _with(deployed: Deployed, **published: object) -> Fleet:
    given = Published.model_validate({**dict(deployed.fleet.published), **published})
    return deployed.fleet.model_copy(update={"published": given})


def _known(deployed: Deployed, fleet: Fleet, there: World) -> Report:
    there.pki["ns3"] = healthy_pki(Declared(fleet, fleet.host("ns3"), TODAY))
    return report(fleet, deployed.sites, there, ["ns3"])


def test_before_there_is_a_root_only_the_key_is_demanded(deployed: Deployed, there: World) -> None:
    made = _known(deployed, _with(deployed, certificates={}, roots={}), there)
    ids = {each.check.name for each in made.results}
    assert "private-key/log-client" in ids and not ids & {"certificate/log-client", "log/arrives"}
    assert not [name for name in made.red if "/private-key/" in name]
    assert there.asked == ["ns3"]


def test_one_that_is_not_signed_or_revoked_is_red_and_says_what_to_do(deployed: Deployed, there: World) -> None:
    slot = "log.ns3.client"
    others = {name: text for name, text in deployed.fleet.published.certificates.items() if name != slot}
    made = _known(deployed, _with(deployed, certificates=others), there)
    assert made.red["ns3/certificate/log-client"] == "none is signed: fleet pki renew, deploy"
    assert "log/arrives" not in {each.check.name for each in made.results}
    made = _known(deployed, _with(deployed, certificates=others, revoked=frozenset({slot})), there)
    assert made.red["ns3/certificate/log-client"] == "it is revoked: a new key, fleet pki renew, deploy"


def test_a_line_that_does_not_arrive_is_its_hosts(deployed: Deployed, there: World) -> None:
    there.pki[SERVER].lost = {"ns3", SERVER}
    assert _report(deployed, there, *HOSTS).red == {
        "ns3/log/arrives": "what it logs is not in /var/log/hosts/ns3/user of manicouagan1, after 10 s",
        f"{SERVER}/log/own/arrives": (
            "what it logs is not in /var/log/hosts/manicouagan1/user of manicouagan1, after 10 s"
        ),
    }


@pytest.mark.parametrize("how", ["gone", "refused", "silent", "broken"])
def test_a_log_server_that_cannot_be_asked_is_red_for_each_sender_and_not_blamed(
    deployed: Deployed, there: World, how: str
) -> None:
    if how in ("gone", "refused"):
        getattr(there, how)[SERVER] = "no answer"
    else:
        there.pki[SERVER].silent["arrived"] = (1, "", "no answer\n")
    made = _report(deployed, there, "ns3")
    assert made.red == {"ns3/log/arrives": "it cannot be looked up: manicouagan1: no answer"}
    assert sorted(there.asked) == [SERVER, "ns3"]
    assert len([line for line in made.lines() if line.startswith("ns3: 1 of ")]) == 1
    assert not [line for line in made.lines() if line.startswith(f"{SERVER}: ")]


def test_who_was_not_reached_is_not_looked_for(deployed: Deployed, there: World) -> None:
    there.gone["ns3"] = "off"
    made = _report(deployed, there, "ns3")
    assert made.red == {"ns3/reached": "off"}
    assert made.survey.found["ns3"].presence is Presence.FAILED


def test_a_line_is_of_one_survey_and_one_host(deployed: Deployed, there: World) -> None:
    surveys = [survey(deployed.fleet, deployed.sites, TODAY, there, list(HOSTS)) for _ in range(2)]
    lines = [found.evidence.declared.log_line for each in surveys for found in each.found.values() if found.evidence]
    assert len(lines) == len(set(lines)) >= 2 * len(HOSTS)


def test_a_line_is_looked_for_until_it_is_there(tmp_path: Path) -> None:
    late, there = tmp_path / "late", tmp_path / "there"
    there.write_text("2026-11-23T19:07:27.123Z ns3 verify: abc-ns3\n")
    script = Logs.question({"abc-ns3": str(there), "abc-db1": str(late), "abc-web1": str(there)})
    check_scripts(script, Logs.log("abc-ns3"))
    writer = subprocess.Popen(["sh", "-c", f"sleep 1.5; echo abc-db1 >{late}; echo abc-web1 >>{there}"])
    begun = time.monotonic()
    done = subprocess.run(["mksh", "-c", script], capture_output=True, text=True, check=True)
    writer.wait()
    assert set(done.stdout.split()) == {"abc-ns3", "abc-db1", "abc-web1"}
    assert 1 < time.monotonic() - begun < 5


def test_a_line_that_is_not_there_ends(tmp_path: Path) -> None:
    script = "sleep() { :; }\n" + Logs.question({"abc-ns3": str(tmp_path / "none")})
    done = subprocess.run(["mksh", "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_what_is_asked_is_what_the_systems_have(deployed: Deployed) -> None:
    for host in HOSTS:
        declared = Declared(deployed.fleet, deployed.fleet.host(host), TODAY, "0" * 16)
        questions = evidence_of(declared, None).questions()
        assert {"private keys", "certificates", "owners", "line"} <= set(questions)
        some = [questions[name] for name in ("private keys", "certificates", "owners", "line")]
        check_scripts(*some, openbsd=declared.openbsd)
