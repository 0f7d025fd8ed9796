"""Login classes, groups and accounts: the fact, the planner, thousands of hosts, and the real scripts."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyinfra.api.exceptions import FactProcessError

from facts.filesets import FileState
from facts.openbsd.accounts import Accounts, AccountsState, Login, parse
from fleet.model.service import Account, Group, LoginClass
from operations.openbsd.accounts import NO_PASSWORD, class_text, plan_accounts
from tests.model_openbsd import ModelAccounts, digest, follow
from tests.shell import check_scripts
from tests.unit.openbsd.scripted import Scratch

EXAMPLES = int(os.environ.get("EXAMPLES", "200"))  # a long run sets more

HEX = "0" * 64
HASH = "$2b$10$abcdefghijklmnopqrstuv"
TOTP = LoginClass(name="totp", capabilities=("auth-ssh=-totp",))
ANNA = Login(1000, "default", "Anna", "/home/anna", "/bin/ksh", True, digest(NO_PASSWORD))

RECORDED = f"""\
database old
group:wheel:0:root,anna
group:anna:1000:
group:_x:999:
class totp root wheel 644 {HEX}
login:anna:1000:totp:Anna B.:/home/anna:/bin/ksh:1
login:root:0:daemon:Charlie &:/root:/bin/ksh:0
password anna {HEX}
directory anna 700 anna
keys anna anna anna 600 {HEX}
password root {HEX}
directory root link
""".splitlines()


def state(*logins: Any, **changes: Any) -> Any:
    groups = {"wheel": (0, ("root",)), **{name: (login.uid, ()) for name, login in logins}}
    return AccountsState(**{"groups": groups, "logins": dict(logins), **changes})


def plan(*wanted: Any, found: Any = None, classes: Any = (), groups: Any = ()) -> Any:
    return plan_accounts(classes, groups, wanted, found or state())


def test_recorded_output() -> None:
    found = parse(RECORDED)
    assert found.database is False
    assert found.groups["wheel"] == (0, ("root", "anna")) and found.secondary("anna") == {"wheel"}
    assert found.classes == {"totp": FileState("root", "wheel", 0o644, HEX)}
    keys = FileState("anna", "anna", 0o600, HEX)
    assert found.logins["anna"] == Login(1000, "totp", "Anna B.", "/home/anna", "/bin/ksh", True, HEX, "700 anna", keys)
    assert found.logins["root"].directory == "link" and not found.logins["root"].starred
    assert parse(["database new"]).database is True and parse([]).database is None


@pytest.mark.parametrize(
    "line", ["what is this", "login:anna:1000", "group:x", "keys anna", "login:a:b:c:d:e:f:0", "x"]
)
def test_what_is_not_understood_is_named(line: Any) -> None:
    with pytest.raises(FactProcessError, match=line):
        parse([line])


def test_no_last_line_is_unknown() -> None:
    assert Accounts().process(["group:wheel:0:root"]) is None


def test_a_class_is_a_file_of_its_own_and_the_database_is_rebuilt_if_there_is_one() -> None:
    assert class_text(TOTP) == "totp:\\\n\t:auth-ssh=-totp:\\\n\t:tc=default:\n"
    (step,) = plan(classes=[TOTP]).steps
    assert (step.subject, step.stdin) == ("login class totp", class_text(TOTP))
    assert [it.command for it in plan(classes=[TOTP], found=state(database=True)).steps][1:] == [
        "cap_mkdb /etc/login.conf"
    ]
    right = {"totp": FileState("root", "wheel", 0o644, digest(class_text(TOTP)))}
    assert plan(classes=[TOTP], found=state(database=True, classes=right)).steps == ()
    # A run that died between the file and the database.
    (step,) = plan(classes=[TOTP], found=state(database=False, classes=right)).steps
    assert step.command == "cap_mkdb /etc/login.conf"
    writable = {"totp": replace(right["totp"], mode=0o666)}
    assert len(plan(classes=[TOTP], found=state(classes=writable)).steps) == 1


def test_groups_are_made_and_never_renumbered() -> None:
    found = plan(groups=[Group(name="git", gid=2000), Group(name="ops"), Group(name="wheel", gid=1001)])
    assert [step.command for step in found.steps] == ["groupadd -g 2000 git", "groupadd ops"]
    assert "it has gid 0, wanted 1001" in found.refused[0].message


def test_a_new_account_with_all_that_belongs_to_it() -> None:
    account = Account(
        name="anna", uid=1000, comment="Anna B.", groups=("wheel",), login_class="totp", password=HASH,
        authorized_keys=("ssh-ed25519 AAAA anna", 'from="192.0.2.1" ssh-ed25519 BBBB'),
    )  # fmt: skip
    made, password, keys = plan(account).steps
    made_so = "useradd -m -u 1000 -c 'Anna B.' -d /home/anna -s /bin/ksh -L totp -G wheel anna && chmod o= /home/anna"
    assert made.command == made_so
    assert password.stdin == f"{HASH}\n" and HASH not in password.command
    assert keys.stdin == 'ssh-ed25519 AAAA anna\nfrom="192.0.2.1" ssh-ed25519 BBBB\n'
    (service,) = plan(Account(name="x", home="/var/empty", shell="/sbin/nologin"), groups=[Group(name="x")]).steps[1:]
    assert service.command == "useradd -g x -c '' -d /var/empty -s /sbin/nologin -L default x"


def test_what_differs_is_set_in_one_call_and_nothing_else() -> None:
    same = Account(name="anna", comment="Anna")
    assert plan(same, found=state(("anna", ANNA))).steps == ()
    other = Account(name="anna", comment="A", shell="/bin/sh", login_class="totp", groups=("wheel", "ops"))
    _, step = plan(other, found=state(("anna", ANNA)), groups=[Group(name="ops")]).steps
    assert step.command == "usermod -c A -s /bin/sh -L totp -S wheel,ops anna"
    assert step.label == "comment A; shell /bin/sh; login class totp; groups wheel, ops"
    member = state(("anna", ANNA), groups={"wheel": (0, ("root", "anna"))})
    (step,) = plan(same, found=member).steps
    assert step.command == "usermod -S '' anna"


def test_a_password_of_which_nothing_is_declared_is_taken_off_but_not_roots() -> None:
    known = replace(ANNA, starred=False, password=digest(HASH))
    (step,) = plan(Account(name="anna", comment="Anna"), found=state(("anna", known))).steps
    assert (step.label, step.stdin) == ("password set", NO_PASSWORD + "\n")
    assert plan(Account(name="anna", comment="Anna", password=HASH), found=state(("anna", known))).steps == ()
    root = replace(known, uid=0)
    assert plan(Account(name="root", comment="Anna", groups=("wheel",)), found=state(("root", root))).steps == ()


def test_keys_are_exact_or_left_alone() -> None:
    text = "ssh-ed25519 AAAA\n"
    keys = FileState("anna", "anna", 0o600, digest(text))
    login = replace(ANNA, directory="700 anna", keys=keys)
    wanted = Account(name="anna", comment="Anna", authorized_keys=("ssh-ed25519 AAAA",))
    assert plan(wanted, found=state(("anna", login))).steps == ()
    assert plan(Account(name="anna", comment="Anna"), found=state(("anna", login))).steps == ()
    for wrong in (
        replace(login, keys=None),
        replace(login, directory="755 anna"),
        replace(login, keys=replace(keys, mode=0o644)),
        replace(login, directory=None, keys=None),
        replace(login, keys=replace(keys, owner="root")),
        replace(login, keys=replace(keys, sha256=HEX)),
    ):
        (step,) = plan(wanted, found=state(("anna", wrong))).steps
        assert (step.label, step.stdin) == ("keys written", text)
    none = plan(Account(name="anna", comment="Anna", authorized_keys=()), found=state(("anna", login)))
    assert [(step.label, step.stdin) for step in none.steps] == [("keys taken away", None)]


def test_a_home_that_others_see_is_closed_at_any_time() -> None:
    """Contract 5.9: login_oath takes no secret out of a home that others can read."""
    same = Account(name="anna", comment="Anna")
    (step,) = plan(same, found=state(("anna", replace(ANNA, access="755 anna")))).steps
    assert (step.label, step.command) == ("home closed to others", "chmod o= /home/anna")
    assert plan(same, found=state(("anna", replace(ANNA, access="750 anna")))).steps == ()
    elsewhere = replace(ANNA, home="/var/www", access="755 root")
    assert plan(same, found=state(("anna", elsewhere))).steps == ()


def test_what_is_removed_is_locked_and_keyless_and_stays() -> None:
    gone = Account(name="anna", removed=True)
    assert plan(gone).steps == ()
    keys = FileState("anna", "anna", 0o600, HEX)
    lock, empty = plan(gone, found=state(("anna", replace(ANNA, starred=False, keys=keys)))).steps
    assert lock.command == "usermod -Z anna" and empty.label == "keys taken away"
    after = replace(ANNA, shell="/bin/ksh-", keys=replace(keys, sha256=digest("")))
    assert plan(gone, found=state(("anna", after))).steps == ()
    # And it can come back.
    back = Account(name="anna", comment="Anna", password=HASH)
    assert [step.command.split()[0] for step in plan(back, found=state(("anna", after))).steps] == ["usermod", "umask"]


@pytest.mark.parametrize(
    ("account", "login", "message"),
    [
        (Account(name="anna", uid=1001), ANNA, "it has uid 1000, wanted 1001"),
        (Account(name="anna", groups=("nosuch",)), ANNA, "there is no group nosuch"),
        (Account(name="anna", groups=("nosuch",)), None, "there is no group nosuch"),
        (Account(name="anna", home="/srv/anna"), ANNA, "its home is /home/anna, wanted /srv/anna"),
        (Account(name="anna", authorized_keys=()), replace(ANNA, directory="link"), "is a symbolic link"),
        (Account(name="anna", authorized_keys=()), replace(ANNA, directory="700 root"), "is not its own (700 root)"),
    ],
)
def test_what_would_move_files_or_follow_a_link_is_refused(account: Any, login: Any, message: Any) -> None:
    found = plan(account, found=state(*([("anna", login)] if login else [])))
    assert found.steps == () and message in found.refused[0].message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": [LoginClass(name="x", capabilities=("a:b",))]}, "a capability has no colon"),
        ({"groups": [Group(name="a b")]}, "group 'a b'"),
        ({"groups": [Group(name="a"), Group(name="a")]}, "group a is there twice"),
        ({"wanted": [Account(name="x;y")]}, "account 'x;y'"),
        ({"wanted": [Account(name="x", comment="a:b")]}, "no colon"),
        ({"wanted": [Account(name="x", shell="/bin/sh\n")]}, "no colon"),
        ({"wanted": [Account(name="x", password="secret")]}, "no hash"),
        ({"wanted": [Account(name="x", authorized_keys=("a\nb",))]}, "a key is one line"),
    ],
)
def test_wrong_arguments_fail_early(arguments: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        plan_accounts(arguments.get("classes", ()), arguments.get("groups", ()), arguments.get("wanted", ()), state())


# --- the scripts, for real ---

MASTER = f"""\
root:{HASH}:0:0:daemon:0:0:Charlie &:/root:/bin/ksh
anna:*************:1000:1000:totp:0:0:Anna B.:HOME:/bin/ksh
"""


def scratch(tmp_path: Path) -> Scratch:
    place = Scratch(tmp_path)
    home = place.root / "home" / "anna"
    home.mkdir(parents=True)
    place.file("/etc/master.passwd", MASTER.replace("HOME", str(home)), 0o600)
    place.file("/etc/group", "wheel:*:0:root,anna\nanna:*:1000:\n")
    place.file("/etc/login.conf", "default:\\\n\t:path=/bin:\n")
    place.fake("id", "echo 1000")
    place.fake("su", '[ "$1 $2 $4" = "-s /bin/sh -c" ] && exec sh -c "$5"')
    place.fake("pwd_mkdb", 'mv "$2" "${2%ptmp}master.passwd"')
    return place


def read(place: Scratch) -> AccountsState:
    done = place.run(Accounts().command(classes=["totp"], logins=["anna", "root", "nobody"]))
    assert HASH not in done.stdout
    found = Accounts().process(done.stdout.splitlines())
    assert found is not None, done.stderr
    return found


def test_the_fact_is_read_by_a_shell(tmp_path: Path) -> None:
    place = scratch(tmp_path)
    found = read(place)
    anna = found.logins["anna"]
    assert (anna.uid, anna.login_class, anna.comment, anna.shell, anna.starred) == (
        1000,
        "totp",
        "Anna B.",
        "/bin/ksh",
        True,
    )
    assert anna.password == digest(NO_PASSWORD) and found.logins["root"].password == digest(HASH)
    assert (anna.directory, anna.keys, "nobody" in found.logins) == (None, None, False)
    assert anna.access == f"{(place.root / 'home/anna').stat().st_mode & 0o777:o} root"
    assert found.groups == {"wheel": (0, ("root", "anna")), "anna": (1000, ())}
    assert (found.classes, found.database) == ({}, None)
    place.file("/etc/login.conf.db", "")
    os.utime(place.root / "etc/login.conf", (1, 1))
    assert read(place).database is True
    place.file("/etc/login.conf.d/totp", "x\n")
    os.utime(place.root / "etc/login.conf.db", (2, 2))
    found = read(place)
    assert found.database is False and found.classes["totp"].sha256 == digest("x\n")


def test_keys_and_classes_are_written_whole(tmp_path: Path) -> None:
    place = scratch(tmp_path)
    account = Account(
        name="anna", comment="Anna B.", login_class="totp", groups=("wheel",), authorized_keys=("key \\n 1",)
    )
    first = plan_accounts([TOTP], (), [account], read(place))
    assert [step.label for step in first.steps] == ["written", "keys written"]
    for step in first.steps:
        done = place.run(step)
        assert done.returncode == 0, done.stderr
    assert [line.split(" -c ")[0] for line in place.said if line.startswith("su ")] == ["su -s /bin/sh anna"]
    folder = place.root / "home/anna/.ssh"
    assert (folder / "authorized_keys").read_text() == "key \\n 1\n"
    assert (folder.stat().st_mode & 0o777, (folder / "authorized_keys").stat().st_mode & 0o777) == (0o700, 0o600)
    assert place.text("/etc/login.conf.d/totp") == class_text(TOTP)
    assert (place.root / "etc/login.conf.d/totp").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in folder.iterdir()] == ["authorized_keys"]
    (empty,) = plan_accounts((), (), [account.model_copy(update={"authorized_keys": ()})], _owned(read(place))).steps
    assert place.run(empty).returncode == 0 and (folder / "authorized_keys").read_bytes() == b""


def _owned(found: AccountsState) -> AccountsState:
    """The stat(1) of these tests says root of every file; the accounts of this machine are not the host's."""
    anna = found.logins["anna"]
    assert anna.keys is not None
    keys = replace(anna.keys, owner="anna")
    return replace(found, logins={"anna": replace(anna, directory="700 anna", keys=keys)})


