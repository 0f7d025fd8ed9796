"""The libvirt of Debian 12 and of Debian 13 keep every definition as it was written.

In the lab and not among the render tests: a libvirt that finds a /dev/kvm which does not work takes a minute to give
up, once.
"""

from __future__ import annotations

import pytest

from deploys.services.hypervisor import definition
from facts.linux.domain import differences, from_xml
from fleet.cli.render import tree
from fleet.load import load
from tests.lab import images
from tests.lab.roots import libvirt_in_root


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_libvirt_keeps_every_definition_as_it_is(release: str) -> None:
    """``virsh define`` and ``dumpxml --inactive``: what libvirt fills in by itself is no difference."""
    root = (images.old_libvirt() if release == "bookworm" else images.packages_image()) / "root"
    with libvirt_in_root(root) as virsh:
        for site in ("home", "lab"):
            fleet, _ = load(site)
            for guest in (host for host in fleet.hosts() if host.guest is not None):
                xml = tree(site)[f"kvm1/etc/libvirt/qemu/{guest.name}.xml"]
                defined = virsh(["virsh", "-q", "define", "/dev/stdin"], input=xml, deadline=300)
                assert defined.returncode == 0, defined.stderr
                kept = virsh(["virsh", "-q", "dumpxml", "--inactive", guest.name]).stdout
                assert differences(definition(guest), from_xml(kept)) == ()
