"""Debian's rsyslogd with the rendered configuration against a TLS server of Python's: a foreign peer on either side.

It runs as Ubuntu's does, under another user than root from the moment that it is configured.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from deploys.services.logserver import authority
from deploys.services.rsyslog import CONF, KEY, Rsyslog
from fleet.load import load
from fleet.model.pki import Certificate, Published, Use
from fleet.model.service import FileSet
from fleet.model.site import Fleet, Host
from fleet.pki import certificates
from fleet.pki.wanted import Wanted, slot
from tests.lab import images

FLEET, _ = load("home")
KVM1, SERVER = FLEET.host("kvm1"), FLEET.host("manicouagan1")
SERVER_NAME = FLEET.name_of(SERVER)
USER = "nobody"
DEADLINE = 30.0

# RFC 5424's time as OpenBSD's syslogd takes it and writes it itself, and what it takes for a line.
LINE = re.compile(rb"<(\d+)>(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (.*)", re.DOTALL)


@dataclass
class Pki:
    """An authority with one root, as fleet.pki makes it, that signs what a test wants."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        self.root = certificates.make_root(authority(FLEET), self.key, certificates.new_serial(), self.now)

    def roots(self) -> str:
        return certificates.pem_of(self.root)

    def issue(self, host: Host, use: Use, names: tuple[str, ...], now: datetime | None = None) -> tuple[str, str]:
        """Return a certificate and its key, in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        wanted = Wanted(host.name, names, "Test", Certificate(authority=authority(FLEET), use=use))
        serial = certificates.new_serial()
        made = certificates.make_certificate(wanted, key.public_key(), self.root, self.key, serial, now or self.now)
        plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificates.pem_of(made), plain.decode()


@dataclass
class Got:
    """What one connection brought: the name in its certificate, the version of TLS, and its bytes."""

    name: str
    version: str
    data: bytes = b""


class Server:
    """A TLS server that keeps what it is sent by clients with a certificate of `roots`."""

    def __init__(self, chain: Path, roots: Path, port: int = 0) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(chain)
        self.context.load_verify_locations(roots)
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.connections: list[Got] = []
        self.failed: list[str] = []
        self._closed = False
        self._open: list[ssl.SSLSocket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            with self.context.wrap_socket(plain, server_side=True) as peer:
                self._open.append(peer)
                name = x509.load_der_x509_certificate(peer.getpeercert(True) or b"").subject.rfc4514_string()
                got = Got(name, peer.version() or "")
                self.connections.append(got)
                while not self._closed and (data := peer.recv(65536)):
                    got.data += data
        except (OSError, ssl.SSLError) as error:
            self.failed.append(str(error))

    def close(self) -> None:
        """End without a word of TLS, as syslogd does with its process."""
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self._open:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def lines(self) -> list[bytes]:
        """Return every whole line of every connection, by the lengths before them; a frame that is none fails."""
        return [line for got in self.connections for line in frames(got.data)]

    def numbers(self) -> list[int]:
        """Return the numbers of the lines ``number N``, in the order in which they came."""
        return [int(found[1]) for line in self.lines() if (found := re.search(rb": number (\d+)$", line))]


def frames(data: bytes) -> Iterator[bytes]:
    """Yield the frames of RFC 6587, 3.4.1; the last one may be cut."""
    while data:
        digits, space, rest = data.partition(b" ")
        assert digits.isdigit(), data[:80]
        if not space or len(rest) < int(digits):
            return
        yield rest[: int(digits)]
        data = rest[int(digits) :]


class Rsyslogd:
    """Debian's rsyslogd in a folder of its own, with the rendered configuration but for paths and port of the server.

    Arguments: `real`, it waits as long as there for a server that is away; `replaced`, other changes of the text.
    """

    def __init__(self, folder: Path, port: int, pki: Pki, real: bool, replaced: dict[str, str]) -> None:
        self.folder = folder
        chain, key = pki.issue(KVM1, Use.CLIENT, (FLEET.name_of(KVM1),))
        published = Published(
            certificates={slot("log", KVM1.name, Use.CLIENT): chain}, roots={"log": pki.roots()}, crls={"log": ""}
        )
        fleet = FLEET.model_copy(update={"published": published})
        address = 'target="192.168.1.21" port="6514"'
        changes = {
            address: f'target="127.0.0.1" port="{port}"',
            '="/etc/': f'="{folder}/etc/',
            **({} if real else {'resumeInterval="10"': 'resumeInterval="1"', 'IntervalMax="60"': 'IntervalMax="1"'}),
            **replaced,
        }
        for file in (file for each in rendered(fleet) for file in each.files):
            text = file.text
            if file.path == CONF:
                for old, new in changes.items():
                    assert old in text, old
                    text = text.replace(old, new)
            self._put(file.path, text)
        self.key = self._put(KEY, key)
        self.key.chmod(0o600)
        shutil.chown(self.key, USER)
        for name in ("spool", "log"):
            (folder / name).mkdir()
            shutil.chown(folder / name, USER)
        self.local = folder / "log/all"
        self._put(
            "/etc/rsyslog.conf",
            'module(load="imuxsock" SysSock.Use="off")\n'
            f'input(type="imuxsock" Socket="{folder}/log.socket" RateLimit.Interval="0")\n'
            f"$WorkDirectory {folder}/spool\n$PrivDropToUser {USER}\n"
            f"$IncludeConfig {folder}/etc/rsyslog.d/*.conf\n"
            f'action(type="omfile" file="{self.local}" template="RSYSLOG_TraditionalFileFormat")\n',
        )
        self._process: subprocess.Popen[bytes] | None = None

    def _put(self, path: str, text: str) -> Path:
        target = self.folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def start(self) -> None:
        # The driver is loaded when a connection is made, by a user who may not enter the cache.
        root = self.folder / "root"
        root.mkdir(exist_ok=True)
        libraries = root / "usr/lib/x86_64-linux-gnu"
        self._process = subprocess.Popen(
            [
                *("unshare", "--mount", "sh", "-ec", 'mount --bind "$0" "$1"; shift; exec "$@"'),
                *(images.packages_image() / "root", root),
                *(root / "usr/lib64/ld-linux-x86-64.so.2", "--library-path", libraries, root / "usr/sbin/rsyslogd"),
                *("-n", "-M", libraries / "rsyslog", "-i", self.folder / "pid", "-f", self.folder / "etc/rsyslog.conf"),
            ],
            env={"PATH": os.environ["PATH"]},
        )
        wait_for(lambda: (self.folder / "log.socket").exists() and self._answers())

    def _answers(self) -> bool:
        before = self.local.read_bytes() if self.local.exists() else b""
        with contextlib.suppress(OSError):
            self.log("are you there?")
        time.sleep(0.05)
        return self.local.exists() and self.local.read_bytes() != before

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(DEADLINE)
        (self.folder / "log.socket").unlink(missing_ok=True)

    def log(self, text: str, priority: int = 13, tag: str = "test[7]") -> None:
        """Log a line as logger(1) does."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.connect(str(self.folder / "log.socket"))
            to.send(f"<{priority}>Jan  1 00:00:00 {tag}: {text}".encode())

    def count(self, numbers: range) -> None:
        for number in numbers:
            self.log(f"number {number}")

    def spooled(self) -> int:
        """Return how many bytes wait in files."""
        return sum(path.stat().st_size for path in (self.folder / "spool").iterdir())

    def kept(self) -> list[int]:
        """Return the numbers in the host's own file."""
        return [int(found) for found in re.findall(r": number (\d+)$", self.local.read_text(), re.MULTILINE)]


