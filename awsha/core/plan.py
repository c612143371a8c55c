"""plan(): from a situation to every step that is unblocked now, and typed reasons for what waits. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from awsha.core import addresses, application, fencing, flaps, handover, hooks, volumes
from awsha.core.model import Role, Unknown
from awsha.core.pacing import pace
from awsha.core.situation import Code, Draft, Plan, Reason, Situation
from awsha.core.steps import Scope, SetMark

RELEASED = "released"
STOPPING = "stopping"  # keepalived is being stopped: as released, until it is started again
GONE = "agent-gone"  # the agent has failed for good: as released, until it runs again
OUT = frozenset({RELEASED, STOPPING, GONE})  # this node does not compete, as in a switchover
PAUSED = "paused"
FREE_S = 10.0  # a volume that nobody has for so long, over several looks, was let go
# with these a goal is reached all the same
ONLY_TOLD = frozenset({Code.RELEASED, Code.DAMPED, Code.KEEPALIVED_GONE, Code.HOOK_WARNED})
# what blocks this node, and perhaps not its peer
HERE_ONLY = frozenset({Code.DEVICE_MISSING, Code.MOUNT_POINT_BUSY, Code.MOUNTED_ELSEWHERE, Code.HOOK_FAILED})


def plan(s: Situation) -> Plan:
    """Decide. A goal that is reached plans nothing; an Unknown permits nothing."""
    draft = Draft(s)
    goal = _goal(draft)
    ready = False
    if goal == "master":
        ready = _acquire(draft)
    elif goal == "release":
        _release(draft)
    _say_damped(draft)
    if s.host.marks and PAUSED not in s.host.marks:
        handover.end(draft)
    hooks.warn(draft)
    started, held_back = pace(draft.steps, s.memory, s.now)
    reasons = (*draft.reasons, *held_back)
    unwanted = [r for r in reasons if r.code not in ONLY_TOLD]
    if goal == "master" and not ready and not excused(reasons):
        draft.standing(Code.NOT_READY, s.group.name)
    done = not started and not unwanted and not s.memory.running and goal != "look"
    return Plan(started, reasons, done, ready, goal, draft.since)


def out(marks: frozenset[str]) -> frozenset[str]:
    """The marks because of which this node does not compete; a fenced one does not either."""
    return marks and (marks & OUT) | handover.under_way(marks)


def excused(reasons: Iterable[Reason]) -> bool:
    """Whether a master can't be blamed for what it does not hold: EC2 does not answer, or somebody must act first.

    What blocks this node alone is no excuse: a peer may do better.
    """
    return any(r.code is Code.CLOUD_UNKNOWN or (r.blocked and r.code not in HERE_ONLY) for r in reasons)


def _say_damped(draft: Draft) -> None:
    """A node that failed as master waits before it competes again; its release goes on meanwhile."""
    s = draft.s
    faults = s.host.faults
    if faults is not None and s.now < flaps.until(faults, s.group):
        text = f"{flaps.told(faults)}; it waits before it competes again"
        hint = f"once it is mended: awsha resume {s.group.name}"
        draft.wait(Code.DAMPED, s.group.name, text, hint=hint, until=flaps.until(faults, s.group))


def _goal(draft: Draft) -> str:
    """What the role asks for, after what overrides it: a fence, a planned release, a dead keepalived."""
    s = draft.s
    fenced = volumes.FENCED in s.host.marks
    if fenced:
        _say_fenced(draft)
    if PAUSED in s.host.marks:
        text = "paused by an operator: looking only, whatever keepalived says"
        draft.wait(Code.PAUSED, s.group.name, text, hint=f"awsha resume {s.group.name}")
        return "look"
    if fenced:
        _end_fence(draft)
        return "release"
    if s.intent is None:
        draft.wait(
            Code.NO_INTENT, s.group.name, "keepalived has not said anything since this node booted: looking only"
        )
        return "look"
    if RELEASED in s.host.marks:
        text = "released by an operator: this node does not compete"
        draft.wait(Code.RELEASED, s.group.name, text, hint=f"awsha resume {s.group.name}")
        return "release"
    until = handover.until(s.host.marks)
    if until is not None:
        text = "switched over by an operator: this node stays out until a peer is master, and then comes back"
        draft.wait(Code.RELEASED, s.group.name, text, hint=f"awsha resume {s.group.name}", until=until)
        return "release"
    if STOPPING in s.host.marks:
        text = "released because keepalived was told to stop: this node does not compete"
        draft.wait(Code.RELEASED, s.group.name, text, hint="systemctl start keepalived")
        return "release"
    if GONE in s.host.marks:
        text = "released because the agent has failed for good: this node does not compete"
        draft.wait(Code.RELEASED, s.group.name, text, hint="journalctl -u awsha-agent")
        return "release"
    if s.intent.role is not Role.MASTER:
        return "release"
    gone, grace = s.host.keepalived_gone_since, s.group.timeouts.vrrp_grace_s
    if gone is None:
        return "master"
    if s.now - gone < grace:
        draft.wait(Code.KEEPALIVED_GONE, s.group.name, "keepalived is gone", until=gone + grace)
        return "look"
    text = "keepalived is gone: this node lets go as if it had said stop"
    draft.wait(Code.KEEPALIVED_GONE, s.group.name, text, hint="systemctl start keepalived")
    return "release"


def _say_fenced(draft: Draft) -> None:
    """A fenced node stays out, and says until when."""
    s = draft.s
    draft.block(
        Code.FENCED,
        s.group.name,
        "fenced: another node has taken the volume of this one",
        "nothing to do here: it competes again when the holder has released "
        f"(there: awsha release {s.group.name}), is stopped, or was heard for {s.group.timeouts.unfence_s:g} s",
    )


def _end_fence(draft: Draft) -> None:
    """A fenced node has cleaned up, and takes its mark away when it is safe to compete again (ADR 0003).

    That is when nothing of the volume is left here and its holder has released it, is not running, or has been heard
    as master for a while: then the silence that led to the fence is over, and VRRP keeps this node a backup.
    """
    s = draft.s
    told = hooks.on_fenced(draft)
    if all(_fence_is_over(draft, volume.id or "") for volume in s.group.volumes) and told:
        draft.step(SetMark(volumes.FENCED, present=False))


def _fence_is_over(draft: Draft, vid: str) -> bool:
    """Whether one volume is no reason any more to stay out."""
    s = draft.s
    facts, disk = s.volume(vid), s.disk(vid)
    if isinstance(facts, Unknown) or isinstance(disk.mount, Unknown) or disk.others:
        return False
    if disk.mount is not None and not disk.foreign:
        return False
    if facts is None or not facts.attachments:
        # The one that forced it off has it only a moment later: to be free for that moment is not to be released.
        text = f"nobody has {vid}; when that lasts, this node competes again"
        return draft.wait(Code.VOLUME_FREE, vid, text, Scope.CLOUD, for_s=FREE_S) >= FREE_S
    return all(_no_rival(draft, held.instance_id) for held in facts.attachments)


def _no_rival(draft: Draft, holder: str) -> bool:
    """Whether a holder of the volume can't be one that takes it in turn with this node."""
    s = draft.s
    instance = s.instance(holder)
    if isinstance(instance, Unknown) or holder == s.me.instance_id:
        return False
    if instance is None or instance.state in fencing.GONE:
        return True
    name = s.me.peers.get(holder, "")
    heard = s.host.heard.get(name)
    if heard is None or not fencing.heard_alive(s, name):
        return False
    # a break between two looks is one too
    return min(draft.standing(Code.HOLDER_HEARD, holder), s.now - heard.since) >= s.group.timeouts.unfence_s


def _acquire(draft: Draft) -> bool:
    """Win the volumes; then device, check, mount beside the addresses; the application when it stands on both."""
    if not hooks.before_acquire(draft):
        return False
    held = [volumes.acquire(draft, volume) for volume in draft.s.group.volumes]
    addressed = addresses.acquire(draft, won=all(h.won for h in held))
    mounted = hooks.after_mount(draft, mounted=all(h.ready for h in held))
    # the application need not wait until EC2 shows the addresses; but without them nobody reaches it
    running = application.acquire(draft, stands=addressed.kernel and mounted)
    ready = running and addressed.delivered
    if ready:
        handover.answer(draft)
    hooks.after_acquire(draft, ready=ready)
    return ready


def _release(draft: Draft) -> None:
    """Application, unmount, detach; the addresses beside them, never in front."""
    may_begin = hooks.before_release(draft)
    clean = addresses.release(draft) if may_begin else False
    stopped = application.release(draft) if may_begin else False
    gone = [volumes.release(draft, volume, application_stopped=stopped) for volume in draft.s.group.volumes]
    hooks.after_release(draft, gone=clean and stopped and all(gone))
