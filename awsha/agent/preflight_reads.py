"""Runs the reads of `awsha check` side by side, bounded; one that fails becomes a finding, never silence."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from awsha.aws import permissions
from awsha.aws.errors import Ec2Error, Kind
from awsha.core import judge_cloud
from awsha.core.cloudfacts import Refusal
from awsha.core.errors import AwshaError
from awsha.core.findings import Code, Finding
from awsha.core.model import Unknown

READ_S = 9.0  # longer than any read's own bound
Progress = Callable[[int, int, str], None]  # (done, of how many, what was read last)
Task = Callable[[], Any]


class Reads:
    """Runs tasks side by side, keeps their answers, and turns failures into findings."""

    def __init__(self, progress: Progress) -> None:
        self.findings: list[Finding] = []
        self.names: list[str] = []
        self._progress = progress
        self._total = 0
        self._silent: dict[tuple[str, str], list[str]] = {}  # (reason, hint) -> reads

    def run(self, tasks: Mapping[str, Task]) -> dict[str, Any]:
        """The answer of each task; Unknown for one that failed or was too slow. Threads that hang are left behind."""
        answers: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._total += len(tasks)
        for name, task in tasks.items():
            threading.Thread(target=_answer, args=(name, task, answers), name=f"check {name}", daemon=True).start()
        found: dict[str, Any] = {}
        deadline = time.monotonic() + READ_S
        while len(found) < len(tasks):
            try:
                name, value = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            found[name] = self._taken(name, value)
            self._progress(len(self.names) + len(found), self._total, name)
        for name in tasks:
            if name not in found:
                found[name] = self._unanswered(name, f"no answer within {READ_S:g} s", "")
        self.names += tasks
        return found

    def _taken(self, name: str, value: object) -> object:
        if isinstance(value, Ec2Error) and value.kind is Kind.DENIED:
            self.findings += denied(value, name)
            return Unknown(value.message)
        if isinstance(value, Ec2Error):
            return self._unanswered(name, value.message.removeprefix(f"{value.action}: "), value.hint)
        if isinstance(value, AwshaError):
            return self._unanswered(name, value.message, value.hint)
        if isinstance(value, OSError) and value.filename and value.strerror:
            hint = "run it as root" if isinstance(value, PermissionError) else ""
            return self._unanswered(name, f"{value.filename} cannot be read: {value.strerror}", hint)
        if isinstance(value, Exception):
            return self._unanswered(name, f"{type(value).__name__}: {value}", "")
        if isinstance(value, Unknown):
            return self._unanswered(name, value.reason, "")
        return value

    def _unanswered(self, name: str, reason: str, hint: str) -> Unknown:
        self._silent.setdefault((reason, hint), []).append(name)
        return Unknown(reason)

    def all_findings(self) -> list[Finding]:
        """The failures of all reads; those with one reason are one finding."""
        silent = [
            Finding(Code.NO_ANSWER, f"{', '.join(names)}: {reason}", names[0], hint)
            for (reason, hint), names in self._silent.items()
        ]
        return [*self.findings, *silent]


def denied(error: Ec2Error, name: str) -> list[Finding]:
    """The finding for a read that EC2 refused. `name`: what was to be read."""
    purpose = permissions.PURPOSES.get(error.action, name)
    return judge_cloud.permissions([Refusal(f"ec2:{error.action}", "*", purpose)])


def _answer(name: str, task: Task, answers: queue.SimpleQueue[tuple[str, Any]]) -> None:
    try:
        answers.put((name, task()))
    except Exception as error:  # noqa: BLE001 - whatever a read trips over, it is a finding
        answers.put((name, error))
