"""A transition as a picture: an SVG of its own, and a page around it. No script, nothing loaded from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from awsha.cli.lettering import fitted, width, wrapped
from awsha.cli.waterfall import MEANINGS, Row, errors, facts, repeated, rows, seconds
from awsha.core.transition import Transition, Whose

WIDTH = 1160
MARGIN = 24
LABEL = 424
FIGURES = 130
LINE = 22
SIZE, SMALL = 13, 11  # pixels of the letters
HEAD = 100  # column of the names above the bars
AT = 68  # column of the figures on the right
NEAR = 50  # the word `serving` stands to the right of its line when there is less room to its left
INK, SOFT, RULE, PAPER = "#1f2933", "#52606d", "#d9dee4", "#ffffff"
BAD = "#c62828"
FILL = {Whose.EC2: "#1583b4", Whose.PEER: "#9b4dca", Whose.HERE: "#2e9e5b", Whose.ORDER: "#a7b1bc"}


def svg(transition: Transition) -> str:
    """The picture, self-contained."""
    drawn = rows(transition)
    out: list[str] = []
    y: float = MARGIN + 18
    out.append(_text(MARGIN, y, transition.id, size=18, weight="bold"))
    for name, told in facts(transition):
        out.append(_text(MARGIN, y + LINE, name, fill=SOFT))
        for line in wrapped(told, WIDTH - 2 * MARGIN - HEAD, SIZE):
            y += LINE
            out.append(_text(MARGIN + HEAD, y, line))
    if drawn:
        y = _bars(out, transition, drawn, y)
    y = _requests(out, transition, y)
    height = y + MARGIN
    title = escape(f"{transition.id}: {transition.cause.text}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="system-ui, DejaVu Sans, Arial, sans-serif" font-size="{SIZE}" role="img">\n'
        f'<title>{title}</title>\n<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>\n'
        + "\n".join(out)
        + "\n</svg>\n"
    )


def _bars(out: list[str], transition: Transition, drawn: list[Row], y: float) -> float:
    """The bars below `y`, with their scale and what the colours mean; returns where they end."""
    top = y + 2 * LINE
    left, right = MARGIN + LABEL, WIDTH - MARGIN - FIGURES
    span = max(transition.took, 0.001)

    def x(at: float) -> float:
        return left + min(at / span, 1.0) * (right - left)

    out_of_bars: list[str] = []
    line = top
    for row in drawn:
        out_of_bars += _bar(row, line, x(row.at), max(2.0, x(row.at + row.took) - x(row.at)))
        line += LINE
        if row.bad and row.detail:
            told = fitted(row.detail, WIDTH - 2 * MARGIN - LABEL - 4, SMALL)
            out_of_bars.append(_text(left + 4, line + 13, told, fill=BAD, size=SMALL))
            line += LINE
    bottom = line + 6
    for tick in ticks(span):
        out.append(f'<path d="M{x(tick):.1f} {top - 8}V{bottom}" stroke="{RULE}"/>')
        out.append(_text(x(tick), top - 14, f"{tick:g} s", fill=SOFT, anchor="middle", size=SMALL))
    out.append(_text(WIDTH - MARGIN - AT, top - 14, "at", fill=SOFT, anchor="end", size=SMALL))
    out.append(_text(WIDTH - MARGIN, top - 14, "took", fill=SOFT, anchor="end", size=SMALL))
    out += out_of_bars
    if transition.serving_at is not None:
        at = x(transition.serving_at)
        anchor = "end" if at - left > NEAR else "start"
        out.append(f'<path d="M{at:.1f} {top - 8}V{bottom}" stroke="{FILL[Whose.HERE]}" stroke-dasharray="4 3"/>')
        out.append(_text(at, bottom + 14, "serving", fill=FILL[Whose.HERE], anchor=anchor, size=SMALL))
    y = bottom + 14 + LINE
    out += _legend(drawn, y)
    return y


def _requests(out: list[str], transition: Transition, y: float) -> float:
    """The requests to EC2 below `y`; returns where they end."""
    if transition.requests:
        y += LINE
        out.append(_text(MARGIN, y, "requests to EC2", weight="bold"))
    for asked in transition.requests:
        figures = f"{asked.action}{repeated(asked.count)}, {seconds(asked.seconds)} in all"
        out.append(_text(MARGIN, y + LINE, fitted(figures, LABEL - 8, SIZE), fill=SOFT))
        for line in wrapped(errors(asked.errors.items()), WIDTH - 2 * MARGIN - LABEL, SIZE):
            y += LINE
            out.append(_text(MARGIN + LABEL, y, line, fill=BAD))
    return y


def ticks(span: float) -> list[float]:
    """Round moments from 0 to `span`: five to ten of them."""
    raw = span / 6
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return [round(step * n, 10) for n in range(int(span / step + 1e-9) + 1)]


def _bar(row: Row, y: float, x: float, width: float) -> list[str]:
    fill = BAD if row.bad else FILL[row.whose]
    thick, faint = (14, "1") if row.step else (8, "0.45")
    label = fitted(row.label, LABEL - 8, SIZE)
    hover = escape(f"{row.label}: from {row.at:.2f} s for {row.took:.2f} s {row.detail}".strip())
    return [
        f'<rect x="{x:.1f}" y="{y + (LINE - thick) / 2:.1f}" width="{width:.1f}" height="{thick}" rx="2" '
        f'fill="{fill}" opacity="{faint}"><title>{hover}</title></rect>',
        _text(MARGIN, y + 15, label, fill=BAD if row.bad else INK if row.step else SOFT),
        _text(WIDTH - MARGIN - AT, y + 15, f"{row.at:.2f}", fill=SOFT, anchor="end"),
        _text(WIDTH - MARGIN, y + 15, seconds(row.took), anchor="end"),
    ]


def _legend(drawn: list[Row], y: float) -> list[str]:
    out = []
    x = float(MARGIN + LABEL)
    there = {row.whose for row in drawn}
    for whose, meaning in MEANINGS.items():
        if whose in there:
            out.append(f'<rect x="{x:.0f}" y="{y - 10}" width="12" height="12" rx="2" fill="{FILL[whose]}"/>')
            out.append(_text(x + 18, y, meaning, fill=SOFT, size=SMALL))
            x += 38 + width(meaning, SMALL)
    if there:
        bad = "; red: failed, or blocked" if any(row.bad for row in drawn) else ""
        out.append(_text(x + 8, y, f"thick: a step; thin: a wait{bad}", fill=SOFT, size=SMALL))
    return out


def _text(
    x: float, y: float, text: str, *, fill: str = INK, anchor: str = "start", size: int = 0, weight: str = ""
) -> str:
    more = (f' font-size="{size}"' if size else "") + (f' font-weight="{weight}"' if weight else "")
    where = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}"{where}{more}>{escape(text)}</text>'


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 1160px; margin: 2em auto; padding: 0 1em; }
svg { max-width: 100%; height: auto; border: 1px solid #d9dee4; border-radius: 6px; }
table { border-collapse: collapse; margin: 1em 0 2em; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 3px 12px 3px 0; border-bottom: 1px solid #e8ebee; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bad { color: #c62828; }
"""


