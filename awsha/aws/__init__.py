"""Touches EC2 and instance metadata: one door, typed errors, deadlines."""
