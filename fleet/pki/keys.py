"""A root's private key at rest: an age file that only a passphrase opens, https://age-encryption.org/v1, scrypt."""

from __future__ import annotations

import pyrage
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from pydantic import SecretStr

from fleet.pki.wanted import PkiError


def new() -> EllipticCurvePrivateKey:
    """Return a new private key of P-256."""
    return generate_private_key(SECP256R1())


def seal(key: EllipticCurvePrivateKey, passphrase: SecretStr) -> bytes:
    """Return `key` in PEM (PKCS #8) as an age file, which ``age --decrypt`` opens with `passphrase`.

    It takes seconds of purpose: age's scrypt is tuned so that guessing is slow.
    """
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return bytes(pyrage.passphrase.encrypt(plain, passphrase.get_secret_value()))


def unseal(sealed: bytes, passphrase: SecretStr, name: str) -> EllipticCurvePrivateKey:
    """Return the private key in an age file.

    Arguments: `name` of the file, for messages. Raises PkiError for another passphrase, a damaged file and another
    content.
    """
    try:
        plain = bytes(pyrage.passphrase.decrypt(sealed, passphrase.get_secret_value()))
    except pyrage.DecryptError as error:
        why = str(error).partition("\n")[0]
        raise PkiError(f"{name}: cannot be decrypted, is it the right passphrase? {why}") from None
    try:
        key = load_pem_private_key(plain, None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, EllipticCurvePrivateKey):
        raise PkiError(f"{name}: has no private key of a root in it")
    return key
