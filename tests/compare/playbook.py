"""Ansible in a throw-away environment, and the copy of the stand-ins that it manages."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.lab.host import run
from tests.lab.lab import Lab
from tests.lab.openbsd.debian import PYTHON, base
from tests.lab.openbsd.standin_host import StandIn

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
RUN_SECONDS = 900

# As on the host itself: modules choose by it what they do. Not by sys.platform, which is Python's own business.
_SITE = """\
import os

_uname = os.uname


def _openbsd() -> os.uname_result:
    return os.uname_result(({system!r}, _uname().nodename, {release!r}, {version!r}, {machine!r}))


os.uname = _openbsd
"""
_CONFIGURATION = """\
[defaults]
inventory = inventory.yml
forks = {forks}
[privilege_escalation]
become_method = sudo
become_exe = doas
become_flags = -n
[ssh_connection]
pipelining = True
ssh_args = -o ControlMaster=auto -o ControlPersist=900s
control_path_dir = {folder}/ssh
"""
_RECAP = re.compile(r"^(\S+) +: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Playbook:
    """A folder with an environment, a play and the files that the play copies.

    Arguments: `folder`, private to its owner, its path short enough for the sockets of ssh in it.
    """

    folder: Path

    def install(self) -> str:
        """Make the environment, and return which Ansible is in it.

        Raises:
            LabError: a package does not come, or is not the one that was pinned.
        """
        uv = Path(sys.executable).with_name("uv")
        run([uv, "venv", "--quiet", "--python", sys.executable, self.folder / "venv"])
        options = ("--quiet", "--require-hashes", "--compile-bytecode", "--python")
        run([uv, "pip", "install", *options, self._program("python"), "-r", REQUIREMENTS])
        return run([self._program("ansible"), "--version"], env=self._environment()).splitlines()[0]

    def configure(self, lab: Lab, names: Sequence[str]) -> None:
        """Write how the hosts are reached: through the same relays, with the same key and by the same account.

        Args:
            lab: the lab of the copy.
            names: its hosts.
        """
        hosts, known = {}, ""
        for name in names:
            address, port = lab.relay(name)
            user = lab.stand_ins.hosts[name].user
            hosts[name] = {"ansible_host": address, "ansible_port": port, "ansible_user": user}
            # The deployment may have given it another one than it was installed with.
            key = lab.stand_ins.hosts[name].file("/etc/ssh/ssh_host_ed25519_key")
            assert key is not None
            known += f"[{address}]:{port} {run(['ssh-keygen', '-y', '-f', key])}"
        known_hosts = self.folder / "known_hosts"
        known_hosts.write_text(known)
        ssh = f"-F none -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile={known_hosts}"
        variables = {
            "ansible_ssh_private_key_file": str(lab.key),
            "ansible_ssh_common_args": ssh,
            "ansible_python_interpreter": PYTHON,
        }
        inventory = {"all": {"hosts": hosts, "vars": variables}}
        (self.folder / "inventory.yml").write_text(yaml.safe_dump(inventory))
        (self.folder / "ansible.cfg").write_text(_CONFIGURATION.format(forks=len(names), folder=self.folder))

    def play(self, *arguments: str) -> dict[str, tuple[int, int, int]]:
        """Run the play and return by host how much changed, was unreachable and failed.

        Args:
            arguments: for ansible-playbook.

        Raises:
            LabError: it ended with an error.
        """
        output = run(self._argv(arguments), cwd=self.folder, env=self._environment(), deadline=RUN_SECONDS)
        return {name: (int(changed), int(away), int(failed)) for name, changed, away, failed in _RECAP.findall(output)}

    def report(self, *arguments: str) -> dict[str, Any]:
        """Run the play and return all that its modules said.

        Args:
            arguments: for ansible-playbook.

        Raises:
            LabError: it ended with an error.
        """
        environment = {**self._environment(), "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}
        output = run(self._argv(arguments), cwd=self.folder, env=environment, deadline=RUN_SECONDS)
        found: dict[str, Any] = json.loads(output)
        return found

    def _argv(self, arguments: Sequence[str]) -> list[str | Path]:
        return [self._program("ansible-playbook"), *arguments, "play.yml"]

    def _program(self, name: str) -> Path:
        return self.folder / "venv" / "bin" / name

    def _environment(self) -> dict[str, str]:
        return {
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
            "PATH": f"{self.folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }


def copy(stand_in: StandIn, other: StandIn, uname: str) -> None:
    """Make one stand-in a copy of another, with a Python that Ansible is told of.

    Args:
        stand_in: the original, which is off.
        other: the one of another lab that becomes its copy.
        uname: what ``uname -a`` says on it: the copy's Python says the same.
    """
    shutil.rmtree(other.directory, ignore_errors=True)
    run(["cp", "-a", stand_in.directory, other.directory])
    system, _, release, version, machine = uname.split()
    (library,) = (base() / "root/usr/lib").glob("python3.*")
    site = other.directory / "upper" / "usr/lib" / library.name / "sitecustomize.py"
    site.parent.mkdir(parents=True, exist_ok=True)
    site.write_text(_SITE.format(system=system, release=release, version=version, machine=machine))
