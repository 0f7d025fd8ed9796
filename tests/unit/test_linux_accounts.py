"""Groups and accounts of Ubuntu: the fact, the planner, thousands of hosts, and the real scripts."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyinfra.api.exceptions import FactProcessError

from facts.filesets import FileState
from facts.linux.accounts import DONE, Accounts, AccountsState, Login, parse
from fleet.model.service import Account, Group
from operations.accounts import digest
from operations.linux.accounts import NO_PASSWORD, plan_accounts
from operations.steps import Plan, Step
from tests.shell import check_scripts

EXAMPLES = int(os.environ.get("EXAMPLES", "200"))  # a long run sets more

HEX = "0" * 64
HASH = "$2b$10$abcdefghijklmnopqrstuv"
ANNA = Login(1000, "Anna", "/home/anna", "/bin/bash", starred=True, password=digest(NO_PASSWORD))

RECORDED = f"""\
group:sudo:27:anna,bert
group:anna:1000:
login:anna:1000:Anna B.:/home/anna:/bin/bash:1::{HEX}:700 anna:anna anna 600 {HEX}
login:bert:1001::/home/bert:/bin/bash:1:1:{HEX}:link:
login:moves:998::/var/lib/moves:/bin/sh:0::{HEX}::
""".splitlines()


def state(*logins: tuple[str, Login], groups: dict[str, tuple[int, tuple[str, ...]]] | None = None) -> AccountsState:
    known = {"sudo": (27, ()), **{name: (login.uid, ()) for name, login in logins}, **(groups or {})}
    return AccountsState(known, dict(logins))


def plan(*wanted: Account, found: AccountsState | None = None, groups: Sequence[Group] = ()) -> Plan:
    return plan_accounts(groups, wanted, found or state())


def person(**fields: Any) -> Account:
    return Account(**{"name": "anna", "comment": "Anna", "shell": "/bin/bash", **fields})


def test_recorded_output() -> None:
    found = parse(RECORDED)
    assert found.groups == {"sudo": (27, ("anna", "bert")), "anna": (1000, ())}
    assert found.secondary("anna") == {"sudo"} and found.secondary("moves") == frozenset()
    keys = FileState("anna", "anna", 0o600, HEX)
    anna = Login(1000, "Anna B.", "/home/anna", "/bin/bash", True, "", HEX, "700 anna", keys)
    assert found.logins["anna"] == anna and not anna.locked
    assert found.logins["bert"].locked and found.logins["bert"].directory == "link"
    assert (found.logins["moves"].starred, found.logins["moves"].directory, found.logins["moves"].keys) == (
        False,
        None,
        None,
    )


@pytest.mark.parametrize(
    "line", ["what is this", "login:anna:1000", "group:x", "login:a:b:c:d:e:1::f::", f"login:a:1:c:d:e::{HEX}:::"]
)
def test_what_is_not_understood_is_named(line: str) -> None:
    with pytest.raises(FactProcessError, match=line):
        parse([line])


def test_no_last_line_is_unknown() -> None:
    assert Accounts().process(["group:sudo:27:"]) is None
    assert Accounts().process(["group:sudo:27:", DONE]) == AccountsState({"sudo": (27, ())})


def test_groups_are_made_and_never_renumbered() -> None:
    found = plan(groups=[Group(name="git", gid=2000), Group(name="ops"), Group(name="sudo", gid=1001)])
    assert [step.command for step in found.steps] == ["groupadd -g 2000 git", "groupadd ops"]
    assert "it has gid 27, wanted 1001" in found.refused[0].message


def test_a_new_account_with_all_that_belongs_to_it() -> None:
    keys = ("ssh-ed25519 AAAA anna", 'from="192.0.2.1" ssh-ed25519 BBBB')
    account = person(uid=1100, comment="Anna B.", groups=("sudo",), password=HASH, authorized_keys=keys)
    made, password, written = plan(account).steps
    assert made.command == "useradd -m -u 1100 -U -c 'Anna B.' -d /home/anna -s /bin/bash -p '*' -G sudo anna"
    assert (password.command, password.stdin) == ("chpasswd -e", f"anna:{HASH}\n")
    assert written.stdin == 'ssh-ed25519 AAAA anna\nfrom="192.0.2.1" ssh-ed25519 BBBB\n'
    service = Account(name="moves", home="/var/lib/moves", shell="/bin/sh", groups=("libvirt",))
    (only,) = plan(service, found=state(groups={"libvirt": (110, ())})).steps
    assert only.command == "useradd -m -U -c '' -d /var/lib/moves -s /bin/sh -p '*' -G libvirt moves"
    (nobody,) = plan(Account(name="x", home="/nonexistent", shell="/bin/sh"), groups=[Group(name="x")]).steps[1:]
    assert nobody.command == "useradd -M -g x -c '' -d /nonexistent -s /bin/sh -p '*' x"


def test_what_differs_is_set_in_one_call_and_nothing_else() -> None:
    assert plan(person(), found=state(("anna", ANNA))).steps == ()
    expired = replace(ANNA, expires="20000")
    other = person(comment="A", shell="/bin/sh", groups=("sudo", "ops"))
    _, step = plan(other, found=state(("anna", expired)), groups=[Group(name="ops")]).steps
    assert step.command == "usermod -c A -s /bin/sh -G sudo,ops -e '' anna"
    assert step.label == "comment A; shell /bin/sh; groups sudo, ops; expires never"
    (step,) = plan(person(), found=state(("anna", ANNA), groups={"sudo": (27, ("anna",))})).steps
    assert step.command == "usermod -G '' anna"


def test_a_password_of_which_nothing_is_declared_is_taken_off_but_not_roots() -> None:
    known = replace(ANNA, starred=False, password=digest(HASH))
    (step,) = plan(person(), found=state(("anna", known))).steps
    assert (step.label, step.command, step.stdin) == ("password taken away", "usermod -p '*' anna", None)
    assert plan(person(password=HASH), found=state(("anna", known))).steps == ()
    root = Account(name="root", comment="Anna", shell="/bin/bash", home="/home/anna")
    assert plan(root, found=state(("root", replace(known, uid=0)))).steps == ()


def test_keys_are_exact_or_left_alone() -> None:
    text = "ssh-ed25519 AAAA\n"
    keys = FileState("anna", "anna", 0o600, digest(text))
    login = replace(ANNA, directory="700 anna", keys=keys)
    wanted = person(authorized_keys=("ssh-ed25519 AAAA",))
    assert plan(wanted, found=state(("anna", login))).steps == ()
    assert plan(person(), found=state(("anna", login))).steps == ()
    for wrong in (
        replace(login, keys=None),
        replace(login, directory="755 anna"),
        replace(login, keys=replace(keys, mode=0o644)),
        replace(login, keys=replace(keys, owner="root")),
        replace(login, keys=replace(keys, sha256=HEX)),
    ):
        (step,) = plan(wanted, found=state(("anna", wrong))).steps
        assert (step.label, step.stdin) == ("keys written", text)
    none = plan(person(authorized_keys=()), found=state(("anna", login)))
    assert [(step.label, step.stdin) for step in none.steps] == [("keys taken away", None)]


def test_what_is_removed_is_locked_and_keyless_and_stays() -> None:
    gone = person(removed=True)
    assert plan(gone).steps == ()
    keys = FileState("anna", "anna", 0o600, HEX)
    lock, empty = plan(gone, found=state(("anna", replace(ANNA, starred=False, keys=keys)))).steps
    assert lock.command == "usermod -L -e 1 anna" and empty.label == "keys taken away"
    after = replace(ANNA, expires="1", password=digest("!*"), keys=replace(keys, sha256=digest("")))
    assert plan(gone, found=state(("anna", after))).steps == ()
    # And it can come back.
    back = plan(person(password=HASH), found=state(("anna", after)))
    assert [step.command for step in back.steps] == ["usermod -e '' anna", "chpasswd -e"]


@pytest.mark.parametrize(
    ("account", "login", "message"),
    [
        (person(uid=1001), ANNA, "it has uid 1000, wanted 1001"),
        (person(groups=("nosuch",)), ANNA, "there is no group nosuch"),
        (person(groups=("nosuch",)), None, "there is no group nosuch"),
        (person(home="/srv/anna"), ANNA, "its home is /home/anna, wanted /srv/anna"),
        (person(authorized_keys=()), replace(ANNA, directory="link"), "is a symbolic link"),
        (person(authorized_keys=()), replace(ANNA, directory="700 root"), "/home/anna/.ssh is not its own (700 root)"),
    ],
)
def test_what_would_move_files_or_follow_a_link_is_refused(account: Account, login: Login | None, message: str) -> None:
    found = plan(account, found=state(*([("anna", login)] if login else [])))
    assert found.steps == () and message in found.refused[0].message


@pytest.mark.parametrize(
    ("groups", "wanted", "message"),
    [
        ([Group(name="a b")], [], "group 'a b'"),
        ([Group(name="a"), Group(name="a")], [], "group a is there twice"),
        ([], [Account(name="x;y")], "account 'x;y'"),
        ([], [Account(name="x", comment="a:b")], "no colon"),
        ([], [Account(name="x", shell="/bin/sh\n")], "no colon"),
        ([], [Account(name="x", password="secret")], "no hash"),
        ([], [Account(name="x", authorized_keys=("a\nb",))], "a key is one line"),
    ],
)
def test_wrong_arguments_fail_early(groups: list[Group], wanted: list[Account], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_accounts(groups, wanted, state())


# --- the scripts, for real ---

ME = pwd.getpwuid(os.geteuid()).pw_name


@dataclass
class Place:
    """A folder that plays /, with an account in it that is the one that runs the tests."""

    root: Path

    def run(self, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", re.sub(r"(?<![\w.])/etc/", f"{self.root}/etc/", command)],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            env={"PATH": f"{self.root.parent / 'bin'}:{os.environ['PATH']}"},
        )

    def perform(self, step: Step) -> subprocess.CompletedProcess[str]:
        return self.run(step.command, step.stdin or "")

    def read(self) -> AccountsState:
        done = self.run(Accounts().command(logins=[ME, "locked", "nobody-here"]))
        assert HASH not in done.stdout
        found = Accounts().process(done.stdout.splitlines())
        assert found is not None, done.stderr
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "home" / ME).mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    # A test is root or not as it likes: who is not cannot become anybody else, and need not.
    setpriv = tmp_path / "bin/setpriv"
    setpriv.write_text('#!/bin/sh\nwhile [ "$1" != env ]; do shift; done\nexec "$@"\n')
    setpriv.chmod(0o755)
    number = os.geteuid()
    (root / "etc/passwd").write_text(
        f"{ME}:x:{number}:{number}:Anna B.:{root}/home/{ME}:/bin/bash\nlocked:x:1001:1001::/nowhere:/bin/sh\n"
    )
    (root / "etc/shadow").write_text(f"{ME}:{HASH}:20000:0:99999:7:::\nlocked:!*:20000:0:99999:7::1:\n")
    (root / "etc/group").write_text(f"sudo:x:27:{ME}\n{ME}:x:{number}:\n")
    return Place(root)


def test_the_fact_is_read_by_a_shell(place: Place) -> None:
    found = place.read()
    me = found.logins[ME]
    assert (me.uid, me.comment, me.shell, me.starred, me.expires) == (os.geteuid(), "Anna B.", "/bin/bash", False, "")
    assert me.password == digest(HASH) and (me.directory, me.keys) == (None, None)
    assert found.logins["locked"].locked and "nobody-here" not in found.logins
    assert found.groups["sudo"] == (27, (ME,))


def test_an_unreadable_shadow_is_unknown(place: Place) -> None:
    (place.root / "etc/shadow").unlink()
    done = place.run(Accounts().command(logins=[ME]))
    assert done.returncode != 0 and Accounts().process(done.stdout.splitlines()) is None


def _account(place: Place, **fields: Any) -> Account:
    home = f"{place.root}/home/{ME}"
    return Account(
        **{"name": ME, "comment": "Anna B.", "home": home, "shell": "/bin/bash", "groups": ("sudo",), **fields}
    )


def _written(place: Place, found: AccountsState, *keys: str) -> Step:
    wanted = _account(place, password=HASH, authorized_keys=keys)
    (step,) = plan_accounts((), [wanted], found).steps
    return step


def test_keys_are_written_whole_and_the_next_plan_is_empty(place: Place) -> None:
    done = place.perform(_written(place, place.read(), "key \\n 1", "key 2"))
    assert done.returncode == 0, done.stderr
    folder = place.root / "home" / ME / ".ssh"
    assert (folder / "authorized_keys").read_text() == "key \\n 1\nkey 2\n"
    assert (folder.stat().st_mode & 0o777, (folder / "authorized_keys").stat().st_mode & 0o777) == (0o700, 0o600)
    assert [path.name for path in folder.iterdir()] == ["authorized_keys"]
    wanted = _account(place, password=HASH, authorized_keys=("key \\n 1", "key 2"))
    assert plan_accounts((), [wanted], place.read()).steps == ()
    assert place.perform(_written(place, place.read())).returncode == 0
    assert (folder / "authorized_keys").read_bytes() == b""


def test_what_is_cut_short_changes_nothing(place: Place) -> None:
    assert place.perform(_written(place, place.read(), "old")).returncode == 0
    step = _written(place, place.read(), "new", "and more")
    done = place.perform(replace(step, stdin="new\n"))
    folder = place.root / "home" / ME / ".ssh"
    assert done.returncode == 1
    assert [path.name for path in folder.iterdir()] == ["authorized_keys"]
    assert (folder / "authorized_keys").read_text() == "old\n"


def test_a_link_is_not_followed_even_if_it_came_after_the_fact(place: Place) -> None:
    step = _written(place, place.read(), "key")
    (place.root / "home" / ME / ".ssh").symlink_to(place.root / "etc")
    done = place.perform(step)
    assert done.returncode == 1 and "symbolic link" in done.stderr
    assert not (place.root / "etc/authorized_keys").exists()
    assert place.read().logins[ME].directory == "link"


def test_a_link_in_the_place_of_the_file_is_replaced(place: Place) -> None:
    folder = place.root / "home" / ME / ".ssh"
    folder.mkdir(0o700)
    (folder / "authorized_keys").symlink_to(place.root / "etc/passwd")
    before = (place.root / "etc/passwd").read_text()
    found = place.read()
    assert place.perform(_written(place, found, "key")).returncode == 0
    assert (place.root / "etc/passwd").read_text() == before
    assert (folder / "authorized_keys").read_text() == "key\n" and not (folder / "authorized_keys").is_symlink()


def test_a_host_can_run_every_script() -> None:
    account = person(password=HASH, authorized_keys=("a",), groups=("sudo",))
    made = plan(account, groups=[Group(name="ops")])
    gone = plan(person(removed=True), found=state(("anna", ANNA)))
    commands = [step.command for step in (*made.steps, *gone.steps)]
    check_scripts(Accounts().command(logins=["anna"]), *commands, openbsd=False)


# --- thousands of random hosts ---

NAMES = ["anna", "bert", "git"]
GROUPS = ["sudo", "ops", "git"]


class CommandError(Exception):
    """What a real command would have refused."""


@dataclass
class Model:
    """useradd(8), usermod(8), groupadd(8) and chpasswd(8), and the files behind them."""

    groups: dict[str, tuple[int, set[str]]] = field(default_factory=dict)
    logins: dict[str, Login] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)

    def state(self) -> AccountsState:
        return AccountsState(
            {name: (gid, tuple(sorted(members))) for name, (gid, members) in self.groups.items()},
            {name: self._login(name) for name in self.logins},
        )

    def _login(self, name: str) -> Login:
        password = self.passwords[name]
        keys = FileState(name, name, 0o600, digest(self.keys[name])) if name in self.keys else None
        return replace(
            self.logins[name],
            starred=password[:1] in ("*", "!"),
            password=digest(password),
            keys=keys,
            directory=f"700 {name}" if keys else None,
        )

    def apply(self, step: Step) -> None:
        words = shlex.split(step.command)
        self.commands.append(words[0])
        if "setpriv" in words:
            self._login(step.subject)
            self.keys[step.subject] = step.stdin or ""
        elif words[0] == "chpasswd":
            name, _, hashed = (step.stdin or "").strip().partition(":")
            assert name in self.logins and words == ["chpasswd", "-e"]
            self.passwords[name] = hashed
        else:
            handlers: dict[str, Callable[[list[str]], None]] = {
                "useradd": self._useradd,
                "usermod": self._usermod,
                "groupadd": self._groupadd,
            }
            handlers[words[0]](words[1:])

    def _groupadd(self, words: list[str]) -> None:
        if words[-1] in self.groups:
            raise CommandError("already exists")
        self.groups[words[-1]] = (int(words[1]) if words[0] == "-g" else 1000 + len(self.groups), set())

    @staticmethod
    def _options(words: list[str], flags: str) -> tuple[dict[str, str], str]:
        options: dict[str, str] = {}
        rest = iter(words[:-1])
        for word in rest:
            assert word[0] == "-" and len(word) == 2, words
            options[word[1]] = "" if word[1] in flags else next(rest)
        return options, words[-1]

    def _join(self, name: str, wanted: str) -> None:
        names = [group for group in wanted.split(",") if group]
        if not set(names) <= set(self.groups):
            raise CommandError("no such group")
        for group, (_, members) in self.groups.items():
            members.discard(name)
            if group in names:
                members.add(name)

    def _useradd(self, words: list[str]) -> None:
        options, name = self._options(words, "mMU")
        if name in self.logins or ("U" in options and name in self.groups):
            raise CommandError("already exists")
        uid = int(options.get("u", 1000 + len(self.logins)))
        self._join(name, options.get("G", ""))
        self.groups.setdefault(name, (uid, set()))
        self.logins[name] = Login(uid, options["c"], options["d"], options["s"], True)
        self.passwords[name] = options["p"]

    def _usermod(self, words: list[str]) -> None:
        options, name = self._options(words, "L")
        login = self.logins[name]
        if "G" in options:
            self._join(name, options["G"])
        self.logins[name] = replace(
            login,
            comment=options.get("c", login.comment),
            shell=options.get("s", login.shell),
            expires=options.get("e", login.expires),
        )
        self.passwords[name] = options.get("p", self.passwords[name])
        if "L" in options and not self.passwords[name].startswith("!"):
            self.passwords[name] = f"!{self.passwords[name]}"


@st.composite
def hosts(draw: st.DrawFn) -> Model:
    model = Model(groups={"sudo": (27, set())})
    for name in draw(st.lists(st.sampled_from(GROUPS), unique=True)):
        model.groups.setdefault(name, (2000 + GROUPS.index(name), set()))
    for number, name in enumerate(draw(st.lists(st.sampled_from(NAMES), unique=True))):
        shell = draw(st.sampled_from(["/bin/bash", "/bin/sh"]))
        home = draw(st.sampled_from([f"/home/{name}", "/srv/x"]))
        expires = draw(st.sampled_from(["", "1", "20000"]))
        model.logins[name] = Login(1000 + number, "", home, shell, True, expires)
        model.passwords[name] = draw(st.sampled_from([NO_PASSWORD, HASH, "!" + HASH, "!", "!*", ""]))
        if draw(st.booleans()):
            model.keys[name] = draw(st.sampled_from(["", "old\n", "key\n"]))
        for group in draw(st.sets(st.sampled_from(sorted(model.groups)))):
            model.groups[group][1].add(name)
    return model


@st.composite
def accounts(draw: st.DrawFn) -> list[Account]:
    return [
        Account(
            name=name,
            uid=draw(st.sampled_from([None, None, 1000])),
            comment=draw(st.sampled_from(["", "A & B"])),
            home=draw(st.sampled_from([None, None, "/srv/x"])),
            shell="/bin/bash",
            groups=tuple(draw(st.lists(st.sampled_from(GROUPS), unique=True))),
            authorized_keys=draw(st.sampled_from([None, (), ("key",)])),
            password=draw(st.sampled_from([None, HASH])),
            removed=draw(st.booleans()),
        )
        for name in draw(st.lists(st.sampled_from(NAMES), unique=True))
    ]


def follow(plan: Plan, apply: Callable[[Step], None]) -> set[str]:
    """Carry out a plan as `operations.steps.perform` does, and return what was refused or failed."""
    failed = {refusal.subject for refusal in plan.refused}
    for step in plan.steps:
        if step.subject not in failed:
            try:
                apply(step)
            except CommandError:
                failed.add(step.subject)
    return failed


@settings(deadline=None, max_examples=EXAMPLES)
@given(hosts(), accounts(), st.lists(st.sampled_from(GROUPS), unique=True))
def test_the_next_plan_is_empty_and_nobody_is_deleted(model: Model, wanted: list[Account], groups: list[str]) -> None:
    before = set(model.logins)
    untouched = {name: model.logins[name] for name in before - {it.name for it in wanted}}
    made = [Group(name=name) for name in groups]
    failed = follow(plan_accounts(made, wanted, model.state()), model.apply)
    assert before <= set(model.logins)
    assert all(model.logins[name] == login for name, login in untouched.items())
    for account in wanted:
        if account.name in failed or account.name not in model.logins:
            continue
        login = model.state().logins[account.name]
        if account.removed:
            assert login.locked and not model.keys.get(account.name)
        else:
            assert not login.locked
            assert model.state().secondary(account.name) == set(account.groups)
            assert model.passwords[account.name] == (account.password or NO_PASSWORD)
            assert login.shell == account.shell
            if account.authorized_keys is not None:
                assert model.keys[account.name] == "".join(f"{key}\n" for key in account.authorized_keys)
    second = plan_accounts(made, wanted, model.state())
    assert [step for step in second.steps if step.subject not in failed] == []
