"""The stand-in's sshd: what is carried over to Debian's, and who is let in (contract 5, 5.7, 5.9, 14)."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from tests.lab.openbsd.standin import login, sshd, users
from tests.lab.openbsd.standin.unmodelled import EXIT, RECORD

CONFIG = "etc/ssh/sshd_config"
# RFC 6238, appendix B: the SHA-1 codes of this key, cut to six digits.
RFC_KEY = b"12345678901234567890"
RFC_CODES = {59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037"}
NOW = 1111111109.0


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STANDIN_ROOT", str(tmp_path))
    (tmp_path / "etc/ssh").mkdir(parents=True)
    (tmp_path / "var/standin").mkdir(parents=True)
    (tmp_path / "etc/login.conf.d").mkdir()
    (tmp_path / "etc/login.conf").write_text("auth-defaults:auth=passwd,skey:\n\ndefault:\\\n\t:tc=auth-defaults:\n")
    return tmp_path


def compiled(root: Path, text: str) -> list[str]:
    (root / CONFIG).write_text(text)
    compiler = sshd.Compiler(sshd.CONFIG, [])
    return compiler.text.splitlines()[compiler.shift :]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # 5.7: alternatives separated by spaces, devices after the colon.
        (
            'AuthenticationMethods "publickey,keyboard-interactive:bsdauth"',
            "AuthenticationMethods publickey,keyboard-interactive:pam",
        ),
        (
            "AuthenticationMethods publickey,keyboard-interactive:bsdauth publickey,password",
            "AuthenticationMethods publickey,keyboard-interactive:pam publickey,password",
        ),
        ("AuthenticationMethods any", "AuthenticationMethods any"),
        ("KbdInteractiveAuthentication yes", "KbdInteractiveAuthentication yes"),
        ("PerSourcePenaltyExemptList 192.0.2.0/24", "PerSourcePenaltyExemptList 192.0.2.0/24"),
        ("Match LocalPort 2247", "Match LocalPort 2247"),
        ("\tAllowUsers deploy", "\tAllowUsers deploy"),
        ("# UsePAM yes", "# UsePAM yes"),
        ("HostbasedAuthentication no", "HostbasedAuthentication no"),
        ("SetEnv LANG=C", f'SetEnv LANG=C "PATH={sshd.PATH}"'),
    ],
)
def test_a_line_is_carried_over(root: Path, line: str, expected: str) -> None:
    assert compiled(root, f"{line}\n") == [expected]


@pytest.mark.parametrize(
    "line",
    [
        "RDomain 1",
        "PermitTunnel yes",
        "HostbasedAuthentication yes",
        "AuthorizedPrincipalsCommand /bin/x",
        "AuthenticationMethods keyboard-interactive:skey",
        "AuthenticationMethods keyboard-interactive:pam",
    ],
)
def test_an_option_that_cannot_be_carried_over_is_not_modelled(root: Path, line: str) -> None:
    with pytest.raises(SystemExit) as ended:
        compiled(root, f"{line}\n")
    assert ended.value.code == EXIT
    assert line.partition(" ")[0] in (root / RECORD.lstrip("/")).read_text()


@pytest.mark.parametrize("option", ["UsePAM", "PAMServiceName", "DebianBanner", "GSSAPIAuthentication"])
def test_an_option_of_the_portable_sshd_is_none(root: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    (root / CONFIG).write_text(f"Port 22\n{option} yes\n")
    assert sshd.main(["-t"]) == 255
    assert f"{sshd.CONFIG}: line 2: Bad configuration option: {option}" in capsys.readouterr().err


def test_pam_is_asked_and_comes_first(root: Path) -> None:
    (root / CONFIG).write_text("Match User git\n\tPermitTTY no\n")
    compiler = sshd.Compiler(sshd.CONFIG, [])
    header = compiler.text.splitlines()[: compiler.shift]
    assert header[:2] == ["UsePAM yes", "PAMServiceName standin"]
    assert "PidFile /var/run/sshd.pid" in header


def test_an_own_pid_file_environment_and_level_win(root: Path) -> None:
    (root / CONFIG).write_text("PidFile /var/run/other.pid\nSetEnv A=b\nLogLevel INFO\n")
    assert sshd.Compiler(sshd.CONFIG, []).shift == 2


def test_included_files_are_compiled_too(root: Path) -> None:
    (root / "etc/ssh/sshd_config.d").mkdir()
    for name in ("b.conf", "a.conf"):
        (root / "etc/ssh/sshd_config.d" / name).write_text("AuthenticationMethods keyboard-interactive:bsdauth\n")
    (root / CONFIG).write_text("Include sshd_config.d/*.conf\nInclude none/*.conf\n")
    compiler = sshd.Compiler(sshd.CONFIG, [])
    assert compiler.text.splitlines()[compiler.shift :] == [f"Include {' '.join(compiler.included)}", ""]
    assert set(compiler.included.values()) == {"AuthenticationMethods keyboard-interactive:pam\n"}
    place = compiler.store()
    (line,) = (line for line in place.read_text().splitlines() if line.startswith("Include"))
    assert all(Path(name).is_file() for name in line.split()[1:])


def test_include_in_an_included_file_is_not_modelled(root: Path) -> None:
    (root / "etc/ssh/one").write_text("Include two\n")
    (root / CONFIG).write_text("Include one\n")
    with pytest.raises(SystemExit) as ended:
        sshd.Compiler(sshd.CONFIG, [])
    assert ended.value.code == EXIT


def test_messages_name_the_lines_that_the_user_wrote(root: Path) -> None:
    (root / CONFIG).write_text("Port 22\nFoo yes\n")
    compiler = sshd.Compiler(sshd.CONFIG, [])
    place = Path("/var/standin/sshd.cf.check.7")
    said = (
        f"{place}: line {compiler.shift + 2}: Bad configuration option: foo\r\n"
        f"{place} line {compiler.shift + 1}: no argument after keyword\r\n"
        f"{place}: terminating, 1 bad configuration options\r\n"
    )
    assert compiler.translated(said, place) == (
        f"{sshd.CONFIG}: line 2: Bad configuration option: foo\r\n"
        f"{sshd.CONFIG} line 1: no argument after keyword\r\n"
        f"{sshd.CONFIG}: terminating, 1 bad configuration options\r\n"
    )


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], (sshd.CONFIG, set())),
        (["-t"], (sshd.CONFIG, {"t"})),
        (["-tf", "/x"], None),
        (["-t", "-f", "/x"], ("/x", {"t", "f"})),
        (["-f/x", "-t"], ("/x", {"t", "f"})),
        (["-D", "-e", "-o", "Port=2022"], (sshd.CONFIG, {"D", "e", "o"})),
        (["-f", "/x"], None),
        (["-T"], None),
        (["-C", "user=x"], None),
        (["extra"], None),
    ],
)
def test_options(root: Path, argv: list[str], expected: tuple[str, set[str]] | None) -> None:
    if expected is None:
        with pytest.raises(SystemExit) as ended:
            sshd.parse(argv)
        assert ended.value.code == EXIT
    else:
        assert sshd.parse(argv) == expected
    assert (root / RECORD.lstrip("/")).exists() == (expected is None)


def test_a_missing_configuration_ends_with_255(root: Path) -> None:
    assert not (root / CONFIG).exists()
    assert sshd.main(["-t"]) == 255


@pytest.mark.parametrize(("when", "code"), RFC_CODES.items())
def test_codes_are_those_of_rfc_6238(when: int, code: str) -> None:
    assert login.totp(RFC_KEY, when // login.STEP) == code


def account(root: Path, name: str = "alice", login_class: str = "totp") -> users.Account:
    own = os.getuid(), os.getgid()
    found = users.Account(name, users.NO_PASSWORD, *own, login_class, 0, 0, "", f"/home/{name}", "/bin/ksh")
    (root / f"home/{name}").mkdir(parents=True)
    (root / f"home/{name}").chmod(0o750)
    return found


def secret(root: Path, text: str = RFC_KEY.hex(), mode: int = 0o400) -> Path:
    path = root / "home/alice" / login.KEY
    path.write_text(f"{text}\n")
    path.chmod(mode)
    program = root / "usr/libexec/auth/login_-totp"
    program.parent.mkdir(parents=True)
    program.touch()
    return path


@pytest.fixture
def alice(root: Path) -> users.Account:
    return account(root)


def test_a_right_code_counts_once(root: Path, alice: users.Account) -> None:
    secret(root)
    assert login.check_totp(alice, RFC_CODES[1111111109], NOW)
    assert not login.check_totp(alice, RFC_CODES[1111111109], NOW)
    # The next one has come; an older one would not do any more.
    assert login.check_totp(alice, RFC_CODES[1111111111], NOW + 2)
    assert not login.check_totp(alice, RFC_CODES[1111111109], NOW + 2)


@pytest.mark.parametrize(("drift", "right"), [(0, True), (-30, True), (30, True), (-90, False), (90, False)])
def test_a_code_of_the_next_or_the_last_half_minute_does(
    root: Path, alice: users.Account, drift: int, right: bool
) -> None:
    secret(root)
    assert login.check_totp(alice, RFC_CODES[1111111109], NOW + drift) is right


@pytest.mark.parametrize("answer", ["", "000000", "81804", "0818040", "081804 "])
def test_a_wrong_answer_is_refused(root: Path, alice: users.Account, answer: str) -> None:
    secret(root)
    assert not login.check_totp(alice, answer, NOW)


def test_without_a_secret_everybody_is_refused(root: Path, alice: users.Account) -> None:
    path = secret(root)
    path.unlink()
    assert not login.check_totp(alice, RFC_CODES[1111111109], NOW)


@pytest.mark.parametrize(
    ("text", "mode"), [(RFC_KEY.hex(), 0o444), (RFC_KEY.hex(), 0o440), ("no hex", 0o400), ("", 0o400)]
)
def test_a_secret_that_others_read_or_that_is_none_is_refused(
    root: Path, alice: users.Account, text: str, mode: int
) -> None:
    secret(root, text, mode)
    assert not login.check_totp(alice, RFC_CODES[1111111109], NOW)


def test_a_home_that_the_world_reads_is_refused(root: Path, alice: users.Account) -> None:
    secret(root)
    (root / "home/alice").chmod(0o755)
    assert not login.check_totp(alice, RFC_CODES[1111111109], NOW)


def test_without_the_package_the_style_is_none(root: Path, alice: users.Account) -> None:
    secret(root)
    (root / "usr/libexec/auth/login_-totp").unlink()
    assert not login.check_totp(alice, RFC_CODES[1111111109], NOW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # 14: an auth-ssh list answers alone; without it auth does.
        ("totp:auth-ssh=-totp:tc=default:\n", ["-totp"]),
        ("totp:auth-ssh=-totp,passwd:tc=default:\n", ["-totp", "passwd"]),
        ("totp:auth=-totp:tc=default:\n", ["-totp"]),
        ("totp:openfiles=10:tc=default:\n", ["passwd", "skey"]),
    ],
)
def test_the_class_decides_on_the_styles(root: Path, text: str, expected: list[str]) -> None:
    (root / "etc/login.conf.d/totp").write_text(text)
    assert login.styles("totp") == expected
    assert login.styles("default") == ["passwd", "skey"]


def answer(root: Path, monkeypatch: pytest.MonkeyPatch, user: str, text: str, *argv: str) -> int:
    users.write([account(root)])
    (root / "etc/login.conf.d/totp").write_text("totp:auth-ssh=-totp:tc=default:\n")
    monkeypatch.setenv("PAM_USER", user)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode() + b"\0")))
    return login.main(argv)


def test_pam_hands_over_the_answer(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer(root, monkeypatch, "alice", "000000") == 1
    assert login.main([]) == 1


@pytest.mark.parametrize(("wish", "code"), [("passwd", 1), ("skey", 1), ("-totp", EXIT)])
def test_a_style_of_the_users_own(root: Path, monkeypatch: pytest.MonkeyPatch, wish: str, code: int) -> None:
    """14: the list has exactly one style, so any other wish is refused; the one in it is not modelled."""
    try:
        found: int | str | None = answer(root, monkeypatch, f"alice:{wish}", "", "style")
    except SystemExit as ended:
        found = ended.code
    assert found == code
    assert (root / RECORD.lstrip("/")).exists() == (code == EXIT)


def test_an_unknown_user_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer(root, monkeypatch, "mallory", "000000") == 1


def test_a_locked_password_is_nobodys(root: Path) -> None:
    assert not login.check_password(account(root), users.NO_PASSWORD)
    assert not login.check_password(account(root, "bob"), "")
