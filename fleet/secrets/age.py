"""The age file format, https://age-encryption.org/v1: of the secrets the only module that knows pyrage."""

from __future__ import annotations

from collections.abc import Iterable

import pyrage
from pydantic import SecretStr


class AgeError(Exception):
    """What age refuses; its text never has a key or a plain text in it."""


def new_identity() -> SecretStr:
    """Return a new private key, ``AGE-SECRET-KEY-1...``."""
    return SecretStr(str(pyrage.x25519.Identity.generate()))


def recipient_of(identity: SecretStr) -> str:
    """Return the public half of `identity`, ``age1...``; AgeError if it is no private key of age-keygen(1)."""
    return str(_identity(identity).to_public())


def check_recipient(text: str) -> None:
    """Raise AgeError if `text` is no public key ``age1...``."""
    try:
        pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        raise AgeError("no public key of age-keygen(1), age1...") from None


def encrypt(plain: bytes, recipients: Iterable[str]) -> bytes:
    """Return `plain` as an age file that each of `recipients` can read, and nobody else."""
    return bytes(pyrage.encrypt(plain, [pyrage.x25519.Recipient.from_str(one) for one in recipients]))


def decrypt(sealed: bytes, identities: Iterable[SecretStr]) -> bytes:
    """Return what is in an age file; AgeError if none of `identities` reads it or if it was damaged."""
    try:
        return bytes(pyrage.decrypt(sealed, [_identity(one) for one in identities]))
    except pyrage.DecryptError as error:
        raise AgeError(str(error)) from None


def readers(sealed: bytes) -> int:
    """Return how many public keys an age file is for: its header hides which, but not their number."""
    header, _, _ = sealed.partition(b"\n---")
    return header.count(b"\n-> X25519 ")


def _identity(text: SecretStr) -> pyrage.x25519.Identity:
    try:
        return pyrage.x25519.Identity.from_str(text.get_secret_value())
    except pyrage.IdentityError:
        raise AgeError("no private key of age-keygen(1), AGE-SECRET-KEY-1...") from None
