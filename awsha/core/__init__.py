"""Decides. Pure: no I/O, no clock, no logging; imports only the standard library and itself."""
