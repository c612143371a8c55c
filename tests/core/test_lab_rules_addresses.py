"""EC2's rules for secondary private addresses: one owner, three truths, each at its own time."""

from __future__ import annotations

import pytest

from awsha.lab.rules import AddressMoved, Ec2Error, Latency, Region

VIP = "10.0.0.100"
SECONDS = Latency(assign_visible_api=(1, 1), assign_visible_metadata=(3, 3), assign_dataplane=(2, 2))


def region(latency: Latency = SECONDS, seed: int = 0) -> Region:
    r = Region(latency, seed)
    for letter, last in (("a", 10), ("b", 11), ("c", 12)):
        r.add_instance(letter, f"i-0{letter}", f"eni-0{letter}", f"02:00:00:00:00:0{letter}", f"10.0.0.{last}")
    return r


def assign(r: Region, now: float, to: str, *addresses: str, allow=True, **more):
    params = {"NetworkInterfaceId": f"eni-0{to}", "PrivateIpAddresses": list(addresses), **more}
    return r.call("AssignPrivateIpAddresses", {**params, "AllowReassignment": allow}, now)


def unassign(r: Region, now: float, to: str, *addresses: str):
    return r.call(
        "UnassignPrivateIpAddresses", {"NetworkInterfaceId": f"eni-0{to}", "PrivateIpAddresses": list(addresses)}, now
    )


def by_api(r: Region, now: float, of: str) -> list[str]:
    found = r.call("DescribeNetworkInterfaces", {"NetworkInterfaceIds": [f"eni-0{of}"]}, now)["NetworkInterfaces"][0]
    return [a["PrivateIpAddress"] for a in found["PrivateIpAddresses"] if not a["Primary"]]


def by_instance(r: Region, now: float) -> list[str]:
    wanted = [{"Name": "network-interface.addresses.private-ip-address", "Values": [VIP]}]
    reply = r.call("DescribeInstances", {"Filters": wanted}, now)
    return [i["InstanceId"] for reservation in reply["Reservations"] for i in reservation["Instances"]]


def by_metadata(r: Region, now: float, of: str) -> list[str]:
    path = f"meta-data/network/interfaces/macs/02:00:00:00:00:0{of}/local-ipv4s"
    return (r.metadata(f"i-0{of}", path, now) or "").splitlines()[1:]


def run(r: Region, until: float) -> list:
    effects = r.advance(until, lambda _i, _v: False)
    r.check_invariants()
    return effects


def refused(code: str, act, *args, **more) -> None:
    with pytest.raises(Ec2Error) as caught:
        act(*args, **more)
    assert caught.value.code == code


def test_three_truths_at_three_times():
    r = region()
    reply = assign(r, 0, "a", VIP)
    assert reply["AssignedPrivateIpAddresses"] == [{"PrivateIpAddress": VIP}]
    seen = []
    for now in (0, 0.9, 1, 2, 3):
        moved = run(r, now)
        seen.append((by_api(r, now, "a"), by_instance(r, now), moved, by_metadata(r, now, "a")))
    assert seen == [
        ([], [], [], []),
        ([], [], [], []),
        ([VIP], ["i-0a"], [], []),
        ([VIP], ["i-0a"], [AddressMoved(VIP, "eni-0a")], []),
        ([VIP], ["i-0a"], [], [VIP]),
    ]


def test_reassignment_takes_it_from_the_other_interface():
    r = region(Latency.none())
    assign(r, 0, "a", VIP)
    refused("Resource.AlreadyAssigned", assign, r, 1, "b", VIP, allow=False)
    assign(r, 1, "b", VIP)
    assert run(r, 1) == [AddressMoved(VIP, "eni-0a"), AddressMoved(VIP, "eni-0b")]
    assert (by_api(r, 1, "a"), by_api(r, 1, "b"), by_instance(r, 1)) == ([], [VIP], ["i-0b"])
    assert (by_metadata(r, 1, "a"), by_metadata(r, 1, "b")) == ([], [VIP])
    assert r.snapshot()["addresses"][VIP] == "i-0b"


def test_ones_own_stays_without_any_move():
    r = region(Latency.none())
    assign(r, 0, "a", VIP)
    run(r, 0)
    assign(r, 1, "a", VIP)
    assign(r, 1, "a", VIP, allow=False)
    assert run(r, 1) == []


def test_all_addresses_of_an_interface_in_one_call_or_none():
    r = region(Latency.none())
    assign(r, 0, "a", VIP, "10.0.0.101", VIP)
    assert by_api(r, 0, "a") == [VIP, "10.0.0.101"]
    refused("InvalidParameterValue", assign, r, 0, "b", VIP, "10.9.0.1")
    refused("InvalidParameterValue", unassign, r, 0, "a", VIP, "10.0.0.102")
    assert by_api(r, 0, "a") == [VIP, "10.0.0.101"]
    assert unassign(r, 0, "a", VIP, "10.0.0.101") == {}
    assert run(r, 0)[-2:] == [AddressMoved(VIP, None), AddressMoved("10.0.0.101", None)]
    assert by_api(r, 0, "a") == []


