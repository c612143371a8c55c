"""EC2's rules for volumes, as in EC2.md: every refusal by its code, every state in its order."""

from __future__ import annotations

import dataclasses

import pytest

from awsha.lab.rules import DeviceAttached, DeviceDetached, Ec2Error, Fault, FaultKind, InstanceStopped, Latency, Region

VOL = "vol-0aaaaaaaaaaaaaaaa"
SECONDS = Latency(attach=(2, 2), attach_device=(3, 3), detach=(2, 2), detach_force=(1, 1), stop=(10, 10))


class Guests:
    """Who has which volume mounted."""

    def __init__(self) -> None:
        self.mounted: set[tuple[str, str]] = set()

    def holds(self, instance_id: str, volume_id: str) -> bool:
        return (instance_id, volume_id) in self.mounted


def region(latency: Latency = SECONDS) -> Region:
    r = Region(latency)
    r.add_instance("a", "i-0a", "eni-0a", "02:00:00:00:00:0a", "10.0.0.10")
    r.add_instance("b", "i-0b", "eni-0b", "02:00:00:00:00:0b", "10.0.0.11")
    r.add_instance("far", "i-0f", "eni-0f", "02:00:00:00:00:0f", "10.0.1.10", zone="eu-west-1b")
    r.add_volume(VOL, 8, tags={"Name": "data"})
    return r


def attach(r: Region, now: float, instance="i-0a", device="/dev/sdf", volume=VOL, **more):
    return r.call("AttachVolume", {"VolumeId": volume, "InstanceId": instance, "Device": device, **more}, now)


def detach(r: Region, now: float, volume=VOL, **more):
    return r.call("DetachVolume", {"VolumeId": volume, **more}, now)


def shown(r: Region, now: float, volume=VOL) -> tuple[str, list[tuple[str, str]]]:
    item = r.call("DescribeVolumes", {"VolumeIds": [volume]}, now)["Volumes"][0]
    return item["State"], [(a["InstanceId"], a["State"]) for a in item["Attachments"]]


def refused(code: str, act, *args, **more) -> Ec2Error:
    with pytest.raises(Ec2Error) as caught:
        act(*args, **more)
    assert caught.value.code == code
    return caught.value


def run(r: Region, until: float, guests: Guests | None = None) -> list:
    effects = r.advance(until, (guests or Guests()).holds)
    r.check_invariants()
    return effects


def test_attach_answers_attaching_then_attached_then_the_device():
    r = region()
    reply = attach(r, 0)
    assert (reply["State"], reply["Device"], reply["InstanceId"]) == ("attaching", "/dev/sdf", "i-0a")
    assert shown(r, 0) == ("in-use", [("i-0a", "attaching")])
    assert r.next_due() == 2
    assert run(r, 2) == []
    assert shown(r, 2) == ("in-use", [("i-0a", "attached")])
    assert run(r, 3) == [DeviceAttached("i-0a", VOL, "/dev/sdf")]
    assert r.next_due() is None


def test_the_device_may_come_before_attached():
    r = region(Latency(attach=(5, 5), attach_device=(1, 1)))
    attach(r, 0)
    assert run(r, 1) == [DeviceAttached("i-0a", VOL, "/dev/sdf")]
    assert shown(r, 1)[1] == [("i-0a", "attaching")]


def test_ordinary_detach_of_a_volume_that_nobody_holds():
    r = region(Latency(detach=(2, 2)))
    attach(r, 0)
    run(r, 0)
    assert detach(r, 10)["State"] == "detaching"  # without InstanceId
    assert shown(r, 10) == ("in-use", [("i-0a", "detaching")])
    assert run(r, 11.5) == [DeviceDetached("i-0a", VOL, forced=False)]
    assert shown(r, 11.5)[0] == "in-use"
    assert run(r, 12) == []
    assert shown(r, 12) == ("available", [])


def mounted_on_a(latency: Latency = SECONDS) -> tuple[Region, Guests]:
    r, guests = region(latency), Guests()
    attach(r, 0)
    run(r, 5)
    guests.mounted.add(("i-0a", VOL))
    return r, guests


