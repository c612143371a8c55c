"""The life of instances, what Describe says of them, and instance metadata."""

from __future__ import annotations

import json

import pytest

from awsha.lab.rules import (
    DeviceAttached,
    DeviceDetached,
    Ec2Error,
    InstanceStarted,
    InstanceStopped,
    InstanceTerminated,
    Latency,
    Region,
)

VOL = "vol-0aaaaaaaaaaaaaaaa"
SECONDS = Latency(stop=(10, 10), stop_skip_os=(2, 2), stop_dead=(100, 100), start=(5, 5), status_check=(60, 60))


def region(latency: Latency = SECONDS, *, attached: bool = False) -> Region:
    r = Region(latency)
    r.add_instance("a", "i-0a", "eni-0a", "02:00:00:00:00:0a", "10.0.0.10")
    r.add_instance("b", "i-0b", "eni-0b", "02:00:00:00:00:0b", "10.0.0.11")
    r.add_volume(VOL, 8)
    if attached:
        r.call("AttachVolume", {"VolumeId": VOL, "InstanceId": "i-0a", "Device": "/dev/sdf"}, 0)
        run(r, 0)
    return r


def run(r: Region, until: float) -> list:
    effects = r.advance(until, lambda _i, _v: True)
    r.check_invariants()
    return effects


def call(r: Region, action: str, now: float, *names: str, **more):
    return r.call(f"{action}Instances", {"InstanceIds": [f"i-0{n}" for n in names or ("a",)], **more}, now)


def shown(r: Region, now: float, name: str = "a") -> str:
    reply = r.call("DescribeInstances", {"InstanceIds": [f"i-0{name}"]}, now)
    return reply["Reservations"][0]["Instances"][0]["State"]["Name"]


def refused(code: str, act, *args, **more) -> None:
    with pytest.raises(Ec2Error) as caught:
        act(*args, **more)
    assert caught.value.code == code


def test_a_graceful_stop_takes_the_guests_time():
    r = region(attached=True)
    assert call(r, "Stop", 0)["StoppingInstances"] == [
        {
            "InstanceId": "i-0a",
            "CurrentState": {"Code": 64, "Name": "stopping"},
            "PreviousState": {"Code": 16, "Name": "running"},
        }
    ]
    assert run(r, 9) == [InstanceStopped("i-0a", graceful=True), DeviceDetached("i-0a", VOL, forced=False)]
    assert shown(r, 9) == "stopping"
    run(r, 10)
    assert shown(r, 10) == "stopped"
    assert call(r, "Stop", 11)["StoppingInstances"][0]["CurrentState"]["Name"] == "stopped"
    call(r, "Start", 12)
    assert shown(r, 12) == "pending"
    assert run(r, 17) == [InstanceStarted("i-0a"), DeviceAttached("i-0a", VOL, "/dev/sdf")]
    assert shown(r, 17) == "running"


def test_skip_os_shutdown_does_not_ask():
    r = region()
    call(r, "Stop", 0, SkipOsShutdown=True)
    assert run(r, 2) == [InstanceStopped("i-0a", graceful=False)]
    assert shown(r, 2) == "stopped"


@pytest.mark.parametrize(("more", "due"), [({}, 100), ({"Force": True}, 12), ({"SkipOsShutdown": True}, 2)])
def test_a_dead_guest_cannot_shut_down(more, due):
    r = region(attached=True)
    r.power_off("i-0a", 0)
    assert shown(r, 0) == "running"
    call(r, "Stop", 0, **more)
    run(r, due * 0.55)
    assert shown(r, due * 0.99) == "stopping"
    assert run(r, due)[0] == InstanceStopped("i-0a", graceful=False)
    assert shown(r, due) == "stopped"


def test_asking_again_more_firmly_makes_it_sooner_never_later():
    r = region()
    call(r, "Stop", 0)
    call(r, "Stop", 1, SkipOsShutdown=True)
    run(r, 3)
    assert shown(r, 3) == "stopped"
    assert r.next_due() in (6, None)
    assert run(r, 20) == []
    r = region()
    call(r, "Stop", 0)
    call(r, "Stop", 9, SkipOsShutdown=True)
    run(r, 10)
    assert shown(r, 10) == "stopped"


def test_host_failure_is_impaired_later_and_ends_with_power_on():
    r = region(attached=True)

    def status(now: float) -> list[str]:
        return [s["InstanceStatus"]["Status"] for s in r.call("DescribeInstanceStatus", {}, now)["InstanceStatuses"]]

    r.power_off("i-0a", 0)
    assert (status(59), status(60)) == (["ok", "ok"], ["impaired", "ok"])
    r.power_on("i-0a", 70)
    assert run(r, 70) == [InstanceStarted("i-0a"), DeviceAttached("i-0a", VOL, "/dev/sdf")]
    assert status(71) == ["ok", "ok"]
    r.power_off("i-0a", 80)
    call(r, "Stop", 80, SkipOsShutdown=True)
    run(r, 82)
    assert status(82) == ["ok"]
    everyone = r.call("DescribeInstanceStatus", {"IncludeAllInstances": True}, 82)["InstanceStatuses"]
    assert [s["InstanceStatus"]["Status"] for s in everyone] == ["not-applicable", "ok"]
    r.power_on("i-0a", 90)  # a stopped one is started
    assert run(r, 95)[0] == InstanceStarted("i-0a")


