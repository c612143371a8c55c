"""How many schedules of the simulation one core plays in a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.bench.bench_lab import BenchError
from tests.bench.row import Row

TIMEOUT_S = 120.0
BUILD_S = 900.0  # the first run compiles the simulation


def simulate(quick: bool) -> list[Row]:
    """`python -m tests.sim --json` in one process, by the time of its processor: other programs do not count."""
    count = 5000 if quick else 20000
    _run(1, BUILD_S)
    done = _run(count, TIMEOUT_S)
    try:
        report = json.loads(done.stdout[done.stdout.index("{") :])
    except ValueError as error:
        raise BenchError(f"the simulation said: {(done.stderr or done.stdout)[-200:]}") from error
    found = report.get("violations", 0)
    how = "compiled" if report["compiled"] else "interpreted: no compiler"
    note = f"{count}, one core, {how}" + (f"; it found {found} violations: make sim" if found else "")
    return [Row("simulate", float(report["per_cpu_second"]), "schedules/s", goal=2000, at_least=True, note=note)]


def _run(count: int, timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.sim", "--schedules", str(count), "--seed", "1", "--jobs", "1", "--json"],
        capture_output=True, text=True, timeout=timeout_s, check=False, env={**os.environ, "AWSHA_LAB": "unused"},
    )  # fmt: skip