def test_busy_until_unmounted():
    r, guests = mounted_on_a()
    detach(r, 10, InstanceId="i-0a")
    assert run(r, 13, guests) == []
    assert shown(r, 13) == ("in-use", [("i-0a", "busy")])
    run(r, 60, guests)
    assert shown(r, 60)[1] == [("i-0a", "busy")]
    assert detach(r, 60)["State"] == "busy"  # asking again changes nothing
    guests.mounted.clear()
    assert run(r, 60.2, guests) == [DeviceDetached("i-0a", VOL, forced=False)]
    run(r, 62, guests)
    assert shown(r, 62) == ("available", [])


def test_busy_until_forced():
    r, guests = mounted_on_a()
    detach(r, 10)
    run(r, 13, guests)
    assert detach(r, 20, Force=True)["State"] == "busy"
    assert run(r, 21, guests) == [DeviceDetached("i-0a", VOL, forced=True)]
    assert shown(r, 21) == ("available", [])


def test_force_at_once_does_not_ask_the_guest():
    r, guests = mounted_on_a()
    detach(r, 10, Force=True)
    assert run(r, 11, guests) == [DeviceDetached("i-0a", VOL, forced=True)]
    assert r.next_due() is None


def test_busy_until_the_instance_stops():
    r, guests = mounted_on_a()
    detach(r, 10)
    run(r, 13, guests)
    r.call("StopInstances", {"InstanceIds": ["i-0a"]}, 14)
    assert run(r, 23.9, guests) == [
        InstanceStopped("i-0a", graceful=True),
        DeviceDetached("i-0a", VOL, forced=False),
    ]
    run(r, 24, guests)
    assert shown(r, 24) == ("available", [])


def test_a_dead_guest_never_lets_go():
    r, _ = mounted_on_a()
    r.power_off("i-0a", 6)
    detach(r, 10)
    run(r, 100)  # nobody holds, but nobody answers either
    assert shown(r, 100)[1] == [("i-0a", "busy")]
    detach(r, 100, Force=True)
    assert run(r, 101) == [DeviceDetached("i-0a", VOL, forced=True)]


def test_detach_refusals():
    r = region()
    refused("IncorrectState", detach, r, 0)
    refused("IncorrectState", detach, r, 0, InstanceId="i-0a")
    refused("InvalidVolume.NotFound", detach, r, 0, volume="vol-0b")
    refused("InvalidParameterValue", detach, r, 0, volume="disk")
    refused("MissingParameter", r.call, "DetachVolume", {}, 0)
    attach(r, 0)
    refused("InvalidAttachment.NotFound", detach, r, 0, InstanceId="i-0b")
    refused("InvalidAttachment.NotFound", detach, r, 0, InstanceId="i-0a", Device="/dev/sdg")
    refused("InvalidInstanceID.NotFound", detach, r, 0, InstanceId="i-0e")


def test_attach_refusals():
    r = region(Latency.none())
    other = "vol-0bbbbbbbbbbbbbbbb"
    r.add_volume(other, 1)
    refused("InvalidVolume.NotFound", attach, r, 0, volume="vol-0b")
    refused("InvalidInstanceID.NotFound", attach, r, 0, "i-0e")
    refused("InvalidInstanceID.Malformed", attach, r, 0, "a")
    refused("InvalidVolume.ZoneMismatch", attach, r, 0, "i-0f")
    refused("MissingParameter", attach, r, 0, device="")
    refused("InvalidParameterValue", attach, r, 0, device="/dev/nvme1n1")
    refused("InvalidParameterValue", attach, r, 0, device="/dev/xvda")
    attach(r, 0)
    for now in (0, 1):  # attaching, then attached
        refused("VolumeInUse", attach, r, now, "i-0b")
        refused("VolumeInUse", attach, r, now, "i-0a", "/dev/sdg")  # by our own attachment: a repeated call
        run(r, now)
    error = refused("InvalidParameterValue", attach, r, 1, volume=other)
    assert "already in use" in error.message
    detach(r, 2)
    refused("VolumeInUse", attach, r, 2, "i-0b")  # while it detaches
    r.call("TerminateInstances", {"InstanceIds": ["i-0b"]}, 3)
    run(r, 3)
    refused("IncorrectInstanceState", attach, r, 3, "i-0b")


