"""Kernel state of an OpenBSD host, now and at boot; sysctl(8), sysctl.conf(5), openbsd-contract 6.2, 11, 14."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Generator, Sequence

from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand, operation

from facts.filesets import FileState
from facts.openbsd.sysctl import PATH, Sysctls, SysctlState
from fleet.connector import read
from operations.openbsd.accounts import written
from operations.openbsd.scripts import refuse
from operations.steps import Plan, Refusal, Step, perform

_KEY = re.compile(r"[a-z][a-z0-9_]*(\.[A-Za-z0-9_-]+)+")


def plan_sysctls(wanted: Sequence[tuple[str, str]], found: SysctlState) -> Plan:
    """Return what writes /etc/sysctl.conf whole and sets what the kernel has otherwise. Pure.

    A name that the kernel does not have is refused; the other values are set and written. A value that leaves the set
    stays in the running kernel until the next boot.

    Fails: ValueError for a value of more than one word, which rc(8) would take apart (contract 14).
    """
    check(wanted)
    steps: list[Step] = []
    refused: list[Refusal] = []
    text = "".join(f"{key}={value}\n" for key, value in wanted)
    state = FileState("root", "wheel", 0o644, hashlib.sha256(text.encode()).hexdigest())
    if found.file != state and not (found.file is None and not text):
        steps.append(_file(text))
    for key, value in wanted:
        if key not in found.values:
            refused.append(Refusal(key, f"this kernel has no {key}, or does not show it"))
        elif found.values[key] != value:
            steps.append(_set(key, value, found.values[key]))
    return Plan(tuple(steps), tuple(refused))


def check(wanted: Sequence[tuple[str, str]]) -> None:
    """Fail with ValueError for what cannot be a line of sysctl.conf, or is there twice."""
    keys = [key for key, _ in wanted]
    for key, value in wanted:
        if not _KEY.fullmatch(key):
            raise ValueError(f"sysctl {key!r}: no name such as net.inet.ip.forwarding")
        if not re.fullmatch(r"[^\s#=]+", value):
            raise ValueError(f"sysctl {key}: {value!r} is not one word: rc(8) reads sysctl.conf word by word")
        if keys.count(key) > 1:
            raise ValueError(f"sysctl {key} is there twice")


def _file(text: str) -> Step:
    command = written(PATH, "root:wheel", 0o644, text)
    if not text:
        return Step(PATH, "emptied", command.replace("cat >", ": >"))
    return Step(PATH, "written", command, stdin=text)


def _set(key: str, value: str, before: str) -> Step:
    # sysctl exits with 0 when the kernel refuses (contract 0.3.2).
    command = (
        f"e=$(sysctl {shlex.quote(f'{key}={value}')} 2>&1); v=$(sysctl -n {key}); "
        f'[ "$v" = {shlex.quote(value)} ] || {{ printf \'%s\\n\' "$e" "it is $v" >&2; exit 1; }}'
    )
    return Step(key, f"{before} -> {value}", command)


@operation()
def sysctls(wanted: Sequence[tuple[str, str]]) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Write /etc/sysctl.conf whole and set what differs in the running kernel.

    Arguments: `wanted`, pairs of name and value, in the order of the file: all that the host shall have.
    """
    try:
        check(wanted)
    except ValueError as error:
        yield refuse(error)
        return
    found = read(host, Sysctls, keys=[key for key, _ in wanted])
    if found is None:
        yield StringCommand("echo 'the sysctls of this host could not be read' >&2; exit 1")
        return
    yield from perform(plan_sysctls(wanted, found))
