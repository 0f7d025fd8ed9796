"""Private keys on hosts: the facts, the planner, random hosts, and the scripts run for real by two shells."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pyinfra.api import StringCommand
from pyinfra.api.exceptions import FactProcessError
from pyinfra.context import ctx_host

from facts.filesets import state_of_host
from facts.keys import (
    Held,
    HeldQuery,
    HeldState,
    Keys,
    KeysState,
    KeyState,
    Requests,
    digest,
    parse_held,
    parse_keys,
    parse_requests,
)
from fleet import connector
from fleet.pki import certificates
from fleet.pki.wanted import PkiError
from operations.keys import CLOCK_SECONDS, Key, keys, plan_keys
from operations.steps import Step
from tests.pki.pki_fleet import LOG, NOW, named
from tests.shell import check_scripts
from tests.unit.openbsd.scripted import Scratch

VIRTIE = named("log.virtie.client")
PATH = VIRTIE.declared.key_path
SHELLS = ("dash", "mksh")


def _certificate(key: ec.EllipticCurvePrivateKey) -> str:
    signer = ec.generate_private_key(ec.SECP256R1())
    root = certificates.make_root(LOG, signer, 1, NOW)
    return certificates.pem_of(certificates.make_certificate(VIRTIE, key.public_key(), root, signer, 2, NOW))


OURS, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
CERTIFICATE = _certificate(OURS)
KEY = Key("log-client", PATH, "root", CERTIFICATE)
RIGHT = KeyState("root", "wheel", 0o600, digest(OURS.public_key()))
NOON = 1_790_000_000


def found(state: KeyState | None, clock: int = NOON) -> KeysState:
    return KeysState(clock, {} if state is None else {PATH: state})


class Place(Scratch):
    """A directory that plays /, in which a shell runs the scripts with the real openssl(1)."""

    def __init__(self, folder: Path, shell: str) -> None:
        super().__init__(folder)
        self.shell = shutil.which(shell) or shell
        for tool in ("ln", "openssl", "sync", "tr", "date"):
            (self.bin / tool).symlink_to(shutil.which(tool) or "")
        (self.root / "etc/ssl").mkdir()

    def fake_owners(self) -> None:
        (self.bin / "gnustat").symlink_to(shutil.which("stat") or "")
        self.fake(
            "stat",
            'case "$1 $2" in "-f %Su %Sg %OLp") g=wheel ;; "-c %U %G %a") g=root ;; esac; gnustat -c "root $g %a" "$3"',
        )
        self.fake("chown", "")

    def run(self, command: str | Step, stdin: str = "", **environment: str) -> Any:
        text = command.command if isinstance(command, Step) else command
        return subprocess.run(
            [self.shell, "-c", re.sub(r"(?<![\w.}/])/(etc|var)\b", rf"{self.root}/\1", text)],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            env={"PATH": str(self.bin), "HOME": os.devnull, **environment},
        )

    def keys(self, openbsd: bool = True) -> KeysState:
        done = self.run(Keys().command([PATH], openbsd))
        state = Keys().process([line.replace(str(self.root), "") for line in done.stdout.splitlines()])
        assert state is not None, done.stderr
        return state

    def requests(self, **environment: str) -> dict[str, str | None]:
        done = self.run(Requests().command({PATH: "virtie"}), **environment)
        answer = Requests().process([line.replace(str(self.root), "") for line in done.stdout.splitlines()])
        assert answer is not None, done.stderr
        return answer

    def make(self, key: Key = KEY) -> Any:
        (step,) = plan_keys([key], found(None), NOON, openbsd=True).steps
        return self.run(step)

    @property
    def key(self) -> Path:
        return self.root / PATH.lstrip("/")


@pytest.fixture(params=SHELLS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, request.param)


# The facts.


def test_recorded_output() -> None:
    der = OURS.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    public = base64.b64encode(der).decode()
    assert public.startswith("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE")
    lines = ["clock 1790000000", f"key root wheel 600 {public} {PATH}", "key _x wheel 4640 - /a file"]
    assert parse_keys(lines) == KeysState(NOON, {PATH: RIGHT, "/a file": KeyState("_x", "wheel", 0o4640, None)})
    assert Keys().process([*lines]) is None
    assert (Keys().process([]), Requests().process([]), Held().process([])) == (None, None, None)
    with pytest.raises(FactProcessError, match="not understood"):
        parse_keys(["clock 1", f"key root wheel 600 {public[:100]} {PATH}"])


@pytest.mark.parametrize(
    "lines",
    [["clock x"], ["key root wheel 600 -"], ["what is this"], [], ["clock 1", "key root wheel rw- - /x"]],
)
def test_what_is_not_understood_of_keys(lines: list[str]) -> None:
    with pytest.raises(FactProcessError):
        parse_keys(lines)


@pytest.mark.parametrize(
    "lines",
    [
        ["-----BEGIN CERTIFICATE REQUEST-----"],
        ["key /x", "-----BEGIN CERTIFICATE REQUEST-----", "AAAA"],
        ["key /x", "-----BEGIN EC PRIVATE KEY-----"],
        ["key /x", "AAAA"],
        ["key /x", "-----BEGIN CERTIFICATE REQUEST-----", "a word"],
        ["key "],
    ],
)
def test_what_is_not_understood_of_requests(lines: list[str]) -> None:
    with pytest.raises(FactProcessError):
        parse_requests(lines)


@given(st.lists(st.text(max_size=40) | st.sampled_from(["certificate x", "roots x", *CERTIFICATE.splitlines()])))
@settings(deadline=None)
def test_whatever_a_host_says_is_certificates_or_refused(lines: list[str]) -> None:
    try:
        state = parse_held(lines)
    except FactProcessError:
        return
    texts = [text for each in state.values() for text in (*each.certificates, *each.roots)]
    assert all(text.startswith("-----BEGIN CERTIFICATE-----\n") for text in texts)
    assert sum(text.count("\n") for text in texts) == len([line for line in lines if " x" not in line])


# The planner.


def test_nothing_is_done_twice() -> None:
    plan = plan_keys([KEY], found(RIGHT), NOON, openbsd=True)
    assert (plan.steps, plan.refused, plan.notes) == ((), (), ())
    linux = KeyState("root", "root", 0o600, RIGHT.public)
    assert plan_keys([KEY], found(linux), NOON).steps == ()


def test_a_new_key_is_said_with_what_to_do() -> None:
    said = ("log-client: a new key, its certificate is of another: fleet pki renew",)
    other = KeyState("root", "wheel", 0o600, digest(OTHER.public_key()))
    assert plan_keys([KEY], found(other), NOON, openbsd=True).notes == said
    missing = plan_keys([KEY], found(None), NOON, openbsd=True)
    assert (missing.notes, [step.label for step in missing.steps]) == (said, ["made"])
    # Before the first certificate there is nothing to compare with; what is due is said of the whole fleet elsewhere.
    assert plan_keys([Key("log-client", PATH)], found(None), NOON).notes == ()


def test_a_damaged_key_is_refused_and_not_touched() -> None:
    plan = plan_keys([KEY], found(KeyState("anna", "anna", 0o644, None)), NOON, openbsd=True)
    assert (plan.steps, plan.notes) == ((), ())
    (refusal,) = plan.refused
    assert refusal.message == f"{PATH} is no private key of P-256: move it away, deploy, fleet pki renew, deploy"


@pytest.mark.parametrize(
    ("owner", "mode", "noted"),
    [
        ("root", 0o644, True),
        ("root", 0o620, True),
        ("anna", 0o600, True),
        ("root", 0o400, False),
        ("root", 0o700, False),
    ],
)
def test_who_may_read_a_key_is_mended_and_said(owner: str, mode: int, noted: bool) -> None:
    plan = plan_keys([KEY], found(KeyState(owner, "wheel", mode, RIGHT.public)), NOON, openbsd=True)
    (step,) = plan.steps
    assert step.label == f"{mode:04o} {owner}:wheel -> 0600 root:wheel"
    said = f"log-client: its key was {mode:04o} {owner}:wheel, others may have read it: docs/runbooks/pki.md, 5"
    assert plan.notes == ((said,) if noted else ())


@pytest.mark.parametrize(
    ("ahead", "openbsd", "said"),
    [
        (-3600, True, "the clock is 3600 s behind: certificates may not be valid there yet: ntpd"),
        (3600, True, "the clock is 3600 s ahead: certificates may be over there already: ntpd"),
        (-61, False, "the clock is 61 s behind: certificates may not be valid there yet: systemd-timesyncd"),
        (-CLOCK_SECONDS, True, None),
        (CLOCK_SECONDS, True, None),
    ],
)
def test_a_clock_that_is_wrong_is_said(ahead: int, openbsd: bool, said: str | None) -> None:
    state = KeyState("root", "wheel" if openbsd else "root", 0o600, RIGHT.public)
    plan = plan_keys([KEY], found(state, NOON + ahead), NOON, openbsd)
    assert plan.notes == ((said,) if said else ())
    assert plan.steps == ()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([KEY, Key("redis-server", PATH)], "another certificate has its key in"),
        ([Key("x", "etc/x.key")], "no absolute path"),
        ([Key("x", "/etc/ssl/")], "no absolute path"),
        ([Key("x", "/etc/a\nb")], "no absolute path"),
    ],
)
def test_wrong_arguments_fail_early(wanted: list[Key], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_keys(wanted, found(None), NOON)


STATES = st.builds(
    KeyState,
    st.sampled_from(["root", "_syslogd", "anna"]),
    st.sampled_from(["wheel", "root"]),
    st.integers(0, 0o777),
    st.sampled_from([None, RIGHT.public, digest(OTHER.public_key())]),
)


@given(
    st.dictionaries(st.sampled_from(["/k/a", "/k/b", "/k/c"]), STATES),
    st.lists(st.sampled_from(["a", "b", "c"]), unique=True),
    st.sampled_from(["root", "_syslogd"]),
    st.booleans(),
)
@settings(deadline=None)
def test_any_host_is_right_after_one_run(
    before: dict[str, KeyState], names: list[str], owner: str, openbsd: bool
) -> None:
    wanted = [Key(name, f"/k/{name}", owner, CERTIFICATE) for name in names]
    plan = plan_keys(wanted, KeysState(NOON, before), NOON, openbsd)
    after = dict(before)
    for step in plan.steps:
        path = step.subject.replace("key ", "/k/")
        assert (step.label == "made") == (path not in before)
        kept = before[path].public if path in before else digest(OTHER.public_key())
        after[path] = KeyState(owner, "wheel" if openbsd else "root", 0o600, kept)
    again = plan_keys(wanted, KeysState(NOON, after), NOON, openbsd)
    assert again.steps == ()
    assert again.refused == plan.refused
    assert {path for path in after if path not in {key.path for key in wanted}} <= before.keys()
    for key in wanted:
        assert (after[key.path].public is None) == any(each.subject == f"key {key.name}" for each in plan.refused)


# The scripts.


def test_a_key_is_made_and_its_request_is_right(place: Place) -> None:
    assert place.keys() == KeysState(place.keys().clock)
    assert place.requests() == {}
    done = place.make()
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert place.key.stat().st_mode & 0o777 == 0o600
    assert place.key.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in place.key.parent.iterdir()] == [place.key.name]
    assert place.key.stat().st_nlink == 1
    assert next(word for word in place.said if word.startswith("chown")).startswith("chown root:wheel ")
    made = load_pem_private_key(place.key.read_bytes(), None)
    assert isinstance(made, ec.EllipticCurvePrivateKey) and isinstance(made.curve, ec.SECP256R1)
    state = place.keys()
    assert state.keys == {PATH: KeyState("root", "wheel", 0o600, digest(made.public_key()))}
    assert abs(state.clock - time.time()) < 5
    assert plan_keys([Key("log-client", PATH)], state, time.time(), openbsd=True) == plan_keys([], state, time.time())
    asked = place.requests()[PATH]
    assert asked is not None
    assert certificates.same_key(certificates.key_of_request(VIRTIE, asked), made.public_key())
    assert "PRIVATE" not in place.run(Keys().command([PATH], True)).stdout + asked


def test_ubuntu_reads_the_same(place: Place) -> None:
    place.make()
    assert place.keys(openbsd=False).keys[PATH] == KeyState("root", "root", 0o600, place.keys().keys[PATH].public)


def test_what_the_hosts_openssl_cnf_has_is_not_asked_for(place: Place) -> None:
    place.make()
    foreign = place.file("/etc/ssl/openssl.cnf", "[req]\nreq_extensions=e\nprompt=no\n[e]\nsubjectAltName=DNS:db1\n")
    asked = place.requests(OPENSSL_CONF=str(foreign))[PATH]
    assert asked is not None
    assert certificates.key_of_request(VIRTIE, asked)


def test_a_key_is_born_for_nobody_else(place: Place) -> None:
    real = shutil.which("openssl")
    (place.bin / "openssl").unlink()
    place.fake(
        "openssl",
        f'for last; do :; done; m=$(gnustat -c %a "$last"); {real} "$@" || exit 1; '
        f'echo "born $m $(gnustat -c %a "$last")" >>{place.root}/said',
    )
    (step,) = plan_keys([KEY], found(None), NOON, openbsd=True).steps
    assert place.run(f"umask 0\n{step.command}").returncode == 0
    assert [word for word in place.said if word.startswith("born")] == ["born 600 600"] * 2


def test_a_folder_of_another_name_is_open_and_its_keys_are_not(place: Place) -> None:
    key = Key("redis-server", "/etc/redis/tls/key.pem", "_redis")
    assert place.make(key).returncode == 0
    assert (place.root / "etc/redis/tls").stat().st_mode & 0o777 == 0o755
    assert (place.root / "etc/redis/tls/key.pem").stat().st_mode & 0o777 == 0o600
    assert "chown _redis:wheel" in " ".join(place.said)


def test_a_key_that_came_meanwhile_is_not_replaced(place: Place) -> None:
    place.make()
    before = place.key.read_bytes()
    assert place.make().returncode != 0
    assert place.key.read_bytes() == before
    assert [path.name for path in place.key.parent.iterdir()] == [place.key.name]


def test_what_a_killed_run_left_goes(place: Place) -> None:
    left = place.file("/etc/ssl/private/.homefleet-key.abcdefghij", "half a key", 0o600)
    mine = place.file("/etc/ssl/private/log-client.key.backup2026", "a copy of the owner's", 0o600)
    assert place.make().returncode == 0
    assert not left.exists()
    assert mine.exists()


def test_a_run_that_dies_anywhere_leaves_a_whole_key_or_none(place: Place) -> None:
    (step,) = plan_keys([KEY], found(None), NOON, openbsd=True).steps
    before, umask, rest = step.command.partition("umask 077\n")
    commands = (umask + rest).replace(" && ", "\n").splitlines()
    assert len(commands) >= 10
    for point in range(len(commands) + 1):
        shutil.rmtree(place.key.parent, ignore_errors=True)
        died = place.run(before + "\n".join([*commands[:point], "kill -9 $$"]))
        assert died.returncode == -9, died.stderr
        whole = place.key.read_bytes() if place.key.exists() else None
        done = place.make()
        assert (done.returncode == 0) == (whole is None)
        assert load_pem_private_key(place.key.read_bytes(), None)
        assert whole in (None, place.key.read_bytes())
        assert [path.name for path in place.key.parent.iterdir()] == [place.key.name]


@pytest.mark.parametrize("fails", ["ecparam", "pkey", "short", "chown"])
def test_a_key_that_could_not_be_made_whole_is_none(place: Place, fails: str) -> None:
    real = shutil.which("openssl")
    if fails == "chown":
        place.fake("chown", "exit 1")
    else:
        (place.bin / "openssl").unlink()
        # LibreSSL's says nothing of a disk that is full.
        cut = '[ "$1" = ecparam ] || exit 0; for f; do :; done; head -c 60 "$f" >"$f.x"; mv "$f.x" "$f"'
        short = f'{real} "$@" || exit; {cut}'
        place.fake("openssl", short if fails == "short" else f'[ "$1" != {fails} ] || exit 1; exec {real} "$@"')
        (place.bin / "head").symlink_to(shutil.which("head") or "")
    assert place.make().returncode != 0
    assert list(place.key.parent.iterdir()) == []


def test_nothing_is_done_in_a_folder_of_another(place: Place) -> None:
    place.fake("id", "echo daemon")
    (step,) = plan_keys([KEY], found(None), NOON, openbsd=True).steps
    # Whoever runs the tests, no folder here is bin's or daemon's.
    done = place.run(step.command.replace("-user root", "-user bin"))
    assert done.returncode == 1
    assert "not root's alone" in done.stderr
    assert not place.key.parent.exists()


def test_who_may_read_is_mended_in_place(place: Place) -> None:
    place.make()
    before = place.key.read_bytes()
    place.key.chmod(0o644)
    (step,) = plan_keys([Key("log-client", PATH, "_x")], place.keys(), NOON, openbsd=True).steps
    assert place.run(step).returncode == 0
    assert place.key.stat().st_mode & 0o777 == 0o600
    assert place.key.read_bytes() == before
    assert place.said[-1].startswith("chown _x:wheel")


def _encrypted() -> bytes:
    done = subprocess.run(
        [
            "openssl",
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-aes256",
            "-pass",
            "pass:xyz1",
        ],
        capture_output=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("what", ["text", "p384", "encrypted", "link", "folder", "empty"])
def test_what_is_no_key_is_seen_as_such(place: Place, what: str) -> None:
    place.key.parent.mkdir()
    place.file("/etc/good.key", OURS.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    match what:
        case "link":
            place.key.symlink_to(place.root / "etc/good.key")
        case "folder":
            place.key.mkdir()
        case "p384":
            other = ec.generate_private_key(ec.SECP384R1())
            place.key.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        case _:
            place.key.write_bytes({"text": b"no key\n", "encrypted": _encrypted(), "empty": b""}[what])
    state = place.keys().keys[PATH]
    assert state.public is None
    if what in ("text", "encrypted", "empty", "folder"):
        assert place.requests() == {PATH: None}
    elif what == "p384":
        asked = place.requests()[PATH]
        assert asked is not None
        with pytest.raises(PkiError, match="not of P-256"):
            certificates.key_of_request(VIRTIE, asked)


def test_a_host_without_openssl_is_unknown(place: Place) -> None:
    (place.bin / "openssl").unlink()
    for fact, command in ((Keys(), Keys().command([PATH])), (Requests(), Requests().command({PATH: "virtie"}))):
        done = place.run(command)
        assert done.returncode == 1
        assert fact.process(done.stdout.splitlines()) is None


@pytest.mark.parametrize("openbsd", [True, False])
def test_what_a_daemon_has_loaded(place: Place, openbsd: bool) -> None:
    one = HeldQuery("log-client", "/etc/ssl/log-client.crt", "/etc/ssl/log-client-roots.pem")
    two = HeldQuery("log-server", "/etc/ssl/x.crt", "/etc/ssl/x.pem")

    def held() -> dict[str, HeldState]:
        done = place.run(Held().command([one, two], openbsd))
        state = Held().process(done.stdout.splitlines())
        assert state is not None, done.stderr
        return state

    assert held() == {"log-client": HeldState(), "log-server": HeldState()}
    other = _certificate(OTHER)
    secret = OURS.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    place.file("/etc/ssl/log-client.crt", f"a comment\n{secret}{CERTIFICATE}")
    place.file("/etc/ssl/log-client-roots.pem", CERTIFICATE + other)
    assert held()["log-client"] == HeldState((CERTIFICATE,), (CERTIFICATE, other))
    for marker in ("pending", "armed"):
        flag = place.file(f"{state_of_host(openbsd)}/{marker}/log-client", "")
        assert held() == {"log-server": HeldState()}
        flag.unlink()


def _commands() -> Iterator[tuple[str, bool]]:
    """Yield every script, and whether it is OpenBSD's."""
    for openbsd in (True, False):
        mended = KeyState("anna", "wheel", 0o644, RIGHT.public)
        for state in (None, mended):
            yield from ((step.command, openbsd) for step in plan_keys([KEY], found(state), NOON, openbsd).steps)
        yield Keys().command([PATH, "/etc/a b"], openbsd), openbsd
        yield Requests().command({PATH: "virtie"}), openbsd
        yield Held().command([HeldQuery("log-client", "/etc/a b", "/etc/c")], openbsd), openbsd


