"""What a region holds: its things, its clock's agenda, and the views that lag behind. The rules change it."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from awsha.lab.faults import FaultBook
from awsha.lab.latency import Latency, Range
from awsha.lab.records import (
    ADDRESSES_PER_INTERFACE,
    Attachment,
    DeviceAttached,
    DeviceDetached,
    Ec2Error,
    Effect,
    Instance,
    Interface,
    Params,
    Subnet,
    Volume,
    address_problem,
)

Holds = Callable[[str, str], bool]
EPOCH = 1_767_225_600.0  # 2026-01-01: what a clock that starts at 0 shows in timestamps


class World:
    """The state of one region. Times are seconds on the caller's clock; `epoch` is its zero, in Unix time."""

    def __init__(self, latency: Latency, seed: int | random.Random, zone: str, subnet: str, epoch: float) -> None:
        """`seed`: of its chance, or the chance itself."""
        self.latency = latency
        self.zone = zone
        self.name = zone[:-1]
        self.epoch = epoch
        self.now = 0.0
        self.random = seed if isinstance(seed, random.Random) else random.Random(seed)  # noqa: S311 - repeatable
        self.subnets = {zone: Subnet("subnet-0a1b2c3d4e5f60003", zone, subnet)}
        self.instances: dict[str, Instance] = {}
        self.interfaces: dict[str, Interface] = {}
        self.volumes: dict[str, Volume] = {}
        self.owners: dict[str, str] = {}  # address -> ENI, by the API's truth
        self.dataplane: dict[str, str | None] = {}  # address -> ENI, as the VPC delivers now
        self.dataplane_due: dict[str, float] = {}  # when the last move of an address takes place
        self.addresses_per_interface = ADDRESSES_PER_INTERFACE
        self.faults = FaultBook()
        self.effects: list[Effect] = []
        self.holds: Holds = _nobody_holds
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    # Time

    def draw(self, between: Range) -> float:
        """A delay from this range, in seconds."""
        low, high = between
        return low if low == high else low + (high - low) * self.random.random()

    def at(self, due: float, act: Callable[..., None], *args: Any) -> None:  # noqa: ANN401 - what `act` takes
        """Put on the agenda: `act(due, *args)`, in the order of time, then of this call."""
        self._count += 1
        heapq.heappush(self._agenda, (due, self._count, act, args))

    def next_due(self) -> float | None:
        """When `advance` has something to do next; None: nothing is under way."""
        return self._agenda[0][0] if self._agenda else None

    def run_agenda(self) -> None:
        """Do what is due."""
        agenda = self._agenda
        while agenda and agenda[0][0] <= self.now:
            due, _, act, args = heapq.heappop(agenda)
            act(due, *args)

    def stamp(self, at: float) -> datetime:
        """A time on the caller's clock as replies show it (whole seconds, as EC2's)."""
        return _at_second(int(self.epoch + at))

    # Views

    def _flickers(self) -> bool:
        chance = self.latency.backward
        return chance > 0 and self.random.random() < chance

    def show_volume(self, volume: Volume, at: float) -> None:
        """The volume changed: Describe shows it after its lag."""
        visible_at = at + self.draw(self.latency.lag_volumes)
        volume.view.add(volume.state(), visible_at, flicker=self._flickers())

    def show_instance(self, instance: Instance, at: float, delay: float = 0.0) -> None:
        """The instance, its interface or its devices changed: Describe shows it after its lag."""
        visible_at = at + delay + self.draw(self.latency.lag_instances)
        instance.view.add(instance.snapshot(), visible_at, flicker=self._flickers())

    def show_interface(self, interface: Interface, at: float, delay: float = 0.0) -> None:
        """The interface changed: Describe shows it after its lag."""
        visible_at = at + delay + self.draw(self.latency.lag_interfaces)
        interface.view.add(interface.state(), visible_at, flicker=self._flickers())

    def show_attachment(self, attachment: Attachment, at: float) -> None:
        """Both views of an attachment, each with its own lag."""
        self.show_volume(self.volumes[attachment.volume_id], at)
        self.show_instance(self.instances[attachment.instance_id], at)

    # Devices

    def give_device(self, attachment: Attachment) -> None:
        """The guest gets the device, if there is a guest and it has it not yet."""
        instance = self.instances[attachment.instance_id]
        if not attachment.present and instance.guest_runs:
            attachment.present = True
            self.effects.append(DeviceAttached(attachment.instance_id, attachment.volume_id, attachment.device))

    def take_device(self, attachment: Attachment, *, forced: bool) -> None:
        """The device leaves the guest, if it has it."""
        if attachment.present:
            attachment.present = False
            self.effects.append(DeviceDetached(attachment.instance_id, attachment.volume_id, forced))

    def drop_attachment(self, at: float, attachment: Attachment) -> None:
        """The attachment is gone; without another one the volume is available."""
        attachment.state = "gone"
        volume, instance = self.volumes[attachment.volume_id], self.instances[attachment.instance_id]
        volume.attachments.remove(attachment)
        instance.attachments.remove(attachment)
        self.show_attachment(attachment, at)

    # Looking up, with EC2's refusals

    def volume(self, volume_id: str) -> Volume:
        """The volume; InvalidVolume.NotFound, or InvalidParameterValue when it is no volume id at all."""
        volume = self.volumes.get(volume_id)
        if volume is None:
            if not volume_id.startswith("vol-"):
                raise Ec2Error(
                    "InvalidParameterValue",
                    f"Value ({volume_id}) for parameter volumeId is invalid. Expected: 'vol-...'.",
                )
            raise Ec2Error("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")
        return volume

    def instance(self, instance_id: str) -> Instance:
        """The instance; InvalidInstanceID.NotFound or .Malformed."""
        instance = self.instances.get(instance_id)
        if instance is None:
            if not instance_id.startswith("i-"):
                raise Ec2Error("InvalidInstanceID.Malformed", f'Invalid id: "{instance_id}" (expecting "i-...")')
            raise Ec2Error("InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist")
        return instance

    def interface(self, eni_id: str) -> Interface:
        """The interface; InvalidNetworkInterfaceID.NotFound, InvalidNetworkInterfaceId.Malformed."""
        interface = self.interfaces.get(eni_id)
        if interface is None:
            if not eni_id.startswith("eni-"):
                raise Ec2Error("InvalidNetworkInterfaceId.Malformed", f'Invalid id: "{eni_id}" (expecting "eni-...")')
            raise Ec2Error("InvalidNetworkInterfaceID.NotFound", f"The networkInterface ID '{eni_id}' does not exist")
        return interface

    # Whether it is a possible world

    def check_invariants(self) -> None:
        """Raise AssertionError when the region is in a state that EC2 cannot be in."""
        for volume in self.volumes.values():
            shared = len(volume.attachments) > 1
            _must(volume.multi_attach or not shared, f"{volume.id} is attached more than once")
            devices = [a for a in volume.attachments if a.present]
            _must(volume.multi_attach or len(devices) <= 1, f"{volume.id} is a device in more than one guest")
            for attachment in volume.attachments:
                holder = self.instances[attachment.instance_id]
                _must(attachment in holder.attachments, f"{holder.id} does not know its {volume.id}")
                _must(attachment.volume_id == volume.id, f"{volume.id} has another volume's attachment")
        for instance in self.instances.values():
            self._check_instance(instance)
        owned = {i.primary: i.id for i in self.interfaces.values()}
        for interface in self.interfaces.values():
            _must(len(interface.secondaries) < self.addresses_per_interface, f"{interface.id} has too many addresses")
            for address in interface.secondaries:
                _must(address not in owned, f"{address} is on two interfaces")
                _must(not address_problem(address, interface.subnet.cidr), f"{address} is not in its subnet")
                owned[address] = interface.id
        _must(owned == self.owners, "the index of addresses is wrong")

    def _check_instance(self, instance: Instance) -> None:
        names = [a.device for a in instance.attachments]
        _must(len(names) == len(set(names)), f"{instance.id} has one device name twice")
        for attachment in instance.attachments:
            _must(attachment in self.volumes[attachment.volume_id].attachments, f"{instance.id} has a ghost")
            known = attachment.state in ("attaching", "attached", "detaching", "busy")
            _must(known, f"{attachment.volume_id} is {attachment.state}")
            off = instance.state in ("stopped", "terminated")
            _must(not (off and attachment.present), f"{instance.id} is off and has {attachment.volume_id}")
        _must(instance.state != "terminated" or not names, f"{instance.id} is terminated and holds a volume")


@lru_cache(maxsize=256)
def _at_second(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def dry_run(params: Params) -> None:
    """Raise DryRunOperation when the call only asks whether it may."""
    if params.get("DryRun"):
        raise Ec2Error("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")


def required(params: Params, *names: str) -> None:
    """Raise MissingParameter for the first of these that is not given."""
    for name in names:
        if not params.get(name):
            raise Ec2Error("MissingParameter", f"The request must contain the parameter {name[0].lower()}{name[1:]}")


def _nobody_holds(_instance_id: str, _volume_id: str) -> bool:
    return False


def _must(good: bool, what: str) -> None:
    if not good:
        raise AssertionError(what)
