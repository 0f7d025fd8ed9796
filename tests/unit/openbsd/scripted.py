"""Runs the remote scripts for real: in a ksh-family shell, with a scratch directory for / and small fake commands."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from pyinfra.api import FactBase

from operations.steps import Plan, Step
from tests.lab.openbsd import standin

PACKAGE = Path(standin.__file__).parent.parent

SHELL = shutil.which("mksh") or shutil.which("dash") or "sh"

TOOLS = (
    *("awk", "cat", "chmod", "cmp", "cut", "find", "grep", "id", "mkdir", "mktemp", "mv", "printf", "rm"),
    *("sed", "sh", "sort", "tail", "uname", "xargs"),
)


class Scratch:
    """A directory that plays /, whose commands are in `bin`: some of this machine's, and what a test writes."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.bin = folder / "bin"
        for path in (self.root, self.root / "etc", self.root / "var" / "db", self.bin):
            path.mkdir(parents=True)
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, tool
            (self.bin / tool).symlink_to(found)
        self.fake("sha256", '[ "$1" = -q ] && shift; sha256sum "$@" | cut -d" " -f1')
        (self.bin / "sha256sum").symlink_to(shutil.which("sha256sum") or "")
        self.fake_owners()

    def fake_owners(self) -> None:
        """Let every file be root's and wheel's: whoever runs the tests, this machine has no wheel."""
        (self.bin / "gnustat").symlink_to(shutil.which("stat") or "")
        self.fake(
            "stat",
            'case $2 in "%Su %Sg %Lp") f="root wheel %a" ;; "%Lp %Su") f="%a root" ;; esac; gnustat -c "$f" "$3"',
        )
        self.fake("chown", "")

    def fake(self, name: str, body: str) -> None:
        """Write a command; its words are logged in `said`."""
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >>{self.root}/said\n{body}\n')
        path.chmod(0o755)

    def file(self, path: str, text: str, mode: int = 0o644) -> Path:
        """Write a file below the root."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)
        return target

    def text(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text()

    @property
    def said(self) -> list[str]:
        """The fake commands that ran, with their arguments."""
        path = self.root / "said"
        return path.read_text().splitlines() if path.exists() else []

    def run(self, command: str | Step, stdin: str = "", **environment: str) -> Any:
        """Run a command with its absolute paths moved below the root."""
        if isinstance(command, Step):
            stdin = command.stdin or ""
            command = command.command
        moved = re.sub(r"(?<![\w.}/])/(etc|var|home)\b", rf"{self.root}/\1", command)
        return subprocess.run(
            [SHELL, "-c", moved],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            env={"PATH": str(self.bin), "HOME": os.devnull, **environment},
        )


class OnStandIn(Scratch):
    """The same with the lab's own commands of OpenBSD, in the root that `scratch` made."""

    def __init__(self, root: Path, commands: dict[str, str]) -> None:
        self.root = root
        self.bin = root.parent / "commands"
        self.bin.mkdir()
        for name, module in commands.items():
            # Whoever runs the tests, the host's commands take them for root.
            (self.bin / name).write_text(
                f"#!{sys.executable} -IS\nimport os, sys; sys.path.insert(0, {str(PACKAGE)!r})\n"
                "os.geteuid = lambda: 0; os.chown = lambda *a, **k: None\n"
                f"from standin.{module} import main\n"
                f"sys.exit(main([word.replace({str(root)!r}, '') for word in sys.argv[1:]]))\n"
            )
            (self.bin / name).chmod(0o755)

    def perform(self, plan: Plan) -> dict[str, str]:
        """Carry out a plan as `operations.steps.perform` does; returns what failed and why."""
        failed = {refusal.subject: refusal.message for refusal in plan.refused}
        for step in plan.steps:
            if step.subject not in failed:
                done = self.run(step, PATH=f"{self.bin}:{os.environ['PATH']}", **self.environment)
                if done.returncode:
                    failed[step.subject] = done.stderr.strip()
        unmodelled = self.root / "var/standin/unmodelled"
        assert not unmodelled.exists(), unmodelled.read_text()
        return failed

    def read(self, fact: FactBase[Any], command: str) -> Any:
        """Read a fact of the host; it has to be known."""
        done = self.run(command, PATH=f"{self.bin}:{os.environ['PATH']}", **self.environment)
        found = fact.process(done.stdout.splitlines())
        assert found is not None, (done.stdout, done.stderr)
        return found

    @property
    def environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name.startswith("STANDIN_")}
