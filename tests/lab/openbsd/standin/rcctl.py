"""rcctl(8): services of base and of packages; contract 1.1 to 1.7, and 0.3 items 4 to 7."""

import os
import pwd
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from . import rcconf
from .place import root
from .rcconf import SPECIAL, VARIABLES
from .unmodelled import unmodelled

NOT_MODELLED = (
    "rcctl set VAR on a service in routing table other than 0: it is stored, its start is refused",
    "rcctl: scripts of base daemons that the stand-in lacks",
    "rc.d: limits of a login class, and classes that only /etc/login.conf.db still has",
    "rc.d: start of a daemon that runs with other flags than the ones to start it with",
)
ACTIONS = ("start", "stop", "restart", "reload", "check", "configtest")
LISTS = ("all", "failed", "off", "on", "rogue", "started", "stopped")
_PRIORITY = re.compile(
    r"(auth|authpriv|cron|daemon|ftp|kern|lpr|mail|mark|news|security|syslog|user|uucp|local[0-7])"
    r"\.(alert|crit|debug|emerg|err|error|info|none|notice|panic|warn|warning)"
)
_USAGE = f"""\
usage:	rcctl get|getdef|set daemon|service [variable [argument ...]]
	rcctl [-d | -q] [-f] {"|".join(ACTIONS)} daemon ...
	rcctl disable|enable|order [daemon ...]
	rcctl ls {"|".join(LISTS)}"""
# One process answers for many scripts; each is read in a subshell of its own with nothing to run.
_GETDEF = """
FUNCS_ONLY=1
. "$1"; shift
rc_cmd() { :; }
for path; do (
    . "$path" >/dev/null 2>&1
    for v in "$daemon_execdir" "$daemon_flags" "$daemon_logger" "${daemon_rtable:-0}" "${daemon_timeout:-30}" \
        "${daemon_user:-root}"; do
        print -r -- "$v"
    done
); done
"""


