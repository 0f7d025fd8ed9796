"""The text that an owner edits: YAML, a name and a value each; an empty value is none. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

import yaml
from pydantic import SecretStr

from fleet.model.secret import Secret

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_TEXT = "tag:yaml.org,2002:str"
_VALUE = re.compile(r"[ -~\n]*")


def to_sheet(of: str, values: Mapping[str, SecretStr], wanted: Iterable[Secret]) -> str:
    """Return the text for `values`, and an empty value for each `wanted` one that is not there.

    Arguments: `of`, the host or pair, for the first line.
    """
    shapes = {secret.name: secret.shape for secret in wanted}
    lines = [f"# The secrets of {of}: a name and a value each; what is empty is not kept."]
    for name in sorted(values.keys() | shapes.keys()):
        if name in shapes:
            lines.append(f"# {name}: {shapes[name].words}")
        lines.append(f"{name}: {_scalar(values[name].get_secret_value() if name in values else '')}")
    return "\n".join(lines) + "\n"


def from_sheet(text: str) -> dict[str, SecretStr]:
    """Return the values in an edited text, without newlines at their ends.

    Raises ValueError, naming a line and never quoting it, for what is no such text.
    """
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"line {line}: cannot be read; put a value in double quotes") from None
    except yaml.YAMLError:
        raise ValueError("only printable ASCII can be in it") from None
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise ValueError("line 1: each line is a name, a colon and a value")
    found: dict[str, SecretStr] = {}
    for key, value in root.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or not _NAME.fullmatch(key.value):
            raise ValueError(f"line {line}: no name: small letters, digits, hyphens and underscores")
        if key.value in found:
            raise ValueError(f"line {line}: {key.value} is there twice")
        # Unquoted, YAML would take "&", "!" and " #" in a value for words of its own, and cut it without a word.
        if not isinstance(value, yaml.ScalarNode) or value.tag != _TEXT or (value.value and value.style is None):
            raise ValueError(f"line {line}: {key.value}: has to be one text in double quotes")
        if not _VALUE.fullmatch(value.value):
            raise ValueError(f"line {line}: {key.value}: only printable ASCII can be in it")
        found[key.value] = SecretStr(value.value.rstrip("\n"))
    return {name: value for name, value in found.items() if value.get_secret_value()}


def _scalar(value: str) -> str:
    if "\n" not in value or value.endswith("\n"):
        return json.dumps(value)
    return "|2-" + "".join(f"\n  {line}" for line in value.split("\n"))
