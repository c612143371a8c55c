"""For which resources the policy of this configuration is: named in awsha.toml, or looked up in EC2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from awsha.agent import discovery
from awsha.aws import inspect
from awsha.aws.ec2 import Ec2
from awsha.aws.errors import Ec2Error
from awsha.aws.identity import region_of
from awsha.aws.metadata import Metadata
from awsha.aws.permissions import Scope, may_fence, partition_of, topics_of
from awsha.config.load import load
from awsha.core.errors import AwshaError
from awsha.core.judge_cloud import interface_of
from awsha.core.policy import Policy


@dataclass(frozen=True)
class Found:
    """The scope, and what a person should know about it."""

    scope: Scope
    notes: tuple[str, ...] = ()


def scope(config: Path, *, lookup: bool) -> Found:
    """The resources of a configuration. Raises AwshaError for the configuration, and when EC2 does not tell."""
    policy = discovery.read(config).policy if lookup else load(config)
    if not lookup:
        return _unasked(policy)
    region = region_of(policy, Metadata())
    ec2 = Ec2(region)
    try:
        return Found(_asked(policy, ec2))
    except Ec2Error as error:
        hint = f"{error.hint}; or without asking EC2: awsha iam-policy --no-lookup"
        raise AwshaError(f"the ids are not known: {error.message}", hint=hint) from error
    finally:
        ec2.close()


def _asked(policy: Policy, ec2: Ec2) -> Scope:
    nodes = inspect.nodes(ec2, policy.nodes)
    missing = [f"{name} ({len(found)} instances)" for name, found in nodes.items() if len(found) != 1]
    if missing:
        raise AwshaError(
            f"no single instance is found for: {', '.join(missing)}",
            hint="create the instances first, name them by instance_id, or: awsha iam-policy --no-lookup",
        )
    interfaces = []
    for node in policy.nodes:
        instance = nodes[node.name][0]
        eni = interface_of(instance, node)
        if eni is None:
            raise AwshaError(f"{instance.id} has no network interface with {node.address}", hint="awsha check")
        interfaces.append(eni.id)
    volumes = [v.id or ec2.resolve_volume(dict(v.tags)) for group in policy.groups for v in group.volumes]
    found = inspect.volumes(ec2, volumes)
    if absent := [name for name in volumes if name not in found]:
        raise AwshaError(f"there is no volume {', '.join(absent)} in {ec2.region}", hint="awsha check")
    first = nodes[policy.nodes[0].name][0]
    return Scope(
        volumes=tuple(volumes),
        instances=tuple(nodes[node.name][0].id for node in policy.nodes),
        interfaces=tuple(interfaces),
        fence=may_fence(policy),
        region=ec2.region,
        topics=topics_of(policy),
        account=first.account or "*",
        partition=partition_of(ec2.region),
        keys=tuple(sorted({ebs.key for ebs in found.values() if ebs.key})),
    )


def _unasked(policy: Policy) -> Found:
    """What awsha.toml names; `*` for the rest."""
    instances = tuple(node.instance_id for node in policy.nodes if node.instance_id)
    complete = len(instances) == len(policy.nodes) > 0
    notes = ["network interfaces are not named in awsha.toml: granted for all of the region"]
    if not complete:
        notes.append("not every node has instance_id in awsha.toml: granted for all instances of the region")
    volumes = [volume for group in policy.groups for volume in group.volumes]
    return Found(
        Scope(
            volumes=tuple(volume.id for volume in volumes if volume.id),
            instances=instances if complete else ("*",),
            interfaces=("*",),
            fence=may_fence(policy),
            region=policy.region or "*",
            partition=partition_of(policy.region or ""),
            tagged=tuple(volume.tags for volume in volumes if not volume.id),
            topics=topics_of(policy),
        ),
        (*notes, "keys of encrypted volumes are not known: grant kms:CreateGrant by hand if there are any"),
    )
