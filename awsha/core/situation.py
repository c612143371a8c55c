"""What a decision is made from, and what it is: Situation in, Plan out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from awsha.core.model import (
    UNREAD,
    Attachment,
    CloudFacts,
    DiskFacts,
    Holder,
    HostFacts,
    InstanceFacts,
    Intent,
    Self,
    Unknown,
    VolumeFacts,
)
from awsha.core.policy import Group
from awsha.core.steps import Failure, Scope, Step


class Code(StrEnum):
    """Why a group is not done. Stable words: they stand in `status --json` and in the runbook."""

    LOOKING = "looking"
    NO_INTENT = "no-intent"
    KEEPALIVED_GONE = "keepalived-gone"
    CLOUD_UNKNOWN = "ec2-unknown"
    HOST_UNKNOWN = "host-unknown"
    SETTLING = "settling"
    RUNNING = "running"
    RETRY = "retry"
    DENIED = "denied"
    VOLUME_MISSING = "volume-missing"
    VOLUME_UNUSABLE = "volume-unusable"
    TWO_ATTACHMENTS = "two-attachments"
    MULTI_ATTACH = "multi-attach"
    ATTACHING = "attaching"
    DETACHING_HERE = "detaching-here"
    DEVICE = "waiting-for-device"
    DEVICE_MISSING = "device-missing"
    NO_FILESYSTEM = "no-filesystem"
    WRONG_FILESYSTEM = "wrong-filesystem"
    MOUNT_POINT_BUSY = "mount-point-busy"
    MOUNTED_ELSEWHERE = "mounted-elsewhere"
    READ_ONLY = "read-only"
    DISAGREES = "ec2-disagrees"
    DETACH_REQUESTED = "detach-requested"
    HELD_BY_STRANGER = "held-by-stranger"
    HOLDER_STOPPING = "holder-stopping"
    HOLDER_DETACHING = "holder-detaching"
    HOLDER_RELEASING = "holder-releasing"
    HOLDER_IS_MASTER = "holder-is-master"
    HOLDER_NEVER_HEARD = "holder-never-heard"
    GRACE = "grace"
    FENCE_NONE = "fence-none"
    FENCING = "fencing"
    VIP_CONTESTED = "vip-contested"
    VIP_NOT_ON_INTERFACE = "vip-not-on-interface"
    VIP_LEFT_OVER = "vip-left-over"
    VIP_NOT_IN_METADATA = "vip-not-in-metadata"
    APPLICATION_WAITS = "application-waits"
    APPLICATION_STARTING = "application-starting"
    APPLICATION_STOPPING = "application-stopping"
    APPLICATION_FAILED = "application-failed"
    OPEN_FILES = "open-files"
    HOOK_FAILED = "hook-failed"
    HOOK_WARNED = "hook-warned"
    FENCED = "fenced"
    DAMPED = "damped"
    RELEASED = "released"
    PAUSED = "paused"
    HOLDER_HEARD = "holder-heard"  # never shown: how long a fenced node has heard the one that took its volume
    DEVICE_HERE = "device-here"  # never shown: how long the guest has had a device that EC2 still calls attaching
    DEVICE_LEFT = "device-left"  # never shown: how long a device has been gone that EC2 still calls detaching
    VOLUME_FREE = "volume-free"
    APPLICATION_RAN = "application-ran"  # never shown: since when something of the application may be here
    NOT_READY = "not-ready"  # never shown: how long a master could hold everything and does not


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that waits. `blocked`: only an operator, a peer or a later event can end it.

    `watch` names the facts whose change would end it: they are looked at often. `until` is the moment (boottime
    seconds) at which the decision changes even when no fact does.
    """

    code: Code
    subject: str
    text: str
    hint: str = ""
    blocked: bool = False
    watch: tuple[Scope, ...] = ()
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """How the last step of a kind on a resource ended. `runs`: how many there were without a minute's rest."""

    step: Step
    at: float
    ok: bool
    runs: int = 1
    failure: Failure | None = None
    text: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class HolderList:
    """Who kept a file system busy, when it was last looked at."""

    at: float
    holders: tuple[Holder, ...]


