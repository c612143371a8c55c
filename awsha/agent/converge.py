"""Drives one group's loop with threads and real clocks: reads and steps run side by side, results are events."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from awsha.agent import intent as intents
from awsha.agent.execute import Executor
from awsha.agent.faults import FaultRecord
from awsha.agent.history import RECORDER, Recorder
from awsha.agent.journal import Journal
from awsha.core.loop import Ambient, Loop, Turn
from awsha.core.model import Intent, Self
from awsha.core.steps import Outcome, Scope, Step
from awsha.host.clock import boottime

WORKERS = 12
TURN_MOST_S = 2.0  # the loop turns at least this often: a wake-up can be missed


@dataclass(frozen=True)
class _Read:
    scope: Scope
    value: object


@dataclass(frozen=True)
class _Finished:
    step: Step
    outcome: Outcome
    took_s: float


@dataclass(frozen=True)
class _Poke:
    scopes: tuple[Scope, ...]


class Converger:
    """One group on this node. `poke` may be called from any thread; the rest from one."""

    def __init__(
        self,
        loop: Loop,
        hands: Executor,
        journal: Journal,
        keepalived_gone_since: Callable[[tuple[int, int] | None], float | None],
        history: Recorder | None = None,
    ) -> None:
        self.loop = loop
        self.hands = hands
        self.journal = journal
        self.history = history
        self.last: Turn | None = None
        self._gone_since = keepalived_gone_since
        self._faults = FaultRecord(loop.group.name)
        self._events: queue.SimpleQueue[_Read | _Finished | _Poke] = queue.SimpleQueue()
        self._workers = ThreadPoolExecutor(
            WORKERS, thread_name_prefix=loop.group.name, initializer=RECORDER.set, initargs=(history,)
        )

    def poke(self, *scopes: Scope) -> None:
        """Something happened: look at these kinds of facts at once; with none, only take a turn."""
        self._events.put(_Poke(scopes))

    def identified(self, me: Self) -> None:
        """The peers are other instances than was thought."""
        self.loop.me = self.hands.me = self.hands.observer.me = me

    def turns(self) -> Iterator[Turn]:
        """Turn after turn, until the caller stops asking; each waits for an event, or for the time that was named."""
        while True:
            yield self.turn()
            assert self.last is not None  # noqa: S101
            due = min(self.last.wake_at, boottime() + TURN_MOST_S)
            while not self._wait(due - boottime()) and boottime() < due:
                pass

    def turn(self) -> Turn:
        """Take in the newest intent, decide, and set going what was decided."""
        intent = intents.newest(self.loop.group.name)
        if intent != self.loop.intent:
            self.journal.intent(self.loop.group.name, intent)
        self.loop.set_intent(intent)
        gone = self._gone_since(intent.keepalived if intent else None)
        faults = self._faults.get()
        heard, hooks = self.hands.hearing.heard(self.loop.group), self.hands.hooks.points()
        ambient = Ambient(heard, gone, self.hands.marks.all(), faults, hooks)
        turn = self.loop.turn(boottime(), time.time(), ambient)
        if turn.verdict.faults != faults:
            self._faults.put(turn.verdict.faults)  # before keepalived is told: a crash in between forgets nothing
        for scope in turn.read:
            self._workers.submit(self._read, scope)
        for step in turn.start:
            self.journal.started(self.loop.group.name, step)
            self._workers.submit(self._run, step, intent)
        if self.history is not None:
            self.history.turn(turn)
        self.journal.turn(self.loop.group.name, turn)
        self.last = turn
        return turn

    def _read(self, scope: Scope) -> None:
        self._events.put(_Read(scope, self.hands.observer.read(scope)))

    def _run(self, step: Step, planned: Intent | None) -> None:
        started = boottime()
        outcome = self.hands.run(step, planned)
        self._events.put(_Finished(step, outcome, boottime() - started))

    def _wait(self, timeout_s: float) -> bool:
        """Wait for one event, then take in all that have come. True when there is something to decide."""
        news = False
        with contextlib.suppress(queue.Empty):
            news = self._take(self._events.get(timeout=max(timeout_s, 0.0)))
            while True:
                news |= self._take(self._events.get_nowait())
        return news

    def _take(self, event: _Read | _Finished | _Poke) -> bool:
        """Take one event in. False when nothing is to be decided anew: at rest, a look that shows what is known."""
        now = boottime()
        match event:
            case _Read(scope, value):
                before = self._facts()
                self.loop.read(scope, value, now)
                rests = self.last is not None and self.last.plan.done and not self.loop.looks_at_once()
                return not rests or self._facts() != before
            case _Finished(step, outcome, took_s):
                self.loop.finished(step, outcome, now)
                if self.history is not None:
                    self.history.finished(step, outcome, took_s, now)
                self.journal.finished(self.loop.group.name, step, outcome, took_s)
            case _Poke(scopes):
                self.loop.poke(*scopes)
        return True

    def _facts(self) -> tuple[object, ...]:
        """What looks have shown."""
        loop = self.loop
        return loop.cloud, loop.disks, loop.vips, loop.application, loop.memory

    def close(self, timeout_s: float) -> None:
        """Wait for steps under way, at most `timeout_s`; they are bounded by their own time-outs."""
        deadline = boottime() + timeout_s
        while self.loop.running and boottime() < deadline:
            self._wait(min(0.2, deadline - boottime()))
        if self.history is not None:
            self.history.close()
        self._workers.shutdown(wait=False, cancel_futures=True)