def test_attach_needs_running_or_stopped():
    r = region()
    r.call("StopInstances", {"InstanceIds": ["i-0a"]}, 0)
    refused("IncorrectState", attach, r, 1)  # stopping
    run(r, 10)
    attach(r, 10)
    assert run(r, 20)[-1:] == []  # attached, but there is no guest
    assert shown(r, 20)[1] == [("i-0a", "attached")]
    r.call("StartInstances", {"InstanceIds": ["i-0a"]}, 20)
    assert DeviceAttached("i-0a", VOL, "/dev/sdf") in run(r, 20)


def test_attachment_limit():
    r = region(Latency.none())
    names = [f"/dev/sd{chr(98 + i)}" for i in range(25)] + ["/dev/sdba", "/dev/sdbb"]
    for number, name in enumerate(names[:26]):
        r.add_volume(f"vol-1{number}", 1)
        attach(r, 0, device=name, volume=f"vol-1{number}")
    refused("AttachmentLimitExceeded", attach, r, 0, device=names[26])


def test_multi_attach_is_for_io_volumes_and_needs_the_instance_to_detach():
    r = region(Latency.none())
    with pytest.raises(ValueError, match="io1"):
        r.add_volume("vol-0c", 1, multi_attach=True)
    r.add_volume("vol-0c", 1, multi_attach=True, volume_type="io2")
    for instance in ("i-0a", "i-0b"):
        attach(r, 0, instance, volume="vol-0c")
    run(r, 0)
    assert shown(r, 0, "vol-0c") == ("in-use", [("i-0a", "attached"), ("i-0b", "attached")])
    refused("VolumeInUse", attach, r, 0, "i-0b", "/dev/sdg", volume="vol-0c")
    refused("MissingParameter", detach, r, 0, volume="vol-0c")
    detach(r, 0, volume="vol-0c", InstanceId="i-0a")
    run(r, 0)
    assert shown(r, 0, "vol-0c") == ("in-use", [("i-0b", "attached")])


def test_stuck_attaching_until_detached():
    r = region()
    r.add_fault(Fault("AttachVolume", FaultKind.STUCK_ATTACHING))
    attach(r, 0)
    assert run(r, 600) == []
    assert shown(r, 600)[1] == [("i-0a", "attaching")]
    detach(r, 600)
    assert run(r, 603) == []  # the guest never had it
    assert shown(r, 603) == ("available", [])
    attach(r, 603, device="/dev/sdg")
    assert run(r, 610) == [DeviceAttached("i-0a", VOL, "/dev/sdg")]


def test_detach_while_attaching_takes_back_the_device_that_came_first():
    r = region(Latency(attach=(5, 5), attach_device=(1, 1), detach=(1, 1)))
    attach(r, 0)
    run(r, 1)
    detach(r, 2)
    assert run(r, 10) == [DeviceDetached("i-0a", VOL, forced=False)]
    assert shown(r, 10) == ("available", [])


def test_detach_before_the_device_came_never_gives_it():
    r = region(Latency(attach=(1, 1), attach_device=(30, 30), detach=(1, 1)))
    attach(r, 0)
    run(r, 1)
    detach(r, 2)
    assert run(r, 60) == []


def test_stuck_busy_until_forced_or_cleared():
    for remedy in ("force", "clear"):
        r = region()
        attach(r, 0)
        run(r, 5)
        r.add_fault(Fault("DetachVolume", FaultKind.STUCK_BUSY))
        detach(r, 5)
        run(r, 500)
        assert shown(r, 500)[1] == [("i-0a", "busy")]
        if remedy == "force":
            detach(r, 500, Force=True)
        else:
            r.clear_faults()
        run(r, 503)
        assert shown(r, 503) == ("available", [])


def test_a_stopped_instance_keeps_its_volume_and_lets_it_go_at_once():
    r, guests = mounted_on_a()
    r.call("StopInstances", {"InstanceIds": ["i-0a"]}, 10)
    run(r, 20, guests)
    assert shown(r, 20) == ("in-use", [("i-0a", "attached")])
    detach(r, 20)
    assert run(r, 20, guests) == []  # the device went with the guest
    assert shown(r, 20) == ("available", [])


def test_views_of_volume_and_instance_lag_separately():
    r = region(Latency(lag_volumes=(1, 1), lag_instances=(4, 4)))
    attach(r, 0)
    run(r, 0)

    def on_instance(now: float) -> list:
        item = r.call("DescribeInstances", {"InstanceIds": ["i-0a"]}, now)["Reservations"][0]["Instances"][0]
        return [m["Ebs"]["Status"] for m in item["BlockDeviceMappings"]]

    assert (shown(r, 0.9), on_instance(0.9)) == (("available", []), [])
    assert (shown(r, 1), on_instance(1)) == (("in-use", [("i-0a", "attached")]), [])
    assert on_instance(4) == ["attached"]
    refused("VolumeInUse", attach, r, 0.5, "i-0b")  # the rules go by the truth, not by the view


