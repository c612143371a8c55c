"""The agent as a guest of its machine: memory over a hundred failovers, CPU and requests when nothing happens; and what
it costs to do without one."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from awsha.lab.nodeconf import awsha_command
from tests.bench.bench_lab import AWSHA, HERE, BenchError, BenchLab, journal
from tests.bench.row import Row
from tests.bench.takeover import ALONE, lab_now, release_all

FAILOVERS = 100
IDLE_S = 62.0  # a minute's requests, and CPU time enough to divide by
SETTLE_S = 40.0  # after coming up: each node has said its word to the peers by then (ADR 8)
MIB = 1 << 20


def memory(quick: bool) -> list[Row]:
    """Resident memory after 100 failovers ÷ after the first, back and forth without EC2's delays; and in MiB."""
    with BenchLab(**ALONE) as lab:
        release_all(lab)
        nodes = ("b", "a")
        pids = {node: lab.agent_pid(node) for node in nodes}
        early: dict[str, int] = {}
        for index in range(20 if quick else FAILOVERS):
            node = nodes[index % 2]
            began = lab_now()
            lab.notify(node, "master")
            lab.wait_said(node, "mount (", began)
            lab.notify(node, "backup")
            lab.wait_for(lab.volumes_free, f"{node} has let go")
            if index < 2:
                early[node] = _resident(pids[node])
        late = {node: _resident(pids[node]) for node in nodes}
        if pids != {node: lab.agent_pid(node) for node in nodes}:
            raise BenchError("an agent was restarted meanwhile")
    ratio = max(late[node] / early[node] for node in nodes)
    most, first = max(late.values()) / MIB, max(early.values()) / MIB
    return [
        Row("agent RSS growth", most, "MiB", first, ratio, 1.05, note=f"after {index + 1} failovers ÷ after the first"),
        Row("agent RSS", most, "MiB", goal=60),
    ]


def _resident(pid: int) -> int:
    """Bytes of resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise BenchError(f"process {pid} has no memory")


def idle(quick: bool) -> list[Row]:
    """CPU share of both agents, and EC2 requests of each node in a minute, while a pair serves and nothing happens."""
    seconds = 15.0 if quick else IDLE_S
    with BenchLab(converged=True, advert_int=1.0) as lab:
        time.sleep(SETTLE_S)
        pids = {node: lab.agent_pid(node) for node in ("a", "b")}
        clocks = {node: (~pid << 3) | 2 for node, pid in pids.items()}  # a process's CPU time: clock_getcpuclockid(3)
        before = {node: time.clock_gettime(clock) for node, clock in clocks.items()}
        programs = {node: _children(pid) for node, pid in pids.items()}
        began = lab_now()
        time.sleep(seconds)
        took = lab_now() - began
        shares = {node: (time.clock_gettime(clock) - before[node]) / took * 100 for node, clock in clocks.items()}
        children = {node: (_children(pid) - programs[node]) / took * 100 for node, pid in pids.items()}
        asked = {node: [r for r in lab.requests(began, node) if r["at"] < began + took] for node in ("a", "b")}
    master, backup = sorted(shares, key=lambda node: -children[node])
    minute = max(len(found) for found in asked.values()) * 60 / max(took, 60.0)
    note = f"master; backup {shares[backup]:.2f} %; the application's check itself {children[master]:.2f} %"
    return [
        Row("agent CPU when idle", shares[master], "%", goal=0.2, note=note),
        Row("requests steady state", minute, "requests/min", goal=2, note=f"in {took:.0f} s, the busier node"),
    ]


def _children(pid: int) -> float:
    """CPU seconds of programs that a process has started and reaped."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / 100


def cold(quick: bool) -> list[Row]:
    """Without an agent: `awsha notify` starts a converge of its own; until its first request, and until it is done."""
    asked, mounted = [], []
    with BenchLab(keepalived=False, application=False, agent=False) as lab:
        log = Path(f"/proc/{lab.ask('enter', node='b')['pid']}/root/run/awsha/converge-data.log")
        for _ in range(2 if quick else 5):
            lab.vips_on_interface("b", lab.groups[0].vips, there=True)
            ran = lab.run("b", AWSHA, "notify", "master", "data").good()
            said = lab.wait_for(lambda ran=ran: [at for at, text in journal(log, ran.began) if HERE in text], HERE)
            asked.append(float(lab.requests(ran.began, "b")[0]["at"]) - ran.began)
            mounted.append(said[0] - ran.began)
            lab.vips_on_interface("b", lab.groups[0].vips, there=False)
            lab.run("b", awsha_command(), "converge", "data", "--role", "backup").good()
            lab.wait_for(lab.volumes_free, "b has let go")
    return [
        Row("cold path to wire", statistics.median(asked) * 1e3, "ms", note="awsha notify without an agent"),
        Row("cold path takeover", statistics.median(mounted), note="until converged, EC2 without delays"),
    ]
