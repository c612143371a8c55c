"""Completion at the Tab key, by click's own mechanism: names of groups and nodes, and the scripts for the shells."""

from __future__ import annotations

import os
from pathlib import Path

import click

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_AWSHA_COMPLETE"  # click derives it from the program's name, and looks at it at each start
MOST = 1 << 20


def groups(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The groups of awsha.toml that begin with `incomplete`."""
    return _names(ctx, "group", incomplete)


def nodes(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The nodes of awsha.toml that begin with `incomplete`; those that [discover] finds are not offered."""
    return _names(ctx, "node", incomplete)


def _names(ctx: click.Context, table: str, incomplete: str) -> list[str]:
    """Names out of the file, right or wrong as it may be; none when it can't be read: a Tab key reports nothing."""
    import tomllib

    path = ctx.obj or ctx.find_root().params.get("config_path") or os.environ.get("AWSHA_CONFIG")
    try:
        with Path(path or "/etc/awsha/awsha.toml").open("rb") as file:
            entries = tomllib.loads(file.read(MOST).decode()).get(table)
    except (OSError, ValueError, RecursionError):
        return []
    named = [entry.get("name") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [name for name in named if isinstance(name, str) and name.startswith(incomplete)]


def script(program: click.Command, shell: str) -> str:
    """What a shell (one of SHELLS) has to read to complete the whole program `awsha`."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - SHELLS are click's own
    return found(program, {}, "awsha", VARIABLE).source().rstrip() + "\n"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), metavar="SHELL")
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that has SHELL (bash, zsh, fish) complete commands, flags, and names of groups and nodes.

    The Debian package installs all three. Without it: `awsha completion bash >
    /usr/share/bash-completion/completions/awsha`, `awsha completion zsh > /usr/share/zsh/site-functions/_awsha`,
    `awsha completion fish > /usr/share/fish/vendor_completions.d/awsha.fish`.
    """
    click.echo(script(ctx.find_root().command, shell), nl=False)