def test_a_view_goes_backwards_once():
    r = region(Latency(backward=1.0))
    attach(r, 0)
    run(r, 0)
    states = [shown(r, 1)[1] for _ in range(5)]
    now, before = [("i-0a", "attached")], [("i-0a", "attaching")]
    assert states == [now, before, now, now, now]


def test_describe_by_filter_and_page():
    r = region(Latency.none())
    for number in range(4):
        r.add_volume(f"vol-1{number}", 1, tags={"Name": f"log-{number}", "kind": "log"})
    attach(r, 0)
    run(r, 0)

    def ids(*filters: tuple[str, str], **more) -> list[str]:
        wanted = [{"Name": name, "Values": [value]} for name, value in filters]
        reply = r.call("DescribeVolumes", {"Filters": wanted, **more}, 0)
        return [item["VolumeId"] for item in reply["Volumes"]]

    assert ids(("tag:Name", "data")) == [VOL]
    assert ids(("tag:Name", "log-*"), ("size", "1")) == ["vol-10", "vol-11", "vol-12", "vol-13"]
    assert ids(("tag-key", "kind"), ("tag:Name", "*-2")) == ["vol-12"]
    assert ids(("attachment.instance-id", "i-0a")) == ids(("status", "in-use")) == [VOL]
    assert ids(("attachment.device", "/dev/sdf"), ("attachment.status", "attached")) == [VOL]
    refused("InvalidParameterValue", ids, ("colour", "red"))
    first = r.call("DescribeVolumes", {"MaxResults": 3}, 0)
    rest = r.call("DescribeVolumes", {"MaxResults": 3, "NextToken": first["NextToken"]}, 0)
    assert (len(first["Volumes"]), len(rest["Volumes"]), "NextToken" in rest) == (3, 2, False)


def test_dry_run_has_no_effect():
    r = region()
    assert refused("DryRunOperation", attach, r, 0, DryRun=True).http_status == 412
    assert shown(r, 0) == ("available", [])
    refused("InvalidVolume.NotFound", attach, r, 0, volume="vol-0b", DryRun=True)
    refused("DryRunOperation", r.call, "DescribeVolumes", {"DryRun": True}, 0)


def test_tags_come_with_the_volume():
    r = region(Latency.none())
    name = {"Key": "awsha:releasing", "Value": "12 a"}
    r.call("CreateTags", {"Resources": [VOL], "Tags": [name]}, 0)
    item = r.call("DescribeVolumes", {"VolumeIds": [VOL]}, 0)["Volumes"][0]
    assert item["Tags"] == [{"Key": "Name", "Value": "data"}, name]
    by_key = {"Filters": [{"Name": "key", "Values": ["awsha:*"]}]}
    assert r.call("DescribeTags", by_key, 0)["Tags"] == [{"ResourceId": VOL, "ResourceType": "volume", **name}]
    r.call("DeleteTags", {"Resources": [VOL], "Tags": [{"Key": name["Key"], "Value": "other"}]}, 0)
    assert len(r.call("DescribeTags", by_key, 0)["Tags"]) == 1
    r.call("DeleteTags", {"Resources": [VOL], "Tags": [{"Key": name["Key"]}]}, 0)
    assert r.call("DescribeTags", by_key, 0)["Tags"] == []
    for code, resources, tag in (
        ("InvalidVolume.NotFound", [VOL, "vol-0b"], name),
        ("InvalidID", ["sg-1"], name),
        ("InvalidParameterValue", [VOL], {"Key": "aws:x", "Value": ""}),
    ):
        refused(code, r.call, "CreateTags", {"Resources": resources, "Tags": [tag]}, 0)
    r.call("DeleteTags", {"Resources": [VOL]}, 0)
    assert "Tags" not in r.call("DescribeVolumes", {"VolumeIds": [VOL]}, 0)["Volumes"][0]


def test_effects_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DeviceAttached("i-0a", VOL, "/dev/sdf").device = "x"  # type: ignore[misc]