@pytest.mark.parametrize("text", ["", "key\n"])
def test_nothing_of_a_home_is_written_by_root(text: str, tmp_path: Path) -> None:
    """Its owner can put a link there between any two commands of root's: all that root runs is su(1)."""
    place = scratch(tmp_path)
    place.fake("su", "exit 1")
    keys = FileState("anna", "anna", 0o600, HEX)
    known = replace(ANNA, home=str(place.root / "home/anna"), directory="700 anna", keys=keys)
    account = Account(name="anna", comment="Anna", authorized_keys=tuple(text.split()))
    (step,) = plan(account, found=state(("anna", known))).steps
    assert place.run(step).returncode == 1
    assert list((place.root / "home/anna").iterdir()) == []
    assert place.said[0].startswith("su -s /bin/sh anna -c ") and not any("chown" in line for line in place.said)


def test_a_link_is_not_followed_even_if_it_came_after_the_fact(tmp_path: Path) -> None:
    place = scratch(tmp_path)
    account = Account(name="anna", comment="Anna B.", login_class="totp", groups=("wheel",), authorized_keys=("key",))
    *_, step = plan_accounts((), (), [account], read(place)).steps
    (place.root / "home/anna/.ssh").symlink_to(place.root / "etc")
    done = place.run(step)
    assert done.returncode == 1 and "symbolic link" in done.stderr
    assert not (place.root / "etc/authorized_keys").exists()
    assert read(place).logins["anna"].directory == "link"