class _Exit(Exception):
    def __init__(self, code: int, message: str | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


def _fail(message: str, code: int = 1) -> NoReturn:
    raise _Exit(code, f"rcctl: {message}")


def _usage() -> NoReturn:
    raise _Exit(1, _USAGE)


def _needs_root(what: str) -> None:
    if os.geteuid() != 0:
        _fail(f'"{what}" needs root privileges')


def _exists(name: str) -> bool:
    if not rcconf.valid(name):
        return False
    if name in SPECIAL:
        return True
    path = rcconf.script(name)
    if path.is_file() and path.stat().st_mode & 0o111:
        return True
    if rcconf.is_base(name):
        unmodelled("rcctl", [name], "a base daemon that the stand-in has no script for")
    return False


def _known(name: str) -> None:
    if not _exists(name):
        _fail(f"service {name} does not exist", 2)


def _is_meta(name: str) -> bool:
    if name in SPECIAL:
        return False
    try:
        return re.search(r"^rc_cmd\b", rcconf.script(name).read_text(), re.MULTILINE) is None
    except FileNotFoundError:
        return False


def _shell() -> str:
    return os.environ.get("STANDIN_KSH", "/bin/ksh")


def _script_defaults(names: Sequence[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    subr = str(root(f"{rcconf.SCRIPTS}/rc.subr"))
    paths = [str(rcconf.script(name)) for name in names]
    result = subprocess.run(
        [_shell(), "-c", _GETDEF, "getdef", subr, *paths], stdout=subprocess.PIPE, text=True, check=True
    )
    lines = result.stdout.splitlines()
    words = ("execdir", "flags", "logger", "rtable", "timeout", "user")
    size = len(words)
    return {
        name: {"class": "daemon", **dict(zip(words, lines[n * size : (n + 1) * size], strict=True))}
        for n, name in enumerate(names)
    }


def _class_of(name: str) -> str:
    for path in (f"/etc/login.conf.d/{name}", "/etc/login.conf"):
        if re.search(rf"^{name}[|:]", rcconf.text_of(path), re.MULTILINE):
            return name
    return "daemon"


def _enabled(name: str, values: dict[str, str]) -> bool:
    if name in SPECIAL:
        return values.get(name) != "NO"
    if not rcconf.is_base(name):
        return name in values.get("pkg_scripts", "").split() and values.get(f"{name}_flags") != "NO"
    return values.get(f"{name}_flags") != "NO"


def _default_enabled(name: str) -> bool:
    values = rcconf.defaults()
    if name in SPECIAL:
        return values.get(name) != "NO"
    return rcconf.is_base(name) and values.get(f"{name}_flags") != "NO"


def _print_values(name: str, found: dict[str, str]) -> None:
    for variable in VARIABLES:
        print(f"{name}_{variable}={found[variable]}")


def _get(name: str, variable: str, values: dict[str, str], defaults: dict[str, str] | None = None) -> int:
    status = 0 if _enabled(name, values) else 1
    if variable == "status":
        return status
    if name in SPECIAL:
        print(values.get(name, "") if variable else f"{name}={values.get(name, '')}")
        return 0 if variable else status
    if _is_meta(name):
        return status
    found = dict(defaults or _script_defaults([name])[name])
    found["class"] = _class_of(name)
    for word in VARIABLES[1:]:
        found[word] = values.get(f"{name}_{word}") or found[word]
    if status:
        found["flags"] = "NO"
    if not variable:
        _print_values(name, found)
        return status
    if found[variable]:
        print(found[variable])
    return 0


def _getdef(name: str, variable: str) -> int:
    status = 0 if _default_enabled(name) else 1
    if variable == "status":
        return status
    if name in SPECIAL:
        value = rcconf.defaults().get(name, "")
        print(value if variable else f"{name}={value}")
        return 0 if variable else status
    if _is_meta(name):
        return status
    found = _script_defaults([name])[name]
    if not variable:
        _print_values(name, found)
        return status
    if found[variable]:
        print(found[variable])
    return 0


def _edit(change: Callable[[list[str]], list[str]]) -> None:
    """Rewrite rc.conf.local: sorted, no line twice, 0644, replaced only if different, removed if empty."""
    path = root(rcconf.LOCAL)
    old = rcconf.text_of(rcconf.LOCAL)
    lines = sorted(set(change(old.splitlines())), key=os.fsencode)
    new = "".join(f"{line}\n" for line in lines)
    if new == old and new:
        return
    if not new:
        path.unlink(missing_ok=True)
        return
    staged = path.with_name(f"{path.name}.{os.getpid():010d}")
    staged.write_text(new)
    staged.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(staged, 0, 0)
    staged.replace(path)


def _without(lines: list[str], pattern: str) -> list[str]:
    return [line for line in lines if not re.match(pattern, line)]


def _scripts_append(name: str) -> None:
    present = rcconf.effective().get("pkg_scripts", "").split()
    if name not in present:
        line = f"pkg_scripts={' '.join([*present, name])}"
        _edit(lambda lines: [*_without(lines, r"pkg_scripts *="), line])


def _scripts_remove(name: str) -> None:
    """As sed(1) does it in rcctl: also inside a trailing comment, which is how such lines get mangled (1.6)."""
    if not rcconf.effective().get("pkg_scripts"):
        return

    def change(lines: list[str]) -> list[str]:
        kept = []
        for line in lines:
            edited = line
            if re.match(r"pkg_scripts\b", line):
                edited = re.sub(rf"\b{name}\b", "", edited)
                edited = re.sub(r"['\"]", "", edited)
                edited = re.sub(r" *= *", "=", edited, count=1)
                edited = re.sub(r"   *", " ", edited)
                edited = re.sub(r" $", "", edited)
                if edited.endswith("="):
                    continue
            kept.append(edited)
        return kept

    _edit(change)


def _switch_off(name: str) -> None:
    if name not in SPECIAL and not rcconf.is_base(name):
        _scripts_remove(name)
    if name in SPECIAL:
        pattern, line = rf"{name} *=", f"{name}=NO"
    else:
        pattern, line = rf"{name}_(execdir|flags|logger|rtable|timeout|user).*=", f"{name}_flags=NO"
    added = [line] if _default_enabled(name) else []
    _edit(lambda lines: [*_without(lines, pattern), *added])


def _switch_on(name: str) -> None:
    if name in SPECIAL:
        added = [] if _default_enabled(name) else [f"{name}=YES"]
        _edit(lambda lines: [*_without(lines, rf"{name} *="), *added])
        return
    if not rcconf.is_base(name):
        _scripts_append(name)
    flags = rcconf.effective().get(f"{name}_flags", "")
    _store(name, "flags", "" if flags == "NO" else flags)


def _store(name: str, variable: str, value: str) -> None:
    if value and not _is_meta(name) and value == _script_defaults([name])[name][variable]:
        value = ""
    if value.startswith(" "):
        value = f'"{value}"'
    line = f"{name}_{variable}={value}"
    needed = value or (variable == "flags" and rcconf.is_base(name) and not _default_enabled(name))
    _edit(lambda lines: [*_without(lines, rf"{name}_{variable} *="), *([line] if needed else [])])


def _check_value(variable: str, value: str) -> None:
    if variable == "execdir" and not value.startswith("/"):
        _fail(f'"{value}" must be an absolute path')
    if variable == "logger" and not _PRIORITY.fullmatch(value):
        _fail(f'unknown priority name: "{value}"')
    if variable == "rtable" and not value.isdigit():
        _fail(f'"{value}" is not an integer')
    if variable == "timeout" and not (value.isdigit() and int(value) > 0):
        _fail(f'"{value}" is not a positive integer')
    if variable == "user":
        try:
            pwd.getpwnam(value)
        except KeyError:
            _fail(f'user "{value}" does not exist')


def _set(name: str, variable: str, value: str) -> int:
    if variable == "status":
        if value not in ("on", "off"):
            _fail(f'invalid status "{value}"')
        (_switch_on if value == "on" else _switch_off)(name)
        return 0
    if not _enabled(name, rcconf.effective()):
        _fail(f"{name} is not enabled")
    if value:
        _check_value(variable, value)
    _store(name, variable, value)
    return 0


def _run(name: str, arguments: Sequence[str], *, shown: bool) -> int:
    sys.stdout.flush()
    target = None if shown else subprocess.DEVNULL
    return subprocess.run([rcconf.script(name), *arguments], stdout=target, check=False).returncode


def _runs(name: str) -> bool:
    return _run(name, ["check"], shown=False) == 0


def _list(which: str) -> int:
    scripts = rcconf.scripts()
    scripts = [name for name in scripts if name != "rc.subr"]
    values = rcconf.effective()
    everything = sorted([*scripts, *SPECIAL])
    selected = {
        "all": lambda: everything,
        "on": lambda: [name for name in everything if _enabled(name, values)],
        "off": lambda: [name for name in everything if not _enabled(name, values)],
        "started": lambda: [name for name in scripts if _runs(name)],
        "stopped": lambda: [name for name in scripts if not _runs(name)],
        "failed": lambda: [name for name in scripts if _enabled(name, values) and not _runs(name)],
        "rogue": lambda: [name for name in scripts if not _enabled(name, values) and _runs(name)],
    }[which]()
    for name in selected:
        print(name)
    return 1 if which in ("failed", "rogue") and selected else 0


def _order(names: Sequence[str]) -> int:
    values = rcconf.effective()
    present = values.get("pkg_scripts", "").split()
    if not names:
        if present:
            print(" ".join(present))
        return 0
    for name in names:
        _known(name)
    _needs_root("order")
    for name in names:
        if name in SPECIAL or rcconf.is_base(name):
            _fail(f"{name} is not a pkg script")
        if name not in present:
            _fail(f"{name} is not enabled")
    line = f"pkg_scripts={' '.join(dict.fromkeys([*names, *present]))}"
    _edit(lambda lines: [*_without(lines, r"pkg_scripts *="), line])
    return 0


def _ask(action: str, arguments: Sequence[str]) -> int:
    if not arguments:
        _usage()
    name, variable = arguments[0], arguments[1] if len(arguments) > 1 else ""
    if name == "all":
        if variable:
            _usage()
        values = rcconf.effective()
        names = sorted([*(found for found in rcconf.scripts() if found != "rc.subr"), *SPECIAL])
        plain = [found for found in names if found not in SPECIAL and not _is_meta(found)]
        defaults = _script_defaults(plain)
        for found in names:
            if action == "get":
                _get(found, "", values, defaults.get(found))
            else:
                _getdef(found, "")
        return 0
    _known(name)
    if variable:
        if variable not in (*VARIABLES, "status"):
            _usage()
        if variable != "status" and _is_meta(name):
            _fail(f'/etc/rc.d/{name} is a meta script, cannot "{action} {variable}"')
        if name in SPECIAL and variable not in ("flags", "status"):
            _fail(f'"{name}" is a special variable, cannot "{action} {variable}"')
    return _get(name, variable, rcconf.effective()) if action == "get" else _getdef(name, variable)


def _change(arguments: Sequence[str]) -> int:
    if not arguments:
        _usage()
    name, variable = arguments[0], arguments[1] if len(arguments) > 1 else ""
    value = " ".join(arguments[2:])
    if (variable, value) == ("status", "off"):
        if not rcconf.valid(name):
            _fail(f"service {name} does not exist", 2)
    else:
        _known(name)
    if variable not in (*VARIABLES, "status"):
        _usage()
    if variable != "status" and _is_meta(name):
        _fail(f'/etc/rc.d/{name} is a meta script, cannot "set {variable}"')
    if (variable, value) == ("flags", "NO"):
        _fail('"flags NO" contradicts "set"')
    if variable != "status" and name in SPECIAL:
        _fail(f'"{name}" is a special variable, cannot "set {variable}"')
    if variable == "class":
        _fail(f'"{name}_class" is a read-only variable set in login.conf(5)')
    _needs_root("set")
    return _set(name, variable, value)


def _switch(action: str, names: Sequence[str]) -> int:
    if not names:
        _usage()
    for name in names:
        if action == "enable":
            _known(name)
        elif not rcconf.valid(name):
            _fail(f"service {name} does not exist", 2)
    _needs_root(action)
    for name in names:
        _set(name, "status", "on" if action == "enable" else "off")
    return 0


def _act(action: str, names: Sequence[str], options: Sequence[str]) -> int:
    if not names:
        _usage()
    for name in names:
        _known(name)
    code = 0
    for name in names:
        if name in SPECIAL:
            _fail(f'"{name}" is a special variable, no rc.d(8) script')
        code = _run(name, [*options, action], shown=True) or code
    return code


def _main(argv: list[str]) -> int:
    options = []
    words = list(argv)
    while words and re.fullmatch(r"-[^-].*", words[0]):
        options += [f"-{letter}" for letter in words.pop(0)[1:]]
    if words and words[0] == "--":
        words.pop(0)
    if set(options) - {"-d", "-f", "-q"} or {"-d", "-q"} <= set(options) or not words:
        _usage()
    action, *arguments = words
    if action in ("get", "getdef"):
        return _ask(action, arguments)
    if action == "set":
        return _change(arguments)
    if action in ("enable", "disable"):
        return _switch(action, arguments)
    if action == "order":
        return _order(arguments)
    if action == "ls":
        if not arguments or arguments[0] not in LISTS:
            _usage()
        if arguments[0] in ("started", "stopped", "failed", "rogue"):
            _needs_root(f"ls {arguments[0]}")
        return _list(arguments[0])
    if action in ACTIONS:
        return _act(action, arguments, [option for option in ("-d", "-f", "-q") if option in options])
    _usage()


def main(argv: list[str]) -> int:
    """Run rcctl.

    Args:
        argv: its arguments.

    Returns:
        Its exit code: 2 for a service that does not exist, 1 for other failures and for what is disabled.
    """
    try:
        return _main(argv)
    except _Exit as end:
        if end.message:
            sys.stdout.flush()
            print(end.message, file=sys.stderr)
        return end.code
