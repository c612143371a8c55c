"""Whether a pair in the lab is at rest: one node serves, the others stand by, and every agent says so itself."""

from __future__ import annotations

import json
import socket
from typing import Any

from awsha.core.errors import AwshaError
from awsha.lab.control import ask
from awsha.lab.settings import Lab

ANSWER_S = 2.0


def agent_report(lab: Lab, node: str, group: str = "data") -> dict[str, Any] | None:
    """What a node's agent says of a group, asked at its own socket from outside; None when it says nothing."""
    try:
        pid = ask(lab, {"do": "enter", "node": node})["pid"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(f"/proc/{pid}/root/run/awsha/agent.sock")
            connection.send(b"report")
            groups = json.loads(connection.recv(1 << 20))["groups"]
    except (OSError, ValueError, AwshaError):
        return None
    return next((one for one in groups if one["name"] == group), None)


def unrest(lab: Lab, group: str = "data") -> list[str]:
    """Everything that keeps the lab from being at rest, for people; empty when it is."""
    facts = ask(lab, {"do": "status"})
    holder = facts["groups"][group]["holder"]
    found = [] if holder else [f"nobody holds {group}"]
    for name, node in facts["nodes"].items():
        found += [f"{name}: {text}" for text in _of_node(lab, name, node, holder, group)]
    instance = facts["nodes"][holder]["instance_id"] if holder else None
    for volume in facts["groups"][group]["volumes"]:
        truth = facts["ec2"]["volumes"][volume]
        if (truth["attached_to"], truth["attachment"]) != (instance, "attached"):
            found.append(f"{volume} is {truth['attachment']} at {truth['attached_to']}")
    return found


def _of_node(lab: Lab, name: str, node: dict[str, Any], holder: str | None, group: str) -> list[str]:
    holds = holder == name
    wanted = {
        "power": "on",
        "keepalived": "running",
        "agent": "running",
        "cuts": [],
        "vrrp_role": "master" if holds else "backup",
    }
    found = [f"{key} is {node[key]}" for key, value in wanted.items() if node[key] != value]
    if node["power"] != "on":
        return found
    if not holds and node["mounts"]:
        found.append(f"mounts are left: {node['mounts']}")
    told = agent_report(lab, name, group)
    if told is None:
        return [*found, "the agent does not answer"]
    found += [f"{r['code']}: {r['text']}" for r in (*told["waiting"], *told["blocked"])]
    if not told["converged"]:
        found.append(f"not converged (running: {', '.join(told['running']) or 'nothing'})")
    if told["fenced"]:
        found.append("fenced")
    if not told["health"]["ok"]:
        found.append(f"unhealthy: {told['health']['text']}")
    if any(peer["name"] == holder and not peer["ever_heard"] for peer in told["peers"]):
        found.append(f"has never heard {holder}: it would not take anything from it")
    return found
