"""Tags of the things that have rules; they show up with their thing's view, at no extra call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from awsha.lab.records import TAGS_PER_RESOURCE, Ec2Error, Instance, Interface, Params, Reply, Tags, Volume
from awsha.lab.views import TAG_FILTERS, Item, instance_item, interface_item, page, select, volume_item
from awsha.lab.world import World, dry_run, required

Thing = Volume | Instance | Interface


def create(world: World, params: Params, now: float) -> Reply:
    """CreateTags: adds or replaces, on all of the resources or on none."""
    required(params, "Resources", "Tags")
    new = {tag.get("Key", ""): tag.get("Value") or "" for tag in params["Tags"]}
    for key, value in new.items():
        _check(key, value)
    things = [_thing(world, name) for name in params["Resources"]]
    dry_run(params)
    merged = [{**thing.tags, **new} for thing in things]
    if any(len(tags) > TAGS_PER_RESOURCE for tags in merged):
        raise Ec2Error("TagLimitExceeded", f"The maximum number of tags is {TAGS_PER_RESOURCE}.")
    for thing, tags in zip(things, merged, strict=True):
        _set(world, thing, tags, now)
    return {}


def delete(world: World, params: Params, now: float) -> Reply:
    """DeleteTags: by key, by key and value, or all of them; what is not there is no error."""
    required(params, "Resources")
    things = [_thing(world, name) for name in params["Resources"]]
    dry_run(params)
    doomed: list[dict[str, Any]] = params.get("Tags") or []
    for thing in things:
        left = {
            key: value
            for key, value in thing.tags.items()
            if doomed and not any(t.get("Key") == key and t.get("Value") in (None, value) for t in doomed)
        }
        if left != thing.tags:
            _set(world, thing, left, now)
    return {}


def describe(world: World, params: Params, at: float) -> Reply:
    """DescribeTags as of `at`."""
    dry_run(params)
    items: list[Item] = []
    for volume in world.volumes.values():
        items += _items(volume.id, "volume", volume_item(world, volume, at).get("Tags", ()))
    for instance in world.instances.values():
        items += _items(instance.id, "instance", instance_item(world, instance, at).get("Tags", ()))
    for interface in world.interfaces.values():
        items += _items(interface.id, "network-interface", interface_item(world, interface, at)["TagSet"])
    chosen = select(items, params, TAG_FILTERS, "Self")
    for item in chosen:
        del item["Self"]
    return page(chosen, params, "Tags")


def _items(resource: str, kind: str, tags: Iterable[Item]) -> list[Item]:
    # "Self" lets the filters `tag:KEY` and `tag-key` read an item as if it were a resource with this one tag.
    return [{"ResourceId": resource, "ResourceType": kind, **tag, "Self": [tag]} for tag in tags]


def _check(key: str, value: str) -> None:
    if not key or len(key) > 127 or len(value) > 255:
        raise Ec2Error("InvalidParameterValue", f"Tag key '{key}' or its value is empty or too long.")
    if key.startswith("aws:"):
        raise Ec2Error("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")


def _thing(world: World, resource: str) -> Thing:
    if resource.startswith("vol-"):
        return world.volume(resource)
    if resource.startswith("i-"):
        return world.instance(resource)
    if resource.startswith("eni-"):
        return world.interface(resource)
    raise Ec2Error("InvalidID", f"The ID '{resource}' is not valid")


def _set(world: World, thing: Thing, tags: Tags, now: float) -> None:
    thing.tags = tags
    if isinstance(thing, Volume):
        world.show_volume(thing, now)
    elif isinstance(thing, Instance):
        world.show_instance(thing, now)
    else:
        world.show_interface(thing, now)
