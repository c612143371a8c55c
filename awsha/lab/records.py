"""The things in a region (instances, interfaces, volumes), what happens to them, and how EC2 says no."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

Params = dict[str, Any]
Reply = dict[str, Any]
Tags = dict[str, str]

ACCOUNT = "123456789012"
INSTANCE_TYPE = "t3.medium"
IMAGE = "ami-0a1b2c3d4e5f60718"
VPC = "vpc-0a1b2c3d4e5f60001"
SECURITY_GROUP = "sg-0a1b2c3d4e5f60002"
SECURITY_GROUP_NAME = "awsha-lab"
ROOT_DEVICE = "/dev/xvda"
# t3.medium: 6 IPv4 addresses an interface; 28 attachments shared by interfaces, root and data volumes
# (EC2 user guide: "IP addresses per network interface per instance type", "Amazon EBS volume limits").
ADDRESSES_PER_INTERFACE = 6
VOLUMES_PER_INSTANCE = 26
TAGS_PER_RESOURCE = 50

STATE_CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
_HTTP_STATUS = {
    "AuthFailure": 401,
    "UnauthorizedOperation": 403,
    "OptInRequired": 403,
    "DryRunOperation": 412,
    "InternalError": 500,
    "InternalFailure": 500,
    "RequestLimitExceeded": 503,
    "Throttling": 503,
    "ServiceUnavailable": 503,
    "Unavailable": 503,
}


class Ec2Error(Exception):
    """EC2 refuses: `code` is what to match on, `message` is for people, `http_status` goes with the code."""

    def __init__(self, code: str, message: str = "", http_status: int = 0) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.http_status = http_status or _HTTP_STATUS.get(code, 400)


@dataclass(frozen=True, slots=True)
class DeviceAttached:
    """The guest gets a block device for this volume. `device` is the name of the API call (/dev/sdf)."""

    instance_id: str
    volume_id: str
    device: str


@dataclass(frozen=True, slots=True)
class DeviceDetached:
    """The device leaves the guest. `forced`: by Force, without asking the guest; its mount, if any, is left stale."""

    instance_id: str
    volume_id: str
    forced: bool


@dataclass(frozen=True, slots=True)
class AddressMoved:
    """The VPC delivers the address to this interface from now on; None: to nobody."""

    address: str
    eni_id: str | None


@dataclass(frozen=True, slots=True)
class InstanceStopped:
    """The guest is gone. `graceful`: its operating system was asked to shut down first."""

    instance_id: str
    graceful: bool


@dataclass(frozen=True, slots=True)
class InstanceStarted:
    """A guest boots afresh; DeviceAttached follows for each volume that it has."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class InstanceTerminated:
    """The instance is gone for good, with its interface."""

    instance_id: str


Effect = DeviceAttached | DeviceDetached | AddressMoved | InstanceStopped | InstanceStarted | InstanceTerminated


@dataclass(slots=True, eq=False)
class Attachment:
    """A volume on an instance. `state`: attaching, attached, detaching, busy; gone is `gone`."""

    volume_id: str
    instance_id: str
    device: str
    since: float
    state: str = "attaching"
    present: bool = False  # the guest has the device
    stuck: bool = False  # by a fault: never attached, or never released by the guest
    plan: int = 0  # rises with each detach call that changes what is scheduled; older events no longer count


@dataclass(slots=True)
class Entry:
    """One state of a thing as Describe shows it from `visible_at` on. `reads`: -1 calm, 0 may flicker, 1 seen once."""

    visible_at: float
    state: tuple[Any, ...]
    reads: int = -1
    item: dict[str, Any] | None = None  # the reply's item, made when first asked for
    seen: Any = None  # the same for a reader of states, who makes something else of it (tests/sim/cloud.py)


class History:
    """What Describe has shown and will show about one thing: a view that lags behind the truth."""

    __slots__ = ("entries",)
    KEEP = 32  # bound; enough for every stale read that a fault asks for in practice

    def __init__(self, state: tuple[Any, ...], now: float) -> None:
        self.entries = [Entry(now, state)]

    def add(self, state: tuple[Any, ...], visible_at: float, *, flicker: bool) -> None:
        """A change that shows at `visible_at`, never before the change that came before it."""
        entries = self.entries
        visible_at = max(visible_at, entries[-1].visible_at)
        entries.append(Entry(visible_at, state, 0 if flicker else -1))
        if len(entries) > self.KEEP:
            del entries[0]

    def read(self, at: float) -> Entry:
        """The newest entry that is visible at `at`; one read goes back by one entry where the change flickers."""
        entries = self.entries
        index = len(entries) - 1
        while index > 0 and entries[index].visible_at > at:
            index -= 1
        entry = entries[index]
        if entry.reads < 0 or index == 0:
            return entry
        entry.reads += 1
        if entry.reads < 2:
            return entry
        entry.reads = -1
        return entries[index - 1]


