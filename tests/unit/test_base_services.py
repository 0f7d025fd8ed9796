"""What every host has: what the services of the base declare and render, and the commands that they bring along."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploys.base import BASE, OPENBSD, UBUNTU, base
from deploys.rcd import reloaded, restarted
from deploys.services import motd, pf, resolver, sshd, totp
from deploys.services.installurl import Installurl
from deploys.services.mail import Mail
from deploys.services.netplan import Netplan
from deploys.services.ntpd import Ntpd
from deploys.services.pf import Connect, Limited, Pf, Talking, collapsed, expiry, own_addresses
from deploys.services.resolver import Resolver
from deploys.services.router import Router
from deploys.services.sshd import Restricted, Sshd
from facts.openbsd.accounts import AccountsState
from facts.openbsd.crontab import Crontab
from fleet.load import load
from fleet.model.secret import SSH_HOST_KEY, marks, sample
from fleet.model.service import ANYONE, Declaration, FileSet, Listen, Service, Table, none_to_keep
from fleet.model.site import Connection, Fleet, Host, Os, Site
from operations.openbsd.accounts import plan_accounts
from operations.openbsd.jobs import plan_jobs
from operations.openbsd.packages import spec
from tests.lab.openbsd.standin import sshd as standin_sshd
from tests.lab.openbsd.standin.pf.model import Rule
from tests.lab.openbsd.standin.pf.parser import Parsed, parse
from tests.shell import check_scripts, is_shell

FLEET, _ = load("home")
OPENBSD_HOSTS = [host for host in FLEET.hosts() if host.os is Os.OPENBSD]
SERVED = [host for host in FLEET.hosts() if host.services]
DB1, PANCAKE, VIRTIE, KVM1 = (FLEET.host(name) for name in ("db1", "pancake", "virtie", "kvm1"))

# Those of OpenBSD's base system that our rules name.
_PASSWD = "".join(
    f"{name}:*:{uid}:{uid}::/var/empty:/sbin/nologin\n"
    for name, uid in (
        ("root", 0),
        ("_unbound", 53),
        ("_pkgfetch", 57),
        ("_ntp", 83),
        ("_smtpd", 95),
        ("_file", 104),
        ("_syspatch", 112),
    )
)


class Imap(Service):
    """A service for the tests: one socket for everybody, one for a neighbour, one that a person opens."""

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        del host, fleet
        return Declaration(
            listens=(
                Listen(port=993),
                Listen(port=4190, last_port=4192, source=(IPv4Network("192.168.1.23/32"),)),
                Listen(port=143, during="imap_allowed"),
                Limited(port=587, table="submission_bruteforce", connections=5, rate=(3, 30)),
            ),
            tables=(Table(name="submission_bruteforce", expires=3600),),
            accounts=(
                Restricted(name="git", authorized_keys=(), command="/usr/local/bin/serve"),
                Restricted(name="mirror", authorized_keys=()),
                Restricted(name="former", removed=True),
            ),
            state=none_to_keep("a service for the tests"),
        )


class Fetcher(Talking):
    """A service for the tests that connects to somebody."""

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        del host, fleet
        return Declaration(state=none_to_keep("a service for the tests"))

    def connects(self, host: Host, fleet: Fleet) -> tuple[Connect, ...]:
        del host, fleet
        return (Connect(ports=(6514,), to=(IPv4Network("192.168.1.21/32"),)),)


def within(site_name: str, host: Host, **site_changes: object) -> Fleet:
    """Return the fleet in which `host` takes the place of its namesake."""

    def changed(site: Site) -> Site:
        hosts = tuple(host if other.name == host.name else other for other in site.hosts)
        return Site(**{**dict(site), "hosts": hosts, **site_changes})

    return Fleet(sites=tuple(changed(site) if site.name == site_name else site for site in FLEET.sites))


def having(host: Host, *services: Service, without: tuple[type[Service], ...] = ()) -> Host:
    """Return `host` with `services` beside its own, or in the place of those of the same class."""
    replaced = (*without, *(type(service) for service in services))
    kept = tuple(service for service in host.services if not isinstance(service, replaced))
    return Host(**{**dict(host), "services": (*kept, *services)})


def sets(host: Host, fleet: Fleet = FLEET) -> dict[str, FileSet]:
    made = [each for service in host.services for each in service.renders(host, fleet)]
    named = {each.name: each for each in made}
    assert len(named) == len(made)
    return named


def text(host: Host, path: str, fleet: Fleet = FLEET) -> str:
    (found,) = (file.text for each in sets(host, fleet).values() for file in each.files if file.path == path)
    return found


@pytest.fixture(autouse=True)
def _openbsd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    etc = tmp_path / "openbsd" / "etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text(_PASSWD)
    monkeypatch.setenv("STANDIN_ROOT", str(tmp_path / "openbsd"))


def _no_address() -> None:
    raise AssertionError("a rule asks for an address of an interface while it is loaded")


def rules_of(host: Host, fleet: Fleet = FLEET) -> Parsed:
    """Return pf.conf as pfctl reads it, with no address there and no name service."""
    read = parse("pf.conf", text(host, pf.CONF, fleet), _no_address)  # type: ignore[arg-type]
    assert read.errors == []
    return read


def position(lines: list[str], start: str) -> int:
    (found,) = (number for number, line in enumerate(lines) if line.startswith(start))
    return found


# --- all of them ---


def test_base_is_of_both_systems() -> None:
    assert set(BASE) == {*OPENBSD, *UBUNTU}
    assert all(cls.base for cls in BASE)
    for host in SERVED:
        wanted = OPENBSD if host.os is Os.OPENBSD else UBUNTU
        assert [type(service) for service in host.services if service.base] == list(wanted)


def test_a_base_service_is_replaced_by_the_one_that_was_chosen() -> None:
    chosen = Ntpd(servers=("192.168.1.1",))
    assert chosen in base(Os.OPENBSD, chosen)
    assert len(base(Os.OPENBSD, chosen)) == len(OPENBSD)
    with pytest.raises(ValueError, match="Netplan is not of the base of openbsd"):
        base(Os.OPENBSD, Netplan(bridges=()))


@pytest.mark.parametrize("host", SERVED, ids=lambda host: host.name)
def test_no_two_sets_have_a_file_in_common(host: Host) -> None:
    paths = [file.path for each in sets(host).values() for file in each.files]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("host", SERVED, ids=lambda host: host.name)
def test_a_secret_is_in_no_file_that_others_read(host: Host) -> None:
    for each in sets(host).values():
        for file in each.files:
            if marks(file.text) or file.secret:
                assert file.secret and not file.mode & 0o077, file.path


def test_there_are_secrets_to_look_at() -> None:
    assert marks(text(DB1, "/home/owner/.totp-key"))
    assert marks(text(KVM1, totp.SEEDS))
    (owner,) = (it for it in FLEET.accounts(DB1) if it.name == "owner")
    assert [secret.name for secret in marks(owner.password or "")] == ["password-owner"]


@pytest.mark.parametrize("host", OPENBSD_HOSTS, ids=lambda host: host.name)
def test_no_file_of_openbsd_belongs_to_a_group_that_it_has_not(host: Host) -> None:
    groups = {file.group for each in sets(host).values() for file in each.files}
    assert groups == {"wheel", "owner"}


@pytest.mark.parametrize("host", SERVED, ids=lambda host: host.name)
def test_the_ways_in_are_changed_in_order(host: Host) -> None:
    dangerous = [each.name for each in sets(host).values() if each.dangerous]
    assert dangerous == (["doas", "sshd", "pf"] if host.os is Os.OPENBSD else ["sudo", "sshd", "nftables", "netplan"])


@pytest.mark.parametrize("host", SERVED, ids=lambda host: host.name)
def test_rendering_is_pure(host: Host) -> None:
    again, _ = load("home")
    assert sets(host) == sets(again.host(host.name), again)


def _commands(host: Host) -> Iterator[str]:
    for each in (each for service in host.services for each in service.renders(host, FLEET)):
        commands = (each.check, each.apply, each.undo, each.undo_at_boot, each.before)
        yield from (command.replace("{new}", "/stage/new") for command in commands if command is not None)
        yield from (file.text for file in each.files if is_shell(file.path, file.text))
    yield from (job.command for _, said in FLEET.declarations(host) for job in said.jobs)


@pytest.mark.parametrize("host", [PANCAKE, KVM1, DB1], ids=lambda host: host.name)
def test_a_host_can_run_every_command(host: Host) -> None:
    check_scripts(*_commands(host), openbsd=host.os is Os.OPENBSD)


@pytest.mark.parametrize("host", OPENBSD_HOSTS, ids=lambda host: host.name)
def test_the_operations_take_what_is_declared(host: Host) -> None:
    """Names of packages, classes, accounts and jobs that an operation would refuse stop here, not on the host."""
    said = [declaration for _, declaration in FLEET.declarations(host)]
    assert [spec(name).text for name in FLEET.packages(host)] == ["login_oath--", "rsync--"]
    accounts = [
        account.model_copy(update={"password": None if account.password is None else sample(account.password)})
        for account in FLEET.accounts(host)
    ]
    classes = [cls for each in said for cls in each.classes]
    made = plan_accounts(classes, [], accounts, AccountsState(groups={"wheel": (0, ())}))
    assert made.refused == ()
    assert {step.subject for step in made.steps} == {"login class person", "owner", "deploy"}
    jobs = plan_jobs([job for each in said for job in each.jobs], ["root"], {"root": Crontab(exists=True)})
    assert jobs.refused == () and len(jobs.steps) == 1


# --- names ---


def test_a_host_knows_its_name_and_its_neighbours() -> None:
    assert text(DB1, "/etc/myname") == "db1.chown.me\n"
    lines = text(DB1, "/etc/hosts").splitlines()
    assert lines[1:3] == ["127.0.0.1\tlocalhost", "::1\tlocalhost"]
    assert "192.168.1.23\tweb1.chown.me web1" in lines
    assert not any("virtie" in line for line in lines)
    assert len(set(lines)) == len(lines)


def test_a_url_with_a_comment_is_no_url() -> None:
    with pytest.raises(ValueError, match="pkg_add takes all that is on the line"):
        Installurl.model_validate({"url": "https://mirror.example/pub/OpenBSD # near"})


# --- accounts and codes ---


def test_people_have_the_class_of_people_and_no_shared_group() -> None:
    by_name = {account.name: account for account in FLEET.accounts(DB1)}
    assert by_name["owner"].login_class == "person"
    assert by_name["owner"].groups == ("wheel",)
    assert by_name["deploy"].login_class == "default"
    assert by_name["deploy"].groups == ()
    assert by_name["deploy"].password is None
    (cls,) = (cls for _, said in FLEET.declarations(DB1) for cls in said.classes)
    assert cls.name == "person"
    assert cls.capabilities == ("auth-ssh=-totp",)


def test_the_deployment_has_the_key_that_connects_and_no_other() -> None:
    (deploy,) = (it for it in FLEET.accounts(DB1) if it.name == "deploy")
    assert deploy.authorized_keys == (DB1.connection.public_key,)
    keys = {host.connection.public_key for host in OPENBSD_HOSTS if FLEET.site_of(host).name != "home"}
    assert DB1.connection.public_key not in keys
    assert len(keys) == 2


@pytest.mark.parametrize(
    "connection",
    [
        Connection(address="192.168.1.22", user="deploy"),
        Connection(address="192.168.1.22", user="root", public_key=DB1.connection.public_key),
    ],
    ids=["its public half is not known", "it is root's"],
)
def test_keys_of_the_deployment_are_left_alone_where(connection: Connection) -> None:
    host = Host(**{**dict(DB1), "connection": connection})
    (deploy,) = (it for it in within("home", host).accounts(host) if it.name == "deploy")
    assert deploy.authorized_keys is None


def _with_retired() -> Fleet:
    site = FLEET.site_of(DB1)
    (owner,) = site.people
    gone = type(owner)(**{**dict(owner), "name": "gone", "uid": 1101, "retired": True})
    return within("home", DB1, people=(owner, gone))


def test_who_left_is_locked_out_everywhere() -> None:
    fleet = _with_retired()
    by_name = {account.name: account for account in fleet.accounts(DB1)}
    assert by_name["gone"].removed and not by_name["owner"].removed
    for host in (DB1, KVM1):
        config = text(host, sshd.CONF, fleet)
        assert "owner" in config and "gone" not in config
    assert "/home/gone/.totp-key" not in {file.path for file in sets(DB1, fleet)["totp"].files}
    assert "gone" not in text(KVM1, totp.SEEDS, fleet)


def test_a_code_is_asked_of_everybody() -> None:
    assert "nullok" not in text(KVM1, "/etc/pam.d/sshd")
    auth = [line.split() for line in text(KVM1, "/etc/pam.d/sshd").splitlines() if line.startswith("auth")]
    assert [line[1:3] for line in auth] == [["required", "pam_oath.so"]]


def _take_over(tmp_path: Path, wanted: str, users: str | None) -> str:
    seeds, live = tmp_path / "wanted", tmp_path / "users"
    seeds.write_text(wanted)
    if users is not None:
        live.write_text(users)
    (command,) = {each.apply for each in sets(KVM1).values() if each.name == "totp"}
    assert command is not None
    script = command.replace(totp.SEEDS, str(seeds)).replace(totp.USERS, str(live))
    subprocess.run(["sh", "-euc", script], check=True, timeout=10)
    assert live.stat().st_mode & 0o777 == 0o600
    return live.read_text()


@pytest.mark.parametrize(
    ("wanted", "users", "result"),
    [
        ("HOTP/T30/6 a - 11\n", None, "HOTP/T30/6 a - 11\n"),
        ("HOTP/T30/6 a - 11\n", "", "HOTP/T30/6 a - 11\n"),
        (
            "HOTP/T30/6 a - 11\n",
            "HOTP/T30/6\ta\t-\t11\t0\t123456\t2026-11-23T10:00:00L\n",
            "HOTP/T30/6\ta\t-\t11\t0\t123456\t2026-11-23T10:00:00L\n",
        ),
        (
            "HOTP/T30/6 a - 22\n",
            "HOTP/T30/6\ta\t-\t11\t0\t123456\t2026-11-23T10:00:00L\n",
            "HOTP/T30/6 a - 22\n",
        ),
        (
            "HOTP/T30/6 a - 11\nHOTP/T30/6 b - 33\n",
            "HOTP/T30/6\tb\t-\t33\t0\t1\tx\nHOTP/T30/6\tgone\t-\t44\n",
            "HOTP/T30/6 a - 11\nHOTP/T30/6\tb\t-\t33\t0\t1\tx\n",
        ),
        ("", "HOTP/T30/6\tgone\t-\t44\n", ""),
    ],
    ids=["first", "empty", "same secret", "another secret", "one left, one new", "nobody"],
)
def test_the_last_code_is_remembered_with_its_secret(
    tmp_path: Path, wanted: str, users: str | None, result: str
) -> None:
    assert _take_over(tmp_path, wanted, users) == result


# --- sshd ---


def _blocks(config: str) -> dict[str, dict[str, str]]:
    """Return the settings of each Match block, and those before the first under ''."""
    blocks: dict[str, dict[str, str]] = {"": {}}
    current = ""
    for line in config.splitlines():
        words = line.split(None, 1)
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "Match":
            current = words[1]
            blocks[current] = {}
        elif words[0] == "Port":
            blocks[current]["Port"] = " ".join([*blocks[current].get("Port", "").split(), words[1]])
        else:
            assert words[0] not in blocks[current], line
            blocks[current][words[0]] = words[1]
    return blocks


@pytest.mark.parametrize("host", OPENBSD_HOSTS, ids=lambda host: host.name)
def test_sshd_of_openbsd(host: Host) -> None:
    blocks = _blocks(text(host, sshd.CONF))
    assert blocks[""]["Port"] == "22 2022 2247"
    assert blocks[""]["PermitRootLogin"] == "no"
    assert blocks[""]["AllowUsers"] == "owner"
    assert blocks[""]["AuthenticationMethods"] == "publickey,keyboard-interactive:bsdauth"
    assert blocks["LocalPort 2247"]["AllowUsers"] == "deploy"
    assert blocks["LocalPort 2247"]["AuthenticationMethods"] == "publickey"
    assert set(blocks) == {"", "LocalPort 2247"}


@pytest.mark.parametrize("host", OPENBSD_HOSTS, ids=lambda host: host.name)
def test_every_option_of_sshd_is_one_that_openbsds_has(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in refuses options of the portable sshd and stops at those that it does not know."""
    monkeypatch.setattr(standin_sshd, "REAL", "/bin/true")
    place = tmp_path / "openbsd" / sshd.CONF.lstrip("/")
    place.parent.mkdir(parents=True)
    for directory in ("etc/ssh", "var/standin", "var/run"):
        (tmp_path / "openbsd" / directory).mkdir(parents=True, exist_ok=True)
    config = text(host, sshd.CONF)
    place.write_text(config)
    assert standin_sshd.main(["-t", "-f", sshd.CONF]) == 0
    place.write_text(f"UsePAM yes\n{config}")
    assert standin_sshd.main(["-t", "-f", sshd.CONF]) == 255
    place.write_text(f"NoSuchOption yes\n{config}")
    with pytest.raises(SystemExit):
        standin_sshd.main(["-t", "-f", sshd.CONF])


