"""The lab for people: tables of what `lab status`, `lab client report` and `lab faults` say in JSON."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from awsha.lab.settings import Lab

GOOD, BAD, QUIET = "bold green", "bold red", "dim"


def show_status(facts: dict[str, Any], console: Console | None = None) -> None:
    """Nodes, EC2, violations."""
    console = console or Console()
    console.print(nodes_table(facts))
    console.print(ec2_table(facts))
    for kind in ("violations", "trouble"):
        for text in facts[kind]:
            console.print(Text(f"{kind.rstrip('s')}: {text}", style=BAD))


def nodes_table(facts: dict[str, Any]) -> Table:
    """One row a node: power, keepalived, agent, what VRRP said, what is mounted and which VIPs its kernel has."""
    table = Table(
        title=f"lab {facts['prefix']}: nodes", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for column in ("node", "power", "keepalived", "agent", "VRRP says", "mounts", "kernel has"):
        table.add_column(column, overflow="fold")
    vips = {vip for group in facts["groups"].values() for vip in group["vips"]}
    for name, node in facts["nodes"].items():
        holds = [group for group, facts_ in facts["groups"].items() if facts_["holder"] == name]
        several = len(facts["groups"]) > 1
        roles = [(f"{group}: " if several else "") + (role or "?") for group, role in node["vrrp_roles"].items()]
        mounts = [
            f"{m['mount']}" + (" [red]stale[/red]" if m["stale"] else " [red]read-only[/red]" if m["read_only"] else "")
            for m in node["mounts"]
        ]
        state = node["power"] + (f" ({', '.join(node['cuts'])})" if node["cuts"] else "")
        table.add_row(
            Text(f"{name} {node['address']}", style=GOOD if holds else ""),
            _state(state), _state(node["keepalived"]), _state(node["agent"]), "\n".join(roles),
            "\n".join(mounts) or "-", "\n".join(sorted(vips & set(node["addresses"]))) or "-",
        )  # fmt: skip
    return table


def ec2_table(facts: dict[str, Any]) -> Table:
    """What EC2's API holds to be true: volumes, VIPs, instances."""
    table = Table(title="EC2 says", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("resource", "state", "on"):
        table.add_column(column)
    names = {node["instance_id"]: name for name, node in facts["nodes"].items()}
    for volume_id, volume in facts["ec2"]["volumes"].items():
        state = volume["attachment"] or volume["state"]
        table.add_row(volume_id, state, names.get(volume["attached_to"], "-"))
    for group in facts["groups"].values():
        for vip in group["vips"]:
            owner = names.get(facts["ec2"]["addresses"].get(vip), "-")
            delivered = facts["ec2"]["delivered_to"][vip] or "nobody"
            state = "assigned" if owner != "-" else "free"
            table.add_row(vip, state, owner if owner == delivered else f"{owner} (delivered to {delivered})")
    for name, state in facts["ec2"]["instances"].items():
        table.add_row(facts["nodes"][name]["instance_id"], _state(state), name)
    return table


def _state(word: str) -> Text:
    good = word in ("on", "running")
    return Text(word, style="green" if good else "yellow")


def show_welcome(lab: Lab, facts: dict[str, Any], console: Console | None = None) -> None:
    """Who is who, and what to type next."""
    console = console or Console()
    for name, group in facts["groups"].items():
        holder = group["holder"]
        who = f"[green]{holder} is master[/green]" if holder else "[yellow]no master yet[/yellow]"
        console.print(f"group [bold]{name}[/bold]: {who}")
    holders = [group["holder"] for group in facts["groups"].values() if group["holder"]]
    master = holders[0] if holders else next(iter(facts["nodes"]))
    prefix = "" if lab.prefix == "awshalab" else f"AWSHA_LAB={lab.prefix} "
    for command, meaning in (
        (f"lab exec {master} -- awsha status", "what a node itself says"),
        ("lab client start", "write records through the VIP"),
        (f"lab fail {master} kill", "crash its keepalived (or: stop, freeze, partition, power-off, agent-kill)"),
        ("lab status", "who has what now"),
        ("lab client report", "what the client saw"),
        (f"lab heal {master}", "make it good again"),
        ("lab down", "take everything away"),
    ):
        line = f"  [cyan]{prefix}awsha {command:32}[/cyan] [dim]{meaning}[/dim]"
        console.print(line, soft_wrap=True, highlight=False)


def show_report(report: dict[str, Any], console: Console | None = None) -> None:
    """What the clients saw."""
    console = console or Console()
    lost, duplicated = report["lost"], report["duplicated"]
    table = Table(title="client", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("acknowledged", "lost", "duplicated", "outages", "longest outage"):
        table.add_column(column, justify="right")
    table.add_row(
        str(report["acknowledged"]), _count(lost), _count(duplicated), str(len(report["outages"])),
        f"{report['longest_outage_s']:.2f} s",
    )  # fmt: skip
    console.print(table)
    if report["reason"]:
        console.print(Text(report["reason"], style="yellow"))


def _count(value: int | None) -> Text:
    if value is None:
        return Text("unknown", style="yellow")
    return Text(str(value), style=BAD if value else GOOD)


def show_faults(left: list[dict[str, Any]], console: Console | None = None) -> None:
    """The faults that are still to strike."""
    console = console or Console()
    if not left:
        console.print("no faults")
        return
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("action", "kind", "left", "seconds", "code", "only"):
        table.add_column(column)
    for fault in left:
        only = " ".join(str(fault[key]) for key in ("caller", "match") if fault[key])
        times = "until cleared" if fault["left"] is None else str(fault["left"])
        table.add_row(fault["action"], fault["kind"], times, f"{fault['seconds']:g}", fault["code"], only)
    console.print(table)
