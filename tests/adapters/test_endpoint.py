"""The EC2 endpoint and the metadata service over loopback, asked by the clients that real users have."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from botocore.utils import InstanceMetadataFetcher, InstanceMetadataRegionFetcher

from awsha.lab.endpoint import BLACK_HOLE, LOST_REPLY, Endpoint
from awsha.lab.metadata_service import MetadataService
from awsha.lab.query import Query
from awsha.lab.rules import DeviceAttached, DeviceDetached, Effect, Fault, FaultKind, Latency, Region

VOL = "vol-0aaaaaaaaaaaaaaaa"
VIP = "127.0.0.100"
MACS = "/latest/meta-data/network/interfaces/macs/02:00:00:00:00:0a"


class Lab:
    """A region whose node a is 127.0.0.1 and whose node b is 127.0.0.11, with both services on loopback."""

    def __init__(self) -> None:
        self.region = Region(Latency.none(), subnet="127.0.0.0/24", throttling=False)
        self.region.add_instance("a", "i-0a", "eni-0a", "02:00:00:00:00:0a", "127.0.0.1")
        self.region.add_instance("b", "i-0b", "eni-0b", "02:00:00:00:00:0b", "127.0.0.11")
        self.region.add_volume(VOL, 8, tags={"Name": "data & more"})
        self.lock = threading.RLock()
        self.effects: list[Effect] = []
        self.mounted: set[tuple[str, str]] = set()
        self.endpoint = Endpoint(
            self.region, time.monotonic, self.lock, self.effects.extend, holds=lambda i, v: (i, v) in self.mounted
        )
        self.metadata = MetadataService(self.region, time.monotonic, self.lock)
        self.port = self.listen(self.endpoint.serve)
        self.metadata_port = self.listen(self.metadata.serve)

    def listen(self, serve: Callable[[socket.socket], None]) -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        serve(listening)
        return port

    def client(self, service: str = "ec2", attempts: int = 1, read_timeout: float = 5, **more: Any):
        config = Config(retries={"total_max_attempts": attempts}, read_timeout=read_timeout, connect_timeout=1, **more)
        return boto3.client(service, endpoint_url=f"http://127.0.0.1:{self.port}", config=config)

    def wait_for(self, good: Callable[[], bool], deadline_s: float = 5) -> None:
        end = time.monotonic() + deadline_s
        while not good():
            assert time.monotonic() < end, f"not in time; effects: {self.effects}"
            time.sleep(0.005)

    def stop(self) -> None:
        assert self.metadata.stop()
        assert self.endpoint.stop()


@pytest.fixture(autouse=True)
def fake_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "eu-west-1"),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
    ):
        monkeypatch.setenv(name, value)


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.stop()


def attach(ec2, instance: str = "i-0a") -> dict:
    return ec2.attach_volume(VolumeId=VOL, InstanceId=instance, Device="/dev/sdf")


def volume(ec2) -> dict:
    return ec2.describe_volumes(VolumeIds=[VOL])["Volumes"][0]


# Rules over the wire


def test_a_volume_goes_from_one_node_to_the_other(lab: Lab):
    ec2 = lab.client()
    lab.mounted.add(("i-0a", VOL))
    assert attach(ec2)["State"] == "attaching"
    lab.wait_for(lambda: volume(ec2)["Attachments"][0]["State"] == "attached")
    seen = volume(ec2)
    assert (seen["State"], seen["Size"], seen["MultiAttachEnabled"]) == ("in-use", 8, False)
    assert seen["Tags"] == [{"Key": "Name", "Value": "data & more"}]
    assert seen["Attachments"][0]["AttachTime"].tzinfo is not None
    with pytest.raises(ClientError) as caught:
        attach(ec2, "i-0b")
    assert caught.value.response["Error"]["Code"] == "VolumeInUse"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    ec2.detach_volume(VolumeId=VOL)
    lab.wait_for(lambda: volume(ec2)["Attachments"][0]["State"] == "busy")
    lab.mounted.clear()
    lab.wait_for(lambda: volume(ec2)["State"] == "available")
    attach(ec2, "i-0b")
    lab.wait_for(lambda: len(lab.effects) == 3)
    assert lab.effects == [
        DeviceAttached("i-0a", VOL, "/dev/sdf"),
        DeviceDetached("i-0a", VOL, forced=False),
        DeviceAttached("i-0b", VOL, "/dev/sdf"),
    ]


def test_addresses_filters_and_instances(lab: Lab):
    ec2 = lab.client()
    for eni in ("eni-0a", "eni-0b"):
        reply = ec2.assign_private_ip_addresses(
            NetworkInterfaceId=eni, PrivateIpAddresses=[VIP, "127.0.0.101"], AllowReassignment=True
        )
        assert [a["PrivateIpAddress"] for a in reply["AssignedPrivateIpAddresses"]] == [VIP, "127.0.0.101"]
    found = ec2.describe_instances(
        Filters=[
            {"Name": "network-interface.addresses.private-ip-address", "Values": [VIP]},
            {"Name": "instance-state-name", "Values": ["running", "stopped"]},
        ]
    )
    assert [i["InstanceId"] for r in found["Reservations"] for i in r["Instances"]] == ["i-0b"]
    interface = ec2.describe_network_interfaces(NetworkInterfaceIds=["eni-0b"])["NetworkInterfaces"][0]
    assert [a["Primary"] for a in interface["PrivateIpAddresses"]] == [True, False, False]
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        ec2.unassign_private_ip_addresses(NetworkInterfaceId="eni-0a", PrivateIpAddresses=[VIP])
    stopping = ec2.stop_instances(InstanceIds=["i-0b"], Force=True, SkipOsShutdown=True)["StoppingInstances"]
    assert stopping[0]["CurrentState"] == {"Code": 64, "Name": "stopping"}
    ec2.get_waiter("instance_stopped").wait(InstanceIds=["i-0b"])


def test_pages_go_by_token(lab: Lab):
    for number in range(7):
        lab.region.add_volume(f"vol-1{number}", 1)
    pages = lab.client().get_paginator("describe_volumes").paginate(PaginationConfig={"PageSize": 5})
    assert [len(page["Volumes"]) for page in pages] == [5, 3]


def test_the_clock_carries_out_what_nobody_asks_for(lab: Lab):
    lab.region.latency = Latency(attach=(0.05, 0.05), attach_device=(0.1, 0.1))
    attach(lab.client())
    assert lab.effects == []
    lab.wait_for(lambda: lab.effects == [DeviceAttached("i-0a", VOL, "/dev/sdf")])


def test_a_failing_effect_does_not_stop_the_clock(lab: Lab):
    def fail_first(effects: list[Effect]) -> None:
        seen.extend(effects)
        if len(seen) == 1:
            raise RuntimeError("no such device")

    seen: list[Effect] = []
    endpoint = Endpoint(lab.region, time.monotonic, lab.lock, fail_first)
    lab.endpoint.stop()
    lab.port = lab.listen(endpoint.serve)
    ec2 = lab.client()
    attach(ec2)
    lab.wait_for(lambda: len(seen) == 1)
    ec2.detach_volume(VolumeId=VOL)
    lab.wait_for(lambda: len(seen) == 2)
    assert endpoint.stop()


def test_callers_are_known_by_their_address(lab: Lab):
    lab.region.add_fault(Fault("DescribeVolumes", FaultKind.ERROR, times=None, code="Unavailable", caller="i-0b"))
    lab.client().describe_volumes()
    body = "Action=DescribeVolumes&Version=2016-11-15"
    connection = http.client.HTTPConnection("127.0.0.1", lab.port, timeout=5, source_address=("127.0.0.11", 0))
    with contextlib.closing(connection):
        connection.request("POST", "/", body, {"Content-Type": "application/x-www-form-urlencoded"})
        reply = connection.getresponse()
        assert (reply.status, b"<Code>Unavailable</Code>" in reply.read()) == (503, True)
    assert [(r.action, r.caller, r.code) for r in lab.endpoint.requests] == [
        ("DescribeVolumes", "i-0a", ""),
        ("DescribeVolumes", "i-0b", "Unavailable"),
    ]
    assert lab.endpoint.counts["DescribeVolumes", ""] == 1


# The wire


def test_one_connection_serves_many_requests_quickly(lab: Lab):
    connection = http.client.HTTPConnection("127.0.0.1", lab.port, timeout=5)
    took = []
    with contextlib.closing(connection):
        connection.connect()
        first = connection.sock
        for _ in range(100):
            started = time.perf_counter()
            connection.request("GET", f"/?Action=DescribeVolumes&Version=2016-11-15&VolumeId.1={VOL}")
            reply = connection.getresponse()
            assert (reply.status, VOL.encode() in reply.read()) == (200, True)
            took.append(time.perf_counter() - started)
        assert connection.sock is first
    assert statistics.median(took) < 0.02  # small packets held back would be 0.04


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /?Action=Explode&Version=2016-11-15 HTTP/1.1\r\n\r\n", 400),
        (b"GET /?Action=DescribeVolumes&VolumeId.x=1 HTTP/1.1\r\n\r\n", 400),
        (b"GET /?Action=DescribeVolumes&VolumeId=1&VolumeId.1=2 HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_bad_requests_get_an_answer_and_the_server_lives(lab: Lab, sent: bytes, status: int):
    with socket.create_connection(("127.0.0.1", lab.port), timeout=5) as raw:
        raw.sendall(sent)
        assert raw.recv(4096).startswith(f"HTTP/1.1 {status} ".encode())
    lab.client().describe_volumes()


def test_latency_is_slept_side_by_side(lab: Lab):
    lab.region.latency = Latency(call=(0.3, 0.3))
    ec2 = lab.client(max_pool_connections=4)
    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: ec2.describe_volumes(), range(4)))
    assert 0.3 <= time.monotonic() - started < 1.0


def test_a_lost_reply_took_effect(lab: Lab):
    lab.region.add_fault(Fault("AttachVolume", FaultKind.LOST_REPLY))
    with pytest.raises(ConnectionClosedError):
        attach(lab.client())
    assert lab.region.snapshot()["volumes"][VOL]["attached_to"] == "i-0a"
    assert lab.endpoint.requests[-1].code == LOST_REPLY


def test_a_lost_reply_makes_botocore_repeat_the_call(lab: Lab):
    lab.region.add_fault(Fault("AttachVolume", FaultKind.LOST_REPLY))
    with pytest.raises(ClientError, match="VolumeInUse"):  # by our own attachment
        attach(lab.client(attempts=2))


def test_a_black_hole_swallows_the_call(lab: Lab):
    lab.region.add_fault(Fault("AttachVolume", FaultKind.BLACK_HOLE))
    with pytest.raises(ReadTimeoutError):
        attach(lab.client(read_timeout=0.2))
    assert lab.region.snapshot()["volumes"][VOL]["state"] == "available"
    lab.wait_for(lambda: [r.code for r in lab.endpoint.requests] == [BLACK_HOLE])


def test_stop_does_not_wait_for_black_holes_and_delays(lab: Lab):
    lab.region.add_fault(Fault("DescribeVolumes", FaultKind.BLACK_HOLE))
    lab.region.add_fault(Fault("DescribeInstances", FaultKind.DELAY, seconds=60))
    ec2 = lab.client()
    with ThreadPoolExecutor(2) as pool:
        hanging = [pool.submit(ec2.describe_volumes), pool.submit(ec2.describe_instances)]
        lab.wait_for(lambda: lab.region.faults() == [])
        started = time.monotonic()
        assert lab.endpoint.stop()
        assert time.monotonic() - started < 1
        assert all(one.exception() for one in hanging)


def test_throttling_and_delay(lab: Lab):
    lab.region.add_fault(Fault("DescribeVolumes", FaultKind.THROTTLE))
    lab.region.add_fault(Fault("DescribeVolumes", FaultKind.DELAY, seconds=0.2))
    started = time.monotonic()
    with pytest.raises(ClientError) as caught:
        lab.client().describe_volumes()
    assert caught.value.response["Error"]["Code"] == "RequestLimitExceeded"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert time.monotonic() - started >= 0.2


def test_no_thread_takes_the_signals_of_the_process(lab: Lab):
    ec2 = lab.client()
    ec2.describe_volumes()
    ours = [t for t in threading.enumerate() if t.name.startswith(("ec2", "metadata"))]
    assert len(ours) == 4  # the clock, two that accept, and the client's connection
    for thread in ours:
        lines = Path(f"/proc/self/task/{thread.native_id}/status").read_text().splitlines()
        blocked = int(next(line.split()[1] for line in lines if line.startswith("SigBlk")), 16)
        for number in (signal.SIGTERM, signal.SIGINT):
            assert blocked >> (number - 1) & 1
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


# Breadth: moto


def test_moto_knows_the_network_of_the_lab(lab: Lab):
    ec2 = lab.client(read_timeout=60)  # the first call imports moto
    node = ec2.describe_instances(InstanceIds=["i-0a"])["Reservations"][0]["Instances"][0]
    subnet = ec2.describe_subnets(SubnetIds=[node["SubnetId"]])["Subnets"][0]
    assert (subnet["CidrBlock"], subnet["VpcId"]) == ("127.0.0.0/24", node["VpcId"])
    group_id = node["SecurityGroups"][0]["GroupId"]
    group = ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"][0]
    assert "112" in [rule["IpProtocol"] for rule in group["IpPermissions"]]
    tag = {"Key": "team", "Value": "x"}
    ec2.create_tags(Resources=[group_id, VOL], Tags=[tag])
    by_key = [{"Name": "key", "Values": ["team"]}]
    tagged = {t["ResourceId"]: t["Value"] for t in ec2.describe_tags(Filters=by_key)["Tags"]}
    assert tagged == {group_id: "x", VOL: "x"}
    ec2.delete_tags(Resources=[group_id, VOL], Tags=[tag])
    assert ec2.describe_tags(Filters=by_key)["Tags"] == []
    with pytest.raises(ClientError, match=r"InvalidVolume\.NotFound"):
        ec2.create_tags(Resources=[group_id, "vol-0b"], Tags=[tag])
    assert ec2.describe_tags(Filters=by_key)["Tags"] == []
    with pytest.raises(ClientError, match=r"InvalidSubnetID\.NotFound"):
        ec2.describe_subnets(SubnetIds=["subnet-1"])
    with pytest.raises(ClientError, match="DryRunOperation"):
        ec2.create_security_group(GroupName="g", Description="g", VpcId=node["VpcId"], DryRun=True)
    named = [{"Name": "group-name", "Values": ["g"]}]
    assert ec2.describe_security_groups(Filters=named)["SecurityGroups"] == []
    lab.region.add_fault(Fault("DescribeSubnets", FaultKind.ERROR, code="InternalError"))
    with pytest.raises(ClientError, match="InternalError"):
        ec2.describe_subnets()


def test_other_services_by_what_the_request_was_signed_for(lab: Lab):
    assert lab.client("sts", read_timeout=60).get_caller_identity()["Account"] == "123456789012"
    ssm = lab.client("ssm", read_timeout=60)
    ssm.put_parameter(Name="/ha/x", Value="1", Type="String")
    assert ssm.get_parameter(Name="/ha/x")["Parameter"]["Value"] == "1"
    topic = lab.client("sns", read_timeout=60).create_topic(Name="alarms")["TopicArn"]
    assert lab.client("sns").publish(TopicArn=topic, Message="hello")["MessageId"]
    assert lab.client("cloudwatch", read_timeout=60).list_metrics()["Metrics"] == []
    assert "ssm:PutParameter" in [record.action for record in lab.endpoint.requests]
    lab.region.add_fault(Fault("sns:Publish", FaultKind.ERROR, code="InternalError"))
    with pytest.raises(ClientError):
        lab.client("sns").publish(TopicArn=topic, Message="hello")


# The codec


@lru_cache
def ec2_model() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("ec2", "service-2"))


EVERYTHING: dict[str, dict[str, Any]] = {
    "AttachVolume": {"VolumeId": VOL, "InstanceId": "i-0a", "Device": "/dev/sdf", "DryRun": True},
    "DescribeVolumes": {
        "VolumeIds": ["vol-1", "vol-2"],
        "MaxResults": 5,
        "Filters": [{"Name": "tag:Name", "Values": ["a b", "ü&<"]}, {"Name": "status", "Values": ["in-use"]}],
    },
    "CreateTags": {"Resources": ["vol-1"], "Tags": [{"Key": "a.b", "Value": ""}, {"Key": "c", "Value": "=&"}]},
    "DeleteTags": {"Resources": ["vol-1"], "Tags": [{"Key": "a"}]},
    "AssignPrivateIpAddresses": {
        "NetworkInterfaceId": "eni-1",
        "PrivateIpAddresses": [f"10.0.0.{n}" for n in range(20, 32)],  # ten and more: order by number, not by text
        "AllowReassignment": True,
    },
    "StopInstances": {"InstanceIds": ["i-1"], "Force": False, "SkipOsShutdown": True},
    "RunInstances": {
        "MinCount": 1,
        "MaxCount": 1,
        "UserData": "IyE=",
        "BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 8, "DeleteOnTermination": False}}],
        "NetworkInterfaces": [{"DeviceIndex": 0, "PrivateIpAddresses": [{"Primary": True, "PrivateIpAddress": "x"}]}],
    },
}


@pytest.mark.parametrize("action", EVERYTHING)
def test_what_botocore_sends_is_what_the_rules_get(action: str):
    model = ec2_model().operation_model(action)
    params = EVERYTHING[action]
    sent = create_serializer("ec2").serialize_to_request(params, model)["body"]
    form = {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in sent.items()
        if key not in ("Action", "Version")
    }
    got = Query().decode(action, form)
    for tag in params.get("Tags", []):  # an empty value is not told from none in a form
        if tag.get("Value") == "":
            del tag["Value"]
    assert got == params


def test_what_the_rules_answer_is_what_botocore_reads(lab: Lab):
    lab.region.call("AttachVolume", {"VolumeId": VOL, "InstanceId": "i-0a", "Device": "/dev/sdf"}, time.monotonic())
    model = ec2_model()
    for action in ("DescribeVolumes", "DescribeInstances", "DescribeNetworkInterfaces", "DescribeInstanceStatus"):
        reply = lab.region.call(action, {}, time.monotonic())
        body = Query().encode(action, reply, "request")
        parsed = create_parser("ec2").parse(
            {"status_code": 200, "headers": {}, "body": body}, model.operation_model(action).output_shape
        )
        del parsed["ResponseMetadata"]
        assert parsed == reply


# Instance metadata


def ask(lab: Lab, method: str, path: str, source: str = "127.0.0.1", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", lab.metadata_port, timeout=5, source_address=(source, 0))
    with contextlib.closing(connection):
        sent = {f"X-aws-ec2-metadata-{name.replace('_', '-')}": value for name, value in headers.items()}
        connection.request(method, path, headers=sent)
        reply = connection.getresponse()
        return reply.status, reply.read().decode()


def test_metadata_is_version_two_only(lab: Lab):
    assert ask(lab, "GET", "/latest/meta-data/instance-id")[0] == 401
    assert ask(lab, "GET", "/latest/meta-data/instance-id", token="wrong")[0] == 401
    assert ask(lab, "PUT", "/latest/api/token")[0] == 400
    assert ask(lab, "PUT", "/latest/api/token", token_ttl_seconds="99999")[0] == 400
    status, token = ask(lab, "PUT", "/latest/api/token", token_ttl_seconds="60")
    assert status == 200
    assert ask(lab, "GET", "/latest/meta-data/instance-id", token=token) == (200, "i-0a")
    assert ask(lab, "GET", "/2021-07-15/meta-data/local-ipv4", token=token) == (200, "127.0.0.1")
    assert ask(lab, "GET", "/latest/meta-data/nothing", token=token)[0] == 404
    assert ask(lab, "POST", "/latest/meta-data/instance-id", token=token)[0] == 405
    assert "local-ipv4s" in ask(lab, "GET", f"{MACS}/", token=token)[1].splitlines()
    assert ask(lab, "GET", "/latest/meta-data/instance-id", "127.0.0.11", token=token)[0] == 401  # another's token
    assert ask(lab, "GET", "/latest/meta-data/instance-id", "127.0.0.99", token=token)[0] == 404  # nobody
    lab.metadata.expire_tokens()
    assert ask(lab, "GET", "/latest/meta-data/instance-id", token=token)[0] == 401


def test_each_node_reads_its_own_metadata_which_lags(lab: Lab):
    token = ask(lab, "PUT", "/latest/api/token", token_ttl_seconds="60")[1]
    other = ask(lab, "PUT", "/latest/api/token", "127.0.0.11", token_ttl_seconds="60")[1]
    assert ask(lab, "GET", "/latest/meta-data/instance-id", "127.0.0.11", token=other) == (200, "i-0b")
    lab.region.latency = Latency(assign_visible_metadata=(2.0, 2.0))
    ec2 = lab.client()
    ec2.assign_private_ip_addresses(NetworkInterfaceId="eni-0a", PrivateIpAddresses=[VIP])
    seen = ec2.describe_network_interfaces(NetworkInterfaceIds=["eni-0a"])["NetworkInterfaces"][0]
    assert len(seen["PrivateIpAddresses"]) == 2
    assert ask(lab, "GET", f"{MACS}/local-ipv4s", token=token) == (200, "127.0.0.1")
    lab.wait_for(lambda: ask(lab, "GET", f"{MACS}/local-ipv4s", token=token)[1] == f"127.0.0.1\n{VIP}")


def test_metadata_faults(lab: Lab):
    token = ask(lab, "PUT", "/latest/api/token", token_ttl_seconds="60")[1]
    lab.region.add_fault(Fault("metadata", FaultKind.ERROR, code="503"))
    assert ask(lab, "GET", "/latest/meta-data/instance-id", token=token)[0] == 503
    lab.region.add_fault(Fault("metadata", FaultKind.LOST_REPLY))
    with pytest.raises(http.client.RemoteDisconnected):
        ask(lab, "GET", "/latest/meta-data/instance-id", token=token)
    assert ask(lab, "GET", "/latest/meta-data/instance-id", token=token)[0] == 200


def test_botocores_own_metadata_clients(lab: Lab):
    base = f"http://127.0.0.1:{lab.metadata_port}/"
    credentials = InstanceMetadataFetcher(base_url=base, env={}).retrieve_iam_role_credentials()
    assert credentials["role_name"] == "awsha-lab"
    assert InstanceMetadataRegionFetcher(base_url=base, env={}).retrieve_region() == "eu-west-1"
