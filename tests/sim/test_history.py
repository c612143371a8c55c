"""The chronicle over simulated disasters: whatever a loop goes through, what is recorded of it is sound and bounded."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest

from awsha.core.chronicle import DRAFTS_MOST, Chronicle
from awsha.core.loop import Ambient, Loop, Turn
from awsha.core.model import Self
from awsha.core.policy import Group
from awsha.core.steps import Outcome, Step
from awsha.core.transition import ITEMS_MOST, End, Transition, as_dict, ec2_seconds, from_dict
from tests.sim.schedule import run
from tests.sim.wiring import REAL

EPSILON_S = 1e-6


class Watched(Loop):
    """A loop with a chronicle, as the agent's converger has one."""

    made: list[Watched] = []  # noqa: RUF012  emptied by the test

    def __init__(self, group: Group, me: Self) -> None:
        super().__init__(group, me)
        self.chronicle: Chronicle | None = None
        self.lines: list[Transition] = []
        self.started: dict[str, float] = {}
        self.last: Turn | None = None
        self.made.append(self)

    def turn(self, now: float, wall: float, ambient: Ambient) -> Turn:
        turn = super().turn(now, wall, ambient)
        if self.chronicle is None:
            self.chronicle = Chronicle(self.group.name, self.me.name, f"run:{len(self.made)}", now)
        for step in turn.start:
            self.started[step.resource] = now
        self.lines += self.chronicle.turn(turn)
        self.last = turn
        return turn

    def finished(self, step: Step, outcome: Outcome, now: float) -> None:
        super().finished(step, outcome, now)
        if self.chronicle is not None:
            took = now - self.started.get(step.resource, now)
            self.chronicle.request("DescribeVolumes", now, took, "ok" if outcome.ok else "InternalError")
            self.chronicle.finished(step, outcome, took, now)


def sound(line: Transition) -> None:
    """What holds for every line."""
    assert line.took >= 0
    assert len(line.steps) <= ITEMS_MOST
    assert len(line.waits) <= ITEMS_MOST
    for act in line.steps:
        assert -EPSILON_S <= act.at <= act.at + act.took <= line.took + EPSILON_S, act
    for wait in line.waits:
        assert -EPSILON_S <= wait.at <= wait.until <= line.took + EPSILON_S, wait
    assert line.serving_at is None or 0 <= line.serving_at <= line.took + EPSILON_S
    assert ec2_seconds(line) <= line.took + EPSILON_S
    assert as_dict(from_dict(as_dict(line))) == as_dict(line)


@pytest.mark.parametrize("nodes", [2, 3])
def test_whatever_happens_what_is_recorded_is_sound(nodes: int):
    ends: defaultdict[End, int] = defaultdict(int)
    causes: defaultdict[str, int] = defaultdict(int)
    for index in range(300):
        Watched.made = []
        run(7, index, nodes, wiring=replace(REAL, loop=Watched))
        for loop in Watched.made:
            for line in loop.lines:
                sound(line)
            ids = [line.id for line in loop.lines]
            assert all(ids.count(name) <= DRAFTS_MOST + 2 for name in set(ids))
            kept = list({line.id: line for line in loop.lines}.values())
            assert all(not line.open for line in kept[:-1]), "one at a time"
            if loop.last is not None and loop.last.plan.done:
                assert not kept or not kept[-1].open, "a goal that is reached is the end of it"
            for line in kept:
                ends[line.end] += 1
                causes[line.cause.kind] += 1
    assert ends.keys() >= {End.CONVERGED, End.OVERTAKEN, End.UNDER_WAY, End.LOOKING}, ends
    assert causes.keys() == {"role", "mark", "keepalived", "drift", "start", "fenced"}, causes
