"""conf/lambda/watcher.py: against moto, its verdict on states that moto does not play, its deployment."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from awsha.aws.ec2 import Ec2
from awsha.aws.facts import RELEASING_TAG, releasing_value
from awsha.core.policy import Timeouts
from tests.adapters import cfn
from tests.adapters.aws_lab import ENI_A, VOLUME, A, B, running_servers
from tests.adapters.test_cloudformation import FILE, stack
from tests.tools.copies import WATCHER

boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto")
pytestmark = pytest.mark.xdist_group("watcher")  # one moto for all of it
VIP, PAIR, STATE = "10.0.0.100", "pair-1", "watcher-state"
NEVER_TOLD = {"state": "", "moving_since": None}


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("watcher", WATCHER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


watcher = _load()


class OfMoto:
    """EC2's client for a moto whose filter knows primary addresses only: it is left out, the watcher looks itself."""

    def __init__(self, ec2: Any) -> None:
        self.ec2 = ec2

    def get_paginator(self, operation: str) -> Any:
        def paginate(Filters: list[dict[str, Any]]) -> Any:
            kept = [item for item in Filters if item["Name"] != "addresses.private-ip-address"]
            return self.ec2.get_paginator(operation).paginate(Filters=kept)

        return SimpleNamespace(paginate=paginate)


class World:
    """A pair in moto, whose clock is the test's. `later` is done between one look and the next."""

    def __init__(self) -> None:
        self.aws = {name: boto3.client(name, "eu-west-1") for name in ("ec2", "sns", "ssm", "cloudwatch")}
        self.ec2 = self.aws["ec2"]
        self.aws["ec2"] = OfMoto(self.ec2)
        subnet = self._network()
        image = next(iter(moto.backends.get_backend("ec2")["123456789012"]["eu-west-1"].amis))  # asking takes seconds
        tags = {letter: [_tag("awsha:pair", PAIR), _tag("awsha:node", letter)] for letter in "ab"}
        self.nodes = {
            letter: self.ec2.run_instances(
                ImageId=image,
                MinCount=1,
                MaxCount=1,
                SubnetId=subnet["SubnetId"],
                TagSpecifications=[{"ResourceType": "instance", "Tags": tags[letter]}],
            )["Instances"][0]
            for letter in "ab"
        }
        self.volume = self.ec2.create_volume(
            AvailabilityZone=subnet["AvailabilityZone"],
            Size=1,
            TagSpecifications=[{"ResourceType": "volume", "Tags": [_tag("awsha:pair", PAIR)]}],
        )["VolumeId"]
        self.topic = self.aws["sns"].create_topic(Name="watcher")["TopicArn"]
        self.later: Callable[[], None] = lambda: None
        self.clock = 0.0
        self.pace = 10

    def reset(self) -> None:
        """Everything at node a, for long, and that was told."""
        self.ec2.start_instances(InstanceIds=[node["InstanceId"] for node in self.nodes.values()])
        [volume] = self.ec2.describe_volumes(VolumeIds=[self.volume])["Volumes"]
        for attachment in volume["Attachments"]:
            self.ec2.detach_volume(VolumeId=self.volume, InstanceId=attachment["InstanceId"])
        self.ec2.delete_tags(Resources=[self.volume], Tags=[{"Key": RELEASING_TAG}])
        self.take("a")
        self.clock, self.pace = time.time() + 1000, 10
        self.state(NEVER_TOLD)
        assert self.watch() == "together"
        self.sent = len(self._notifications())

    def state(self, value: dict[str, Any]) -> None:
        self.aws["ssm"].put_parameter(Name=STATE, Type="String", Value=json.dumps(value), Overwrite=True)

    def _network(self) -> dict[str, Any]:
        vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/24")["Vpc"]["VpcId"]
        subnet: dict[str, Any] = self.ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]
        return subnet

    def take(self, node: str) -> None:
        """Volume and address to a node."""
        self.ec2.attach_volume(VolumeId=self.volume, InstanceId=self.nodes[node]["InstanceId"], Device="/dev/sdf")
        self.assign(node)

    def assign(self, node: str) -> None:
        """The address to a node: moto lets two interfaces have it, EC2 does not."""
        self.unassign("b" if node == "a" else "a")
        self.ec2.assign_private_ip_addresses(
            NetworkInterfaceId=self.face(node), PrivateIpAddresses=[VIP], AllowReassignment=True
        )

    def unassign(self, node: str) -> None:
        self.ec2.unassign_private_ip_addresses(NetworkInterfaceId=self.face(node), PrivateIpAddresses=[VIP])

    def let_go(self, node: str) -> None:
        """As a planned release: first the tag, then address and volume."""
        value = releasing_value(node, self.clock)
        self.ec2.create_tags(Resources=[self.volume], Tags=[_tag(RELEASING_TAG, value)])
        self.lose(node)

    def lose(self, node: str) -> None:
        self.unassign(node)
        self.ec2.detach_volume(VolumeId=self.volume, InstanceId=self.nodes[node]["InstanceId"])

    def face(self, node: str) -> str:
        name: str = self.nodes[node]["NetworkInterfaces"][0]["NetworkInterfaceId"]
        return name

    def sleep(self, seconds: float) -> None:
        self.clock += self.pace * seconds  # a slow machine: fewer looks in the same time
        self.later, action = (lambda: None), self.later
        action()

    def watch(self, aws: dict[str, Any] | None = None) -> str:
        """One invocation: the state that it found."""
        found = watcher.watch(aws or self.aws, PAIR, [VIP], self.topic, STATE, now=lambda: self.clock, sleep=self.sleep)
        state: str = found["state"]
        return state

    def told(self) -> list[str]:
        """The messages since the reset."""
        return [message for _, message, *_ in self._notifications()[self.sent :]]

    def _notifications(self) -> list[Any]:
        topics = moto.backends.get_backend("sns")["123456789012"]["eu-west-1"].topics
        return list(topics[self.topic].sent_notifications)

    def metric(self, name: str) -> float:
        """The newest value."""
        data = moto.backends.get_backend("cloudwatch")["123456789012"]["eu-west-1"].metric_data
        found = [item for item in data if item.name == name]
        assert {(item.namespace, item.dimensions[0].value) for item in found} == {("awsha", PAIR)}
        return float(found[-1].value)