def test_sshd_spares_own_addresses_and_those_of_deployments_from_penalties() -> None:
    exempt = _blocks(text(VIRTIE, sshd.CONF))[""]["PerSourcePenaltyExemptList"].split(",")
    assert exempt == [
        *("192.0.2.53", "198.51.100.80", "203.0.113.2"),
        *("2001:db8:1::/64", "2001:db8:2::80", "2001:db8:3::53"),
    ]


def test_a_service_account_gets_one_command_and_nothing_else() -> None:
    host = having(DB1, Imap())
    blocks = _blocks(text(host, sshd.CONF, within("home", host)))
    assert blocks[""]["AllowUsers"] == "git mirror owner"
    assert blocks[""]["DisableForwarding"] == "yes"
    assert blocks["User git"]["ForceCommand"] == "/usr/local/bin/serve"
    assert "ForceCommand" not in blocks["User mirror"]
    for name in ("git", "mirror"):
        assert blocks[f"User {name}"]["PermitTTY"] == "no"
        assert blocks[f"User {name}"]["AuthenticationMethods"] == "publickey"
    assert "User former" not in blocks


def test_nobody_comes_in_as_root() -> None:
    for host in SERVED:
        config = text(host, sshd.CONF)
        assert _blocks(config)[""]["PermitRootLogin"] == "no"
        assert config.count("PermitRootLogin") == 1 and "root" not in _blocks(config)[""]["AllowUsers"].split()