def test_a_password_travels_on_stdin_and_only_into_its_own_line(tmp_path: Path) -> None:
    place = scratch(tmp_path)
    account = Account(name="anna", comment="Anna B.", login_class="totp", groups=("wheel",), password=HASH)
    *_, step = plan_accounts((), (), [account], read(place)).steps
    before = place.text("/etc/master.passwd")
    done = place.run(step)
    assert done.returncode == 0, done.stderr
    assert place.text("/etc/master.passwd") == before.replace(NO_PASSWORD, HASH)
    assert not any(HASH in line for line in place.said)
    assert read(place).logins["anna"].password == hashlib.sha256(HASH.encode()).hexdigest()
    lock = place.file("/etc/ptmp", "somebody edits\n")
    assert place.run(step).returncode == 1 and lock.read_text() == "somebody edits\n"


def test_a_password_of_nobody_leaves_the_file_and_no_lock(tmp_path: Path) -> None:
    place = scratch(tmp_path)
    step = plan(Account(name="ghost", password=HASH)).steps[1]
    before = place.text("/etc/master.passwd")
    assert place.run(step).returncode == 1
    assert place.text("/etc/master.passwd") == before and not (place.root / "etc/ptmp").exists()


def test_openbsd_can_run_every_script() -> None:
    check_scripts(Accounts().command(classes=["totp"], logins=["anna"]))
    account = Account(name="anna", password=HASH, authorized_keys=("a",), groups=("wheel",))
    for step in plan(account, classes=[TOTP], groups=[Group(name="ops")]).steps:
        check_scripts(step.command)


