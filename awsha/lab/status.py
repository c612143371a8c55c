"""What is true in the lab: each node, EC2, who mounts what; and a watch for what must never be."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from awsha.core.errors import AwshaError
from awsha.host import mountinfo
from awsha.host.run import RunError, run

if TYPE_CHECKING:
    from awsha.lab.node import Node
    from awsha.lab.pair import Pair
    from awsha.lab.settings import GroupSpec

log = logging.getLogger(__name__)

Mounts = Mapping[str, Sequence[mountinfo.Entry]]  # node -> mounts of loop devices
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
                facts["name"]: facts["state"] for facts in truth["instances"].values() if facts["name"] in pair.nodes
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
    """IPv4 addresses on the node's interface, by netlink; none without power, although the namespace stays."""
    if not node.on:
        return []
    try:
        argv = ["ip", "-n", pair.lab.netns(node.spec.name), "-j", "-4", "addr", "show", "eth0"]
        done = run(argv, timeout_s=IP_TIMEOUT_S)
        links = json.loads(done.stdout or "[]")
    except (RunError, ValueError):
        return []
    return [info["local"] for link in links for info in link.get("addr_info", [])]


def group_status(pair: Pair, group: GroupSpec) -> dict[str, Any]:
    """One group: its holder is the node that has mounted all its volumes and gets all its addresses; None: nobody."""
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
    """Whether every group has a holder whose kernel has the VIPs, and its application answers through the first."""
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
        self._last: dict[tuple[str, str, str], str] = {}
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
            try:
                mounts = {name: node.mounts() for name, node in self._pair.nodes.items()}
                with self._pair.region_lock:
                    truth = self._pair.region.snapshot()
                self._note_changes(mounts, truth)
                if suspects := self._look(mounts, truth):
                    self._look_again(suspects)
            except (OSError, AwshaError) as error:
                log.warning("the watch could not look: %s", error)  # a node went away under it

    def _look_again(self, suspects: list[str]) -> None:
        """Between two reads a volume can move on: what is wrong must be wrong at a second look."""
        with self._pair.region_lock:
            truth = self._pair.region.snapshot()
        again = self._look({name: node.mounts() for name, node in self._pair.nodes.items()}, truth)
        for text in suspects:
            if text in again:
                self.violation(text)

    def _note_changes(self, mounts: Mounts, truth: dict[str, Any]) -> None:
        """What the nodes and EC2 say by themselves, as events: roles, mounts, states of attachments and instances."""
        pair = self._pair
        now: dict[tuple[str, str, str], str] = {}
        for name, node in pair.nodes.items():
            live = {attachment.number for attachment in pair.disks.of_node(name)}
            for entry in mounts[name]:
                if entry.number in live:
                    now["mount", name, entry.target] = f"{name} has mounted {entry.target}"
            for group in pair.groups:
                if role := vrrp_role(node, group.name):
                    now["role", name, group.name] = f"{name} is {role} of {group.name}"
        for volume_id, facts in truth["volumes"].items():
            now["volume", "", volume_id] = f"{volume_id} is {facts['attachment'] or facts['state']}"
        for facts in truth["instances"].values():
            now["instance", facts["name"], ""] = f"instance {facts['name']} is {facts['state']}"
        for (kind, name, what), text in now.items():
            if self._last.get((kind, name, what)) != text:
                pair.note(text, kind, name)
        self._last = now

    def _look(self, mounts: Mounts, truth: dict[str, Any]) -> list[str]:
        """What must never be, in words."""
        pair = self._pair
        found = [
            f"{volume_id} has {len(facts['attachments'])} attachments"
            for volume_id, facts in truth["volumes"].items()
            if len(facts["attachments"]) > 1
        ]
        writable = {name: {entry.number for entry in table if not entry.read_only} for name, table in mounts.items()}
        if sum(bool(numbers) for numbers in writable.values()) < 2:
            return found
        for group in pair.groups:
            for volume in group.volumes:
                devices = pair.disks.uncut(volume.id)
                who = sorted(name for name, numbers in writable.items() if numbers & devices)
                if len(who) > 1:
                    found.append(f"{volume.id} is mounted read-write on {' and '.join(who)} at once")
        return found
