"""`awsha agent`, `awsha converge`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from awsha.cli.complete import groups
from awsha.core.model import Role

PRIVATE = 0o077  # as the unit and notify have it already: whoever starts it, nothing that it makes is for others


@click.command()
@click.option("-v", "--verbose", is_flag=True, help="Log the beginning of each step too.")
@click.option("--failed", is_flag=True, help="For systemd, when the agent has failed for good: this node stays out.")
@click.pass_obj
def agent(config: Path, verbose: bool, failed: bool) -> int:
    """Run the service that moves volumes and addresses."""
    from awsha.agent.journal import log_to_stderr

    os.umask(PRIVATE)
    log_to_stderr(verbose)
    if failed:
        from awsha.agent.gone import fault_all

        return fault_all(config)
    from awsha.agent.service import Agent

    Agent(config).run()
    return 0


@click.command()
@click.argument("group", shell_complete=groups)
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

    os.umask(PRIVATE)
    log_to_stderr()
    return run(config, group, Role(role) if role else None, timeout_s)
