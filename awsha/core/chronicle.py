"""From turns to transitions: watches one group's loop, and says what is to be written down. Pure; it decides nothing.

A transition begins when the role or an operator's mark changes, when keepalived dies, and when there is something to
do although nothing of that changed: at the agent's start, or because something was lost. A turn with nothing to do is
none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from awsha.core.handover import SWITCHOVER, LiftMark, under_way
from awsha.core.loop import Turn
from awsha.core.model import Role
from awsha.core.pacing import describe
from awsha.core.plan import PAUSED, RELEASED
from awsha.core.situation import Code, Reason, Situation
from awsha.core.steps import Outcome, SetMark, Step
from awsha.core.transition import ITEMS_MOST, Act, Cause, End, Requests, Transition, Wait, clean, new_id
from awsha.core.volumes import FENCED

MARKS = {
    FENCED: ("fenced", "the fence is over"),
    RELEASED: ("released by an operator", "the release is over"),
    PAUSED: ("paused by an operator", "the pause is over"),
    SWITCHOVER: ("switched over by an operator", "the switchover is over here: it competes again"),
}
HIDDEN = frozenset({Code.LOOKING, Code.RUNNING})  # no waits: a look and a step take their own time
RESTING = frozenset({Code.FENCED, Code.VOLUME_FREE, Code.RELEASED})  # a node that stays out, and is done with that
IDLE = frozenset({Code.PAUSED, Code.NO_INTENT})
UNSURE = HIDDEN | {Code.CLOUD_UNKNOWN, Code.HOST_UNKNOWN}  # not knowing is not losing
IDS_MOST = 250  # as many as a file has
DRAFTS_MOST = 24  # lines written of one transition before its last: a crash shows how far it had come
SAME_WAIT_S = 0.3  # a wait that was gone for less is one wait
SAID_MOST_S = 60.0  # an intent older than this is not when the transition began


@dataclass(slots=True)
class _Open:
    """The transition under way. Times are boottime seconds."""

    id: str
    cause: Cause
    began: float
    began_wall: float
    role: str | None
    goal: str
    acts: list[Act] = field(default_factory=list)
    running: dict[str, tuple[Step, float]] = field(default_factory=dict)
    waits: dict[tuple[str, str], list[Wait]] = field(default_factory=dict)
    standing: set[tuple[str, str]] = field(default_factory=set)
    requests: dict[str, Requests] = field(default_factory=dict)
    own_marks: set[str] = field(default_factory=set)
    serving_at: float | None = None
    blocked: tuple[Reason, ...] = ()
    drafts: int = 0
    left_out: int = 0


class Chronicle:
    """One group. Feed it each turn, each step's end and each request to EC2; it answers what is to be written.

    `run`: the process (boot id:pid:start time). `since`: when it began (boottime): a role said before that is not new
    to an agent that was started again. `told`: this process was started because of the newest role.
    """

    def __init__(self, group: str, node: str, run: str, since: float, *, told: bool = False) -> None:
        self._names = (group, node, run)
        self._since = float("-inf") if told else since
        self._first = True
        self._starting = False
        self._role: Role | None = None
        self._marks: frozenset[str] = frozenset()
        self._gone = False
        self._was_ready = False
        self._open: _Open | None = None
        self._used: deque[str] = deque(maxlen=IDS_MOST)
        self._label = ""
        self._out: list[Transition] = []

    @property
    def current(self) -> str:
        """The id of the transition to which the last turn belongs; empty: to none."""
        return self._label

    def turn(self, turn: Turn) -> list[Transition]:
        """What is to be written after this turn; nothing, nearly always."""
        s = turn.situation
        cause = self._cause(s)
        if cause is not None and self._open is not None:
            self._close(End.OVERTAKEN, f"by {cause.text}", s.now)
        if cause is None and self._open is None:
            cause = self._work(turn)
        if cause is not None:
            self._begin(cause, turn)
        if self._open is not None:
            self._follow(self._open, turn)
        self._settle(turn)
        written, self._out = self._out, []
        self._label = self._open.id if self._open else written[-1].id if written else ""
        return written

    def finished(self, step: Step, outcome: Outcome, took_s: float, now: float) -> None:
        """A step ended."""
        if (seen := self._open) is None:
            return
        seen.running.pop(step.resource, None)
        # one that began in an earlier transition counts here from the beginning of this one
        at = max(0.0, now - took_s - seen.began)
        act = _act(step, at, max(0.0, now - seen.began - at), outcome)
        if seen.acts and _same(seen.acts, act):
            _fold(seen.acts, act)
        elif len(seen.acts) >= ITEMS_MOST:
            seen.left_out += 1
        else:
            seen.acts.append(act)
            self._draft(seen, now)

    def request(self, action: str, ended: float, seconds: float, code: str) -> None:
        """A request to EC2 ended, with "ok" or an error's code."""
        seen = self._open
        if seen is None or ended < seen.began or (action not in seen.requests and len(seen.requests) >= ITEMS_MOST):
            return
        first, last = max(0.0, ended - seconds - seen.began), ended - seen.began
        before = seen.requests.get(action, Requests(action, 0, 0.0, first, last))
        errors = dict(before.errors)
        if code != "ok":
            errors[code] = errors.get(code, 0) + 1
        seen.requests[action] = Requests(
            action, before.count + 1, before.seconds + seconds, min(before.first, first), max(before.last, last), errors
        )

    def stop(self, now: float, why: str) -> list[Transition]:
        """This process ends: a transition that is under way is given up here."""
        if self._open is not None:
            self._close(End.INTERRUPTED, why, now)
        written, self._out = self._out, []
        return written

    # --- why one begins ---

    def _cause(self, s: Situation) -> Cause | None:
        """A new role, a mark that somebody set or took away, or keepalived's death."""
        role, marks = s.intent.role if s.intent else self._role, _told(s.host.marks)
        gone = s.host.keepalived_gone_since is not None and role is Role.MASTER
        before = (self._role, self._marks, self._gone, self._first)
        self._role, self._marks, self._gone, self._first = role, marks, gone, False
        if before[3]:
            # what was said before this process began is not new
            self._starting = s.intent is not None and s.intent.recorded_at < self._since
            return _said(s, None) if s.intent is not None and not self._starting else None
        if role is not before[0]:
            return _said(s, before[0])
        changed = (marks ^ before[1]) - (self._open.own_marks if self._open else set())
        if changed:
            mark = min(changed)
            return Cause("mark", MARKS[mark][0 if mark in marks else 1])
        return Cause("keepalived", "keepalived has died while master") if gone and not before[2] else None

    def _work(self, turn: Turn) -> Cause | None:
        """Something to do, though nothing was said: at a start, or because something is not as it was."""
        plan = turn.plan
        kind, words = ("start", "the agent's start") if self._starting else ("drift", f"while {_who(self._role)}")
        if turn.start:
            first = turn.start[0]
            if isinstance(first, LiftMark):
                return Cause("mark", MARKS[SWITCHOVER][1])
            if isinstance(first, SetMark) and first.mark == FENCED:
                text = "another node has its volume, or its disk is gone" if first.present else MARKS[FENCED][1]
                return Cause("fenced", f"{words}: {text}" if first.present else text)
            return Cause(kind, f"{words}: {describe(first)}")
        reasons = [r for r in plan.reasons if r.code not in UNSURE | RESTING | IDLE]
        if not reasons or any(r.code is Code.LOOKING for r in plan.reasons):
            return None
        blocked = next((r for r in reasons if r.blocked), None)
        lost = plan.goal == "master" and not plan.ready and (self._was_ready or self._starting)
        reason = blocked or (reasons[0] if lost else None)
        return Cause(kind, clean(f"{words}: {reason.text}")) if reason else None

    # --- its course ---

    def _begin(self, cause: Cause, turn: Turn) -> None:
        s = turn.situation
        began = s.now
        if cause.kind == "role" and s.intent is not None and 0 <= s.now - s.intent.recorded_at < SAID_MOST_S:
            began = s.intent.recorded_at  # the time until the loop took it in counts too
        wall = s.wall - (s.now - began)
        name = new_id(self._names[0], wall, self._used)
        self._used.append(name)
        self._open = _Open(name, cause, began, wall, self._role.value if self._role else None, turn.plan.goal)
        self._starting = False
        self._out.append(self._snapshot(self._open, End.UNDER_WAY, "", s.now))

    def _follow(self, seen: _Open, turn: Turn) -> None:
        """Take in one turn, and close the transition when it is over."""
        s, plan = turn.situation, turn.plan
        seen.goal = plan.goal
        for step in turn.start:
            seen.running[step.resource] = (step, s.now)
            if isinstance(step, SetMark):
                seen.own_marks |= _told(frozenset({step.mark}))
        self._note_waits(seen, plan.reasons, s.now - seen.began)
        if plan.goal == "master" and plan.ready and seen.serving_at is None:
            seen.serving_at = s.now - seen.began
        blocked = tuple(r for r in plan.blocked if r.code not in RESTING)
        changed = {(r.code, r.subject) for r in blocked} != {(r.code, r.subject) for r in seen.blocked}
        seen.blocked = blocked
        codes = {r.code for r in plan.reasons}
        busy = bool(plan.steps or turn.start or s.memory.running)
        if plan.done:
            self._close(End.CONVERGED, "everything is here" if plan.goal == "master" else "nothing is here", s.now)
        elif not busy and plan.goal == "release" and codes and codes <= RESTING:
            self._close(End.CONVERGED, "nothing is here, and this node stays out", s.now)
        elif not busy and plan.goal == "look" and codes and codes <= IDLE:
            self._close(End.LOOKING, "it only looks: " + ", ".join(sorted(codes)), s.now)
        elif changed:
            self._draft(seen, s.now)

    def _note_waits(self, seen: _Open, reasons: Iterable[Reason], offset: float) -> None:
        shown = {(r.code.value, r.subject): r for r in reasons if r.code not in HIDDEN}
        for key in seen.standing | shown.keys():
            waits = seen.waits.setdefault(key, [])
            reason = shown.get(key)
            if key in seen.standing:
                if waits:
                    blocked = waits[-1].blocked or bool(reason and reason.blocked)
                    waits[-1] = replace(waits[-1], until=offset, blocked=blocked)
            elif waits and (offset - waits[-1].until < SAME_WAIT_S or len(waits) >= 5):
                waits[-1] = replace(waits[-1], until=offset, times=waits[-1].times + 1)
            elif reason is not None and sum(map(len, seen.waits.values())) < ITEMS_MOST:
                waits.append(Wait(*key, clean(reason.text), offset, offset, reason.blocked))
            else:
                seen.left_out += 1
        seen.standing = set(shown)

    def _settle(self, turn: Turn) -> None:
        if turn.plan.done:
            self._starting = False
        if not any(r.code in UNSURE for r in turn.plan.reasons):
            self._was_ready = turn.plan.goal == "master" and turn.plan.ready

    # --- what is written ---

    def _draft(self, seen: _Open, now: float) -> None:
        """A line for the case that this process dies: how far it had come."""
        if seen.drafts < DRAFTS_MOST:
            seen.drafts += 1
            end = End.BLOCKED if seen.blocked else End.UNDER_WAY
            self._out.append(self._snapshot(seen, end, "; ".join(r.text for r in seen.blocked), now))

    def _close(self, end: End, text: str, now: float) -> None:
        assert self._open is not None  # noqa: S101
        self._out = [t for t in self._out if t.id != self._open.id]  # the last line has all that these have
        self._out.append(self._snapshot(self._open, end, text, now))
        self._open = None

    def _snapshot(self, seen: _Open, end: End, text: str, now: float) -> Transition:
        offset = now - seen.began
        under_way = [
            _act(step, max(0.0, at - seen.began), max(0.0, now - max(at, seen.began)), None)
            for step, at in seen.running.values()
        ]
        waits = [wait for several in seen.waits.values() for wait in several]
        group, node, run = self._names
        return Transition(
            seen.id, group, node, run, seen.began_wall, seen.cause, seen.role, seen.goal, end, clean(text), offset,
            seen.serving_at,
            tuple(sorted([*seen.acts, *under_way], key=lambda act: act.at)[:ITEMS_MOST]),
            tuple(sorted(waits, key=lambda wait: wait.at)),
            tuple(sorted(seen.requests.values(), key=lambda requests: requests.first)),
            seen.left_out,
        )  # fmt: skip


