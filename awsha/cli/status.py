"""`awsha status`, `awsha plan`: observe and render. Neither can change anything."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from awsha.cli.complete import groups
from awsha.core.errors import EX_CONFIG, AwshaError
from awsha.core.model import Role

if TYPE_CHECKING:
    from rich.console import RenderableType

WATCH_S = 1.0
UNKNOWN = 3  # for a monitoring plugin, a question without an answer is neither good nor bad


@click.command()
@click.argument("group", required=False, shell_complete=groups)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C; with --json a line each.")
@click.option("--all", "every_node", is_flag=True, help="Each node as well: by EC2, and by its own word there.")
@click.pass_obj
def status(config: Path, group: str | None, as_json: bool, watch: bool, every_node: bool) -> int:
    """What VRRP, EC2 and the kernel each say of GROUP (default: all), what waits, and why.

    It tells the last transition, too, and who takes over if the master dies now, as far as this node can know.

    Exit code: 0 OK, 1 warning, 2 critical, 3 unknown (the convention of monitoring plugins).
    """
    from awsha.agent.assembly import assemble, group_named
    from awsha.agent.look import report
    from awsha.agent.report import by_node

    try:
        node = assemble(config, blind=True)
        groups = [group_named(node.policy, group)] if group else list(node.policy.groups)
    except AwshaError as error:
        code = error.exit_code if error.exit_code == EX_CONFIG else UNKNOWN
        raise AwshaError(error.message, hint=error.hint, exit_code=code) from error

    def look() -> dict[str, Any]:
        told = looked(lambda: report(node, groups))
        for found in told["groups"] if every_node else ():
            found["nodes"] = by_node(found)
        return told

    if watch:
        return watched(look, as_json=as_json)
    told = look()
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        from rich.console import Console

        from awsha.cli.render import status_view

        console = Console(highlight=False)
        console.print(status_view(told, console.width))
    return worst(told)


def looked(look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a look tells. Raises AwshaError with 3 where only root may look: 1 would be a warning of the group."""
    try:
        return look()
    except PermissionError as error:
        text = f"{error.filename}: {error.strerror}"
        raise AwshaError(text, hint="run it as root", exit_code=UNKNOWN) from error


def worst(told: dict[str, Any]) -> int:
    """The exit code: critical before unknown before warning."""
    severities = {g["severity"] for g in told["groups"]}
    return next((code for code in (2, 3, 1) if code in severities), 3 if told["unknown"] else 0)


def watched(look: Callable[[], dict[str, Any]], *, as_json: bool = False) -> int:
    """Look every second until Ctrl-C, or until nobody reads it any more; without a terminal, one below the other.

    `as_json`: a line of JSON for each look.
    """
    import threading

    from rich.console import Console
    from rich.live import Live

    from awsha.cli.render import Fitted, status_view

    told, console, pause = look(), Console(highlight=False), threading.Event()
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        show: Callable[[RenderableType], None] = console.print
        live_view = console.is_terminal and not as_json
        if live_view:
            live = stack.enter_context(Live(console=console, screen=True, auto_refresh=False))
            show = partial(live.update, refresh=True)
        while True:
            if as_json:
                click.echo(json.dumps(told))
            else:
                show(Fitted(told, console.width, worst(told)) if live_view else status_view(told, console.width))
            sys.stdout.flush()
            pause.wait(WATCH_S)
            told = look()
    return worst(told)


@click.command()
@click.argument("group", shell_complete=groups)
@click.option("--role", type=click.Choice([r.value for r in Role]), required=True, help="As if keepalived said this.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def plan(config: Path, group: str, role: str, as_json: bool) -> int:
    """What would be done for GROUP in a role, now. Changes nothing."""
    from awsha.agent import ask
    from awsha.agent.assembly import assemble, group_named
    from awsha.agent.look import decide, situation
    from awsha.core.pacing import describe

    node = assemble(config)
    s = situation(node, group_named(node.policy, group), Role(role), ask.report())
    decided = decide(s)
    if as_json:
        click.echo(json.dumps({
            "group": group, "role": role, "goal": decided.goal, "done": decided.done,
            "steps": [{"step": type(x).__name__, "text": describe(x), "resource": x.resource} for x in decided.steps],
            "waiting": [{"code": r.code, "text": r.text, "hint": r.hint} for r in decided.waiting],
            "blocked": [{"code": r.code, "text": r.text, "hint": r.hint} for r in decided.blocked],
        }, indent=2))  # fmt: skip
        return 0
    from rich.console import Console

    from awsha.cli.render import plan_view

    Console(highlight=False).print(plan_view(group, role, decided))
    return 0
