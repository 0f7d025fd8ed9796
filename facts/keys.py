"""The private keys of a host, as far as anybody may know them, and the certificates that its daemons run with.

openssl(1) of OpenBSD (LibreSSL) and of Ubuntu is called with what both have; ``usr.bin/openssl/{pkey,req}.c`` in
OpenBSD's sources. Nothing of a private key is ever printed.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from pyinfra.api import FactBase, FactProcessError

from facts.filesets import state_of_host

DONE = "##KEYS##"

# An empty passphrase: a key that has one is of no use to a daemon, and nobody shall be asked for it.
_KEYS = """\
type openssl >/dev/null 2>&1 || exit 1
key() {
	[ -e "$1" ] || [ -L "$1" ] || return 0
	public=''
	if [ -f "$1" ] && [ ! -L "$1" ]; then
		public=$(openssl pkey -in "$1" -passin pass: -pubout </dev/null 2>/dev/null | sed '/-----/d' | tr -d '\\n')
	fi
	printf 'key %s %s %s\\n' "$(STAT "$1")" "${public:--}" "$1"
}
date '+clock %s'
"""

# It brings its own configuration: LibreSSL makes no request without one, and what stands in the host's openssl.cnf
# would be asked for too.
_REQUESTS = """\
type openssl >/dev/null 2>&1 || exit 1
request() {
	[ -e "$1" ] || return 0
	printf 'key %s\\n' "$1"
	printf '[req]\\ndistinguished_name = none\\n[none]\\n' |
		openssl req -new -config /dev/stdin -key "$1" -passin pass: -subj "/CN=$2" 2>/dev/null || :
}
"""

_HELD = """\
state=STATE
certificates() {
	printf '%s\\n' "$1"
	[ ! -f "$2" ] || sed -n '/^-----BEGIN CERTIFICATE-----/,/^-----END CERTIFICATE-----/p' "$2"
}
held() {
	[ ! -e "$state/pending/$1" ] && [ ! -e "$state/armed/$1" ] || return 0
	certificates "certificate $1" "$2"
	certificates "roots $1" "$3"
}
"""

_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True)
class KeyState:
    """A private key as it is: owner, group, mode (as an int) and `public`, the `digest` of its public half.

    `public` is None for what is no private key of P-256, without a passphrase, in a file of its own.
    """

    owner: str
    group: str
    mode: int
    public: str | None


@dataclass(frozen=True)
class KeysState:
    """The host's `clock` in seconds since the epoch, and its `keys` by path; absent ones are missing."""

    clock: int
    keys: dict[str, KeyState] = field(default_factory=dict)


class Keys(FactBase[KeysState | None]):
    """State of the private keys at `paths`; None if they could not be read (F2).

    Arguments: `openbsd`, whose stat(1) the host has. Raises FactProcessError naming a line that is not understood.
    """

    @staticmethod
    def default() -> None:
        """Return None: not known."""
        return

    def command(self, paths: Sequence[str], openbsd: bool = False) -> str:
        """Return the one command that reads all keys."""
        script = _KEYS.replace("STAT", "stat -f '%Su %Sg %OLp'" if openbsd else "stat -c '%U %G %a'")
        return script + "\n".join([*(f"key {shlex.quote(path)}" for path in paths), f"echo '{DONE}'"])

    def process(self, output: list[str]) -> KeysState | None:
        """Read the command's output."""
        lines = _whole(output)
        return None if lines is None else parse_keys(lines)


def parse_keys(lines: Sequence[str]) -> KeysState:
    """Turn the output of `Keys.command` without its last line into a state."""
    clock: int | None = None
    keys: dict[str, KeyState] = {}
    for line in lines:
        word, *rest = line.split(" ", 5)
        if word == "clock" and len(rest) == 1 and rest[0].isdigit():
            clock = int(rest[0])
        elif word == "key" and len(rest) == 5 and rest[2].isdigit():
            owner, group, mode, public, path = rest
            keys[path] = KeyState(owner, group, int(mode, 8), _digest_of(public, line))
        else:
            raise FactProcessError(f"Keys: not understood: {line!r}")
    if clock is None:
        raise FactProcessError("Keys: the host does not say what time it is")
    return KeysState(clock, keys)


