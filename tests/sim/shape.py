"""The worlds that schedules take place in: how many nodes, which resources, which policy, how fast EC2 is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from awsha.core.model import Self
from awsha.core.policy import Application, Fence, Fsck, Group, OpenFiles, Timeouts, Volume
from awsha.lab.rules import Latency

NAMES = ("a", "b", "c")
PRIORITIES = {"a": 150, "b": 100, "c": 90}
ADDRESSES = {"a": "10.0.0.10", "b": "10.0.0.11", "c": "10.0.0.12"}
INSTANCES = {name: f"i-0000000000000000{name}" for name in NAMES}
ENIS = {name: f"eni-0000000000000000{name}" for name in NAMES}
NAME_OF = {instance: name for name, instance in INSTANCES.items()}
VOLUMES = ("vol-00000000000000001", "vol-00000000000000002")
TARGETS = ("/srv/one", "/srv/two")
VIPS = ("10.0.0.100", "10.0.0.101")
ADVERT_S = 1.0

# Short bounds, so that a schedule that runs into each of them stays short; their order is that of the defaults.
QUICK = Timeouts(
    release_grace_s=2.0, handover_s=8.0, detach_s=2.0, attach_stuck_s=6.0, device_s=5.0, acquire_s=25.0, mount_s=4.0,
    unmount_s=3.0, fsck_s=5.0, start_s=4.0, stop_s=3.0, term_s=1.0, vrrp_grace_s=0.5, unfence_s=10.0,
    damping_s=40.0,
)  # fmt: skip
# EC2's views lag by what the simulation draws at each read, so the region itself shows every change at once.
FAST = Latency(
    attach=(0.05, 0.6), attach_device=(0.03, 0.6), detach=(0.05, 0.6), detach_force=(0.05, 0.5),
    assign_visible_api=(0.0, 0.2), assign_visible_metadata=(0.0, 0.5), assign_dataplane=(0.0, 0.4),
    stop=(0.8, 2.5), stop_skip_os=(0.3, 1.2), stop_dead=(2.0, 4.0), start=(1.0, 2.5), status_check=(60.0, 120.0),
    busy_poll_s=0.25,
)  # fmt: skip
SLOW = replace(FAST, attach=(1.0, 4.0), attach_device=(0.7, 3.0), detach=(1.0, 4.0), stop_skip_os=(2.0, 5.0))


@dataclass(frozen=True)
class Shape:
    """One kind of world. `start`: "steady" (a serves, the others listen), "boot" (all boot now), "filtered" (VRRP has
    never passed). `shared`: the volumes have Multi-Attach, a misconfiguration. `agents`: a service on each node, else
    only what a notify starts."""

    nodes: tuple[str, ...]
    group: Group
    start: str = "steady"
    shared: bool = False
    latency: Latency = FAST


def group(  # noqa: PLR0917 - a row of a table
    volumes: int, application: bool, fence: Fence, open_files: OpenFiles, fsck: Fsck, vips: int = 1
) -> Group:
    """One group's policy."""
    return Group(
        name="data",
        virtual_router_id=51,
        vips=VIPS[:vips],
        interface="eth0",
        advert_int=ADVERT_S,
        fence=fence,
        open_files=open_files,
        volumes=tuple(Volume(TARGETS[i], VOLUMES[i], fstype="ext4", fsck=fsck) for i in range(volumes)),
        application=Application(unit="db.service") if application else None,
        timeouts=QUICK,
    )


def _shapes(nodes: int) -> tuple[Shape, ...]:
    """All worlds with so many nodes; the plain ones more than once, because they are drawn evenly."""
    names = NAMES[:nodes]
    stop, force, none = Fence.STOP_INSTANCE, Fence.FORCE_DETACH, Fence.NONE
    term, kill, wait = OpenFiles.TERMINATE, OpenFiles.KILL, OpenFiles.WAIT
    auto = Fsck.AUTO
    plain = [
        Shape(names, group(1, False, stop, term, auto)),
        Shape(names, group(1, False, force, term, auto)),
        Shape(names, group(1, True, stop, term, auto)),
        Shape(names, group(1, True, force, term, auto)),
    ]
    special = [
        Shape(names, group(0, False, stop, term, auto)),
        Shape(names, group(0, False, stop, term, auto, vips=2)),
        Shape(names, group(0, True, stop, term, auto)),
        Shape(names, group(1, False, none, term, auto)),
        Shape(names, group(1, True, force, kill, Fsck.ALWAYS)),
        Shape(names, group(1, True, stop, wait, Fsck.NEVER)),
        Shape(names, group(2, False, force, term, auto)),
        Shape(names, group(2, True, stop, term, auto, vips=2)),
        Shape(names, group(1, False, force, term, auto), latency=SLOW),
        Shape(names, group(1, True, stop, term, auto), latency=SLOW),
        Shape(names, group(1, False, force, term, auto), start="boot"),
        Shape(names, group(1, True, stop, term, auto), start="boot"),
        Shape(names, group(1, False, stop, term, auto), start="filtered"),
        Shape(names, group(1, False, force, term, auto), start="filtered"),
        Shape(names, group(1, False, force, term, auto), shared=True),
    ]
    return tuple(plain * 8 + special)


SHAPES = {nodes: _shapes(nodes) for nodes in (2, 3)}


@lru_cache(maxsize=64)
def identity(name: str, nodes: tuple[str, ...]) -> Self:
    """Who a node is, as its agent knows."""
    peers = {INSTANCES[other]: other for other in nodes if other != name}
    return Self(name, INSTANCES[name], ENIS[name], "eth0", peers)