def _tag(key: str, value: str) -> dict[str, str]:
    return {"Key": key, "Value": value}


@pytest.fixture(scope="module")
def only_world() -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        with moto.mock_aws():
            yield World()


@pytest.fixture
def world(only_world: World) -> World:
    only_world.reset()
    return only_world


def test_as_long_as_all_is_well_nothing_is_told(world: World):
    before = world.clock
    assert [world.watch() for _ in range(2)] == ["together"] * 2
    assert world.told() == []
    assert world.clock == before, "it did not wait"
    assert (world.metric("Apart"), world.metric("Moving")) == (0.0, 0.0)


def test_apart_is_told_once_and_so_is_its_end(world: World):
    world.assign("b")
    assert [world.watch() for _ in range(2)] == ["apart"] * 2
    assert world.metric("Apart") == 1.0
    [message] = world.told()
    holder, other = world.nodes["a"]["InstanceId"], world.nodes["b"]["InstanceId"]
    assert f"{world.volume} is at a ({holder}, running)" in message
    assert f"{VIP} is at b ({other}, running)" in message
    world.assign("a")
    assert world.watch() == world.watch() == "together"
    assert world.metric("Apart") == 0.0
    assert len(world.told()) == 2


def test_a_holder_that_does_not_run_is_told(world: World):
    world.ec2.stop_instances(InstanceIds=[world.nodes["a"]["InstanceId"]])
    assert world.watch() == world.watch() == "apart"
    [message] = world.told()
    assert "stopped)" in message


def test_a_failover_that_comes_to_its_end_is_not(world: World):
    world.ec2.stop_instances(InstanceIds=[world.nodes["a"]["InstanceId"]])

    def failover() -> None:
        world.lose("a")
        world.later = lambda: world.take("b")

    world.later, world.pace = failover, 4
    assert world.watch() == "together"
    assert world.told() == []


def test_a_handover_under_way_is_not_told(world: World):
    world.let_go("a")
    assert world.watch() == "moving"
    assert (world.metric("Apart"), world.metric("Moving")) == (0.0, 1.0)
    world.take("b")
    assert world.watch() == "together"
    assert world.told() == []


def test_a_handover_that_nobody_ends_is_told_when_its_sign_is_old(world: World):
    world.let_go("a")
    assert world.watch() == "moving"
    world.clock += watcher.HANDOVER_S
    assert world.watch() == world.watch() == "apart"
    [message] = world.told()
    assert "is at nobody" in message