# --- thousands of random hosts ---

NAMES = ["anna", "bert", "git"]
GROUPS = ["wheel", "ops", "git"]


@st.composite
def hosts(draw: Any) -> Any:
    model = ModelAccounts(database=draw(st.sampled_from([None, True, False])), groups={"wheel": (0, set())})
    for name in draw(st.lists(st.sampled_from(GROUPS), unique=True)):
        model.groups.setdefault(name, (2000 + GROUPS.index(name), set()))
    if draw(st.booleans()):
        model.classes["totp"] = draw(st.sampled_from([class_text(TOTP), "old\n"]))
    for number, name in enumerate(draw(st.lists(st.sampled_from(NAMES), unique=True))):
        shell = draw(st.sampled_from(["/bin/ksh", "/bin/sh", "/bin/ksh-"]))
        home = draw(st.sampled_from([f"/home/{name}", "/srv/x"]))
        model.logins[name] = Login(1000 + number, draw(st.sampled_from(["default", "staff"])), "", home, shell, True)
        model.passwords[name] = draw(st.sampled_from([NO_PASSWORD, HASH, "*" + HASH]))
        if draw(st.booleans()):
            model.keys[name] = draw(st.sampled_from(["", "old\n", "key\n"]))
        for group in draw(st.sets(st.sampled_from(sorted(model.groups)))):
            model.groups[group][1].add(name)
    return model


