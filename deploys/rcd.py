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


def _if_running(daemon: str, action: str) -> str:
    return f"if rcctl check {daemon} >/dev/null; then rcctl {action} {daemon}; fi"
