"""One look at a group, outside the loop: observe, and decide without doing. For status and plan; changes nothing."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from awsha.agent import ask, history
from awsha.agent import intent as intents
from awsha.agent.assembly import Node
from awsha.agent.faults import FaultRecord
from awsha.agent.keepalived import KeepalivedWatch
from awsha.agent.marks import Marks
from awsha.agent.paths import health_file
from awsha.agent.report import by_hand, group_report, severity, utc
from awsha.core.health import Verdict, damped, verdict
from awsha.core.loop import Ambient, Loop
from awsha.core.model import Heard, Intent, Role
from awsha.core.plan import plan
from awsha.core.policy import Group
from awsha.core.situation import Plan, Situation
from awsha.core.steps import Scope
from awsha.host.clock import boot_id, boottime

SECONDS = 8.0  # all reads side by side, at most


def situation(
    node: Node, group: Group, role: Role | None = None, agent: dict[str, dict[str, Any]] | None = None
) -> Situation:
    """Observe one group. `role`: as if keepalived had said this; default: what it said last.

    `agent`: what the agent's loops report; only the agent hears adverts all the time.
    """
    hands = node.executor(group)
    loop = node.loop(group)
    intent = intents.newest(group.name)
    if role is not None:
        intent = Intent(role, intent.order if intent else (0, 0), boot_id(), boottime())
    loop.set_intent(intent)
    with ThreadPoolExecutor(len(Scope)) as pool:
        reads = {scope: pool.submit(hands.observer.read, scope) for scope in Scope}
        for scope, read in reads.items():
            loop.read(scope, read.result(timeout=SECONDS), boottime())
    gone = KeepalivedWatch().gone_since(intent.keepalived) if intent else None
    if gone is not None:
        gone -= group.timeouts.vrrp_grace_s  # nobody knows since when: a single look does not wait for the grace
    heard = hands.hearing.heard(group) | _heard_by((agent or {}).get(group.name, {}))
    ambient = Ambient(heard, gone, hands.marks.all(), FaultRecord(group.name).get(), hands.hooks.points())
    return _assembled(loop, ambient)


def _heard_by(told: dict[str, Any]) -> dict[str, Heard]:
    """The adverts that the agent has heard."""
    now = boottime()
    return {
        peer["name"]: Heard(now - peer["heard_s_ago"], peer["heard_priority"])
        for peer in told.get("peers", [])
        if peer["heard_s_ago"] is not None
    }


def _assembled(loop: Loop, ambient: Ambient) -> Situation:
    return loop.situation(boottime(), time.time(), ambient)


def decide(s: Situation) -> Plan:
    """What would be started now."""
    return plan(s)


def report(node: Node, groups: list[Group]) -> dict[str, Any]:
    """The status of this node: facts observed now, and what only the agent's loop knows (since when, what runs)."""
    agent = ask.report()
    found = []
    for group in groups:
        s = situation(node, group, agent=agent)
        decided = plan(s)
        of_agent = (agent or {}).get(group.name)
        judged = _health(group, s, decided)
        known = of_agent is not None and not judged.ok and not of_agent["health"]["ok"]  # then the agent knows why
        if of_agent is not None and known:
            judged = replace(judged, text=of_agent["health"]["text"])
        told = group_report(s, decided, judged, agent=agent is not None)
        if of_agent is not None and known:
            told["health"] = of_agent["health"]
        if of_agent is not None and of_agent["converged"] and not decided.done:
            told["running"] = of_agent["running"]  # the agent has yet to see what was seen here just now
        elif of_agent is not None:
            told |= {key: of_agent[key] for key in ("waiting", "blocked", "running", "converged", "goal", "serving")}
        by_hand(told, Marks(group.name).placed, time.time())
        found.append(told | {"last_transition": _last_transition(group.name), "severity": severity(told)})
    unresolved = sorted({place.unresolved for place in node.places.values() if place.unresolved})
    return {
        "node": node.name,
        "observed_at": utc(time.time()),
        "agent": agent is not None,
        "unknown": unresolved,
        "groups": found,
    }


def _last_transition(name: str) -> dict[str, Any] | None:
    """The newest transition of this node's history, in short; None when there is none, or it can't be read."""
    try:
        last = history.last(name)
    except OSError:
        return None
    if last is None:
        return None
    return {
        "id": last.id,
        "cause": last.cause.text,
        "began": utc(last.began),
        "s_ago": max(0.0, round(time.time() - last.began, 1)),
        "took_s": round(last.took, 2),
        "goal": last.goal,
        "end": last.end.value,
        "text": last.text,
    }


def _health(group: Group, s: Situation, decided: Plan) -> Verdict:
    """What keepalived is told now: by its file; by judging when there is none."""
    try:
        failed = health_file(group.name).read_text(encoding="ascii").strip() not in ("", "0")
    except (OSError, ValueError):
        failed = False
    judged = damped(verdict(s, decided, Verdict(True)), Verdict(not failed), s.host.faults, group, s.now)
    return judged if not failed or not judged.ok else replace(judged, ok=False, text="held out of mastership for now")
