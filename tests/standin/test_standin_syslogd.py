"""syslogd(8), logger(1) and sendsyslog(2) of the stand-in: contract 5.5 and 14, and the sources they are read from."""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.lab.openbsd import standin
from tests.lab.openbsd.standin import logger, sendsyslog, unmodelled
from tests.lab.openbsd.standin.syslog import conf, daemon, forward, message, tls

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
LIBRARY = str(Path(standin.__file__).parent.parent)
KERN, USER, MAIL, DAEMON, AUTH, SYSLOG = range(6)
EMERG, ALERT, CRIT, ERR, WARNING, NOTICE, INFO, DEBUG = range(8)
EVERYTHING = "*.*\t/var/log/all\n"


def until(found: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found():
            return True
        time.sleep(0.02)
    return found()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Root:
    """A certificate authority of a test."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=9))
            .not_valid_after(now + timedelta(days=9))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self.key, SHA256())
        )

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def leaf(
        self, name: str, use: x509.ObjectIdentifier, *names: str, days: tuple[int, int] = (-1, 2)
    ) -> tuple[str, str]:
        """Return a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else []
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names or ("x.test",)]), False)
            .sign(self.key, SHA256())
        )
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return made.public_bytes(Encoding.PEM).decode(), secret


@dataclass
class Standin:
    """A host in a folder with a syslogd."""

    place: Path
    pids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("dev", "etc/ssl/private", "var/log", "var/run", "var/standin/boot", "usr/sbin"):
            (self.place / name).mkdir(parents=True)
        for name in ("dev/console", "etc/ssl/cert.pem", "var/log/all"):
            (self.place / name).touch()
        for name in ("syslogd", "logger"):
            path = self.place / "usr/sbin" / name
            path.write_text(
                f"#!{sys.executable} -IS\nimport sys; sys.path.insert(0, {LIBRARY!r})\n"
                f"from standin.{name} import main; sys.exit(main(sys.argv[1:]))\n"
            )
            path.chmod(0o755)
        self.write("etc/syslog.conf", EVERYTHING)

    def write(self, name: str, text: str) -> None:
        (self.place / name).write_text(text)

    def read(self, name: str = "var/log/all") -> str:
        return (self.place / name).read_text()

    def run(self, name: str, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.place / "usr/sbin" / name, *words],
            env={**os.environ, "STANDIN_ROOT": str(self.place)},
            input=text,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    def start(self, *words: str) -> str:
        """Start syslogd; return what it said before it went to the background."""
        done = self.run("syslogd", *words)
        assert done.returncode == 0, done.stderr
        assert until(lambda: bool(self.read("var/run/syslog.pid")))
        self.pids.append(self.pid())
        assert self.said("syslogd[", ": start") or "all" not in self.read("etc/syslog.conf")
        return done.stderr

    def pid(self) -> int:
        return int(self.read("var/run/syslog.pid"))

    def signal(self, number: int) -> None:
        os.kill(self.pid(), number)

    def stop(self) -> None:
        """End syslogd as rc.d does, and wait."""
        self.signal(signal.SIGTERM)
        assert until(lambda: not (self.place / "var/run/syslog.pid").exists())

    def said(self, *parts: str, name: str = "var/log/all", seconds: float = 10) -> bool:
        """Wait until a line has these parts."""
        return until(lambda: any(all(p in line for p in parts) for line in self.read(name).splitlines()), seconds)

    def send(self, text: str, path: str = "dev/log") -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(text.encode(), str(self.place / path))

    def certificates(self, authority: Root, pair: tuple[str, str] | None) -> tuple[str, ...]:
        """Write what a client has; return its flags."""
        self.write("etc/ssl/log-ca.pem", authority.pem)
        if pair is None:
            return ("-C", "/etc/ssl/log-ca.pem")
        self.write("etc/ssl/client.crt", pair[0])
        self.write("etc/ssl/private/client.key", pair[1])
        return ("-C", "/etc/ssl/log-ca.pem", "-c", "/etc/ssl/client.crt", "-k", "/etc/ssl/private/client.key")


Make = Callable[[str], Standin]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Make]:
    made: list[Standin] = []

    def make(name: str) -> Standin:
        made.append(Standin(tmp_path / name))
        return made[-1]

    yield make
    for each in made:
        pid_file = each.place / "var/run/syslog.pid"
        for pid in {*each.pids, *([each.pid()] if pid_file.exists() else [])}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def authority() -> Root:
    return Root("log")


def serve(one: Standin, authority: Root, port: int, *words: str, conf: str = EVERYTHING) -> None:
    """Start a log server on localhost."""
    certificate, key = authority.leaf("logs", SERVER, "localhost")
    one.write(f"etc/ssl/localhost:{port}.crt", certificate)
    one.write(f"etc/ssl/private/localhost:{port}.key", key)
    one.write("etc/ssl/clients.pem", authority.pem)
    one.write("etc/syslog.conf", conf)
    assert one.start("-4n", "-S", f"localhost:{port}", "-K", "/etc/ssl/clients.pem", *words) == ""


