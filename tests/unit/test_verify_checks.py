"""tests/verify without a network: what is generated, who is blamed, and each kind green and red."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pytest
from testinfra import host as testinfra_host
from testinfra.backend.base import BaseBackend, CommandResult

from deploys.services.hypervisor import Hypervisor, definition
from facts.linux.accounts import DONE as ACCOUNTS_DONE
from facts.linux.domain import to_xml
from fleet.load import load
from fleet.model.secret import sample
from fleet.model.service import Account
from fleet.model.site import Fleet, Host, Os, Site
from tests.unit.played_openbsd import Answer, OpenbsdMachine, healthy_openbsd
from tests.unit.played_pki import KINDS as OF_THE_PKI
from tests.unit.played_pki import PlayedPki, healthy_pki
from tests.verify.checks import checks
from tests.verify.declared import Declared
from tests.verify.evidence import evidence_of
from tests.verify.kinds import KINDS, Check, kinds_of
from tests.verify.report import Report, State, judge, verify
from tests.verify.survey import Found, Presence, Survey, SurveyError, survey

TODAY = date(2026, 1, 1)

ON_UBUNTU = kinds_of(Os.UBUNTU) - OF_THE_PKI


class Replayed(BaseBackend):  # type: ignore[misc]
    """A testinfra backend that answers from memory; an unknown command is a mistake of the test."""

    NAME = "replayed"

    def __init__(self, answers: dict[str, Answer], pki: PlayedPki | None = None) -> None:
        super().__init__("replayed")
        self.answers = answers
        self.pki = pki
        self.asked = (0.0, 0.0) if pki is None else pki.asked
        self.execs = 1

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        del kwargs
        line = self.quote(command, *args)
        if self.pki is not None and line.startswith("look()"):
            rc, out, err = self.pki.looked_up(line)
        else:
            rc, out, err = self.answers[line]
        return self.result(rc, command.encode(), out, err)


@dataclass
class Machine:
    """A host in the shape in which the tools show it, to be broken by a test."""

    packages: dict[str, str] = field(default_factory=dict)
    units: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)
    matching: dict[str, list[str]] = field(default_factory=dict)
    links: list[dict[str, Any]] = field(default_factory=list)
    sockets: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    volumes: dict[str, list[Any]] = field(default_factory=dict)
    kernel: list[dict[str, Any]] = field(default_factory=list)
    ruleset: list[dict[str, Any]] = field(default_factory=list)
    domains: dict[str, dict[str, Any]] = field(default_factory=dict)
    networks: list[str] = field(default_factory=list)
    answering: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    root_keys: list[str] = field(default_factory=list)
    permits: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    unix_groups: dict[str, list[str]] = field(default_factory=dict)
    logins: dict[str, list[str]] = field(default_factory=dict)
    migration: list[str] = field(default_factory=list)
    moves: list[str] = field(default_factory=list)
    silent: dict[str, Answer] = field(default_factory=dict)

    def answer(self, declared: Declared) -> dict[str, Answer]:
        """Return what the commands say, by command."""
        questions = evidence_of(declared, testinfra_host.Host(Replayed({}))).questions()
        said = {
            "packages": "".join(f"{status} |{name}|\n" for name, status in self.packages.items()),
            "links": json.dumps(self.links),
            "sockets": "".join(f"{line}\n" for line in self.sockets),
            "units": "".join(_unit(name, *words) for name, words in self.units.items()),
            "files": "".join(f"{'|'.join(words)}|{path}\n" for path, words in self.files.items()),
            "groups": _lvm("vg", [{"vg_name": name, **_SIZES} for name in self.groups]),
            "volumes": _lvm(
                "lv",
                [
                    dict(zip(("vg_name", "lv_name"), path.split("/"), strict=True))
                    | {"lv_size": str(size), "lv_attr": "-wi-ao----", "lv_tags": tags}
                    for path, (size, tags) in self.volumes.items()
                ],
            ),
            "kernel": json.dumps({"nftables": [_META, *self.kernel]}),
            "ruleset": json.dumps({"nftables": [_META, *self.ruleset]}),
            "libvirt": self._libvirt(declared),
            "echo": "".join(f"{address}\n" for address in self.answering),
            "keys": "".join(f"{line}\n" for line in self.keys),
            "root keys": "".join(f"{line}\n" for line in self.root_keys),
            "root": "".join(f"{line}\n" for line in self.permits),
            "accounts": self._accounts(),
            "codes": "".join(f"{line}\n" for line in self.codes),
            "migration": "".join(f"{name} loaded active running words\n" for name in self.migration),
            "moves": "".join(f"{line}\n" for line in self.moves),
        }
        said |= {pattern: "".join(f"{path}\n" for path in paths) for pattern, paths in self.matching.items()}
        return {command: self.silent.get(name, (0, said.get(name, ""), "")) for name, command in questions.items()}

    def _accounts(self) -> str:
        lines = [
            f"group:{name}:{number}:{','.join(who)}" for number, (name, who) in enumerate(self.unix_groups.items())
        ]
        lines += [f"login:{name}:{':'.join(words)}" for name, words in self.logins.items()]
        return "".join(f"{line}\n" for line in (*lines, ACCOUNTS_DONE))

    def _libvirt(self, declared: Declared) -> str:
        lines = ["@@stats@@"]
        for name, domain in self.domains.items():
            lines.append(f"Domain: '{name}'\n  state.state={domain['state']}\n  block.count={len(domain['disks'])}")
            for number, (path, size) in enumerate(domain["disks"].items()):
                lines.append(f"  block.{number}.path={path}\n  block.{number}.capacity={size}")
        for word in ("persistent", "autostart"):
            lines.append(f"@@{word}@@" + "\n".join(name for name, domain in self.domains.items() if domain[word]))
        lines.append("@@networks@@" + "\n".join(self.networks))
        for guest in declared.guests:
            lines.append(f"@@{guest.name}@@{self.domains.get(guest.name, {}).get('xml', '')}")
        return "\n".join([*lines, "@@end@@"])


_META = {"metainfo": {"version": "1.1.3", "json_schema_version": 1}}
_SIZES = {"vg_size": "255995150336", "vg_free": "1073741824", "vg_extent_size": "4194304"}


def _unit(name: str, file: str, active: str) -> str:
    sub = {"active": "running", "inactive": "dead"}[active]
    return f"Asked={name}\nId={name}\nLoadState=loaded\nActiveState={active}\nSubState={sub}\nUnitFileState={file}\n"


def _lvm(what: str, rows: list[dict[str, str]]) -> str:
    return json.dumps({"report": [{what: rows}], "log": []})


def _match(left: dict[str, Any], right: Any) -> dict[str, Any]:
    return {"match": {"op": "==", "left": left, "right": right}}


def _rule(number: int, *matches: dict[str, Any], chain: str = "input") -> dict[str, Any]:
    where = {"family": "inet", "table": "homefleet", "chain": chain}
    return {"rule": {**where, "handle": number, "expr": [*matches, {"accept": None}]}}


def _payload(protocol: str, name: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": name}}


def recorded_rules() -> list[dict[str, Any]]:
    """What nft 1.1.3 says of the rendered rules, with new handles each time."""
    own = {"family": "inet", "table": "homefleet"}
    chain = {**own, "type": "filter", "prio": 0, "policy": "drop"}
    states = [["invalid", {"drop": None}], ["established", {"accept": None}], ["related", {"accept": None}]]
    return [
        {"table": {"family": "inet", "name": "homefleet", "handle": 9}},
        {"chain": {**chain, "name": "input", "handle": 1, "hook": "input"}},
        {"chain": {**chain, "name": "forward", "handle": 2, "hook": "forward"}},
        {"set": {**own, "name": "migration_peers", "type": "ipv4_addr", "handle": 3, "flags": ["timeout"]}},
        {
            "rule": {
                **own,
                "chain": "input",
                "handle": 5,
                "expr": [{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": states}}}],
            }
        },
        _rule(6, _match({"meta": {"key": "iif"}}, "lo")),
        _rule(8, _match(_payload("icmp", "type"), {"set": ["echo-request", "time-exceeded"]})),
        _rule(10, _match(_payload("icmpv6", "type"), {"set": ["echo-request", "packet-too-big"]})),
        _rule(11, _match({"meta": {"key": "nfproto"}}, "ipv4"), _match(_payload("tcp", "dport"), 2022)),
        _rule(12, _match({"meta": {"key": "nfproto"}}, "ipv6"), _match(_payload("tcp", "dport"), 2022)),
        _rule(
            14,
            _match(_payload("ip", "saddr"), {"prefix": {"addr": "192.168.1.0", "len": 24}}),
            _match(_payload("tcp", "dport"), 2247),
        ),
        _rule(
            15,
            _match(_payload("ip6", "saddr"), {"prefix": {"addr": "2001:db8:1::", "len": 64}}),
            _match(_payload("tcp", "dport"), 2247),
        ),
        _rule(16, _match(_payload("ip", "saddr"), "@deploy_allowed"), _match(_payload("tcp", "dport"), 2247)),
        _rule(
            13,
            _match(_payload("ip", "saddr"), "@migration_peers"),
            _match(_payload("tcp", "dport"), {"range": [49152, 49215]}),
        ),
        {"set": {**own, "name": "deploy_allowed", "type": "ipv4_addr", "handle": 4, "flags": ["timeout"]}},
    ]


def _login(account: Account, number: int) -> list[str]:
    """Return an account as it is after a deploy, in the words of the fact."""
    password = "*" if account.password is None else "$2b$10$of.somebody"
    digest = hashlib.sha256(password.encode()).hexdigest()
    text = "".join(f"{key}\n" for key in account.authorized_keys or ())
    keys = f"{account.name} {account.name} 600 {hashlib.sha256(text.encode()).hexdigest()}"
    home = account.home or f"/home/{account.name}"
    starred = str(int(password == "*"))
    uid = str(account.uid or 1000 + number)
    return [uid, account.comment, home, account.shell, starred, "", digest, f"700 {account.name}", keys]


def healthy(declared: Declared, living: tuple[str, ...]) -> Machine:
    """Return the host as it is after a deploy, with the guests `living` on it."""
    files = [file for each in declared.sets for file in each.files]
    guests = [guest for guest in declared.guests if guest.name in living]
    volumes = [volume for guest in guests for volume in guest.volumes()]
    mac = "52:54:00:c8:01:0b" if declared.host.name == "kvm1" else "52:54:00:c8:01:0c"
    addresses = [
        {"local": str(each.ip), "prefixlen": each.network.prefixlen, "scope": "global"}
        for each in declared.host.interfaces[0].addresses
    ]
    local = {"local": "fe80::5054:ff:fec8:10b", "prefixlen": 64, "scope": "link"}
    return Machine(
        packages=dict.fromkeys(declared.packages, "ii"),
        units={
            daemon.name if "." in daemon.name else f"{daemon.name}.service": ["enabled", "active"]
            for daemon in declared.daemons
        },
        files={
            file.path: [
                file.owner,
                file.group,
                f"{file.mode:o}",
                "regular file",
                hashlib.sha256(sample(file.text).encode()).hexdigest(),
            ]
            for file in files
        },
        matching={"/etc/netplan/*.yaml": ["/etc/netplan/60-homefleet.yaml"]},
        links=[
            {"ifname": "lo", "flags": ["UP"], "address": "00:00:00:00:00:00", "addr_info": []},
            {"ifname": "eth0", "flags": ["UP"], "address": mac, "master": "br0", "addr_info": []},
            {
                "ifname": "br0",
                "flags": ["UP"],
                "address": mac,
                "linkinfo": {"info_kind": "bridge"},
                "addr_info": [*addresses, local],
            },
        ],
        sockets=[
            'tcp LISTEN 0      128      0.0.0.0:2022 0.0.0.0:* users:(("sshd",pid=301,fd=6))            ',
            'tcp LISTEN 0      1      127.0.0.1:7022 0.0.0.0:* users:(("qemu-system-x86",pid=953,fd=11))',
            'udp UNCONN 0      0  127.0.0.53%lo:53   0.0.0.0:* users:(("systemd-resolve",pid=9,fd=14))',
            'tcp LISTEN 0      128         [::]:2022    [::]:* users:(("sshd",pid=301,fd=7))            ',
            'tcp LISTEN 0      128      0.0.0.0:2247 0.0.0.0:* users:(("sshd",pid=301,fd=8))            ',
            'tcp LISTEN 0      128         [::]:2247    [::]:* users:(("sshd",pid=301,fd=9))            ',
        ],
        groups=[group.name for group in declared.groups],
        volumes={
            f"{volume.group}/{volume.name}": [int(volume.size), f"homefleet,guest={volume.guest}"] for volume in volumes
        },
        kernel=recorded_rules(),
        ruleset=recorded_rules(),
        domains={
            guest.name: {
                "state": 1,
                "persistent": True,
                "autostart": True,
                "disks": {volume.path: int(volume.size) for volume in guest.volumes()},
                "xml": to_xml(definition(guest)),
            }
            for guest in guests
        },
        answering=[guest.answers_at() or "" for guest in guests],
        permits=["no"],
        codes=["file root 600", *(f"has {name}" for name in declared.people)],
        unix_groups={
            group: [account.name for account in declared.accounts if group in account.groups]
            for group in ("adm", *(group for account in declared.accounts for group in account.groups))
        },
        logins={account.name: _login(account, number) for number, account in enumerate(declared.accounts)},
    )


@pytest.fixture(scope="module")
def lab() -> tuple[Fleet, tuple[Site, ...]]:
    """The hypervisors of the lab's inventory, kvm1 always there, kvm2 sometimes; the OpenBSD hosts have no services."""
    _, sites = load("lab")

    def bare(host: Host) -> Host:
        return host if host.os is Os.UBUNTU else host.model_copy(update={"services": ()})

    made = tuple(site.model_copy(update={"hosts": tuple(map(bare, site.hosts))}) for site in sites)
    return Fleet(sites=made), made


