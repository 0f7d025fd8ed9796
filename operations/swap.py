"""What a host runs to swap one configuration set in: POSIX sh for OpenBSD's ksh and Ubuntu's dash (DESIGN D2, D3, O7).

The run is a row of small steps, each of which leaves the set whole or knows the way back:

1. The new files are staged below ``stage/``, which is private, and the daemon's parser reads them there.
2. The way back is written to ``undo/`` and the marker in ``pending/`` is made.
3. Every new file is written beside its place, and every old one gets a second name there. A disk that fills up does
   so here, where nothing was swapped yet; the way back needs no space at all.
4. Renames, and nothing else, swap the set in.
5. The daemon follows, or is given up: a check or a daemon that hangs is ended by timeout(1). A failure up to here, of
   whatever kind, goes the way back before the script ends.
6. One rename, of ``undo/NAME`` to ``final/NAME``, makes it final. What is left is cleaning up.

Four things take the way back when the script cannot: a *guard* in the background, if the script is killed; a *timer*,
if nobody confirms a dangerous set; the next *boot*, if the power goes; and the next run, if all else fails. The timer,
the boot and the confirmation rename the same ``armed/NAME`` first, and the one that can has decided.

The timer. Ubuntu has ``systemd-run``. OpenBSD's base has neither setsid(1) nor daemon(8), and at(1) counts in minutes
and needs cron(8) running: the timer is a background process that ignores SIGHUP and SIGPIPE and has no descriptor of
the session. sshd(8) signals nothing at the end of a session without a tty.

The boot. Ubuntu has a unit before network, firewall and sshd. OpenBSD has ``/etc/rc.securelevel`` (rc(8), contract
1.8), the earliest file that rc executes as a script and that no upgrade replaces. It runs after netstart and pf.conf
and before sshd: the old files are in place when sshd reads them, while ``undo_at_boot`` makes network and pf follow.
pf(4) can still be changed, since the security level is raised only afterwards. Ruled out were: a ``!`` line of
hostname.if(5), which is part of what may be wrong, runs while netstart reads those very files, and runs again with
every netstart by hand; rc.conf.local(8), which is read and not executed; rc.local, which comes after sshd.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

from facts.filesets import state_of_host
from fleet.model.service import File, FileSet

UNDO_SECONDS = 50
"""How long a host waits for the confirming login before it puts the old files and the old state back.

A little less than the minute after which all has to be as it was: the old state takes some seconds to apply.
"""

FOLLOW_SECONDS = 45
"""How long a dangerous set may take to be followed by the running system: less than the undo waits."""

PATIENT_SECONDS = 100
"""The same for an ordinary set."""

CHECK_SECONDS = 60
"""How long a check may take."""

LOCK_SECONDS = 120
"""How long a run waits for another one that is at work on the same set, or for an undo that is under way."""

CONFIRM_WAIT_SECONDS = 100
"""How long the controller waits for the end of a script whose connection it has lost."""

RUN = "/var/run/homefleet"
"""Who is at work on which set: symbolic links to process numbers. Both systems empty /var/run at boot."""

SECURELEVEL = "/etc/rc.securelevel"

UNIT = "/etc/systemd/system/homefleet-undo.service"

UNDO_UNIT = """\
[Unit]
Description=Roll back configuration that nobody confirmed or that was left half swapped
DefaultDependencies=no
ConditionDirectoryNotEmpty=|{state}/armed
ConditionDirectoryNotEmpty=|{state}/pending
After=local-fs.target systemd-tmpfiles-setup.service
Before=sysinit.target network-pre.target systemd-networkd.service nftables.service ssh.service
Wants=network-pre.target

[Service]
Type=oneshot
ExecStart=/bin/sh {state}/rollback boot

