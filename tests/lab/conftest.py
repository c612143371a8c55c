"""A lab for each test that asks for one: up with parameters, helpers, always down, logs shown when the test fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from awsha.core.errors import AwshaError
from awsha.lab import linux, sweep
from awsha.lab.control import ask
from awsha.lab.enter import entering
from awsha.lab.settings import Lab
from awsha.lab.start import stop, tails
from tests.lab.warm import Warm

AWSHA = str(Path(sys.executable).parent / "awsha")
UP_DEADLINE_S = 60.0
LOG_LINES = 40


def why_not_here() -> str:
    """Why the lab can't run on this machine; empty when it can."""
    if os.geteuid() != 0:
        return "the lab needs root"
    for program in ("keepalived", "ip", "nsenter", "mkfs.ext4", "mkfs.xfs"):
        if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            return f"the lab needs {program}"
    return "" if Path("/dev/loop-control").exists() else "the lab needs loop devices"


def skip(reason: str) -> None:
    """Skip if there is a reason; fail then if this is CI, which must be able to."""
    if reason and os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and this is CI")
    if reason:
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def _lab_can_run() -> None:
    skip(why_not_here())


class LabUnderTest:
    """A lab by its commands, as a person would use it, and its facts as data."""

    def __init__(self, prefix: str) -> None:
        self.lab = Lab(prefix)
        self.environment = {**os.environ, "AWSHA_LAB": prefix}
        self.warm = False  # awsha's commands in the nodes out of a process that has imported everything
        self._processes: dict[str, Warm] = {}

    def awsha(self, *words: str, check: bool = True, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run `awsha WORDS`; with `check`, exit code 0 is expected."""
        done = subprocess.run(
            [AWSHA, *words], env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(f"awsha {' '.join(words)} -> {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def up(self, *flags: str, latency: str = "none", wait: bool = True) -> LabUnderTest:
        """`lab up`; by default without EC2's delays."""
        words = ["lab", "up", "--latency", latency, "--deadline", str(UP_DEADLINE_S), *flags]
        self.awsha(*words, *([] if wait else ["--no-wait"]), timeout_s=UP_DEADLINE_S + 20)
        return self

    def status(self) -> dict[str, Any]:
        """`lab status --json`, straight from the daemon."""
        facts = ask(self.lab, {"do": "status"})
        assert isinstance(facts, dict)
        return facts

    def exec(
        self, node: str, *argv: str, check: bool = True, timeout_s: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """What `lab exec NODE -- ARGV` does, without starting an awsha for it: that would be half of the time."""
        try:
            where = ask(self.lab, {"do": "enter", "node": node})
        except AwshaError as error:
            done = subprocess.CompletedProcess(argv, 1, "", f"awsha: {error.message}\n")
        else:
            if self.warm and argv[0] == "awsha":
                done = self._warm(node, where).run(list(argv[1:]), timeout_s)
            else:
                done = self._cold(where, argv, timeout_s)
        if check and done.returncode != 0:
            raise AssertionError(f"{node}: {' '.join(argv)} -> {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def _warm(self, node: str, where: dict[str, Any]) -> Warm:
        """The process that knows awsha already, in the node as it is now."""
        known = self._processes.get(node)
        if known is None or not known.fits(where):
            if known is not None:
                known.end()
            known = self._processes[node] = Warm(where)
        return known

    @staticmethod
    def _cold(where: dict[str, Any], argv: tuple[str, ...], timeout_s: float) -> subprocess.CompletedProcess[str]:
        words, environment = entering(where, list(argv))
        return subprocess.run(
            words, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False,
            preexec_fn=lambda: linux.join_cgroup(Path(where["cgroup"])),  # it freezes and dies with the node
        )  # fmt: skip

    def fail(self, node: str, kind: str) -> None:
        """`lab fail NODE KIND`."""
        ask(self.lab, {"do": "fail", "node": node, "kind": kind})

    def heal(self, node: str) -> None:
        """`lab heal NODE`."""
        ask(self.lab, {"do": "heal", "node": node}, 150.0)

    def fault(self, action: str, kind: str, **values: Any) -> None:
        """A fault of EC2, in the daemon's words."""
        ask(self.lab, {"do": "fault", "action": action, "kind": kind, **values})

    def latency(self, **single: float) -> None:
        """Delays of EC2 from now on: none, but for these (seconds, by Latency's field names)."""
        ask(self.lab, {"do": "latency", "name": "none", "single": single})

    def client_start(self) -> None:
        """Begin to write records through the VIP, and wait for the first acknowledgements."""
        ask(self.lab, {"do": "client_start"})
        before = self.report()["acknowledged"]
        self.wait_until(lambda: self.report()["acknowledged"] > before + 3, 20, "the client is served")

    def report(self) -> dict[str, Any]:
        """`lab client report --json`."""
        report = ask(self.lab, {"do": "client_report"}, 60.0)
        assert isinstance(report, dict)
        return report

    def nothing_lost(self, deadline_s: float = 30.0) -> dict[str, Any]:
        """Wait until the records can be read back; assert that every acknowledged one is there, once."""
        self.wait_until(lambda: self.report()["lost"] is not None, deadline_s, "somebody serves the records")
        report = self.report()
        assert (report["lost"], report["duplicated"]) == (0, 0), report
        assert self.status()["violations"] == []
        return report

    def holder(self, group: str = "data") -> str | None:
        """The node that has mounted all of a group and gets all its addresses."""
        holder: str | None = self.status()["groups"][group]["holder"]
        return holder

    def wait_for_holder(self, node: str, deadline_s: float = 30.0, group: str = "data") -> None:
        """Wait until this node holds a group."""
        self.wait_until(lambda: self.holder(group) == node, deadline_s, f"{node} holds {group}")

    def wait_until(self, look: Callable[[], Any], deadline_s: float, what: str = "it is so") -> Any:
        """Look until it counts as true; an assertion failure that shows the lab after `deadline_s`."""
        end = time.monotonic() + deadline_s
        while True:
            answer = look()
            if answer:
                return answer
            if time.monotonic() > end:
                raise AssertionError(f"not within {deadline_s} s: {what}\n{json.dumps(self.status(), indent=1)}")
            time.sleep(0.05)

    def wait_until_gone(self, pid: int, deadline_s: float = 15.0) -> None:
        """Wait until a process of this lab has ended, by its pid."""
        end = time.monotonic() + deadline_s
        while pid in sweep.daemon_pids(self.lab):
            assert time.monotonic() < end, f"process {pid} does not end"
            time.sleep(0.02)

    def logs(self, lines: int = LOG_LINES) -> str:
        """The last lines of every log."""
        return "".join(f"\n--- {path}\n" + "\n".join(tail) for path, tail in tails(self.lab, lines))

    def down(self) -> None:
        """Take it away; whatever is left is a failure."""
        for process in self._processes.values():
            process.end()
        self._processes.clear()
        stop(self.lab)
        assert sweep.leftovers(self.lab) == []


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Show a lab's logs with the failure of a test that used it."""
    report = yield
    if report.when in ("setup", "call") and report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, LabUnderTest):
                report.sections.append(("lab logs", value.logs()))
    return report


@pytest.fixture
def lab() -> Iterator[LabUnderTest]:
    """A lab of this test's own that is not up yet (`lab.up(...)`); it is taken down whatever happens."""
    under_test = LabUnderTest(f"t{os.getpid() % 100000}")
    try:
        yield under_test
    finally:
        under_test.down()


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[LabUnderTest]:
    """A lab for a whole module, for tests that leave it as they found it; not up yet."""
    skip(why_not_here())
    under_test = LabUnderTest(f"m{os.getpid() % 100000}")
    try:
        yield under_test
    finally:
        under_test.down()
