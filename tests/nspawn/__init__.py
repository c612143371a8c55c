"""The systemd units, proven with real systemd: a pair of containers on the lab's EC2, disks and network."""
