"""What must never happen. Two kinds: what is physically true after each event, and what an act must have known.

The rules are written down again here, in the plainest form, and not taken from core: a wrong planner must not be
able to excuse itself. Where an act can be overtaken between its second look and itself (nothing excludes that), the
rule is applied to the moment of the second look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from awsha.core.fencing import alive
from awsha.core.handover import under_way
from awsha.core.model import AttachmentState, InstanceState, Role, Unknown, VolumeFacts
from awsha.core.policy import Fence, Fsck, OpenFiles
from awsha.core.steps import (
    AssignAddresses,
    Attach,
    Check,
    Detach,
    KernelAddresses,
    MountVolume,
    Scope,
    SetMark,
    Signal,
    StartApplication,
    Step,
    StopInstance,
    Unmount,
)
from tests.sim.shape import NAME_OF

if TYPE_CHECKING:
    from tests.sim.agent import Agent
    from tests.sim.kernel import Process
    from tests.sim.node import Node
    from tests.sim.world import World

UNSEEN_S = 4.0  # somebody who came so lately may not be seen yet: views lag by up to 3 s
NOBODY_CAME_S = 5.0  # a volume that was taken by force is attached by its taker sooner than this
UNNOTICED_S = 2.0  # vrrp_grace_s, and some time to turn
OVERTAKEN_S = 0.5  # up to 0.4 s from the second look to the act; freezes aside
HELD_LATELY_S = 9.0  # facts permit a step for 5 s, and views lag by up to 3 s
TAKES = (Attach, AssignAddresses, StopInstance, MountVolume, Check, StartApplication)
QUIET_S = 600.0  # without a failure for so long after a wait, the next one is the first
OLD_S = {Scope.CLOUD: 5.0, Scope.APPLICATION: 6.5}  # facts that are older permit nothing; a check takes up to 5 s
LOCAL_OLD_S = 1.5
STOPPING = {InstanceState.STOPPING, InstanceState.SHUTTING_DOWN}
STOPPED = {InstanceState.STOPPED, InstanceState.TERMINATED}


class Violation(Exception):
    """An invariant does not hold. `rule`: its short name."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule
        self.text = text