def test_both_systems_can_run_every_script() -> None:
    for openbsd in (True, False):
        check_scripts(*(text for text, which in _commands() if which == openbsd), openbsd=openbsd)


# The operation.


class Machine:
    """A host as the operation sees it; counts what it is asked."""

    def __init__(self, answer: KeysState | None) -> None:
        self.name = "test1"
        self.answer = answer
        self.asked = 0
        self.nothing: list[str] = []
        self.state = SimpleNamespace(is_executing=True)

    def get_fact(self, fact: type[Keys], **arguments: Any) -> KeysState | None:
        fact().command(**arguments)
        self.asked += 1
        return self.answer

    def noop(self, why: str) -> None:
        self.nothing.append(why)


@pytest.fixture
def record() -> Iterator[connector.Outcome]:
    yield connector.record_of("test1")
    connector._OUTCOMES.pop("test1", None)


def _run(machine: Machine, wanted: list[Key]) -> list[Any]:
    with ctx_host.use(machine):
        return list(keys._inner(wanted=wanted, openbsd=True))


def test_a_second_run_is_one_question(record: connector.Outcome) -> None:
    machine = Machine(found(RIGHT, int(time.time()) - 3600))
    assert _run(machine, [KEY]) == []
    assert machine.asked == 1 and machine.nothing
    (note,) = record.notes
    assert re.match(r"the clock is 36\d\d s behind: certificates may not be valid there yet: ntpd", note)
    nobody = Machine(None)
    assert _run(nobody, []) == []
    assert nobody.asked == 0 and nobody.nothing


def test_what_is_unknown_or_wrong_fails_this_host_only(record: connector.Outcome) -> None:
    for wanted in ([KEY], [KEY, KEY]):
        (command,) = _run(Machine(None), wanted)
        assert isinstance(command, StringCommand) and command.get_raw_value().endswith("exit 1")
    assert not record.failed


def test_a_refused_key_fails_the_host_at_its_end(record: connector.Outcome) -> None:
    assert _run(Machine(found(KeyState("root", "wheel", 0o600, None), int(time.time()))), [KEY]) == []
    assert record.failed.keys() == {"key log-client"}
