"""Reads what is sent to a host's shell: shellcheck, the shell's own parser, and what OpenBSD's base has (DESIGN O7).

A script is parsed by shfmt(1), and so are the scripts within it: those of ``sh -c``, those that it writes to a file.
On OpenBSD, each command that is called has to be one of the shell's, of the script's or of the base system's, with
options that are in its getopt(3) string: a GNU option, or a program that only Linux has, is no matter of luck.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from tests.lab.openbsd import strict
from tests.lab.openbsd.standin.unmodelled import EXIT

UNKNOWN = "1"
"""Stands for what only the run knows, such as the value of a variable: a number, a name and a pattern alike."""

EXCLUDED = {
    "SC2015": "`a && b || c` is meant as it reads: c is for either failure",
    "SC2016": "words in single quotes that look like an expansion are scripts and awk's programs for later",
    "SC2043": "what is looped over is from the inventory, and may be one item",
}
"""What shellcheck says that is no fault here, with the reason."""

BUILTINS = frozenset(
    (":", ".", "alias", "break", "cd", "continue", "eval", "exit", "export", "getopts", "jobs", "kill", "read")
) | {"readonly", "return", "set", "shift", "times", "trap", "type", "ulimit", "umask", "unalias", "unset", "wait"}
"""What the shell does itself and no program does: ksh(1) of OpenBSD and POSIX alike."""

RUNS_ANOTHER = {
    "doas": "aC:Lnsu:",
    "env": "iu:",
    "nice": "n:",
    "nohup": "",
    "timeout": "fk:ps:",
    "xargs": "0E:I:J:L:n:oP:pR:rs:tx",
    "command": "pVv",
    "exec": "",
}
"""Commands whose operands are another command, with their getopt(3) strings."""

SUDO = {"sudo": "AbC:D:EeHh:iKklNnPp:R:r:SsT:t:U:u:Vv"}
"""The same for the one that Ubuntu has in doas(1)'s place, and OpenBSD has not."""

OPTIONS = {
    **dict.fromkeys(("sh", "ksh"), "abCc:efhiklmno:prsuvXx"),
    **dict.fromkeys(("ldd", "rcctl"), ""),
    "cap_mkdb": "if:mv",
    "crontab": "elru:",
    "date": "af:jr:uz:",
    "ftp": "46AaCc:dD:EegiMmN:no:Pp:S:s:TtU:uVvw:",
    "fw_update": "adFlnp:v",
    "groupadd": "g:ov",
    "groupmod": "g:n:ov",
    "hostname": "s",
    "id": "cGgnpRru",
    "install": "B:bCcDdFf:g:m:o:pSs",
    "logger": "cf:ip:st:",
    "nc": "46C:cDde:FH:hI:i:K:klM:m:NnO:o:P:p:R:rSs:T:tUuV:vW:w:X:x:Z:z",
    "netstat": "Aadf:ghI:iM:mN:np:rsvw:",
    "newsyslog": "a:Ff:mnrv",
    "ntpd": "df:nSsv",
    "pfctl": "a:dD:eF:f:ghi:K:k:L:No:nPp:qR:rS:s:T:t:Vvx:z",
    "pkg_add": "A:aB:cD:dIiL:l:mnP:qrsUuVvxz",
    "pkg_delete": "aB:cD:dIimnqsVvXx",
    "pkg_info": "AaCcD:dE:e:fIKLl:MmPQ:qRr:SstUVvz",
    "pwd_mkdb": "cd:psu:",
    "sha256": "bC:ch:pqrs:tx",
    "shutdown": "dfhknpr",
    "smtpd": "B:D:dFf:hnP:T:v",
    "sshd": "46b:C:c:DdE:ef:Gg:h:ik:o:p:QqRrTtu:V",
    "stat": "FLf:lnqrst:x",
    "su": "a:c:fKLlms:",
    "sysctl": "Aaf:nq",
    "syspatch": "clRr",
    "uname": "amnprsv",
    "unbound-checkconf": "fho:q",
    "useradd": "b:c:De:f:G:g:k:L:md:op:r:s:u:v",
    "userdel": "Dp:rv",
    "usermod": "c:d:e:f:G:g:L:l:mop:S:s:Uu:vZ",
    "wc": "chlmw",
}
"""getopt(3) strings of the base system's commands, as contract 1 to 9 and their sources have them.

The small tools are not among them: what stands in front of those on the lab's stand-ins reads more than letters.
"""

OPENSSL = {
    "ecparam": ("-genkey", "-noout", "-name:", "-out:"),
    "pkey": ("-in:", "-noout", "-passin:", "-pubout"),
    "req": ("-config:", "-key:", "-new", "-passin:", "-subj:"),
    "verify": ("-CAfile:", "-purpose:"),
    "x509": ("-checkend:", "-enddate", "-in:", "-noout", "-pubkey"),
}
"""Of openssl(1), LibreSSL's, the commands that are called, with their options; one with a colon has an argument."""

GIVEN = {"next_part": "daily(8) has it, and reads daily.local"}
"""Functions that a script finds where it is run, with the reason."""

