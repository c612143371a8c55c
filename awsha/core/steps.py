"""What can be done. A step is a frozen record: the executor has no choice left to make.

`resource`: two steps with the same resource never run at the same time.
`needs`:    the kinds of facts that must be fresh for the step to be started.
`touches`:  the kinds of facts that it makes old.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from awsha.core.model import Holder, Hook, Mount


class Scope(StrEnum):
    """Kinds of facts that are read apart from each other, because they cost differently."""

    CLOUD = "cloud"  # EC2: two calls, side by side
    DISKS = "disks"  # sysfs, mountinfo
    ADDRESSES = "addresses"  # netlink
    APPLICATION = "application"  # systemctl or the check program


SCOPES = tuple(Scope)
_CLOUD = frozenset({Scope.CLOUD})
_DISKS = frozenset({Scope.DISKS})
_DISKS_APPLICATION = frozenset({Scope.DISKS, Scope.APPLICATION})
_CLOUD_DISKS = frozenset({Scope.CLOUD, Scope.DISKS})
_APPLICATION = frozenset({Scope.APPLICATION})
_ADDRESSES = frozenset({Scope.ADDRESSES})


@dataclass(frozen=True, slots=True)
class Step:
    """Base of all steps."""

    @property
    def resource(self) -> str:
        """What the step works on."""
        raise NotImplementedError

    @property
    def key(self) -> tuple[str, str]:
        """What it is remembered by once it has ended: its kind, and what it worked on."""
        return type(self).__name__, self.resource

    @property
    def needs(self) -> frozenset[Scope]:
        """Facts that must be fresh before it may start."""
        return _CLOUD

    @property
    def touches(self) -> frozenset[Scope]:
        """Facts that are to be read again after it."""
        return _CLOUD


@dataclass(frozen=True, slots=True)
class VolumeStep(Step):
    """A step on one volume."""

    volume_id: str

    @property
    def resource(self) -> str:
        """One step a volume at a time."""
        return self.volume_id

    @property
    def needs_disk(self) -> bool:
        """Whether its guard must see the volume's device and mounts as they are now."""
        return Scope.DISKS in self.needs


@dataclass(frozen=True, slots=True)
class TagStep(VolumeStep):
    """A step on the tag of a volume by which the nodes tell each other of a release."""

    @property
    def resource(self) -> str:
        """Beside the steps of the release itself, never in front of them."""
        return f"tag:{self.volume_id}"


@dataclass(frozen=True, slots=True)
class TagReleasing(TagStep):
    """Tell the peer, through the volume that it polls anyway, that a release is under way, and why."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class TagServing(TagStep):
    """Answer the peer that switched over, which watches the volume: this node serves."""


@dataclass(frozen=True, slots=True)
class ClearReleasing(TagStep):
    """Take this node's own releasing tag away again: it holds the volume."""


@dataclass(frozen=True, slots=True)
class Attach(VolumeStep):
    """AttachVolume to this instance, under an EC2 device name that is free."""

    device: str


@dataclass(frozen=True, slots=True)
class Detach(VolumeStep):
    """DetachVolume from one instance. `force` neither flushes nor waits for the holder."""

    instance_id: str
    force: bool = False

    @property
    def needs(self) -> frozenset[Scope]:
        """Detaching must know that nothing is mounted."""
        return _CLOUD_DISKS

    @property
    def touches(self) -> frozenset[Scope]:
        """The device goes away too."""
        return _CLOUD_DISKS


@dataclass(frozen=True, slots=True)
class StopInstance(Step):
    """StopInstances with Force (and SkipOsShutdown where the API takes it) of a silent holder."""

    instance_id: str
    node: str

    @property
    def resource(self) -> str:
        """The instance."""
        return self.instance_id


@dataclass(frozen=True, slots=True)
class Check(VolumeStep):
    """fsck of an unmounted device."""

    device: str
    number: str
    fstype: str

    @property
    def needs(self) -> frozenset[Scope]:
        """Sole attachment and device must be known."""
        return _CLOUD_DISKS

    @property
    def touches(self) -> frozenset[Scope]:
        """Clears the mark that asked for it."""
        return _DISKS


@dataclass(frozen=True, slots=True)
class MountVolume(VolumeStep):
    """Mount the volume's device, read-write, at its configured place."""

    device: str
    number: str
    target: str
    fstype: str
    options: str

    @property
    def needs(self) -> frozenset[Scope]:
        """Sole attachment and device must be known."""
        return _CLOUD_DISKS

    @property
    def touches(self) -> frozenset[Scope]:
        """Mounts."""
        return _DISKS


@dataclass(frozen=True, slots=True)
class Unmount(VolumeStep):
    """Unmount everything of one volume, innermost first. `lazy` only when its device is lost."""

    mounts: tuple[Mount, ...]
    lazy: bool = False

    @property
    def needs(self) -> frozenset[Scope]:
        """Mounts, and an application that is down: one that is being started would come up on the bare mount point."""
        return _DISKS_APPLICATION

    @property
    def touches(self) -> frozenset[Scope]:
        """Mounts."""
        return _DISKS


