"""A transition as bars, for the terminal and for pictures: what is drawn, and how a terminal draws it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from awsha.core.transition import End, Transition, Whose, ec2_seconds

COLOURS = {Whose.EC2: "cyan", Whose.PEER: "magenta", Whose.HERE: "green", Whose.ORDER: "bright_black"}
ENDS = {
    End.UNDER_WAY: "cyan",
    End.BLOCKED: "red",
    End.CONVERGED: "green",
    End.LOOKING: "yellow",
    End.OVERTAKEN: "yellow",
    End.INTERRUPTED: "red",
}
MEANINGS = {
    Whose.EC2: "EC2",
    Whose.PEER: "the peer",
    Whose.HERE: "this node",
    Whose.ORDER: "something else first",
}
LABEL_MOST = 52
FIGURES = 20  # columns of the two figures and the space between
NARROW = 60
LIST_NARROW = 76


@dataclass(frozen=True, slots=True)
class Row:
    """One bar. `at` and `took` in seconds from the beginning; `detail` is what else there is to say."""

    label: str
    whose: Whose
    at: float
    took: float
    step: bool
    bad: bool = False
    detail: str = ""


def rows(transition: Transition) -> list[Row]:
    """Steps and waits, in the order of their beginnings; at the same moment what caused the wait comes first."""
    found = [
        Row(
            act.words + repeated(act.times),
            act.whose,
            act.at,
            act.took,
            True,
            act.ok is False,
            act.text if act.ok is not None else "under way when this was written",
        )
        for act in transition.steps
    ]
    found += [
        Row(
            f"{wait.code}: {wait.text}{repeated(wait.times)}",
            wait.whose,
            wait.at,
            wait.until - wait.at,
            False,
            wait.blocked,
        )
        for wait in transition.waits
    ]
    return sorted(found, key=lambda row: (round(row.at, 2), not row.step, -row.took))


def facts(transition: Transition, zone: tzinfo | None = None) -> list[tuple[str, str]]:
    """What stands above the bars."""
    told = [
        ("began", f"{moment(transition, zone):%Y-%m-%d %H:%M:%S %Z} on {transition.node}"),
        ("because", transition.cause.text + (f"; said by {transition.cause.by}" if transition.cause.by else "")),
        ("goal", "everything here" if transition.goal == "master" else "nothing here"),
        ("ended", ending(transition)),
    ]
    if transition.goal == "look":
        told[2] = ("goal", "only to look")
    if transition.serving_at is not None:
        told.append(("serving", f"after {seconds(transition.serving_at)}"))
    ec2 = ec2_seconds(transition)
    if transition.took > 0 and ec2 > 0:
        told.append(("EC2's share", f"{seconds(ec2)} of {seconds(transition.took)} ({ec2 / transition.took:.0%})"))
    if transition.left_out:
        told.append(("left out", f"{transition.left_out} more steps and waits"))
    return told


def ending(transition: Transition) -> str:
    """How it ended, in one line."""
    text = f": {transition.text}" if transition.text else ""
    return f"{transition.end.value.replace('-', ' ')}{text}, after {seconds(transition.took)}"


def moment(transition: Transition, zone: tzinfo | None = None) -> datetime:
    """When it began, by this machine's time zone unless another is asked for."""
    return datetime.fromtimestamp(transition.began, UTC).astimezone(zone)


def seconds(value: float) -> str:
    """A duration that is read at a glance."""
    if value < 100:
        return f"{value:.2f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


def waterfall(transition: Transition, width: int) -> RenderableType:
    """The whole transition for a terminal `width` columns wide."""
    head = Table.grid(padding=(0, 2))
    head.add_column(style="bold", no_wrap=True)
    head.add_column()
    for name, text in facts(transition):
        head.add_row(name, Text(text, ENDS[transition.end] if name == "ended" else ""))
    parts: list[RenderableType] = [Text(transition.id, "bold"), head]
    drawn = rows(transition)
    if drawn:
        parts += [Text(), _bars(transition, drawn, width), _legend(drawn)]
    if transition.requests:
        parts += [Text(), _requests(transition)]
    return Stack(*parts)


def _bars(transition: Transition, drawn: list[Row], width: int) -> RenderableType:
    longest = max(len(row.label) for row in drawn)
    label = min(longest, LABEL_MOST, max(20, (width - FIGURES) // 2 - (8 if width < NARROW else 0)))
    size = max(10, width - label - FIGURES - 4)
    span = max(transition.took, 0.001)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis", width=label)
    table.add_column(no_wrap=True, width=size)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, justify="right")
    table.add_row("", Text(f"0{seconds(transition.took):>{size - 1}}", "dim"), Text("at", "dim"), Text("took", "dim"))
    for row in drawn:
        left = min(int(row.at / span * size), size - 1)
        length = min(max(1, round(row.took / span * size)), size - left)
        colour = "red" if row.bad else COLOURS[row.whose]
        bar = Text(" " * left + ("█" if row.step else "░") * length, colour)
        name = Text(row.label, "red" if row.bad else "" if row.step else "dim")
        table.add_row(name, bar, f"{row.at:.2f}", f"{row.took:.2f}")
        if row.bad and row.detail:
            table.add_row("", Text(row.detail, "red", overflow="fold", no_wrap=False), "", "")
    if transition.serving_at is not None:
        left = min(int(transition.serving_at / span * size), size - 1)
        table.add_row(Text("serving", "bold"), Text(" " * left + "▲", "bold green"), f"{transition.serving_at:.2f}", "")
    return table


def _legend(drawn: list[Row]) -> Text:
    legend = Text("█ step  ░ wait   time of ", "dim")
    there = {row.whose for row in drawn}
    legend.append(" ")
    for whose, meaning in MEANINGS.items():
        if whose in there:
            legend.append(f"■ {meaning}  ", COLOURS[whose])
    if any(row.bad for row in drawn):
        legend.append("■ failed, or blocked", "red")
    return legend


def _requests(transition: Transition) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("requests to EC2", header_style="bold")
    for name in ("count", "seconds"):
        table.add_column(name, justify="right", header_style="dim")
    table.add_column("errors", header_style="dim")
    for asked in transition.requests:
        table.add_row(asked.action, str(asked.count), f"{asked.seconds:.2f}", Text(errors(asked.errors.items()), "red"))
    return table


def errors(counted: Iterable[tuple[str, int]]) -> str:
    """Error codes with their counts."""
    return ", ".join(code + repeated(count) for code, count in counted)


def repeated(times: int) -> str:
    """How often, when it was more than once."""
    return f", {times} times" if times > 1 else ""


def listing(transitions: list[Transition], width: int) -> RenderableType:
    """One line each, in the given order."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    several = len({t.group for t in transitions}) > 1
    table.add_column("id", no_wrap=True)
    dated = width >= LIST_NARROW  # below it the id has to say when
    if dated:
        table.add_column("began", no_wrap=True)
    if several:
        table.add_column("group", no_wrap=True)
    table.add_column("because")
    table.add_column("ended", max_width=max(12, width // 4))
    table.add_column("took", no_wrap=True, justify="right")
    for one in transitions:
        ended = Text(one.end.value.replace("-", " "), ENDS[one.end])
        if one.end is End.BLOCKED:
            ended.append(f": {one.text}")
        cells: list[RenderableType] = [one.id]
        cells += [f"{moment(one):%b %d %H:%M:%S}"] if dated else []
        cells += [one.group] if several else []
        table.add_row(*cells, Text(one.cause.text), ended, seconds(one.took))
    return table
