"""What Describe replies say: items made from frozen states, filters, pages. Items are shared: never change one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from awsha.lab.records import (
    ACCOUNT,
    IMAGE,
    INSTANCE_TYPE,
    ROOT_DEVICE,
    SECURITY_GROUP,
    SECURITY_GROUP_NAME,
    STATE_CODES,
    VPC,
    Ec2Error,
    Instance,
    Interface,
    Params,
    Tags,
    Volume,
)
from awsha.lab.world import World

Item = dict[str, Any]
Values = Callable[[Item], Iterable[str]]


def dns_name(address: str, region: str) -> str:
    """The name that AWS gives an address."""
    return f"ip-{address.replace('.', '-')}.{region}.compute.internal"


def volume_item(world: World, volume: Volume, at: float) -> Item:
    """One of DescribeVolumes' Volumes."""
    entry = volume.view.read(at)
    if entry.item is None:
        attachments, tags = entry.state
        entry.item = {
            "VolumeId": volume.id,
            "Size": volume.size_gib,
            "AvailabilityZone": volume.zone,
            "State": "in-use" if attachments else "available",
            "CreateTime": world.stamp(volume.created),
            "VolumeType": volume.volume_type,
            "Iops": 3000,
            "Encrypted": False,
            "SnapshotId": "",
            "MultiAttachEnabled": volume.multi_attach,
            "Attachments": [
                {
                    "VolumeId": volume.id,
                    "InstanceId": instance_id,
                    "Device": device,
                    "State": state,
                    "AttachTime": world.stamp(since),
                    "DeleteOnTermination": False,
                }
                for instance_id, device, state, since in attachments
            ],
        }
        _add_tags(entry.item, "Tags", tags)
    return entry.item


def _add_tags(item: Item, key: str, tags: Tags) -> None:
    if tags:  # without any, EC2 leaves the member out
        item[key] = [{"Key": name, "Value": value} for name, value in tags.items()]


def _interface_base(world: World, interface: Interface, secondaries: tuple[str, ...]) -> Item:
    region = world.name
    return {
        "NetworkInterfaceId": interface.id,
        "MacAddress": interface.mac,
        "OwnerId": ACCOUNT,
        "PrivateIpAddress": interface.primary,
        "PrivateDnsName": dns_name(interface.primary, region),
        "PrivateIpAddresses": [
            {
                "Primary": address == interface.primary,
                "PrivateIpAddress": address,
                "PrivateDnsName": dns_name(address, region),
            }
            for address in (interface.primary, *secondaries)
        ],
        "SubnetId": interface.subnet.id,
        "VpcId": VPC,
        "Groups": [{"GroupId": SECURITY_GROUP, "GroupName": SECURITY_GROUP_NAME}],
        "SourceDestCheck": True,
        "Status": "in-use",
        "Description": "",
        "InterfaceType": "interface",
        "Ipv6Addresses": [],
    }


def _interface_attachment(world: World, interface: Interface) -> Item:
    return {
        "AttachmentId": f"eni-attach-{interface.id.removeprefix('eni-')}",
        "AttachTime": world.stamp(interface.created),
        "DeleteOnTermination": True,
        "DeviceIndex": 0,
        "NetworkCardIndex": 0,
        "Status": "attached",
    }


def interface_item(world: World, interface: Interface, at: float) -> Item:
    """One of DescribeNetworkInterfaces' NetworkInterfaces."""
    entry = interface.view.read(at)
    if entry.item is None:
        secondaries, tags = entry.state
        entry.item = _interface_base(world, interface, secondaries)
        attachment = _interface_attachment(world, interface)
        entry.item["Attachment"] = {**attachment, "InstanceId": interface.instance_id, "InstanceOwnerId": ACCOUNT}
        entry.item["AvailabilityZone"] = interface.subnet.zone
        entry.item["RequesterManaged"] = False
        entry.item["TagSet"] = [{"Key": name, "Value": value} for name, value in tags.items()]
    return entry.item


