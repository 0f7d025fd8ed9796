"""The files that daemons log into: the fact, the planner, and the real scripts."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from pathlib import Path

import pytest
from pyinfra.api.exceptions import FactProcessError

from facts.openbsd.logfiles import DONE, LogFiles
from fleet.model.service import LogFile
from operations.openbsd.logfiles import folders_of, plan_logfiles
from tests.shell import check_scripts

AUTH = LogFile(path="/var/log/hosts/ns3/auth", keep=3)
MAIL = LogFile(path="/var/log/hosts/ns3/mail", keep=3)
FOLDERS = dict.fromkeys(("/var/log/hosts", "/var/log/hosts/ns3"), ("root", "wheel", 488))
RIGHT = ("root", "wheel", 0o640)


def test_recorded_output() -> None:
    lines = ["root wheel 750 /var/log/hosts", "_smtpd wheel 640 /var/log/a b", DONE]
    assert LogFiles().process(lines) == {
        "/var/log/hosts": ("root", "wheel", 0o750),
        "/var/log/a b": ("_smtpd", "wheel", 0o640),
    }


def test_unknown_and_not_understood() -> None:
    assert LogFiles().process(["root wheel 750 /var/log/hosts"]) is None
    with pytest.raises(FactProcessError, match="what is this"):
        LogFiles().process(["what is this", DONE])


def test_folders_are_made_outer_ones_first_and_the_systems_are_left_alone() -> None:
    assert folders_of([AUTH, MAIL]) == ("/var/log/hosts", "/var/log/hosts/ns3")
    plan = plan_logfiles([AUTH, MAIL, LogFile(path="/var/cron/ours", keep=1)], {})
    assert [(step.subject, step.label) for step in plan.steps] == [
        ("/var/log/hosts", "made"),
        ("/var/log/hosts/ns3", "made"),
        ("/var/log/hosts/ns3", "2 log files made"),
        ("/var/cron", "1 log file made"),
    ]


def test_nothing_is_done_where_all_is_there() -> None:
    assert plan_logfiles([AUTH], {**FOLDERS, AUTH.path: RIGHT}).steps == ()


def test_a_file_that_others_can_read_is_closed_again() -> None:
    (step,) = plan_logfiles([AUTH], {**FOLDERS, AUTH.path: ("root", "wheel", 0o644)}).steps
    assert step.command == "chown root:wheel /var/log/hosts/ns3/auth && chmod 0640 /var/log/hosts/ns3/auth"


@pytest.mark.parametrize("shell", ["dash", "mksh"])
def test_what_is_in_a_file_stays(tmp_path: Path, shell: str) -> None:
    owner, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    kept, new = tmp_path / "kept", tmp_path / "new"
    kept.write_text("a line\n")
    wanted = [LogFile(path=str(path), owner=owner, group=group, keep=1) for path in (kept, new)]
    (step,) = plan_logfiles(wanted, {}).steps
    subprocess.run([shell, "-c", step.command], check=True)
    assert (kept.read_text(), new.read_text()) == ("a line\n", "")
    assert new.stat().st_mode & 0o777 == 0o640


def test_openbsds_shell_and_tools_run_it() -> None:
    plan = plan_logfiles([AUTH, MAIL], {AUTH.path: ("root", "wheel", 0o644)})
    check_scripts(LogFiles().command([AUTH.path, "/var/log/hosts"]), *(step.command for step in plan.steps))
