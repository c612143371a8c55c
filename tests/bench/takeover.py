"""Takeovers and releases by the intent alone (no keepalived, no application): nothing but EC2, the kernel and awsha."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from tests.bench.alone import file_systems
from tests.bench.bench_lab import GONE, HERE, BenchError, BenchLab
from tests.bench.row import Row, compared

CALL_S = 0.03  # of each EC2 request, as AWS's API in the same region answers
# Not one delay but several, so that no schedule of looks fits by luck. Seconds: until `attached`, until the device.
ATTACH = ((1.9, 1.6), (2.3, 2.0), (2.75, 2.4), (3.2, 2.5), (2.1, 2.4), (2.6, 2.55))
ADDRESS = {"assign_visible_api": 0.3, "assign_visible_metadata": 1.2, "assign_dataplane": 0.8}
DETACH_S = (2.2, 2.9)
QUIET_S = 0.4
ALONE = {"agent": True, "keepalived": False, "application": False}


@dataclass(frozen=True)
class Takeover:
    """One takeover: seconds, and what was asked of EC2 meanwhile."""

    took: float
    possible: float
    requests: list[dict[str, Any]]
    waterfall: list[tuple[float, str]]


def release_all(lab: BenchLab) -> None:
    """Every node is a backup, nobody holds anything, without delays."""
    lab.latency()
    for node in ("a", "b"):
        lab.notify(node, "backup", *(g.name for g in lab.groups))
    lab.wait_for(lab.volumes_free, "all volumes are free")
    settled(lab)


def settled(lab: BenchLab) -> None:
    """Wait until nobody has changed anything for a while."""

    def quiet() -> bool:
        return acts(lab.requests(lab_now() - QUIET_S)) == 0

    lab.wait_for(quiet, "EC2 is left alone")


def lab_now() -> float:
    """The region's clock."""
    return time.monotonic()


def possible(attach: float, device: float, mount: float) -> float:
    """The critical path: AttachVolume's own call, EC2's delay, the call that learns of its end, and the mount."""
    return CALL_S + max(attach, device) + CALL_S + mount


def delays(attach: float, device: float, detach: float = DETACH_S[0]) -> dict[str, float]:
    """AWS-like delays with nothing random."""
    return {"call": CALL_S, "attach": attach, "attach_device": device, "detach": detach, **ADDRESS}


def take(lab: BenchLab, node: str, at: tuple[float, float], mount: float, *groups: str) -> Takeover:
    """From released: a node is told that it is master of these groups; until its agent says that all is there."""
    names = groups or ("data",)
    lab.latency(**delays(*at))
    began = lab_now()
    lab.notify(node, "master", *names)
    told = min(lab.intent_at(node, "master", name) for name in names)
    there = max(lab.wait_said(node, HERE, began, name) for name in names)
    requests = [r for r in lab.requests(told, node) if r["at"] <= there]
    lines = [(when - told, text) for when, text in lab.log(node, told)]
    lines += [(r["at"] - told, f"→ {r['action']} {r['code']}") for r in requests]
    return Takeover(there - told, possible(*at, mount), requests, sorted(lines))


def let_go(lab: BenchLab, node: str, detach: float, *groups: str) -> tuple[float, list[dict[str, Any]]]:
    """From holding: a node is told that it is a backup; seconds until EC2 has the volumes free, and the requests."""
    names = groups or ("data",)
    lab.latency(**delays(*ATTACH[0], detach))
    began = lab_now()
    lab.notify(node, "backup", *names)
    told = min(lab.intent_at(node, "backup", name) for name in names)
    gone = max(lab.wait_said(node, GONE, began, name) for name in names)
    requests = [r for r in lab.requests(told, node) if r["at"] <= gone]
    asked = [r for r in requests if r["action"] == "DetachVolume" and not r["code"]]
    if not asked:
        raise BenchError("nothing was detached")
    # EC2 is done so long after it took the last request; its state is looked at too coarsely to measure it
    return max(float(r["at"]) + CALL_S for r in asked) + detach - told, requests