ALL = ("manicouagan1", "db1", "web1", "docker2")


@dataclass
class World:
    """Which hosts there are, and why another one is not; who was asked is remembered."""

    machines: dict[str, Machine]
    openbsd: dict[str, OpenbsdMachine] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    pki: dict[str, PlayedPki] = field(default_factory=dict)

    def __call__(self, declared: Declared) -> Found:
        host = declared.host
        self.asked.append(host.name)
        if host.name in self.refused:
            return Found(host, Presence.FAILED, reason=self.refused[host.name])
        if host.name in self.gone:
            away = host.presence == "sometimes"
            presence = Presence.AWAY if away else Presence.FAILED
            return Found(host, presence, reason=self.gone[host.name], silent=True)
        machine = self.openbsd[host.name] if declared.openbsd else self.machines[host.name]
        pki = self.pki.get(host.name) or healthy_pki(declared)
        said = {name: it for name, it in pki.said(declared.openbsd).items() if name not in machine.silent}
        questions = evidence_of(declared, testinfra_host.Host(Replayed({}))).questions()
        answers = machine.answer(declared) | {questions[name]: it for name, it in said.items() if name in questions}
        remote = testinfra_host.Host(Replayed(answers, pki))
        return Found(host, Presence.REACHED, evidence=evidence_of(declared, remote))


