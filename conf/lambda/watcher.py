"""AWS Lambda: says when address and volume of an awsha pair are apart, or at a node that does not run.

It looks at EC2 at each event of nodes and volume, and every minute; it changes nothing there. docs/watcher.md.
Environment: PAIR (the tag awsha:pair), VIPS, TOPIC_ARN, STATE (an SSM parameter).
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Collection
from typing import Any

import boto3
from botocore.config import Config

LOOK_AGAIN_S = 3  # between looks, while it is not together
SETTLE_S = 30  # how long it looks before it says anything: a failover goes through states that look bad
HANDOVER_S = 60  # for how long a sign of a handover is believed: awsha's timeouts.handover_s
STUCK_S = 300  # a handover that takes longer is none
MOVING = {"attaching", "detaching", "busy"}
Record = dict[str, Any]  # as EC2 sends it
Client = Any  # boto3 makes their classes at run time
CALLS = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 3, "mode": "standard"})


@functools.cache
def services() -> dict[str, Client]:
    """Clients, kept for the next invocation."""
    return {name: boto3.client(name, config=CALLS) for name in ("ec2", "cloudwatch", "sns", "ssm")}


def handler(_event: dict[str, Any], _context: object) -> dict[str, str]:
    """Lambda's entry. Returns what it found."""
    env = os.environ
    found = watch(services(), env["PAIR"], env["VIPS"].split(","), env["TOPIC_ARN"], env["STATE"])
    sys.stdout.write(json.dumps(found) + "\n")
    return found


def watch(
    aws: dict[str, Client],
    pair: str,
    vips: list[str],
    topic: str,
    parameter: str,
    *,
    now: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, str]:
    """Look until the pair is together or SETTLE_S are over; then a message at a change, and the metrics."""
    end = now() + SETTLE_S
    state, text = verdict(*look(aws["ec2"], pair, vips), vips, now())
    while state != "together" and now() < end:
        sleep(LOOK_AGAIN_S)
        state, text = verdict(*look(aws["ec2"], pair, vips), vips, now())
    try:
        stored = aws["ssm"].get_parameter(Name=parameter)["Parameter"]
        before = json.loads(stored["Value"])
        since = (before["moving_since"] or now()) if state == "moving" else None
        if since is not None and now() - since >= STUCK_S:
            state, text = "apart", f"for more than {STUCK_S} s now, {text}"
        # Until it was together for the first time there is nothing to be told: its nodes are being made.
        change = state not in ("moving", before["state"]) and (state == "together" or before["state"] != "")
        after = {"state": state if change else before["state"], "moving_since": since}
        if after != before:
            version = put(aws["ssm"], parameter, after)
            if change and not told_already(aws["ssm"], parameter, state, range(stored["Version"] + 1, version)):
                try:
                    aws["sns"].publish(
                        TopicArn=topic, Subject=f"{pair}: {state}"[:100], Message=f"{pair} is {state}: {text}"
                    )
                except Exception:
                    put(aws["ssm"], parameter, before)  # Lambda invokes again: then it is a change again
                    raise
    finally:  # the message does not depend on the metric, nor the metric on it
        publish(aws["cloudwatch"], pair, state)
    return {"pair": pair, "state": state, "text": text}


def told_already(ssm: Client, parameter: str, state: str, versions: range) -> bool:
    """Whether another invocation, at the same time, has written this state first: then that one tells it."""
    others = (ssm.get_parameter(Name=f"{parameter}:{version}")["Parameter"]["Value"] for version in versions)
    return any(json.loads(value)["state"] == state for value in others)


