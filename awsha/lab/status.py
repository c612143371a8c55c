"""What is true in the lab: each node, EC2, who mounts what; and a watch for what must never be."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from awsha.core.errors import AwshaError
from awsha.host.run import RunError, run

if TYPE_CHECKING:
    from awsha.lab.node import Node
    from awsha.lab.pair import Pair
    from awsha.lab.settings import GroupSpec

WATCH_PERIOD_S = 0.05
IP_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 0.5
MAX_VIOLATIONS = 100


def status(pair: Pair) -> dict[str, Any]:
    """Everything that `lab status --json` shows (DESIGN, section 6), and a little more."""
    with pair.region_lock:
        truth = pair.region.snapshot()
    return {
        "prefix": pair.lab.prefix,
        "nodes": {name: node_status(pair, node) for name, node in pair.nodes.items()},
        "groups": {group.name: group_status(pair, group) for group in pair.groups},
        "ec2": {
            "volumes": truth["volumes"],
            "addresses": truth["addresses"],
            "instances": {
                facts["name"]: facts["state"]
                for facts in truth["instances"].values()
                if facts["name"] in pair.nodes
            },
            "delivered_to": {address: pair.vpc.owner(address) for group in pair.groups for address in group.vips},
        },
        "violations": pair.watcher.violations(),
        "trouble": list(pair.trouble),
        "advert_int": pair.shape.advert_int,
        "latency": pair.shape.latency,
    }


def node_status(pair: Pair, node: Node) -> dict[str, Any]:
    """One node, as seen from outside: nothing is asked of the node itself, so a frozen one can be shown too."""
    name = node.spec.name
    live = {a.number: a for a in pair.disks.of_node(name)}
    cut = set(pair.disks.stale_numbers())
    mounts = []
    for entry in node.mounts():
        if entry.number in live or entry.number in cut:
            attachment = live.get(entry.number)
            mounts.append(
                {
                    "mount": entry.target,
                    "volume": attachment.volume_id if attachment else None,
                    "device": entry.source,
                    "read_only": entry.read_only,
                    "stale": attachment is None,
                }
            )
    roles = {group.name: vrrp_role(node, group.name) for group in pair.groups}
    return {
        "instance_id": node.spec.instance_id,
        "address": node.spec.address,
        "power": "frozen" if node.on and node.frozen else "on" if node.on else "off",
        "keepalived": keepalived_state(node),
        "agent": "off" if not node.on else "running" if node.running("agent") else "stopped",
        "vrrp_role": roles[pair.groups[0].name],
        "vrrp_roles": roles,
        "mounts": mounts,
        "devices": {a.kernel_name: a.volume_id for a in live.values()},
        "addresses": kernel_addresses(pair, node),
        "cuts": pair.vpc.cuts(name),
    }


def keepalived_state(node: Node) -> str:
    """`running`, `stopped`, `frozen` (with its whole node) or `off` (the node has no power)."""
    if not node.on:
        return "off"
    if "keepalived" not in node.commands().values():
        return "stopped"
    return "frozen" if node.frozen else "running"


def vrrp_role(node: Node, group: str) -> str | None:
    """What keepalived last told awsha: the first word of the newest intent (named <start>-<pid>); None: nothing yet."""
    newest: tuple[int, int] | None = None
    role = None
    with contextlib.suppress(OSError, AwshaError):
        for path in node.path(f"/run/awsha/intent/{group}").iterdir():
            start, _, pid = path.name.partition("-")
            if not (start.isdigit() and pid.isdigit()):
                continue
            order = (int(start), int(pid))
            words = path.read_text(errors="replace").split()
            if words and (newest is None or order > newest):
                newest, role = order, words[0]
    return role


def kernel_addresses(pair: Pair, node: Node) -> list[str]:
    """IPv4 addresses on the node's interface, by netlink; its namespace is there with and without power."""
    try:
        done = run(["ip", "-n", pair.lab.netns(node.spec.name), "-j", "-4", "addr", "show", "eth0"], timeout_s=IP_TIMEOUT_S)
        links = json.loads(done.stdout or "[]")
    except (RunError, ValueError):
        return []
    return [info["local"] for link in links for info in link.get("addr_info", [])]


def group_status(pair: Pair, group: GroupSpec) -> dict[str, Any]:
    """Who holds a group: the one node that has mounted all its volumes and gets all its addresses; None: nobody does."""
    return {
        "holder": holder(pair, group),
        "vips": list(group.vips),
        "volumes": {volume.id: volume.mount for volume in group.volumes},
        "port": group.port if pair.shape.application else None,
        "client": pair.clients.running(group.name),
    }


def holder(pair: Pair, group: GroupSpec) -> str | None:
    """The node with every volume of the group mounted and every VIP delivered to it."""
    for name, node in pair.nodes.items():
        if not node.on or any(pair.vpc.owner(vip) != name for vip in group.vips):
            continue
        writable = {entry.number for entry in node.mounts() if not entry.read_only}
        lives = [pair.disks.live(volume.id) for volume in group.volumes]
        if all(live is not None and live.node == name and live.number in writable for live in lives):
            return name
    return None


def converged(pair: Pair) -> bool:
    """Whether every group has a holder whose kernel has the VIPs and whose application answers through the first VIP."""
    for group in pair.groups:
        name = holder(pair, group)
        if name is None or not set(group.vips) <= set(kernel_addresses(pair, pair.nodes[name])):
            return False
        if pair.shape.application and not serves(pair, group):
            return False
    return True


def serves(pair: Pair, group: GroupSpec) -> bool:
    """Whether the application answers a client through the VIP."""
    try:
        with pair.vpc.connect(group.vips[0], group.port, PROBE_TIMEOUT_S) as connection:
            connection.settimeout(PROBE_TIMEOUT_S)
            connection.sendall(b"PING\n")
            return connection.recv(16) == b"OK\n"
    except OSError:
        return False


class Watcher:
    """Looks every 50 ms for what must never be, and remembers it."""

    def __init__(self, pair: Pair) -> None:
        """Nothing is watched before `start`."""
        self._pair = pair
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._seen: dict[str, float] = {}  # violation -> when it was first seen

    def start(self) -> None:
        """Watch until `stop`."""
        threading.Thread(target=self._watch, name="watcher", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._stop.set()

    def violation(self, text: str) -> None:
        """Remember one; the same text counts once."""
        with self._lock:
            if text not in self._seen and len(self._seen) < MAX_VIOLATIONS:
                self._seen[text] = self._pair.now()
                self._pair.note(f"VIOLATION: {text}")

    def violations(self) -> list[str]:
        """All so far, oldest first."""
        with self._lock:
            return list(self._seen)

    def _watch(self) -> None:
        while not self._stop.wait(WATCH_PERIOD_S):
            for text in self._look():
                # Between two reads a volume can move on: what is wrong must be wrong at a second look.
                if text in self._look():
                    self.violation(text)

    def _look(self) -> Iterable[str]:
        pair = self._pair
        with pair.region_lock:
            volumes = pair.region.snapshot()["volumes"]
        found = [f"{volume_id} has {len(facts['attachments'])} attachments"
                 for volume_id, facts in volumes.items() if len(facts["attachments"]) > 1]  # fmt: skip
        mounted = {
            name: {entry.number for entry in node.mounts() if not entry.read_only} for name, node in pair.nodes.items()
        }
        for group in pair.groups:
            for volume in group.volumes:
                devices = pair.disks.uncut(volume.id)
                who = sorted({name for name, numbers in mounted.items() if numbers & devices})
                if len(who) > 1:
                    found.append(f"{volume.id} is mounted read-write on {' and '.join(who)} at once")
        return found


