"""A container that is no node of a lab: the distribution, and systemd. For what a package does to a machine."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from awsha.lab import sweep
from awsha.lab.settings import Lab, NodeSpec
from tests.nspawn.container import Container

NAME = "machine"
BOOT_S = 60.0
BOOTED = ("running", "degraded")
DEADLINE_S = 180.0  # an installation compiles what it brings
# What changes by itself, and what dpkg keeps of every package that was ever there.
OWN_AFFAIRS = ("dev", "proc", "sys", "run", "tmp", "var/log", "var/tmp", "var/lib/dpkg", "var/lib/systemd/timers",
               "var/lib/systemd/random-seed", "var/lib/systemd/catalog", "root")  # fmt: skip


class Alone(Container):
    """One container, without any network."""

    def __init__(self, lab: Lab, rootfs: Path) -> None:
        """Nothing runs yet."""
        super().__init__(lab, NodeSpec(NAME, "", "", "", ""), {}, rootfs)

    def surroundings(self) -> dict[str, Any]:
        """Nothing of a lab."""
        return {"netns": "", "address": "", "binds": {}}

    def has_booted(self, leader: int) -> bool:  # noqa: ARG002
        """It is given nothing, so nothing is waited for here."""
        return True

    def up(self) -> Alone:
        """Boot it, and wait until systemd has done so. Raises AwshaError."""
        self._lab.cgroup.mkdir(exist_ok=True)
        self.boot()
        deadline = time.monotonic() + BOOT_S
        while (state := self.run("systemctl", "is-system-running", check=False).strip()) not in BOOTED:
            # `--wait` ends at once where systemd does not answer yet; /tmp is emptied after that
            if time.monotonic() > deadline:
                raise AssertionError(f"{NAME} has not booted within {BOOT_S:g} s: {state}")
            time.sleep(0.1)
        return self

    def down(self) -> None:
        """Take it away; whatever is left is a failure."""
        self.kill()
        sweep.sweep(self._lab)

    def run(self, *argv: str, check: bool = True, timeout_s: float = DEADLINE_S) -> str:
        """What a program prints in the container, on either output."""
        done = enter(self.pid, {}, NAME, argv, check=check, timeout_s=timeout_s)
        return done.stdout + done.stderr

    def inside(self, path: str) -> Path:
        """A file of the container, as this machine can open it."""
        return Path(f"/proc/{self.pid}/root{path}")

    def files(self) -> set[str]:
        """Every file and folder with its type and permissions, but for what changes by itself."""
        root = self.inside("/")
        found = set()
        for folder, names, files in os.walk(root):
            below = os.path.relpath(folder, root)
            names[:] = [name for name in names if os.path.normpath(f"{below}/{name}") not in OWN_AFFAIRS]
            for name in (*names, *files):
                path = os.path.normpath(f"{below}/{name}")
                if path not in OWN_AFFAIRS:
                    found.add(f"{(root / path).lstat().st_mode:o} /{path}")
        return found


def enter(
    pid: int, environment: dict[str, str], name: str, argv: tuple[str, ...], *, check: bool, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a program in the namespaces of a process, as in a login there. Raises AssertionError."""
    done = subprocess.run(
        ["nsenter", "--target", str(pid), "--all", "--wdns=/", *argv],
        env={**environment, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{name}: {' '.join(argv)} -> {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done
