"""Files that hold an SSH key; their names only, never their text."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from testinfra.host import Host

from tests.verify.modules.base import Asking

_KEY = "PRIVATE KEY|(ssh|ecdsa|sk)-[a-z0-9@.-]+ AAAA"


@dataclass(frozen=True)
class KeyFiles:
    """Files with a private, public or host key in them, and where `link` points to if it is a symbolic link."""

    holding: tuple[str, ...]
    target: str | None


class Keys(Asking):
    """Which files below given places hold a key.

    >>> keys(host).look(["/root/.ssh"], "/root/.ssh/authorized_keys").holding
    ('/root/.ssh/authorized_keys',)
    """

    @staticmethod
    def question(patterns: Sequence[str], link: str) -> str:
        """Return the command that `look` asks with."""
        # grep(1) exits with 1 where nothing matches and 2 where a file is missing; neither is a failure here.
        return (
            f'[ ! -L {shlex.quote(link)} ] || echo "link $(readlink {shlex.quote(link)})"\n'
            f'for p in {" ".join(patterns)} {shlex.quote(link)}; do [ ! -e "$p" ] || '
            f'find -L "$p" -type f -exec grep -lEe {shlex.quote(_KEY)} -- {{}} + || :; done'
        )

    def look(self, patterns: Sequence[str], link: str) -> KeyFiles:
        """Return the files with keys that match shell `patterns`, are below what matches, or are `link`."""
        lines = self.answer(self.question(patterns, link)).splitlines()
        targets = [line.removeprefix("link ") for line in lines if line.startswith("link ")]
        holding = tuple(dict.fromkeys(line for line in lines if line.startswith("/")))
        return KeyFiles(holding, targets[0] if targets else None)


def keys(host: Host) -> Keys:
    """Return the module for `host`."""
    module: Keys = Keys.get_module(host)
    return module
