"""What the operator asked for: nodes, groups and their resources, as frozen records.

`awsha.config` fills these from awsha.toml; `awsha.core` decides with them. Every duration is in seconds.

What stands behind a field, or on the lines above it, is its meaning in docs/reference.md (`python -m
tests.tools.reference`); a sentence that begins with "None:" is for readers of the code only.
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


Tags = tuple[tuple[str, str], ...]  # name and value


@dataclass(frozen=True, slots=True)
class Node:
    """One EC2 instance of the pair. `address` is its primary private IPv4 address, by which it knows itself."""

    name: str  # letters, digits, `_`, `-`, `.`
    address: str  # primary private IPv4 address: source of VRRP adverts, and how a node knows itself
    instance_id: str | None = None  # `i-…`
    # Different for every node. It matters when nobody is master yet: nobody preempts. None: by order (150, 100, 90, …)
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class Volume:
    """One EBS volume with the file system on it. Exactly one of `id` and `tags` is set in a valid configuration."""

    mount: str  # absolute; no directory that the host itself needs; not inside another group's mount
    id: str | None = None  # `vol-…`, or its ARN. Either `id` or `tags`
    tags: Tags = ()  # `{ Name = "db-data" }`: exactly one volume must have them
    fstype: str | None = None  # another file system than this one is not mounted. None: read from the device
    options: str = ""  # mount(8) -o, separated by commas; not `ro`, `remount`, `bind`, `rbind`, `move`
    # When it is checked before a mount; `auto`: after a take by force, or when ext4 says that it was cut off in use
    fsck: Fsck = Fsck.AUTO


@dataclass(frozen=True, slots=True)
class Application:
    """What runs on top: a systemd unit, or argv lists for start, stop and check (exit 0: running, else: not)."""

    unit: str | None = None  # a systemd unit with its suffix. Either `unit`, or `start`, `stop` and `check`
    start: tuple[str, ...] = ()  # `["/path/of/program", "word"]`; no shell
    stop: tuple[str, ...] = ()  # the same; also run once before a start that is tried again: safe to run twice
    check: tuple[str, ...] = ()  # the same; exit 0: it runs
    retries: int = 3  # failed starts, after the first, before the node gives up


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds, in seconds."""

    release_grace_s: float = 3.0  # a silent holder gets this long to begin its release before it is fenced
    handover_s: float = 60.0  # a release under way (tag or `detaching`) is waited for at most this long
    detach_s: float = 5.0  # an ordinary detach may be `busy` this long before force-detach goes on to Force
    attach_stuck_s: float = 90.0  # `attaching` for longer is stuck: detach, attach again under another name
    device_s: float = 45.0  # the device may follow `attached` by this much
    # A master that does not hold everything after this faults itself, unless it waits for EC2 or for an operator; more
    # than `handover_s`.
    acquire_s: float = 180.0
    mount_s: float = 60.0  # one mount
    unmount_s: float = 30.0  # one try to unmount
    fsck_s: float = 600.0  # one file system check
    start_s: float = 90.0  # start of the application
    stop_s: float = 60.0  # stop of the application
    term_s: float = 5.0  # between SIGTERM and SIGKILL for holders of open files
    unfence_s: float = 60.0  # a fenced node that has cleaned up comes back after hearing the holder for so long
    vrrp_grace_s: float = 0.5  # keepalived gone for this long while master: release
    # One program of a hook (docs/hooks.md); all programs of `before-release` together: well below `handover_s`
    hook_s: float = 30.0
    # A node that failed as master waits before it competes again: 10, 20, 40, … s for each failure, at most this long
    # (docs/adr/0005-flap-damping.md)
    damping_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Group:
    """One VRRP instance and everything that moves with it."""

    name: str  # letters, digits, `_`, `-`; at most 32
    virtual_router_id: int  # different for every group
    vips: tuple[str, ...]  # one or more addresses of the nodes' subnet, without a prefix length
    # Needed when keepalived.conf is generated elsewhere and the name is not the same there. None: the interface that
    # holds the node's address
    interface: str | None = None
    # Seconds between adverts, 0.01 to 40.95, in hundredths. A master that dies is noticed after a little more than
    # three
    advert_int: float = 1.0
    fence: Fence = Fence.STOP_INSTANCE  # about a holder that stays silent; `none`: an operator decides
    # About processes that keep a file system busy. `wait`: an operator ends them; `terminate`: SIGTERM, then SIGKILL
    open_files: OpenFiles = OpenFiles.TERMINATE
    volumes: tuple[Volume, ...] = ()
    application: Application | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    # `{ a = 100, b = 150 }`: in this group only, so that two groups can cross
    priorities: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Discover:
    """The nodes by their tags, in the place of `[[node]]`."""

    tags: Tags  # `{ "awsha:pair" = "db" }`: the nodes are the instances that have all of them


@dataclass(frozen=True, slots=True)
class Metrics:
    """Where the agent tells Prometheus how things are. Without either: nowhere."""

    # Absolute path, ending in `.prom`, in the directory that node_exporter's textfile collector reads. None: no file
    textfile: str | None = None
    port: int = 0  # where Prometheus may ask this node itself, on 127.0.0.1; 0: nowhere

    @property
    def wanted(self) -> bool:
        """Whether anything is to be told."""
        return self.textfile is not None or self.port > 0


@dataclass(frozen=True, slots=True)
class Notify:
    """Who is told when a transition has ended. Without either: nobody."""

    # `["/path/of/program", "word"]`, run as root, without a shell: only root may be able to write to any part of its
    # path
    command: tuple[str, ...] = ()
    # `arn:aws:sns:eu-west-1:123456789012:alarms`; the nodes' role needs `sns:Publish` on it (`awsha iam-policy`).
    # None: no topic
    sns_topic: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """The whole of awsha.toml, defaults filled in. With `discover`, `nodes` is empty until they have been found."""

    nodes: tuple[Node, ...]
    groups: tuple[Group, ...]
    region: str | None = None  # such as `eu-west-1`; `AWS_REGION` and `AWS_DEFAULT_REGION` come before metadata
    discover: Discover | None = None
    # Absolute path of awsha in keepalived.conf. Only root may be able to write to any part of it, or keepalived will
    # not run it. None: the one that generates
    command: str | None = None
    metrics: Metrics = field(default_factory=Metrics)
    notify: Notify = field(default_factory=Notify)


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
