"""syslog.conf(5) as init() and cfline() read it (contract 5.5, usr.sbin/syslogd/syslogd.c 1.287)."""

import fnmatch
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from .message import FACILITIES, LEVELS, MARK

NONE = -1
_ALL = 8
_TLS = {"tls": 0, "tls4": 4, "tls6": 6}
_NOT_MODELLED = ("udp", "udp4", "udp6", "tcp", "tcp4", "tcp6")
PORTS = {"syslog-tls": 6514, "syslog": 514}


class Refused(Exception):
    """An action that is not modelled."""


@dataclass(frozen=True)
class Loghost:
    """Where an action sends messages.

    Args:
        text: the action as it is written, such as ``@tls://logs.example.net``.
        version: of IP, 4 or 6; 0 is either.
        host: its name or address.
        port: its port or the name of one.
    """

    text: str
    version: int
    host: str
    port: str


@dataclass(frozen=True)
class Rule:
    """A line of syslog.conf.

    Args:
        levels: for each facility, mark last, the least urgent level that is logged; -1 for none.
        action: a path, another host, or `None` for users, of whom nobody is here.
        program: whose messages it takes, a pattern; `None` for everybody's.
        host: from where it takes them, a pattern; `None` for everywhere.
        quick: whether no later line sees what this one took (``!!``, ``++``).
    """

    levels: tuple[int, ...]
    action: str | Loghost | None
    program: str | None
    host: str | None
    quick: bool

    def takes(self, facility: int, level: int, program: str, host: str) -> bool:
        """Return whether the line logs a message.

        Args:
            facility: its facility.
            level: its level.
            program: who sent it.
            host: from where.
        """
        return (
            facility < len(self.levels)
            and level <= self.levels[facility]
            and (self.program is None or fnmatch.fnmatchcase(program, self.program))
            and (self.host is None or fnmatch.fnmatchcase(host, self.host))
        )


def _until(text: str, at: int, ends: str) -> str:
    """Return what stands from `at` on before one of the characters."""
    end = at
    while end < len(text) and text[end] not in ends:
        end += 1
    return text[at:end]


def _level(name: str) -> int:
    if name.startswith("*"):
        return _ALL
    if name.lower() == "none":
        return NONE
    if name.lower() not in LEVELS:
        raise ValueError(f'unknown priority name "{name}"')
    return LEVELS[name.lower()]


def _selector(text: str) -> tuple[tuple[int, ...], str]:
    """Read the selector of a line; return the levels and the rest of it. Raises ValueError, with what is said."""
    levels = [NONE] * (MARK + 1)
    at = 0
    while at < len(text) and text[at] not in "\t ":
        end = at + len(_until(text, at, "\t ."))
        end += text[end : end + 1] == "."
        name = _until(text, end, "\t,; ")
        end += len(name)
        while text[end : end + 1] in {",", ";"}:
            end += 1
        level = _level(name)
        while at < len(text) and text[at] not in "\t.; ":
            facility = _until(text, at, "\t,;. ")
            at += len(facility)
            if facility.startswith("*"):
                levels[:MARK] = [level] * MARK
            elif facility.lower() in FACILITIES:
                levels[FACILITIES[facility.lower()]] = level
            else:
                raise ValueError(f'unknown facility name "{facility}"')
            while text[at : at + 1] in {",", " "}:
                at += 1
        at = end
    return tuple(levels), text[at:].lstrip("\t ")


def address(text: str) -> tuple[str | None, str, str | None]:
    """Take ``proto://host:port`` apart as loghost_parse() does.

    Args:
        text: the address; the host may be in brackets.

    Returns:
        Protocol, host and port, `None` where there is none.

    Raises:
        ValueError: a bracket is not closed.
    """
    proto, found, rest = text.partition("://")
    if not found or ":" in proto:
        proto, rest = "", text
    if rest.startswith("["):
        host, closed, rest = rest[1:].partition("]")
        if not closed:
            raise ValueError(text)
        _, colon, port = rest.rpartition(":")
    else:
        before, colon, port = rest.rpartition(":")
        host = before if colon else rest
    return proto if found and proto else None, host, port if colon else None


def _loghost(text: str) -> Loghost:
    """Read an action that begins with ``@``. Raises ValueError, with what is said, and Refused."""
    try:
        proto, host, port = address(text[1:])
    except ValueError:
        raise ValueError(f'bad loghost "{text}"') from None
    if proto is None or proto in _NOT_MODELLED:
        raise Refused(text)
    if proto not in _TLS:
        raise ValueError(f'bad protocol "{text}"')
    return Loghost(text, _TLS[proto], host, port or "syslog-tls")


def _blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield the lines that are no comment, with the block of programs and the one of hosts that they stand in."""
    block = {"!": "*", "+": "*"}
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line[0] in block:
            words = line[1:].split()
            block[line[0]] = words[0][:255] if words else "*"
            continue
        yield raw.rstrip(), block["!"], block["+"]


def _pattern(block: str, mark: str) -> tuple[str | None, bool]:
    quick = block.startswith(mark)
    name = block[1:] if quick else block
    return None if name == "*" else name, quick


def rules(text: str, warn: Callable[[str], None]) -> list[Rule]:
    """Read syslog.conf.

    Args:
        text: the file.
        warn: is told of each line that is left out, in syslogd's words.

    Returns:
        Its lines in order; of two with the same file in the same block the second has become part of the first.

    Raises:
        Refused: an action is not modelled.
    """
    found: list[Rule] = []
    for line, programs, hosts in _blocks(text):
        program, quick = _pattern(programs, "!")
        host, quick_host = _pattern(hosts, "+")
        try:
            levels, action = _selector(line)
            target = _loghost(action) if action.startswith("@") else action
        except ValueError as error:
            warn(str(error))
            continue
        if action.startswith(("|", ":")):
            raise Refused(action)
        if action.startswith("/"):
            rule = Rule(levels, action, program, host, quick or quick_host)
            same = _duplicate(found, rule)
            if same is not None:
                merged = (b if b != NONE else a for a, b in zip(found[same].levels, levels, strict=True))
                found[same] = replace(found[same], levels=tuple(merged))
                continue
        else:
            rule = Rule(levels, target if isinstance(target, Loghost) else None, program, host, quick or quick_host)
        found.append(rule)
    return found


def _duplicate(found: list[Rule], rule: Rule) -> int | None:
    """Return the place of the line that has the same file in the same block (find_dup())."""
    for number, other in enumerate(found):
        same = (other.action, other.program, other.host) == (rule.action, rule.program, rule.host)
        if same and not other.quick and not rule.quick:
            return number
    return None
