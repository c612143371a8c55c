"""The ladder: how a volume is taken from an instance that still holds it, gentlest rung first."""

from __future__ import annotations

from awsha.core.model import (
    Attachment,
    AttachmentState,
    CloudFacts,
    Heard,
    InstanceFacts,
    InstanceState,
    Unknown,
    VolumeFacts,
)
from awsha.core.policy import Fence
from awsha.core.situation import Code, Draft, Situation
from awsha.core.steps import Detach, Scope, StopInstance

GONE = frozenset({InstanceState.STOPPED, InstanceState.TERMINATED})
GOING = frozenset({InstanceState.STOPPING, InstanceState.SHUTTING_DOWN})
LEAVING = frozenset({AttachmentState.DETACHING, AttachmentState.BUSY})


def is_gone(cloud: CloudFacts, instance_id: str) -> bool:
    """Whether EC2 says that an instance does not run any more."""
    if isinstance(cloud.instances, Unknown):
        return False
    instance = cloud.instances.get(instance_id)
    return instance is None or instance.state in GONE


def alive(heard: Heard, now: float, advert_int: float) -> bool:
    """Whether a last advert still speaks for its sender: it did not resign (priority 0), and VRRP's own patience
    (3 intervals, RFC 5798 6.1) is not over."""
    return heard.priority > 0 and now - heard.at < 3 * advert_int


def heard_next(before: Heard | None, at: float, priority: int, advert_int: float) -> Heard:
    """What is known of a peer with its next advert: a silence that VRRP does not wait for is a break."""
    if before is None or not alive(before, at, advert_int):
        return Heard(at, priority, at)
    return Heard(at, priority, before.since)


def heard_alive(s: Situation, node: str) -> bool:
    """Whether `node` is master by its own adverts."""
    heard = s.host.heard.get(node)
    return heard is not None and alive(heard, s.now, s.group.advert_int)


def releasing(s: Situation, facts: VolumeFacts, node: str) -> bool:
    """Whether the holder says, by a fresh tag on the volume, that it is releasing.

    Fresh: not older than a handover may take.
    """
    tag = facts.releasing
    return tag is not None and tag.node == node and abs(s.wall - tag.at_wall) < s.group.timeouts.handover_s


def take(draft: Draft, facts: VolumeFacts, held: Attachment) -> None:
    """Plan the next rung for a volume that another instance holds."""
    s = draft.s
    node = s.me.peers.get(held.instance_id)
    if node is None:
        draft.block(
            Code.HELD_BY_STRANGER,
            facts.id,
            f"{facts.id} is attached to {held.instance_id}, which is no node of this configuration",
            f"detach it there (aws ec2 detach-volume --volume-id {facts.id}) or correct the ids in awsha.toml",
            Scope.CLOUD,
        )
        return
    instance = s.instance(held.instance_id)
    if isinstance(instance, Unknown):
        draft.unknown(Code.CLOUD_UNKNOWN, "instances", f"EC2 does not say how {node} is", instance, Scope.CLOUD)
    elif instance is None or instance.state in GONE:
        _take_from_dead(draft, facts, held, node)
    elif instance.state in GOING:
        _wait_for_stop(draft, instance, node)
    else:
        _take_from_running(draft, facts, held, node)


def _take_from_dead(draft: Draft, facts: VolumeFacts, held: Attachment, node: str) -> None:
    """A stopped instance writes nothing any more: detach at once, and with Force when that hangs."""
    if held.state not in LEAVING:
        draft.step(Detach(facts.id, held.instance_id))
        return
    waited = draft.standing(Code.HOLDER_DETACHING, facts.id)
    if waited >= draft.s.group.timeouts.detach_s:
        draft.step(Detach(facts.id, held.instance_id, force=True))
    else:
        draft.wait(
            Code.HOLDER_DETACHING,
            facts.id,
            f"{facts.id} is being detached from {node}, which is not running",
            Scope.CLOUD,
            for_s=draft.s.group.timeouts.detach_s,
        )


def _wait_for_stop(draft: Draft, instance: InstanceFacts, node: str) -> None:
    """Stopping ends by itself; a guest that hangs in its shutdown is stopped again, without asking it."""
    patience = draft.s.group.timeouts.handover_s
    waited = draft.wait(
        Code.HOLDER_STOPPING, instance.id, f"{node} ({instance.id}) is {instance.state}", Scope.CLOUD, for_s=patience
    )
    if waited >= patience and draft.s.group.fence is Fence.STOP_INSTANCE and instance.state is InstanceState.STOPPING:
        draft.step(StopInstance(instance.id, node))


