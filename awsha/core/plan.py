"""plan(): from a situation to every step that is unblocked now, and typed reasons for what waits. Pure."""

from __future__ import annotations

from awsha.core import addresses, application, volumes
from awsha.core.model import InstanceState, Role, Unknown
from awsha.core.pacing import pace
from awsha.core.situation import Code, Draft, Plan, Situation
from awsha.core.steps import SetMark

RELEASED = "released"
PAUSED = "paused"
ASKED_FOR = frozenset({Code.RELEASED})  # reasons that an operator wanted: they do not keep a release from being done


def plan(s: Situation) -> Plan:
    """Decide. A goal that is reached plans nothing; an Unknown permits nothing."""
    draft = Draft(s)
    goal = _goal(draft)
    ready = False
    if goal == "master":
        ready = _acquire(draft)
    elif goal == "release":
        _release(draft)
    started, held_back = pace(draft.steps, s.memory, s.now)
    reasons = (*draft.reasons, *held_back)
    unwanted = [r for r in reasons if r.code not in ASKED_FOR]
    done = not started and not unwanted and not s.memory.running and goal != "look"
    return Plan(started, reasons, done, ready, goal, frozenset(draft.conditions))


def _goal(draft: Draft) -> str:
    """What the role asks for, after what overrides it: a fence, a planned release, a dead keepalived."""
    s = draft.s
    if volumes.FENCED in s.host.marks:
        _fenced(draft)
        return "release"
    if PAUSED in s.host.marks:
        text = "paused by an operator: looking only, whatever keepalived says"
        draft.wait(Code.PAUSED, s.group.name, text, hint=f"awsha resume {s.group.name}")
        return "look"
    if s.intent is None:
        draft.wait(
            Code.NO_INTENT, s.group.name, "keepalived has not said anything since this node booted: looking only"
        )
        return "look"
    if RELEASED in s.host.marks:
        text = "released by an operator: this node does not compete"
        draft.wait(Code.RELEASED, s.group.name, text, hint=f"awsha resume {s.group.name}")
        return "release"
    if s.intent.role is not Role.MASTER:
        return "release"
    gone, grace = s.host.keepalived_gone_since, s.group.timeouts.vrrp_grace_s
    if gone is None:
        return "master"
    if s.now - gone < grace:
        draft.wait(Code.KEEPALIVED_GONE, s.group.name, "keepalived is gone", for_s=max(0.0, gone + grace - s.now))
        return "look"
    return "release"


def _fenced(draft: Draft) -> None:
    """A fenced node cleans up and stays out, until it holds nothing and no running peer holds what it lost."""
    s = draft.s
    draft.block(
        Code.FENCED,
        s.group.name,
        "fenced: another node has taken the volume of this one",
        "nothing to do here: it competes again when the holder has released "
        f"(there: awsha release {s.group.name}) or is stopped",
    )
    for volume in s.group.volumes:
        vid = volume.id or ""
        facts, disk = s.volume(vid), s.disk(vid)
        if isinstance(facts, Unknown) or (disk.mount is not None and not disk.foreign) or disk.others:
            return
        for held in facts.attachments if facts is not None else ():
            instance = s.instance(held.instance_id)
            if isinstance(instance, Unknown):
                return
            if held.instance_id == s.me.instance_id or (
                instance is not None
                and instance.state is not InstanceState.STOPPED
                and instance.state is not InstanceState.TERMINATED
            ):
                return
    draft.step(SetMark(volumes.FENCED, present=False))


def _acquire(draft: Draft) -> bool:
    """Win the volumes; then device, check, mount beside the addresses; the application when it stands on both."""
    held = [volumes.acquire(draft, volume) for volume in draft.s.group.volumes]
    on_interface = addresses.acquire(draft, won=all(h.won for h in held))
    ready = application.acquire(draft, stands=on_interface and all(h.ready for h in held))
    if not ready:
        draft.standing(Code.NOT_READY, draft.s.group.name)
    return ready


def _release(draft: Draft) -> None:
    """Application, unmount, detach; the addresses beside them, never in front."""
    addresses.release(draft)
    stopped = application.release(draft)
    for volume in draft.s.group.volumes:
        volumes.release(draft, volume, application_stopped=stopped)
