"""A lab for a bench: up, driven and read with times that are good to a millisecond or so, and always down again."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awsha.lab import linux, sweep
from awsha.lab.client import read_ledger
from awsha.lab.control import ask
from awsha.lab.enter import entering
from awsha.lab.settings import Lab, Shape, group_specs
from awsha.lab.start import start, stop

UP_DEADLINE_S = 60.0
LOOK_S = 0.02
AWSHA = str(Path(sys.executable).parent / "awsha")
SPAWNER = str(Path(__file__).with_name("spawner.py"))
HERE = "converged: everything is here"
GONE = "converged: nothing is here"
_LINE = re.compile(r"(\d\d):(\d\d):(\d\d)\.(\d{3}) (.*)")
_count = itertools.count(1)


class BenchError(Exception):
    """A row could not be measured."""


@dataclass(frozen=True)
class Ran:
    """One program. Times are CLOCK_MONOTONIC seconds."""

    began: float
    ended: float
    code: int
    output: str

    @property
    def took(self) -> float:
        """Seconds."""
        return self.ended - self.began

    def good(self) -> Ran:
        """Itself, when the exit code is 0. Raises BenchError."""
        if self.code != 0:
            raise BenchError(f"exit code {self.code}: {self.output.strip()[-300:]}")
        return self


class BenchLab:
    """One lab with a prefix of its own; use it with `with`."""

    def __init__(self, *, converged: bool = False, **shape: Any) -> None:
        """`shape`: the fields of Shape; without EC2's delays unless it says so."""
        self.lab = Lab(f"bench{os.getpid() % 100000}n{next(_count)}")
        self.shape = Shape(**{"latency": "none", **shape})
        self.groups = group_specs(self.lab, self.shape)
        self.healed_at = 0.0  # when a node was booted last, while this lab was up
        self._converged = converged
        self._spawners: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> BenchLab:
        """Up."""
        self.status = start(self.lab, self.shape, UP_DEADLINE_S, converged=self._converged)
        return self

    def __exit__(self, *_: object) -> None:
        """Down, whatever happened."""
        for spawner in self._spawners.values():
            spawner.kill()
            spawner.wait()
        stop(self.lab)
        if left := sweep.leftovers(self.lab):
            print(f"the bench left behind: {left}", file=sys.stderr)  # noqa: T201

    def ask(self, do: str, timeout_s: float = 150.0, **values: object) -> Any:
        """One request to the daemon."""
        return ask(self.lab, {"do": do, **values}, timeout_s)

    def latency(self, **single: float) -> None:
        """EC2's delays from now on: none but these (seconds, by Latency's field names)."""
        self.ask("latency", name="none", single=single)

    def events(self, since: float) -> dict[str, Any]:
        """What happened from then on, and what was asked of EC2."""
        found: dict[str, Any] = self.ask("events", since=since)
        return found

    def requests(self, since: float, node: str | None = None) -> list[dict[str, Any]]:
        """EC2 requests that arrived from then on, oldest first: at, action, node, code, s."""
        found = [r for r in self.events(since)["requests"] if node is None or r["node"] == node]
        return sorted(found, key=lambda r: float(r["at"]))

    # Programs in a node

    def run_all(self, node: str, programs: Sequence[Sequence[str]], **environment: str) -> list[Ran]:
        """Programs inside a node, side by side."""
        spawner = self._spawner(node)
        assert spawner.stdin is not None
        assert spawner.stdout is not None
        spawner.stdin.write(json.dumps({"programs": [list(p) for p in programs], "environment": environment}) + "\n")
        spawner.stdin.flush()
        answer = spawner.stdout.readline()
        if not answer:
            raise BenchError(f"node {node} went away")
        return [Ran(**one) for one in json.loads(answer)]

    def run(self, node: str, *argv: str, **environment: str) -> Ran:
        """One program inside a node."""
        return self.run_all(node, [argv], **environment)[0]

    def _spawner(self, node: str) -> subprocess.Popen[str]:
        kept = self._spawners.get(node)
        if kept is not None and kept.poll() is None:
            return kept
        where = self.ask("enter", node=node)
        argv, environment = entering(where, [sys.executable, "-I", "-S", SPAWNER])
        self._spawners[node] = subprocess.Popen(
            argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=lambda: linux.join_cgroup(Path(where["cgroup"])),  # noqa: PLW1509  there are no threads here
        )  # fmt: skip
        return self._spawners[node]

    def notify(self, node: str, role: str, *groups: str) -> list[Ran]:
        """What keepalived does: first the VIPs on the interface or off it, then the notify scripts, side by side."""
        wanted = [g for g in self.groups if g.name in (groups or ("data",))]
        for group in wanted:
            self.vips_on_interface(node, group.vips, there=role == "master")
        ran = self.run_all(node, [[AWSHA, "notify", role, group.name] for group in wanted])
        return [one.good() for one in ran]

    def vips_on_interface(self, node: str, vips: Sequence[str], *, there: bool) -> None:
        """As keepalived does before it runs a notify script."""
        netns = self.lab.netns(node)
        lines = [f"address {'replace' if there else 'del'} {vip}/32 dev eth0" for vip in vips]
        subprocess.run(
            ["ip", "-force", "-n", netns, "-batch", "-"], input="\n".join(lines), text=True, check=False,
            capture_output=True,
        )  # fmt: skip

    # What the nodes and the clients wrote down

    def intent_at(self, node: str, role: str, group: str = "data") -> float:
        """When the newest intent was recorded; raises BenchError when it is another role."""
        said, _, recorded_at = self._intent(node, group)
        if said != role:
            raise BenchError(f"{node} was told {said} of {group}, not {role}")
        return recorded_at

    def forked_at(self, node: str, group: str = "data") -> float:
        """When keepalived forked the newest notify (to 10 ms: clock ticks since boot): VRRP's decision."""
        return self._intent(node, group)[1]

    def _intent(self, node: str, group: str) -> tuple[str, float, float]:
        folder = Path(f"/proc/{self.ask('enter', node=node)['pid']}/root/run/awsha/intent/{group}")
        newest = max(path for path in folder.iterdir() if path.name[0] != ".")
        words = newest.read_text().split()
        asleep = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
        ticks = int(newest.name.split("-")[0]) / os.sysconf("SC_CLK_TCK")
        return words[0], ticks - asleep, float(words[2]) - asleep

    def log(self, node: str, since: float = 0.0, name: str = "agent") -> list[tuple[float, str]]:
        """The agent's journal from then on."""
        return journal(self.lab.node_dir(node) / f"{name}.log", since)

    def wait_for(self, look: Callable[[], Any], what: str, deadline_s: float = 40.0) -> Any:
        """Look until it is true."""
        end = time.monotonic() + deadline_s
        while True:
            if answer := look():
                return answer
            if time.monotonic() > end:
                tail = " | ".join(text for node in ("a", "b") for _, text in self.log(node)[-4:])
                raise BenchError(f"not within {deadline_s:g} s: {what}; {tail}")
            time.sleep(LOOK_S)

    def wait_said(self, node: str, text: str, since: float, group: str = "data", deadline_s: float = 40.0) -> float:
        """Wait until a node's agent says this of a group; when it said so first."""

        def said() -> float | None:
            return next((at for at, line in self.log(node, since) if line.startswith(f"{group}: {text}")), None)

        found: float = self.wait_for(said, f"{node} says of {group}: {text}", deadline_s)
        return found

    def volumes_free(self) -> bool:
        """Whether nobody holds any volume."""
        volumes = self.ask("status")["ec2"]["volumes"].values()
        return all(facts["state"] == "available" for facts in volumes)

    def outage(self, around: float) -> tuple[float, float] | None:
        """(last acknowledgement, first one after it) of the silence that was going on soon after `around`; None: none
        has ended yet."""
        ledger = read_ledger(self.lab.ledger / "data.ledger")
        long = [(a, b) for a, b, still in ledger.silences if b > around and b - a > 0.2 and not still]
        return max(long, key=lambda s: s[1] - s[0]) if long else None

    def agent_pid(self, node: str) -> int:
        """Pid of the node's agent, as this machine numbers it."""
        for word in (self.lab.cgroup / node / "cgroup.procs").read_text().split():
            try:
                arguments = Path(f"/proc/{word}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if AWSHA.encode() in arguments and b"agent" in arguments:
                return int(word)
        raise BenchError(f"no agent runs on {node}")


def journal(path: Path, since: float = 0.0) -> list[tuple[float, str]]:
    """(when, text) of each line of a log, on CLOCK_MONOTONIC; its lines have the time of day only."""
    wall = time.time()
    offset = wall - time.monotonic()
    today = time.localtime(wall)
    midnight = wall - (today.tm_hour * 3600 + today.tm_min * 60 + today.tm_sec) - wall % 1
    found = []
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    for match in _LINE.finditer(text):
        hours, minutes, seconds, millis = (int(match[i]) for i in range(1, 5))
        at = midnight + hours * 3600 + minutes * 60 + seconds + millis / 1000
        if at > wall + 1:
            at -= 86400
        if at - offset >= since - 0.001:
            found.append((at - offset, match[5]))
    return found
