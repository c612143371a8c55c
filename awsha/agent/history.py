"""Keeps the history of a node's groups while they converge. Nothing here can delay or end a failover.

The loop's thread only notes; a thread of its own writes and waits for the disk. What can't be written is said once.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace

from awsha import notify
from awsha.agent import ledger
from awsha.agent.journal import Journal
from awsha.core.chronicle import Chronicle
from awsha.core.loop import Turn
from awsha.core.steps import Outcome, Step
from awsha.core.transition import Transition
from awsha.host.clock import boot_id, boottime

QUEUE_MOST = 200  # lines that wait for a disk; more are dropped, and counted
REQUESTS_MOST = 1000  # requests between two turns
Line = tuple[str, Transition]


class Writer:
    """Writes lines of all groups, in a thread that exists from the first line on."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """`say`: what is to be logged; called from that thread."""
        self._say = say
        self._lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._ledgers: dict[str, ledger.Ledger] = {}
        self._thread: threading.Thread | None = None
        self._lost = 0
        self._failing = False

    def put(self, transition: Transition) -> None:
        """Have a line written; never waits."""
        if self._lines.qsize() >= QUEUE_MOST:
            self._lost += 1
            return
        self._lines.put((transition.group, transition))
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="history", daemon=True)
            self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Have what waits written, and end; a disk that does not take it in time is left alone."""
        if self._thread is not None:
            self._lines.put(None)
            self._thread.join(timeout_s)

    def _write(self) -> None:
        while True:
            lines = [self._lines.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    lines.append(self._lines.get_nowait())
            for group in dict.fromkeys(entry[0] for entry in lines if entry):
                self._append(group, [entry[1] for entry in lines if entry and entry[0] == group])
            if None in lines:
                return

    def _append(self, group: str, transitions: list[Transition]) -> None:
        try:
            self._ledgers.setdefault(group, ledger.Ledger(group)).append(transitions)
        except Exception as error:  # noqa: BLE001  whatever it is, it is said, and the failover goes on
            self._lost += len(transitions)
            self._ledgers.pop(group, None)
            if not self._failing:
                self._failing = True
                self._say(f"can't be written, and everything else goes on without it: {error}")
            return
        self._failing = False
        if self._lost:
            lost, self._lost = self._lost, 0
            self._say(f"is written again; {lost} lines of it are lost")


class Recorder:
    """The history of one group. The converger's thread calls it; `request` may come from any."""

    def __init__(
        self,
        chronicle: Chronicle,
        writer: Writer,
        journal: Journal,
        group: str,
        also: Callable[[Transition], None] = lambda _: None,
    ) -> None:
        """`also` is told of each line that is written; quickly, and from any thread that makes one."""
        self._also = also
        self._chronicle: Chronicle | None = chronicle
        self._writer = writer
        self._journal = journal
        self._group = group
        self._requests: deque[tuple[str, float, float, str]] = deque(maxlen=REQUESTS_MOST)

    def turn(self, turn: Turn) -> None:
        """The loop has taken a turn."""

        def note(chronicle: Chronicle) -> list[Transition]:
            while self._requests:
                chronicle.request(*self._requests.popleft())
            return chronicle.turn(turn)

        self._guarded(note)

    def finished(self, step: Step, outcome: Outcome, took_s: float, now: float) -> None:
        """A step has ended."""

        def note(chronicle: Chronicle) -> list[Transition]:
            chronicle.finished(step, outcome, took_s, now)
            return []

        self._guarded(note)

    def request(self, action: str, seconds: float, code: str) -> None:
        """A request to EC2 has ended; it is noted at the next turn."""
        self._requests.append((action, boottime(), seconds, code))

    def close(self) -> None:
        """The loop ends, and what is under way is given up by this process."""
        self._guarded(lambda chronicle: chronicle.stop(boottime(), "awsha was stopped"))

    def _guarded(self, note: Callable[[Chronicle], list[Transition]]) -> None:
        """A defect in keeping the history ends the history, and nothing else."""
        if self._chronicle is None:
            return
        try:
            for transition in note(self._chronicle):
                self._writer.put(transition)
                self._also(transition)
            self._journal.transition(self._group, self._chronicle.current)
        except Exception as error:  # noqa: BLE001
            self._chronicle = None
            self._journal.say(self._group, f"its history ends here, by a defect: {type(error).__name__}: {error}")


RECORDER: ContextVar[Recorder | None] = ContextVar("RECORDER", default=None)  # whose requests a thread makes


def request(action: str, seconds: float, code: str) -> None:
    """A request to EC2, told by the thread that made it: it belongs to the group for which the thread works."""
    recorder = RECORDER.get()
    if recorder is not None:
        recorder.request(action, seconds, code)


def this_run() -> str:
    """This process: boot id, pid, start time."""
    return f"{boot_id()}:{os.getpid()}:{notify.start_ticks('self')}"


def runs(run: str) -> bool:
    """Whether the process of a transition still runs."""
    boot, _, process = run.partition(":")
    pid, _, ticks = process.partition(":")
    try:
        return boot == boot_id() and pid.isdigit() and notify.start_ticks(pid) == int(ticks)
    except (OSError, ValueError, IndexError):
        return False


def last(group: str) -> Transition | None:
    """The newest transition; None when there is none. One that ended with its process is interrupted. Raises OSError.

    Quick, however long the file is: only its last line that can be read is.
    """
    newest = ledger.newest(group)
    return newest if newest is None else _shown(newest)


def _shown(transition: Transition) -> Transition:
    """As it is told: one that is open is under way only while its process runs."""
    if not transition.open:
        return transition
    if not runs(transition.run):
        return transition.interrupted("the awsha process that did it has ended")
    return replace(transition, took=max(transition.took, time.time() - transition.began))


def transitions(group: str) -> ledger.Found:
    """A group's history, oldest first, each id once; what ended with its process is interrupted. Raises OSError."""
    found = ledger.read(group)
    newest = {t.run: index for index, t in enumerate(found.transitions)}
    told: dict[str, Transition] = {}
    for index, transition in enumerate(found.transitions):
        lost = transition.open and newest[transition.run] != index
        shown = transition.interrupted("its end was not written") if lost else _shown(transition)
        ending = ""
        while shown.id + ending in told:
            ending = f"-{int(ending[1:] or 1) + 1}"
        told[shown.id + ending] = replace(shown, id=shown.id + ending)
    return ledger.Found(tuple(told.values()), found.unreadable)
