"""Daemons that cannot be here, or not yet: processes of their name that do nothing (contract 1.8, 1.9, 10)."""

import os
import re
import signal
import sys
from pathlib import PurePath

from .place import root
from .title import set_title
from .unmodelled import unmodelled

NOT_MODELLED = (
    "slaacd, dhcpleased, resolvd, sndiod, pflogd, relayd, dhcpd, snmpd, httpd: processes that do nothing",
    "relayd, dhcpd, snmpd: configurations, also with -n; httpd: all but server, listen on and root",
)
_PRIVILEGED = {"pflogd": "pflogd: [priv]"}
"""What a daemon calls itself where its rc.d script looks for that."""

_PACKAGED = {
    "redis-server": "redis-server: {path} 127.0.0.1:6379",
    "nginx": "nginx: master process {path} {arguments}",
    "postgres": "{path} {arguments}",
}
_HTTPD = re.compile(r'\s*(#.*|server "[^"]+" \{|listen on \S+ port \d+|root "[^"]+"|\})?\s*')


def _httpd_test(argv: list[str]) -> int:
    """Read what every parser would accept; of anything else nothing is said."""
    if set(argv) - {"-n", "-v"}:
        unmodelled("httpd", argv, "a test with other options")
    path = "/etc/httpd.conf"
    try:
        lines = root(path).read_text().splitlines()
    except OSError as error:
        print(f"{path}: {error.strerror}\nno actions, nothing to do", file=sys.stderr)
        return 1
    for line in lines:
        if not _HTTPD.fullmatch(line):
            unmodelled("httpd", argv, f"grammar: {line.strip()}")
    text = "\n".join(line.partition("#")[0] for line in lines)
    for block in re.findall(r'server "([^"]+)" \{([^}]*)\}', text):
        if "listen on" not in block[1]:
            print(f'{path}: server "{block[0]}": listen address not specified', file=sys.stderr)
            return 1
    if text.count("{") != text.count("}"):
        print(f"{path}:{len(lines)}: syntax error", file=sys.stderr)
        return 1
    if "{" not in text:
        print("no actions, nothing to do", file=sys.stderr)
        return 1
    print("configuration OK", file=sys.stderr)
    return 0


def main(argv: list[str]) -> int:
    """Start a process that ends with SIGTERM and nothing else.

    Args:
        argv: the daemon's arguments; its name is in `sys.argv`.

    Returns:
        0 once it runs in the background.
    """
    path = sys.argv[0]
    name = PurePath(path).name
    if "-n" in argv or "-t" in argv:
        if name == "httpd":
            return _httpd_test(argv)
        unmodelled(name, argv, "the test of a configuration")
    arguments = " ".join(argv)
    default = f"{path} {arguments}".rstrip()
    title = _PRIVILEGED.get(name) or _PACKAGED.get(name, default).format(path=path, arguments=arguments).rstrip()
    if os.fork():
        return 0
    os.setsid()
    set_title(title)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    while True:
        signal.pause()