@dataclass(slots=True, eq=False)
class Volume:
    """An EBS volume. Its state follows from its attachments: `available` without, `in-use` with."""

    id: str
    size_gib: int
    zone: str
    created: float
    volume_type: str = "gp3"
    multi_attach: bool = False
    tags: Tags = field(default_factory=dict)  # replaced at each change, never changed in place: views keep it
    attachments: list[Attachment] = field(default_factory=list)
    view: History = field(init=False)

    def __post_init__(self) -> None:
        self.view = History(self.state(), self.created)

    def state(self) -> tuple[Any, ...]:
        """What a Describe shows, frozen."""
        return tuple((a.instance_id, a.device, a.state, a.since) for a in self.attachments), self.tags

    def on(self, instance_id: str) -> Attachment | None:
        """The attachment to this instance."""
        for attachment in self.attachments:
            if attachment.instance_id == instance_id:
                return attachment
        return None


@dataclass(frozen=True, slots=True)
class Subnet:
    """One subnet; each zone of the lab's region has one."""

    id: str
    zone: str
    cidr: str


@dataclass(slots=True, eq=False)
class Interface:
    """An ENI, the only one of its instance. `secondaries` is replaced at each change, never changed in place."""

    id: str
    instance_id: str
    mac: str
    primary: str
    subnet: Subnet
    created: float
    secondaries: tuple[str, ...] = ()
    tags: Tags = field(default_factory=dict)
    view: History = field(init=False)
    metadata_view: History = field(init=False)

    def __post_init__(self) -> None:
        self.view = History(self.state(), self.created)
        self.metadata_view = History(self.secondaries, self.created)

    def state(self) -> tuple[Any, ...]:
        """What a Describe shows, frozen."""
        return self.secondaries, self.tags


@dataclass(slots=True, eq=False)
class Instance:
    """An EC2 instance. `state` is the API's word; `dead` (host failed) and `off` (stopped) are true of its guest."""

    id: str
    name: str
    zone: str
    subnet: Subnet
    launched: float
    interface: Interface | None
    state: str = "running"
    dead: bool = False
    off: bool = False
    off_due: float = 0.0  # when a stop that is under way reaches `stopped`
    impaired_at: float | None = None  # when the status checks notice
    plan: int = 0  # rises with each stop, start, reboot, power-off: older events no longer count
    tags: Tags = field(default_factory=dict)
    attachments: list[Attachment] = field(default_factory=list)
    view: History = field(init=False)

    def __post_init__(self) -> None:
        self.view = History(self.snapshot(), self.launched)

    @property
    def guest_runs(self) -> bool:
        """There is an operating system that can see devices and answer."""
        return not (self.dead or self.off) and self.state in ("running", "stopping", "shutting-down")

    def snapshot(self) -> tuple[Any, ...]:
        """What a Describe shows, frozen."""
        devices = tuple((a.volume_id, a.device, a.state, a.since) for a in self.attachments)
        secondaries = None if self.interface is None else self.interface.secondaries
        return self.state, self.launched, devices, secondaries, self.tags


@lru_cache(maxsize=4096)
def address_problem(address: str, cidr: str) -> str:
    """Why an address cannot be used in this subnet, in EC2's words; empty when it can."""
    try:
        parsed = ipaddress.IPv4Address(address)
    except ValueError:
        return f"Value ({address}) for parameter privateIpAddress is invalid."
    network = ipaddress.IPv4Network(cidr)
    if parsed not in network:
        return f"Address {address} does not fall within the subnet's address range"
    offset = int(parsed) - int(network.network_address)
    # The first four and the last address of a subnet are AWS's own (VPC user guide, "Subnet sizing").
    if offset < 4 or parsed == network.broadcast_address:
        return f"Address {address} is in subnet's reserved address range"
    return ""