def world(fleet: Fleet, kvm1: tuple[str, ...] = ALL, kvm2: tuple[str, ...] = ()) -> World:
    living = {"kvm1": kvm1, "kvm2": kvm2}
    others = [host for host in fleet.hosts() if host.os is Os.OPENBSD and host.services]
    return World(
        {name: healthy(Declared(fleet, fleet.host(name), TODAY), on) for name, on in living.items()},
        {host.name: healthy_openbsd(Declared(fleet, host, TODAY)) for host in others},
    )


def report(fleet: Fleet, sites: tuple[Site, ...], there: World, limit: list[str] | None = None) -> Report:
    found = survey(fleet, sites, TODAY, there, limit)
    return Report(found, verify(found))


Lab = tuple[Fleet, tuple[Site, ...]]


def test_a_deployed_pair_is_green(lab: Lab) -> None:
    there = world(lab[0])
    made = report(*lab, there)
    assert made.red == {}
    assert made.waiting == {}
    assert sorted(there.asked) == ["kvm1", "kvm2"]
    ids = [each.check.id for each in made.results]
    assert len(ids) == len(set(ids))
    assert "kvm1/volume/db1-root/size" in ids
    assert made.lines()[0].startswith("kvm1: ") and made.lines()[0].endswith(" green")
    assert "db1: runs on kvm1" in made.lines()
    assert any(line.startswith("7 without a service have nothing to verify: ") for line in made.lines())


