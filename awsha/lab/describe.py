"""The Describe actions: what the views show, selected and paged."""

from __future__ import annotations

from awsha.lab.instances import state
from awsha.lab.records import ACCOUNT, Ec2Error, Instance, Params, Reply
from awsha.lab.views import (
    INSTANCE_FILTERS,
    INTERFACE_FILTERS,
    STATUS_FILTERS,
    VOLUME_FILTERS,
    Item,
    instance_item,
    interface_item,
    page,
    select,
    volume_item,
)
from awsha.lab.world import World, dry_run


def volumes(world: World, params: Params, at: float) -> Reply:
    """DescribeVolumes as of `at`."""
    ids = _ids(params, "VolumeIds")
    chosen = [world.volume(name) for name in ids] if ids else list(world.volumes.values())
    dry_run(params)
    items = [volume_item(world, volume, at) for volume in chosen]
    return page(select(items, params, VOLUME_FILTERS), params, "Volumes")


def interfaces(world: World, params: Params, at: float) -> Reply:
    """DescribeNetworkInterfaces as of `at`."""
    ids = _ids(params, "NetworkInterfaceIds")
    chosen = [world.interface(name) for name in ids] if ids else list(world.interfaces.values())
    dry_run(params)
    items = [interface_item(world, interface, at) for interface in chosen]
    return page(select(items, params, INTERFACE_FILTERS, "TagSet"), params, "NetworkInterfaces")


def instances(world: World, params: Params, at: float) -> Reply:
    """DescribeInstances as of `at`; each instance is a reservation of its own."""
    items = [instance_item(world, instance, at) for instance in _instances(world, params)]
    found = page(select(items, params, INSTANCE_FILTERS), params, "Reservations")
    found["Reservations"] = [
        {
            "ReservationId": f"r-{item['InstanceId'].removeprefix('i-')}",
            "OwnerId": ACCOUNT,
            "Groups": [],
            "Instances": [item],
        }
        for item in found["Reservations"]
    ]
    return found


def instance_status(world: World, params: Params, at: float) -> Reply:
    """DescribeInstanceStatus as of `at`: running ones only, unless IncludeAllInstances."""
    chosen = _instances(world, params)
    items = [_status_item(world, instance, at) for instance in chosen]
    if not params.get("IncludeAllInstances"):
        items = [item for item in items if item["InstanceState"]["Name"] == "running"]
    return page(select(items, params, STATUS_FILTERS), params, "InstanceStatuses")


def _instances(world: World, params: Params) -> list[Instance]:
    ids = _ids(params, "InstanceIds")
    chosen = [world.instance(name) for name in ids] if ids else list(world.instances.values())
    dry_run(params)
    return chosen


def _ids(params: Params, key: str) -> list[str]:
    ids: list[str] = list(dict.fromkeys(params.get(key) or ()))
    if ids and params.get("MaxResults"):
        raise Ec2Error("InvalidParameterCombination", f"The parameter {key} cannot be used with maxResults")
    return ids


def _status_item(world: World, instance: Instance, at: float) -> Item:
    name = instance_item(world, instance, at)["State"]["Name"]
    since = instance.impaired_at
    if name != "running":
        summary: Item = {"Status": "not-applicable"}
    elif since is None or since > at:
        summary = {"Status": "ok", "Details": [{"Name": "reachability", "Status": "passed"}]}
    else:
        detail = {"Name": "reachability", "Status": "failed", "ImpairedSince": world.stamp(since)}
        summary = {"Status": "impaired", "Details": [detail]}
    return {
        "AvailabilityZone": instance.zone,
        "InstanceId": instance.id,
        "InstanceState": state(name),
        "InstanceStatus": summary,
        "SystemStatus": summary,
    }
