"""What EC2's side of a pair lacks. Pure: the policy and what was read in, findings out.

An Unknown part gives no finding here: whoever read it has reported that (`no-answer`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations

from awsha.core.cloudfacts import Cloud, Ebs, Instance, Interface, Refusal, Rule, SecurityGroup
from awsha.core.findings import Code, Finding
from awsha.core.model import Unknown
from awsha.core.policy import Node, Policy

VRRP, ICMP = "112", "icmp"  # IANA protocol numbers; EC2 writes ICMP (1) as a word
GOOD_VOLUME_STATES = frozenset({"available", "in-use"})
SLOW_TYPES = frozenset({"standard", "st1", "sc1"})
ECHO = 8  # ICMP type, of ping


def chosen(cloud: Cloud) -> dict[str, Instance]:
    """The instance of each node for which there is exactly one."""
    if isinstance(cloud.nodes, Unknown):
        return {}
    return {name: found[0] for name, found in cloud.nodes.items() if len(found) == 1}


def interface_of(instance: Instance, node: Node) -> Interface | None:
    """The ENI with the node's primary address: where the VIPs go."""
    return next((eni for eni in instance.interfaces if eni.primary == node.address), None)


def judge(policy: Policy, cloud: Cloud) -> list[Finding]:
    """Everything that is wrong with nodes, addresses, security groups and volumes."""
    nodes = chosen(cloud)
    return [
        *_nodes(policy, cloud, nodes),
        *_places(nodes, cloud),
        *_vips(policy, cloud, nodes),
        *_quotas(policy, cloud, nodes),
        *_traffic(policy, cloud, nodes),
        *_volumes(policy, cloud, nodes),
    ]


def _nodes(policy: Policy, cloud: Cloud, nodes: Mapping[str, Instance]) -> Iterator[Finding]:
    if isinstance(cloud.nodes, Unknown):
        return
    for node in policy.nodes:
        found = cloud.nodes.get(node.name, ())
        if len(found) != 1:
            wanted = node.instance_id or node.address
            many = f"{len(found)} instances: {', '.join(i.id for i in found)}" if found else "no instance"
            yield Finding(Code.INSTANCE_UNKNOWN, f"node {node.name}: {many} for {wanted}", node.name)
            continue
        instance = nodes[node.name]
        if interface_of(instance, node) is None:
            what = f"{instance.id} has {instance.address or 'no address'}, awsha.toml says {node.address}"
            yield Finding(Code.INSTANCE_MISMATCH, f"node {node.name}: {what}", node.name)
        if instance.state != "running":
            hint = f"aws ec2 start-instances --instance-ids {instance.id}" if instance.state == "stopped" else ""
            yield Finding(Code.INSTANCE_STATE, f"node {node.name}: {instance.id} is {instance.state}", node.name, hint)
        if instance.metadata_on is False:
            yield Finding(
                Code.METADATA_OFF,
                f"node {node.name}: {instance.id} has HttpEndpoint=disabled",
                node.name,
                f"aws ec2 modify-instance-metadata-options --instance-id {instance.id} --http-endpoint enabled",
            )


def _places(nodes: Mapping[str, Instance], cloud: Cloud) -> Iterator[Finding]:
    zones = {f"node {name}": i.zone for name, i in nodes.items() if i.zone}
    if not isinstance(cloud.volumes, Unknown):
        zones |= {v.id: v.zone for v in cloud.volumes.values() if v.zone}
    if len(set(zones.values())) > 1:
        yield Finding(Code.ZONE, ", ".join(f"{what} is in {zone}" for what, zone in zones.items()))
    subnets = {name: i.subnet for name, i in nodes.items() if i.subnet}
    if len(set(subnets.values())) > 1:
        yield Finding(Code.SUBNET, ", ".join(f"node {name} is in {subnet}" for name, subnet in subnets.items()))


