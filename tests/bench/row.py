"""One figure, its goal, and the table that a person reads."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

BAR = 24  # characters; the goal stands at two thirds of them
GOAL_AT = 16


@dataclass(frozen=True)
class Row:
    """One line of build/bench.json. `ratio` is what the goal is about; where there is none, `value` is.

    `at_least`: the goal is a lower bound. `goal` None: a figure to know, without a goal.
    `failed`: why there is no figure.
    """

    name: str
    value: float | None
    unit: str = "s"
    baseline: float | None = None
    ratio: float | None = None
    goal: float | None = None
    at_least: bool = False
    note: str = ""
    failed: str = ""

    @property
    def judged(self) -> float | None:
        """The number that is compared with the goal."""
        return self.ratio if self.ratio is not None else self.value

    @property
    def holds(self) -> bool:
        """Whether the goal is reached; without a goal, whether there is a figure."""
        if self.judged is None:
            return False
        if self.goal is None:
            return True
        return self.judged >= self.goal if self.at_least else self.judged <= self.goal

    def to_json(self) -> dict[str, object]:
        """As in build/bench.json."""
        goal = None if self.goal is None else f"{'≥' if self.at_least else '≤'} {self.goal:g}"
        return {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "baseline": _rounded(self.baseline),
            "ratio": _rounded(self.ratio),
            "goal": goal,
            "holds": self.holds,
            "note": self.failed or self.note,
        }


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.5g}")


def compared(
    name: str, measured: Sequence[float], possible: Sequence[float], goal: float, *, unit: str = "s", note: str = ""
) -> Row:
    """Measured against possible, over all runs: the means are shown, and the ratio is theirs."""
    value, baseline = statistics.fmean(measured), statistics.fmean(possible)
    return Row(name, value, unit, baseline, value / baseline, goal, note=note)


def times_faster(name: str, awsha: Sequence[float], other: Sequence[float], goal: float, note: str = "") -> Row:
    """How many times awsha's time fits into another's, by their medians (seconds in, milliseconds shown)."""
    mine, theirs = statistics.median(awsha) * 1e3, statistics.median(other) * 1e3
    return Row(name, mine, "ms", theirs, theirs / mine, goal, at_least=True, note=note)


def write(rows: Sequence[Row], path: Path) -> None:
    """build/bench.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([row.to_json() for row in rows], indent=1, ensure_ascii=False) + "\n")


def markdown(rows: Sequence[Row]) -> str:
    """The table as docs/performance.md shows it."""
    lines = ["| | name | value | baseline | ratio | goal | |", "| --- | --- | ---: | ---: | ---: | ---: | --- |"]
    for row in rows:
        cells = [
            "✓" if row.holds and row.goal is not None else "·" if row.holds else "✗",
            row.name, _shown(row.value, row.unit), _shown(row.baseline, row.unit), _shown(row.ratio),
            str(row.to_json()["goal"] or ""), row.failed or row.note,
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def show(rows: Sequence[Row], console: Console) -> None:
    """The table."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for title, justify in (
        ("", "left"), ("name", "left"), ("value", "right"), ("baseline", "right"), ("ratio", "right"),
        ("goal", "right"), ("0 … goal …", "left"),
    ):  # fmt: skip
        table.add_column(title, justify=justify, no_wrap=True)
    table.add_column("note", overflow="fold")
    for row in rows:
        mark = Text("·", "yellow") if row.goal is None and row.holds else Text("✓", "green")
        goal = str(row.to_json()["goal"] or "")
        table.add_row(
            mark if row.holds else Text("✗", "red"), row.name, _shown(row.value, row.unit), _shown(row.baseline),
            _shown(row.ratio), goal, bar(row), row.failed or row.note,
        )  # fmt: skip
    console.print(table)


def _shown(number: float | None, unit: str = "") -> str:
    return "" if number is None else f"{number:.4g} {unit}".strip()


def bar(row: Row) -> Text:
    """How far from the goal, which is marked."""
    if row.judged is None or not row.goal:
        return Text("")
    length = min(round(row.judged / row.goal * GOAL_AT), BAR)
    cells = ["█" if i < length else " " for i in range(BAR)]
    cells[GOAL_AT] = "┃" if length > GOAL_AT else "│"
    return Text("".join(cells), "green" if row.holds else "red")
