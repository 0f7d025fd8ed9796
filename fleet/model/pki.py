"""Private certificates as services speak of them: whose authority, for what use, which names; never a key.

A purpose has an authority of its own (the log, Redis, ...), so that what opens one service opens no other.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from fleet.model.base import Model
from fleet.model.types import FilePath, Name

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})+")


def _domain(value: str) -> str:
    if not _DOMAIN.fullmatch(value):
        raise ValueError(f"{value!r} is no domain name such as chown.me: small letters, digits, hyphens, a dot")
    return value


Domain = Annotated[str, AfterValidator(_domain)]
"""A domain name of two labels or more, in small letters, without a dot at its end."""


class Use(StrEnum):
    """What a certificate is for: its one extended key usage."""

    SERVER = "server"
    CLIENT = "client"


class Authority(Model):
    """A private certificate authority for one purpose, `name`.

    What it signs has names below `domains` only, and no address, URI or mail address. `root_days` and `leaf_days`
    are how long its root and its certificates are valid; a certificate of less than 90 would always be due.
    """

    name: Name
    domains: tuple[Domain, ...] = Field(min_length=1)
    root_days: int = Field(default=3650, ge=91, le=7300, strict=True)
    leaf_days: int = Field(default=730, ge=90, le=3650, strict=True)

    @model_validator(mode="after")
    def _outlived(self) -> Authority:
        if self.leaf_days >= self.root_days:
            raise ValueError(f"leaf_days ({self.leaf_days}) must be less than root_days ({self.root_days})")
        return self

    def may_name(self, name: str) -> bool:
        """Return whether a certificate of this authority may have the domain name `name`: one below its domains."""
        return any(name.endswith(f".{domain}") for domain in self.domains)


class Certificate(Model):
    """A certificate that a service wants on its host.

    Its common name is the host's name (syslogd(8) names the sender by it), its subject alternative names
    are the host's fully qualified name and `names`. Its private key is made on the host, 0600 for the user `owner`, and
    stays there. `key` and `certificate` are absolute paths, for a daemon that takes no others; `crl` is for one that
    reads a list of what is revoked.
    """

    authority: Authority
    use: Use
    names: tuple[Domain, ...] = ()
    owner: str = "root"
    key: FilePath | None = None
    certificate: FilePath | None = None
    crl: bool = False

    @property
    def name(self) -> str:
        """What it is called on its host, and what the set of its files is called: ``log-client``."""
        return f"{self.authority.name}-{self.use}"

    @property
    def key_path(self) -> str:
        """Where its private key is."""
        return self.key or f"/etc/ssl/private/{self.name}.key"

    @property
    def certificate_path(self) -> str:
        """Where it is."""
        return self.certificate or f"/etc/ssl/{self.name}.crt"

    @property
    def roots_path(self) -> str:
        """Where the roots are by which its service knows its peers."""
        return f"/etc/ssl/{self.name}-roots.pem"

    @property
    def crl_path(self) -> str:
        """Where the lists of what these roots have revoked are."""
        return f"/etc/ssl/{self.name}-crl.pem"


class Published(Model):
    """What the register says that everybody may know, in PEM: what hosts are given of the PKI.

    `certificates` are the current ones by slot, `roots` and `crls` by authority, each whole; `revoked` are the slots
    whose certificate was revoked and has no successor.
    """

    certificates: dict[str, str] = {}
    roots: dict[str, str] = {}
    crls: dict[str, str] = {}
    revoked: frozenset[str] = frozenset()
