"""The one door to EC2, against EC2's rules as the lab plays them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from awsha.aws.ec2 import Ec2, Unassigned
from awsha.aws.errors import Ec2Error, Kind
from awsha.core.errors import AwshaError
from awsha.core.model import AttachmentState, InstanceState, Releasing, Unknown, VolumeState
from awsha.lab.faults import Fault, FaultKind
from awsha.lab.latency import Latency
from tests.adapters.aws_lab import (
    ENI_A,
    ENI_B,
    OTHER_ZONE,
    SECOND,
    VIP,
    VIP2,
    VOLUME,
    A,
    B,
    Lab,
    Servers,
    running_servers,
)

SLOW = replace(Latency.none(), attach=(2, 2), attach_device=(1, 1), detach=(2, 2))


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with running_servers() as both:
        yield both


@pytest.fixture
def lab(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return servers.fresh(monkeypatch)


@pytest.fixture
def ec2(lab: Lab) -> Iterator[Ec2]:
    door = Ec2(lab.region.name, read_timeout_s=0.5)
    yield door
    door.close()


@contextmanager
def raises(kind: Kind) -> Iterator[None]:
    with pytest.raises(Ec2Error) as caught:
        yield
    assert caught.value.kind is kind


# --- volumes


def test_a_volume_goes_from_free_to_attached_and_back(lab: Lab, ec2: Ec2):
    lab.region.latency = SLOW
    assert ec2.describe_volumes([VOLUME])[VOLUME].state is VolumeState.AVAILABLE
    replied = ec2.attach(VOLUME, A, "/dev/sdf")
    assert [(item.instance_id, item.state, item.device) for item in replied.attachments] == [
        (A, AttachmentState.ATTACHING, "/dev/sdf")
    ]
    lab.now += 3
    seen = ec2.describe_volumes([VOLUME])[VOLUME]
    assert (seen.state, seen.attachments[0].state, seen.zone) == (
        VolumeState.IN_USE,
        AttachmentState.ATTACHED,
        "eu-west-1a",
    )
    assert "/dev/sdf" in ec2.describe_instances([A])[A].device_names
    leaving = ec2.detach(VOLUME, A)
    assert leaving is not None
    assert leaving.attachments[0].state is AttachmentState.DETACHING
    lab.now += 3
    assert ec2.describe_volumes([VOLUME])[VOLUME].attachments == ()


def test_case_20_a_mounted_volume_goes_busy_and_force_takes_it(lab: Lab, ec2: Ec2):
    lab.region.latency = SLOW
    ec2.attach(VOLUME, A, "/dev/sdf")
    lab.now += 3
    ec2.describe_volumes([VOLUME])
    lab.mounted.add((A, VOLUME))
    ec2.detach(VOLUME, A)
    lab.now += 3
    assert ec2.describe_volumes([VOLUME])[VOLUME].attachments[0].state is AttachmentState.BUSY
    ec2.detach(VOLUME, A, force=True)
    lab.now += 3
    assert ec2.describe_volumes([VOLUME])[VOLUME].state is VolumeState.AVAILABLE


def test_case_21_a_volume_in_use_is_a_state_to_look_at(lab: Lab, ec2: Ec2):
    ec2.attach(VOLUME, A, "/dev/sdf")
    with raises(Kind.STATE):
        ec2.attach(VOLUME, B, "/dev/sdf")
    assert lab.truth()[1] == A


def test_a_reply_lost_after_an_attach_is_found_by_a_look(lab: Lab, ec2: Ec2):
    lab.region.add_fault(Fault("AttachVolume", FaultKind.LOST_REPLY))
    with raises(Kind.TRANSPORT):
        ec2.attach(VOLUME, A, "/dev/sdf")
    assert ec2.requests["AttachVolume"] == 1
    with raises(Kind.STATE):
        ec2.attach(VOLUME, A, "/dev/sdg")
    assert ec2.look([VOLUME], [A]).volumes[VOLUME].attachments[0].instance_id == A  # type: ignore[index]


def test_case_18_a_device_name_in_use_is_told_apart(ec2: Ec2):
    ec2.attach(VOLUME, A, "/dev/sdf")
    with raises(Kind.NAME_TAKEN):
        ec2.attach(SECOND, A, "/dev/sdf")
    with raises(Kind.INVALID):
        ec2.attach(SECOND, A, "/dev/nonsense")


def test_refusals_of_an_attach_have_their_kinds(ec2: Ec2):
    with raises(Kind.ZONE):
        ec2.attach(VOLUME, OTHER_ZONE, "/dev/sdf")
    with raises(Kind.NOT_FOUND):
        ec2.attach("vol-0dddddddddddddddd", A, "/dev/sdf")
    with raises(Kind.NOT_FOUND):
        ec2.attach(VOLUME, "i-0dddddddddddddddd", "/dev/sdf")


def test_case_25_a_detach_that_is_done_already_is_success(lab: Lab, ec2: Ec2):
    assert ec2.detach(VOLUME, A) is None  # IncorrectState: available
    ec2.attach(VOLUME, B, "/dev/sdf")
    assert ec2.detach(VOLUME, A) is None  # InvalidAttachment.NotFound
    assert lab.truth()[1] == B


def test_case_28_detaching_and_was_not_there_are_told_apart(ec2: Ec2):
    ec2.attach(VOLUME, A, "/dev/sdf")
    assert ec2.detach(VOLUME, A) is not None
    assert ec2.detach(VOLUME, B) is None


def test_a_missing_id_does_not_hide_the_others(ec2: Ec2):
    missing = "vol-0dddddddddddddddd"
    assert set(ec2.describe_volumes([VOLUME, missing, SECOND])) == {VOLUME, SECOND}
    assert ec2.describe_volumes([missing]) == {}
    assert set(ec2.describe_instances([A, "i-0dddddddddddddddd"])) == {A}
    assert ec2.describe_interface("eni-0dddddddddddddddd") is None


def test_an_id_of_the_wrong_form_does_not_hide_the_others_either(ec2: Ec2):
    assert set(ec2.describe_volumes([VOLUME, "volume-1"])) == {VOLUME}


def test_eight_volumes_at_once(lab: Lab, ec2: Ec2):
    ids = [f"vol-0333333333333333{index}" for index in range(8)]
    for volume in ids:
        lab.region.add_volume(volume, 8)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda pair: ec2.attach(pair[0], A, f"/dev/sd{pair[1]}"), zip(ids, "fghijklm", strict=True)))
    assert {lab.truth(volume)[1] for volume in ids} == {A}
    assert set(ec2.describe_volumes(ids)) == set(ids)


# --- the releasing tag


def test_the_releasing_tag_comes_with_the_volume(ec2: Ec2):
    ec2.tag_releasing(VOLUME, "a", 1_700_000_000.1234)
    assert ec2.describe_volumes([VOLUME])[VOLUME].releasing == Releasing("a", 1_700_000_000.123)
    ec2.clear_releasing(VOLUME)
    assert ec2.describe_volumes([VOLUME])[VOLUME].releasing is None
    ec2.clear_releasing(VOLUME)


def test_a_tag_that_changed_meanwhile_is_left_alone(ec2: Ec2):
    ec2.tag_releasing(VOLUME, "a", 1_700_000_000.5)
    ec2.clear_releasing(VOLUME, Releasing("b", 1_700_000_000.5))
    assert ec2.describe_volumes([VOLUME])[VOLUME].releasing is not None
    ec2.clear_releasing(VOLUME, Releasing("a", 1_700_000_000.5))
    assert ec2.describe_volumes([VOLUME])[VOLUME].releasing is None


# --- addresses


def test_addresses_are_taken_in_one_call_and_from_the_peer(lab: Lab, ec2: Ec2):
    assert ec2.assign(ENI_A, [VIP, VIP2]) == {VIP, VIP2}
    assert (lab.owner(VIP), lab.owner(VIP2)) == (A, A)
    ec2.assign(ENI_B, [VIP, VIP2])
    assert (lab.owner(VIP), lab.owner(VIP2)) == (B, B)
    assert ec2.requests["AssignPrivateIpAddresses"] == 2
    assert {VIP, VIP2} <= ec2.describe_instances([B])[B].addresses


def test_an_address_that_is_here_already_is_no_error(lab: Lab, ec2: Ec2):
    ec2.assign(ENI_A, [VIP])
    ec2.assign(ENI_A, [VIP, VIP2])
    assert (lab.owner(VIP), lab.owner(VIP2)) == (A, A)


def test_refusals_of_an_assign_have_their_kinds(ec2: Ec2):
    with raises(Kind.INVALID):
        ec2.assign(ENI_A, ["192.168.1.1"])
    with raises(Kind.INVALID):
        ec2.assign(ENI_A, ["10.0.0.11"])
    with raises(Kind.NOT_FOUND):
        ec2.assign("eni-0dddddddddddddddd", [VIP])


def test_case_14_an_address_that_is_gone_already_is_success(ec2: Ec2):
    ec2.assign(ENI_A, [VIP])
    assert ec2.unassign(ENI_A, [VIP]) == Unassigned(frozenset({VIP}), frozenset())
    assert ec2.unassign(ENI_A, [VIP]) == Unassigned(frozenset(), frozenset({VIP}))
    assert ec2.unassign(ENI_A, [VIP, VIP2]) == Unassigned(frozenset(), frozenset({VIP, VIP2}))


def test_case_15_giving_back_leaves_the_peer_what_it_has_by_now(lab: Lab, ec2: Ec2):
    ec2.assign(ENI_A, [VIP, VIP2])
    ec2.assign(ENI_B, [VIP])
    assert ec2.unassign(ENI_A, [VIP, VIP2]) == Unassigned(frozenset({VIP2}), frozenset({VIP}))
    assert (lab.owner(VIP), lab.owner(VIP2)) == (B, None)


def test_giving_back_is_right_when_the_view_of_the_interface_lags(lab: Lab, ec2: Ec2):
    ec2.assign(ENI_A, [VIP, VIP2])
    lab.now += 60
    ec2.assign(ENI_B, [VIP])
    lab.region.add_fault(Fault("DescribeNetworkInterfaces", FaultKind.STALE, seconds=30))
    assert ec2.unassign(ENI_A, [VIP, VIP2]) == Unassigned(frozenset({VIP2}), frozenset({VIP}))
    assert (lab.owner(VIP), lab.owner(VIP2)) == (B, None)


# --- instances


def test_an_instance_is_stopped_without_asking_its_system(lab: Lab, ec2: Ec2):
    lab.region.latency = replace(Latency.none(), stop=(20, 20), stop_skip_os=(3, 3))
    assert ec2.stop_instance(B) is InstanceState.STOPPING
    lab.now += 4
    assert ec2.describe_instances([B])[B].state is InstanceState.STOPPED
    assert ec2.stop_instance(B) is InstanceState.STOPPED


def test_instances_are_found_by_address(ec2: Ec2):
    ec2.assign(ENI_A, [VIP])
    found = ec2.find_instances(["10.0.0.10", "10.0.0.1", "10.0.0.11"])
    assert {address: [item.facts.id for item in items] for address, items in found.items()} == {
        "10.0.0.10": [A],
        "10.0.0.1": [],
        "10.0.0.11": [B],
    }
    assert found["10.0.0.10"][0].interfaces[0].id == ENI_A
    assert found["10.0.0.10"][0].interfaces[0].addresses == {"10.0.0.10", VIP}


def test_a_volume_is_found_by_its_tags(ec2: Ec2):
    assert ec2.resolve_volume({"Name": "db", "env": "prod"}) == VOLUME
    with pytest.raises(AwshaError, match="no volume in eu-west-1 has the tags Name=none"):
        ec2.resolve_volume({"Name": "none"})
    with pytest.raises(AwshaError) as caught:
        ec2.resolve_volume({"env": "prod"})
    assert VOLUME in caught.value.message
    assert SECOND in caught.value.message


# --- looks


def test_a_look_has_volumes_and_instances(ec2: Ec2):
    ec2.attach(VOLUME, A, "/dev/sdf")
    facts = ec2.look([VOLUME, SECOND], [A, B])
    assert not isinstance(facts.volumes, Unknown)
    assert not isinstance(facts.instances, Unknown)
    assert {key: item.state for key, item in facts.volumes.items()} == {VOLUME: "in-use", SECOND: "available"}
    assert {key: item.state for key, item in facts.instances.items()} == {A: "running", B: "running"}
    assert isinstance(facts.metadata_addresses, Unknown)


def test_a_part_that_fails_is_unknown_with_its_reason(lab: Lab, ec2: Ec2):
    lab.region.add_fault(Fault("DescribeInstances", FaultKind.ERROR, code="InternalError"))
    facts = ec2.look([VOLUME], [A])
    assert isinstance(facts.instances, Unknown)
    assert "InternalError" in facts.instances.reason
    assert not isinstance(facts.volumes, Unknown)


def test_a_black_hole_makes_both_parts_unknown_in_time(lab: Lab, ec2: Ec2):
    lab.region.add_fault(Fault("*", FaultKind.BLACK_HOLE, times=None))
    facts = ec2.look([VOLUME], [A])
    assert isinstance(facts.volumes, Unknown)
    assert isinstance(facts.instances, Unknown)


def test_throttling_of_a_look_is_waited_out(lab: Lab, ec2: Ec2):
    lab.region.add_fault(Fault("DescribeVolumes", FaultKind.THROTTLE, times=2))
    ec2.describe_volumes([VOLUME])
    assert (ec2.requests["DescribeVolumes"], ec2.throttled) == (3, 2)
