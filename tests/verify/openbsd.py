"""The checks of an OpenBSD host. No connection is made here."""

from __future__ import annotations

from collections.abc import Iterator

from deploys.services.pf import CONF as PF_CONF
from facts.filesets import FileState
from facts.openbsd.accounts import CLASSES
from facts.openbsd.crontab import BEGIN, END
from facts.openbsd.rcctl import Kind as ServiceKind
from facts.openbsd.rcctl import Service
from facts.openbsd.sysctl import PATH as SYSCTL_CONF
from fleet.model.service import Daemon, Job, LoginClass
from operations.openbsd.accounts import class_text
from tests.verify import kinds
from tests.verify.accounts import accounts
from tests.verify.common import bind, check, digest, files, ports
from tests.verify.evidence import OpenbsdEvidence
from tests.verify.kinds import Check, Red


def checks(evidence: OpenbsdEvidence) -> Iterator[Check]:
    """Yield every check of a host that was reached."""
    for part in (_packages, _daemons, files, _classes, accounts, _sysctls, _jobs, ports, _firewall):
        yield from part(evidence)


def _packages(evidence: OpenbsdEvidence) -> Iterator[Check]:
    def judge(name: str) -> None:
        found = evidence.packages
        if name not in found.every:
            raise Red("it is not installed")
        if name not in found.manual:
            raise Red("it is there for another package's sake, and goes with that one")

    host = evidence.declared.host
    for name in evidence.declared.packages:
        yield check(kinds.PACKAGE, host, f"package/{name}", bind(judge, name), name=name, stem=name.partition("--")[0])


# --- daemons ---


def _daemons(evidence: OpenbsdEvidence) -> Iterator[Check]:
    def enabled(daemon: Daemon) -> None:
        if not _service(evidence, daemon.name).enabled:
            raise Red("it is disabled")

    def running(daemon: Daemon) -> None:
        found = _service(evidence, daemon.name)
        # What a meta script starts are daemons of their own, and a special variable starts nothing.
        if not found.running and found.kind not in (ServiceKind.META, ServiceKind.SPECIAL):
            raise Red("it does not run")

    def flags(daemon: Daemon) -> None:
        if said := "; ".join(_unlike(daemon, _service(evidence, daemon.name))):
            raise Red(said)

    def off(daemon: Daemon) -> None:
        found = evidence.services.services.get(daemon.name)
        words = [] if found is None else [*(["enabled"] * found.enabled), *(["running"] * found.running)]
        if words:
            raise Red(f"it is {' and '.join(words)}")

    host = evidence.declared.host
    for daemon in evidence.declared.daemons:
        where = f"service/{daemon.name}"
        if not daemon.enabled:
            yield check(kinds.SERVICE_OFF, host, f"{where}/off", bind(off, daemon), unit=daemon.name)
            continue
        yield check(kinds.SERVICE_ENABLED, host, f"{where}/enabled", bind(enabled, daemon), unit=daemon.name)
        if not daemon.activated:
            yield check(kinds.SERVICE_RUNNING, host, f"{where}/running", bind(running, daemon), unit=daemon.name)
        known = {"unit": daemon.name, "flags": daemon.flags or ""}
        yield check(kinds.SERVICE_FLAGS, host, f"{where}/flags", bind(flags, daemon), **known)


def _service(evidence: OpenbsdEvidence, name: str) -> Service:
    found = evidence.services.services.get(name)
    if found is None:
        raise Red(f"rcctl knows no service {name}")
    return found


def _unlike(daemon: Daemon, found: Service) -> Iterator[str]:
    """Yield how the variables of a service differ; no flags and its own default flags are the same (contract 1.6)."""
    wanted = {"flags": daemon.flags, "user": daemon.user, "rtable": daemon.rtable, "timeout": daemon.timeout}
    for name, value in wanted.items():
        if value in (None, ""):
            if name in found.stored:
                yield f"{name}: {found.values.get(name, '')!r}, not the default of its own"
        elif found.values.get(name) != str(value):
            yield f"{name}: {found.values.get(name, '')!r}, not {str(value)!r}"


