"""Instance metadata as a tree of paths below /latest/ (EC2 user guide, "Instance metadata categories")."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from awsha.lab.records import ACCOUNT, IMAGE, INSTANCE_TYPE, SECURITY_GROUP, SECURITY_GROUP_NAME, VPC, Instance
from awsha.lab.views import dns_name
from awsha.lab.world import World

ROLE = "awsha-lab"
Leaf = Callable[[], str]


def read(world: World, instance: Instance, path: str, at: float) -> str | None:
    """The text at a path (`meta-data/instance-id`), a listing for a folder, None when there is neither."""
    interface = instance.interface
    if interface is None or instance.state in ("stopped", "terminated"):
        return None
    path = path.strip("/")
    leaf = _leaves(world, instance, at).get(path)
    if leaf is not None:
        return leaf()
    prefix = f"{path}/" if path else ""
    names: dict[str, None] = {}
    for name in _leaves(world, instance, at):
        if name.startswith(prefix):
            first, slash, _ = name.removeprefix(prefix).partition("/")
            names[first + slash] = None
    return "\n".join(sorted(names)) if names else None


def _leaves(world: World, instance: Instance, at: float) -> dict[str, Leaf]:
    interface = instance.interface
    if interface is None:
        return {}
    network = f"meta-data/network/interfaces/macs/{interface.mac}"
    subnet = interface.subnet
    name = dns_name(interface.primary, world.name)
    return {
        "meta-data/ami-id": lambda: IMAGE,
        "meta-data/hostname": lambda: name,
        "meta-data/instance-id": lambda: instance.id,
        "meta-data/instance-life-cycle": lambda: "on-demand",
        "meta-data/instance-type": lambda: INSTANCE_TYPE,
        "meta-data/local-hostname": lambda: name,
        "meta-data/local-ipv4": lambda: interface.primary,
        "meta-data/mac": lambda: interface.mac,
        "meta-data/security-groups": lambda: SECURITY_GROUP_NAME,
        "meta-data/placement/availability-zone": lambda: instance.zone,
        "meta-data/placement/region": lambda: world.name,
        "meta-data/services/domain": lambda: "amazonaws.com",
        "meta-data/services/partition": lambda: "aws",
        "meta-data/iam/info": lambda: _profile(world, at),
        f"meta-data/iam/security-credentials/{ROLE}": lambda: _credentials(world, at),
        f"{network}/device-number": lambda: "0",
        f"{network}/interface-id": lambda: interface.id,
        f"{network}/local-hostname": lambda: name,
        f"{network}/local-ipv4s": lambda: "\n".join((interface.primary, *interface.metadata_view.read(at).state)),
        f"{network}/mac": lambda: interface.mac,
        f"{network}/owner-id": lambda: ACCOUNT,
        f"{network}/security-group-ids": lambda: SECURITY_GROUP,
        f"{network}/security-groups": lambda: SECURITY_GROUP_NAME,
        f"{network}/subnet-id": lambda: subnet.id,
        f"{network}/subnet-ipv4-cidr-block": lambda: subnet.cidr,
        f"{network}/vpc-id": lambda: VPC,
        f"{network}/vpc-ipv4-cidr-block": lambda: subnet.cidr,
        "dynamic/instance-identity/document": lambda: _document(world, instance),
    }


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _credentials(world: World, at: float) -> str:
    # Fake on purpose; the endpoint accepts any. Six hours, as the instance profile's.
    now = world.stamp(at)
    return json.dumps(
        {
            "Code": "Success",
            "LastUpdated": _time(now),
            "Type": "AWS-HMAC",
            "AccessKeyId": "ASIALABLABLABLABLAB0",
            "SecretAccessKey": "lab",
            "Token": "lab",
            "Expiration": _time(now + timedelta(hours=6)),
        },
        indent=2,
    )


def _profile(world: World, at: float) -> str:
    arn = f"arn:aws:iam::{ACCOUNT}:instance-profile/{ROLE}"
    return json.dumps(
        {
            "Code": "Success",
            "LastUpdated": _time(world.stamp(at)),
            "InstanceProfileArn": arn,
            "InstanceProfileId": "AIPALABLABLABLABLAB0",
        },
        indent=2,
    )


def _document(world: World, instance: Instance) -> str:
    interface = instance.interface
    return json.dumps(
        {
            "accountId": ACCOUNT,
            "architecture": "x86_64",
            "availabilityZone": instance.zone,
            "imageId": IMAGE,
            "instanceId": instance.id,
            "instanceType": INSTANCE_TYPE,
            "pendingTime": _time(datetime.fromtimestamp(int(world.epoch + instance.launched), UTC)),
            "privateIp": interface.primary if interface else None,
            "region": world.name,
            "version": "2017-09-30",
        },
        indent=2,
    )
