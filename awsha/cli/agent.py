"""`awsha agent`, `awsha converge`."""

from __future__ import annotations

from pathlib import Path

import click

from awsha.core.model import Role


@click.command()
@click.option("-v", "--verbose", is_flag=True, help="Log the beginning of each step too.")
@click.pass_obj
def agent(config: Path, verbose: bool) -> None:
    """Run the service that moves volumes and addresses."""
    from awsha.agent.journal import log_to_stderr
    from awsha.agent.service import Agent

    log_to_stderr(verbose)
    Agent(config).run()


@click.command()
@click.argument("group")
@click.option("--role", type=click.Choice([r.value for r in Role]), help="Default: what keepalived said last.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Default: by the group's timeouts.",
)
@click.pass_obj
def converge(config: Path, group: str, role: str | None, timeout_s: float | None) -> int:
    """Converge GROUP in the foreground, without an agent.

    Exit code: 0 converged, 75 out of time and safe to run again, 1 error.
    """
    from awsha.agent.journal import log_to_stderr
    from awsha.agent.once import converge as run

    log_to_stderr()
    return run(config, group, Role(role) if role else None, timeout_s)