def look(ec2: Client, pair: str, vips: list[str]) -> tuple[dict[str, Record], list[Record], dict[str, set[str]]]:
    """What EC2 says: instances by id, volumes, and the instance (or interface) of each address that one has."""
    mine = [{"Name": "tag:awsha:pair", "Values": [pair]}]
    volumes = pages(ec2, "describe_volumes", "Volumes", mine)
    found = pages(ec2, "describe_instances", "Reservations", mine)
    nodes = {node["InstanceId"]: node for reservation in found for node in reservation["Instances"]}
    nodes = {name: node for name, node in nodes.items() if node["State"]["Name"] != "terminated"}
    networks = sorted({node["VpcId"] for node in nodes.values() if "VpcId" in node})
    where = [{"Name": "addresses.private-ip-address", "Values": vips}, {"Name": "vpc-id", "Values": networks}]
    holders: dict[str, set[str]] = {}
    for face in pages(ec2, "describe_network_interfaces", "NetworkInterfaces", where) if networks else []:
        for item in face["PrivateIpAddresses"]:
            if item["PrivateIpAddress"] in vips:
                at = face.get("Attachment", {}).get("InstanceId", face["NetworkInterfaceId"])
                holders.setdefault(item["PrivateIpAddress"], set()).add(at)
    return nodes, volumes, holders


def pages(ec2: Client, operation: str, key: str, filters: list[Record]) -> list[Record]:
    """All records of a Describe call."""
    return [record for page in ec2.get_paginator(operation).paginate(Filters=filters) for record in page[key]]


def verdict(
    nodes: dict[str, Record], volumes: list[Record], holders: dict[str, set[str]], vips: list[str], now: float
) -> tuple[str, str]:
    """What to make of it: together, moving (a handover is under way) or apart; and a text that says why."""
    attached = [(volume, item) for volume in volumes for item in volume.get("Attachments", [])]
    attached = [(volume, item) for volume, item in attached if item["State"] != "detached"]
    at = {item["InstanceId"] for _, item in attached}
    text = "; ".join(
        [f"{v['VolumeId']} is at {who([i['InstanceId'] for o, i in attached if o is v], nodes)}" for v in volumes]
        + [f"{vip} is at {who(holders.get(vip, ()), nodes)}" for vip in vips]
    )
    if not volumes:
        return "apart", f"no volume has the tag of this pair; {text}"
    whole = len(at) == 1 and len(attached) == len(volumes) and all(holders.get(vip) == at for vip in vips)
    runs = all(node in nodes and nodes[node]["State"]["Name"] == "running" for node in at)
    if whole and runs and not any(item["State"] in MOVING for _, item in attached):
        return "together", text
    leaving = any(node in nodes and nodes[node]["State"]["Name"] in ("stopping", "shutting-down") for node in at)
    fresh = any(now - item["AttachTime"].timestamp() < HANDOVER_S for _, item in attached if "AttachTime" in item)
    under_way = any(item["State"] in MOVING for _, item in attached) or any(releasing(v, now) for v in volumes)
    return ("moving" if leaving or under_way or (fresh and runs) else "apart"), text


def releasing(volume: Record, now: float) -> bool:
    """Whether a node has said lately that it lets go: the tag awsha:releasing, Unix seconds and a node's name."""
    tags = {tag["Key"]: tag["Value"] for tag in volume.get("Tags", [])}
    try:
        return abs(now - float(tags.get("awsha:releasing", "").split(" ")[0])) < HANDOVER_S
    except ValueError:
        return False


def who(ids: Collection[str], nodes: dict[str, Record]) -> str:
    """Names for a message: node and state of each instance."""
    known = {name: {tag["Key"]: tag["Value"] for tag in node.get("Tags", [])} for name, node in nodes.items()}
    texts = [
        f"{known[i].get('awsha:node', '?')} ({i}, {nodes[i]['State']['Name']})" if i in nodes else f"{i} (no node)"
        for i in sorted(ids)
    ]
    return ", ".join(texts) or "nobody"


def publish(cloudwatch: Client, pair: str, state: str) -> None:
    """Metrics of the namespace awsha: Apart and Moving, each 0 or 1."""
    names = {"Apart": "apart", "Moving": "moving"}
    data = [
        {"MetricName": name, "Dimensions": [{"Name": "Pair", "Value": pair}], "Value": float(state == wanted)}
        for name, wanted in names.items()
    ]
    cloudwatch.put_metric_data(Namespace="awsha", MetricData=data)


def put(ssm: Client, parameter: str, value: Record) -> int:
    """Keep what was told. Returns the parameter's version, which counts all writes."""
    version: int = ssm.put_parameter(Name=parameter, Value=json.dumps(value), Overwrite=True)["Version"]
    return version
