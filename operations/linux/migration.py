"""The path over which one twin moves a guest to the other: opened for one move, closed by the hosts themselves.

Access to the peer's libvirt is as good as root there, so at rest neither twin accepts the other. What opens a path,
and why it cannot stay open:

- the source makes a key for this move; the private half never leaves its /run, a tmpfs;
- it logs in as an account that exists for moves alone: no password, no other key, and the group that libvirt lets
  in. Its key is in a file that only root writes, so that nobody who came in as it can stay by adding one;
- the peer accepts that key with ``restrict``, ``from=``, ``expiry-time=`` by its own clock, and a forced
  virt-ssh-helper: whatever the source asks for, it gets libvirt's RPC and nothing else;
- the source knows exactly one host key for the peer: the one that the controller verified;
- the peer's firewall lets the source's address in at the migration ports, as an element that times out.

On either host a timer is armed *before* the key is made or accepted. So whenever the controller, the network or
the source dies, the peer closes; a host that restarts has nothing left of a path, nor has its firewall. The timer is
root's and ends every process of the account, so a login cannot put it off, hide from it or outlive it.

When the time is over the door shuts at once: no new login, no new stream. A login that is still there ends too,
with one exception: while a guest is arriving, its move may go on for at most `OVERRUN_SECONDS`. Ending it would
throw a copy of hours away, and in its last second could leave it unclear which side has the guest; never ending
it would let a source that was broken into stay. If the last moment passes the login is ended: libvirt then gives
the move up, the guest stays where it was, and the journal says so.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Generator
from dataclasses import dataclass

from pyinfra import host as current_host
from pyinfra import inventory
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.host import Host
from pyinfra.api.state import State

from facts.linux.domain import PEERS
from facts.linux.migration import (
    ACCOUNT,
    CLOSER,
    FOLDER,
    GROUP,
    KEY,
    KEYS,
    KNOWN_HOSTS,
    MINE,
    STREAMS,
    TABLE,
    Ends,
    MigrationPath,
    MigrationState,
)
from fleet.connector import ask, host_key, outcome, read, record_of, run
from fleet.model.site import Fleet
from operations.steps import Plan, Refusal, Step, perform

OVERRUN_SECONDS = 900
"""How long a move that is still copying may go on after its time; the door is shut meanwhile."""

SLACK = 10
"""A path of whose time at most this share, in per cent, is over is not opened anew (DESIGN O2)."""

LONGEST_MINUTES = 24 * 60

CLOSED = f"{FOLDER}/migration-close.sh"

SUBJECT = "migration path"


@dataclass(frozen=True)
class Move:
    """A path as it is wanted: its ends, the peer's sshd port, and for how many seconds."""

    ends: Ends
    port: int = 22
    seconds: int = 1800

    def uri(self) -> str:
        """Return the connection URI with which the source's libvirt reaches the peer's while the path is open.

        It is the transport of libssh: the one with OpenSSH's client ignores ``known_hosts``, and its ``command``
        cannot be a script of ours where AppArmor confines libvirtd. https://libvirt.org/uri.html
        """
        port = "" if self.port == 22 else f":{self.port}"
        return (
            f"qemu+libssh://{ACCOUNT}@{self.ends.peer_address}{port}/system?keyfile={KEY}"
            f"&known_hosts={KNOWN_HOSTS}&known_hosts_verify=normal&sshauth=privkey&proxy=native"
        )

    def known_host(self, key: str) -> str:
        """Return the line of known_hosts for the peer, whose host key is `key` (``TYPE BASE64``)."""
        where = self.ends.peer_address if self.port == 22 else f"[{self.ends.peer_address}]:{self.port}"
        return f"{where} {key}"


def between(fleet: Fleet, source: str, peer: str, minutes: int) -> Move:
    """Return the move of `minutes` from `source` to `peer`, with the addresses that both have on one network.

    They come from the model, not from the connection, which may be a relay. Raises ValueError with a message
    for hosts that are not there or share no network, or for a time out of range.
    """
    if not 1 <= minutes <= LONGEST_MINUTES:
        raise ValueError(f"minutes: 1 to {LONGEST_MINUTES}, not {minutes}")
    if source == peer:
        raise ValueError(f"{source} cannot be both ends of a path")
    known = {each.name: each for each in fleet.hosts()}
    for name in (source, peer):
        if name not in known:
            raise ValueError(f"there is no host {name}")
    one, other = known[source], known[peer]
    if fleet.site_of(one).name != fleet.site_of(other).name:
        raise ValueError(f"{source} and {peer} are not at the same site")
    for mine in one.interfaces:
        for theirs in other.interfaces:
            here = next((str(it.ip) for it in mine.addresses if it.version == 4), None)
            there = next((str(it.ip) for it in theirs.addresses if it.version == 4), None)
            if mine.network == theirs.network and here and there:
                return Move(Ends(source, here, peer, there), other.sshd_port, minutes * 60)
    raise ValueError(f"{source} and {peer} have no network with IPv4 addresses in common")


