"""The checks of the log: its files, and that what a host logs arrives on the log server."""

from __future__ import annotations

from collections.abc import Iterator

from deploys.services.logserver import path_of
from fleet.model.service import LogFile
from fleet.model.site import Host
from tests.verify import kinds
from tests.verify.common import bind, check
from tests.verify.evidence import Evidence
from tests.verify.kinds import Check, Red
from tests.verify.modules.logs import SECONDS
from tests.verify.survey import Lines


def log_files(evidence: Evidence) -> Iterator[Check]:
    """Yield the checks of the declared log files."""
    for log in evidence.declared.logs:
        known = {"path": log.path, "mode": f"{log.mode:o}"}
        yield check(
            kinds.LOG_FILE, evidence.declared.host, f"log-file{log.path}", bind(_log_file, evidence, log), **known
        )


def _log_file(evidence: Evidence, log: LogFile) -> None:
    found = evidence.owners.get(log.path)
    if found is None:
        raise Red("it is missing: deploy")
    if found != (log.owner, log.group, log.mode):
        owner, group, mode = found
        raise Red(f"it is {mode:04o} {owner}:{group}, not {log.mode:04o} {log.owner}:{log.group}: deploy")


def arrives(evidence: Evidence, lines: Lines) -> Iterator[Check]:
    """Yield the check that what this host logs is on the log server, in the file that has its name.

    Another host's line gets there only by a handshake that was verified: syslogd(8) calls the sender what its
    certificate does.
    """
    server, host = evidence.declared.log_server, evidence.declared.host
    if server is not None:
        # On the server itself, a daemon that is stopped would be every sender's fault.
        name = "log/own/arrives" if server.name == host.name else "log/arrives"
        yield check(kinds.LOG_ARRIVES, host, name, bind(_arrives, evidence, server, lines))


def _arrives(evidence: Evidence, server: Host, lines: Lines) -> None:
    evidence.logged()
    if lines.unseen:
        raise Red(f"it cannot be looked up: {lines.unseen}")
    host = evidence.declared.host
    if host.name not in lines.arrived:
        raise Red(f"what it logs is not in {path_of(host, 'user')} of {server.name}, after {SECONDS} s")
