"""How long a node that failed as master waits before it competes again (ADR 0005)."""

from __future__ import annotations

from dataclasses import replace

from awsha.core.model import Faults
from awsha.core.policy import Group

FIRST_S = 10.0  # a failed verdict stands at least this long: keepalived must see it, and the peer take over
QUIET_S = 600.0  # so long after a wait without another failure, and the series is over
DOUBLINGS_MOST = 20


def wait_s(faults: Faults, group: Group) -> float:
    """Seconds from the last failure until the node competes again: 10, 20, 40, … at most `timeouts.damping_s`."""
    doubled = FIRST_S * 2 ** min(faults.times - 1, DOUBLINGS_MOST)
    return float(max(FIRST_S, min(doubled, group.timeouts.damping_s)))


def until(faults: Faults, group: Group) -> float:
    """The moment (boottime seconds) at which it competes again."""
    return faults.at + wait_s(faults, group)


def standing(faults: Faults | None, group: Group, now: float) -> Faults | None:
    """The series, unless it is over."""
    return None if faults is None or now - until(faults, group) >= QUIET_S else faults


def counted(faults: Faults | None, group: Group, text: str, now: float) -> Faults:
    """The series with one more failure; `text` says why."""
    before = standing(faults, group, now)
    one = Faults(1, now, text)
    return one if before is None else replace(one, times=before.times + 1)


def told(faults: Faults) -> str:
    """How often it failed, and why the last time."""
    if faults.times == 1:
        return f"failed as master: {faults.text}"
    return f"failed {faults.times} times in a row as master, the last time: {faults.text}"