def test_what_the_deployment_became_root_by_goes_with_our_own_rule_alone() -> None:
    """The installer's may name the group: it is kept, while its files go with the swap that is confirmed."""
    (deploy,) = (it for it in FLEET.accounts(KVM1) if it.name == "deploy")
    assert deploy.groups == ("sudo",) and deploy.password is None
    sudo = sets(KVM1)["sudo"]
    assert sudo.dangerous and sudo.exclusive == ("/etc/sudoers.d/*",)
    assert "deploy ALL=(root) NOPASSWD: ALL\n" in text(KVM1, "/etc/sudoers.d/homefleet")


@pytest.mark.parametrize(
    ("rules", "inserted"),
    [
        (None, []),
        ("tcp dport 2022 accept\nip saddr 192.168.1.0/24 tcp dport 2247 accept\n", []),
        ("tcp dport 22 accept\ntcp dport 20222 accept\n", ["2022", "2247"]),
        ("tcp dport 2022 accept\n", ["2247"]),
    ],
    ids=["no table of ours", "both passed", "neither", "one"],
)
def test_a_port_that_the_loaded_rules_do_not_know_is_passed_until_theirs_come(
    rules: str | None, inserted: list[str], tmp_path: Path
) -> None:
    """Without it nobody could confirm: the rules in force pass the old port, sshd listens on the new one."""
    apply, before = sets(KVM1)["sshd"].apply, sets(KVM1)["sshd"].before
    assert apply is not None and before is not None
    told = tmp_path / "told"
    shown = "exit 1" if rules is None else f"printf '%s' '{rules}'"
    nft = f'if [ "$1" = list ]; then {shown}; else echo "$@" >>{told}; fi'
    assert _run(apply, tmp_path, nft=nft, systemctl="exit 0").returncode == 0
    said = told.read_text().splitlines() if told.exists() else []
    assert said == [f"insert rule inet homefleet input tcp dport {port} accept" for port in inserted]
    back = _run(before, tmp_path, nft=nft, systemctl="exit 1").stdout.splitlines()
    assert ("nft -f /etc/nftables.conf" in back) is bool(inserted)


