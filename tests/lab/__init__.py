"""The lab: the fleet's machines on one Linux computer, built from its own apt sources."""
