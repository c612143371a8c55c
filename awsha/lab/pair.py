"""The lab's daemon: owns the region, the VPC, the disks and the nodes, and does to them what EC2's rules say.

`python -m awsha.lab.pair PREFIX SHAPE` (SHAPE as JSON). One thread moves the region's clock and carries out its effects
in order; others answer the EC2 endpoint, instance metadata and the control socket. SIGTERM takes everything down.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from awsha.core.errors import AwshaError
from awsha.host.run import run
from awsha.lab import linux, nodeconf, sweep
from awsha.lab.clients import Clients
from awsha.lab.configure import reconfigure, write_configuration
from awsha.lab.control import ControlServer
from awsha.lab.disk import Attachment, Disks
from awsha.lab.endpoint import Endpoint
from awsha.lab.guests import Guests
from awsha.lab.iam import Roles, lab_document
from awsha.lab.metadata_service import MetadataService
from awsha.lab.mishaps import Mishaps
from awsha.lab.network import VPC, Vpc
from awsha.lab.node import VRRP_PID, Node
from awsha.lab.rules import Latency, Region
from awsha.lab.scenery import Scenery
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
KEEPALIVED_DEADLINE_S = 2.0


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
        self.events: deque[dict[str, Any]] = deque(maxlen=5000)  # what happened, for timelines: at, kind, node, text
        self.endpoint_port = 0
        self.clients = Clients(self)
        self.guests = Guests(self)
        self.mishaps = Mishaps(self)
        self.scenery = Scenery(self, Roles(self.region.name, partial(lab_document, self)))
        self.watcher = Watcher(self)
        self._endpoint: Endpoint | None = None
        self._metadata: MetadataService | None = None
        self.stopping = threading.Event()
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

    def note(self, text: str, kind: str = "", node: str = "") -> None:
        """Something happened: for the log and for timelines."""
        self.events.append({"at": self.now(), "kind": kind, "node": node, "text": text})
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
        for spec in self.specs:
            node = self.make_node(spec)
            node.on_exit = partial(self._on_exit, spec)
            self.nodes[spec.name] = node
        self.write_configuration()
        self.vpc.filter_vrrp(on=self.shape.vrrp_filtered)
        self.note("the nodes boot")
        side_by_side([node.boot for node in self.nodes.values()])
        self.watcher.start()
        side_by_side([partial(self.guests.start_agent, node) for node in self.nodes.values()])
        for node in self.nodes.values():
            # One after the other, at once: the first is ahead by more than two starts differ, and wins.
            self.guests.start_services(node)
            if self.shape.keepalived:
                wait_until(node.path(VRRP_PID).exists, KEEPALIVED_DEADLINE_S)

    def make_node(self, spec: NodeSpec) -> Node:
        """A node that has not booted yet. Other kinds of nodes override this and `write_configuration`."""
        return Node(self.lab, spec, nodeconf.node_environment())

    def write_configuration(self) -> None:
        """The nodes' configuration, before they boot. Raises AwshaError."""
        write_configuration(self)

    def _on_exit(self, spec: NodeSpec, name: str, code: int) -> None:
        self.note(f"{name} of {spec.name} ended ({code})")

    def _make_region(self) -> None:
        # Of a larger instance type when one node is to have more VIPs than the usual one takes.
        world, vips = self.region.world, sum(len(group.vips) for group in self.groups)
        world.addresses_per_interface = max(world.addresses_per_interface, 1 + vips)
        for spec in self.specs:
            self.region.add_instance(spec.name, spec.instance_id, spec.eni_id, spec.mac, spec.address)
        for group in self.groups:
            for number, volume in enumerate(group.volumes, 1):
                self.disks.create(volume.id, VOLUME_GIB, self.shape.fstype)
                self.region.add_volume(volume.id, VOLUME_GIB, tags={"Name": f"{group.name}-{number}"})

    def _serve(self) -> None:
        """EC2 and instance metadata inside the VPC, and EC2 once more for tools on this machine."""
        self._endpoint = Endpoint(
            self.region, self.now, self.region_lock, self.guests.carry_out_all, holds=self.guests.holds
        )
        self.scenery.install(self._endpoint)
        self._metadata = MetadataService(self.region, self.now, self.region_lock)
        outside = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.endpoint_port = outside.getsockname()[1]
        self._endpoint.serve(outside)
        self._endpoint.serve(self.vpc.listen(VPC, ENDPOINT_ADDRESS, ENDPOINT_PORT))
        self._metadata.serve(self.vpc.listen(VPC, METADATA_ADDRESS, 80))

    def down(self) -> None:
        """Take everything away again, whatever of it there is."""
        self.stopping.set()
        self.watcher.stop()
        self.clients.stop()
        with self.acting:
            # Cut first: a master that dies here would only write back what nobody will read.
            side_by_side([partial(self.guests.power_down, node, clean=False) for node in self.nodes.values()])
            for index in self.disks.close():
                log.error("loop%d is still in use", index)
            for name in sweep.namespaces(self.lab):
                run(["ip", "netns", "del", name], timeout_s=10.0, check=False)
            sweep.remove_netns_dir(self.lab)
        for server in (self._endpoint, self._metadata):
            if server is not None:
                server.stop()

    def wake(self) -> None:
        """The region was changed other than by a call: look at it at once."""
        if self._endpoint is not None:
            self._endpoint.wake()

    def _show(self, attachment: Attachment) -> None:
        self.nodes[attachment.node].show(attachment)

    def _hide(self, attachment: Attachment) -> None:
        self.nodes[attachment.node].hide(attachment)

    # Requests

    def answer(self, request: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
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
            "events": lambda r: self._events(float(r.get("since", 0))),
            "reconfigure": lambda r: reconfigure(self, str(r.get("fence"))),
            "client_start": lambda r: self.clients.start(float(r.get("pause_s", 0.01))),
            "client_stop": lambda _: self.clients.stop(),
            "client_report": lambda _: self.clients.report(),
            **self.mishaps.handlers(),
            **self.scenery.handlers(),
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

    def _events(self, since: float) -> dict[str, Any]:
        """What happened from `since` on (this clock), and what was asked of EC2 by which node."""
        names = {spec.instance_id: spec.name for spec in self.specs}
        asked = list(self._endpoint.requests) if self._endpoint is not None else []
        return {
            "events": [event for event in list(self.events) if event["at"] >= since],
            "requests": [
                {"at": r.time, "action": r.action, "node": names.get(r.caller or ""), "code": r.code, "s": r.duration_s}
                for r in asked
                if r.time >= since
            ],
        }

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


def side_by_side(tasks: Sequence[Callable[[], object]]) -> None:
    """Run tasks in a thread each; raise the first failure once all have ended."""
    failures: list[BaseException] = []

    def guarded(task: Callable[[], object]) -> None:
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


def serve(argv: list[str], kind: Callable[[Lab, Shape], Pair] = Pair) -> int:
    """Set up the process: signals blocked for every thread, a cgroup of its own, the log, the pid file.

    `argv`: prefix and shape; `kind` makes the pair of them. Returns the exit code when it was told to end.
    """
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
    code = kind(lab, shape).run_until_signal()
    linux.join_cgroup(Path(lab.cgroup).parent)
    sweep.remove_cgroups(lab)
    sweep.remove_run(lab)
    return code


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:]))
