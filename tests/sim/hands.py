"""Carries out one step on the modelled kernel, as agent/execute.py does on the real one: the second look, then the act,
with anything in between. What host/*.py checks again just before it acts is checked here too."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from awsha.aws.ec2 import Ec2
from awsha.core.fencing import alive
from awsha.core.guards import Fresh
from awsha.core.hooks import FAILING, mark_of
from awsha.core.model import DiskFacts, Intent
from awsha.core.steps import (
    AssignAddresses,
    Attach,
    Check,
    ClearReleasing,
    Detach,
    Failure,
    KernelAddresses,
    ListHolders,
    MountVolume,
    Outcome,
    RunHooks,
    SetMark,
    Signal,
    StartApplication,
    Step,
    StopApplication,
    StopInstance,
    TagReleasing,
    TagServing,
    UnassignAddresses,
    Unmount,
    VolumeStep,
)
from awsha.core.volumes import forced_mark
from tests.sim.cloud import Call
from tests.sim.kernel import Refused, Superblock

if TYPE_CHECKING:
    from tests.sim.agent import Agent

ACTIONS = {
    Attach: "AttachVolume",
    Detach: "DetachVolume",
    StopInstance: "StopInstances",
    TagReleasing: "CreateTags",
    TagServing: "CreateTags",
    ClearReleasing: "DeleteTags",
    AssignAddresses: "AssignPrivateIpAddresses",
    UnassignAddresses: "UnassignPrivateIpAddresses",
}
Work = Callable[[], Outcome]


class Hands:
    """The hands of one agent."""

    __slots__ = ("_children", "_count", "_hooks_for", "agent")

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._children: dict[int, Work] = {}  # programs under way
        self._count = 0
        self._hooks_for: Intent | None = None  # what the hooks under way were planned for

    def start(self, step: Step, planned: Intent | None) -> None:
        """A worker thread takes the step up."""
        node = self.agent.node
        node.world.watch.starting(self.agent, step)
        world = node.world
        chance = world.chance()
        busy = 1.5 * (chance - 0.97) / 0.03 if chance > 0.97 else 0.0  # all workers wait for slow calls
        world.started += 2
        if world.at_step and world.started - 1 in world.at_step:
            world.at(world.now, world.at_step.pop(world.started - 1))
            busy = 1.5 * chance
        node.after(0.003 * chance + busy, self._guard, step, planned, world.started)

    def _guard(self, step: Step, planned: Intent | None, number: int) -> None:
        agent = self.agent
        if agent.dead:
            return
        node, world = agent.node, agent.node.world
        refused = world.wiring.refusal(step, self._fresh(step), planned, node.instance_id)
        if refused:
            self._end(step, Outcome(False, refused, failure=Failure.REFUSED))
            return
        if isinstance(step, RunHooks):
            self._hooks_for = planned
        chance = world.chance()
        strike = world.at_step.pop(number, None) if world.at_step else None
        if strike is not None:
            world.at(world.now, strike)
            node.after(0.4 * chance, self._act, step, world.now)
        elif chance < 0.75:
            self._act(step, world.now)
        else:
            node.after((0.01 if chance < 0.95 else 0.3) * world.chance(), self._act, step, world.now)

    def _fresh(self, step: Step) -> Fresh:
        """What the guard judges by, read now (Executor._fresh)."""
        agent = self.agent
        node = agent.node
        disk: DiskFacts | None = None
        if isinstance(step, VolumeStep) and step.needs_disk:
            disk = node.kernel.facts()[step.volume_id]
        disks = node.kernel.answering() if isinstance(step, StartApplication) else None
        holder = step.instance_id if isinstance(step, Detach | StopInstance) else ""
        heard = agent.heard.get(agent.loop.me.peers.get(holder, ""))
        holder_heard = heard is not None and alive(heard, node.time(), agent.loop.group.advert_int)
        return Fresh(node.newest(), node.marks, disk, holder_heard, disks)

    def _end(self, step: Step, outcome: Outcome) -> None:
        node = self.agent.node
        if node.world.trace is not None:
            node.world.trace.outcome(node.world.now, node.name, step, outcome)
        node.world.watch.ended(self.agent, step)
        if not self.agent.dead:
            self.agent.finished(step, outcome)

    # --- acts ---

    def _act(self, step: Step, looked_at: float) -> None:
        agent = self.agent
        if agent.dead:
            return
        action = ACTIONS.get(type(step))
        world = agent.node.world
        if action is None:
            world.watch.acting(agent, step, looked_at)
            self._act_here(step)
            return
        if isinstance(step, Detach) and step.force and step.instance_id != agent.node.instance_id:
            agent.node.put_mark(forced_mark(step.volume_id))
        world.cloud.send(
            Call(agent, action, lambda ec2: self._at_ec2(step, ec2), lambda told: self._end(step, told),
                 lambda: world.watch.acting(agent, step, looked_at), world.now + world.wiring.retry_s)
        )  # fmt: skip

    def _at_ec2(self, step: Step, ec2: Ec2) -> Outcome:
        """Executor._act, on awsha's own door. Raises Ec2Error."""
        node = self.agent.node
        match step:
            case Attach():
                return Outcome(True, learned=ec2.attach(step.volume_id, node.instance_id, step.device))
            case Detach():
                told = ec2.detach(step.volume_id, step.instance_id, force=step.force)
                node.world.watch.detached(node, step)
                return Outcome(True, "" if told else "it was not attached there (any more)", learned=told)
            case StopInstance():
                return Outcome(True, f"EC2 says {ec2.stop_instance(step.instance_id)}")
            case ClearReleasing():
                ec2.clear_releasing(step.volume_id)
            case TagReleasing():
                ec2.tag_releasing(step.volume_id, node.name, node.wall(), step.why)
            case TagServing():
                ec2.tag_serving(step.volume_id, node.name, node.wall())
            case AssignAddresses():
                ec2.assign(node.eni_id, step.addresses)
            case UnassignAddresses():
                ec2.unassign(node.eni_id, step.addresses)
        return Outcome(True)

    def _act_here(self, step: Step) -> None:
        node = self.agent.node
        world = node.world
        group = self.agent.loop.group
        chance = world.chance()
        match step:
            case StartApplication():
                node.app.start(lambda told: self._end(step, told))
            case StopApplication():
                node.app.stop(lambda told: self._end(step, told), group.timeouts.stop_s)
            case Unmount():
                self._unmount(step, chance)
            case MountVolume():
                self._child(step, 0.01 + 0.1 * chance, lambda: self._mount(step))
            case Check():
                self._child(step, 0.02 + 0.2 * chance, lambda: self._check(step))
            case RunHooks():
                self._child(step, 0.01 + 3.0 * chance**4, lambda: self._hooks(step, failed=chance % 0.1 < 0.003))
            case ListHolders():
                self._child(step, 0.01 + 0.05 * chance, lambda: self._holders(step))
            case _:
                self._end(step, self._at_once(step))

    def _at_once(self, step: Step) -> Outcome:
        node = self.agent.node
        match step:
            case Signal():
                node.signal(step)
            case KernelAddresses():
                change = frozenset(step.addresses)
                node.set_vips(node.kernel.vips | change if step.present else node.kernel.vips - change)
            case SetMark():
                if not step.present:
                    node.world.watch.mark_lifted(node, step.mark)
                (node.put_mark if step.present else node.remove_mark)(step.mark)
            case _:
                raise AssertionError(f"no act for {step!r}")
        return Outcome(True)

    # --- programs ---

    def _child(self, step: Step, seconds: float, work: Work) -> None:
        """A program that takes its time. When the agent is killed it is over soon (systemd clears the cgroup)."""
        self._count += 1
        self._children[self._count] = work
        self.agent.node.after(seconds, self._child_ends, self._count, step)

    def _child_ends(self, number: int, step: Step) -> None:
        work = self._children.pop(number, None)
        if work is None or self.agent.dead:
            return
        try:
            outcome = work()
        except Refused as refused:
            outcome = Outcome(False, str(refused), failure=Failure.BUSY if refused.busy else Failure.OTHER)
        self._end(step, outcome)

    def orphan(self) -> None:
        """The agent was killed: what its programs do they do now, or never."""
        children, self._children = self._children, {}
        for work in children.values():
            if self.agent.node.world.chance() < 0.5:
                try:
                    work()
                except Refused:
                    continue

    def _hooks(self, step: RunHooks, *, failed: bool) -> Outcome:
        """agent/hooks.py: what is not wanted any more is ended; what has run is marked, unless all fails with it."""
        node = self.agent.node
        refused = node.world.wiring.refusal(step, self._fresh(step), self._hooks_for, node.instance_id)
        if refused:
            return Outcome(False, refused, failure=Failure.REFUSED)
        if not failed or step.hook not in FAILING:
            node.put_mark(mark_of(step.hook))
        return Outcome(not failed, failure=Failure.OTHER if failed else None)

    def _same_device(self, step: MountVolume | Check) -> None:
        """host/mounts.py same_device: the serial is read again just before."""
        device = self.agent.node.kernel.devices.get(step.volume_id)
        if device is None or not device.visible or (device.path, device.number) != (step.device, step.number):
            raise Refused(f"{step.device} is not {step.volume_id} any more")

    def _mount(self, step: MountVolume) -> Outcome:
        node = self.agent.node
        kernel = node.kernel
        if node.world.wiring.serial_check:
            self._same_device(step)
        there = kernel.at(step.target)
        if there is not None:
            if there.volume_id == step.volume_id and there.device.present:
                return Outcome(True, "was mounted already")
            raise Refused(f"something is mounted at {step.target}", busy=True)
        node.world.watch.mounting(node, step)
        kernel.mount(step.device, step.target, node.world.now)
        node.disks_changed()
        node.world.watch.mounted(node, step)
        return Outcome(True)

    def _check(self, step: Check) -> Outcome:
        if self.agent.node.world.wiring.serial_check:
            self._same_device(step)
        self.agent.node.remove_mark(forced_mark(step.volume_id))
        self.agent.node.kernel.disks[step.volume_id].unclean = False
        self.agent.node.world.watch.checked(self.agent.node, step.volume_id)
        return Outcome(True)

    def _holders(self, step: ListHolders) -> Outcome:
        return Outcome(True, learned=self.agent.node.kernel.holders(frozenset(m.number for m in step.mounts)))

    def _unmount(self, step: Unmount, chance: float) -> None:
        """The mounts go one after the other; then the page cache is written, which can hang."""
        node, limit_s = self.agent.node, self.agent.loop.group.timeouts.unmount_s
        hangs = node.unmount_hangs and not step.lazy
        if hangs and chance < 0.5:
            node.after(limit_s, self._end, step, Outcome(False, "umount did not end", failure=Failure.TIMEOUT))
            return
        flushed: list[Superblock] = []

        def work() -> Outcome:
            for mount in step.mounts:
                superblock = node.kernel.unmount(mount.target, mount.number, step.lazy)
                if superblock is not None and superblock.flushing:
                    flushed.append(superblock)
            node.disks_changed()
            if not hangs:
                flush()
            return Outcome(True)

        def flush() -> None:
            for superblock in flushed:
                node.kernel.flushed(superblock)

        if not hangs:
            self._child(step, 0.005 + 0.05 * chance, work)
            return
        # The table shows nothing any more, and umount(8) is still in the kernel when its time is over.
        try:
            work()
        except Refused as refused:
            self._end(step, Outcome(False, str(refused), failure=Failure.BUSY))
            return
        node.after(limit_s, self._end, step, Outcome(False, "umount did not end", failure=Failure.TIMEOUT))
        node.after(limit_s * (0.5 + 2 * chance), flush)
