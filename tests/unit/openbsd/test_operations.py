"""The thin shells of the operations: one fact, one exec when nothing is due, and no action on what is unknown."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api import FactBase, FunctionCommand, StringCommand
from pyinfra.context import ctx_host

from facts.filesets import FileState
from facts.linux.systemd import Unit
from facts.openbsd.accounts import AccountsState
from facts.openbsd.crontab import Crontab
from facts.openbsd.pf import PfState
from facts.openbsd.pkg import Packages
from facts.openbsd.rcctl import Kind, Service, ServicesState
from facts.openbsd.sysctl import SysctlState
from facts.openbsd.system import System
from fleet import connector
from fleet.model.service import Account, Daemon, Job, LoginClass
from operations.linux.daemons import daemons as linux_daemons
from operations.openbsd import maintenance
from operations.openbsd.accounts import accounts
from operations.openbsd.daemons import daemons
from operations.openbsd.jobs import jobs
from operations.openbsd.maintenance import download, patches, reboot
from operations.openbsd.packages import packages
from operations.openbsd.sysctls import sysctls
from operations.openbsd.tables import tables

CURRENT = "OpenBSD 7.9-current (GENERIC.MP) #1: Sat Nov 21 03:00:00 MST 2026"
SUM = "0" * 64
RUNNING = Service(Kind.BASE, True, True, values={"flags": "", "user": "root", "rtable": "0", "timeout": "30"})

# operation, its arguments, a fact with which nothing is due, wrong arguments or None
OPERATIONS: list[Any] = [
    (packages, {"wanted": ["rsync--"]}, Packages(frozenset({"rsync--"})), {"wanted": ["rsync"]}),
    (daemons, {"wanted": [Daemon(name="sshd")]}, ServicesState({"sshd": RUNNING}), None),
    (
        accounts,
        {"classes": [], "groups": [], "wanted": [Account(name="anna", removed=True)]},
        AccountsState(),
        {"classes": [LoginClass(name="x", capabilities=("a:b",))], "groups": [], "wanted": []},
    ),
    (sysctls, {"wanted": []}, SysctlState(), {"wanted": [("a", "b c")]}),
    (
        jobs,
        {"wanted": [], "users": ["root"]},
        {"root": Crontab(True)},
        {"wanted": [Job(schedule="x", command="y")], "users": ["root"]},
    ),
    (tables, {"wanted": {"own": []}}, PfState(True, {"own": frozenset()}), {"wanted": {"own": ["x"]}}),
    (patches, {}, System(CURRENT, 1), None),
    (reboot, {"when": 5}, System(CURRENT, 5), None),
    (
        download,
        {"url": "https://m.example/x", "dest": "/x", "sha256": SUM},
        None,
        {"url": "x", "dest": "/x", "sha256": SUM},
    ),
]
NAMES = [it[0]._inner.__name__ for it in OPERATIONS]
WRONG = {name: (it[0], it[3]) for name, it in zip(NAMES, OPERATIONS, strict=True) if it[3]}


class Machine:
    """A host as an operation sees it: counts the facts that it is asked for."""

    def __init__(self, answer: Any, executing: bool = True) -> None:
        self.name = "test1"
        self.answer = answer
        self.asked: list[type[FactBase[Any]]] = []
        self.nothing: list[str] = []
        self.state = SimpleNamespace(is_executing=executing)
        self.connector: Any = None
        self.data: dict[str, Any] = {}

    def get_fact(self, fact: Any, **arguments: Any) -> Any:
        fact().command(**arguments)
        self.asked.append(fact)
        return self.answer

    def noop(self, why: str) -> None:
        self.nothing.append(why)


@pytest.fixture(autouse=True)
def records() -> Iterator[None]:
    yield
    connector._OUTCOMES.pop("test1", None)
    connector._PLANNED.pop("test1", None)


def run(machine: Machine, operation: Any, arguments: Any) -> list[Any]:
    with ctx_host.use(machine):
        return list(operation._inner(**arguments))


@pytest.mark.parametrize(("operation", "arguments", "fact", "_wrong"), OPERATIONS, ids=NAMES)
def test_nothing_due_is_one_fact_and_no_command(operation: Any, arguments: Any, fact: Any, _wrong: Any) -> None:
    if operation is download:
        fact = (FileState("root", "wheel", 0o644, SUM),)
    machine = Machine(fact)
    assert run(machine, operation, arguments) == []
    assert len(machine.asked) == 1 and machine.nothing
    assert connector.record_of("test1").failed == {}


@pytest.mark.parametrize(("operation", "arguments", "_fact", "_wrong"), OPERATIONS, ids=NAMES)
def test_what_is_unknown_fails_this_host_and_does_nothing(
    operation: Any, arguments: Any, _fact: Any, _wrong: Any
) -> None:
    (command,) = run(Machine(None), operation, arguments)
    assert isinstance(command, StringCommand) and command.get_raw_value().endswith("exit 1")


@pytest.mark.parametrize(("operation", "wrong"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_fail_before_anything_is_asked(operation: Any, wrong: Any) -> None:
    machine = Machine(None)
    (command,) = run(machine, operation, wrong)
    assert isinstance(command, StringCommand) and command.get_raw_value().endswith("exit 1")
    assert machine.asked == []


@pytest.mark.parametrize(
    ("operation", "found"),
    [
        (daemons, ServicesState({name: Service(Kind.BASE, False) for name in ("unbound", "smtpd")})),
        (linux_daemons, {name: Unit(True, False, False) for name in ("unbound", "smtpd")}),
    ],
    ids=["openbsd", "linux"],
)
def test_a_daemon_whose_configuration_failed_is_not_started(operation: Any, found: Any) -> None:
    """DESIGN D2: a package never starts a daemon before its set is there."""
    record = connector.record_of("test1")
    record.fail("resolver", "the check refused the new files")
    wanted = [Daemon(name="unbound"), Daemon(name="smtpd")]
    own = {"unbound": frozenset({"resolver"}), "smtpd": frozenset({"mail"})}
    commands = run(Machine(found), operation, {"wanted": wanted, "own": own})
    assert {command.args[0].subject for command in commands} == {"smtpd"}
    assert record.failed["unbound"] == "left as it is: its configuration resolver failed"


def test_a_secret_value_takes_the_place_of_its_mark_at_the_last_moment() -> None:
    account = Account(name="anna", password="@@secret:anna@@")
    hashed = "$2b$10$" + "a" * 53
    commands = run(
        Machine(AccountsState(groups={"wheel": (0, ())})),
        accounts,
        {
            "classes": [],
            "groups": [],
            "wanted": [account],
            "fill": lambda text: text.replace("@@secret:anna@@", hashed),
        },
    )
    assert [command.args[0].label for command in commands] == ["made", "password set"]
    assert commands[1].args[0].stdin == f"{hashed}\n"


def test_what_an_earlier_operation_may_bring_is_not_refused_while_planning() -> None:
    for executing, failed in ((False, {}), (True, {"nosuch"})):
        assert run(Machine(ServicesState(), executing), daemons, {"wanted": [Daemon(name="nosuch")]}) == []
        assert set(connector.record_of("test1").failed) == set(failed)


class Connector:
    """A connection that is lost and comes back: what `reconnect` answers, and then the times of the boot."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers

    def reconnect(self, _seconds: int) -> bool:
        self.now = self.answers.pop(0)
        return self.now is not None

    def run_shell_command(self, command: StringCommand, **_arguments: Any) -> Any:
        if "shutdown" in command.get_raw_value():
            return True, SimpleNamespace(stdout_lines=[], stderr_lines=[])
        return True, SimpleNamespace(stdout_lines=[str(self.now)], stderr_lines=[])


