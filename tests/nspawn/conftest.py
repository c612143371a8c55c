"""One pair of containers for this folder: up, helpers, always down, journals shown when a test fails."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from awsha import __version__
from awsha.host.keepalived import start_time
from awsha.lab import sweep
from awsha.lab.control import ask
from awsha.lab.settings import Lab, Shape
from awsha.lab.start import start, stop
from tests.lab.conftest import LabUnderTest, skip
from tests.lab.conftest import why_not_here as why_no_lab
from tests.nspawn import package, rootfs
from tests.nspawn.alone import Alone, enter

UP_DEADLINE_S = 60.0
LOG_LINES = "120"
OLD, NEW = __version__, f"{__version__}+1"


def why_not_here() -> str:
    """Why containers can't be run here; empty when they can."""
    return why_no_lab() or rootfs.why_not_here()


class Containers(LabUnderTest):
    """A lab whose nodes boot by systemd."""

    seen = 0  # how many events there were before this test
    unsettled = False  # a test that does not find it settled is the last one: each would wait as long

    def boot(self, layer: Path) -> Containers:
        """Start the daemon and both containers; returns when they are on, not yet when anybody is master."""
        place = rootfs.rootfs()
        start(self.lab, Shape(latency="none", agent=False, keepalived=False), UP_DEADLINE_S, converged=False,
              daemon=["tests.nspawn.daemon", str(place), str(layer)])  # fmt: skip
        return self

    def run(self, node: str, *argv: str, check: bool = True, timeout_s: float = 60.0) -> str:
        """What a program prints in a container; it runs in its namespaces, as a login would."""
        where = ask(self.lab, {"do": "enter", "node": node})
        return enter(where["pid"], where["environment"], node, argv, check=check, timeout_s=timeout_s).stdout

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
        texts = self.events()[self.seen :]
        assert not [text for text in texts if "end of instance" in text or "is taken from" in text]

    def logs(self, lines: int = 40) -> str:
        """The daemon's log, and each container's journal, over its reboots."""
        text = super().logs(lines)
        for folder in sorted(self.lab.run.glob("*/journal/*")):
            argv = ["journalctl", "--directory", str(folder), "-n", LOG_LINES, "-o", "short-precise", "--no-pager"]
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
                text += f"\n--- {folder}\n{done.stdout}"
        return text


def prefix(letter: str) -> str:
    """Named after this process, so that a later run can tell whether it is dead."""
    return f"{letter}{os.getpid()}_{start_time(os.getpid())}"


def sweep_dead_runs() -> None:
    """Take away what a test run that was killed left behind."""
    for folder in Path("/run").glob("[uv][0-9]*"):
        named = re.fullmatch(r"[uv](\d+)_(\d+)", folder.name)
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


@dataclass(frozen=True)
class Packages:
    """The package of this tree twice, the second one newer; and what an installation of the first adds to a system."""

    old: Path
    new: Path
    layer: Path


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Built once. Skips where there can be no containers."""
    skip(why_not_here())
    sweep_dead_runs()
    folder = tmp_path_factory.mktemp("packages")
    old = package.build(folder, OLD)
    return Packages(old, package.build(folder, NEW), package.layer(rootfs.rootfs(), old, folder / "layer"))


@pytest.fixture(scope="session")
def booted(packages: Packages) -> Iterator[Containers]:
    """The pair with the package, booted by systemd alone; taken down whatever happens."""
    containers = Containers(prefix("u"))
    try:
        yield containers.boot(packages.layer)
    finally:
        stop(containers.lab)
        assert sweep.leftovers(containers.lab) == []


@pytest.fixture
def machine(packages: Packages) -> Iterator[Alone]:  # noqa: ARG001 - says whether there can be containers
    """A container with nothing but its distribution."""
    alone = Alone(Lab(prefix("v")), rootfs.rootfs())
    try:
        yield alone.up()
    finally:
        alone.down()


@pytest.fixture
def pair(booted: Containers) -> Iterator[Containers]:
    """The pair, settled: each test leaves it so that it can become so again."""
    if booted.unsettled:
        pytest.fail("the pair did not settle before an earlier test, whose report shows its journals")
    booted.unsettled = True
    for node in booted.settled():
        booted.run(node, "systemctl", "reset-failed")  # the tests' restarts count as starts in a row
    booted.unsettled = False
    yield booted
    booted.seen = len(booted.events())
