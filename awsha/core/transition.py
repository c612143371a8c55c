"""A transition: what made a group move, what was done, what was waited for, and how it ended. Plain data, no I/O.

Offsets and durations are seconds from the beginning of the transition, on the clock that counts suspended time;
`began` is Unix seconds. Each line of a history file is a whole transition as it was at that moment; the last one
counts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from awsha.core.situation import Code

VERSION = 1
TEXT_MOST = 400  # characters of one text
ITEMS_MOST = 200  # steps, waits, and kinds of requests


class End(StrEnum):
    """How a transition ended. Stable words: they stand in `history --json`."""

    UNDER_WAY = "under-way"
    BLOCKED = "blocked"  # not over: only somebody else can help
    CONVERGED = "converged"
    LOOKING = "looking"  # the goal is to look only: paused
    OVERTAKEN = "overtaken"
    INTERRUPTED = "interrupted"


OPEN = frozenset({End.UNDER_WAY, End.BLOCKED})


class Whose(StrEnum):
    """Whom a step or a wait takes the time of."""

    EC2 = "ec2"
    PEER = "peer"
    HERE = "here"
    ORDER = "order"  # something else comes first


EC2_STEPS = frozenset(
    {
        "TagReleasing",
        "TagServing",
        "ClearReleasing",
        "Attach",
        "Detach",
        "StopInstance",
        "AssignAddresses",
        "UnassignAddresses",
    }
)
_EC2_WAITS = frozenset(
    {
        Code.CLOUD_UNKNOWN,
        Code.SETTLING,
        Code.DENIED,
        Code.ATTACHING,
        Code.DETACHING_HERE,
        Code.DEVICE,
        Code.DISAGREES,
        Code.DETACH_REQUESTED,
        Code.HOLDER_STOPPING,
        Code.HOLDER_DETACHING,
        Code.FENCING,
        Code.VIP_NOT_IN_METADATA,
        Code.VIP_CONTESTED,
        Code.VIP_NOT_ON_INTERFACE,
    }
)
_PEER_WAITS = frozenset({Code.HOLDER_RELEASING, Code.HOLDER_IS_MASTER, Code.HOLDER_NEVER_HEARD, Code.GRACE})
_ORDER_WAITS = frozenset({Code.APPLICATION_WAITS})


@dataclass(frozen=True, slots=True)
class Cause:
    """Why it began. `kind`: role, start, fenced, mark, keepalived, drift. `by`: who said a role."""

    kind: str
    text: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Act:
    """One step. `ok` None: under way. `times`: how often it ended in this way, one after the other."""

    step: str  # the kind, as in the code: Attach
    words: str  # as in the log: attach (vol-…)
    resource: str
    at: float
    took: float
    ok: bool | None = None
    text: str = ""
    times: int = 1

    @property
    def whose(self) -> Whose:
        """EC2's, or this node's."""
        return Whose.EC2 if self.step in EC2_STEPS else Whose.HERE


@dataclass(frozen=True, slots=True)
class Wait:
    """One thing that was waited for, from `at` to `until`. `times`: how often it came back."""

    code: str
    subject: str
    text: str
    at: float
    until: float
    blocked: bool = False
    times: int = 1

    @property
    def whose(self) -> Whose:
        """Whom it was waited for."""
        if self.code in _EC2_WAITS:
            return Whose.EC2
        if self.code in _ORDER_WAITS:
            return Whose.ORDER
        return Whose.PEER if self.code in _PEER_WAITS else Whose.HERE


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests to EC2 of one action: how many, seconds in all, errors by code; the first began, the last ended."""

    action: str
    count: int
    seconds: float
    first: float
    last: float
    errors: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Transition:
    """One transition of one group on one node. `run` names the process that made it: boot id:pid:start time."""

    id: str
    group: str
    node: str
    run: str
    began: float
    cause: Cause
    role: str | None
    goal: str
    end: End = End.UNDER_WAY
    text: str = ""  # of the end
    took: float = 0.0  # until it ended; as far as is known when it has not
    serving_at: float | None = None  # everything was mounted, addressed and running here
    steps: tuple[Act, ...] = ()
    waits: tuple[Wait, ...] = ()
    requests: tuple[Requests, ...] = ()
    left_out: int = 0  # steps and waits beyond the bound

    @property
    def open(self) -> bool:
        """Whether it was not over when this was written."""
        return self.end in OPEN

    def interrupted(self, why: str) -> Transition:
        """The same, given up."""
        return replace(self, end=End.INTERRUPTED, text=why)


def new_id(group: str, began: float, used: Collection[str]) -> str:
    """A name that sorts by time and can be typed: GROUP-20261122T231501 (UTC), with letters behind it when it is used
    already: by one of the same second, or by one from before the clock was set back."""
    stem = f"{group}-{datetime.fromtimestamp(began, UTC):%Y%m%dT%H%M%S}"
    letters = ""
    while stem + letters in used:
        letters = letters[:-1] + chr(ord(letters[-1]) + 1) if letters and letters[-1] < "z" else f"{letters}b"
    return stem + letters


