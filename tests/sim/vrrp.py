"""keepalived as VRRP (RFC 5798) and as the program that runs notify scripts: one instance, all nodes start as backup.

What it does to awsha: it adds and removes the VIPs by itself, its priority-0 advert and the removal of the VIPs come
before the notify, a killed one leaves the VIPs behind, and it says nothing when a silent partition heals in its favour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from awsha.core.model import Role

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.world import World

INIT, BACKUP, MASTER, FAULT, DEAD = "init", "backup", "master", "fault", "dead"


class Keepalived:
    """One keepalived process of one node. Its events run on the node's queue, and end with the process."""

    __slots__ = ("_asked", "_deadline", "_waiting", "advert_s", "id", "node", "priority", "state")

    def __init__(self, node: Node, priority: int, advert_s: float) -> None:
        self.node = node
        self.priority = priority
        self.advert_s = advert_s
        self.id = node.fork()[::-1]  # (pid, start ticks)
        self.state = INIT
        self._deadline = 0.0
        self._waiting = False  # a master-down timer is on the queue
        self._asked = 0  # which run of master's advert timer is the living one

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.state is not DEAD

    def start(self, delay_s: float) -> None:
        """vrrp_startup_delay: only listen for so long."""
        self.node.after(delay_s, self._enter)

    def resume_as(self, state: str) -> None:
        """Be in a state without its notifies (for a world that begins in the middle)."""
        self.state = state
        if state is MASTER:
            self.node.kernel.vips = frozenset(self.node.world.shape.group.vips)
            self.node.after(self.node.world.chance() * self.advert_s, self._advertise, self._asked)
        else:
            self._listen(self._patience())

    def _enter(self) -> None:
        if self.state is INIT:
            self._be_backup_or_fault()

    def _be_backup_or_fault(self) -> None:
        if self.node.healthy:
            self._become(BACKUP, Role.BACKUP)
            self._listen(self._patience())
        else:
            self._become(FAULT, Role.FAULT)

    # --- adverts ---

    def _skew(self) -> float:
        return (256 - self.priority) / 256 * self.advert_s

    def _patience(self) -> float:
        return 3 * self.advert_s + self._skew()

    def _listen(self, seconds: float) -> None:
        self._deadline = self.node.world.now + seconds
        if not self._waiting:
            self._waiting = True
            self.node.after(seconds, self._silence)

    def _silence(self) -> None:
        """The master-down timer; it is set back by each advert, and looked at when it would have run out."""
        self._waiting = False
        if self.state is not BACKUP:
            return
        left = self._deadline - self.node.world.now
        if left > 1e-9:
            self._waiting = True
            self.node.after(left, self._silence)
        else:
            self._become(MASTER, Role.MASTER)

    def _advertise(self, asked: int) -> None:
        if self.state is MASTER and asked == self._asked:
            self._send(self.priority)
            self.node.after(self.advert_s, self._advertise, asked)

    def _answer(self) -> None:
        if self.state is MASTER:
            self._send(self.priority)

    def _send(self, priority: int) -> None:
        self.node.world.network.advert(self.node, priority)

    def hear(self, priority: int) -> None:
        """An advert of a peer."""
        if self.state is BACKUP:
            # nopreempt: the master's priority does not matter
            self._listen(self._patience() if priority else self._skew())
        elif self.state is MASTER:
            if priority > self.priority:
                self._become(BACKUP, Role.BACKUP)
                self._listen(self._patience())
            else:
                self.node.after(0.0005, self._answer)
                if priority:
                    self.notify(Role.MASTER)  # notify_master_rx_lower_pri

    # --- changes of state ---

    def _become(self, state: str, role: Role) -> None:
        node, was = self.node, self.state
        self.state = state
        node.world.tell(node.name, f"keepalived: {was} -> {state}")
        if state is MASTER:
            self._asked += 1
            self._advertise(self._asked)
            node.set_vips(frozenset(node.world.shape.group.vips))
        elif was is MASTER:
            if state is not BACKUP:
                self._send(0)
            node.set_vips(frozenset())
        self.notify(role)

    def track(self) -> None:
        """The track file has changed."""
        if self.state in {BACKUP, MASTER} and not self.node.healthy:
            self._become(FAULT, Role.FAULT)
        elif self.state is FAULT and self.node.healthy:
            self._be_backup_or_fault()

    def notify(self, role: Role) -> None:
        """Fork a notify script; when it writes its intent down is another matter."""
        self.node.notify(role, self.id)

    def stop(self) -> None:
        """SIGTERM: resign, take the VIPs off, run notify_stop, end."""
        if self.state is MASTER:
            self._send(0)
            self.node.set_vips(frozenset())
        self.notify(Role.STOP)
        self.state = DEAD
        self.node.keepalived_ended()

    def kill(self) -> None:
        """SIGKILL: nothing more is said, and the VIPs stay."""
        self.state = DEAD
        self.node.keepalived_ended()


class Network:
    """Who hears whom, and what is lost or late on the way."""

    __slots__ = ("_world", "cut", "late_s", "loss")

    def __init__(self, world: World) -> None:
        self._world = world
        self.cut: dict[tuple[str, str], int] = {}  # (from, to): how many partitions cut it
        self.loss = 0.0
        self.late_s = 0.0

    def part(self, pairs: list[tuple[str, str]]) -> None:
        """Cut these ways."""
        for pair in pairs:
            self.cut[pair] = self.cut.get(pair, 0) + 1

    def join(self, pairs: list[tuple[str, str]]) -> None:
        """Undo one cut of these ways."""
        for pair in pairs:
            if self.cut.get(pair, 0) <= 1:
                self.cut.pop(pair, None)
            else:
                self.cut[pair] -= 1

    def advert(self, sender: Node, priority: int) -> None:
        """One advert to all peers."""
        world = self._world
        for node in world.nodes:
            if node is sender or not node.up or (self.cut and (sender.name, node.name) in self.cut):
                continue
            if self.loss and world.chance() < self.loss:
                continue
            if self.late_s or node.paused:
                node.after(self.late_s * world.chance(), node.hear, sender, priority)
            else:
                node.hear(sender, priority)
