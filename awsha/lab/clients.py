"""The daemon's side of the clients: one process a group, in the client's namespace, and the report of what they saw."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from awsha.core.errors import AwshaError
from awsha.lab.client import DUMP_TIMEOUT_S, Connection, Report, merge, read_ledger, report
from awsha.lab.settings import CLIENT, GroupSpec

if TYPE_CHECKING:
    from pathlib import Path

    from awsha.lab.pair import Pair

STOP_DEADLINE_S = 5.0


class Clients:
    """Starts and stops the writers and reads their ledgers."""

    def __init__(self, pair: Pair) -> None:
        """None runs yet."""
        self._pair = pair
        self._lock = threading.Lock()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def ledger(self, group: str) -> Path:
        """Where the client of a group notes what it was told."""
        return self._pair.lab.ledger / f"{group}.ledger"

    def start(self, pause_s: float) -> str:
        """Start a client for every group that has an application; `pause_s` between two records. Raises AwshaError."""
        pair = self._pair
        if not pair.shape.application:
            raise AwshaError("this lab has no application", hint="awsha lab up --application, with a volume")
        cgroup = pair.lab.cgroup / CLIENT
        cgroup.mkdir(exist_ok=True)
        pair.lab.ledger.mkdir(exist_ok=True)
        with self._lock:
            for group in pair.groups:
                if self._alive(group.name):
                    continue
                spec = {
                    "address": group.vips[0], "port": group.port, "ledger": str(self.ledger(group.name)),
                    "netns": pair.lab.netns(CLIENT), "cgroup": str(cgroup), "pause_s": pause_s,
                }  # fmt: skip
                with (pair.lab.ledger / "client.log").open("ab") as log:
                    self._processes[group.name] = subprocess.Popen(
                        [sys.executable, "-P", "-m", "awsha.lab.client", json.dumps(spec)],
                        stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                    )  # fmt: skip
        return f"writing to {', '.join(f'{group.vips[0]}:{group.port}' for group in pair.groups)}"

    def stop(self) -> str:
        """Stop them; each notes when."""
        with self._lock:
            for process in self._processes.values():
                process.terminate()
            for process in self._processes.values():
                try:
                    process.wait(STOP_DEADLINE_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(STOP_DEADLINE_S)
            self._processes.clear()
        return "stopped"

    def running(self, group: str) -> bool:
        """Whether the client of a group writes."""
        with self._lock:
            return self._alive(group)

    def _alive(self, group: str) -> bool:
        process = self._processes.get(group)
        return process is not None and process.poll() is None

    def report(self) -> dict[str, Any]:
        """What the clients saw, compared with what the applications have now."""
        return merge({group.name: self._report(group) for group in self._pair.groups})

    def _report(self, group: GroupSpec) -> Report:
        ledger = read_ledger(self.ledger(group.name), self._pair.now())  # first: what comes later is no loss
        try:
            connection = Connection(
                (group.vips[0], group.port), DUMP_TIMEOUT_S, self._pair.vpc.connect(group.vips[0], group.port, 1.0)
            )
            try:
                return report(ledger, connection.dump())
            finally:
                connection.close()
        except (OSError, ValueError) as error:
            where = f"{group.vips[0]}:{group.port}"
            return report(ledger, None, f"nobody serves {where} ({error}): what is stored can't be read")
