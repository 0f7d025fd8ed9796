"""halt of the stand-in; see `standin.power`."""

from .power import halt as main

__all__ = ("main",)