def obstacle(move: Move, source: MigrationState | None, peer: MigrationState | None) -> str | None:
    """Return why `move`'s path cannot be opened between hosts in these states, or None. Pure."""
    ends = move.ends
    for name, state in ((ends.source, source), (ends.peer, peer)):
        if state is None:
            return f"{name} cannot be asked; a path needs both ends"
        busy = state.left is not None and (state.left > 0 or state.streams > 0)
        if state.ends is not None and state.ends != ends and busy:
            return (
                f"a path from {state.ends.source} to {state.ends.peer} is open on {name} "
                f"({_time(state.left)}); close it first"
            )
    assert peer is not None
    if peer.firewall is None:
        return f"{ends.peer} has no nftables set {PEERS}: its firewall is not deployed or not loaded"
    return None


def plan_source(move: Move, source: MigrationState | None, peer: MigrationState | None, known: str | None) -> Plan:
    """Return what `move` needs on its source: the timer, then key and known_hosts. Pure.

    Arguments: `known`, the peer's host key as the controller verified it, or None.
    """
    why = obstacle(move, source, peer)
    if why is None and known is None:
        why = f"{move.ends.peer} showed no host key"
    if why is not None:
        return Plan(refused=(Refusal(SUBJECT, f"not opened: {why}"),))
    assert source is not None
    assert known is not None
    line = move.known_host(known)
    if _lasts(move, "source", source) and source.key and source.known_hosts == (line,):
        return Plan()
    label = f"made the key of a move to {move.ends.peer}"
    if source.ends == move.ends and source.key:
        label = f"kept the key of a move to {move.ends.peer} for {_time(move.seconds)}"
    return Plan(steps=(*_tidy(move, source), Step(SUBJECT, label, "sh -s", stdin=source_script(move, line))))


def plan_peer(move: Move, source: MigrationState | None, peer: MigrationState | None) -> Plan:
    """Return what `move` needs on its peer: the timer, then firewall and key. Pure."""
    why = obstacle(move, source, peer)
    if why is None and source is not None and not (source.key and source.ends == move.ends):
        why = f"{move.ends.source} has no key for it"
    if why is not None:
        return Plan(refused=(Refusal(SUBJECT, f"not opened: {why}"),))
    assert source is not None
    assert source.key
    assert peer is not None
    address = move.ends.source_address
    accepts = [(it.source, it.key) for it in peer.accepted] == [(address, source.key)]
    lets_in = list(peer.firewall or ()) == [address] and _enough(move, (peer.firewall or {})[address])
    if _lasts(move, "peer", peer) and accepts and lets_in:
        return Plan()
    label = f"accepts {move.ends.source} for {_time(move.seconds)}"
    return Plan(steps=(*_tidy(move, peer), Step(SUBJECT, label, "sh -s", stdin=peer_script(move, source.key))))


def plan_close(ends: Ends, found: MigrationState | None, force: bool = False) -> Plan:
    """Return what closes the path between `ends` on a host at once. Pure.

    Arguments: `force`: also if a guest is arriving at this moment.
    """
    if found is None:
        return Plan(refused=(Refusal(SUBJECT, "not closed: what is open could not be read"),))
    if found.at_rest:
        return Plan()
    if found.ends is not None and found.ends != ends and (found.left or 0) > 0:
        other = f"{found.ends.source} to {found.ends.peer}"
        return Plan(refused=(Refusal(SUBJECT, f"not closed: the one that is open goes from {other}"),))
    if found.streams and not force:
        message = f"not closed: a guest is arriving from {ends.source}; wait, or say force=true to end its move"
        return Plan(refused=(Refusal(SUBJECT, message),))
    return Plan(steps=(Step(SUBJECT, "closed", "sh -s now", stdin=CLOSE),))


