"""Builds situations for the tables: a healthy pair, then one thing changed at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from awsha.core.model import (
    ApplicationState,
    Attachment,
    AttachmentState,
    CloudFacts,
    Device,
    DiskFacts,
    Heard,
    HostFacts,
    InstanceFacts,
    InstanceState,
    Intent,
    Mount,
    Role,
    Self,
    VolumeFacts,
    VolumeState,
)
from awsha.core.policy import Application, Group, Volume
from awsha.core.situation import Memory, Past, Situation
from awsha.core.steps import Step

VOL, VOL2 = "vol-0000000000000000a", "vol-0000000000000000b"
A, B = "i-0000000000000000a", "i-0000000000000000b"
VIP = "10.0.0.100"
NOW = 1000.0
WALL = 1_800_000_000.0
GROUP = Group(
    name="data",
    virtual_router_id=51,
    vips=(VIP,),
    volumes=(Volume(mount="/srv/data", id=VOL),),
    application=Application(unit="db.service"),
)
ME = Self("a", A, "eni-a", "eth0", {B: "b"})
DEVICE = Device("/dev/nvme1n1", "259:1", "ext4")
MOUNT = Mount("/srv/data", "259:1", "/dev/nvme1n1", "ext4")
ABSENT = DiskFacts(device=None, mount=None)
PRESENT = DiskFacts(device=DEVICE, mount=None)
MOUNTED = DiskFacts(device=DEVICE, mount=MOUNT)
STALE = DiskFacts(device=None, mount=MOUNT, stale=True)


def intent(role: Role = Role.MASTER, order: int = 1) -> Intent:
    """An intent of this boot."""
    return Intent(role, (order, 100), "boot", NOW - 10)


def volume(*holders: tuple[str, str], state: VolumeState | None = None, vid: str = VOL, **more: Any) -> VolumeFacts:
    """A volume attached to (instance, attachment state) pairs."""
    attachments = tuple(Attachment(i, AttachmentState(s), "/dev/sdf") for i, s in holders)
    return VolumeFacts(vid, state or (VolumeState.IN_USE if holders else VolumeState.AVAILABLE), attachments, **more)


def instances(
    a: frozenset[str] = frozenset(), b: frozenset[str] = frozenset(), b_state: str = "running"
) -> dict[str, InstanceFacts]:
    """Both nodes' instances with the VIPs that are on their ENIs."""
    return {
        A: InstanceFacts(A, InstanceState.RUNNING, frozenset({"10.0.0.10"}) | a),
        B: InstanceFacts(B, InstanceState(b_state), frozenset({"10.0.0.11"}) | b),
    }


def cloud(facts: VolumeFacts | None = None, vip_on: str = "", b_state: str = "running") -> CloudFacts:
    """What EC2 says, with the VIP on "a", "b" or nobody's ENI."""
    facts = facts or volume()
    vip = frozenset({VIP})
    return CloudFacts(
        {facts.id: facts},
        instances(vip if vip_on == "a" else frozenset(), vip if vip_on == "b" else frozenset(), b_state),
    )


def host(disk: DiskFacts = ABSENT, *, vip: bool = True, app: Any = ApplicationState.STOPPED, **more: Any) -> HostFacts:
    """What this host says. By default the peer was heard long ago and is silent."""
    more.setdefault("heard", {"b": Heard(NOW - 60, 100)})
    return HostFacts({VOL: disk}, frozenset({VIP}) if vip else frozenset(), app, **more)


def situation(role: Role | None = Role.MASTER, **changes: Any) -> Situation:
    """A situation of node a, by default: just became master, everything free."""
    base = Situation(GROUP, ME, intent(role) if role else None, cloud(), host(), NOW, WALL, Memory())
    return replace(base, **changes)


def serving(**changes: Any) -> Situation:
    """Node a is master and holds everything."""
    base = situation(cloud=cloud(volume((A, "attached")), "a"), host=host(MOUNTED, app=ApplicationState.RUNNING))
    return replace(base, **changes)


def since(s: Situation, seconds: float, *conditions: tuple[Any, str]) -> Situation:
    """The same, with conditions that have stood for some seconds."""
    return replace(s, memory=replace(s.memory, since={**s.memory.since, **dict.fromkeys(conditions, s.now - seconds)}))


def after(s: Situation, step: Step, ago: float = 1.0, **how: Any) -> Situation:
    """The same, with a step that ended some seconds ago (ok unless said otherwise)."""
    past = Past(step, s.now - ago, **{"ok": True, **how})
    return replace(s, memory=replace(s.memory, past={**s.memory.past, step.key: past}))
