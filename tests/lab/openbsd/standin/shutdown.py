"""shutdown of the stand-in; see `standin.power`."""

from .power import shutdown as main

__all__ = ("main",)