def test_the_host_key_is_the_repositorys_unless_it_shall_not_be() -> None:
    for host in (DB1, KVM1):
        files = {file.path: file for file in sets(host)["sshd"].files}
        assert files[sshd.HOST_KEY].text == f"{SSH_HOST_KEY}\n"
        assert files[sshd.HOST_KEY].secret and files[sshd.HOST_KEY].mode == 0o600
    host = having(DB1, Sshd(host_key=False))
    assert sshd.HOST_KEY not in {file.path for file in sets(host, within("home", host))["sshd"].files}


# --- pf ---


def _passes(parsed: Parsed) -> Iterable[Rule]:
    return (rule for rule in parsed.ruleset.rules if rule.action == "pass")


@pytest.mark.parametrize("host", OPENBSD_HOSTS, ids=lambda host: host.name)
def test_pf_denies_both_ways_and_never_passes_rcs_port(host: Host) -> None:
    parsed = rules_of(host)
    first = next(rule for rule in parsed.ruleset.rules if rule.action != "match")
    assert (first.action, first.direction, first.quick, first.dest.kind) == ("block", "", False, "any")
    for rule in _passes(parsed):
        assert rule.quick
        assert rule.direction or rule.icmp_type is not None
        through = rule.tag or rule.tagged
        assert through or rule.dest_port is not None or rule.icmp_type is not None
        assert rule.dest_port is None or "22" not in re.split(r"\W", repr(rule.dest_port))