Break = Callable[[Machine], object]


def _set(name: str, key: str, index: int, value: Any) -> Break:
    return lambda machine: getattr(machine, name)[key].__setitem__(index, value)


def _domain(key: str, value: Any) -> Break:
    return lambda machine: machine.domains["db1"].__setitem__(key, value)


def _open_port(machine: Machine) -> None:
    """As a mistake in the template would: the kernel has what the file says."""
    for rules in (machine.kernel, machine.ruleset):
        rules.append(_rule(20, _match(_payload("tcp", "dport"), 9998)))


CONF = "/etc/default/libvirt-guests"

BROKEN: dict[str, tuple[Break, str]] = {
    "package": (lambda m: m.packages.pop("lvm2"), "package/lvm2"),
    "service-enabled": (_set("units", "nftables.service", 0, "disabled"), "service/nftables/enabled"),
    "service-running": (_set("units", "nftables.service", 1, "inactive"), "service/nftables/running"),
    "file-content": (_set("files", CONF, 4, "0" * 64), f"file{CONF}/content"),
    "file-owner": (_set("files", CONF, 0, "nobody"), f"file{CONF}/owner"),
    "file-mode": (_set("files", CONF, 2, "606"), f"file{CONF}/mode"),
    "file-stray": (
        lambda m: m.matching["/etc/netplan/*.yaml"].append("/etc/netplan/99-x.yaml"),
        "stray/etc/netplan/*.yaml",
    ),
    "set-pending": (
        lambda m: m.matching.update({"/var/lib/homefleet/pending/*": ["/var/lib/homefleet/pending/netplan"]}),
        "sets/pending",
    ),
    "set-armed": (
        lambda m: m.matching.update({"/var/lib/homefleet/armed/*": ["/var/lib/homefleet/armed/netplan"]}),
        "sets/armed",
    ),
    "account": (lambda m: m.logins["owner"].__setitem__(0, "1101"), "account/owner"),
    "account-shell": (lambda m: m.logins["owner"].__setitem__(3, "/bin/sh"), "account/owner/shell"),
    "account-groups": (lambda m: m.unix_groups["sudo"].remove("owner"), "account/owner/groups"),
    "account-password": (lambda m: m.logins["deploy"].__setitem__(6, "0" * 64), "account/deploy/password"),
    "account-keys": (lambda m: m.logins["owner"].__setitem__(8, ""), "account/owner/keys"),
    "account-code": (lambda m: m.codes.remove("has owner"), "account/owner/code"),
    "root-login": (lambda m: m.permits.append("yes"), "account/root/closed"),
    "bridge": (lambda m: m.links[2].update(ifname="br1"), "bridge/br0"),
    "bridge-uplink": (lambda m: m.links[1].pop("master"), "bridge/br0/uplink"),
    "bridge-addresses": (lambda m: m.links[2]["addr_info"].pop(0), "bridge/br0/addresses"),
    "group": (lambda m: m.groups.clear(), "group/guests"),
    "volume": (lambda m: m.volumes.pop("guests/db1-data"), "volume/db1-data"),
    "volume-size": (_set("volumes", "guests/db1-data", 0, 21478965248), "volume/db1-data/size"),
    "volume-tags": (_set("volumes", "guests/db1-data", 1, "homefleet,guest=web1"), "volume/db1-data/tags"),
    "guest-place": (lambda m: m.domains.pop("db1"), "guest/db1/place"),
    "guest-defined": (_domain("persistent", False), "guest/db1/defined"),
    "guest-definition": (
        lambda m: _domain("xml", m.domains["db1"]["xml"].replace("<vcpu>2<", "<vcpu>1<"))(m),
        "guest/db1/definition",
    ),
    "guest-running": (_domain("state", 5), "guest/db1/running"),
    "guest-autostart": (_domain("autostart", False), "guest/db1/autostart"),
    "guest-disk": (
        lambda m: m.domains["db1"]["disks"].update({"/dev/guests/db1-data": 1073741824}),
        "guest/db1/disk/db1-data",
    ),
    "guest-answers": (lambda m: m.answering.clear(), "guest/db1/answers"),
    "port-listening": (lambda m: m.sockets.__delitem__(slice(0, 4, 3)), "port/tcp-2022/listening"),
    "port-stray": (lambda m: m.sockets.append("tcp LISTEN 0 5 *:9999 *:*"), "port/stray"),
    "firewall-rules": (lambda m: m.kernel.append(_rule(20, chain="forward")), "firewall/rules"),
    "firewall-ports": (
        _open_port,
        "firewall/ports",
    ),
    "bounded-set": (
        lambda m: m.kernel[3]["set"].update(elem=[{"elem": {"val": "192.168.1.12", "timeout": 60, "expires": 9}}]),
        "firewall/migration_peers/empty",
    ),
    "default-network": (lambda m: m.networks.append("default"), "libvirt/default-network"),
    "migration-key": (lambda m: m.keys.append("/run/homefleet/migration.keys"), "migration/key"),
    "migration-unit": (lambda m: m.migration.append("homefleet-migration-close.timer"), "migration/unit"),
    "migration-login": (lambda m: m.moves.append("sshd-session: moves@notty"), "migration/login"),
}


