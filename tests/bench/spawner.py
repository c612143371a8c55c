"""Runs inside a node of the lab: starts programs when told, and says when each began and ended.

One JSON object a line on stdin: {"programs": [argv, …], "environment": {…}}. They are started side by side; the answer,
a line on stdout, is a list of {"began", "ended", "code", "output"} with CLOCK_MONOTONIC seconds (the same clock in all
namespaces). Standard library only; run it by its path, so that nothing else is imported.
"""

import json
import os
import sys
import time
from pathlib import Path

KEPT = 2000


def run(programs, environment):
    """Start all, wait for all."""
    running = {}
    found = [None] * len(programs)
    for index, argv in enumerate(programs):
        log = f"/tmp/spawner-{os.getpid()}-{index}"
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        began = time.monotonic()
        running[os.posix_spawnp(argv[0], argv, environment, file_actions=actions)] = (index, began, log)
    while running:
        pid, status = os.wait()
        ended = time.monotonic()
        index, began, log = running.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        output = Path(log).read_text(errors="replace")[-KEPT:]
        found[index] = {"began": began, "ended": ended, "code": code, "output": output}
        Path(log).unlink()
    return found


if __name__ == "__main__":
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(run(request["programs"], {**os.environ, **request["environment"]})), flush=True)  # noqa: T201
