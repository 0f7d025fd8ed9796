"""syslogd(8) and syslog.conf(5) (contract 5.5; usr.sbin/syslogd/syslogd.c 1.287, privsep.c 1.77)."""

import os
import signal
import socket
import sys

from . import program, sendsyslog
from .place import root
from .syslog import server, tls
from .syslog.conf import Refused, address, rules
from .syslog.daemon import PID_FILE, Daemon, Settings
from .syslog.message import ERR
from .title import set_title
from .unmodelled import unmodelled

NOT_MODELLED = (
    "syslogd: UDP and TCP without TLS, commands, memory buffers, terminals of users, messages of the kernel",
    "syslogd: options -d, -F, -m, -P, -s, -T, -U, -u and -V",
    "syslogd: one process is both its parent and the child in a chroot: it logs the number that is in its pid file",
    "syslogd: of the same path in two lines only the first is opened, also if that fails",
)

_USAGE = """\
usage: syslogd [-46dFhnruVZ] [-a path] [-C CAfile]
	[-c cert_file] [-f config_file] [-K CAfile] [-k key_file]
	[-m mark_interval] [-p log_socket] [-S listen_address]
	[-s reporting_socket] [-T listen_address] [-U bind_address]
"""
_REFUSED = {"-d", "-F", "-m", "-P", "-s", "-T", "-U", "-u", "-V"}


def _log_socket(daemon: Daemon, path: str) -> socket.socket | None:
    place = root(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        place.unlink(missing_ok=True)
        made.bind(str(place))
    except OSError as error:
        daemon.log(ERR, f'bind unix "{path}": {error.strerror or error}')
        made.close()
        return None
    place.chmod(0o666)
    return made


def _open(daemon: Daemon, options: list[tuple[str, str]]) -> None:
    """Open every socket and read every certificate: what is done once, before anything else. Raises SystemExit."""
    given = dict(options)
    addresses = [value for option, value in options if option == "-S"]
    families = {"-4": socket.AF_INET, "-6": socket.AF_INET6}
    family = next((families[option] for option, _ in reversed(options) if option in families), socket.AF_UNSPEC)
    listening = []
    for text in addresses:
        try:
            found = server.bound(daemon, text, family)
        except ValueError:
            program.fail("syslogd", f"bad tls address: {text}")
        if found is None:
            daemon.log(ERR, "socket listen tls failed")
        else:
            listening.append(found)
    paths = [given.get("-p", "/dev/log"), *(value for option, value in options if option == "-a")]
    sockets = [_log_socket(daemon, path) for path in paths]
    if sockets[0] is None:
        daemon.log(ERR, f"log socket {paths[0]} failed")
    daemon.listen([*(each for each in sockets if each is not None), sendsyslog.receiver()])

    def warn(text: str) -> None:
        daemon.log(ERR, text)

    client = tls.Client(given.get("-C", "/etc/ssl/cert.pem"), given.get("-c", ""), given.get("-k", ""), warn)
    daemon.trust(client)
    if not addresses:
        return
    try:
        names = addresses[0], address(addresses[0])[1]
        daemon.serve(listening, tls.server(names, given.get("-K", ""), warn))
    except tls.TlsError as error:
        warn(f"tls_configure server: {error}")
        for each in listening:
            each.close()


def main(argv: list[str]) -> int:
    """Run syslogd in the background.

    Args:
        argv: `-4`, `-6`, `-a PATH`, `-C FILE`, `-c FILE`, `-f FILE`, `-h`, `-K FILE`, `-k FILE`, `-n`, `-p PATH`, `-r`,
            `-S ADDRESS` and `-Z`.

    Returns:
        0 once it has read syslog.conf, or ended because it cannot.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    options, operands = program.options("syslogd", argv, "46a:C:c:dFf:hK:k:m:nP:p:rS:s:T:U:uVZ", _USAGE)
    if operands:
        sys.stderr.write(_USAGE)
        return 1
    for option, _ in options:
        if option in _REFUSED:
            unmodelled("syslogd", argv, f"option {option}")
    given = dict(options)
    conf = given.get("-f", "/etc/syslog.conf")
    repeat = sum(option == "-r" for option, _ in options)
    try:
        rules(root(conf).read_text(errors="replace"), lambda _: None)
    except Refused as error:
        unmodelled("syslogd", argv, f"{conf}: {error}")
    except OSError:
        # Its parent ends with the words on /dev/null, and the child with it.
        return 0
    daemon = Daemon(Settings(conf, "-n" in given, "-h" in given, repeat, "-Z" in given))
    _open(daemon, options)
    done, ready = os.pipe()
    if os.fork():
        os.close(ready)
        os.read(done, 1)
        return 0
    os.setsid()
    os.close(done)
    set_title("syslogd: [priv]")
    root(PID_FILE).write_text(f"{os.getpid()}\n")
    daemon.started = True
    daemon.begin()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    os.close(ready)
    return daemon.run()
