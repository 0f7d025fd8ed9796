"""The rules of pf(4): those in the kernel, and those that a file would load; pfctl(8)."""

from __future__ import annotations

import re
import shlex
from functools import cached_property

from testinfra.host import Host

from tests.verify.modules.base import Asking

LOADED = "pfctl -sr"

# What -nv shows beside the rules: macros, options, tables, queues.
_RULE = re.compile(r"\s*(anchor|block|match|pass|\})(\s.*)?")

# pfctl makes a table of many similar rules, and gives it another name each time (pfctl_optimize.c).
_MADE_UP = re.compile(r"<__automatic_[0-9a-f]+_\d+>")


class Pfctl(Asking):
    """Rules in pfctl's own words.

    One function prints a rule for both, after a file's rules were expanded and optimized as for loading (pfctl.c,
    `pfctl_load_rule` and `pfctl_show_rules`), so they are the same text as long as the file is what was loaded.

    >>> pfctl(host).loaded == pfctl(host).of_file("/etc/pf.conf")
    True
    """

    @staticmethod
    def trial(path: str) -> str:
        """Return the command that `of_file` asks with; it loads nothing."""
        return f"pfctl -nvf {shlex.quote(path)}"

    @cached_property
    def loaded(self) -> tuple[str, ...]:
        """The rules in the kernel, in their order."""
        return _rules(self.answer(LOADED))

    def of_file(self, path: str) -> tuple[str, ...]:
        """Return the rules that file `path` makes."""
        return _rules(self.answer(self.trial(path)))


def _rules(text: str) -> tuple[str, ...]:
    lines = (line.rstrip() for line in text.splitlines())
    return tuple(_MADE_UP.sub("<__automatic_>", line) for line in lines if _RULE.fullmatch(line))


def pfctl(host: Host) -> Pfctl:
    """Return the module for `host`."""
    module: Pfctl = Pfctl.get_module(host)
    return module
