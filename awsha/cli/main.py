"""The command group. Sub-commands are imported only when they are used: a cold start pays for each import."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from awsha import __version__
from awsha.config import paths
from awsha.core.errors import EX_IOERR, AwshaError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# command -> (module, attribute, one line of help). The help is here so that `awsha --help` imports nothing else.
COMMANDS = {
    "init": ("awsha.cli.config", "init", "Write a first awsha.toml."),
    "discover": ("awsha.cli.discover", "discover", "Find instances and volumes by tags; write an awsha.toml."),
    "config": ("awsha.cli.config", "config", "Show every effective value and where it came from."),
    "keepalived": ("awsha.cli.config", "keepalived", "Generate keepalived.conf for one node or for all."),
    "agent": ("awsha.cli.agent", "agent", "Run the service that moves volumes and addresses."),
    "converge": ("awsha.cli.agent", "converge", "Converge one group in the foreground, without an agent."),
    "plan": ("awsha.cli.status", "plan", "Show what would be done for a role; changes nothing."),
    "status": ("awsha.cli.status", "status", "What VRRP, EC2 and the kernel each say, what waits, and why."),
    "history": ("awsha.cli.history", "history", "What happened on this node; one transition as a waterfall."),
    "check": ("awsha.cli.check", "check", "Preflight: all that would make a failover fail, with a hint for each."),
    "iam-policy": ("awsha.cli.check", "iam_policy", "The least-privilege policy for this configuration."),
    "release": ("awsha.cli.operate", "release", "Let a group go here, before VRRP gives way."),
    "switchover": ("awsha.cli.operate", "switchover", "Hand a group to a peer, planned."),
    "pause": ("awsha.cli.operate", "pause", "Observe a group and act on nothing."),
    "resume": ("awsha.cli.operate", "resume", "End a pause or a release."),
    "fence": ("awsha.cli.operate", "fence", "Take a dead node out by force."),
    "completion": ("awsha.cli.complete", "completion", "Print the completion script for bash, zsh or fish."),
    "lab": ("awsha.cli.lab", "lab", "A whole pair on this machine, without an AWS account."),
}


class LazyGroup(click.Group):
    """A click group that imports a command when it is called or asked for its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names in the order of COMMANDS."""
        return [*COMMANDS, "notify"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one command; None when there is no such word."""
        if cmd_name == "notify":
            return click.Command("notify", help="keepalived's entry: record a role for a group and wake the agent.")
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101
        if cmd_name != "lab":
            _accept_config(command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Commands and flags that begin with `incomplete`, without importing the commands."""
        from click.shell_completion import CompletionItem

        rows = [
            CompletionItem(name, help=text) for name, (_, _, text) in COMMANDS.items() if name.startswith(incomplete)
        ]
        return [*rows, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of commands without importing them."""
        rows = [(name, text) for name, (_, _, text) in COMMANDS.items()]
        rows.append(("notify", "keepalived's entry: record a role for a group and wake the agent."))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _accept_config(command: click.Command) -> None:
    """Let --config stand behind the command's name too, where people write it."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _accept_config(inner)
    elif not any("--config" in option.opts for option in command.params):
        command.params.append(
            click.Option(
                ["--config"], type=click.Path(path_type=Path), expose_value=False, hidden=True, callback=_set_config
            )
        )


def _set_config(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.obj = value


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar="AWSHA_CONFIG",
    default=Path(paths.CONFIG),
    show_default=True,
    help="The one awsha.toml, the same on every node.",
)
@click.version_option(__version__, prog_name="awsha")
@click.pass_context
def cli(ctx: click.Context, config_path: Path) -> None:
    """High availability on AWS for one address, one disk and one service, behind keepalived."""
    for directory in (paths.run_dir, paths.state_dir, paths.hooks_dir):
        directory(os.environ)
    ctx.obj = config_path


class _Output(io.FileIO):
    """Standard output that remembers why it could not be written: a failed flush leaves no trace of whose it was."""

    failed: OSError | None = None

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - bytes of any kind
        """As FileIO.write."""
        try:
            return super().write(data) or 0
        except OSError as error:
            self.failed = error
            raise


def main() -> int:
    """Run the command line; every failure becomes a message with a hint and an exit code, also that of its output."""
    output = _watched()
    try:
        code = _run()
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        code = 1
        if output is None or output.failed is None:
            where = f"{error.filename}: " if error.filename else ""
            _complain(f"awsha: {where}{error.strerror or error}")
    except SystemExit as left:  # how rich ends when nobody reads
        code = left.code if isinstance(left.code, int) else 1
    if output is None or output.failed is None:
        return code
    os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())  # what is left in buffers must not fail again at the end
    if isinstance(output.failed, BrokenPipeError):
        return 141  # as by SIGPIPE
    _complain(
        f"awsha: its output could not be written: {output.failed.strerror}\n  hint: what was written is incomplete"
    )
    return EX_IOERR


def _watched() -> _Output | None:
    """Put standard output behind an _Output; None where it is closed, or a test has put something in its place."""
    plain = sys.stdout
    if plain is not sys.__stdout__ or plain is None:
        return None
    plain.flush()
    output = _Output(plain.fileno(), "w", closefd=False)
    # what the terminal's encoding does not have is written as a number, as on standard error: no failure
    errors = "backslashreplace" if plain.errors == "strict" else plain.errors
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(output), plain.encoding, errors, line_buffering=plain.line_buffering
    )
    return output


def _run() -> int:
    try:
        result = cli.main(prog_name="awsha", standalone_mode=False)
    except AwshaError as error:
        _complain(f"awsha: {error.message}" + (f"\n  hint: {error.hint}" if error.hint else ""))
        return error.exit_code
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _complain("awsha: interrupted")
        return 130
    return result if isinstance(result, int) else 0


def _complain(text: str) -> None:
    """To standard error, if that can be written."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)
