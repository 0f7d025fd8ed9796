"""tests/verify of OpenBSD hosts without a network: each kind green and red, from answers in the contract's formats."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest

from fleet.load import load
from fleet.model.service import (
    Account,
    Daemon,
    Declaration,
    File,
    FileSet,
    Group,
    Job,
    Listen,
    LoginClass,
    Service,
    none_to_keep,
)
from fleet.model.site import Fleet, Host, Os, Site
from tests.shell import check_scripts
from tests.unit.played_openbsd import OpenbsdMachine, digest, healthy_openbsd
from tests.unit.played_pki import KINDS as OF_THE_PKI
from tests.unit.test_verify_checks import TODAY, World, report
from tests.unit.test_verify_checks import world as machines
from tests.verify.declared import Declared
from tests.verify.evidence import evidence_of
from tests.verify.kinds import KINDS, Check, kinds_of
from tests.verify.modules import netstat, pfctl
from tests.verify.modules.sockets import Listening
from tests.verify.modules.sshd import Sshd
from tests.verify.report import Report, State

ON_OPENBSD = kinds_of(Os.OPENBSD) - OF_THE_PKI
LOCAL = "/etc/daily.local"
STRAY = "/etc/ssh/ssh_host_ed25519_key.pub"

Lab = tuple[Fleet, tuple[Site, ...]]
Break = Callable[[OpenbsdMachine], object]


@pytest.fixture(scope="module")
def lab() -> Lab:
    """The lab's inventory with nothing but ns3 in it: one host is as good as six, and read sooner."""
    _, sites = load("lab")
    made = tuple(site for site in sites if any(host.name == "ns3" for host in site.hosts))
    return Fleet(sites=made), made


def world(fleet: Fleet) -> World:
    return World({}, {host.name: healthy_openbsd(Declared(fleet, host, TODAY)) for host in fleet.hosts()})


@pytest.fixture(scope="module")
def deployed(lab: Lab) -> OpenbsdMachine:
    """ns3 as it is after a deploy; made once, as the rendering takes its time."""
    return world(lab[0]).openbsd["ns3"]


@pytest.fixture(scope="module")
def green(lab: Lab, deployed: OpenbsdMachine) -> Report:
    return report(*lab, World({}, {"ns3": deployed}))


@pytest.fixture
def there(deployed: OpenbsdMachine) -> World:
    """ns3, to be broken."""
    return World({}, {"ns3": deepcopy(deployed)})


def broken(lab: Lab, there: World, breakage: Break) -> Report:
    breakage(there.openbsd["ns3"])
    return report(*lab, there)


def test_a_deployed_fleet_is_green() -> None:
    fleet, sites = load("lab")
    names = {host.name for host in fleet.hosts() if host.os is Os.OPENBSD}
    openbsd = {name: healthy_openbsd(Declared(fleet, fleet.host(name), TODAY)) for name in names}
    made = report(fleet, sites, World({}, openbsd), sorted(names))
    assert made.red == {} and made.waiting == {}
    ids = [each.check.id for each in made.results]
    assert len(ids) == len(set(ids))
    assert {"pancake/port/udp-53/listening", "pancake/sysctl/net.inet.ip.forwarding", "ns3/pf/rules"} <= set(ids)
    assert all(line.endswith(" green") for line in made.lines()[:6])


def _state(name: str, path: str, index: int, value: str) -> Break:
    return lambda m: m.sets[name][path].__setitem__(index, value)


def _login(name: str, index: int, value: str) -> Break:
    return lambda m: m.logins[name].__setitem__(index, value)


def _not_listening(machine: OpenbsdMachine) -> None:
    machine.sockets = [line for line in machine.sockets if "*.2022 " not in line]


def _unmark(machine: OpenbsdMachine) -> None:
    tab = machine.tabs["root"]
    assert tab is not None
    tab.remove(next(line for line in tab if "pfctl" in line))