[Install]
WantedBy=sysinit.target
"""


def script(
    wanted: FileSet,
    *,
    openbsd: bool = False,
    seconds: int = UNDO_SECONDS,
    followed: bool = False,
    kept: Collection[str] = (),
    ticket: str = "0",
) -> str:
    """Return the script that brings `wanted` about, or leaves everything as it was and exits non-zero.

    Arguments: `wanted`, whose texts have their secrets in them; `openbsd`, which tools the host has; `seconds` until
    an armed undo runs; `followed`: a later command makes a daemon follow, so the pending marker stays until
    `settled`; `kept`, paths that other sets of the host have: a file that moved to one of them does not go; `ticket`,
    letters and digits by which `confirmation` knows this run from an earlier one.

    The script is fed to ``sh -s``, so a secret is in no argument list, and is one compound command, so that nothing of
    it runs if the connection is lost before all of it is there. It reads no standard input and shows the
    text of no file (DESIGN O5). A set that is dangerous ends armed and pending.
    """
    name, state = wanted.name, state_of_host(openbsd)
    staged = f"{state}/stage/{name}"
    place = File(path=f"{state}/manifest/{name}", text="".join(f"{file.path}\n" for file in wanted.files), mode=0o600)
    files = (*wanted.files, place)
    parts = [
        "{",
        f"state={state} run={RUN} name={name} ticket={ticket}",
        _hands(openbsd) + _START,
        _wait(openbsd, seconds),
        _LOCK,
        _heredoc('"tmp/$name.rollback"', f"state={state} run={RUN}\n{_ROLLBACK}"),
        'cmp -s "tmp/$name.rollback" rollback || mv -f "tmp/$name.rollback" rollback',
        _GUARD,
        _hook_of_openbsd(state) if openbsd else _hook_of_ubuntu(state),
        _CLEAN,
        *(_stage(file, staged, owned=file is not place) for file in files),
    ]
    if wanted.check is not None and not wanted.check_in_place:
        parts.append(_check(wanted.check.replace("{new}", staged), "in place"))
    parts += [_away(wanted, staged + place.path, kept), _way_back(wanted, place.path, followed, openbsd), _PENDING]
    if wanted.dangerous:
        parts.append((_ARM_OPENBSD if openbsd else _ARM_UBUNTU).replace("UNDO_SECONDS", str(seconds)))
    parts.append("step='writing the new files beside the old ones'")
    parts += [f"bring {shlex.quote(file.path)} {shlex.quote(file.owner)} {file.mode:o}" for file in files]
    parts.append("step='giving the old files a second name'")
    parts += [f"aside {shlex.quote(file.path)}" for file in files]
    parts.append("sync\nstep='swapping'")
    parts += [f"swap {shlex.quote(file.path)}" for file in files]
    parts.append('while IFS= read -r path; do gone "$path"; done <"away/$name"')
    if wanted.check is not None and wanted.check_in_place:
        parts.append(_check(wanted.check.replace("{new}", ""), "back"))
    if wanted.apply is not None:
        parts.append(_apply(wanted.apply, FOLLOW_SECONDS if wanted.dangerous else PATIENT_SECONDS))
    parts.append(_END_ARMED if wanted.dangerous else _END)
    return "\n".join((*parts, "}")) + "\n"


def ended(name: str, openbsd: bool = False, ticket: str = "0") -> str:
    """Return the command that waits for the end of the script that applies set `name`, at most `CONFIRM_WAIT_SECONDS`.

    The connection may have been lost in the middle of it. Arguments: as of `confirmation`. A script that waits for the
    undo of an earlier run has not begun: that is waited for too.
    """
    state, lock = state_of_host(openbsd), f"{RUN}/{name}"
    return f"""\
n=0 idle=0
while [ $n -lt {CONFIRM_WAIT_SECONDS} ] && [ $idle -lt 2 ]; do
	if kill -0 "$(readlink {lock})" 2>/dev/null; then
		idle=0
	elif [ "$(cat {state}/pending/{name} 2>/dev/null)" = {ticket} ]; then
		exit 0
	elif [ -e {state}/armed/{name} ]; then
		idle=0
	else
		idle=$((idle + 1))
	fi
	sleep 1
	n=$((n + 1))
done"""


def confirmation(name: str, openbsd: bool = False, ticket: str = "0") -> str:
    """Return the command that makes a dangerous set final; it fails, and says why, if the undo came first.

    Arguments: `name` of the set; `ticket` of the run whose `script` applied it: an earlier run's set is never confirmed
    in its place. It waits for nothing. The login that sends it may be older than a change that is still being made, and
    would prove nothing of what that change leads to.
    """
    state, lock = state_of_host(openbsd), f"{RUN}/{name}"
    timer = "" if openbsd else f"; systemctl -q stop homefleet-undo-{name}.timer 2>/dev/null || :"
    return f"""\
if kill -0 "$(readlink {lock})" 2>/dev/null; then
	echo 'it is still being applied, and is undone at its end: nothing confirms it' >&2
	exit 1
elif [ "$(cat {state}/pending/{name} 2>/dev/null)" != {ticket} ]; then
	echo 'it was undone before it could be confirmed: the old state is back' >&2
	exit 1
elif sh {state}/rollback confirm {name}; then
	:{timer}
