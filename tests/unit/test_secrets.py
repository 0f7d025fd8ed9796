"""Secrets: what is stored, who can read it, what stops a run, and that no value shows where it should not."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import shutil
import stat
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from deploys.services.totp import seed
from fleet.cli.secrets import secrets as command
from fleet.load import ROOT
from fleet.model.secret import (
    BCRYPT,
    MASK,
    MASKED_LENGTH,
    PASSPHRASE,
    PEM_ED25519,
    SSH_ED25519,
    SSH_HOST_KEY,
    TOKEN,
    Kind,
    Secret,
    SecretPlace,
    Shape,
    base64_of,
    fill,
    hex_of,
    lab_place,
    marks,
    mask,
    pair_name,
    parse_shape,
    sample,
    ssh_private_key,
)
from fleet.model.service import Account, Declaration, File, FileSet, Job, Service, none_to_keep
from fleet.model.site import Connection, Fleet, Host, Network, Os, Person, Site
from fleet.secrets import age, audit, generate, hostkeys, store
from fleet.secrets.sheet import from_sheet, to_sheet
from fleet.secrets.store import Document, Entry, SecretsError, Store, parse_readers
from fleet.secrets.vault import Vault, open_for
from fleet.secrets.wanted import wanted

TODAY = date(2026, 11, 23)
LATER = date(2026, 12, 24)

TOTP = Secret("totp-alice", hex_of(20))
BORG = Secret("borg", PASSPHRASE)
CODES = Secret("codes-alice", hex_of(20), common=True)
AXFR = Secret("axfr", base64_of(32), pair=("virtie", "pancake"))
LOGS = Secret("logs", TOKEN, pair=("pancake", "db1"))

SHAPES = (base64_of(32), hex_of(20), BCRYPT, SSH_ED25519, PEM_ED25519, PASSPHRASE, TOKEN)

PUBLIC = "AAAAC3NzaC1lZDI1NTE5AAAAIGIGSwtQOKkJldj8LAMGh3I4DO65Ll5yeJjBVOR2zjBP"

# Each value has the word in it by which the tests look for leaks.
CANARY = "canary"
VALUES = {
    "totp-alice": SecretStr("ca" * 20),
    "borg": SecretStr("a canary sings in here"),
    "axfr": SecretStr("canary" + "A" * 37 + "="),
    "logs": SecretStr("canary-token-0123456789"),
}


def values_of(*names: str) -> dict[str, SecretStr]:
    return {name: VALUES[name] for name in names}


class Wants(Service):
    """A service with one file that has the marks of its secrets in it, and accounts."""

    text: str = ""
    accounts: tuple[Account, ...] = ()
    job: str = "true"
    apply: str = "true"

    def declares(self, host: Host, fleet: Fleet) -> Declaration:
        del host, fleet
        return Declaration(
            accounts=self.accounts,
            jobs=(Job(schedule="@daily", command=self.job),),
            state=none_to_keep("a test keeps nothing"),
        )

    def renders(self, host: Host, fleet: Fleet) -> Iterable[FileSet]:
        del host, fleet
        yield FileSet(name="wants", files=(File(path="/etc/wants", text=self.text),), apply=self.apply)


def of_text(*secrets: Secret) -> tuple[Service, ...]:
    return (Wants(text="".join(f"{secret}\n" for secret in secrets)),)


def host_named(name: str, *services: Service) -> Host:
    return Host(name=name, os=Os.OPENBSD, connection=Connection(address=f"{name}.example"), services=services)


def fleet_of(**services: tuple[Service, ...]) -> Fleet:
    where = {"home": ("pancake", "db1"), "exoscale": ("virtie",)}
    return Fleet(
        sites=tuple(
            Site(
                name=site,
                domain="example",
                networks=(Network(name="net"),),
                hosts=tuple(host_named(name, *services.get(name, ())) for name in names),
            )
            for site, names in where.items()
        )
    )


PLAIN_FLEET = fleet_of(
    pancake=of_text(TOTP, BORG, AXFR, LOGS),
    virtie=of_text(TOTP, AXFR),
    db1=of_text(LOGS),
)


class Scene:
    """A store in a scratch folder, with a key for each site."""

    def __init__(self, base: Path, fleet: Fleet = PLAIN_FLEET) -> None:
        self.base = base
        self.fleet = fleet
        self.place = SecretPlace(folder=str(base / "secrets"), identity=str(base / "keys" / "{site}.age-key"))
        self.store = Store(fleet, lambda _: self.place)
        self.home, self.exoscale = fleet.sites
        self.keys = {site.name: self.new_key(site) for site in fleet.sites}
        for site in fleet.sites:
            self.readers(site, self.keys[site.name])

    def new_key(self, site: Site) -> str:
        """Give the owner a new key for `site`, and return its public half."""
        identity = age.new_identity()
        path = self.store.identity_file(site)
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# made by a test\n{identity.get_secret_value()}\n")
        path.chmod(0o600)
        return age.recipient_of(identity)

    def readers(self, site: Site, *recipients: str) -> None:
        path = self.store.readers_file(site)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "# who may read this site's secrets\n" + "".join(f"{one} # {site.name}\n" for one in recipients)
        )

    def put(self, of: str, *names: str, more: Mapping[str, SecretStr] | None = None) -> Path:
        owned = self.owned(of)
        document = Document(kind=self.place.kind, of=of).with_values({**values_of(*names), **(more or {})}, TODAY)
        self.store.write(owned, document)
        return owned.path

    def owned(self, of: str) -> store.Owned:
        one, pair, other = of.partition("--")
        return self.store.of_pair((one, other)) if pair else self.store.of_host(self.fleet.host(of))

    def put_all(self) -> None:
        self.put("pancake", "totp-alice", "borg")
        self.put("virtie", "totp-alice")
        self.put("pancake--virtie", "axfr")
        self.put("db1--pancake", "logs")

    def read(self, of: str, *sites: Site) -> Document:
        owned = self.owned(of)
        return self.store.read(owned, sites or owned.sites)

    def open(self, *hosts: str, sites: tuple[Site, ...] | None = None, today: date = TODAY) -> Vault:
        return open_for(
            self.fleet,
            (self.home,) if sites is None else sites,
            [self.fleet.host(name) for name in hosts],
            lambda host: wanted(self.fleet, host),
            place=lambda _: self.place,
            today=today,
        )

    def problems(self) -> list[str]:
        return audit.problems(self.store, self.fleet.sites, lambda host: wanted(self.fleet, host))

    def run(self, *arguments: str, stdin: str | None = None, **env: str) -> tuple[int, str]:
        """Return exit code and output of ``fleet secrets``."""
        done = CliRunner().invoke(command, list(arguments), obj=self.store, input=stdin, env=env)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def plain(values: Iterable[tuple[str, SecretStr]]) -> dict[str, str]:
    return {slot: value.get_secret_value() for slot, value in values}


# Shapes and marks


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_generated_value_and_the_sample_have_their_shape(shape: Shape) -> None:
    made = generate.value(shape).get_secret_value()
    assert shape.fits(made)
    assert shape.fits(shape.sample())
    assert made != shape.sample()
    assert generate.value(shape).get_secret_value() != made
    assert shape.sample() == shape.sample()


def test_each_kind_is_tested() -> None:
    assert {shape.kind for shape in SHAPES} == set(Kind)


NOT_FITTING = {
    base64_of(32): ("", "A" * 43, "A" * 44, "A" * 43 + "=\n", "A" * 42 + "==", "A" * 42 + "B=", "A" * 20 + "-" * 24),
    hex_of(20): ("", "5a" * 19, "5A" * 20, "5a" * 20 + "\n", "5g" * 20, "5a" * 21),
    BCRYPT: ("", "$2b$10$" + "." * 52, "$2b$10$" + "." * 54, "$1$10$" + "." * 53, "$2b$40$" + "." * 53),
    SSH_ED25519: ("", PEM_ED25519.sample(), SSH_ED25519.sample() + "\n", SSH_ED25519.sample().replace("b3Bl", "b3Bm")),
    PEM_ED25519: ("", SSH_ED25519.sample(), PEM_ED25519.sample() + "\n", PEM_ED25519.sample().replace("MC4C", "MC4D")),
    PASSPHRASE: (
        "",
        "too short",
        " a blank at the start",
        "a blank at the end ",
        "it's to be quoted",
        "two\nlines of it",
    ),
    TOKEN: ("", "fifteen-letters", "a blank in the token", "quoted'quoted'quoted", "@@secret-in-a-secret@@"),
}


@pytest.mark.parametrize(("shape", "value"), [(shape, value) for shape in SHAPES for value in NOT_FITTING[shape]])
def test_a_value_of_another_form_does_not_fit(shape: Shape, value: str) -> None:
    assert not shape.fits(value)


def test_ssh_keygen_reads_the_keys_that_are_made_and_the_sample(tmp_path: Path) -> None:
    for number, key in enumerate((hostkeys.make(), SecretStr(SSH_ED25519.sample()))):
        path = tmp_path / str(number)
        path.write_text(f"{key.get_secret_value()}\n")
        path.chmod(0o600)
        public = hostkeys.public_half(key)
        assert ssh_keygen("-y", "-f", str(path)) == f"{public}\n"
        path.with_suffix(".pub").write_text(f"{public}\n")
        listed = ssh_keygen("-l", "-f", str(path.with_suffix(".pub")))
        assert listed.split()[1] == hostkeys.fingerprint(public)
        records = ssh_keygen("-r", "ns3.example.", "-f", str(path.with_suffix(".pub")))
        assert hostkeys.sshfp("ns3.example.", public) in records.splitlines(keepends=True)


def ssh_keygen(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run(["ssh-keygen", *arguments], capture_output=True, text=True, check=True, input=stdin)
    return done.stdout


def test_other_programs_read_the_keys() -> None:
    for value in (PEM_ED25519.sample(), generate.value(PEM_ED25519).get_secret_value()):
        assert load_pem_private_key(value.encode(), None)
    assert load_ssh_private_key(generate.value(SSH_ED25519).get_secret_value().encode(), None)


@given(st.sampled_from([Kind.BASE64, Kind.HEX]), st.integers(1, 1024))
def test_a_shape_is_read_back_from_its_text(kind: Kind, size: int) -> None:
    assert parse_shape(str(Shape(kind, size))) == Shape(kind, size)


@pytest.mark.parametrize("text", ["", "hex", "hex-", "hex-0", "hex-020", "hex-1025", "bcrypt-3", "ssh", "base64--1"])
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"shape|size"):
        parse_shape(text)


NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,12}", fullmatch=True)
PAIRS = st.sampled_from([None, ("virtie", "ns3"), ("kvm1", "kvm2"), ("a-b", "c")])
SECRETS = st.builds(Secret, NAMES, st.sampled_from([s for s in SHAPES if s not in (SSH_ED25519, PEM_ED25519)]), PAIRS)


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="@")), SECRETS)), st.text("@:/x\n"))
def test_fill_puts_values_in_the_place_of_marks_and_changes_nothing_else(
    pieces: list[tuple[str, Secret]], end: str
) -> None:
    text = "".join(f"{before}{secret}" for before, secret in pieces) + end
    by_slot = {secret.slot: secret for _, secret in pieces}
    if any(by_slot[secret.slot] != secret for _, secret in pieces):
        return
    assert marks(text) == tuple(dict.fromkeys(secret for _, secret in pieces))
    values = {slot: generate.value(secret.shape) for slot, secret in by_slot.items()}
    filled = "".join(f"{before}{values[secret.slot].get_secret_value()}" for before, secret in pieces) + end
    assert fill(text, values) == filled
    assert sample(text) == "".join(f"{before}{secret.shape.sample()}" for before, secret in pieces) + end
    assert not marks(sample(text))
    for value in values.values():
        assert value.get_secret_value() not in mask(filled, values.values())


def test_a_filled_value_is_not_read_again() -> None:
    inner = Secret("inner", TOKEN)
    assert (
        fill(f"{BORG} {inner}", {"borg": SecretStr("inner inner inner"), "inner": SecretStr("x" * 16)}).count("x") == 16
    )


@pytest.mark.parametrize(
    "text",
    [
        str(TOTP).replace("totp", "TOTP"),
        str(TOTP)[:-1],
        str(TOTP).replace("hex-20", "hex"),
        str(TOTP).replace("hex-20", "hex 20"),
        f"{TOTP} @@secret:",
        str(AXFR).replace("pancake--virtie", "pancake"),
        str(AXFR).replace("pancake--virtie", "virtie--virtie"),
    ],
)
def test_a_mark_that_was_changed_is_refused(text: str) -> None:
    for read in (marks, sample, lambda text: fill(text, VALUES)):
        with pytest.raises(ValueError, match=r"mark|shape|pair"):
            read(text)


def test_fill_refuses_what_it_has_not_and_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="no value for the secret totp-alice"):
        fill(str(TOTP), {})
    with pytest.raises(ValueError, match="no value for the secret pancake--virtie/axfr"):
        fill(str(AXFR), {"axfr": VALUES["axfr"]})
    with pytest.raises(ValueError, match="the secret totp-alice is not 40 small hexadecimal digits") as refused:
        fill(str(TOTP), {"totp-alice": VALUES["borg"]})
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "fine"),
    [("{}\n", True), ("{}", True), ("a\n{}\nb\n", True), ('"{}"\n', False), (" {}\n", False), ("{} \n", False)],
)
def test_several_lines_need_a_line_to_themselves(text: str, fine: bool) -> None:
    key = hostkeys.make()
    marked = text.format(SSH_HOST_KEY)
    values = {SSH_HOST_KEY.slot: key}
    if fine:
        assert fill(marked, values) == text.format(key.get_secret_value())
        assert sample(marked) == text.format(SSH_ED25519.sample())
        return
    for read in (sample, lambda text: fill(text, values)):
        with pytest.raises(ValueError, match="needs a line to itself"):
            read(marked)


@given(
    secret=st.text("abcdef0123456789", min_size=MASKED_LENGTH, max_size=40),
    before=st.text("abcdef0123456789 :\n", max_size=20),
    cut=st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_no_part_of_a_secret_is_shown(secret: str, before: str, cut: tuple[int, int]) -> None:
    shown = mask(f"{before}{secret[cut[0] : cut[1]]} line 3: syntax error", [SecretStr(secret)])
    pieces = {secret[at : at + MASKED_LENGTH] for at in range(len(secret) - MASKED_LENGTH + 1)}
    assert not [piece for piece in pieces if piece in shown]
    assert "syntax error" in shown


def test_a_mask_hides_whole_values_and_each_of_their_lines() -> None:
    key = hostkeys.make()
    line = key.get_secret_value().splitlines()[2]
    values = [key, VALUES["borg"], SecretStr("a canary"), SecretStr("")]
    assert mask(f"parser: line 3: {line!r} is bad", values) == f"parser: line 3: '{MASK}' is bad"
    assert mask(f"x {VALUES['borg'].get_secret_value()} y", values) == f"x {MASK} y"
    assert mask("nothing in it", values) == "nothing in it"
    assert mask(f"{line[5:17]}, {line[20:26]}; (sings in here", values) == f"{MASK}, {line[20:26]}; ({MASK}"


@pytest.mark.parametrize("name", ["", "Totp", "a b", "a:b", "a/b", "9a", "a" * 64, "a\n"])
def test_a_name_that_no_mark_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a secret"):
        Secret(name, TOKEN)


@pytest.mark.parametrize("pair", [("a", "a"), ("a--b", "c"), ("a-", "b"), ("A", "b"), ("", "b"), ("a/..", "b")])
def test_a_pair_that_no_file_can_be_named_after_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="pair"):
        pair_name(pair)
    with pytest.raises(ValueError, match="pair"):
        Secret("axfr", TOKEN, pair)


def test_a_pair_has_one_name_in_either_order() -> None:
    assert Secret("axfr", base64_of(32), pair=("pancake", "virtie")) == AXFR
    assert AXFR.slot == "pancake--virtie/axfr"
    assert str(AXFR) == "@@secret:pancake--virtie/axfr:base64-32@@"


def test_the_place_of_the_identity_has_no_other_blank_than_the_site() -> None:
    assert lab_place(3).identity == ".lab/3/secrets/{site}.age-key"
    assert lab_place(3).kind == "lab"
    with pytest.raises(ValueError, match="braces"):
        SecretPlace.model_validate({"identity": "~/{host}.key"})


# What a host wants


def test_a_host_wants_what_its_files_and_password_hashes_have_marks_of() -> None:
    login = Secret("password-alice", BCRYPT)
    service = Wants(text=f"a {TOTP}\nb {AXFR} {TOTP}\n", accounts=(Account(name="alice", password=str(login)),))
    fleet = fleet_of(pancake=(service,))
    assert wanted(fleet, fleet.host("pancake")) == (AXFR, login, TOTP)
    assert wanted(fleet, fleet.host("db1")) == ()


@pytest.mark.parametrize(
    ("service", "words"),
    [
        (Wants(job=f"curl -u {BORG}"), "the secret borg is in what it declares, where others can see it"),
        (Wants(apply=f"login {BORG}"), "the secret borg is in the commands or paths of wants"),
        (Wants(accounts=(Account(name="a", comment=str(BORG)),)), "the secret borg is in what it declares"),
        (
            Wants(text=f"{TOTP} {Secret('totp-alice', TOKEN)}\n"),
            "totp-alice is wanted in two ways: .*token.* and .*hex",
        ),
        (Wants(text=f"{TOTP} {CODES}\n".replace("totp", "codes")), "codes-alice is wanted in two ways: .*site/codes"),
        (Wants(text="@@secret:\n"), "a mark of a secret was changed"),
    ],
)
def test_a_mark_that_would_show_its_value_is_refused(service: Service, words: str) -> None:
    fleet = fleet_of(pancake=(service,))
    with pytest.raises(SecretsError, match=f"pancake: Wants: {words}"):
        wanted(fleet, fleet.host("pancake"))


# What is stored


def test_what_was_written_is_read(scene: Scene) -> None:
    path = scene.put("pancake", "totp-alice", "borg")
    document = scene.read("pancake")
    assert plain((name, entry.value) for name, entry in document.values.items()) == plain(
        values_of("totp-alice", "borg").items()
    )
    assert {entry.changed for entry in document.values.values()} == {TODAY}
    assert {entry.seen_by for entry in document.values.values()} == {(scene.keys["home"],)}
    assert (document.kind, document.of, document.readers) == ("production", "pancake", (scene.keys["home"],))
    assert path == scene.base / "secrets" / "home" / "pancake.age"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert CANARY.encode() not in path.read_bytes()


def test_the_plain_text_is_the_json_of_the_documentation(scene: Scene) -> None:
    path = scene.put("pancake", "borg")
    text = age.decrypt(path.read_bytes(), scene.store.identities(scene.home))
    key = scene.keys["home"]
    assert json.loads(text) == {
        "version": 1,
        "kind": "production",
        "of": "pancake",
        "readers": [key],
        "values": {"borg": {"value": "a canary sings in here", "changed": "2026-11-23", "seen_by": [key]}},
    }


def test_a_file_of_a_pair_is_for_the_readers_of_both_sites_and_nobody_else(scene: Scene) -> None:
    path = scene.put("pancake--virtie", "axfr")
    assert path == scene.base / "secrets" / "pairs" / "pancake--virtie.age"
    for site in scene.fleet.sites:
        assert scene.read("pancake--virtie", site).values["axfr"].value == VALUES["axfr"]
    with pytest.raises(age.AgeError):
        age.decrypt(path.read_bytes(), [age.new_identity()])
    assert age.readers(path.read_bytes()) == 2
    inside = scene.put("db1--pancake", "logs")
    with pytest.raises(age.AgeError):
        age.decrypt(inside.read_bytes(), scene.store.identities(scene.exoscale))


def test_a_host_s_file_is_not_for_another_site(scene: Scene) -> None:
    path = scene.put("virtie", "totp-alice")
    with pytest.raises(age.AgeError):
        age.decrypt(path.read_bytes(), scene.store.identities(scene.home))


def test_a_write_that_fails_leaves_the_old_file_whole(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    path = scene.put("pancake", "borg")

    def full(number: int) -> None:
        raise OSError(28, f"No space left on device {number}")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        scene.put("pancake", "totp-alice")
    monkeypatch.undo()
    assert list(scene.read("pancake").values) == ["borg"]
    assert set(path.parent.iterdir()) == {path, scene.store.readers_file(scene.home)}


def test_a_file_is_born_closed_whatever_the_umask(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    real = os.fsync

    def look(number: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(number).st_mode))
        real(number)

    monkeypatch.setattr(os, "fsync", look)
    before = os.umask(0)
    try:
        scene.put("pancake", "borg", more={SSH_HOST_KEY.name: hostkeys.make()})
    finally:
        os.umask(before)
    assert modes == [0o600, 0o600]


def test_nothing_is_written_that_the_owner_could_not_read(scene: Scene) -> None:
    scene.readers(scene.home, age.recipient_of(age.new_identity()))
    with pytest.raises(SecretsError, match=r"pancake\.age: is not written, you could not read it: .*lacks the key in"):
        scene.put("pancake", "borg")
    assert not scene.owned("pancake").path.exists()


def test_what_is_no_host_key_is_not_written_as_one(scene: Scene) -> None:
    with pytest.raises(
        SecretsError, match=r"pancake\.age: is not written: ssh_host_ed25519_key: no Ed25519"
    ) as refused:
        scene.put("pancake", more={SSH_HOST_KEY.name: VALUES["borg"]})
    assert CANARY not in "".join(traceback.format_exception(refused.value))
    assert not scene.owned("pancake").path.exists()


def test_a_value_that_is_the_same_keeps_its_day_and_who_has_seen_it() -> None:
    old = Document(kind="lab", of="x").with_values(values_of("borg", "logs"), TODAY).for_readers(["age1a"])
    new = old.with_values(values_of("borg") | {"logs": SecretStr("another-token-0123")}, LATER).for_readers(["age1b"])
    assert (new.values["borg"].changed, new.values["borg"].seen_by) == (TODAY, ("age1a", "age1b"))
    assert (new.values["logs"].changed, new.values["logs"].seen_by) == (LATER, ("age1b",))


READERS = {
    "a private key": ("{secret}\n", "line 1 is a private key"),
    "a private key in small letters": ("{lower}\n", "line 1 is a private key"),
    "no key": ("\n# me\nalice\n", "line 3: no public key of age-keygen"),
    "twice": ("{key}\n{key} # again\n", "line 2: that key is there twice"),
    "empty": ("# nobody\n\n", "has no reader"),
}


@pytest.mark.parametrize("case", READERS)
def test_a_bad_readers_file_is_refused_by_line(case: str, tmp_path: Path) -> None:
    text, words = READERS[case]
    identity = age.new_identity()
    secret = identity.get_secret_value()
    path = tmp_path / "readers.txt"
    path.write_text(text.format(secret=secret, lower=secret.lower(), key=age.recipient_of(identity)))
    with pytest.raises(SecretsError, match=rf"readers\.txt: {words}") as refused:
        parse_readers(path)
    assert secret[20:].lower() not in str(refused.value).lower()


def test_readers_are_read_with_their_names(tmp_path: Path) -> None:
    keys = [age.recipient_of(age.new_identity()) for _ in range(2)]
    path = tmp_path / "readers.txt"
    path.write_text(f"# us\n\n{keys[0]} # the owner\n  {keys[1]}\n")
    assert parse_readers(path) == {keys[0]: "the owner", keys[1]: ""}
    with pytest.raises(SecretsError, match="is missing"):
        parse_readers(tmp_path / "no")


# What stops a run


def overwritten(of: str, text: bytes) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        owned = scene.owned(of)
        owned.path.write_bytes(age.encrypt(text, scene.store.readers(owned.sites)))

    return change


def document(**changes: object) -> bytes:
    entry = {"value": "a canary sings in here", "changed": "2026-11-23", "seen_by": []}
    data: dict[str, object] = {
        "version": 1,
        "kind": "production",
        "of": "pancake",
        "readers": [],
        "values": {"borg": entry},
    }
    return json.dumps(data | changes).encode()


def without_key(scene: Scene) -> None:
    scene.store.identity_file(scene.home).unlink()


def with_anothers_key(scene: Scene) -> None:
    shutil.copy(scene.store.identity_file(scene.exoscale), scene.store.identity_file(scene.home))


def with_a_new_key(scene: Scene) -> None:
    scene.new_key(scene.home)


def with_a_key_not_yet_served(scene: Scene) -> None:
    scene.readers(scene.home, scene.keys["home"], scene.new_key(scene.home))


def with_an_open_key(scene: Scene) -> None:
    scene.store.identity_file(scene.home).chmod(0o640)


def with_no_key(scene: Scene) -> None:
    scene.store.identity_file(scene.home).write_text("AGE-SECRET-KEY-1QQQ\ncanary\n")


def with_half_a_key(scene: Scene) -> None:
    scene.store.identity_file(scene.home).write_text("AGE-SECRET-KEY-1QQQ\n")


def with_the_key_in_the_secrets(scene: Scene) -> None:
    inside = scene.base / "secrets" / "home.age-key"
    shutil.move(scene.store.identity_file(scene.home), inside)
    scene.store.identity_file(scene.home).symlink_to(inside)


def with_the_file_of_another_host(scene: Scene) -> None:
    scene.put("db1", "totp-alice", "borg")
    shutil.copy(scene.owned("db1").path, scene.owned("pancake").path)


def cut_short(scene: Scene) -> None:
    path = scene.owned("pancake").path
    path.write_bytes(path.read_bytes()[:-5])


def as_a_folder(scene: Scene) -> None:
    path = scene.owned("pancake").path
    path.unlink()
    path.mkdir()


def lacking_two(scene: Scene) -> None:
    scene.put("pancake")


def of_another_shape(scene: Scene) -> None:
    scene.put("pancake", "borg", more={"totp-alice": SecretStr("canary")})


HOST = r"/secrets/home/pancake\.age: "
PAIR = r"/secrets/pairs/pancake--virtie\.age: "
STOPS: dict[str, tuple[Callable[[Scene], object], str]] = {
    "missing": (lambda s: s.owned("pancake").path.unlink(), HOST + "is missing; fleet secrets edit pancake makes it"),
    "missing pair": (
        lambda s: s.owned("pancake--virtie").path.unlink(),
        PAIR + "is missing; fleet secrets edit pancake--virtie makes it",
    ),
    "a folder": (as_a_folder, HOST + "cannot be read: Is a directory"),
    "no key": (
        without_key,
        HOST + r"cannot be decrypted: .*/home\.age-key: the age key of home cannot be read: No such",
    ),
    "another site's key": (
        with_anothers_key,
        HOST + "cannot be decrypted: .*/home.age-key: is a key of exoscale, not of home$",
    ),
    "a key of nobody": (
        with_a_new_key,
        HOST + r"cannot be decrypted: not with .*/home\.age-key, the age key of home: No",
    ),
    "a new reader": (with_a_key_not_yet_served, HOST + ".*another reader has to run fleet secrets rekey"),
    "an open key": (with_an_open_key, HOST + ".*others may read this private key: chmod 600"),
    "no identity": (with_no_key, HOST + ".*is no private key as age-keygen"),
    "half an identity": (with_half_a_key, HOST + ".*is no private key as age-keygen"),
    "the key among the secrets": (with_the_key_in_the_secrets, HOST + ".*does not belong in the repository"),
    "damaged": (cut_short, HOST + "cannot be decrypted: not with .*decryption error"),
    "a lab file": (overwritten("pancake", document(kind="lab")), HOST + "is a lab file among those of production"),
    "another host's file": (with_the_file_of_another_host, HOST + "has the secrets of db1, not of pancake"),
    "no JSON": (overwritten("pancake", b"canary canary"), HOST + "is no file of secrets: .*json_invalid"),
    "another version": (overwritten("pancake", document(version=2)), HOST + "is no file of secrets: version"),
    "an unknown key": (
        overwritten("pancake", document(canaries=CANARY)),
        HOST + "is no file of secrets: canaries: extra",
    ),
    "no day": (
        overwritten("pancake", document(values={"borg": {"value": CANARY, "changed": CANARY, "seen_by": []}})),
        HOST + r"is no file of secrets: values\.borg\.changed",
    ),
    "lacking": (lacking_two, HOST + "lacks borg, totp-alice; fleet secrets edit pancake puts it right"),
    "another shape": (of_another_shape, HOST + "totp-alice is not 40 small hexadecimal digits"),
    "lacking of the pair": (
        lambda s: s.put("pancake--virtie"),
        PAIR + "lacks axfr; fleet secrets edit pancake--virtie",
    ),
}


@pytest.mark.parametrize("case", STOPS)
def test_what_stops_a_run_is_one_line_that_names_the_file(case: str, scene: Scene) -> None:
    scene.put_all()
    scene.open("pancake")
    change, words = STOPS[case]
    change(scene)
    with pytest.raises(SystemExit, match=words) as stopped:
        scene.open("pancake")
    assert "\n" not in str(stopped.value)
    shows = "".join(traceback.format_exception(stopped.value)) + repr(stopped.value.__cause__)
    for value in (*VALUES.values(), SecretStr(scene_key(scene))):
        assert value.get_secret_value() not in shows
    assert CANARY not in shows.replace("canaries", "")


def scene_key(scene: Scene) -> str:
    try:
        return scene.store.identity_file(scene.home).read_text().split("\n")[-2]
    except FileNotFoundError:
        return "AGE-SECRET-KEY"


def test_a_lab_file_stops_production_and_a_production_file_the_lab(scene: Scene) -> None:
    lab = scene.place.model_copy(update={"kind": "lab"})
    scene.put_all()
    production, scene.place = scene.place, lab
    with pytest.raises(SystemExit, match=HOST + "is a production file among those of lab"):
        scene.open("pancake")
    for path in scene.store.paths(scene.home):
        path.unlink()
    scene.open("pancake")
    scene.place = production
    with pytest.raises(SystemExit, match=HOST + "is a lab file among those of production"):
        scene.open("pancake")


def test_a_key_in_the_project_is_refused_before_it_is_looked_for(scene: Scene) -> None:
    place = scene.place.model_copy(update={"identity": "fleet/{site}.age-key"})
    with pytest.raises(SecretsError, match=r"^fleet/home\.age-key: a private key does not belong in the repository"):
        Store(scene.fleet, lambda _: place).identities(scene.home)
    assert ROOT not in scene.base.parents


def test_each_host_is_given_its_own_and_its_pairs_values_only(scene: Scene) -> None:
    scene.put_all()
    scene.put("pancake", "totp-alice", "borg", more={"unwanted": SecretStr("nobody wants this")})
    vault = scene.open("pancake", "db1")
    assert plain(vault.values("pancake").items()) == {
        "totp-alice": "ca" * 20,
        "borg": "a canary sings in here",
        "pancake--virtie/axfr": VALUES["axfr"].get_secret_value(),
        "db1--pancake/logs": VALUES["logs"].get_secret_value(),
    }
    assert set(vault.values("db1")) == {"db1--pancake/logs"}
    with pytest.raises(KeyError):
        vault.values("virtie")
    with pytest.raises(TypeError):
        vault.values("db1")["x"] = VALUES["borg"]  # type: ignore[index]


def test_only_the_files_of_the_hosts_concerned_are_opened(scene: Scene) -> None:
    scene.put_all()
    for of in ("pancake", "pancake--virtie"):
        scene.owned(of).path.write_bytes(b"nothing that age wrote")
    scene.store.identity_file(scene.exoscale).unlink()
    assert set(scene.open("db1").values("db1")) == {"db1--pancake/logs"}
    with pytest.raises(SystemExit, match="pancake"):
        scene.open("db1", "pancake")


def test_a_host_that_wants_nothing_needs_no_file_and_no_key(tmp_path: Path) -> None:
    fleet = fleet_of()
    opened = open_for(
        fleet,
        fleet.sites,
        list(fleet.hosts()),
        lambda host: wanted(fleet, host),
        place=lambda _: SecretPlace(folder=str(tmp_path / "no"), identity=str(tmp_path / "no.key")),
        today=TODAY,
    )
    assert opened.values("virtie") == {}
    assert list(tmp_path.iterdir()) == []


def test_a_pair_across_sites_is_opened_with_the_key_of_the_run_s_site(scene: Scene) -> None:
    scene.put_all()
    with pytest.raises(SystemExit, match=r"virtie\.age: cannot be decrypted: the run has no key of exoscale"):
        scene.open("virtie", sites=(scene.home,))
    scene.store.identity_file(scene.home).unlink()
    opened = scene.open("virtie", sites=(scene.exoscale,))
    assert set(opened.values("virtie")) == {"totp-alice", "pancake--virtie/axfr"}


def test_another_site_s_key_opens_no_pair_either(scene: Scene) -> None:
    scene.put_all()
    with_anothers_key(scene)
    with pytest.raises(SecretsError, match="is a key of exoscale, not of home"):
        scene.read("pancake--virtie", scene.home)
    # One key of a reader at both sites is nobody else's.
    scene.readers(scene.home, scene.keys["home"], scene.keys["exoscale"])
    assert scene.read("pancake--virtie", scene.home).of == "pancake--virtie"


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        (Secret("x", TOKEN, pair=("virtie", "db1")), "pancake: wants db1--virtie/x, which is of two other hosts"),
        (Secret("x", TOKEN, pair=("pancake", "ns9")), "no pair of hosts: ns9--pancake: there is no host 'ns9'"),
    ],
)
def test_a_pair_is_of_the_host_that_wants_it_and_of_another_that_there_is(
    secret: Secret, words: str, tmp_path: Path
) -> None:
    scene = Scene(tmp_path, fleet_of(pancake=of_text(secret)))
    with pytest.raises(SystemExit, match=words):
        scene.open("pancake")


def test_no_value_is_in_any_repr(scene: Scene) -> None:
    scene.put_all()
    vault = scene.open("pancake")
    read = scene.read("pancake")
    shows = [repr(vault), str(vault), repr(vault.values("pancake")), repr(read), str(read), read.model_dump_json()]
    shows += [str(read.model_dump()), repr(from_sheet('borg: "a canary sings"')), repr(hostkeys.make())]
    shows += [repr(Entry(value=VALUES["borg"], changed=TODAY, seen_by=()))]
    for text in shows:
        assert CANARY not in text
        assert "ca" * 20 not in text
        assert "PRIVATE KEY" not in text
    assert "********" in repr(vault.values("pancake"))


# The lab


@pytest.fixture
def lab(tmp_path: Path) -> Scene:
    class Lab(Scene):
        def __init__(self) -> None:
            self.fleet = PLAIN_FLEET
            folder = str(tmp_path / "lab" / "secrets")
            self.place = SecretPlace(kind="lab", folder=folder, identity=f"{folder}/{{site}}.age-key")
            self.store = Store(self.fleet, lambda _: self.place)
            self.home, self.exoscale = self.fleet.sites

    return Lab()


def test_a_lab_s_secrets_are_born_at_first_use_and_stay(lab: Scene) -> None:
    hosts = ("pancake", "virtie", "db1")
    first = lab.open(*hosts, sites=lab.fleet.sites)
    for host in hosts:
        wants = wanted(lab.fleet, lab.fleet.host(host))
        assert {secret.slot for secret in wants} == set(first.values(host))
        assert all(secret.shape.fits(first.values(host)[secret.slot].get_secret_value()) for secret in wants)
    assert first.values("pancake")[AXFR.slot] == first.values("virtie")[AXFR.slot]
    assert first.values("pancake")[TOTP.slot] != first.values("virtie")[TOTP.slot]
    assert lab.read("pancake").kind == "lab"
    assert stat.S_IMODE(lab.store.folder(lab.home).stat().st_mode) == 0o700
    assert stat.S_IMODE(lab.store.identity_file(lab.home).stat().st_mode) == 0o600
    files = {path: path.read_bytes() for path in sorted(lab.store.folder(lab.home).rglob("*")) if path.is_file()}
    again = lab.open(*hosts, sites=lab.fleet.sites, today=LATER)
    assert all(again.values(host) == first.values(host) for host in hosts)
    assert files == {path: path.read_bytes() for path in files}
    assert lab.problems() == []


def test_a_lab_s_value_of_an_older_shape_is_made_again(lab: Scene) -> None:
    lab.open("pancake", sites=lab.fleet.sites)
    old = lab.read("pancake")
    lab.store.write(
        lab.owned("pancake"), old.with_values({"totp-alice": VALUES["borg"], "borg": VALUES["borg"]}, TODAY)
    )
    values = lab.open("pancake", sites=lab.fleet.sites).values("pancake")
    assert values["borg"] == VALUES["borg"]
    assert TOTP.shape.fits(values["totp-alice"].get_secret_value())


def test_a_lab_s_host_key_has_its_public_half_beside_it(lab: Scene) -> None:
    lab.fleet = fleet_of(pancake=of_text(SSH_HOST_KEY))
    key = lab.open("pancake", sites=lab.fleet.sites).values("pancake")[SSH_HOST_KEY.slot]
    assert lab.store.public_key(lab.fleet.host("pancake")) == hostkeys.public_half(key)
    assert lab.store.public_key(lab.fleet.host("db1")) is None


def test_two_runs_of_one_lab_at_once_agree(lab: Scene) -> None:
    seen: list[dict[str, str]] = []
    ready = threading.Barrier(4)

    def run() -> None:
        ready.wait()
        seen.append(plain(lab.open("pancake", sites=lab.fleet.sites).values("pancake").items()))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(seen) == 4
    assert all(each == seen[0] for each in seen)


def test_production_is_never_given_a_generated_value(scene: Scene) -> None:
    scene.put("pancake", "borg")
    before = sorted((scene.base / "secrets").rglob("*"))
    with pytest.raises(SystemExit, match="lacks totp-alice"):
        scene.open("pancake")
    assert sorted((scene.base / "secrets").rglob("*")) == before


def test_a_run_without_a_host_key_says_how_a_host_gets_one(scene: Scene) -> None:
    scene.fleet = fleet_of(pancake=of_text(BORG, SSH_HOST_KEY))
    scene.put("pancake", "borg")
    with pytest.raises(SystemExit, match=r"lacks ssh_host_ed25519_key; fleet secrets hostkey adopt pancake .* make"):
        scene.open("pancake")


# What is common to the hosts of a site

COMMON_FLEET = fleet_of(pancake=of_text(CODES), db1=of_text(CODES, BORG), virtie=of_text(CODES))


def test_a_common_secret_is_known_by_its_mark() -> None:
    assert str(CODES) == "@@secret:site/codes-alice:hex-20@@"
    assert marks(f"a {CODES}\n") == (CODES,)
    with pytest.raises(ValueError, match="not common"):
        Secret("axfr", TOKEN, ("pancake", "virtie"), common=True)


def test_a_lab_has_one_common_value_a_site(lab: Scene) -> None:
    lab.fleet = COMMON_FLEET
    lab.store = Store(lab.fleet, lambda _: lab.place)
    first = lab.open("pancake", sites=lab.fleet.sites).values("pancake")[CODES.slot]
    vault = lab.open("virtie", "db1", sites=lab.fleet.sites)
    assert vault.values("db1")[CODES.slot] == first != vault.values("virtie")[CODES.slot]
    assert lab.problems() == []


def test_the_check_finds_what_differs_within_a_site_and_what_two_sites_share(tmp_path: Path) -> None:
    scene = Scene(tmp_path, COMMON_FLEET)
    one, other = (SecretStr(digits * 20) for digits in ("aa", "bb"))
    scene.put("pancake", more={CODES.name: one})
    scene.put("db1", "borg", more={CODES.name: other})
    scene.put("virtie", more={CODES.name: one})
    assert scene.problems() == [
        "home: codes-alice has to be the same on all hosts, and differs: pancake; db1",
        "codes-alice is the same at exoscale and home: each site has to have its own",
    ]
    said = " ".join(scene.problems())
    assert one.get_secret_value() not in said and other.get_secret_value() not in said


@pytest.fixture
def coded(tmp_path: Path) -> Scene:
    """Alice of `home`, whom pancake and db1 ask for a code."""
    alice = Person(name="alice", full_name="Alice", uid=1100, public_keys=(f"ssh-ed25519 {PUBLIC} alice",))
    fleet = fleet_of(pancake=of_text(seed(alice)), db1=of_text(seed(alice), BORG))
    home = fleet.sites[0].model_copy(update={"people": (alice,)})
    return Scene(tmp_path, fleet.model_copy(update={"sites": (home, *fleet.sites[1:])}))


def test_a_person_has_one_secret_a_site_and_sees_it_on_a_terminal_only(coded: Scene) -> None:
    assert coded.run("totp", "alice", "home") == (1, "secrets are shown on a terminal only, not in a file or a pipe\n")
    assert not coded.owned("db1").path.exists()
    said = on_a_terminal(verb(coded, "totp", "alice", "home"))
    values = {coded.read(name).values["totp-alice"].value for name in ("pancake", "db1")}
    assert len(values) == 1
    digits = values.pop().get_secret_value()
    secret = base64.b32encode(bytes.fromhex(digits)).decode()
    assert f"\notpauth://totp/home%3Aalice?secret={secret}&issuer=home\n" in said
    # Once it is there it is shown, and given to a host that has not got it yet.
    coded.put("db1", "borg")
    assert secret in on_a_terminal(verb(coded, "totp", "alice", "home"))
    assert coded.read("db1").values["totp-alice"].value.get_secret_value() == digits
    assert "written" not in on_a_terminal(verb(coded, "totp", "alice", "home"))


def test_a_secret_that_differs_is_only_replaced_at_the_owner_s_word(coded: Scene) -> None:
    coded.put("pancake", more={"totp-alice": SecretStr("aa" * 20)})
    coded.put("db1", more={"totp-alice": SecretStr("bb" * 20)})
    assert "totp-alice differs from host to host; --replace" in on_a_terminal(verb(coded, "totp", "alice", "home"))
    assert coded.read("db1").values["totp-alice"].value.get_secret_value() == "bb" * 20
    on_a_terminal(verb(coded, "totp", "alice", "home", "--replace"))
    new = {coded.read(name).values["totp-alice"].value.get_secret_value() for name in ("pancake", "db1")}
    assert len(new) == 1 and not new & {"aa" * 20, "bb" * 20}


def test_a_secret_for_codes_is_of_somebody_whom_a_host_asks(coded: Scene) -> None:
    assert "home: no person 'bob': there are alice" in coded.run("totp", "bob", "home")[1]
    assert "exoscale: no person 'alice': there are none" in coded.run("totp", "alice", "exoscale")[1]
    assert coded.run("totp", "alice", "home", "--show")[1].count("age --decrypt") == 2


# Readers who come and go


def test_a_removed_reader_s_knowledge_is_listed_until_it_is_changed(scene: Scene) -> None:
    bob = age.new_identity()
    gone = age.recipient_of(bob)
    scene.readers(scene.home, scene.keys["home"], gone)
    scene.put_all()
    assert scene.problems() == []
    scene.readers(scene.home, scene.keys["home"])
    code, said = scene.run("rekey", "home")
    assert code == 0
    assert [line for line in said.splitlines() if gone in line] == [
        f"db1--pancake: logs, of 2026-11-23, was seen by {gone}, no reader any more: change it",
        f"pancake: borg, of 2026-11-23, was seen by {gone}, no reader any more: change it",
        f"pancake: totp-alice, of 2026-11-23, was seen by {gone}, no reader any more: change it",
        f"pancake--virtie: axfr, of 2026-11-23, was seen by {gone}, no reader any more: change it",
    ]
    assert "home: 3 files written, 4 values to change" in said
    for of in ("pancake", "pancake--virtie", "db1--pancake"):
        with pytest.raises(age.AgeError):
            age.decrypt(scene.owned(of).path.read_bytes(), [bob])
    # An untouched file of the other site, and nothing at all the second time.
    assert scene.read("virtie").readers == (scene.keys["exoscale"],)
    assert "home: 0 files written, 4 values to change" in scene.run("rekey", "home")[1]
    changed = scene.read("pancake").with_values(
        values_of("totp-alice") | {"borg": SecretStr("another passphrase")}, LATER
    )
    scene.store.write(scene.owned("pancake"), changed)
    left = audit.rekey(scene.store, scene.home).seen
    assert [(one.of, one.name) for one in left] == [
        ("db1--pancake", "logs"),
        ("pancake", "totp-alice"),
        ("pancake--virtie", "axfr"),
    ]
    assert any("pancake: totp-alice, of 2026-11-23, was seen by" in line for line in scene.problems())


def test_a_new_reader_reads_after_a_rekey(scene: Scene) -> None:
    scene.put_all()
    new = age.new_identity()
    scene.readers(scene.home, scene.keys["home"], age.recipient_of(new))
    assert any(line.endswith("fleet secrets rekey home") for line in scene.problems())
    done = audit.rekey(scene.store, scene.home)
    assert {path.name for path in done.written} == {"pancake.age", "pancake--virtie.age", "db1--pancake.age"}
    assert done.seen == ()
    assert b"canary" in age.decrypt(scene.owned("pancake").path.read_bytes(), [new])
    assert scene.problems() == []


def test_a_rekey_writes_nothing_if_a_file_cannot_be_read(scene: Scene) -> None:
    scene.put_all()
    scene.readers(scene.home, scene.keys["home"], age.recipient_of(age.new_identity()))
    cut_short(scene)
    before = {path: path.read_bytes() for path in scene.store.paths(scene.home)}
    code, said = scene.run("rekey", "home")
    assert (code, "pancake.age: cannot be decrypted" in said) == (1, True)
    assert before == {path: path.read_bytes() for path in scene.store.paths(scene.home)}


def test_a_rekey_does_not_lock_its_owner_out(scene: Scene) -> None:
    scene.put_all()
    scene.readers(scene.home, age.recipient_of(age.new_identity()))
    code, said = scene.run("rekey", "home")
    assert (code, "is not written, you could not read it" in said) == (1, True)
    assert scene.read("pancake").readers == (scene.keys["home"],)


def test_a_rekey_knows_its_sites(scene: Scene) -> None:
    assert scene.run("rekey", "hoem") == (1, "no site 'hoem': there are exoscale, home\n")


# The check of all files


def test_the_check_of_whole_secrets_finds_nothing(scene: Scene) -> None:
    scene.put_all()
    assert scene.run("check") == (0, "home, exoscale: nothing is wrong\n")
    assert scene.run("check", "home") == (0, "home: nothing is wrong\n")


def with_a_stray_file(scene: Scene) -> None:
    shutil.copy(scene.owned("pancake").path, scene.base / "secrets" / "home" / "pancaek.age")


def with_a_stray_pair(scene: Scene) -> None:
    shutil.copy(scene.owned("pancake--virtie").path, scene.base / "secrets" / "pairs" / "virtie--ns9.age")


def with_an_unsorted_pair(scene: Scene) -> None:
    shutil.move(scene.owned("db1--pancake").path, scene.base / "secrets" / "pairs" / "pancake--db1.age")


def with_a_pair_of_one(scene: Scene) -> None:
    shutil.copy(scene.owned("pancake").path, scene.base / "secrets" / "pairs" / "pancake.age")


def with_a_file_at_another_site(scene: Scene) -> None:
    shutil.copy(scene.owned("pancake").path, scene.base / "secrets" / "exoscale" / "pancake.age")


def written_by_hand_for_more(scene: Scene) -> None:
    path = scene.owned("pancake").path
    text = age.decrypt(path.read_bytes(), scene.store.identities(scene.home))
    path.write_bytes(age.encrypt(text, [scene.keys["home"], age.recipient_of(age.new_identity())]))


def with_another_public_half(scene: Scene) -> None:
    scene.put("pancake", "totp-alice", "borg", more={SSH_HOST_KEY.name: hostkeys.make()})
    path = scene.store.public_key_file(scene.fleet.host("pancake"))
    path.write_text(hostkeys.known_hosts_line("pancake", hostkeys.public_half(hostkeys.make())))


def without_a_public_half(scene: Scene) -> None:
    scene.put("pancake", "totp-alice", "borg", more={SSH_HOST_KEY.name: hostkeys.make()})
    scene.store.public_key_file(scene.fleet.host("pancake")).unlink()


def with_the_public_half_of_another(scene: Scene) -> None:
    scene.put("pancake", "totp-alice", "borg", more={SSH_HOST_KEY.name: hostkeys.make()})
    path = scene.store.public_key_file(scene.fleet.host("pancake"))
    path.write_text(path.read_text().replace("pancake", "db1"))


def with_no_host_key(scene: Scene) -> None:
    values = {"ssh_host_ed25519_key": {"value": CANARY, "changed": "2026-11-23", "seen_by": []}}
    overwritten("pancake", document(values=values, readers=[scene.keys["home"]]))(scene)


FOUND: dict[str, tuple[Callable[[Scene], object], str]] = {
    **{name: STOPS[name] for name in STOPS if name != "a key of nobody"},
    "a stray file": (with_a_stray_file, r"home/pancaek\.age: there is no host 'pancaek'; rename or remove the file"),
    "a stray pair": (with_a_stray_pair, r"pairs/virtie--ns9\.age: no pair of hosts: .*there is no host 'ns9'"),
    "a pair of one": (with_a_pair_of_one, r"pairs/pancake\.age: no pair of hosts: '' cannot be one of a pair"),
    "an unsorted pair": (with_an_unsorted_pair, r"pairs/pancake--db1\.age: should be .*/pairs/db1--pancake\.age"),
    "another site's folder": (with_a_file_at_another_site, r"exoscale/pancake\.age: should be .*/home/pancake\.age"),
    "more readers than it says": (written_by_hand_for_more, HOST + r"is not for the readers of readers\.txt"),
    "another public half": (with_another_public_half, r"known_hosts/pancake is not the public half of"),
    "no public half": (without_a_public_half, r"known_hosts/pancake is not the public half of"),
    "another host's public half": (with_the_public_half_of_another, r"known_hosts/pancake is not the public half of"),
    "no host key": (with_no_host_key, HOST + "ssh_host_ed25519_key: no Ed25519 private key"),
}


@pytest.mark.parametrize("case", FOUND)
def test_the_check_says_each_thing_in_one_line(case: str, scene: Scene) -> None:
    scene.put_all()
    change, words = FOUND[case]
    change(scene)
    code, said = scene.run("check")
    assert code == 1
    assert any(re.search(words.partition("; fleet secrets edit")[0], line) for line in said.splitlines()), said
    assert CANARY not in said.replace("canaries", "")


def test_the_check_finds_a_value_that_nobody_put(tmp_path: Path) -> None:
    scene = Scene(tmp_path, fleet_of(pancake=of_text(TOTP), virtie=(Wants(job=f"x {TOTP}"),)))
    code, said = scene.run("check")
    assert code == 1
    assert "home/pancake.age: is missing" in said
    assert "virtie: Wants: the secret totp-alice is in what it declares" in said


# From the keyboard


def editor(folder: Path, script: str) -> str:
    path = folder / "editor"
    path.write_text(f"#!/bin/sh\nset -eu\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """Where the plain text is while it is edited; nothing is left in it."""
    folder = tmp_path / "memory"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


def test_an_edit_is_encrypted_again(scene: Scene, memory: Path) -> None:
    scene.put("pancake", "totp-alice", "borg")
    script = f'ls -ld "$1" "${{1%/*}}" >{scene.base}/modes; sed "s/canary/magpie/" "$1" >"$1.x"; cat "$1.x" >"$1"'
    code, said = scene.run("edit", "pancake", EDITOR=editor(scene.base, script), VISUAL="", XDG_RUNTIME_DIR=str(memory))
    assert code == 0
    assert said.endswith("home/pancake.age: written\n")
    changed = scene.read("pancake")
    assert changed.values["borg"].value.get_secret_value() == "a magpie sings in here"
    assert changed.values["borg"].changed == date.today()
    assert changed.values["totp-alice"] == Entry(value=VALUES["totp-alice"], changed=TODAY, seen_by=changed.readers)
    modes = (scene.base / "modes").read_text().splitlines()
    assert [line.split()[0] for line in sorted(modes)] == ["-rw-------", "drwx------"]
    assert str(memory) in modes[0]


def test_an_edit_offers_what_is_wanted_and_says_what_is_lacking(scene: Scene, memory: Path) -> None:
    script = (
        f'cp "$1" {scene.base}/offered; sed \'s/^borg: ""/borg: "typed by the owner"/\' "$1" >"$1.x"; cat "$1.x" >"$1"'
    )
    code, said = scene.run("edit", "pancake", VISUAL=editor(scene.base, script), XDG_RUNTIME_DIR=str(memory))
    assert code == 0
    assert "still lacks totp-alice" in said
    assert '# totp-alice: 40 small hexadecimal digits\ntotp-alice: ""\n' in (scene.base / "offered").read_text()
    assert plain((name, entry.value) for name, entry in scene.read("pancake").values.items()) == {
        "borg": "typed by the owner"
    }


def test_two_of_the_same_name_are_no_pair(scene: Scene) -> None:
    assert scene.run("edit", "pancake--pancake") == (1, "no pair of hosts: 'pancake' makes no pair with itself\n")


def test_the_secrets_of_a_pair_are_edited_by_either_order(scene: Scene, memory: Path) -> None:
    script = f'echo \'axfr: "{VALUES["axfr"].get_secret_value()}"\' >"$1"'
    for name in ("virtie--pancake", "pancake--virtie"):
        scene.owned("pancake--virtie").path.unlink(missing_ok=True)
        code, said = scene.run("edit", name, VISUAL=editor(scene.base, script), XDG_RUNTIME_DIR=str(memory))
        assert (code, "still" in said) == (0, False)
        assert scene.read("pancake--virtie", scene.exoscale).values["axfr"].value == VALUES["axfr"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("true", "unchanged: nothing was written"),
        (': >"$1"', "empty: nothing was written"),
        ("echo '# only a comment' >\"$1\"", "empty: nothing was written"),
        ('echo \'borg: ""\' >"$1"', "empty: nothing was written"),
        ("exit 3", "editor: failed; nothing was written"),
        ('rm "$1"', "editor: No such file or directory; nothing was written"),
    ],
)
def test_an_edit_that_changes_nothing_writes_nothing(script: str, words: str, scene: Scene, memory: Path) -> None:
    path = scene.put("pancake", "totp-alice", "borg")
    before = path.read_bytes()
    _, said = scene.run("edit", "pancake", VISUAL=editor(scene.base, script), XDG_RUNTIME_DIR=str(memory))
    assert words in said
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('totp-alice: "canary"', "totp-alice is not 40 small hexadecimal digits"),
        ('ssh_host_ed25519_key: "canary"', "ssh_host_ed25519_key is not an Ed25519 private key"),
        ("borg: canary in no quotes", "line 1: borg: has to be one text in double quotes"),
        ("borg: [", "line 2: cannot be read"),
    ],
)
def test_an_edit_that_does_not_fit_is_edited_again_or_dropped(
    text: str, words: str, scene: Scene, memory: Path
) -> None:
    path = scene.put("pancake", "totp-alice", "borg")
    before = path.read_bytes()
    script = f"cat >\"$1\" <<'END'\n{text}\nEND\necho >>{scene.base}/times"
    code, said = scene.run(
        "edit", "pancake", stdin="y\nn\n", VISUAL=editor(scene.base, script), XDG_RUNTIME_DIR=str(memory)
    )
    assert code == 0
    assert words in said
    assert "nothing was written" in said
    assert (scene.base / "times").read_text() == "\n\n"
    assert CANARY not in said
    assert path.read_bytes() == before


def test_a_signal_leaves_no_plain_text_behind(scene: Scene, memory: Path) -> None:
    scene.put("pancake", "borg")
    script = f"touch {scene.base}/ready; exec sleep 60"
    child = os.fork()
    if child == 0:
        code, _ = scene.run("edit", "pancake", VISUAL=editor(scene.base, script), XDG_RUNTIME_DIR=str(memory))
        os._exit(code)
    for _ in range(600):
        if (scene.base / "ready").exists():
            break
        threading.Event().wait(0.05)
    assert [path.name for path in memory.rglob("*.yaml")] == ["secrets.yaml"]
    os.kill(child, 15)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + 15


def test_show_is_for_a_terminal_only(scene: Scene) -> None:
    scene.put("pancake", "totp-alice", "borg")
    assert scene.run("show", "pancake") == (1, "secrets are shown on a terminal only, not in a file or a pipe\n")


def on_a_terminal(work: Callable[[], object], typed: bytes = b"") -> str:
    """Return what `work` writes to a terminal of its own, on which `typed` is typed."""
    child, terminal = pty.fork()
    if child == 0:
        code = 1
        try:
            sys.stdout = sys.stderr = open(1, "w", closefd=False)  # noqa: SIM115
            work()
            code = 0
        except SystemExit as error:
            sys.stdout.write(f"{error}\n")
        finally:
            sys.stdout.flush()
            os._exit(code)
    if typed:
        os.write(terminal, typed)
    said = b""
    while True:
        try:
            read = os.read(terminal, 4096)
        except OSError:
            break
        if not read:
            break
        said += read
    os.close(terminal)
    os.waitpid(child, 0)
    return said.decode().replace("\r\n", "\n")


def verb(scene: Scene, *arguments: str) -> Callable[[], object]:
    return lambda: command.main(list(arguments), obj=scene.store, standalone_mode=False)


def test_show_on_a_terminal(scene: Scene) -> None:
    scene.put("pancake", "totp-alice", "borg")
    assert on_a_terminal(verb(scene, "show", "pancake")) == (
        f"borg, of 2026-11-23:\na canary sings in here\ntotp-alice, of 2026-11-23:\n{'ca' * 20}\n"
    )
    assert on_a_terminal(verb(scene, "show", "pancake", "borg")) == "borg, of 2026-11-23:\na canary sings in here\n"
    assert "has no borgg; there are: borg, totp-alice" in on_a_terminal(verb(scene, "show", "pancake", "borgg"))
    assert "no host 'pancaek': there are" in on_a_terminal(verb(scene, "show", "pancaek"))


def test_the_plain_commands_are_shown(scene: Scene) -> None:
    scene.put_all()
    key, path, readers = (
        scene.store.identity_file(scene.home),
        scene.owned("pancake").path,
        scene.store.readers_file(scene.home),
    )
    assert scene.run("show", "pancake", "--show") == (0, f"age --decrypt -i {key} {path}\n")
    assert scene.run("edit", "pancake", "--show")[1].splitlines()[1] == f"age --encrypt -R {readers} -o {path}"
    assert f"age --decrypt -i {key} {path} | age --encrypt -R {readers} -o {path}.new && mv {path}.new {path}" in (
        scene.run("rekey", "home", "--show")[1].splitlines()
    )
    assert "ssh-keygen -t ed25519" in scene.run("hostkey", "make", "pancake", "--show")[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "age --decrypt -i ~/.config/homefleet/home.age-key secrets/home/kvm1.age\n"),
        (("--lab",), "age --decrypt -i .lab/0/secrets/home.age-key .lab/0/secrets/home/kvm1.age\n"),
    ],
)
def test_the_secrets_are_production_s_or_the_lab_s(options: tuple[str, ...], words: str) -> None:
    assert CliRunner().invoke(command, [*options, "show", "kvm1", "--show"]).output == words


# Host keys


def test_a_made_host_key_is_stored_and_its_public_half_is_in_clear(scene: Scene) -> None:
    scene.put("pancake", "borg")
    code, said = scene.run("hostkey", "make", "pancake")
    assert code == 0
    made = scene.read("pancake").values[SSH_HOST_KEY.name].value
    public = hostkeys.public_half(made)
    assert hostkeys.fingerprint(public) in said
    path = scene.base / "secrets" / "home" / "known_hosts" / "pancake"
    assert public in ssh_keygen("-F", "pancake", "-f", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert set(scene.read("pancake").values) == {"borg", SSH_HOST_KEY.name}
    assert scene.run("hostkey", "make", "pancake")[1].endswith(
        "pancake.age: has another host key; --replace gives it up\n"
    )
    assert scene.read("pancake").values[SSH_HOST_KEY.name].value == made
    assert scene.run("hostkey", "make", "pancake", "--replace")[0] == 0
    assert scene.store.public_key(scene.fleet.host("pancake")) != public


def own_key(folder: Path, *options: str) -> str:
    path = folder / f"key{len(list(folder.iterdir()))}"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path), *options], check=True)
    return path.read_text()


def test_a_host_s_own_key_is_adopted_with_the_owner_s_word(scene: Scene, tmp_path: Path) -> None:
    text = own_key(tmp_path)
    assert scene.run("hostkey", "adopt", "pancake", "--yes", stdin=text.replace("\n", "\r\n"))[0] == 0
    kept = scene.read("pancake").values[SSH_HOST_KEY.name].value.get_secret_value()
    assert f"{kept}\n" == text
    # The same key again is no other key.
    assert scene.run("hostkey", "adopt", "pancake", "--yes", stdin=text)[0] == 0
    other = own_key(tmp_path)
    assert scene.run("hostkey", "adopt", "pancake", "--yes", stdin=other)[1].endswith("--replace gives it up\n")


@pytest.mark.parametrize("right", [True, False])
def test_the_owner_types_how_the_fingerprint_ends(right: bool, scene: Scene, tmp_path: Path) -> None:
    text = own_key(tmp_path)
    public = hostkeys.public_half(hostkeys.adopt(text))
    word = hostkeys.fingerprint(public)[-6:] if right else "xxxxxx"
    file = tmp_path / "piped"
    file.write_text(text)

    def adopt() -> None:
        with file.open() as sys.stdin:
            verb(scene, "hostkey", "adopt", "pancake")()

    said = on_a_terminal(adopt, f"{word}\n".encode())
    assert hostkeys.fingerprint(public) in said
    assert (scene.store.public_key(scene.fleet.host("pancake")) == public) is right
    assert ("'xxxxxx' is not how the fingerprint ends; nothing was written" in said) is not right
    assert scene.owned("pancake").path.exists() is right


def test_without_a_terminal_nobody_s_word_is_taken(scene: Scene, tmp_path: Path) -> None:
    text = own_key(tmp_path)
    child = os.fork()
    if child == 0:
        os.setsid()
        code, said = scene.run("hostkey", "adopt", "pancake", stdin=text)
        os._exit(0 if code == 1 and "no terminal to compare the fingerprint on" in said else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not scene.owned("pancake").path.exists()


def with_halves_of_two(tmp_path: Path) -> str:
    del tmp_path
    return ssh_private_key(b"s" * 32, b"p" * 32)


def test_what_is_no_host_key_is_not_adopted(scene: Scene, tmp_path: Path) -> None:
    rsa = tmp_path / "rsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(rsa)], check=True)
    cases = {
        "": "is not an Ed25519 private key",
        "ssh-ed25519 AAAA": "is not an Ed25519 private key",
        rsa.read_text(): "is not an Ed25519 private key",
        own_key(tmp_path, "-N", "a passphrase of its own", "-a", "1"): "is not an Ed25519 private key",
        own_key(tmp_path).replace("AAAA", "AAAB", 1): "is not an Ed25519 private key",
        with_halves_of_two(tmp_path): "its public half belongs to another key",
    }
    for text, words in cases.items():
        code, said = scene.run("hostkey", "adopt", "pancake", "--yes", stdin=text)
        assert code == 1
        assert f"standard input: {words}" in said
        assert not any(line in said for line in text.splitlines()[1:-1] if line)
    assert not scene.owned("pancake").path.exists()


def test_records_are_made_of_ed25519_keys_only() -> None:
    for derive in (hostkeys.fingerprint, lambda public: hostkeys.sshfp("ns3", public)):
        with pytest.raises(ValueError, match="'ssh-rsa' is no ssh-ed25519"):
            derive("ssh-rsa AAAA")


# The text that is edited


LINES = st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126)), min_size=1).map("\n".join)


@given(st.dictionaries(NAMES, LINES.filter(lambda text: bool(text) and not text.endswith("\n"))))
def test_a_sheet_is_read_back(values: dict[str, str]) -> None:
    secret = {name: SecretStr(value) for name, value in values.items()}
    assert from_sheet(to_sheet("pancake", secret, [TOTP, SSH_HOST_KEY])) == secret


SHEETS = {
    "no mapping": ("- canary\n", "line 1: each line is"),
    "a comment cuts": ("\nborg: canary #canary\n", "line 2: borg: has to be one text in double quotes"),
    "an alias": ("borg: *canary\n", "line 1: cannot be read"),
    "a tag": ('borg: !canary ""\n', "line 1: borg: has to be one text"),
    "an unknown escape": ('borg: "\\canary"\n', "line 1: cannot be read"),
    "twice": ('borg: "a"\nborg: "b"\n', "line 2: borg is there twice"),
    "a bad name": ('Borg: "a"\n', "line 1: no name"),
    "a list": ('borg: ["canary"]\n', "line 1: borg: has to be one text"),
    "other letters": ('borg: "caché"\n', "line 1: borg: only printable ASCII"),
    "a control character": ("borg: \x01\n", "only printable ASCII"),
    "a control character, escaped": ('borg: "\\x01"\n', "line 1: borg: only printable ASCII"),
}


@pytest.mark.parametrize("case", SHEETS)
def test_a_bad_sheet_is_refused_by_line_without_quoting_it(case: str) -> None:
    text, words = SHEETS[case]
    with pytest.raises(ValueError, match=words) as refused:
        from_sheet(text)
    assert CANARY not in "".join(traceback.format_exception(refused.value))
