"""Faults on purpose, throttling, and that the region is a machine: same seed, same story, never an impossible state."""

from __future__ import annotations

import random

import pytest

from awsha.lab.rules import RULES, Ec2Error, Fault, FaultKind, Latency, Region, Transport

VOL = "vol-0aaaaaaaaaaaaaaaa"
LOOK = {"VolumeIds": [VOL]}


def region(latency: Latency | None = None, seed: int = 0, **more) -> Region:
    r = Region(latency or Latency.none(), seed, **more)
    r.add_instance("a", "i-0a", "eni-0a", "02:00:00:00:00:0a", "10.0.0.10")
    r.add_instance("b", "i-0b", "eni-0b", "02:00:00:00:00:0b", "10.0.0.11")
    r.add_volume(VOL, 8)
    r.add_volume("vol-0b", 8)
    return r


def code_of(r: Region, action: str, params: dict, now: float = 0, caller: str | None = None) -> str:
    try:
        r.call(action, params, now, caller)
    except Ec2Error as error:
        return error.code
    return ""


def test_errors_strike_as_often_as_asked():
    r = region()
    r.add_fault(Fault("DescribeVolumes", FaultKind.ERROR, times=2, code="InternalError"))
    assert [code_of(r, "DescribeVolumes", LOOK) for _ in range(3)] == ["InternalError", "InternalError", ""]
    assert code_of(r, "DescribeInstances", {}) == ""
    r.add_fault(Fault("*", FaultKind.THROTTLE, times=None))
    assert [code_of(r, action, {}) for action in sorted(RULES)] == ["RequestLimitExceeded"] * len(RULES)
    assert r.faults() == [(Fault("*", FaultKind.THROTTLE, times=None), None)]
    r.clear_faults()
    assert (code_of(r, "DescribeVolumes", LOOK), r.faults()) == ("", [])


@pytest.mark.parametrize(
    ("code", "status"),
    [("InternalError", 500), ("Unavailable", 503), ("UnauthorizedOperation", 403), ("RequestExpired", 400)],
)
def test_error_codes_have_their_http_status(code, status):
    r = region()
    r.add_fault(Fault("StopInstances", FaultKind.ERROR, code=code))
    with pytest.raises(Ec2Error) as caught:
        r.call("StopInstances", {"InstanceIds": ["i-0a"]}, 0)
    assert (caught.value.code, caught.value.http_status) == (code, status)


def test_an_error_after_the_effect():
    r = region()
    r.add_fault(Fault("AttachVolume", FaultKind.ERROR, code="InternalError", after=True))
    attach = {"VolumeId": VOL, "InstanceId": "i-0a", "Device": "/dev/sdf"}
    assert code_of(r, "AttachVolume", attach) == "InternalError"
    assert code_of(r, "AttachVolume", attach) == "VolumeInUse"
    assert r.snapshot()["volumes"][VOL]["attached_to"] == "i-0a"


def test_faults_of_one_caller_and_of_one_resource():
    r = region()
    r.add_fault(Fault("*", FaultKind.ERROR, times=None, code="Unavailable", caller="i-0a"))
    r.add_fault(Fault("DescribeVolumes", FaultKind.ERROR, times=None, code="InternalError", match=VOL))
    assert code_of(r, "DescribeInstances", {}, caller="i-0a") == "Unavailable"
    assert code_of(r, "DescribeInstances", {}, caller="i-0b") == ""
    assert code_of(r, "DescribeVolumes", LOOK, caller="i-0b") == "InternalError"
    assert code_of(r, "DescribeVolumes", {"VolumeIds": ["vol-0b"]}) == ""


def test_transport_faults_are_handed_out_once():
    r = region()
    r.add_fault(Fault("AttachVolume", FaultKind.LOST_REPLY))
    r.add_fault(Fault("AttachVolume", FaultKind.DELAY, seconds=2.5))
    assert r.transport("DetachVolume", 0) == Transport()
    assert r.transport("AttachVolume", 0) == Transport(2.5, drop_reply=True)
    assert r.transport("AttachVolume", 0) == Transport()
    r.add_fault(Fault("*", FaultKind.BLACK_HOLE))
    assert r.transport("metadata", 0) == Transport()
    assert r.transport("DescribeVpcs", 0).black_hole


def test_request_latency_is_the_wires():
    assert region(Latency(call=(0.02, 0.02))).transport("DescribeVolumes", 0) == Transport(0.02)


def test_stale_reads():
    r = region()
    r.call("AttachVolume", {"VolumeId": VOL, "InstanceId": "i-0a", "Device": "/dev/sdf"}, 10)
    r.advance(10, lambda _i, _v: False)
    r.add_fault(Fault("DescribeVolumes", FaultKind.STALE, seconds=5))
    states = [r.call("DescribeVolumes", LOOK, 12)["Volumes"][0]["State"] for _ in range(2)]
    assert states == ["available", "in-use"]
    r.call("AssignPrivateIpAddresses", {"NetworkInterfaceId": "eni-0a", "PrivateIpAddresses": ["10.0.0.100"]}, 12)
    r.add_fault(Fault("metadata", FaultKind.STALE, seconds=5))
    path = "meta-data/network/interfaces/macs/02:00:00:00:00:0a/local-ipv4s"
    assert [r.metadata("i-0a", path, 13) for _ in range(2)] == ["10.0.0.10", "10.0.0.10\n10.0.0.100"]