def instance_item(world: World, instance: Instance, at: float) -> Item:
    """One of a reservation's Instances."""
    entry = instance.view.read(at)
    if entry.item is None:
        entry.item = _instance_item(world, instance, entry.state)
    return entry.item


def _instance_item(world: World, instance: Instance, frozen: tuple[Any, ...]) -> Item:
    state, launched, devices, secondaries, tags = frozen
    item: Item = {
        "InstanceId": instance.id,
        "ImageId": IMAGE,
        "InstanceType": INSTANCE_TYPE,
        "State": {"Code": STATE_CODES[state], "Name": state},
        "StateTransitionReason": "" if state in ("running", "pending") else "User initiated",
        "LaunchTime": world.stamp(launched),
        "Placement": {"AvailabilityZone": instance.zone, "GroupName": "", "Tenancy": "default"},
        "Hypervisor": "nitro",
        "Architecture": "x86_64",
        "VirtualizationType": "hvm",
        "EnaSupport": True,
        "EbsOptimized": True,
        "AmiLaunchIndex": 0,
        "Monitoring": {"State": "disabled"},
        "RootDeviceName": ROOT_DEVICE,
        "RootDeviceType": "ebs",
        "MetadataOptions": {
            "State": "applied",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
            "HttpEndpoint": "enabled",
        },
        "BlockDeviceMappings": [
            {
                "DeviceName": device,
                "Ebs": {
                    "VolumeId": volume_id,
                    "Status": status,
                    "AttachTime": world.stamp(since),
                    "DeleteOnTermination": False,
                },
            }
            for volume_id, device, status, since in devices
        ],
        "NetworkInterfaces": [],
        "SecurityGroups": [],
    }
    interface = instance.interface
    if interface is not None and secondaries is not None:
        nic = _interface_base(world, interface, secondaries)
        nic["Attachment"] = _interface_attachment(world, interface)
        for key in ("PrivateIpAddress", "PrivateDnsName", "SubnetId", "VpcId", "SourceDestCheck"):
            item[key] = nic[key]
        item["SecurityGroups"] = nic["Groups"]
        item["NetworkInterfaces"] = [nic]
    _add_tags(item, "Tags", tags)
    return item


# Filters

_TAGS = "Tags"


def _one(key: str) -> Values:
    return lambda item: (str(item[key]),) if key in item else ()


def _of(list_key: str, *path: str) -> Values:
    """Values at `path` inside each member of a list."""

    def values(item: Item) -> Iterator[str]:
        for member in item.get(list_key, ()):
            value: Any = member
            for step in path:
                value = value.get(step, {})
            if not isinstance(value, dict):
                yield _text(value)

    return values


def _in(*path: str) -> Values:
    def values(item: Item) -> Iterator[str]:
        value: Any = item
        for step in path:
            value = value.get(step, {})
        if not isinstance(value, dict):
            yield _text(value)

    return values


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _nic_addresses(item: Item) -> Iterator[str]:
    for nic in item["NetworkInterfaces"]:
        for address in nic["PrivateIpAddresses"]:
            yield address["PrivateIpAddress"]


