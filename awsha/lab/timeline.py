"""One takeover as bars: which part of the outage was VRRP, which was EC2, which was this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

GRACE_S = 0.3  # a shorter pause between the VRRP decision and the first act is not worth a bar
COLOURS = {
    "vrrp": "magenta",
    "grace": "white",
    "release": "yellow",
    "attach": "cyan",
    "address": "blue",
    "here": "green",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One part. `begin` and `end` are seconds on CLOCK_MONOTONIC."""

    label: str
    kind: str
    begin: float
    end: float

    @property
    def colour(self) -> str:
        """Its colour on a terminal."""
        return COLOURS[self.kind]


def bars(happened: dict[str, Any], new: str, served_at: float) -> list[Bar]:
    """The parts of a takeover by node `new`, in the order of their beginnings; it ended when the client was served.

    `happened` is the daemon's answer to `events`, from just before the fault on.
    """
    events, requests = happened["events"], happened["requests"]
    broken = first(events, lambda e: e["kind"] == "failing")
    began = float(broken["at"]) if broken else float(events[0]["at"]) if events else served_at
    found: list[Bar] = []

    def until(label: str, kind: str, begin: float, end: dict[str, Any] | None) -> None:
        if end is not None and begin <= end["at"] <= served_at + 1.0:
            found.append(Bar(label, kind, begin, float(end["at"])))

    master = after(events, began, "role", new, "is master")
    until(f"VRRP: {new} is master", "vrrp", began, master)
    asked: dict[tuple[str, str | None], float] = {}
    for request in requests:  # a call that was repeated counts once, from the first time
        if not request["code"]:
            asked.setdefault((request["action"], request["node"]), float(request["at"]))
    for (action, node), at in asked.items():
        if action == "StopInstances":
            until("EC2: the old instance is stopped", "release", at, after(events, at, "instance", "", "is stopped"))
        elif action == "DetachVolume":
            until(f"EC2: detach, asked by {node}", "release", at, after(events, at, "volume", "", "is available"))
        elif action == "AttachVolume" and node == new:
            until("EC2: the volume is attached", "attach", at, after(events, at, "volume", "", "is attached"))
            until("EC2: the device appears", "attach", at, after(events, at, "DeviceAttached", new, ""))
        elif action == "AssignPrivateIpAddresses" and node == new:
            until("EC2: the address is delivered", "address", at, after(events, at, "AddressMoved", new, ""))
    acts = [bar.begin for bar in found if bar.kind in ("release", "attach")]
    if master is not None and acts and min(acts) - master["at"] > GRACE_S:
        found.append(Bar("awsha: grace for a release", "grace", float(master["at"]), min(acts)))
    ready = max((bar.end for bar in found if bar.kind in ("attach", "address")), default=None)
    mounted = after(events, began, "mount", new, "")
    device = first(events, lambda e: e["kind"] == "DeviceAttached" and e["node"] == new)
    if device is not None:
        until("here: the file system is mounted", "here", float(device["at"]), mounted)
    last = max([float(mounted["at"])] if mounted else [], default=ready or began)
    if served_at > last:
        found.append(Bar("here: the client is served", "here", last, served_at))
    return sorted(found, key=lambda bar: (bar.begin, bar.end))


def after(events: list[dict[str, Any]], at: float, kind: str, node: str, words: str) -> dict[str, Any] | None:
    """The first event of a kind from `at` on, of a node (empty: any), with these words in its text."""
    return first(
        events,
        lambda e: e["at"] >= at and e["kind"] == kind and (not node or e["node"] == node) and words in e["text"],
    )


def first(events: list[dict[str, Any]], wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    """The first event that is wanted."""
    return next((event for event in events if wanted(event)), None)