@st.composite
def accounts(draw: Any) -> Any:
    return [
        Account(
            name=name,
            uid=draw(st.sampled_from([None, None, 1000])),
            comment=draw(st.sampled_from(["", "A & B"])),
            home=draw(st.sampled_from([None, None, "/srv/x"])),
            groups=tuple(draw(st.lists(st.sampled_from(GROUPS), unique=True))),
            login_class=draw(st.sampled_from(["default", "totp"])),
            authorized_keys=draw(st.sampled_from([None, (), ("key",)])),
            password=draw(st.sampled_from([None, HASH])),
            removed=draw(st.booleans()),
        )
        for name in draw(st.lists(st.sampled_from(NAMES), unique=True))
    ]


@settings(deadline=None, max_examples=EXAMPLES)
@given(hosts(), accounts(), st.booleans(), st.lists(st.sampled_from(GROUPS), unique=True))
def test_the_next_plan_is_empty_and_nobody_is_deleted(model: Any, wanted: Any, totp: Any, groups: Any) -> None:
    before = set(model.logins)
    untouched = {name: model.logins[name] for name in before - {it.name for it in wanted}}
    classes, made = [TOTP] if totp else [], [Group(name=name) for name in groups]
    failed = follow(plan_accounts(classes, made, wanted, model.state()), model.apply)
    assert {words[0] for words in model.commands} <= {"useradd", "usermod", "groupadd", "cap_mkdb", "chmod"}
    assert before <= set(model.logins)
    assert all(model.logins[name] == login for name, login in untouched.items())
    for account in wanted:
        if account.name in failed or account.name not in model.logins:
            continue
        login = model.state().logins[account.name]
        if account.removed:
            assert login.locked and not model.keys.get(account.name)
        else:
            assert model.state().secondary(account.name) == set(account.groups)
            assert model.passwords[account.name] == (account.password or NO_PASSWORD)
            assert login.shell == account.shell
    if totp:
        assert model.classes["totp"] == class_text(TOTP) and model.database is not False
    second = plan_accounts(classes, made, wanted, model.state())
    assert [step for step in second.steps if step.subject not in failed] == []