@dataclass(frozen=True, slots=True)
class ListHolders(VolumeStep):
    """Find the processes that keep the volume's file system busy. Looks only."""

    mounts: tuple[Mount, ...]

    @property
    def needs(self) -> frozenset[Scope]:
        """Mounts."""
        return _DISKS

    @property
    def touches(self) -> frozenset[Scope]:
        """Nothing."""
        return frozenset()


@dataclass(frozen=True, slots=True)
class Signal(VolumeStep):
    """Send a signal to processes that were found to hold the volume's file system, and still do."""

    holders: tuple[Holder, ...]
    mounts: tuple[Mount, ...]
    kill: bool

    @property
    def needs(self) -> frozenset[Scope]:
        """Mounts."""
        return _DISKS

    @property
    def touches(self) -> frozenset[Scope]:
        """Nothing that is read by scope: the holders are listed again."""
        return frozenset()


@dataclass(frozen=True, slots=True)
class AddressStep(Step):
    """A step on the group's VIPs; all of an ENI in one call."""

    addresses: tuple[str, ...]

    @property
    def resource(self) -> str:
        """One EC2 address call at a time for a group."""
        return "addresses"


@dataclass(frozen=True, slots=True)
class AssignAddresses(AddressStep):
    """AssignPrivateIpAddresses with AllowReassignment to this node's ENI."""


@dataclass(frozen=True, slots=True)
class UnassignAddresses(AddressStep):
    """UnassignPrivateIpAddresses from this node's ENI. Never touches an address that a peer has by now."""


@dataclass(frozen=True, slots=True)
class KernelAddresses(AddressStep):
    """Put VIPs back on the interface (`present`), or take left-over ones off it."""

    present: bool

    @property
    def resource(self) -> str:
        """Beside the EC2 side of the same addresses."""
        return "interface"

    @property
    def needs(self) -> frozenset[Scope]:
        """Netlink."""
        return _ADDRESSES

    @property
    def touches(self) -> frozenset[Scope]:
        """Netlink."""
        return _ADDRESSES


@dataclass(frozen=True, slots=True)
class ApplicationStep(Step):
    """A step on the application."""

    @property
    def resource(self) -> str:
        """The application."""
        return "application"

    @property
    def needs(self) -> frozenset[Scope]:
        """Its state."""
        return _APPLICATION

    @property
    def touches(self) -> frozenset[Scope]:
        """Its state."""
        return _APPLICATION


@dataclass(frozen=True, slots=True)
class StartApplication(ApplicationStep):
    """Start it: file systems and addresses are there."""

    @property
    def needs(self) -> frozenset[Scope]:
        """What it stands on must be known to be there."""
        return frozenset({Scope.APPLICATION, Scope.DISKS, Scope.ADDRESSES})


@dataclass(frozen=True, slots=True)
class StopApplication(ApplicationStep):
    """Stop it."""


@dataclass(frozen=True, slots=True)
class SetMark(Step):
    """Persist (`present`) or remove a mark of this node, such as `fenced`."""

    mark: str
    present: bool = True

    @property
    def resource(self) -> str:
        """The mark."""
        return f"mark:{self.mark}"

    @property
    def needs(self) -> frozenset[Scope]:
        """Marking must see current mounts, and taking a mark away also who has the volume now."""
        return _DISKS if self.present else _CLOUD_DISKS

    @property
    def touches(self) -> frozenset[Scope]:
        """Marks are read with the disks."""
        return _DISKS


@dataclass(frozen=True, slots=True)
class RunHooks(Step):
    """Run the operator's programs of one point, one after the other."""

    hook: Hook

    @property
    def resource(self) -> str:
        """One point at a time: those of a release never overtake those of the acquisition before it."""
        return "hooks"

    @property
    def key(self) -> tuple[str, str]:
        """Each point by itself."""
        return f"RunHooks {self.hook}", self.resource

    @property
    def needs(self) -> frozenset[Scope]:
        """What these programs are told to be there must be known to be there; the others wait for nothing."""
        return _DISKS if self.hook in (Hook.AFTER_MOUNT, Hook.AFTER_ACQUIRE) else frozenset()

    @property
    def touches(self) -> frozenset[Scope]:
        """Whatever they do: mounts are what decisions depend on most."""
        return _DISKS


@dataclass(frozen=True, slots=True)
class NoteHooks(SetMark):
    """Remember, or forget, that the hooks of a point have run. No fact is needed for that, and none is old after it."""

    @property
    def needs(self) -> frozenset[Scope]:
        """Nothing."""
        return frozenset()

    @property
    def touches(self) -> frozenset[Scope]:
        """Nothing."""
        return frozenset()


class Failure(StrEnum):
    """Kinds of failure that a decision depends on. Everything else is `other`."""

    BUSY = "busy"  # unmount: something holds the file system
    REFUSED = "refused"  # the guard said no
    TIMEOUT = "timeout"
    DENIED = "denied"  # UnauthorizedOperation
    THROTTLED = "throttled"
    NAME_TAKEN = "name-taken"  # EC2 device name in use
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a step ended. `text` is for people; `attachment`/`holders` is what the step learned."""

    ok: bool
    text: str = ""
    hint: str = ""
    failure: Failure | None = None
    learned: object = None  # Attach: the VolumeFacts of the reply; ListHolders: tuple[Holder, ...]
