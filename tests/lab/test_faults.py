"""EC2 fails in every way that the lab can play, while a real pair fails over: it arrives, and nothing is lost.

One lab for the module: each test makes the serving node give way and looks that the other one gets everything. What a
test leaves is healed before the next one; a lab that does not come to rest is replaced.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.conftest import LabUnderTest, skip, why_not_here
from tests.soak.settled import unrest

pytestmark = [pytest.mark.root, pytest.mark.lab]
# Short bounds: a test waits for the fault that it is about.
SHORT = {"release_grace_s": 1, "detach_s": 1, "attach_stuck_s": 2, "handover_s": 5, "unfence_s": 1}
REST_S = 60.0
OUT_S = 3.0  # how long something is out of reach: longer than the grace before a fence
Fault = dict[str, Any]


@pytest.fixture(scope="module")
def faulty() -> Iterator[LabUnderTest]:
    """A pair under `force-detach`, and a client that writes all the time."""
    skip(why_not_here())
    lab = LabUnderTest("faults" + str(time.monotonic_ns() % 100000))
    try:
        yield lab
    finally:
        lab.down()


@pytest.fixture
def pair(faulty: LabUnderTest) -> LabUnderTest:
    """The same at rest, whatever the test before did."""
    if faulty.lab.socket.exists():
        _heal(faulty)
        if _comes_to_rest(faulty):
            return faulty
        faulty.down()
    faulty.up("--fence", "force-detach", *[w for n, s in SHORT.items() for w in ("--timeout", f"{n}={s}")])
    faulty.client_start()
    assert _comes_to_rest(faulty), unrest(faulty.lab)
    return faulty


def _heal(lab: LabUnderTest) -> None:
    lab.awsha("lab", "faults", "--clear")
    for node in lab.status()["nodes"]:
        lab.heal(node)


def _comes_to_rest(lab: LabUnderTest) -> bool:
    end = time.monotonic() + REST_S
    while unrest(lab.lab):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _names(lab: LabUnderTest) -> tuple[str, str]:
    holder = lab.holder()
    assert holder in ("a", "b")
    return holder, "b" if holder == "a" else "a"


def fails_over(lab: LabUnderTest, *faults: Fault, mishap: str = "stop") -> None:
    """With these faults, the holder gives way; the other one gets everything; it all comes to rest; nothing is lost."""
    holder, standby = _names(lab)
    for fault in faults:
        lab.fault(**fault)
    lab.fail(holder, mishap)
    lab.wait_for_holder(standby, 60)
    _heal(lab)
    assert _comes_to_rest(lab), unrest(lab.lab)
    assert lab.holder() == standby, "nothing moves back"
    lab.nothing_lost()


def error(action: str, code: str, times: int = 1, **more: Any) -> Fault:
    """A refusal."""
    return {"action": action, "kind": "error", "code": code, "times": times, **more}


ERRORS = {
    "EC2's own failures": (
        error("DescribeVolumes", "InternalError", 2),
        error("DescribeInstances", "Unavailable", 2),
        error("AttachVolume", "InternalFailure"),
        error("DetachVolume", "ServiceUnavailable"),
        error("AssignPrivateIpAddresses", "InternalError"),
        error("CreateTags", "InternalError"),
    ),
    "it says that it is done, and it is not": (
        error("DetachVolume", "IncorrectState"),
        error("UnassignPrivateIpAddresses", "InvalidParameterValue"),
        error("AttachVolume", "VolumeInUse"),
    ),
    "it says that it is not done, and it is": (
        error("AttachVolume", "InternalError", after=True),
        error("DetachVolume", "InternalError", after=True),
        error("AssignPrivateIpAddresses", "InternalError", after=True),
    ),
    "another's": (
        error("DetachVolume", "InvalidAttachment.NotFound"),
        error("AttachVolume", "IncorrectState", 2),
        error("AssignPrivateIpAddresses", "Resource.AlreadyAssigned"),
        error("CreateTags", "UnauthorizedOperation", 9),
    ),
    "the clock": (error("DescribeVolumes", "RequestExpired", 3), error("AttachVolume", "AuthFailure")),
}


@pytest.mark.parametrize("what", ERRORS)
def test_error_codes(pair: LabUnderTest, what: str):
    fails_over(pair, *ERRORS[what])


def test_everything_is_slow(pair: LabUnderTest):
    fails_over(pair, {"action": "*", "kind": "delay", "seconds": 0.7, "times": 12})


def test_case_29_throttling_of_every_call_is_waited_out(pair: LabUnderTest):
    fails_over(pair, {"action": "*", "kind": "throttle", "times": 15})


def test_replies_that_are_lost_after_the_call_took_effect(pair: LabUnderTest):
    lost = {"kind": "lost_reply", "times": 1}
    actions = ("AttachVolume", "DetachVolume", "AssignPrivateIpAddresses", "UnassignPrivateIpAddresses", "CreateTags")
    fails_over(pair, *({"action": action, **lost} for action in actions))


def test_an_attachment_that_gets_stuck_is_taken_back_and_tried_again(pair: LabUnderTest):
    fails_over(pair, {"action": "AttachVolume", "kind": "stuck_attaching"})


def test_a_detach_that_gets_stuck_busy_is_forced_after_the_handovers_time(pair: LabUnderTest):
    holder, _ = _names(pair)
    stuck = {"action": "DetachVolume", "kind": "stuck_busy", "node": holder}
    fails_over(pair, stuck)


def test_views_that_are_old(pair: LabUnderTest):
    old = {"kind": "stale", "seconds": 3.0, "times": 6}
    fails_over(pair, *({"action": action, **old} for action in ("DescribeVolumes", "DescribeInstances", "metadata")))


def test_a_black_hole_for_some_seconds(pair: LabUnderTest):
    holder, standby = _names(pair)
    pair.awsha("lab", "fault", "*", "--black-hole", "--times", "0")
    pair.fail(holder, "stop")
    time.sleep(OUT_S)
    pair.awsha("lab", "faults", "--clear")
    pair.wait_for_holder(standby, 60)
    pair.nothing_lost()


@pytest.mark.parametrize(
    "kind", [{"kind": "error", "code": "InternalError"}, {"kind": "black_hole"}], ids=["500", "silent"]
)
def test_without_instance_metadata(pair: LabUnderTest, kind: Fault):
    fails_over(pair, {"action": "metadata", "times": 0, **kind})


def test_the_standby_is_cut_from_ec2_when_it_must_take_over(pair: LabUnderTest):
    holder, standby = _names(pair)
    pair.fail(standby, "api-cut")
    pair.fail(holder, "stop")
    time.sleep(OUT_S)
    assert pair.holder() is None, "it cannot have taken anything"
    pair.heal(standby)
    pair.wait_for_holder(standby, 60)
    pair.nothing_lost()


def test_the_holder_is_cut_from_ec2_when_it_must_let_go(pair: LabUnderTest):
    holder, standby = _names(pair)
    pair.fail(holder, "api-cut")
    pair.fail(holder, "stop")
    pair.wait_for_holder(standby, 60)
    pair.wait_until(lambda: not pair.status()["nodes"][holder]["mounts"], 30, "it has unmounted without EC2")
    pair.nothing_lost()


def test_a_serving_master_that_is_cut_from_ec2_goes_on_serving(pair: LabUnderTest):
    holder, _ = _names(pair)
    before = len(pair.report()["outages"])
    pair.fail(holder, "api-cut")
    time.sleep(OUT_S)
    assert pair.holder() == holder
    pair.heal(holder)
    assert _comes_to_rest(pair), unrest(pair.lab)
    assert pair.holder() == holder, "an outage of the API moves nothing"
    assert len(pair.nothing_lost()["outages"]) == before


def test_faults_of_the_fence_itself(lab: LabUnderTest):
    """StopInstances refuses SkipOsShutdown, fails, and loses a reply, while the holder is dead."""
    lab.up("--timeout", "release_grace_s=1")
    holder, standby = _names(lab)
    lab.client_start()
    lab.fault(**error("StopInstances", "UnsupportedOperation"))
    lab.fault(**error("StopInstances", "InternalError"))
    lab.fault("StopInstances", "lost_reply", times=1)
    lab.fail(holder, "power-off")
    lab.wait_for_holder(standby, 60)
    assert lab.status()["ec2"]["instances"][holder] == "stopped"
    lab.nothing_lost()
