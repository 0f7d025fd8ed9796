"""Logs that a burglar cannot take back: shipped over verified TLS, from who has a certificate, through every change."""

from __future__ import annotations

import os
import pty
import re
import secrets
import subprocess
import sys
import threading
import time
from bisect import bisect
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pydantic import SecretStr

from deploys.services.logserver import FOLDER
from fleet.load import ROOT, load, pki_folder
from fleet.pki import keys
from fleet.pki.store import Store
from tests.lab.pair import Pair

SERVER = "manicouagan1"
HOSTS = ("pancake", SERVER, "db1", "web1", "virtie", "ns3")
CLIENTS = tuple(name for name in HOSTS if name != SERVER)
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SECONDS = 10.0
"""How long a line may take; the rotation's own lines may wait for a reconnection, which is tried after 1, 2, 4 s."""

SNIFF = """\
import socket, sys, time
found, until = b"", time.monotonic() + float(sys.argv[1])
capture = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
capture.settimeout(0.2)
print("ready", flush=True)
while time.monotonic() < until:
    try:
        packet = capture.recv(65536)
    except TimeoutError:
        continue
    if len(packet) > 24 and packet[9] == 6 and 6514 in (packet[20] << 8 | packet[21], packet[22] << 8 | packet[23]):
        found += packet
sys.stdout.buffer.write(found)
"""


def root(site: Pair, name: str, command: str, stdin: str = "") -> str:
    """Run a command as the stand-in's root, past its sshd, and return what it printed."""
    done = subprocess.run(
        site.lab.stand_ins.hosts[name].enter(["/bin/ksh", "-c", command]),
        input=stdin, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (name, command, done.stdout, done.stderr)
    return done.stdout


def logged(site: Pair, name: str, facility: str = "user", host: str = SERVER) -> list[str]:
    """Return the lines of `name` on the log server."""
    path = f"{FOLDER}/{name}/{facility}"
    file = site.lab.stand_ins.hosts[host].file(path)
    assert file is not None, path
    return file.read_text().splitlines()


def arrives(site: Pair, name: str, text: str, facility: str = "user", seconds: float = SECONDS) -> bool:
    """Tell whether a line with `text` is in the file of `name` within `seconds`."""
    until = time.monotonic() + seconds
    while not any(text in line for line in logged(site, name, facility)):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def say(site: Pair, name: str) -> str:
    """Log a line of its own on `name` and return what is in it."""
    token = secrets.token_hex(8)
    root(site, name, f"logger -t probe -p user.info {token}")
    return token


@contextmanager
def capture(site: Pair, name: str, seconds: float) -> Iterator[list[bytes]]:
    """Have what goes over the log's port of `name` meanwhile, for at most `seconds`."""
    seen: list[bytes] = []
    namespace = f"--net=/run/netns/{site.lab.stand_ins.hosts[name].namespace}"
    argv = ["nsenter", namespace, sys.executable, "-c", SNIFF, str(seconds)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield seen
        seen.append(process.stdout.read())


@pytest.mark.parametrize("name", HOSTS)
def test_a_line_of_every_host_arrives(site: Pair, name: str) -> None:
    assert arrives(site, name, say(site, name))


def test_nothing_of_it_can_be_read_on_the_way(site: Pair) -> None:
    with capture(site, SERVER, 6) as seen:
        token = say(site, "ns3")
        assert arrives(site, "ns3", token, seconds=5)
    # A record of TLS application data; RFC 8446, 5.1.
    assert b"\x17\x03\x03" in seen[0]
    assert token.encode() not in seen[0]


def test_it_arrives_because_of_a_verified_handshake(site: Pair) -> None:
    using = [line for line in logged(site, SERVER, "syslog") if "from certificate" in line]
    for name in CLIENTS:
        assert any(f'using hostname "{name}" from certificate' in line for line in using), name


def test_a_client_trusts_no_other_server(site: Pair) -> None:
    """With the roots of somebody else on the client nothing leaves it, until it has the right ones again."""
    roots, away = "/etc/ssl/log-client-roots.pem", "/root/roots"
    foreign = _pem(*_own_root())
    root(site, "db1", f"mv {roots} {away} && cat >{roots} && rcctl restart syslogd", foreign)
    try:
        lost = say(site, "db1")
        assert not arrives(site, "db1", lost, seconds=4)
    finally:
        root(site, "db1", f"mv {away} {roots} && rcctl restart syslogd")
    assert arrives(site, "db1", say(site, "db1"))


# --- who is refused ---


def _pem(certificate: x509.Certificate, key: EllipticCurvePrivateKey) -> str:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return (certificate.public_bytes(Encoding.PEM) + private).decode()


@dataclass(frozen=True)
class Signer:
    """A root: its name and its private key."""

    name: x509.Name
    key: EllipticCurvePrivateKey

    def client(self, *, san: str = "ns3.chown.me", use: x509.ObjectIdentifier = CLIENT_AUTH, days: int = 30) -> str:
        """Return a certificate that says that it is ns3's, and its key, both in PEM."""
        own = generate_private_key(SECP256R1())
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_called("ns3"))
            .issuer_name(self.name)
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=60))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(san)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        )
        return _pem(builder.sign(self.key, SHA256()), own)