def ec2_seconds(transition: Transition) -> float:
    """For how many seconds something of EC2 was waited for: its steps and its waits, overlaps counted once."""
    spans = [(a.at, a.at + a.took) for a in transition.steps if a.whose is Whose.EC2]
    spans += [(w.at, w.until) for w in transition.waits if w.whose is Whose.EC2]
    return union(spans)


def union(spans: Iterable[tuple[float, float]]) -> float:
    """The length of what any of the spans covers."""
    total, reached = 0.0, -math.inf
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


# --- to and from JSON ------------------------------------------------------------------------------------------------


def as_dict(transition: Transition) -> dict[str, Any]:
    """For JSON."""
    return {
        "v": VERSION,
        **asdict(transition),
        "end": transition.end.value,
        "steps": [_rounded(asdict(step), "at", "took") for step in transition.steps],
        "waits": [_rounded(asdict(wait), "at", "until") for wait in transition.waits],
        "requests": [_rounded(asdict(r), "seconds", "first", "last") for r in transition.requests],
        "began": round(transition.began, 3),
        "took": round(transition.took, 4),
        "serving_at": None if transition.serving_at is None else round(transition.serving_at, 4),
    }


def _rounded(record: dict[str, Any], *keys: str) -> dict[str, Any]:
    return record | {key: round(record[key], 4) for key in keys}


def from_dict(raw: object) -> Transition:
    """A transition out of parsed JSON. Raises ValueError for anything that is none; what is too long is cut."""
    if not isinstance(raw, dict):
        raise ValueError("not a table")  # noqa: TRY004  every misfit is a ValueError: one kind for the reader to count
    serving, cause = raw.get("serving_at"), raw.get("cause")
    if not isinstance(cause, dict):
        raise ValueError("no cause")  # noqa: TRY004
    return Transition(
        id=_text(raw, "id"),
        group=_text(raw, "group"),
        node=_text(raw, "node"),
        run=_text(raw, "run"),
        began=_number(raw, "began", 32503680000.0),  # the year 3000: what no calendar takes is no moment
        cause=Cause(_text(cause, "kind"), _text(cause, "text"), _text(cause, "by")),
        role=None if raw.get("role") is None else _text(raw, "role"),
        goal=_text(raw, "goal"),
        end=End(_text(raw, "end")),
        text=_text(raw, "text"),
        took=_number(raw, "took"),
        serving_at=None if serving is None else _number(raw, "serving_at"),
        steps=tuple(_act(item) for item in _items(raw, "steps")),
        waits=tuple(_wait(item) for item in _items(raw, "waits")),
        requests=tuple(_requests(item) for item in _items(raw, "requests")),
        left_out=int(_number(raw, "left_out")),
    )


def _act(raw: dict[str, Any]) -> Act:
    ok = raw.get("ok")
    return Act(
        _text(raw, "step"),
        _text(raw, "words"),
        _text(raw, "resource"),
        _number(raw, "at"),
        _number(raw, "took"),
        ok if isinstance(ok, bool) else None,
        _text(raw, "text"),
        int(_number(raw, "times")),
    )


def _wait(raw: dict[str, Any]) -> Wait:
    return Wait(
        _text(raw, "code"),
        _text(raw, "subject"),
        _text(raw, "text"),
        _number(raw, "at"),
        _number(raw, "until"),
        raw.get("blocked") is True,
        int(_number(raw, "times")),
    )


def _requests(raw: dict[str, Any]) -> Requests:
    errors = raw.get("errors")
    if not isinstance(errors, dict):
        raise ValueError("errors is no table")  # noqa: TRY004
    counts = {clean(str(code)): int(_number(errors, code)) for code in list(errors)[:ITEMS_MOST]}
    return Requests(
        _text(raw, "action"),
        int(_number(raw, "count")),
        _number(raw, "seconds"),
        _number(raw, "first"),
        _number(raw, "last"),
        counts,
    )


def _items(raw: dict[str, Any], key: str) -> list[dict[str, Any]]:
    items = raw.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError(f"{key} is no list of tables")
    return items[:ITEMS_MOST]


def _number(raw: dict[str, Any], key: str, most: float = 1e10) -> float:
    value = raw.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{key} is no number of seconds, or count")
    return float(value)


def _text(raw: dict[str, Any], key: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} is no text")  # noqa: TRY004
    return clean(value)


def clean(text: str) -> str:
    """One line that any terminal and any file takes: no control characters, no halves of surrogates, not too long."""
    line = "".join(c if c.isprintable() else " " for c in text[: TEXT_MOST + 1])
    return line if len(line) <= TEXT_MOST else line[: TEXT_MOST - 1] + "…"
