"""The packet filter; nft(8), libnftables-json(5)."""

from __future__ import annotations

import json
import shlex
from functools import cached_property
from typing import Any

from testinfra.host import Host

from tests.verify.modules.base import Asking, Unknown

KERNEL = "nft -j list ruleset"

Object = dict[str, Any]


class Nftables(Asking):
    """The rules in the kernel, and those that a file would load.

    >>> nftables(host).chain("inet", "filter", "input")["policy"]
    'drop'
    """

    @staticmethod
    def trial(path: str) -> str:
        """Return the command that `of_file` asks with: the file is loaded into a network namespace of its own."""
        return f"unshare -n sh -c {shlex.quote(f'nft -f {shlex.quote(path)} && {KERNEL}')}"

    @cached_property
    def kernel(self) -> tuple[Object, ...]:
        """All objects in the kernel, in its order."""
        return _objects(self.answer(KERNEL))

    def of_file(self, path: str) -> tuple[Object, ...]:
        """Return the objects that the ruleset in file `path` makes."""
        return _objects(self.answer(self.trial(path)))

    def chain(self, family: str, table: str, name: str) -> Object | None:
        """Return a chain of the kernel, None if there is none."""
        for item in self.kernel:
            chain = item.get("chain")
            if chain and (chain["family"], chain["table"], chain["name"]) == (family, table, name):
                return dict(chain)
        return None

    def rules(self, family: str, table: str, chain: str) -> tuple[list[Object], ...]:
        """Return the expressions of each rule of a chain of the kernel, in order."""
        rules = (item["rule"] for item in self.kernel if "rule" in item)
        where = (family, table, chain)
        return tuple(rule["expr"] for rule in rules if (rule["family"], rule["table"], rule["chain"]) == where)

    def elements(self, family: str, table: str, name: str) -> tuple[str, ...] | None:
        """Return the elements of a set of addresses in the kernel, None if there is no such set."""
        for item in self.kernel:
            found = item.get("set")
            if found and (found["family"], found["table"], found["name"]) == (family, table, name):
                return tuple(_element(element) for element in found.get("elem", ()))
        return None


def comparable(objects: tuple[Object, ...], family: str, table: str) -> list[Object]:
    """Return the objects of one table without what differs between two loads: handles, counts and elements."""
    made = []
    for item in objects:
        for kind, body in item.items():
            owner = body.get("name") if kind == "table" else body.get("table")
            if kind == "metainfo" or (body.get("family"), owner) != (family, table):
                continue
            kept = {key: value for key, value in body.items() if key not in ("handle", "elem", "index")}
            if "expr" in kept:
                kept["expr"] = _settled(kept["expr"])
            made.append({kind: kept})
    return made


def words(item: Object) -> str:
    """Return one object in short words for a message."""
    kind, body = next(iter(item.items()))
    if kind == "rule":
        return f"rule in {body.get('chain')}: {json.dumps(body.get('expr'))}"
    return f"{kind} {body.get('name', '')}".strip()


def _settled(part: Any) -> Any:
    """Return a part of a rule without counts, and with sets in one order: the kernel's is that of a hash."""
    if isinstance(part, list):
        return [_settled(each) for each in part]
    if not isinstance(part, dict):
        return part
    made = {key: None if key == "counter" else _settled(value) for key, value in part.items()}
    members = made.get("set")
    return {**made, "set": sorted(members, key=json.dumps)} if isinstance(members, list) else made


def _element(element: Any) -> str:
    value = element.get("elem", {}).get("val", element) if isinstance(element, dict) else element
    return value if isinstance(value, str) else json.dumps(value)


def _objects(text: str) -> tuple[Object, ...]:
    try:
        return tuple(json.loads(text)["nftables"])
    except (ValueError, KeyError, TypeError) as error:
        raise Unknown(f"nft said what is not understood: {error!r}") from None


def nftables(host: Host) -> Nftables:
    """Return the module for `host`."""
    module: Nftables = Nftables.get_module(host)
    return module
