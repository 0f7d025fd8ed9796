"""sysctl.conf and the kernel's values: the fact, the planner, random hosts, and the real scripts."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyinfra.api.exceptions import FactProcessError

from facts.filesets import FileState
from facts.openbsd.sysctl import Sysctls, SysctlState, parse
from operations.openbsd.sysctls import plan_sysctls
from tests.model_openbsd import ModelHost, digest, follow
from tests.shell import check_scripts
from tests.unit.openbsd.scripted import Scratch

EXAMPLES = int(os.environ.get("EXAMPLES", "200"))  # a long run sets more

HEX = "0" * 64
WANTED = (("net.inet.ip.forwarding", "1"), ("kern.seminfo.semmni", "60"))
TEXT = "net.inet.ip.forwarding=1\nkern.seminfo.semmni=60\n"
RIGHT = FileState("root", "wheel", 0o644, digest(TEXT))

# sysctl -n of a name that does not exist prints nothing and exits with 0: contract 6.2.
FAKE = 'case "$1 $2" in "-n net.inet.ip.forwarding") cat $0.v;; "-n "*) ;; *) [ -e $0.ro ] || echo ${1#*=} >$0.v;; esac'


def test_recorded_output() -> None:
    lines = [f"file root wheel 644 {HEX}", "value net.inet.ip.forwarding 0", "value kern.nosuch "]
    found = parse(lines)
    assert found == SysctlState(FileState("root", "wheel", 0o644, HEX), {"net.inet.ip.forwarding": "0"})
    assert parse([]) == SysctlState()


def test_unknown_and_not_understood() -> None:
    assert Sysctls().process(["value a.b 1"]) is None
    with pytest.raises(FactProcessError, match="what is this"):
        parse(["what is this"])


def test_the_file_is_whole_and_the_values_are_set_at_once() -> None:
    found = SysctlState(None, {"net.inet.ip.forwarding": "0", "kern.seminfo.semmni": "60"})
    file, value = plan_sysctls(WANTED, found).steps
    assert (file.subject, file.stdin) == ("/etc/sysctl.conf", TEXT)
    assert (value.subject, value.label) == ("net.inet.ip.forwarding", "0 -> 1")
    done = SysctlState(RIGHT, {"net.inet.ip.forwarding": "1", "kern.seminfo.semmni": "60"})
    assert plan_sysctls(WANTED, done).steps == ()
    assert plan_sysctls((), SysctlState()).steps == ()
    (empty,) = plan_sysctls((), SysctlState(RIGHT)).steps
    assert (empty.label, empty.stdin) == ("emptied", None)


def test_a_name_that_the_kernel_lacks_is_refused() -> None:
    found = plan_sysctls(WANTED, SysctlState(RIGHT, {"kern.seminfo.semmni": "60"}))
    assert found.steps == ()
    assert (found.refused[0].subject, found.refused[0].message) == (
        "net.inet.ip.forwarding",
        "this kernel has no net.inet.ip.forwarding, or does not show it",
    )


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([("a.b", "1 2")], "not one word"),
        ([("a.b", "")], "not one word"),
        ([("a.b", "1#x")], "not one word"),
        ([("a.b ", "1")], "no name"),
        ([("ab", "1")], "no name"),
        ([("a.b", "1"), ("a.b", "2")], "is there twice"),
    ],
)
def test_wrong_arguments_fail_early(wanted: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        plan_sysctls(wanted, SysctlState())


def test_the_scripts_run_in_a_shell(tmp_path: Path) -> None:
    place = Scratch(tmp_path)
    place.fake("sysctl", FAKE)
    (place.bin / "sysctl.v").write_text("0\n")
    wanted = (("net.inet.ip.forwarding", "1"),)

    def read() -> Any:
        done = place.run(Sysctls().command([key for key, _ in WANTED]))
        found = Sysctls().process(done.stdout.splitlines())
        assert found is not None, done.stderr
        return found

    assert read() == SysctlState(None, {"net.inet.ip.forwarding": "0"})
    for step in plan_sysctls(wanted, read()).steps:
        done = place.run(step)
        assert done.returncode == 0, done.stderr
    assert place.text("/etc/sysctl.conf") == "net.inet.ip.forwarding=1\n"
    assert plan_sysctls(wanted, read()).steps == ()
    (place.bin / "sysctl.ro").touch()
    (step,) = plan_sysctls([("net.inet.ip.forwarding", "2")], read()).steps[1:]
    done = place.run(step)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "it is 1")


def test_openbsd_can_run_every_script() -> None:
    check_scripts(Sysctls().command([key for key, _ in WANTED]))
    for step in plan_sysctls(WANTED, SysctlState(None, {key: "0" for key, _ in WANTED})).steps:
        check_scripts(step.command)
    check_scripts(plan_sysctls((), SysctlState(RIGHT)).steps[0].command)


KEYS = ["net.inet.ip.forwarding", "kern.seminfo.semmni", "kern.maxfiles", "kern.nosuch"]


@settings(deadline=None, max_examples=EXAMPLES)
@given(
    st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["0", "1", "60"])),
    st.dictionaries(st.sampled_from(KEYS[:3]), st.sampled_from(["0", "1", "60"])),
    st.sampled_from([None, "", TEXT, "kern.maxfiles = 1\n"]),
    st.sets(st.sampled_from(KEYS)),
)
def test_the_next_plan_is_empty(wanted: Any, values: Any, text: Any, fixed: Any) -> None:
    model = ModelHost(sysctl_conf=text, values=values, fixed=fixed)
    failed = follow(plan_sysctls(tuple(wanted.items()), model.sysctls()), model.apply)
    second = plan_sysctls(tuple(wanted.items()), model.sysctls())
    assert [step for step in second.steps if step.subject not in failed] == []
    assert (model.sysctl_conf or "") == "".join(f"{key}={value}\n" for key, value in wanted.items())
