"""Who takes over if a node dies now, and why not. Pure.

About this node it is known: the plan is made as if keepalived said MASTER and every peer were silent, so what would
stand in the way of a takeover stands in the way here. About a peer it is known what EC2 says of its instance; what its
agent said last, by a tag, is its word, of a time that is told with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from awsha.core import fencing
from awsha.core.health import Verdict
from awsha.core.model import UNREAD, Heard, InstanceState, Intent, Mount, Role, Said, Unknown, VolumeFacts
from awsha.core.pacing import describe
from awsha.core.plan import plan
from awsha.core.situation import Code, Memory, Plan, Situation
from awsha.core.steps import ClearReleasing, SetMark
from awsha.core.volumes import FENCED

READY, SERVING, TAKING_OVER = "ready", "serving", "taking-over"
FAULT, STOP, UNHEALTHY, ZONE = "fault", "stop", "unhealthy", "zone"
SILENT = Heard(0.0, 0)  # heard since boot, and not any more
# a takeover that meets one of these gets nowhere, though it ends by itself
STOPPED_BY = frozenset({Code.PAUSED, Code.RELEASED, Code.DAMPED, Code.CLOUD_UNKNOWN, Code.HOST_UNKNOWN})


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that stands in the way. `code`: of status, or a word of this module."""

    code: str
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a node takes over if the master dies now. `ready` None: it can't be told from here.

    because: why not, or why it can't be told. but: what makes it slower, or less sure. does: what it would start with.
    """

    node: str
    ready: bool | None
    because: tuple[Reason, ...] = ()
    but: tuple[str, ...] = ()
    does: tuple[str, ...] = ()
    said: Said | None = None


def master(s: Situation) -> str | None:
    """The node that is master, by this node's keepalived or by the adverts that are heard; None: nobody is known."""
    if s.intent is not None and s.intent.role is Role.MASTER and s.host.keepalived_gone_since is None:
        return s.me.name
    return next((name for name in s.me.peers.values() if fencing.heard_alive(s, name)), None)


def takeover(s: Situation, decided: Plan, verdict: Verdict, *, agent: bool = True) -> tuple[Readiness, ...]:
    """Who takes over if the master dies now: of a master its peers, of any other node itself.

    `agent`: whether one runs on this node.
    """
    if master(s) == s.me.name and decided.goal != "release":
        return tuple(of_peer(s, instance_id, name) for instance_id, name in s.me.peers.items())
    return (of_this_node(s, decided, verdict, agent=agent),)


def word(s: Situation, decided: Plan, verdict: Verdict) -> str:
    """How a group is on this node, in one word for the peers: serving, taking-over, ready, or why it is not ready."""
    if decided.goal == "master":
        return SERVING if decided.ready else TAKING_OVER
    found = of_this_node(s, decided, verdict)
    return READY if found.ready else found.because[0].code


# --- this node --------------------------------------------------------------------------------------------------------


def of_this_node(s: Situation, decided: Plan, verdict: Verdict, *, agent: bool = True) -> Readiness:
    """Whether this node would take over."""
    if any(part is UNREAD for part in (s.cloud.volumes, s.cloud.instances, s.host.vips)):
        return Readiness(s.me.name, None, (Reason(Code.LOOKING, "the first look is not over"),))
    rehearsed = plan(rehearsal(s))
    because = [*_of_keepalived(s), *_of_plan(rehearsed), *_of_host(s), *_of_zone(s)]
    if not verdict.ok and not because:
        because.append(Reason(UNHEALTHY, verdict.text or "keepalived is told to keep this node out"))
    if verdict.ok and s.intent is not None and s.intent.role is Role.FAULT:
        text = "keepalived is in FAULT, and not by this node's health: its interface, or what else it tracks"
        because.append(Reason(FAULT, text, "journalctl -u keepalived"))
    but = [] if agent else ["no agent answers here: each takeover begins with the start of a process"]
    if decided.goal == "release" and not decided.done and not because:
        but.append("it is still letting go")
    does = () if because else tuple(describe(step) for step in rehearsed.steps if _worth_telling(step))
    return Readiness(s.me.name, not because, _once(because), tuple(but), does)


def rehearsal(s: Situation) -> Situation:
    """The same, as if keepalived had just made this node master, no peer were heard any more, and all grace were over.

    The peer's instance stays what EC2 says: one whose system has died still runs, by EC2. Hooks are left out.
    """
    limit = s.group.timeouts
    waited = {(Code.GRACE, volume.id or ""): s.now - limit.release_grace_s for volume in s.group.volumes}
    heard = dict.fromkeys(s.host.heard, SILENT)
    host = replace(s.host, heard=heard, keepalived_gone_since=None, hooks=frozenset())
    order, boot = (s.intent.order, s.intent.boot_id) if s.intent else ((0, 0), "")
    intent = Intent(Role.MASTER, order, boot, s.now)
    return replace(s, intent=intent, host=host, memory=Memory(since=waited))