def plan_rest(found: MigrationState | None) -> Plan:
    """Return what brings a host to rest without touching a path that is in time. Pure."""
    if found is None:
        return Plan(refused=(Refusal(SUBJECT, "what is open could not be read"),))
    if found.at_rest:
        return Plan()
    if found.ends is not None and found.left is not None:
        way = f"a migration path from {found.ends.source} to {found.ends.peer}"
        copying = found.streams > 0 and found.left > -OVERRUN_SECONDS
        if found.left > 0 or copying:
            said = f"{way} is open ({_time(found.left)})"
            if found.left <= 0:
                said = f"{way} is over its time, a guest is still arriving"
            steps = () if found.closer else (Step(SUBJECT, "armed its closing", "sh -s", stdin=arm_script(found.left)),)
            return Plan(steps=steps, notes=(said,))
    return Plan(steps=(_sweep(),))


def _sweep() -> Step:
    return Step(SUBJECT, "removed what was left of one", "sh -s now", stdin=CLOSE)


def _tidy(move: Move, found: MigrationState) -> tuple[Step, ...]:
    return () if found.at_rest or found.ends == move.ends else (_sweep(),)


def _lasts(move: Move, role: str, found: MigrationState) -> bool:
    mine = found.role == role and found.ends == move.ends and found.closer
    return mine and found.left is not None and _enough(move, found.left)


def _enough(move: Move, left: int) -> bool:
    return left * 100 >= move.seconds * (100 - SLACK)


def _time(seconds: int | None) -> str:
    if seconds is None:
        return "for an unknown time"
    if seconds <= 0:
        return "its time is over"
    return f"{math.ceil(seconds / 60)} min"


_BEGIN = f"""\
set -eu
umask 077
trap '' PIPE HUP
PATH=/usr/sbin:/usr/bin:/sbin:/bin
fail() {{ echo "$*" >&2; exit 1; }}
main() {{
mkdir -p {FOLDER}
chmod 711 {FOLDER}
exec 9<{FOLDER}
flock -w 60 9
read -r up _ </proc/uptime
up=${{up%%.*}}"""

_END = """\
}
main "$@" </dev/null
"""

CLOSE = f"""\
# Closes a migration path once its time is over, or at once if called with the word now.
set -u
umask 077
trap '' PIPE HUP
PATH=/usr/sbin:/usr/bin:/sbin:/bin

arriving() {{
	n=$({STREAMS})
	[ "$n" -gt 0 ]
}}

main() {{
mkdir -p {FOLDER}
exec 9<{FOLDER}
said=
while :; do
	flock 9
	until=0
	[ ! -r {MINE}/path ] || read -r _ _ _ _ _ until <{MINE}/path
	case $until in *[!0-9]* | '') until=0 ;; esac
	read -r up _ </proc/uptime
	left=$((until - ${{up%%.*}}))
	# Whoever opened the path again has moved its end.
	if [ "$1" != now ] && [ "$left" -gt 0 ]; then
		flock -u 9
		sleep $((left < 15 ? left : 15))
		continue
	fi
	rm -f {KEYS} {KEY} {KEY}.pub {KNOWN_HOSTS}
	if nft list set {TABLE} {PEERS} >/dev/null 2>&1; then nft flush set {TABLE} {PEERS}; fi
	if [ "$1" != now ] && [ "$left" -gt -{OVERRUN_SECONDS} ] && arriving; then
		[ -n "$said" ] || logger -p daemon.warning -t {CLOSER} 'the time is over, a guest is still arriving'
		said=yes
		flock -u 9
		sleep 10
		continue
	fi
	if arriving; then logger -p daemon.err -t {CLOSER} 'ended the login of a move that was still copying'; fi
	# More than once: a login of this very moment had passed the test for the keys, but had not started anything.
	for signal in TERM TERM TERM KILL; do
		pkill "-$signal" -u {ACCOUNT}
		sleep 1
		pgrep -u {ACCOUNT} >/dev/null || break
	done
	rm -rf {MINE} {FOLDER}/migration?*
	systemctl -q stop {CLOSER}.timer 2>/dev/null
	[ "$1" != now ] || systemctl -q stop {CLOSER}.service 2>/dev/null
	return 0
done
}}
main "${{1:-due}}" </dev/null
exit
"""


