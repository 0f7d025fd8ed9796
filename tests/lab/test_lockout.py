"""Confirm-or-rollback (DESIGN D3): a change that locks the owner out undoes itself, whatever happens to whom."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from fleet.load import ROOT
from tests.lab.pair import GUESTS, NOW, Pair

FILES = "sha256sum /etc/netplan/* /etc/nftables.conf"
# Right by all rules of the inventory, and not where the way to the host leads.
WRONG = (
    "from ipaddress import IPv4Interface\n"
    'cable = site.host("{host}").interfaces[0]\n'
    'cable = cable.model_copy(update={{"addresses": (IPv4Interface("192.168.1.{octet}/24"),)}})\n'
    'site = change_host(site, "{host}", interfaces=(cable,))\n'
)
# Rules that pass the deployment's port no more, as a mistake in a template would do.
BENT = """\
from deploys.services.nftables import Nftables

class Bent(Nftables):
    def renders(self, host, fleet):
        for made in super().renders(host, fleet):
            files = [it.model_copy(update={"text": it.text.replace("dport 2247", "dport 2299")}) for it in made.files]
            yield made.model_copy(update={"files": tuple(files)})

_services = tuple(Bent() if isinstance(it, Nftables) else it for it in site.host("kvm2").services)
site = change_host(site, "kvm2", services=_services)
"""
# Where the way to the host does not lead.
MOVED = """\
_deployment = site.deployment.model_copy(update={"port": 2299})
site = site.model_copy(update={"deployment": _deployment})
"""
ARMED = "[ -e /var/lib/homefleet/armed/netplan ]"
REST = "[ ! -e /var/lib/homefleet/armed/netplan ] && [ ! -e /var/lib/homefleet/pending/netplan ]"


def kill_when(pair: Pair, host: str, condition: str, late: str) -> None:
    """Start a run and kill its controller, without mercy, once `condition` holds on `host`.

    The host itself watches, many times a second: the moment is short, and the network is about to be changed.
    """
    watch = f"n=0; until {condition}; do sleep 0.1; n=$((n + 1)); [ $n -lt 1200 ] || exit 1; done"
    watcher = subprocess.Popen(pair.lab.ssh_argv(host, watch))
    run = subprocess.Popen(
        pair.command(["-y", "--limit", host], NOW, late=late),
        cwd=ROOT,
        env={**os.environ, "PYINFRA_PROGRESS": "off"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert watcher.wait(180) == 0, f"{host}: never saw {condition}"
    finally:
        watcher.kill()
        run.send_signal(signal.SIGKILL)
        run.wait()


def test_an_address_that_nobody_can_reach_goes_back_and_guests_notice_nothing(grown: Pair) -> None:
    files = grown.ssh("kvm1", FILES)
    before = grown.heartbeats()
    run = grown.deploy("--limit", "kvm1", changes=NOW, late=WRONG.format(host="kvm1", octet=111))
    assert run.code != 0
    assert "the old state back" in run.failed("kvm1")["netplan"]
    grown.wait_for("kvm1", REST, 60)
    assert grown.ssh("kvm1", FILES) == files
    assert grown.ssh("kvm1", "ip -4 -o addr show dev br0").split()[3] == "192.168.1.11/24"
    grown.wait_for("kvm1", "sleep 6", 60)
    after = grown.heartbeats()
    assert all(after[name] > before[name] for name in GUESTS)
    assert grown.deploy("--limit", "kvm1", changes=NOW).changes("kvm1") == 0


def test_a_controller_that_dies_leaves_a_host_that_undoes_within_a_minute(grown: Pair) -> None:
    files = grown.ssh("kvm2", FILES)
    # The new address works, so only the missing confirmation can bring the old one back.
    more = (
        "from ipaddress import IPv6Interface\n"
        'cable = site.host("kvm2").interfaces[0]\n'
        '_more = (*cable.addresses, IPv6Interface("2001:db8:1::99/64"))\n'
        'site = change_host(site, "kvm2", interfaces=(cable.model_copy(update={"addresses": _more}),))\n'
    )
    kill_when(grown, "kvm2", ARMED, more)
    start = time.monotonic()
    grown.wait_for("kvm2", REST, 150)
    assert time.monotonic() - start < 90
    assert grown.ssh("kvm2", FILES) == files
    assert "2001:db8:1::99" not in grown.ssh("kvm2", "ip -6 addr show dev br0")


def test_a_host_that_loses_power_in_that_minute_comes_back_with_the_old_address(grown: Pair) -> None:
    files = grown.ssh("kvm2", FILES)
    kill_when(grown, "kvm2", f"{ARMED} && grep -q 192.168.1.112 /etc/netplan/*", WRONG.format(host="kvm2", octet=112))
    grown.lab.kill("kvm2")
    grown.lab.start("kvm2")
    grown.wait_for("kvm2", REST, 60)
    assert grown.ssh("kvm2", FILES) == files
    run = grown.deploy(changes=NOW)
    assert run.code == 0, run.output
    assert run.changes("kvm2") == 0


def test_a_firewall_that_shuts_the_owner_out_goes_back(grown: Pair) -> None:
    """The open connection would survive these rules: only a new login finds out."""
    rules = grown.ssh("kvm2", "nft -s list ruleset")
    run = grown.deploy("--limit", "kvm2", changes=NOW + BENT)
    assert run.code != 0
    assert "the old state back" in run.failed("kvm2")["nftables"]
    grown.wait_for("kvm2", REST.replace("netplan", "nftables"), 90)
    assert grown.ssh("kvm2", "nft -s list ruleset") == rules
    assert grown.deploy("--limit", "kvm2", changes=NOW).changes("kvm2") == 0


def test_an_sshd_that_nobody_finds_goes_back_and_the_firewall_is_not_even_tried(grown: Pair) -> None:
    config = "sha256sum /etc/ssh/sshd_config /etc/nftables.conf; nft -s list ruleset; ss -Htln sport = 2247"
    before = grown.ssh("kvm2", config)
    run = grown.deploy("--limit", "kvm2", changes=NOW + MOVED)
    assert run.code != 0
    assert "the old state back" in run.failed("kvm2")["sshd"]
    assert run.changes("kvm2") == 0, run.output
    grown.wait_for("kvm2", REST.replace("netplan", "sshd"), 90)
    assert grown.ssh("kvm2", config) == before
    assert grown.deploy("--limit", "kvm2", changes=NOW).changes("kvm2") == 0


def test_a_mistyped_uplink_is_refused_before_the_network_is_touched(grown: Pair) -> None:
    """networkd would leave the old cable in the bridge, and only the next reboot would lock the owner out."""
    wrong = NOW + (
        "from deploys.services.netplan import Bridge, Netplan\n"
        'wrong = Netplan(bridges=(Bridge(name="br0", network="flat", uplink="52:54:00:c8:01:fe"),))\n'
        'services = (wrong if isinstance(it, Netplan) else it for it in site.host("kvm2").services)\n'
        'site = change_host(site, "kvm2", services=tuple(services))\n'
    )
    files = grown.ssh("kvm2", FILES)
    run = grown.deploy("--limit", "kvm2", changes=wrong)
    assert run.code != 0
    assert "no network card has the MAC 52:54:00:c8:01:fe" in run.failed("kvm2")["netplan"]
    assert grown.ssh("kvm2", FILES) == files
