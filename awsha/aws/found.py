"""Instances and volumes by tags, for a configuration that names none. Reads only; raises Ec2Error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from awsha.aws.ec2 import CALL_TIMEOUT_S, Ec2, tag_filters
from awsha.aws.inspect import pages
from awsha.aws.permissions import partition_of
from awsha.core.found import FoundInstance, FoundVolume, members, name_of, vips_of
from awsha.core.plain import printable
from awsha.core.policy import Tags


def instances(ec2: Ec2, tags: Tags, timeout_s: float = CALL_TIMEOUT_S) -> list[FoundInstance]:
    """The instances that carry all of `tags` (all there are without any) and still exist, by name."""
    found = []
    for reply in pages(ec2, "DescribeInstances", _asked(tags), timeout_s):
        for reservation in reply.get("Reservations", ()):
            account = str(reservation.get("OwnerId") or "")
            found += [_instance(ec2, record, account) for record in reservation.get("Instances", ())]
    return members(found)


def volumes(ec2: Ec2, tags: Tags, account: str, timeout_s: float = CALL_TIMEOUT_S) -> list[FoundVolume]:
    """The volumes that carry all of `tags`, by name.

    `account` is for their ARNs: EC2 does not say whose they are. Without it ("") they have none.
    """
    replies = pages(ec2, "DescribeVolumes", _asked(tags), timeout_s)
    found = [_volume(ec2, record, account) for reply in replies for record in reply.get("Volumes", ())]
    return sorted((item for item in found if item.state != "deleting"), key=lambda item: (item.name, item.id))


def account_of(arn: str) -> str:
    """The account in an ARN."""
    return arn.split(":")[4]


def _asked(tags: Tags) -> Mapping[str, Any]:
    return {"Filters": tag_filters(dict(tags))} if tags else {}


def _instance(ec2: Ec2, record: Mapping[str, Any], account: str) -> FoundInstance:
    name = str(record.get("InstanceId"))
    return FoundInstance(
        id=name,
        arn=_arn(ec2, account, f"instance/{name}"),
        name=name_of(_tags(record)),
        address=str(record.get("PrivateIpAddress") or ""),
        zone=str((record.get("Placement") or {}).get("AvailabilityZone") or ""),
        subnet=str(record.get("SubnetId") or ""),
        state=str((record.get("State") or {}).get("Name")),
        vips=vips_of(_tags(record)),
    )


def _volume(ec2: Ec2, record: Mapping[str, Any], account: str) -> FoundVolume:
    name = str(record.get("VolumeId"))
    return FoundVolume(
        id=name,
        arn=_arn(ec2, account, f"volume/{name}"),
        name=_tags(record).get("Name", ""),
        zone=str(record.get("AvailabilityZone") or ""),
        state=str(record.get("State")),
        size=int(record.get("Size") or 0),
        attached=tuple(_attachments(record)),
        vips=vips_of(_tags(record)),
    )


def _attachments(record: Mapping[str, Any]) -> Iterator[str]:
    for item in record.get("Attachments", ()):
        if item.get("State") != "detached":
            yield f"{item.get('InstanceId')}:{item.get('Device')}"


def _tags(record: Mapping[str, Any]) -> dict[str, str]:
    """For people: the values are anybody's who may tag."""
    return {str(tag.get("Key")): printable(str(tag.get("Value") or "")) for tag in record.get("Tags", ())}


def _arn(ec2: Ec2, account: str, what: str) -> str:
    return account and f"arn:{partition_of(ec2.region)}:ec2:{ec2.region}:{account}:{what}"