def rendered(fleet: Fleet) -> list[FileSet]:
    return list(Rsyslog().renders(KVM1, fleet))


def wait_for(done: Callable[[], bool], seconds: float = DEADLINE) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


@dataclass
class Place:
    """A folder that the daemon's user may enter, and what runs in it."""

    folder: Path
    pki: Pki = field(default_factory=Pki)
    daemons: list[Rsyslogd] = field(default_factory=list)
    servers: list[Server] = field(default_factory=list)

    def server(self, port: int = 0, chain: tuple[str, str] | None = None, roots: str | None = None) -> Server:
        """Start a server; by default the right one, that accepts us."""
        certificate, key = chain or self.pki.issue(SERVER, Use.SERVER, (SERVER_NAME,))
        number = len(self.servers)
        pair, trusted = self.folder / f"server{number}.pem", self.folder / f"roots{number}.pem"
        pair.write_text(certificate + key)
        trusted.write_text(roots or self.pki.roots())
        self.servers.append(Server(pair, trusted, port))
        return self.servers[-1]

    def rsyslogd(self, port: int, real: bool = False, replaced: dict[str, str] | None = None) -> Rsyslogd:
        """Start the daemon."""
        folder = self.folder / f"host{len(self.daemons)}"
        folder.mkdir(mode=0o755)
        shutil.chown(folder, USER)
        self.daemons.append(Rsyslogd(folder, port, self.pki, real, replaced or {}))
        self.daemons[-1].start()
        return self.daemons[-1]


