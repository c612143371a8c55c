"""Where a schedule begins: mostly with a pair that has served for a while, sometimes with machines that just boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from awsha.core.loop import Ambient, Loop
from awsha.core.model import ApplicationState, Heard, Intent, Role
from awsha.core.steps import SCOPES, Scope
from awsha.lab.rules import Latency
from tests.sim.agent import HEARD_MARK
from tests.sim.shape import PRIORITIES, Shape
from tests.sim.vrrp import BACKUP, MASTER

AT_ONCE = Latency.none()

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.world import World


def begin(world: World) -> None:
    """Put the world into its first state."""
    shape = world.shape
    if shape.start == "boot":
        for node in world.nodes:
            node.start()
    else:
        _steady(world)
    if shape.start == "filtered":
        names = shape.nodes
        world.network.part([(one, other) for one in names for other in names if one != other])
    if shape.group.application is not None:
        world.at(world.now + world.chance(), world.client)


def _steady(world: World) -> None:
    """One node serves; the others have listened to it (or, filtered, never heard it)."""
    first = world.random.choice(world.nodes)
    filtered = world.shape.start == "filtered"
    _attach(world, first)
    states: list[tuple[Node, dict[str, Heard]]] = []
    for node in world.nodes:
        node.up = True
        node.boot = 1
        serves = node is first
        heard: dict[str, Heard] = {}
        if not serves and not filtered:
            heard[first.name] = Heard(node.time() - 0.4, PRIORITIES[first.name])
        elif not filtered and world.chance() < 0.5:  # the others have served before
            heard |= {n.name: Heard(node.time() - 500.0, PRIORITIES[n.name]) for n in world.nodes if n is not node}
        node.marks = frozenset(HEARD_MARK + name for name in heard)
        role = Role.MASTER if serves else Role.BACKUP
        node.record(Intent(role, node.fork(), str(node.boot), node.time() - 60.0, node.keepalived.id))
        node.keepalived.resume_as(MASTER if serves else BACKUP)
        node.not_master_since = world.now - 60.0
        if serves:
            node.master_since = world.now - 60.0
        states.append((node, heard))
    for node, heard in states:
        _rested(world, node, heard)
    world.changed = True


def _attach(world: World, node: Node) -> None:
    """EC2 and the kernel of the node that serves."""
    group, region = world.shape.group, world.cloud.region
    latency = region.latency
    region.latency = AT_ONCE
    for index, volume in enumerate(group.volumes):
        place = {"VolumeId": volume.id, "InstanceId": node.instance_id, "Device": f"/dev/sd{'fg'[index]}"}
        region.call("AttachVolume", place, world.now)
    region.call("AssignPrivateIpAddresses", {"NetworkInterfaceId": node.eni_id, "PrivateIpAddresses": list(group.vips)},
                world.now)  # fmt: skip
    region.advance(world.now, world.guest_holds)
    region.latency = latency
    for volume in group.volumes:
        device = node.kernel.plug(volume.id or "")
        node.kernel.mount(device.path, volume.mount, world.now - 60.0)
    if group.application is not None:
        superblock = node.kernel.at(group.volumes[0].mount) if group.volumes else None
        node.app.state = ApplicationState.RUNNING
        node.app.superblock = superblock
        node.app.process = node.kernel.spawn("db", superblock)


def _rested(world: World, node: Node, heard: dict[str, Heard]) -> None:
    """A loop that has come to rest: taken from a template, because getting there costs as much as a short schedule."""
    agent = node.agent
    agent.heard = heard
    node.lock = agent
    agent.health = True
    take_over(agent.loop, _template(world.shape, node, world))
    agent.loop.intent = node.newest()
    agent.facts_at = dict.fromkeys(SCOPES, node.time())
    agent.quiet = True
    if world.chance() < 0.1:
        node.after(4.0 * world.chance(), agent.poke)


def take_over(mine: Loop, known: Loop) -> None:
    """All that one loop has come to know, to another one (test_sim.py: nothing is missing)."""
    mine.cloud, mine.disks, mine.vips, mine.application = known.cloud, known.disks, known.vips, known.application
    mine.memory, mine.verdict = known.memory, known.verdict
    mine._judged, mine._first_look = known._judged, known._first_look
    mine._running, mine._begun, mine._rested = known._running.copy(), known._begun.copy(), known._rested.copy()
    order, other = mine._freshness, known._freshness
    order._order = other._order
    for scope in SCOPES:
        fact, told = order._facts[scope], other._facts[scope]
        fact.changed, fact.superseded, fact.answered = told.changed, told.superseded, told.answered
        fact.asked, fact.asked_at, fact.read_at = told.asked, told.asked_at, told.read_at


_TEMPLATES: dict[tuple[int, str, str], Loop] = {}


def _template(shape: Shape, node: Node, world: World) -> Loop:
    serves = node.keepalived.state is MASTER
    key = (id(shape), node.name, "" if serves else next(n.name for n in world.nodes if n.keepalived.state is MASTER))
    loop = _TEMPLATES.get(key)
    if loop is None:
        loop = _TEMPLATES[key] = Loop(shape.group, node.me)
        loop.set_intent(node.newest())
        for _ in range(2):
            loop.turn(node.time(), node.wall(), Ambient())
            loop.read(Scope.CLOUD, world.cloud.look_plainly(node), node.time())
            for scope in (Scope.DISKS, Scope.ADDRESSES, Scope.APPLICATION):
                loop.read(scope, node.look(scope), node.time())
        loop.turn(node.time(), node.wall(), Ambient())
    return loop
