"""Secrets at rest: age files, one a host and one a pair of hosts, and who may read them (DESIGN I2, O5)."""