def _said(s: Situation, before: Role | None) -> Cause:
    """A role that was recorded by a notify, or in the same way by somebody else."""
    assert s.intent is not None  # noqa: S101
    was = f", was {before.upper()}" if before else ""
    by = "keepalived's notify" if s.intent.keepalived else "awsha notify or converge, not by keepalived"
    return Cause("role", f"{s.intent.role.upper()}{was}", f"{by} (pid {s.intent.order[1]})")


def _who(role: Role | None) -> str:
    return role.value if role else "without a role"


def _act(step: Step, at: float, took: float, outcome: Outcome | None) -> Act:
    text = clean(outcome.text) if outcome else ""
    ok = outcome.ok if outcome else None
    return Act(type(step).__name__, clean(describe(step)), clean(step.resource), at, took, ok, text)


def _same(acts: list[Act], act: Act) -> bool:
    """Whether the last step on this resource ended in just the same way: a retry, or another look."""
    last = next((a for a in reversed(acts) if a.resource == act.resource), None)
    repeats = not act.ok or act.step == "ListHolders"
    return repeats and last is not None and (last.words, last.ok, last.text) == (act.words, act.ok, act.text)


def _fold(acts: list[Act], act: Act) -> None:
    """Count a repetition at its first, which lasts until the end of this one."""
    index = max(i for i, a in enumerate(acts) if a.resource == act.resource)
    last = acts[index]
    acts[index] = replace(last, took=act.at + act.took - last.at, times=last.times + 1)


def _told(marks: frozenset[str]) -> frozenset[str]:
    """Those of the marks that begin a transition, all switchovers as one."""
    told = marks & MARKS.keys()
    return told | {SWITCHOVER} if marks and under_way(marks) else told
