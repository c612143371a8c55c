"""`awsha init`, `awsha config show`, `awsha keepalived`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from awsha.cli.complete import nodes
from awsha.config.files import write_atomic
from awsha.config.init import Wish, compose
from awsha.config.paths import CONFIG, run_dir
from awsha.core.policy import Fence, Policy

STDOUT = Path("-")


@click.command()
@click.option(
    "--node",
    "nodes",
    multiple=True,
    required=True,
    metavar="NAME=ADDRESS",
    help="A node and its primary private address; at least two, the preferred master first.",
)
@click.option("--vip", "vips", multiple=True, required=True, metavar="ADDRESS", help="An address that moves.")
@click.option("--volume", "volumes", multiple=True, metavar="ID:MOUNT", help="An EBS volume and where it is mounted.")
@click.option("--group", default="data", show_default=True, metavar="NAME", help="What moves together.")
@click.option("--router-id", default=51, show_default=True, type=int, metavar="N", help="VRRP router id, 1 to 255.")
@click.option(
    "--fence",
    default=str(Fence.STOP_INSTANCE),
    show_default=True,
    type=click.Choice([str(fence) for fence in Fence]),
    help="What to do about a holder that stays silent.",
)
@click.option("--unit", metavar="UNIT", help="The systemd unit that runs on top.")
@click.option("--interface", metavar="NAME", help="The network interface; by default the one of the node's address.")
@click.option("--region", metavar="REGION", help="By default asked from instance metadata.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write this file instead of the one that --config names; - is standard output.",
)
@click.option("--force", is_flag=True, help="Replace the file when it exists.")
@click.pass_obj
def init(config_path: Path, /, output: Path | None, force: bool, **wish: Any) -> None:  # noqa: ANN401 - options
    """Write a first awsha.toml."""
    target = output or config_path
    text = compose(Wish(**wish), str(target))
    if target == STDOUT:
        click.echo(text, nl=False)
        return
    write_atomic(target, text, 0o600, replace=force, folders=output is None)
    option = "" if target == Path(CONFIG) else f" --config {target}"
    click.echo(f"wrote {target}")
    click.echo(f"next: awsha{option} config show; awsha{option} keepalived --all -o DIR; the same file on every node")


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def show(ctx: click.Context, as_json: bool) -> None:
    """Show every effective value and where it came from."""
    from awsha.agent.discovery import read
    from awsha.config.provenance import values

    path: Path = ctx.obj
    found = values(read(path), os.environ)
    if as_json:
        listed = [{key: item for key, item in asdict(value).items() if key != "name"} for value in found]
        click.echo(json.dumps({"file": str(path), "file_from": _path_source(ctx), "values": listed}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text.assemble(("file ", "dim"), str(path), (f" ({_path_source(ctx)})", "dim")), soft_wrap=True)
    for section in dict.fromkeys(value.section for value in found):
        title = Text(section, style="bold")
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("key", style="dim", overflow="fold")
        table.add_column("value", overflow="fold")
        table.add_column("from", overflow="fold")
        for value in found:
            if value.section == section:
                source = f"line {value.line}" if value.source == "file" else value.source
                note = value.note if value.value is not None else ""
                rendered = f"({value.note})" if value.value is None else _rendered(value.value)
                table.add_row(
                    Text(value.name),
                    Text(rendered, style="" if value.source == "file" else "dim"),
                    Text(
                        f"{source}, {note}" if note else source,
                        style={"file": "green", "environment": "yellow"}.get(value.source, "dim"),
                    ),
                )
        console.print()
        console.print(table)


def _rendered(value: object) -> str:
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items()) or "{}"
    if isinstance(value, list):
        return " ".join(str(item) for item in value) or "[]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _path_source(ctx: click.Context) -> str:
    source = ctx.find_root().get_parameter_source("config_path")
    known = {"COMMANDLINE": "--config", "ENVIRONMENT": "environment, AWSHA_CONFIG"}
    return known.get(source.name if source else "", "default")


@click.command()
@click.option("--node", metavar="NAME", shell_complete=nodes, help="Print this node's keepalived.conf.")
@click.option("--all", "everyone", is_flag=True, help="Write DIR/<node>/keepalived.conf for every node; needs -o.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Where --all writes."
)
@click.pass_obj
def keepalived(config_path: Path, node: str | None, everyone: bool, output: Path | None) -> None:
    """Generate keepalived.conf for one node or for all."""
    if bool(node) == everyone:
        raise click.UsageError("give either --node NAME, or --all -o DIR")
    if everyone and output is None:
        raise click.UsageError("--all needs -o DIR: it writes DIR/<node>/keepalived.conf")
    if node and output is not None:
        raise click.UsageError("-o goes with --all; --node prints: awsha keepalived --node NAME > FILE")
    from awsha.agent.discovery import read

    policy = read(config_path).policy
    if node:
        click.echo(_render(policy, [node], config_path)[node], nl=False)
        return
    assert output is not None  # noqa: S101
    for name, text in _render(policy, [item.name for item in policy.nodes], config_path).items():
        target = output / name / "keepalived.conf"
        write_atomic(target, text, 0o644)
        click.echo(f"wrote {target}")


def _render(policy: Policy, names: list[str], config_path: Path) -> dict[str, str]:
    from awsha.config.keepalived import find_node, render
    from awsha.config.machine import configuration, interfaces, running_command, script_refused

    for name in names:
        find_node(policy, name)
    command = policy.command or running_command()
    places = interfaces(policy)
    refused = script_refused(command)
    if not Path(command).exists() and not places[names[0]].assumed and len(names) == 1:
        _warn(f"{command} is not there, and keepalived would run nothing", "install awsha there, or correct `command`")
    if refused:
        _warn(f"keepalived will not run {command}: {refused}", "install awsha where only root can write")
    # On a node it is where it is; somebody who makes the files elsewhere has a copy of it.
    on_node, texts = (
        CONFIG if all(place.assumed for place in places.values()) else configuration(config_path),
        {},
    )
    for name in names:
        place = places[name]
        texts[name] = render(
            policy, name, command=command, interface=place, run_dir=run_dir(os.environ), config=on_node
        )
        if place.assumed and any(group.interface is None for group in policy.groups):
            _warn(
                f"node {name}'s interface is assumed to be {place.name}",
                f'generate the file on the node itself, or write interface = "{place.name}" into each group',
            )
    return texts


def _warn(message: str, hint: str) -> None:
    click.echo(f"awsha: warning: {message}\n  hint: {hint}", err=True)
