"""Reads facts, one kind at a time, and never guesses: what can't be read is Unknown."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from awsha.aws.ec2 import Ec2
from awsha.aws.metadata import Metadata
from awsha.core.errors import AwshaError
from awsha.core.model import ApplicationState, CloudFacts, Device, DiskFacts, Self, Unknown
from awsha.core.policy import Group
from awsha.core.steps import Scope
from awsha.host import application, blockdev, mounts, network

CHECK_S = 5.0  # an application's check, at most
BLKID_S = 5.0
ANSWER_S = 5.0  # a read of one block; a disk that takes longer is no ground to start on


@dataclass
class Observer:
    """The eyes of one group."""

    group: Group
    me: Self
    ec2: Ec2
    metadata: Metadata
    mac: str = ""
    _signatures: dict[tuple[str, str], tuple[str, bool]] = field(default_factory=dict)  # by (path, number)
    _names: dict[str, str] = field(default_factory=dict)  # volume id -> device name by EC2; only Xen types need it

    def read(self, scope: Scope) -> object:
        """Read one kind of facts (CloudFacts, DiskFacts by volume, addresses, application state). Never raises."""
        try:
            return self._read(scope)
        except Exception as error:  # noqa: BLE001  a defect in one read must not end the loop: it is Unknown, and shown
            return self._unknown(scope, Unknown(f"{type(error).__name__}: {error}"))

    def _unknown(self, scope: Scope, why: Unknown) -> object:
        if scope is Scope.CLOUD:
            return CloudFacts(why, why, why)
        if scope is Scope.DISKS:
            return {v.id or "": DiskFacts(why, why) for v in self.group.volumes}
        return why

    def _read(self, scope: Scope) -> object:
        if scope is Scope.CLOUD:
            return self.cloud()
        if scope is Scope.DISKS:
            return self.disks()
        if scope is Scope.ADDRESSES:
            return self.addresses()
        return self.application()

    def cloud(self) -> CloudFacts:
        """EC2's volumes and instances, and instance metadata, side by side."""
        ids = [v.id for v in self.group.volumes if v.id]
        facts = self.ec2.look(ids, [self.me.instance_id, *self.me.peers], addresses=self._metadata_addresses)
        for volume in facts.volumes.values() if not isinstance(facts.volumes, Unknown) else ():
            for attachment in volume.attachments:
                if attachment.instance_id == self.me.instance_id:
                    self.named(volume.id, attachment.device)
        return facts

    def _metadata_addresses(self) -> frozenset[str]:
        return self.metadata.local_ipv4s(self.mac)

    def named(self, volume_id: str, device: str) -> None:
        """EC2 knows this node's attachment of a volume under this device name."""
        self._names[volume_id] = device

    def attached(self, volume_id: str, device: str) -> None:
        """A volume comes (back): what was read of a device before says nothing about it."""
        self._signatures = {}
        self.named(volume_id, device)

    def name_of(self, volume_id: str) -> str:
        """EC2's device name for this node's attachment; empty when it is not known."""
        return self._names.get(volume_id, "")

    def disks(self) -> dict[str, DiskFacts]:
        """Each volume: its device by serial, its file system by signature, its mounts by device number."""
        found, table = blockdev.scan(), mounts.read()
        facts: dict[str, DiskFacts] = {}
        for volume in self.group.volumes:
            vid = volume.id or ""
            device = found if isinstance(found, Unknown) else found.device(vid, self.name_of(vid))
            if isinstance(device, Device):
                device = Device(device.path, device.number, *self._signature(device))
            facts[vid] = mounts.disk_facts(volume, device, table, found)
        return facts

    def answering(self) -> dict[str, DiskFacts]:
        """The same, with each device asked whether it answers: Unknown when it does not."""
        return {
            vid: replace(disk, device=blockdev.answering(disk.device, ANSWER_S))
            if isinstance(disk.device, Device)
            else disk
            for vid, disk in self.disks().items()
        }

    def _signature(self, device: Device) -> tuple[str | Unknown | None, bool]:
        """What is on a device that appears, and whether it was cut off in use; read again while there is nothing."""
        key = (device.path, device.number)
        if key not in self._signatures:
            found = blockdev.filesystem(device.path, BLKID_S)
            if not isinstance(found, str):
                return found, False
            read = (found, blockdev.unclean(device.path, found, BLKID_S))
            self._signatures = {k: v for k, v in self._signatures.items() if k[0] != device.path} | {key: read}
        return self._signatures[key]

    def addresses(self) -> frozenset[str] | Unknown:
        """Which of the group's VIPs are on the interface."""
        found = network.addresses(self.me.interface)
        return found if isinstance(found, Unknown) else found & frozenset(self.group.vips)

    def application(self) -> ApplicationState | Unknown | None:
        """What the application's unit or check says."""
        if self.group.application is None:
            return None
        try:
            return application.state(self.group.application, CHECK_S)
        except AwshaError as error:
            return Unknown(error.message)
