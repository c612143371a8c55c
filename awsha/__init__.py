"""High availability on AWS for one address, one disk and one service, behind keepalived."""

__version__ = "0.1.0"
