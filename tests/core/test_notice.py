"""Which transitions somebody is told of. The transitions are the chronicle's own, of a real loop fed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from awsha.core.handover import LiftMark, lift
from awsha.core.model import ApplicationState, Role
from awsha.core.notice import SUBJECT_MOST, Event, notice, trial
from awsha.core.steps import SetMark
from awsha.core.transition import Act, Cause, End, Transition
from awsha.core.volumes import FENCED
from tests.core.situations import STALE, B, cloud, volume
from tests.core.test_transition import HELD, NOTHING, Recorded, settled

DID = (Act("Attach", "attach (vol-1)", "vol-1", 0.1, 0.2, True),)
TAKEN = Transition(
    "data-1", "data", "b", "r", 1795389301.4, Cause("role", "MASTER, was BACKUP"), "master", "master", End.CONVERGED,
    "everything is here", 8.43, 8.4, steps=DID,
)  # fmt: skip
LEFT = replace(TAKEN, goal="release", role="backup", text="nothing is here", serving_at=None)
FENCE = Act("SetMark", "mark (mark:fenced)", SetMark(FENCED).resource, 0.1, 0.1, True)
LIFT = replace(FENCE, step=LiftMark.__name__, resource=lift("switchover:9.0").resource)

CASES: dict[str, tuple[Transition, Event | None]] = {
    "taken over": (TAKEN, Event.TAKEN),
    "taken by a start": (replace(TAKEN, cause=Cause("start", "the agent's start: attach")), Event.TAKEN),
    "restored": (replace(TAKEN, cause=Cause("drift", "while master: application start")), Event.RESTORED),
    "nothing to do": (replace(TAKEN, steps=()), None),
    "only failures": (replace(TAKEN, steps=(replace(DID[0], ok=False),)), None),
    "let go": (LEFT, Event.RELEASED),
    "a switchover that is over": (replace(LEFT, steps=(LIFT,)), None),
    "a standby that had nothing": (replace(LEFT, steps=()), None),
    "fenced": (replace(LEFT, cause=Cause("fenced", "while master: its disk is gone"), steps=(FENCE,)), Event.FENCED),
    "fenced while letting go": (replace(LEFT, steps=(*DID, FENCE)), Event.FENCED),
    "a fence that is over": (replace(LEFT, cause=Cause("fenced", "the fence is over"), steps=(FENCE,)), None),
    "blocked": (replace(TAKEN, end=End.BLOCKED, text="b holds vol-1"), Event.FAILED),
    "blocked while letting go": (replace(LEFT, end=End.BLOCKED, text="pid 7 holds it"), Event.FAILED),
    "gave way": (replace(TAKEN, end=End.OVERTAKEN, text="by FAULT, was MASTER", serving_at=None), Event.FAILED),
    "gave way after it had served": (replace(TAKEN, end=End.OVERTAKEN, text="by FAULT, was MASTER"), None),
    "overtaken by VRRP": (replace(TAKEN, end=End.OVERTAKEN, text="by BACKUP, was MASTER", serving_at=None), None),
    "under way": (replace(TAKEN, end=End.UNDER_WAY), None),
    "interrupted": (replace(TAKEN, end=End.INTERRUPTED, text="awsha was stopped"), None),
    "paused": (replace(TAKEN, end=End.LOOKING, goal="look"), None),
}


@pytest.mark.parametrize("name", CASES)
def test_who_is_told_of_what(name: str):
    transition, event = CASES[name]
    told = notice(transition)
    assert (told.event if told else None) == event
    if told is not None:
        assert told.transition.node in told.text
        assert told.transition.group in told.text
        assert "\n" not in told.text


def test_what_is_told():
    told = notice(TAKEN)
    assert told is not None
    assert told.text == "b has taken data over after 8.4 s: MASTER, was BACKUP"
    assert told.as_dict() == {
        "event": "taken", "text": told.text, "group": "data", "node": "b", "transition": "data-1",
        "cause": {"kind": "role", "text": "MASTER, was BACKUP", "by": ""}, "role": "master", "goal": "master",
        "end": "converged", "details": "everything is here", "began": "2026-11-22T23:15:01Z", "took_s": 8.43,
        "serving_after_s": 8.4,
    }  # fmt: skip


def test_a_subject_is_what_sns_takes():
    told = notice(replace(TAKEN, node="ü" * 200))
    assert told is not None
    assert len(told.subject) == SUBJECT_MOST
    assert told.subject.isascii()
    assert "nothing has happened" in trial("data", "a", 1e9).text


# --- from the loop ----------------------------------------------------------------------------------------------------


def events(bench: Recorded) -> list[Event]:
    """What was told of all lines that were written, each once."""
    told = (notice(line) for line in bench.lines)
    return list(dict.fromkeys(n.event for n in told if n is not None))


def test_a_start_that_finds_everything_as_it_should_be_tells_nothing():
    bench = Recorded(Role.BACKUP)
    bench.tell(**NOTHING)
    assert events(bench) == []


def test_an_application_that_is_started_again_is_restored():
    bench = settled()
    (start,) = bench.see(app=ApplicationState.STOPPED)
    bench.end(start, later=0.1)
    bench.see(**HELD)
    assert events(bench) == [Event.RESTORED]


def test_a_master_whose_disk_is_gone_is_fenced_once_and_nothing_else():
    bench = settled()
    gone = {"cloud": cloud(volume((B, "attached")), "b"), "disk": STALE, "vips": frozenset[str]()}
    (mark,) = bench.see(**gone)
    bench.ambient = replace(bench.ambient, marks=frozenset({FENCED}))
    bench.end(mark, later=0.1)
    for step in [*bench.loop.running, *bench.see(**gone, app=ApplicationState.STOPPED)]:
        bench.end(step, later=0.1)
    for step in bench.see(**gone, app=ApplicationState.STOPPED):
        bench.end(step, later=0.1)
    bench.see(**NOTHING)
    assert events(bench) == [Event.FENCED]
