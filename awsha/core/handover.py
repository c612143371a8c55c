"""A planned switchover: how it ends here, how the peer answers, and what EC2 shows of the peer. Pure.

The node that lets go asks, in the words of its releasing tag; the one that took over answers with the same tag once it
serves, or says there why it let go again. Whoever watches reads it from the volume, which is looked at anyway.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from awsha.core.fencing import LEAVING, alive
from awsha.core.model import (
    Attachment,
    CloudFacts,
    InstanceFacts,
    InstanceState,
    Releasing,
    Role,
    Self,
    Serving,
    Unknown,
    VolumeFacts,
)
from awsha.core.policy import Group
from awsha.core.situation import Draft, Situation
from awsha.core.steps import Scope, SetMark, TagServing

SWITCHOVER = "switchover:"  # this node is out until the moment (boottime seconds) that follows, or shorter
ASKS = "switchover"  # why a volume is released: whoever takes it over shall say so
FAILED_S = 60.0  # a release so soon after a failure as master is one because of it
TRIES = 3  # of an answer: it is a courtesy, and nothing of the service depends on it


class LiftMark(SetMark):
    """Remove a mark that an operator has set for a time: that depends on nothing that EC2 or a disk could say."""

    __slots__ = ()

    @property
    def needs(self) -> frozenset[Scope]:
        """The moment alone."""
        return frozenset()


def under_way(marks: Collection[str]) -> frozenset[str]:
    """The marks of switchovers. No other mark goes when one ends: an operator's release may have come meanwhile."""
    return frozenset({name for name in marks if name.startswith(SWITCHOVER)})


def lift(name: str) -> LiftMark:
    """The step that removes this mark."""
    return LiftMark(name, present=False)


def mark(until: float) -> str:
    """The mark of a switchover that waits for a peer until this moment (boottime seconds)."""
    return f"{SWITCHOVER}{until:.1f}"


def until(marks: Collection[str]) -> float | None:
    """When the last of the switchovers ends that these marks name; None without one."""
    moments = []
    for name in under_way(marks):
        try:
            moments.append(float(name.removeprefix(SWITCHOVER)))
        except ValueError:
            moments.append(0.0)  # nobody's: it ends at once
    return max(moments, default=None)


def end(draft: Draft) -> None:
    """Plan the end of a switchover: VRRP has settled on a peer, or nobody came in time. This node competes again.

    From then on VRRP alone decides: the peer keeps it (nopreempt), and when it fails to take over this node does.
    """
    s = draft.s
    over = until(s.host.marks)
    if over is None:
        return
    if s.now >= over or _settled(s):
        for name in sorted(under_way(s.host.marks)):
            draft.step(lift(name))


def _settled(s: Situation) -> bool:
    """Whether a peer is master, or was since this node is out: it may have failed before anybody looked.

    Only masters send adverts, so one that resigns (priority 0) was master as well.
    """
    if s.intent is None or s.intent.role is Role.MASTER:
        return False
    heard = [s.host.heard[peer] for peer in s.me.peers.values() if peer in s.host.heard]
    return any(h.at > s.intent.recorded_at or alive(h, s.now, s.group.advert_int) for h in heard)


def why_released(s: Situation) -> str:
    """What the releasing tag says besides who and when."""
    if until(s.host.marks) is not None:
        return ASKS
    failed = s.host.faults
    return f"failed as master: {failed.text}" if failed is not None and s.now - failed.at < FAILED_S else ""


def answer(draft: Draft) -> None:
    """This node serves: tell the one that asked by its switchover. One request, and none in any other takeover."""
    s = draft.s
    for volume in s.group.volumes[:1]:
        facts = s.volume(volume.id or "")
        asked = facts.releasing if isinstance(facts, VolumeFacts) else None
        past = s.past(TagServing, f"tag:{volume.id}")
        tired = past is not None and not past.ok and past.runs >= TRIES
        if asked is not None and asked.why == ASKS and asked.node != s.me.name and not tired:
            draft.step(TagServing(volume.id or ""))


# --- watched from the node that let go -------------------------------------------------------------------------


class Stage(StrEnum):
    """How far a peer is, by EC2."""

    UNKNOWN = "unknown"  # EC2 does not say
    FREE = "free"  # nobody has anything yet
    TAKING = "taking"  # a peer has some of it
    HOLDS = "holds"  # a peer has all volumes and addresses; what it does with them EC2 does not know
    SERVES = "serves"  # and says that it serves
    BACK = "back"  # a peer had some of it and has let it go
    HERE = "here"  # this node has something


