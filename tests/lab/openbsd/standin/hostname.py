"""hostname of the stand-in; see `standin.power`."""

from .power import hostname as main

__all__ = ("main",)
