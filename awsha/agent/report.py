"""What the loop knows, as plain data: for the agent's socket, for `status --json`, and for the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from awsha.core import fencing, readiness
from awsha.core.addresses import other_holder
from awsha.core.health import Verdict
from awsha.core.model import ApplicationState, DiskFacts, InstanceFacts, Unknown, VolumeFacts
from awsha.core.pacing import describe
from awsha.core.policy import Volume
from awsha.core.situation import Code, Plan, Reason, Situation
from awsha.core.steps import Step
from awsha.core.volumes import FENCED, mounted_live

UNKNOWN = "unknown"


def group_report(
    s: Situation, plan: Plan, verdict: Verdict, running: tuple[Step, ...] = (), *, agent: bool = True
) -> dict[str, Any]:
    """One group: what VRRP, EC2 and the kernel each say, what is under way, what waits and why (DESIGN section 5).

    `agent`: whether one runs on this node.
    """
    application = s.host.application
    return {
        "name": s.group.name,
        "node": s.me.name,
        "instance": s.me.instance_id,
        "master": readiness.master(s),
        "vrrp_role": s.intent.role.value if s.intent else None,
        "goal": plan.goal,
        "converged": plan.done,
        "serving": plan.goal == "master" and plan.ready,
        "running": [describe(step) for step in running],
        "waiting": [_reason(r, s) for r in plan.waiting],
        "blocked": [_reason(r, s) for r in plan.blocked],
        "vips": [_vip(s, address) for address in s.group.vips],
        "volumes": [_volume(s, v) for v in s.group.volumes],
        "application": UNKNOWN if isinstance(application, Unknown) else application.value if application else None,
        "fenced": FENCED in s.host.marks,
        "health": _health(s, verdict),
        "peers": [_peer(s, instance_id, name) for instance_id, name in s.me.peers.items()],
        "keepalived": _keepalived(s),
        "takeover": [_takeover(s, found) for found in readiness.takeover(s, plan, verdict, agent=agent)],
    }


def _takeover(s: Situation, found: readiness.Readiness) -> dict[str, Any]:
    """Whether a node takes over if the master dies now; `ready` None: it can't be told from here."""
    return {
        "node": found.node,
        "here": found.node == s.me.name,
        "ready": found.ready,
        "because": [{"code": str(r.code), "text": r.text, "hint": r.hint} for r in found.because],
        "but": list(found.but),
        "does": list(found.does),
    }


def _health(s: Situation, verdict: Verdict) -> dict[str, Any]:
    """What keepalived is told. `failures`: how often in a row it failed as master; `until_s`: seconds still to wait."""
    return {
        "ok": verdict.ok,
        "text": verdict.text,
        "failures": verdict.faults.times if verdict.faults else 0,
        "until_s": None if verdict.until is None else round(verdict.until - s.now, 1),
    }


def _keepalived(s: Situation) -> str:
    if s.intent is None or s.intent.keepalived is None:
        return UNKNOWN
    return "running" if s.host.keepalived_gone_since is None else "gone"


def _reason(r: Reason, s: Situation) -> dict[str, Any]:
    since = s.memory.since.get((r.code, r.subject))
    return {
        "code": r.code.value,
        "subject": r.subject,
        "text": r.text,
        "hint": r.hint,
        "for_s": None if since is None else round(s.now - since, 1),
        "until_s": None if r.until is None or r.until <= s.now else round(r.until - s.now, 1),
    }


def by_hand(told: dict[str, Any], placed: Callable[[str], tuple[str, float] | None], wall: float) -> None:
    """Add to what an operator asked for who it was, and since when. `placed`: of a mark; `wall`: Unix seconds."""
    for reason in told["waiting"]:
        found = placed(reason["code"]) if reason["code"] in (Code.PAUSED, Code.RELEASED) else None
        if found is not None:
            by, at = found
            reason |= {"by": by, "since": utc(at), "for_s": max(0.0, round(wall - at, 1))}


