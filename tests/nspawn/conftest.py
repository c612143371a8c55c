"""One pair of containers for this folder: up, helpers, always down, journals shown when a test fails."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from awsha.host.keepalived import start_time
from awsha.lab import sweep
from awsha.lab.control import ask
from awsha.lab.settings import Lab, Shape
from awsha.lab.start import start, stop
from tests.lab.conftest import LabUnderTest
from tests.lab.conftest import why_not_here as why_no_lab
from tests.nspawn import rootfs

UP_DEADLINE_S = 60.0
LOG_LINES = "120"


def why_not_here() -> str:
    """Why containers can't be run here; empty when they can."""
    return why_no_lab() or rootfs.why_not_here()


class Containers(LabUnderTest):
    """A lab whose nodes boot by systemd."""

    unsettled = False  # a test that does not find it settled is the last one: each would wait as long

    def boot(self) -> Containers:
        """Start the daemon and both containers; returns when they are on, not yet when anybody is master."""
        place = rootfs.rootfs()
        start(self.lab, Shape(latency="none", agent=False, keepalived=False), UP_DEADLINE_S, converged=False,
              daemon=["tests.nspawn.daemon", str(place)])  # fmt: skip
        return self

    def run(self, node: str, *argv: str, check: bool = True, timeout_s: float = 60.0) -> str:
        """What a program prints in a container; it runs in its namespaces, as a login would."""
        where = ask(self.lab, {"do": "enter", "node": node})
        environment = {**where["environment"], "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        enter = ["nsenter", "--target", str(where["pid"]), "--all", "--wdns=/"]
        done = subprocess.run(
            [*enter, *argv], env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{node}: {' '.join(argv)} -> {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def inside(self, node: str, path: str) -> Path:
        """A file of a container, as this machine can open it."""
        return Path(f"/proc/{ask(self.lab, {'do': 'enter', 'node': node})['pid']}/root{path}")

    def show(self, node: str, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run(node, "systemctl", "show", "--property", name, "--value", unit).strip()

    def served_by(self, node: str) -> tuple[str, ...]:
        """What must not change when nothing is to move: the application's process, the mount, what VRRP said."""
        pid = self.show(node, "records.service", "MainPID")
        mounts = Path(f"/proc/{ask(self.lab, {'do': 'enter', 'node': node})['pid']}/mountinfo").read_text()
        mount = next(line.split()[0] for line in mounts.splitlines() if line.split()[4] == "/srv/data")
        return pid, mount, self.run(node, "ls", "/run/awsha/intent/data")

    def events(self) -> list[str]:
        """What happened so far, in order, in words."""
        return [event["text"] for event in ask(self.lab, {"do": "events"})["events"]]

    def settled(self) -> tuple[str, str]:
        """Wait until one node holds everything, all services run and nobody is out; the master and the other."""

        def look() -> tuple[str, str] | None:
            status = self.status()
            names = list(status["nodes"])
            roles = {name: status["nodes"][name]["vrrp_role"] for name in names}
            holder = status["groups"]["data"]["holder"]
            if holder is None or sorted(roles.values(), key=str) != ["backup", "master"] or roles[holder] != "master":
                return None
            units = ("awsha-agent", "keepalived")
            for name in names:
                if self.run(name, "systemctl", "is-active", *units, check=False).split() != ["active", "active"]:
                    return None
                if self.run(name, "cat", "/run/awsha/health/data", check=False).strip() != "0":
                    return None
            if self.run(holder, "systemctl", "is-active", "records", check=False).strip() != "active":
                return None
            return holder, next(name for name in names if name != holder)

        found: tuple[str, str] = self.wait_until(look, UP_DEADLINE_S, "one master holds everything, the other waits")
        return found

    def nobody_was_fenced(self) -> None:
        """Both instances run, and neither was stopped in between."""
        assert self.status()["ec2"]["instances"] == {"a": "running", "b": "running"}
        assert not [text for text in self.events() if "end of instance" in text or "is taken from" in text]

    def logs(self, lines: int = 40) -> str:
        """The daemon's log, and each container's journal, over its reboots."""
        text = super().logs(lines)
        for folder in sorted(self.lab.run.glob("*/journal/*")):
            argv = ["journalctl", "--directory", str(folder), "-n", LOG_LINES, "-o", "short-precise", "--no-pager"]
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
                text += f"\n--- {folder}\n{done.stdout}"
        return text


def sweep_dead_runs() -> None:
    """Take away what a test run that was killed left behind."""
    for folder in Path("/run").glob("u[0-9]*"):
        named = re.fullmatch(r"u(\d+)_(\d+)", folder.name)
        if named and start_time(int(named[1])) != int(named[2]):
            sweep.sweep(Lab(folder.name))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Show the journals with the failure of a test."""
    report = yield
    if report.when in ("setup", "call") and report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Containers):
                report.sections.append(("containers", value.logs()))
    return report


@pytest.fixture(scope="session")
def booted() -> Iterator[Containers]:
    """The pair, booted by systemd alone; taken down whatever happens."""
    if reason := why_not_here():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}, and this is CI")
        pytest.skip(reason)
    sweep_dead_runs()
    # named after this process, so that a later run can tell whether it is dead
    containers = Containers(f"u{os.getpid()}_{start_time(os.getpid())}")
    try:
        yield containers.boot()
    finally:
        stop(containers.lab)
        assert sweep.leftovers(containers.lab) == []


@pytest.fixture
def pair(booted: Containers) -> Containers:
    """The pair, settled: each test leaves it so that it can become so again."""
    if booted.unsettled:
        pytest.fail("the pair did not settle before an earlier test, whose report shows its journals")
    booted.unsettled = True
    for node in booted.settled():
        booted.run(node, "systemctl", "reset-failed")  # the tests' restarts count as starts in a row
    booted.unsettled = False
    return booted
