"""Which peer would get a group by a planned switchover, and why none should: by EC2 and by the peers' words. Pure.

A word is as old as its tag says (ADR 0008), and never the reason for an action. That a peer said that it is not ready
is reason enough not to begin: nothing is lost by asking again when it has said something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from awsha.core.model import InstanceFacts, InstanceState, Self
from awsha.core.policy import Group
from awsha.core.readiness import FAULT, READY, SERVING, STOP, TAKING_OVER, UNHEALTHY, ago
from awsha.core.situation import Code

# these stand in the way of a takeover from a silent master only: in a switchover the volume is let go first
FINE = frozenset({READY, SERVING, TAKING_OVER, Code.FENCE_NONE.value, Code.HOLDER_NEVER_HEARD.value})
# with these keepalived keeps a node out, or does not run: VRRP does not choose it
OUT = frozenset({
    FAULT, STOP, UNHEALTHY, Code.RELEASED.value, Code.FENCED.value, Code.DAMPED.value,
    Code.KEEPALIVED_GONE.value, Code.NO_INTENT.value,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Peer:
    """One of them. `why`: what is known against it; empty: nothing. `competes`: VRRP may choose it."""

    name: str
    why: str
    competes: bool


def peers(group: Group, me: Self, instances: Mapping[str, InstanceFacts], wall: float) -> list[Peer]:
    """All of them, as far as EC2 and their words tell. `wall`: Unix seconds."""
    return [_peer(group, name, instances.get(instance_id), wall) for instance_id, name in me.peers.items()]


def _peer(group: Group, name: str, facts: InstanceFacts | None, wall: float) -> Peer:
    if facts is None or facts.state is not InstanceState.RUNNING:
        return Peer(name, f"{name} is {facts.state if facts else 'missing'}", competes=False)
    word = facts.said.of(group.name) if facts.said else None
    if facts.said is None or word is None or word in FINE:
        return Peer(name, "", competes=True)
    why = f"{name} is not ready: {ago(wall - facts.said.at_wall)} it said {word}"
    return Peer(name, why, competes=word not in OUT)


def refusals(found: list[Peer], to: str | None) -> list[str]:
    """Why a switchover is not begun; empty: nothing speaks against it. `to`: the peer that shall have it."""
    if to is None:
        chosen = [peer for peer in found if peer.competes]
        return [peer.why for peer in chosen or found if peer.why]
    reasons = [peer.why for peer in found if peer.name == to and peer.why]
    others = [peer.name for peer in found if peer.competes and peer.name != to]
    if others:
        reasons.append(f"VRRP may choose {' or '.join(others)}: there run awsha release first")
    return reasons
