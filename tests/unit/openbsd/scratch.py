"""A scratch directory that the stand-in's commands take for their root, with its rc.d scripts and small daemons."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.lab.openbsd import standin

ETC = Path(standin.__file__).parent.parent / "etc"
LAUNCHER = (
    f"#!{sys.executable} -IS\n"
    f"import sys; sys.path.insert(0, {str(Path(standin.__file__).parent.parent)!r})\n"
    "from standin.idle import main; sys.exit(main(sys.argv[1:]))\n"
)
# Commands of the stand-in ask id(1) who they are; a test is root or not as it likes.
_ID = """#!/bin/sh
case $1 in
-u) echo "${FAKE_UID:-0}" ;;
-un) echo root ;;
*) exec /usr/bin/id "$@" ;;
esac
"""


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    assert found, f"{name} is missing: tests/lab/system-packages.txt names its package"
    return found


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def script(root: Path, name: str, text: str) -> Path:
    """Write an rc.d script as it is on a host, with its absolute paths in the scratch directory."""
    text = text.replace("#!/bin/ksh", f"#!{program('mksh')}", 1)
    text = text.replace(". /etc/rc.d/rc.subr", f". {root}/etc/rc.d/rc.subr")
    text = re.sub(r'^(daemon=")(?=/)', rf"\1{root}", text, flags=re.MULTILINE)
    return executable(root / "etc/rc.d" / name, text)


def daemon(root: Path, path: str) -> Path:
    return executable(root / path.lstrip("/"), LAUNCHER)


@contextmanager
def scratch(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make the scratch directory the stand-in's root; its processes end with the block."""
    root = directory / "root"
    (root / "etc/rc.d").mkdir(parents=True)
    for name in ("rc.conf", "rc.d/rc.subr"):
        shutil.copy(ETC / name, root / "etc" / name)
    for path in sorted((ETC / "rc.d").iterdir()):
        if path.name != "rc.subr":
            script(root, path.name, path.read_text())
    executable(directory / "bin/id", _ID)
    programs = directory / "programs"
    programs.mkdir()
    for name in ("pgrep", "pkill", "setpriv"):
        (programs / name).symlink_to(program(name))
    monkeypatch.setenv("STANDIN_ROOT", str(root))
    monkeypatch.setenv("STANDIN_KSH", program("mksh"))
    monkeypatch.setenv("STANDIN_BIN", str(programs))
    monkeypatch.setenv("PATH", f"{directory / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", Mock())
    try:
        yield root
    finally:
        end(str(root))


def processes(pattern: str) -> list[int]:
    done = subprocess.run([program("pgrep"), "-f", "--", pattern], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


def end(pattern: str) -> None:
    for pid in processes(pattern):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 5
    while processes(pattern) and time.monotonic() < until:
        time.sleep(0.05)


def as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("FAKE_UID", "1000")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
