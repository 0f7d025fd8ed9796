"""Verification: what the inventory declares, asked back from the hosts; read-only (DESIGN T5)."""
