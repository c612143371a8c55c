"""Who is who: by configuration, instance metadata and EC2, against the lab."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from awsha.aws.ec2 import Ec2
from awsha.aws.identity import LocalInterface, identify, region_of, this_node
from awsha.aws.metadata import Metadata
from awsha.core.errors import AwshaError
from awsha.core.model import Self
from awsha.core.policy import Group, Node, Policy
from awsha.lab.faults import Fault, FaultKind
from tests.adapters.aws_lab import ENI_A, ENI_B, MAC_A, MAC_B, VIP, A, B, Lab, Servers, running_servers

POLICY = Policy(nodes=(Node("a", "10.0.0.10"), Node("b", "10.0.0.11")), groups=())
HERE = (LocalInterface("lo", "00:00:00:00:00:00", frozenset({"127.0.0.1"})),)
ON_A = (*HERE, LocalInterface("eth0", MAC_A, frozenset({"10.0.0.10"})))
ON_B = (*HERE, LocalInterface("ens5", MAC_B, frozenset({"10.0.0.11", VIP})))
OFF = Metadata({"AWS_EC2_METADATA_DISABLED": "true"})


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


@pytest.fixture
def metadata(lab: Lab) -> Iterator[Metadata]:
    asked = Metadata({"AWS_EC2_METADATA_SERVICE_ENDPOINT": lab.metadata_url})
    yield asked
    asked.close()


def test_by_metadata_and_address(ec2: Ec2, metadata: Metadata):
    found = identify(POLICY, ON_A, ec2, metadata)
    assert found.this == Self("a", A, ENI_A, "eth0", {B: "b"})
    assert (found.instances, found.unresolved) == ({"a": A, "b": B}, {})
    assert ec2.requests == {"DescribeInstances": 1}


def test_without_metadata_ec2_tells_all_in_one_call(ec2: Ec2):
    found = identify(POLICY, ON_B, ec2, OFF)
    assert found.this == Self("b", B, ENI_B, "ens5", {A: "a"})
    assert ec2.requests == {"DescribeInstances": 1}


def test_with_ids_in_the_configuration_and_metadata_ec2_is_not_asked(ec2: Ec2, metadata: Metadata):
    policy = Policy(nodes=(Node("a", "10.0.0.10", A), Node("b", "10.0.0.11", B)), groups=())
    assert identify(policy, ON_A, ec2, metadata).this == Self("a", A, ENI_A, "eth0", {B: "b"})
    assert ec2.requests == {}


def test_an_instance_id_that_is_another_instances_is_refused(ec2: Ec2, metadata: Metadata):
    policy = Policy(nodes=(Node("a", "10.0.0.10", B), Node("b", "10.0.0.11")), groups=())
    with pytest.raises(AwshaError, match=f"instance_id {B} in awsha.toml, but this instance is {A}"):
        identify(policy, ON_A, ec2, metadata)


def test_a_host_that_is_no_node_is_told_what_it_has():
    with pytest.raises(AwshaError) as caught:
        this_node(POLICY, (LocalInterface("eth0", MAC_A, frozenset({"10.0.0.1", "10.0.0.100"})),))
    assert "10.0.0.1 (eth0), 10.0.0.100 (eth0)" in caught.value.message
    assert "a=10.0.0.10" in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 78


def test_a_host_that_is_two_nodes_is_refused():
    with pytest.raises(AwshaError, match="addresses of 2 nodes"):
        this_node(POLICY, (LocalInterface("eth0", MAC_A, frozenset({"10.0.0.10", "10.0.0.11"})),))


def test_a_peer_that_does_not_exist_keeps_nobody_from_work(ec2: Ec2, metadata: Metadata):
    policy = Policy(nodes=(*POLICY.nodes, Node("c", "10.0.0.12")), groups=())
    found = identify(policy, ON_A, ec2, metadata)
    assert found.this.peers == {B: "b"}
    assert found.unresolved == {"c": "10.0.0.12: no instance has this address"}


def test_with_metadata_alone_this_node_is_known(lab: Lab, ec2: Ec2, metadata: Metadata):
    lab.region.add_fault(Fault("*", FaultKind.ERROR, code="InternalError", times=None))
    found = identify(POLICY, ON_A, ec2, metadata)
    assert found.this == Self("a", A, ENI_A, "eth0", {})
    assert "InternalError" in found.unresolved["b"]


def test_without_metadata_and_ec2_this_node_is_not_known(lab: Lab, ec2: Ec2):
    lab.region.add_fault(Fault("*", FaultKind.ERROR, code="UnauthorizedOperation", times=None))
    with pytest.raises(AwshaError) as caught:
        identify(POLICY, ON_A, ec2, OFF)
    assert "UnauthorizedOperation" in caught.value.message
    assert "ec2:DescribeInstances" in caught.value.hint


def test_the_interface_of_the_group_is_used(ec2: Ec2, metadata: Metadata):
    group = Group("data", 51, (VIP,), interface="eth0")
    assert identify(POLICY, ON_A, ec2, metadata, group).this.interface == "eth0"
    wrong = Group("data", 51, (VIP,), interface="eth7")
    with pytest.raises(AwshaError, match="node a has no interface eth7"):
        identify(POLICY, ON_A, ec2, metadata, wrong)


def test_an_interface_that_metadata_does_not_know_is_looked_up_in_ec2(ec2: Ec2, metadata: Metadata):
    bond = (LocalInterface("bond0", "0a:00:00:00:00:99", frozenset({"10.0.0.10"})),)
    assert identify(POLICY, bond, ec2, metadata).this.eni_id == ENI_A
    tunnel = (*ON_A, LocalInterface("tun0", "0a:00:00:00:00:98", frozenset({"172.16.0.1"})))
    with pytest.raises(AwshaError, match="EC2 knows no network interface of"):
        identify(POLICY, tunnel, ec2, metadata, Group("data", 51, (VIP,), interface="tun0"))


def test_the_metadata_of_the_lab(metadata: Metadata, ec2: Ec2):
    assert (metadata.instance_id(), metadata.region(), metadata.zone()) == (A, "eu-west-1", "eu-west-1a")
    assert metadata.macs() == (MAC_A,)
    ec2.assign(ENI_A, [VIP])
    assert metadata.local_ipv4s(MAC_A) == {"10.0.0.10", VIP}


def test_the_region_is_found_in_order(metadata: Metadata, monkeypatch: pytest.MonkeyPatch):
    env = {"AWS_REGION": "eu-west-2", "AWS_DEFAULT_REGION": "eu-west-3"}
    assert region_of(Policy((), (), region="us-east-1"), metadata, env) == "us-east-1"
    assert region_of(POLICY, metadata, env) == "eu-west-2"
    assert region_of(POLICY, metadata, {"AWS_DEFAULT_REGION": "eu-west-3"}) == "eu-west-3"
    assert region_of(POLICY, metadata, {}) == "eu-west-1"
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    for key in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(key, raising=False)
    with pytest.raises(AwshaError, match="region is not known") as caught:
        region_of(POLICY, OFF, {})
    assert "AWS_REGION" in caught.value.hint


def test_the_region_of_a_profile_is_the_last_resort(tmp_path, monkeypatch: pytest.MonkeyPatch):
    config = tmp_path / "config"
    config.write_text("[profile work]\nregion = ap-south-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    assert region_of(POLICY, OFF, {}) == "ap-south-1"