def forwards(port: int) -> str:
    return f"{EVERYTHING}!!test\n*.*\t@tls://localhost:{port}\n"


def connected(server: Standin, port: int, pair: tuple[str, str] | None, *, old: bool = False) -> ssl.SSLSocket:
    """Connect to a server with a certificate, or without one; every server will do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if old:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    if pair is not None:
        made = server.place.parent / "pair.pem"
        made.write_text("".join(pair))
        context.load_cert_chain(made)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10))


# 5.5: selectors, `none`, blocks `!prog` and `!!prog` (stop after match), `!*`.
SYSLOG_CONF = """# a comment
*.notice;auth,authpriv,cron,ftp,kern,lpr,mail,user.none\t/var/log/messages
mail.info\t\t/var/log/maillog
!!doas
*.*\t/var/log/doas
!*
*.emerg\t*
auth.info;authpriv.err\t/var/log/authlog
"""


def taken(text: str, facility: int, level: int, program: str = "x", host: str = "here") -> list[object]:
    found: list[object] = []
    for rule in conf.rules(text, pytest.fail):
        if rule.takes(facility, level, program, host):
            found.append(rule.action)
            if rule.quick:
                break
    return found


@pytest.mark.parametrize(
    ("facility", "level", "sender", "files"),
    [
        (DAEMON, NOTICE, "ntpd", ["messages"]),
        (DAEMON, INFO, "ntpd", []),
        (MAIL, INFO, "smtpd", ["maillog"]),
        (MAIL, DEBUG, "smtpd", []),
        (USER, EMERG, "x", [None]),
        (AUTH, INFO, "sshd", ["authlog"]),
        (AUTH, NOTICE, "doas", ["doas"]),
        (DAEMON, ERR, "doas", ["messages", "doas"]),
        (10, INFO, "sshd", []),
        (10, ERR, "sshd", ["authlog"]),
    ],
)
def test_selectors(facility: int, level: int, sender: str, files: list[str | None]) -> None:
    paths = [name and f"/var/log/{name}" for name in files]
    assert taken(SYSLOG_CONF, facility, level, sender) == paths


# 5.5: "later selectors of a line override earlier ones (`mail.crit;*.err` logs mail from err upward)".
def test_later_selectors_override() -> None:
    assert taken("mail.crit;*.err\t/f\n", MAIL, ERR) == ["/f"]
    assert taken("*.*;mail.none\t/f\n", MAIL, EMERG) == []
    assert taken("MAIL.Err /f\n", MAIL, ERR) == ["/f"], "case does not matter"


# 5.5: "host blocks `+host` `++host` `+*`"; patterns of glob(7), both kinds of block at once.
HOSTS = """*.*\t/all
++ns3
*.err\t/ns3
+*
!sshd
+dc*
*.*\t/dc-sshd
!*
+ns3
*.*\t/rest
"""


@pytest.mark.parametrize(
    ("level", "program", "host", "files"),
    [
        (ERR, "x", "ns3", ["/all", "/ns3"]),
        (INFO, "x", "ns3", ["/all", "/rest"]),
        (INFO, "sshd", "dc1", ["/all", "/dc-sshd"]),
        (INFO, "cron", "dc1", ["/all"]),
        (INFO, "sshd", "DC1", ["/all"]),
        (INFO, "sshd", "else", ["/all"]),
    ],
)
def test_host_blocks(level: int, program: str, host: str, files: list[str]) -> None:
    assert taken(HOSTS, DAEMON, level, program, host) == files


# find_dup(): a second line with the same file in the same block changes the first.
def test_one_file_in_two_lines() -> None:
    text = "mail.*\t/f\n*.err\t/g\nauth.info;mail.none\t/f\n!x\ndaemon.*\t/f\n"
    assert [rule.action for rule in conf.rules(text, pytest.fail)] == ["/f", "/g", "/f"]
    assert taken(text, AUTH, INFO) == ["/f"]
    assert taken(text, MAIL, ERR) == ["/f", "/g"], "none in the second line takes nothing away"


@pytest.mark.parametrize(
    ("action", "version", "host", "port"),
    [
        ("@tls://logs", 0, "logs", "syslog-tls"),
        ("@tls4://logs.example.net:6514", 4, "logs.example.net", "6514"),
        ("@tls6://[2001:db8::1]:1", 6, "2001:db8::1", "1"),
        ("@tls://[2001:db8::1]", 0, "2001:db8::1", "syslog-tls"),
    ],
)
def test_actions_to_other_hosts(action: str, version: int, host: str, port: str) -> None:
    found = conf.rules(f"*.*\t{action}\n", pytest.fail)[0].action
    assert found == conf.Loghost(action, version, host, port)


@pytest.mark.parametrize("action", ["@logs", "@udp4://logs", "@tcp://logs:514", "|exec cat", ":64:memory"])
def test_actions_that_are_not_modelled(action: str) -> None:
    with pytest.raises(conf.Refused, match=re.escape(action)):
        conf.rules(f"*.*\t{action}\n", pytest.fail)


# cfline(): what is wrong is said, the line left out, and the rest counts.
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("*.bogus /f", 'unknown priority name "bogus"'),
        ("bogus.info /f", 'unknown facility name "bogus"'),
        ("nodot /f", 'unknown priority name ""'),
        ("*.* @ssh://x", 'bad protocol "@ssh://x"'),
        ("*.* @tls://[::1", 'bad loghost "@tls://[::1"'),
    ],
)
def test_lines_that_are_wrong(line: str, words: str) -> None:
    said: list[str] = []
    assert [rule.action for rule in conf.rules(f"{line}\nuser.info /g\n", said.append)] == ["/g"]
    assert said == [words]


# parsemsg(): priority, either kind of time, program; printline(): kern is user, vis(3) with VIS_NOSLASH.
@pytest.mark.parametrize(
    ("data", "zulu", "priority", "stamp", "program", "text"),
    [
        (b"<38>Nov 23 12:00:00 sshd[1]: hello\n", False, 38, "Nov 23 12:00:00", "sshd", "sshd[1]: hello "),
        (b"<38>Nov 23 12:00:00 sshd[1]: hello", True, 38, "now", "sshd", "sshd[1]: hello"),
        (b"plain", False, 13, "now", "plain", "plain"),
        (b"<0>x: y", False, 8, "now", "x", "x: y"),
        (b"<6>x: y", False, 14, "now", "x", "x: y"),
        (b"<1024>x: y", False, 13, "now", "x", "x: y"),
        (b"<4294967296>x: y", False, 13, "now", "", "<4294967296>x: y"),
        (b"<13>2026-11-23T12:00:00.123Z a_b.c-d: y", True, 13, "2026-11-23T12:00:00.123Z", "a_b.c-d", "a_b.c-d: y"),
        (b"<13>2026-11-23T12:00:00+01:00 x: y", False, 13, "2026-11-23T12:00:00+01:00", "x", "x: y"),
        (
            b"<13>2026-11-23T12:00:00.1234567Z x: y",
            False,
            13,
            "now",
            "2026-11-23T12",
            "2026-11-23T12:00:00.1234567Z x: y",
        ),
        (b"<13>- x: y", False, 13, "now", "x", "x: y"),
        (b"<13>x: \xc3\xa9\t\x07\x7f\xa0\\", False, 13, "now", "x", "x: M-CM-)\t^G^?\\240\\"),
        (b"<13>x: y\0z", False, 13, "now", "x", "x: y"),
        (b"<13>" + b"x" * 9000, False, 13, "now", "x" * 255, "x" * (8192 - 4)),
    ],
)
def test_messages(data: bytes, *, zulu: bool, priority: int, stamp: str, program: str, text: str) -> None:
    assert message.received(data, lambda: "now", zulu=zulu) == message.Message(priority, stamp, program, text)


# RFC 6587 as tcp_readcb() reads it: octets counted with up to five digits, or up to LF, CR LF or NUL; both mixed.
@pytest.mark.parametrize(
    ("data", "found", "left"),
    [
        (b"5 <13>a7 <13>b c", [b"<13>a", b"<13>b c"], b""),
        (b"6 <13>a\n<13>b\n<13>c\r\n<13>d\0", [b"<13>a", b"<13>b", b"<13>c", b"<13>d"], b""),
        (b"8 <13>a\nb\n", [b"<13>a\nb"], b""),
        (b"9 <13>a", [], b"9 <13>a"),
        (b"<13>a\n<13>half", [b"<13>a"], b"<13>half"),
        (b"123456 x\ny", [b"123456 x"], b"y"),
        (b"12", [], b"12"),
        (b"0 5 <13>a", [b"", b"<13>a"], b""),
        (b"<13>" + b"x" * 8194, [], b"<13>" + b"x" * 8194),
        (b"<13>" + b"x" * 8195, [b"<13>" + b"x" * 8194], b""),
        (b"9000 " + b"x" * 9000 + b"\n", [b"x" * 8192, b""], b""),
    ],
)
def test_frames(data: bytes, found: list[bytes], left: bytes) -> None:
    for size in (1, len(data)):
        buffer, got = bytearray(), []
        for at in range(0, len(data), size):
            buffer += data[at : at + size]
            got += list(message.frames(buffer))
        if len(data) < 8000 or size > 1:
            assert (got, bytes(buffer)) == (found, left)


@pytest.mark.parametrize(
    "words",
    [["-T", "127.0.0.1:1"], ["-U", "127.0.0.1"], ["-d"], ["-F"], ["-V"], ["-m", "5"], ["-s", "/x"], ["-u"]],
)
def test_options_that_are_not_modelled(host: Make, words: list[str]) -> None:
    one = host("a")
    assert one.run("syslogd", *words).returncode == unmodelled.EXIT
    assert f"option {words[0]}" in one.read("var/standin/unmodelled")


def test_a_refused_action_ends_the_start(host: Make) -> None:
    one = host("a")
    one.write("etc/syslog.conf", "*.*\t@logs\n")
    assert one.run("syslogd").returncode == unmodelled.EXIT
    done = one.run("syslogd", "x")
    assert (done.returncode, done.stderr.partition(" ")[0]) == (1, "usage:")


# 5.5: "`/file` (must pre-exist, not created)", `-a PATH`, the pid file, SIGTERM; 1.4: the title that rc.d looks for.
def test_local_messages(host: Make) -> None:
    one = host("a")
    (one.place / "var/www/dev").mkdir(parents=True)
    one.write("etc/syslog.conf", f"{EVERYTHING}mail.*\t/var/log/maillog\n")
    assert one.start("-a", "/var/www/dev/log") == ""
    assert Path(f"/proc/{one.pid()}/cmdline").read_bytes().rstrip(b"\0") == b"syslogd: [priv]"
    for path in ("dev/log", "var/www/dev/log"):
        one.send(f"<{DAEMON * 8 + ERR}>Nov 23 12:00:00 x[1]: by {path}", path)
        assert one.said(f"Nov 23 12:00:00 {socket.gethostname().partition('.')[0]} x[1]: by {path}")
    assert not (one.place / "var/log/maillog").exists()
    assert one.said("dropped 1 message during initialization")
    console = one.read("dev/console")
    assert 'priv_open_log "/var/log/maillog": No such file or directory\n' in console.replace("\r", "")
    one.stop()
    assert one.said("exiting on signal 15")


def test_no_syslog_conf(host: Make) -> None:
    one = host("a")
    (one.place / "etc/syslog.conf").unlink()
    assert one.run("syslogd").returncode == 0
    assert not (one.place / "var/run/syslog.pid").exists()


# 14: "the name of the sender is the *common name* of the client's certificate (white space encoded)".
def test_messages_to_another_host(host: Make, authority: Root) -> None:
    port = free_port()
    server, client = host("server"), host("client")
    serve(server, authority, port)
    client.write("etc/syslog.conf", forwards(port))
    client.start("-Z", *client.certificates(authority, authority.leaf("my ns3", CLIENT)))
    client.run("logger", "-p", "local3.info", "-t", "test", "hello there")
    assert server.said("Z my\\040ns3 test: hello there")
    assert server.said('tls logger "127.0.0.1:', " accepted")
    assert server.said('127.0.0.1 using hostname "my\\040ns3" from certificate')
    client.stop()
    assert server.said('tls logger "127.0.0.1:', " connection close")


# fprintlog(): "LEN <PRI>TIME MESSAGE\n", the host's name with -h; a certificate without a name keeps the address.
@pytest.mark.parametrize("words", [(), ("-h",)])
def test_what_is_sent(host: Make, authority: Root, tmp_path: Path, words: tuple[str, ...]) -> None:
    client = host("client")
    pair = tmp_path / "pair.pem"
    pair.write_text("".join(authority.leaf("logs", SERVER, "localhost")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        client.write("etc/syslog.conf", f"!test\n*.*\t@tls4://localhost:{listening.getsockname()[1]}\n")
        client.run("syslogd", *words, *client.certificates(authority, None))
        client.send("<29>Nov 23 12:00:00 test[7]: hello")
        accepted, _ = listening.accept()
        with context.wrap_socket(accepted, server_side=True) as connection:
            connection.settimeout(10)
            got = connection.recv(1000)
    name = f"{socket.gethostname().partition('.')[0]} " if words else ""
    line = f"<29>Nov 23 12:00:00 {name}test[7]: hello\n"
    assert got == f"{len(line)} {line}".encode()


def test_frames_by_hand(host: Make, authority: Root) -> None:
    port = free_port()
    server = host("server")
    serve(server, authority, port)
    with connected(server, port, authority.leaf("", CLIENT)) as raw:
        raw.sendall(b"10 <13>x: one<13>x: two\n<4>x: three\0\xff")
        assert server.said("127.0.0.1 x: three")
        assert server.said("127.0.0.1 x: one")
        assert server.said("127.0.0.1 x: two")
        assert server.said("cannot get hostname from peer certificate")
    assert server.said("connection close")
    assert "M-^?" not in server.read(), "a message without its end is no message"


# 14: "-K requires client certs"; "no CRL"; what LibreSSL looks at is chain, time and extended key usage.
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
@pytest.mark.parametrize("who", ["nobody", "foreign", "expired", "early", "server", "old"])
def test_hosts_that_are_refused(host: Make, authority: Root, who: str) -> None:
    port = free_port()
    server = host("server")
    serve(server, authority, port)
    pairs = {
        "nobody": None,
        "foreign": Root("log").leaf("ns3", CLIENT),
        "expired": authority.leaf("ns3", CLIENT, days=(-3, -1)),
        "early": authority.leaf("ns3", CLIENT, days=(1, 3)),
        "server": authority.leaf("ns3", SERVER),
        "old": authority.leaf("ns3", CLIENT),
    }
    with suppress(OSError), connected(server, port, pairs[who], old=who == "old") as raw:
        raw.sendall(b"<13>x: burglar\n")
        raw.recv(1)
    why = {"nobody": "peer did not return a certificate", "old": "unsupported protocol"}
    words = why.get(who, "certificate verify failed")
    assert server.said('tls logger "127.0.0.1:', " connection error: handshake failed: error:", words)
    assert "burglar" not in server.read()
    assert "using hostname" not in server.read()


# TLS 1.3: a client's handshake is over before the server looks at its certificate. What it has sent by then is lost and
# counted nowhere, and as a write that went well it tries again after one second for ever (tcp_writecb()).
def test_what_a_refused_host_sends_is_lost(host: Make, authority: Root, tmp_path: Path) -> None:
    client, pair = host("client"), tmp_path / "server.pem"
    pair.write_text("".join(authority.leaf("logs", SERVER, "localhost")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    context.load_verify_locations(cadata=authority.pem)
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        client.write("etc/syslog.conf", forwards(listening.getsockname()[1]).replace("tls://", "tls4://"))
        client.start(*client.certificates(authority, authority.leaf("ns3", CLIENT, days=(-3, -1))))
        client.run("logger", "-t", "test", text="1\n2\n3\n")
        accepted, _ = listening.accept()
        came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = context.wrap_bio(came, goes, server_side=True)
        with accepted:
            came.write(accepted.recv(65536))
            with pytest.raises(ssl.SSLWantReadError):
                server.do_handshake()
            accepted.sendall(goes.read())
            time.sleep(0.5)
            came.write(accepted.recv(65536))
            with pytest.raises(ssl.SSLCertVerificationError):
                server.do_handshake()
            accepted.sendall(goes.read())
        assert client.said("connection error: read failed: error:SSL routines:", "certificate expired")
        client.stop()
    assert "to remote loghost" not in client.read()


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("foreign", "certificate verification failed: unable to get local issuer certificate"),
        ("expired", "certificate verification failed: certificate has expired"),
        ("client", "certificate verification failed: unsupported certificate purpose"),
        ("else", "name `localhost' not present in server certificate"),
    ],
)
def test_servers_that_are_refused(host: Make, authority: Root, who: str, words: str) -> None:
    port = free_port()
    server, client = host("server"), host("client")
    other = {
        "foreign": Root("other").leaf("logs", SERVER, "localhost"),
        "expired": authority.leaf("logs", SERVER, "localhost", days=(-3, -1)),
        "client": authority.leaf("logs", CLIENT, "localhost"),
        "else": authority.leaf("logs", SERVER, "elsewhere"),
    }[who]
    server.write("etc/ssl/localhost.crt", other[0])
    server.write("etc/ssl/private/localhost.key", other[1])
    said = server.start("-4n", "-S", f"localhost:{port}")
    assert f"failed to open key file '/etc/ssl/private/localhost:{port}.key': No such file or directory" in said
    client.write("etc/syslog.conf", forwards(port))
    client.start(*client.certificates(authority, None))
    client.run("logger", "-t", "test", "secret")
    assert client.said(f'loghost "@tls://localhost:{port}" connection error: {words}')
    assert "secret" not in server.read()


# main(): each file that cannot be read is said; without key and certificate nobody can connect.
def test_a_server_without_its_files(host: Make, authority: Root) -> None:
    one, port = host("a"), free_port()
    said = one.start("-4", "-S", f"localhost:{port}", "-K", "/etc/ssl/none.pem").splitlines()
    texts = [line.partition("]: ")[2] for line in said]
    assert texts == [
        f"load server TLS key: failed to open key file '/etc/ssl/private/{name}.key': No such file or directory"
        for name in (f"localhost:{port}", "localhost")
    ] + [
        "load server TLS CA: failed to open CA file '/etc/ssl/none.pem': No such file or directory",
        "tls_configure server: private/public key mismatch",
    ]
    assert one.said("dropped 4 messages during initialization")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    one.stop()
    certificate, key = authority.leaf("logs", SERVER, "localhost")
    one.write("etc/ssl/localhost.crt", certificate)
    one.write("etc/ssl/private/localhost.key", authority.leaf("logs", SERVER)[1])
    assert one.start("-4", "-S", f"localhost:{port}").endswith(": private/public key mismatch\n")
    one.stop()
    one.write("etc/ssl/private/localhost.key", key)
    one.write("etc/ssl/none.pem", "")
    said = one.start("-4", "-S", f"localhost:{port}", "-K", "/etc/ssl/none.pem").splitlines()
    assert said[-1].endswith("tls_configure server: ssl verify memory setup failure")


def test_a_client_without_its_files(host: Make, authority: Root) -> None:
    one = host("a")
    one.certificates(authority, authority.leaf("ns3", CLIENT))
    one.write("etc/syslog.conf", forwards(free_port()))
    assert one.start("-C", "/etc/ssl/log-ca.pem", "-c", "/etc/ssl/client.crt").endswith(
        "options -c and -k must be used together\n"
    )
    one.stop()
    one.write("etc/ssl/private/client.key", authority.leaf("ns3", CLIENT)[1])
    flags = ("-C", "/etc/ssl/log-ca.pem", "-c", "/etc/ssl/client.crt", "-k")
    assert one.start(*flags, "/etc/ssl/private/client.key") == ""
    assert one.said("tls_connect_socket", "private/public key mismatch")
    one.stop()
    said = one.start(*flags, "/none", "-C", "/none")
    assert "load client TLS CA: failed to open CA file '/none': No such file or directory" in said
    assert "load client TLS key: failed to open key file '/none': No such file or directory" in said


# MAX_TCPBUF: 256 KiB of whole messages wait; what comes then is counted, and said when the buffer was sent.
def test_a_server_that_is_away(host: Make, authority: Root) -> None:
    port = free_port()
    server, client = host("server"), host("client")
    client.write("etc/syslog.conf", forwards(port))
    client.start(*client.certificates(authority, authority.leaf("ns3", CLIENT)))
    loghost = f'loghost "@tls://localhost:{port}"'
    assert client.said(f"{loghost} connection error: handshake failed: Connection refused")
    client.run("logger", "-t", "test", text="".join(f"{n:03} {'x' * 996}\n" for n in range(400)))
    serve(server, authority, port)
    kept = -(-forward.MAX_TCPBUF // len(f"1027 <13>Nov 23 12:00:00 test: {'x' * 1000}\n"))
    assert client.said(f"dropped {400 - kept} messages to {loghost}")
    assert server.said("test: ", f" {kept - 1:03} ")
    assert [int(n) for n in re.findall(r"test: (\d+) x", server.read())] == list(range(kept))


# die() and init(): what waits is lost, and counted, at the end and at SIGHUP.
def test_what_waits_at_the_end_is_counted(host: Make, authority: Root) -> None:
    client = host("client")
    client.write("etc/syslog.conf", forwards(free_port()))
    client.start(*client.certificates(authority, None))
    client.run("logger", "-t", "test", text="1\n2\n3\n")
    client.signal(signal.SIGHUP)
    assert client.said("]: restart")
    assert client.said("dropped 3 messages to remote loghost")
    client.run("logger", "-t", "test", "4")
    client.stop()
    assert client.said("dropped 1 message to remote loghost")


class Hub:
    """A daemon that only listens to what its connection says."""

    def __init__(self) -> None:
        self.selector: selectors.BaseSelector = selectors.DefaultSelector()
        self.said: list[str] = []

    def log(self, level: int, text: str) -> None:
        self.said.append(f"{level} {text}")

    def dropped(self, count: int, where: str) -> None:
        self.said.append(f"dropped {count} {where}")

    def receive(self, host: str, data: bytes) -> None:
        raise AssertionError((host, data))


@pytest.fixture
def unreachable(host: Make, monkeypatch: pytest.MonkeyPatch) -> forward.Forward:
    monkeypatch.setenv("STANDIN_ROOT", str(host("a").place))

    def fails(*words: object) -> None:
        raise socket.gaierror(8, f"{words[0]} not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    client = tls.Client("/etc/ssl/cert.pem", "", "", pytest.fail)
    return forward.Forward(Hub(), conf.Loghost("@tls://nowhere", 0, "nowhere", "syslog-tls"), client, "")


# loghost_retry(): "1, 2, 4 ... 600 s"; a name that is not known is tried again each time.
def test_waits_between_attempts(unreachable: forward.Forward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    waits = []
    for _ in range(12):
        unreachable.connect()
        assert unreachable.due is not None
        waits.append(unreachable.due - 1000)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]
    hub = unreachable._hub
    assert isinstance(hub, Hub)
    assert hub.said == ['3 bad hostname "@tls://nowhere"'] * 13


# tcp_errorcb(): a buffer that begins with a part of a message loses that part, and it counts.
@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        (b"8 <13>abc\n6 <13>d\n", b"8 <13>abc\n6 <13>d\n", 0),
        (b"3>abc\n6 <13>d\n", b"6 <13>d\n", 1),
        (b"<13>abc", b"", 1),
        (b"", b"", 0),
    ],
)
def test_part_of_a_message(unreachable: forward.Forward, before: bytes, after: bytes, lost: int) -> None:
    unreachable._output[:] = before
    unreachable._failed("x")
    assert (bytes(unreachable._output), unreachable.dropped) == (after, lost)


# init(): a file stays open until SIGHUP, wherever it is moved to.
def test_a_rotated_file(host: Make) -> None:
    one = host("a")
    one.start()
    (one.place / "var/log/all").rename(one.place / "var/log/all.0")
    one.write("var/log/all", "")
    one.send("<13>x: before")
    assert one.said("x: before", name="var/log/all.0")
    one.signal(signal.SIGHUP)
    assert one.said("]: restart")
    one.send("<13>x: after")
    assert one.said("x: after")
    assert "x: before" not in one.read()


# 14: "Keys and CA are loaded at start"; privsep.c: with another syslog.conf the daemon is executed anew and reads them.
def test_hup_and_certificates(host: Make, authority: Root) -> None:
    port = free_port()
    server = host("server")
    serve(server, authority, port)
    first, pair = server.pid(), authority.leaf("ns3", CLIENT)
    for name in (f"localhost:{port}.crt", f"private/localhost:{port}.key", "clients.pem"):
        server.write(f"etc/ssl/{name}", "nothing\n")
    server.signal(signal.SIGHUP)
    assert server.said("]: restart")
    with connected(server, port, pair) as raw:
        raw.sendall(b"<13>x: one\n")
        assert server.said("ns3 x: one")
        server.write("etc/syslog.conf", f"# changed\n{EVERYTHING}")
        server.signal(signal.SIGHUP)
        assert until(lambda: server.pid() != first)
        server.pids.append(server.pid())
        assert until(lambda: server.read().count("]: start") == 2)
        assert raw.recv(1) == b""
    assert server.read().count("]: restart") == 1
    assert "exiting on signal" not in server.read()
    with pytest.raises(ConnectionRefusedError):
        connected(server, port, pair)


# logmsg() and markit().
def test_repeated_messages(host: Make) -> None:
    one = host("a")
    one.start()
    for text in ("x: a", "x: a", "x: a", "x: b", "x: b", "x: c", *["x: " + "l" * 120] * 2):
        one.send(f"<13>{text}")
    assert until(lambda: one.read().count("l" * 120) == 2)
    found = re.findall(r" ((?:x: |last message).*)", one.read())
    assert found[:7] == ["x: a", "last message repeated 2 times", "x: b", "x: b", "x: c", *["x: " + "l" * 120] * 2]


@pytest.mark.parametrize(("words", "filed", "sent"), [((), 3, 3), (("-r",), 3, 4), (("-r", "-r"), 4, 4)])
def test_repeated_messages_elsewhere(
    host: Make, authority: Root, words: tuple[str, ...], filed: int, sent: int
) -> None:
    port = free_port()
    server, client = host("server"), host("client")
    serve(server, authority, port, "-r", "-r")
    client.write("etc/syslog.conf", f"!test\n*.*\t/var/log/all\n*.*\t@tls://localhost:{port}\n")
    client.run("syslogd", *words, *client.certificates(authority, authority.leaf("ns3", CLIENT)))
    for text in ("a", "a", "a", "b"):
        client.send(f"<13>test: {text}")
    assert server.said("ns3 test: b")
    assert len(re.findall(" ns3 (test: |last message repeated 2 times)", server.read())) == sent
    assert client.read().count("\n") == filed


@pytest.fixture
def alone(host: Make, monkeypatch: pytest.MonkeyPatch) -> tuple[Standin, daemon.Daemon]:
    """A daemon in this process, whose clock stands still."""
    one = host("a")
    monkeypatch.setenv("STANDIN_ROOT", str(one.place))
    monkeypatch.setattr(time, "time", lambda: 1795435200.0)
    made = daemon.Daemon(daemon.Settings("/etc/syslog.conf", numeric=True, names=False, repeat=0, zulu=True))
    made.started = True
    made.begin()
    return one, made


def test_repeated_messages_are_counted_after_a_while(
    alone: tuple[Standin, daemon.Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, made = alone
    counts: list[tuple[int, int]] = []
    for second in range(0, 1200, 10):
        monkeypatch.setattr(time, "time", lambda now=1795435200.0 + second: now)
        made.receive("h", b"x: a")
        if second % 30 == 0:
            made.mark()
        if (count := one.read().count("\n")) != (counts[-1][1] if counts else 0):
            counts.append((second, count))
    assert [second for second, _ in counts] == [0, 30, 150, 750]
    assert one.read().splitlines()[1].endswith("h last message repeated 3 times")


def test_marks(alone: tuple[Standin, daemon.Daemon], monkeypatch: pytest.MonkeyPatch) -> None:
    one, made = alone
    one.write("etc/syslog.conf", "*.*;mark.info\t/var/log/all\n")
    made.begin()
    for second in range(30, 3600, 30):
        monkeypatch.setattr(time, "time", lambda now=1795435200.0 + second: now)
        made.mark()
    assert re.findall(r"T(\d\d:\d\d).*-- MARK --\n", one.read()) == ["12:20", "12:40"]
    made.receive("h", b"x: a")
    made.mark()
    assert one.read().count("MARK") == 2, "a file that something was written to needs no mark"


# fprintlog(): ENOSPC is said once, counted, and the count said when there is room again.
def test_a_full_disk(alone: tuple[Standin, daemon.Daemon], monkeypatch: pytest.MonkeyPatch) -> None:
    one, made = alone
    one.write("etc/syslog.conf", "*.*\t/var/log/full\n*.*\t/var/log/all\n")
    (one.place / "var/log/full").symlink_to("/dev/full")
    made.begin()
    for n in range(3):
        made.receive("h", f"x: {n}".encode())
    assert one.read().count('write to file "/var/log/full": No space left on device') == 1
    assert one.read().count("h x: ") == 3
    write, full = os.write, (one.place / "var/log/full").stat().st_rdev
    # There is room again.
    monkeypatch.setattr(
        os, "write", lambda file, data: len(data) if os.fstat(file).st_rdev == full else write(file, data)
    )
    made.receive("h", b"x: 3")
    assert 'dropped 3 messages to file "/var/log/full"' in one.read()


def test_a_full_disk_is_counted_at_hup_and_at_the_end(host: Make) -> None:
    one = host("a")
    one.write("etc/syslog.conf", f"{EVERYTHING}*.*\t/var/log/full\n")
    (one.place / "var/log/full").symlink_to("/dev/full")
    one.start()
    one.send("<13>x: a")
    assert one.said("x: a")
    one.signal(signal.SIGHUP)
    assert one.said("messages to file")
    one.stop()
    assert one.read().count("messages to file") == 2


# subr_log.c: 100 messages wait for syslogd, more are counted; what was kept comes first, without a time of its own.
def test_messages_before_syslogd(host: Make) -> None:
    one = host("a")
    done = one.run("logger", "-t", "test", text="".join(f"line {n}\n" for n in range(103)))
    assert done.returncode == 0
    assert sendsyslog.Stash(one.read("var/standin/boot/logstash")).dropped == 3
    one.start()
    one.run("logger", "-t", "test", "after")
    assert one.said("test: after")
    found = re.findall(r" (?:test|sendsyslog): (.*)", one.read())
    assert found[:100] == [f"line {n}" for n in range(100)]
    assert re.fullmatch(r"dropped 3 messages, error 57, pid \d+", found[100])
    assert found[101:] == ["after"]
    one.stop()
    one.run("logger", "-t", "test", "between")
    one.start()
    assert one.said("test: between")
    assert one.read("var/standin/boot/logstash") == ""


def test_what_the_kernel_kept_goes_before_the_next_message(host: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_ROOT", str(host("a").place))
    for n in range(2):
        sendsyslog.sendsyslog(b"%d" % n)
    with sendsyslog.receiver() as syslog:
        sendsyslog.sendsyslog(b"x" * 9000)
        assert [syslog.recv(9999) for _ in range(3)] == [b"0", b"1", b"x" * 8192]
        assert sendsyslog.stashed() == []


# logger(1): `-is`, `-f file`, `-p pri`, `-t tag`, words or lines.
def test_logger(host: Make) -> None:
    one = host("a")
    one.write("lines", "one\n\ntwo")
    one.start()
    done = one.run("logger", "-isp", "local7.err", "-t", "me", "two", "words")
    number = re.fullmatch(r"me\[(\d+)\]: two words\n", done.stderr)
    assert number
    assert one.said(f"me[{number[1]}]: two words")
    assert one.run("logger", "-t", "me", "-f", "/lines").returncode == 0
    assert one.said("me: two")
    assert re.findall(r" me: (.*)", one.read()) == ["one", "", "two"]


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["-p", "bogus.info", "x"], "logger: unknown facility name: bogus.\n", 1),
        (["-p", "bogus", "x"], "logger: unknown priority name: bogus.\n", 1),
        (["-f", "/none"], "logger: /none: No such file or directory.\n", 1),
        (["-n", "logs", "x"], "logger: unknown option -- n\nusage: ", 1),
        (["-c", "x"], "standin: not modelled: logger -c x: option -c\n", unmodelled.EXIT),
        (["x" * 1024], "standin: not modelled: ", unmodelled.EXIT),
        (["-p", "3", "x"], "standin: not modelled: ", unmodelled.EXIT),
    ],
)
def test_what_logger_does_not_take(host: Make, words: list[str], said: str, code: int) -> None:
    done = host("a").run("logger", *words)
    assert done.stderr.startswith(said)
    assert done.returncode == code


@pytest.mark.parametrize(
    ("word", "number"), [("info", 14), ("local3.info", 158), ("kern.err", 11), ("SECURITY.warn", 36)]
)
def test_priorities_of_logger(word: str, number: int) -> None:
    assert logger.priority(word) == number


# Eight hosts at once: every line arrives once, in its sender's order, in the file of the certificate's name.
def test_many_hosts(host: Make, authority: Root) -> None:
    port, names = free_port(), [f"h{n}" for n in range(8)]
    server = host("server")
    for name in names:
        server.write(f"var/log/{name}", "")
    blocks = "".join(f"++{name}\nuser.*\t/var/log/{name}\n" for name in names)
    serve(server, authority, port, conf=f"{blocks}+*\n{EVERYTHING}")
    links = [connected(server, port, authority.leaf(name, CLIENT)) for name in names]
    for n in range(0, 300, 10):
        for link in links:
            lines = (f"<13>x: line {m} of h0\n" for m in range(n, n + 10))
            link.sendall("".join(f"{len(line)} {line}" for line in lines).encode())
    for name, link in zip(names, links, strict=True):
        assert server.said("line 299 ", name=f"var/log/{name}")
        link.close()
        found = re.findall(rf"{name} x: line (\d+) of h0\n", server.read(f"var/log/{name}"))
        assert [int(n) for n in found] == list(range(300))
