"""What `fleet pki` asks hosts for, over their pinned SSH connections: requests, and what their daemons have loaded."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from pyinfra.api import FactBase, FactProcessError

from facts.keys import Held, HeldQuery, HeldState, Requests
from fleet.model.site import Fleet, Host, Os, Site
from fleet.pki import certificates
from fleet.pki.wanted import PkiError, Wanted

T = TypeVar("T")

Ask = Callable[[Site, Host, str], subprocess.CompletedProcess[str]]
"""Has root's shell on a host run a command, as `fleet.cli.console.ask` does."""


@dataclass(frozen=True)
class Requested:
    """By `Wanted.slot`, the requests that were `found`, in PEM, and why others are `missing`; the `silent` hosts."""

    found: dict[str, str]
    missing: dict[str, str]
    silent: frozenset[str]


def requests(fleet: Fleet, ask: Ask, wanted: Sequence[Wanted], folder: Path | None) -> Requested:
    """Return the requests for `wanted`: ``SLOT.csr`` in `folder` where there is one, the others from the hosts."""
    files = {one.slot: folder / f"{one.slot}.csr" for one in wanted} if folder is not None else {}
    found = {slot: path.read_text(errors="replace") for slot, path in files.items() if path.is_file()}
    asked = by_host(one for one in wanted if one.slot not in found)
    commands = {host: Requests().command({one.declared.key_path: host for one in ones}) for host, ones in asked.items()}
    answers = _answers(fleet, ask, Requests(), commands)
    missing: dict[str, str] = {}
    for one in (one for ones in asked.values() for one in ones):
        answer, path = answers[one.host], one.declared.key_path
        if isinstance(answer, PkiError):
            by_hand = f"fleet pki sign {one.host} {one.use} --authority {one.authority.name}"
            missing[one.slot] = f"{one.host} cannot be asked: {answer}; --requests FOLDER, or {by_hand}"
        elif path not in answer:
            missing[one.slot] = f"{one.host} has no key yet: deploy it first: the deploy makes its key"
        elif (request := answer[path]) is None:
            missing[one.slot] = f"{path} on {one.host} makes no request: deploy it: the deploy says what is wrong"
        else:
            found[one.slot] = request
    return Requested(found, missing, frozenset(host for host, each in answers.items() if isinstance(each, PkiError)))


def held(
    fleet: Fleet, ask: Ask, wanted: Iterable[Wanted], folder: Path | None
) -> tuple[dict[str, frozenset[str]], dict[str, str]]:
    """Return what the hosts of `wanted` have loaded of it, as `fleet.pki.rotation.Held`; and why others could not say.

    ``HOST.pem`` in `folder` counts in the place of an answer. Raises PkiError for a file there without a certificate.
    """
    found = _held_in(folder) if folder is not None else {}
    asked = by_host(one for one in wanted if one.host not in found)
    commands = {
        host: Held().command([_query(one) for one in ones], openbsd=fleet.host(host).os is Os.OPENBSD)
        for host, ones in asked.items()
    }
    silent: dict[str, str] = {}
    for host, answer in _answers(fleet, ask, Held(), commands).items():
        try:
            if isinstance(answer, PkiError):
                raise answer
            found[host] = _loaded([answer.get(one.declared.name, HeldState()) for one in asked[host]])
        except (PkiError, ValueError) as error:
            silent[host] = f"cannot be asked: {error}; --held FOLDER"
    return found, silent


def by_host(wanted: Iterable[Wanted]) -> dict[str, list[Wanted]]:
    """Return certificates by the name of their host, in their order."""
    found: dict[str, list[Wanted]] = {}
    for one in wanted:
        found.setdefault(one.host, []).append(one)
    return found


def _query(one: Wanted) -> HeldQuery:
    return HeldQuery(one.declared.name, one.declared.certificate_path, one.declared.roots_path)


def _loaded(states: Sequence[HeldState]) -> frozenset[str]:
    """Return the fingerprints of what a host has: its certificates, and the roots that all of its daemons trust."""
    own = (frozenset(map(_fingerprint, each.certificates)) for each in states)
    roots = (frozenset(map(_fingerprint, each.roots)) for each in states)
    return frozenset().union(*own) | frozenset.intersection(*roots)


def _fingerprint(pem: str) -> str:
    return certificates.fingerprint(certificates.read_certificate(pem))


def _held_in(folder: Path) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for path in sorted(folder.glob("*.pem")):
        try:
            every = x509.load_pem_x509_certificates(path.read_bytes())
        except ValueError:
            raise PkiError(f"{path}: has no certificates in PEM") from None
        found[path.stem] = frozenset(map(certificates.fingerprint, every))
    return found


def _answers(fleet: Fleet, ask: Ask, fact: FactBase[T | None], commands: Mapping[str, str]) -> dict[str, T | PkiError]:
    """Ask the hosts of `commands` for `fact`, all at the same time; return their answers, or why there is none."""

    def one(name: str) -> T | PkiError:
        host = fleet.host(name)
        done = ask(fleet.site_of(host), host, commands[name])
        try:
            answer = fact.process(done.stdout.splitlines()) if done.returncode == 0 else None
        except FactProcessError as error:
            return PkiError(str(error))
        said = [line for line in done.stderr.splitlines() if line.strip()]
        return answer if answer is not None else PkiError(said[-1] if said else "it said nothing")

    with ThreadPoolExecutor(max_workers=len(commands) or 1) as pool:
        return dict(zip(commands, pool.map(one, commands), strict=True))