else
	echo 'it was undone already: the old files are back' >&2
	exit 1
fi"""


def settled(names: Sequence[str], openbsd: bool = False) -> str:
    """Return the command that ends `followed` sets: their daemons run what is on disk."""
    return "rm -f " + " ".join(f"{state_of_host(openbsd)}/pending/{name}" for name in names)


# Whoever owns a folder can put a link there at any moment, and root would follow it: what is done there is done as him.
# su(1) of both systems keeps the environment and takes a shell from root; the account's own may be nologin(8).
_HANDS = """\
NL='
'
whose() {
	folder=${1%/*} who=''
	set --
	while [ -n "$folder" ]; do set -- "$folder" "$@"; folder=${folder%/*}; done
	[ $# -gt 0 ] || return 0
	folder=$(find -H "$@" -prune ! -user root 2>/dev/null) || :
	folder=${folder%%"$NL"*}
	[ -n "$folder" ] || return 0
	who=$(STAT "$folder")
	[ "$who" != "$(id -un)" ] || who=''
}
act() {
	whose "$1"
	export P="$1"
	if [ -z "$who" ]; then eval "$2"; else su -s /bin/sh "$who" -c "$2" </dev/null; fi
}
"""


def _hands(openbsd: bool) -> str:
    return _HANDS.replace("STAT", "stat -f %Su" if openbsd else "stat -c %U")


_START = """\
set -eu
umask 077
trap '' PIPE HUP
PATH=$PATH:/sbin:/usr/sbin:/usr/local/sbin:/usr/local/bin
step='making the state folder' how=files said='' locked='' armed=''
say() { printf '%s\\n' "$*" >&2; }
exists() { [ -e "$1" ] || [ -L "$1" ]; }
alive() {
	holder=$(readlink "$run/$1" 2>/dev/null) || return 1
	kill -0 "$holder" 2>/dev/null || return 1
	# One that has ended is there until its parent asks how, and init may take its time.
	case $(ps -o state= -p "$holder" 2>/dev/null) in Z*) return 1 ;; esac
}
# shellcheck disable=SC2317 # called by the trap
leave() {
	code=$?
	trap - EXIT
	set +e
	if [ "$code" -ne 0 ]; then
		[ -n "$said" ] || say "failed while $step; the old files are in place"
		# Without the armed script somebody else is on the way back already.
		if [ -z "$armed" ] || mv "armed/$name" "undo/$name" 2>/dev/null; then
			if [ -n "$locked" ] && [ -e "pending/$name" ] && [ -e "undo/$name" ]; then
				sh "undo/$name" "$how" </dev/null >/dev/null 2>&1 || say 'and the old state could not be put back'
			fi
		fi
	fi
	if [ -n "$locked" ]; then
		rm -rf "stage/$name" "tmp/$name."*
		[ -e "pending/$name" ] || rm -f "away/$name"
		rm -f "$run/$name" "$run/$name.guard"
	fi
	exit "$code"
}
trap leave EXIT
trap 'exit 143' TERM INT
mkdir -p "$state" "$run"
cd "$state"
mkdir -p stage pending armed undo final away manifest tmp
chmod 700 "$state"
bring() {
	whose "$1"
	if [ -z "$who" ]; then
		( umask 022; mkdir -p "${1%/*}" )
		rm -f "$1.homefleet-new"
		cp -p "stage/$name$1" "$1.homefleet-new"
	elif [ "$who" = "$2" ]; then
		P=$1 MODE=$3 su -s /bin/sh "$who" -c "$BRING" <"stage/$name$1"
	else
		said=1; say "$1 would be $2's in a folder of $who"; exit 1
	fi
}
aside() {
	exists "$1" || return 0
	act "$1" "$ASIDE"
}
swap() { act "$1" 'mv -f "$P.homefleet-new" "$P"'; }
gone() { ! exists "$1" || act "$1" 'mv -f "$P" "$P.homefleet-old"'; }
BRING='umask 077; mkdir -p "${P%/*}"; rm -f "$P.homefleet-new"
cat >"$P.homefleet-new" && chmod "$MODE" "$P.homefleet-new"'
ASIDE='rm -f "$P.homefleet-old"
if [ -L "$P" ]; then ln -s "$(readlink "$P")" "$P.homefleet-old"; else ln "$P" "$P.homefleet-old"; fi'"""

# A symbolic link is made whole or not at all, and needs no disk space for the number in it.
_LOCK = f"""\
step='waiting for another run'
n=0 stale=0
until ln -s $$ "$run/$name" 2>/dev/null; do
	if alive "$name" || alive "$name.guard"; then
		[ $n -lt {LOCK_SECONDS} ] || {{ said=1; say 'another run is at work on this set: nothing was done'; exit 1; }}
		n=$((n + 1)); sleep 1
	else
		[ $stale -lt 3 ] || {{ step='making a lock'; exit 1; }}
		stale=$((stale + 1)); rm -f "$run/$name"
	fi
done
locked=1
step='preparing'
mkdir -p "stage/$name"
# ksh(1) keeps here-documents, and so secrets, in files of this folder.
TMPDIR=$state/stage/$name
export TMPDIR"""

_GUARD = """\
rm -f "$run/$name.guard"
sh rollback guard "$name" $$ </dev/null >/dev/null 2>&1 &
ln -s $! "$run/$name.guard\""""

_CLEAN = """\
step='finishing what an earlier run left'
[ ! -e "armed/$name" ] || sh rollback timer "$name" 0
[ ! -e "final/$name" ] || sh "final/$name" keep
if [ -e "pending/$name" ] && [ -e "undo/$name" ]; then
	# 2: the files are back, and what did not follow them may follow the new ones.
	sh "undo/$name" </dev/null >/dev/null 2>&1 || [ $? -eq 2 ]
fi
rm -rf "stage/$name" "undo/$name" "tmp/$name."*
mkdir -p "stage/$name"
step='staging'
: >"tmp/$name.log\""""

_ROLLBACK = """\
set -u
umask 077
trap '' PIPE HUP
cd "$state" || exit 1
name=${2:-}
roll() {
	ln -s $$ "$run/$name" 2>/dev/null || :
	! mv "armed/$name" "undo/$name" 2>/dev/null || sh "undo/$name" "${1:-}"
	[ "$(readlink "$run/$name")" != $$ ] || rm -f "$run/$name"
}
case $1 in
guard)
	while kill -0 "$3" 2>/dev/null; do sleep 1; done
	[ "$(readlink "$run/$name")" = "$3" ] || exit 0
	# Nobody will confirm what a killed script has armed, and its timer may not have started.
	if [ -e "armed/$name" ]; then
		roll
	elif [ -e "final/$name" ]; then
		sh "final/$name" keep
	elif [ -e "pending/$name" ] && [ -e "undo/$name" ]; then
		sh "undo/$name"
	fi
	rm -rf "stage/$name" "tmp/$name."*
	[ -e "pending/$name" ] || rm -f "away/$name"
	rm -f "$run/$name" "$run/$name.guard"
	;;
timer)
	n=0 end=$(($(date +%s) + $3))
	rm -f "$run/$name.timer"
	ln -s $$ "$run/$name.timer" || exit 1
	# The seconds of a busy host are long; a clock that is set back does not make them longer.
	while [ $n -lt "$3" ] && [ "$(date +%s)" -lt $end ]; do
		sleep 1
		[ -e "armed/$name" ] && [ "$(readlink "$run/$name.timer")" = $$ ] || exit 0
		n=$((n + 1))
	done
	roll
	;;
boot)
	mkdir -p "$run"
	rm -f "$run"/*
	for armed in armed/*; do
		name=${armed#armed/}
		[ ! -e "$armed" ] || roll boot
	done
	for pending in pending/*; do
		name=${pending#pending/}
		if [ -e "final/$name" ]; then
			sh "final/$name" keep
		elif [ -e "undo/$name" ]; then
			sh "undo/$name" boot
		fi
	done
	rm -rf stage/* tmp/*
	;;
confirm)
	mv "armed/$name" "final/$name" && sh "final/$name" keep
	;;
esac
"""


def _heredoc(target: str, text: str) -> str:
    return f"cat >{target} {_quoted_lines(text)}"


def _quoted_lines(text: str) -> str:
    end = "END-" + hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"<<'{end}'\n{text}{end}"


def _folder(path: str) -> str:
    return str(PurePosixPath(path).parent)


def _wait(openbsd: bool, seconds: int) -> str:
    """Wait for an armed undo: its run did not live to confirm, or is about to, and the host decides."""
    waits = (
        'alive "$name.timer"'
        if openbsd
        else 'systemctl -q is-active "homefleet-undo-$name.timer" "homefleet-undo-$name.service" 2>/dev/null'
    )
    return f"""\
step='waiting for an earlier undo'
n=0
while [ -e "armed/$name" ] && [ $n -lt {seconds + 15} ] && {waits}; do sleep 1; n=$((n + 1)); done"""


def _hook_of_openbsd(state: str) -> str:
    line = f"[ ! -f {state}/rollback ] || sh {state}/rollback boot"
    return f"""\
hook={shlex.quote(line)}
if ! grep -qxF "$hook" {SECURELEVEL} 2>/dev/null; then
	new={SECURELEVEL}.homefleet-new
	rm -f "$new"
	if [ -f {SECURELEVEL} ]; then cp -p {SECURELEVEL} "$new"; else : >"$new"; chmod 644 "$new"; fi
	{{ echo "$hook"; [ ! -f {SECURELEVEL} ] || cat {SECURELEVEL}; }} >"$new"
	mv -f "$new" {SECURELEVEL}
fi"""


def _hook_of_ubuntu(state: str) -> str:
    return f"""\
{_heredoc('"tmp/$name.service"', UNDO_UNIT.format(state=state))}
if cmp -s "tmp/$name.service" {UNIT} && systemctl -q is-enabled homefleet-undo.service; then :; else
	chmod 644 "tmp/$name.service"
	cp "tmp/$name.service" {UNIT}.homefleet-new
	mv -f {UNIT}.homefleet-new {UNIT}
	systemctl daemon-reload
	systemctl -q enable homefleet-undo.service
fi"""


def _stage(file: File, staged: str, *, owned: bool) -> str:
    target = shlex.quote(staged + file.path)
    lines = [
        f"step={shlex.quote(f'staging {file.path}')}",
        f"mkdir -p {shlex.quote(_folder(staged + file.path))}",
        _heredoc(target, file.text),
    ]
    if owned:
        lines.append(f"chown {shlex.quote(file.owner)}:{shlex.quote(file.group)} {target}")
    return "\n".join((*lines, f"chmod {file.mode:o} {target}"))


def _bounded(command: str, seconds: int) -> str:
    """Return `command` with an end: one that hangs would keep the set's lock for good, and outlive its own undo."""
    return f"timeout -k 5 {seconds} sh -c {shlex.quote(command)}"


def _check(command: str, where: str) -> str:
    return f"""\
step='checking the new files'
if {_bounded(command, CHECK_SECONDS)} </dev/null >"tmp/$name.log" 2>&1; then :; else
	said=1; say 'the check refused the new files, the old ones are {where}:'
	if [ -s "tmp/$name.log" ]; then tail -n 5 "tmp/$name.log" >&2; else say 'nothing was said; is a disk full?'; fi
	exit 1
fi"""


def _apply(command: str, seconds: int) -> str:
    # What a daemon writes at its start is not ours to hide from its own user: unbound's trust anchor, for one.
    return f"""\
step='applying the new files' how=''
if {_bounded(f"umask 022; {command}", seconds)} </dev/null >"tmp/$name.log" 2>&1; then :; else
	[ $? -ne 124 ] || say 'it took longer than {seconds} seconds'
	said=1; say 'the new files were not accepted, the old ones are back:'
	if [ -s "tmp/$name.log" ]; then tail -n 5 "tmp/$name.log" >&2; else say 'nothing was said; is a disk full?'; fi
	exit 1
fi"""


_WAY_BACK = """\
set -u
umask 077
trap '' PIPE HUP
PATH=$PATH:/sbin:/usr/sbin:/usr/local/sbin:/usr/local/bin
mode=${1:-} stuck='' failed=''
cd "$state" || exit 1
exists() { [ -e "$1" ] || [ -L "$1" ]; }
# A new version that is still beside the old one was not swapped in.
back() {
	if [ "$mode" = keep ] || [ -e "$1.homefleet-new" ]; then
		act "$1" 'rm -f "$P.homefleet-old" "$P.homefleet-new"' || stuck=1
	elif exists "$1.homefleet-old"; then
		act "$1" 'mv -f "$P.homefleet-old" "$P"' || stuck=1
	fi
}
born() {
	if [ "$mode" = keep ] || [ -e "$1.homefleet-new" ]; then
		act "$1" 'rm -f "$P.homefleet-new"' || stuck=1
	else
		act "$1" 'rm -f "$P"' || stuck=1
	fi
}
"""


def _away(wanted: FileSet, manifest: str, kept: Collection[str]) -> str:
    """List what goes with the swap: what the old manifest has and the new one has not, and strays.

    Only the host knows it: an earlier run that was rolled back just now has put files back.
    """
    patterns = " ".join(wanted.exclusive)
    strays = f'for path in {patterns}; do ! exists "$path" || leaves "$path"; done' if patterns else ":"
    return f"""\
step='looking for what goes'
leaves() {{
	case $1 in {" | ".join(("*.homefleet-old", "*.homefleet-new", *map(shlex.quote, sorted(kept))))}) return 0 ;; esac
	match=0
	grep -qxF "$1" {shlex.quote(manifest)} || match=$?
	case $match in 0) ;; 1) printf '%s\\n' "$1" ;; *) exit 1 ;; esac
}}
(
	[ ! -e "manifest/$name" ] || while IFS= read -r path; do leaves "$path"; done <"manifest/$name"
	{strays}
) >"away/$name\""""


def _way_back(wanted: FileSet, manifest: str, followed: bool, openbsd: bool) -> str:
    """Write the script that puts the old files and the old running state back, and cleans up after ``keep``.

    Modes: ``keep``, the set is final; ``files``, the daemon has not followed yet; ``boot``; anything else, all of it.
    It exits with 1 if the files could not be put back, with 2 if only the running state did not follow them. At boot
    an ordinary set stays pending: a daemon may have started with the half of it.
    """
    state = str(PurePosixPath(manifest).parent.parent)
    before = (wanted.before or ":").replace("{new}", f"{state}/stage/{wanted.name}")
    paths = (*(file.path for file in wanted.files), manifest)
    known = "\n".join(
        f"	if exists {path}; then printf '%s\\n' {shlex.quote(f'back {path}')}; "
        f"else printf '%s\\n' {shlex.quote(f'born {path}')}; fi"
        for path in map(shlex.quote, paths)
    )
    first = f"state={state} name={wanted.name}\n{_hands(openbsd)}{_WAY_BACK}"
    modes = f"""\
[ ! -e "away/$name" ] || while IFS= read -r path; do back "$path"; done <"away/$name"
[ -z "$stuck" ] || exit 1
case $mode in
keep) {"failed=1" if followed else ":"} ;;
files) ;;
boot) (
umask 022
{wanted.undo_at_boot or ":"}
) </dev/null >/dev/null 2>&1 || failed=1{"" if wanted.dangerous else "; failed=1"} ;;
*) (
umask 022
{wanted.undo or ":"}
"""
    last = """\
) </dev/null >/dev/null 2>&1 || failed=1 ;;
esac
# The marker goes last: what could not be removed, the next run removes.
rm -rf "stage/$name" "undo/$name" "away/$name" "final/$name" || failed=1
[ -n "$failed" ] || rm -f "pending/$name"
[ -z "$failed" ] || [ "$mode" = keep ] || [ "$mode" = boot ] || exit 2
"""
    return f"""\
step='writing the way back'
(
cat {_quoted_lines(first)}
{known}
cat {_quoted_lines(modes)}
{before}
cat {_quoted_lines(last)}
) >"tmp/$name.undo"
mv -f "tmp/$name.undo" "undo/$name\""""


_PENDING = """\
step='marking the set pending'
sync
echo "$ticket" >"pending/$name\""""

_ARM_OPENBSD = """\
step='starting the timer of the undo'
rm -f "$run/$name.timer"
mv "undo/$name" "armed/$name"
armed=1
sync
sh rollback timer "$name" UNDO_SECONDS </dev/null >/dev/null 2>&1 &
n=0
until alive "$name.timer"; do
	[ $n -lt 10 ] || { said=1; say 'no timer for the undo, nothing was changed'; exit 1; }
	sleep 1; n=$((n + 1))
done"""

_ARM_UBUNTU = """\
step='starting the timer of the undo'
mv "undo/$name" "armed/$name"
armed=1
sync
systemctl -q stop "homefleet-undo-$name.timer" "homefleet-undo-$name.service" 2>/dev/null || :
systemctl reset-failed "homefleet-undo-$name.service" 2>/dev/null || :
systemd-run -q --unit="homefleet-undo-$name" --on-active=UNDO_SECONDS --timer-property=AccuracySec=1s \\
	sh "$state/rollback" timer "$name" 0 ||
	{ said=1; say 'no timer for the undo, nothing was changed'; exit 1; }"""

_END = """\
step='making it final'
sync
mv "undo/$name" "final/$name"
trap - EXIT
sh "final/$name" keep || :
rm -rf "stage/$name" "tmp/$name."* || :
rm -f "$run/$name" "$run/$name.guard" || :"""

_END_ARMED = """\
step='waiting to be confirmed'
[ -e "armed/$name" ] || { said=1; say 'it took too long, the old state is back'; exit 1; }"""
