"""Rules as `pfctl -sr` writes them; contract 3.1."""

from __future__ import annotations

from collections.abc import Sequence

from . import names
from .model import PROTOCOLS, TCP, Addr, Op, Rule

_PROTOCOL_NAMES = {number: name for name, number in reversed(PROTOCOLS.items())} | {58: "ipv6-icmp"}


def rules(listed: Sequence[Rule], indent: int = 0) -> list[str]:
    """Return the lines that show rules, those in an anchor's braces further in.

    Args:
        listed: the rules of one ruleset.
        indent: blanks before each line.

    Returns:
        One line for a rule, and one for each closing brace.
    """
    lines = []
    for rule in listed:
        lines.append(" " * indent + _rule(rule))
        if rule.rules is not None:
            lines[-1] += " {"
            lines += [*rules(rule.rules, indent + 2), " " * indent + "}"]
    return lines


def _rule(rule: Rule) -> str:
    words: list[str] = [rule.action]
    if rule.anchor and not rule.anchor.startswith("_"):
        words.append(f'"{rule.anchor}"')
    if rule.action == "block":
        words.append(rule.returns)
    words += [word for word in (rule.direction, rule.log) if word]
    if rule.quick:
        words.append("quick")
    if rule.interface:
        words.append(f"on {'! ' if rule.interface_negated else ''}{rule.interface}")
    if rule.af:
        words.append("inet6" if rule.af == 6 else "inet")
    if rule.proto:
        words.append(f"proto {_PROTOCOL_NAMES.get(rule.proto, str(rule.proto))}")
    words.append(_from_to(rule))
    if rule.received_on:
        words.append(f"{'!' if rule.received_negated else ''}received-on {rule.received_on}")
    words += [f"{what} {op}" for what, op in (("user", rule.user), ("group", rule.group)) if op]
    words += _flags_and_types(rule)
    words += _state(rule)
    words += _marks(rule)
    return " ".join(words)


def _flags_and_types(rule: Rule) -> list[str]:
    words = []
    if rule.flags and rule.flags != ("", ""):
        words.append("flags {}/{}".format(*rule.flags))
    elif rule.action == "pass" and rule.proto in {0, TCP} and rule.state:
        words.append("flags any")
    if rule.icmp_type is not None:
        known = {number: name for name, number in names.icmp_types(rule.proto).items()}
        word = "icmp6-type" if rule.proto == 58 else "icmp-type"
        words.append(f"{word} {known.get(rule.icmp_type, str(rule.icmp_type))}")
        if rule.icmp_code is not None:
            words.append(f"code {rule.icmp_code}")
    return words


def _state(rule: Rule) -> list[str]:
    if rule.action != "pass":
        return []
    if not rule.state:
        return ["no state"]
    options = str(rule.options)
    if rule.state == "modulate":
        return [f"modulate state ({options})" if options else "modulate state"]
    return [f"keep state ({options})"] if options else []


def _marks(rule: Rule) -> list[str]:
    words = []
    scrub = [*rule.scrub, *([f"max-mss {rule.max_mss}"] if rule.max_mss else [])]
    if scrub:
        words.append(f"scrub ({' '.join(scrub)})")
    if rule.prio:
        words.append(f"set ( prio {rule.prio} )")
    if rule.label:
        words.append(f'label "{rule.label}"')
    if rule.tag:
        words.append(f"tag {rule.tag}")
    if rule.tagged:
        words.append(f"{'! ' if rule.tagged_negated else ''}tagged {rule.tagged}")
    if rule.nat:
        words.append(f"nat-to {rule.nat}")
    if rule.rdr:
        words.append(f"rdr-to {rule.rdr}")
    return words


def _from_to(rule: Rule) -> str:
    sides = (("from", rule.source, rule.source_port), ("to", rule.dest, rule.dest_port))
    if all(addr == Addr() and port is None for _, addr, port in sides):
        return "all"
    return " ".join(f"{word} {_peer(addr, port)}" for word, addr, port in sides)


def _peer(addr: Addr, port: Op | None) -> str:
    return f"{addr} port {port}" if port else str(addr)