class Watch:
    """Sees everything, and raises Violation."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._active: dict[tuple[str, str], Agent] = {}
        self._held_at: dict[tuple[str, str], float] = {}  # (instance, volume) -> last seen attached
        self._forced: dict[tuple[str, str], int] = {}  # (node, volume) -> the boot in which it took it by force
        self._fenced: dict[tuple[str, str], str] = {}  # (node, volume) -> the node that holds what this one lost
        self._taken_at: dict[tuple[str, str], float] = {}  # the same -> when that one attached it
        self._failed: dict[str, tuple[int, float, float]] = {}  # node -> failed so often, the last time, must wait
        self._marked_at: dict[tuple[str, str], float] = {}  # (node, mark) -> since when
        self._asked: set[tuple[str, str, int]] = set()  # (node, volume, boot) whose holders were asked to end
        self._hears: dict[tuple[str, str], tuple[float, float]] = {}  # (node, peer) -> heard without a break (from, to)

    # --- physically true, after each event ---

    def check(self) -> None:
        """After an event that changed a kernel."""
        world = self.world
        world.changed = False
        writers: dict[str, str] = {}
        for node in world.nodes:
            for superblock in node.kernel.superblocks:
                if not superblock.device.present:
                    continue
                volume_id = superblock.volume_id
                if volume_id in writers:
                    raise Violation("two-writers", f"{volume_id} is mounted on {writers[volume_id]} and {node.name}")
                writers[volume_id] = node.name
            for volume in world.shape.group.volumes:
                top = node.kernel.at(volume.mount)
                if top is not None and top.volume_id != volume.id:
                    raise Violation("wrong-disk", f"{node.name}: {top.volume_id} is mounted at {volume.mount}")

    def acknowledged(self, node: Node, record: int) -> None:
        """A client was told that a record is kept."""
        for volume in self.world.shape.group.volumes[:1]:
            if record not in self.world.disks[volume.id or ""].records:
                raise Violation("lost", f"{node.name} acknowledged record {record}, which is not on {volume.id}")

    def all_kept(self) -> None:
        """At the end: whatever was acknowledged is on the disk."""
        for volume in self.world.shape.group.volumes[:1]:
            lost = set(self.world.acknowledged) - self.world.disks[volume.id or ""].records
            if lost:
                raise Violation("lost", f"acknowledged records {sorted(lost)} are not on {volume.id}")

    def application_started(self, node: Node) -> None:
        """The application is up."""
        for volume in self.world.shape.group.volumes:
            if node.kernel.at(volume.mount) is None:
                raise Violation("bare-application", f"{node.name}: it runs, and nothing is mounted at {volume.mount}")

    def signalled(self, node: Node, process: Process, numbers: frozenset[str]) -> None:
        """A process gets a signal."""
        if process.superblock is None or process.superblock.device.number not in numbers:
            raise Violation("innocent", f"{node.name}: {process.command}[{process.pid}] does not hold the file system")

    def marked(self, node: Node, mark: str) -> None:
        """A mark that was not there stands."""
        self._marked_at[node.name, mark] = self.world.now

    def mark_lifted(self, node: Node, mark: str) -> None:
        """A node takes back a mark by itself."""
        if mark in {"released", "paused"}:
            raise Violation("operator", f"{node.name} ends what only an operator may end: {mark}")

    # --- bookkeeping ---

    def judged(self, node: Node, good: bool) -> None:
        """keepalived is told a verdict. A node that failed as master waits longer each time (ADR 0005)."""
        now, before = node.time(), self._failed.get(node.name)
        series = before is not None and now - (before[1] + before[2]) < QUIET_S
        if not good and node.healthy and not node.marks & {"fenced", "released"} and not under_way(node.marks):
            times = before[0] + 1 if before is not None and series else 1
            longest = self.world.shape.group.timeouts.damping_s
            self._failed[node.name] = (times, now, min(10.0 * 2 ** (times - 1), longest))
        elif good and not node.healthy and before is not None and now - before[1] < before[2] - 1e-6:
            raise Violation(
                "flaps", f"{node.name} failed {before[0]} times, and competes again after {now - before[1]:.1f} s"
            )

    def resumed(self, node: Node) -> None:
        """An operator says that it is mended."""
        self._failed.pop(node.name, None)

    def booted(self, node: Node) -> None:
        """A fresh kernel: nothing that was true of the old one counts."""
        self._failed.pop(node.name, None)
        for book in (self._forced, self._fenced):
            for key in [k for k in book if k[0] == node.name]:
                del book[key]
        for pair in [k for k in self._hears if k[0] == node.name]:
            del self._hears[pair]

    def heard(self, node: Node, peer: str) -> None:
        """An advert of a master. One that fenced this node and is heard for long ends the fence (ADR 0003)."""
        if not self._fenced:
            return
        now, group = self.world.now, self.world.shape.group
        since, last = self._hears.get((node.name, peer), (now, now))
        since = now if now - last >= 3 * group.advert_int else since
        self._hears[node.name, peer] = (since, now)
        if now - since >= group.timeouts.unfence_s - 2 * group.advert_int:  # an advert speaks for a while
            for key in [k for k, taker in self._fenced.items() if k[0] == node.name and NAME_OF.get(taker) == peer]:
                del self._fenced[key]

    def note_holders(self) -> None:
        """Before anything changes at EC2: who holds what until now."""
        now = self.world.now
        for volume in self.world.cloud.region.world.volumes.values():
            for attachment in volume.attachments:
                self._held_at[attachment.instance_id, volume.id] = now
        if self._fenced:
            self._who_fenced()

    def _who_fenced(self) -> None:
        """Whoever attaches a volume next has taken it; a fenced node is free once that one has let go, or is down."""
        region = self.world.cloud.region.world
        for (name, volume_id), taker in list(self._fenced.items()):
            holder = next((a.instance_id for a in region.volumes[volume_id].attachments), "")
            if taker and (holder != taker or region.instances[taker].state != "running"):
                del self._fenced[name, volume_id]
            elif holder and NAME_OF[holder] != name:
                if region.instances[holder].state != "running":
                    del self._fenced[name, volume_id]  # it came and went before this node could know
                    continue
                if not taker:
                    self._taken_at[name, volume_id] = self.world.now
                self._fenced[name, volume_id] = holder

    def saw_lost_disk(self, node: Node, volume_id: str) -> None:
        """A look has shown a node that the device under its mount is gone: it knows that it was fenced."""
        self._fenced.setdefault((node.name, volume_id), "")

    def unmarked(self, node: Node) -> None:
        """A node takes its fenced mark away. That is the end of it when nobody has come to take the volume."""
        now = self.world.now
        for key in [k for k in self._fenced if k[0] == node.name]:
            held = max((at for (_, volume_id), at in self._held_at.items() if volume_id == key[1]), default=0.0)
            unseen = now - self._taken_at.get(key, now) < UNSEEN_S if self._fenced[key] else now - held >= NOBODY_CAME_S
            if unseen:
                del self._fenced[key]

    def detached(self, node: Node, step: Detach) -> None:
        """EC2 has accepted a detach."""
        if step.force and step.instance_id != node.instance_id:
            self._forced[node.name, step.volume_id] = node.boot

    def checked(self, node: Node, volume_id: str) -> None:
        """fsck has run."""
        self._forced.pop((node.name, volume_id), None)

    def mounting(self, node: Node, step: MountVolume) -> None:
        """A mount is about to be made: of what was cut off in use only after a check, whoever cut it off."""
        volume = next(v for v in self.world.shape.group.volumes if v.id == step.volume_id)
        device = node.kernel.devices.get(step.volume_id)
        mounted = any(s.device is device for s in node.kernel.superblocks)
        if volume.fsck is not Fsck.NEVER and self.world.disks[step.volume_id].unclean and not mounted:
            raise Violation("unchecked", f"{node.name} mounts {step.volume_id}, cut off in use, without a check")

    def mounted(self, node: Node, step: MountVolume) -> None:
        """A mount has been made."""
        volume = next(v for v in self.world.shape.group.volumes if v.id == step.volume_id)
        if volume.fsck is not Fsck.NEVER and (node.name, step.volume_id) in self._forced:
            raise Violation("unchecked", f"{node.name} took {step.volume_id} by force and mounts it without a check")

    # --- what an act must know ---

    def starting(self, agent: Agent, step: Step) -> None:
        """A step is handed to a worker."""
        node = agent.node
        key = (node.name, step.resource)
        other = self._active.get(key)
        if other is not None and not other.dead and node.up:
            raise Violation("two-steps", f"{node.name}: {step!r} begins while another step works on {step.resource}")
        self._active[key] = agent
        for scope in step.needs:
            if scope is Scope.APPLICATION and self.world.shape.group.application is None:
                continue
            age = node.time() - agent.facts_at.get(scope, float("-inf"))
            if age > OLD_S.get(scope, LOCAL_OLD_S):
                raise Violation("old-facts", f"{node.name}: {step!r} relies on {scope} of {age:.1f} s ago")
        self._must_know(agent, step)

    def _must_know(self, agent: Agent, step: Step) -> None:
        """What a step takes for true of EC2 and of this node."""
        node = agent.node
        if isinstance(step, Attach):
            facts = _volume(agent, step.volume_id)
            if facts is None or facts.attachments:
                raise Violation("guess", f"{node.name} attaches {step.volume_id} without knowing that it is free")
        elif isinstance(step, MountVolume | Check):
            facts = _volume(agent, step.volume_id)
            held = [(a.instance_id, a.state) for a in facts.attachments] if facts is not None else []
            if held != [(node.instance_id, AttachmentState.ATTACHED)]:
                raise Violation(
                    "guess", f"{node.name}: {step!r} without knowing that it is attached here, and here only"
                )
        elif isinstance(step, Detach):
            if step.instance_id == node.instance_id:
                disk = agent.loop.disks.get(step.volume_id)
                if disk is None or isinstance(disk.mount, Unknown):
                    raise Violation("guess", f"{node.name} detaches {step.volume_id} without knowing what is mounted")
            else:
                self._may_fence(agent, step, (step.volume_id,))
        elif isinstance(step, StopInstance):
            volumes = tuple(v.id or "" for v in self.world.shape.group.volumes)
            self._may_fence(agent, step, volumes)

    def ended(self, agent: Agent, step: Step) -> None:
        """A step is over."""
        key = (agent.node.name, step.resource)
        if self._active.get(key) is agent:
            del self._active[key]

    def acting(self, agent: Agent, step: Step, looked_at: float) -> None:
        """The act itself begins; its second look was at `looked_at`."""
        node, now = agent.node, self.world.now
        takes = isinstance(step, TAKES) or (isinstance(step, KernelAddresses) and step.present)
        takes = takes or (isinstance(step, Detach) and step.instance_id != node.instance_id)
        if takes and (node.best is None or node.best.role is not Role.MASTER):
            since = max(node.not_master_since, node.resumed_at)
            if node.best is None or now - since > OVERTAKEN_S:
                raise Violation(
                    "not-master", f"{node.name}: {step!r}, and it has not been master for {now - since:.1f} s"
                )
        self._by_marks(agent, step, looked_at, takes=takes)
        if isinstance(step, Detach) and step.instance_id == node.instance_id:
            superblock = node.kernel.mounted(step.volume_id)
            if superblock is not None and superblock.device.present and superblock.mounted_at < looked_at:
                raise Violation("detach-mounted", f"{node.name} detaches {step.volume_id}, which is mounted there")
        if isinstance(step, AssignAddresses):
            self._may_assign(node)
        if isinstance(step, Unmount) and step.lazy:
            superblock = node.kernel.mounted(step.volume_id)
            if superblock is not None and superblock.device.present:
                raise Violation("lazy", f"{node.name} unmounts {step.volume_id} lazily, and its disk is there")
        if isinstance(step, SetMark) and step.mark == "fenced" and not step.present:
            for volume in self.world.shape.group.volumes:
                if node.kernel.mounted(volume.id or "") is not None:
                    raise Violation(
                        "unfenced", f"{node.name} takes its fenced mark away with {volume.id} still mounted"
                    )

    def _stood(self, node: Node, mark: str, looked_at: float) -> bool:
        """Whether a mark has been there since before a second look."""
        return mark in node.marks and self._marked_at.get((node.name, mark), 0.0) < looked_at

    def _by_marks(self, agent: Agent, step: Step, looked_at: float, *, takes: bool) -> None:
        """A paused node does nothing, one that is kept out takes nothing; a holder that the second look heard is not
        acted against."""
        node = agent.node
        if self._stood(node, "paused", looked_at):
            raise Violation("paused", f"{node.name}: {step!r}, and the group is paused")
        if isinstance(step, Signal):
            self._may_signal(node, step)
        if not takes:
            return
        for mark in ("released", "fenced", *under_way(node.marks)):
            if self._stood(node, mark, looked_at):
                raise Violation("kept-out", f"{node.name}: {step!r}, and it is {mark}")
        if not isinstance(step, Detach | StopInstance) or node.resumed_at > looked_at:
            return
        heard, then = agent.heard.get(NAME_OF[step.instance_id]), looked_at - node.clock_lost
        if heard is not None and heard.at < then and alive(heard, then, self.world.shape.group.advert_int):
            raise Violation("fenced-master", f"{node.name}: {step!r}, which its second look has heard as master")

    def _may_signal(self, node: Node, step: Signal) -> None:
        """With `wait` nobody is signalled; with `terminate` those on a living disk are asked to end before they are
        killed."""
        policy, asked = self.world.shape.group.open_files, (node.name, step.volume_id, node.boot)
        if policy is OpenFiles.WAIT:
            raise Violation("policy", f"{node.name}: {step!r}, with open_files {policy}")
        numbers = {mount.number for mount in step.mounts}
        lives = any(s.device.present and s.device.number in numbers for s in node.kernel.superblocks)
        if not step.kill:
            self._asked.add(asked)
        elif policy is OpenFiles.TERMINATE and lives and asked not in self._asked:
            raise Violation("policy", f"{node.name}: {step!r}, and nobody was asked to end")

    def _may_assign(self, node: Node) -> None:
        """A VIP is taken by a node only while it holds the volumes (by truth; facts may be a few seconds old)."""
        region = self.world.cloud.region.world
        for volume in self.world.shape.group.volumes:
            if region.volumes[volume.id or ""].on(node.instance_id) is not None:
                continue
            held = self._held_at.get((node.instance_id, volume.id or ""), float("-inf"))
            if self.world.now - max(held, node.resumed_at) > HELD_LATELY_S:
                raise Violation("vip-without-volume", f"{node.name} takes the VIPs and does not hold {volume.id}")

    def _may_fence(self, agent: Agent, step: Detach | StopInstance, volumes: tuple[str, ...]) -> None:
        """Only a holder that is silent, was heard before, had its grace and does not release is acted against, in the
        way of the policy; one that is stopping is let stop."""
        instance_id = step.instance_id
        node, group, peer = agent.node, self.world.shape.group, NAME_OF[instance_id]
        instances = agent.loop.cloud.instances
        if isinstance(instances, Unknown):
            raise Violation("guess", f"{node.name} acts against {peer} without knowing its state")
        instance = instances.get(instance_id)
        if instance is None or instance.state in STOPPED:
            return
        if group.fence is not (Fence.STOP_INSTANCE if isinstance(step, StopInstance) else Fence.FORCE_DETACH):
            raise Violation(
                "policy", f"{node.name}: {step!r} against {instance.state} {peer}, with fence {group.fence}"
            )
        if instance.state in STOPPING:
            if isinstance(step, Detach):
                raise Violation("policy", f"{node.name}: {step!r} does not wait until {peer} has stopped")
            return
        self._not_fenced_itself(node, peer, volumes)
        victim = self.world.by_instance[instance_id]
        dead_s = 0.0 if victim.keepalived.alive else self.world.now - victim.keepalived_dead_at
        last = victim.agent.last
        awake = victim.up and not victim.paused and not victim.agent.dead and victim.lock is victim.agent
        if awake and last is not None and last.plan.goal == "master" and dead_s > UNNOTICED_S:
            raise Violation(
                "fenced-healthy", f"{peer} serves {dead_s:.1f} s after its keepalived died, and is fenced for it"
            )
        heard = agent.heard.get(peer)
        if heard is None:
            raise Violation("never-heard", f"{node.name} acts against {peer}, which it has never heard")
        if heard.priority > 0 and node.time() - heard.at < 3 * group.advert_int - 1e-6:
            raise Violation(
                "fenced-master", f"{node.name} acts against {peer}, heard {node.time() - heard.at:.1f} s ago"
            )
        since = node.master_since
        if since is None or self.world.now - since < group.timeouts.release_grace_s - 1e-6:
            raise Violation("no-grace", f"{node.name} acts against {peer} without the grace of its release")
        if self.world.now - since > group.timeouts.handover_s or self._ours(agent):
            return
        for volume_id in volumes:
            facts = _volume(agent, volume_id)
            tag = facts.releasing if facts is not None else None
            if tag is not None and tag.node == peer and abs(node.wall() - tag.at_wall) < group.timeouts.handover_s:
                raise Violation(
                    "releasing", f"{node.name} acts against {peer}, which says that it releases {volume_id}"
                )

    def _ours(self, agent: Agent) -> bool:
        """Whether this loop has already begun to take the volume by itself."""
        return any(name == "Detach" and past.ok for (name, _), past in agent.loop.memory.past.items())

    def _not_fenced_itself(self, node: Node, peer: str, volumes: tuple[str, ...]) -> None:
        """A node that was fenced takes nothing back from the running node that has the volume now."""
        for volume_id in volumes:
            taker = self._fenced.get((node.name, volume_id), "")
            if taker and NAME_OF[taker] == peer and self.world.cloud.region.world.instances[taker].state == "running":
                raise Violation("fenced-takes", f"{node.name} was fenced, and acts against {peer} in turn")


def _volume(agent: Agent, volume_id: str) -> VolumeFacts | None:
    volumes = agent.loop.cloud.volumes
    return None if isinstance(volumes, Unknown) else volumes.get(volume_id)