@pytest.mark.parametrize("host", OPENBSD_HOSTS, ids=lambda host: host.name)
def test_pf_opens_every_socket_that_is_declared(host: Host) -> None:
    lines = text(host, pf.CONF).splitlines()
    for listen in FLEET.listens(host):
        opening = re.compile(rf"pass in quick proto {listen.protocol} .*port {listen.port}\b")
        assert any(opening.match(line) for line in lines), listen


@pytest.mark.parametrize("host", OPENBSD_HOSTS, ids=lambda host: host.name)
def test_own_addresses_are_passed_before_any_ban(host: Host) -> None:
    lines = text(host, pf.CONF).splitlines()
    bans = [number for number, line in enumerate(lines) if line.startswith("block in quick from <")]
    known = [number for number, line in enumerate(lines) if re.match(r"pass in quick proto \w+ from ", line)]
    others = [number for number, line in enumerate(lines) if re.match(r"pass in quick proto \w+ to ", line)]
    assert known and others and len(bans) == 2
    assert max(known) < min(bans) <= max(bans) < min(others)


def test_pf_follows_what_a_service_declares() -> None:
    host = having(DB1, Imap())
    fleet = within("home", host)
    rules_of(host, fleet)
    lines = text(host, pf.CONF, fleet).splitlines()
    assert "pass in quick proto tcp to (vio0) port 993" in lines
    assert "pass in quick proto tcp from <own> to (vio0) port 993" in lines
    assert "pass in quick proto tcp from 192.168.1.23 to (vio0) port 4190:4192" in lines
    assert "pass in quick proto tcp from <imap_allowed> to (vio0) port 143" in lines
    limits = "max-src-conn 5, max-src-conn-rate 3/30, overload <submission_bruteforce> flush global"
    assert f"pass in quick proto tcp to (vio0) port 587 keep state ({limits})" in lines
    for name in ("api_bans", "deploy_allowed", "imap_allowed", "ssh_bruteforce", "submission_bruteforce"):
        assert f"table <{name}> persist" in lines
    bans = [line for line in lines if line.startswith("block in quick from")]
    assert bans == [f"block in quick from <{name}>" for name in ("api_bans", "ssh_bruteforce", "submission_bruteforce")]


