"""reboot of the stand-in; see `standin.power`."""

from .power import reboot as main

__all__ = ("main",)
