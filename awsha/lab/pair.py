"""The lab's daemon: owns the region, the VPC, the disks and the nodes, and does to them what EC2's rules say.

`python -m awsha.lab.pair PREFIX SHAPE` (SHAPE as JSON). One thread moves the region's clock and carries out its effects in order;
others answer the EC2 endpoint, instance metadata and the control socket. SIGTERM takes everything down.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from awsha.core.errors import AwshaError
from awsha.host.run import run
from awsha.lab import linux, nodeconf, sweep
from awsha.lab.clients import Clients
from awsha.lab.control import ControlServer
from awsha.lab.disk import Attachment, Disks, has_live_file_system
from awsha.lab.endpoint import Endpoint
from awsha.lab.metadata_service import MetadataService
from awsha.lab.mishaps import Mishaps
from awsha.lab.network import VPC, Vpc
from awsha.lab.node import Node
from awsha.lab.rules import (
    AddressMoved,
    DeviceAttached,
    DeviceDetached,
    Effect,
    InstanceStarted,
    InstanceStopped,
    InstanceTerminated,
    Latency,
    Region,
)
from awsha.lab.settings import (
    ENDPOINT_ADDRESS,
    ENDPOINT_PORT,
    METADATA_ADDRESS,
    SUBNET,
    ZONE,
    Lab,
    NodeSpec,
    Shape,
    group_specs,
    node_specs,
)
from awsha.lab.status import Watcher, converged, status
from awsha.lab.waiting import wait_until

log = logging.getLogger("awsha.lab")

VOLUME_GIB = 1
CONTROLLERS = range(1, 27)  # nvme1 … nvme26: what an instance has for data volumes
UNMOUNT_DEADLINE_S = 5.0
AGENT_READY_DEADLINE_S = 10.0


class Pair:
    """Everything that a lab is made of."""

    def __init__(self, lab: Lab, shape: Shape) -> None:
        """Make the parts; nothing happens to the machine before `up`."""
        self.lab = lab
        self.shape = shape
        self.specs = node_specs(lab, shape)
        self.groups = group_specs(lab, shape)
        self.vpc = Vpc(lab)
        self.disks = Disks(lab, self._show, self._hide)
        self.nodes: dict[str, Node] = {}
        latency = Latency.aws() if shape.latency == "aws" else Latency.none()
        now = self.now()
        self.region = Region(latency, 0, ZONE, SUBNET, epoch=time.time() - now, throttling=shape.throttling)
        self.region_lock = threading.RLock()
        self.acting = threading.RLock()  # held while an effect or a fault is carried out: one at a time
        self.trouble: list[str] = []  # what the lab itself could not do
        self.events: deque[tuple[float, str]] = deque(maxlen=5000)  # (now, what happened), for timelines
        self.endpoint_port = 0
        self.clients = Clients(self)
        self.mishaps = Mishaps(self)
        self.watcher = Watcher(self)
        self._random = random.Random(lab.prefix)  # noqa: S311 - kernel names, in no order
        self._endpoint: Endpoint | None = None
        self._metadata: MetadataService | None = None
        self._stopping = threading.Event()
        self._started = threading.Event()
        self._failure: AwshaError | None = None

    @staticmethod
    def now() -> float:
        """The region's clock: CLOCK_MONOTONIC, in seconds."""
        return time.monotonic()

    def node(self, name: object) -> Node:
        """A node by its name. Raises AwshaError that names them all."""
        if name not in self.nodes:
            raise AwshaError(f"there is no node {name}", hint=f"the nodes are: {', '.join(self.nodes)}")
        return self.nodes[str(name)]

    def by_instance(self, instance_id: str) -> Node:
        """A node by its instance id."""
        return next(node for node in self.nodes.values() if node.spec.instance_id == instance_id)

    def note(self, text: str) -> None:
        """Something happened: for the log and for timelines."""
        self.events.append((self.now(), text))
        log.info("%s", text)

    # Up and down

    def up(self) -> None:
        """Make everything and boot the nodes. Raises AwshaError, OSError."""
        self.note("coming up")
        sweep.mark_netns_dir(self.lab)
        self.vpc.create()
        self.vpc.add_nodes(self.specs)
        self._make_region()
        self._serve()
        policy_text = nodeconf.config_toml(self.shape, self.specs, self.groups)
        policy = nodeconf.policy_of(policy_text)
        for spec in self.specs:
            node = Node(self.lab, spec, nodeconf.node_environment())
            node.on_exit = lambda name, code, who=spec.name: self.note(f"{name} of {who} ended ({code})")
            self.nodes[spec.name] = node
            (node.folder / "etc-awsha/awsha.toml").write_text(policy_text)
            (node.folder / "etc-keepalived/keepalived.conf").write_text(nodeconf.keepalived_conf(policy, spec))
        self.vpc.filter_vrrp(on=self.shape.vrrp_filtered)
        self.note("the nodes boot")
        side_by_side([node.boot for node in self.nodes.values()])
        self.watcher.start()
        side_by_side([lambda node=node: self._start_agent(node) for node in self.nodes.values()])  # type: ignore[misc]
        for node in self.nodes.values():  # at the same moment, so that priorities decide who is master
            self.start_services(node)

    def _make_region(self) -> None:
        for spec in self.specs:
            self.region.add_instance(spec.name, spec.instance_id, spec.eni_id, spec.mac, spec.address)
        for group in self.groups:
            for number, volume in enumerate(group.volumes, 1):
                self.disks.create(volume.id, VOLUME_GIB, self.shape.fstype)
                self.region.add_volume(volume.id, VOLUME_GIB, tags={"Name": f"{group.name}-{number}"})

    def _serve(self) -> None:
        """EC2 and instance metadata inside the VPC, and EC2 once more for tools on this machine."""
        self._endpoint = Endpoint(
            self.region, self.now, self.region_lock, self._on_effects, holds=self.holds
        )
        self._metadata = MetadataService(self.region, self.now, self.region_lock)
        outside = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.endpoint_port = outside.getsockname()[1]
        self._endpoint.serve(outside)
        self._endpoint.serve(self.vpc.listen(VPC, ENDPOINT_ADDRESS, ENDPOINT_PORT))
        self._metadata.serve(self.vpc.listen(VPC, METADATA_ADDRESS, 80))

    def start_services(self, node: Node) -> None:
        """What a boot of the instance starts: the agent and keepalived, unless the lab was made without."""
        self._start_agent(node)
        if self.shape.keepalived and not node.running("keepalived"):
            node.start_keepalived()

    def _start_agent(self, node: Node) -> None:
        """As the units say: keepalived comes after the agent is ready, and comes all the same when it is not in time."""
        if self.shape.agent and not node.running("agent"):
            node.start_agent([nodeconf.awsha_command(), "agent"])
            wait_until(lambda: node.ready.is_set() or not node.running("agent"), AGENT_READY_DEADLINE_S)
            self.note(f"agent of {node.spec.name} is {'ready' if node.ready.is_set() else 'not ready'}")

    def down(self) -> None:
        """Take everything away again, whatever of it there is."""
        self._stopping.set()
        self.watcher.stop()
        self.clients.stop()
        with self.acting:
            # Cut first: a master that dies here would only write back what nobody will read.
            side_by_side([lambda node=node: self.power_down(node, clean=False) for node in self.nodes.values()])  # type: ignore[misc]
            for index in self.disks.close():
                log.error("loop%d is still in use", index)
            for name in sweep.namespaces(self.lab):
                run(["ip", "netns", "del", name], timeout_s=10.0, check=False)
            sweep.remove_netns_dir(self.lab)
        for server in (self._endpoint, self._metadata):
            if server is not None:
                server.stop()

    # EC2's effects

    def _on_effects(self, effects: list[Effect]) -> None:
        """Carry out effects in order. Whatever fails is trouble that `lab status` shows; the clock goes on."""
        for effect in effects:
            with self.acting:
                if self._stopping.is_set():
                    return
                try:
                    self.note(self._carry_out(effect))
                except Exception as error:
                    log.exception("could not carry out %s", effect)
                    self.trouble.append(f"{effect}: {error}")

    def wake(self) -> None:
        """The region was changed other than by a call: look at it at once."""
        if self._endpoint is not None:
            self._endpoint.wake()

    def holds(self, instance_id: str, volume_id: str) -> bool:
        """Whether the guest has a file system of this volume mounted, be it lazily unmounted and still in use."""
        live = self.disks.live(volume_id)
        node = self.by_instance(instance_id)
        if live is None or live.node != node.spec.name:
            return False
        return has_live_file_system(live.loop) or any(entry.number == live.number for entry in node.mounts())

    def _carry_out(self, effect: Effect) -> str:
        match effect:
            case DeviceAttached(instance_id, volume_id, _):
                node = self.by_instance(instance_id)
                names = self._random.sample(CONTROLLERS, len(CONTROLLERS))
                attachment = self.disks.attach(volume_id, node.spec.name, node.free_kernel_name(names))
                return f"device {attachment.kernel_name} of {volume_id} appears on {node.spec.name}"
            case DeviceDetached(instance_id, volume_id, forced):
                node = self.by_instance(instance_id)
                live = self.disks.live(volume_id)
                if live is not None and live.node == node.spec.name:
                    if not forced and self.holds(instance_id, volume_id):
                        self.watcher.violation(f"{volume_id} was detached while {node.spec.name} had it mounted")
                    self.disks.detach(volume_id)
                return f"device of {volume_id} {'is taken from' if forced else 'leaves'} {node.spec.name}"
            case AddressMoved(address, eni_id):
                port = next((spec.name for spec in self.specs if spec.eni_id == eni_id), None)
                self.vpc.own(address, port)
                return f"{address} is delivered to {port or 'nobody'}"
            case InstanceStopped(instance_id, graceful):
                node = self.by_instance(instance_id)
                self.power_down(node, clean=graceful and not node.frozen)
                return f"instance {node.spec.name} is off ({'clean' if graceful else 'not clean'})"
            case InstanceTerminated(instance_id):
                node = self.by_instance(instance_id)
                self.power_down(node, clean=False)
                return f"instance {node.spec.name} is terminated"
            case InstanceStarted(instance_id):
                node = self.by_instance(instance_id)
                self.power_up(node)
                return f"instance {node.spec.name} boots"

    def power_down(self, node: Node, *, clean: bool) -> None:
        """The guest ends. Not clean: what it had not written yet is lost, so the disks go before it can."""
        if node.on:
            if not clean:
                self._cut_disks(node)
            node.kill()
            mine = self.disks.of_node(node.spec.name)
            wait_until(lambda: not any(has_live_file_system(a.loop) for a in mine), UNMOUNT_DEADLINE_S)
        for attachment in self.disks.of_node(node.spec.name):
            self.disks.detach(attachment.volume_id)
        self.vpc.set_port(node.spec.name, up=False)

    def _cut_disks(self, node: Node) -> None:
        try:
            node.freeze()  # so that nothing sees an I/O error that no real machine would see without power
        except (AwshaError, OSError) as error:
            log.warning("node %s: %s", node.spec.name, error)
        for attachment in self.disks.of_node(node.spec.name):
            self.disks.detach(attachment.volume_id)

    def power_up(self, node: Node) -> None:
        """A fresh guest boots, with the network that an instance gets and whatever starts at boot."""
        if node.on:
            self.power_down(node, clean=False)
        self.vpc.set_port(node.spec.name, up=True)
        self.vpc.reset_port(node.spec.name)
        node.boot()
        self.start_services(node)

    def _show(self, attachment: Attachment) -> None:
        self.nodes[attachment.node].show(attachment)

    def _hide(self, attachment: Attachment) -> None:
        self.nodes[attachment.node].hide(attachment)

    # Requests

    def answer(self, request: dict[str, Any]) -> Any:
        """One request of the control socket. Raises AwshaError."""
        word = str(request.get("do"))
        if word == "wait_up":
            return self._wait_up(float(request["deadline_s"]), wanted=bool(request["converged"]))
        if not self._started.is_set():
            raise AwshaError("the lab is still coming up", hint="wait for awsha lab up to end")
        handlers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "status": lambda _: status(self),
            "enter": self._enter,
            "endpoint": lambda _: {"port": self.endpoint_port},
            "events": lambda r: [event for event in list(self.events) if event[0] >= float(r.get("since", 0))],
            "client_start": lambda r: self.clients.start(float(r.get("pause_s", 0.01))),
            "client_stop": lambda _: self.clients.stop(),
            "client_report": lambda _: self.clients.report(),
            **self.mishaps.handlers(),
        }
        if word not in handlers:
            raise AwshaError(f"the lab does not know {word}", hint="is the daemon older than this command?")
        return handlers[word](request)

    def _wait_up(self, deadline_s: float, *, wanted: bool) -> dict[str, Any]:
        """Wait until the nodes run and, if `wanted`, each group has a master that holds all. Raises AwshaError."""
        if not self._started.wait(deadline_s):
            raise AwshaError(f"the lab is not up after {deadline_s:g} s")
        if self._failure is not None:
            raise self._failure
        if not wanted or not (self.shape.agent and self.shape.keepalived):
            return status(self)
        if not wait_until(lambda: self._dead_service() or converged(self), deadline_s, 0.02):
            raise AwshaError(f"no master holds everything after {deadline_s:g} s", hint="the logs below may say why")
        if dead := self._dead_service():
            raise AwshaError(f"{dead} ended at once", hint="its log is below")
        return status(self)

    def _dead_service(self) -> str:
        for node in self.nodes.values():
            for name in ("agent", "keepalived"):
                if node.on and not node.running(name):
                    return f"{name} of node {node.spec.name}"
        return ""

    def _enter(self, request: dict[str, Any]) -> dict[str, Any]:
        node = self.node(request.get("node"))
        if not node.on:
            raise AwshaError(f"node {node.spec.name} is off", hint=f"awsha lab heal {node.spec.name}")
        if node.frozen:
            raise AwshaError(f"node {node.spec.name} is frozen", hint=f"awsha lab heal {node.spec.name}")
        return {"pid": node.pid, "environment": node.environment, "cgroup": str(self.lab.cgroup / node.spec.name)}

    # The process

    def run_until_signal(self) -> int:
        """Come up, serve until SIGTERM, go down; the exit code."""
        control = ControlServer(self.lab, self.answer)
        threading.Thread(target=control.serve_forever, name="control", daemon=True).start()
        try:
            self.up()
            self.note("the lab is up")
        except Exception as error:
            log.exception("the lab did not come up")
            wrapped = AwshaError(f"the lab did not come up: {type(error).__name__}: {error}")
            self._failure = error if isinstance(error, AwshaError) else wrapped
        self._started.set()
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
        log.info("going down")
        self.down()
        return 0


def side_by_side(tasks: Sequence[Callable[[], None]]) -> None:
    """Run tasks in a thread each; raise the first failure once all have ended."""
    failures: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread below
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def main(argv: list[str]) -> int:
    """Set up the process: signals blocked for every thread, a cgroup of its own, the log, the pid file."""
    # Threads inherit the mask: none of them may end the process between two mounts.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    lab, shape = Lab(argv[0]), Shape.from_json(json.loads(argv[1]))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(message)s", datefmt="%H:%M:%S")
    for noisy in ("botocore", "urllib3", "werkzeug", "moto"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    home = lab.cgroup / "daemon"
    home.mkdir(parents=True, exist_ok=True)
    linux.join_cgroup(home)
    lab.pid_file.write_text(str(os.getpid()))
    os.environ.update(nodeconf.environment(), AWS_EC2_METADATA_DISABLED="true")
    code = Pair(lab, shape).run_until_signal()
    linux.join_cgroup(Path(lab.cgroup).parent)
    sweep.remove_cgroups(lab)
    sweep.remove_run(lab)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
