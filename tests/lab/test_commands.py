"""Everything that the tests sent to a host can be run by its own shell, with the tools that it has (DESIGN O7)."""

from __future__ import annotations

import pytest

from fleet.model.site import Os
from tests.lab import transcript
from tests.lab.conftest import INDEX
from tests.lab.lab import lab_directory
from tests.shell import faults, foreign, reads_a_script, shape

FAMILIES = {
    Os.OPENBSD: {
        "the packages that there are": "pkg_info -mz",
        "installing a package": "pkg_add ${d:+-D",
        "the accounts that there are": "/etc/master.passwd",
        "making an account": "useradd -m",
        "the state of configuration sets": "\necho set ",
        "swapping a set in": "\nstep='swapping'\n",
        "the way back of a set": '\ncat >"tmp/$name.rollback"',
        "confirming a set": "/rollback confirm ",
        "the services that there are": "rcctl order",
        "starting a service": "rcctl enable",
        "the values of the kernel": "sysctl -n",
        "the jobs that there are": "crontab -l -u",
        "the verification": "netstat -an",
        "the private keys that there are": "+clock %s",
        "making a private key": "openssl ecparam -genkey",
        "a private key's certificate": "openssl verify -CAfile",
        "making log files": "/dev/null /var/log/hosts/",
    },
    Os.UBUNTU: {
        "the packages that there are": "dpkg-query -W",
        "the accounts that there are": "[ -r /etc/shadow ]",
        "making an account": "useradd ",
        "the state of configuration sets": "\necho set ",
        "swapping a set in": "\nstep='swapping'\n",
        "the way back of a set": '\ncat >"tmp/$name.rollback"',
        "confirming a set": "/rollback confirm ",
        "the services that there are": "systemctl show -p LoadState",
        "the private keys that there are": "+clock %s",
        "making a private key": "openssl ecparam -genkey",
        "making a volume": "lvcreate ",
        "the guests that there are": "virsh -q",
        "defining a guest": "virsh -q define /dev/stdin",
    },
}
"""What a first deploy and its verification send, and how each is recognized."""

CLUMSY = {
    "stat -c %a /etc/myname": "no option -c",
    "systemctl restart sshd": "no such command",
}


@pytest.fixture(scope="module")
def scripts() -> dict[Os, list[str]]:
    """What was sent, by operating system: command lines, and what a shell read on standard input; one of each shape.

    It is in what the tests of this folder have left: they run before, in one process or in several.
    """
    found: dict[Os, dict[str, str]] = {system: {} for system in Os}
    for sent in transcript.read(sorted(lab_directory(INDEX).parent.glob(f"{INDEX}.*.sent"))):
        ours = found[Os(sent.os)]
        ours.setdefault(shape(sent.line), sent.line)
        if sent.stdin and reads_a_script(sent.line):
            ours.setdefault(shape(sent.stdin), sent.stdin)
    return {system: list(each.values()) for system, each in found.items()}


@pytest.mark.parametrize(("system", "family"), [(system, family) for system in Os for family in FAMILIES[system]])
def test_it_was_sent(scripts: dict[Os, list[str]], system: Os, family: str) -> None:
    assert any(FAMILIES[system][family] in script for script in scripts[system])


@pytest.mark.parametrize("system", Os)
def test_every_command_runs_on_its_system(scripts: dict[Os, list[str]], system: Os) -> None:
    assert faults(scripts[system], system is Os.OPENBSD) == []


@pytest.mark.parametrize("clumsy", CLUMSY)
def test_a_command_that_is_not_openbsds_is_found_in_what_is_sent(scripts: dict[Os, list[str]], clumsy: str) -> None:
    script = next(script for script in scripts[Os.OPENBSD] if FAMILIES[Os.OPENBSD]["swapping a set in"] in script)
    bent = script.replace("\nsync\n", f"\nsync\n{clumsy}\n", 1)
    assert bent != script
    assert foreign([bent]) == [f"{clumsy}: {CLUMSY[clumsy]}"]
