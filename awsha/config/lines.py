"""Where each key of a TOML file is written. tomllib tells values, not places; messages and `config show` name lines."""

from __future__ import annotations

import re
import tomllib

from awsha.config.problems import Key

_PART = re.compile(r'\s*(?:([A-Za-z0-9_-]+)|("(?:[^"\\\n]|\\.)*")|(\'[^\'\n]*\'))\s*')


def locate(text: str) -> dict[Key, int]:
    """Key path to line (1-based) for the tables and keys of a text that tomllib has accepted. Keys inside an inline
    table or an array have the line of the key that holds them: look for the longest prefix (`line_of`)."""
    places: dict[Key, int] = {}
    counts: dict[Key, int] = {}
    table: Key = ()
    position = 0
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        start = text[position:end].lstrip()
        line = text.count("\n", 0, position) + 1
        if not start or start.startswith("#"):
            position = end + 1
            continue
        if start.startswith("["):
            table = _header(start, counts)
            places.setdefault(table, line)
            position = end + 1
            continue
        parts, value = _key(text, position)
        places.setdefault((*table, *parts), line)
        position = max(_end_of_value(text, value), position + 1)
    return places


def line_of(places: dict[Key, int], key: Key) -> int | None:
    """The line of a key, or of the nearest table or key around it."""
    for length in range(len(key), 0, -1):
        if key[:length] in places:
            return places[key[:length]]
    return None


def _header(start: str, counts: dict[Key, int]) -> Key:
    repeated = start.startswith("[[")
    parts, _ = _key(start, 2 if repeated else 1)
    path: Key = ()
    for part in parts[:-1]:
        path = (*path, part)
        if path in counts:
            path = (*path, counts[path] - 1)
    path = (*path, *parts[-1:])
    if not repeated:
        return (*path, counts[path] - 1) if path in counts else path
    counts[path] = counts.get(path, 0) + 1
    return (*path, counts[path] - 1)


def _key(text: str, position: int) -> tuple[list[str], int]:
    """The dotted key at `position`, and where it ends (behind the `=` or the bracket)."""
    parts: list[str] = []
    while match := _PART.match(text, position):
        bare, basic, literal = match.groups()
        parts.append(bare if bare is not None else str(tomllib.loads(f"key = {basic or literal}")["key"]))
        position = match.end()
        if text[position : position + 1] != ".":
            break
        position += 1
    return parts, position + 1


def _end_of_value(text: str, position: int) -> int:
    """Behind the end of the line on which the value at `position` ends: strings and brackets may span lines."""
    depth = 0
    while position < len(text):
        char = text[position]
        if char in "\"'":
            position = _end_of_string(text, position)
            continue
        if char == "#":
            position = text.find("\n", position)
            position = len(text) if position < 0 else position
            continue
        if char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
        elif char == "\n" and depth <= 0:
            return position + 1
        position += 1
    return position


def _end_of_string(text: str, position: int) -> int:
    quote = text[position]
    mark = quote * 3 if text.startswith(quote * 3, position) else quote
    position += len(mark)
    while position < len(text) and not text.startswith(mark, position):
        position += 2 if quote == '"' and text[position] == "\\" else 1
    position += len(mark)
    while len(mark) == 3 and text.startswith(quote, position):  # """a"""" ends in a quote of its own
        position += 1
    return position