def test_terminate_detaches():
    r = region(attached=True)
    call(r, "Terminate", 0)
    assert shown(r, 0) == "shutting-down"
    effects = run(r, 10)
    assert effects[:2] == [InstanceStopped("i-0a", graceful=True), DeviceDetached("i-0a", VOL, forced=False)]
    assert InstanceTerminated("i-0a") in effects
    assert shown(r, 10) == "terminated"
    assert r.call("DescribeVolumes", {"VolumeIds": [VOL]}, 10)["Volumes"][0]["State"] == "available"
    refused("IncorrectInstanceState", call, r, "Start", 11)
    refused("IncorrectInstanceState", call, r, "Stop", 11)
    assert call(r, "Terminate", 11)["TerminatingInstances"][0]["PreviousState"]["Name"] == "terminated"
    assert r.metadata("i-0a", "meta-data/instance-id", 11) is None


def test_reboot_is_seen_by_the_guest_only():
    r = region(attached=True)
    call(r, "Reboot", 0)
    assert run(r, 10) == [InstanceStopped("i-0a", graceful=True), DeviceDetached("i-0a", VOL, forced=False)]
    assert shown(r, 10) == "running"
    assert run(r, 15) == [InstanceStarted("i-0a"), DeviceAttached("i-0a", VOL, "/dev/sdf")]


def test_refusals_concern_all_of_a_call():
    r = region()
    refused("InvalidInstanceID.NotFound", call, r, "Stop", 0, "a", "e")
    refused("InvalidInstanceID.Malformed", r.call, "StopInstances", {"InstanceIds": ["host"]}, 0)
    refused("MissingParameter", r.call, "StopInstances", {"InstanceIds": []}, 0)
    refused("DryRunOperation", call, r, "Stop", 0, DryRun=True)
    assert shown(r, 0) == "running"
    call(r, "Stop", 0)
    refused("IncorrectInstanceState", call, r, "Start", 1, "b", "a")
    assert call(r, "Start", 1, "b")["StartingInstances"][0]["CurrentState"]["Name"] == "running"
    refused("InvalidInstanceID.NotFound", shown, r, 1, "e")
    refused("InvalidAction", r.call, "RunInstances", {}, 1)


def test_describe_instances_says_what_awsha_reads():
    r = region(Latency.none(), attached=True)
    item = r.call("DescribeInstances", {"InstanceIds": ["i-0a"]}, 1)["Reservations"][0]["Instances"][0]
    assert item["Placement"]["AvailabilityZone"] == "eu-west-1a"
    assert item["State"] == {"Code": 16, "Name": "running"}
    assert (item["PrivateIpAddress"], item["InstanceType"], item["Hypervisor"]) == ("10.0.0.10", "t3.medium", "nitro")
    assert item["SubnetId"].startswith("subnet-")
    assert item["VpcId"].startswith("vpc-")
    assert item["SecurityGroups"][0]["GroupId"].startswith("sg-")
    assert item["BlockDeviceMappings"][0]["DeviceName"] == "/dev/sdf"
    assert item["BlockDeviceMappings"][0]["Ebs"]["VolumeId"] == VOL
    assert item["NetworkInterfaces"][0]["NetworkInterfaceId"] == "eni-0a"
    assert item["NetworkInterfaces"][0]["MacAddress"] == "02:00:00:00:00:0a"
    assert item["NetworkInterfaces"][0]["PrivateIpAddresses"][0]["Primary"] is True
    assert item["Tags"] == [{"Key": "Name", "Value": "a"}]


def test_instances_by_filter():
    r = region(Latency.none(), attached=True)

    def names(*filters: tuple[str, str]) -> str:
        wanted = [{"Name": name, "Values": [value]} for name, value in filters]
        reply = r.call("DescribeInstances", {"Filters": wanted}, 0)
        return "".join(i["Tags"][0]["Value"] for s in reply["Reservations"] for i in s["Instances"])

    item = r.call("DescribeInstances", {}, 0)["Reservations"][0]["Instances"][0]
    assert names(("private-ip-address", "10.0.0.11")) == "b"
    assert names(("private-ip-address", "10.0.0.1")) == ""  # 10.0.0.1 is not 10.0.0.10
    assert names(("vpc-id", item["VpcId"]), ("subnet-id", item["SubnetId"])) == "ab"
    assert names(("tag:Name", "a")) == names(("block-device-mapping.volume-id", VOL)) == "a"
    assert names(("instance-state-name", "running")) == "ab"
    assert names(("instance-state-name", "stopped")) == ""
    refused("InvalidParameterValue", names, ("colour", "red"))


def test_metadata_tree():
    r = region()

    def get(path: str) -> str | None:
        return r.metadata("i-0a", path, 0)

    assert get("meta-data/instance-id") == "i-0a"
    assert get("meta-data/placement/region") == "eu-west-1"
    assert get("meta-data/network/interfaces/macs/") == "02:00:00:00:00:0a/"
    assert "local-ipv4s" in (get("meta-data/network/interfaces/macs/02:00:00:00:00:0a/") or "").splitlines()
    assert get("meta-data/network/interfaces/macs/02:00:00:00:00:0a/subnet-ipv4-cidr-block") == "10.0.0.0/24"
    assert get("") == "dynamic/\nmeta-data/"
    assert get("meta-data/nothing") is None
    assert r.metadata("i-0e", "meta-data/instance-id", 0) is None
    assert json.loads(get("dynamic/instance-identity/document") or "")["instanceId"] == "i-0a"
    role = get("meta-data/iam/security-credentials/")
    assert json.loads(get(f"meta-data/iam/security-credentials/{role}") or "")["Code"] == "Success"
