"""What goes wrong on purpose, and what EC2 refuses because it was asked too often."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from awsha.lab.records import Ec2Error


class FaultKind(StrEnum):
    """The ways to fail. The first three happen on the wire, the others in EC2."""

    DELAY = "delay"  # `seconds` pass before EC2 gets the request
    LOST_REPLY = "lost_reply"  # the call takes effect, the connection ends without a reply
    BLACK_HOLE = "black_hole"  # nothing happens and nobody answers
    ERROR = "error"  # `code`, without effect; with `after`: with effect
    THROTTLE = "throttle"  # RequestLimitExceeded
    STALE = "stale"  # a Describe (or `metadata`) shows what was true `seconds` ago
    STUCK_ATTACHING = "stuck_attaching"  # an attachment that never gets further
    STUCK_BUSY = "stuck_busy"  # a guest that never lets go, until Force, a stop, or clear_faults()


TRANSPORT = frozenset({FaultKind.DELAY, FaultKind.LOST_REPLY, FaultKind.BLACK_HOLE})
METADATA = "metadata"  # the pseudo-action by which faults name instance metadata
SECONDS_MOST = 86400
_ONLY = {
    FaultKind.STALE: ("Describe", METADATA),
    FaultKind.STUCK_ATTACHING: ("AttachVolume",),
    FaultKind.STUCK_BUSY: ("DetachVolume",),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `action`: an action of EC2, `*` for all of them, `service:Action`, or `metadata`.

    `times`: how often it strikes, None: until cleared.
    `caller`: only calls of this instance. `match`: only calls that name this in any parameter (a volume id, a device).
    """

    action: str
    kind: FaultKind
    times: int | None = 1
    seconds: float = 0.0
    code: str = ""
    after: bool = False
    caller: str | None = None
    match: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", FaultKind(self.kind))
        if self.times is not None and self.times < 1:
            raise ValueError("a fault strikes at least once: times >= 1, or None for always")
        if self.kind is FaultKind.ERROR and not self.code:
            raise ValueError("an error fault needs a code, for instance InternalError")
        if self.kind in (FaultKind.DELAY, FaultKind.STALE) and not 0 < self.seconds <= SECONDS_MOST:
            raise ValueError(f"a {self.kind} fault needs seconds > 0, and at most {SECONDS_MOST}")
        if not (self.action == "*" or self.action.startswith(_ONLY.get(self.kind, ("",)))):
            raise ValueError(f"{self.kind} strikes {' and '.join(_ONLY[self.kind])} only, never {self.action}")


@dataclass(frozen=True, slots=True)
class Transport:
    """What the wire does to one request: wait `delay_s`, then swallow it whole, or swallow only the reply."""

    delay_s: float = 0.0
    drop_reply: bool = False
    black_hole: bool = False


CLEAR = Transport()


class FaultBook:
    """The faults that are still to strike, oldest first."""

    def __init__(self) -> None:
        self._left: list[tuple[Fault, int | None]] = []

    def __bool__(self) -> bool:
        return bool(self._left)

    def add(self, fault: Fault) -> None:
        """One more fault."""
        self._left.append((fault, fault.times))

    def clear(self) -> None:
        """Forget all."""
        self._left.clear()

    def left(self) -> list[tuple[Fault, int | None]]:
        """Each fault with how often it will still strike (None: always)."""
        return list(self._left)

    def take(self, kinds: Iterable[FaultKind], action: str, caller: str | None, params: dict[str, Any]) -> list[Fault]:
        """The faults that strike this call; each is used up by one."""
        struck: list[Fault] = []
        left: list[tuple[Fault, int | None]] = []
        for fault, times in self._left:
            if fault.kind not in kinds or not _strikes(fault, action, caller, params):
                left.append((fault, times))
                continue
            struck.append(fault)
            if times is None or times > 1:
                left.append((fault, None if times is None else times - 1))
        self._left = left
        return struck


def _strikes(fault: Fault, action: str, caller: str | None, params: dict[str, Any]) -> bool:
    if fault.action not in ("*", action):
        return False
    if fault.action == "*" and (action == METADATA or ":" in action):
        return False  # `*` means EC2's API; other services' actions are named `service:Action`
    if fault.caller is not None and fault.caller != caller:
        return False
    return fault.match is None or any(_names(value, fault.match) for value in params.values())


def _names(value: object, wanted: str) -> bool:
    if isinstance(value, str):
        return value == wanted
    if isinstance(value, dict):
        return any(_names(inner, wanted) for inner in value.values())
    return isinstance(value, list) and any(_names(inner, wanted) for inner in value)


# Capacity and refill a second (EC2 API reference, "Request throttling": token bucket sizes). Describe has two buckets.
_SIZES = {
    "AssignPrivateIpAddresses": (100, 5),
    "UnassignPrivateIpAddresses": (100, 5),
    "CreateTags": (100, 10),
    "DeleteTags": (100, 10),
}
_DESCRIBE_FILTERED = (100, 20)
_DESCRIBE_ALL = (50, 10)
_OTHER = (50, 5)  # attach and detach among them


class Buckets:
    """Token buckets for one account in one region, one an action."""

    def __init__(self) -> None:
        self._levels: dict[tuple[str, bool], tuple[float, float]] = {}  # (tokens, as of)

    def take(self, action: str, params: dict[str, Any], now: float) -> None:
        """Use one token; raises RequestLimitExceeded (503) when there is none."""
        filtered = True
        if action.startswith("Describe"):
            filtered = any(value for key, value in params.items() if key == "Filters" or key.endswith("Ids"))
            capacity, refill = _DESCRIBE_FILTERED if filtered else _DESCRIBE_ALL
        else:
            capacity, refill = _SIZES.get(action, _OTHER)
        tokens, since = self._levels.get((action, filtered), (float(capacity), now))
        tokens = min(float(capacity), tokens + max(0.0, now - since) * refill)
        if tokens < 1:
            self._levels[(action, filtered)] = (tokens, now)
            raise throttled()
        self._levels[(action, filtered)] = (tokens - 1, now)


def throttled() -> Ec2Error:
    """EC2's words for: too often."""
    return Ec2Error("RequestLimitExceeded", "Request limit exceeded.")
