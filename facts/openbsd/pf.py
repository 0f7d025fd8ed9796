"""State of pf(4): is it enabled, and what is in its tables; pfctl(8), contract 3.1."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network

from pyinfra.api import FactBase, FactProcessError

DONE = "##PF##"


@dataclass(frozen=True)
class PfState:
    """`enabled`, and the addresses of each table that is there, in the form of `normal`."""

    enabled: bool
    tables: dict[str, frozenset[str]] = field(default_factory=dict)


def normal(address: str) -> str:
    """Return an entry of a table as it is compared: ``10.0.0.1/32`` is ``10.0.0.1``, ``! x`` is ``!x``.

    Fails: ValueError for what is no address or network.
    """
    text = address.strip()
    negated = text.startswith("!")
    network = ip_network(text.removeprefix("!").strip(), strict=False)
    shown = str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)
    return f"!{shown}" if negated else shown


class Pf(FactBase[PfState | None]):
    """Status of pf and contents of the tables `tables`; None if unknown (F2). Needs root.

    pfctl says ``Table does not exist.`` and exits with 255 for one that is not there; any other failure is an error.
    """

    @staticmethod
    def default() -> None:
        """Return None: not known."""
        return

    def command(self, tables: Sequence[str]) -> str:
        """Return one command that shows the status and each table."""
        script = (
            't() { if o=$(pfctl -t "$1" -T show 2>&1); then echo "table $1"; [ -z "$o" ] || printf \'%s\\n\' "$o"; '
            'else case $o in *"Table does not exist"*) ;; *) printf \'failed %s %s\\n\' "$1" "$o" ;; esac; fi; }'
        )
        return "\n".join(
            [script, "pfctl -si | sed 1q", *(f"t {shlex.quote(name)}" for name in tables), f"echo '{DONE}'"]
        )

    def process(self, output: list[str]) -> PfState | None:
        """Read the command's output; FactProcessError names a line that is not understood."""
        if not output or output[-1].strip() != DONE:
            return None
        return parse(output[:-1])


def parse(lines: Sequence[str]) -> PfState:
    """Turn the output of `Pf.command` without its last line into a state."""
    enabled: bool | None = None
    tables: dict[str, set[str]] = {}
    table = ""
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "Status:":
            enabled = rest.lstrip().startswith("Enabled")
        elif word == "table" and rest:
            table = rest
            tables[table] = set()
        elif table and line.startswith("  "):
            try:
                tables[table].add(normal(line))
            except ValueError:
                raise FactProcessError(f"Pf: not understood: {line!r}") from None
        else:
            raise FactProcessError(f"Pf: not understood: {line!r}")
    if enabled is None:
        raise FactProcessError("Pf: pfctl -si gave no status")
    return PfState(enabled, {name: frozenset(entries) for name, entries in tables.items()})
