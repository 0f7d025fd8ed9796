"""What a run without changes looked at, from the words of the tool that ran: one line a thing, by host."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

Covered = dict[str, frozenset[str]]

_LINE = re.compile(r"\[(\S+)\] +(.*)")
_FILE = re.compile(r"file (\S+) (\S+) ([0-7]+) [0-9a-f]{64} (/.*)")
_CLASS = re.compile(r"class (\S+) (\S+) (\S+) ([0-7]+) [0-9a-f]{64}")
_SERVICE = re.compile(r"service (\S+) ([01])")
_SYSCTL = re.compile(r"value (\S+\.\S+) (\S+)")


def by_pyinfra(output: str, first: Mapping[str, Any]) -> Covered:
    """Return what pyinfra's facts found on the hosts.

    Args:
        output: of ``pyinfra -vvv``, which prints what the commands of the facts print.
        first: the report of the first deployment. What a fact prints of packages is all that are installed; which of
            them were asked for is in there.
    """
    found: dict[str, set[str]] = {name: set() for name in first["hosts"]}
    users: dict[str, str] = {}
    for line in output.splitlines():
        match = _LINE.fullmatch(line)
        if match is None or match[1] not in found:
            continue
        name, said = match.groups()
        found[name].update(_of_line(said))
        if said.startswith("user "):
            users[name] = said.removeprefix("user ")
        elif said == "mark b":
            found[name].add(f"crontab {users[name]}")
    for name, report in first["hosts"].items():
        for done in report["changed"]["packages"]:
            found[name].update(f"package {each}" for each in done.removeprefix("installed ").split(", "))
    return {name: frozenset(lines) for name, lines in found.items()}


def _of_line(said: str) -> Iterator[str]:
    if match := _FILE.fullmatch(said):
        owner, group, mode, path = match.groups()
        yield f"file {path} {owner}:{group} {int(mode, 8):04o}"
    elif match := _CLASS.fullmatch(said):
        name, owner, group, mode = match.groups()
        yield f"file /etc/login.conf.d/{name} {owner}:{group} {int(mode, 8):04o}"
    elif match := _SERVICE.fullmatch(said):
        yield f"service {match[1]} {'enabled' if match[2] == '0' else 'disabled'}"
    elif match := _SYSCTL.fullmatch(said):
        yield f"sysctl {match[1]} {match[2]}"
    elif said.startswith("login:"):
        yield f"user {said.split(':')[1]}"


def by_ansible(report: Mapping[str, Any]) -> Covered:
    """Return what the modules of a play looked at.

    Args:
        report: of the callback ansible.posix.json.
    """
    return {name: frozenset(lines) for name, lines in _lines(report, only_changed=False).items()}


def changed_by_ansible(report: Mapping[str, Any]) -> Covered:
    """Return what a play changed, handlers left out.

    Args:
        report: of the callback ansible.posix.json.
    """
    return {name: frozenset(lines) for name, lines in _lines(report, only_changed=True).items()}


def _lines(report: Mapping[str, Any], *, only_changed: bool) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {name: set() for name in report["stats"]}
    for play in report["plays"]:
        for task in play["tasks"]:
            for name, result in task["hosts"].items():
                for item in result.get("results", []):
                    if item["changed"] or not only_changed:
                        found[name].add(_of_item(result["action"], item))
    return found


def _of_item(action: str, item: Mapping[str, Any]) -> str:
    asked = item.get("invocation", {}).get("module_args", {})
    enabled = "enabled" if item.get("enabled") else "disabled"
    by_action = {
        "ansible.builtin.command": "package {item}",
        "ansible.builtin.copy": "file {dest} {owner}:{group} {mode}",
        "ansible.builtin.user": "user {name}",
        "ansible.posix.authorized_key": "user {user}",
        "ansible.builtin.service": f"service {{name}} {enabled}",
        "ansible.posix.sysctl": "sysctl {name} {value}",
        "ansible.builtin.cron": "crontab {user}",
    }
    return by_action[action].format_map({**asked, **item})
