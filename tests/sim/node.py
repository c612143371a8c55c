"""One node: an instance with its kernel, its keepalived, its agent, and what is kept in its /run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from awsha.core.health import Verdict
from awsha.core.model import ApplicationState, Faults, Intent, Role, Unknown
from awsha.core.steps import Scope, Signal
from tests.sim.agent import Agent
from tests.sim.application import App
from tests.sim.cloud import DirectEc2
from tests.sim.kernel import BlockDevice, Kernel
from tests.sim.shape import ADVERT_S, ENIS, INSTANCES, PRIORITIES, identity
from tests.sim.vrrp import Keepalived

if TYPE_CHECKING:
    from tests.sim.world import World

EPOCH = 1_800_000_000.0
TICKS = 100  # clock ticks a second, as /proc counts process start times
STARTUP_DELAY_S = 5 * ADVERT_S
LOST = Unknown("the read failed")
FADES_S = 0.03  # from the first failed I/O of a device that is taken away until sysfs does not show it any more


class Node:
    """Everything of one node. `boot` rises with each boot, and events of an older boot do not happen any more."""

    __deletable__ = ("agent", "app", "ec2", "keepalived", "kernel")  # a word to mypyc: end() takes them away

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.instance_id = INSTANCES[name]
        self.eni_id = ENIS[name]
        self.me = identity(name, world.shape.nodes)
        self.ec2 = DirectEc2(self)
        self.boot = 0
        self.up = False
        self.paused = False
        self.held: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.resumed_at = float("-inf")
        self.clock_lost = 0.0  # seconds that this guest's clock has not seen, because it was frozen
        self.skew = 0.0  # of the wall clock
        self.api_cut = False
        self.late_devices = False
        self.agent_wanted = True
        self.forks = 0
        self.agents: list[Agent] = []  # all that there were
        self._fresh_start()

    def _fresh_start(self) -> None:
        """What does not outlive a boot."""
        world = self.world
        self.kernel = Kernel(world.shape.group, world.disks, world.disturbed)
        self.app = App(self)
        self.marks: frozenset[str] = frozenset()
        self.intents: list[Intent] = []  # in the order in which they were written down
        self.best: Intent | None = None
        self.master_since: float | None = None  # world time since when the newest intent says master
        self.not_master_since = world.now
        self.healthy = True  # what the track file says
        self.faults: Faults | None = None  # agent/faults.py
        self.versions = dict.fromkeys((Scope.DISKS, Scope.ADDRESSES, Scope.APPLICATION), 0)
        self.lock: Agent | None = None
        self.unmount_hangs = False
        self.blind = False
        self.notify_late_s = 0.0
        self.notify_lost = 0
        self.dies_at_notify = False
        self.keepalived_dead_at = world.now
        self.keepalived = Keepalived(self, PRIORITIES[self.name], ADVERT_S)
        self.agent = self._new_agent()
        self.one_shot: Agent | None = None

    def _new_agent(self, once: bool = False) -> Agent:
        made = Agent(self, self.world.wiring.loop(self.world.shape.group, self.me), once)
        self.agents.append(made)
        return made

    # --- time ---

    def time(self) -> float:
        """CLOCK_BOOTTIME of this guest."""
        return self.world.now - self.clock_lost

    def wall(self) -> float:
        """Its wall clock."""
        return EPOCH + self.time() + self.skew

    def after(self, seconds: float, act: Callable[..., None], *args: Any) -> None:
        """Later on this node, unless it is down by then; when it is frozen by then, once it thaws."""
        self.world.push(self.world.now + seconds, self, act, args)

    # --- life ---

    def start(self) -> None:
        """A boot: the agent, then keepalived."""
        self.boot += 1
        self.up, self.paused = True, False
        self.held = []
        self._fresh_start()
        self.world.tell(self.name, "boots")
        self.world.watch.booted(self)
        chance = self.world.chance()
        self.after(0.2 + 0.3 * chance, self.agent.begin)
        self.after(0.3 + 0.5 * self.world.chance(), self.keepalived.start, STARTUP_DELAY_S)

    def down(self, graceful: bool) -> None:
        """The guest ends. A graceful one flushes what it has."""
        if not self.up:
            return
        self.world.tell(self.name, "goes down" if graceful else "is dead")
        if graceful and not self.paused:
            if self.keepalived.alive:
                self.keepalived.stop()
            for superblock in list(self.kernel.superblocks):
                self.kernel.fsync(superblock)
        self.up = self.paused = False
        self.boot += 1
        self.agent.dead = True
        if self.one_shot is not None:
            self.one_shot.dead = True
        self.held = []
        self.kernel = Kernel(self.world.shape.group, self.world.disks, self.world.disturbed)
        self.kernel.changed()

    def pause(self) -> None:
        """The VM is not scheduled any more."""
        self.paused = True
        self.world.tell(self.name, "is frozen")
        self.paused_at = self.world.now

    def resume(self, jump: bool) -> None:
        """It is scheduled again. `jump`: its clock has gone on meanwhile."""
        if not self.up or not self.paused:
            return
        world = self.world
        self.paused = False
        self.resumed_at = world.now
        if not jump:
            self.clock_lost += world.now - self.paused_at
        world.tell(self.name, f"thaws{', its clock jumps' if jump else ''}")
        held, self.held = self.held, []
        for act, args in held:
            self.after(0.02 * world.chance(), act, *args)

    def end(self) -> None:
        """Take it apart (World.end)."""
        self.held.clear()
        self.lock = None
        self.one_shot = None
        for agent in self.agents:
            agent.end()
        self.agents.clear()
        for superblock in self.kernel.superblocks:
            superblock.processes.clear()
        del self.agent, self.app, self.ec2, self.keepalived, self.kernel

    # --- keepalived ---

    def fork(self) -> tuple[int, int]:
        """(start ticks, pid) of a new process."""
        self.forks += 1
        return int(self.time() * TICKS), 300 + self.forks

    def hear(self, sender: Node, priority: int) -> None:
        """An advert has come: keepalived and awsha's own raw socket get it."""
        if self.keepalived.alive:
            self.keepalived.hear(priority)
        for agent in (self.agent, self.one_shot):
            if agent is not None and not agent.dead:
                agent.hear(sender.name, priority)

    def set_vips(self, vips: frozenset[str]) -> None:
        """The addresses of the interface change; the agent is told by netlink."""
        if vips != self.kernel.vips:
            self.kernel.vips = vips
            self.changed(Scope.ADDRESSES)
            self.poke(Scope.ADDRESSES)

    def notify(self, role: Role, keepalived: tuple[int, int]) -> None:
        """keepalived forks a script: the order is that of the forks, whenever it writes."""
        world = self.world
        if self.notify_lost and role is Role.STOP:
            self.notify_lost -= 1
            world.tell(self.name, f"notify {role} is lost")
            return
        intent = Intent(role, self.fork(), str(self.boot), self.time(), keepalived)
        delay = 0.01 + 0.03 * world.chance()
        if self.notify_late_s:
            delay += self.notify_late_s * world.chance()
        self.after(delay, self.notified, intent)

    def notified(self, intent: Intent) -> None:
        """The script writes its intent, then wakes whoever converges the group."""
        self.record(intent)
        self.world.tell(self.name, f"notify: {intent.role} is written")
        if self.dies_at_notify:
            self.dies_at_notify = False
            self.kill_agent()
            self.after(0.1 + 2.0 * self.world.chance(), self.start_agent)
        if not self.agent.dead and self.lock is self.agent:
            self.agent.poke()
        elif self.agent.dead and (self.one_shot is None or self.one_shot.dead):
            self.one_shot = self._new_agent(once=True)
            self.after(0.3, self.one_shot.begin)  # a cold start

    def one_shot_ended(self, ended: Agent) -> None:
        """`awsha converge` looks once more whether a notify found the lock taken."""
        if self.newest() != ended.loop.intent and self.lock is None:
            self.one_shot = self._new_agent(once=True)
            self.one_shot.begin()

    def record(self, intent: Intent) -> None:
        """The intent is on disk."""
        self.intents.append(intent)
        if self.best is None or intent.order > self.best.order:
            self.best = intent
            if intent.role is not Role.MASTER:
                if self.master_since is not None:
                    self.not_master_since = self.world.now
                self.master_since = None
            elif self.master_since is None:
                self.master_since = self.world.now

    def newest(self) -> Intent | None:
        """The newest recorded intent of this boot, as the agent reads it."""
        wiring = self.world.wiring
        return self.best if wiring.newest is None else wiring.newest(self)

    def write_health(self, verdict: Verdict) -> None:
        """The track file; keepalived sees it by inotify."""
        self.world.watch.judged(self, verdict.ok)
        self.healthy = verdict.ok
        self.world.tell(self.name, f"health: {'good' if verdict.ok else 'failed: ' + verdict.text}")
        self.after(0.1 * self.world.chance(), self._tracked)

    def _tracked(self) -> None:
        self.keepalived.track()

    def keepalived_ended(self) -> None:
        """Its pidfd becomes readable."""
        self.world.tell(self.name, "keepalived ends")
        self.keepalived_dead_at = self.world.now
        self.poke()

    def start_keepalived(self) -> None:
        """systemctl start keepalived."""
        if not self.keepalived.alive:
            self.keepalived = Keepalived(self, PRIORITIES[self.name], ADVERT_S)
            self.keepalived.start(STARTUP_DELAY_S)
            self.world.tell(self.name, "keepalived starts")

    # --- the agent ---

    def kill_agent(self) -> None:
        """SIGKILL."""
        if not self.agent.dead:
            self.world.tell(self.name, "agent is killed")
            self.agent.kill()

    def start_agent(self) -> None:
        """systemctl start awsha-agent."""
        if self.agent.dead:
            self.world.tell(self.name, "agent starts")
            self.agent = self._new_agent()
            self.agent.begin()

    def poke(self, *scopes: Scope) -> None:
        """A kernel event for whoever converges."""
        for agent in (self.agent, self.one_shot):
            if agent is not None and not agent.dead and self.lock is agent:
                agent.poke(*scopes)

    def put_mark(self, mark: str) -> None:
        """A file below RUN/marks."""
        if mark not in self.marks:
            self.marks |= {mark}
            self.world.watch.marked(self, mark)

    def remove_mark(self, mark: str) -> None:
        """And away."""
        self.marks -= {mark}
        if mark == "fenced":
            self.world.watch.unmarked(self)

    # --- what the kernel and systemd tell ---

    def look(self, scope: Scope) -> object:
        """A read of local facts."""
        if scope is Scope.DISKS:
            return self.kernel.facts()
        return self.look_at_addresses() if scope is Scope.ADDRESSES else self.look_at_application()

    def look_at_addresses(self) -> frozenset[str] | Unknown:
        """Netlink."""
        return LOST if self.blind else self.kernel.vips

    def look_at_application(self) -> ApplicationState | Unknown | None:
        """systemd."""
        if self.blind:
            return LOST
        return self.app.state if self.world.shape.group.application else None

    def changed(self, scope: Scope) -> None:
        """A fact of this host is different now."""
        self.versions[scope] += 1
        self.stir()

    def local_change(self) -> None:
        """The application's state has changed: no event tells, a rested agent sees it at its next look."""
        self.changed(Scope.APPLICATION)
        self._look_later(Scope.APPLICATION, 5.0)

    def disks_changed(self) -> None:
        """The mount table has changed."""
        self.changed(Scope.DISKS)
        self.poke(Scope.DISKS)

    def stir(self) -> None:
        """What is polled may show something new."""
        for agent in (self.agent, self.one_shot):
            if agent is not None and agent.waits:
                agent.stir()

    def _look_later(self, scope: Scope, within_s: float) -> None:
        for agent in (self.agent, self.one_shot):
            if agent is not None and agent.quiet and not agent.dead:
                self.after(within_s * self.world.chance(), agent.poke, scope)

    def device_comes(self, volume_id: str) -> None:
        """EC2 has attached a volume; the device may be visible later."""
        device = self.kernel.plug(volume_id, visible=not self.late_devices)
        self.changed(Scope.DISKS)
        if self.late_devices:
            self.after(0.5 + 3.0 * self.world.chance(), self._device_shows, device)
        self._look_later(Scope.DISKS, 1.0)

    def _device_shows(self, device: BlockDevice) -> None:
        if device.present:
            self.kernel.show(device)
            self.changed(Scope.DISKS)
            self._look_later(Scope.DISKS, 1.0)

    def device_goes(self, volume_id: str) -> None:
        """The device has left."""
        device = self.kernel.pull(volume_id)
        if device is not None:
            self.after(FADES_S, self.kernel.faded, device)
        self.changed(Scope.DISKS)
        self._look_later(Scope.DISKS, 1.0)

    def signal(self, step: Signal) -> None:
        """host/openfiles.py signal, of those that a scan just before still finds: by pid and start time."""
        numbers = frozenset(m.number for m in step.mounts)
        still = {(h.pid, h.started) for h in self.kernel.holders(numbers)} if self.world.wiring.rescan else None
        for holder in step.holders:
            process = self.kernel.processes.get(holder.pid)
            if process is None or process.started != holder.started:
                continue
            if still is not None and (holder.pid, holder.started) not in still:
                continue
            self.world.watch.signalled(self, process, numbers)
            if process.stubborn and not step.kill:
                continue
            self.world.tell(self.name, f"{process.command}[{process.pid}] ends by a signal")
            if process is self.app.process:
                self.app.crash()
            else:
                self.kernel.end(process)
                if process.respawns:
                    again = self.kernel.spawn(process.command, self.kernel.at(self.world.shape.group.volumes[0].mount))
                    again.respawns = process.respawns - 1