def _take_from_running(draft: Draft, facts: VolumeFacts, held: Attachment, node: str) -> None:
    """Rungs 1, 3, 4 and 5 of DESIGN section 3, in this order."""
    s, limit = draft.s, draft.s.group.timeouts
    ours = _own_detach(s, facts.id, held.instance_id)
    if held.state in LEAVING and not ours:
        waited = draft.standing(Code.HOLDER_DETACHING, facts.id)
        if waited < limit.handover_s:
            draft.wait(
                Code.HOLDER_DETACHING,
                facts.id,
                f"{facts.id} is being detached from {node}",
                Scope.CLOUD,
                for_s=limit.handover_s,
            )
            return
    if not ours and (releasing(s, facts, node) or _releases_another(s, facts, held, node)):
        waited = draft.standing(Code.HOLDER_RELEASING, facts.id)
        if waited < limit.handover_s:
            draft.wait(
                Code.HOLDER_RELEASING,
                facts.id,
                f"{node} says that it is releasing what it holds of this group",
                Scope.CLOUD,
                for_s=limit.handover_s,
            )
            return
    if heard_alive(s, node):
        draft.wait(
            Code.HOLDER_IS_MASTER,
            facts.id,
            f"{node} holds {facts.id} and is heard as master: VRRP settles it",
            Scope.CLOUD,
            for_s=3 * s.group.advert_int,
        )
        return
    if node not in s.host.heard:
        draft.block(
            Code.HOLDER_NEVER_HEARD,
            facts.id,
            f"{node} holds {facts.id}, and no VRRP advert of {node} was ever heard since this node booted: "
            f"{node} may have died before that, or VRRP is filtered: a healthy holder is not fenced for that",
            f"if {node} is dead: awsha fence {node} --yes; "
            "if it lives: let protocol 112 pass both ways between the nodes (awsha check)",
            Scope.CLOUD,
        )
        return
    if draft.standing(Code.GRACE, facts.id) < limit.release_grace_s:
        draft.wait(
            Code.GRACE,
            facts.id,
            f"{node} is silent; it has {limit.release_grace_s:g} s to begin a release before it is fenced",
            Scope.CLOUD,
            for_s=limit.release_grace_s,
        )
        return
    _fence(draft, facts, held, node)


def _releases_another(s: Situation, facts: VolumeFacts, held: Attachment, node: str) -> bool:
    """Whether the holder lets another volume of this group go, or has just done so: then this one follows.

    The volumes of a release are tagged, unmounted and detached side by side: one can be seen to go before the other.
    """
    for other in s.cloud.volumes.values() if not isinstance(s.cloud.volumes, Unknown) else ():
        if other.id == facts.id:
            continue
        there = next((a for a in other.attachments if a.instance_id == held.instance_id), None)
        leaves = there is not None and there.state in LEAVING and not _own_detach(s, other.id, held.instance_id)
        if leaves or releasing(s, other, node):
            return True
    return False


def _own_detach(s: Situation, volume_id: str, holder: str) -> bool:
    """Whether the detach that is under way there is this node's own fence."""
    past = s.past(Detach, volume_id)
    return past is not None and past.ok and isinstance(past.step, Detach) and past.step.instance_id == holder


def _fence(draft: Draft, facts: VolumeFacts, held: Attachment, node: str) -> None:
    """The last rung, by policy."""
    s = draft.s
    if s.group.fence is Fence.NONE:
        draft.block(
            Code.FENCE_NONE,
            facts.id,
            f'{node} holds {facts.id} and is silent; the policy is fence = "none"',
            f"make sure that {node} is dead, then: awsha fence {node} --yes",
            Scope.CLOUD,
        )
    elif s.group.fence is Fence.STOP_INSTANCE:
        draft.step(StopInstance(held.instance_id, node))
    elif held.state not in LEAVING:
        draft.step(Detach(facts.id, held.instance_id))
    elif draft.standing(Code.FENCING, facts.id) >= s.group.timeouts.detach_s:
        draft.step(Detach(facts.id, held.instance_id, force=True))
    else:
        draft.wait(
            Code.FENCING,
            facts.id,
            f"{facts.id} is {held.state} at {node}; Force follows",
            Scope.CLOUD,
            for_s=s.group.timeouts.detach_s,
        )
