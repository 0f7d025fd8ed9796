"""rsyslogd reads its whole configuration, the distribution's and ours, where it is on the host."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploys.services.rsyslog import CONF, Rsyslog
from fleet.load import load
from fleet.model.pki import Published, Use
from fleet.pki.wanted import slot
from tests.lab.roots import toolbox_run

_READ = """\
cp -a /rendered/. /
exec rsyslogd -N1
"""


def read(folder: Path, old: str = "", new: str = "") -> subprocess.CompletedProcess[str]:
    """Have rsyslogd read what kvm1 gets once it has a certificate, with `new` in the place of `old`."""
    fleet, _ = load("home")
    given = Published(certificates={slot("log", "kvm1", Use.CLIENT): "a certificate\n"}, roots={"log": "roots\n"})
    sets = Rsyslog().renders(fleet.host("kvm1"), fleet.model_copy(update={"published": given}))
    for file in (file for each in sets for file in each.files):
        target = folder / file.path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        assert file.path != CONF or old in file.text
        target.write_text(file.text.replace(old, new) if file.path == CONF else file.text)
    return toolbox_run(["sh", "-ec", _READ], binds={folder: "/rendered"})


def test_it_takes_what_we_render(tmp_path: Path) -> None:
    done = read(tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert not [line for line in said.splitlines() if "error" in line or "warning" in line]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('type="omfwd"', 'type="omforward"'),
        ("octet-counted", "octets"),
        ('queue.type="LinkedList"', 'queue.type="List"'),
        ("StreamDriver.CAFile", "StreamDriver.CAPath"),
        ('template="log-server"', 'template="log-sever"'),
    ],
)
def test_it_refuses_what_is_wrong(tmp_path: Path, old: str, new: str) -> None:
    assert read(tmp_path, old, new).returncode != 0
