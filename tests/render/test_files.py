"""Every file of every host is read by the real program that will read it (DESIGN T2)."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fleet.cli.render import rendered
from fleet.load import ROOT, load
from fleet.model.pki import Published
from fleet.model.secret import sample
from fleet.pki.wanted import wanted
from tests.render.parsers import PLACE, parse

SITES = ("home", "exoscale", "vultr", "lab")

# Debian's sshd has no bsdauth, and wants a host key that it can read.
_SSHD = """\
ssh-keygen -q -t ed25519 -N '' -f /tmp/key
sed 's/keyboard-interactive:bsdauth$/keyboard-interactive:pam/' "$0" >/tmp/sshd_config
exec sshd -t -f /tmp/sshd_config -h /tmp/key"""

# Its chroot, its user and its trust anchor are the host's.
_UNBOUND = f"""\
grep -v auto-trust-anchor-file "$0" >/tmp/unbound.conf
printf 'server:\\n\\tchroot: ""\\n\\tdirectory: "/tmp"\\n\\tusername: ""\\n' >>/tmp/unbound.conf
exec {PLACE}/usr/sbin/unbound-checkconf /tmp/unbound.conf"""

_SMTPD = f"""\
mkdir -p /etc/mail; touch /etc/mail/aliases /etc/aliases
exec {PLACE}/usr/sbin/smtpd -n -f "$0"
"""

_PF = """\
import sys
from standin.pf.parser import parse
read = parse("pf.conf", open(sys.argv[1]).read(), lambda: sys.exit("at boot there is no address yet"))
sys.exit("\\n".join(read.errors) or 0)"""

_SYSLOG = """\
import sys
from standin.syslog.conf import rules
said = []
read = rules(open(sys.argv[1]).read(), said.append)
sys.exit("\\n".join(said) or (0 if read else "not a rule in it"))"""

_NEWSYSLOG = """\
import sys, time
from standin.newsyslog import parse
logs, wrong = parse(open(sys.argv[1]).read(), sys.argv[1], time.localtime())
sys.exit(wrong or (0 if logs else 1))"""

_NEEDRESTART = """\
use strict; our %nrconf; local $/;
open(my $file, "<", $ARGV[0]) or die; my $text = <$file>; eval "$text; 1" or die $@"""

# How a file is read: a pattern of its path on the host, and the command that reads it at {path}.
PARSERS = {
    r"/etc/nftables\.conf": ("nft", "-c", "-f", "{path}"),
    r"/etc/netplan/.*\.yaml": ("netplan", "generate", "--root-dir", "{root}"),
    r"/etc/default/.*": ("sh", "-n", "{path}"),
    r"/etc/libvirt/qemu/.*\.xml": ("virt-xml-validate", "{path}", "domain"),
    r"/etc/ssh/sshd_config": ("sh", "-ec", _SSHD, "{path}"),
    r"/etc/ssh/ssh_host_ed25519_key": ("ssh-keygen", "-y", "-P", "", "-f", "{path}"),
    r"/etc/sudoers\.d/.*": ("visudo", "-q", "-c", "-f", "{path}"),
    r"/etc/apt/apt\.conf\.d/.*": ("apt-config", "-c", "{path}", "dump"),
    r"/etc/needrestart/conf\.d/.*": ("perl", "-we", _NEEDRESTART, "{path}"),
    r"/etc/daily\.local": ("sh", "-n", "{path}"),
    r"/etc/doas\.conf": (f"{PLACE}/usr/bin/doas", "-C", "{path}"),
    r"/etc/ntpd\.conf": (f"{PLACE}/usr/sbin/ntpd", "-n", "-f", "{path}"),
    r"/etc/(mail/)?smtpd\.conf": ("sh", "-ec", _SMTPD, "{path}"),
    r"/var/unbound/etc/unbound\.conf": ("sh", "-ec", _UNBOUND, "{path}"),
    r"/etc/syslog\.conf": ("python3", "-c", _SYSLOG, "{path}"),
    r"/etc/newsyslog\.hosts\.conf": ("python3", "-c", _NEWSYSLOG, "{path}"),
    r"/etc/pf\.conf": ("python3", "-c", _PF, "{path}"),
}

# Files that no program reads but to use them, and what is known of them instead.
WITHOUT_PARSER = {
    r"/etc/myname": "one name, which tests/unit/test_base_services.py reads",
    r"/etc/hosts": "lines of address and names; the C library skips what it does not understand",
    r"/etc/resolv\.conf": "three words; the C library skips what it does not understand",
    r"/etc/installurl": "one URL, which the inventory's model checks",
    r"/etc/motd\.local": "words for people",
    r"/etc/(mail/)?aliases": "smtpd reads it when a mail comes, line by line",
    r"/etc/systemd/timesyncd\.conf\.d/.*": "systemd-timesyncd reads it when it starts, and warns in its log alone",
    r"/etc/pam\.d/sshd": "libpam reads it at a login; one with an error lets nobody in",
    r"/etc/cron\.d/.*": "cron has no check for the form with a user in it",
    r"/etc/users\.oath\.wanted": "pam_oath reads it at a login; the lines are made by one f-string",
    r"/etc/ssl/[^/]+\.(crt|pem)": "fleet.pki makes them, and openssl(1) reads them in tests/pki",
    r"/etc/rsyslog\.d/10-homefleet\.conf": "rsyslogd itself reads it in tests/render/test_rsyslog_conf.py",
    r"/etc/apparmor\.d/rsyslog\.d/homefleet": "lines of a path and a permission; Debian has no profile to read them",
    r"/home/[^/]+/\.totp-key": "one hexadecimal number, whose shape is checked when it is filled in",
}


def _rendered() -> list[tuple[str, str]]:
    return [(site, path) for site in SITES for path in sorted(_tree(site))]


@cache
def _tree(site: str) -> dict[str, str]:
    """Return the files of a site whose certificates are all there, whatever this machine's register has."""
    fleet, sites = load(site)
    every = wanted(fleet)
    names = {one.authority.name for one in every}
    given = Published(
        certificates=dict.fromkeys((one.slot for one in every), "a certificate\n"),
        roots=dict.fromkeys(names, "roots\n"),
        crls=dict.fromkeys(names, "lists\n"),
    )
    seen = fleet.model_copy(update={"published": given})
    return {f"{name}{file.path}": file.text for name, file in rendered(seen, sites)}


