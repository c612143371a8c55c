"""The verdict for keepalived's track file: may this node be master?"""

from __future__ import annotations

from dataclasses import dataclass

from awsha.core.plan import OUT, RELEASED, STOPPING
from awsha.core.situation import Code, Plan, Situation
from awsha.core.volumes import FENCED

FAULTS_AT_ONCE = frozenset({Code.READ_ONLY, Code.APPLICATION_FAILED})


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ok` False makes keepalived leave mastership (FAULT); `text` says why.

    `hold`: it stands for a while even when its cause is gone at once, so that a node does not compete in flaps.
    """

    ok: bool
    text: str = ""
    hold: bool = True


def verdict(s: Situation, plan: Plan, before: Verdict) -> Verdict:
    """Judge from the same situation as the plan.

    An EC2 outage alone moves nothing; a master that waits for an operator keeps the verdict it has.
    """
    if FENCED in s.host.marks:
        return Verdict(False, "fenced", hold=False)
    if out := OUT & s.host.marks:
        # everything is let go first; only then does VRRP give way
        if RELEASED in out:
            text = "released by an operator"
        else:
            text = f"released because {'keepalived was told to stop' if STOPPING in out else 'the agent has failed'}"
        return Verdict(False, text, hold=False) if plan.done else before
    if plan.goal == "look":
        return before
    if plan.goal != "master" or plan.ready:
        return Verdict(True)
    for reason in plan.reasons:
        if reason.code in FAULTS_AT_ONCE:
            return Verdict(False, reason.text)
    if plan.blocked or any(r.code is Code.CLOUD_UNKNOWN for r in plan.reasons):
        return before
    waited = s.now - s.memory.since.get((Code.NOT_READY, s.group.name), s.now)
    if waited >= s.group.timeouts.acquire_s:
        return Verdict(False, f"master for {waited:.0f} s without holding everything")
    return before
