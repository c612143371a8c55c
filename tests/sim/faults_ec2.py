"""What goes wrong at EC2 and on the way to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from awsha.lab.rules import Fault, FaultKind
from tests.sim.cloud import CallFault

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.world import World

# Every code of EC2.md, and those that its page names for any call.
CODES = (
    "IncorrectState", "VolumeInUse", "InvalidAttachment.NotFound", "InvalidParameterValue",
    "InvalidVolume.ZoneMismatch",
    "InvalidVolume.NotFound", "InvalidInstanceID.NotFound", "InvalidNetworkInterfaceID.NotFound",
    "AttachmentLimitExceeded", "PrivateIpAddressLimitExceeded", "IncorrectInstanceState", "Resource.AlreadyAssigned",
    "InvalidIPAddress.InUse", "RequestLimitExceeded", "InternalError", "InternalFailure", "ServiceUnavailable",
    "Unavailable", "UnauthorizedOperation", "DryRunOperation", "RequestExpired", "AuthFailure",
)  # fmt: skip
ACTIONS = (
    "AttachVolume", "DetachVolume", "CreateTags", "DeleteTags", "StopInstances", "AssignPrivateIpAddresses",
    "UnassignPrivateIpAddresses", "DescribeVolumes", "DescribeInstances", "*", "look", "change",
)  # fmt: skip


def later(world: World, low: float, high: float) -> float:
    """A chance between two bounds."""
    return low + (high - low) * world.chance()


def api_error(world: World, node: Node) -> str:
    """One code on the next calls of one action, before or after they took effect."""
    kind = "error" if world.chance() < 0.7 else "error_after"
    return _call_fault(world, node, kind, world.random.choice(CODES))


def throttle(world: World, node: Node) -> str:
    """RequestLimitExceeded, several times."""
    return _call_fault(world, node, "throttle", "RequestLimitExceeded")


def lose_reply(world: World, node: Node) -> str:
    """The call takes effect, and nobody hears of it."""
    return _call_fault(world, node, "lost")


def black_hole(world: World, node: Node) -> str:
    """Nothing happens and nobody answers."""
    return _call_fault(world, node, "black_hole")


def late_call(world: World, node: Node) -> str:
    """A request travels for seconds."""
    return _call_fault(world, node, "late")


def _call_fault(world: World, node: Node, kind: str, code: str = "") -> str:
    random = world.random
    action = random.choice(ACTIONS)
    times = 1 + int((12 if kind == "throttle" else 4) * random.random() ** 2)
    where = node.name if random.random() < 0.5 else ""
    world.cloud.faults.append(CallFault(action, kind, code, times, where, later(world, 0.2, 4.0)))
    return f"EC2: {action} {kind} {code} x{times}"


def stale(world: World, node: Node) -> str:
    """Views lag and go backwards for a while."""
    del node
    world.cloud.lag_s = later(world, 0.5, 3.0)
    world.at(world.now + later(world, 1.0, 8.0), _fresh, world)
    return f"EC2's views lag by up to {world.cloud.lag_s:.1f} s"


def _fresh(world: World) -> None:
    world.cloud.lag_s = 0.0


def stuck(world: World, node: Node) -> str:
    """The next attach never completes, or the next detach never ends by itself."""
    del node
    attach = world.chance() < 0.5
    kind = FaultKind.STUCK_ATTACHING if attach else FaultKind.STUCK_BUSY
    world.cloud.region.add_fault(Fault("AttachVolume" if attach else "DetachVolume", kind))
    return f"EC2: {kind}"


def cut_api(world: World, node: Node) -> str:
    """The endpoint is out of reach."""
    node.api_cut = True
    world.at(world.now + later(world, 0.5, 12.0), _join_api, node)
    return "the API is out of reach"


def _join_api(node: Node) -> None:
    node.api_cut = False
