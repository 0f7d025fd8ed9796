"""The base of every model, and how an error in an inventory finds its words.

Python evaluates ``Site(hosts=(Host(guest=Guest(...)), ...))`` from the inside out, so a plain pydantic model would
complain about a guest before anybody knows whose it is. `Model` therefore keeps what it could not read and lets
the outermost model complain, with the whole way to the field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic._internal._model_construction import ModelMetaclass


class _Deferred(ModelMetaclass):
    """Makes an instance that carries its raw arguments where they do not validate."""

    def __call__(self, *args: Any, **data: Any) -> Any:
        try:
            return super().__call__(*args, **data)
        except ValidationError:
            broken = cast(type[BaseModel], self).model_construct()
            object.__setattr__(broken, "_unread", data)
            return broken


class Model(BaseModel, metaclass=_Deferred):
    """A frozen model that knows no unknown key; its errors are raised by `check`, with their whole path."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)

    @model_validator(mode="wrap")
    @classmethod
    def _read_again(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        unread = value.__dict__.get("_unread") if isinstance(value, Model) else None
        if unread is None:
            return handler(value)
        if type(value) is not cls:
            return cast(Self, type(value).model_validate(unread))
        return handler(unread)


class InventoryError(Exception):
    """An inventory that cannot be used; its text is one line naming site, host and field."""


def unread(model: Model) -> Mapping[str, Any] | None:
    """Return the raw arguments of a model that did not validate, or None for one that did."""
    return cast("Mapping[str, Any] | None", model.__dict__.get("_unread"))


def check(model: Model, name: str) -> None:
    """Raise `InventoryError` with all errors of `model`, one a line, if it did not validate.

    Arguments: `name`, what the outermost model is called, for the message.
    """
    raw = unread(model)
    if raw is None:
        return
    try:
        type(model).model_validate(raw)
    except ValidationError as error:
        items = error.errors()
        lines = [
            _words(name, raw, item["loc"], item["msg"], item.get("input"))
            for item in items
            if not (item["type"] == "too_short" and _is_echo(item["loc"], items))
        ]
        raise InventoryError("\n".join(dict.fromkeys(lines))) from None


def _is_echo(location: Sequence[str | int], items: Sequence[Any]) -> bool:
    """True for a tuple that counts as short only because an item in it could not be read."""
    return any(len(item["loc"]) > len(location) and item["loc"][: len(location)] == location for item in items)


def _words(name: str, raw: Any, location: Sequence[str | int], message: str, value: Any) -> str:
    """Turn ``("hosts", 2, "guest", "disks", 0, "size")`` into ``home: host db1: guest.disks[root].size``."""
    owner = name
    path = ""
    here = raw
    for index, part in enumerate(location):
        here = _step(here, part)
        if isinstance(part, int):
            called = _field(here, "name")
            if index == 1 and location[0] in ("hosts", "networks"):
                owner += f": {str(location[0]).removesuffix('s')} {called or part}"
                path = ""
                continue
            path += f"[{called if isinstance(called, str) else part}]"
        elif _is_field(part):
            path += f".{part}" if path else part
    shown = "" if isinstance(value, Mapping | Sequence | Model) and not isinstance(value, str) else f", not {value!r}"
    words = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if words.startswith("Input should"):
        words = words[0].lower() + words[1:] + shown
    if words == "Extra inputs are not permitted":
        words = "no such field"
    return ": ".join(piece for piece in (owner, path, words) if piece)


def _is_field(part: str) -> bool:
    """Leave out what pydantic adds for unions and wrapped validators, such as ``function-wrap[...]``."""
    return "[" not in part and not part[:1].isupper()


def _step(here: Any, part: str | int) -> Any:
    if isinstance(here, Model):
        here = unread(here) or here.__dict__
    if isinstance(part, int):
        return here[part] if isinstance(here, Sequence) and not isinstance(here, str) and part < len(here) else None
    if isinstance(here, Mapping) and part in here:
        return here[part]
    return here if not _is_field(part) else None


def _field(here: Any, key: str) -> Any:
    if isinstance(here, Model):
        here = unread(here) or here.__dict__
    return here.get(key) if isinstance(here, Mapping) else None
