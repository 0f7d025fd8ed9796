"""The checks that both systems have: files, configuration sets in flight, sockets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

from facts.filesets import ASIDE
from fleet.model.secret import marks
from fleet.model.service import File, Listen
from fleet.model.site import EMERGENCY_PORT, Host
from tests.verify import kinds
from tests.verify.evidence import Evidence
from tests.verify.kinds import Check, Judge, Kind, Red
from tests.verify.modules.sockets import Listening

TOLERATED = (("tcp", EMERGENCY_PORT), ("udp", 514))
"""Sockets of every OpenBSD host that nobody declares: sshd's for the day on which pf.conf does not load, which pf.conf
itself never passes, and the one that syslogd(8) sends from, which is shut for receiving (syslogd.c, `socket_bind`)."""


def check(kind: Kind, host: Host, name: str, judge: Judge, /, **known: str) -> Check:
    """Return a check of `host`; `known` are the words that the kind's commands need."""
    return Check(kind, host.name, name, judge, known, host.os)


def bind(judge: Callable[..., None], *arguments: Any) -> Judge:
    """Return `judge` with its arguments, for checks that are made in a loop."""
    return lambda: judge(*arguments)


def files(evidence: Evidence) -> Iterator[Check]:
    """Yield the checks of every declared file, of what is beside it, and of what a run left."""
    declared = evidence.declared
    for each in declared.sets:
        for file in each.files:
            yield from _file(evidence, file)
        ours = {file.path for file in each.files}
        for pattern in each.exclusive:
            judge = bind(_strays, evidence, pattern, ours)
            stray = pattern.replace("*", "zz-broken")
            yield check(kinds.FILE_STRAY, declared.host, f"stray{pattern}", judge, stray=stray)
    for kind, word, meaning in (
        (kinds.SET_PENDING, "pending", "left in the middle"),
        (kinds.SET_ARMED, "armed", "not confirmed yet"),
    ):
        judge = bind(_markers, evidence, evidence.markers[word], meaning)
        yield check(kind, declared.host, f"sets/{word}", judge)


def _file(evidence: Evidence, file: File) -> Iterator[Check]:
    def content() -> None:
        found = evidence.files.get(file.path)
        if found is None:
            raise Red("it is missing")
        rendered = found.sha256 == digest(file.text)
        if marks(file.text):
            # What is in the place of the marks is not known here; that nothing is, is.
            if rendered:
                raise Red("it has the marks of its secrets in it, not the secrets")
        elif not rendered:
            raise Red("its text is not the rendered one" if found.sha256 else f"it is a {found.kind}")

    def owner() -> None:
        found = evidence.files.get(file.path)
        wanted = f"{file.owner}:{file.group}"
        if found is None or f"{found.owner}:{found.group}" != wanted:
            raise Red("it is missing" if found is None else f"it is {found.owner}:{found.group}'s, not {wanted}'s")

    def mode() -> None:
        found = evidence.files.get(file.path)
        if found is None or found.mode != file.mode:
            raise Red("it is missing" if found is None else f"its mode is {found.mode:o}, not {file.mode:o}")

    host = evidence.declared.host
    known = {"path": file.path, "owner": f"{file.owner}:{file.group}", "mode": f"{file.mode:o}"}
    yield check(kinds.FILE_CONTENT, host, f"file{file.path}/content", content, **known)
    yield check(kinds.FILE_OWNER, host, f"file{file.path}/owner", owner, **known)
    yield check(kinds.FILE_MODE, host, f"file{file.path}/mode", mode, **known)


def digest(text: str) -> str:
    """Return the SHA-256 of `text` in hexadecimal, as the host says it of a file."""
    return hashlib.sha256(text.encode()).hexdigest()


def _strays(evidence: Evidence, pattern: str, ours: set[str]) -> None:
    found = [path for path in evidence.matching(pattern) if path not in ours and not path.endswith(ASIDE)]
    if found:
        raise Red(f"{', '.join(found)} is read too")


def _markers(evidence: Evidence, pattern: str, meaning: str) -> None:
    found = [path.rpartition("/")[2] for path in evidence.matching(pattern)]
    if found:
        raise Red(f"{', '.join(found)}: {meaning}")


def ports(evidence: Evidence) -> Iterator[Check]:
    """Yield the checks of what listens, as seen from other hosts."""
    declared = evidence.declared
    always = [listen for listen in declared.listens if listen.during is None]
    tolerated = TOLERATED if declared.openbsd else ()

    def listening(listen: Listen) -> None:
        if not any(_covers(listen, each) for each in _outside(evidence)):
            raise Red("nothing listens there")

    def stray() -> None:
        found = {
            f"{each.protocol}/{each.port}{_owner(evidence, each)}"
            for each in _outside(evidence)
            if not _known(each, always, tolerated)
        }
        if found:
            raise Red(f"not declared: {', '.join(sorted(found))}")

    for listen in {(each.protocol, each.port, each.last_port): each for each in always}.values():
        last = f"-{listen.last_port}" if listen.last_port else ""
        where = f"port/{listen.protocol}-{listen.port}{last}/listening"
        judge = bind(listening, listen)
        yield check(kinds.PORT_LISTENING, declared.host, where, judge, port=str(listen.port))
    yield check(kinds.PORT_STRAY, declared.host, "port/stray", stray)


def _outside(evidence: Evidence) -> list[Listening]:
    return [each for each in evidence.listening if not each.loopback]


def _known(found: Listening, always: Collection[Listen], tolerated: Collection[tuple[str, int]]) -> bool:
    return (found.protocol, found.port) in tolerated or any(_covers(listen, found) for listen in always)


def _owner(evidence: Evidence, found: Listening) -> str:
    return "" if evidence.declared.openbsd else f" ({found.owner or 'the kernel'})"


def _covers(listen: Listen, found: Listening) -> bool:
    last = listen.last_port or listen.port
    return listen.protocol == found.protocol and listen.port <= found.port <= last
