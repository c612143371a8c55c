"""`python -m tests.soak --failovers N`: real keepalived in the lab, one mishap after another, a client that writes."""