def acts(requests: list[dict[str, Any]]) -> int:
    """How many are no polls."""
    return sum(not r["action"].startswith("Describe") for r in requests)


def takeover(quick: bool) -> list[Row]:
    """takeover, release with 1 mount, requests."""
    alone = file_systems()
    with BenchLab(**ALONE) as lab:
        release_all(lab)
        took, freed, counts = [], [], []
        rounds = ATTACH[:2] if quick else ATTACH
        for index, at in enumerate(rounds):
            node = "ba"[index % 2]
            took.append(take(lab, node, at, alone.mount))
            freed.append((*let_go(lab, node, DETACH_S[index % 2]), DETACH_S[index % 2]))
            counts.append((acts(took[-1].requests), acts(freed[-1][1])))
            settled(lab)
        show_waterfall("takeover", took[0].waterfall)
        looks = sum(len(t.requests) for t in took) / len(took)
        return [
            compared(
                "takeover", [t.took for t in took], [t.possible for t in took], 1.05,
                note=f"{len(took)} delays; {CALL_S * 1e3:g} ms a call; mount alone {alone.mount * 1e3:.0f} ms",
            ),
            compared(
                "release 1 mount", [f[0] for f in freed], [alone.unmount + CALL_S + f[2] for f in freed], 1.1,
                note=f"÷ umount ({alone.unmount * 1e3:.0f} ms), DetachVolume",
            ),
            Row("requests takeover", max(c[0] for c in counts), "requests", goal=5, note=f"with looks {looks:.0f}"),
            Row("requests release", max(c[1] for c in counts), "requests", goal=4),
        ]  # fmt: skip


def scaling(quick: bool) -> list[Row]:
    """8 volumes and 8 VIPs ÷ 1 and 1; release with 8 mounts; 4 groups at once ÷ 1."""
    rounds = ATTACH[1:2] if quick else ATTACH[1:4]
    one, eight = file_systems(1), file_systems(8)
    with BenchLab(**ALONE) as lab:
        release_all(lab)
        single = []
        for at in rounds:
            single.append(take(lab, "b", at, one.mount).took)
            release_all(lab)
    with BenchLab(**ALONE, volumes=8, vips=8) as lab:
        release_all(lab)
        many, freed = [], []
        for index, at in enumerate(rounds):
            many.append(take(lab, "b", at, eight.mount))
            freed.append((let_go(lab, "b", DETACH_S[index % 2])[0], DETACH_S[index % 2]))
            settled(lab)
        show_waterfall("takeover of 8 volumes", many[0].waterfall)
    with BenchLab(**ALONE, groups=4) as lab:
        release_all(lab)
        names = [g.name for g in lab.groups]
        alone, groups = [], []
        for at in rounds:
            alone.append(take(lab, "b", at, one.mount).took)
            release_all(lab)
            groups.append(take(lab, "b", at, one.mount, *names).took)
            release_all(lab)
    return [
        compared("scaling 8 volumes 8 VIPs", [t.took for t in many], single, 1.2, note="÷ 1 and 1"),
        compared("scaling 4 groups", groups, alone, 1.2, note="at once ÷ 1"),
        compared(
            "release 8 mounts", [f[0] for f in freed], [eight.unmount + CALL_S + f[1] for f in freed], 1.1,
            note=f"÷ 8 umounts side by side ({eight.unmount * 1e3:.0f} ms), DetachVolume",
        ),
    ]  # fmt: skip


def show_waterfall(what: str, lines: list[tuple[float, str]]) -> None:
    """The run, line by line, for whoever wants to know where the time goes."""
    print(f"\n{what}, seconds after the intent:")  # noqa: T201
    for when, text in lines:
        print(f"  {when:7.3f}  {text}")  # noqa: T201
