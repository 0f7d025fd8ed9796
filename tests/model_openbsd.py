"""An OpenBSD host in memory: interprets the commands of a plan as the contract has them.

It knows the commands that the planners write and nothing else: another one is an error, not a guess.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from facts.filesets import FileState
from facts.openbsd.accounts import AccountsState, Login
from facts.openbsd.crontab import BEGIN, END, Crontab
from facts.openbsd.pf import PfState, normal
from facts.openbsd.pkg import Packages
from facts.openbsd.rcctl import VARIABLES, Kind, Service, ServicesState
from facts.openbsd.sysctl import SysctlState
from operations.steps import Plan, Step


class CommandError(Exception):
    """The real command would have exited non-zero, or the script around it."""


def digest(text: str) -> str:
    """Return the SHA-256 of `text` in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def follow(plan: Plan, apply: Callable[[Step], None]) -> set[str]:
    """Carry out a plan as `perform` does; returns the subjects that failed, the refused ones among them."""
    failed = {refusal.subject for refusal in plan.refused}
    for step in plan.steps:
        if step.subject in failed:
            continue
        try:
            apply(step)
        except CommandError:
            failed.add(step.subject)
    return failed


@dataclass
class Unit:
    """A service of `ModelServices`: what its script and rc.conf say, and what is in force."""

    kind: Kind
    default_on: bool = False
    defaults: dict[str, str] = field(
        default_factory=lambda: {"flags": "", "user": "root", "rtable": "0", "timeout": "30"}
    )
    stored: dict[str, str] = field(default_factory=dict)
    enabled: bool = False
    running: bool = False
    stale: bool = False
    reloads: bool = True
    works: bool = True
    force: dict[str, str] = field(default_factory=dict)

    def value(self, variable: str) -> str:
        """What ``rcctl get`` prints for an enabled one."""
        return self.stored.get(variable) or self.defaults[variable]


@dataclass
class ModelServices:
    """rcctl(8), contract 1.3 to 1.7."""

    units: dict[str, Unit] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)

    def state(self) -> ServicesState:
        """What the fact would report."""
        return ServicesState({name: self._service(unit) for name, unit in self.units.items()}, tuple(self.order))

    def _service(self, unit: Unit) -> Service:
        if unit.kind in (Kind.META, Kind.SPECIAL):
            return Service(unit.kind, unit.enabled)
        values = {name: unit.value(name) for name in VARIABLES if name != "flags" or unit.enabled}
        return Service(unit.kind, unit.enabled, unit.running, unit.stale, unit.reloads, values, frozenset(unit.stored))

    def apply(self, step: Step) -> None:
        """Carry out one step. Fails: CommandError where a real command would fail."""
        match = re.search(r"\{ umask 022\n(.*)\n\} </dev/null", step.command, re.DOTALL)
        assert match, f"not modelled: {step.command}"
        for line in match[1].split(" &&\n"):
            wanted = not line.startswith("! ")
            if self._holds(shlex.split(line.removeprefix("! "))) is not wanted:
                raise CommandError(line)

    def _holds(self, words: list[str]) -> bool:
        self.commands.append(words)
        if words[0] == "is":
            return self.units[words[1]].value(words[2]) == words[3]
        if words[0] == "unset_in_file":
            return words[2] not in self.units[words[1]].stored
        if words[0] == "first":
            return " ".join([*self.order, ""]).startswith(words[1] + " ")
        assert words[0] == "rcctl", f"not modelled: {words}"
        verb, rest = words[1], words[2:]
        if verb == "order":
            assert all(self.units[name].kind in (Kind.PACKAGE, Kind.META) for name in rest), words
            self.order = [*rest, *(name for name in self.order if name not in rest)]
            return True
        unit = self.units.get(rest[0])
        if unit is None:
            return verb == "disable"
        return bool(getattr(self, f"_{verb}")(rest[0], unit, *rest[1:]))

    def _get(self, _name: str, unit: Unit, variable: str) -> bool:
        assert variable == "status", f"not modelled: get {variable}"
        return unit.enabled

    def _enable(self, name: str, unit: Unit) -> bool:
        unit.enabled = True
        if unit.kind in (Kind.PACKAGE, Kind.META) and name not in self.order:
            self.order.append(name)
        return True

    def _disable(self, name: str, unit: Unit) -> bool:
        unit.enabled, unit.stored = False, {}
        self.order = [other for other in self.order if other != name]
        return True

    def _set(self, _name: str, unit: Unit, variable: str, *arguments: str) -> bool:
        assert unit.kind in (Kind.BASE, Kind.PACKAGE), "rcctl refuses to set that"
        if not unit.enabled:
            return False
        value = " ".join(arguments)
        unit.stored.pop(variable, None)
        if value and value != unit.defaults[variable]:
            unit.stored[variable] = value
        return True

    def _check(self, _name: str, unit: Unit) -> bool:
        assert unit.kind is not Kind.SPECIAL, "no rc.d script"
        return unit.running

    def _start(self, name: str, unit: Unit) -> bool:
        assert unit.kind is not Kind.SPECIAL, "no rc.d script"
        if unit.running:
            return True
        if not unit.enabled and unit.kind is Kind.BASE:
            return False
        unit.running = unit.works
        unit.stale = False
        unit.force = {variable: unit.value(variable) for variable in VARIABLES}
        return self._check(name, unit)

    def _stop(self, _name: str, unit: Unit) -> bool:
        unit.running = False
        return True

    def _restart(self, name: str, unit: Unit) -> bool:
        self._stop(name, unit)
        return self._start(name, unit)

    def _reload(self, _name: str, unit: Unit) -> bool:
        return unit.running and unit.reloads