def test_metadata_errors():
    r = region()
    r.add_fault(Fault("metadata", FaultKind.ERROR, code="503"))
    with pytest.raises(Ec2Error):
        r.metadata("i-0a", "meta-data/instance-id", 0)
    assert r.metadata("i-0a", "meta-data/instance-id", 0) == "i-0a"


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "explode"},
        {"kind": "error"},
        {"kind": "delay"},
        {"kind": "delay", "seconds": float("nan")},
        {"kind": "delay", "seconds": float("inf")},
        {"kind": "stale"},
        {"kind": "stale", "seconds": 3},
        {"kind": "stuck_busy"},
        {"kind": "throttle", "times": 0},
    ],
)
def test_impossible_faults_are_refused(wrong):
    with pytest.raises(ValueError, match=r"."):
        Fault("AttachVolume", **wrong)
    with pytest.raises(ValueError, match="no action"):
        region().add_fault(Fault("attach", FaultKind.THROTTLE))


@pytest.mark.parametrize(
    ("action", "params", "capacity", "refill"),
    [
        ("DescribeVolumes", LOOK, 100, 20),
        ("DescribeVolumes", {}, 50, 10),
        ("AssignPrivateIpAddresses", {"NetworkInterfaceId": "eni-0a", "PrivateIpAddresses": ["10.0.0.9"]}, 100, 5),
        ("DetachVolume", {"VolumeId": VOL}, 50, 5),
    ],
)
def test_token_buckets(action, params, capacity, refill):
    r = region()
    throttled = [code_of(r, action, params) == "RequestLimitExceeded" for _ in range(capacity + 1)]
    assert throttled == [False] * capacity + [True]
    again = [code_of(r, action, params, now=1) == "RequestLimitExceeded" for _ in range(refill + 1)]
    assert again == [False] * refill + [True]
    free = region(throttling=False)
    assert not any(code_of(free, action, params) == "RequestLimitExceeded" for _ in range(capacity + 1))


def random_story(seed: int, steps: int = 120) -> list:
    """Calls, time and guests at random; the region must refuse or go on, and stay possible."""
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    r = region(Latency.aws(), seed, throttling=False)
    now, story, names = 0.0, [], ("i-0a", "i-0b")
    kinds = (FaultKind.STUCK_ATTACHING, FaultKind.STUCK_BUSY, FaultKind.THROTTLE)
    for _ in range(steps):
        now += chance.choice((0.0, 0.1, 1.0, 10.0))
        instance, volume = chance.choice(names), chance.choice((VOL, "vol-0b"))
        eni = f"eni-{instance[2:]}"
        calls = [
            ("AttachVolume", {"VolumeId": volume, "InstanceId": instance, "Device": f"/dev/sd{chance.choice('fg')}"}),
            ("DetachVolume", {"VolumeId": volume, "Force": chance.random() < 0.3}),
            ("AssignPrivateIpAddresses",
             {"NetworkInterfaceId": eni, "PrivateIpAddresses": ["10.0.0.100"], "AllowReassignment": True}),
            ("UnassignPrivateIpAddresses", {"NetworkInterfaceId": eni, "PrivateIpAddresses": ["10.0.0.100"]}),
            ("StopInstances", {"InstanceIds": [instance], "SkipOsShutdown": chance.random() < 0.5}),
            ("StartInstances", {"InstanceIds": [instance]}),
            ("RebootInstances", {"InstanceIds": [instance]}),
            ("DescribeVolumes", {}),
            ("DescribeInstances", {}),
            ("DescribeNetworkInterfaces", {}),
        ]  # fmt: skip
        if chance.random() < 0.05:
            calls = [("TerminateInstances", {"InstanceIds": ["i-0b"]})]
        if chance.random() < 0.1:
            chance.choice((r.power_off, r.power_on))(instance, now)
        if chance.random() < 0.1:
            r.add_fault(Fault("*", chance.choice(kinds)))
        action, params = chance.choice(calls)
        story.append((now, action, code_of(r, action, params, now)))
        held = chance.random() < 0.5
        story += r.advance(now, lambda _i, _v, held=held: held)
        r.check_invariants()
        story.append(r.snapshot())
    return story


def test_same_seed_same_story_and_never_an_impossible_state():
    for seed in range(60):
        story = random_story(seed)
        if seed < 3:
            assert story == random_story(seed)


def test_when_nobody_holds_anything_everything_ends():
    for seed in range(20):
        r = region(Latency.aws(), seed)
        r.call("AttachVolume", {"VolumeId": VOL, "InstanceId": "i-0a", "Device": "/dev/sdf"}, 0)
        r.call("StopInstances", {"InstanceIds": ["i-0b"]}, 0)
        r.advance(5, lambda _i, _v: True)
        r.call("DetachVolume", {"VolumeId": VOL}, 5)
        now = 5.0
        while (due := r.next_due()) is not None:
            now = max(now, due)
            r.advance(now, lambda _i, _v, now=now: now < 30)
        assert now < 40
        assert r.snapshot()["volumes"][VOL]["state"] == "available"
        assert r.snapshot()["instances"]["i-0b"]["state"] == "stopped"