BROKEN: dict[str, tuple[Break, str]] = {
    "package": (lambda m: m.packages.pop("rsync--"), "package/rsync--"),
    "service-enabled": (lambda m: setattr(m.services["smtpd"], "enabled", False), "service/smtpd/enabled"),
    "service-running": (lambda m: setattr(m.services["ntpd"], "running", False), "service/ntpd/running"),
    "service-flags": (lambda m: m.services["unbound"].stored.update(flags="-v"), "service/unbound/flags"),
    "service-off": (lambda m: setattr(m.services["resolvd"], "running", True), "service/resolvd/off"),
    "file-content": (_state("daily", LOCAL, 3, "0" * 64), f"file{LOCAL}/content"),
    "file-owner": (_state("daily", LOCAL, 1, "nobody"), f"file{LOCAL}/owner"),
    "file-mode": (_state("daily", LOCAL, 2, "606"), f"file{LOCAL}/mode"),
    "file-stray": (lambda m: m.matching.update({STRAY: [STRAY]}), f"stray{STRAY}"),
    "set-pending": (
        lambda m: m.matching.update({"/var/db/homefleet/pending/*": ["/var/db/homefleet/pending/pf"]}),
        "sets/pending",
    ),
    "set-armed": (
        lambda m: m.matching.update({"/var/db/homefleet/armed/*": ["/var/db/homefleet/armed/pf"]}),
        "sets/armed",
    ),
    "login-class": (lambda m: m.classes["person"].__setitem__(3, "0" * 64), "login-class/person"),
    "account": (_login("owner", 0, "1101"), "account/owner"),
    "account-class": (_login("owner", 1, "default"), "account/owner/class"),
    "account-shell": (_login("owner", 4, "/sbin/nologin"), "account/owner/shell"),
    "account-groups": (lambda m: m.groups["wheel"][1].remove("owner"), "account/owner/groups"),
    "account-password": (lambda m: m.passwords.update(deploy="$2b$10$abc"), "account/deploy/password"),
    "account-keys": (lambda m: m.authorized["owner"].__setitem__(3, "0" * 64), "account/owner/keys"),
    "root-login": (lambda m: m.keys.append("/root/.ssh/authorized_keys"), "account/root/closed"),
    "sysctl": (lambda m: m.values.update({"ddb.panic": "1"}), "sysctl/ddb.panic"),
    "sysctl-boot": (lambda m: setattr(m, "sysctl_conf", "ddb.panic=1\n"), "sysctl/etc/sysctl.conf"),
    "jobs": (_unmark, "jobs/root"),
    "port-listening": (_not_listening, "port/tcp-2022/listening"),
    "port-stray": (
        lambda m: m.sockets.append("tcp          0      0  *.9999                 *.*                    LISTEN"),
        "port/stray",
    ),
    "pf-enabled": (lambda m: setattr(m, "enabled", False), "pf/enabled"),
    "pf-rules": (lambda m: m.loaded.clear(), "pf/rules"),
    "pf-table": (lambda m: m.tables.pop("ssh_bruteforce"), "pf/table/ssh_bruteforce"),
    "bounded-set": (lambda m: m.tables["deploy_allowed"].append("192.0.2.9"), "pf/table/deploy_allowed/empty"),
}


@pytest.mark.parametrize("kind", sorted(ON_OPENBSD - {"reached"}))
def test_each_kind_is_red_when_what_it_checks_is_broken(lab: Lab, there: World, kind: str) -> None:
    breakage, name = BROKEN[kind]
    made = broken(lab, there, breakage)
    assert set(made.red) == {f"ns3/{name}"}
    (check,) = (each.check for each in made.results if each.check.id == f"ns3/{name}")
    assert check.kind is KINDS[kind]
    assert made.lines()[0].startswith("ns3: 1 of ") and made.lines()[0].endswith(f" red: {name.replace('/', ' ')}")


def test_there_is_a_breakage_for_every_kind(green: Report) -> None:
    assert {"reached", *BROKEN} == ON_OPENBSD
    targets: dict[str, Check] = {}
    for check in (each.check for each in green.results if each.check.kind.name not in OF_THE_PKI):
        assert check.os is Os.OPENBSD and check.kind.name in ON_OPENBSD, check.id
        if check.can_be_broken():
            targets.setdefault(check.kind.name, check)
    assert set(targets) == ON_OPENBSD
    commands = [command for check in targets.values() for command in (check.breakage(), check.mend())]
    assert [command for command in commands if not command or "@" in command] == []
    check_scripts(*commands)


def test_every_kind_is_shown_red_on_a_system() -> None:
    assert kinds_of(Os.UBUNTU) | kinds_of(Os.OPENBSD) == set(KINDS)


