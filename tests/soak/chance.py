"""What a round does to the pair: drawn from a seed, so that the same seed names the same mishaps in the same order."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

# What is done to the node that serves; every one of them makes another node take over.
MISHAPS = (
    "stop", "kill", "freeze", "partition", "power-off", "switchover",
    "agent-kill, stop", "agent-kill, kill", "api-cut, stop", "api-cut, kill", "api-cut, power-off",
)  # fmt: skip
# What is done to the node that is to take over, a moment after: each heals by itself within seconds.
BESIDE = ("", "", "", "", "agent-kill", "api-cut", "freeze")
FENCES = ("stop-instance", "force-detach")
CODES = {
    "AttachVolume": ("InternalError", "IncorrectState", "VolumeInUse", "Unavailable", "RequestLimitExceeded"),
    "DetachVolume": ("InternalError", "IncorrectState", "InvalidAttachment.NotFound", "ServiceUnavailable"),
    "AssignPrivateIpAddresses": ("InternalError", "InvalidParameterValue", "Resource.AlreadyAssigned"),
    "UnassignPrivateIpAddresses": ("InternalError", "InvalidParameterValue"),
    "DescribeVolumes": ("InternalError", "Unavailable", "RequestExpired"),
    "DescribeInstances": ("InternalError", "InternalFailure", "AuthFailure"),
    "StopInstances": ("InternalError", "IncorrectInstanceState", "UnsupportedOperation"),
    "CreateTags": ("InternalError", "UnauthorizedOperation"),
}
CHANGES = ("AttachVolume", "DetachVolume", "AssignPrivateIpAddresses", "UnassignPrivateIpAddresses", "StopInstances")


@dataclass(frozen=True)
class Shape:
    """A lab, for some rounds."""

    fence: str
    fstype: str
    nodes: int
    volumes: int
    open_files: str

    def flags(self) -> list[str]:
        """For `lab up`."""
        return [
            "--fence", self.fence, "--fstype", self.fstype, "--nodes", str(self.nodes), "--volumes", str(self.volumes),
            "--open-files", self.open_files,
        ]  # fmt: skip


@dataclass(frozen=True)
class Round:
    """One round. `faults`: requests to the lab's daemon; `hold_s`: when the faults are cleared and everything healed,
    if the group has not moved before."""

    mishap: str
    beside: str
    beside_after_s: float
    holder_is_busy: bool  # a process keeps a file on the volume open
    faults: tuple[dict[str, Any], ...]
    hold_s: float
    latency: dict[str, float] = field(default_factory=dict)

    def words(self) -> str:
        """For people."""
        said = [self.mishap]
        if self.holder_is_busy:
            said.append("open file")
        if self.beside:
            said.append(f"{self.beside} beside")
        said += [_fault_words(fault) for fault in self.faults]
        return "; ".join(said)


def _fault_words(fault: dict[str, Any]) -> str:
    detail = fault.get("code") or (f"{fault['seconds']:g} s" if "seconds" in fault else "")
    times = fault.get("times", 1)
    return f"{fault['action']} {fault['kind']}{f' {detail}' if detail else ''} x{times or 'all'}"


def shape(chance: random.Random) -> Shape:
    """A lab."""
    return Shape(
        chance.choice(FENCES),
        chance.choice(("ext4", "ext4", "xfs")),
        chance.choice((2, 2, 2, 3)),
        chance.choice((1, 1, 2)),
        chance.choice(("terminate", "kill")),
    )


def draw(chance: random.Random) -> Round:
    """A round."""
    return Round(
        chance.choice(MISHAPS),
        chance.choice(BESIDE),
        round(chance.uniform(0.0, 2.5), 2),
        chance.random() < 0.2,
        tuple(_fault(chance) for _ in range(chance.choice((0, 0, 1, 1, 2, 3)))),
        round(chance.uniform(3.0, 8.0), 1),
        {
            "attach": round(chance.uniform(0.0, 0.8), 2),
            "attach_device": round(chance.uniform(0.0, 1.2), 2),
            "detach": round(chance.uniform(0.0, 0.8), 2),
            "assign_visible_api": round(chance.uniform(0.0, 0.8), 2),
            "assign_dataplane": round(chance.uniform(0.0, 0.5), 2),
            "lag_volumes": round(chance.choice((0.0, 0.0, 0.5, 1.5)), 2),
            "lag_instances": round(chance.choice((0.0, 0.0, 0.5, 1.5)), 2),
        },
    )


def _fault(chance: random.Random) -> dict[str, Any]:
    kind = chance.choice(
        ("delay", "error", "error", "error after", "throttle", "lost_reply", "lost_reply", "stuck_attaching",
         "stuck_busy", "stale", "black_hole", "metadata")
    )  # fmt: skip
    times = chance.randint(1, 4)
    match kind:
        case "delay":
            seconds = round(chance.uniform(0.2, 2.0), 1)
            return {"action": chance.choice(("*", *CODES)), "kind": "delay", "seconds": seconds, "times": 2 * times}
        case "error" | "error after":
            action = chance.choice(tuple(CODES))
            after = kind == "error after"
            code = "InternalError" if after else chance.choice(CODES[action])
            return {"action": action, "kind": "error", "code": code, "after": after, "times": times}
        case "throttle":
            return {"action": chance.choice(("*", *CODES)), "kind": "throttle", "times": 3 * times}
        case "lost_reply":
            return {"action": chance.choice(CHANGES), "kind": "lost_reply", "times": min(times, 2)}
        case "stuck_attaching":
            return {"action": "AttachVolume", "kind": kind, "times": 1}
        case "stuck_busy":
            return {"action": "DetachVolume", "kind": kind, "times": 1}
        case "stale":
            seconds = round(chance.uniform(0.5, 4.0), 1)
            action = chance.choice(("DescribeVolumes", "DescribeInstances", "metadata"))
            return {"action": action, "kind": "stale", "seconds": seconds, "times": 2 * times}
        case "black_hole":
            return {"action": chance.choice(("*", *CODES)), "kind": "black_hole", "times": chance.choice((times, 0))}
    return {"action": "metadata", "kind": "error", "code": "InternalError", "times": 0}
