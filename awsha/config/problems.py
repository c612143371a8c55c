"""What is wrong with a configuration: every problem with its file, key, reason and what to type instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from awsha.core.errors import EX_CONFIG, AwshaError

_BARE = re.compile(r"[A-Za-z0-9_-]+")  # what TOML takes as a key without quotes
Key = tuple[str | int, ...]  # ("group", 0, "volume", 1, "mount")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to correct. `line` is 1-based; None when the value is not in a file or cannot be located."""

    file: str
    key: str  # `group[0].volume[1].mount`, with the group's name behind it where there is one; "" for the file itself
    reason: str
    hint: str
    line: int | None = None

    def __str__(self) -> str:
        """Two lines: where and why, and the hint."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        where = f"{place}: {self.key}" if self.key else place
        return f"{where}: {self.reason}" + (f"\n    hint: {self.hint}" if self.hint else "")


class ConfigError(AwshaError):
    """Everything that is wrong with a configuration, together. Exit code 78; nothing was touched."""

    def __init__(self, problems: Iterable[Problem], *, hint: str = "") -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        title = "the configuration has a problem" if count == 1 else f"the configuration has {count} problems"
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"{title}; nothing was touched\n{lines}", hint=hint, exit_code=EX_CONFIG)


class InvalidValueError(ValueError):
    """One value that cannot be. `reason` reads on behind the key ("name: is empty"); `below` leads further down."""

    def __init__(self, reason: str, hint: str = "", below: Key = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.below = below


def key_text(key: Key) -> str:
    """`("group", 0, "name")` as `group[0].name`."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if _BARE.fullmatch(part) else shown(part)
            text += f".{word}" if text else word
    return text


def did_you_mean(word: str, known: Sequence[str], otherwise: str) -> str:
    """A hint that names the nearest of the known words, or `otherwise` when none is near."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean `{near[0]}`?" if near else otherwise


def shown(value: object) -> str:
    """A value as a message shows it: quoted, and short."""
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= 60 else text[:57] + "…"
