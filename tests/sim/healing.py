"""The end of all mishaps: whatever was broken works, whatever is down is started, operators take back what they did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim import faults

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.world import World


def heal(world: World) -> None:
    """No more faults: everything works, everything that was down is started, operators take back what they did."""
    world.tell("", "** everything is healed")
    world.cloud.faults.clear()
    world.cloud.lag_s = 0.0
    world.cloud.catch_up()
    world.cloud.region.clear_faults()
    world.network.cut.clear()
    faults.clear_network(world)
    for node in world.nodes:
        node.api_cut = node.late_devices = False
        node.skew = 0.0
        node.resume(True)
        if node.up:
            _heal_guest(node)
    _start_stopped(world)


def _heal_guest(node: Node) -> None:
    node.unmount_hangs = False
    node.notify_late_s = 0.0
    node.notify_lost = 0
    node.dies_at_notify = False
    node.app.hangs = False
    node.app.failures = 0
    if node.app.process is not None:
        node.app.process.stubborn = False
    faults.readable(node)
    for process in list(node.kernel.processes.values()):
        if process is not node.app.process:
            node.kernel.end(process)
    mine = node.kernel.at("/mnt")
    if mine is not None:
        node.kernel.unmount("/mnt", mine.device.number, lazy=True)
        if mine.flushing:
            node.kernel.flushed(mine)
        node.disks_changed()
    faults.take_part(node)
    node.start_agent()
    node.start_keepalived()


def _start_stopped(world: World) -> None:
    """Operators start what is down, again and again until it runs."""
    missing = [node for node in world.nodes if not node.up]
    for node in missing:
        instance = world.cloud.region.world.instances[node.instance_id]
        if instance.state == "stopped" or (instance.state == "running" and instance.dead):
            faults.power_on(world, node)
    if missing or not world.settled:
        world.at(world.now + 1.0, _start_stopped, world)
