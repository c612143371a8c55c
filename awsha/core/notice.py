"""Which transitions somebody is told of, and in which words. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from awsha.core.chronicle import MARKS
from awsha.core.handover import LiftMark
from awsha.core.model import Role
from awsha.core.steps import SetMark
from awsha.core.transition import Cause, End, Transition
from awsha.core.volumes import FENCED

SUBJECT_MOST = 100  # characters of an SNS subject (SNS API reference, Publish)


class Event(StrEnum):
    """What happened. Stable words: programs of operators match on them."""

    TAKEN = "taken"  # this node serves now
    RELEASED = "released"  # this node has let everything go
    RESTORED = "restored"  # what a master had lost is here again
    FAILED = "failed"  # blocked, or a master that could not hold everything
    FENCED = "fenced"  # another node has taken it by force, and what was left here is cleaned up
    TEST = "test"  # nothing: an operator tries whether notices arrive


@dataclass(frozen=True, slots=True)
class Notice:
    """What is told. `id` is the same for what is told twice."""

    event: Event
    transition: Transition

    @property
    def id(self) -> str:
        """Of this notice: the transition's id, and the event."""
        return f"{self.transition.id}:{self.event}"

    @property
    def text(self) -> str:
        """One line for people."""
        t = self.transition
        took = f"after {t.took:.1f} s"
        return {
            Event.TAKEN: f"{t.node} has taken {t.group} over {took}: {t.cause.text}",
            Event.RELEASED: f"{t.node} has let {t.group} go {took}: {t.cause.text}",
            Event.RESTORED: f"{t.node} has restored {t.group} {took}: {t.cause.text}",
            Event.FAILED: f"{t.node} does not get on with {t.group}: {t.text} ({t.cause.text})",
            Event.FENCED: f"{t.node} was fenced from {t.group}: {t.cause.text}",
            Event.TEST: f"{t.node}: a test of [notify] in awsha.toml; nothing has happened",
        }[self.event]

    @property
    def subject(self) -> str:
        """A title in plain ASCII, which is all that SNS takes."""
        title = f"awsha: {self.transition.group} {self.event} on {self.transition.node}"
        return "".join(c if c.isascii() and c.isprintable() else "?" for c in title)[:SUBJECT_MOST]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        t = self.transition
        return {
            "event": self.event.value,
            "text": self.text,
            "group": t.group,
            "node": t.node,
            "transition": t.id,
            "cause": {"kind": t.cause.kind, "text": t.cause.text, "by": t.cause.by},
            "role": t.role,
            "goal": t.goal,
            "end": t.end.value,
            "details": t.text,
            "began": datetime.fromtimestamp(t.began, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "took_s": round(t.took, 2),
            "serving_after_s": None if t.serving_at is None else round(t.serving_at, 2),
        }


def notice(transition: Transition) -> Notice | None:
    """What is told of a transition as it is now; None for what concerns nobody at night."""
    event = _event(transition)
    return Notice(event, transition) if event is not None else None


def trial(group: str, node: str, now: float) -> Notice:
    """A notice of nothing. `now`: Unix seconds."""
    nothing = Transition(f"{group}-test", group, node, "", now, Cause("test", "asked for"), None, "", End.LOOKING)
    return Notice(Event.TEST, nothing)


def _event(t: Transition) -> Event | None:
    if t.end is End.BLOCKED:
        return Event.FAILED
    if t.end is End.OVERTAKEN:
        # a master whose health failed: keepalived has put it into FAULT before everything was here
        gave_way = t.goal == "master" and t.serving_at is None and t.text.startswith(f"by {Role.FAULT.upper()}")
        return Event.FAILED if gave_way else None
    if t.end is not End.CONVERGED or not any(step.ok and step.step != LiftMark.__name__ for step in t.steps):
        return None  # looked only, or found that nothing had to be done but to end a switchover
    if t.goal == "master":
        return Event.RESTORED if t.cause.kind == "drift" else Event.TAKEN
    if _was_fenced(t):
        return Event.FENCED
    return Event.RELEASED if t.cause.text != MARKS[FENCED][1] else None


def _was_fenced(t: Transition) -> bool:
    """Whether this node found out in it that another one has its volume."""
    marked = any(s.step == SetMark.__name__ and s.resource == SetMark(FENCED).resource for s in t.steps)
    return marked and t.cause.text != MARKS[FENCED][1]
