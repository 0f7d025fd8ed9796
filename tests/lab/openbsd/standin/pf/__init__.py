"""The stand-in's pf(4): pf.conf(5) read, compiled to nftables, and its tables and states."""
