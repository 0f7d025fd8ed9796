"""Daemons of an OpenBSD host as one set; rcctl(8), openbsd-contract 1."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from pyinfra import host
from pyinfra.api import FunctionCommand, StringCommand, operation

from facts.openbsd.rcctl import Kind, Service, Services, ServicesState
from fleet.connector import outcome, read
from fleet.model.service import Daemon
from operations.filesets import held_back
from operations.openbsd.scripts import unattended
from operations.steps import Plan, Refusal, Step, perform

# ``get`` with a variable exits with 0 whatever the value is (contract 0.3.4): what it prints is compared.
READ_BACK = """\
is() {
	[ "$(rcctl get "$1" "$2")" = "$3" ] || { echo "rcctl get $1 $2 says: $(rcctl get "$1" "$2")"; return 1; }
}
unset_in_file() {
	! grep -q "^$1_$2=." /etc/rc.conf.local 2>/dev/null || { echo "rc.conf.local still has $1_$2"; return 1; }
}
first() {
	o="$(rcctl order) "
	[ "$o" != "${o#"$1 "}" ] || { echo "rcctl order says: $o"; return 1; }
}
"""


def plan_daemons(wanted: Sequence[Daemon], found: ServicesState, changed: Set[str]) -> Plan:
    """Return what enables, sets, starts, reloads, restarts and stops the `wanted` daemons. Pure.

    Arguments: `changed`, the file sets that changed in this run. All that is due of one daemon is one step: a
    running daemon never stays behind its flags because a controller died in between. It is restarted only if a
    changed set asks for it, if a variable changed while it ran, or if it runs a replaced binary (DESIGN D2). Only
    one that is declared off is ever stopped. Of pkg_scripts the declared ones are put into their declared order, and
    only if they are not in it: a role that declares some of them finds them so. Of a meta script and of a special
    variable rcctl knows only whether it is enabled; what a meta script starts are daemons of their own.
    """
    steps: list[Step] = []
    refused: list[Refusal] = []
    for daemon in wanted:
        service = found.services.get(daemon.name)
        if service is None:
            if daemon.enabled:
                missing = f"service {daemon.name} does not exist; does its package bring /etc/rc.d/{daemon.name}?"
                refused.append(Refusal(daemon.name, missing))
            continue
        message = _refusal(daemon, service)
        if message:
            refused.append(Refusal(daemon.name, message))
            continue
        due = _on(daemon, service, changed) if daemon.enabled else _off(daemon.name, service)
        if due.lines:
            steps.append(Step(daemon.name, ", ".join(due.words), unattended("rcctl", due.lines, READ_BACK)))
    left_out = {refusal.subject for refusal in refused}
    steps += _order([daemon for daemon in wanted if daemon.name not in left_out], found)
    return Plan(tuple(steps), tuple(refused))


@dataclass
class _Due:
    words: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def add(self, word: str, *lines: str) -> None:
        self.words.append(word)
        self.lines += lines


def _refusal(daemon: Daemon, service: Service) -> str | None:
    """Return why rcctl could never bring `daemon` about, or None."""
    wanted = _values(daemon)
    flags = wanted["flags"]
    if service.kind in (Kind.META, Kind.SPECIAL):
        given = [name for name, value in wanted.items() if value is not None]
        if given:
            what = "a meta script" if service.kind is Kind.META else "a special variable"
            return f"{daemon.name} is {what}: it has no {given[0]}"
        return None
    if flags == "NO":
        return "flags NO contradicts enabled: declare it with enabled=False"
    if flags is not None and not _kept(flags):
        return f"flags {flags!r} would not be read back as they are: no blank at an end, no quotes around all, one line"
    return None


def _kept(flags: str) -> bool:
    """Return True if rcctl reads `flags` back as they were given: contract 1.6."""
    quoted = flags[0] in "\"'" and flags[0] == flags[-1]
    return flags == flags.strip() and "\n" not in flags and not quoted


def _values(daemon: Daemon) -> dict[str, str | None]:
    # No flags and the default flags are the same to rcctl: contract 1.6.
    return {
        "flags": daemon.flags or None,
        "user": daemon.user,
        "rtable": None if daemon.rtable is None else str(daemon.rtable),
        "timeout": None if daemon.timeout is None else str(daemon.timeout),
    }


def _on(daemon: Daemon, service: Service, changed: Set[str]) -> _Due:
    name, due = daemon.name, _Due()
    if not service.enabled:
        due.add("enabled", f"rcctl enable {name}", f"rcctl get {name} status")
    if service.kind in (Kind.META, Kind.SPECIAL):
        return due
    restart = ""
    for variable, value in _values(daemon).items():
        if value is None:
            if variable in service.stored:
                due.add(f"{variable} as by default", f"rcctl set {name} {variable}", f"unset_in_file {name} {variable}")
                restart = "restarted"
        elif service.values.get(variable) != value:
            quoted = shlex.quote(value)
            due.add(f"{variable} {value}", f"rcctl set {name} {variable} {quoted}", f"is {name} {variable} {quoted}")
            restart = "restarted"
    if not service.running:
        if not daemon.activated:
            due.add("started", f"rcctl start {name}", f"rcctl check {name}")
        return due
    if service.stale:
        restart = "restarted, its binary or a library was replaced"
    elif changed & set(daemon.restart_on):
        restart = "restarted"
    reload = bool(changed & set(daemon.reload_on))
    if restart or (reload and not service.reloads):
        due.add(restart or "restarted, it cannot reload", f"rcctl restart {name}", f"rcctl check {name}")
    elif reload:
        due.add("reloaded", f"rcctl reload {name}", f"rcctl check {name}")
    return due


def _off(name: str, service: Service) -> _Due:
    due = _Due()
    if service.running:
        due.add("stopped", f"rcctl stop {name}", f"! rcctl check {name}")
    if service.enabled:
        due.add("disabled", f"rcctl disable {name}", f"! rcctl get {name} status")
    return due


def _order(wanted: Sequence[Daemon], found: ServicesState) -> list[Step]:
    kinds: Mapping[str, Kind] = {name: service.kind for name, service in found.services.items()}
    scripts = [it.name for it in wanted if it.enabled and kinds.get(it.name) in (Kind.PACKAGE, Kind.META)]
    after = [*found.order, *(name for name in scripts if name not in found.order)]
    if [name for name in after if name in scripts] == scripts:
        return []
    names = " ".join(scripts)
    lines = [f"rcctl order {names}", f"first {shlex.quote(names)}"]
    return [Step("pkg_scripts", f"ordered {names}", unattended("rcctl", lines, READ_BACK))]


@operation()
def daemons(
    wanted: Sequence[Daemon], own: Mapping[str, Set[str]] | None = None
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Bring all declared daemons of a host about, each in one step, and their order in pkg_scripts.

    Arguments: `wanted`, in the order in which package daemons start; `own`, the configuration sets of its service, by
    daemon: one whose set failed is left alone. So is a service that is not declared.
    """
    found = read(host, Services, names=[daemon.name for daemon in wanted])
    if found is None:
        yield StringCommand("echo 'the services of this host could not be read' >&2; exit 1")
        return
    record = outcome(host)
    held = held_back(wanted, own or {}, set(record.failed))
    names = {refusal.subject for refusal in held}
    plan = plan_daemons([daemon for daemon in wanted if daemon.name not in names], found, set(record.changed))
    if host.state is not None and not host.state.is_executing:
        # The packages that bring the scripts may be due in this very run.
        plan = Plan(plan.steps)
    yield from perform(replace(plan, refused=(*plan.refused, *held)))
