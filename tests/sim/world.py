"""The world: virtual time, one queue of events, the nodes, EC2, the wire between them, a client that writes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from awsha.lab.rules import (
    AddressMoved,
    DeviceAttached,
    DeviceDetached,
    InstanceStarted,
    InstanceStopped,
)
from tests.sim.cloud import Cloud
from tests.sim.invariants import Watch
from tests.sim.kernel import Disk
from tests.sim.node import Node
from tests.sim.shape import ADDRESSES, ENIS, INSTANCES, NAME_OF, Shape
from tests.sim.trace import Trace
from tests.sim.vrrp import Network

if TYPE_CHECKING:
    from tests.sim.wiring import Wiring

START = 1000.0  # boottime when a schedule begins
Event = tuple[Node | None, int, Callable[..., None], tuple[Any, ...]]  # where, in which boot, what


class World:
    """One schedule's world."""

    __deletable__ = ("cloud", "network", "watch")  # a word to mypyc: end() takes them away

    def __init__(self, shape: Shape, random: Random, wiring: Wiring, trace: bool = False) -> None:
        self.shape = shape
        self.random = random
        self.chance: Callable[[], float] = random.random
        self.wiring = wiring
        self.now = START
        self.trace = Trace(START) if trace else None
        self.steps = 0  # turns of loops
        self.events = 0
        self.calm = False  # no more faults come, and all is healed
        self.settled = False
        self.deadline = float("inf")
        self.started = 0  # twice the number of steps so far
        # What strikes just before the second look of the n-th step (2n - 1), or between that and its act (2n).
        self.at_step: dict[int, Callable[[], None]] = {}
        self.not_calm_before = 0.0
        self.changed = True  # a kernel changed since the invariants were last looked at
        # What is to come: the last is the next one, and what is due at one moment comes in the order of its coming.
        self.queue: list[Event] = []
        self.due: list[float] = []  # the same places: minus the time of each
        self.disks = {v.id or "": Disk(v.id or "") for v in shape.group.volumes}
        self.sent = 0
        self.acknowledged: list[int] = []
        self.watch = Watch(self)
        self.nodes: list[Node] = []
        self.cloud = Cloud(self)
        self.network = Network(self)
        self._register()
        self.nodes = [Node(self, name) for name in shape.nodes]
        self.by_instance = {node.instance_id: node for node in self.nodes}

    def _register(self) -> None:
        region, shape = self.cloud.region, self.shape
        for index, name in enumerate(shape.nodes):
            region.add_instance(name, INSTANCES[name], ENIS[name], f"02:00:00:00:00:0{index}", ADDRESSES[name])
        kind = "io2" if shape.shared else "gp3"
        for volume_id in self.disks:
            region.add_volume(volume_id, 8, multi_attach=shape.shared, volume_type=kind)

    # --- events ---

    def push(self, at: float, node: Node | None, act: Callable[..., None], args: tuple[Any, ...]) -> None:
        """One event on the queue."""
        due = self.due
        place = len(due)
        while place and due[place - 1] >= -at:  # most events are due soon: their place is near the end
            place -= 1
        due.insert(place, -at)
        self.queue.insert(place, (node, 0 if node is None else node.boot, act, args))

    def at(self, when: float, act: Callable[..., None], *args: Any) -> None:
        """Later, wherever."""
        self.push(when, None, act, args)

    def disturbed(self) -> None:
        """A kernel's disks or mounts have changed."""
        self.changed = True

    def stir(self) -> None:
        """Something changes at EC2: those who poll will see it at one of their next polls."""
        for node in self.nodes:
            node.stir()

    def tell(self, who: str, text: str) -> None:
        """A line of the trace."""
        if self.trace is not None:
            self.trace.say(self.now, who, text)

    def maybe_settled(self) -> None:
        """A node came to rest: perhaps all have."""
        if self.calm:
            self.settled = True  # the schedule looks closer

    # --- EC2's effects ---

    def guest_holds(self, instance_id: str, volume_id: str) -> bool:
        """What EC2 asks a guest at a detach: does anything keep the device in use? A frozen guest does not answer."""
        node = self.by_instance[instance_id]
        return node.paused or node.kernel.holds(volume_id)

    def effect(self, effect: object) -> None:
        """Something happens to a guest, or to the way that packets take."""
        match effect:
            case DeviceAttached(instance_id, volume_id, _):
                self.tell(NAME_OF[instance_id], f"device of {volume_id} comes")
                self.by_instance[instance_id].device_comes(volume_id)
            case DeviceDetached(instance_id, volume_id, forced):
                self.tell(NAME_OF[instance_id], f"device of {volume_id} goes{', by force' if forced else ''}")
                self.by_instance[instance_id].device_goes(volume_id)
            case InstanceStopped(instance_id, graceful):
                self.by_instance[instance_id].down(graceful)
            case InstanceStarted(instance_id):
                self.by_instance[instance_id].down(False)
                self.by_instance[instance_id].start()
            case AddressMoved():
                pass

    # --- its end ---

    def end(self) -> None:
        """Take it apart. All its parts know each other: whole, they would lie about until a garbage collection."""
        self.queue.clear()
        self.at_step.clear()
        for node in self.nodes:
            node.end()
        self.nodes.clear()
        self.by_instance.clear()
        del self.cloud, self.network, self.watch

    # --- the client ---

    def client(self) -> None:
        """Send one record through the VIP, and soon another one."""
        vip = self.shape.group.vips[0]
        eni = self.cloud.region.world.dataplane.get(vip)
        self.sent += 1
        for node in self.nodes:
            if node.eni_id == eni and node.up and not node.paused and vip in node.kernel.vips:
                node.app.request(self.sent)
        if not self.calm:
            self.at(self.now + 0.2 + 1.5 * self.chance(), self.client)

    def acknowledge(self, node: Node, record: int) -> None:
        """The client gets its answer."""
        self.acknowledged.append(record)
        self.watch.acknowledged(node, record)