def _closer() -> str:
    """Return the commands that see to it that this host closes the path, ``$left`` seconds from now.

    An older timer is good enough: what it starts looks at the path's end again before it ends anything. It has
    two clocks, because the first stands still while a desktop sleeps; systemd.timer(5).
    """
    return f"""\
cat >{CLOSED}.new <<'END-OF-CLOSE'
{CLOSE}END-OF-CLOSE
mv {CLOSED}.new {CLOSED}
if [ "$known" = yes ] && {{ systemctl -q is-active {CLOSER}.timer || systemctl -q is-active {CLOSER}.service; }}; then
	:
else
	systemctl -q stop {CLOSER}.timer {CLOSER}.service 2>/dev/null || :
	systemctl -q reset-failed {CLOSER}.timer {CLOSER}.service 2>/dev/null || :
	systemd-run -q --unit={CLOSER} --description='Close a migration path whose time is over' \\
		--on-active="$left" --on-calendar="@$(($(date +%s) + left))" --timer-property=AccuracySec=1s \\
		-p Restart=on-failure -p RestartSec=5 /bin/sh {CLOSED}
fi"""


def _record(move: Move, role: str) -> str:
    """Return the commands that write a path's end down on its host and arm its closing."""
    ends = move.ends
    line = f"{role} {ends.source} {ends.source_address} {ends.peer} {ends.peer_address}"
    return f"""\
until=$((up + {move.seconds}))
known=no
if [ -e {MINE}/path ]; then
	read -r r a b c d old <{MINE}/path
	[ "$r $a $b $c $d" = {shlex.quote(line)} ] || fail "there is one already: $a to $c"
	known=yes
	[ "$old" -le "$until" ] || until=$old
fi
mkdir -p {MINE}
echo {shlex.quote(line)} "$until" >{MINE}/path.new
mv {MINE}/path.new {MINE}/path
left=$((until - up))
{_closer()}"""


def arm_script(left: int) -> str:
    """Return the sh that arms the closing of a path that is open, for `left` seconds, without one."""
    return f"{_BEGIN}\nknown=no\nleft={max(left, 1)}\n{_closer()}\n{_END}"


def source_script(move: Move, known: str) -> str:
    """Return the sh that makes the source's end: the timer first, then the key and the one known host."""
    comment = f"a move from {move.ends.source} to {move.ends.peer}"
    return f"""\
{_BEGIN}
{_record(move, "source")}
if [ ! -s {KEY}.pub ]; then
	rm -f {KEY}
	ssh-keygen -q -t ed25519 -N '' -C {shlex.quote(comment)} -f {KEY}
fi
echo {shlex.quote(known)} >{KNOWN_HOSTS}.new
mv {KNOWN_HOSTS}.new {KNOWN_HOSTS}
{_END}"""


def peer_script(move: Move, key: str) -> str:
    """Return the sh that makes the peer's end: the timer first, then the firewall, and the key last.

    Arguments: `key`, the public half, ``TYPE BASE64``.
    """
    address = move.ends.source_address
    element = f"element {TABLE} {PEERS}"
    # sshd looks at the expiry at a login; one that was let in while the path closed may start its command after
    # that, even under a later path: hence the test for this very key.
    command = f"grep -qsF {key.split()[1]} {KEYS} && exec virt-ssh-helper 'qemu:///system'"
    options = f'restrict,from=\\"{address}\\",expiry-time=\\"$expires\\",command=\\"$command\\"'
    return f"""\
{_BEGIN}
command -v virt-ssh-helper >/dev/null || fail 'there is no virt-ssh-helper here'
nft list set {TABLE} {PEERS} >/dev/null || fail 'the firewall has no set {PEERS}'
case " $(id -nG {ACCOUNT}) " in
*' {GROUP} '*) ;;
*) fail 'there is no account {ACCOUNT} in the group {GROUP}: its role is not deployed' ;;
esac
sshd=$(sshd -T -C user={ACCOUNT},host={address},addr={address},laddr={move.ends.peer_address},lport={move.port}) ||
	fail 'sshd does not tell its configuration'
echo "$sshd" | grep -qx 'authorizedkeysfile {KEYS}' || fail 'sshd reads the keys of {ACCOUNT} elsewhere'
echo "$sshd" | grep -qx 'pubkeyauthentication yes' || fail 'sshd accepts no keys: PubkeyAuthentication'
{_record(move, "peer")}
nft -f - <<END-OF-RULES
flush set {TABLE} {PEERS}
add {element} {{ {address} timeout ${{left}}s }}
END-OF-RULES
# By this host's own clock: sshd compares with nothing else.
expires=$(date -u -d "@$(($(date +%s) + left))" +%Y%m%d%H%M%SZ)
command={shlex.quote(command)}
echo "{options} {key}" >{KEYS}.new
chmod 644 {KEYS}.new
mv {KEYS}.new {KEYS}
{_END}"""