@dataclass
class ModelPackages:
    """pkg_add(1) and pkg_delete(1), contract 2: `mirror` by ``pkg_info -z`` form, its value the full name.

    `installed` maps that form to the full name, `manual` are those that were asked for, `needs` maps a package to
    what it depends on; `conflicts` are stems of which one branch only can be installed.
    """

    mirror: dict[str, str] = field(default_factory=dict)
    installed: dict[str, str] = field(default_factory=dict)
    manual: set[str] = field(default_factory=set)
    needs: dict[str, set[str]] = field(default_factory=dict)
    conflicts: set[str] = field(default_factory=set)
    dead: bool = False
    commands: list[list[str]] = field(default_factory=list)

    def state(self) -> Packages:
        """What the fact would report, asked for everything."""
        updates = tuple((old, self.mirror[it]) for it, old in sorted(self.installed.items()) if it in self.mirror)
        return Packages(
            frozenset(self.manual),
            frozenset(self.installed),
            frozenset(self.installed.values()),
            tuple(sorted(self.installed[it] for it in self._unneeded())),
            None if self.dead else updates,
        )

    def _unneeded(self) -> set[str]:
        used = {need for it in self.installed for need in self.needs.get(it, ())}
        return set(self.installed) - self.manual - used

    def apply(self, step: Step) -> None:
        """Carry out one step, and the reading back at its end."""
        for line in step.command.splitlines():
            if line.startswith("quietly pkg_"):
                words = shlex.split(line.removeprefix("quietly ").replace('${d:+-D "$d"} ', ""))
                self.commands.append(words)
                getattr(self, "_" + words[0].removeprefix("pkg_"))(words[1:])
        self._read_back(step.command)

    def _read_back(self, command: str) -> None:
        test = re.search(r"each\(\) \{ (! )?pkg_info -(mz|q) \| grep", command)
        if test:
            names = {shlex.split(line)[1] for line in command.splitlines() if line.startswith("each ")}
            have = self.manual if test[2] == "mz" else set(self.installed.values())
            if names & have if test[1] else names - have:
                raise CommandError("not as it should be")
        for name in re.findall(r"there\(\) \{ pkg_info -zq \| grep -Fqx -e (\S+); \}", command):
            if shlex.split(name)[0] in self.installed:
                raise CommandError("still installed")

    def _add(self, words: list[str]) -> None:
        if words == ["-Iu"]:
            for it in self.installed:
                if it in self.mirror and not self.dead:
                    self.installed[it] = self.mirror[it]
            return
        assert words[0] == "-I", words
        replacing = words[1] == "-r"
        for it in words[1 + replacing :]:
            if self.dead or it not in self.mirror:
                continue
            rivals = [other for other in self.installed if other != it and self._rival(it, other)]
            if rivals and not replacing:
                continue
            for other in rivals:
                del self.installed[other]
                self.manual.discard(other)
            self.installed[it] = self.mirror[it]
            self.manual.add(it)
            for need in self.needs.get(it, ()):
                self.installed.setdefault(need, self.mirror[need])

    def _rival(self, one: str, other: str) -> bool:
        (stem, rest), (stem2, rest2) = (text.split("--") for text in (one, other))
        same_branch = rest.partition("%")[2] == rest2.partition("%")[2]
        return stem == stem2 and (same_branch or stem in self.conflicts)

    def _delete(self, words: list[str]) -> None:
        if words == ["-I", "-a"]:
            while gone := self._unneeded():
                for it in gone:
                    del self.installed[it]
            return
        flag, name = words
        assert flag == "-I", words
        stem, _, branch = name.partition("%")
        for it, full in list(self.installed.items()):
            meant = it.startswith(f"{stem}--") and it.endswith(f"%{branch}") if branch else full == name
            if meant and not any(it in self.needs.get(other, ()) for other in self.installed):
                del self.installed[it]
                self.manual.discard(it)