def html(transition: Transition) -> str:
    """A page: the picture, and everything that it has no room for."""
    steps = [(f"{a.at:.3f}", f"{a.took:.3f}", a.words + repeated(a.times), _ok(a.ok), a.text) for a in transition.steps]
    waits = [
        (f"{w.at:.3f}", f"{w.until - w.at:.3f}", w.code, w.subject, w.text + repeated(w.times))
        for w in transition.waits
    ]
    asked = [
        (str(r.count), f"{r.seconds:.3f}", r.action, f"{r.first:.3f} to {r.last:.3f}", errors(r.errors.items()))
        for r in transition.requests
    ]
    title = escape(f"{transition.id} on {transition.node}")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{svg(transition)}"
        + _table("Steps", ("at, s", "took, s", "step", "", "what it said"), steps)
        + _table("Waits", ("from, s", "for, s", "code", "about", "what was waited for"), waits)
        + _table("Requests to EC2", ("count", "seconds", "action", "from, to, s", "errors"), asked)
        + "</body>\n</html>\n"
    )


def _ok(ok: bool | None) -> str:
    return "under way" if ok is None else "done" if ok else "failed"


def _table(title: str, names: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> str:
    if not lines:
        return ""

    def cells(tag: str, values: tuple[str, ...]) -> str:
        kinds = (' class="n"' if n < 2 else ' class="bad"' if v == "failed" else "" for n, v in enumerate(values))
        return "".join(f"<{tag}{kind}>{escape(v)}</{tag}>" for kind, v in zip(kinds, values, strict=True))

    body = "\n".join(f"<tr>{cells('td', line)}</tr>" for line in lines)
    return f"<h2>{title}</h2>\n<table>\n<tr>{cells('th', names)}</tr>\n{body}\n</table>\n"
