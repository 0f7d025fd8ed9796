"""SSH host keys: made or adopted by the controller, and what is derived from their public halves. Pure."""

from __future__ import annotations

import base64
import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from fleet.model.secret import SSH_ED25519, ssh_key_halves, ssh_private_key, ssh_public_blob


def make() -> SecretStr:
    """Return a new Ed25519 private key in OpenSSH's format. Not pure: it is random."""
    key = Ed25519PrivateKey.generate()
    return SecretStr(ssh_private_key(key.private_bytes_raw(), key.public_key().public_bytes_raw()))


def adopt(text: str) -> SecretStr:
    """Return the private key in `text`, such as a host's own ``/etc/ssh/ssh_host_ed25519_key``.

    Raises ValueError, without any part of the key in it, if it is no Ed25519 key without passphrase, or if its halves
    do not belong together.
    """
    private = "\n".join(line.strip() for line in text.strip().splitlines())
    if not SSH_ED25519.fits(private):
        raise ValueError(f"is not {SSH_ED25519.words}")
    seed, public = ssh_key_halves(private)
    if Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw() != public:
        raise ValueError("its public half belongs to another key")
    return SecretStr(private)


def public_half(private: SecretStr) -> str:
    """Return ``ssh-ed25519 AAAA...`` of a private key; ValueError if it is none."""
    _, public = ssh_key_halves(private.get_secret_value())
    return f"ssh-ed25519 {base64.b64encode(ssh_public_blob(public)).decode()}"


def fingerprint(public: str) -> str:
    """Return ``SHA256:...`` of a public key, as ``ssh-keygen -l`` prints it."""
    digest = hashlib.sha256(_blob(public)).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def known_hosts_line(name: str, public: str) -> str:
    """Return the line of known_hosts that knows `public` under `name`; sshd(8), SSH_KNOWN_HOSTS FILE FORMAT.

    With a host's plain name, ``HostKeyAlias`` finds it whatever its addresses and ports are; ssh_config(5).
    """
    return f"{name} {public}\n"


def sshfp(name: str, public: str) -> str:
    """Return the SSHFP record of a host's key, with SHA-256 only.

    Arguments: `name`, the owner of the record as the zone file has it. Source: RFC 4255, RFC 6594 (2 is SHA-256) and
    RFC 7479 (4 is Ed25519).
    """
    return f"{name} IN SSHFP 4 2 {hashlib.sha256(_blob(public)).hexdigest()}\n"


def _blob(public: str) -> bytes:
    kind, _, text = public.partition(" ")
    if kind != "ssh-ed25519":
        raise ValueError(f"{kind!r} is no ssh-ed25519")
    return base64.b64decode(text, validate=True)