def test_signs_of_a_handover_are_not_believed_for_ever(world: World):
    """A node that begins to release again and again."""
    world.let_go("a")
    seen = []
    for _ in range(8):
        tag = _tag(RELEASING_TAG, releasing_value("a", world.clock))
        world.ec2.create_tags(Resources=[world.volume], Tags=[tag])
        seen.append(world.watch())
        world.clock += 40
    assert seen[:3] == ["moving"] * 3
    assert seen[-1] == "apart"
    assert len(world.told()) == 1


class Between:
    """The parameter store, where another invocation comes in between the reading and the writing of this one."""

    def __init__(self, world: World, other: Callable[[], None]) -> None:
        self.inner, self.other = world.aws["ssm"], other
        self.calls = 0

    def get_parameter(self, **words: Any) -> Any:
        self.calls += 1
        read = self.inner.get_parameter(**words)
        if self.calls == 1:
            self.other()
        return read

    def put_parameter(self, **words: Any) -> Any:
        return self.inner.put_parameter(**words)


def test_of_invocations_at_the_same_time_one_tells(world: World):
    world.assign("b")
    ssm = Between(world, lambda: world.watch() and None)
    assert world.watch({**world.aws, "ssm": ssm}) == "apart"
    assert len(world.told()) == 1


def test_another_invocation_that_only_noted_a_handover_has_not_told_it(world: World):
    world.assign("b")
    note = {"state": "together", "moving_since": 1.0}
    ssm = Between(world, lambda: world.state(note))
    assert world.watch({**world.aws, "ssm": ssm}) == "apart"
    assert len(world.told()) == 1


def test_a_message_that_could_not_be_sent_is_sent_by_the_next_invocation(world: World):
    world.assign("b")
    with pytest.raises(ConnectionError):
        world.watch({**world.aws, "sns": Broken()})
    assert world.told() == []
    assert world.watch() == "apart"
    assert len(world.told()) == 1


class Broken:
    """A service that can't be reached."""

    def __getattr__(self, name: str) -> Any:
        raise ConnectionError(name)


def test_a_metric_that_could_not_be_written_keeps_no_message_back(world: World):
    world.assign("b")
    with pytest.raises(ConnectionError):
        world.watch({**world.aws, "cloudwatch": Broken()})
    assert len(world.told()) == 1
    assert world.watch() == "apart"
    assert len(world.told()) == 1, "it was told"


@pytest.mark.parametrize("service", ["ssm", "sns"])
def test_the_metric_is_written_whatever_becomes_of_the_message(world: World, service: str):
    world.assign("b")
    with pytest.raises(ConnectionError):
        world.watch({**world.aws, service: Broken()})
    assert world.told() == []
    assert world.metric("Apart") == 1.0


def test_while_the_nodes_are_being_made_nothing_is_told(world: World):
    world.state(NEVER_TOLD)
    world.lose("a")
    assert world.watch() == "apart"
    assert world.told() == []
    assert world.metric("Apart") == 1.0


