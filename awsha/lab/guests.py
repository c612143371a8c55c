"""What EC2's effects do to the guests: devices come and go, addresses move, instances stop and boot."""

from __future__ import annotations

import logging
import random
import threading
from typing import TYPE_CHECKING

from awsha.core.errors import AwshaError
from awsha.lab import nodeconf
from awsha.lab.disk import has_live_file_system
from awsha.lab.node import Node
from awsha.lab.rules import (
    AddressMoved,
    DeviceAttached,
    DeviceDetached,
    Effect,
    InstanceStarted,
    InstanceStopped,
    InstanceTerminated,
)
from awsha.lab.waiting import wait_until

if TYPE_CHECKING:
    from awsha.lab.pair import Pair

log = logging.getLogger(__name__)

CONTROLLERS = range(1, 27)  # nvme1 … nvme26: what an instance has for data volumes
UNMOUNT_DEADLINE_S = 5.0
AGENT_READY_DEADLINE_S = 10.0


class Guests:
    """Carries out effects, one at a time and in order."""

    def __init__(self, pair: Pair) -> None:
        """Nothing happens before the first effect."""
        self._pair = pair
        self._random = random.Random(pair.lab.prefix)  # noqa: S311 - kernel names, in no order

    def carry_out_all(self, effects: list[Effect]) -> None:
        """Carry out effects in order. Whatever fails is trouble that `lab status` shows; the clock goes on."""
        for effect in effects:
            with self._pair.acting:
                if self._pair.stopping.is_set():
                    return
                try:
                    text, node = self._carry_out(effect)
                    self._pair.note(text, type(effect).__name__, node)
                except Exception as error:
                    log.exception("could not carry out %s", effect)
                    self._pair.trouble.append(f"{effect}: {error}")

    def holds(self, instance_id: str, volume_id: str) -> bool:
        """Whether the guest has a file system of this volume mounted, be it lazily unmounted and still in use."""
        live = self._pair.disks.live(volume_id)
        node = self._pair.by_instance(instance_id)
        if live is None or live.node != node.spec.name:
            return False
        return has_live_file_system(live.loop) or any(entry.number == live.number for entry in node.mounts())

    def _carry_out(self, effect: Effect) -> tuple[str, str]:
        """What was done, in words, and to which node (empty: to none)."""
        match effect:
            case DeviceAttached(instance_id, volume_id, _):
                node = self._pair.by_instance(instance_id)
                names = self._random.sample(CONTROLLERS, len(CONTROLLERS))
                attachment = self._pair.disks.attach(volume_id, node.spec.name, node.free_kernel_name(names))
                text = f"device {attachment.kernel_name} of {volume_id} appears on"
            case DeviceDetached(instance_id, volume_id, forced):
                node = self._pair.by_instance(instance_id)
                live = self._pair.disks.live(volume_id)
                if live is not None and live.node == node.spec.name:
                    if not forced and self.holds(instance_id, volume_id):
                        self._pair.watcher.violation(f"{volume_id} was detached while {node.spec.name} had it mounted")
                    self._pair.disks.detach(volume_id)
                text = f"device of {volume_id} {'is taken from' if forced else 'leaves'}"
            case AddressMoved(address, eni_id):
                port = next((spec.name for spec in self._pair.specs if spec.eni_id == eni_id), None)
                self._pair.vpc.own(address, port)
                return f"{address} is delivered to {port or 'nobody'}", port or ""
            case InstanceStopped(instance_id, graceful):
                node = self._pair.by_instance(instance_id)
                self.power_down(node, clean=graceful and not node.frozen)
                text = f"{'a clean' if graceful else 'an unclean'} end of instance"
            case InstanceTerminated(instance_id):
                node = self._pair.by_instance(instance_id)
                self.power_down(node, clean=False)
                text = "the termination of instance"
            case InstanceStarted(instance_id):
                node = self._pair.by_instance(instance_id)
                self.power_up(node)
                text = "a boot of instance"
        return f"{text} {node.spec.name}", node.spec.name

    def power_down(self, node: Node, *, clean: bool) -> None:
        """The guest ends. Not clean: what it had not written yet is lost, so the disks go before it can."""
        if node.on:
            if not clean:
                self._cut_disks(node)
            node.kill()
            mine = self._pair.disks.of_node(node.spec.name)
            wait_until(lambda: not any(has_live_file_system(a.loop) for a in mine), UNMOUNT_DEADLINE_S)
        for attachment in self._pair.disks.of_node(node.spec.name):
            self._pair.disks.detach(attachment.volume_id)
        self._pair.vpc.set_port(node.spec.name, up=False)

    def _cut_disks(self, node: Node) -> None:
        try:
            node.freeze()  # so that nothing sees an I/O error that no real machine would see without power
        except (AwshaError, OSError) as error:
            log.warning("node %s: %s", node.spec.name, error)
        for attachment in self._pair.disks.of_node(node.spec.name):
            self._pair.disks.detach(attachment.volume_id)

    def power_up(self, node: Node) -> None:
        """A fresh guest boots, with the network that an instance gets and whatever starts at boot."""
        if node.on:
            self.power_down(node, clean=False)
        self._pair.vpc.set_port(node.spec.name, up=True)
        self._pair.vpc.reset_port(node.spec.name)
        node.boot()
        self._start_later(node)

    # Services

    def start_services(self, node: Node) -> list[str]:
        """Start what a boot starts, the agent and keepalived, unless the lab was made without; what was missing.

        As the units say, keepalived comes after the agent is ready, and comes all the same when it is not in time.
        """
        with node.starting:
            started = ["agent"] if self.start_agent(node) else []
            if self._pair.shape.keepalived and not node.running("keepalived"):
                node.start_keepalived()
                started.append("keepalived")
            return started

    def start_agent(self, node: Node) -> bool:
        """Start the agent and wait until it is ready; False when there was nothing to do."""
        if not self._pair.shape.agent or node.running("agent"):
            return False
        node.start_agent([nodeconf.awsha_command(), "agent"])
        wait_until(lambda: node.ready.is_set() or not node.running("agent"), AGENT_READY_DEADLINE_S)
        self._pair.note(f"agent of {node.spec.name} is {'ready' if node.ready.is_set() else 'not ready'}")
        return True

    def _start_later(self, node: Node) -> None:
        """Start the services of a node that boots, while the world goes on."""

        def work() -> None:
            try:
                self.start_services(node)
            except (AwshaError, OSError) as error:
                self._pair.note(f"services of {node.spec.name} did not start: {error}")

        threading.Thread(target=work, name=f"services {node.spec.name}", daemon=True).start()