def proof_script(move: Move) -> str:
    """Return the sh that proves on the source that the path leads to the peer's libvirt."""
    return f"timeout -k 5 60 virsh -q -c {shlex.quote(move.uri())} hostname </dev/null"


def _found() -> MigrationState | None:
    state: MigrationState | None = read(current_host, MigrationPath)
    return state


def _both(move: Move) -> tuple[MigrationState | None, MigrationState | None]:
    """Return the states of source and peer, seen from whichever of the two is the current host."""
    if current_host.name == move.ends.source:
        return _found(), ask(move.ends.peer, MigrationPath())
    return ask(move.ends.source, MigrationPath()), _found()


def _planning() -> bool:
    return current_host.state is not None and not current_host.state.is_executing


@operation()
def path_key(move: Move) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Make the key of `move` on its source, and its known_hosts; nothing to do on another host."""
    if current_host.name != move.ends.source:
        current_host.noop("not the source")
        return
    source, peer = _both(move)
    other = inventory.get_host(move.ends.peer)
    yield from perform(plan_source(move, source, peer, None if other is None else host_key(other)))


@operation()
def path_acceptance(move: Move) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Let the peer of `move` accept that key from the source, and its guests; nothing to do on another host."""
    if current_host.name != move.ends.peer:
        current_host.noop("not the peer")
        return
    if record_of(move.ends.source).has_failed(SUBJECT):
        outcome(current_host).fail(SUBJECT, f"not opened: see {move.ends.source}")
        return
    source, peer = _both(move)
    plan = plan_peer(move, source, peer)
    if _planning() and obstacle(move, source, peer) is None:
        # The key that it needs may be due in this very run.
        plan = Plan(plan.steps)
    yield from perform(plan)


@operation()
def path_proof(move: Move) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Prove from the source that a path which was opened just now works, and say how it is used."""
    if current_host.name != move.ends.source:
        current_host.noop("not the source")
        return
    ends = (record_of(move.ends.source), record_of(move.ends.peer))
    if any(record.has_failed(SUBJECT) or record.reason for record in ends):
        current_host.noop("nothing was opened")
        return
    record = outcome(current_host)
    record.note(f"the peer's libvirt: {move.uri()}")
    record.note(f"the peer's streams: tcp://{move.ends.peer_address}")
    if any(SUBJECT in record.changed for record in ends):
        yield FunctionCommand(_prove, (move,), {})
    else:
        current_host.noop("the path was open already")


def _prove(state: State, host: Host, move: Move) -> bool:
    del state
    result = run(host, proof_script(move))
    if result is None:
        return False
    if not result.ok:
        outcome(host).fail(SUBJECT, f"it is open, but {move.ends.peer}'s libvirt does not answer: {result.error}")
    return True


@operation()
def path_closing(move: Move, force: bool = False) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Close the path of `move` at once on this end of it; a peer that cannot be reached closes by itself.

    Arguments: `force`: also if a guest is arriving at this moment.
    """
    yield from perform(plan_close(move.ends, _found(), force))


@operation()
def path_status() -> Generator[StringCommand | FunctionCommand, None, None]:
    """Say what of a path is on this host; changes nothing."""
    found = _found()
    outcome(current_host).note(words(found))
    current_host.noop("only asked")
    yield from ()


def words(found: MigrationState | None) -> str:
    """Return one line that tells what of a path is on a host."""
    if found is None:
        return f"{SUBJECT}: could not be read"
    if found.at_rest:
        return f"{SUBJECT}: none"
    if found.ends is None:
        return f"{SUBJECT}: left-overs: {', '.join(found.files) or 'units or firewall'}"
    said = [f"{found.role} of {found.ends.source} to {found.ends.peer}", _time(found.left)]
    if found.key:
        said.append("has the key")
    said += [f"accepts a key from {it.source} until {it.expires} UTC" for it in found.accepted]
    said += [f"lets {address} in for {left} s" for address, left in (found.firewall or {}).items()]
    said.append("closes by itself" if found.closer else "NOTHING WILL CLOSE IT")
    if found.processes or found.streams:
        said.append(f"{found.processes} processes of {ACCOUNT}, {found.streams} streams")
    return f"{SUBJECT}: " + ", ".join(said)


@operation()
def migration_rest() -> Generator[StringCommand | FunctionCommand, None, None]:
    """Remove what is left of a path whose time is over; say so of one that is in time, which is left alone."""
    yield from perform(plan_rest(_found()))