def test_lambda_calls_it_with_its_environment_alone(world: World, monkeypatch: pytest.MonkeyPatch):
    first = world.nodes["a"]["NetworkInterfaces"][0]["PrivateIpAddress"]  # the address that moto's filter knows
    given = {"PAIR": PAIR, "VIPS": first, "TOPIC_ARN": world.topic, "STATE": STATE, "AWS_DEFAULT_REGION": "eu-west-1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    watcher.services.cache_clear()
    assert watcher.handler({"source": "aws.ec2"}, None)["state"] == "together"
    for client in watcher.services().values():
        config = client.meta.config
        assert (config.connect_timeout, config.read_timeout) == (2, 5)
        assert config.retries["total_max_attempts"] == 3
    watcher.services.cache_clear()


# --- the verdict ------------------------------------------------------------------------------------------------------

NOW = 1_000_000.0


def node(letter: str, state: str = "running") -> dict[str, Any]:
    return {"InstanceId": f"i-{letter}", "State": {"Name": state}, "Tags": [_tag("awsha:node", letter)]}


def volume(at: str | None, state: str = "attached", age: float = 1000.0, tag: str = "") -> dict[str, Any]:
    attachment = {"InstanceId": at, "State": state, "AttachTime": datetime.fromtimestamp(NOW - age, UTC)}
    tags = [_tag(RELEASING_TAG, tag)] if tag else []
    return {"VolumeId": "vol-1", "Attachments": [attachment] if at else [], "Tags": tags}


FRESH, OLD = releasing_value("a", NOW - 5), releasing_value("a", NOW - 500)
VERDICTS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], str, str]] = {
    "well": ([node("a"), node("b")], [volume("i-a")], "i-a", "together"),
    "well, with the tag of the last handover": ([node("a"), node("b")], [volume("i-a", tag=FRESH)], "i-a", "together"),
    "address elsewhere": ([node("a"), node("b")], [volume("i-a")], "i-b", "apart"),
    "address nowhere": ([node("a"), node("b")], [volume("i-a")], "", "apart"),
    "address at an interface of nobody": ([node("a"), node("b")], [volume("i-a")], "eni-9", "apart"),
    "attached just now, address to come": ([node("a"), node("b")], [volume("i-b", age=5)], "i-a", "moving"),
    "attaching": ([node("a"), node("b")], [volume("i-b", "attaching", 5)], "i-a", "moving"),
    "detaching": ([node("a"), node("b")], [volume("i-a", "detaching")], "i-a", "moving"),
    "still mounted": ([node("a"), node("b")], [volume("i-a", "busy")], "i-a", "moving"),
    "released": ([node("a"), node("b")], [volume(None, tag=FRESH)], "", "moving"),
    "released long ago": ([node("a"), node("b")], [volume(None, tag=OLD)], "", "apart"),
    "a tag that is none": ([node("a"), node("b")], [volume(None, tag="now")], "", "apart"),
    "held by nobody": ([node("a"), node("b")], [volume(None)], "", "apart"),
    "detached, by EC2's record": ([node("a"), node("b")], [volume("i-a", "detached")], "", "apart"),
    "the holder stops": ([node("a", "stopping"), node("b")], [volume("i-a")], "i-a", "moving"),
    "the holder has stopped": ([node("a", "stopped"), node("b")], [volume("i-a")], "i-a", "apart"),
    "stopped, though it came just now": ([node("a", "stopped"), node("b")], [volume("i-a", age=5)], "i-a", "apart"),
    "the holder is gone": ([node("b")], [volume("i-a")], "i-a", "apart"),
    "held by a stranger": ([node("a"), node("b")], [volume("i-x")], "i-x", "apart"),
    "no volume": ([node("a"), node("b")], [], "i-a", "apart"),
    "one volume of two": ([node("a")], [volume("i-a"), volume(None)], "i-a", "apart"),
    "two volumes apart": ([node("a"), node("b")], [volume("i-a"), volume("i-b")], "i-a", "apart"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_verdict(name: str):
    nodes, volumes, at, expected = VERDICTS[name]
    known = {item["InstanceId"]: item for item in nodes}
    state, text = watcher.verdict(known, volumes, {VIP: {at}} if at else {}, [VIP], NOW)
    assert state == expected
    assert VIP in text


def test_every_page_is_read():
    class Paged:
        def get_paginator(self, operation: str) -> Any:
            key = {"describe_volumes": "Volumes", "describe_instances": "Reservations"}.get(operation, "Faces")
            found: dict[str, list[Any]] = {
                "Volumes": [volume("i-a"), volume("i-a")],
                "Reservations": [
                    {"Instances": [{**node("a"), "VpcId": "vpc-1"}]},
                    {"Instances": [{**node("c", "terminated"), "VpcId": "vpc-2"}]},
                ],
            }
            faces = [
                {"NetworkInterfaceId": name, "PrivateIpAddresses": [{"PrivateIpAddress": address}]}
                for name, address in (("eni-1", VIP), ("eni-2", "10.0.0.101"))
            ]
            pages = [{key: [item], "NetworkInterfaces": [item]} for item in found.get(key, faces)]
            return SimpleNamespace(paginate=lambda **_: pages)

    nodes, volumes, holders = watcher.look(Paged(), PAIR, [VIP, "10.0.0.101"])
    assert set(nodes) == {"i-a"}, "one that is terminated is no node"
    assert len(volumes) == 2
    assert holders == {VIP: {"eni-1"}, "10.0.0.101": {"eni-2"}}


def test_ec2_as_the_lab_plays_it_finds_a_secondary_address(monkeypatch: pytest.MonkeyPatch):
    with running_servers() as servers:
        lab = servers.fresh(monkeypatch)
        ec2 = Ec2("eu-west-1")
        ec2.ask("CreateTags", {"Resources": [A, B, VOLUME], "Tags": [_tag("awsha:pair", PAIR)]})
        ec2.attach(VOLUME, A, "/dev/sdf")
        ec2.assign(ENI_A, [VIP])
        ec2.close()
        lab.now += 60
        nodes, volumes, holders = watcher.look(boto3.client("ec2", "eu-west-1"), PAIR, [VIP])
    assert holders == {VIP: {A}}
    assert watcher.verdict(nodes, volumes, holders, [VIP], time.time())[0] == "together"


def test_its_times_are_awsha_s():
    assert Timeouts().handover_s == watcher.HANDOVER_S
    assert watcher.SETTLE_S < watcher.STUCK_S


# --- how it is deployed -----------------------------------------------------------------------------------------------


def test_it_is_one_file_and_needs_boto3_only():
    assert [file.name for file in WATCHER.parent.glob("*.py")] == [WATCHER.name]
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(WATCHER.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    foreign = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert foreign == {"boto3", "botocore"}


def test_without_the_parameter_there_is_none():
    assert not [name for name in stack().resources if name.startswith("Watcher")]
    assert "WatcherMail" not in stack(Watch="yes").resources
    assert "WatcherMail" in stack(Watch="yes", WatchEmail="ops@example.com").resources


def test_the_template_can_be_deployed_without_a_bucket():
    assert len(FILE.read_bytes()) < 51_200, "CloudFormation's limit for a template that comes with the request"


def test_its_role_may_do_what_it_does_and_nothing_else():
    [policy] = stack(Watch="yes").properties("WatcherRole")["Policies"]
    granted: set[str] = set()
    for statement in policy["PolicyDocument"]["Statement"]:
        actions = statement["Action"]
        granted |= {actions} if isinstance(actions, str) else set(actions)
        anything = statement["Resource"] == "*"
        assert anything == (statement["Sid"] in ("Look", "Measure")), "these know no resources"
        assert "Condition" in statement or not anything
    called = set(
        re.findall(r'"(describe_\w+)"|\.(put_metric_data|publish|get_parameter|put_parameter)\(', FILE.read_text())
    )
    names = {"".join(part.capitalize() for part in (a or b).split("_")) for a, b in called}
    assert {action.split(":")[1] for action in granted if not action.startswith("logs:")} == names
    assert {action for action in granted if action.startswith("logs:")} == {"logs:CreateLogStream", "logs:PutLogEvents"}


def matches(pattern: Any, event: Any) -> bool:
    """Whether an event fits a pattern of EventBridge, as far as the template's goes."""
    if isinstance(pattern, list):
        return any(item in pattern for item in (event if isinstance(event, list) else [event]))
    return all(
        any(matches(one, event) for one in inner) if key == "$or" else matches(inner, event.get(key, {}))
        for key, inner in pattern.items()
    )


def test_events_of_this_pair_call_it_and_others_do_not():
    made = stack(Watch="yes")
    rule = made.properties("WatcherEvents")
    assert rule["ScheduleExpression"] == "rate(1 minute)"
    assert rule["Targets"] == [{"Id": "watcher", "Arn": made.resolve({"Fn::GetAtt": ["Watcher", "Arn"]})}]
    assert made.properties("WatcherInvoke")["SourceArn"] == made.resolve({"Fn::GetAtt": ["WatcherEvents", "Arn"]})
    arn = f"arn:aws:ec2:eu-west-1:{cfn.PSEUDO['AWS::AccountId']}:volume/"
    state = {"source": "aws.ec2", "detail-type": "EC2 Instance State-change Notification", "resources": []}
    disk = {"source": "aws.ec2", "detail-type": "EBS Volume Notification", "detail": {"event": "detachVolume"}}
    pattern = rule["EventPattern"]
    assert matches(pattern, {**state, "detail": {"instance-id": made.ids["NodeB"], "state": "stopped"}})
    assert not matches(pattern, {**state, "detail": {"instance-id": "i-x", "state": "stopped"}})
    assert matches(pattern, {**disk, "resources": [arn + made.ids["DataVolume"]]})
    assert not matches(pattern, {**disk, "resources": [arn + "vol-x"]})


def test_its_function_knows_what_it_needs():
    made = stack(Watch="yes")
    function = made.properties("Watcher")
    read = set(re.findall(r'env\["(\w+)"\]', WATCHER.read_text()))
    assert set(function["Environment"]["Variables"]) == read
    assert function["Environment"]["Variables"]["PAIR"] == made.resolve(made.template["Outputs"]["Pair"]["Value"])
    assert json.loads(made.properties("WatcherState")["Value"]) == NEVER_TOLD
    assert function["Timeout"] > watcher.SETTLE_S + 60
    assert made.properties("WatcherLog")["RetentionInDays"] == 30
