"""Network and firewall of an OpenBSD host as configuration sets that undo themselves (DESIGN D3).

What these sets change is not only in files: netstart(8) does not remove addresses and routes that left the files
(contract 4), and a ruleset stays loaded whatever becomes of pf.conf. So the commands here take the running state
along, in both directions. All of it is pure: services call it, `operations.swap` runs it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from fleet.model.service import File, FileSet

CLONERS = (
    *("aggr", "bridge", "carp", "egre", "etherip", "gif", "gre", "lo", "nvgre", "pair", "pflog", "pflow", "pfsync"),
    *("pppoe", "svlan", "tap", "tpmr", "trunk", "tun", "veb", "vether", "vlan", "vxlan", "wg"),
)
"""Interfaces that netstart(8) creates; contract 4. All others are hardware, and there or not."""

MYGATE = "/etc/mygate"

HOSTNAME = re.compile(r"/etc/hostname\.([a-z]+[0-9]+)")

SAVE_RULES = """\
pfctl -si | grep -q '^Status: Enabled' || echo 'pfctl -d'
echo "pfctl -f /etc/pf.conf || pfctl -f - <<'END-OF-RULES'"
pfctl -sr
echo 'END-OF-RULES'"""
"""For `FileSet.before` of pf.conf: puts the old file's rules back or, where it does not load, those that ran.

The old file may never have been loaded: rc's own ruleset runs where it does not load at boot (contract 14).
"""

# A clone is made anew, with its parent and its keys; hardware keeps its link. lo0, enc0 and pflog0 are the kernel's.
_CLEAR = f"""\
clear() {{
	case $1 in
	lo0 | enc0 | pflog0) ;;
	{" | ".join(f"{cloner}[0-9]*" for cloner in CLONERS)}) ifconfig "$1" destroy ;;
	*) ifconfig "$1" -inet; ifconfig "$1" -inet6 ;;
	esac
}}
routes() {{ route -qn delete default || :; route -qn delete -inet6 default || :; }}"""

_CLEAR_ALL = f"""\
{_CLEAR}
routes
for nic in $(ifconfig | sed -n 's/^\\([a-z][a-z]*[0-9][0-9]*\\): flags=.*/\\1/p'); do clear "$nic"; done
sh /etc/netstart"""


def network_set(files: Sequence[File], name: str = "network") -> FileSet:
    """Return the set of all hostname.if(5) files of a host, with mygate(5) and what else belongs to them.

    Arguments: `files`; `name` of the set. Raises ValueError for a hostname.if that netstart would change: any other
    owner, group and mode than root:wheel 0640 (contract 0.3), and for a set without an interface.

    The check refuses hardware that is not there: netstart would pass over a mistyped name, and the next reboot would
    lock the owner out. Only interfaces whose file changed are configured anew, so that the others lose no packet; an
    interface whose file went loses its addresses. The undo clears all of them, also at boot, when rc(8) has
    configured the new files already, and lets netstart read the old ones: addresses that only the new files had must
    not stay.
    """
    found = {file.path: match[1] for file in files if (match := HOSTNAME.fullmatch(file.path))}
    if not found:
        raise ValueError("a network without a hostname.if(5) would leave the host without an address")
    for file in files:
        if file.path in found and (file.owner, file.group, file.mode) != ("root", "wheel", 0o640):
            raise ValueError(f"{file.path}: netstart(8) wants root:wheel and mode 0640")
    names = " ".join(sorted(found.values()))
    hardware = [each for each in sorted(found.values()) if each.rstrip("0123456789") not in CLONERS]
    check = "; ".join(
        f"ifconfig {each} >/dev/null 2>&1 || {{ echo {shlex.quote(f'there is no interface {each}')}; exit 1; }}"
        for each in hardware
    )
    return FileSet(
        name=name,
        files=tuple(files),
        check=check or None,
        exclusive=("/etc/hostname.*",),
        apply=_apply(names, any(file.path == MYGATE for file in files)),
        undo=_CLEAR_ALL,
        undo_at_boot=_CLEAR_ALL,
        dangerous=True,
    )


def _apply(names: str, gates: bool) -> str:
    """Configure what changed: what a swap has put beside a file is the old version of it."""
    first, *_ = names.split()
    new_gates = f"cmp -s {MYGATE} {MYGATE}.homefleet-old || {{ routes; due=${{due:-{first}}}; }}" if gates else ":"
    return f"""\
{_CLEAR}
due=''
for nic in {names}; do
	cmp -s "/etc/hostname.$nic" "/etc/hostname.$nic.homefleet-old" || due="$due $nic"
done
for old in /etc/hostname.*.homefleet-old; do
	nic=${{old#/etc/hostname.}} nic=${{nic%.homefleet-old}}
	[ ! -e "$old" ] || [ -e "/etc/hostname.$nic" ] || clear "$nic"
done
for nic in $due; do ! ifconfig "$nic" >/dev/null 2>&1 || clear "$nic"; done
{new_gates}
# shellcheck disable=SC2086 # a list of names
[ -z "$due" ] || sh /etc/netstart $due
for nic in {names}; do
	ifconfig "$nic" >/dev/null 2>&1 || {{ echo "there is no interface $nic"; exit 1; }}
done"""
