"""What a configuration set runs so that an OpenBSD daemon follows it; rcctl(8).

A daemon that does not run is left alone: the operation for daemons starts it, after all sets are there.
"""

from __future__ import annotations


def reloaded(daemon: str) -> str:
    """Return the sh that makes `daemon`, if it runs, read its files again; it fails if the daemon does."""
    return _if_running(daemon, "reload")


def restarted(daemon: str) -> str:
    """Return the sh that restarts `daemon` if it runs, for those that cannot reload: ntpd, smtpd."""
    return _if_running(daemon, "restart")


def back(daemon: str, action: str) -> str:
    """Return the sh for the way back: `daemon`, if it is enabled, follows the old files, also if the new ones ended it.

    Arguments: `action`, ``reload`` or ``restart``, for one that still runs.
    """
    enabled = f"rcctl get {daemon} status >/dev/null 2>&1"
    running = f"rcctl check {daemon} >/dev/null"
    return f"if {enabled}; then if {running}; then rcctl {action} {daemon}; else rcctl start {daemon}; fi; fi"


def _if_running(daemon: str, action: str) -> str:
    return f"if rcctl check {daemon} >/dev/null; then rcctl {action} {daemon}; fi"
