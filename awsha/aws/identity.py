"""Who this node is, who the others are, in which region: by configuration, instance metadata and EC2, in that order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from awsha.aws.ec2 import Ec2
from awsha.aws.facts import Instance
from awsha.aws.metadata import Metadata, MetadataError
from awsha.core.errors import EX_CONFIG, AwshaError
from awsha.core.model import Self
from awsha.core.policy import Group, Node, Policy


@dataclass(frozen=True, slots=True)
class LocalInterface:
    """One network interface of this host: kernel name, MAC address, IPv4 addresses without prefix length."""

    name: str
    mac: str
    addresses: frozenset[str]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is who.

    `this`: this node, for one group. `instances`: node name -> instance id, this node's included. `unresolved`: node
    name -> why its instance is not known; such a node is missing from `instances` and from `this.peers`, and is worth
    asking for again later: a peer that is gone for good must not keep this node from its work.
    """

    this: Self
    instances: Mapping[str, str]
    unresolved: Mapping[str, str]


def region_of(policy: Policy, metadata: Metadata, environ: Mapping[str, str] | None = None) -> str:
    """The region: awsha.toml, AWS_REGION, AWS_DEFAULT_REGION, instance metadata, the AWS profile. Raises AwshaError."""
    env = os.environ if environ is None else environ
    told = policy.region or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")
    if told:
        return told
    try:
        return metadata.region()
    except MetadataError as error:
        told = _profile_region()
        if told:
            return told
        raise AwshaError(
            f"the region is not known: it is not in awsha.toml, AWS_REGION is not set, and {error.message}",
            hint='add region = "eu-west-1" (yours) at the top of awsha.toml, or set AWS_REGION',
            exit_code=EX_CONFIG,
        ) from error


def this_node(policy: Policy, local: Iterable[LocalInterface]) -> tuple[Node, LocalInterface]:
    """The node whose address this host has, and the interface that has it. Raises AwshaError when none or two match."""
    interfaces = tuple(local)
    matches = [(node, face) for node in policy.nodes for face in interfaces if node.address in face.addresses]
    names = {node.name for node, _ in matches}
    if len(names) == 1:
        return matches[0]
    configured = ", ".join(f"{node.name}={node.address}" for node in policy.nodes)
    if names:
        raise AwshaError(
            f"this host has the addresses of {len(names)} nodes ({', '.join(sorted(names))})",
            hint="every node is a host of its own; give each [[node]] the primary private address of its instance",
            exit_code=EX_CONFIG,
        )
    here = ", ".join(f"{address} ({face.name})" for face in interfaces for address in sorted(face.addresses))
    raise AwshaError(
        f"this host is none of the nodes ({configured}): it has {here or 'no IPv4 address'}",
        hint="set address of this [[node]] in awsha.toml to the primary private IPv4 address of this instance",
        exit_code=EX_CONFIG,
    )


def identify(
    policy: Policy, local: Iterable[LocalInterface], ec2: Ec2, metadata: Metadata, group: Group | None = None
) -> Identity:
    """Find out who this node is, for `group` (whose `interface` may differ from the one with the node's address).

    EC2 is asked only for what configuration and metadata do not tell, in one call. Raises AwshaError when this node's
    own instance or ENI cannot be told, or when the sources contradict each other. Unknown peers do not raise.
    """
    interfaces = tuple(local)
    node, face = this_node(policy, interfaces)
    if group is not None and group.interface is not None:
        face = _named(interfaces, group, node)
    told = {item.name: item.instance_id for item in policy.nodes if item.instance_id is not None}
    own, eni, trouble = _from_metadata(metadata, face.mac)
    if own is not None and told.setdefault(node.name, own) != own:
        raise AwshaError(
            f"node {node.name} has instance_id {told[node.name]} in awsha.toml, but this instance is {own}",
            hint="correct instance_id in awsha.toml, or leave it out: it is found by address",
            exit_code=EX_CONFIG,
        )
    asked = {item.address for item in policy.nodes if item.name not in told}
    if asked or eni is None:
        asked.add(node.address)  # this node's subnet tells its peers from instances of other VPCs
    found, failure = _by_address(ec2, asked)
    if eni is None:
        mine = _mine(found.get(node.address, ()), told.get(node.name), face)
        if mine is None:
            raise _unknown_self(node, failure, trouble)
        told[node.name], eni = mine.facts.id, _eni_of(mine, face)
    subnet = next((item.facts.subnet for item in found.get(node.address, ()) if item.facts.id == told[node.name]), None)
    unresolved: dict[str, str] = {}
    for item in policy.nodes:
        if item.name not in told:
            chosen = _one(found.get(item.address, ()), subnet)
            if isinstance(chosen, Instance):
                told[item.name] = chosen.facts.id
            else:
                unresolved[item.name] = failure.message if failure else f"{item.address}: {chosen}"
    peers = {instance_id: name for name, instance_id in told.items() if name != node.name}
    return Identity(Self(node.name, told[node.name], eni, face.name, peers), told, unresolved)


