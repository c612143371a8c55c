"""What goes wrong, and when: each schedule draws a few of these; healing.py is their end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from awsha.core import handover
from awsha.core.steps import Scope
from awsha.lab.rules import Ec2Error
from tests.sim.faults_ec2 import (
    api_error,
    black_hole,
    cut_api,
    late_call,
    later,
    lose_reply,
    stale,
    stuck,
    throttle,
)
from tests.sim.vrrp import MASTER

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.world import World

Mishap = Callable[["World", "Node"], str]


# --- keepalived ---


def kill_keepalived(world: World, node: Node) -> str:
    """It dies, and systemd or nobody starts it again."""
    if node.keepalived.alive:
        node.keepalived.kill()
    if world.chance() < 0.5:
        node.after(later(world, 0.1, 8.0), node.start_keepalived)
    return "keepalived is killed"


def stop_keepalived(world: World, node: Node) -> str:
    """An orderly stop."""
    if node.keepalived.alive:
        node.keepalived.stop()
    if world.chance() < 0.5:
        node.after(later(world, 0.5, 10.0), node.start_keepalived)
    return "keepalived is stopped"


def cut(world: World, node: Node) -> str:
    """VRRP to and from a node is cut, silently, in one direction or both."""
    others = [n.name for n in world.nodes if n is not node]
    out, into = [(node.name, o) for o in others], [(o, node.name) for o in others]
    chance = world.chance()
    pairs = out + into if chance < 0.6 else out if chance < 0.8 else into
    world.network.part(pairs)
    if world.chance() < 0.7:
        world.at(world.now + later(world, 1.0, 16.0), world.network.join, pairs)
    return f"VRRP is cut {'both ways' if len(pairs) > len(out) else 'one way'}"


def split(world: World, node: Node) -> str:
    """VRRP is cut both ways for long, and nobody notices."""
    others = [n.name for n in world.nodes if n is not node]
    world.network.part([(node.name, o) for o in others] + [(o, node.name) for o in others])
    world.not_calm_before = world.now + later(world, 15.0, 30.0)
    return "VRRP is cut both ways, for long"


def flap(world: World, node: Node) -> str:
    """Cut and joined, several times."""
    others = [n.name for n in world.nodes if n is not node]
    pairs = [(node.name, o) for o in others] + [(o, node.name) for o in others]
    when = world.now
    for _ in range(2 + int(3 * world.chance())):
        when += later(world, 0.2, 2.0)
        world.at(when, world.network.part, pairs)
        when += later(world, 3.0, 5.0)
        world.at(when, world.network.join, pairs)
    return "VRRP flaps"


def lossy(world: World, node: Node) -> str:
    """Adverts are lost or late for a while, everywhere."""
    del node
    world.network.loss = later(world, 0.2, 0.8)
    world.network.late_s = later(world, 0.0, 2.0)
    world.at(world.now + later(world, 2.0, 10.0), clear_network, world)
    return "adverts get lost and late"


def clear_network(world: World) -> None:
    """Adverts pass again."""
    world.network.loss = world.network.late_s = 0.0


def late_notifies(world: World, node: Node) -> str:
    """Notify scripts start late, and overtake each other."""
    node.notify_late_s = later(world, 0.5, 6.0)
    return "notifies are late"


def lost_notify(_world: World, node: Node) -> str:
    """notify_stop is killed before it writes (keepalived gives it one second)."""
    node.notify_lost += 1
    return "notify_stop will be lost"


# --- nodes ---


def kill_agent(world: World, node: Node) -> str:
    """The agent crashes; systemd starts it again, now or later."""
    node.kill_agent()
    if world.chance() < 0.8:
        node.after(later(world, 0.1, 3.0), node.start_agent)
    return "agent is killed"


def kill_at_notify(_world: World, node: Node) -> str:
    """The agent crashes just before the next notify, which starts a converge of its own; then the agent is back."""
    node.dies_at_notify = True
    return "the agent will crash at the next notify"


def crash(world: World, node: Node) -> str:
    """The kernel crashes or the host fails: EC2 goes on saying `running`."""
    world.cloud.catch_up()
    world.cloud.region.power_off(node.instance_id, world.now)
    node.down(False)
    if world.chance() < 0.5:
        world.at(world.now + later(world, 0.5, 10.0), power_on, world, node)
    return "power is off"


def power_on(world: World, node: Node) -> None:
    """The host is back, or the stopped instance is started."""
    if not node.up:
        world.cloud.catch_up()
        world.cloud.region.power_on(node.instance_id, world.now)
        world.cloud.plan_ahead()


def reboot(world: World, node: Node) -> str:
    """RebootInstances."""
    _console(world, "RebootInstances", {"InstanceIds": [node.instance_id]})
    return "is rebooted"


def freeze(world: World, node: Node) -> str:
    """The VM is not scheduled for a while; its clock jumps afterwards, or has stood still."""
    if node.up and not node.paused:
        node.pause()
        jump = world.chance() < 0.6
        world.at(world.now + later(world, 0.3, 15.0), node.resume, jump)
    return "freeze"


def skew(world: World, node: Node) -> str:
    """The wall clock is wrong by a little."""
    node.skew = later(world, -2.0, 2.0)
    return f"wall clock is wrong by {node.skew:.1f} s"


# --- this host ---


def hold(world: World, node: Node) -> str:
    """Somebody works in the file system, and perhaps does not want to leave, or comes back."""
    volumes = world.shape.group.volumes
    superblock = node.kernel.at(volumes[0].mount) if volumes else None
    if superblock is None:
        return "nobody works in the file system"
    process = node.kernel.spawn("bash", superblock, stubborn=world.chance() < 0.5)
    process.respawns = int(3 * world.chance())
    if world.chance() < 0.5:
        node.after(later(world, 0.1, 6.0), node.kernel.leave, process)
    return f"bash[{process.pid}] works in {volumes[0].mount}"


def bind(world: World, node: Node) -> str:
    """An operator mounts the volume a second time, elsewhere."""
    for volume in world.shape.group.volumes[:1]:
        device = node.kernel.devices.get(volume.id or "")
        if device is not None and device.visible and node.kernel.at("/mnt") is None:
            superblock = next((s for s in node.kernel.superblocks if s.device is device), None)
            if superblock is None or not superblock.flushing:
                node.kernel.mount(device.path, "/mnt", world.now)
                node.disks_changed()
                return f"an operator mounts {volume.id} at /mnt"
    return "an operator looks around"


def hang_unmount(_world: World, node: Node) -> str:
    """Unmounting hangs."""
    node.unmount_hangs = True
    return "unmounts hang"


def hang_stop(_world: World, node: Node) -> str:
    """The application does not stop when asked."""
    node.app.hangs = True
    if node.app.process is not None:
        node.app.process.stubborn = True
    return "the application will not stop"


def crash_application(world: World, node: Node) -> str:
    """It ends by itself, and may not start again at first."""
    node.app.failures = int(5 * world.chance())
    node.app.crash()
    return "the application crashes"


def late_devices(_world: World, node: Node) -> str:
    """Devices come late to this guest."""
    node.late_devices = True
    return "devices come late"


def unreadable(world: World, node: Node) -> str:
    """Reads of the mount table, sysfs, netlink or systemd give no answer for a while."""
    kernel = node.kernel
    chance = world.chance()
    kernel.unreadable, kernel.unscannable, node.blind = chance < 0.5, 0.3 < chance < 0.7, chance > 0.6
    _reread(node)
    node.after(later(world, 0.3, 6.0), readable, node)
    return "reads of the host fail"


def readable(node: Node) -> None:
    """Reads of the host give answers again."""
    if node.kernel.unreadable or node.kernel.unscannable or node.blind:
        node.kernel.unreadable = node.kernel.unscannable = node.blind = False
        _reread(node)


def _reread(node: Node) -> None:
    node.kernel.touch()
    for scope in node.versions:
        node.changed(scope)


def read_only(_world: World, node: Node) -> str:
    """The file system meets an error."""
    for superblock in node.kernel.superblocks:
        superblock.read_only = True
    node.kernel.touch()
    node.poke(Scope.DISKS)
    return "file systems become read-only"


def take_vip(_world: World, node: Node) -> str:
    """amazon-ec2-net-utils removes what it does not know."""
    node.set_vips(frozenset())
    return "the VIPs are removed from the interface"


# --- operators ---


def _console(world: World, action: str, params: dict[str, object]) -> None:
    try:
        world.cloud.do(action, dict(params), "")
    except Ec2Error as error:
        world.tell("", f"{action}: {error.code}")


def release(world: World, node: Node) -> str:
    """`awsha release`, mostly with an `awsha resume` after it; or `awsha switchover`, perhaps with a release after it.

    One mishap and one draw for both: the seeds that were kept before there was a switchover stay what they were.
    """
    which = world.chance()
    if which < 0.85:
        release_group(node)
        if which < 0.7:
            node.after(later(world, 1.0, 10.0), resume_group, node)
        return "awsha release"
    # who is no master is refused, but may have been one a moment ago
    node.put_mark(handover.mark(node.time() + later(world, 2.0, 10.0)))
    node.poke()
    if world.chance() < 0.4:
        node.after(later(world, 0.1, 3.0), release_group, node)
    return "awsha switchover"


def release_group(node: Node) -> None:
    """`awsha release`: from here on it is no switchover."""
    if node.world.calm:
        return
    node.put_mark("released")
    end_switchovers(node)
    node.poke()


def end_switchovers(node: Node) -> None:
    """Whoever releases or resumes has the last word."""
    for mark in handover.under_way(node.marks):
        node.remove_mark(mark)


def pause(world: World, node: Node) -> str:
    """`awsha pause`, then `awsha resume`."""
    node.put_mark("paused")
    node.poke()
    if world.chance() < 0.7:
        node.after(later(world, 1.0, 10.0), resume_group, node)
    return "awsha pause"


def resume_group(node: Node) -> None:
    """`awsha resume`."""
    node.faults = None
    node.world.watch.resumed(node)
    end_switchovers(node)
    take_part(node)


def take_part(node: Node) -> None:
    """No operator keeps a node out any more."""
    node.remove_mark("released")
    node.remove_mark("paused")
    node.poke()


def fence(world: World, node: Node) -> str:
    """`awsha fence` of a node, or StopInstances in the console; the instance may be started again."""
    _console(world, "StopInstances", {"InstanceIds": [node.instance_id], "Force": True, "SkipOsShutdown": True})
    return "an operator stops the instance"


def pull(world: World, node: Node) -> str:
    """Somebody detaches a volume in the console, perhaps by force, mounted or not."""
    force = world.chance() < 0.6
    for volume in world.shape.group.volumes:
        _console(world, "DetachVolume", {"VolumeId": volume.id, "InstanceId": node.instance_id, "Force": force})
    return f"the volumes are detached in the console{', by force' if force else ''}"


# What gets something going in a steady pair, and what makes it hard. (mishap, weight)
MOVERS: tuple[tuple[Mishap, int], ...] = (
    (kill_keepalived, 8), (stop_keepalived, 10), (cut, 9), (split, 1), (freeze, 8), (crash, 8), (reboot, 3),
    (kill_agent, 3),
    (release, 4), (fence, 3), (pull, 4), (flap, 2), (crash_application, 2), (read_only, 1), (take_vip, 1), (lossy, 1),
    (pause, 1),
)  # fmt: skip
HINDRANCES: tuple[tuple[Mishap, int], ...] = (
    (api_error, 12), (lose_reply, 6), (throttle, 4), (black_hole, 4), (late_call, 4), (stale, 6), (stuck, 4),
    (cut_api, 4),
    (kill_agent, 7), (kill_at_notify, 4), (freeze, 6), (late_notifies, 5), (lost_notify, 1),
    (unreadable, 6), (late_devices, 3),
    (hold, 6),
    (bind, 2), (hang_unmount, 3), (hang_stop, 2), (crash_application, 2), (skew, 2), (lossy, 3), (cut, 4), (crash, 4),
    (kill_keepalived, 3), (stop_keepalived, 3), (reboot, 1), (release, 2), (pause, 1), (pull, 2), (fence, 1), (flap, 1),
    (take_vip, 2), (read_only, 1),
)  # fmt: skip
NEEDS_GUEST = {
    kill_keepalived, stop_keepalived, kill_agent, freeze, hold, bind, hang_unmount, hang_stop, crash_application,
    unreadable, read_only, take_vip, release, pause, late_notifies, lost_notify, kill_at_notify,
}  # fmt: skip


def strike(world: World, mishap: Mishap, node: Node) -> None:
    """One mishap, now."""
    if mishap in NEEDS_GUEST and (not node.up or node.paused):
        return
    text = mishap(world, node)
    world.tell(node.name, f"** {text}")


def likely_node(world: World) -> Node:
    """Mostly the master: there it hurts."""
    if world.chance() < 0.65:
        for node in world.nodes:
            if node.up and node.keepalived.state is MASTER:
                return node
    return world.random.choice(world.nodes)
