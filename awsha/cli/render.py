"""How status and plans look in a terminal."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from awsha.core.pacing import describe
from awsha.core.situation import Plan

COLOURS = {0: "green", 1: "yellow", 2: "red", 3: "magenta"}
WORDS = {0: "OK", 1: "WARNING", 2: "CRITICAL", 3: "UNKNOWN"}


def status_view(told: dict[str, Any]) -> RenderableType:
    """The whole node on one screen."""
    parts: list[RenderableType] = [_group(told, group) for group in told["groups"]]
    parts += [Text(f"unknown: {text}", style="magenta") for text in told["unknown"]]
    if not told["agent"]:
        parts.append(
            Text("no agent answers on this node: a notify runs `awsha converge` by itself, slower", style="yellow")
        )
    return Stack(*parts)


def _group(told: dict[str, Any], group: dict[str, Any]) -> RenderableType:
    colour = COLOURS[group["severity"]]
    held = Table.grid(padding=(0, 2))
    for no_wrap in (True, True, False, False):
        held.add_column(no_wrap=no_wrap)
    held.add_row("", "", Text("EC2 says", "dim"), Text("the kernel says", "dim"))
    for vip in group["vips"]:
        held.add_row(Text("address", "bold"), vip["address"], *_vip(vip))
    for volume in group["volumes"]:
        held.add_row(Text("volume", "bold"), volume["id"], *_volume(volume))
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column()
    rows.add_row("VRRP", _vrrp(group))
    if group["application"] is not None:
        rows.add_row("application", _coloured(group["application"], group["application"] == "running", group))
    rows.add_row("health", Text(group["health"]["text"] or "ok", "green" if group["health"]["ok"] else "red"))
    for peer in group["peers"]:
        rows.add_row("peer", _peer(peer))
    for step in group["running"]:
        rows.add_row("does", Text(step, "cyan"))
    for reason in group["waiting"]:
        rows.add_row("waits", _reason(reason, "yellow"))
    for reason in group["blocked"]:
        rows.add_row("blocked", _reason(reason, "red"))
    word = f" {WORDS[group['severity']]} "
    where = f" {group['name']} on {told['node']}: "
    title = Text.assemble((word, f"bold reverse {colour}"), where, (_summary(group), colour), " ")
    return Panel(
        Stack(rows, Text(), held),
        title=title,
        title_align="left",
        border_style=colour,
        subtitle=told["observed_at"],
        subtitle_align="right",
    )


def _summary(group: dict[str, Any]) -> str:
    if group["fenced"]:
        return "fenced"
    if group["goal"] == "master":
        return "serving" if group["serving"] else "taking over"
    if group["goal"] == "look":
        return "looking only"
    return "standing by" if group["converged"] else "releasing"


def _vrrp(group: dict[str, Any]) -> Text:
    role = group["vrrp_role"]
    text = Text(role.upper() if role else "nothing said since boot", "bold green" if role == "master" else "bold")
    if group["keepalived"] == "gone":
        text.append("  (that keepalived is gone)", "red")
    return text


def _vip(vip: dict[str, Any]) -> tuple[Text, Text]:
    """What EC2 (API and instance metadata) and the kernel say of an address."""
    node = vip["ec2_node"] or ("no node" if vip["ec2_instance"] is None else vip["ec2_instance"])
    cloud = Text(f"at {node}" if node not in ("unknown", "no node") else node)
    if vip["metadata"] is not None:
        cloud.append(f"; metadata: {'here' if vip['metadata'] else 'not here'}", "dim")
    return cloud, Text(_yes(vip["kernel"], "on the interface", "not here"))


def _yes(value: bool | None, yes: str, no: str) -> str:
    return "unknown" if value is None else yes if value else no


def _volume(volume: dict[str, Any]) -> tuple[Text, Text]:
    """What EC2 and the kernel say of a volume."""
    cloud = Text(volume["state"] if not volume["attachments"] else "")
    for index, held in enumerate(volume["attachments"]):
        preposition = "to" if held["state"].startswith("attach") else "at"
        cloud.append(f"{', ' if index else ''}{held['state']} {preposition} {held['node'] or held['instance']}")
    if volume["releasing"]:
        cloud.append(f", {volume['releasing']} is releasing", "yellow")
    kernel = Text(f"{volume['device'] or 'no device'}, ")
    kernel.append(f"{_yes(volume['mounted'], 'mounted at', 'not mounted at')} {volume['mount']}")
    return cloud, kernel


def _coloured(text: str, good: bool, group: dict[str, Any]) -> Text:
    return Text(text, "green" if good else "red" if group["goal"] == "master" and group["converged"] else "")


def _peer(peer: dict[str, Any]) -> Text:
    text = Text.assemble((peer["name"], "bold"), f" EC2: {peer['state']} ({peer['instance']})   VRRP: ")
    if peer["heard_s_ago"] is None:
        return text.append("heard earlier" if peer["ever_heard"] else "never heard since boot")
    if peer["heard_priority"] == 0:
        return text.append(f"resigned {peer['heard_s_ago']} s ago")
    return text.append(f"heard {peer['heard_s_ago']} s ago, priority {peer['heard_priority']}")


def _reason(reason: dict[str, Any], colour: str) -> Text:
    text = Text(reason["text"], colour)
    if reason.get("for_s"):
        text.append(f"  for {reason['for_s']:.0f} s")
    if reason.get("until_s") is not None:
        text.append(f", {max(1, math.ceil(reason['until_s']))} s to go")
    if reason["hint"]:
        text.append(f"\n→ {reason['hint']}", "bold")
    return text


def plan_view(group: str, role: str, decided: Plan) -> RenderableType:
    """A dry run."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column()
    for step in decided.steps:
        rows.add_row("would start", Text(describe(step), "cyan"))
    for reason in decided.waiting:
        rows.add_row("would wait", Text(reason.text, "yellow"))
    for reason in decided.blocked:
        rows.add_row("blocked", _reason({"text": reason.text, "hint": reason.hint}, "red"))
    if decided.done:
        rows.add_row("nothing", Text("the goal is reached", "green"))
    return Panel(rows, title=f" {group} as {role} ", title_align="left")
