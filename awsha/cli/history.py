"""`awsha history`: what happened on this node, as a list, and one transition as a waterfall."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from awsha.cli.complete import groups
from awsha.core.errors import AwshaError
from awsha.core.transition import Transition, as_dict, ec2_seconds

SHOWN = 20
LAST = "last"


@click.command()
@click.argument("name", metavar="[ID]", required=False)
@click.option("--group", shell_complete=groups, help="Only this group.")
@click.option("-n", "--number", type=click.IntRange(min=1), help=f"How many of the newest.  [default: {SHOWN}]")
@click.option("--json", "as_json", is_flag=True, help="For programs; without -n, all of them.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Write the waterfall as a picture.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the waterfall as a page.")
def history(
    name: str | None, *, group: str | None, number: int | None, as_json: bool, svg: Path | None, html: Path | None
) -> int:
    """What happened on this node: transitions of its groups, the newest last.

    With ID (the beginning or any other part of one that fits only once, or `last`): that one, as a waterfall. It needs
    neither the agent nor the configuration.
    """
    found, unreadable = _read(group)
    if name is None and svg is None and html is None:
        _list(found, unreadable, number, as_json)
        return 0
    chosen = choose(found, name or LAST)
    if as_json:
        click.echo(json.dumps(_plain(chosen), indent=2))
    from awsha.cli import picture

    for file, drawn in ((svg, picture.svg), (html, picture.html)):
        if file is not None:
            _write(file, drawn(chosen))
            click.echo(f"{chosen.id}: written to {file}", err=True)
    if not (as_json or svg or html):
        from rich.console import Console

        from awsha.cli.waterfall import waterfall

        console = Console(highlight=False)
        console.print(waterfall(chosen, console.width))
    return 0


def _write(file: Path, text: str) -> None:
    """A new file in the place of an old one. Root writes through no link, and over no device, that waits there."""
    from awsha.config.files import write_atomic

    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise AwshaError(f"{file} is a link, or no plain file: it is not written to", hint="name another file")
    write_atomic(file, text, 0o644)


def choose(found: list[Transition], name: str) -> Transition:
    """The one that is meant. Raises AwshaError when there is none, or more than one."""
    if not found:
        raise AwshaError("nothing has been recorded on this node yet", hint="a group that moves is recorded here")
    if name == LAST:
        return found[-1]
    fits = [t for t in found if t.id == name] or [t for t in found if name in t.id]
    if len(fits) == 1:
        return fits[0]
    if not fits:
        raise AwshaError(f"no transition {name!r}", hint="awsha history lists them")
    raise AwshaError(f"{name!r} fits {len(fits)} transitions", hint=", ".join(t.id for t in fits[-5:]))


def _read(group: str | None) -> tuple[list[Transition], dict[str, int]]:
    """All transitions by the time at which they began, and the lines that could not be read, by group."""
    from awsha.agent import history, ledger

    try:
        names = ledger.groups()
        if group is not None and group not in names:
            known = ", ".join(names) or "none"
            raise AwshaError(f"nothing is recorded of a group {group!r}", hint=f"recorded groups: {known}")
        found = {name: history.transitions(name) for name in names if group in (None, name)}
    except OSError as error:
        raise AwshaError(f"the history can't be read: {error}", hint="run awsha as root") from error
    every = [transition for one in found.values() for transition in one.transitions]
    unreadable = {name: one.unreadable for name, one in found.items() if one.unreadable}
    return sorted(every, key=lambda t: t.began), unreadable


def _list(found: list[Transition], unreadable: dict[str, int], number: int | None, as_json: bool) -> None:
    if as_json:
        newest = found[-number:] if number else found
        click.echo(json.dumps({"transitions": [_plain(t) for t in newest], "unreadable": unreadable}, indent=2))
        return
    from rich.console import Console

    from awsha.cli.waterfall import listing

    console = Console(highlight=False)
    newest = found[-(number or SHOWN) :]
    if newest:
        console.print(listing(newest, console.width))
    else:
        click.echo("nothing has been recorded on this node yet")
    if len(newest) < len(found):
        click.echo(f"{len(found) - len(newest)} older: awsha history -n {len(found)}", err=True)
    for name, count in unreadable.items():
        click.echo(f"{name}: {count} lines of its history can't be read, and are left out", err=True)


def _plain(transition: Transition) -> dict[str, Any]:
    return as_dict(transition) | {"ec2_s": round(ec2_seconds(transition), 4)}