@dataclass
class ModelAccounts:
    """user(8), login.conf(5) and the files behind them, contract 5.9 and 6."""

    classes: dict[str, str] = field(default_factory=dict)
    groups: dict[str, tuple[int, set[str]]] = field(default_factory=dict)
    logins: dict[str, Login] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    database: bool | None = None
    commands: list[list[str]] = field(default_factory=list)

    def state(self) -> AccountsState:
        """What the fact would report."""
        return AccountsState(
            {name: FileState("root", "wheel", 0o644, digest(text)) for name, text in self.classes.items()},
            {name: (gid, tuple(sorted(members))) for name, (gid, members) in self.groups.items()},
            {name: self._login(name) for name in self.logins},
            self.database,
        )

    def _login(self, name: str) -> Login:
        password = self.passwords[name]
        keys = FileState(name, name, 0o600, digest(self.keys[name])) if name in self.keys else None
        return replace(
            self.logins[name],
            starred=password.startswith("*"),
            password=digest(password),
            keys=keys,
            directory=f"700 {name}" if keys else None,
        )

    def apply(self, step: Step) -> None:
        """Carry out one step."""
        text = step.command
        if "/etc/login.conf.d" in text:
            self.classes[step.subject.removeprefix("login class ")] = step.stdin or ""
            self.database = None if self.database is None else False
        elif "/.ssh" in text:
            self._login(step.subject)
            self.keys[step.subject] = step.stdin or ""
        elif "/etc/ptmp" in text:
            assert step.stdin and step.stdin.strip() not in text, "a hash in an argument list"
            self.passwords[step.subject] = step.stdin.strip()
        else:
            for command in text.split(" && "):
                words = shlex.split(command)
                self.commands.append(words)
                getattr(self, f"_{words[0]}")(words[1:])

    def _chmod(self, words: list[str]) -> None:
        (name,) = (name for name, login in self.logins.items() if words == ["o=", login.home])
        self.logins[name] = replace(self.logins[name], access=f"750 {name}")

    def _cap_mkdb(self, words: list[str]) -> None:
        assert words == ["/etc/login.conf"], words
        self.database = True

    def _groupadd(self, words: list[str]) -> None:
        gid = int(words[1]) if words[0] == "-g" else 1000 + len(self.groups)
        if words[-1] in self.groups:
            raise CommandError("already exists")
        self.groups[words[-1]] = (gid, set())

    def _options(self, words: list[str], flags: str) -> tuple[dict[str, str], str]:
        options: dict[str, str] = {}
        rest = iter(words[:-1])
        for word in rest:
            assert word[0] == "-" and len(word) == 2, words
            options[word[1]] = "" if word[1] in flags else next(rest)
        return options, words[-1]

    def _useradd(self, words: list[str]) -> None:
        options, name = self._options(words, "mo")
        assert set(options) <= set("muogcdsLG"), words
        if name in self.logins or ("g" not in options and name in self.groups):
            raise CommandError("already exists")
        uid = int(options.get("u", 1000 + len(self.logins)))
        if "g" not in options:
            self.groups[name] = (uid, set())
        self._exist(options.get("L", "default"), [it for it in options.get("G", "").split(",") if it])
        self.logins[name] = Login(uid, options["L"], options["c"], options["d"], options["s"], starred=True)
        self.logins[name] = replace(self.logins[name], access=f"755 {name}" if "m" in options else None)
        self.passwords[name] = "*" * 13
        for group in filter(None, options.get("G", "").split(",")):
            self.groups[group][1].add(name)

    def _exist(self, login_class: str, groups: list[str]) -> None:
        if login_class not in {"default", "daemon", "staff", *self.classes} or not set(groups) <= set(self.groups):
            raise CommandError("no such login class or group")

    def _usermod(self, words: list[str]) -> None:
        options, name = self._options(words, "Z")
        assert set(options) <= set("ZcsLS"), words
        login = self.logins[name]
        if "Z" in options:
            if not login.shell.endswith("-"):
                login = replace(login, shell=login.shell + "-")
            if not self.passwords[name].startswith("*"):
                self.passwords[name] = "*" + self.passwords[name]
        groups = [it for it in options.get("S", "").split(",") if it]
        self._exist(options.get("L", "default"), groups)
        self.logins[name] = replace(
            login,
            comment=options.get("c", login.comment),
            shell=options.get("s", login.shell),
            login_class=options.get("L", login.login_class),
        )
        if "S" in options:
            for group, (_, members) in self.groups.items():
                members.discard(name)
                if group in groups:
                    members.add(name)