def _from_metadata(metadata: Metadata, mac: str) -> tuple[str | None, str | None, str]:
    """Instance id and ENI id by metadata; None for what it does not tell, and why."""
    try:
        own = metadata.instance_id()
    except MetadataError as error:
        return None, None, error.message
    try:
        return own, metadata.eni_id(mac), ""
    except MetadataError as error:
        return own, None, error.message


def _by_address(ec2: Ec2, asked: set[str]) -> tuple[Mapping[str, tuple[Instance, ...]], AwshaError | None]:
    try:
        return ec2.find_instances(asked), None
    except AwshaError as error:
        return {}, error


def _named(interfaces: tuple[LocalInterface, ...], group: Group, node: Node) -> LocalInterface:
    for face in interfaces:
        if face.name == group.interface:
            return face
    names = ", ".join(sorted(face.name for face in interfaces))
    raise AwshaError(
        f"group {group.name}: node {node.name} has no interface {group.interface} (it has {names})",
        hint="correct interface in awsha.toml, or leave it out: it is found by the node's address",
        exit_code=EX_CONFIG,
    )


def _mine(found: tuple[Instance, ...], own: str | None, face: LocalInterface) -> Instance | None:
    """The instance among `found` that is this host: by its id, else by the MAC address, which no other VPC repeats."""
    if own is not None:
        return next((item for item in found if item.facts.id == own), None)
    by_mac = [item for item in found if any(eni.mac == face.mac.lower() for eni in item.interfaces)]
    if by_mac:
        return by_mac[0]
    return found[0] if len(found) == 1 else None


def _eni_of(mine: Instance, face: LocalInterface) -> str:
    """The ENI behind a local interface: the one with its MAC address, else the one whose primary address it has."""
    for eni in mine.interfaces:
        if eni.mac == face.mac.lower():
            return eni.id
    for eni in mine.interfaces:
        if eni.primary in face.addresses:
            return eni.id
    raise AwshaError(
        f"EC2 knows no network interface of {mine.facts.id} with the MAC address {face.mac} of {face.name}",
        hint="is this interface an ENI? Give the group the interface that is, in awsha.toml",
    )


def _one(found: tuple[Instance, ...], subnet: str | None) -> Instance | str:
    """The one instance that a peer's address means; instances of another VPC may have the same address."""
    near = [item for item in found if subnet and item.facts.subnet == subnet] or list(found)
    if len(near) == 1:
        return near[0]
    if not near:
        return "no instance has this address"
    return f"{len(near)} instances have this address: {', '.join(item.facts.id for item in near)}"


def _unknown_self(node: Node, failure: AwshaError | None, trouble: str) -> AwshaError:
    if failure is not None:
        return AwshaError(
            f"this node ({node.name}) cannot be told: {trouble}; {failure.message}",
            hint=failure.hint,
        )
    return AwshaError(
        f"this node ({node.name}) cannot be told: {trouble}; no single instance has its address {node.address}",
        hint="compare address and instance_id of this [[node]] with the instance, and the region",
    )


def _profile_region() -> str | None:
    """The region of the AWS profile in ~/.aws/config, where somebody works from outside EC2."""
    import botocore.exceptions
    import botocore.session

    try:
        region = botocore.session.Session().get_config_variable("region")
    except botocore.exceptions.BotoCoreError:
        return None
    return region if isinstance(region, str) and region else None
