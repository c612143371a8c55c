"""`awsha check`, `awsha iam-policy`: what a failover would miss, and what the role of the nodes needs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from awsha.agent.preflight import Report
from awsha.agent.preflight_reads import Progress


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--notify", is_flag=True, help="Send a test notice, too, by what [notify] has.")
@click.option("--removal", is_flag=True, help="For the package, before it is removed: can this node do without awsha?")
@click.pass_obj
def check(config: Path, as_json: bool, notify: bool, removal: bool) -> int:
    """Look for everything that would make a failover fail: configuration, host, permissions, network, volumes.

    Changes nothing; --notify sends a test notice as well. Run it on each node: it sees EC2 with that node's role. Each
    finding has a code; docs/check.md explains them all. Exit code: 0 nothing was found, 1 something was, or something
    could not be read.
    """
    if removal:
        return _removal(config)
    from awsha.agent.preflight import check as run

    report = run(config, _progress(), notify=notify)
    if as_json:
        click.echo(json.dumps(_as_dict(report), indent=2))
    else:
        _show(report)
    return 0 if report.ok else 1


def _removal(config: Path) -> int:
    """Say why awsha must stay, and what to do; nothing when it may go."""
    from awsha.agent.removal import refusals

    found = refusals(config)
    for why, what in dict.fromkeys(found):
        click.echo(f"awsha: {why}\n  hint: {what}", err=True)
    return 1 if found else 0


def _progress() -> Progress:
    """One line on a terminal, which is gone at the end; nothing elsewhere."""
    if sys.stderr is None or not sys.stderr.isatty():
        return lambda _done, _total, _name: None

    def show(done: int, total: int, name: str) -> None:
        click.echo(f"\r\x1b[Kchecking {done}/{total}: {name}"[:100], nl=False, err=True)
        if done == total:
            click.echo("\r\x1b[K", nl=False, err=True)

    return show


def _as_dict(report: Report) -> dict[str, object]:
    return {
        "node": report.node,
        "region": report.region,
        "ok": report.ok,
        "findings": [finding.as_dict() for finding in report.findings],
        "checked": report.checked,
        "not_asked": report.not_asked,
        "took_s": round(report.took_s, 2),
    }


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    colours = {"error": "red", "warning": "yellow", "unknown": "magenta"}
    for finding in report.findings:
        colour = colours[finding.severity]
        what, hint = _printable(finding.what), _printable(finding.hint)
        head = Text.assemble((f"{finding.severity}", f"bold {colour}"), " ", (finding.code, "bold"), ": ", what)
        console.print(head, soft_wrap=True)
        console.print(Text(f"  why:  {finding.why}"), soft_wrap=True)
        console.print(Text(f"  hint: {hint}", "bold"), soft_wrap=True)
    for what in report.not_asked:
        console.print(Text(f"not asked: {_printable(what)}", "dim"), soft_wrap=True)
    who = f"node {report.node}" if report.node else "this host"
    counted = f"{len(report.checked)} reads in {report.took_s:.1f} s"
    if report.ok:
        console.print(Text(f"{who}: nothing found ({counted})", "green"), soft_wrap=True)
    else:
        many = "1 finding" if len(report.findings) == 1 else f"{len(report.findings)} findings"
        console.print(Text(f"{who}: {many} ({counted}); docs/check.md explains the codes", "red"), soft_wrap=True)


def _printable(text: str) -> str:
    """Without what would play tricks on a terminal: names of files and values of tags may be anything."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@click.command("iam-policy")
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "cloudformation", "terraform"]),
    default="json",
    show_default=True,
    help="The bare policy document, or what declares it.",
)
@click.option(
    "--no-lookup",
    is_flag=True,
    help="Ask EC2 for nothing: what awsha.toml does not name is granted as `*` within the region.",
)
@click.pass_obj
def iam_policy(config: Path, form: str, no_lookup: bool) -> None:
    """The policy that the nodes' role needs for this configuration, and nothing more.

    The ids that awsha.toml leaves out (instances by address, volumes by tags, network interfaces) are asked from EC2.
    """
    from awsha.agent.grants import scope
    from awsha.aws.policytext import FORMATS

    found = scope(config, lookup=not no_lookup)
    for note in found.notes:
        click.echo(f"awsha: note: {note}", err=True)
    click.echo(FORMATS[form](found.scope))
