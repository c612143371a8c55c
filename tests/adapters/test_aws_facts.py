"""EC2's replies as facts: what is known is told, what is not understood is an error, and nothing crashes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awsha.aws import facts
from awsha.aws.errors import Ec2Error, Kind
from awsha.core.model import Attachment, AttachmentState, InstanceState, Releasing, VolumeFacts, VolumeState

VOLUME: dict[str, Any] = {
    "VolumeId": "vol-1",
    "State": "in-use",
    "AvailabilityZone": "eu-west-1a",
    "MultiAttachEnabled": False,
    "Attachments": [{"VolumeId": "vol-1", "InstanceId": "i-1", "State": "attached", "Device": "/dev/sdf"}],
    "Tags": [{"Key": "Name", "Value": "db"}, {"Key": "awsha:releasing", "Value": "1700000000.125 a"}],
}
INSTANCE: dict[str, Any] = {
    "InstanceId": "i-1",
    "State": {"Name": "running"},
    "Placement": {"AvailabilityZone": "eu-west-1a"},
    "SubnetId": "subnet-1",
    "PrivateIpAddress": "10.0.0.10",
    "RootDeviceName": "/dev/xvda",
    "BlockDeviceMappings": [{"DeviceName": "/dev/xvda"}, {"DeviceName": "/dev/sdf"}],
    "NetworkInterfaces": [
        {
            "NetworkInterfaceId": "eni-1",
            "MacAddress": "0A:00:00:00:00:01",
            "PrivateIpAddress": "10.0.0.10",
            "PrivateIpAddresses": [{"PrivateIpAddress": "10.0.0.10"}, {"PrivateIpAddress": "10.0.0.100"}],
        },
        {"NetworkInterfaceId": "eni-2", "MacAddress": "0a:00:00:00:00:02", "PrivateIpAddress": "10.0.0.20"},
    ],
}


def test_a_volume():
    assert facts.volumes({"Volumes": [VOLUME]}) == {
        "vol-1": VolumeFacts(
            id="vol-1",
            state=VolumeState.IN_USE,
            attachments=(Attachment("i-1", AttachmentState.ATTACHED, "/dev/sdf"),),
            releasing=Releasing("a", 1700000000.125),
            zone="eu-west-1a",
        )
    }


def test_an_instance_has_the_addresses_of_all_its_interfaces():
    found = facts.instances({"Reservations": [{"Instances": [INSTANCE]}]})["i-1"]
    assert found.facts.state is InstanceState.RUNNING
    assert found.facts.addresses == {"10.0.0.10", "10.0.0.100", "10.0.0.20"}
    assert found.facts.device_names == {"/dev/xvda", "/dev/sdf"}
    assert (found.facts.zone, found.facts.subnet) == ("eu-west-1a", "subnet-1")
    assert [(eni.id, eni.mac) for eni in found.interfaces] == [
        ("eni-1", "0a:00:00:00:00:01"),
        ("eni-2", "0a:00:00:00:00:02"),
    ]


def test_a_terminated_instance_has_little_left():
    found = facts.instances({"Reservations": [{"Instances": [{"InstanceId": "i-9", "State": {"Name": "terminated"}}]}]})
    assert found["i-9"].facts.addresses == frozenset()


def test_a_detached_attachment_is_left_out():
    volume = VOLUME | {"Attachments": [{"InstanceId": "i-1", "State": "detached"}], "State": "available"}
    assert facts.volumes({"Volumes": [volume]})["vol-1"].attachments == ()


def test_case_26_two_attachments_are_both_told():
    two = [{"InstanceId": name, "State": "attached", "Device": "/dev/sdf"} for name in ("i-1", "i-2")]
    assert len(facts.volumes({"Volumes": [VOLUME | {"Attachments": two}]})["vol-1"].attachments) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"State": "melted"},
        {"State": None},
        {"VolumeId": ""},
        {"VolumeId": 7},
        {"Attachments": "none"},
        {"Attachments": [None]},
        {"Attachments": [{"InstanceId": "i-1"}]},
        {"Attachments": [{"State": "attached"}]},
        {"Attachments": [{"InstanceId": "i-1", "State": "melting"}]},
        {"AvailabilityZone": ["a"]},
    ],
)
def test_a_volume_that_is_not_understood_is_never_taken_for_free(change: dict[str, Any]):
    with pytest.raises(Ec2Error) as caught:
        facts.volumes({"Volumes": [VOLUME | change]})
    assert caught.value.kind is Kind.REPLY


@pytest.mark.parametrize(
    "value", ["", "yesterday a", "1700000000.1", "1700000000.1 ", "nan a", "inf a", "-5 a", "a 1700000000.1"]
)
def test_a_releasing_tag_that_somebody_else_wrote_is_none(value: str):
    assert facts.releasing_of(value) is None


@given(
    node=st.text(st.characters(codec="ascii", exclude_characters=" ", categories=["L", "N"]), min_size=1),
    at_ms=st.integers(0, 4_000_000_000_000),
)
def test_a_releasing_tag_says_what_was_written(node: str, at_ms: int):
    written = facts.releasing_value(node, at_ms / 1000)
    told = facts.releasing_of(written)
    assert told is not None
    assert told.node == node
    assert abs(told.at_wall - at_ms / 1000) < 0.001
    assert facts.releasing_value(told.node, told.at_wall) == written


KEYS = ["Volumes", "Reservations", "Instances", "NetworkInterfaces", "StoppingInstances", "VolumeId", "State", "Tags"]
KEYS += ["Attachments", "InstanceId", "Name", "CurrentState", "Placement", "Key", "Value", "PrivateIpAddresses"]
WORDS = st.sampled_from(["in-use", "available", "running", "attached", "vol-1", "i-1", "awsha:releasing", "", "x"])
MAD = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=20,
)


@given(reply=MAD)
def test_any_reply_gives_facts_or_a_typed_error(reply: Any):
    readers = [facts.volumes, facts.instances, facts.interfaces, facts.assigned]
    readers += [lambda r: facts.stopping_state(r, "i-1"), lambda r: facts.attachment_reply(r, "AttachVolume")]
    for read in readers:
        try:
            read(reply)
        except Ec2Error as error:
            assert error.kind is Kind.REPLY
    facts.next_token(reply)


MUTATED = st.dictionaries(st.sampled_from(sorted(VOLUME)), MAD, max_size=3)


@given(change=MUTATED, drop=st.sets(st.sampled_from(sorted(VOLUME))))
def test_a_volume_with_parts_missing_or_mad_gives_facts_or_a_typed_error(change: dict[str, Any], drop: set[str]):
    record = {key: value for key, value in (VOLUME | change).items() if key not in drop}
    try:
        facts.volumes({"Volumes": [record]})
    except Ec2Error as error:
        assert error.kind is Kind.REPLY
