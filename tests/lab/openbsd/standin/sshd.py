"""sshd(8): Debian's, started with a configuration compiled from the stand-in's own; contract 5 (sshd -t), 5.7, 14.

What OpenBSD's sshd asks bsdauth, Debian's asks PAM, where `standin.login` answers by the login class. The listener
starts itself anew after SIGHUP under the name it was called by, so that a reload compiles the configuration again.
An option of OpenBSD's sshd that Debian's would take differently is not modelled.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .place import root
from .unmodelled import unmodelled

NOT_MODELLED = (
    "sshd_config: AuthorizedPrincipalsCommand, Hostbased*, RDomain, PermitTunnel, skey, Include within Include",
    "sshd: a login class' setenv, limits and umask (its path is the default class')",
    "sshd: options but -4 -6 -D -d -E -e -o -p -q -t, and -f with -t",
    "sshd: user:style with a style that the login class permits (one that it does not permit is refused)",
    "sshd: between SIGHUP and the new listener connections are refused for a tenth of a second, not a hundredth",
)

REAL = "/usr/lib/standin/bin/sshd"
CONFIG = "/etc/ssh/sshd_config"
COMPILED = "/var/standin/sshd.cf"
"""Where the real sshd looks for its configuration: the path is compiled into the stand-in's copy of it."""

INCLUDED = "/var/standin/sshd.d"
STYLES = "/usr/lib/standin/lib/styles.so"
PATH = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/X11R6/bin:/usr/local/bin:/usr/local/sbin"
PID_FILE = "/var/run/sshd.pid"
BAD_CONFIGURATION = 255

_CARRIED = """
    acceptenv addressfamily allowagentforwarding allowgroups allowstreamlocalforwarding allowtcpforwarding allowusers
    authorizedkeyscommand authorizedkeyscommanduser authorizedkeysfile authorizedprincipalsfile banner
    casignaturealgorithms challengeresponseauthentication channeltimeout chrootdirectory ciphers clientalivecountmax
    clientaliveinterval compression denygroups denyusers disableforwarding exposeauthinfo fingerprinthash forcecommand
    gatewayports hostcertificate hostkey hostkeyagent hostkeyalgorithms ignorerhosts ignoreuserknownhosts ipqos
    kbdinteractiveauthentication kexalgorithms listenaddress logingracetime loglevel logverbose macs match maxauthtries
    maxsessions maxstartups modulifile passwordauthentication permitemptypasswords permitlisten permitopen
    permitrootlogin permittty permituserenvironment permituserrc persourcemaxstartups persourcenetblocksize
    persourcepenalties persourcepenaltyexemptlist pidfile port printlastlog printmotd pubkeyacceptedalgorithms
    pubkeyauthentication pubkeyauthoptions refuseconnection rekeylimit requiredrsasize revokedkeys securitykeyprovider
    streamlocalbindmask streamlocalbindunlink strictmodes subsystem syslogfacility tcpkeepalive trustedusercakeys
    unusedconnectiontimeout usedns versionaddendum x11displayoffset x11forwarding x11uselocalhost xauthlocation
"""
_UNMODELLED = """
    authorizedprincipalscommand authorizedprincipalscommanduser hostbasedacceptedalgorithms hostbasedauthentication
    hostbasedusesnamefrompacketonly permittunnel rdomain sshdauthpath sshdsessionpath
"""
# Debian's sshd knows them; OpenBSD's does not.
_ONLY_PORTABLE = """
    usepam pamservicename debianbanner gssapiauthentication gssapicleanupcredentials gssapienablek5users
    gssapikeyexchange gssapistorecredentialsonrekey gssapistrictacceptorcheck gssapikexalgorithms
"""
_BSDAUTH = "keyboard-interactive:bsdauth"
_PAM = "keyboard-interactive:pam"
_PLAIN_METHODS = ("any", "publickey", "password", "hostbased", "none", "keyboard-interactive")
_LINE = re.compile(r"^\s*(?P<keyword>[A-Za-z0-9]+)(?:\s*=\s*|\s+)(?P<value>.*?)\s*$")


class BadOption(Exception):
    """A line that OpenBSD's sshd does not take; the message is the one that it prints."""


