"""Secrets as services speak of them: a name and a shape, never a value (DESIGN, "fleet render"; O5, I2).

A template is given a `Secret`, which writes a mark such as ``@@secret:borg:passphrase@@`` into the text. What is
rendered, compared between commits or printed has marks in it; `fill` puts the values in just before a file is sent,
and `sample` puts fixed values of the same shape in, so that a daemon's parser reads a render without any key.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import SecretStr, field_validator

from fleet.model.base import Model
from fleet.model.types import NAME

MASK = "********"
"""What stands in the place of a secret value in anything that a person or a log sees."""

MASKED_LENGTH = 8
"""So many characters of a secret in a row are never shown: a parser may quote a part of the line that it refuses."""

_SITE = "site"
_OPENING = "@@secret:"
_SLOT = r"(?:[a-z][a-z0-9-]*/)?[a-z][a-z0-9_-]*"
_MARK = re.compile(rf"{_OPENING}({_SLOT}):([a-z0-9-]+)@@")
_SECRET_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")

# RFC 8032, 7.1, test 1: a key pair that the whole world has.
_SAMPLE_SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
_SAMPLE_PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")

# OpenSSH's PROTOCOL.key: magic, cipher none, kdf none without options, one key.
_SSH_KIND = b"ssh-ed25519"
_SSH_HEAD = b"openssh-key-v1\0" + b"\0\0\0\4none" * 2 + b"\0\0\0\0" + b"\0\0\0\1"

# RFC 8410, 7: an Ed25519 key in PKCS #8 is this and 32 bytes.
_PKCS8_ED25519 = bytes.fromhex("302e020100300506032b657004220420")

_BCRYPT = re.compile(r"\$2[aby]\$[0-3][0-9]\$[./A-Za-z0-9]{53}")
_PASSPHRASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{10,126}[A-Za-z0-9]")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=:-]{16,512}")


class Kind(StrEnum):
    """What a value is made of."""

    BASE64 = "base64"
    HEX = "hex"
    BCRYPT = "bcrypt"
    SSH_ED25519 = "ssh-ed25519"
    PEM_ED25519 = "pem-ed25519"
    PASSPHRASE = "passphrase"  # noqa: S105 - a kind, not a value
    TOKEN = "token"  # noqa: S105 - a kind, not a value


_SIZED = (Kind.BASE64, Kind.HEX)


@dataclass(frozen=True)
class Shape:
    """The form of a value: its kind and, for base64 and hex, the number of bytes that it encodes."""

    kind: Kind
    size: int | None = None

    def __post_init__(self) -> None:
        if (self.kind in _SIZED) != (self.size is not None):
            raise ValueError(f"{self.kind}: a size in bytes belongs to {' and '.join(_SIZED)}, and to nothing else")
        if self.size is not None and not 1 <= self.size <= 1024:
            raise ValueError(f"{self.kind}: {self.size} bytes is no size from 1 to 1024")

    def __str__(self) -> str:
        return str(self.kind) if self.size is None else f"{self.kind}-{self.size}"

    def fits(self, value: str) -> bool:
        """Return whether `value` has this form. It has no newline at its end: the template gives that."""
        return _FORMS[self.kind].fits(value, self.size or 0)

    def sample(self) -> str:
        """Return the fixed value that stands for every secret of this shape where no key is at hand."""
        return _FORMS[self.kind].sample(self.size or 0)

    @property
    def words(self) -> str:
        """What a value of this shape is, for a message to the owner."""
        return _FORMS[self.kind].words.format(bytes=self.size, digits=2 * (self.size or 0))


def base64_of(size: int) -> Shape:
    """Return the shape of `size` bytes in base64."""
    return Shape(Kind.BASE64, size)


def hex_of(size: int) -> Shape:
    """Return the shape of `size` bytes in small hexadecimal digits, such as login_oath(8)'s ``~/.totp-key``."""
    return Shape(Kind.HEX, size)


BCRYPT = Shape(Kind.BCRYPT)
"""A password's hash; crypt(3)."""

SSH_ED25519 = Shape(Kind.SSH_ED25519)
"""An Ed25519 private key in OpenSSH's own format; several lines, so its mark has a line to itself."""