@pytest.mark.parametrize("kind", sorted(ON_UBUNTU - {"reached"}))
def test_each_kind_is_red_when_what_it_checks_is_broken(lab: Lab, kind: str) -> None:
    fleet, sites = _unencrypted(lab[1])
    there = world(fleet)
    broken, name = BROKEN[kind]
    broken(there.machines["kvm1"])
    made = report(fleet, sites, there)
    assert f"kvm1/{name}" in made.red
    (check,) = (each.check for each in made.results if each.check.id == f"kvm1/{name}")
    assert check.kind is KINDS[kind]
    assert made.lines()[0].startswith("kvm1: ") and name.replace("/", " ") in made.lines()[0]


def test_there_is_a_breakage_for_every_kind(lab: Lab) -> None:
    assert {"reached", *BROKEN} == ON_UBUNTU
    found = survey(*lab, TODAY, world(lab[0]))
    targets: dict[str, Check] = {}
    for check in checks(found):
        if check.os is Os.UBUNTU and check.kind.name not in OF_THE_PKI and check.can_be_broken():
            targets.setdefault(check.kind.name, check)
    assert set(targets) == ON_UBUNTU
    commands = [check.breakage() for check in targets.values()]
    for command in (*commands, *(check.mend() for check in targets.values())):
        assert command and "@" not in command, command
        subprocess.run(["sh", "-n"], input=command, text=True, check=True)
    assert all(kind.why for kind in KINDS.values())
    # Two kinds may be broken by one command, as long as each was seen red.
    assert len(commands) == len(ON_UBUNTU)