@dataclass
class ModelHost:
    """sysctl.conf and the kernel, crontabs and pf tables; contract 3.1, 5.10, 6.2."""

    sysctl_conf: str | None = None
    values: dict[str, str] = field(default_factory=dict)
    fixed: set[str] = field(default_factory=set)
    users: set[str] = field(default_factory=lambda: {"root"})
    tabs: dict[str, list[str]] = field(default_factory=dict)
    tables: dict[str, set[str]] = field(default_factory=dict)

    def sysctls(self) -> SysctlState:
        """What the fact of sysctls would report."""
        text = self.sysctl_conf
        return SysctlState(None if text is None else FileState("root", "wheel", 0o644, digest(text)), dict(self.values))

    def crontabs(self, users: list[str]) -> dict[str, Crontab]:
        """What the fact of crontabs would report."""
        return {user: self._tab(user) for user in users}

    def _tab(self, user: str) -> Crontab:
        if user not in self.users:
            return Crontab(exists=False)
        marks, block, inside = "", "", False
        for line in self.tabs.get(user, ()):
            inside = inside or line == BEGIN
            block += f"{line}\n" if inside else ""
            marks += {BEGIN: "b", END: "e"}.get(line, "")
            inside = inside and line != END
        return Crontab(True, marks, digest(block) if user in self.tabs else None)

    def pf(self) -> PfState:
        """What the fact of pf would report."""
        return PfState(True, {name: frozenset(entries) for name, entries in self.tables.items()})

    def apply(self, step: Step) -> None:
        """Carry out one step of one of these operations."""
        if match := re.search(r"sysctl ('?)([a-z0-9._]+)=([^' ]+)\1 2>&1", step.command):
            _, key, value = match.groups()
            if key not in self.values or key in self.fixed:
                raise CommandError("sysctl refused")
            self.values[key] = value
        elif "/etc/sysctl.conf" in step.command:
            self.sysctl_conf = step.stdin or ""
        elif match := re.search(r"pfctl -q -t (\S+) -T (replace|flush)", step.command):
            if match[1] not in self.tables:
                raise CommandError("Table does not exist.")
            lines = (step.stdin or "").splitlines() if match[2] == "replace" else []
            self.tables[match[1]] = {normal(line) for line in lines}
        elif match := re.search(r"crontab -u (\S+) ", step.command):
            self._crontab(match[1], (step.stdin or "").splitlines())
        else:
            raise AssertionError(f"not modelled: {step.command}")

    def _crontab(self, user: str, block: list[str]) -> None:
        kept, inside = [], False
        for line in self.tabs.get(user, ()):
            inside = inside or line == BEGIN
            if not inside:
                kept.append(line)
            inside = inside and line != END
        self.tabs[user] = kept + block
        if not self.tabs[user]:
            del self.tabs[user]
