"""Every file of every host is read by the real program that will read it (DESIGN T2)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.cli.render import tree
from fleet.load import ROOT, load
from tests.lab import images
from tests.lab.roots import toolbox_run

SITES = ("home", "exoscale", "vultr", "lab")

# How a file is read: a pattern of its path on the host, and the command that reads it at {path}.
PARSERS = {
    r"/etc/nftables\.conf": ("nft", "-c", "-f", "{path}"),
    r"/etc/netplan/.*\.yaml": ("netplan", "generate", "--root-dir", "{root}"),
    r"/etc/default/.*": ("sh", "-n", "{path}"),
    r"/etc/libvirt/qemu/.*\.xml": ("virt-xml-validate", "{path}", "domain"),
}


def _rendered() -> list[tuple[str, str]]:
    return [(site, path) for site in SITES for path in sorted(tree(site))]


def _read(text: str, path: str, folder: Path) -> subprocess.CompletedProcess[str]:
    inside = path[path.index("/") :]
    (command,) = (argv for pattern, argv in PARSERS.items() if re.fullmatch(pattern, inside))
    target = folder / inside.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(0o600)
    seen = Path("/tmp/rendered")
    argv = [word.format(path=f"{seen}{inside}", root=seen) for word in command]
    return toolbox_run(argv, binds={folder: str(seen)})


@pytest.mark.parametrize(("site", "path"), _rendered())
def test_the_real_parser_takes_the_file(site: str, path: str, tmp_path: Path) -> None:
    done = _read(tree(site)[path], path, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("kvm1/etc/nftables.conf", "policy drop", "policy dorp"),
        ("kvm1/etc/netplan/60-homefleet.yaml", "interfaces:", "interfazes:"),
        ("kvm1/etc/default/libvirt-guests", "ON_BOOT=ignore", "ON_BOOT='ignore"),
        ("kvm1/etc/libvirt/qemu/db1.xml", "<vcpu>2</vcpu>", "<vcpus>2</vcpus>"),
    ],
)
def test_the_real_parser_refuses_a_broken_one(path: str, old: str, new: str, tmp_path: Path) -> None:
    text = tree("home")[path]
    assert old in text
    assert _read(text.replace(old, new), path, tmp_path).returncode != 0


def test_every_file_has_a_parser() -> None:
    for _, path in _rendered():
        inside = path[path.index("/") :]
        assert sum(bool(re.fullmatch(pattern, inside)) for pattern in PARSERS) == 1, f"no parser for {inside}"


def test_the_images_have_what_the_role_declares() -> None:
    fleet, _ = load("lab")
    in_the_image = {"netplan.io"}
    assert set(images.HYPERVISOR_PACKAGES) | in_the_image == set(fleet.packages(fleet.host("kvm1")))


def test_rendering_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        done = subprocess.run(
            [sys.executable, "-c", "from fleet.cli import main; main()", "render", "--out", str(tmp_path / name)],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "1" if name == "one" else "2"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    one, two = (
        {str(p.relative_to(tmp_path / name)): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        for name in ("one", "two")
    )
    assert one == two
    assert "kvm1/etc/nftables.conf" in one


def test_against_a_commit_shows_which_host_changes(tmp_path: Path) -> None:
    """A change of one template, committed in a copy, is shown for both hypervisors and for nothing else."""
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(copy)], check=True)
    template = copy / "templates" / "hypervisor" / "libvirt-guests.j2"
    template.write_text(template.read_text().replace("PARALLEL_SHUTDOWN=4", "PARALLEL_SHUTDOWN=2"))
    done = subprocess.run(
        [sys.executable, "-c", "from fleet.cli import main; main()", "render", "--against", "HEAD"],
        cwd=copy,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "-PARALLEL_SHUTDOWN=4" in done.stdout and "+PARALLEL_SHUTDOWN=2" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["kvm1: 1 file", "kvm2: 1 file"]
