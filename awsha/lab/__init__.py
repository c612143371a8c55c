"""A whole pair on one machine: EC2's rules, network, disks, nodes (extra `lab`)."""
