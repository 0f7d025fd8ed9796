"""New values of a shape: for a lab, and where the owner asks for one. A run never gives one to a production host."""

from __future__ import annotations

import base64
import secrets

from pydantic import SecretStr

from fleet.model.secret import Kind, Shape, pem_private_key
from fleet.secrets import hostkeys

_BCRYPT_ALPHABET = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_BASE64_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def value(shape: Shape) -> SecretStr:
    """Return a new random value of `shape`. A bcrypt hash is one that no known password has."""
    match shape.kind:
        case Kind.BASE64:
            made = base64.b64encode(secrets.token_bytes(shape.size)).decode()
        case Kind.HEX:
            made = secrets.token_hex(shape.size)
        case Kind.BCRYPT:
            made = f"$2b$10${_bcrypt_base64(16)}{_bcrypt_base64(23)}"
        case Kind.SSH_ED25519:
            return hostkeys.make()
        case Kind.PEM_ED25519:
            made = pem_private_key(secrets.token_bytes(32))
        case Kind.PASSPHRASE:
            made = "-".join(secrets.token_hex(3) for _ in range(5))
        case Kind.TOKEN:
            made = secrets.token_urlsafe(32)
    return SecretStr(made)


def _bcrypt_base64(size: int) -> str:
    """Return `size` random bytes in bcrypt's own alphabet: 16 make the salt's 22 letters, 23 the hash's 31."""
    text = base64.b64encode(secrets.token_bytes(size)).rstrip(b"=")
    return text.translate(bytes.maketrans(_BASE64_ALPHABET, _BCRYPT_ALPHABET)).decode()
