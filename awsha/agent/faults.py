"""How often this node failed as master: a file, RUN/faults/GROUP, that outlives roles and the agent, but no boot."""

from __future__ import annotations

import json
import math
from typing import Any

from awsha.agent.paths import private_dir, read_small, run_dir, write_atomically
from awsha.core.model import Faults
from awsha.host.clock import boot_id, boottime

TEXT_MOST = 500  # characters of the reason; the file is read in one piece


class FaultRecord:
    """The record of one group."""

    def __init__(self, group: str) -> None:
        self._file = run_dir() / "faults" / group
        self._unwritten: Faults | None = None  # when it could not be written: this process at least remembers

    def get(self) -> Faults | None:
        """The series of failures; None when there is none, or when the file is of another boot or broken."""
        if self._unwritten is not None:
            return self._unwritten
        try:
            text = read_small(str(self._file))
        except OSError:
            return None
        try:
            return _read(json.loads(text))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def put(self, faults: Faults | None) -> None:
        """Keep a series, or forget it."""
        self._unwritten = None
        try:
            if faults is None:
                self._file.unlink(missing_ok=True)
                return
            told = {"boot": boot_id(), "times": faults.times, "at": faults.at, "text": faults.text[:TEXT_MOST]}
            write_atomically(private_dir(self._file.parent) / self._file.name, json.dumps(told) + "\n")
        except OSError:
            self._unwritten = faults


def _read(told: Any) -> Faults | None:  # noqa: ANN401  whatever stands in the file
    """A series, when it is one of this boot that can be: a failure in the future would keep a node out for long."""
    times, at, text = told["times"], told["at"], told["text"]
    sound = type(times) is int and times > 0 and type(at) is float and math.isfinite(at) and isinstance(text, str)
    return Faults(times, at, text) if sound and told["boot"] == boot_id() and at <= boottime() else None