class Compiler:
    """Turns OpenBSD's sshd_config(5) into Debian's, line by line.

    Args:
        config: the file's name.
        argv: the command's arguments, for messages.

    Raises:
        BadOption: an option that only Debian's sshd has.
        FileNotFoundError: there is no such file.
        SystemExit: an option that is not modelled.
    """

    def __init__(self, config: str, argv: Sequence[str]) -> None:
        self._argv = argv
        self.config = config
        self.included: dict[str, str] = {}
        """The text of included files, by the names that the compiled text has for them."""

        self.strange: list[str] = []
        """Options that no list of this module has."""

        self._seen: set[str] = set()
        lines = list(self._lines(config, outer=True))
        header = ["UsePAM yes", "PAMServiceName standin"]
        if "setenv" not in self._seen:
            header.append(f'SetEnv "PATH={PATH}"')
        if "pidfile" not in self._seen:
            header.append(f"PidFile {PID_FILE}")
        if "loglevel" not in self._seen:
            # Tests count on the host's own side how many commands a run has started.
            header.append("LogLevel VERBOSE")
        self.shift = len(header)
        """How many lines come before the user's."""

        self.text = "".join(f"{line}\n" for line in (*header, *lines))

    def _lines(self, config: str, *, outer: bool) -> Iterator[str]:
        for number, line in enumerate(root(config).read_text().splitlines(), 1):
            found = _LINE.match(line)
            if not found or line.lstrip().startswith("#"):
                yield line
                continue
            keyword, value = found["keyword"].lower(), found["value"]
            self._seen.add(keyword)
            if keyword in _ONLY_PORTABLE.split():
                raise BadOption(f"{config}: line {number}: Bad configuration option: {found['keyword']}")
            if keyword in _UNMODELLED.split() and value.lower() != "no":
                unmodelled("sshd", self._argv, f"{config}: {found['keyword']}")
            if keyword == "include" and not outer:
                unmodelled("sshd", self._argv, f"{config}: Include in an included file")
            yield self._option(keyword, value, line)

    def _option(self, keyword: str, value: str, line: str) -> str:
        if keyword == "authenticationmethods":
            return f"AuthenticationMethods {' '.join(self._methods(value))}"
        if keyword == "setenv":
            # The login class' path is what a session begins with, and SetEnv counts only once.
            return f'{line} "PATH={PATH}"'
        if keyword == "include":
            return self._include(value)
        if keyword not in (*_CARRIED.split(), *_UNMODELLED.split()):
            self.strange.append(keyword)
        return line

    def _methods(self, value: str) -> Iterator[str]:
        for alternative in value.replace('"', " ").split():
            words = alternative.split(",")
            for word in words:
                if word.partition(":")[0] in _PLAIN_METHODS and word not in (*_PLAIN_METHODS, _BSDAUTH):
                    unmodelled("sshd", self._argv, f"AuthenticationMethods {word}: only bsdauth is a device of 5.7")
            yield ",".join(_PAM if word == _BSDAUTH else word for word in words)

    def _include(self, value: str) -> str:
        names = []
        for pattern in value.replace('"', " ").split():
            whole = pattern if pattern.startswith("/") else f"/etc/ssh/{pattern}"
            for path in sorted(root("/").glob(whole.lstrip("/"))):
                name = f"{INCLUDED}/{len(self.included)}.cf"
                inner = self._lines(f"/{path.relative_to(root('/'))}", outer=False)
                self.included[name] = "".join(f"{line}\n" for line in inner)
                names.append(name)
        return f"Include {' '.join(names)}" if names else ""

    def store(self, suffix: str = "") -> Path:
        """Write the compiled files.

        Args:
            suffix: added to their names.

        Returns:
            Where the main one is.
        """
        root(INCLUDED).mkdir(mode=0o700, parents=True, exist_ok=True)
        text = self.text
        for name, inner in self.included.items():
            root(name + suffix).write_text(inner)
            text = re.sub(rf"{re.escape(name)}(?=\s)", str(root(name + suffix)), text)
        place = root(COMPILED + suffix)
        place.write_text(text)
        place.chmod(0o600)
        return place

    def translated(self, messages: str, place: Path) -> str:
        """Return the real sshd's messages with the names and numbers of the lines that the user wrote.

        Args:
            messages: what it printed.
            place: the compiled file that it read.
        """

        def number(found: re.Match[str]) -> str:
            return f"{self.config}{found['between']}line {int(found['line']) - self.shift}"

        pattern = rf"{re.escape(str(place))}(?P<between>:? )line (?P<line>\d+)"
        return re.sub(pattern, number, messages).replace(str(place), self.config)

    def check(self) -> int:
        """Have the real sshd read the compiled files; return the exit code of `sshd -t`."""
        suffix = f".check.{os.getpid()}"
        place = self.store(suffix)
        try:
            done = subprocess.run([REAL, "-t", "-f", str(place)], capture_output=True, text=True, check=False)
        finally:
            place.unlink()
            for path in root(INCLUDED).glob(f"*{suffix}"):
                path.unlink()
        for option in self.strange:
            # One that no sshd knows is its own affair; any other would silently mean what it means on Debian.
            if f"bad configuration option: {option}" not in done.stderr.lower():
                unmodelled("sshd", self._argv, f"{self.config}: {option}")
        sys.stderr.write(self.translated(done.stderr, place))
        return BAD_CONFIGURATION if done.returncode else 0


def parse(argv: Sequence[str]) -> tuple[str, set[str]]:
    """Return the configuration file that the arguments name, and the letters of the options.

    Args:
        argv: the arguments.

    Raises:
        SystemExit: an option that is not modelled.
    """
    config, letters, words = CONFIG, set(), iter(argv)
    for word in words:
        if not re.fullmatch(r"-[46Ddeqt]+|-[fopE].*", word):
            unmodelled("sshd", argv, word)
        if word[1] in "fopE":
            value = word[2:] or next(words, "")
            config = value if word[1] == "f" else config
            letters.add(word[1])
        else:
            letters |= set(word[1:])
    if "f" in letters and "t" not in letters:
        unmodelled("sshd", argv, "-f without -t")
    return config, letters


def main(argv: Sequence[str]) -> int:
    """Run sshd(8): check a configuration, or compile it and become the real daemon.

    Args:
        argv: its arguments.

    Returns:
        The exit code; 255 for a configuration that it does not take.
    """
    config, letters = parse(argv)
    try:
        compiler = Compiler(config, argv)
    except FileNotFoundError:
        sys.stderr.write(f"{config}: No such file or directory\n")
        return BAD_CONFIGURATION
    except BadOption as error:
        sys.stderr.write(f"{error}\n{config}: terminating, 1 bad configuration options\n")
        return BAD_CONFIGURATION
    if "t" in letters or compiler.strange:
        code = compiler.check()
        if "t" in letters or code:
            return code
    compiler.store()
    # Its first argument is what it executes after SIGHUP: this command again.
    return os.execve(REAL, ["/usr/sbin/sshd", *argv], {**os.environ, "LD_PRELOAD": STYLES})
