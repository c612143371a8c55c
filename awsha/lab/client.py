"""A client of the lab's application: writes numbered records through the VIP and notes every acknowledgement.

`python -m awsha.lab.client SPEC` (JSON: address, port, ledger, netns, cgroup, pause_s) runs until SIGTERM. The ledger
has a line for each event: `+ <time>` began, `- <time>` ended, `<number> <time>` acknowledged; times are
CLOCK_MONOTONIC seconds.
`report` compares the ledger with what the application still has.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from awsha.lab import linux

REQUEST_TIMEOUT_S = 0.25
RETRY_PAUSE_S = 0.02
DUMP_TIMEOUT_S = 10.0
OUTAGE_S = 0.25  # a longer silence between two acknowledgements is an outage


def main(argv: list[str]) -> int:
    """Join the client's namespace and cgroup, then write until told to stop."""
    spec = json.loads(argv[0])
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    linux.join_cgroup(Path(spec["cgroup"]))
    linux.setns_path(linux.netns_path(spec["netns"]), linux.CLONE_NEWNET)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    write_records((spec["address"], spec["port"]), Path(spec["ledger"]), spec["pause_s"], stop)
    return 0


def write_records(where: tuple[str, int], ledger: Path, pause_s: float, stop: threading.Event) -> None:
    """Write record after record, each until it is acknowledged, and note it; `pause_s` between two."""
    number = max(read_ledger(ledger).acknowledged, default=0)
    fd = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.write(fd, f"+ {time.monotonic():.6f}\n".encode())
    connection: Connection | None = None
    while not stop.is_set():
        number += 1
        while not stop.is_set():
            try:
                connection = connection or Connection(where, REQUEST_TIMEOUT_S)
                connection.write(number)
            except OSError:
                if connection is not None:
                    connection.close()
                connection = None
                stop.wait(RETRY_PAUSE_S)
                continue
            os.write(fd, f"{number} {time.monotonic():.6f}\n".encode())
            break
        stop.wait(pause_s)
    os.write(fd, f"- {time.monotonic():.6f}\n".encode())
    os.close(fd)


class Connection:
    """One connection to the application. Every method raises OSError when it is not answered in time."""

    def __init__(self, where: tuple[str, int], timeout_s: float, connected: socket.socket | None = None) -> None:
        """Connect, or take over a connected socket."""
        self._socket = connected or socket.create_connection(where, timeout_s)
        self._socket.settimeout(timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def write(self, number: int) -> None:
        """Have one record acknowledged."""
        self._socket.sendall(b"W %d\n" % number)
        answer = self._file.readline()
        if answer.split() != [b"OK", b"%d" % number]:
            raise OSError(f"not acknowledged: {answer!r}")

    def dump(self) -> list[int]:
        """Every number that the application has, in the order of its file."""
        self._socket.sendall(b"DUMP\n")
        head = self._file.readline().split()
        if len(head) != 2 or head[0] != b"N":
            raise OSError(f"no dump: {head!r}")
        numbers = [self._file.readline() for _ in range(int(head[1]))]
        if numbers and not numbers[-1].endswith(b"\n"):
            raise OSError("the dump broke off")
        return [int(number) for number in numbers]

    def close(self) -> None:
        """Let go."""
        self._file.close()
        self._socket.close()


@dataclass(slots=True)
class Ledger:
    """What a client noted. `silences`: (start, end, still open) between two acknowledgements of one run."""

    acknowledged: dict[int, float] = field(default_factory=dict)
    silences: list[tuple[float, float, bool]] = field(default_factory=list)
    running: bool = False


def read_ledger(path: Path, now: float | None = None) -> Ledger:
    """Parse a ledger; a missing one is empty. With `now`, a silence that is going on ends there."""
    ledger = Ledger()
    last: float | None = None
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return ledger
    for line in lines:
        word, _, stamp = line.partition(" ")
        at = float(stamp)
        if word == "+":
            ledger.running, last = True, at
            continue
        if last is not None:
            ledger.silences.append((last, at, False))
        if word == "-":
            ledger.running, last = False, None
        else:
            ledger.acknowledged[int(word)] = last = at
    if ledger.running and last is not None and now is not None:
        ledger.silences.append((last, now, True))
    return ledger


@dataclass(frozen=True, slots=True)
class Report:
    """What a client saw. Times are Unix seconds, durations seconds; None: could not be told, `reason` says why."""

    acknowledged: int
    lost: int | None
    duplicated: int | None
    longest_outage_s: float
    outages: list[dict[str, Any]]
    running: bool
    reason: str = ""
    lost_numbers: list[int] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def report(ledger: Ledger, stored: list[int] | None, reason: str = "") -> Report:
    """Compare a ledger with every number that the application has (None: it could not be read, for this reason)."""
    offset = time.time() - time.monotonic()
    outages = [_outage(*silence, offset) for silence in ledger.silences if silence[1] - silence[0] > OUTAGE_S]
    lost = None if stored is None else sorted(set(ledger.acknowledged) - set(stored))
    duplicated = None if stored is None else sum(1 for count in Counter(stored).values() if count > 1)
    return Report(
        len(ledger.acknowledged),
        None if lost is None else len(lost),
        duplicated,
        max((float(outage["duration"]) for outage in outages), default=0.0),
        outages,
        ledger.running,
        reason,
        (lost or [])[:20],
    )


def _outage(start: float, end: float, going_on: bool, offset: float) -> dict[str, Any]:
    times = {"start": start + offset, "end": end + offset, "duration": end - start}
    return {**{name: round(value, 3) for name, value in times.items()}, "open": going_on}


def merge(reports: dict[str, Report]) -> dict[str, Any]:
    """One report of several groups' clients: sums, the longest outage, and each group's own under `groups`."""
    every = list(reports.values())

    def total(values: list[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return sum(known) if len(known) == len(values) else None

    return {
        "acknowledged": sum(one.acknowledged for one in every),
        "lost": total([one.lost for one in every]),
        "duplicated": total([one.duplicated for one in every]),
        "longest_outage_s": max((one.longest_outage_s for one in every), default=0.0),
        "outages": sorted((outage for one in every for outage in one.outages), key=lambda o: float(o["start"])),
        "running": any(one.running for one in every),
        "reason": "; ".join(f"{name}: {one.reason}" for name, one in reports.items() if one.reason),
        "groups": {name: one.to_json() for name, one in reports.items()},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
