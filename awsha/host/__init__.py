"""Touches Linux: block devices, mounts, open files, netlink, VRRP adverts, the application."""
