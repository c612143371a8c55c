"""awsha.toml to frozen records, and keepalived.conf out of the same records."""