def digest(public: EllipticCurvePublicKey) -> str:
    """Return the SHA-256 of a public key (SubjectPublicKeyInfo in DER; RFC 5280, 4.1.2.7) in hexadecimal."""
    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _digest_of(text: str, line: str) -> str | None:
    """Return the `digest` of a key in base64, or None if it is not of P-256; `line` is for messages."""
    if text == "-":
        return None
    try:
        public = load_der_public_key(base64.b64decode(text, validate=True))
    except UnsupportedAlgorithm:
        return None
    except ValueError:
        raise FactProcessError(f"Keys: not understood: {line!r}") from None
    if not isinstance(public, EllipticCurvePublicKey) or not isinstance(public.curve, SECP256R1):
        return None
    return digest(public)


class Requests(FactBase[dict[str, str | None] | None]):
    """Certificate requests (PKCS #10, RFC 2986) in PEM by the path of their key; None if none could be asked for (F2).

    A key that is not there is missing; one that makes no request has None. Arguments: `names`, the common name by the
    path of each key. Raises FactProcessError naming a line that is not understood.
    """

    @staticmethod
    def default() -> None:
        """Return None: not known."""
        return

    def command(self, names: Mapping[str, str]) -> str:
        """Return the one command that makes all requests."""
        asked = [f"request {shlex.quote(path)} {shlex.quote(name)}" for path, name in names.items()]
        return _REQUESTS + "\n".join([*asked, f"echo '{DONE}'"])

    def process(self, output: list[str]) -> dict[str, str | None] | None:
        """Read the command's output."""
        lines = _whole(output)
        return None if lines is None else parse_requests(lines)


def parse_requests(lines: Sequence[str]) -> dict[str, str | None]:
    """Turn the output of `Requests.command` without its last line into requests by path."""
    found = _texts(lines, ("key",), "CERTIFICATE REQUEST", "Requests")
    return {path: "".join(texts) or None for (_, path), texts in found.items()}


@dataclass(frozen=True)
class HeldQuery:
    """What to look for: the name of a certificate's set, and the paths of the certificate and of its roots."""

    name: str
    certificate: str
    roots: str


@dataclass(frozen=True)
class HeldState:
    """What a daemon has loaded, in PEM: its own `certificates`, and the `roots` by which it knows its peers."""

    certificates: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()


class Held(FactBase[dict[str, HeldState] | None]):
    """What the daemons of a host have loaded, by the name of each certificate's set; None if it is not known (F2).

    A set that is pending or armed is missing: it was swapped in, but its daemon does not run with it yet. Arguments:
    `sets`, the queries; `openbsd`. Raises FactProcessError naming a line that is not understood.
    """

    @staticmethod
    def default() -> None:
        """Return None: not known."""
        return

    def command(self, sets: Sequence[HeldQuery], openbsd: bool = False) -> str:
        """Return the one command that reads all sets."""
        asked = [f"held {shlex.join((each.name, each.certificate, each.roots))}" for each in sets]
        return _HELD.replace("STATE", state_of_host(openbsd)) + "\n".join([*asked, f"echo '{DONE}'"])

    def process(self, output: list[str]) -> dict[str, HeldState] | None:
        """Read the command's output."""
        lines = _whole(output)
        return None if lines is None else parse_held(lines)


def parse_held(lines: Sequence[str]) -> dict[str, HeldState]:
    """Turn the output of `Held.command` without its last line into states by name of set."""
    found = _texts(lines, ("certificate", "roots"), "CERTIFICATE", "Held")
    names = dict.fromkeys(name for _, name in found)
    return {name: HeldState(found.get(("certificate", name), ()), found.get(("roots", name), ())) for name in names}


def _whole(output: list[str]) -> list[str] | None:
    """Return `output` without its last line, or None if it was cut off."""
    return output[:-1] if output and output[-1].strip() == DONE else None


def _texts(lines: Sequence[str], words: Sequence[str], label: str, fact: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the texts in PEM, of that `label`, below each line ``WORD NAME``, by word and name."""
    begin, end = f"-----BEGIN {label}-----", f"-----END {label}-----"
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    here: tuple[str, str] | None = None
    text: list[str] = []
    for line in lines:
        word, _, name = line.partition(" ")
        if not text and word in words and name:
            here = (word, name)
            found[here] = ()
        elif here is not None and (line == begin if not text else line == end or _BASE64.fullmatch(line)):
            text.append(line)
            if line == end:
                found[here] = (*found[here], "\n".join([*text, ""]))
                text = []
        else:
            raise FactProcessError(f"{fact}: not understood: {line!r}")
    if text:
        raise FactProcessError(f"{fact}: not understood: {text[-1]!r} is the last line")
    return found
