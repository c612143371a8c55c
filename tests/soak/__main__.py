"""`python -m tests.soak --failovers N [--seed S] [--json]`: exit code 0 when nothing was lost and nothing went wrong.

Needs root. Ctrl-C, SIGTERM and failures take the lab away too; the logs of a failure stay below build/soak.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import time
from types import FrameType
from typing import Any

from awsha.core.errors import AwshaError
from tests.soak.run import Soak, SoakError


def main(argv: list[str]) -> int:
    """Run, print, and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--failovers", type=int, default=50, metavar="N")
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="default: a new one; it is printed")
    parser.add_argument("--rounds-a-lab", type=int, default=10, metavar="N", help="then a lab of another shape")
    parser.add_argument("--json", action="store_true", help="print a report for programs on stdout")
    parser.add_argument("--prefix", default=f"soak{os.getpid() % 1000000}", help="the lab's prefix (AWSHA_LAB)")
    wanted = parser.parse_args(argv)
    seed = wanted.seed if wanted.seed is not None else random.SystemRandom().randrange(1 << 32)
    signal.signal(signal.SIGTERM, _end)
    soak = Soak(wanted.prefix, seed, _say, wanted.rounds_a_lab)
    _say(f"seed {seed}")
    began, failure = time.monotonic(), ""
    try:
        soak.run(wanted.failovers)
    except (SoakError, AwshaError) as error:
        failure = str(error)
    except (KeyboardInterrupt, SystemExit):
        failure = "interrupted"
    report = _report(soak, failure, time.monotonic() - began)
    if wanted.json:
        print(json.dumps(report, indent=1))  # noqa: T201
    _say(
        f"seed {seed}: {report['failovers']} failovers in {report['seconds']} s, {report['acknowledged']} records, "
        f"outages: median {report['median_outage_s']} s, longest {report['longest_outage_s']} s"
        + (f"\nFAILED: {failure}" if failure else ": nothing lost, nothing twice, no violation")
    )
    return 1 if failure else 0


def _report(soak: Soak, failure: str, seconds: float) -> dict[str, Any]:
    outages = [done["outage_s"] for done in soak.rounds]
    return {
        "seed": soak.seed,
        "failovers": len(soak.rounds),
        "failure": failure,
        "acknowledged": soak.acknowledged,
        "lost": soak.lost,
        "duplicated": soak.duplicated,
        "violations": soak.violations,
        "median_outage_s": round(statistics.median(outages or [0.0]), 2),
        "longest_outage_s": max(outages, default=0.0),
        "seconds": round(seconds, 1),
        "rounds": soak.rounds,
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