_SHELL_FILE = re.compile(r"(\.rollback|\.undo|/etc/(rc\.[a-z]+|rc\.d/\w+|(daily|weekly|monthly)\.local))$")
_SHELL_VARIABLES = frozenset({"ASIDE", "BRING", "hook"})
"""Which file and which variable of a script of ours is a script in turn."""

_FRONTS = frozenset(strict.names())


def check_scripts(*texts: str, openbsd: bool = True) -> None:
    """Assert that a host can run `texts`: see `faults`."""
    found = faults(texts, openbsd)
    assert not found, "\n".join(found)


def faults(texts: Collection[str], openbsd: bool) -> list[str]:
    """Return what is wrong with scripts, one line each, and nothing if all is right.

    Args:
        texts: POSIX sh, as the login shell or ``sh -s`` gets it; the scripts within are read too.
        openbsd: whether OpenBSD has to run them.

    Raises:
        AssertionError: shfmt(1) cannot parse one; the message has its words.
    """
    scripts = list(dict.fromkeys(each for text in texts for each in (text, *within(text))))
    said = _shellcheck(scripts)
    for script in scripts:
        parsed = subprocess.run(
            ["mksh" if openbsd else "dash", "-n"], input=script, capture_output=True, text=True, check=False
        )
        if parsed.returncode:
            said.append(f"{parsed.stderr.strip()}: {script}")
    return said + (foreign(scripts) if openbsd else [])


def within(text: str) -> list[str]:
    """Return the scripts that a script hands to another shell or writes to a file, and those within them."""
    found = list(_inner(_parse(text)))
    return [each for script in found for each in (script, *within(script))]


def foreign(scripts: Iterable[str]) -> list[str]:
    """Return the calls in `scripts` that OpenBSD's base system does not know, with the reason; one line each."""
    calls: dict[tuple[str, ...], None] = {}
    for script in scripts:
        tree = _parse(script)
        functions = {node["Name"]["Value"] for node in _nodes(tree) if node.get("Type") == "FuncDecl"}
        calls.update(dict.fromkeys(call for call in _every_call(tree) if call[0] not in functions))
    return [f"{shlex.join(call)}: {why}" for call in calls if (why := _unknown(call))]


def reads_a_script(line: str) -> bool:
    """Tell whether a command line runs what it reads on standard input, as ``sh -s`` does."""
    calls = (call for text in (line, *within(line)) for call in _every_call(_parse(text)))
    return any(call in (("sh", "-s"), ("sh",)) for call in calls)


def is_shell(path: str, text: str) -> bool:
    """Tell whether a file is one that a shell runs."""
    return text.startswith("#!/bin/sh") or _SHELL_FILE.search(path.strip('"')) is not None


def shape(text: str) -> str:
    """Return what is left of a script without the texts that it brings along for programs, and without numbers.

    Two scripts of one shape are the same to shellcheck, to the shell and to the reader of what is called.
    """

    def kept(found: re.Match[str]) -> str:
        return found[0] if is_shell(found["file"], found["text"]) else f"cat >{found['file']}\n"

    text = re.sub(r"(?ms)^cat >(?P<file>\S+) <<'(?P<end>END-[0-9a-f]+)'\n(?P<text>.*?)(?P=end)$", kept, text)
    return re.sub(r"[0-9a-f]{16,}|[0-9]+", "0", text)