@pytest.mark.parametrize(("answers", "changed"), [([1000, None, 9000], True), ([1000, None, None, None], False)])
def test_a_reboot_is_waited_for_over_a_new_connection(
    monkeypatch: pytest.MonkeyPatch, answers: Any, changed: Any
) -> None:
    monkeypatch.setattr(maintenance, "POLL_SECONDS", 0.01)
    machine = Machine(System(CURRENT, 1000))
    machine.connector = Connector(answers + [None] * 500)
    (command,) = run(machine, reboot, {"when": 2000, "seconds": 1})
    assert isinstance(command, FunctionCommand)
    assert command.function(machine.state, machine, *command.args) is changed
    record = connector.record_of("test1")
    assert (record.changed.get("reboot"), set(record.failed)) == (
        (["rebooted"], set()) if changed else (None, {"reboot"})
    )


def test_firmware_is_recorded_by_what_changed() -> None:
    (command,) = run(Machine(None), maintenance.firmware, {})
    for lines, changes in ((["intel-firmware-1 installed"], 0), (["changed"], 1)):
        machine = Machine(None)
        output = SimpleNamespace(stdout_lines=lines, stderr_lines=[])
        machine.connector = SimpleNamespace(run_shell_command=lambda *_a, output=output, **_k: (True, output))
        assert command.function(machine.state, machine) is True
        assert connector.record_of("test1").changes == changes
