"""docs/demo.svg: a recording of `awsha lab demo` as it really ran in a terminal (`make recording`, root, two minutes).

The program runs on a pseudo-terminal; what it writes goes through a terminal emulator with the times at which it came.
build/demo.json keeps that, `--again` draws it anew. README shows the picture, and some lines of the same run as text.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from dataclasses import dataclass, field
from fcntl import ioctl
from html import escape
from itertools import groupby
from pathlib import Path

import pyte

ROOT = Path(__file__).parents[2]
RECORDING, PICTURE, README = ROOT / "build" / "demo.json", ROOT / "docs" / "demo.svg", ROOT / "README.md"
BLOCK = re.compile(r"(?<=^```text\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)  # the one of README
COLUMNS, SCREEN, PAPER = 100, 34, 400  # the terminal; the lines that the picture shows; those that are kept
LIMIT_S = 300.0
SPEED = 4.0  # so much faster than it was
HOLD_S = 12.0  # the end stays, then it begins again
CELL, LINE, EDGE, SIZE = 8.4, 19.0, 16.0, 14
COLOURS = {
    "default": "#d6deeb", "black": "#575656", "red": "#ef5350", "green": "#22da6e", "brown": "#e6c15a",
    "blue": "#82aaff", "magenta": "#c792ea", "cyan": "#21c7a8", "white": "#ffffff",
}  # fmt: skip
FONT = "'DejaVu Sans Mono',ui-monospace,SFMono-Regular,Menlo,Consolas,'Liberation Mono',monospace"
# A bar, a frame, or text without a gap: each is put at its own place.
PIECE = re.compile(r"█+|[│╭╮╰╯─]+|(?:(?!  |[█│╭╮╰╯─]).)+")
BUTTONS = ("#ff5f57", "#febc2e", "#28c840")
Chunks = list[tuple[float, str]]  # (seconds since the start, what came)


def record(argv: list[str]) -> Chunks:
    """Run a program on a pseudo-terminal; raises SystemExit when it fails or does not end."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(PAPER)}
        os.execvp(argv[0], argv)  # noqa: S606
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", PAPER, COLUMNS, 0, 0))
    began, chunks = time.monotonic(), []
    while (now := time.monotonic() - began) < LIMIT_S:
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # EIO: the program has closed it
            break
        if not data:
            break
        chunks.append((round(now, 2), data.decode("utf-8", "replace")))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != 0:
        raise SystemExit(f"{' '.join(argv)} ended with {code}:\n{''.join(text for _, text in chunks)[-2000:]}")
    return chunks


@dataclass
class Played:
    """The last screen: each line as runs of equal style, and when it got its last form."""

    lines: list[list[tuple[str, str, bool]]]  # (text, colour, bold)
    at: list[float] = field(default_factory=list)

    @property
    def text(self) -> str:
        """As text."""
        return "\n".join("".join(text for text, _, _ in line).rstrip() for line in self.lines) + "\n"


def play(chunks: Chunks) -> Played:
    """What a terminal shows in the end, and when each line came. Spinners and progress that went away are not in it."""
    screen = pyte.Screen(COLUMNS, PAPER)
    stream = pyte.Stream(screen)
    at, before = [0.0] * PAPER, [""] * PAPER
    for when, text in chunks:
        screen.dirty.clear()
        stream.feed(text)
        for row in screen.dirty:
            shown = "".join(screen.buffer[row][column].data for column in range(COLUMNS)).rstrip()
            if shown != before[row]:
                at[row], before[row] = when, shown
    used = max(row for row in range(PAPER) if before[row]) + 1
    lines = []
    for row in range(used):
        cells = [screen.buffer[row][column] for column in range(COLUMNS)]
        styled = [(cell.data, _colour(cell), cell.bold) for cell in cells]
        runs = groupby(styled, key=lambda cell: cell[1:])
        lines.append([("".join(cell[0] for cell in run), *style) for style, run in runs])
    ordered = [max(at[: row + 1]) for row in range(used)]  # an empty line came with the one before it
    return Played(lines, ordered)


