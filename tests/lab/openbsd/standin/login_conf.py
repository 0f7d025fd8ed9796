"""login.conf(5) and cap_mkdb(1): the login classes, contract 5.9.

What login_getclass(3) answers comes from `/etc/login.conf.db` as soon as that file exists, however old it is.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from .place import root
from .program import fail, options, replace
from .unmodelled import unmodelled

NOT_MODELLED = (
    "cap_mkdb: other files than login.conf, and -i -m -v",
    "login.conf.db: the format of a Berkeley database (it is a text of the classes)",
    "login.conf: capabilities of a number with #, cancelled ones with @ in a tc= of more than 32 steps",
)

CONF = "/etc/login.conf"
CLASSES = "/etc/login.conf.d"
DATABASE = "/etc/login.conf.db"
DEFAULT = "default"
_STEPS = 32
_CANCELLED = "\0"

Records = dict[str, list[str]]
"""The fields after the names, of each class by each of its names."""


class FormatError(ValueError):
    """A file that getcap(3) does not take; the message names the line."""


def _records(path: Path) -> Records:
    found: Records = {}
    pending = ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not pending and (not line.strip() or line.startswith("#")):
            continue
        if not pending and line[0] in " \t:":
            raise FormatError(f"line {number}: a record begins with its name")
        pending += line.strip() if pending else line.rstrip()
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        names, *fields = re.split(r"(?<!\\):", pending)
        for name in names.split("|"):
            found.setdefault(name.strip(), [field.strip() for field in fields if field.strip()])
        pending = ""
    if pending:
        raise FormatError("the last record is continued by nothing")
    return found


def _sources() -> Records:
    found: Records = {}
    directory = root(CLASSES)
    if directory.is_dir():
        for path in sorted(directory.iterdir()):
            for name, fields in _records(path).items():
                if name == path.name:
                    found[name] = fields
    if root(CONF).exists():
        for name, fields in _records(root(CONF)).items():
            found.setdefault(name, fields)
    return found


def classes() -> Records:
    """Return the classes that count now: the database's if there is one, else those of the files.

    Raises:
        FormatError: a file that getcap(3) does not take.
    """
    if root(DATABASE).exists():
        loaded: Records = json.loads(root(DATABASE).read_text())
        return loaded
    return _sources()


def exists(name: str) -> bool:
    """Return whether login_getclass(3) finds a class; the default class (also as an empty name) always is there.

    Args:
        name: the class.
    """
    return name in {"", DEFAULT} or name in classes()


def _search(found: Records, name: str, key: str, steps: int) -> str | None:
    """Return a capability where getcap(3) finds it first: a tc= stands for all that its class has."""
    if steps == 0:
        raise FormatError(f"{name}: tc= goes round in circles")
    if name not in found:
        raise FormatError(f"tc={name} is no class")
    for field in found[name]:
        word, equals, value = field.partition("=")
        if field == f"{key}@":
            return _CANCELLED
        if word == key and (equals or field == key):
            return re.sub(r"\\(.)", r"\1", value)
        if word == "tc":
            inherited = _search(found, value, key, steps - 1)
            if inherited is not None:
                return inherited
    return None


def capability(name: str, key: str) -> str | None:
    """Return a capability of a login class, as login_getcapstr(3) finds it.

    Args:
        name: the class; an unknown or empty one is the default class.
        key: the capability, such as `auth-ssh`.

    Returns:
        Its value (`""` of one that is only named), `None` if neither the class nor what its `tc=` names has it.

    Raises:
        FormatError: a file that getcap(3) does not take, or a `tc=` that leads nowhere.
    """
    found = classes()
    value = _search(found, name if name in found else DEFAULT, key, _STEPS) if found else None
    return None if value in {None, _CANCELLED} else value


def main(argv: Sequence[str]) -> int:
    """Run cap_mkdb(1) for login.conf.

    Args:
        argv: the arguments.

    Returns:
        The exit code.
    """
    flags, files = options("cap_mkdb", argv, "if:mv", "usage: cap_mkdb [-v] [-f outfile] file ...\n")
    if not files:
        sys.stderr.write("usage: cap_mkdb [-v] [-f outfile] file ...\n")
        return 1
    if flags or files != [CONF]:
        unmodelled("cap_mkdb", argv, "only login.conf without options")
    if not root(CONF).exists():
        fail("cap_mkdb", f"{CONF}: No such file or directory")
    try:
        found = _sources()
    except FormatError as error:
        unmodelled("cap_mkdb", argv, f"{CONF}: {error}")
    replace(DATABASE, json.dumps(found), 0o644)
    return 0