def test_state_options_of_a_rule_repeat_the_defaults() -> None:
    """Contract 0.3, 8: the parentheses of a rule replace `set state-defaults`."""
    host = having(DB1, Pf(state_defaults=("pflow",)))
    fleet = within("home", host)
    rules_of(host, fleet)
    lines = text(host, pf.CONF, fleet).splitlines()
    assert "set state-defaults pflow" in lines
    limited = [line for line in lines if "keep state (" in line]
    assert limited
    assert all(line.endswith("flush global, pflow)") for line in limited)
    assert "state-defaults" not in text(DB1, pf.CONF)


def test_pf_lets_out_what_a_service_says_and_no_more() -> None:
    host = having(DB1, Fetcher(), Ntpd(constraints=("www.chown.me",)), Resolver(forwarders=("192.168.1.1",)))
    fleet = within("home", host)
    rules_of(host, fleet)
    lines = [line for line in text(host, pf.CONF, fleet).splitlines() if line.startswith("pass out quick proto")]
    assert "pass out quick proto tcp to 192.168.1.21 port 6514" in lines
    assert "pass out quick proto tcp to any port 443 user _ntp" in lines
    assert "pass out quick proto { tcp udp } to 192.168.1.1 port 53 user _unbound" in lines
    assert not any("any port 53" in line for line in lines)
    assert all(re.search(r" user _?\w+$", line) for line in lines if "6514" not in line)


