"""Who logs where, with which certificate, and what the host is given of the PKI: derived from the inventory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from deploys.services.logserver import FACILITIES, FOLDER, OTHER, LogServer, log_server, senders_to
from deploys.services.router import Router, address_of, peers_of
from deploys.services.syslogd import CONF, Syslogd
from fleet.load import load
from fleet.model.pki import Published
from fleet.model.service import Declaration, FileSet, Listen, Service, none_to_keep
from fleet.model.site import Fleet, Host
from fleet.pki.wanted import wanted

HOME, _ = load("home")
SLOTS = [one.slot for one in wanted(HOME) if one.authority.name == "log"]
GIVEN = HOME.model_copy(
    update={"published": Published(certificates=dict.fromkeys(SLOTS, "C\n"), roots={"log": "R\n"}, crls={"log": "L\n"})}
)


def _set(fleet: Fleet, host: str, name: str) -> FileSet:
    me = fleet.host(host)
    (found,) = (each for service in me.services for each in service.renders(me, fleet) if each.name == name)
    return found


def _text(fleet: Fleet, host: str) -> str:
    return next(file.text for file in _set(fleet, host, "syslogd").files if file.path == CONF)


def _syslogd(fleet: Fleet, host: str) -> str | None:
    return next(daemon.flags for daemon in fleet.daemons(fleet.host(host)) if daemon.name == "syslogd")


def test_every_host_with_a_syslogd_logs_to_the_one_server() -> None:
    server = log_server(HOME)
    assert server is not None and server.name == "manicouagan1"
    openbsd = {host.name for host in HOME.hosts() if host.service(Syslogd) is not None}
    assert openbsd - {"manicouagan1"} <= {host.name for host in senders_to(server, HOME)}
    assert {f"log.{host.name}.client" for host in senders_to(server, HOME)} == {
        slot for slot in SLOTS if slot.endswith(".client")
    }


def test_until_there_is_a_certificate_a_host_logs_as_before() -> None:
    assert _syslogd(HOME, "ns3") == "-Z"
    assert "@tls" not in _text(HOME, "ns3")
    ns3 = HOME.host("ns3")
    assert "log-client" not in {made.name for it in ns3.services for made in it.renders(ns3, HOME)}


def test_with_its_certificate_it_sends_everything() -> None:
    assert _syslogd(GIVEN, "ns3") == (
        "-Z -C /etc/ssl/log-client-roots.pem -c /etc/ssl/log-client.crt -k /etc/ssl/private/log-client.key"
    )
    assert _text(GIVEN, "ns3").endswith("*.*\t@tls4://manicouagan1.chown.me:6514\n")
    files = {file.path: (file.text, file.mode) for file in _set(GIVEN, "ns3", "log-client").files}
    assert files == {"/etc/ssl/log-client.crt": ("C\n", 0o644), "/etc/ssl/log-client-roots.pem": ("R\n", 0o644)}


class Chrooted(Service):
    """A service whose daemon looks for the log inside its own root."""

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        del host, fleet
        return Declaration(state=none_to_keep("a test keeps nothing"))

    def log_sockets(self) -> Iterable[str]:
        return ("/var/www/dev/log",)


def test_a_chrooted_daemon_has_a_socket_of_its_own() -> None:
    assert _syslogd(_changed(HOME, "web1", Chrooted()), "web1") == "-Z -a /var/www/dev/log"


def test_the_server_listens_where_its_key_is_looked_for() -> None:
    assert _syslogd(GIVEN, "manicouagan1") == "-n -Z -S 192.168.1.21 -K /etc/ssl/log-server-roots.pem"
    assert {file.path for file in _set(GIVEN, "manicouagan1", "log-server").files} == {
        "/etc/ssl/192.168.1.21.crt",
        "/etc/ssl/log-server-roots.pem",
    }
    other = LogServer(port=10514).certificate(GIVEN.host("manicouagan1"), GIVEN)
    assert other.key_path == "/etc/ssl/private/192.168.1.21:10514.key"


def test_a_daemon_that_has_new_certificates_or_a_new_file_is_restarted() -> None:
    for host, names in {"ns3": ("syslogd", "log-client"), "manicouagan1": ("syslogd", "log-server")}.items():
        (daemon,) = (each for each in GIVEN.daemons(GIVEN.host(host)) if each.name == "syslogd")
        assert daemon.restart_on == names


def test_every_file_that_is_named_is_declared_and_rotated() -> None:
    server = HOME.host("manicouagan1")
    named_there = {line.partition("\t")[2] for line in _text(HOME, "manicouagan1").splitlines() if FOLDER in line}
    (said,) = (said for service, said in HOME.declarations(server) if isinstance(service, LogServer))
    assert {log.path for log in said.logs} == named_there | {OTHER}
    (file,) = _set(HOME, "manicouagan1", "rotation").files
    assert {line.split("\t")[0] for line in file.text.splitlines() if line.startswith("/")} == named_there | {OTHER}
    assert {Path(path).name for path in named_there if "/manicouagan1/" in path} == set(FACILITIES)


def test_how_the_server_is_reached_depends_on_where_one_is() -> None:
    server = HOME.host("manicouagan1")
    assert str(address_of(server, HOME.host("db1"), HOME)) == "192.168.1.21"
    assert str(address_of(server, HOME.host("ns3"), HOME)) == "203.0.113.2"
    hosts = (line for file in _set(HOME, "ns3", "identity").files for line in file.text.splitlines())
    assert "203.0.113.2\tmanicouagan1.chown.me" in list(hosts)
    assert [str(net) for net in peers_of(server, [HOME.host("ns3"), HOME.host("pancake")], HOME)] == [
        "192.0.2.53/32",
        "192.168.1.1/32",
    ]


def test_without_a_router_nobody_comes_in() -> None:
    alone = _changed(HOME, "pancake", without=Router)
    with pytest.raises(ValueError, match="manicouagan1 has no public address, and no router"):
        address_of(alone.host("manicouagan1"), alone.host("ns3"), alone)


class Crossing(Service):
    """A service that wants the log's port for peers elsewhere."""

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        del host, fleet
        listen = Listen(port=6514, source=("203.0.113.99/32",), crosses=True)
        return Declaration(listens=(listen,), state=none_to_keep("a test keeps nothing"))


