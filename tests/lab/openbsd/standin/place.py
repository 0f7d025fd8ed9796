"""Where the stand-in's files are: below the root, or below a scratch directory while its tests run."""

import os
from pathlib import Path


def root(path: str | Path) -> Path:
    """Return where a file of the stand-in is.

    Args:
        path: as the stand-in knows it; absolute, or relative to its root.

    Returns:
        The path below `STANDIN_ROOT` of the environment, `/` without it.
    """
    return Path(os.environ.get("STANDIN_ROOT", "/")) / str(path).lstrip("/")
