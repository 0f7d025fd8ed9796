"""Variables of rc.conf(8) and the rc.d scripts there are: what rcctl(8) and rc(8) share (contract 1.2, 1.6)."""

import re
from collections.abc import Mapping
from pathlib import Path

from .place import root

CONF = "/etc/rc.conf"
LOCAL = "/etc/rc.conf.local"
SCRIPTS = "/etc/rc.d"
SPECIAL = ("accounting", "check_quotas", "ipsec", "library_aslr", "multicast", "pf", "spamd_black")
"""Names that rcctl takes for services and that are only variables."""

VARIABLES = ("class", "execdir", "flags", "logger", "rtable", "timeout", "user")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEY = re.compile(r"\w+_(execdir|flags|logger|rtable|timeout|user)")


def valid(name: str) -> bool:
    """Tell whether a service could have this name."""
    return _NAME.fullmatch(name) is not None


def assignments(text: str) -> dict[str, str]:
    """Read the lines `name=value` of rc.conf or rc.conf.local.

    Args:
        text: the file; of a name that is there twice the last line counts.

    Returns:
        Values without comment and without one pair of surrounding quotes.
    """
    found = {}
    for line in text.splitlines():
        key, equals, value = line.lstrip().partition("=")
        key = key.rstrip()
        if not equals or not (_KEY.fullmatch(key) or key in SPECIAL or key == "pkg_scripts"):
            continue
        value = value.lstrip().partition("#")[0].rstrip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[key] = value
    return found


def text_of(path: str) -> str:
    """Return a file's text, empty if there is none."""
    try:
        return root(path).read_text()
    except FileNotFoundError:
        return ""


def quirks(values: Mapping[str, str]) -> dict[str, str]:
    """Apply what rc.subr forces: no spamlogd without spamd, no pflogd without pf."""
    forced = dict(values)
    if forced.get("spamd_flags") == "NO" or forced.get("spamd_black") != "NO":
        forced["spamlogd_flags"] = "NO"
    if forced.get("pf") == "NO":
        forced["pflogd_flags"] = "NO"
    return forced


def defaults() -> dict[str, str]:
    """Return the variables as /etc/rc.conf alone has them."""
    return quirks(assignments(text_of(CONF)))


def effective() -> dict[str, str]:
    """Return the variables with /etc/rc.conf.local over /etc/rc.conf."""
    return quirks({**assignments(text_of(CONF)), **assignments(text_of(LOCAL))})


def script(name: str) -> Path:
    """Return where the rc.d script of a service is, there or not."""
    return root(f"{SCRIPTS}/{name}")


def is_base(name: str) -> bool:
    """Tell whether a service is the base system's: its flags have a line in /etc/rc.conf."""
    return f"{name}_flags" in assignments(text_of(CONF))


def scripts() -> list[str]:
    """Return the names of all rc.d scripts, sorted."""
    return sorted(path.name for path in root(SCRIPTS).iterdir() if re.fullmatch(r"\w+", path.name) and path.is_file())
