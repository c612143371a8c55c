"""How many schedules of the simulation one core plays in a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from tests.bench.bench_lab import BenchError
from tests.bench.row import Row

TIMEOUT_S = 120.0


def simulate(quick: bool) -> list[Row]:
    """`python -m tests.sim --json` in one process."""
    count = 2000 if quick else 5000
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", "--schedules", str(count), "--seed", "1", "--jobs", "1", "--json"],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env={**os.environ, "AWSHA_LAB": "unused"},
    )  # fmt: skip
    took = time.monotonic() - began
    try:
        report = json.loads(done.stdout[done.stdout.index("{") :])
    except ValueError as error:
        raise BenchError(f"the simulation said: {(done.stderr or done.stdout)[-200:]}") from error
    found = report.get("violations", 0)
    note = f"{count}, one process" + (f"; it found {found} violations: make sim" if found else "")
    speed = next((float(report[key]) for key in ("schedules_per_s", "per_second", "speed") if key in report), None)
    return [Row("simulate", speed or count / took, "schedules/s", goal=2000, at_least=True, note=note)]