def _unencrypted(sites: tuple[Site, ...]) -> Lab:
    def plain(host: Host) -> Host:
        if host.guest is None:
            return host
        return host.model_copy(update={"guest": host.guest.model_copy(update={"encrypted": False})})

    made = tuple(site.model_copy(update={"hosts": tuple(map(plain, site.hosts))}) for site in sites)
    return Fleet(sites=made), made


def test_who_may_be_away_is_one_line_and_no_failure(lab: Lab) -> None:
    there = world(lab[0])
    there.gone["kvm2"] = "no TCP connection"
    made = report(*lab, there)
    assert made.red == {}
    assert "kvm2: away" in made.lines()
    assert not [each for each in made.results if each.check.host == "kvm2"]


def test_who_should_be_there_is_one_red_check_that_names_it(lab: Lab) -> None:
    there = world(lab[0], kvm1=(), kvm2=ALL)
    there.gone["kvm1"] = "no TCP connection to 192.168.1.11:22"
    made = report(*lab, there)
    assert made.red == {"kvm1/reached": "no TCP connection to 192.168.1.11:22"}
    assert made.lines()[0] == "kvm1: not reached: no TCP connection to 192.168.1.11:22"
    assert "db1: runs on kvm2" in made.lines()


def test_a_refused_login_is_red_even_for_who_may_be_away(lab: Lab) -> None:
    there = world(lab[0])
    there.refused["kvm2"] = "Permission denied (publickey)."
    assert report(*lab, there).red == {"kvm2/reached": "Permission denied (publickey)."}