@dataclass(frozen=True, slots=True)
class Memory:
    """What the loop remembers between two looks, within one role. Losing it (a crash) costs time, never safety.

    since: for each condition (code, subject) that stood at the last decision, since when.
    past:  for each (kind of step, resource), how the last one ended.
    running: resources with a step under way.
    had_vips: the VIPs were seen on this node's ENI since it became master.
    """

    since: Mapping[tuple[Code, str], float] = field(default_factory=dict)
    past: Mapping[tuple[str, str], Past] = field(default_factory=dict)
    holders: Mapping[str, HolderList] = field(default_factory=dict)
    term_sent: Mapping[str, float] = field(default_factory=dict)
    running: frozenset[str] = frozenset()
    had_vips: bool = False


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that a decision depends on. `now`: boottime seconds.

    `wall`: Unix seconds, only to judge the age of a releasing tag.
    """

    group: Group
    me: Self
    intent: Intent | None
    cloud: CloudFacts
    host: HostFacts
    now: float
    wall: float
    memory: Memory = field(default_factory=Memory)

    def volume(self, volume_id: str) -> VolumeFacts | Unknown | None:
        """What EC2 says of a volume; None: EC2 knows no such volume."""
        return self.cloud.volumes if isinstance(self.cloud.volumes, Unknown) else self.cloud.volumes.get(volume_id)

    def instance(self, instance_id: str) -> InstanceFacts | Unknown | None:
        """What EC2 says of an instance; None: EC2 knows no such instance (any more)."""
        instances = self.cloud.instances
        return instances if isinstance(instances, Unknown) else instances.get(instance_id)

    def disk(self, volume_id: str) -> DiskFacts:
        """What the kernel says of a volume."""
        return self.host.disks.get(volume_id, DiskFacts(UNREAD, UNREAD))

    def mine(self, facts: VolumeFacts) -> Attachment | None:
        """This node's attachment of a volume."""
        return next((a for a in facts.attachments if a.instance_id == self.me.instance_id), None)

    def past(self, kind: type[Step], resource: str) -> Past | None:
        """How the last step of a kind on a resource ended, in this role."""
        return self.memory.past.get((kind.__name__, resource))


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start now, what waits and why.

    done:     the goal is reached: nothing to start, nothing waits.
    ready:    a master serves: everything is mounted and running, and EC2 does not say that an address is missing here.
    standing: conditions that hold at this moment, shown or not, and since when: the loop remembers them.
    """

    steps: tuple[Step, ...]
    reasons: tuple[Reason, ...]
    done: bool
    ready: bool
    goal: str  # "master", "release", "look"
    standing: Mapping[tuple[Code, str], float] = field(default_factory=dict)

    @property
    def waiting(self) -> tuple[Reason, ...]:
        """Reasons that end by themselves."""
        return tuple(r for r in self.reasons if not r.blocked)

    @property
    def blocked(self) -> tuple[Reason, ...]:
        """Reasons that need somebody."""
        return tuple(r for r in self.reasons if r.blocked)


class Draft:
    """A plan being put together. Internal to core: the rooms for each kind of resource write into it."""

    def __init__(self, situation: Situation) -> None:
        self.s = situation
        self.steps: list[Step] = []
        self.reasons: list[Reason] = []
        self.since: dict[tuple[Code, str], float] = {}

    def step(self, step: Step) -> None:
        """Something to start now."""
        self.steps.append(step)

    def standing(self, code: Code, subject: str) -> float:
        """Note that a condition holds; answer for how many seconds it has held without a break."""
        key, now = (code, subject), self.s.now
        since = self.since[key] = self.s.memory.since.get(key, now)
        return now - since

    def wait(
        self,
        code: Code,
        subject: str,
        text: str,
        *watch: Scope,
        hint: str = "",
        for_s: float | None = None,
        until: float | None = None,
    ) -> float:
        """Something that ends by itself; answers how long it has stood.

        It ends at the latest `for_s` seconds after it began to stand, or at the moment `until` (boottime seconds).
        """
        waited = self.standing(code, subject)
        if for_s is not None:
            until = self.s.now - waited + for_s
        self.reasons.append(Reason(code, subject, text, hint, False, watch, until))
        return waited

    def unknown(self, code: Code, subject: str, text: str, why: Unknown, *watch: Scope, hint: str = "") -> None:
        """Something that can't go on because a read gave no answer; before the first answer there is nothing to say."""
        if why is UNREAD:
            self.wait(Code.LOOKING, subject, "looking")
        else:
            self.wait(code, subject, f"{text}: {why.reason}", *watch, hint=hint)

    def block(self, code: Code, subject: str, text: str, hint: str, *watch: Scope) -> None:
        """Something that needs somebody."""
        self.standing(code, subject)
        self.reasons.append(Reason(code, subject, text, hint, True, watch))
