"""Small typed values of the inventory."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import (
    AfterValidator,
    ByteSize,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(f"{value!r} is no name: small letters, digits and hyphens, a letter first, up to 31")
    return value


def _mac(value: str) -> str:
    value = value.lower()
    if not MAC.fullmatch(value):
        raise ValueError(f"{value!r} is no MAC address like 52:54:00:12:34:56")
    if int(value[:2], 16) & 1:
        raise ValueError(f"{value!r} is a multicast address, no interface can have it")
    return value


def _file(value: str) -> str:
    if not value.startswith("/") or "/../" in value or value.endswith("/") or "\n" in value:
        raise ValueError(f"{value!r} is no absolute path of a file")
    return value


def _size(value: object, read: ValidatorFunctionWrapHandler) -> ByteSize:
    try:
        size: ByteSize = read(value)
    except ValidationError:
        size = ByteSize(0)
    if size <= 0:
        raise ValueError(f"{value!r} is no size: a positive number of bytes or a text such as '20 GiB'")
    return size


Name = Annotated[str, AfterValidator(_name)]
"""A host, disk, volume group or bridge: small letters, digits, hyphens."""

FilePath = Annotated[str, AfterValidator(_file)]
"""The absolute path of a file on a host."""

Mac = Annotated[str, AfterValidator(_mac)]
"""A unicast MAC address in small letters."""

Size = Annotated[ByteSize, WrapValidator(_size)]
"""A size in bytes; in an inventory a text such as ``"20 GiB"``."""

Port = Annotated[int, Field(ge=1, le=65535, strict=True)]
"""A TCP or UDP port."""


def human(size: int) -> str:
    """Return `size` in bytes with the largest binary unit that keeps it exact or nearly so, such as ``20GiB``."""
    return ByteSize(size).human_readable()
