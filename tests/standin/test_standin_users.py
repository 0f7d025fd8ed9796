"""user(8), group(8), pwd_mkdb(8) and login classes of the stand-in: contract 6, 6.1, 5.9, `usr.sbin/user/user.c`."""

from pathlib import Path

import pytest

from tests.lab.openbsd.standin import id as id_command
from tests.lab.openbsd.standin import login_conf, users

MASTER = """root:*:0:0:daemon:0:0:Charlie &:/root:/bin/ksh
daemon:*:1:1::0:0:The devil himself:/root:/sbin/nologin
anna:$2b$10$abcdefghijklmnopqrstuv:1000:1000:staff:0:0:Anna:/home/anna:/bin/ksh
"""
GROUP = "wheel:*:0:root,anna\ndaemon:*:1:daemon\nanna:*:1000:\nwsrc:*:9:\n"
LOGIN_CONF = """# a comment
default:\\
\t:path=/usr/bin /bin:\\
\t:auth-ssh=passwd:\\
\t:tc=auth-defaults:\\
\t:tc=auth-ftp-defaults:

auth-defaults:auth=passwd,skey:
auth-ftp-defaults:auth-ftp=passwd:
daemon:\\
\t:ignorenologin:\\
\t:tc=default:
staff:\\
\t:tc=default:
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STANDIN_ROOT", str(tmp_path))
    (tmp_path / "etc/skel").mkdir(parents=True)
    (tmp_path / "etc/skel/.profile").write_text("profile\n")
    (tmp_path / "etc/master.passwd").write_text(MASTER)
    (tmp_path / "etc/group").write_text(GROUP)
    (tmp_path / "etc/login.conf").write_text(LOGIN_CONF)
    (tmp_path / "home").mkdir()
    return tmp_path


def call(name: str, *argv: str) -> int:
    try:
        return users.run(name, argv)
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code


Output = pytest.CaptureFixture[str]


def test_userinfo(capsys: Output) -> None:
    """6.1: one item per line, label and value separated by a tab."""
    assert call("userinfo", "anna") == 0
    assert capsys.readouterr().out == (
        "login\tanna\npasswd\t$2b$10$abcdefghijklmnopqrstuv\nuid\t1000\ngroups\tanna wheel\nchange\tNEVER\n"
        "class\tstaff\ngecos\tAnna\ndir\t/home/anna\nshell\t/bin/ksh\nexpire\tNEVER\n"
    )
    assert call("user", "info", "1000") == 0


@pytest.mark.parametrize(
    ("argv", "code", "stderr"),
    [
        (["userinfo", "nobodyx"], 1, "userinfo: can't find user `nobodyx'\n"),
        (["userinfo", "-e", "nobodyx"], 1, ""),
        (["userinfo", "-e", "anna"], 0, ""),
        (["user", "info", "-e", "anna"], 0, ""),
        (["groupinfo", "nogroup"], 1, "groupinfo: can't find group `nogroup'\n"),
        (["group", "info", "-e", "wheel"], 0, ""),
        (["user", "frobnicate"], 1, "usage: user [add | del | mod | info] ...\n"),
        (["useradd", "anna"], 1, "useradd: already a `anna' user\n"),
        (["useradd", "-u", "1000", "bert"], 1, "useradd: uid 1000 is already in use\n"),
        (["useradd", "-u", "9", "bert"], 1, "useradd: gid 9 is already in use\n"),
        (["useradd", "-g", "nogroup", "bert"], 1, "useradd: group nogroup not found\n"),
        (["useradd", "-L", "noclass", "bert"], 1, "useradd: No such login class `noclass'\n"),
        (["useradd", "be rt"], 1, "useradd: `be rt' is not a valid login name\n"),
        (["usermod", "-s", "/bin/sh", "nobodyx"], 1, "usermod: No such user `nobodyx'\n"),
        (["usermod", "-G", "wsrc", "-S", "wsrc", "anna"], 1, "usermod: options 'G' and 'S' are mutually exclusive\n"),
        (["usermod", "-S", "nogroup", "anna"], 1, "usermod: aborting, group `nogroup' does not exist\n"),
        (["usermod", "-Z", "root"], 1, "usermod: (un)locking is not supported for the `root' account\n"),
        (["userdel", "nobodyx"], 1, "userdel: No such user `nobodyx'\n"),
        (["groupadd", "wheel"], 1, "groupadd: group `wheel' already exists\n"
         "groupadd: can't add group: problems with /etc/group file\n"),
        (["groupadd", "-g", "9", "new"], 1, "groupadd: can't add group: gid 9 is a duplicate\n"),
        (["groupdel", "nogroup"], 1, "groupdel: No such group: `nogroup'\n"),
        (["groupmod", "wheel"], 1, "groupmod: Nothing to change\n"),
    ],
)  # fmt: skip
def test_messages_and_exit_codes(argv: list[str], code: int, stderr: str, capsys: Output, place: Path) -> None:
    before = (place / "etc/master.passwd").read_text(), (place / "etc/group").read_text()
    assert call(*argv) == code
    assert capsys.readouterr().err == stderr
    assert before == ((place / "etc/master.passwd").read_text(), (place / "etc/group").read_text())


def test_groupinfo(capsys: Output) -> None:
    assert call("group", "info", "wheel") == 0
    assert capsys.readouterr().out == "name\twheel\npasswd\t*\ngid\t0\nmembers\troot anna \n"


def test_useradd_writes_what_debian_reads_too(place: Path, capsys: Output) -> None:
    assert call("useradd", "-m", "-c", "Bert", "-G", "wheel,wsrc", "-L", "staff", "bert") == 0
    assert capsys.readouterr() == ("", "")
    line = "bert:*************:1001:1001:staff:0:0:Bert:/home/bert:/bin/ksh\n"
    assert (place / "etc/master.passwd").read_text() == MASTER + line
    assert (place / "etc/master.passwd").stat().st_mode & 0o777 == 0o600
    assert (place / "etc/passwd").read_text().splitlines()[-1] == "bert:x:1001:1001:Bert:/home/bert:/bin/ksh"
    assert (place / "etc/shadow").read_text().splitlines()[-1] == "bert:*************:::::::"
    group = (place / "etc/group").read_text()
    assert group == "wheel:*:0:root,anna,bert\ndaemon:*:1:daemon\nanna:*:1000:\nwsrc:*:9:bert\nbert:*:1001:\n"
    assert (place / "home/bert/.profile").read_text() == "profile\n"


def test_everybody_but_root_sees_no_passwords(place: Path) -> None:
    assert call("pwd_mkdb", "-p", "/etc/master.passwd") == 0
    assert (place / "etc/pwd.db").stat().st_mode & 0o777 == 0o644
    (place / "etc/spwd.db").unlink()
    found = users.account("anna")
    assert found is not None
    assert (found.password, found.login_class) == ("*", "staff")


def test_useradd_without_m_prints_a_note(capsys: Output, place: Path) -> None:
    assert call("useradd", "bert") == 0
    note = "useradd: Warning: home directory `/home/bert' doesn't exist, and -m was not specified\n"
    assert capsys.readouterr().err == note
    assert not (place / "home/bert").exists()


def test_useradd_m_of_a_home_that_exists(capsys: Output, place: Path) -> None:
    (place / "home/bert").mkdir()
    assert call("useradd", "-m", "bert") == 1
    assert capsys.readouterr().err == "useradd: home directory `/home/bert' already exists\n"


def test_useradd_defaults(capsys: Output, place: Path) -> None:
    assert call("useradd", "-D") == 0
    assert capsys.readouterr().out == (
        "group\t\t=uid\nbase_dir\t/home\nskel_dir\t/etc/skel\nshell\t\t/bin/ksh\nclass\t\t\n"
        "inactive\tNull (unset)\nexpire\t\tNull (unset)\nrange\t\t1000..60000\n"
    )
    assert call("useradd", "-D", "-b", "/users") == 0
    assert call("useradd", "bert") == 0
    assert "/users/bert" in (place / "etc/master.passwd").read_text()


def test_usermod_appends_and_sets_groups(capsys: Output) -> None:
    """6: -G only adds, so removal needs -S."""
    assert call("usermod", "-G", "wsrc", "anna") == 0
    assert [group.name for group in users.groups() if "anna" in group.members] == ["wheel", "wsrc"]
    assert call("usermod", "-S", "wsrc,anna", "anna") == 0
    assert [group.name for group in users.groups() if "anna" in group.members] == ["wsrc"]
    assert call("usermod", "-S", "", "anna") == 0
    assert [group.name for group in users.groups() if "anna" in group.members] == []
    assert call("usermod", "-G", "nogroup", "anna") == 0
    assert capsys.readouterr().err == "usermod: can't append group `nogroup' for user `anna'\n"


def test_usermod_locks_and_unlocks(capsys: Output) -> None:
    before = users.account("anna")
    assert before is not None
    assert call("usermod", "-Z", "anna") == 0
    locked = users.account("anna")
    assert locked is not None
    assert (locked.password, locked.shell) == (f"*{before.password}", "/bin/ksh-")
    assert call("usermod", "-Z", "anna") == 0
    assert capsys.readouterr().err == "usermod: account `anna' is already locked\n"
    assert call("usermod", "-U", "anna") == 0
    assert users.account("anna") == before


def test_usermod_changes_the_rest(capsys: Output) -> None:
    hashed = "$2b$08$" + "x" * 53
    assert call("usermod", "-c", "A", "-L", "", "-s", "/bin/sh", "-p", hashed, "-l", "ann", "anna") == 0
    found = users.account("ann")
    assert found == users.Account("ann", hashed, 1000, 1000, "", 0, 0, "A", "/home/anna", "/bin/sh")
    assert call("usermod", "-p", "plain", "ann") == 1
    assert capsys.readouterr().err == "usermod: Invalid password: `plain'\n"


def test_userdel_leaves_the_own_group(place: Path) -> None:
    assert call("userdel", "anna") == 0
    assert "anna" not in (place / "etc/master.passwd").read_text() + (place / "etc/passwd").read_text()
    assert (place / "etc/group").read_text() == "wheel:*:0:root\ndaemon:*:1:daemon\nanna:*:1000:\nwsrc:*:9:\n"


def test_an_expired_account_expires_in_the_shadow_too(place: Path) -> None:
    assert call("usermod", "-e", "86401", "anna") == 0
    assert (place / "etc/shadow").read_text().splitlines()[2].endswith("::::::2:")


def test_an_edited_master_passwd_counts_after_pwd_mkdb(place: Path) -> None:
    """6: direct editing of master.passwd needs vipw or pwd_mkdb."""
    assert call("pwd_mkdb", "-p", "/etc/master.passwd") == 0
    master = place / "etc/master.passwd"
    master.write_text(master.read_text().replace("Anna", "Changed"))
    before = users.account("anna")
    assert before is not None
    assert before.gecos == "Anna"
    assert call("pwd_mkdb", "-p", "/etc/master.passwd") == 0
    after = users.account("anna")
    assert after is not None
    assert after.gecos == "Changed"


def test_a_broken_master_passwd_is_not_modelled(place: Path) -> None:
    (place / "etc/master.passwd").write_text("root:*:0\n")
    assert call("userinfo", "root") == 99
    assert call("pwd_mkdb", "-p", "/etc/master.passwd") == 99
    assert (place / "var/standin/unmodelled").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["anna"], "uid=1000(anna) gid=1000(anna) groups=1000(anna), 0(wheel)"),
        (["-Gn", "anna"], "anna wheel"),
        (["-G", "1000"], "1000 0"),
        (["-un", "1000"], "anna"),
        (["-g", "anna"], "1000"),
        (["-gn", "anna"], "anna"),
        (["-c", "anna"], "staff"),
    ],
)
def test_id(argv: list[str], shown: str, capsys: Output) -> None:
    assert id_command.main(argv) == 0
    assert capsys.readouterr().out == f"{shown}\n"


def test_id_of_nobody(capsys: Output) -> None:
    with pytest.raises(SystemExit):
        id_command.main(["nobodyx"])
    assert capsys.readouterr().err == "id: nobodyx: No such user\n"
    assert id_command.main(["-n"]) == 1


def test_capabilities() -> None:
    assert login_conf.capability("default", "auth-ssh") == "passwd"
    assert login_conf.capability("staff", "auth") == "passwd,skey"
    assert login_conf.capability("daemon", "ignorenologin") == ""
    assert login_conf.capability("unknown", "auth-ssh") == "passwd"
    assert login_conf.capability("", "path") == "/usr/bin /bin"
    assert login_conf.capability("staff", "auth-ftp") == "passwd"
    assert login_conf.capability("staff", "nothing") is None
    assert login_conf.exists("")
    assert not login_conf.exists("unknown")


def test_a_file_of_its_own_overrides_login_conf(place: Path) -> None:
    (place / "etc/login.conf.d").mkdir()
    (place / "etc/login.conf.d/staff").write_text("staff:auth-ssh=-totp:tc=default:\n")
    assert login_conf.capability("staff", "auth-ssh") == "-totp"
    assert login_conf.capability("staff", "path") == "/usr/bin /bin"


def test_a_stale_database_is_what_counts(place: Path) -> None:
    """5.9: if login.conf.db exists it must be rebuilt after any of these changes."""
    assert login_conf.main(["/etc/login.conf"]) == 0
    (place / "etc/login.conf.d").mkdir()
    (place / "etc/login.conf.d/staff").write_text("staff:auth-ssh=-totp:tc=default:\n")
    assert login_conf.capability("staff", "auth-ssh") == "passwd"
    assert login_conf.main(["/etc/login.conf"]) == 0
    assert login_conf.capability("staff", "auth-ssh") == "-totp"
    (place / "etc/login.conf.db").unlink()
    (place / "etc/login.conf.d/staff").unlink()
    assert login_conf.capability("staff", "auth-ssh") == "passwd"


def test_a_class_that_leads_nowhere(place: Path) -> None:
    (place / "etc/login.conf").write_text("a:tc=b:\nb:tc=a:\nc:tc=nothing:\n")
    for name in ("a", "c"):
        with pytest.raises(login_conf.FormatError):
            login_conf.capability(name, "auth")
