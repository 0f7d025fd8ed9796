"""The computer that the lab runs on: its user, its cache, its commands and its long-lived processes."""

import contextlib
import fcntl
import hashlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

# An ordinary user of Debian does not have the directories of chroot(8) and sfdisk(8) in the path.
PATH = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
_UNUSED_AFTER = 14 * 24 * 3600
_started = time.monotonic()


class LabError(Exception):
    """The lab cannot do what it was asked; the message is for the person who asked."""


def say(message: str) -> None:
    """Print one line of progress with the seconds since the start, at once also into a pipe.

    Args:
        message: what begins or has ended.
    """
    print(f"lab {time.monotonic() - _started:6.1f} s  {message}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(message: str) -> Iterator[None]:
    """Show that something longer is under way: a moving line on a terminal, else plain lines.

    Args:
        message: what is under way; printed with the seconds it took when it is done.
    """
    began = time.monotonic()
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            progress.add_task(message, total=None)
            yield
    else:
        say(f"{message} ...")
        yield
    say(f"{message}: {time.monotonic() - began:.0f} s")


def run(
    argv: Sequence[str | Path],
    *,
    deadline: float = 600,
    stdin: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a command to its end and return what it printed.

    Args:
        argv: the command and its arguments; no shell is involved.
        deadline: seconds until it is killed.
        stdin: what it reads; nothing by default.
        env: variables added to the environment.
        cwd: its working directory.

    Returns:
        Its standard output.

    Raises:
        LabError: it failed, with the end of its standard error, or took too long.
    """
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            input=stdin.encode() if isinstance(stdin, str) else stdin or b"",
            capture_output=True,
            timeout=deadline,
            env={**os.environ, "PATH": PATH, "LC_ALL": "C", **(env or {})},
            cwd=cwd,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise LabError(f"{argv[0]}: not finished after {deadline:.0f} s") from late
    except FileNotFoundError as missing:
        raise LabError(f"{argv[0]}: not installed (tests/lab/system-packages.txt lists what is needed)") from missing
    if done.returncode:
        tail = (done.stderr or done.stdout).decode(errors="replace").strip()[-2000:]
        raise LabError(f"{' '.join(str(word) for word in argv)[:300]}: exit code {done.returncode}\n{tail}")
    return done.stdout.decode(errors="replace")


def need_root() -> None:
    """Stop an ordinary user early.

    Raises:
        LabError: the process is not root's.
    """
    if os.geteuid() != 0:
        raise LabError("this needs root (sudo)")


def invoking_user() -> pwd.struct_passwd:
    """Return the account of the person at the keyboard, also under sudo."""
    uid = int(os.environ.get("SUDO_UID", os.getuid()))
    return pwd.getpwuid(uid if os.getuid() == 0 else os.getuid())


def give_to_user(*paths: Path) -> None:
    """Make the invoking user the owner of files that a run under sudo made.

    Args:
        paths: files or directories (not what is below them).
    """
    if os.geteuid() == 0:
        user = invoking_user()
        for path in paths:
            os.chown(path, user.pw_uid, user.pw_gid)


def cache_directory() -> Path:
    """Return the directory of built images, the invoking user's own also under sudo."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path(invoking_user().pw_dir) / ".cache") / "homefleet"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; it ends with the process, however that dies.

    Args:
        path: the lock file; made if missing.
    """
    with path.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def digest(recipe: object) -> str:
    """Return a short name for a recipe.

    Args:
        recipe: whatever the result depends on, as JSON values.

    Returns:
        Twelve hexadecimal digits of its SHA-256.
    """
    return hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode()).hexdigest()[:12]


def cached(kind: str, recipe: object, build: Callable[[Path], None]) -> Path:
    """Return the directory that a recipe builds, building it only if no finished one exists.

    Args:
        kind: what it is; the first part of the directory's name.
        recipe: everything the result depends on; another recipe is another directory.
        build: fills the empty directory it is given.

    Returns:
        The finished directory. Half-built ones have another name and are removed by the next build, finished
        ones of older recipes two weeks after their last use.

    Raises:
        LabError: the build failed.
    """
    cache = cache_directory()
    if os.geteuid() == 0 and not cache.exists():
        cache.mkdir(parents=True)
        give_to_user(cache)
    entry = cache / f"{kind}-{digest(recipe)}"
    if entry.is_dir():
        with contextlib.suppress(PermissionError):
            os.utime(entry)
        return entry
    need_root()
    with locked(cache / f"{kind}.lock"):
        if entry.is_dir():
            return entry
        for half in cache.glob(f".{kind}-*.part"):
            _unmount_below(half)
            shutil.rmtree(half)
        part = cache / f".{entry.name}.part"
        part.mkdir()
        with step(f"building {kind}"):
            build(part)
        part.rename(entry)
        for older in cache.glob(f"{kind}-????????????"):
            if older != entry and time.time() - older.stat().st_mtime > _UNUSED_AFTER:
                shutil.rmtree(older)
    return entry


def _unmount_below(directory: Path) -> None:
    """Unmount all that a killed build left mounted in a directory, so that removing it touches nothing else.

    Args:
        directory: where.

    Raises:
        LabError: something stays mounted.
    """
    inside = f"{directory.resolve()}/"
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for target in sorted((target for target in mounted if target.startswith(inside)), reverse=True):
        run(["umount", target])


@dataclass(frozen=True)
class Process:
    """A process that outlives the command that started it, told from a later one with the same number.

    Args:
        pid: its number.
        started: its start in clock ticks after boot, proc_pid_stat(5) field 22.
        boot: the boot of the computer that it belongs to.
    """

    pid: int
    started: int
    boot: str

    @classmethod
    def spawn(cls, argv: Sequence[str | Path], log: Path) -> "Process":
        """Start a command in a session of its own.

        Args:
            argv: the command.
            log: takes its standard output and error.
        """
        with log.open("ab") as output:
            child = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return cls.of(child.pid)

    @classmethod
    def of(cls, pid: int) -> "Process":
        """Return the process that has a number now.

        Args:
            pid: the number.
        """
        return cls(pid, _start_of(pid) or 0, boot_id())

    @classmethod
    def load(cls, path: Path) -> "Process | None":
        """Read a process that was saved.

        Args:
            path: a file that `save` wrote.

        Returns:
            The process, or None if there is no such file or it was cut short.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def save(self, path: Path) -> None:
        """Write it to a file, whole or not at all.

        Args:
            path: the file.
        """
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(asdict(self)))
        part.rename(path)

    def alive(self) -> bool:
        """Tell whether this very process still runs."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return self.boot == boot_id() and _start_of(self.pid) == self.started

    def stop(self, *, grace: float = 5) -> None:
        """End it, by force if it does not go, and wait until it is gone.

        Args:
            grace: seconds between SIGTERM and SIGKILL; 0 kills at once.

        Raises:
            LabError: it is still there ten seconds after SIGKILL.
        """
        for sent, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
            if not patience:
                continue
            if not self.alive():
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sent)
            until = time.monotonic() + patience
            while self.alive() and time.monotonic() < until:
                time.sleep(0.02)
        if self.alive():
            raise LabError(f"process {self.pid} does not die")


def boot_id() -> str:
    """Return the name of this boot of the computer, random(4)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_of(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
