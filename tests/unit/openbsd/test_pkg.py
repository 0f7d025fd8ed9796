"""Packages: the fact on output in the contract's form, the planner, thousands of hosts, and the real scripts."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyinfra.api.exceptions import FactProcessError

from facts.openbsd.pkg import OpenbsdPackages, Packages, parse
from operations.openbsd.packages import plan_packages, spec
from tests.model_openbsd import ModelPackages, follow
from tests.shell import check_scripts
from tests.unit.openbsd.scripted import Scratch

EXAMPLES = int(os.environ.get("EXAMPLES", "200"))  # a long run sets more

# The forms of contract 2.3.
RECORDED = """\
##manual##
php--%8.3
rsync--
vim--no_x11
##all##
gettext-runtime--
php--%8.3
rsync--
vim--no_x11
##names##
gettext-runtime-0.23.1
php-8.3.12
rsync-3.4.1p0
vim-9.1.1706-no_x11
""".splitlines()


def found(**changes: Any) -> Any:
    state = {
        "manual": frozenset({"php--%8.3", "rsync--", "vim--no_x11"}),
        "every": frozenset({"gettext-runtime--", "php--%8.3", "rsync--", "vim--no_x11"}),
        "names": frozenset({"gettext-runtime-0.23.1", "php-8.3.12", "rsync-3.4.1p0", "vim-9.1.1706-no_x11"}),
    }
    return Packages(**{**state, **changes})


def test_recorded_output() -> None:
    assert parse(RECORDED) == found()


def test_unneeded_are_automatic_leaves_and_never_quirks() -> None:
    lines = [*RECORDED, "##unneeded##", "gettext-runtime-0.23.1", "quirks-7.50", "rsync-3.4.1p0", "##asked##"]
    assert parse([*lines, "rsync-3.4.1p0"]).unneeded == ("gettext-runtime-0.23.1",)


@pytest.mark.parametrize(
    ("lines", "updates"),
    [
        (["Update candidates: rsync-3.4.1p0 -> rsync-3.4.1p0"], ()),
        (
            [
                "Update candidates: rsync-3.4.1p0 -> rsync-3.4.2",
                "Adding rsync-3.4.1p0->rsync-3.4.2(pretending)",
                "Adding xxhash-0.8.3(pretending)",
            ],
            (("rsync-3.4.1p0", "rsync-3.4.2"), ("", "xxhash-0.8.3")),
        ),
        # 2.2: "-u with dead mirror", exit 1.
        (["Couldn't find any update"], None),
        (["Update candidates: a-1 -> a-1", "Can't find b"], None),
        ([], None),
    ],
)
def test_updates(lines: Any, updates: Any) -> None:
    assert parse([*RECORDED, "##updates##", *lines]).updates == updates


def test_unknown_and_not_understood() -> None:
    assert OpenbsdPackages().process(["##manual##", "rsync--"]) is None
    assert OpenbsdPackages().process([]) is None
    with pytest.raises(FactProcessError, match="what is this"):
        parse(["##manual##", "what is this"])
    with pytest.raises(FactProcessError, match="missing"):
        parse(["##manual##", "##all##"])


def test_nothing_is_due_when_all_are_there() -> None:
    done = plan_packages(["rsync--", "php--%8.3"], ["redis--%main"], found())
    assert (done.steps, done.refused) == ((), ())


def test_what_is_missing_is_installed_in_one_go_and_read_back() -> None:
    (step,) = plan_packages(["rsync--", "haproxy--", "redis--%bsd"], (), found()).steps
    assert step.label == "installed haproxy--, redis--%bsd"
    assert 'quietly pkg_add ${d:+-D "$d"} -I haproxy-- redis--%bsd\n' in step.command
    assert "pkg_info -mz" in step.command and "\neach haproxy--\neach redis--%bsd\n" in step.command


def test_a_dependency_that_is_wanted_itself_is_marked_as_asked_for() -> None:
    (step,) = plan_packages(["gettext-runtime--"], (), found()).steps
    assert "pkg_add" in step.command


def test_another_flavour_replaces_and_another_branch_does_only_if_it_is_unwanted() -> None:
    (step,) = plan_packages(["vim--gtk3"], (), found()).steps
    assert (step.subject, step.label) == ("vim--gtk3", "installed vim--gtk3 in place of what was there")
    assert "-I -r vim--gtk3\n" in step.command
    (step,) = plan_packages(["php--%8.4"], (), found()).steps
    assert "-I php--%8.4\n" in step.command
    add, delete = plan_packages(["php--%8.4"], ["php--%8.3"], found()).steps
    assert "-I -r php--%8.4\n" in add.command
    assert "pkg_delete -I php%8.3\n" in delete.command


def test_a_package_without_a_branch_is_deleted_by_its_full_name() -> None:
    (step,) = plan_packages([], ["vim--no_x11"], found()).steps
    assert (step.label, step.subject) == ("deleted vim--no_x11", "vim--no_x11")
    assert "quietly pkg_delete -I vim-9.1.1706-no_x11\n" in step.command
    odd = plan_packages([], ["vim--no_x11"], found(names=frozenset({"rsync-3.4.1p0"})))
    assert odd.steps == () and "no name of pkg_info -q" in odd.refused[0].message


def test_latest_and_autoremove_only_on_request() -> None:
    state = found(
        updates=(("rsync-3.4.1p0", "rsync-3.4.2"), ("", "xxhash-0.8.3")), unneeded=("gettext-runtime-0.23.1",)
    )
    assert plan_packages(["rsync--"], (), state).steps == ()
    update, remove = plan_packages(["rsync--"], (), state, latest=True, autoremove=True).steps
    assert update.label == "updated to rsync-3.4.2, xxhash-0.8.3"
    assert remove.label == "deleted, nothing needs them: gettext-runtime-0.23.1"
    same = found(updates=(("rsync-3.4.1p0", "rsync-3.4.1p0"),), unneeded=())
    assert plan_packages(["rsync--"], (), same, latest=True, autoremove=True).steps == ()
    dead = plan_packages(["rsync--"], (), found(), latest=True)
    assert dead.steps == () and "the mirror did not say" in dead.refused[0].message


@pytest.mark.parametrize(
    "name", ["rsync", "rsync-3.4.1", "php%8.3", "rsync--;reboot", "", "-I--", "rsync-*", "a--%b%c"]
)
def test_a_name_in_another_form_is_refused_with_the_right_one(name: Any) -> None:
    with pytest.raises(ValueError, match="write it as pkg_info -mz does"):
        plan_packages([name], (), found())


def test_two_flavours_of_one_package_and_wanted_and_absent() -> None:
    with pytest.raises(ValueError, match="another flavour is wanted as well"):
        plan_packages(["vim--gtk3", "vim--no_x11"], (), found())
    with pytest.raises(ValueError, match="wanted and absent"):
        plan_packages(["vim--gtk3"], ["vim--gtk3"], found())
    assert spec("postfix--ldap-sasl2%stable").flavours == "ldap-sasl2"
    assert spec("py3-requests--").stem == "py3-requests"


# --- the scripts, for real ---


def scratch(tmp_path: Path, **pkg: str) -> Scratch:
    place = Scratch(tmp_path)
    place.fake("sysctl", "echo 'OpenBSD 7.9-current (GENERIC.MP) #1: Sat Nov 21 03:00:00 MST 2026'")
    place.fake("ftp", "exit 1")
    place.fake("pkg_info", pkg.get("info", ""))
    place.fake("pkg_add", pkg.get("add", ""))
    place.fake("pkg_delete", pkg.get("delete", ""))
    return place


def test_the_fact_is_read_by_a_shell(tmp_path: Path) -> None:
    info = "case $1 in -mz|-zq) echo rsync--; echo php--%8.3;; *) echo rsync-3.4.1p0; echo php-8.3.12;; esac"
    place = scratch(tmp_path, info=info, add='echo "Update candidates: a-1 -> a-1"; exit 1')
    done = place.run(OpenbsdPackages().command(unneeded=True, updates=True))
    state = OpenbsdPackages().process(done.stdout.splitlines())
    assert state is not None
    assert (state.manual, state.unneeded, state.updates) == (frozenset({"rsync--", "php--%8.3"}), (), ())
    assert "pkg_add -Inuv" in place.said


def test_a_database_that_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    place = scratch(tmp_path, info="exit 1")
    done = place.run(OpenbsdPackages().command())
    assert OpenbsdPackages().process(done.stdout.splitlines()) is None


@pytest.mark.parametrize(
    "words",
    ["Can't find haproxy--", "Ambiguous: haproxy-- could be haproxy-2.8.1 haproxy-3.0.5", "https://m/: ftp: connect"],
)
def test_pkg_add_that_exits_with_0_and_installs_nothing_fails_with_its_words(tmp_path: Path, words: Any) -> None:
    place = scratch(tmp_path, info="echo rsync--", add=f'echo "{words}" >&2; exit 0')
    (step,) = plan_packages(["haproxy--"], (), Packages()).steps
    done = place.run(step)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["not installed: haproxy--:", words]
    assert "pkg_add -I haproxy--" in place.said


def test_what_was_installed_is_believed_when_the_database_has_it(tmp_path: Path) -> None:
    place = scratch(tmp_path, info="echo rsync--", add="exit 1")
    (step,) = plan_packages(["rsync--"], (), Packages()).steps
    assert place.run(step).returncode == 0


@pytest.mark.parametrize(
    ("kernel", "mirror", "installed", "snap"),
    [
        ("OpenBSD 7.9-current (GENERIC) #1", "exit 1", None, False),
        ("OpenBSD 8.0-beta (GENERIC) #1", "exit 1", None, False),
        ("OpenBSD 8.0 (GENERIC) #1", "case $3 in */snapshots/*) echo Build date: 3 ;; *) exit 1 ;; esac", None, True),
        ("OpenBSD 8.0 (GENERIC) #1", "echo Build date: 2", "Build date: 1\n", True),
        ("OpenBSD 8.0 (GENERIC) #1", "echo Build date: 2", "Build date: 2\n", False),
        ("OpenBSD 8.0 (GENERIC) #1", "echo Build date: 2", None, False),
    ],
)
def test_snapshots_are_named_only_when_the_kernel_does_not(
    tmp_path: Path, kernel: Any, mirror: Any, installed: Any, snap: Any
) -> None:
    place = scratch(tmp_path, info="echo rsync--")
    place.fake("sysctl", f"echo '{kernel}'")
    place.fake("ftp", mirror)
    place.file("/etc/installurl", "# where from\nhttps://mirror.example/pub/OpenBSD\n")
    if installed:
        place.file("/var/db/installed.BUILDINFO", installed)
    (step,) = plan_packages(["rsync--"], (), Packages()).steps
    assert place.run(step).returncode == 0
    assert ("pkg_add -D snap -I rsync--" if snap else "pkg_add -I rsync--") in place.said
    if "-" not in kernel.split()[1]:
        assert any("https://mirror.example/pub/OpenBSD/" in line for line in place.said)


def test_a_mirror_that_does_not_answer_makes_no_release_a_snapshot(tmp_path: Path) -> None:
    place = scratch(tmp_path, info="echo rsync--")
    place.fake("sysctl", "echo 'OpenBSD 8.0 (GENERIC) #1'")
    place.fake("ftp", "exit 1")
    place.file("/etc/installurl", "https://mirror.example/pub/OpenBSD\n")
    (step,) = plan_packages(["rsync--"], (), Packages()).steps
    done = place.run(step)
    assert done.returncode == 1 and "mirror.example/pub/OpenBSD does not answer" in done.stderr
    assert not any(line.startswith("pkg_add") for line in place.said)
    done = place.run(OpenbsdPackages().command(updates=True))
    known = OpenbsdPackages().process(done.stdout.splitlines())
    assert known is not None and known.updates is None


def test_deleting_reads_back_and_leaves_alone_what_is_gone(tmp_path: Path) -> None:
    place = scratch(tmp_path, info="echo vim--no_x11", delete='echo "can\'t delete vim without deleting x" >&2; exit 1')
    (step,) = plan_packages([], ["vim--no_x11"], found()).steps
    done = place.run(step)
    assert (done.returncode, done.stderr.splitlines()[1]) == (1, "can't delete vim without deleting x")
    place.fake("pkg_info", "")
    assert place.run(step).returncode == 0


def test_openbsd_can_run_every_script() -> None:
    state = found(updates=(("rsync-3.4.1p0", "rsync-3.4.2"),), unneeded=("gettext-runtime-0.23.1",))
    plan = plan_packages(["haproxy--", "vim--gtk3"], ["php--%8.3"], state, latest=True, autoremove=True)
    assert len(plan.steps) == 5
    for step in plan.steps:
        check_scripts(step.command)
    check_scripts(OpenbsdPackages().command(unneeded=True, updates=True))


# --- thousands of random hosts ---

MIRROR = {
    "rsync--": "rsync-3.4.2",
    "rsync--iconv": "rsync-3.4.2-iconv",
    "php--%8.3": "php-8.3.13",
    "php--%8.4": "php-8.4.1",
    "redis--%bsd": "redis-6.2.15",
    "redis--%main": "redis-8.0.2",
    "vim--no_x11": "vim-9.1-no_x11",
    "vim--gtk3": "vim-9.1-gtk3",
    "lib--": "lib-1.0",
}
NEEDS = {"php--%8.3": {"lib--"}, "php--%8.4": {"lib--"}, "vim--gtk3": {"lib--"}}


@st.composite
def hosts(draw: Any) -> Any:
    model = ModelPackages(mirror=dict(MIRROR), needs=NEEDS, conflicts={"redis"}, dead=draw(st.booleans()))
    for it in draw(st.lists(st.sampled_from(sorted(MIRROR)), unique=True)):
        if any(model._rival(it, other) for other in model.installed):
            continue
        model.installed[it] = MIRROR[it] if draw(st.booleans()) else MIRROR[it].replace("-", "-0.", 1)
        if draw(st.booleans()):
            model.manual.add(it)
        for need in NEEDS.get(it, ()):
            model.installed.setdefault(need, MIRROR[need])
    return model


@settings(deadline=None, max_examples=EXAMPLES)
@given(
    hosts(),
    st.lists(st.sampled_from([*sorted(MIRROR), "nosuch--"]), unique=True, max_size=5),
    st.lists(st.sampled_from(sorted(MIRROR)), unique=True, max_size=3),
    st.booleans(),
    st.booleans(),
)
def test_the_next_plan_is_empty_and_nothing_goes_unasked(
    model: Any, wanted: Any, absent: Any, latest: Any, autoremove: Any
) -> None:
    # Who wants a package and not what it needs has asked for a failure, in this run or the next.
    assume(not {need for it in wanted for need in NEEDS.get(it, ())} & set(absent))
    before = dict(model.installed)
    asked = set(model.manual)
    try:
        first = plan_packages(wanted, absent, model.state(), latest, autoremove)
    except ValueError:
        return
    failed = follow(first, model.apply)
    verbs = {command[0] for command in model.commands}
    if not absent and not autoremove:
        assert "pkg_delete" not in verbs
    wanted_stems = {it.split("--")[0] for it in wanted}
    for it, name in before.items():
        if it not in model.installed:
            assert it in absent or it.split("--")[0] in wanted_stems or (autoremove and it not in model.manual), it
        elif not latest and it not in wanted:
            assert model.installed[it] == name, "updated, and nobody asked"
        elif not latest and it in asked:
            assert model.installed[it] == name, "present is not latest"
    if failed:
        return
    second = plan_packages(wanted, absent, model.state(), latest, autoremove=False)
    assert second.steps == ()