VOLUME_FILTERS: dict[str, Values] = {
    "attachment.delete-on-termination": _of("Attachments", "DeleteOnTermination"),
    "attachment.device": _of("Attachments", "Device"),
    "attachment.instance-id": _of("Attachments", "InstanceId"),
    "attachment.status": _of("Attachments", "State"),
    "availability-zone": _one("AvailabilityZone"),
    "encrypted": _in("Encrypted"),
    "multi-attach-enabled": _in("MultiAttachEnabled"),
    "size": _one("Size"),
    "status": _one("State"),
    "volume-id": _one("VolumeId"),
    "volume-type": _one("VolumeType"),
}
INSTANCE_FILTERS: dict[str, Values] = {
    "availability-zone": _in("Placement", "AvailabilityZone"),
    "block-device-mapping.device-name": _of("BlockDeviceMappings", "DeviceName"),
    "block-device-mapping.status": _of("BlockDeviceMappings", "Ebs", "Status"),
    "block-device-mapping.volume-id": _of("BlockDeviceMappings", "Ebs", "VolumeId"),
    "hypervisor": _one("Hypervisor"),
    "image-id": _one("ImageId"),
    "instance-id": _one("InstanceId"),
    "instance-state-code": _in("State", "Code"),
    "instance-state-name": _in("State", "Name"),
    "instance-type": _one("InstanceType"),
    "instance.group-id": _of("SecurityGroups", "GroupId"),
    "network-interface.addresses.private-ip-address": _nic_addresses,
    "network-interface.mac-address": _of("NetworkInterfaces", "MacAddress"),
    "network-interface.network-interface-id": _of("NetworkInterfaces", "NetworkInterfaceId"),
    "network-interface.subnet-id": _of("NetworkInterfaces", "SubnetId"),
    "private-dns-name": _one("PrivateDnsName"),
    "private-ip-address": _one("PrivateIpAddress"),
    "subnet-id": _one("SubnetId"),
    "vpc-id": _one("VpcId"),
}
INTERFACE_FILTERS: dict[str, Values] = {
    "addresses.primary": _of("PrivateIpAddresses", "Primary"),
    "addresses.private-ip-address": _of("PrivateIpAddresses", "PrivateIpAddress"),
    "attachment.instance-id": _in("Attachment", "InstanceId"),
    "attachment.status": _in("Attachment", "Status"),
    "availability-zone": _one("AvailabilityZone"),
    "group-id": _of("Groups", "GroupId"),
    "mac-address": _one("MacAddress"),
    "network-interface-id": _one("NetworkInterfaceId"),
    "private-dns-name": _one("PrivateDnsName"),
    "private-ip-address": _one("PrivateIpAddress"),
    "status": _one("Status"),
    "subnet-id": _one("SubnetId"),
    "vpc-id": _one("VpcId"),
}
STATUS_FILTERS: dict[str, Values] = {
    "availability-zone": _one("AvailabilityZone"),
    "instance-state-code": _in("InstanceState", "Code"),
    "instance-state-name": _in("InstanceState", "Name"),
    "instance-status.status": _in("InstanceStatus", "Status"),
    "system-status.status": _in("SystemStatus", "Status"),
}
TAG_FILTERS: dict[str, Values] = {
    "key": _one("Key"),
    "resource-id": _one("ResourceId"),
    "resource-type": _one("ResourceType"),
    "value": _one("Value"),
}


def select(items: list[Item], params: Params, known: dict[str, Values], tags_key: str = _TAGS) -> list[Item]:
    """The items that pass every one of Filters; unknown filters are refused, `*` and `?` work in values."""
    for wanted in params.get("Filters") or ():
        name, values = wanted.get("Name", ""), wanted.get("Values") or []
        reader = known.get(name) or _tag_reader(name, tags_key)
        if reader is None:
            raise Ec2Error("InvalidParameterValue", f"The filter '{name}' is invalid")
        items = [item for item in items if any(_matches(found, values) for found in reader(item))]
    return items


def _tag_reader(name: str, tags_key: str) -> Values | None:
    if name == "tag-key":
        return _of(tags_key, "Key")
    if not name.startswith("tag:"):
        return None
    wanted = name[4:]
    return lambda item: [tag["Value"] for tag in item.get(tags_key, ()) if tag["Key"] == wanted]


def _matches(found: str, values: list[str]) -> bool:
    return any(
        fnmatchcase(found, value.replace("[", "[[]")) if "*" in value or "?" in value else found == value
        for value in values
    )


def page(items: list[Item], params: Params, key: str) -> Item:
    """One page of a reply: MaxResults, NextToken."""
    start = params.get("NextToken") or "0"
    if not start.isdigit():
        raise Ec2Error("InvalidParameterValue", f"Value ({start}) for parameter nextToken is invalid.")
    first, size = int(start), int(params.get("MaxResults") or 0)
    reply: Item = {key: items[first : first + size] if size else items[first:]}
    if size and first + size < len(items):
        reply["NextToken"] = str(first + size)
    return reply
