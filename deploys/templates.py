"""Templates: files/ and templates/ have one folder a daemon, a file in it is named like its destination."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fleet.load import ROOT
from fleet.model.service import File


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(ROOT / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - configuration files, not HTML
    )


def template(
    path: str,
    *,
    owner: str = "root",
    group: str = "root",
    mode: int = 0o644,
    source: str | None = None,
    **values: Any,
) -> File:
    """Return the file `path` rendered from the calling service's folder in templates/.

    Arguments: `source`, the template's name where it is not the destination's; `values`, what the template sees.
    An undefined name in a template raises jinja2.UndefinedError.
    """
    folder = Path(inspect.stack()[1].filename).stem
    name = f"{folder}/{source or Path(path).name}.j2"
    text = _environment().get_template(name).render(**values)
    return File(path=path, text=text, owner=owner, group=group, mode=mode)