def test_an_unrelated_host_is_not_contacted(lab: Lab) -> None:
    there = world(lab[0])
    report(*lab, there)
    assert set(there.asked) == {"kvm1", "kvm2"}


def test_a_limit_asks_the_twin_and_never_blames_it(lab: Lab) -> None:
    there = world(lab[0], kvm1=(), kvm2=ALL)
    there.gone["kvm1"] = "off"
    made = report(*lab, there, ["kvm2"])
    assert made.red == {}
    assert sorted(there.asked) == ["kvm1", "kvm2"]
    assert not [line for line in made.lines() if line.startswith("kvm1")]
    assert {each.check.host for each in made.results} == {"kvm2"}


def test_a_limit_verifies_a_guest_only_where_it_is(lab: Lab) -> None:
    made = report(*lab, world(lab[0], kvm1=("db1", "web1"), kvm2=("docker2", "manicouagan1")), ["kvm1"])
    assert made.red == {}
    assert not [each for each in made.results if "docker2" in each.check.name]
    assert "docker2: runs on kvm2" in made.lines()


def test_an_unknown_limit_and_a_limit_without_services(lab: Lab) -> None:
    with pytest.raises(SurveyError, match="no host 'kvm3'"):
        report(*lab, world(lab[0]), ["kvm3"])
    there = world(lab[0])
    made = report(*lab, there, ["db1"])
    assert made.results == [] and there.asked == [] and made.survey.idle == ("db1",)


def test_a_guest_lives_on_either_twin(lab: Lab) -> None:
    made = report(*lab, world(lab[0], kvm1=("web1", "docker2", "manicouagan1"), kvm2=("db1",)))
    assert made.red == {}
    assert "kvm2/guest/db1/running" in [each.check.id for each in made.results]
    assert "db1: runs on kvm2" in made.lines()


def test_a_guest_on_both_twins_is_red(lab: Lab) -> None:
    made = report(*lab, world(lab[0], kvm2=("db1",)))
    assert made.red == {"kvm1/guest/db1/place": "it is on kvm1 and kvm2"}
    assert "db1: is on kvm1 and kvm2" in made.lines()


def test_a_guest_that_is_nowhere_is_red_where_all_were_asked(lab: Lab) -> None:
    made = report(*lab, world(lab[0], kvm1=("web1", "docker2", "manicouagan1")))
    assert made.red == {"kvm1/guest/db1/place": "it is nowhere; its home is kvm1"}
    assert "db1: is nowhere" in made.lines()


@pytest.mark.parametrize("gone", ["kvm1", "kvm2"])
def test_a_guest_whose_place_is_unknown_is_a_line(lab: Lab, gone: str) -> None:
    there = world(lab[0], kvm1=("web1",), kvm2=("docker2",))
    there.gone[gone] = "off"
    made = report(*lab, there)
    assert f"db1: its place is unknown ({gone} cannot be asked)" in made.lines()
    assert set(made.red) == ({"kvm1/reached"} if gone == "kvm1" else set())


def test_a_libvirt_that_does_not_answer_is_red_and_hides_nothing(lab: Lab) -> None:
    there = world(lab[0], kvm1=(), kvm2=("docker2",))
    there.machines["kvm1"].silent["libvirt"] = (1, "", "error: failed to connect to the hypervisor\n")
    made = report(*lab, there)
    assert made.red["kvm1/libvirt/default-network"] == "could not be known: error: failed to connect to the hypervisor"
    assert "kvm1/guest/db1/place" in made.red
    assert "kvm1/guest/docker2/place" not in made.red
    assert "docker2: runs on kvm2" in made.lines()


