"""Lines of keys: found for every way to write TOML, and never wrong about what exists."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from awsha.config.lines import line_of, locate
from awsha.config.problems import Key

TRICKY = '''\
# [not.a.table]
top = 1 # comment = 2
"quoted key" = "a # b"
'literal.key' = 'x'
dotted . inner = 3
multi = """
[fake]
fake = 1 \\""" still
""""
lit = \'\'\'
[[fake]]
\'\'\'
array = [
  "]", # ]
  [1, 2],
  { k = "}" },
]

  [[group]]  # first
  name = "a"
    [[group.volume]]
    mount = "/x"
    [[group.volume]]
    mount = "/y"
    tags = { Name = "n" }
  [group.timeouts]
  handover_s = 3
[[group]]
name = "b"
timeouts.handover_s = 4
[[group.volume]]
mount = "/z"
[ "sp ace" . x ]
y = 1
'''


def paths(value: Any, key: Key = ()) -> list[Key]:
    found: list[Key] = [key] if key else []
    if isinstance(value, dict):
        for word, item in value.items():
            found += paths(item, (*key, word))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, item in enumerate(value):
            found += paths(item, (*key, index))
    return found


def test_tricky_file() -> None:
    places = locate(TRICKY)
    rows = TRICKY.splitlines()
    expected: dict[Key, str] = {
        ("top",): "top = 1",
        ("quoted key",): '"quoted key"',
        ("literal.key",): "'literal.key'",
        ("dotted", "inner"): "dotted",
        ("multi",): 'multi = """',
        ("lit",): "lit",
        ("array",): "array",
        ("group", 0): "  [[group]]",
        ("group", 0, "name"): '  name = "a"',
        ("group", 0, "volume", 0, "mount"): '    mount = "/x"',
        ("group", 0, "volume", 1, "mount"): '    mount = "/y"',
        ("group", 0, "timeouts", "handover_s"): "  handover_s",
        ("group", 1, "timeouts", "handover_s"): "timeouts.handover_s",
        ("group", 1, "volume", 0, "mount"): 'mount = "/z"',
        ("sp ace", "x", "y"): "y = 1",
    }
    for key, start in expected.items():
        assert rows[places[key] - 1].startswith(start), key
    assert not any("fake" in key or "not" in key for key in places)
    real = set(paths(tomllib.loads(TRICKY)))
    assert set(places) <= real, "nothing is located that tomllib does not see"
    assert all(line_of(places, key) for key in real if key[0] != "sp ace" and key not in {("group",), ("dotted",)})


def test_line_of_what_is_missing_is_the_table_around_it() -> None:
    places = locate(TRICKY)
    assert line_of(places, ("group", 1, "virtual_router_id")) == places["group", 1]
    assert line_of(places, ("group", 0, "volume", 1, "tags", "Name")) == places["group", 0, "volume", 1, "tags"]
    assert line_of(places, ("nothing",)) is None


@pytest.mark.parametrize(
    "text", ["", "\n", "#", "a=1", "a = '''x'''", 'a=""', 'a = """"x""""', "[a]", "[[a]]\n[a.b]\nc=1", "a = [\n]\n"]
)
def test_small_files(text: str) -> None:
    assert set(locate(text)) <= set(paths(tomllib.loads(text)))