def test_a_router_translates_before_anything_lets_a_packet_out() -> None:
    parsed = rules_of(PANCAKE)
    lines = text(PANCAKE, pf.CONF).splitlines()
    translation = position(lines, "match out on em0 inet tagged through nat-to (em0)")
    assert translation < min(n for n, line in enumerate(lines) if line.startswith("pass out"))
    # What the flat sends to the router itself is decided by the sockets that are declared.
    assert position(lines, "block in log quick on em1 to") < position(lines, "pass in quick on em1")
    inbound = [rule for rule in _passes(parsed) if rule.direction == "in" and rule.tag == "through"]
    assert {rule.interface for rule in inbound} == {"em1"}
    sysctls = dict(pair for _, said in FLEET.declarations(PANCAKE) for pair in said.sysctls)
    assert sysctls["net.inet.ip.forwarding"] == "1"
    assert "through" not in text(DB1, pf.CONF)


def test_a_router_is_between_two_networks() -> None:
    with pytest.raises(ValueError, match="between two networks"):
        Router.model_validate({"inside": "flat", "outside": "flat"})


def test_own_addresses_are_this_sites_and_the_others_public_ones() -> None:
    own = own_addresses(VIRTIE, FLEET)
    assert ip_network("203.0.113.2/32") in own
    assert not any(net.version == 4 and net.subnet_of(IPv4Network("192.168.0.0/16")) for net in own)
    assert ip_network("192.168.1.0/24") in own_addresses(DB1, FLEET)


nets = st.one_of(
    st.ip_addresses(v=4, network="192.0.2.0/26").map(ip_network),
    st.ip_addresses(v=6, network="2001:db8::/121").map(ip_network),
    st.sampled_from([ip_network("192.0.2.0/28"), ip_network("192.0.2.16/30"), ip_network("2001:db8::/124")]),
)


@given(st.lists(nets, max_size=20))
def test_a_table_has_each_address_once(given_nets: list[pf.Net]) -> None:
    found = collapsed(given_nets)
    assert found == collapsed(reversed(given_nets))
    for one in found:
        assert not any(one is not other and one.version == other.version and one.overlaps(other) for other in found)
    for net in given_nets:
        assert any(net.version == it.version and net.network_address in it for it in found)


def test_a_ban_ends() -> None:
    job = expiry(Table(name="ssh_bruteforce", expires=600))
    assert job.command == "pfctl -q -t ssh_bruteforce -T expire 600"
    declared = [job for _, said in FLEET.declarations(DB1) for job in said.jobs]
    assert [job.command.split()[3] for job in declared] == ["ssh_bruteforce"]


def test_nobody_is_let_in_twice_on_ubuntu() -> None:
    rules = [line.strip() for line in text(KVM1, "/etc/nftables.conf").splitlines() if " dport " in line]
    assert len(set(rules)) == len(rules)
    assert "ip saddr 192.168.1.0/24 tcp dport 2247 accept" in rules
    assert "ip saddr @deploy_allowed tcp dport 2247 accept" in rules
    assert "meta nfproto ipv4 tcp dport 2247 accept" not in rules


# --- the others ---


def test_a_resolver_answers_the_networks_that_are_named() -> None:
    config = text(PANCAKE, resolver.CONF)
    assert "\tinterface: 192.168.1.1\n" in config and "\taccess-control: 192.168.1.0/24 allow\n" in config
    assert "203.0.113" not in config
    ports = {(it.protocol, it.port, it.source) for it in FLEET.listens(PANCAKE) if it.port == 53}
    assert {(protocol, port) for protocol, port, _ in ports} == {("tcp", 53), ("udp", 53)}
    assert all(set(source).isdisjoint(ANYONE) for _, _, source in ports)
    assert not any(it.port == 53 for it in FLEET.listens(DB1))
    off = [daemon for daemon in FLEET.daemons(DB1) if not daemon.enabled]
    assert [daemon.name for daemon in off] == ["resolvd"]


def test_roots_mail_goes_to_the_owner() -> None:
    for host, path in ((DB1, "/etc/mail/aliases"), (KVM1, "/etc/aliases")):
        assert "root: owner@chown.me\n" in text(host, path)
    host = having(DB1, Mail(relay="mail.chown.me"))
    config = text(host, "/etc/mail/smtpd.conf", within("home", host))
    assert 'relay helo "db1.chown.me" host "smtp://mail.chown.me"' in config
    assert "listen on socket" in config and "listen on all" not in config


def test_updates_never_reboot_and_leave_what_guests_run_in() -> None:
    config = text(KVM1, "/etc/apt/apt.conf.d/60homefleet")
    assert 'Automatic-Reboot "false"' in config
    assert "-security" in config and "-updates" not in config
    waiting = re.findall(r'^\t"([a-z]+)";$', config, re.MULTILINE)
    untouched = text(KVM1, "/etc/needrestart/conf.d/homefleet.conf")
    for package in ("libvirt-daemon-system", "qemu-system-x86", "docker.io", "docker-ce", "containerd.io", "runc"):
        assert any(package.startswith(name) for name in waiting), package
    for unit in ("libvirtd.service", "virtlogd.service", "virtqemud.service", "docker.service", "containerd.service"):
        assert any(re.match(pattern, unit) for pattern in re.findall(r"qr\((\^\w+)\)", untouched)), unit