def test_an_encrypted_guest_that_does_not_answer_is_neither_green_nor_red(lab: Lab) -> None:
    there = world(lab[0])
    address = lab[0].host("db1").answers_at()
    there.machines["kvm1"].answering.remove(address or "")
    made = report(*lab, there)
    assert made.red == {}
    assert made.waiting == {"kvm1/guest/db1/answers": "waits for its passphrase: fleet console db1"}
    assert "db1: waits for its passphrase: fleet console db1" in made.lines()
    assert made.lines()[0].endswith(" green, 1 waiting")
    assert made.data()["guests"]["db1"]["words"] == "waits for its passphrase: fleet console db1"


def test_a_stopped_guest_is_said_as_such(lab: Lab) -> None:
    there = world(lab[0])
    there.machines["kvm1"].domains["db1"]["state"] = 5
    made = report(*lab, there)
    assert made.red == {"kvm1/guest/db1/running": "it is shut off"}
    assert "db1: is shut off on kvm1" in made.lines()


def test_a_bare_host_is_red_and_breaks_nothing(lab: Lab) -> None:
    there = world(lab[0])
    missing = (127, "", "sh: 1: virsh: not found\n")
    there.machines["kvm1"] = Machine(
        links=[{"ifname": "eth0", "flags": ["UP"], "address": "52:54:00:c8:01:0b", "addr_info": [{}]}],
        silent=dict.fromkeys(("accounts", "libvirt", "groups", "volumes", "kernel", "ruleset"), missing),
    )
    made = report(*lab, there)
    assert made.lines()[0].startswith("kvm1: ")
    assert "kvm1/package/lvm2" in made.red and "kvm1/group/guests" in made.red


@pytest.mark.parametrize(
    "question", ["packages", "links", "sockets", "units", "files", "volumes", "kernel", "echo", "accounts", "codes"]
)
def test_what_could_not_be_known_is_never_green(lab: Lab, question: str) -> None:
    there = world(lab[0])
    green = {each.check.id for each in report(*lab, there).results if each.state is State.GREEN}
    there.machines["kvm1"].silent[question] = (1, "", "it broke\n")
    red = report(*lab, there).red
    assert red
    assert set(red) <= green
    assert any("could not be known: it broke" in text for text in red.values())


def test_a_retired_guest_is_not_expected(lab: Lab) -> None:
    def retire(host: Host) -> Host:
        if host.name != "db1" or host.guest is None:
            return host
        return host.model_copy(update={"guest": host.guest.model_copy(update={"retired": TODAY})})

    sites = tuple(site.model_copy(update={"hosts": tuple(map(retire, site.hosts))}) for site in lab[1])
    fleet = Fleet(sites=sites)
    made = report(fleet, sites, world(fleet, kvm1=("web1", "docker2", "manicouagan1")))
    assert made.red == {}
    assert not [line for line in made.lines() if line.startswith("db1")]


def test_sets_of_the_firewall_are_compared_in_any_order(lab: Lab) -> None:
    there = world(lab[0])
    machine = there.machines["kvm1"]
    machine.kernel[4]["rule"]["expr"][0]["vmap"]["data"]["set"].reverse()
    machine.kernel[6]["rule"]["expr"][0]["match"]["right"] = "lo"
    machine.kernel[6] = machine.ruleset[6]
    assert report(*lab, there).red == {}


def test_a_hypervisor_of_another_site_is_no_twin(lab: Lab) -> None:
    found = Survey(lab[0], TODAY)
    assert found.places == ()
    assert all(host.service(Hypervisor) is None for site in lab[1] if site.name != "home" for host in site.hosts)


def test_judge_says_what_could_not_be_known(lab: Lab) -> None:
    there = world(lab[0])
    there.machines["kvm1"].silent["packages"] = (127, "", "")
    found = survey(*lab, TODAY, there)
    (check,) = (each for each in checks(found) if each.id == "kvm1/package/lvm2")
    assert judge(check).text == "could not be known: exit code 127: dpkg-query"