def test_never_a_primary_address():
    r = region(Latency.none())
    refused("InvalidParameterValue", assign, r, 0, "a", "10.0.0.11")
    refused("Resource.AlreadyAssigned", assign, r, 0, "a", "10.0.0.11", allow=False)
    refused("InvalidParameterValue", assign, r, 0, "a", "10.0.0.10")
    refused("InvalidParameterValue", unassign, r, 0, "a", "10.0.0.10")


@pytest.mark.parametrize("address", ["10.0.1.5", "10.0.0.1", "10.0.0.255", "10.0.0.999", "vip", ""])
def test_only_usable_addresses_of_the_subnet(address):
    refused("InvalidParameterValue", assign, region(), 0, "a", address)


def test_unassign_of_what_is_not_there():
    r = region(Latency.none())
    refused("InvalidParameterValue", unassign, r, 0, "a", VIP)
    assign(r, 0, "b", VIP)
    refused("InvalidParameterValue", unassign, r, 0, "a", VIP)  # never takes it from the peer
    assert by_api(r, 0, "b") == [VIP]


def test_missing_and_unknown():
    r = region()
    refused("MissingParameter", assign, r, 0, "a")
    refused("MissingParameter", unassign, r, 0, "a")
    refused("MissingParameter", r.call, "AssignPrivateIpAddresses", {"PrivateIpAddresses": [VIP]}, 0)
    refused("InvalidNetworkInterfaceID.NotFound", assign, r, 0, "z", VIP)
    refused("InvalidParameterCombination", assign, r, 0, "a", VIP, SecondaryPrivateIpAddressCount=1)
    refused("InvalidNetworkInterfaceID.NotFound", by_api, r, 0, "z")


def test_six_addresses_an_interface_and_a_count():
    r = region(Latency.none())
    reply = r.call("AssignPrivateIpAddresses", {"NetworkInterfaceId": "eni-0a", "SecondaryPrivateIpAddressCount": 4}, 0)
    assert [a["PrivateIpAddress"] for a in reply["AssignedPrivateIpAddresses"]] == [f"10.0.0.{n}" for n in (4, 5, 6, 7)]
    assign(r, 0, "a", VIP)
    refused("PrivateIpAddressLimitExceeded", assign, r, 0, "a", "10.0.0.101")
    assign(r, 0, "a", VIP)  # its own: not one more


@pytest.mark.parametrize("seed", range(30))
def test_moved_twice_quickly_ends_with_the_last_call_in_every_view(seed):
    wide = Latency(assign_visible_api=(0, 3), assign_visible_metadata=(0, 9), assign_dataplane=(0, 5))
    r = region(wide, seed)
    assign(r, 0, "a", VIP)
    assign(r, 0.1, "b", VIP)
    if seed % 2:
        assign(r, 0.2, "c", VIP)
        assign(r, 0.3, "a", VIP)
    last = "a" if seed % 2 else "b"
    moves = run(r, 60)
    assert moves[-1] == AddressMoved(VIP, f"eni-0{last}")
    assert r.snapshot()["dataplane"][VIP] == f"eni-0{last}"
    for name in "abc":
        assert by_api(r, 60, name) == by_metadata(r, 60, name) == ([VIP] if name == last else [])
    assert by_instance(r, 60) == [f"i-0{last}"]


def test_interfaces_by_filter():
    r = region(Latency.none())
    assign(r, 0, "b", VIP)

    def ids(name: str, value: str) -> list[str]:
        reply = r.call("DescribeNetworkInterfaces", {"Filters": [{"Name": name, "Values": [value]}]}, 0)
        return [item["NetworkInterfaceId"] for item in reply["NetworkInterfaces"]]

    assert ids("addresses.private-ip-address", VIP) == ["eni-0b"]
    assert ids("private-ip-address", VIP) == []
    assert ids("private-ip-address", "10.0.0.1*") == ["eni-0a", "eni-0b", "eni-0c"]
    assert ids("attachment.instance-id", "i-0c") == ids("mac-address", "02:00:00:00:00:0c") == ["eni-0c"]


def test_termination_frees_the_addresses():
    r = region(Latency.none())
    assign(r, 0, "a", VIP)
    r.call("TerminateInstances", {"InstanceIds": ["i-0a"]}, 1)
    moved = run(r, 1)
    assert {AddressMoved("10.0.0.10", None), AddressMoved(VIP, None)} <= set(moved)
    refused("InvalidNetworkInterfaceID.NotFound", by_api, r, 1, "a")
    assign(r, 1, "b", VIP, "10.0.0.10", allow=False)
