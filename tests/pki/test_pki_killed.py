"""The controller dies at any point of a verb: the register stays true, and the next run brings it to its end.

Each verb is run in a process of its own that dies before its n-th call that changes something on the disk, and once
more in the middle of it where that call is a write; for every n there is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fleet.cli.pki import renewed
from fleet.pki import certificates, keys
from fleet.pki.ca import Ca, no_requests
from fleet.pki.due import Kind, State, survey
from fleet.pki.register import Issued, Root
from fleet.pki.rotation import Action
from fleet.pki.store import Store
from tests.pki.pki_fleet import NOW, PASSPHRASE, WANTED, Hosts, at_work, named, quick_seal, quick_unseal, whole

KILLED = 42
LATER = NOW + timedelta(days=700)
CALLS = ("fsync", "ftruncate", "mkdir", "open", "replace", "unlink", "write")
VIRTIE = named("log.virtie.client")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "seal", quick_seal)
    monkeypatch.setattr(keys, "unseal", quick_unseal)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory: thousands of fsync(2) on a disk take minutes."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@dataclass(frozen=True)
class Verb:
    """A verb: the state that it begins with, when it runs, and what it does."""

    before: Callable[[Path, Hosts], object]
    now: datetime
    does: Callable[[Ca, Hosts], object]

    def run(self, folder: Path, hosts: Hosts) -> None:
        with at_work(folder, self.now) as ca:
            self.does(ca, hosts)


def _held(ca: Ca, *, certificates_too: bool) -> dict[str, frozenset[str]]:
    """Return that every host has loaded each root, and each certificate too if it was deployed since."""
    register = ca.ledger.register
    every = {root.signed for root in register.all_roots()}
    if certificates_too:
        every |= {each.signed for each in register.issued()}
    return dict.fromkeys(("db1", "manicouagan1", "virtie"), frozenset(map(certificates.fingerprint, every)))


def _nothing(folder: Path, hosts: Hosts) -> None:
    del folder, hosts


def _rooted(folder: Path, hosts: Hosts) -> None:
    del hosts
    with at_work(folder) as ca:
        ca.init()


def _reinstalled(folder: Path, hosts: Hosts) -> None:
    whole(folder, hosts)
    hosts.request(VIRTIE, new=True)


def _two_roots(folder: Path, hosts: Hosts) -> None:
    whole(folder, hosts)
    with at_work(folder) as ca:
        ca.rotate("log", {}, begin=True)


def _reissued(folder: Path, hosts: Hosts) -> None:
    _two_roots(folder, hosts)
    with at_work(folder) as ca:
        ca.rotate("log", _held(ca, certificates_too=False))


def _init(ca: Ca, hosts: Hosts) -> None:
    del hosts
    ca.init()


def _sign(ca: Ca, hosts: Hosts) -> None:
    ca.sign(VIRTIE, hosts.request(VIRTIE))


def _renew(ca: Ca, hosts: Hosts) -> None:
    ca.renew(hosts)


def _renew_asking(ca: Ca, hosts: Hosts) -> None:
    done = renewed(ca, hosts(WANTED), lambda *_: None)
    assert not done.refused
    assert not done.lacking


def _revoke(ca: Ca, hosts: Hosts) -> None:
    del hosts
    register = ca.ledger.register
    behind = any(register.crl_is_behind(root.serial) for root in register.roots("log"))
    # Once all of it is done, the verb itself says that there is nothing to revoke.
    if behind or register.accepted(VIRTIE.slot, ca.now):
        ca.revoke(VIRTIE.slot, "key-compromise")


def _begin(ca: Ca, hosts: Hosts) -> None:
    del hosts
    ca.rotate("log", {}, begin=True)


def _reissue(ca: Ca, hosts: Hosts) -> None:
    del hosts
    ca.rotate("log", _held(ca, certificates_too=False))


def _drop(ca: Ca, hosts: Hosts) -> None:
    del hosts
    _, step = ca.rotate("log", _held(ca, certificates_too=True))
    assert step.action is Action.BEGIN


VERBS = {
    "init": Verb(_nothing, NOW, _init),
    "sign": Verb(_rooted, NOW, _sign),
    "renew": Verb(whole, LATER, _renew),
    "renew: first requests": Verb(_rooted, NOW, _renew_asking),
    "renew: a new key": Verb(_reinstalled, LATER, _renew_asking),
    "revoke": Verb(whole, NOW, _revoke),
    "rotate: begin": Verb(whole, NOW, _begin),
    "rotate: reissue": Verb(_two_roots, NOW, _reissue),
    "rotate: drop": Verb(_reissued, NOW, _drop),
}


def _in_a_child(run: Callable[[], object], dies_at: int, half: bool) -> tuple[int, list[str]]:
    """Run in a child that dies at call number `dies_at`; return its exit code and the calls that it made."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _child(run, dies_at, half, write)
    os.close(write)
    with os.fdopen(read) as pipe:
        calls = pipe.read().split()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), calls