ALSO: dict[str, tuple[Break, str, str]] = {
    "automatic package": (
        lambda m: m.manual.remove("rsync--"),
        "package/rsync--",
        "it is there for another package's sake, and goes with that one",
    ),
    "no such service": (lambda m: m.services.pop("ntpd"), "service/ntpd/running", "rcctl knows no service ntpd"),
    "another user": (
        lambda m: m.services["ntpd"].stored.update(user="_ntp"),
        "service/ntpd/flags",
        "user: '_ntp', not the default of its own",
    ),
    "on and running": (
        lambda m: m.services["resolvd"].__init__(),  # type: ignore[misc]
        "service/resolvd/off",
        "it is enabled and running",
    ),
    "missing file": (lambda m: m.sets["pf"].clear(), "file/etc/pf.conf/mode", "it is missing"),
    "missing secret": (
        lambda m: m.sets["totp"].clear(),
        "file/home/owner/.totp-key/content",
        "it is missing",
    ),
    "old database": (
        lambda m: setattr(m, "database", "old"),
        "login-class/person",
        "/etc/login.conf.db is older, and is all that counts",
    ),
    "no account": (lambda m: m.logins.pop("owner"), "account/owner/shell", "there is no such account"),
    "one group more": (
        lambda m: m.groups["operator"][1].append("deploy"),
        "account/deploy/groups",
        "it is in operator too",
    ),
    "no password": (
        lambda m: m.passwords.update(owner="*" * 13),
        "account/owner/password",
        "no password opens it, its own shall",
    ),
    "keys of others": (
        lambda m: m.directories.update(owner="777 owner"),
        "account/owner/keys",
        "others than itself may change or read them",
    ),
    "no keys": (lambda m: m.authorized.pop("owner"), "account/owner/keys", "it has no authorized_keys"),
    "root may": (
        lambda m: m.permits.append("prohibit-password"),
        "account/root/closed",
        "sshd_config says prohibit-password of it",
    ),
    "root by default": (lambda m: m.permits.clear(), "account/root/closed", "sshd_config says nothing of it"),
    "no such variable": (lambda m: m.values.clear(), "sysctl/ddb.panic", "this kernel has none"),
    "no sysctl.conf": (lambda m: setattr(m, "sysctl_conf", None), "sysctl/etc/sysctl.conf", "it is missing"),
    "jobs of nobody": (
        lambda m: m.tabs.update(owner=["# homefleet: begin", "# homefleet: end"]),
        "jobs/owner",
        "it has jobs that are not declared",
    ),
    "no root": (lambda m: m.tabs.update(root=None), "jobs/root", "there is no user root"),
    "a UDP socket": (
        lambda m: m.sockets.append("udp6         0      0  *.69                   *.*"),
        "port/stray",
        "not declared: udp/69",
    ),
    "a rule more": (
        lambda m: m.loaded.append("pass all flags S/SA"),
        "pf/rules",
        "loaded and not in the file: 1, such as 'pass all flags S/SA'",
    ),
    "another order": (lambda m: m.loaded.reverse(), "pf/rules", "they are loaded in another order or number"),
    "an empty pf.conf": (lambda m: m.ruleset.clear(), "pf/rules", "/etc/pf.conf has no rule"),
    "flushed": (
        lambda m: m.loaded.clear(),
        "pf/rules",
        "not loaded: 6 of 6, such as 'match in all scrub (no-df random-id)'",
    ),
}


@pytest.mark.parametrize("name", ALSO)
def test_what_else_is_red(lab: Lab, there: World, name: str) -> None:
    breakage, check, words = ALSO[name]
    assert broken(lab, there, breakage).red[f"ns3/{check}"] == words


def test_a_secret_is_never_needed_and_its_mark_is_never_enough(lab: Lab, there: World) -> None:
    path = "/home/owner/.totp-key"
    file = next(it for each in Declared(lab[0], lab[0].host("ns3"), TODAY).sets for it in each.files if it.path == path)
    assert file.secret
    assert broken(lab, there, _state("totp", path, 3, digest("another value"))).red == {}
    assert broken(lab, there, _state("totp", path, 3, digest(file.text))).red == {
        f"ns3/file{path}/content": "it has the marks of its secrets in it, not the secrets"
    }


QUESTIONS = (
    *("packages", "services", "files", "accounts", "sysctls", "jobs"),
    *("sockets", "root keys", "root", "pf", "loaded", "ruleset"),
)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("said", [(1, "", "it broke\n"), (0, "", ""), (0, "what is this\n", "")])
def test_what_could_not_be_known_is_never_green(
    lab: Lab, green: Report, there: World, question: str, said: tuple[int, str, str]
) -> None:
    there.openbsd["ns3"].silent[question] = said
    red = report(*lab, there).red
    if question == "root keys" and said[0] == 0:
        # No file with a key in it is what it says of a closed account.
        assert red == {}
        return
    assert red and set(red) <= {each.check.id for each in green.results if each.state is State.GREEN}
    if said[0]:
        assert all(text == "could not be known: it broke" for text in red.values())


