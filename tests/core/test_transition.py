"""Turns to transitions: what is recorded, when, and what it says. The loop is the real one, fed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awsha.core.chronicle import DRAFTS_MOST, Chronicle
from awsha.core.loop import Ambient, Loop
from awsha.core.model import ApplicationState, AttachmentState, CloudFacts, Role, Unknown
from awsha.core.plan import PAUSED, RELEASED
from awsha.core.steps import Outcome, SetMark, Step
from awsha.core.transition import (
    ITEMS_MOST,
    TEXT_MOST,
    End,
    Transition,
    Whose,
    as_dict,
    clean,
    ec2_seconds,
    from_dict,
    new_id,
    union,
)
from awsha.core.volumes import FENCED
from tests.core.situations import ABSENT, GROUP, ME, MOUNTED, NOW, PRESENT, STALE, VIP, A, B, cloud, intent, volume
from tests.core.test_loop import AMBIENT, Bench

HELD = {
    "cloud": cloud(volume((A, "attached")), "a"),
    "disk": MOUNTED,
    "vips": frozenset({VIP}),
    "app": ApplicationState.RUNNING,
}
NOTHING = {
    "cloud": cloud(volume((B, "attached")), "b"),
    "disk": ABSENT,
    "vips": frozenset[str](),
    "app": ApplicationState.STOPPED,
}


class Recorded(Bench):
    """A loop with a chronicle that watches it."""

    def __init__(self, role: Role | None = Role.MASTER, *, said: float = 0.0, began: float = -100.0) -> None:
        """`said`, `began`: when the role was said, and the process began; seconds from now."""
        self.lines: list[Transition] = []
        self.loop = Loop(GROUP, ME)
        self.now = NOW
        self.ambient = AMBIENT
        self.chronicle = Chronicle("data", "a", "boot:1:1", self.now + began)
        if role is not None:
            self.say(role, said)

    def say(self, role: Role, ago: float = 0.0, order: int = 1) -> None:
        self.loop.set_intent(replace(intent(role, order), recorded_at=self.now + ago))
        self.turn()

    def turn(self, later: float = 0.0):
        turn = super().turn(later)
        self.lines += self.chronicle.turn(turn)
        return turn

    def end(self, step: Step, later: float = 0.0, **how: object):
        self.now += later
        outcome = Outcome(**{"ok": True, **how})  # type: ignore[arg-type]
        self.loop.finished(step, outcome, self.now)
        self.chronicle.finished(step, outcome, later, self.now)
        return self.turn()

    def see(self, **facts: object) -> list[Step]:
        """Answer all reads until nothing is to be read at once; the steps that were started on the way."""
        started: list[Step] = []
        for _ in range(4):
            started += self.tell(**facts).start
        return started

    @property
    def kept(self) -> list[Transition]:
        """As a reader sees it: the last line of each."""
        return list({line.id: line for line in self.lines}.values())

    @property
    def newest(self) -> Transition:
        return self.kept[-1]


def settled(role: Role = Role.MASTER) -> Recorded:
    """Converged, with nothing recorded so far."""
    bench = Recorded(role, said=-1000.0)
    bench.tell(**(HELD if role is Role.MASTER else NOTHING))
    assert bench.last.plan.done
    assert bench.lines == []
    return bench


def test_a_takeover_from_the_notify_to_the_last_step():
    bench = Recorded(Role.MASTER)
    bench.tell(**{**NOTHING, "cloud": cloud(volume()), "vips": frozenset({VIP})})
    (attach,) = bench.last.start
    turn = bench.end(attach, later=0.1, learned=volume((A, "attaching")))
    (assign,) = turn.start
    bench.end(assign, later=0.1)
    bench.turn(1.0)
    seen = {"cloud": HELD["cloud"], "disk": PRESENT, "vips": frozenset({VIP}), "app": ApplicationState.STOPPED}
    (mount,) = bench.see(**seen)
    assert bench.chronicle.current == bench.newest.id
    bench.end(mount, later=0.05)
    (start,) = bench.see(**{**seen, "disk": MOUNTED})
    bench.end(start, later=0.2)
    bench.see(**HELD)
    told = bench.newest
    assert (told.end, told.goal, told.role, told.text) == (End.CONVERGED, "master", "master", "everything is here")
    assert told.cause.kind == "role"
    assert told.cause.text == "MASTER"
    assert [act.step for act in told.steps] == ["Attach", "AssignAddresses", "MountVolume", "StartApplication"]
    assert [act.ok for act in told.steps] == [True] * 4
    assert told.took == pytest.approx(1.45)
    assert told.serving_at == pytest.approx(1.45)
    assert all(act.at + act.took <= told.took + 1e-9 for act in told.steps)
    assert all(0 <= wait.at <= wait.until <= told.took + 1e-9 for wait in told.waits)
    assert {"attaching", "application-waits"} <= {wait.code for wait in told.waits}
    assert 0 < ec2_seconds(told) <= told.took
    assert len({line.id for line in bench.lines}) == 1
    bench.turn(10)
    assert bench.chronicle.current == "", "what comes after belongs to no transition"


def test_it_begins_when_keepalived_said_it_not_when_it_was_noticed():
    bench = Recorded(Role.BACKUP, said=-0.4)
    assert bench.newest.took == pytest.approx(0.4)
    assert bench.newest.began == pytest.approx(1e9 + bench.now - 0.4)


def test_a_steady_group_records_nothing_whatever_it_looks_at():
    for role in (Role.MASTER, Role.BACKUP):
        bench = settled(role)
        for _ in range(50):
            bench.turn(5.0)
            bench.tell(**(HELD if role is Role.MASTER else NOTHING))
        bench.say(role, order=2)  # the same again
        bench.tell(**(HELD if role is Role.MASTER else NOTHING))
        assert bench.lines == []


def test_not_to_know_is_not_to_have_lost():
    bench = settled()
    dark = Unknown("EC2 does not answer")
    bench.tell(cloud=CloudFacts(dark, dark, dark))
    assert not bench.last.plan.done
    bench.turn(60)
    bench.tell(**HELD)
    assert bench.lines == []


def test_an_agent_that_starts_beside_what_is_there_already_records_nothing_and_with_work_says_that_it_started():
    assert settled().lines == []
    bench = Recorded(Role.MASTER, said=-1000.0)
    bench.tell(**{**HELD, "app": ApplicationState.STOPPED})
    assert bench.newest.cause.kind == "start"
    assert bench.newest.cause.text == "the agent's start: application start"


def test_a_role_said_while_the_agent_was_starting_is_a_role():
    bench = Recorded(Role.MASTER, said=-0.5, began=-1.0)
    assert bench.newest.cause.kind == "role"


def test_what_is_lost_while_master_is_drift():
    bench = settled()
    bench.tell(app=ApplicationState.STOPPED)
    assert (bench.newest.cause.kind, bench.newest.end) == ("drift", End.UNDER_WAY)
    assert bench.newest.cause.text == "while master: application start"
    (start,) = bench.last.start
    bench.end(start, later=0.3)
    bench.tell(app=ApplicationState.RUNNING)
    assert (bench.newest.end, bench.newest.serving_at is not None) == (End.CONVERGED, True)
    assert len(bench.kept) == 1


def test_a_newer_role_overtakes():
    bench = Recorded(Role.MASTER)
    bench.tell(**{**NOTHING, "cloud": cloud(volume())})
    bench.now += 1.0
    bench.say(Role.BACKUP, order=2)
    first, second = bench.kept
    assert (first.end, first.text) == (End.OVERTAKEN, "by BACKUP, was MASTER")
    assert first.took == pytest.approx(1.0)
    assert [act.ok for act in first.steps] == [None], "attach was under way"
    assert (second.cause.kind, second.role) == ("role", "backup")


def test_a_step_that_outlives_its_transition_is_told_in_the_next_one_from_its_beginning():
    bench = Recorded(Role.MASTER)
    bench.tell(**{**NOTHING, "cloud": cloud(volume())})
    (attach,) = bench.last.start
    bench.now += 1.0
    bench.say(Role.BACKUP, order=2)
    bench.now += 0.5
    bench.loop.finished(attach, Outcome(True, learned=volume((A, "attaching"))), bench.now)
    bench.chronicle.finished(attach, Outcome(True), 1.5, bench.now)
    bench.turn()
    act = bench.newest.steps[0]
    assert (act.step, act.at, act.took) == ("Attach", 0.0, pytest.approx(0.5))


@pytest.mark.parametrize(
    ("mark", "begins", "ends", "how"),
    [
        (PAUSED, "paused by an operator", "the pause is over", End.LOOKING),
        (RELEASED, "released by an operator", "the release is over", End.CONVERGED),
    ],
)
def test_what_an_operator_does_is_recorded(mark: str, begins: str, ends: str, how: End):
    bench = settled(Role.BACKUP)
    bench.ambient = replace(AMBIENT, marks=frozenset({mark}))
    bench.turn(1.0)
    assert (bench.newest.cause.kind, bench.newest.cause.text, bench.newest.end) == ("mark", begins, how)
    for _ in range(5):
        bench.turn(5.0)
    bench.ambient = AMBIENT
    bench.turn(1.0)
    assert (bench.newest.cause.text, bench.newest.end) == (ends, End.CONVERGED)


def test_a_switchover_is_recorded_as_one_and_so_is_its_end():
    bench = settled(Role.FAULT)
    bench.ambient = Ambient(marks=frozenset({"switchover:9e9"}))
    bench.turn(1.0)
    assert bench.newest.cause.text == "switched over by an operator"
    bench.ambient = Ambient()
    bench.turn(5.0)
    assert bench.newest.cause.text == "the switchover is over here: it competes again"
    assert len(bench.kept) == 2


def test_a_fenced_node_is_one_story_until_nothing_is_left_and_its_end_another():
    bench = settled()
    bench.tell(disk=STALE, cloud=cloud(volume((B, "attached")), "b"), vips=frozenset[str]())
    told = bench.newest
    assert (told.cause.kind, told.cause.text) == (
        "fenced",
        "while master: another node has its volume, or its disk is gone",
    )
    (mark,) = bench.last.start
    bench.ambient = replace(AMBIENT, marks=frozenset({FENCED}))
    (stop,) = bench.end(mark, later=0.1).start
    gone = {"cloud": cloud(volume((B, "attached")), "b"), "disk": STALE, "vips": frozenset[str]()}
    bench.end(stop, later=0.1)
    for step in bench.see(**gone, app=ApplicationState.STOPPED):
        bench.end(step, later=0.1)
    bench.see(**NOTHING)
    assert [act.step for act in bench.newest.steps] == ["SetMark", "StopApplication", "Unmount"]
    assert len(bench.kept) == 1, "the mark that it set itself begins nothing new"
    assert (bench.newest.end, bench.newest.text) == (End.CONVERGED, "nothing is here, and this node stays out")
    for _ in range(20):
        bench.turn(5.0)
        bench.see(**NOTHING)
    assert len(bench.kept) == 1
    bench.turn(5.0)
    started = bench.see(**{**NOTHING, "cloud": cloud(volume((B, "attached")), "b", b_state="stopped")})
    assert started == [SetMark(FENCED, present=False)]
    assert bench.newest.cause.text == "the fence is over"
    bench.ambient = AMBIENT
    bench.end(started[0], later=0.1)
    bench.say(Role.BACKUP, order=2)
    bench.see(**NOTHING)
    assert [(t.cause.text, t.end) for t in bench.kept[1:]] == [
        ("the fence is over", End.OVERTAKEN),
        ("BACKUP, was MASTER", End.CONVERGED),
    ]


def test_the_death_of_keepalived_begins_one():
    bench = settled()
    bench.ambient = replace(AMBIENT, keepalived_gone_since=bench.now)
    bench.turn()
    assert (bench.newest.cause.kind, bench.newest.goal, bench.newest.end) == ("keepalived", "look", End.UNDER_WAY)
    bench.turn(30.0)
    bench.tell(**HELD)
    assert bench.newest.goal == "look", "written once when it began; the rest when something is done"
    bench.lines += bench.chronicle.stop(bench.now, "awsha was stopped")
    assert (bench.newest.goal, bench.newest.end, len(bench.kept)) == ("release", End.INTERRUPTED, 1)


def test_blocked_is_told_while_it_stands_and_once():
    bench = Recorded(Role.MASTER)
    stranger = cloud(volume(("i-stranger", "attached")))
    bench.tell(**{**NOTHING, "cloud": stranger})
    assert bench.newest.end is End.BLOCKED
    assert "i-stranger" in bench.newest.text
    written = len(bench.lines)
    for _ in range(100):
        bench.turn(5.0)
        bench.tell(cloud=stranger, disk=ABSENT)
    assert len(bench.lines) == written, "no growth while nothing changes"
    bench.tell(**HELD)
    assert bench.newest.end is End.CONVERGED
    (wait,) = [w for w in bench.newest.waits if w.blocked]
    assert wait.until - wait.at > 400


def test_failures_that_repeat_are_one_entry_and_bounded():
    bench = Recorded(Role.MASTER)
    for _ in range(1000):
        for step in bench.see(**{**NOTHING, "cloud": cloud(volume())}):
            bench.end(step, later=0.05, ok=False, text="InternalError")
        bench.turn(6.0)
    bench.lines += bench.chronicle.stop(bench.now, "awsha was stopped")
    told = bench.newest
    assert len(bench.lines) <= DRAFTS_MOST + 2
    assert len(told.steps) < 5
    assert max(act.times for act in told.steps) > 900
    assert len(told.waits) < ITEMS_MOST
    assert told.end is End.INTERRUPTED


def test_requests_are_counted_by_action_with_their_errors():
    bench = Recorded(Role.MASTER)
    for code in ("ok", "RequestLimitExceeded", "ok"):
        bench.now += 0.5
        bench.chronicle.request("DescribeVolumes", bench.now, 0.2, code)
    bench.chronicle.request("AttachVolume", bench.now - 100, 0.2, "ok")  # before it began
    bench.lines += bench.chronicle.stop(bench.now, "")
    (asked,) = bench.newest.requests
    assert (asked.count, dict(asked.errors)) == (3, {"RequestLimitExceeded": 1})
    assert asked.seconds == pytest.approx(0.6)
    assert (asked.first, asked.last) == (pytest.approx(0.3), pytest.approx(1.5))


def test_idle_requests_belong_to_nothing():
    bench = settled()
    bench.chronicle.request("DescribeVolumes", bench.now, 0.2, "ok")
    assert bench.chronicle.stop(bench.now, "") == []


@pytest.mark.parametrize(
    ("spans", "length"),
    [([], 0.0), ([(0, 1)], 1.0), ([(0, 2), (1, 3)], 3.0), ([(0, 5), (1, 2)], 5.0), ([(4, 5), (0, 1)], 2.0)],
)
def test_overlaps_count_once(spans: list[tuple[float, float]], length: float):
    assert union(spans) == pytest.approx(length)


def test_ids_sort_and_differ():
    moment = 1795389301.4
    used: list[str] = []
    for _ in range(60):
        used.append(new_id("data", moment, used))
    assert used == sorted(set(used))
    assert used[:3] == ["data-20261122T231501", "data-20261122T231501b", "data-20261122T231501c"]
    assert new_id("data", moment + 1, used) == "data-20261122T231502"


def test_what_is_written_can_be_read_again():
    bench = Recorded(Role.MASTER)
    bench.tell(**{**NOTHING, "cloud": cloud(volume((B, AttachmentState.DETACHING.value)))})
    bench.chronicle.request("DescribeVolumes", bench.now, 0.25, "InternalError")
    bench.lines += bench.chronicle.stop(bench.now + 2, "awsha was stopped")
    for line in bench.lines:
        again = from_dict(as_dict(line))
        assert as_dict(again) == as_dict(line)
        assert again.cause == line.cause
    assert {wait.whose for wait in bench.newest.waits} >= {Whose.EC2}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = list(as_dict(Recorded(Role.BACKUP).newest))


@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4), JSON)
def test_anything_in_the_place_of_a_value_is_a_transition_or_a_value_error(changed: dict, other: object):
    for raw in (as_dict(Recorded(Role.BACKUP).newest) | changed, other):
        try:
            read = from_dict(raw)
        except ValueError:
            continue
        assert from_dict(as_dict(read)).id == read.id


@given(st.text(max_size=2 * TEXT_MOST))
def test_a_text_is_one_printable_line(text: str):
    assert len(clean(text)) <= TEXT_MOST
    assert clean(text).isprintable()
    clean(text).encode()
