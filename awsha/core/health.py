"""The verdict for keepalived's track file: may this node be master?"""

from __future__ import annotations

from dataclasses import dataclass, replace

from awsha.core import flaps
from awsha.core.model import Faults
from awsha.core.plan import GONE, RELEASED, STOPPING, excused, out
from awsha.core.policy import Group
from awsha.core.situation import Code, Plan, Situation
from awsha.core.volumes import FENCED

FAULTS_AT_ONCE = frozenset({Code.READ_ONLY, Code.APPLICATION_FAILED, Code.DEVICE_MISSING, Code.HOOK_FAILED})


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ok` False makes keepalived leave mastership (FAULT); `text` says why.

    counts: the node failed to hold its resources, and waits before it competes again, longer each time.
    faults: the series of such failures so far; the driver keeps it, over roles and restarts.
    until:  the moment (boottime seconds) to which a failed verdict stands at least.
    """

    ok: bool
    text: str = ""
    counts: bool = True
    faults: Faults | None = None
    until: float | None = None


def verdict(s: Situation, plan: Plan, before: Verdict) -> Verdict:
    """Judge from the same situation as the plan. `before`: what this said at the last decision.

    An EC2 outage alone moves nothing; a master that waits for an operator keeps the verdict it has.
    """
    if FENCED in s.host.marks:
        return Verdict(False, "fenced", counts=False)
    if out(s.host.marks):
        # everything is let go first; only then does VRRP give way
        if RELEASED in s.host.marks:
            text = "released by an operator"
        elif STOPPING in s.host.marks:
            text = "released because keepalived was told to stop"
        elif GONE in s.host.marks:
            text = "released because the agent has failed"
        else:
            text = "switched over by an operator"
        return Verdict(False, text, counts=False) if plan.done else before
    if plan.goal == "look":
        return before
    if plan.goal != "master" or plan.ready:
        return Verdict(True)
    for reason in plan.reasons:
        if reason.code in FAULTS_AT_ONCE:
            return Verdict(False, reason.text)
    if excused(plan.reasons):
        return before
    waited = s.now - s.memory.since.get((Code.NOT_READY, s.group.name), s.now)
    if waited >= s.group.timeouts.acquire_s:
        return Verdict(False, f"master for {waited:.0f} s without holding everything")
    return before


def damped(judged: Verdict, before: Verdict, faults: Faults | None, group: Group, now: float) -> Verdict:
    """What keepalived is told: a new failure is counted, and stands for as long as the series asks for.

    `judged`: by `verdict`. `before`: what it was told last. A failure that was told already is not counted again.
    """
    if not judged.ok and judged.counts and before.ok:
        faults = flaps.counted(faults, group, judged.text, now)
    faults = flaps.standing(faults, group, now)
    if faults is None:
        return judged
    until = flaps.until(faults, group)
    if now >= until:
        return replace(judged, faults=faults, until=None)
    text = judged.text
    if judged.ok:
        text = f"{flaps.told(faults)}; competes again in {until - now:.0f} s"
    elif judged.counts and faults.times > 1:
        text += f" (failure {faults.times} in a row)"
    return Verdict(False, text, judged.counts, faults, until)
