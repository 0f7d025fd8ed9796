"""Crontabs: the fact, the planner, random hosts, and the real scripts."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyinfra.api.exceptions import FactProcessError

from facts.openbsd.crontab import BEGIN, END, Crontab, Crontabs, parse
from fleet.model.service import Job
from operations.openbsd.jobs import plan_jobs
from tests.model_openbsd import ModelHost, digest, follow
from tests.shell import check_scripts
from tests.unit.openbsd.scripted import Scratch

EXAMPLES = int(os.environ.get("EXAMPLES", "200"))  # a long run sets more

HEX = "0" * 64
ACME = Job(schedule="~ * * * *", command="acme-client chown.me && rcctl reload httpd", flags="ns")
BLOCK = f"{BEGIN}\n~ * * * * -n -s acme-client chown.me && rcctl reload httpd\n{END}\n"
SYSTEM = "SHELL=/bin/sh\n0\t*\t*\t*\t*\t/usr/bin/newsyslog\n# don't \\n touch\n30\t1\t*\t*\t*\t/bin/sh /etc/daily\n"

# Contract 5.10: the three header lines are in the file and not in -l; a missing final newline is an error.
CRONTAB = r"""
[ "$1" != -l ] || shift
[ "$1" != -r ] || { rm -f ROOT/var/cron/tabs/"$3"; exit; }
tab=ROOT/var/cron/tabs/$2
if [ $# = 2 ]; then
	[ -e "$tab" ] || { echo "crontab: no crontab for $2" >&2; exit 1; }
	sed 1,3d "$tab"
else
	if grep -q bad "$3"; then
		echo '"-":4: bad minute' >&2
		echo "crontab: errors in crontab file, unable to install" >&2
		exit 1
	fi
	{ printf '# DO NOT EDIT\n# (installed)\n# (Cron version)\n'; cat "$3"; } >"$tab"
fi
"""


def scratch(tmp_path: Path) -> Scratch:
    place = Scratch(tmp_path)
    place.fake("crontab", CRONTAB.replace("ROOT", str(place.root)))
    place.fake("id", '[ "$2" = root ] || [ "$2" = www ]')
    place.file("/var/cron/tabs/root", "# DO NOT EDIT\n# (installed)\n# (Cron version)\n" + SYSTEM)
    return place


def read(place: Scratch) -> Any:
    done = place.run(Crontabs().command(["root", "www", "ghost"]))
    assert "newsyslog" not in done.stdout
    found = Crontabs().process(done.stdout.splitlines())
    assert found is not None, done.stderr
    return found


def test_recorded_output() -> None:
    lines = ["user root", "mark b", "mark e", f"block {HEX}", "user www", "missing ghost"]
    assert parse(lines) == {
        "root": Crontab(True, "be", HEX),
        "www": Crontab(True),
        "ghost": Crontab(exists=False),
    }


def test_unknown_and_not_understood() -> None:
    assert Crontabs().process(["user root"]) is None
    for line in ("what is this", "mark b", "block x"):
        with pytest.raises(FactProcessError, match=line):
            parse([line])


def test_the_block_is_whole() -> None:
    (step,) = plan_jobs([ACME], ["root"], {"root": Crontab(True)}).steps
    assert (step.subject, step.label, step.stdin) == ("crontab of root", "1 jobs", BLOCK)
    assert plan_jobs([ACME], ["root"], {"root": Crontab(True, "be", digest(BLOCK))}).steps == ()
    assert len(plan_jobs([ACME], ["root"], {"root": Crontab(True, "be", HEX)}).steps) == 1


def test_a_user_without_jobs_loses_ours_and_only_ours() -> None:
    (step,) = plan_jobs([], ["root"], {"root": Crontab(True, "be", HEX)}).steps
    assert (step.label, step.stdin) == ("our jobs taken out", None)
    assert plan_jobs([], ["root", "ghost"], {"root": Crontab(True), "ghost": Crontab(exists=False)}).steps == ()


def test_what_cannot_be_done_is_refused() -> None:
    job = Job(user="ghost", schedule="@daily", command="x")
    found = plan_jobs([job], ["ghost"], {"ghost": Crontab(exists=False)})
    assert found.steps == () and found.refused[0].message == "there is no user ghost"
    for marks in ("b", "e", "bb", "eb", "bebe"):
        broken = plan_jobs([ACME], ["root"], {"root": Crontab(True, marks, HEX)})
        assert broken.steps == () and "mend it by hand" in broken.refused[0].message


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (Job(user="www", schedule="@daily", command="x"), "www is not among the users"),
        (Job(schedule="* * * *", command="x"), "no five fields"),
        (Job(schedule="* * * * * *", command="x"), "no five fields"),
        (Job(schedule="@daily", command="a\nb"), "one line"),
        (Job(schedule="@daily", command=" "), "one line"),
        (Job(schedule="@daily", command="-n x"), "does not begin with a hyphen"),
        (Job(schedule="@daily", command="x", flags="x"), "flags are n, q and s"),
    ],
)
def test_wrong_arguments_fail_early(job: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        plan_jobs([job], ["root"], {})


def test_the_scripts_keep_every_line_that_is_not_ours(tmp_path: Path) -> None:
    place = scratch(tmp_path)
    jobs = [ACME, Job(user="www", schedule="@hourly", command="php occ %t \\x")]
    assert read(place) == {"root": Crontab(True), "www": Crontab(True), "ghost": Crontab(exists=False)} | {
        "root": Crontab(True, "", digest(""))
    }
    for step in plan_jobs(jobs, ["root", "www"], read(place)).steps:
        done = place.run(step)
        assert done.returncode == 0, done.stderr
    assert place.text("/var/cron/tabs/root").split("\n", 3)[3] == SYSTEM + BLOCK
    assert place.text("/var/cron/tabs/www").split("\n", 3)[3] == f"{BEGIN}\n@hourly php occ %t \\x\n{END}\n"
    assert plan_jobs(jobs, ["root", "www"], read(place)).steps == ()
    for step in plan_jobs([], ["root", "www"], read(place)).steps:
        assert place.run(step).returncode == 0
    assert place.text("/var/cron/tabs/root").split("\n", 3)[3] == SYSTEM
    assert not (place.root / "var/cron/tabs/www").exists()
    assert plan_jobs([], ["root", "www"], read(place)).steps == ()
    assert list((place.root / "var/db/homefleet").iterdir()) == []


def test_a_crontab_that_is_refused_leaves_the_old_one(tmp_path: Path) -> None:
    place = scratch(tmp_path)
    before = place.text("/var/cron/tabs/root")
    (step,) = plan_jobs([Job(schedule="bad * * * *", command="x")], ["root"], read(place)).steps
    done = place.run(step)
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, '"-":4: bad minute')
    assert place.text("/var/cron/tabs/root") == before


def test_openbsd_can_run_every_script() -> None:
    check_scripts(Crontabs().command(["root", "www"]))
    check_scripts(plan_jobs([ACME], ["root"], {"root": Crontab(True)}).steps[0].command)
    check_scripts(plan_jobs([], ["root"], {"root": Crontab(True, "be", HEX)}).steps[0].command)


USERS = ["root", "www", "ghost"]
LINES = ["0 * * * * newsyslog", "MAILTO=root", "# mine", "@daily backup"]


@settings(deadline=None, max_examples=EXAMPLES)
@given(
    st.lists(st.tuples(st.sampled_from(USERS), st.sampled_from(["a", "b"])), unique=True),
    st.dictionaries(st.sampled_from(USERS[:2]), st.lists(st.sampled_from([*LINES, "BLOCK"]), min_size=1)),
)
def test_the_next_plan_is_empty_and_foreign_lines_stay(jobs: Any, tabs: Any) -> None:
    wanted = [Job(user=user, schedule="@daily", command=command) for user, command in jobs]
    expanded = {
        user: [line for it in lines for line in ([BEGIN, "@daily old", END] if it == "BLOCK" else [it])]
        for user, lines in tabs.items()
    }
    model = ModelHost(users={"root", "www"}, tabs=expanded)
    failed = follow(plan_jobs(wanted, USERS, model.crontabs(USERS)), model.apply)
    for user, lines in tabs.items():
        kept = [line for line in model.tabs.get(user, ()) if line in LINES]
        assert kept == [line for line in lines if line in LINES]
    second = plan_jobs(wanted, USERS, model.crontabs(USERS))
    assert [step for step in second.steps if step.subject not in failed] == []
    for user in ("root", "www"):
        if f"crontab of {user}" not in failed:
            ours = [line for line in model.tabs.get(user, ()) if line not in (*LINES, BEGIN, END)]
            assert ours == [f"@daily {command}" for it, command in jobs if it == user]
