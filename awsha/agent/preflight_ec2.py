"""Which questions `awsha check` puts to EC2: about instances and volumes first, then about what hangs on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from awsha.agent.preflight_reads import Reads, Task
from awsha.aws import inspect, permissions
from awsha.aws.ec2 import Ec2
from awsha.aws.errors import Ec2Error
from awsha.core import judge_cloud
from awsha.core.cloudfacts import Cloud, Ebs, Refusal
from awsha.core.errors import AwshaError
from awsha.core.findings import Code, Finding
from awsha.core.judge_host import Published
from awsha.core.model import Unknown
from awsha.core.policy import Node, Policy

UNASKED = Unknown("not asked")
NODES, VOLUMES, HOLDERS = "nodes", "volumes", "holders of the VIPs"
SUBNET, GROUPS, TYPES, KEYS, CLOCK = "subnet", "security groups", "instance types", "keys", "clock"


@dataclass(frozen=True)
class Resolved:
    """The volumes, the policy with ids for tags, and what is wrong with the tags."""

    policy: Policy
    volumes: Mapping[str, Ebs]
    findings: tuple[Finding, ...]


def first(ec2: Ec2, policy: Policy) -> dict[str, Task]:
    """The reads that need the configuration only."""
    vips = [vip for group in policy.groups for vip in group.vips]
    return {
        NODES: partial(inspect.nodes, ec2, policy.nodes),
        VOLUMES: partial(_volumes, ec2, policy),
        HOLDERS: partial(inspect.holders, ec2, vips),
    }


def _volumes(ec2: Ec2, policy: Policy) -> Resolved:
    """Raises Ec2Error."""
    findings: list[Finding] = []
    groups = []
    for group in policy.groups:
        volumes = []
        for volume in group.volumes:
            try:
                volumes.append(volume if volume.id else replace(volume, id=ec2.resolve_volume(dict(volume.tags))))
            except Ec2Error:
                raise
            except AwshaError as error:
                findings.append(Finding(Code.VOLUME_UNKNOWN, error.message, volume.mount, error.hint))
                volumes.append(volume)
        groups.append(replace(group, volumes=tuple(volumes)))
    resolved = replace(policy, groups=tuple(groups))
    return Resolved(resolved, inspect.volumes(ec2, volume_ids(resolved)), tuple(findings))


def volume_ids(policy: Policy) -> list[str]:
    """The ids of the configured volumes, as far as they are known."""
    return [volume.id for group in policy.groups for volume in group.volumes if volume.id]


def second(ec2: Ec2, cloud: Cloud) -> dict[str, Task]:
    """The reads that need to know the instances and volumes."""
    nodes = judge_cloud.chosen(cloud).values()
    groups = {group for instance in nodes for eni in instance.interfaces for group in eni.groups}
    # The clock is read when the connection is warm: the answer is as exact as the question is quick.
    tasks: dict[str, Task] = {CLOCK: partial(inspect.clock, ec2)}
    if nodes:
        tasks[SUBNET] = partial(inspect.subnets, ec2, {i.subnet for i in nodes if i.subnet})
        tasks[GROUPS] = partial(inspect.groups, ec2, groups)
        tasks[TYPES] = partial(inspect.quotas, ec2, {i.type for i in nodes if i.type})
    keys = set() if isinstance(cloud.volumes, Unknown) else {v.key for v in cloud.volumes.values() if v.key}
    if keys:
        tasks[KEYS] = partial(inspect.key_states, ec2.region, keys)
    return tasks


def put_together(got: Mapping[str, Any]) -> Cloud:
    """What has been read so far."""
    volumes, keys = got.get(VOLUMES, UNASKED), got.get(KEYS, {})
    return Cloud(
        nodes=got.get(NODES, UNASKED),
        volumes=volumes.volumes if isinstance(volumes, Resolved) else volumes,
        holders=got.get(HOLDERS, UNASKED),
        subnets=got.get(SUBNET, UNASKED),
        groups=got.get(GROUPS, UNASKED),
        quotas=got.get(TYPES, UNASKED),
        keys={} if isinstance(keys, Unknown) else keys,
    )


def refusals(reads: Reads, ec2: Ec2, policy: Policy, cloud: Cloud, node: Node) -> list[Refusal]:
    """What this node's role may not do, asked by calls that cannot take effect."""
    nodes = judge_cloud.chosen(cloud)
    own = nodes.get(node.name)
    eni = judge_cloud.interface_of(own, node) if own else None
    if own is None or eni is None:
        return []  # reported: the instance is unknown
    block = None if isinstance(cloud.subnets, Unknown) else cloud.subnets.get(own.subnet)
    found = permissions.probes(
        own.id,
        [instance.id for name, instance in nodes.items() if name != node.name],
        eni.id,
        volume_ids(policy) if isinstance(cloud.volumes, Unknown) else cloud.volumes,
        block.partition("/")[0] if block else None,
        fence=permissions.may_fence(policy),
    )
    answers = reads.run(
        {f"{probe.action} on {probe.resource}": partial(permissions.ask, ec2, probe) for probe in found}
    )
    return [answer for answer in answers.values() if isinstance(answer, Refusal)]


def published(cloud: Cloud, node: Node) -> dict[str, Published | None]:
    """What the peers' agents have published; a peer that EC2 does not show is not named."""
    return {
        name: Published.parse(instance.tags.get(permissions.CONFIG_TAG))
        for name, instance in judge_cloud.chosen(cloud).items()
        if name != node.name
    }


def device_names(cloud: Cloud, node: Node) -> dict[str, str]:
    """EC2's device names of the volumes that are attached to a node (Xen types show no serial)."""
    own = judge_cloud.chosen(cloud).get(node.name)
    if isinstance(cloud.volumes, Unknown) or own is None:
        return {}
    return {v.id: h.device for v in cloud.volumes.values() for h in v.holdings if h.instance_id == own.id}
