"""Runs rounds: something goes wrong, another node takes over, all heals, and no acknowledged record is missing."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from awsha.core.errors import AwshaError
from awsha.host.run import RunError, run
from awsha.lab import sweep
from awsha.lab.control import ask
from awsha.lab.settings import Lab
from awsha.lab.settings import Shape as LabShape
from awsha.lab.start import start, stop, tails
from tests.soak.chance import Round, Shape, draw, shape
from tests.soak.settled import unrest

# Short bounds: a soak waits for what goes wrong, not for what is configured.
TIMEOUTS = {
    "release_grace_s": 1.0, "detach_s": 1.0, "attach_stuck_s": 3.0, "handover_s": 10.0, "unfence_s": 2.0, "term_s": 1.0,
    "unmount_s": 10.0, "stop_s": 10.0,
}  # fmt: skip
UP_S, MOVE_S, REST_S, HEAL_S = 90.0, 120.0, 150.0, 150.0
HELP_S = 10.0
BESIDE_S = 2.0  # so long the node that takes over is hurt as well
LOOK_S = 0.05
LOGS = Path("build/soak")


class SoakError(Exception):
    """Something that must never be, or that never came to be."""


class Soak:
    """One run. `rounds` is what happened, ready for JSON."""

    def __init__(self, prefix: str, seed: int, say: Callable[[str], None], rounds_a_lab: int = 10) -> None:
        self.lab = Lab(prefix)
        self.seed = seed
        self.rounds: list[dict[str, Any]] = []
        self.acknowledged = self.lost = self.duplicated = 0
        self.violations: list[str] = []
        self._say = say
        self._chance = random.Random(seed)  # noqa: S311  a soak must be repeatable
        self._rounds_a_lab = rounds_a_lab
        self._operator: subprocess.Popen[bytes] | None = None  # `awsha switchover`, while it watches

    def run(self, failovers: int) -> None:
        """Do so many rounds, in a new lab now and then. Raises SoakError; always leaves nothing behind."""
        left = failovers
        while left > 0:
            wanted = shape(self._chance)
            try:
                self._up(wanted)
                for _ in range(min(left, self._rounds_a_lab)):
                    self._round(wanted, draw(self._chance))
                    left -= 1
                self.acknowledged += self._report()["acknowledged"]
            except BaseException as error:
                if not isinstance(error, KeyboardInterrupt | SystemExit):
                    self._keep_logs()
                raise
            finally:
                self.clean()

    def clean(self) -> None:
        """Take the lab away. Raises SoakError when something of it is left."""
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            stop(self.lab)
            self._end_operator()
            if left := sweep.leftovers(self.lab):
                raise SoakError(f"left behind: {', '.join(left)}")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # --- one lab ---

    def _up(self, wanted: Shape) -> None:
        self._say(f"lab: {wanted}")
        start(self.lab, LabShape(**asdict(wanted), latency="none", timeouts=TIMEOUTS), UP_S, converged=True)
        self._ask("client_start")
        self._rest("at the start")

    def _ask(self, do: str, timeout_s: float = 60.0, **values: Any) -> Any:
        return ask(self.lab, {"do": do, **values}, timeout_s)

    def _status(self) -> dict[str, Any]:
        facts = self._ask("status")
        assert isinstance(facts, dict)
        return facts

    def _holder(self) -> str | None:
        holder: str | None = self._status()["groups"]["data"]["holder"]
        return holder

    # --- one round ---

    def _round(self, wanted: Shape, todo: Round) -> None:
        number = len(self.rounds) + 1
        holder = self._holder()
        assert holder is not None
        others = [name for name in self._status()["nodes"] if name != holder]
        began, began_wall = time.monotonic(), time.time()
        self._say(f"{number}: {holder}: {todo.words()}")
        self._ask("latency", name="none", single=todo.latency)
        for fault in todo.faults:
            self._ask("fault", **fault)
        if todo.holder_is_busy:
            self._enter(holder, "sh", "-c", "cd /srv/data; trap '' TERM; (while :; do sleep 1; done) >/dev/null 2>&1 &")
        self._strike(holder, todo.mishap)
        self._watch(holder, others[0], todo, began)
        moved_s = time.monotonic() - began
        to = self._holder()
        self._end_operator()
        self._heal()
        self._rest(f"after round {number}")
        self._check(number)
        outages = [o for o in self._report()["outages"] if o["end"] >= began_wall]
        done = {
            "round": number, "shape": asdict(wanted), "holder": holder, "to": to, "what": todo.words(),
            "moved_s": round(moved_s, 2), "rest_s": round(time.monotonic() - began, 2),
            "outage_s": round(max((o["duration"] for o in outages), default=0.0), 2),
        }  # fmt: skip
        self.rounds.append(done)
        self._say(f"   -> {to} in {done['moved_s']} s, outage {done['outage_s']} s, at rest in {done['rest_s']} s")

    def _strike(self, holder: str, mishap: str) -> None:
        """Do it to the node that serves."""
        if mishap == "switchover":
            self._operator = self._start(holder, "awsha", "switchover", "data", "--timeout", "60")
            return
        for kind in mishap.split(", "):
            self._ask("fail", node=holder, kind=kind)

    def _watch(self, holder: str, beside: str, todo: Round, began: float) -> None:
        """Wait until another node holds everything; on the way, hurt the one that takes over, and end the faults."""
        struck_at = healed_at = cleared_at = 0.0
        while self._holder() in (None, holder):
            at = time.monotonic() - began
            if todo.beside and not struck_at and at >= todo.beside_after_s:
                struck_at = at
                with contextlib.suppress(AwshaError):  # it may be off, or have no such process at this moment
                    self._ask("fail", node=beside, kind=todo.beside)
            if struck_at and not healed_at and at >= struck_at + BESIDE_S:
                healed_at = at
                self._heal_node(beside)
            if not cleared_at and at >= todo.hold_s:
                cleared_at = at
                self._ask("clear_faults")
            if cleared_at and self._operator is not None and self._operator.poll() not in (None, 0):
                self._strike(holder, todo.mishap)  # refused while EC2 did not answer: an operator tries again
            if at > MOVE_S:
                raise SoakError(f"nobody took over within {MOVE_S:g} s: {'; '.join(unrest(self.lab))}")
            time.sleep(LOOK_S)

    def _end_operator(self) -> None:
        """The switchover is done when the peer holds everything; its command watches a moment longer."""
        if self._operator is not None:
            try:
                self._operator.wait(20.0)
            except subprocess.TimeoutExpired:
                self._operator.terminate()
                self._operator.wait(20.0)
            self._operator = None

    def _heal(self) -> None:
        self._ask("clear_faults")
        self._ask("latency", name="none")
        for name in self._status()["nodes"]:
            self._heal_node(name)

    def _heal_node(self, name: str) -> None:
        """Make a node good again; once more when a fence that was asked for before takes it away in the middle."""
        try:
            self._ask("heal", HEAL_S, node=name)
        except AwshaError as error:
            if "is off" not in error.message:
                raise
            self._ask("heal", HEAL_S, node=name)

    def _rest(self, when: str) -> None:
        began = time.monotonic()
        helped_at = 0.0
        while reasons := unrest(self.lab):
            self._violations(when)
            at = time.monotonic() - began
            if at > helped_at + HELP_S and any("detach-requested" in reason for reason in reasons):
                # A peer asked EC2 to detach it just before VRRP was well again: status names what an operator does.
                helped_at = at
                self._say("   the operator switches over, as the hint says")
                self._strike(str(self._holder()), "switchover")
                self._end_operator()
            if at > REST_S:
                raise SoakError(f"not at rest within {REST_S:g} s {when}: {'; '.join(reasons)}")
            time.sleep(LOOK_S)

    def _violations(self, when: str) -> None:
        facts = self._status()
        self.violations += [text for text in facts["violations"] if text not in self.violations]
        if facts["violations"] or facts["trouble"]:
            raise SoakError(f"{when}: violations {facts['violations']}, trouble {facts['trouble']}")

    def _check(self, number: int) -> None:
        """Nothing lost, nothing twice, nothing that must never be."""
        end = time.monotonic() + REST_S
        while (report := self._report())["lost"] is None:
            if time.monotonic() > end:
                raise SoakError(f"round {number}: {report['reason']}")
            time.sleep(LOOK_S)
        self.lost, self.duplicated = self.lost + report["lost"], self.duplicated + report["duplicated"]
        if report["lost"] or report["duplicated"]:
            raise SoakError(f"round {number}: {report['lost']} records lost, {report['duplicated']} twice: {report}")
        self._violations(f"round {number}")

    def _report(self) -> dict[str, Any]:
        report = self._ask("client_report")
        assert isinstance(report, dict)
        return report

    # --- programs in a node ---

    def _start(self, node: str, *argv: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-P", "-m", "awsha", "lab", "exec", node, "--", *argv]
        return subprocess.Popen(
            words, env={"AWSHA_LAB": self.lab.prefix, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def _enter(self, node: str, *argv: str) -> None:
        if self._start(node, *argv).wait(30.0) != 0:
            raise SoakError(f"{' '.join(argv)} failed on {node}")

    def _keep_logs(self) -> None:
        """What the lab wrote, before it is taken away."""
        folder = LOGS / f"seed{self.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(AwshaError, OSError):
            (folder / "status.json").write_text(json.dumps(self._status(), indent=1))
        for path, lines in tails(self.lab, 5000):
            (folder / "-".join(path.relative_to(self.lab.run).parts)).write_text("\n".join(lines) + "\n")
        for path in (*(self.lab.run / "client").glob("*"), *(self.lab.run / "volumes").glob("*")):
            with contextlib.suppress(OSError, RunError):
                run(["cp", "--sparse=always", str(path), str(folder)], timeout_s=30.0)
        self._say(f"logs: {folder}")
