"""What every host has, by operating system: each a module of its own in deploys/services."""

from deploys.services.nftables import Nftables

BASE = (Nftables,)
