"""When EC2 and the host are looked at again."""

from __future__ import annotations

import pytest

from awsha.core.pacing import (
    APPLICATION_STEADY_S,
    APPLICATION_WAITS_S,
    FIRST_LOOK_S,
    LOCAL_BLOCKED_S,
    LOCAL_LOOK_S,
    NEAR_LOOK_S,
    NEAR_S,
    SETTLE_S,
    STEADY_S,
    cloud_delay,
    device_moved,
    local_delay,
)
from awsha.core.situation import Code, Memory, Reason
from awsha.core.steps import Scope

VOLUME = "vol-1"
NOW = 1000.0
CLOUD = frozenset({Scope.CLOUD})


def reason(code: Code, until: float | None = None) -> Reason:
    return Reason(code, VOLUME, "", watch=CLOUD, until=until)


def memory(**since: float) -> Memory:
    """How long conditions have stood."""
    return Memory(since={(Code[name], VOLUME): NOW - seconds for name, seconds in since.items()})


@pytest.mark.parametrize(("waits", "moved"), [(Code.ATTACHING, "DEVICE_HERE"), (Code.DETACHING_HERE, "DEVICE_LEFT")])
def test_ec2_is_looked_at_often_once_the_device_has_moved(waits: Code, moved: str) -> None:
    before = memory(**{waits.name: 0.5})
    after = memory(**{waits.name: 0.5, moved: 0.01})
    late = memory(**{waits.name: 4.5, moved: NEAR_S})
    assert cloud_delay((reason(waits),), False, before, NOW) == pytest.approx(FIRST_LOOK_S - 0.5)
    assert not device_moved((reason(waits),), before)
    assert cloud_delay((reason(waits),), False, after, NOW) == NEAR_LOOK_S
    assert device_moved((reason(waits),), after)
    assert cloud_delay((reason(waits),), False, late, NOW) == 0.15, "not for ever"


def test_another_volumes_device_says_nothing() -> None:
    other = Memory(since={(Code.DEVICE_HERE, "vol-2"): NOW})
    assert not device_moved((reason(Code.ATTACHING),), other)


def test_a_call_that_ec2_took_is_polled_by_the_time_since_then() -> None:
    def delay(seconds_ago: float) -> float:
        return cloud_delay((reason(Code.SETTLING, NOW - seconds_ago + SETTLE_S),), False, Memory(), NOW)

    assert delay(0.3) == pytest.approx(0.5)
    assert delay(1.0) == delay(4.0) == 0.15


def test_steady() -> None:
    assert cloud_delay((), True, Memory(), NOW) == STEADY_S


def test_the_application_is_asked_more_often_while_it_waits() -> None:
    assert local_delay(Scope.APPLICATION, ()) == APPLICATION_STEADY_S
    assert local_delay(Scope.APPLICATION, (Reason(Code.APPLICATION_WAITS, "application", ""),)) == APPLICATION_WAITS_S


def test_what_only_a_person_can_end_is_looked_at_calmly() -> None:
    disks = frozenset({Scope.DISKS})
    blocked = Reason(Code.OPEN_FILES, VOLUME, "", blocked=True, watch=disks)
    waiting = Reason(Code.OPEN_FILES, VOLUME, "", watch=disks)
    assert local_delay(Scope.DISKS, (blocked,)) == LOCAL_BLOCKED_S
    assert local_delay(Scope.DISKS, (blocked, waiting)) == LOCAL_LOOK_S