PEM_ED25519 = Shape(Kind.PEM_ED25519)
"""An Ed25519 private key in PKCS #8 PEM (RFC 8410); several lines, so its mark has a line to itself."""

PASSPHRASE = Shape(Kind.PASSPHRASE)
"""What a person may have to type."""

TOKEN = Shape(Kind.TOKEN)
"""What somebody else's service gave out."""


@dataclass(frozen=True)
class Secret:
    """A secret of the host that renders it or, with `pair`, a credential that two hosts share.

    Arguments: `name`, small letters, digits, ``-`` and ``_``; `shape`; `pair`, two names of hosts in any order;
    `common`, whether it is the same on each host of a site, every one of which has it in its own file: what a person
    has in his phone. As text it is its mark. Raises ValueError for a name or a pair that cannot be written in one.
    """

    name: str
    shape: Shape
    pair: tuple[str, str] | None = None
    common: bool = False

    def __post_init__(self) -> None:
        if not _SECRET_NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name of a secret: small letters, digits, hyphens, underscores")
        if self.common and self.pair is not None:
            raise ValueError(f"{self.name}: what a pair shares is not common to a site")
        if self.pair is not None:
            object.__setattr__(self, "pair", tuple(sorted(self.pair)))
            pair_name(self.pair)

    @property
    def slot(self) -> str:
        """The name under which a host finds it: `name`, ``A--B/NAME`` of a pair, ``site/NAME`` if it is `common`."""
        owner = _SITE if self.common else "" if self.pair is None else pair_name(self.pair)
        return f"{owner}/{self.name}" if owner else self.name

    def __str__(self) -> str:
        return f"{_OPENING}{self.slot}:{self.shape}@@"


SSH_HOST_KEY = Secret("ssh_host_ed25519_key", SSH_ED25519)
"""The SSH host key of every host; its public half is in clear beside the encrypted file."""


class SecretPlace(Model):
    """Where a site's secrets are: production's in the repository, a lab's in the lab's own folder.

    Arguments: `folder` and `identity`, relative to the project or to the home (``~``); ``{site}`` in `identity`, the
    owner's age key, stands for the site's name.
    """

    kind: Literal["production", "lab"] = "production"
    folder: str = "secrets"
    identity: str = "~/.config/homefleet/{site}.age-key"

    @field_validator("identity")
    @classmethod
    def _one_blank(cls, value: str) -> str:
        if re.search(r"[{}]", value.replace("{site}", "")):
            raise ValueError(f"{value!r} has braces other than {{site}}")
        return value


def lab_place(index: int) -> SecretPlace:
    """Return where lab number `index` keeps its secrets: made at first use, wiped with the lab."""
    folder = f".lab/{index}/secrets"
    return SecretPlace(kind="lab", folder=folder, identity=f"{folder}/{{site}}.age-key")


def pair_name(pair: tuple[str, str]) -> str:
    """Return ``A--B`` for two names of hosts, sorted; ValueError if they are the same or do not fit in that."""
    one, other = sorted(pair)
    for name in (one, other):
        if not NAME.fullmatch(name) or "--" in name or name.endswith("-"):
            raise ValueError(f"{name!r} cannot be one of a pair: a host's name without -- in it or - at its end")
    if one == other:
        raise ValueError(f"{one!r} makes no pair with itself")
    return f"{one}--{other}"


def parse_shape(text: str) -> Shape:
    """Return the shape that is written as `text`, such as ``hex-20``; ValueError for any other text."""
    kind, _, size = text.rpartition("-")
    if kind in _SIZED and size.isdecimal() and not size.startswith("0"):
        return Shape(Kind(kind), int(size))
    if text in set(Kind) - set(_SIZED):
        return Shape(Kind(text))
    raise ValueError(f"{text!r} is no shape of a secret")


def is_marked(text: str) -> bool:
    """Return whether `text` has a mark in it, whole or changed."""
    return _OPENING in text


def marks(text: str) -> tuple[Secret, ...]:
    """Return the secrets whose marks are in `text`, each once, in their order.

    Raises ValueError for something that began as a mark and is none: a template must not change it.
    """
    if text.count(_OPENING) != len(_MARK.findall(text)):
        raise ValueError("a mark of a secret was changed after it was made: a template has to write it as it is")
    return tuple(dict.fromkeys(_read(found) for found in _MARK.finditer(text)))


