"""What `awsha check` and `awsha iam-policy` read of EC2 beyond what a failover needs. Reads only.

Every function makes one request (or one a page), bounded by `timeout_s`, and raises Ec2Error.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from awsha.aws.ec2 import LOOK_TIMEOUT_S, PAGES_MOST, Ec2
from awsha.aws.errors import Ec2Error, Kind, reply_error
from awsha.core.cloudfacts import Ebs, Holding, Instance, Interface, Rule, SecurityGroup
from awsha.core.judge_host import ClockReading
from awsha.core.model import Unknown
from awsha.core.plain import printable
from awsha.core.policy import Node

GONE = frozenset({"terminated", "shutting-down"})
NO_VOLUME = {"Filters": [{"Name": "volume-id", "Values": ["vol-00000000000000000"]}]}
KMS_S = 4.0


def nodes(ec2: Ec2, wanted: Iterable[Node], timeout_s: float = LOOK_TIMEOUT_S) -> dict[str, tuple[Instance, ...]]:
    """The instances that could be each node: by its id, else by its address in the subnet of most others."""
    nodes = tuple(wanted)
    named = {node.instance_id for node in nodes if node.instance_id}
    by_id = {i.id: i for i in _instances(ec2, _filter("instance-id", named), timeout_s)} if named else {}
    addresses = {node.address for node in nodes if not node.instance_id}
    found = tuple(_instances(ec2, _filter("private-ip-address", addresses), timeout_s)) if addresses else ()
    alive = [i for i in found if i.state not in GONE]
    result: dict[str, tuple[Instance, ...]] = {}
    for node in nodes:
        if node.instance_id:
            result[node.name] = (by_id[node.instance_id],) if node.instance_id in by_id else ()
        else:
            result[node.name] = tuple(i for i in alive if i.address == node.address)
    homes = {found[0].subnet for found in result.values() if len(found) == 1}
    return {
        name: tuple(i for i in many if len(many) == 1 or i.subnet in homes) or many for name, many in result.items()
    }


def volumes(ec2: Ec2, ids: Collection[str], timeout_s: float = LOOK_TIMEOUT_S) -> dict[str, Ebs]:
    """Volumes by id; one that does not exist is left out."""
    reply = ec2.ask("DescribeVolumes", _filter("volume-id", ids), timeout_s) if ids else {}
    return {ebs.id: ebs for ebs in (_ebs(record) for record in reply.get("Volumes", ()))}


def holders(ec2: Ec2, addresses: Collection[str], timeout_s: float = LOOK_TIMEOUT_S) -> tuple[Interface, ...]:
    """The ENIs of the account, in any VPC of the region, that have one of these addresses."""
    asked = _filter("addresses.private-ip-address", addresses)
    replies = pages(ec2, "DescribeNetworkInterfaces", asked, timeout_s)
    return tuple(_interface(record) for reply in replies for record in reply.get("NetworkInterfaces", ()))


def subnets(ec2: Ec2, ids: Collection[str], timeout_s: float = LOOK_TIMEOUT_S) -> dict[str, str]:
    """CIDR blocks of subnets, by id."""
    reply = ec2.ask("DescribeSubnets", {"SubnetIds": sorted(ids)}, timeout_s) if ids else {}
    return {str(item.get("SubnetId")): str(item.get("CidrBlock")) for item in reply.get("Subnets", ())}


def groups(ec2: Ec2, ids: Collection[str], timeout_s: float = LOOK_TIMEOUT_S) -> dict[str, SecurityGroup]:
    """Security groups with their rules, by id."""
    reply = ec2.ask("DescribeSecurityGroups", {"GroupIds": sorted(ids)}, timeout_s) if ids else {}
    found = (
        SecurityGroup(
            str(item.get("GroupId")),
            tuple(_rule(rule) for rule in item.get("IpPermissions", ())),
            tuple(_rule(rule) for rule in item.get("IpPermissionsEgress", ())),
        )
        for item in reply.get("SecurityGroups", ())
    )
    return {group.id: group for group in found}


def quotas(ec2: Ec2, types: Collection[str], timeout_s: float = LOOK_TIMEOUT_S) -> dict[str, int]:
    """How many IPv4 addresses an interface of an instance type may have, by type."""
    reply = ec2.ask("DescribeInstanceTypes", {"InstanceTypes": sorted(types)}, timeout_s) if types else {}
    result: dict[str, int] = {}
    for item in reply.get("InstanceTypes", ()):
        quota = (item.get("NetworkInfo") or {}).get("Ipv4AddressesPerInterface")
        if not isinstance(quota, int):
            raise reply_error("DescribeInstanceTypes", f"{item.get('InstanceType')} has no Ipv4AddressesPerInterface")
        result[str(item.get("InstanceType"))] = quota
    return result


def clock(ec2: Ec2, timeout_s: float = LOOK_TIMEOUT_S) -> ClockReading:
    """This host's clock against the Date of a reply of EC2 (RFC 9110, 6.6.1: whole seconds)."""
    before, began = time.time(), time.monotonic()
    reply = ec2.ask("DescribeVolumes", NO_VOLUME, timeout_s)
    took_s = time.monotonic() - began
    date = reply.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if not date:
        raise reply_error("DescribeVolumes", "the reply has no Date")
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except ValueError as error:
        raise reply_error("DescribeVolumes", f"{date!r} is no Date") from error
    # A date without its fraction of a second is half a second late on average.
    return ClockReading(before + took_s / 2 - theirs - 0.5, took_s)