def test_one_port_cannot_cross_to_two_hosts() -> None:
    fleet = _changed(HOME, "db1", Crossing())
    with pytest.raises(ValueError, match="pancake: tcp port 6514 crosses to more than one host"):
        _set(fleet, "pancake", "pf")


def test_two_log_servers_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="there are 2 log servers: manicouagan1, db1; one is enough"):
        log_server(_changed(HOME, "db1", LogServer()))


def test_whose_certificate_is_revoked_is_shut_out_and_cut_off() -> None:
    fleet = HOME.model_copy(update={"published": Published(revoked=frozenset({"log.ns3.client"}))})
    for host, rules in {"manicouagan1": ("to (vio0) port 6514",), "pancake": ("rdr-to", "tag crossing")}.items():
        made = _set(fleet, host, "pf")
        text = made.files[0].text
        lines = [line for line in text.splitlines() if any(words in line for words in rules)]
        assert len(lines) == len(rules)
        assert not any("192.0.2.53" in line for line in lines) and all("198.51.100.80" in line for line in lines)
        assert made.apply is not None and made.apply.endswith(" && pfctl -k 192.0.2.53")
    assert "pfctl -k" not in (_set(fleet, "virtie", "pf").apply or "")


def test_who_alone_had_logged_leaves_no_open_port_and_is_cut_off_all_the_same() -> None:
    slots = frozenset(slot for slot in SLOTS if slot.endswith(".client"))
    fleet = HOME.model_copy(update={"published": Published(revoked=slots)})
    made = _set(fleet, "manicouagan1", "pf")
    assert "6514" not in made.files[0].text
    assert made.apply is not None and " && pfctl -k 192.0.2.53" in made.apply


def _changed(fleet: Fleet, name: str, *added: Service, without: type[Service] | None = None) -> Fleet:
    def hosts(every: Iterable[Host]) -> Iterable[Host]:
        for host in every:
            kept = tuple(it for it in host.services if without is None or not isinstance(it, without))
            yield host.model_copy(update={"services": (*kept, *added)}) if host.name == name else host

    sites = tuple(site.model_copy(update={"hosts": tuple(hosts(site.hosts))}) for site in fleet.sites)
    return fleet.model_copy(update={"sites": sites})