# --- commands, run for real with programs that only say that they were called ---


def _run(command: str, tmp_path: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    bin_ = tmp_path / "bin"
    bin_.mkdir(exist_ok=True)
    for name, script in programs.items():
        program = bin_ / name.replace("_", "-")
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    return subprocess.run(
        ["sh", "-euc", command],
        env={**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )


@pytest.mark.parametrize(("command", "action"), [(reloaded("sshd"), "reload"), (restarted("ntpd"), "restart")])
def test_only_a_daemon_that_runs_is_told(command: str, action: str, tmp_path: Path) -> None:
    told = tmp_path / "told"
    running = f'echo "$@" >>{told}'
    assert _run(command, tmp_path, rcctl=running).returncode == 0
    assert [line.split()[0] for line in told.read_text().splitlines()] == ["check", action]
    told.unlink()
    assert _run(command, tmp_path, rcctl=f'{running}; [ "$1" != check ]').returncode == 0
    assert [line.split()[0] for line in told.read_text().splitlines()] == ["check"]


def test_a_daemon_that_refuses_fails_the_set(tmp_path: Path) -> None:
    assert _run(restarted("ntpd"), tmp_path, rcctl='[ "$1" = check ]').returncode != 0


def test_pf_is_enabled_once(tmp_path: Path) -> None:
    apply = sets(DB1)["pf"].apply
    assert apply is not None
    called = tmp_path / "called"
    says = f'echo "$@" >>{called}; [ "$1" != -si ] || echo "Status: %s"'
    assert _run(apply, tmp_path, pfctl=says % "Enabled for 0 days 00:00:10").returncode == 0
    assert called.read_text().splitlines() == ["-f /etc/pf.conf", "-si"]
    called.unlink()
    assert _run(apply, tmp_path, pfctl=says % "Disabled").returncode == 0
    assert called.read_text().splitlines() == ["-f /etc/pf.conf", "-si", "-e"]


@pytest.mark.parametrize(
    ("old", "head"),
    [
        ("OpenBSD 7.9-current\n\nWelcome.\n\nMore.\n", "OpenBSD 7.9-current\n"),
        ("OpenBSD 7.9-current\n", "OpenBSD 7.9-current\n"),
        ("\nof somebody else\n", ""),
        ("", ""),
        (None, ""),
    ],
    ids=["as it comes", "no empty line", "nothing before it", "empty", "missing"],
)
def test_motd_keeps_what_is_before_the_first_empty_line(old: str | None, head: str, tmp_path: Path) -> None:
    """Contract 14: rc replaces all before the first empty line at boot and keeps the rest."""
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "motd.local").write_text("db1: PostgreSQL.\n\nMade from the inventory.\n")
    if old is not None:
        (etc / "motd").write_text(old)
    apply = sets(DB1)["motd"].apply
    assert apply is not None and motd.TEXT == "/etc/motd.local"
    for _ in range(2):
        assert _run(apply.replace("/etc/", f"{etc}/"), tmp_path, chown=":").returncode == 0
        assert (etc / "motd").read_text() == f"{head}\ndb1: PostgreSQL.\n\nMade from the inventory.\n"
    assert sorted(path.name for path in etc.iterdir()) == ["motd", "motd.local"]
    assert (etc / "motd").stat().st_mode & 0o777 == 0o664


def test_unbound_is_checked_outside_of_its_chroot(tmp_path: Path) -> None:
    check = sets(DB1)["resolver"].check
    assert check is not None
    staged = tmp_path / resolver.CONF.lstrip("/")
    staged.parent.mkdir(parents=True)
    staged.write_text(text(DB1, resolver.CONF))
    done = _run(check.replace("{new}", str(tmp_path)), tmp_path, unbound_checkconf='cat "$1"')
    assert done.returncode == 0
    assert "auto-trust-anchor-file" not in done.stdout and 'chroot: ""' in done.stdout
    assert "hide-version" in done.stdout
    assert _run(check.replace("{new}", str(tmp_path)), tmp_path, unbound_checkconf="exit 1").returncode != 0
