"""cron(8): a small one that runs what is in `/var/cron/tabs`; contract 5.10."""

import os
import random
import signal
import subprocess
import sys
import syslog
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from . import crontab, login_conf, users
from .place import root
from .program import options
from .title import set_title
from .unmodelled import unmodelled

NOT_MODELLED = (
    "cron -l, jobs of at(1), the socket by which crontab(1) wakes it (it looks at the directory each minute)",
    "cron: what happens at a jump of the clock of less than three hours",
)

PID = "/var/run/cron.pid"
SENDMAIL = "/usr/sbin/sendmail"
_PATH = "/usr/bin:/bin"
_CATCH_UP = 3 * 60

Jobs = dict[str, list[crontab.Entry]]


def split_command(text: str) -> tuple[str, str]:
    """Take what a job reads off its command: `%` is a newline, the first one begins the input; crontab(5).

    Args:
        text: the command as it stands in the crontab.

    Returns:
        The command, and what it reads.
    """
    parts = text.replace("\\%", "\0").split("%")
    command, *lines = (part.replace("\0", "%") for part in parts)
    return command, "".join(f"{line}\n" for line in lines)


def environment(user: users.Account, entry: crontab.Entry) -> dict[str, str]:
    """Return the environment of a job.

    Args:
        user: whose job it is.
        entry: the job.

    Returns:
        The variables; those of the crontab win, but for `LOGNAME` and `USER`.
    """
    path = login_conf.capability(user.login_class, "path")
    defaults = {"SHELL": "/bin/sh", "HOME": user.home, "PATH": ":".join(path.split()) if path else _PATH}
    return {**defaults, **entry.environment, "LOGNAME": user.name, "USER": user.name}


def mail_text(user: str, to: str, command: str, variables: dict[str, str], output: str) -> str:
    """Return the mail with a job's output.

    Args:
        user: whose job it was.
        to: who gets it.
        command: the command.
        variables: its environment.
        output: what it printed.

    Returns:
        The message with its header.
    """
    lines = [
        f"From: {user} (Cron Daemon)",
        f"To: {to}",
        f"Subject: Cron <{user}@{os.uname().nodename}> {command}",
        "Auto-Submitted: auto-generated",
        *(f"X-Cron-Env: <{name}={value}>" for name, value in variables.items()),
    ]
    return "\n".join(lines) + f"\n\n{output}"


class Running:
    """A job that was started.

    Args:
        user: whose job it is.
        entry: the job.
        process: its process.
        output: what it prints.
    """

    def __init__(self, user: str, entry: crontab.Entry, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        self.user = user
        self.entry = entry
        self.process = process
        self._output = output

    def finish(self) -> None:
        """Mail what the finished job printed, if somebody is to get it."""
        self._output.seek(0)
        text = self._output.read().decode(errors="replace")
        self._output.close()
        to = self.entry.environment.get("MAILTO", self.user)
        quiet = "n" in self.entry.flags and self.process.returncode == 0
        if not text or not to or quiet or not root(SENDMAIL).exists():
            return
        command, _ = split_command(self.entry.command)
        message = mail_text(self.user, to, command, self.entry.environment, text)
        subprocess.run(
            [root(SENDMAIL), "-FCronDaemon", "-odi", "-oem", "-oi", "-t"],
            input=message.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )


class Cron:
    """The daemon's state: the jobs as they were loaded last, and those that run."""

    def __init__(self) -> None:
        self._jobs: Jobs = {}
        self._stamps: dict[str, tuple[int, int]] = {}
        self._running: list[Running] = []

    def load(self) -> None:
        """Load the crontabs that are new or changed, and forget those that are gone."""
        directory = root(crontab.TABS)
        found = {path.name: path for path in directory.iterdir()} if directory.is_dir() else {}
        for name in set(self._jobs) - set(found):
            del self._jobs[name], self._stamps[name]
        for name, path in found.items():
            status = path.stat()
            stamp = status.st_mtime_ns, status.st_ino
            if self._stamps.get(name) == stamp or users.account(name) is None:
                continue
            # A random minute is drawn when the crontab is loaded, and then stays.
            self._jobs[name] = crontab.load(path, random.randint)
            self._stamps[name] = stamp

    def run(self, now: time.struct_time | None) -> None:
        """Start the jobs of a minute.

        Args:
            now: the local time; `None` is the start of the daemon, when the `@reboot` jobs run.
        """
        for name, entries in sorted(self._jobs.items()):
            for entry in entries:
                if entry.due(now) if now is not None else not entry.times:
                    self._start(name, entry)

    def _start(self, name: str, entry: crontab.Entry) -> None:
        user = users.account(name)
        if user is None:
            return
        if "s" in entry.flags and any(job.user == name and job.entry == entry for job in self._running):
            return
        command, stdin = split_command(entry.command)
        variables = environment(user, entry)
        if "q" not in entry.flags:
            syslog.syslog(syslog.LOG_INFO, f"({name}) CMD ({command})")
        output = tempfile.TemporaryFile()  # noqa: SIM115 - the job has it until it ends
        home = variables["HOME"]
        as_root = os.geteuid() == 0
        process = subprocess.Popen(
            [variables["SHELL"], "-c", command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home if Path(home).is_dir() else "/",
            env=variables,
            start_new_session=True,
            user=user.uid if as_root else None,
            group=user.gid if as_root else None,
            extra_groups=_secondary(name) if as_root else None,
        )
        if process.stdin is not None:
            try:
                process.stdin.write(stdin.encode())
                process.stdin.close()
            except BrokenPipeError:
                process.stdin = None
        self._running.append(Running(name, entry, process, output))

    def reap(self) -> None:
        """Take leave of the jobs that have ended."""
        ended = [job for job in self._running if job.process.poll() is not None]
        self._running = [job for job in self._running if job not in ended]
        for job in ended:
            job.finish()

    @property
    def busy(self) -> bool:
        """Whether a job runs."""
        return bool(self._running)


def _secondary(name: str) -> list[int]:
    return [group.gid for group in users.groups() if name in group.members]


def _daemonize() -> None:
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def serve(cron: Cron) -> None:
    """Run the jobs of each minute, for ever.

    Args:
        cron: the state.
    """
    cron.load()
    cron.run(None)
    last = int(time.time()) // 60
    while True:
        cron.reap()
        minute = int(time.time()) // 60
        if minute == last:
            # What is due in the next minute must not wait for a job that ends in this one.
            time.sleep(min(1.0, 60 - time.time() % 60 + 0.01))
            continue
        cron.load()
        first = last + 1 if last < minute <= last + _CATCH_UP else minute
        for due in range(first, minute + 1):
            cron.run(time.localtime(due * 60))
        last = minute


def main(argv: Sequence[str]) -> int:
    """Run cron(8).

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    flags, operands = options("cron", argv, "l:n", "usage: cron [-n] [-l load_avg]\n")
    if operands or any(flag == "-l" for flag, _ in flags):
        unmodelled("cron", argv, "only -n")
    set_title("/usr/sbin/cron")
    if ("-n", "") not in flags:
        _daemonize()
    root(PID).write_text(f"{os.getpid()}\n")
    syslog.openlog("cron", syslog.LOG_PID, syslog.LOG_CRON)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    serve(Cron())
    return 0