def _vips(policy: Policy, cloud: Cloud, nodes: Mapping[str, Instance]) -> Iterator[Finding]:
    vips = [vip for group in policy.groups for vip in group.vips]
    subnets = {i.subnet for i in nodes.values()}
    if not isinstance(cloud.subnets, Unknown):
        for block in sorted({cloud.subnets[s] for s in subnets if s in cloud.subnets}):
            for vip in vips:
                if trouble := outside(vip, block):
                    yield Finding(Code.VIP_SUBNET, f"{vip} {trouble}", vip)
    if isinstance(cloud.holders, Unknown):
        return
    own = {eni.id for instance in nodes.values() for eni in instance.interfaces}
    complete = not isinstance(cloud.nodes, Unknown) and len(nodes) == len(policy.nodes)
    for vip in vips:
        for eni in cloud.holders:
            if eni.subnet not in subnets:
                continue  # another VPC may use the same address
            where = f"{eni.id}" + (f" of {eni.owner}" if eni.owner else "")
            if eni.primary == vip:
                yield Finding(Code.VIP_PRIMARY, f"{vip} is the primary address of {where}", vip)
            elif vip in eni.secondaries and eni.id not in own and complete:
                yield Finding(
                    Code.VIP_STRANGER,
                    f"{vip} is on {where}, which is no node's",
                    vip,
                    f"if nothing needs it there: aws ec2 unassign-private-ip-addresses --network-interface-id {eni.id} "
                    f"--private-ip-addresses {vip}; or choose another VIP",
                )


def outside(address: str, block: str) -> str:
    """Why an address can't be a secondary address in this subnet; "" when it can (VPC user guide, subnet sizing)."""
    network, parsed = ipaddress.IPv4Network(block), ipaddress.IPv4Address(address)
    if parsed not in network:
        return f"is not in the subnet {block}"
    place = int(parsed) - int(network.network_address)
    if place < 4 or parsed == network.broadcast_address:
        return f"is reserved by EC2 in the subnet {block}"
    return ""


def _quotas(policy: Policy, cloud: Cloud, nodes: Mapping[str, Instance]) -> Iterator[Finding]:
    if isinstance(cloud.quotas, Unknown):
        return
    vips = {vip for group in policy.groups for vip in group.vips}
    for node in policy.nodes:
        instance = nodes.get(node.name)
        eni = interface_of(instance, node) if instance else None
        quota = cloud.quotas.get(instance.type) if instance else None
        if instance is None or eni is None or quota is None:
            continue
        others = eni.secondaries - vips
        if 1 + len(others) + len(vips) > quota:
            yield Finding(
                Code.ADDRESS_QUOTA,
                f"node {node.name}: {eni.id} has 1 primary and {len(others)} other secondary addresses; with "
                f"{len(vips)} VIPs that is more than the {quota} of {instance.type}",
                node.name,
            )


def _traffic(policy: Policy, cloud: Cloud, nodes: Mapping[str, Instance]) -> Iterator[Finding]:
    """Egress of the one and ingress of the other, for each ordered pair of nodes. A reply needs no rule (stateful)."""
    if isinstance(cloud.groups, Unknown):
        return
    ends = {}
    for node in policy.nodes:
        if (instance := nodes.get(node.name)) and (eni := interface_of(instance, node)):
            ends[node] = eni
    for protocol, code in ((VRRP, Code.VRRP_BLOCKED), (ICMP, Code.ICMP_BLOCKED)):
        for (source, out), (target, into) in permutations(ends.items(), 2):
            for eni, peer_eni, peer, egress in ((out, into, target, True), (into, out, source, False)):
                allowed = lets_pass(cloud.groups, eni, peer.address, peer_eni.groups, protocol, egress=egress)
                if allowed is True:
                    continue
                way = f"out of node {source.name} to" if egress else f"into node {target.name} from"
                name = "protocol 112 (VRRP)" if protocol == VRRP else "ICMP"
                what = f"no rule of {', '.join(sorted(eni.groups)) or 'no group'} lets {name} {way} {peer.address}"
                if allowed is None:
                    what += "; a rule with a prefix list might, which is not read: allow the peers' group instead"
                yield Finding(code, what, source.name if egress else target.name)


def lets_pass(
    groups: Mapping[str, SecurityGroup],
    eni: Interface,
    peer: str,
    peer_groups: frozenset[str],
    protocol: str,
    *,
    egress: bool,
) -> bool | None:
    """Whether the rules of an ENI's groups let a protocol pass to or from a peer; None: a prefix list may."""
    unsure = False
    for group_id in eni.groups:
        group = groups.get(group_id)
        for rule in () if group is None else group.egress if egress else group.ingress:
            if not _speaks(rule, protocol):
                continue
            if set(rule.groups) & peer_groups or any(_within(peer, network) for network in rule.networks):
                return True
            unsure = unsure or bool(rule.prefix_lists)
    return None if unsure else False