def test_everything_is_asked_in_one_exec_with_commands_that_openbsd_has(lab: Lab) -> None:
    declared = Declared(lab[0], lab[0].host("ns3"), TODAY)
    questions = evidence_of(declared, None).questions()
    assert set(QUESTIONS) < set(questions)
    check_scripts(*questions.values())


class Everything(Service):
    """What no service of the base declares."""

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        del host, fleet
        return Declaration(
            packages=("redis--%bsd",),
            daemons=(
                Daemon(name="redis", flags="-o 'a b'", user="_redis", timeout=60),
                Daemon(name="mountd", activated=True),
                Daemon(name="meta"),
            ),
            listens=(
                Listen(port=6379),
                Listen(port=6379, source=("192.0.2.0/24",)),
                Listen(port=30000, last_port=30010, protocol="udp"),
            ),
            classes=(LoginClass(name="redis", capabilities=("openfiles=1024",)),),
            groups=(Group(name="_logs", gid=2000),),
            accounts=(
                Account(
                    name="git", home="/var/git", authorized_keys=("ssh-ed25519 AAAA x",), password="$2b$10$abcdefg"
                ),
                Account(name="left", uid=1200, removed=True),
                Account(name="never", uid=1201, removed=True),
            ),
            jobs=(
                Job(user="git", schedule="@daily", command="gitolite check"),
                Job(user="git", schedule="0 3 * * 1", command="gc", flags="ns"),
            ),
            state=none_to_keep("a test keeps nothing"),
        )

    def renders(self, host: Host, fleet: Fleet) -> tuple[FileSet, ...]:
        del host, fleet
        file = File(path="/etc/redis.d/a.conf", text="a\n", group="wheel")
        return (FileSet(name="redis", files=(file,), exclusive=("/etc/redis.d/*",)),)


@pytest.fixture(scope="module")
def more(lab: Lab) -> tuple[Lab, OpenbsdMachine]:
    """ns3 with that too."""
    host = lab[0].host("ns3")
    host = host.model_copy(update={"services": (*host.services, Everything())})
    sites = (lab[1][0].model_copy(update={"hosts": (host,)}),)
    fleet = Fleet(sites=sites)
    machine = world(fleet).openbsd["ns3"]
    machine.services["redis"].stored.update(user="_redis", timeout="60")
    machine.services["mountd"].running = False
    machine.services["meta"].kind, machine.services["meta"].running = "meta", False
    machine.groups["_logs"] = (2000, [])
    machine.logins["left"][4] += "-"
    machine.passwords["left"] = "*$2b$10$abcdefg"
    del machine.logins["never"]
    machine.tabs["never"] = None
    machine.matching["/etc/redis.d/*"] = ["/etc/redis.d/a.conf", "/etc/redis.d/b.conf.homefleet-old"]
    machine.sockets.append("udp          0      0  192.0.2.53.30004       *.*")
    return (fleet, sites), machine


@pytest.fixture
def everything(more: tuple[Lab, OpenbsdMachine]) -> tuple[Lab, World]:
    """The same, to be broken."""
    return more[0], World({}, {"ns3": deepcopy(more[1])})


def test_what_the_base_does_not_declare_is_green_too(everything: tuple[Lab, World]) -> None:
    lab, there = everything
    assert report(*lab, there).red == {}


MORE: dict[str, tuple[Break, str]] = {
    "flags": (lambda m: setattr(m.services["redis"], "flags", "-o a b"), "service/redis/flags"),
    "timeout": (lambda m: m.services["redis"].stored.pop("timeout"), "service/redis/flags"),
    "stray": (lambda m: m.matching["/etc/redis.d/*"].append("/etc/redis.d/x"), "stray/etc/redis.d/*"),
    "gid": (lambda m: m.groups.update(_logs=(2001, [])), "unix-group/_logs"),
    "group": (lambda m: m.groups.pop("_logs"), "unix-group/_logs"),
    "unlocked": (lambda m: m.passwords.update(left="$2b$10$abcdefg"), "account/left/removed"),
    "keys left": (
        lambda m: m.authorized.update(left=["left", "left", "600", "0" * 64]),
        "account/left/removed",
    ),
    "password": (lambda m: m.passwords.update(git="$2b$10$other"), "account/git/password"),
    "home": (lambda m: m.logins["git"].__setitem__(3, "/home/git"), "account/git"),
    "range": (lambda m: m.sockets.pop(), "port/udp-30000-30010/listening"),
    "job": (lambda m: (m.tabs["git"] or []).__setitem__(2, "0 3 * * 1 -n gc"), "jobs/git"),
}