def _shellcheck(scripts: Sequence[str]) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="shellcheck-") as name:
        paths = []
        for number, script in enumerate(scripts):
            paths.append(Path(name, f"{number}.sh"))
            paths[-1].write_text(script)

        def read(some: list[Path]) -> str:
            argv = ["shellcheck", "--shell=sh", f"--exclude={','.join(EXCLUDED)}", "--format=gcc", *map(str, some)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            assert done.returncode == (1 if done.stdout else 0), done.stderr
            return done.stdout

        with ThreadPoolExecutor(2) as pool:
            said = "".join(pool.map(read, [part for part in (paths[::2], paths[1::2]) if part]))
    lines = []
    for line in said.splitlines():
        file, row, _, what = line.removeprefix(f"{name}/").split(":", 3)
        text = scripts[int(file.removesuffix(".sh"))].splitlines()
        lines.append(f"{text[int(row) - 1].strip() if text else ''}: {what.strip()}")
    return lines


@cache
def _parse(text: str) -> Any:
    done = subprocess.run(
        ["shfmt", "-ln", "posix", "--to-json"], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stderr.strip()}: {text}"
    return json.loads(done.stdout)


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every part of a syntax tree."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _nodes(part)


def _word(word: dict[str, Any]) -> str:
    """Return what the shell makes of a word, with `UNKNOWN` for what only the run knows."""
    text = ""
    for part in word["Parts"]:
        match part["Type"]:
            case "Lit":
                text += re.sub(r"\\(?:\n|(.))", lambda found: found[1] or "", part["Value"])
            case "SglQuoted":
                text += part.get("Value", "")
            case "DblQuoted":
                for inner in part.get("Parts", []):
                    lit = inner["Type"] == "Lit"
                    text += re.sub(r"\\([$`\"\\])|\\\n", r"\1", inner["Value"]) if lit else UNKNOWN
            case _:
                text += UNKNOWN
    return text


def _words(call: dict[str, Any]) -> tuple[str, ...]:
    return tuple(_word(word) for word in call.get("Args") or [])


def _inner(tree: Any) -> Iterator[str]:
    for node in _nodes(tree):
        if node.get("Type") == "CallExpr":
            yield from (text for words in _calls(_words(node)) if (text := _run(words)) not in ("", UNKNOWN))
            for assign in node.get("Assigns") or []:
                if assign["Name"]["Value"] in _SHELL_VARIABLES:
                    yield _word(assign["Value"])
        elif redirects := node.get("Redirs"):
            text = "".join(_word(part["Hdoc"]) for part in _nodes(node) if part.get("Hdoc"))
            if text and any(is_shell(_word(redirect["Word"]), text) for redirect in redirects):
                yield text


def _run(words: tuple[str, ...]) -> str:
    """Return the script that is an argument of a call of a shell."""
    shell = words[0] in ("sh", "ksh", "su") and "-c" in words[1:-1]
    return words[words.index("-c") + 1] if shell else ""


def _part(words: tuple[str, ...]) -> str:
    """Return the part of the same script that is an argument of a call: it has the script's functions and variables."""
    match words:
        case ("eval" | "trap", text, *_) | ("as", _, text, *_) if text not in ("", "-", UNKNOWN):
            return text
    return ""


def _every_call(tree: Any) -> Iterator[tuple[str, ...]]:
    for node in _nodes(tree):
        if node.get("Type") == "CallExpr":
            for call in _calls(_words(node)):
                yield call
                if part := _part(call):
                    yield from _every_call(_parse(part))


def _calls(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield a call, and those that it makes in turn: the command after doas(1), find(1)'s -exec."""
    while words:
        name = words[0]
        if name == UNKNOWN:
            return
        yield words
        if name == "find":
            yield from (words[at + 1 :] for at, word in enumerate(words) if word in ("-exec", "-ok"))
        options = (RUNS_ANOTHER | SUDO).get(name)
        if options is None:
            return
        words = _operands(words, options)
        while name == "env" and words and "=" in words[0]:
            words = words[1:]
        if name == "timeout":
            words = words[1:]


def _operands(words: tuple[str, ...], options: str) -> tuple[str, ...]:
    at = 1
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-", "--"):
        at += 2 if options.find(f"{words[at][-1]}:") >= 0 else 1
    return words[at + (words[at : at + 1] == ("--",)) :]


def _unknown(call: tuple[str, ...]) -> str:
    """Return why OpenBSD would not carry out a call, or nothing if it would."""
    name = call[0].rpartition("/")[2]
    if name in _FRONTS:
        return _refusal(call)
    if name in OPTIONS:
        return _wrong_option(call, OPTIONS[name])
    if name == "openssl":
        return _wrong_openssl(call)
    return "" if name in BUILTINS | RUNS_ANOTHER.keys() | GIVEN.keys() else "no such command"


def _wrong_option(call: tuple[str, ...], options: str) -> str:
    at = 1
    # What only the run knows may be an option, too.
    while at < len(call) and (call[at] == UNKNOWN or call[at].startswith("-")) and call[at] not in ("-", "--"):
        for place, letter in enumerate(call[at][1:], 2):
            found = options.find(letter)
            if found < 0 or letter in ":-":
                return f"no option -{letter}"
            if options[found + 1 : found + 2] == ":":
                at += place == len(call[at])
                break
        at += 1
    return ""


def _wrong_openssl(call: tuple[str, ...]) -> str:
    options = OPENSSL.get(call[1] if len(call) > 1 else "")
    if options is None:
        return "no such command of openssl"
    at = 2
    while at < len(call) and call[at].startswith("-"):
        if f"{call[at]}:" not in options and call[at] not in options:
            return f"no option {call[at]}"
        at += 1 + (f"{call[at]}:" in options)
    return ""


@cache
def _refusal(call: tuple[str, ...]) -> str:
    """Return what the stand-ins' front of the small tools has against a call: patterns, scripts and primaries too."""
    done = subprocess.run(
        [_fronts() / call[0].rpartition("/")[2], *call[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={"STANDIN_ROOT": str(_fronts()), "STANDIN_BIN": str(_fronts() / "bin")},
        check=False,
    )
    return done.stderr.strip().rpartition(": ")[2] if done.returncode == EXIT else ""


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fronts-")


@cache
def _fronts() -> Path:
    """Return a folder with the front under each tool's name; behind it nothing is done."""
    folder = Path(_folder().name)
    (folder / "bin").mkdir()
    (folder / "var/standin").mkdir(parents=True)
    strict.compile_to(folder / "strict")
    for name in _FRONTS:
        (folder / name).symlink_to("strict")
        (folder / "bin" / name).symlink_to("/bin/true")
    return folder