def _of_keepalived(s: Situation) -> list[Reason]:
    """Without keepalived nobody tells this node to take over."""
    if s.intent is None:
        text = "keepalived has not said anything since this node booted"
        return [Reason(Code.NO_INTENT, text, "systemctl status keepalived")]
    if s.host.keepalived_gone_since is not None:
        return [Reason(Code.KEEPALIVED_GONE, "keepalived does not run here", "systemctl start keepalived")]
    if s.intent.role is Role.STOP:
        return [Reason(STOP, "keepalived was stopped here", "systemctl start keepalived")]
    return []


def _of_plan(rehearsed: Plan) -> list[Reason]:
    """What the takeover itself would be stopped by."""
    stopping = [r for r in rehearsed.reasons if r.blocked or r.code in STOPPED_BY]
    found = [Reason(r.code.value, r.text, r.hint) for r in stopping]
    if any(isinstance(step, SetMark) and step.mark == FENCED and step.present for step in rehearsed.steps):
        found.append(Reason(Code.FENCED, "what is mounted here has lost its disk: another node has taken it"))
    return found


def _of_host(s: Situation) -> list[Reason]:
    """What a takeover would meet only when the volume is here already."""
    found = []
    for volume in s.group.volumes:
        disk = s.disk(volume.id or "")
        if isinstance(disk.mount, Unknown):
            text = f"the mount table can't be read: {disk.mount.reason}"
            found.append(Reason(Code.HOST_UNKNOWN, text))
        elif disk.foreign and isinstance(disk.mount, Mount):
            text = f"{volume.mount} is taken by {disk.mount.source}"
            found.append(Reason(Code.MOUNT_POINT_BUSY, text, f"umount {volume.mount}"))
    if isinstance(s.host.vips, Unknown):
        found.append(Reason(Code.HOST_UNKNOWN, f"the addresses here can't be read: {s.host.vips.reason}"))
    return found


def _of_zone(s: Situation) -> list[Reason]:
    """A volume serves one availability zone."""
    me, found = s.instance(s.me.instance_id), []
    own = "" if me is None or isinstance(me, Unknown) else me.zone
    for volume in s.group.volumes:
        facts = s.volume(volume.id or "")
        if isinstance(facts, VolumeFacts) and own and facts.zone and facts.zone != own:
            text = f"{facts.id} is in {facts.zone}, this node in {own}"
            found.append(Reason(ZONE, text, "put all nodes and the volume into the same zone"))
    return found


def _worth_telling(step: object) -> bool:
    return not isinstance(step, SetMark | ClearReleasing)


def _once(reasons: list[Reason]) -> tuple[Reason, ...]:
    """Each code and text once, in their order."""
    return tuple({(r.code, r.text): r for r in reversed(reasons)}.values())[::-1]


# --- a peer -----------------------------------------------------------------------------------------------------------


def of_peer(s: Situation, instance_id: str, name: str) -> Readiness:
    """Whether a peer would take over, as far as it can be known here: a standby sends no adverts."""
    instance = s.instance(instance_id)
    if isinstance(instance, Unknown):
        if instance is UNREAD:
            return Readiness(name, None, (Reason(Code.LOOKING, "the first look is not over"),))
        return Readiness(
            name, None, (Reason(Code.CLOUD_UNKNOWN, f"EC2 does not say how {name} is: {instance.reason}"),)
        )
    if instance is None:
        return Readiness(name, False, (Reason("missing", f"EC2 knows no instance {instance_id}"),))
    if instance.state is not InstanceState.RUNNING:
        hint = f"aws ec2 start-instances --instance-ids {instance_id}" if instance.state in fencing.GONE else ""
        return Readiness(name, False, (Reason(instance.state.value, f"its instance is {instance.state}", hint),))
    said = instance.said
    own = said.of(s.group.name) if said is not None else None
    ask = f"on {name}: awsha status {s.group.name}"
    if said is None or own is None:
        text = "its instance runs; how it is there, it has not said"
        return Readiness(name, None, (Reason("unsaid", text, ask),))
    when = ago(s.wall - said.at_wall)
    if own == READY:
        text = f"its instance runs; {when} it said that it is ready, and nothing else since"
        return Readiness(name, None, (Reason(READY, text, ask),), said=said)
    if own in (SERVING, TAKING_OVER):
        text = f"its instance runs; {when} it said that it was master ({own})"
        return Readiness(name, None, (Reason(own, text, ask),), said=said)
    text = f"its instance runs; {when} it said that it is not ready ({own}), and nothing else since"
    return Readiness(name, None, (Reason(own, text, ask),), said=said)


def ago(seconds: float) -> str:
    """A time that has passed, in words; clocks of two nodes differ, so the future is now."""
    if seconds < 90:
        return f"{max(0.0, seconds):.0f} s ago"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min ago"
    return f"{seconds / 3600:.0f} h ago" if seconds < 172800 else f"{seconds / 86400:.0f} days ago"