@pytest.fixture
def place() -> Iterator[Place]:
    pwd.getpwnam(USER)
    with tempfile.TemporaryDirectory(prefix="rsyslog-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        it = Place(folder)
        try:
            yield it
        finally:
            for daemon in it.daemons:
                daemon.stop(signal.SIGKILL)
            for server in it.servers:
                with contextlib.suppress(OSError):
                    server.close()


def test_lines_arrive_as_the_server_takes_them(place: Place) -> None:
    server = place.server()
    daemon = place.rsyslogd(server.port)
    daemon.log("number 1", priority=38, tag="sshd[4711]")
    daemon.log("two\nlines, \x1b[31mred\x1b[0m", priority=155)
    daemon.log("x" * 7000 + "é" * 1000, tag="y" * 300)
    daemon.log("number 2")
    wait_for(lambda: server.numbers() == [1, 2])
    (got,) = server.connections
    assert (got.name, got.version) == ("CN=kvm1", "TLSv1.2")
    matched = [LINE.fullmatch(line) for line in server.lines()]
    priorities, times, texts = zip(*(found.groups() for found in matched if found is not None), strict=True)
    assert len(texts) == len(matched)
    assert all(abs(datetime.fromisoformat(when.decode()) - datetime.now(UTC)) < timedelta(minutes=1) for when in times)
    assert (priorities[-4], texts[-4]) == (b"38", b"sshd[4711]: number 1")
    assert (priorities[-3], texts[-3]) == (b"155", b"test[7]: two#012lines, #033[31mred#033[0m")
    assert max(len(line) for line in server.lines()) <= 8192
    assert texts[-2].startswith(b"y" * 128) and texts[-2].count(b"x") == 7000


def _other_name(place: Place) -> tuple[str, str]:
    return place.pki.issue(SERVER, Use.SERVER, ("other.chown.me",))


def _other_authority(_: Place) -> tuple[str, str]:
    return Pki().issue(SERVER, Use.SERVER, (SERVER_NAME,))


def _a_client(place: Place) -> tuple[str, str]:
    return place.pki.issue(SERVER, Use.CLIENT, (SERVER_NAME,))


@pytest.mark.parametrize("chain", [_other_name, _other_authority, _a_client])
def test_nothing_is_sent_to_another_server(place: Place, chain: Callable[[Place], tuple[str, str]]) -> None:
    wrong = place.server(chain=chain(place))
    daemon = place.rsyslogd(wrong.port)
    daemon.count(range(10))
    wait_for(lambda: len(wrong.connections) + len(wrong.failed) > 2)
    assert [got.data for got in wrong.connections if got.data] == []
    wrong.close()
    right = place.server(wrong.port)
    wait_for(lambda: len(right.numbers()) >= 10)
    assert right.numbers() == list(range(10))


def test_nothing_is_sent_to_a_server_whose_certificate_has_expired(place: Place) -> None:
    then = datetime.now(UTC) - timedelta(days=800)
    place.pki = Pki(now=then)
    chain = place.pki.issue(SERVER, Use.SERVER, (SERVER_NAME,), then)
    place.pki.now = datetime.now(UTC)
    wrong = place.server(chain=chain)
    daemon = place.rsyslogd(wrong.port)
    daemon.count(range(10))
    wait_for(lambda: len(wrong.connections) + len(wrong.failed) > 2)
    assert [got.data for got in wrong.connections if got.data] == []


@pytest.mark.filterwarnings("ignore:ssl.OP_NO:DeprecationWarning")
def test_a_server_without_tls_1_2_is_left(place: Place) -> None:
    server = place.server()
    server.context.options |= ssl.OP_NO_TLSv1_2 | ssl.OP_NO_TLSv1_3
    server.context.set_ciphers("ALL:@SECLEVEL=0")
    daemon = place.rsyslogd(server.port)
    daemon.count(range(10))
    wait_for(lambda: len(server.failed) > 2)
    assert not server.connections


def test_a_server_that_refuses_our_certificate_costs_no_line(place: Place) -> None:
    refusing = place.server(roots=Pki().roots())
    daemon = place.rsyslogd(refusing.port)
    for number in range(60):
        daemon.log(f"number {number}")
        time.sleep(0.05)
    wait_for(lambda: len(refusing.failed) > 2)
    refusing.close()
    right = place.server(refusing.port)
    wait_for(lambda: 59 in right.numbers())
    assert right.numbers() == list(range(60))


def test_lines_wait_while_the_server_is_away(place: Place) -> None:
    """With the real intervals: it is tried again after ten seconds."""
    first = place.server()
    daemon = place.rsyslogd(first.port, real=True)
    daemon.count(range(100))
    wait_for(lambda: len(first.numbers()) == 100)
    first.close()
    daemon.count(range(100, 18000))
    wait_for(lambda: len(daemon.kept()) == 18000)
    assert daemon.spooled()
    second = place.server(first.port)
    wait_for(lambda: set(second.numbers()) == set(range(100, 18000)))
    assert len(second.numbers()) <= 17901


def test_a_server_that_starts_again_costs_a_line_at_most(place: Place) -> None:
    """The one that is under way when it ends: RFC 6587 has no acknowledgement."""
    server = place.server()
    daemon = place.rsyslogd(server.port)
    for number in range(600):
        daemon.log(f"number {number}")
        time.sleep(0.005)
        if number in (200, 400):
            server.close()
            server = place.server(server.port)
    wait_for(lambda: 599 in server.numbers())
    came = [number for each in place.servers for number in each.numbers()]
    assert len(set(range(600)) - set(came)) <= 2
    assert len(came) - len(set(came)) <= 2


def test_lines_that_wait_survive_a_restart(place: Place) -> None:
    """But for the one that was being tried: rsyslogd drops it when it ends, or has it twice."""
    first = place.server()
    daemon = place.rsyslogd(first.port)
    daemon.log("number 0")
    wait_for(lambda: first.numbers() == [0])
    first.close()
    daemon.count(range(1, 50))
    wait_for(lambda: len(daemon.kept()) == 50)
    daemon.stop()
    assert daemon.spooled()
    daemon.start()
    daemon.count(range(50, 100))
    second = place.server(first.port)
    wait_for(lambda: set(second.numbers()) >= set(range(2, 100)))
    assert len(second.numbers()) <= 100


def test_a_full_queue_drops_lines_and_keeps_nobody_waiting(place: Place) -> None:
    first = place.server()
    daemon = place.rsyslogd(first.port, replaced={f'maxDiskSpace="{256 << 20}"': 'maxDiskSpace="100000"'})
    daemon.log("number 0")
    wait_for(lambda: first.numbers() == [0])
    first.close()
    begun = time.monotonic()
    daemon.count(range(1, 40000))
    wait_for(lambda: len(daemon.kept()) == 40000)
    assert time.monotonic() - begun < 10
    assert daemon.spooled() < 200000
    second = place.server(first.port)
    daemon.log("number 40000")
    wait_for(lambda: 40000 in second.numbers())
    assert 400 < len(set(second.numbers())) < 39000


def test_a_full_disk_does_not_silence_the_host(place: Place) -> None:
    server = place.server()
    daemon = place.rsyslogd(server.port)
    daemon.stop()
    spool = daemon.folder / "spool"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", spool], check=True)
    try:
        shutil.chown(spool, USER)
        with contextlib.suppress(OSError):
            (spool / "burglar").write_bytes(bytes(1 << 20))
        daemon.start()
        daemon.count(range(5000))
        wait_for(lambda: len(server.numbers()) == 5000)
    finally:
        daemon.stop(signal.SIGKILL)
        subprocess.run(["umount", spool], check=True)


def test_a_key_that_is_roots_is_of_no_use(place: Place) -> None:
    server = place.server()
    daemon = place.rsyslogd(server.port)
    daemon.stop()
    shutil.chown(daemon.key, "root")
    before = len(server.connections)
    daemon.start()
    daemon.count(range(10))
    wait_for(lambda: len(daemon.kept()) == 10)
    time.sleep(3)
    assert len(server.connections) == before
    assert not server.numbers()
