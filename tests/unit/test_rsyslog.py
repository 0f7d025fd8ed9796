"""What an Ubuntu host is told about its log, before it has a certificate and after."""

from __future__ import annotations

import re

import pytest

from deploys.services.rsyslog import APPARMOR, CONF, KEY, Rsyslog
from fleet.load import load
from fleet.model.pki import Published, Use
from fleet.model.service import FileSet
from fleet.model.site import Fleet
from fleet.pki.wanted import slot
from tests.shell import check_scripts

FLEET, _ = load("home")
KVM1 = FLEET.host("kvm1")
LOG = Rsyslog()


def published() -> Fleet:
    """Return the fleet in which kvm1 has its certificate."""
    given = Published(certificates={slot("log", "kvm1", Use.CLIENT): "a certificate\n"}, roots={"log": "roots\n"})
    return FLEET.model_copy(update={"published": given})


def sets(fleet: Fleet, log: Rsyslog = LOG) -> dict[str, FileSet]:
    return {each.name: each for each in log.renders(KVM1, fleet)}


def conf(fleet: Fleet, log: Rsyslog = LOG) -> str:
    (text,) = (file.text for file in sets(fleet, log)["rsyslog"].files if file.path == CONF)
    return text


def test_without_a_certificate_nothing_is_sent() -> None:
    bare = FLEET.model_copy(update={"published": Published()})
    assert {name: each.files for name, each in sets(bare).items()} == {"rsyslog": ()}


def test_without_a_log_server_nothing_is_wanted() -> None:
    sites = tuple(
        site.model_copy(update={"hosts": tuple(h for h in site.hosts if h.name != "manicouagan1")})
        for site in FLEET.sites
    )
    alone = published().model_copy(update={"sites": sites})
    assert not LOG.declares(KVM1, alone).certificates
    assert sets(alone)["rsyslog"].files == ()


def test_the_certificate_comes_before_what_uses_it() -> None:
    assert list(sets(published())) == ["log-client", "rsyslog"]
    (daemon,) = LOG.declares(KVM1, published()).daemons
    assert daemon.restart_on == ("rsyslog", "log-client")


def test_the_key_is_where_the_daemons_user_can_read_it() -> None:
    (wanted,) = LOG.declares(KVM1, FLEET).certificates
    assert (wanted.owner, wanted.key_path, wanted.use) == ("syslog", KEY, Use.CLIENT)
    assert not KEY.endswith(".conf")


def test_it_goes_to_the_server_by_number_and_trusts_it_by_name() -> None:
    text = conf(published())
    assert 'target="192.168.1.21" port="6514"' in text
    assert 'StreamDriverPermittedPeers="manicouagan1.chown.me"' in text
    assert 'StreamDriverMode="1" StreamDriverAuthMode="x509/name"' in text


def test_every_file_that_it_names_is_there_and_allowed() -> None:
    everything = {file.path: file.text for each in sets(published()).values() for file in each.files}
    named = set(re.findall(r'File="(/[^"]+)"', conf(published())))
    assert named - {KEY} == everything.keys() - {CONF, APPARMOR}
    allowed = set(re.findall(r"^(/\S+) r,$", everything[APPARMOR], re.MULTILINE))
    assert allowed == named - {KEY}


@pytest.mark.parametrize(("given", "in_bytes"), [(LOG, 268435456), (Rsyslog(queue="1 GiB"), 1073741824)])
def test_the_queue_is_as_large_as_the_inventory_says(given: Rsyslog, in_bytes: int) -> None:
    assert f'queue.maxDiskSpace="{in_bytes}"' in conf(published(), given)


def test_the_host_can_run_the_check() -> None:
    check = sets(published())["rsyslog"].check
    assert check is not None
    check_scripts(check, openbsd=False)
