"""Puts a node together: configuration, who this node is, and the hands and eyes of each group."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from awsha.agent import discovery
from awsha.agent.execute import Executor
from awsha.agent.hearing import Hearing
from awsha.agent.hooks import Hooks
from awsha.agent.marks import Marks
from awsha.agent.observe import Observer
from awsha.agent.paths import private_dir, refuse_unsafe, run_dir, write_atomically
from awsha.aws.ec2 import Ec2
from awsha.aws.identity import LocalInterface, identify, region_of, this_node
from awsha.aws.metadata import Metadata
from awsha.config import load
from awsha.core.errors import AwshaError
from awsha.core.loop import Loop
from awsha.core.model import Self, Unknown
from awsha.core.policy import Group, Policy, Volume
from awsha.host import network
from awsha.host.clock import boot_id


@dataclass(frozen=True)
class Place:
    """Who this node is, as one group sees it. `unresolved`: why some peers' instances are not known (yet)."""

    me: Self
    mac: str
    unresolved: str = ""


@dataclass
class Node:
    """This node, put together."""

    policy: Policy
    places: dict[str, Place]  # by group
    ec2: Ec2
    metadata: Metadata
    hearing: Hearing

    @property
    def name(self) -> str:
        """This node's name."""
        return next(iter(self.places.values())).me.name

    def identify_again(self) -> None:
        """Ask EC2 anew who the peers are: one was not known yet, or was replaced. Raises AwshaError."""
        found = _places(self.policy, network_interfaces(), self.ec2, self.metadata, keep=False)
        self.places = {name: _remembering(place, self.places[name].me) for name, place in found.items()}

    def executor(self, group: Group) -> Executor:
        """Hands and eyes for one group."""
        place = self.places[group.name]
        observer = Observer(group, place.me, self.ec2, self.metadata, place.mac)
        return Executor(group, place.me, self.ec2, observer, Marks(group.name), self.hearing, Hooks(group))

    def loop(self, group: Group) -> Loop:
        """A loop for one group, which knows nothing yet."""
        return Loop(group, self.places[group.name].me)


def group_named(policy: Policy, name: str) -> Group:
    """A group by name. Raises AwshaError with the names that there are."""
    for group in policy.groups:
        if group.name == name:
            return group
    raise AwshaError(f"no group {name!r}", hint=f"the configuration has: {', '.join(g.name for g in policy.groups)}")


def assemble(
    config: Path,
    *,
    listen: bool = False,
    observer: Callable[[str, float, str], None] | None = None,
    blind: bool = False,
) -> Node:
    """Read the configuration, find out who this node is, and make the clients.

    `listen`: hear VRRP adverts. `blind`: go on with what the kernel knows when EC2 and metadata do not answer (for
    status, which must tell what it can), and with files that others could have written. Raises AwshaError (exit code 78
    for the configuration).
    """
    if not blind:
        refuse_unsafe()
        load.refuse_unsafe(config)
    policy = discovery.read(config).policy
    metadata = Metadata()
    local = network_interfaces()
    try:
        ec2 = Ec2(region_of(policy, metadata), observer=observer)
        policy = _volumes_by_tags(policy, ec2)
        places = _places(policy, local, ec2, metadata)
    except AwshaError as error:
        if not blind:
            raise
        ec2 = Ec2(policy.region or "unknown", observer=observer)
        places = {g.name: _blind_place(policy, local, g, error.message) for g in policy.groups}
    return Node(policy, places, ec2, metadata, Hearing(policy, listen=listen))


def network_interfaces() -> tuple[LocalInterface, ...]:
    """This host's interfaces with their MAC and IPv4 addresses. Raises AwshaError when netlink does not answer."""
    found = []
    for _, name in socket.if_nameindex():
        addresses, mac = network.addresses(name), network.mac(name)
        if isinstance(addresses, Unknown):
            raise AwshaError(f"the addresses of {name} can't be read: {addresses.reason}", hint="run awsha as root")
        found.append(LocalInterface(name, mac if isinstance(mac, str) else "", addresses))
    return tuple(found)


def _places(
    policy: Policy, local: tuple[LocalInterface, ...], ec2: Ec2, metadata: Metadata, *, keep: bool = True
) -> dict[str, Place]:
    """Who this node is, for each group; kept for this boot, so that a restart needs neither EC2 nor metadata."""
    file = run_dir() / "identity.json"
    key = _key(policy, local)
    kept = _kept(file, key, (group.name for group in policy.groups)) if keep else None
    if kept is not None:
        return kept
    places: dict[str, Place] = {}
    for group in policy.groups:
        identity = identify(policy, local, ec2, metadata, group)
        mac = next(face.mac for face in local if face.name == identity.this.interface)
        places[group.name] = Place(identity.this, mac, "; ".join(identity.unresolved.values()))
    if os.geteuid() == 0 and not any(place.unresolved for place in places.values()):
        with contextlib.suppress(OSError):  # the next start asks again
            private_dir(run_dir())
            write_atomically(file, json.dumps({"key": key, "places": {n: asdict(p) for n, p in places.items()}}))
    return places


def _remembering(place: Place, before: Self) -> Place:
    """A place that still has the instances of peers for which there is no other: one that has ended may hold a volume
    for a while, and as a peer's it is detached, as a stranger's it is not."""
    known = set(place.me.peers.values())
    kept = {instance: name for instance, name in before.peers.items() if name not in known}
    return replace(place, me=replace(place.me, peers={**place.me.peers, **kept}))


def _key(policy: Policy, local: tuple[LocalInterface, ...]) -> list[str]:
    """What the kept identity depends on."""
    node, face = this_node(policy, local)
    nodes = [f"{n.name}={n.address}={n.instance_id}" for n in policy.nodes]
    groups = [f"{g.name}={g.interface}" for g in policy.groups]
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    return [boot_id(), node.name, face.name, face.mac, endpoint, *nodes, *groups]


def _kept(file: Path, key: list[str], groups: Iterable[str]) -> dict[str, Place] | None:
    """The identity that was kept, of this boot and configuration; None when there is none, or it is broken."""
    try:
        kept: Any = json.loads(file.read_text(encoding="utf-8"))
        if kept["key"] != key:
            return None
        places = {str(n): Place(Self(**p["me"]), str(p["mac"])) for n, p in kept["places"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return places if places.keys() == set(groups) else None


def _blind_place(policy: Policy, local: tuple[LocalInterface, ...], group: Group, why: str) -> Place:
    """What the kernel alone tells of this node."""
    node, face = this_node(policy, local)
    peers = {n.instance_id or n.name: n.name for n in policy.nodes if n.name != node.name}
    me = Self(node.name, node.instance_id or "unknown", "unknown", group.interface or face.name, peers)
    return Place(me, face.mac, why)


def _volumes_by_tags(policy: Policy, ec2: Ec2) -> Policy:
    """Volumes that are named by tags, resolved to ids once."""

    def resolved(volume: Volume) -> Volume:
        return volume if volume.id else replace(volume, id=ec2.resolve_volume(dict(volume.tags)))

    groups = tuple(replace(g, volumes=tuple(resolved(v) for v in g.volumes)) for g in policy.groups)
    return replace(policy, groups=groups)
