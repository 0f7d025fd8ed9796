"""syslogd(8) in parts: the text of a message, syslog.conf(5), TLS, where messages go and where they come from."""
