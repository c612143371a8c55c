"""Runs: one converge loop a group, intent, journal, health files."""