@dataclass(frozen=True, slots=True)
class Seen:
    """One look. `peer`: the node that it is about, or the instance id of a stranger; "" when it is about nobody."""

    stage: Stage
    text: str
    peer: str = ""


Words = Mapping[str, Releasing | Serving | None]  # by volume: what its tag says


def words(cloud: CloudFacts) -> Words:
    """What the tags of the volumes say."""
    if isinstance(cloud.volumes, Unknown):
        return {}
    return {v.id: v.releasing or v.serving for v in cloud.volumes.values()}


def seen(group: Group, me: Self, cloud: CloudFacts, before: Words, had: str = "") -> Seen:
    """What EC2 shows. `before`: the tags before the switchover, which say nothing about it. `had`: who held something
    at an earlier look."""
    volumes = cloud.volumes
    if isinstance(volumes, Unknown):
        return Seen(Stage.UNKNOWN, f"EC2 does not say where the volumes are: {volumes.reason}")
    if isinstance(cloud.instances, Unknown):
        return Seen(Stage.UNKNOWN, f"EC2 does not say where the addresses are: {cloud.instances.reason}")
    if missing := [v.id for v in group.volumes if v.id not in volumes]:
        return Seen(Stage.UNKNOWN, f"EC2 knows no {', '.join(map(str, missing))}")
    known = {me.instance_id: me.name, **me.peers}
    facts = [volumes[v.id or ""] for v in group.volumes]
    held = {v.id: (known.get(a.instance_id, a.instance_id), a) for v in facts for a in v.attachments}
    vips = {vip: known.get(i.id, i.id) for i in cloud.instances.values() for vip in i.addresses & set(group.vips)}
    there = {name for name, _ in held.values()} | set(vips.values())
    if back := _gone_back(facts, me, before):
        return back
    peer = had if had in there else next(iter(sorted(there - {me.name})), "")
    if not peer:
        if had:
            return Seen(Stage.BACK, _gone_without_a_word(me, cloud.instances, had), had)
        return Seen(Stage.HERE if there else Stage.FREE, _here(me.name, held, vips), "")
    whole = len(held) == len(facts) and all(n == peer and a.state == "attached" for n, a in held.values())
    if not whole or any(vips.get(vip) != peer for vip in group.vips):
        return Seen(Stage.TAKING, f"{peer} takes over: {_parts(group, facts, held, vips)}", peer)
    told = [v.serving for v in facts if v.serving is not None and v.serving != before.get(v.id)]
    if any(word.node == peer for word in told):
        return Seen(Stage.SERVES, f"{peer} serves", peer)
    what = "volumes and addresses" if facts else "the addresses"
    return Seen(Stage.HOLDS, f"{peer} has {what}{'; it checks, mounts, starts' if facts else ''}", peer)


def _gone_back(facts: Iterable[VolumeFacts], me: Self, before: Words) -> Seen | None:
    """A peer that says on a volume that it releases it, and began to do so after the switchover."""
    for volume in facts:
        tag = volume.releasing
        if tag is not None and tag.node != me.name and tag != before.get(volume.id):
            return Seen(Stage.BACK, f"{tag.node} let it go again{f': {tag.why}' if tag.why else ''}", tag.node)
    return None


def _gone_without_a_word(me: Self, instances: Mapping[str, InstanceFacts], peer: str) -> str:
    """What is known of a peer that has nothing any more and did not say why."""
    ids = [instance_id for instance_id, name in me.peers.items() if name == peer]
    facts = instances.get(ids[0]) if ids else None
    if ids and (facts is None or facts.state is not InstanceState.RUNNING):
        return f"{peer} did not finish: its instance is {facts.state if facts else 'missing'}"
    return f"{peer} let it go again, and does not say why"


def _here(me: str, held: Mapping[str, tuple[str, Attachment]], vips: Mapping[str, str]) -> str:
    """What is still, or again, at this node."""
    if not held and not vips:
        return "nobody has it yet"
    leaving = any(a.state in LEAVING for _, a in held.values())
    return f"{', '.join([*held, *vips])} {'leaving' if leaving else 'at'} {me}"


def _parts(
    group: Group,
    facts: Iterable[VolumeFacts],
    held: Mapping[str, tuple[str, Attachment]],
    vips: Mapping[str, str],
) -> str:
    """Each volume and address with where it is."""
    parts = [f"{v.id} {held[v.id][1].state} at {held[v.id][0]}" if v.id in held else f"{v.id} free" for v in facts]
    return ", ".join([*parts, *(f"{vip} at {vips[vip]}" if vip in vips else f"{vip} free" for vip in group.vips)])
