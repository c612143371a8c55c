"""`awsha release`, `switchover`, `pause`, `resume`, `fence`: planned operations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from awsha.cli.complete import groups, nodes
from awsha.core.errors import AwshaError
from awsha.core.policy import Fence, Group

if TYPE_CHECKING:
    from collections.abc import Callable

    from awsha.agent.assembly import Node

TIMEOUT_S = 180.0
FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")
METHODS = [Fence.STOP_INSTANCE.value, Fence.FORCE_DETACH.value]


def _timeout(text: str) -> Callable[[FC], FC]:
    """The flag that bounds how long a command watches; `text` says what the end of it means."""
    limit = click.FloatRange(min=0, min_open=True)
    return click.option(
        "--timeout", "timeout_s", type=limit, default=TIMEOUT_S, show_default=True, metavar="SECONDS", help=text
    )


goes_on = _timeout("Watch this long. Ctrl-C too ends the watching, not the work.")


def _node(config: Path) -> Node:
    from awsha.agent.assembly import assemble

    return assemble(config)


def _group(node: Node, name: str) -> Group:
    from awsha.agent.assembly import group_named

    return group_named(node.policy, name)


def _names(config: Path, name: str | None) -> list[str]:
    """One group, or all: by awsha.toml alone, so that neither EC2 nor metadata need to answer."""
    from awsha.agent.assembly import group_named
    from awsha.config.load import load

    policy = load(config)
    return [group_named(policy, name).name] if name else [group.name for group in policy.groups]


@click.command()
@click.argument("group", required=False, shell_complete=groups)
@click.option("--stopping", is_flag=True, help="For keepalived's unit: all groups, until it starts again.")
@goes_on
@click.pass_obj
def release(config: Path, group: str | None, stopping: bool, timeout_s: float) -> int:
    """Let GROUP (default: all) go on this node, then let VRRP give way; the node stays out until `awsha resume`.

    Exit code: 0 released, 75 not done in time (it goes on), 130 Ctrl-C (it goes on), 1 error.
    """
    from awsha.agent import kept, operate
    from awsha.cli.progress import watched

    if stopping:
        return watched(lambda watch: operate.stopping(config, kept.group_names(config), timeout_s, watch))
    names = _names(config, group)
    return watched(lambda watch: operate.release(names, timeout_s, watch))


@click.command()
@click.argument("group", shell_complete=groups)
@click.option("--to", metavar="NODE", shell_complete=nodes, help="The peer that shall have it.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done, or why it is refused.")
@_timeout("Wait this long for the peer; after it this node competes again. Ctrl-C only ends the watching.")
@click.pass_obj
def switchover(config: Path, group: str, to: str | None, dry_run: bool, timeout_s: float) -> int:
    """Hand GROUP to a peer: application stopped, unmounted and detached before VRRP gives way.

    Exit code: 0 the peer serves and says so (without volumes: it has the addresses); 75 that was not seen in time, or
    the peer gave it back (this node competes again, and the last lines say why); 130 Ctrl-C (it goes on); 1 refused.
    """
    from awsha.agent.switchover import switchover as run
    from awsha.cli.progress import watched

    node = _node(config)
    wanted = _group(node, group)
    return watched(lambda watch: run(node, wanted, to, timeout_s, watch, dry_run=dry_run))


@click.command()
@click.argument("group", shell_complete=groups)
@click.pass_obj
def pause(config: Path, group: str) -> None:
    """Have the agent observe GROUP and act on nothing, until `awsha resume`."""
    from awsha.agent import operate

    operate.pause(*_names(config, group))
    click.echo(
        f"{group} is paused on this node: it takes nothing over, and lets nothing go. Next: awsha resume {group}"
    )
    click.echo("if it is master and VRRP moves, a peer that is not paused takes it by force")


@click.command()
@click.argument("group", required=False, shell_complete=groups)
@click.option("--starting", is_flag=True, help="For keepalived's unit, when it starts: ends `release --stopping` only.")
@click.pass_obj
def resume(config: Path, group: str | None, starting: bool) -> None:
    """End a pause or a release of GROUP (default: all) on this node, and its wait after failures as master."""
    from awsha.agent import kept, operate

    if starting:
        for name in kept.group_names(config):
            if operate.starting(name):
                click.echo(f"{name} takes part again")
        return
    for name in _names(config, group):
        found = operate.resume(name)
        nothing = f"{name} was neither paused nor released here, nor had it failed"
        click.echo(f"{name} takes part again" if found else nothing)


@click.command()
@click.argument("node_name", metavar="NODE", shell_complete=nodes)
@click.option("--yes", is_flag=True, help="Do it; without, only say what would be done.")
@click.option("--method", type=click.Choice(METHODS), help="Default: by policy.")
@goes_on
@click.pass_obj
def fence(config: Path, node_name: str, yes: bool, method: str | None, timeout_s: float) -> int:
    """Take NODE out by force: it is dead, or must be, and still holds what its peer needs.

    Exit code: 0 fenced, 75 EC2 has not finished in time, 130 Ctrl-C (it goes on), 1 error or not confirmed.
    """
    from awsha.agent import operate
    from awsha.cli.progress import watched

    node = _node(config)
    wanted = operate.plan_fence(node, node_name, Fence(method) if method else None)
    if not yes and wanted.master_of:
        moved = f"on {node_name}: awsha switchover {wanted.master_of[0]}"
        hint = f"to move it in order, {moved}; by force: awsha fence {node_name} --yes"
        lives = f"{node_name} lives: it is heard as master of {', '.join(wanted.master_of)}"
        raise AwshaError(f"would {wanted}; {lives}", hint=hint)
    if not yes:
        raise AwshaError(f"would {wanted}", hint=f"if {node_name} is really dead: awsha fence {node_name} --yes")
    click.echo(str(wanted))
    return watched(lambda watch: operate.fence(node, wanted, timeout_s, watch))
