"""EC2's replies turned into facts. Pure, and nothing is guessed: unknown words or shapes are an error of kind REPLY.

A missing attachment list means no attachment, since EC2 leaves empty lists out. An attachment without a state is an
error, so that a volume is never taken for free by mistake.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeVar

from awsha.aws.errors import reply_error
from awsha.core.model import (
    Attachment,
    AttachmentState,
    InstanceFacts,
    InstanceState,
    Releasing,
    Said,
    Serving,
    VolumeFacts,
    VolumeState,
)
from awsha.core.plain import printable

RELEASING_TAG = "awsha:releasing"
SERVING = "serving"
STATUS_TAG = "awsha:status"  # on a node's own instance: how its groups are
TAG_MOST = 256  # characters of a tag's value (EC2 user guide, "Tag restrictions")

W = TypeVar("W", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class NetworkInterface:
    """One ENI as EC2 describes it. `primary` is its primary private IPv4 address, which is in `addresses` too."""

    id: str
    mac: str
    primary: str
    addresses: frozenset[str]


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance with its ENIs: what tells nodes apart."""

    facts: InstanceFacts
    interfaces: tuple[NetworkInterface, ...]


def releasing_value(node: str, at_wall: float, why: str = "") -> str:
    """The value of the `awsha:releasing` tag: Unix seconds with milliseconds, the node's name, why, if that is told."""
    return " ".join(f"{at_wall:.3f} {node} {why}".split())[:TAG_MOST].rstrip()


def serving_value(node: str, at_wall: float) -> str:
    """The value of the same tag when `node` answers a switchover: it serves."""
    return f"{SERVING} {at_wall:.3f} {node}"


def releasing_of(value: str) -> Releasing | None:
    """Read the tag's value back. None when it tells of no release, or anything else than awsha wrote it."""
    seconds, _, rest = value.partition(" ")
    node, _, why = rest.strip().partition(" ")
    at_wall = _moment(seconds)
    return None if at_wall is None or not node else Releasing(printable(node), at_wall, printable(why.strip()))


def serving_of(value: str) -> Serving | None:
    """Read the tag's value back. None when it is no answer to a switchover."""
    word, _, rest = value.partition(" ")
    seconds, _, node = rest.partition(" ")
    at_wall = _moment(seconds)
    return None if word != SERVING or at_wall is None or not node.strip() else Serving(printable(node.strip()), at_wall)


def _moment(seconds: str) -> float | None:
    try:
        at_wall = float(seconds)
    except ValueError:
        return None
    return at_wall if math.isfinite(at_wall) and at_wall >= 0 else None


def said_value(said: Said) -> str:
    """The value of the `awsha:status` tag: Unix seconds, then GROUP:WORD for each group, as many as EC2 takes."""
    text = f"{said.at_wall:.0f}"
    for group, word in said.words:
        more = f" {group}:{word}"
        text += more if len(text) + len(more) <= TAG_MOST else ""
    return text


def said_of(value: str) -> Said | None:
    """Read the tag's value back. None when anything else than awsha wrote it."""
    seconds, *words = value.split()[:TAG_MOST] or [""]
    at_wall = _moment(seconds)
    pairs = [word.partition(":") for word in words]
    if at_wall is None or not all(group and word for group, _, word in pairs):
        return None
    return Said(at_wall, tuple((printable(group), printable(word)) for group, _, word in pairs))


def volumes(reply: object, action: str = "DescribeVolumes") -> dict[str, VolumeFacts]:
    """The volumes of a DescribeVolumes reply, by id. Raises Ec2Error (REPLY)."""
    found = (_volume(record, action) for record in _records(reply, "Volumes", action))
    return {volume.id: volume for volume in found}


def instances(reply: object, action: str = "DescribeInstances") -> dict[str, Instance]:
    """The instances of a DescribeInstances reply, by id. Raises Ec2Error (REPLY)."""
    found = (
        _instance(record, action)
        for reservation in _records(reply, "Reservations", action)
        for record in _records(reservation, "Instances", action)
    )
    return {instance.facts.id: instance for instance in found}


def interfaces(reply: object, action: str = "DescribeNetworkInterfaces") -> tuple[NetworkInterface, ...]:
    """The ENIs of a DescribeNetworkInterfaces reply, or of one instance record. Raises Ec2Error (REPLY)."""
    return tuple(_interface(record, action) for record in _records(reply, "NetworkInterfaces", action))


def attachment_reply(reply: object, action: str) -> VolumeFacts:
    """What the reply to AttachVolume or DetachVolume says. It knows nothing of tags, zone and other attachments."""
    attachment = _attachment(_record(reply, action), action)
    if attachment.state is AttachmentState.DETACHED:
        return VolumeFacts(id=_id(reply, "VolumeId", action), state=VolumeState.AVAILABLE)
    return VolumeFacts(id=_id(reply, "VolumeId", action), state=VolumeState.IN_USE, attachments=(attachment,))


