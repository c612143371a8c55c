"""An Ansible connection into a container of the lab: what ssh would do, by nsenter.

AWSHA_TEST_NODES is a JSON file: address -> {"pid", "environment"}.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: node
short_description: Enter a container of the lab
description: Runs commands in the namespaces of a container, as root.
author: awsha
options: {}
"""


class Connection(ConnectionBase):
    """As root, and with the environment that a login has there."""

    transport = "node"
    has_pipelining = True

    def _connect(self):
        node = json.loads(Path(os.environ["AWSHA_TEST_NODES"]).read_text())[self._play_context.remote_addr]
        self._pid, self._environment = node["pid"], node["environment"]
        self._connected = True
        return self

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        argv = ["nsenter", "--target", str(self._pid), "--all", "--wdns=/root", "/bin/sh", "-c", cmd]
        done = subprocess.run(argv, input=in_data or b"", env=self._environment, capture_output=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        shutil.copyfile(in_path, f"/proc/{self._pid}/root{out_path}")

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        shutil.copyfile(f"/proc/{self._pid}/root{in_path}", out_path)

    def close(self):
        self._connected = False