def fill(text: str, values: Mapping[str, SecretStr]) -> str:
    """Return `text` with the value of each secret in the place of its mark.

    Arguments: `values` by `Secret.slot`. Raises ValueError, which never has a value in it, for a mark without a value
    or of another shape, and for several lines where the mark has not a line to itself.
    """
    wanted = marks(text)
    for secret in wanted:
        if secret.slot not in values:
            raise ValueError(f"no value for the secret {secret.slot}")
        if not secret.shape.fits(values[secret.slot].get_secret_value()):
            raise ValueError(f"the secret {secret.slot} is not {secret.shape.words}")
    return _replace(text, {secret.slot: values[secret.slot].get_secret_value() for secret in wanted})


def sample(text: str) -> str:
    """Return `text` with a fixed value of the same shape in the place of each mark; ValueError as `fill`."""
    return _MARK.sub(lambda found: _in_place(text, found, _read(found).shape.sample()), text) if marks(text) else text


def mask(text: str, values: Collection[SecretStr]) -> str:
    """Return `text`, such as the words of a parser, with `MASK` in the place of each value and each part of one.

    A part is a line of a value that has several, or `MASKED_LENGTH` characters in a row.
    """
    secret = {value.get_secret_value() for value in values}
    lines = {line for value in secret for line in (value, *value.splitlines()) if line}
    for line in sorted(lines, key=len, reverse=True):
        text = text.replace(line, MASK)
    size = MASKED_LENGTH
    parts = {value[start : start + size] for value in secret for start in range(len(value) - size + 1)}
    hidden: set[int] = set()
    for start in range(len(text) - size + 1):
        if text[start : start + size] in parts:
            hidden.update(range(start, start + size))
    return "".join(
        MASK if at in hidden else letter for at, letter in enumerate(text) if at not in hidden or at - 1 not in hidden
    )


def ssh_private_key(seed: bytes, public: bytes) -> str:
    """Return an Ed25519 key, 32 bytes of seed and 32 of public half, as ``ssh-keygen -N ''`` writes it.

    Source: OpenSSH's PROTOCOL.key. The check number is 0, so that the same key is the same text.
    """
    blob = ssh_public_blob(public)
    private = struct.pack(">II", 0, 0) + blob + _string(seed + public) + _string(b"")
    private += bytes(range(1, 1 + -len(private) % 8))
    packed = _SSH_HEAD + _string(blob) + _string(private)
    return _armoured("OPENSSH PRIVATE KEY", packed, 70)


def ssh_public_blob(public: bytes) -> bytes:
    """Return the 32 bytes of an Ed25519 public half as RFC 8709, 4, has them on the wire."""
    return _string(_SSH_KIND) + _string(public)


def pem_private_key(seed: bytes) -> str:
    """Return an Ed25519 key of 32 bytes of `seed` in PKCS #8 PEM (RFC 8410)."""
    return _armoured("PRIVATE KEY", _PKCS8_ED25519 + seed, 64)


def ssh_key_halves(private: str) -> tuple[bytes, bytes]:
    """Return the seed and the public half, 32 bytes each, of an OpenSSH private key without a passphrase.

    Raises ValueError, without any part of the key in it, if `private` is no Ed25519 key in that format, or if it has
    two different public halves. That the seed belongs to them is not checked. Source: OpenSSH's PROTOCOL.key.
    """
    try:
        packed = _unarmoured("OPENSSH PRIVATE KEY", private)
        blob, rest = _take(_without(packed, _SSH_HEAD))
        inner, end = _take(rest)
        one, other = struct.unpack(">II", inner[:8])
        public, _ = _take(_without(blob, _string(_SSH_KIND)))
        pair, _ = _take(_without(inner[8:], blob))
    except (ValueError, struct.error):
        raise ValueError("no Ed25519 private key of OpenSSH's format without a passphrase") from None
    if end or one != other or len(pair) != 64 or pair[32:] != public:
        raise ValueError("no whole Ed25519 private key")
    return pair[:32], public