@pytest.mark.parametrize("name", MORE)
def test_what_the_base_does_not_declare_is_red(everything: tuple[Lab, World], name: str) -> None:
    lab, there = everything
    breakage, check = MORE[name]
    if name == "range":
        machine = there.openbsd["ns3"]
        machine.sockets = [line for line in machine.sockets if ".30000 " not in line]
    breakage(there.openbsd["ns3"])
    assert set(report(*lab, there).red) == {f"ns3/{check}"}


def test_a_host_that_does_not_answer_is_one_red_line(lab: Lab, there: World) -> None:
    there.gone["ns3"] = "no TCP connection"
    made = report(*lab, there)
    assert made.red == {"ns3/reached": "no TCP connection"}
    assert made.lines() == ["ns3: not reached: no TCP connection"]


@pytest.fixture(scope="module")
def home() -> Lab:
    """The flat in the lab, with the hypervisors of its guests."""
    _, sites = load("lab")
    made = tuple(site for site in sites if site.name == "home")
    return Fleet(sites=made), made


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("answers", [False, True])
def test_a_host_that_waits_for_its_passphrase_is_not_red(home: Lab, answers: bool, refused: bool) -> None:
    fleet, sites = home
    there = machines(fleet)
    (there.refused if refused else there.gone)["db1"] = "it does not answer"
    if not answers:
        there.machines["kvm1"].answering.remove(fleet.host("db1").answers_at() or "")
    made = report(fleet, sites, there, ["kvm1", "db1"])
    waits = not answers and not refused
    assert made.red == ({} if waits else {"db1/reached": "it does not answer"})
    assert [line for line in made.lines() if line.startswith("db1: not reached")] == (
        [] if waits else ["db1: not reached: it does not answer"]
    )
    assert ("db1: waits for its passphrase: fleet console db1" in made.lines()) is not answers
    assert ("db1/reached" in made.waiting) is waits


def test_a_guest_is_not_waited_for_where_nobody_knows_of_it(home: Lab) -> None:
    fleet, sites = home
    there = machines(fleet)
    there.gone["db1"] = "it does not answer"
    assert report(fleet, sites, there, ["db1"]).red == {"db1/reached": "it does not answer"}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("tcp   0 0  *.22  *.*  LISTEN", Listening("tcp", "*", 22, "")),
        ("tcp6  0 0  ::1.53  *.*  LISTEN", Listening("tcp", "::1", 53, "")),
        ("udp6  0 0  fe80::1%lo0.53  *.*", Listening("udp", "fe80::1%lo0", 53, "")),
        ("tcp   0 44 192.0.2.53.22  192.0.2.1.4022  ESTABLISHED", None),
        ("tcp   0 0  *.*  *.*  CLOSED", None),
        ("udp   0 0  192.0.2.53.4000  192.0.2.1.123", None),
        ("udp   0 0  *.*  *.*", None),
    ],
)
def test_a_line_of_netstat(line: str, found: Listening | None) -> None:
    assert netstat._socket(line) == found


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "fe80::1%lo0"])
def test_what_only_the_host_itself_reaches_is_loopback(address: str) -> None:
    assert Listening("tcp", address, 25, "").loopback


def test_only_rules_are_compared() -> None:
    text = (
        'a = "b"\nset skip on { lo }\ntable <t> persist\nblock drop all\nanchor "x" {\n  pass all\n}\nqueue q on em0\n'
    )
    assert pfctl._rules(text) == ("block drop all", 'anchor "x" {', "  pass all", "}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Port 22\nPermitRootLogin no\n", ["no"]),
        ('permitrootlogin="prohibit-password"\n', ["prohibit-password"]),
        ("#PermitRootLogin yes\n", []),
        ("PermitRootLogin no\nMatch User root\n\tPermitRootLogin yes\n", ["no", "yes"]),
        ("PermitRootLogin no\nInclude /etc/x\n", ["no", "whatever /etc/x says"]),
    ],
)
def test_what_sshd_config_says_of_root(tmp_path: Path, text: str, said: list[str]) -> None:
    path = tmp_path / "sshd_config"
    path.write_text(text)
    done = subprocess.run(
        ["mksh", "-c", Sshd.question(str(path))], capture_output=True, text=True, env=os.environ, check=True
    )
    assert done.stdout.splitlines() == said