def key_states(region: str, keys: Collection[str]) -> dict[str, str | Unknown]:
    """The states of KMS keys (`Enabled`, …); Unknown where the role may not see the key. Raises nothing."""
    if not keys:
        return {}
    try:
        import botocore.session
        from botocore.config import Config

        config = Config(connect_timeout=KMS_S, read_timeout=KMS_S, retries={"total_max_attempts": 1})
        kms = botocore.session.Session().create_client("kms", region_name=region, config=config)
    except Exception as error:  # noqa: BLE001 - what botocore raises without credentials or a profile is not ours to list
        return {key: Unknown(f"{type(error).__name__}: {error}") for key in keys}
    return {key: _key_state(kms, key) for key in keys}


def _key_state(kms: Any, key: str) -> str | Unknown:  # noqa: ANN401 - a botocore client
    try:
        return str(kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"])
    except Exception as error:  # noqa: BLE001 - as above; a key that cannot be seen is Unknown
        return Unknown(f"{type(error).__name__}: {error}")


def _filter(name: str, values: Collection[str | None]) -> dict[str, Any]:
    return {"Filters": [{"Name": name, "Values": sorted(value for value in values if value)}]}


def pages(ec2: Ec2, action: str, params: Mapping[str, Any], timeout_s: float) -> Iterator[Mapping[str, Any]]:
    """The pages of a describe, in EC2's words. Raises Ec2Error, also when there are more than PAGES_MOST."""
    deadline = time.monotonic() + timeout_s
    token = ""
    for _ in range(PAGES_MOST):
        more = {"NextToken": token} if token else {}
        reply = ec2.ask(action, {**params, **more}, deadline - time.monotonic())
        yield reply
        token = str(reply.get("NextToken") or "")
        if not token:
            return
    raise Ec2Error(action, "TooManyPages", f"more than {PAGES_MOST} pages", kind=Kind.REPLY)


def _instances(ec2: Ec2, params: Mapping[str, Any], timeout_s: float) -> Iterator[Instance]:
    for reply in pages(ec2, "DescribeInstances", params, timeout_s):
        for reservation in reply.get("Reservations", ()):
            for record in reservation.get("Instances", ()):
                yield _instance(record, str(reservation.get("OwnerId") or ""))


def _instance(record: Mapping[str, Any], account: str) -> Instance:
    options = record.get("MetadataOptions") or {}
    endpoint, hops = options.get("HttpEndpoint"), options.get("HttpPutResponseHopLimit")
    return Instance(
        id=str(record.get("InstanceId")),
        state=str((record.get("State") or {}).get("Name")),
        type=str(record.get("InstanceType") or ""),
        zone=str((record.get("Placement") or {}).get("AvailabilityZone") or ""),
        subnet=str(record.get("SubnetId") or ""),
        address=str(record.get("PrivateIpAddress") or ""),
        interfaces=tuple(_interface(eni, str(record.get("InstanceId"))) for eni in record.get("NetworkInterfaces", ())),
        tags={str(tag.get("Key")): printable(str(tag.get("Value") or "")) for tag in record.get("Tags", ())},
        metadata_on=None if endpoint is None else endpoint == "enabled",
        hop_limit=hops if isinstance(hops, int) else None,
        account=account,
    )


def _interface(record: Mapping[str, Any], owner: str = "") -> Interface:
    primary = str(record.get("PrivateIpAddress") or "")
    listed = {str(item.get("PrivateIpAddress")) for item in record.get("PrivateIpAddresses", ())}
    return Interface(
        id=str(record.get("NetworkInterfaceId")),
        mac=str(record.get("MacAddress") or "").lower(),
        primary=primary,
        secondaries=frozenset(listed - {primary}),
        groups=frozenset(str(group.get("GroupId")) for group in record.get("Groups", ())),
        subnet=str(record.get("SubnetId") or ""),
        owner=owner or str((record.get("Attachment") or {}).get("InstanceId") or ""),
    )


def _ebs(record: Mapping[str, Any]) -> Ebs:
    return Ebs(
        id=str(record.get("VolumeId")),
        state=str(record.get("State")),
        zone=str(record.get("AvailabilityZone") or ""),
        type=str(record.get("VolumeType") or ""),
        multi_attach=record.get("MultiAttachEnabled") is True,
        key=str(record.get("KmsKeyId") or "") if record.get("Encrypted") is True else "",
        holdings=tuple(
            Holding(str(a.get("InstanceId")), str(a.get("Device") or ""), a.get("DeleteOnTermination") is True)
            for a in record.get("Attachments", ())
            if a.get("State") != "detached"
        ),
    )


def _rule(record: Mapping[str, Any]) -> Rule:
    low = record.get("FromPort")
    return Rule(
        protocol=str(record.get("IpProtocol")),
        low=low if isinstance(low, int) else None,
        networks=tuple(str(item.get("CidrIp")) for item in record.get("IpRanges", ())),
        groups=tuple(str(item.get("GroupId")) for item in record.get("UserIdGroupPairs", ())),
        prefix_lists=tuple(str(item.get("PrefixListId")) for item in record.get("PrefixListIds", ())),
    )
