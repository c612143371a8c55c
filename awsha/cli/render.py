"""How status and plans look in a terminal."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.console import Group as Stack
from rich.panel import Panel
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from awsha.core.pacing import describe
from awsha.core.readiness import ago
from awsha.core.situation import Plan

COLOURS = {0: "green", 1: "yellow", 2: "red", 3: "magenta"}
NARROW = 84  # columns; below this what EC2 and the kernel say stands one below the other
WIDE = 110  # the same for what there is to say of each node
WORDS = {0: "OK", 1: "WARNING", 2: "CRITICAL", 3: "UNKNOWN"}


def status_view(told: dict[str, Any], width: int = 100) -> RenderableType:
    """The whole node on one screen, `width` columns wide."""
    parts: list[RenderableType] = [_group(told, group, width) for group in told["groups"]]
    parts += [Text(f"unknown: {text}", style="magenta") for text in told["unknown"]]
    if not told["agent"]:
        parts.append(
            Text("no agent answers on this node: a notify runs `awsha converge` by itself, slower", style="yellow")
        )
    return Stack(*parts)


class Fitted:
    """What fits on the terminal; where more is left out, the last line says so, and the worst of everything."""

    def __init__(self, told: dict[str, Any], width: int, worst: int) -> None:
        """`worst`: the exit code of all groups."""
        self._view = status_view(told, width)
        self._worst = WORDS[worst]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Line by line."""
        lines = console.render_lines(self._view, options.update(height=None), pad=False)
        if len(lines) > console.height:
            left_out = len(lines) - console.height + 1
            text = f"… {left_out} more lines, worst: {self._worst}; all: awsha status"
            last = Text(text, "bold", no_wrap=True, overflow="ellipsis")
            lines = [*lines[:-left_out], *console.render_lines(last, options.update(height=None), pad=False)]
        for line in lines:
            yield from line
            yield Segment.line()


def _group(told: dict[str, Any], group: dict[str, Any], width: int) -> RenderableType:
    colour = COLOURS[group["severity"]]
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
    if group.get("last_transition"):
        rows.add_row("last", _last(group["last_transition"]))
    for found in group["takeover"]:
        rows.add_row("takeover", _takeover(found))
    word = f" {WORDS[group['severity']]} "
    where = f" {group['name']} on {told['node']}: "
    title = Text.assemble((word, f"bold reverse {colour}"), where, (_summary(group), colour), " ")
    held = _held(group) if width >= NARROW else _held_narrow(group)
    return Panel(
        Stack(rows, Text(), held, *_by_node(group, width)),
        title=title,
        title_align="left",
        border_style=colour,
        subtitle=told["observed_at"],
        subtitle_align="right",
    )


def _held(group: dict[str, Any]) -> RenderableType:
    """Addresses and volumes, what EC2 and the kernel say of each side by side."""
    held = Table.grid(padding=(0, 2))
    for no_wrap in (True, True, False, False):
        held.add_column(no_wrap=no_wrap)
    held.add_row("", "", Text("EC2 says", "dim"), Text("the kernel says", "dim"))
    for vip in group["vips"]:
        held.add_row(Text("address", "bold"), vip["address"], *_vip(vip))
    for volume in group["volumes"]:
        held.add_row(Text("volume", "bold"), volume["id"], *_volume(volume))
    return held


def _held_narrow(group: dict[str, Any]) -> RenderableType:
    """The same, one below the other."""
    held = Table.grid(padding=(0, 2))
    held.add_column(no_wrap=True)
    held.add_column()
    told = [("address", vip["address"], _vip(vip)) for vip in group["vips"]]
    told += [("volume", volume["id"], _volume(volume)) for volume in group["volumes"]]
    for what, name, (cloud, kernel) in told:
        held.add_row(Text(what, "bold"), name)
        held.add_row(Text("  EC2", "dim"), cloud)
        held.add_row(Text("  kernel", "dim"), kernel)
    return held


def _by_node(group: dict[str, Any], width: int) -> list[RenderableType]:
    """`--all`: each node by what EC2 says, and by its own word."""
    if "nodes" not in group:
        return []
    table = Table.grid(padding=(0, 2))
    for no_wrap in (True, width >= WIDE, False, False):
        table.add_column(no_wrap=no_wrap)
    if width >= WIDE:
        table.add_row("", Text("its instance", "dim"), Text("has, by EC2", "dim"), Text("its own word", "dim"))
    for node in group["nodes"]:
        said = node["said"]
        word = "this node: see above" if node["here"] else "none" if said is None else f"{said['word']}, {_ago(said)}"
        has = ", ".join([*node["vips"], *node["volumes"]]) or "nothing"
        name, instance = Text(node["name"], "bold"), f"{node['state']} ({node['instance']})"
        if width >= WIDE:
            table.add_row(name, instance, has, word)
        else:
            for label, cell in ((name, instance), (Text("  has", "dim"), has), (Text("  says", "dim"), word)):
                table.add_row(label, cell)
    note = "of another node, EC2 and its own word is all that can be seen here: awsha status there says the rest"
    return [Text(), table, Text(note, "dim")]


def _last(last: dict[str, Any]) -> Text:
    """The newest transition on this node."""
    good = last["end"] == "converged"
    end = "under way" if last["end"] == "under-way" else f"{last['end']} after {last['took_s']:g} s"
    text = Text(f"{_ago(last)}: {last['cause']} → ")
    text.append(end + (f": {last['text']}" if last["text"] else ""), "" if good else "yellow")
    return text.append(f"  (awsha history {last['id']})", "dim")


def _takeover(found: dict[str, Any]) -> Text:
    """Who takes over if the master dies now."""
    who = "this node" if found["here"] else found["node"]
    if found["ready"]:
        text = Text.assemble(("ready", "bold green"), f": if the master dies now, {who} takes over")
        if found["does"]:
            text.append(f", and begins with {'; '.join(found['does'])}")
    elif found["ready"] is None:
        text = Text.assemble(("can't tell from here", "bold"), f" whether {who} takes over if the master dies now")
    else:
        text = Text.assemble(("not ready", "bold red"), f": if the master dies now, {who} does not take over")
    for reason in found["because"]:
        text.append(f"\n{'because: ' if found['ready'] is False else ''}{reason['text']}")
        if reason["hint"]:
            text.append(f"\n→ {reason['hint']}", "bold")
    for slower in found["but"]:
        text.append(f"\nbut {slower}", "yellow")
    return text


def _ago(told: dict[str, Any]) -> str:
    return ago(told["s_ago"])


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
    if group["master"] != group["node"]:
        text.append(f", {group['master']} is master" if group["master"] else ", no master is heard")
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
    if reason.get("by"):
        text.append(f"  by {reason['by']}, {ago(reason['for_s'])} ({reason['since']})")
    elif reason.get("for_s"):
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