def _child(run: Callable[[], object], dies_at: int, half: bool, report: int) -> NoReturn:
    real = {name: getattr(os, name) for name in CALLS}
    made = 0

    def dying(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal made
            if name == "open" and not arguments[1] & os.O_CREAT:
                return real["open"](*arguments, **options)
            if made == dies_at:
                if half:
                    real["write"](arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os._exit(KILLED)
            made += 1
            real["write"](report, f"{name}\n".encode())
            return real[name](*arguments, **options)

        return call

    code = 1
    try:
        for name in CALLS:
            setattr(os, name, dying(name))
        run()
        code = 0
    except BaseException:
        for name in CALLS:
            setattr(os, name, real[name])
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(code)


def _register_is_true(folder: Path) -> None:
    """Whatever is on the disk is in the register, and every key belongs to a root or to one that was begun."""
    store = Store(folder)
    register = store.read()
    every: list[Root | Issued] = [*register.all_roots(), *register.issued()]
    recorded = {each.certificate for each in every}
    for path in folder.glob("*/*.pem"):
        if path.name != "crl.pem":
            pieces = path.read_text().split("-----END CERTIFICATE-----\n")[:-1]
            assert {f"{piece}-----END CERTIFICATE-----\n" for piece in pieces} <= recorded, path
    begun = {store.key_path(each.authority, each.serial) for each in register.unused_keys()}
    for path in folder.glob("*/*.key.age"):
        assert path in begun or path.stem.removesuffix(".key") in {root.serial for root in register.all_roots()}
        assert path.stat().st_mode & 0o777 == 0o600
    for root in register.all_roots():
        key = keys.unseal(store.key(root), PASSPHRASE, "a key")
        assert certificates.same_key(key.public_key(), certificates.public_key(root.signed))
    assert len({each.serial for each in every}) == len(every)


def _it_works(folder: Path, now: datetime) -> None:
    """Each host's last certificate verifies against the roots that are trusted, as openssl sees it."""
    register = Store(folder).read()
    with tempfile.TemporaryDirectory() as made:
        for authority, use in sorted({(one.authority.name, one.use) for one in WANTED}):
            roots = Path(made, "roots")
            roots.write_text("".join(root.certificate for root in register.roots(authority)))
            leaves = []
            for one in WANTED:
                current = register.current(one.slot)
                if (one.authority.name, one.use) == (authority, use) and current and not register.is_revoked(current):
                    leaves.append(Path(made, one.slot))
                    leaves[-1].write_text(current.certificate)
            how = ["-x509_strict", "-attime", str(int(now.timestamp())), "-purpose", f"ssl{use}", "-CAfile", str(roots)]
            done = subprocess.run(["openssl", "verify", *how, *leaves], capture_output=True, text=True, check=False)
            assert not leaves or done.returncode == 0, done.stderr


def _copies_agree(folder: Path) -> None:
    store = Store(folder)
    register = store.read()
    for name in {root.authority for root in register.all_roots()}:
        roots = "".join(root.certificate for root in register.roots(name))
        assert store.roots_path(name).read_text() == roots
        lists = [register.crl(root.serial) for root in register.roots(name)]
        assert store.crl_path(name).read_text() == "".join(each.crl for each in lists if each is not None)
    for slot in register.slots():
        current = register.current(slot)
        assert current is not None
        path = store.certificate_path(current.authority, current.host, current.use)
        assert path.read_text() == current.certificate
    assert not list(folder.glob("*/.*"))
    assert {path.name for path in folder.glob("*/*.key.age")} == {
        f"{root.serial}.key.age" for root in register.all_roots()
    }


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_that_dies_anywhere_is_taken_up_again(name: str, memory: Path) -> None:
    verb = VERBS[name]
    hosts = Hosts()
    before = memory / "before"
    verb.before(before, hosts)
    for one in WANTED:
        hosts.request(one)

    def started(where: str) -> Path:
        folder = memory / where
        shutil.rmtree(folder, ignore_errors=True)
        if before.exists():
            shutil.copytree(before, folder)
        return folder

    undisturbed = started("undisturbed")
    code, calls = _in_a_child(partial(verb.run, undisturbed, hosts), -1, False)
    assert code == 0
    assert len(calls) >= 5
    wanted = [record.what for record in Store(undisturbed).read().records if record.what != "begun"]
    for number, call in enumerate(calls):
        for half in (False, True) if call == "write" else (False,):
            folder = started("killed")
            assert _in_a_child(partial(verb.run, folder, hosts), number, half)[0] == KILLED
            _register_is_true(folder)
            if name != "init":
                _it_works(folder, verb.now)
            verb.run(folder, hosts)
            _register_is_true(folder)
            _it_works(folder, verb.now)
            _copies_agree(folder)
            # Nothing is done twice: only a key that was begun and never used leaves a word behind.
            register = Store(folder).read()
            found = sorted(record.what for record in register.records if record.what != "begun")
            assert found == sorted(wanted) or (name == "sign" and found == sorted([*wanted, "issued"])), (number, call)
            if name.startswith("renew") or name == "rotate: drop":
                states = {item.state for item in survey(register, WANTED, verb.now)}
                assert states == {State.FINE}, (number, call)


@pytest.mark.parametrize("name", VERBS)
def test_each_write_is_on_the_disk_before_the_next(name: str, memory: Path) -> None:
    verb = VERBS[name]
    hosts = Hosts()
    verb.before(memory / "pki", hosts)
    for one in WANTED:
        hosts.request(one)
    _, calls = _in_a_child(partial(verb.run, memory / "pki", hosts), -1, False)
    for call, after in zip(calls, [*calls[1:], ""], strict=True):
        if call in ("write", "replace", "ftruncate", "mkdir"):
            assert after == "fsync", calls


def test_a_renewal_that_dies_twice(memory: Path) -> None:
    hosts = Hosts()
    whole(memory / "pki", hosts)
    verb = VERBS["renew"]
    for number in (3, 4, 5):
        assert _in_a_child(partial(verb.run, memory / "pki", hosts), number, False)[0] == KILLED
        _register_is_true(memory / "pki")
    with at_work(memory / "pki", LATER) as ca:
        done = ca.renew(no_requests).done
    register = Store(memory / "pki").read()
    issued = [record for record in register.records if isinstance(record, Issued) and record.at == LATER]
    assert len(issued) == len(WANTED)
    assert done
    assert {item.state for item in survey(register, WANTED, LATER) if item.kind is Kind.CERTIFICATE} == {State.FINE}
