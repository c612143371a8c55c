"""What the operator asked for: nodes, groups and their resources, as frozen records.

`awsha.config` fills these from awsha.toml; `awsha.core` decides with them. Every duration is in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Fence(StrEnum):
    """What to do about a silent holder of the volume, once everything gentler is exhausted."""

    STOP_INSTANCE = "stop-instance"
    FORCE_DETACH = "force-detach"
    NONE = "none"


class OpenFiles(StrEnum):
    """What to do about processes that keep a file system busy when it must be unmounted."""

    WAIT = "wait"
    TERMINATE = "terminate"
    KILL = "kill"


class Fsck(StrEnum):
    """When to check a file system before it is mounted. `auto`: after it was taken by force."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Node:
    """One EC2 instance of the pair. `address` is its primary private IPv4 address, by which it knows itself."""

    name: str
    address: str
    instance_id: str | None = None
    priority: int | None = None  # None: by order (150, 100, 90, …)


@dataclass(frozen=True, slots=True)
class Volume:
    """One EBS volume with the file system on it. Exactly one of `id` and `tags` is set in a valid configuration."""

    mount: str
    id: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    fstype: str | None = None  # None: read from the device
    options: str = ""  # mount(8) -o, comma separated
    fsck: Fsck = Fsck.AUTO


@dataclass(frozen=True, slots=True)
class Application:
    """What runs on top: a systemd unit, or argv lists for start, stop and check (exit 0: running, else: not)."""

    unit: str | None = None
    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    check: tuple[str, ...] = ()
    retries: int = 3


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds, in seconds."""

    release_grace_s: float = 3.0  # a silent holder gets this long to begin its release before it is fenced
    handover_s: float = 60.0  # a release under way (tag or `detaching`) is waited for at most this long
    detach_s: float = 5.0  # an ordinary detach may be `busy` this long before force-detach goes on to Force
    attach_stuck_s: float = 90.0  # `attaching` for longer is stuck: detach, attach again under another name
    device_s: float = 45.0  # the device may follow `attached` by this much
    acquire_s: float = 180.0  # a master that holds nothing after this faults itself, unless it waits for an operator
    mount_s: float = 60.0
    unmount_s: float = 30.0
    fsck_s: float = 600.0
    start_s: float = 90.0  # application start
    stop_s: float = 60.0  # application stop
    term_s: float = 5.0  # between SIGTERM and SIGKILL for holders of open files
    unfence_s: float = 60.0  # a fenced node that has cleaned up comes back after hearing the holder for so long
    vrrp_grace_s: float = 0.5  # keepalived gone for this long while master: release
    hook_s: float = 30.0  # one program of a hook; all of before-release together
    damping_s: float = 300.0  # a node that failed as master again and again waits at most this long to compete again


@dataclass(frozen=True, slots=True)
class Group:
    """One VRRP instance and everything that moves with it."""

    name: str
    virtual_router_id: int
    vips: tuple[str, ...]  # addresses without a prefix length
    interface: str | None = None  # None: the interface that holds the node's address
    advert_int: float = 1.0
    fence: Fence = Fence.STOP_INSTANCE
    open_files: OpenFiles = OpenFiles.TERMINATE
    volumes: tuple[Volume, ...] = ()
    application: Application | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    priorities: tuple[tuple[str, int], ...] = ()  # node name -> priority in this group only (crossing groups)


@dataclass(frozen=True, slots=True)
class Policy:
    """The whole of awsha.toml, defaults filled in."""

    nodes: tuple[Node, ...]
    groups: tuple[Group, ...]
    region: str | None = None
    command: str | None = None  # path of awsha as keepalived shall run it; None: the one that generates


def default_priority(index: int) -> int:
    """The VRRP priority of a node that names none, by its place in the file: 150, 100, 90, 80, … 10, 9, 8, …"""
    if index == 0:
        return 150
    return max(110 - 10 * index, 20 - index, 1)


def priority(policy: Policy, group: Group, node: Node) -> int:
    """The VRRP priority of a node in a group: the group's own word, else the node's, else by order."""
    own = dict(group.priorities).get(node.name)
    if own is not None:
        return own
    return node.priority if node.priority is not None else default_priority(policy.nodes.index(node))