def _classes(evidence: OpenbsdEvidence) -> Iterator[Check]:
    def judge(wanted: LoginClass) -> None:
        found = evidence.accounts
        state = found.classes.get(wanted.name)
        if state is None:
            raise Red("it is missing")
        if state != FileState("root", "wheel", 0o644, digest(class_text(wanted))):
            raise Red("its file is not as declared")
        if found.database is False:
            raise Red("/etc/login.conf.db is older, and is all that counts")

    host = evidence.declared.host
    for wanted in evidence.declared.classes:
        known = {"path": f"{CLASSES}/{wanted.name}"}
        yield check(kinds.LOGIN_CLASS, host, f"login-class/{wanted.name}", bind(judge, wanted), **known)


# --- the system's own lists ---


def _sysctls(evidence: OpenbsdEvidence) -> Iterator[Check]:
    host, wanted = evidence.declared.host, evidence.declared.sysctls

    def value(key: str, text: str) -> None:
        found = evidence.sysctls.values.get(key)
        if found != text:
            raise Red("this kernel has none" if found is None else f"it is {found}, not {text}")

    def at_boot() -> None:
        text = "".join(f"{key}={text}\n" for key, text in wanted)
        found = evidence.sysctls.file
        if found != FileState("root", "wheel", 0o644, digest(text)) and (found is not None or text):
            raise Red("it is missing" if found is None else "it is not as declared")

    for key, text in wanted:
        yield check(kinds.SYSCTL, host, f"sysctl/{key}", bind(value, key, text), key=key, value=text)
    yield check(kinds.SYSCTL_BOOT, host, f"sysctl{SYSCTL_CONF}", at_boot, path=SYSCTL_CONF)


def _jobs(evidence: OpenbsdEvidence) -> Iterator[Check]:
    def judge(user: str, wanted: list[Job]) -> None:
        found = evidence.crontabs[user]
        if not wanted:
            if found.marks:
                raise Red("it has jobs that are not declared")
            return
        if not found.exists:
            raise Red(f"there is no user {user}")
        lines = [BEGIN, *(_line(job) for job in wanted), END]
        if found.marks != "be" or found.block != digest("".join(f"{line}\n" for line in lines)):
            raise Red("it has not the jobs that are declared")

    declared = evidence.declared
    for user in declared.job_users:
        wanted = [job for job in declared.jobs if job.user == user]
        yield check(kinds.JOBS, declared.host, f"jobs/{user}", bind(judge, user, wanted), user=user)


def _line(job: Job) -> str:
    """Return a job as crontab(5) has it."""
    return " ".join([job.schedule, *(f"-{flag}" for flag in job.flags), job.command])


# --- pf ---


def _firewall(evidence: OpenbsdEvidence) -> Iterator[Check]:
    declared = evidence.declared
    if not declared.filters:
        return

    def enabled() -> None:
        if not evidence.pf.enabled:
            raise Red("it is disabled: everything passes")

    def rules() -> None:
        wanted, loaded = evidence.pfctl.of_file(PF_CONF), evidence.pfctl.loaded
        if not wanted:
            raise Red(f"{PF_CONF} has no rule")
        missing = [rule for rule in wanted if rule not in loaded]
        extra = [rule for rule in loaded if rule not in wanted]
        said = [f"not loaded: {len(missing)} of {len(wanted)}, such as {missing[0]!r}"] if missing else []
        said += [f"loaded and not in the file: {len(extra)}, such as {extra[0]!r}"] if extra else []
        if not said and wanted != loaded:
            said = ["they are loaded in another order or number"]
        if said:
            raise Red("; ".join(said))

    def table(name: str) -> None:
        if name not in evidence.pf.tables:
            raise Red("there is no such table")

    def empty(name: str) -> None:
        table(name)
        if found := evidence.pf.tables[name]:
            raise Red(f"a port is open to {', '.join(sorted(found))}")

    yield check(kinds.PF_ENABLED, declared.host, "pf/enabled", enabled)
    yield check(kinds.PF_RULES, declared.host, "pf/rules", rules)
    for each in declared.tables:
        yield check(kinds.PF_TABLE, declared.host, f"pf/table/{each.name}", bind(table, each.name), table=each.name)
    for name in declared.bounded:
        yield check(kinds.BOUNDED_SET, declared.host, f"pf/table/{name}/empty", bind(empty, name), set=name)
