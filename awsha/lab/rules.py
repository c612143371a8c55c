"""One EC2 region with one VPC as a pure state machine: calls in, replies out, effects on the machine in between.

No I/O, no clock, no threads. Every method takes `now`, in seconds on any clock that does not go back; what is due by
then must have been done by `advance` first, for only `advance` can ask who still holds a volume. The rules are those
that AWS documents and users report (EC2 API reference, EBS CSI driver's threads).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from random import Random
from typing import Any

from awsha.lab import addresses, describe, instances, metadata_tree, tags, volumes
from awsha.lab.faults import CLEAR, METADATA, TRANSPORT, Buckets, Fault, FaultKind, Transport, throttled
from awsha.lab.latency import Latency
from awsha.lab.records import (
    AddressMoved,
    DeviceAttached,
    DeviceDetached,
    Ec2Error,
    Effect,
    Instance,
    InstanceStarted,
    InstanceStopped,
    InstanceTerminated,
    Interface,
    Params,
    Reply,
    Subnet,
    Tags,
    Volume,
)
from awsha.lab.world import EPOCH, Holds, World

__all__ = [
    "RULES",
    "AddressMoved",
    "DeviceAttached",
    "DeviceDetached",
    "Ec2Error",
    "Effect",
    "Fault",
    "FaultKind",
    "InstanceStarted",
    "InstanceStopped",
    "InstanceTerminated",
    "Latency",
    "Region",
    "Transport",
]

_DESCRIBE: dict[str, Callable[[World, Params, float], Reply]] = {
    "DescribeVolumes": describe.volumes,
    "DescribeNetworkInterfaces": describe.interfaces,
    "DescribeInstances": describe.instances,
    "DescribeInstanceStatus": describe.instance_status,
    "DescribeTags": tags.describe,
}
_CHANGE: dict[str, Callable[[World, Params, float], Reply]] = {
    "AssignPrivateIpAddresses": addresses.assign,
    "UnassignPrivateIpAddresses": addresses.unassign,
    "StopInstances": instances.stop,
    "StartInstances": instances.start,
    "TerminateInstances": instances.terminate,
    "RebootInstances": instances.reboot,
    "CreateTags": tags.create,
    "DeleteTags": tags.delete,
}
_ATTACH: dict[str, Callable[[World, Params, float, list[Fault]], Reply]] = {
    "AttachVolume": volumes.attach,
    "DetachVolume": volumes.detach,
}
RULES = frozenset({*_DESCRIBE, *_CHANGE, *_ATTACH})
_IN_EC2 = frozenset(FaultKind) - TRANSPORT


class Region:
    """EC2 as awsha meets it. The same seed, calls and times give the same replies and effects."""

    def __init__(
        self,
        latency: Latency,
        seed: int | Random = 0,
        zone: str = "eu-west-1a",
        subnet: str = "10.0.0.0/24",
        *,
        epoch: float = EPOCH,
        throttling: bool = True,
    ) -> None:
        """`seed`: of its chance, or the caller's own chance. `epoch`: Unix time at 0 on the caller's clock.

        Without `throttling` the token buckets never run dry.
        """
        self.world = World(latency, seed, zone, subnet, epoch)
        self._buckets = Buckets() if throttling else None

    @property
    def name(self) -> str:
        """The region's name, from its zone."""
        return self.world.name

    @property
    def latency(self) -> Latency:
        """The delays; assign another set at any time, what is under way keeps the old ones."""
        return self.world.latency

    @latency.setter
    def latency(self, latency: Latency) -> None:
        self.world.latency = latency

    # What there is

    def add_instance(
        self, name: str, instance_id: str, eni_id: str, mac: str, primary_ip: str, *, zone: str | None = None
    ) -> None:
        """A running instance with one interface. In another zone than the region's it has a /24 of its own there."""
        world = self.world
        if instance_id in world.instances or eni_id in world.interfaces or primary_ip in world.owners:
            raise ValueError(f"{instance_id}, {eni_id} or {primary_ip} is there already")
        zone = zone or world.zone
        if zone not in world.subnets:
            cidr = str(ipaddress.IPv4Network(f"{primary_ip}/24", strict=False))
            world.subnets[zone] = Subnet(f"subnet-0a1b2c3d4e5f6000{3 + len(world.subnets)}", zone, cidr)
        subnet = world.subnets[zone]
        interface = Interface(eni_id, instance_id, mac, primary_ip, subnet, world.now)
        instance = Instance(instance_id, name, zone, subnet, world.now, interface, tags={"Name": name})
        world.interfaces[eni_id] = interface
        world.instances[instance_id] = instance
        world.owners[primary_ip] = world.dataplane[primary_ip] = eni_id

    def add_volume(
        self,
        volume_id: str,
        size_gib: int,
        zone: str | None = None,
        tags: Tags | None = None,
        *,
        multi_attach: bool = False,
        volume_type: str = "gp3",
    ) -> None:
        """An available volume. Multi-Attach is for io1 and io2 only (EBS user guide)."""
        world = self.world
        if volume_id in world.volumes:
            raise ValueError(f"{volume_id} is there already")
        if multi_attach and volume_type not in ("io1", "io2"):
            raise ValueError("Multi-Attach needs volume_type io1 or io2")
        world.volumes[volume_id] = Volume(
            volume_id, size_gib, zone or world.zone, world.now, volume_type, multi_attach, dict(tags or {})
        )

    def owns(self, resource_id: str) -> bool:
        """Whether a resource is one of this region's, so that its tags are kept here."""
        world = self.world
        return resource_id in world.volumes or resource_id in world.instances or resource_id in world.interfaces

    def instance_at(self, address: str) -> str | None:
        """The instance that has this address by the API's truth: who a caller is, by its source address."""
        interface = self.world.interfaces.get(self.world.owners.get(address, ""))
        return interface.instance_id if interface else None

    # Calls

    def call(self, action: str, params: Params, now: float, caller: str | None = None) -> Reply:
        """One API call of `caller` (an instance id), shaped as boto3 users see it; raises Ec2Error.

        A reply shares its items with the next one: read it, do not change it.
        """
        world = self.world
        now = self._time(now)
        faults: list[Fault] = []
        if world.faults:
            faults = world.faults.take(_IN_EC2, action, caller, params)
            if faults:
                _refuse(faults, after=False)
        if self._buckets is not None:
            self._buckets.take(action, params, now)
        if action in _DESCRIBE:
            stale = sum(fault.seconds for fault in faults) if faults else 0.0
            reply = _DESCRIBE[action](world, params, now - stale)
        elif action in _CHANGE:
            reply = _CHANGE[action](world, params, now)
        elif action in _ATTACH:
            reply = _ATTACH[action](world, params, now, faults)
        else:
            raise Ec2Error("InvalidAction", f"The action {action} is not valid for this web service.")
        if faults:
            _refuse(faults, after=True)
        return reply

    def admit(self, action: str, params: Params, now: float, caller: str | None = None) -> None:
        """Throttling and faults alone, for an action that somebody else answers; raises Ec2Error."""
        faults = self.world.faults.take(_IN_EC2, action, caller, params) if self.world.faults else []
        _refuse(faults, after=False)
        if self._buckets is not None:
            self._buckets.take(action, params, self._time(now))
        _refuse(faults, after=True)

    def metadata(self, instance_id: str, path: str, now: float) -> str | None:
        """The text at a path below /latest/; None: no such path or no guest. Ec2Error where a fault says so."""
        world = self.world
        instance = world.instances.get(instance_id)
        if instance is None:
            return None
        at = self._time(now)
        if world.faults:
            faults = world.faults.take(_IN_EC2, METADATA, instance_id, {"Path": path})
            for after in (False, True):
                _refuse(faults, after=after)
            at -= sum(fault.seconds for fault in faults)
        return metadata_tree.read(world, instance, path, at)

    # Time

    def _time(self, now: float) -> float:
        world = self.world
        world.now = max(world.now, now)
        return world.now

    def advance(self, now: float, holds: Holds) -> list[Effect]:
        """Do what is due by `now` and return its effects, in order.

        `holds(instance_id, volume_id)` says whether the guest still has the volume mounted; it is asked again every
        `Latency.busy_poll_s` while a detach is `busy`. It must not call this region.
        """
        world = self.world
        self._time(now)
        world.holds = holds
        world.run_agenda()
        effects, world.effects = world.effects, []
        return effects

    def next_due(self) -> float | None:
        """When `advance` has something to do next; None: nothing is under way."""
        return self.world.next_due()

    def power_off(self, instance_id: str, now: float) -> None:
        """Host failure: the guest is dead, the API still says `running`, and nothing lets go of a volume there."""
        instances.power_off(self.world, self.world.instance(instance_id), self._time(now))

    def power_on(self, instance_id: str, now: float) -> None:
        """The host is back: InstanceStarted and DeviceAttached follow; a stopped instance is started."""
        instances.power_on(self.world, self.world.instance(instance_id), self._time(now))

    # Faults

    def add_fault(self, fault: Fault) -> None:
        """One more fault, to strike from the next call on."""
        action = fault.action.rpartition(":")[2]
        if action not in ("*", METADATA) and not action[:1].isupper():
            raise ValueError(f"{fault.action} is no action")
        self.world.faults.add(fault)

    def clear_faults(self) -> None:
        """No faults any more, and every guest that was stuck busy can let go; stuck `attaching` stays, as in EC2."""
        self.world.faults.clear()
        for volume in self.world.volumes.values():
            for attachment in volume.attachments:
                if attachment.state in ("detaching", "busy"):
                    attachment.stuck = False

    def faults(self) -> list[tuple[Fault, int | None]]:
        """Each fault that is left, with how often it will still strike (None: until cleared)."""
        return self.world.faults.left()

    def transport(self, action: str, now: float, caller: str | None = None, params: Params | None = None) -> Transport:
        """What the wire does to this request: its latency and the faults; ask once a request, before `call`."""
        world = self.world
        self._time(now)
        delay_s = 0.0 if action == METADATA else world.draw(world.latency.call)
        if not world.faults:
            return Transport(delay_s) if delay_s else CLEAR
        struck = world.faults.take(TRANSPORT, action, caller, params or {})
        kinds = {fault.kind for fault in struck}
        return Transport(
            delay_s + sum(fault.seconds for fault in struck if fault.kind is FaultKind.DELAY),
            FaultKind.LOST_REPLY in kinds,
            FaultKind.BLACK_HOLE in kinds,
        )

    # Truth

    def snapshot(self) -> dict[str, Any]:
        """What is true now, whatever the views say: volumes, addresses (instance ids), interfaces, instances by id."""
        world = self.world
        holders = {eni: interface.instance_id for eni, interface in world.interfaces.items()}
        return {
            "volumes": {volume.id: _volume_truth(volume) for volume in world.volumes.values()},
            "addresses": {address: holders[eni] for address, eni in world.owners.items()},
            "dataplane": dict(world.dataplane),
            "interfaces": {
                i.id: {"instance": i.instance_id, "addresses": [i.primary, *i.secondaries]}
                for i in world.interfaces.values()
            },
            "instances": {i.id: {"name": i.name, "state": i.state, "dead": i.dead} for i in world.instances.values()},
        }

    def check_invariants(self) -> None:
        """Raise AssertionError when the region is in a state that EC2 cannot be in."""
        self.world.check_invariants()


def _refuse(faults: list[Fault], *, after: bool) -> None:
    for fault in faults:
        if fault.kind is FaultKind.THROTTLE and not after:
            raise throttled()
        if fault.kind is FaultKind.ERROR and fault.after is after:
            raise Ec2Error(fault.code, "This error was asked for (a fault of the lab).")


def _volume_truth(volume: Volume) -> dict[str, Any]:
    holder = volume.attachments[0] if volume.attachments else None
    return {
        "state": "in-use" if holder else "available",
        "attached_to": holder.instance_id if holder else None,
        "attachment": holder.state if holder else None,
        "attachments": [
            {"instance": a.instance_id, "device": a.device, "state": a.state, "present": a.present}
            for a in volume.attachments
        ],
    }
