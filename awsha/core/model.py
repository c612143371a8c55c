"""What is known: roles, and the facts that EC2, the kernel and VRRP each report, as frozen records.

A read that failed is `Unknown`, never a default. Times are seconds on the monotonic clock that counts
suspended time (CLOCK_BOOTTIME), unless a name says wall.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unknown:
    """A read that gave no answer, and why. It satisfies no precondition."""

    reason: str

    def __bool__(self) -> bool:
        """Refuse to be taken for true or false: the caller must decide what not knowing means."""
        raise TypeError(f"unknown ({self.reason}) is neither true nor false")


UNREAD = Unknown("not looked at yet")


class Role(StrEnum):
    """What keepalived last said this node is, for one group."""

    MASTER = "master"
    BACKUP = "backup"
    FAULT = "fault"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Intent:
    """One recorded notify. `order` is (process start time in clock ticks since boot, pid): the order of the forks."""

    role: Role
    order: tuple[int, int]
    boot_id: str
    recorded_at: float  # boottime seconds
    keepalived: tuple[int, int] | None = None  # (pid, start time) of the keepalived process that ran the notify


class Hook(StrEnum):
    """A point of a transition at which programs of the operator run (docs/hooks.md)."""

    BEFORE_ACQUIRE = "before-acquire"
    AFTER_MOUNT = "after-mount"
    AFTER_ACQUIRE = "after-acquire"
    BEFORE_RELEASE = "before-release"
    AFTER_RELEASE = "after-release"
    ON_FENCED = "on-fenced"


# --- EC2 -------------------------------------------------------------------------------------------------------


class VolumeState(StrEnum):
    """State of an EBS volume (DescribeVolumes)."""

    CREATING = "creating"
    AVAILABLE = "available"
    IN_USE = "in-use"
    DELETING = "deleting"
    DELETED = "deleted"
    ERROR = "error"


class AttachmentState(StrEnum):
    """State of one attachment (DescribeVolumes)."""

    ATTACHING = "attaching"
    ATTACHED = "attached"
    DETACHING = "detaching"
    DETACHED = "detached"
    BUSY = "busy"


class InstanceState(StrEnum):
    """State of an instance (DescribeInstances)."""

    PENDING = "pending"
    RUNNING = "running"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Attachment:
    """One attachment of a volume. `device` is the name given to AttachVolume, such as /dev/sdf."""

    instance_id: str
    state: AttachmentState
    device: str = ""


@dataclass(frozen=True, slots=True)
class Releasing:
    """The `awsha:releasing` tag: who releases, since when by that node's wall clock, and why, if it says so."""

    node: str
    at_wall: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Serving:
    """The same tag as the answer to a switchover: the node that serves, and since when by its wall clock."""

    node: str
    at_wall: float


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """What EC2 says of one volume. Attachments in state `detached` are left out."""

    id: str
    state: VolumeState
    attachments: tuple[Attachment, ...] = ()
    releasing: Releasing | None = None
    multi_attach: bool = False
    zone: str = ""
    serving: Serving | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """The `awsha:status` tag of an instance: a word for each group, as its agent wrote it at `at_wall` (its clock)."""

    at_wall: float
    words: tuple[tuple[str, str], ...]

    def of(self, group: str) -> str | None:
        """The word for one group; None when there is none."""
        return dict(self.words).get(group)


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """What EC2 says of one node's instance. `addresses`: private IPv4 addresses of all its ENIs, primaries included."""

    id: str
    state: InstanceState
    addresses: frozenset[str] = frozenset()
    device_names: frozenset[str] = frozenset()  # names in its block device mapping
    zone: str = ""
    subnet: str = ""
    said: Said | None = None


@dataclass(frozen=True, slots=True)
class CloudFacts:
    """One look at EC2. A part that could not be read is Unknown."""

    volumes: Mapping[str, VolumeFacts] | Unknown  # by volume id
    instances: Mapping[str, InstanceFacts] | Unknown  # by instance id
    metadata_addresses: frozenset[str] | Unknown = Unknown("not asked")  # local-ipv4s of this node's ENI


# --- this host -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Device:
    """The block device whose serial (or Xen name) is this volume's."""

    path: str  # /dev/nvme1n1
    number: str  # "259:3"
    fstype: str | Unknown | None = None  # None: no file system signature
    unclean: bool = False  # it was not unmounted in order when it was last used, as far as its type tells


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo that concerns a volume."""

    target: str
    number: str  # device number, "259:3"
    source: str
    fstype: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """What the kernel says of one configured volume.

    device: None when no device carries the volume's serial.
    mount:  what is mounted at the configured mount point (the topmost), None when nothing is.
    stale:  that mount's device no longer exists, or no longer carries this volume's serial while it did.
    foreign: that mount belongs to some other, living device.
    others: further mounts of the same device, or mounts below the mount point, innermost first.
    """

    device: Device | Unknown | None
    mount: Mount | Unknown | None
    stale: bool = False
    foreign: bool = False
    others: tuple[Mount, ...] = ()


class ApplicationState(StrEnum):
    """What the application's check or unit says."""

    RUNNING = "running"
    STARTING = "starting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that keeps a file system busy. `started`: start time in ticks, so that a reused pid is told apart."""

    pid: int
    command: str
    path: str
    how: str  # fd, cwd, root, exe, map, mount
    started: int = 0


@dataclass(frozen=True, slots=True)
class Heard:
    """The last VRRP advert of one peer. Priority 0 means that it resigned.

    `since`: when the first of those came that have followed each other without a break; 0: as long as is known.
    """

    at: float
    priority: int
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Faults:
    """How often in a row this node failed to hold its resources as master, when (boottime) and why the last time."""

    times: int
    at: float
    text: str


@dataclass(frozen=True, slots=True)
class HostFacts:
    """One look at this host. `heard` holds the peers (by node name) that were ever heard since boot, for this group."""

    disks: Mapping[str, DiskFacts]  # by volume id
    vips: frozenset[str] | Unknown  # which of the group's VIPs are on the interface, by netlink
    application: ApplicationState | Unknown | None  # None: the group has none
    heard: Mapping[str, Heard] = field(default_factory=dict)
    keepalived_gone_since: float | None = None
    marks: frozenset[str] = frozenset()  # persisted notes of this node: "fenced", "forced:vol-…", "released"
    faults: Faults | None = None
    hooks: frozenset[Hook] = frozenset()  # the points at which this node may have something to run


@dataclass(frozen=True, slots=True)
class Self:
    """Who this node is, and who the others are."""

    name: str
    instance_id: str
    eni_id: str
    interface: str
    peers: Mapping[str, str]  # instance id -> node name, without this node


def known(value: T | Unknown) -> T | None:
    """The value, or None when it is Unknown (for views; decisions test for Unknown themselves)."""
    return None if isinstance(value, Unknown) else value
