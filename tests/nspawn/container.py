"""One instance as a systemd container: what the lab's daemon asks of a node, with systemd as process 1."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from awsha.core.errors import AwshaError
from awsha.lab.node import KEPT, Node
from awsha.lab.settings import Lab, NodeSpec
from awsha.lab.waiting import wait_until

log = logging.getLogger("awsha.lab")

BOOT_DEADLINE_S = 20.0
REBOOTS = 133  # how systemd-nspawn --keep-unit says that the container wants to be started again
JOURNAL = "/var/log/journal"  # kept over a reboot, so that the log of a shutdown can be read after it


class Container(Node):
    """A node that boots by itself, and may reboot by itself. Its services are systemd's affair, not the lab's."""

    def __init__(
        self, lab: Lab, spec: NodeSpec, environment: dict[str, str], rootfs: Path, layers: Sequence[Path] = ()
    ) -> None:
        """Nothing runs yet. `layers`: what lies over the root file system, the topmost first."""
        super().__init__(lab, spec, environment)
        self._rootfs, self._layers = rootfs, layers
        (self.folder / "journal").mkdir(exist_ok=True)
        self.on_reboot: Callable[[Container], None] = lambda _node: None

    def boot(self) -> None:
        """Start the container. Raises AwshaError when its process 1 does not come up in time."""
        with self._lock:
            self._cgroup.mkdir(exist_ok=True)
            name = self.spec.name
            spec = {
                "prefix": self._lab.prefix, "name": name, "rootfs": str(self._rootfs), "cgroup": str(self._cgroup),
                "layers": [str(layer) for layer in self._layers],
                "machine_id": hashlib.sha256(f"{self._lab.prefix}/{name}".encode()).hexdigest()[:32],
                **self.surroundings(),
            }  # fmt: skip
            with (self.folder / "nspawn.log").open("ab") as output:
                outer = self._outer = subprocess.Popen(
                    [sys.executable, "-P", "-m", "tests.nspawn.launch", json.dumps(spec)],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/",
                )  # fmt: skip
            if not self._find_leader(outer):
                self.kill()
                raise AwshaError(f"container {name} did not boot", hint=f"see {self.folder}/nspawn.log")
            threading.Thread(target=self._follow, args=(outer,), name=f"container {name}", daemon=True).start()

    def surroundings(self) -> dict[str, Any]:
        """What of the lab is bound into it: its network, its address, what it keeps over a reboot."""
        kept = {target: str(self.folder / name) for target, name in {**KEPT, JOURNAL: "journal"}.items()}
        return {"netns": self._lab.netns(self.spec.name), "address": self.spec.address, "binds": kept}

    def has_booted(self, leader: int) -> bool:
        """Whether it has booted far enough to be given disks: the folder for them is there."""
        try:
            return " /sys/block " in Path(f"/proc/{leader}/mountinfo").read_text()
        except OSError:
            return False

    def _find_leader(self, outer: subprocess.Popen[bytes]) -> bool:
        """Wait for process 1 and its disks; False when there is none in time."""
        wait_until(lambda: self._leader() or outer.poll() is not None, BOOT_DEADLINE_S, 0.01)
        leader = self._leader()
        if not leader or not wait_until(lambda: self.has_booted(leader) or not _alive(leader), BOOT_DEADLINE_S, 0.01):
            return False
        self.pid = leader
        return _alive(leader)

    def _leader(self) -> int:
        """Process 1 of the container, as the host numbers it; 0 when there is none."""
        for folder in ("payload/init.scope", "payload"):
            with contextlib.suppress(OSError):
                for pid in (self._cgroup / folder / "cgroup.procs").read_text().split():
                    status = Path(f"/proc/{pid}/status").read_text()
                    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
                    if numbers[-1] == "1" and _alive(int(pid)):
                        return int(pid)
        return 0

    def _follow(self, outer: subprocess.Popen[bytes]) -> None:
        """Thread: the end of process 1. A container that reboots is started again, and gets its disks anew."""
        with contextlib.suppress(ProcessLookupError):
            watch = os.pidfd_open(outer.pid)
            select.select([watch], [], [])
            os.close(watch)
        with self._lock:
            if self._outer is not outer:
                return  # its power was cut
            self.pid, self._outer = 0, None
            if outer.wait() != REBOOTS:
                log.info("container %s is off", self.spec.name)
                return
            try:
                self.boot()
            except (AwshaError, OSError) as error:
                log.error("container %s: %s", self.spec.name, error)  # noqa: TRY400 - its own words say it all
                return
        self.on_reboot(self)

    def pids(self) -> list[int]:
        """All processes of the container, in whichever of its cgroups."""
        found = []
        for folder, _, _ in os.walk(self._cgroup / "payload"):
            with contextlib.suppress(OSError, ValueError):
                found += [int(pid) for pid in Path(folder, "cgroup.procs").read_text().split()]
        return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
