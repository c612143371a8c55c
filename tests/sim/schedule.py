"""One schedule: a world, a few mishaps at chosen moments, healing, and the proof that it comes to rest at the goal."""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from random import Random

from awsha.core.model import Role
from awsha.core.plan import plan
from awsha.core.situation import Code
from tests.sim import faults
from tests.sim.healing import heal
from tests.sim.invariants import Violation
from tests.sim.node import Node
from tests.sim.shape import SHAPES, Shape
from tests.sim.start import begin
from tests.sim.vrrp import FAULT, MASTER
from tests.sim.wiring import REAL, Wiring
from tests.sim.world import START, World

LIVENESS_S = 240.0  # virtual seconds from healing to rest, at most
EVENTS_MOST = 60_000
# With these reasons a healed node may rest: nothing can cancel a detach that was asked for while it is mounted.
REST = {Code.FENCED, Code.DETACH_REQUESTED, Code.DAMPED, Code.HOOK_WARNED}
Table = tuple[list[faults.Mishap], list[int]]  # mishaps, and their weights added up
MISCONFIGURED = {Code.MULTI_ATTACH, Code.TWO_ATTACHMENTS}


@dataclass(frozen=True)
class Result:
    """How one schedule went. `steps`: turns of converge loops; `events`: of the world."""

    seed: int
    index: int
    steps: int
    events: int
    rule: str = ""
    text: str = ""
    trace: str = ""
    virtual_s: float = 0.0


def run(seed: int, index: int, nodes: int = 2, *, wiring: Wiring = REAL, trace: bool = False,
        favour: tuple[faults.Mishap, ...] = ()) -> Result:  # fmt: skip
    """Run schedule `index` of `seed`. The same arguments do the same thing, on any machine.

    `favour`: mishaps that come in most of the schedules, for a mutant that shows only with them.
    """
    random = Random((seed << 32) ^ (index * 0x9E3779B1) ^ (nodes << 60))  # noqa: S311 - repeatable on purpose
    shapes = SHAPES[nodes]
    shape = shapes[int(random.random() * len(shapes))]
    world = World(shape, random, wiring, trace)
    rule = text = ""
    try:
        begin(world)
        _plan_mishaps(world, favour)
        _play(world)
    except Violation as violation:
        rule, text = violation.rule, violation.text
    except Exception as error:  # noqa: BLE001  a defect in core is a finding, with a seed
        if trace:
            import traceback

            world.tell("", traceback.format_exc())
        rule, text = "exception", f"{type(error).__name__}: {error}"
    if rule:
        world.tell("", f"VIOLATION {rule}: {text}")
    told = f"{_headline(shape)}\n{world.trace.tell()}" if world.trace is not None else ""
    result = Result(seed, index, world.steps, world.events, rule, text, told, world.now - START)
    world.end()
    return result


def _headline(shape: Shape) -> str:
    group = shape.group
    return (
        f"nodes {' '.join(shape.nodes)}, {len(group.volumes)} volumes, {len(group.vips)} VIPs, application "
        f"{'yes' if group.application else 'no'}, fence {group.fence}, open_files {group.open_files}, "
        f"start {shape.start}"
        f"{', Multi-Attach' if shape.shared else ''}"
    )


def _added_up(table: tuple[tuple[faults.Mishap, int], ...]) -> Table:
    return [mishap for mishap, _ in table], list(accumulate(weight for _, weight in table))


MOVERS, HINDRANCES = _added_up(faults.MOVERS), _added_up(faults.HINDRANCES)


def _pick(world: World, table: Table) -> faults.Mishap:
    mishaps, added_up = table
    return mishaps[bisect(added_up, world.chance() * added_up[-1])]  # as Random.choices does it


def _plan_mishaps(world: World, favour: tuple[faults.Mishap, ...]) -> None:
    """One thing that makes the pair move, and mostly one to three that come at chosen events or times."""
    random = world.random
    world.at(world.now + 0.5 * random.random(), _strike, world, MOVERS)
    last = 0.5
    for _ in range(int(0.5 + 4.5 * random.random() * random.random()) + len(favour[:1])):
        table = HINDRANCES if random.random() < 0.85 else MOVERS
        if favour:
            table = _added_up(tuple((mishap, 1) for mishap in favour))
        if random.random() < 0.5:
            world.at_step[1 + int(28 * random.random())] = partial(_strike, world, table)
            last = max(last, 4.0)
        else:
            when = 8.0 * random.random() ** 2
            last = max(last, when)
            world.at(world.now + when, _strike, world, table)
    chance = random.random()
    world.at(world.now + last + (1.0 + 9.0 * chance**2 if chance < 0.95 else 30.0), _calm, world)


