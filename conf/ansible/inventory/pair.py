#!/usr/bin/env python3
"""Ansible inventory of a pair: its nodes by their tags, as `awsha discover` finds them with your own AWS credentials.

AWSHA_TAGS (default `awsha:pair=db`; several with a space between them) are the tags that nodes and volume have.
AWSHA is the program (default: `awsha` in PATH). Hosts are the nodes' names, reached at their private addresses.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

TIMEOUT_S = 60


def inventory() -> dict[str, Any]:
    """What `--list` prints. Raises SystemExit with what awsha said when it can't tell, or when there is no pair."""
    tags = os.environ.get("AWSHA_TAGS", "awsha:pair=db").split()
    words = [word for tag in tags for word in ("--tag", tag)]
    # A file of this machine must not decide where to look: the tags and the region in the environment do.
    argv = [os.environ.get("AWSHA", "awsha"), "--config", "/nonexistent", "discover", *words, "--json"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        sys.exit(f"awsha discover: {error}")
    if done.returncode not in (0, 1) or not done.stdout.strip():  # 1: it found nothing
        sys.exit(f"awsha discover: {done.stderr.strip()}")
    found = json.loads(done.stdout)["instances"]
    names = [item["name"] for item in found]
    if len(found) < 2 or len(set(names)) < len(names) or not all(names):
        seen = [f"{item['id']} ({item['name'] or 'no name'})" for item in found]
        sys.exit(f"{' '.join(tags)} finds no pair, but {', '.join(seen) or 'nothing'}: two or more, each with a name")
    return {
        "awsha": {"hosts": names, "vars": {"awsha_tags": dict(tag.split("=", 1) for tag in tags)}},
        "_meta": {"hostvars": {item["name"]: {"ansible_host": item["address"]} for item in found}},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps({} if "--host" in sys.argv else inventory()))