def utc(at: float) -> str:
    """Unix seconds as a time."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _vip(s: Situation, address: str) -> dict[str, Any]:
    holder = other_holder(s, address)
    cloud_unknown = isinstance(s.cloud.instances, Unknown)
    metadata = s.cloud.metadata_addresses
    return {
        "address": address,
        "kernel": None if isinstance(s.host.vips, Unknown) else address in s.host.vips,
        "ec2_instance": UNKNOWN if cloud_unknown else holder.id if holder else None,
        "ec2_node": UNKNOWN if cloud_unknown else _node_name(s, holder.id) if holder else None,
        "metadata": None if isinstance(metadata, Unknown) else address in metadata,
    }


def _node_name(s: Situation, instance_id: str) -> str | None:
    return s.me.name if instance_id == s.me.instance_id else s.me.peers.get(instance_id)


def _volume(s: Situation, volume: Volume) -> dict[str, Any]:
    vid = volume.id or ""
    facts, disk = s.volume(vid), s.disk(vid)
    seen = facts if isinstance(facts, VolumeFacts) else None
    absent = UNKNOWN if isinstance(facts, Unknown) else "missing"
    return {
        "id": vid,
        "state": seen.state.value if seen else absent,
        "attached_to": _holder(facts),
        "attachments": [
            {
                "instance": a.instance_id,
                "node": _node_name(s, a.instance_id),
                "state": a.state.value,
                "device": a.device,
            }
            for a in (seen.attachments if seen else ())
        ],
        "releasing": _releasing(s, seen),
        "device": UNKNOWN if isinstance(disk.device, Unknown) else disk.device.path if disk.device else None,
        "mount": volume.mount,
        "mounted": _mounted(disk),
    }


def _holder(facts: VolumeFacts | Unknown | None) -> str | None:
    """The instance that holds a volume; several, which is an error, are all named."""
    if isinstance(facts, Unknown):
        return UNKNOWN
    return ", ".join(a.instance_id for a in facts.attachments) or None if facts else None


def _releasing(s: Situation, facts: VolumeFacts | None) -> str | None:
    """The node that is releasing the volume: the one that says so, while it still holds it."""
    if facts is None or facts.releasing is None:
        return None
    name = facts.releasing.node
    holders = {_node_name(s, a.instance_id) for a in facts.attachments}
    return name if name in holders and fencing.releasing(s, facts, name) else None


def _mounted(disk: DiskFacts) -> bool | None:
    return None if isinstance(disk.mount, Unknown) else mounted_live(disk)


def _peer(s: Situation, instance_id: str, name: str) -> dict[str, Any]:
    heard, instance = s.host.heard.get(name), s.instance(instance_id)
    recent = heard is not None and heard.at > 0
    return {
        "name": name,
        "instance": instance_id,
        "state": UNKNOWN if isinstance(instance, Unknown) else instance.state.value if instance else "missing",
        "heard_s_ago": round(s.now - heard.at, 1) if heard and recent else None,
        "heard_priority": heard.priority if heard and recent else None,
        "ever_heard": heard is not None,
        "said": None if instance is None or isinstance(instance, Unknown) else _said(s, instance),
    }


def _said(s: Situation, instance: InstanceFacts) -> dict[str, Any] | None:
    """The peer's own word on this group, by its tag, and when it was written."""
    word = instance.said.of(s.group.name) if instance.said else None
    if instance.said is None or word is None:
        return None
    at = utc(instance.said.at_wall)
    return {"word": word, "at": at, "s_ago": max(0.0, round(s.wall - instance.said.at_wall, 1))}


def by_node(group: dict[str, Any]) -> list[dict[str, Any]]:
    """The same report by nodes: what EC2 says of each, and its own word. Of a peer's host nothing can be seen here."""
    own = {"name": group["node"], "instance": group["instance"], "state": "running", "said": None}
    return [
        {
            "name": node["name"],
            "here": node is own,
            "instance": node["instance"],
            "state": node["state"],
            "volumes": [
                v["id"] for v in group["volumes"] if any(a["instance"] == node["instance"] for a in v["attachments"])
            ],
            "vips": [v["address"] for v in group["vips"] if v["ec2_instance"] == node["instance"]],
            "said": node["said"],
        }
        for node in (own, *group["peers"])
    ]


def severity(group: dict[str, Any]) -> int:
    """Exit code of `awsha status` for one group: 0 OK, 1 warning, 2 critical, 3 unknown (monitoring plugins)."""
    if group["fenced"] or group["blocked"] or not group["health"]["ok"]:
        return 2
    if _has_unknown(group) or group["vrrp_role"] is None:
        return 3
    if group["goal"] == "master" and group["converged"] and not _all_here(group):
        return 2  # what is true now contradicts what was reached
    nobody = group["goal"] == "release" and any(v["ec2_instance"] is None for v in group["vips"])
    warned = any(r["code"] == Code.HOOK_WARNED for r in group["waiting"])
    fine = group["converged"] and group["application"] != ApplicationState.FAILED and group["keepalived"] != "gone"
    return 0 if fine and not nobody and not warned else 1


def _all_here(group: dict[str, Any]) -> bool:
    """Whether EC2 and the kernel both say that a master has everything."""
    return all(v["kernel"] and v["ec2_node"] == group["node"] for v in group["vips"]) and all(
        v["mounted"] and [a["node"] for a in v["attachments"]] == [group["node"]] for v in group["volumes"]
    )


def _has_unknown(group: dict[str, Any]) -> bool:
    volumes, vips = group["volumes"], group["vips"]
    return (
        any(v["state"] == UNKNOWN or v["device"] == UNKNOWN or v["mounted"] is None for v in volumes)
        or any(v["kernel"] is None or v["ec2_instance"] == UNKNOWN for v in vips)
        or group["application"] == UNKNOWN
    )
