"""Which EC2 actions awsha uses, on which resources and for what; the policy that grants just that; and the probes.

Resource types and condition keys: AWS's Service Authorization Reference, "Actions, resources, and condition keys for
Amazon EC2". Describe actions know no resources there: they are granted on `*`, bound to the region.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from awsha.aws.ec2 import LOOK_TIMEOUT_S, Ec2
from awsha.aws.errors import Ec2Error, Kind
from awsha.aws.facts import RELEASING_TAG, STATUS_TAG
from awsha.core.cloudfacts import Refusal
from awsha.core.model import Unknown
from awsha.core.policy import Fence, Policy

Document = dict[str, Any]
CONFIG_TAG = "awsha:config"  # on a node's own instance: what its agent runs with


class Use(StrEnum):
    """When awsha uses an action."""

    FAILOVER = "failover"  # in every failover, or in many
    FENCE = "fence"  # when a silent holder is fenced, or by `awsha fence`
    START = "start"  # once, when the agent starts
    AFTER = "after"  # when things have settled after a failover
    RARE = "rare"  # in a failover, when one of several addresses is gone already
    CHECK = "check"  # by `awsha check` only


LOOK = ("DescribeInstances", "DescribeNetworkInterfaces", "DescribeVolumes")
INSPECT = ("DescribeInstanceTypes", "DescribeSecurityGroups", "DescribeSubnets")
ATTACH = ("AttachVolume", "DetachVolume")
ADDRESS = ("AssignPrivateIpAddresses", "UnassignPrivateIpAddresses")
USES: Mapping[str, frozenset[Use]] = {
    "DescribeInstances": frozenset({Use.FAILOVER, Use.CHECK}),
    "DescribeVolumes": frozenset({Use.FAILOVER, Use.CHECK}),
    "DescribeNetworkInterfaces": frozenset({Use.RARE, Use.CHECK}),
    **dict.fromkeys(INSPECT, frozenset({Use.CHECK})),
    **dict.fromkeys((*ATTACH, *ADDRESS), frozenset({Use.FAILOVER})),
    "CreateTags": frozenset({Use.FAILOVER, Use.START, Use.AFTER}),
    "DeleteTags": frozenset({Use.FAILOVER}),
    "StopInstances": frozenset({Use.FENCE}),
}
PURPOSES = {
    "DescribeInstances": "see nodes and addresses",
    "DescribeVolumes": "see the volumes",
    "DescribeNetworkInterfaces": "see who has an address",
    "DescribeInstanceTypes": "know how many addresses an interface may have (awsha check only)",
    "DescribeSecurityGroups": "see whether VRRP passes (awsha check only)",
    "DescribeSubnets": "see whether a VIP is in the subnet (awsha check only)",
    "AttachVolume": "take the volume",
    "DetachVolume": "release the volume, and take it from a peer",
    "AssignPrivateIpAddresses": "take the VIPs",
    "UnassignPrivateIpAddresses": "release the VIPs",
    "CreateTags": "tell the peer of a release, of the configuration, and whether this node is ready",
    "DeleteTags": "end telling the peer of a release",
    "StopInstances": "fence a peer that is silent",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """What the policy is for. Ids may be `*`, or variables of a template; the same goes for the account and so on.

    `tagged`: tags of volumes whose ids are not known. `keys`: ARNs of the KMS keys of encrypted volumes.
    `topics`: ARNs of the SNS topics to which transitions are told.
    """

    volumes: tuple[str, ...]
    instances: tuple[str, ...]
    interfaces: tuple[str, ...]
    fence: bool
    region: str = "*"
    account: str = "*"
    partition: str = "aws"
    tagged: tuple[tuple[tuple[str, str], ...], ...] = ()
    keys: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()

    def arns(self, kind: str, ids: Iterable[str]) -> list[str]:
        """ARNs of EC2 resources of a kind (volume, instance, network-interface)."""
        return [f"arn:{self.partition}:ec2:{self.region}:{self.account}:{kind}/{name}" for name in ids]


def partition_of(region: str) -> str:
    """The partition that a region is in."""
    prefixes = {
        "cn-": "aws-cn", "us-gov-": "aws-us-gov", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b",
        "eu-isoe-": "aws-iso-e", "us-isof-": "aws-iso-f", "eusc-": "aws-eusc",
    }  # fmt: skip
    return next((name for prefix, name in prefixes.items() if region.startswith(prefix)), "aws")


def topics_of(policy: Policy) -> tuple[str, ...]:
    """The ARNs of the topics to which transitions are told."""
    return (policy.notify.sns_topic,) if policy.notify.sns_topic else ()


def may_fence(policy: Policy) -> bool:
    """Whether StopInstances is ever called: by the ladder, or by `awsha fence`, unless all groups force-detach."""
    return any(group.fence is not Fence.FORCE_DETACH for group in policy.groups)


def document(scope: Scope) -> Document:
    """The policy: a JSON document in IAM's language, least privilege for this scope."""
    volumes, instances = scope.arns("volume", scope.volumes), scope.arns("instance", scope.instances)
    here = {} if scope.region == "*" else {"StringEquals": {"aws:RequestedRegion": scope.region}}
    statements = [
        _statement("AwshaLook", LOOK, ["*"], here),
        _statement("AwshaCheck", INSPECT, ["*"], here),
    ]
    if volumes:
        statements += [
            _statement("AwshaVolumes", ATTACH, volumes + instances),
            _statement("AwshaTellRelease", ("CreateTags", "DeleteTags"), volumes, _only_tags(RELEASING_TAG)),
        ]
    for number, tags in enumerate(scope.tagged, 1):
        marked = {"StringEquals": {f"aws:ResourceTag/{key}": _literal(value) for key, value in tags}}
        every = scope.arns("volume", ["*"])
        statements += [
            _statement(f"AwshaTaggedVolume{number}", ATTACH, every, marked),
            _statement(
                f"AwshaTellReleaseTagged{number}",
                ("CreateTags", "DeleteTags"),
                every,
                {**_only_tags(RELEASING_TAG), **marked},
            ),
        ]
    if scope.tagged and not volumes:
        statements.append(_statement("AwshaVolumesAtNodes", ATTACH, instances))
    statements += [
        _statement("AwshaTellNodes", ("CreateTags",), instances, _only_tags(CONFIG_TAG, STATUS_TAG)),
        _statement("AwshaAddresses", ADDRESS, scope.arns("network-interface", scope.interfaces)),
    ]
    if scope.fence:
        statements.append(_statement("AwshaFence", ("StopInstances",), instances))
    if scope.keys:
        statements += _key_statements(scope)
    if scope.topics:
        statements.append(
            {"Sid": "AwshaNotify", "Effect": "Allow", "Action": ["sns:Publish"], "Resource": list(scope.topics)}
        )
    return {"Version": "2012-10-17", "Statement": statements}


