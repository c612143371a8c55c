"""The playbooks of conf/ansible, run by `make ansible` against systemd containers that begin with nothing."""
