"""`python -m tests.bench [--only NAME…] [--quick]`: how much of an outage is awsha's own, into build/bench.json.

Needs root. Every figure is measured side by side with what it is compared with, in the same run. No timing is asserted:
the exit code is 0 when every row has a figure, whether it reaches its goal or not; 1 when one could not be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from rich.console import Console

from awsha.core.errors import AwshaError
from tests.bench import address, agent, crash, simulate, takeover
from tests.bench.bench_lab import BenchError
from tests.bench.row import Row, markdown, show, write

REPORT = Path(__file__).parents[2] / "build" / "bench.json"
BENCHES: dict[str, Callable[[bool], list[Row]]] = {
    "notify_to_wire": address.notify_to_wire,
    "vip_vs_awsvip": address.vip_vs_awsvip,
    "takeover": takeover.takeover,
    "outages": crash.outages,
    "scaling": takeover.scaling,
    "agent": agent.memory,
    "idle": agent.idle,
    "cold": agent.cold,
    "simulate": simulate.simulate,
}
# Rows of one bench that somebody may ask for by the name of the row.
ALIASES = {
    "requests": "takeover", "release": "takeover", "takeover_fenced": "outages", "switchover_outage": "outages",
    "failover_outage": "outages",
}  # fmt: skip
WIDTH = 150


def main(argv: list[str]) -> int:
    """Run the benches, print the table, write the report."""
    names = [*BENCHES, *ALIASES]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="fewer rounds: to develop with, not to report")
    wanted = parser.parse_args(argv)
    # No AWS tool may find anything but the lab, whatever the environment says.
    os.environ.update(AWS_EC2_METADATA_DISABLED="true", AWS_ACCESS_KEY_ID="none", AWS_SECRET_ACCESS_KEY="none")
    signal.signal(signal.SIGTERM, _end)
    chosen = list(dict.fromkeys(ALIASES.get(name, name) for name in wanted.only)) if wanted.only else list(BENCHES)
    rows: list[Row] = []
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    for name in chosen:
        began = time.monotonic()
        rows += _measured(name, wanted.quick)
        console.print(f"[dim]{name}: {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}[/dim]")
    every = _merged(rows) if wanted.only else rows
    write(every, REPORT)
    REPORT.with_suffix(".md").write_text(markdown(every))
    show(rows, console)
    missed = [row.name for row in rows if not row.holds]
    console.print(f"{len(rows) - len(missed)} of {len(rows)} hold" + (f"; not: {', '.join(missed)}" if missed else ""))
    return 1 if any(row.judged is None for row in rows) else 0


def _measured(name: str, quick: bool) -> list[Row]:
    """One bench's rows; a bench that fails says why, and the others go on."""
    try:
        return BENCHES[name](quick)
    except (BenchError, AwshaError, OSError, subprocess.SubprocessError, ValueError) as error:
        return [Row(name, None, failed=f"{type(error).__name__}: {str(error)[:300]}")]
    except Exception as error:  # noqa: BLE001  a defect of one bench must not cost the figures of the others
        traceback.print_exc()
        return [Row(name, None, failed=f"{type(error).__name__}: {error}")]


def _merged(rows: list[Row]) -> list[Row]:
    """Rows of a partial run; those of the report that it does not replace stay."""
    try:
        before = json.loads(REPORT.read_text())
        kept = [_from_json(entry) for entry in before if entry["name"] not in {row.name for row in rows}]
    except (OSError, ValueError, KeyError, TypeError):
        kept = []
    return [*kept, *rows]


def _from_json(entry: dict[str, object]) -> Row:
    goal = str(entry["goal"] or "")
    number = [entry[key] for key in ("value", "baseline", "ratio")]
    value, baseline, ratio = (float(n) if isinstance(n, int | float) else None for n in number)
    return Row(
        str(entry["name"]), value, str(entry["unit"]), baseline, ratio,
        float(goal[1:]) if goal else None, at_least=goal.startswith("≥"), note=str(entry.get("note", "")),
    )  # fmt: skip


def _end(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM takes the labs down as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