def _inside(path: str) -> str:
    """Return the path on the host of ``HOST/path``."""
    return path[path.index("/") :]


def _parsers_of(path: str) -> list[tuple[str, ...]]:
    return [argv for pattern, argv in PARSERS.items() if re.fullmatch(pattern, _inside(path))]


@cache
def _read(text: str, inside: str) -> subprocess.CompletedProcess[str]:
    """Have the parser of the file `inside` read `text`; many hosts have the same one."""
    (command,) = _parsers_of(f"host{inside}")
    with TemporaryDirectory() as name:
        target = Path(name) / inside.lstrip("/")
        target.parent.mkdir(parents=True)
        target.write_text(sample(text))
        target.chmod(0o600)
        seen = "/tmp/rendered"
        argv = [word.replace("{path}", f"{seen}{inside}").replace("{root}", seen) for word in command]
        return parse(argv, Path(name), seen)


@pytest.mark.parametrize(("site", "path"), [each for each in _rendered() if _parsers_of(each[1])])
def test_the_real_parser_takes_the_file(site: str, path: str) -> None:
    done = _read(_tree(site)[path], _inside(path))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("kvm1/etc/nftables.conf", "policy drop", "policy dorp"),
        ("kvm1/etc/netplan/60-homefleet.yaml", "interfaces:", "interfazes:"),
        ("kvm1/etc/default/libvirt-guests", "ON_BOOT=ignore", "ON_BOOT='ignore"),
        ("kvm1/etc/libvirt/qemu/db1.xml", "<vcpu>2</vcpu>", "<vcpus>2</vcpus>"),
        ("kvm1/etc/ssh/sshd_config", "UsePAM yes", "UsePAM perhaps"),
        ("kvm1/etc/ssh/ssh_host_ed25519_key", "@@secret:", "no key"),
        ("kvm1/etc/sudoers.d/homefleet", "NOPASSWD:", "NOPASWD:"),
        ("kvm1/etc/apt/apt.conf.d/60homefleet", '"qemu";', '"qemu;'),
        ("kvm1/etc/needrestart/conf.d/homefleet.conf", "qr(^qemu)", "qr(^qemu"),
        ("kvm1/etc/smtpd.conf", "match from local", "match form local"),
        ("db1/etc/ssh/sshd_config", "DisableForwarding", "DisableForwording"),
        ("db1/etc/daily.local", "done", "od"),
        ("db1/etc/doas.conf", "permit persist :wheel", "permit persist nopass :wheel"),
        ("db1/etc/ntpd.conf", "servers ", "sarvers "),
        ("db1/etc/mail/smtpd.conf", "listen on socket", "listen an socket"),
        ("db1/var/unbound/etc/unbound.conf", "hide-version: yes", "hide-version: perhaps"),
        ("db1/etc/syslog.conf", "daemon.info", "demon.info"),
        ("manicouagan1/etc/newsyslog.hosts.conf", "$D0", "$X0"),
        ("db1/etc/pf.conf", "block log all", "block log al"),
        ("db1/etc/pf.conf", "user _ntp", "user _nobody_has_this"),
        ("db1/etc/pf.conf", "to any port 123", "to self port 123"),
    ],
)
def test_the_real_parser_refuses_a_broken_one(path: str, old: str, new: str) -> None:
    text = _tree("home")[path]
    assert old in text
    assert _read(text.replace(old, new), _inside(path)).returncode != 0


def test_every_parser_was_seen_to_refuse() -> None:
    """Each pattern of PARSERS has a broken file above: the marks of that test are read, so none is forgotten."""
    (mark,) = test_the_real_parser_refuses_a_broken_one.pytestmark  # type: ignore[attr-defined]
    broken = [_inside(case[0]) for case in mark.args[1]]
    for pattern in PARSERS:
        assert any(re.fullmatch(pattern, inside) for inside in broken), f"no broken file for {pattern}"


def test_every_file_has_a_parser_or_a_reason() -> None:
    for _, path in _rendered():
        fitting = [pattern for pattern in (*PARSERS, *WITHOUT_PARSER) if re.fullmatch(pattern, _inside(path))]
        assert len(fitting) == 1, f"{path}: {fitting or 'no parser'}"


def test_no_reason_is_for_a_file_that_there_is_not() -> None:
    paths = {_inside(path) for _, path in _rendered()}
    for pattern in (*PARSERS, *WITHOUT_PARSER):
        assert any(re.fullmatch(pattern, path) for path in paths), pattern


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