def _statement(sid: str, actions: Iterable[str], resources: list[str], condition: Document | None = None) -> Document:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": [f"ec2:{action}" for action in actions],
        "Resource": resources,
        **({"Condition": condition} if condition else {}),
    }


def _literal(value: str) -> str:
    """A condition's value that means itself: `${` would begin a policy variable (IAM user guide, "Variables and tags").

    `*` and `?` mean themselves to StringEquals, and what is not a value (a tag's name) takes no variables.
    """
    return value.replace("$", "${$}")


def _only_tags(*keys: str) -> Document:
    # ForAllValues is true of no keys at all, and DeleteTags without keys deletes every tag: hence Null.
    return {"ForAllValues:StringEquals": {"aws:TagKeys": list(keys)}, "Null": {"aws:TagKeys": "false"}}


def _key_statements(scope: Scope) -> list[Document]:
    """Attaching an encrypted volume makes EC2 take a grant in the caller's name (EBS user guide, "Encryption")."""
    keys = list(scope.keys)
    grant = {
        "Sid": "AwshaUseKeys",
        "Effect": "Allow",
        "Action": ["kms:CreateGrant"],
        "Resource": keys,
        "Condition": {"Bool": {"kms:GrantIsForAWSResource": "true"}},
    }
    return [grant, {"Sid": "AwshaSeeKeys", "Effect": "Allow", "Action": ["kms:DescribeKey"], "Resource": keys}]


def actions(granted: Document) -> frozenset[str]:
    """The EC2 actions that a policy names, without `ec2:`."""
    named = {action for statement in granted["Statement"] for action in statement["Action"]}
    return frozenset(action.removeprefix("ec2:") for action in named if action.startswith("ec2:"))


# --- asking ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Probe:
    """One call that cannot take effect, and that tells whether it would be allowed to."""

    action: str
    params: Mapping[str, Any]
    resource: str


def probes(
    own: str, peers: Iterable[str], eni: str, volumes: Iterable[str], unusable: str | None, *, fence: bool
) -> list[Probe]:
    """All that can be asked for this node.

    own, peers: instance ids. eni: this node's. `unusable`: an address that EC2 gives to nobody (its subnet's first):
    botocore knows no DryRun for Assign and Unassign, so they are asked about this one, and refused whatever happens.
    """
    found = []
    for volume in volumes:
        tag = {"Resources": [volume], "Tags": [{"Key": RELEASING_TAG, "Value": "probe"}]}
        found.append(_dry("AttachVolume", volume, VolumeId=volume, InstanceId=own, Device="/dev/sdf"))
        for instance in (own, *peers):
            where = f"{volume} at {instance}"
            found.append(_dry("DetachVolume", where, VolumeId=volume, InstanceId=instance))
        found += [_dry("CreateTags", volume, **tag), _dry("DeleteTags", volume, **tag)]
    told = [{"Key": key, "Value": "probe"} for key in (CONFIG_TAG, STATUS_TAG)]
    found.append(_dry("CreateTags", own, Resources=[own], Tags=told))
    if fence:
        found += [_dry("StopInstances", instance, InstanceIds=[instance]) for instance in peers]
    if unusable is not None:
        one = {"NetworkInterfaceId": eni, "PrivateIpAddresses": [unusable]}
        found.append(Probe("AssignPrivateIpAddresses", {**one, "AllowReassignment": False}, eni))
        found.append(Probe("UnassignPrivateIpAddresses", one, eni))
    return found


def _dry(action: str, resource: str, **params: Any) -> Probe:  # noqa: ANN401 - EC2's parameters
    return Probe(action, {**params, "DryRun": True}, resource)


# Refused for another reason than permission: EC2 has looked at the permission before.
_PAST_IT = frozenset({Kind.DRY_RUN_OK, Kind.STATE, Kind.NAME_TAKEN, Kind.LIMIT, Kind.ZONE, Kind.NOT_HELD})


def ask(ec2: Ec2, probe: Probe, timeout_s: float = LOOK_TIMEOUT_S) -> Refusal | Unknown | None:
    """Put one probe: None when it is allowed, Unknown when EC2 did not tell. Changes nothing, raises nothing."""
    try:
        ec2.ask(probe.action, probe.params, timeout_s)
    except Ec2Error as error:
        if error.kind is Kind.DENIED:
            return Refusal(f"ec2:{probe.action}", probe.resource, PURPOSES[probe.action])
        past = error.kind in _PAST_IT or (error.kind is Kind.INVALID and probe.action in ADDRESS)
        return None if past else Unknown(error.message)
    return None