def excerpt(text: str) -> str:
    """The first outage, and the report."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if "has taken over" in line)
    last = next(i for i, line in enumerate(lines) if i > first and "the client is served" in line)
    report = next(i for i, line in enumerate(lines) if "what happened" in line)
    return "\n".join([*lines[first : last + 1], "[…]", *lines[report:], ""])


def _colour(cell: pyte.screens.Char) -> str:
    name = cell.fg.removeprefix("bright")
    return COLOURS.get(name, f"#{name}" if len(name) == 6 else COLOURS["default"])


def draw(played: Played, title: str) -> str:
    """The picture: the lines come when they came, and the window follows. Where nothing moves it shows the end."""
    total = played.at[-1] / SPEED + HOLD_S
    width, height = COLUMNS * CELL + 2 * EDGE, SCREEN * LINE + 2 * EDGE + LINE
    styles, body = [], []
    scroll = {0.0: 0}
    for row, (line, at) in enumerate(zip(played.lines, played.at, strict=True)):
        share = 100 * at / SPEED / total
        scroll[share] = max(0, row + 1 - SCREEN)
        if not (drawn := "".join(_run(*piece) for piece in _placed(line))):
            continue
        styles.append(f"@keyframes l{row}{{0%{{opacity:0}}{share:.2f}%{{opacity:1}}}}#l{row}{{animation-name:l{row}}}")
        body.append(f'<g id="l{row}" transform="translate(0 {row * LINE:g})">{drawn}</g>')
    steps = "".join(f"{share:.2f}%{{transform:translateY({-rows * LINE:g}px)}}" for share, rows in scroll.items())
    last = max(0, len(played.lines) - SCREEN) * LINE
    top = EDGE + LINE
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" font-size="{SIZE}" '
        f'font-family="{FONT}">',
        f"<title>{escape(title)}</title>",
        f"<style>text{{fill:{COLOURS['default']}}}#all,#all>g{{animation:{total:.1f}s step-end infinite}}"
        f"@keyframes all{{{steps}}}#all{{animation-name:all}}",
        *styles,
        "@media(prefers-reduced-motion:reduce){#all,#all>g{animation:none}}</style>",
        f'<clipPath id="screen"><rect y="{top:g}" width="{width:g}" height="{SCREEN * LINE + 8:g}"/></clipPath>',
        f'<rect width="{width:g}" height="{height:g}" rx="8" fill="#011627"/>',
        *(f'<circle cx="{20 + 18 * i}" cy="17" r="6" fill="{colour}"/>' for i, colour in enumerate(BUTTONS)),
        f'<text x="{width / 2:g}" y="22" text-anchor="middle" opacity="0.6">{escape(title)}</text>',
        f'<g clip-path="url(#screen)"><g transform="translate({EDGE:g} {top:g})">'
        f'<g id="all" transform="translate(0 {-last:g})">',
        *body,
        "</g></g></g>",
        "</svg>",
        "",
    ])  # fmt: skip


def _placed(line: list[tuple[str, str, bool]]) -> list[tuple[int, str, str, bool]]:
    """The parts of a line with their columns, without the blanks around them."""
    column = 0
    found: list[tuple[int, str, str, bool]] = []
    for text, colour, bold in line:
        for match in PIECE.finditer(text):
            piece = match[0]
            if stripped := piece.strip():
                found.append((column + match.start() + piece.index(stripped[0]), stripped, colour, bold))
        column += len(text)
    return found


def _run(column: int, text: str, colour: str, bold: bool) -> str:
    """A run of one style: a bar as a rectangle, else text that takes the room of its columns in any font."""
    x, width = column * CELL, len(text) * CELL
    if text[0] == "█":
        return f'<rect x="{x:.4g}" y="2" width="{width:.4g}" height="{LINE - 4:g}" fill="{colour}"/>'
    style = f' style="fill:{colour}"' if colour != COLOURS["default"] else ""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.4g}" y="14" textLength="{width:.4g}"{style}{weight}>{escape(text, quote=False)}</text>'


def main(words: list[str]) -> int:
    """Record (or take the last recording), and draw."""
    RECORDING.parent.mkdir(exist_ok=True)
    if words != ["--again"]:
        demo = str(Path(sys.executable).parent / "awsha")
        RECORDING.write_text(json.dumps(record([demo, "lab", "demo"])), encoding="utf-8")
    played = play([(at, text) for at, text in json.loads(RECORDING.read_text(encoding="utf-8"))])
    readme = BLOCK.sub(lambda _: excerpt(played.text), README.read_text(encoding="utf-8"))
    README.write_text(readme, encoding="utf-8")
    PICTURE.write_text(draw(played, f"awsha lab demo ({SPEED:g} times as fast)"), encoding="utf-8")
    sys.stdout.write(f"wrote {PICTURE} ({PICTURE.stat().st_size} bytes) and lines of {README}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