def _speaks(rule: Rule, protocol: str) -> bool:
    spoken = {"1": ICMP}.get(rule.protocol, rule.protocol)
    if spoken == "-1":
        return True
    return spoken == protocol and (protocol != ICMP or rule.low in (None, -1, ECHO))


def _within(address: str, network: str) -> bool:
    try:
        return ipaddress.IPv4Address(address) in ipaddress.IPv4Network(network)
    except ValueError:
        return False  # IPv6


def _volumes(policy: Policy, cloud: Cloud, nodes: Mapping[str, Instance]) -> Iterator[Finding]:
    if isinstance(cloud.volumes, Unknown):
        return
    complete = len(nodes) == len(policy.nodes)
    names = {instance.id: name for name, instance in nodes.items()}
    for group in policy.groups:
        for volume in group.volumes:
            if volume.id is None:
                continue  # its tags mean none or several: reported where they were resolved
            ebs = cloud.volumes.get(volume.id)
            if ebs is None:
                yield Finding(Code.VOLUME_UNKNOWN, f"{volume.id} of group {group.name} does not exist", volume.id)
                continue
            yield from _volume(ebs, names, complete)
            key = cloud.keys.get(ebs.key)
            if isinstance(key, str) and key != "Enabled":
                yield Finding(Code.VOLUME_KEY, f"the key {ebs.key} of {ebs.id} is {key}", ebs.id)


def _volume(ebs: Ebs, names: Mapping[str, str], complete: bool) -> Iterator[Finding]:
    if ebs.state not in GOOD_VOLUME_STATES:
        yield Finding(Code.VOLUME_STATE, f"{ebs.id} is {ebs.state}", ebs.id)
    if ebs.multi_attach:
        yield Finding(Code.MULTI_ATTACH, f"{ebs.id} has Multi-Attach enabled", ebs.id)
    if ebs.type in SLOW_TYPES:
        yield Finding(Code.VOLUME_TYPE, f"{ebs.id} is of type {ebs.type}", ebs.id)
    for held in ebs.holdings:
        if held.instance_id not in names and complete:
            yield Finding(
                Code.VOLUME_STRANGER,
                f"{ebs.id} is attached to {held.instance_id}, which is no node",
                ebs.id,
                f"aws ec2 detach-volume --volume-id {ebs.id} --instance-id {held.instance_id}; or correct awsha.toml",
            )
        if held.delete_on_termination:
            yield Finding(
                Code.DELETE_ON_TERMINATION,
                f"{ebs.id} goes when {names.get(held.instance_id, held.instance_id)} is terminated",
                ebs.id,
                f"aws ec2 modify-instance-attribute --instance-id {held.instance_id} --block-device-mappings "
                f'\'[{{"DeviceName": "{held.device}", "Ebs": {{"DeleteOnTermination": false}}}}]\'',
            )


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance is. "" is not known."""

    partition: str = ""
    region: str = ""
    account: str = ""


def arns(written: list[str], here: Place) -> Iterator[Finding]:
    """Volumes that are named by the ARN of a place where this instance is not."""
    for arn in written:
        _, partition, _, region, account, resource = arn.split(":", 5)
        meant = Place(partition, region, "" if account == "*" else account)
        for part in ("partition", "region", "account"):
            there, own = getattr(meant, part), getattr(here, part)
            if there and own and there != own:
                what = f"{arn} is in {part} {there}, this instance is in {own}"
                yield Finding(Code.VOLUME_ARN, what, resource.removeprefix("volume/"))
                break


def permissions(refusals: list[Refusal]) -> list[Finding]:
    """One finding for each action that is refused."""
    found = []
    for action in sorted({refusal.action for refusal in refusals}):
        of = [refusal for refusal in refusals if refusal.action == action]
        on = ", ".join(dict.fromkeys(refusal.resource for refusal in of))
        purposes = "; ".join(dict.fromkeys(refusal.purpose for refusal in of))
        what = f"the role of this node may not call {action} on {on}: needed to {purposes}"
        hint = f"allow {action} to the role of the nodes: `awsha iam-policy` prints the whole policy"
        found.append(Finding(Code.PERMISSION, what, action, hint))
    return found
