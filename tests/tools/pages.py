"""The pages of this repository as tests read them: code blocks with their markers, and commands in the text.

Every block of commands has a marker on the line above it: `<!-- run: WHO, WISH -->`. WHO runs it:

- a node or nodes of a pair in the lab (`a`, `a b`, `boot b`, `crash b`), as tests/lab/test_docs.py explains with WISH
- `here`: any machine; in that page's lab, or, without a lab, tests/adapters/test_docs.py
- `procedure`: its lines, one by one, at their place in a test of tests/lab/test_docs.py or tests/nspawn/test_units.py
- `aws`: an account; held against botocore's model of the API (tests/core/test_docs.py)
- `no: REASON`: nobody
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL = ("sh", "bash", "console", "")  # a block without a language could be anything
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
MARKER = re.compile(r"<!-- run: ([^,>]+?)(?:, ([^>]+?))? -->\n\Z")
SPAN = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    """One fenced block. `who` and `wish` are its marker's words, empty without one; `line` is that of the fence."""

    page: str
    line: int
    language: str
    text: str
    who: str = ""
    wish: str = ""

    @property
    def reason(self) -> str:
        """Why nobody runs it; empty for one that is run."""
        return ", ".join(filter(None, (self.who, self.wish))).removeprefix("no:").strip() if self._not_run else ""

    @property
    def _not_run(self) -> bool:
        return self.who == "no" or self.who.startswith("no:")

    def __str__(self) -> str:
        """Where it is."""
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order, without the indentation of the list that they stand in."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        marker = MARKER.search(text[: match.start()])
        who, wish = (marker[1], marker[2] or "") if marker else ("", "")
        body = re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
        found.append(Block(page.name, text.count("\n", 0, match.start()) + 1, match[2], body, who, wish))
    return found


def runbook(line: str) -> list[str]:
    """A line of the runbook as argv; it must stand in the page. Each line of a `procedure` is run by way of this."""
    page = ROOT / "docs" / "runbook.md"
    lines = {found for block in blocks(page) for found in shell_lines(block.text)}
    assert line in lines or line in spans(page), f"the runbook does not say {line!r} any more"
    return line.split()


def spans(page: Path) -> list[str]:
    """The inline code of a page, each on one line."""
    return [" ".join(span.split()) for span in SPAN.findall(FENCE.sub("", page.read_text(encoding="utf-8")))]


def shell_lines(text: str) -> list[str]:
    """The logical lines of a shell block: continuations and open quotes joined, comments taken away."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines, held = [], ""
    for line in joined.splitlines():
        held = f"{held} {line.strip()}" if held else line
        if held.count("'") % 2 == 0:
            lines.append(re.sub(r"(^|\s)#.*", "", held).strip())
            held = ""
    return [line for line in lines if line]