def _strike(world: World, table: Table) -> None:
    faults.strike(world, _pick(world, table), faults.likely_node(world))


def _calm(world: World) -> None:
    if world.now < world.not_calm_before:
        world.at(world.not_calm_before, _calm, world)
        return
    world.at_step.clear()
    heal(world)
    world.calm = True
    world.deadline = world.now + LIVENESS_S


def _play(world: World) -> None:
    """Event after event, until the world rests or its time is over."""
    queue, due, watch = world.queue, world.due, world.watch
    events = 0
    while queue:
        node, boot, act, args = queue.pop()
        at = -due.pop()
        world.now = at
        if node is not None:
            if node.boot != boot:
                continue
            if node.paused:
                node.held.append((act, args))
                continue
        act(*args)
        events += 1
        if world.changed:
            watch.check()
        if world.settled:
            world.settled = _at_rest(world)
            if world.settled:
                break
        if at > world.deadline or events > EVENTS_MOST:
            world.events = events
            raise Violation("liveness", f"{_unrest(world)} {at - world.deadline + LIVENESS_S:.0f} s after healing")
    world.events = events
    _final(world)


def _at_rest(world: World) -> bool:
    """Whether every node has come to rest."""
    for node in world.nodes:
        if not node.up or node.paused or not node.keepalived.alive or node.agent.dead or not node.agent.quiet:
            return False
        if node.keepalived.state not in {MASTER, FAULT, "backup"} or (node.one_shot and not node.one_shot.dead):
            return False
        newest = node.newest()
        if newest is None or (newest.role is Role.MASTER) != (node.keepalived.state is MASTER):
            return False
    if world.cloud.region.next_due() is not None and not _asks_a_busy_guest(world):
        return False
    masters = [node for node in world.nodes if node.keepalived.state is MASTER]
    return len(masters) == 1 and all(_plans_nothing(world, node, node is masters[0]) for node in world.nodes)


def _plans_nothing(world: World, node: Node, master: bool) -> bool:
    """Whether the goal is reached by facts read at this moment: planning again changes nothing."""
    loop = node.agent.loop
    now = node.time()
    known = loop.situation(now, node.wall(), node.agent.ambient(now))
    host = replace(known.host, disks=node.kernel.facts(), vips=node.look_at_addresses(),
                   application=node.look_at_application())  # fmt: skip
    decided = plan(replace(known, cloud=world.cloud.look_plainly(node), host=host))
    codes = {reason.code for reason in decided.reasons}
    rest = REST | MISCONFIGURED if world.shape.shared else REST
    ready = decided.ready or not master or bool(codes & MISCONFIGURED)
    return not decided.steps and not codes - rest and ready


def _asks_a_busy_guest(world: World) -> bool:
    """A detach that was asked for while the volume is mounted: EC2 asks the guest for ever."""
    volumes = world.cloud.region.world.volumes.values()
    return any(attachment.state == "busy" for volume in volumes for attachment in volume.attachments)


def _unrest(world: World) -> str:
    told = []
    for node in world.nodes:
        last = node.agent.last
        reasons = ", ".join(f"{r.code}" for r in last.plan.reasons) if last else "never turned"
        told.append(f"{node.name} ({node.keepalived.state if node.up else 'down'}: {reasons})")
    return "not converged: " + "; ".join(told)


def _final(world: World) -> None:
    """What was promised is kept, and the goal is not only planned but true."""
    world.watch.all_kept()
    world.cloud.region.check_invariants()
    if world.shape.shared:
        return
    group, region = world.shape.group, world.cloud.region.world
    for node in world.nodes:
        master = node.keepalived.state is MASTER
        for volume in group.volumes:
            attached = region.volumes[volume.id or ""].on(node.instance_id) is not None
            mounted = node.kernel.mounted(volume.id or "") is not None
            if (attached, mounted) != (master, master):
                raise Violation(
                    "goal", f"{node.name} is {node.keepalived.state}: attached {attached}, mounted {mounted}"
                )
        owned = [region.owners.get(vip) == node.eni_id for vip in group.vips]
        if owned != [master] * len(owned) or (node.kernel.vips == frozenset(group.vips)) != master:
            raise Violation("goal", f"{node.name} is {node.keepalived.state}: VIPs {owned}, {sorted(node.kernel.vips)}")
        if group.application is not None and (node.app.process is not None) != master:
            raise Violation("goal", f"{node.name} is {node.keepalived.state}: its application is {node.app.state}")
