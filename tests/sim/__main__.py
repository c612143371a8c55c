"""`python -m tests.sim --schedules N --seed S [--index I] [--nodes 3] [--jobs J] [--json]`; for more: `--help`."""

# ruff: noqa: T201 - a command

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from tests.sim import schedule
from tests.sim.native.build import CannotBuild, built
from tests.sim.schedule import run

CHUNK = 2000
TRACES_MOST = 5
COMPILED = not schedule.__file__.endswith(".py")
SWEEP_EACH = 100  # schedules: what little they leave behind in circles (World.end)


@dataclass
class Report:
    """Many schedules."""

    schedules: int = 0
    steps: int = 0
    events: int = 0
    cpu_s: float = 0.0  # of all processes
    digest: int = 0  # of how each schedule went; the order does not matter
    violations: list[tuple[int, str]] = field(default_factory=list)  # (index, rule): what goes from process to process

    def add(self, other: Report) -> None:
        """Take in another part."""
        self.schedules += other.schedules
        self.steps += other.steps
        self.events += other.events
        self.cpu_s += other.cpu_s
        self.digest = (self.digest + other.digest) % 2**32
        self.violations += other.violations


def run_many(seed: int, first: int, count: int, nodes: int) -> Report:
    """Schedules `first` to `first + count - 1` of a seed."""
    report = Report()
    started = time.process_time()
    gc.collect()
    gc.freeze()  # modules and templates are not looked through again
    gc.disable()  # a schedule's world is a web of references: swept once in a while, not all the time
    for index in range(first, first + count):
        result = run(seed, index, nodes)
        report.schedules += 1
        report.steps += result.steps
        report.events += result.events
        told = f"{index} {result.steps} {result.events} {result.virtual_s!r} {result.rule} {result.text}"
        report.digest = (report.digest + zlib.crc32(told.encode())) % 2**32
        if result.rule:
            report.violations.append((index, result.rule))
        if index % SWEEP_EACH == 0:
            gc.collect(0)
    gc.enable()
    gc.unfreeze()
    report.cpu_s = time.process_time() - started
    return report


def _all(seed: int, first: int, count: int, nodes: int, jobs: int) -> Report:
    if jobs <= 1:
        return run_many(seed, first, count, nodes)
    report = Report()
    parts = [(seed, at, min(CHUNK, first + count - at), nodes) for at in range(first, first + count, CHUNK)]
    with ProcessPoolExecutor(jobs) as pool:
        for part in pool.map(run_many, *zip(*parts, strict=True)):
            report.add(part)
    return report


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--schedules", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--index", type=int, default=0, help="the first schedule of the seed to run")
    parser.add_argument("--nodes", type=int, default=2, choices=(2, 3))
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--trace", action="store_true", help="print the trace of a single schedule in any case")
    parser.add_argument("--mutants", action="store_true", help="print which rule notices each deliberately wrong node")
    parser.add_argument("--interpreted", action="store_true", help="do not compile the simulation first")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Exit 0: no violation. 1: some, each with the command that repeats it and its trace."""
    options = _arguments(argv)
    if options.mutants:
        from tests.sim import mutants

        for line in mutants.table(options.seed):
            print(line, flush=True)
        return 0
    started = time.perf_counter()
    report = _all(options.seed, options.index, options.schedules, options.nodes, options.jobs)
    seconds = time.perf_counter() - started
    shown = report.violations[:TRACES_MOST]
    for index, _ in shown:
        again = run(options.seed, index, options.nodes, trace=True)
        command = f"python -m tests.sim --seed {options.seed} --index {index} --schedules 1"
        command += f" --nodes {options.nodes}" if options.nodes != 2 else ""
        print(f"VIOLATION {again.rule}: {again.text}\nrepeat: {command}\n{again.trace}\n", file=sys.stderr)
    if options.trace and options.schedules == 1 and not shown:
        print(run(options.seed, options.index, options.nodes, trace=True).trace, file=sys.stderr)
    rate = report.schedules / seconds
    if options.json:
        rules: dict[str, int] = {}
        for _, rule in report.violations:
            rules[rule] = rules.get(rule, 0) + 1
        told = {
            "schedules": report.schedules,
            "violations": len(report.violations),
            "steps": report.steps,
            "events": report.events,
            "digest": f"{report.digest:08x}",
            "compiled": COMPILED,
            "seconds": round(seconds, 3),
            "per_second": round(rate, 1),
            "cpu_seconds": round(report.cpu_s, 3),
            "per_cpu_second": round(report.schedules / report.cpu_s, 1),
            "seed": options.seed,
            "first": options.index,
            "nodes": options.nodes,
            "jobs": options.jobs,
            "rules": rules,
            "repeat": [f"--seed {options.seed} --index {index} --schedules 1" for index, _ in report.violations[:50]],
        }
        print(json.dumps(told, indent=2))
    else:
        print(
            f"{report.schedules} schedules, {len(report.violations)} violations, {report.steps} turns, "
            f"{report.events} events in {seconds:.1f} s: {rate:.0f} a second "
            f"({report.schedules / report.cpu_s:.0f} a second of one processor)"
        )
    return 1 if report.violations else 0


def command() -> int:
    """`python -m tests.sim`: main(), in the compiled simulation if there can be one."""
    if not COMPILED and not (_arguments(None).interpreted or _arguments(None).mutants):
        try:
            path = os.pathsep.join([str(built()), *filter(None, [os.environ.get("PYTHONPATH")])])
        except CannotBuild as error:
            print(f"tests.sim: interpreted, which is slower: {error}", file=sys.stderr)
        else:
            arguments = [sys.executable, "-P", "-m", "tests.sim", *sys.argv[1:]]
            os.execve(sys.executable, arguments, {**os.environ, "PYTHONPATH": path})  # noqa: S606 - itself again
    return main()


if __name__ == "__main__":
    sys.exit(command())