def stopping_state(reply: object, instance_id: str, action: str = "StopInstances") -> InstanceState:
    """The state that StopInstances says `instance_id` is in now."""
    for change in _records(reply, "StoppingInstances", action):
        if change.get("InstanceId") == instance_id:
            return _word(InstanceState, _record(change.get("CurrentState"), action).get("Name"), action)
    raise reply_error(action, f"{instance_id} is not in the reply")


def assigned(reply: object, action: str = "AssignPrivateIpAddresses") -> frozenset[str]:
    """The addresses that AssignPrivateIpAddresses says it assigned. Asynchronous: not yet true (AWS's reference)."""
    records = _records(reply, "AssignedPrivateIpAddresses", action)
    return frozenset(_id(record, "PrivateIpAddress", action) for record in records)


def next_token(reply: object) -> str:
    """The token of the next page, empty when this was the last."""
    token = reply.get("NextToken") if isinstance(reply, Mapping) else None
    return token if isinstance(token, str) else ""


def _volume(record: Mapping[str, Any], action: str) -> VolumeFacts:
    attachments = (_attachment(item, action) for item in _records(record, "Attachments", action))
    told = _tag(record, RELEASING_TAG, action)
    return VolumeFacts(
        id=_id(record, "VolumeId", action),
        state=_word(VolumeState, record.get("State"), action),
        attachments=tuple(item for item in attachments if item.state is not AttachmentState.DETACHED),
        releasing=releasing_of(told) if told is not None else None,
        serving=serving_of(told) if told is not None else None,
        multi_attach=record.get("MultiAttachEnabled") is True,
        zone=_text(record.get("AvailabilityZone"), action),
    )


def _tag(record: Mapping[str, Any], key: str, action: str) -> str | None:
    """The value of a tag, None when there is none."""
    for tag in _records(record, "Tags", action):
        if tag.get("Key") == key:
            value = tag.get("Value")
            return value if isinstance(value, str) else None
    return None


def _attachment(record: Mapping[str, Any], action: str) -> Attachment:
    return Attachment(
        instance_id=_id(record, "InstanceId", action),
        state=_word(AttachmentState, record.get("State"), action),
        device=_text(record.get("Device"), action),
    )


def _instance(record: Mapping[str, Any], action: str) -> Instance:
    enis = interfaces(record, action)
    names = {_text(item.get("DeviceName"), action) for item in _records(record, "BlockDeviceMappings", action)}
    names.add(_text(record.get("RootDeviceName"), action))
    addresses = {address for eni in enis for address in eni.addresses}
    addresses.add(_text(record.get("PrivateIpAddress"), action))
    said = _tag(record, STATUS_TAG, action)
    facts = InstanceFacts(
        id=_id(record, "InstanceId", action),
        state=_word(InstanceState, _record(record.get("State"), action).get("Name"), action),
        addresses=frozenset(addresses - {""}),
        device_names=frozenset(names - {""}),
        zone=_text(_record(record.get("Placement") or {}, action).get("AvailabilityZone"), action),
        subnet=_text(record.get("SubnetId"), action),
        said=said_of(said) if said is not None else None,
    )
    return Instance(facts=facts, interfaces=enis)


def _interface(record: Mapping[str, Any], action: str) -> NetworkInterface:
    primary = _text(record.get("PrivateIpAddress"), action)
    listed = {_id(item, "PrivateIpAddress", action) for item in _records(record, "PrivateIpAddresses", action)}
    return NetworkInterface(
        id=_id(record, "NetworkInterfaceId", action),
        mac=_text(record.get("MacAddress"), action).lower(),
        primary=primary,
        addresses=frozenset((listed | {primary}) - {""}),
    )


def _records(record: object, key: str, action: str) -> list[Mapping[str, Any]]:
    """The list of records under `key`; EC2 leaves empty lists out."""
    found = _record(record, action).get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise reply_error(action, f"{key} is not a list")
    return [_record(item, action) for item in found]


def _record(value: object, action: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise reply_error(action, f"expected a record, got {type(value).__name__}")
    return value


def _id(record: object, key: str, action: str) -> str:
    text = _text(_record(record, action).get(key), action)
    if not text:
        raise reply_error(action, f"{key} is missing")
    return text


def _text(value: object, action: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise reply_error(action, f"expected a text, got {type(value).__name__}")
    return value


@lru_cache(maxsize=256)
def _member(words: type[W], text: str) -> W:
    return words(text)


def _word(words: type[W], value: object, action: str) -> W:
    try:
        found: W = _member(words, str(value))
    except ValueError:
        raise reply_error(action, f"{words.__name__} {value!r} is unknown to awsha") from None
    return found