def _called(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _own_root() -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    key = generate_private_key(SECP256R1())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_called("somebody"))
        .issuer_name(_called("somebody"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    return builder.sign(key, SHA256()), key


@pytest.fixture(scope="module")
def signers(site: Pair) -> dict[str, Signer]:
    """The fleet's own root, as somebody who has stolen its key would use it, and another."""
    fleet, sites = load(str(site.inventory()))
    del fleet
    folder = pki_folder(sites[0])
    store = Store(folder)
    signer = store.read().signer("log")
    assert signer is not None
    passphrase = SecretStr((folder / "passphrase").read_text().strip())
    own = keys.unseal(store.key(signer), passphrase, "the lab's root")
    return {"ours": Signer(signer.signed.subject, own), "foreign": Signer(_called("somebody"), _own_root()[1])}


def _talk(site: Pair, pem: str | None, *options: str) -> str:
    """Send a line from ns3 to the log server as a foreign peer does, with openssl(1); return what was in the line."""
    token = secrets.token_hex(8)
    certificate = "-cert /root/bad.pem -key /root/bad.pem" if pem is not None else ""
    root(
        site,
        "ns3",
        f"umask 077; cat >/root/bad.pem; printf '<14>probe: {token}\\n' | timeout 10 openssl s_client -quiet "
        f"-connect 203.0.113.2:6514 -CAfile /etc/ssl/log-client-roots.pem {certificate} {' '.join(options)} "
        ">/dev/null 2>&1; rm -f /root/bad.pem",
        pem or "",
    )
    return token


REFUSED = {
    "without a certificate": (None, (), "certificate"),
    "of another root": (("foreign", {}), (), "certificate verify failed"),
    "expired": (("ours", {"days": -1}), (), "certificate verify failed"),
    "a server's": (("ours", {"use": ExtendedKeyUsageOID.SERVER_AUTH}), (), "certificate verify failed"),
    "of a name outside the constraints": (("ours", {"san": "ns3.example.org"}), (), "certificate verify failed"),
    "with an old TLS": (("ours", {}), ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), ""),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_and_the_server_says_so(site: Pair, signers: dict[str, Signer], what: str) -> None:
    made, options, word = REFUSED[what]
    before = len(logged(site, SERVER, "syslog"))
    pem = None if made is None else signers[made[0]].client(**made[1])
    token = _talk(site, pem, *options)
    assert arrives(site, SERVER, "connection error", "syslog")
    said = [line for line in logged(site, SERVER, "syslog")[before:] if "connection error" in line]
    assert said and word in said[0], said
    assert _files_with(site, token) == []


def test_the_same_way_is_open_to_who_is_right(site: Pair, signers: dict[str, Signer]) -> None:
    """What the refusals above are worth: but for the certificate the way is the same."""
    token = _talk(site, signers["ours"].client())
    assert arrives(site, "ns3", token)


def test_a_line_that_claims_another_host_is_in_the_file_of_who_sent_it(site: Pair, signers: dict[str, Signer]) -> None:
    token = secrets.token_hex(8)
    pem = signers["ours"].client()
    root(
        site,
        "ns3",
        f"umask 077; cat >/root/own.pem; printf '<38>Nov 23 10:00:00 virtie sshd[1]: {token}\\n' | timeout 10 openssl "
        "s_client -quiet -connect 203.0.113.2:6514 -CAfile /etc/ssl/log-client-roots.pem -cert /root/own.pem "
        "-key /root/own.pem >/dev/null 2>&1; rm /root/own.pem",
        pem,
    )
    assert arrives(site, "ns3", token, "auth")
    assert _files_with(site, token) == [f"{FOLDER}/ns3/auth"]


def _files_with(site: Pair, text: str) -> list[str]:
    return root(site, SERVER, f"grep -rl {text} /var/log || :").split()


# --- rotation, in the middle of everything ---


@dataclass
class Counting:
    """Numbered lines, a hundred a second, on each of `names` until `stop` is set."""

    site: Pair
    names: tuple[str, ...]
    stop: threading.Event = field(default_factory=threading.Event)
    sent: int = 0

    def __call__(self) -> None:
        """Log until told to stop; one logger(1) a host reads what is written to it."""
        loggers = [
            subprocess.Popen(
                self.site.lab.stand_ins.hosts[name].enter(["/bin/ksh", "-c", "exec logger -t numbered -p user.info"]),
                stdin=subprocess.PIPE,
            )
            for name in self.names
        ]
        begun = time.monotonic()
        while not self.stop.is_set() or self.sent < LINES:
            self.sent += 1
            for each in loggers:
                assert each.stdin is not None
                each.stdin.write(f"line {self.sent} ends\n".encode())
                each.stdin.flush()
            time.sleep(max(0.0, begun + self.sent / RATE - time.monotonic()))
        for each in loggers:
            assert each.stdin is not None
            each.stdin.close()
            assert each.wait(60) == 0


LINES, RATE = 10_000, 100
_NUMBER = re.compile(r"^(\S+Z) .* numbered: line (\d+) ends$")
_RESTART = re.compile(r"^(\S+Z) .* syslogd\[\d+\]: (exiting on signal|restart|start)")
NEAR = 5.0
"""How many seconds before a syslogd ends, or after it starts again, a line may have been on its way."""


def _numbers(lines: list[str]) -> Counter[int]:
    return Counter(int(match[2]) for line in lines if (match := _NUMBER.match(line)))


def _restarts(lines: list[str]) -> Iterator[tuple[float, float]]:
    """Yield when a syslogd was away, by its own words, with what may be lost before and after."""
    ended = None
    for match in filter(None, map(_RESTART.match, lines)):
        moment, back = _moment(match[1]), match[2].endswith("start")
        if back:
            yield (moment if ended is None else ended) - NEAR, moment + NEAR
        ended = None if back else moment


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_rotation_of_the_root_and_of_every_certificate_loses_nothing_that_it_does_not_count(site: Pair) -> None:
    """Each host logs a hundred lines a second while everything is renewed and the root is exchanged.

    A line that is missing was in a buffer or a socket of a syslogd that was restarted, or came while it did not run and
    the kernel had its hundred, or was on its way through TCP to a server that was restarted: each has its restart
    beside it.
    """
    counting = Counting(site, HOSTS)
    thread = threading.Thread(target=counting)
    thread.start()
    try:
        steps: tuple[tuple[str, ...], ...] = (
            ("rotate-ca", "log", "--begin"),
            ("rotate-ca", "log"),
            ("renew", "--all"),
            ("rotate-ca", "log"),
        )
        for step in steps:
            done = site.fleet("pki", "--site", "@", *step)
            # The hypervisors are no part of this lab, and what lacks is said by the exit code.
            assert done.returncode == (step[0] == "renew"), done.stdout + done.stderr
            deployed = site.deploy("--limit", "openbsd", role="site")
            assert deployed.code == 0, deployed.output
    finally:
        counting.stop.set()
        thread.join()
    over = site.fleet("pki", "--site", "@", "status")
    assert "one of two" not in over.stdout, over.stdout
    last = f"line {counting.sent} ends"
    lost: dict[str, int] = {}
    for name in HOSTS:
        assert arrives(site, name, last, seconds=120), name
        there = _numbers(logged(site, name))
        assert [number for number, times in there.items() if times > 1] == [], name
        shown = root(site, name, "gzip -cd /var/log/messages.0.gz 2>/dev/null; cat /var/log/messages")
        local = shown.splitlines()
        kept = {int(match[2]): _moment(match[1]) for line in local if (match := _NUMBER.match(line))}
        restarts = [*_restarts(local), *_restarts(logged(site, SERVER, "syslog"))]
        missing = set(range(1, counting.sent + 1)) - set(there)
        # One that its own host has not either is as old as the next one that it has.
        later = sorted(kept)
        when = {number: kept[later[bisect(later, number - 1)]] for number in missing}
        unexplained = [number for number in missing if not any(begin <= when[number] <= end for begin, end in restarts)]
        assert unexplained == [], (name, sorted(unexplained)[:20])
        lost[name] = len(missing)
    print(f"\n{counting.sent} lines of each host, a root and all certificates exchanged; lost: {lost}")
    # On a machine that is busy otherwise, a restart takes seconds.
    assert sum(lost.values()) < counting.sent * len(HOSTS) / 20


# --- revocation ---


def test_who_is_revoked_is_shut_out_at_once_and_comes_back_with_a_new_key(site: Pair) -> None:
    assert "CIPHER is TLS" in _who_reads_crls(site)
    done = site.fleet("pki", "--site", "@", "revoke", "ns3", "client", "--reason", "key-compromise")
    assert done.returncode == 0, done.stderr
    assert "verify error:certificate revoked" in _who_reads_crls(site)
    # syslogd(8) reads no list: until the deploy nothing has changed for it.
    root(site, "ns3", "rcctl restart syslogd")
    assert arrives(site, "ns3", say(site, "ns3"))
    deployed = site.deploy("--limit", SERVER, "--limit", "pancake", role="site")
    assert deployed.code == 0, deployed.output
    assert not arrives(site, "ns3", say(site, "ns3"), seconds=4)
    assert arrives(site, "virtie", say(site, "virtie"))
    root(site, "ns3", "rm /etc/ssl/private/log-client.key")
    assert site.deploy("--limit", "ns3", role="site").code == 0
    said = _typed(site, "ns3", "pki", "--site", "@", "renew")
    assert "log: ns3 client: " in said, said
    again = site.deploy("--limit", "openbsd", role="site")
    assert again.code == 0, again.output
    assert arrives(site, "ns3", say(site, "ns3"), seconds=30)


def _who_reads_crls(site: Pair) -> str:
    """Return what a server that reads the authority's CRLs says of the certificate of ns3."""
    _, sites = load(str(site.inventory()))
    lists = (pki_folder(sites[0]) / "log" / "crl.pem").read_text()
    own = "-cert /etc/ssl/log-client.crt -key /etc/ssl/private/log-client.key"
    return root(
        site,
        "ns3",
        f"cat >/root/crl.pem; sleep 4 | openssl s_server -accept 127.0.0.1:9514 {own} "
        "-CAfile /etc/ssl/log-client-roots.pem -CRL /root/crl.pem -crl_check -Verify 1 -verify_return_error "
        "-naccept 1 >/root/said 2>&1 & sleep 1; "
        f"echo | timeout 10 openssl s_client -connect 127.0.0.1:9514 {own} >/dev/null 2>&1; "
        "wait; cat /root/said; rm /root/said /root/crl.pem",
        lists,
    )


def _typed(site: Pair, answer: str, *verb: str) -> str:
    """Run a verb of `fleet` on a terminal of its own, type `answer` when it asks, and return what was on it."""
    path = str(site.inventory())
    argv = [
        sys.executable,
        "-c",
        "from fleet.cli import main; main()",
        *(path if each == "@" else each for each in verb),
    ]
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execv(argv[0], argv)
    shown = b""
    with os.fdopen(terminal, "r+b", buffering=0) as screen, suppress(OSError):
        # The end of a terminal is an error.
        while piece := screen.read(1024):
            shown += piece
            if shown.endswith(b"type its name: "):
                screen.write(f"{answer}\n".encode())
    os.waitpid(child, 0)
    return shown.decode()


# --- what the server keeps ---


def test_a_rotated_file_is_read_with_the_new_one(site: Pair) -> None:
    first = say(site, "db1")
    assert arrives(site, "db1", first)
    root(site, SERVER, "newsyslog -F -f /etc/newsyslog.hosts.conf")
    second = say(site, "db1")
    assert arrives(site, "db1", second)
    assert not any(first in line for line in logged(site, "db1"))
    shown = site.fleet("logs", "db1", "--site", "@", "--since", "10m")
    assert shown.returncode == 0, shown.stderr
    assert [token for line in shown.stdout.splitlines() for token in (first, second) if token in line] == [
        first,
        second,
    ]


def test_the_second_run_changes_nothing(site: Pair) -> None:
    again = site.deploy("--limit", "openbsd", role="site")
    assert again.code == 0, again.output
    assert [again.changes(name) for name in HOSTS] == [0] * len(HOSTS), again.output