def _read(found: re.Match[str]) -> Secret:
    owner, _, name = found[1].rpartition("/")
    one, _, other = owner.partition("--")
    common = owner == _SITE
    return Secret(name, parse_shape(found[2]), (one, other) if owner and not common else None, common)


def _replace(text: str, values: Mapping[str, str]) -> str:
    return _MARK.sub(lambda found: _in_place(text, found, values[found[1]]), text)


def _in_place(text: str, found: re.Match[str], value: str) -> str:
    alone = f"\n{text}\n"[found.start()] == "\n" and f"\n{text}\n"[found.end() + 1] == "\n"
    if "\n" in value and not alone:
        raise ValueError(f"the secret {found[1]} has several lines: its mark needs a line to itself")
    return value


def _decoded(value: str) -> int | None:
    """Return how many bytes `value` is the base64 of, or None if it is not the one way to write them."""
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return len(raw) if base64.b64encode(raw).decode() == value else None


def _is_ssh_ed25519(value: str) -> bool:
    try:
        ssh_key_halves(value)
    except ValueError:
        return False
    return True


def _is_pem_ed25519(value: str) -> bool:
    try:
        raw = _unarmoured("PRIVATE KEY", value)
    except ValueError:
        return False
    return raw.startswith(_PKCS8_ED25519) and len(raw) == len(_PKCS8_ED25519) + 32


def _armoured(label: str, raw: bytes, width: int) -> str:
    text = base64.b64encode(raw).decode()
    lines = [text[start : start + width] for start in range(0, len(text), width)]
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----"))


def _unarmoured(label: str, text: str) -> bytes:
    lines = text.split("\n")
    if lines[0] != f"-----BEGIN {label}-----" or lines[-1] != f"-----END {label}-----":
        raise ValueError(f"no {label}")
    return base64.b64decode("".join(lines[1:-1]), validate=True)


def _string(raw: bytes) -> bytes:
    """Return `raw` as a string of RFC 4251, 5."""
    return struct.pack(">I", len(raw)) + raw


def _without(raw: bytes, head: bytes) -> bytes:
    if not raw.startswith(head):
        raise ValueError("another format")
    return raw[len(head) :]


def _take(raw: bytes) -> tuple[bytes, bytes]:
    (size,) = struct.unpack(">I", raw[:4])
    if len(raw) < 4 + size:
        raise ValueError("cut short")
    return raw[4 : 4 + size], raw[4 + size :]


@dataclass(frozen=True)
class _Form:
    """What is known of a kind; the number that `fits` and `sample` are given is the size in bytes."""

    fits: Callable[[str, int], bool]
    sample: Callable[[int], str]
    words: str


_FORMS = {
    Kind.BASE64: _Form(
        lambda value, size: _decoded(value) == size,
        lambda size: base64.b64encode(b"s" * size).decode(),
        "base64 of {bytes} bytes",
    ),
    Kind.HEX: _Form(
        lambda value, size: re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", value) is not None,
        lambda size: "5a" * size,
        "{digits} small hexadecimal digits",
    ),
    Kind.BCRYPT: _Form(
        lambda value, _: _BCRYPT.fullmatch(value) is not None,
        lambda _: "$2b$10$" + "." * 53,
        "a bcrypt hash, as encrypt(1) prints it",
    ),
    Kind.SSH_ED25519: _Form(
        lambda value, _: _is_ssh_ed25519(value),
        lambda _: ssh_private_key(_SAMPLE_SEED, _SAMPLE_PUBLIC),
        "an Ed25519 private key of ssh-keygen(1) without a passphrase",
    ),
    Kind.PEM_ED25519: _Form(
        lambda value, _: _is_pem_ed25519(value),
        lambda _: pem_private_key(_SAMPLE_SEED),
        "an Ed25519 private key in PKCS #8 PEM",
    ),
    Kind.PASSPHRASE: _Form(
        lambda value, _: _PASSPHRASE.fullmatch(value) is not None,
        lambda _: "a sample passphrase",
        "12 to 128 letters, digits, blanks and ._-, which no file has to quote",
    ),
    Kind.TOKEN: _Form(
        lambda value, _: _TOKEN.fullmatch(value) is not None,
        lambda _: "sample-token-0123456789",
        "16 to 512 letters, digits and ._~+/=:-",
    ),
}
