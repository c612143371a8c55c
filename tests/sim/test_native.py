"""The compiled simulation plays the same schedules, and what is compiled says the same as what is written."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.sim.native import build, constants
from tests.sim.native.build import ROOT, CannotBuild, fingerprint, sources
from tests.sim.native.unroll import CannotUnroll, unroll

BUILD_S = 900.0
SOURCE = '''
from __future__ import annotations
from dataclasses import dataclass, field, replace

@dataclass(frozen=True, slots=True)
class Base:
    """A base."""
    name: str

@dataclass(frozen=True, slots=True)
class Step(Base):
    size: int = 3

@dataclass(frozen=True)
class Plain:
    at: float
    words: tuple[str, ...] = ("a",)
    by: dict[str, int] = field(default_factory=dict)

@dataclass(eq=False)
class Thing:
    name: str
    view: str = field(init=False)

    def __post_init__(self) -> None:
        self.view = self.name.upper()

def moved(plain: Plain) -> Plain:
    return replace(plain, at=plain.at + 1.0)
'''


def _spaces() -> tuple[dict[str, Any], dict[str, Any]]:
    """What the source makes as it is, and written out."""
    plain: dict[str, Any] = {"__name__": __name__}
    written: dict[str, Any] = {"__name__": __name__}
    exec(compile(SOURCE, "plain", "exec", dont_inherit=True), plain)  # noqa: S102 - a source of this file
    exec(compile(unroll(SOURCE), "written", "exec", dont_inherit=True), written)  # noqa: S102
    return plain, written


def test_a_data_class_written_out_does_the_same():
    for space in (plain_and_written := _spaces()):
        step, base, plain = space["Step"], space["Base"], space["Plain"]
        assert step("a") == step("a", 3) != step("a", 4)
        assert base("a") != step("a")
        assert hash(step("a")) == hash(("a", 3)) == hash(step("a", size=3))
        assert plain(1.0).by is not plain(1.0).by
        assert plain.__match_args__ == ("at", "words", "by")
        assert space["moved"](plain(1.0, ("b",))) == plain(2.0, ("b",))
        assert space["Thing"]("x").view == "X"
        assert space["Thing"]("x") != space["Thing"]("x")
    shown = [(repr(space["Step"]("a")), repr(space["Plain"](0.5))) for space in plain_and_written]
    assert shown[0] == shown[1]
    assert "@dataclass" not in unroll(SOURCE)


@pytest.mark.parametrize(
    "odd",
    [
        "@dataclass(order=True)\nclass A:\n    a: int",
        "@dataclass\nclass A:\n    a: int = field(default=3, repr=False)",
        "@dataclass\nclass A:\n    a: dict | None = field(default_factory=dict)",
    ],
)
def test_what_is_not_known_of_data_classes_is_refused(odd: str):
    with pytest.raises(CannotUnroll):
        unroll(odd)


def test_constants_and_members_of_enums_are_declared():
    tree = ast.parse(
        "from __future__ import annotations\n"
        "from enum import StrEnum\n"
        "class Word(StrEnum):\n    ONE = 'one'\n"
        "ON, OFF = 'on', 'off'\nLIMIT: float = 3.0\nlast = 1\n"
        "def kind(x: object, seen: Mapping[str, int]) -> bool:\n    return x is Word.ONE or isinstance(x, int | str)\n"
    )
    constants.fix(tree, constants.enums(tree))
    text = ast.unparse(ast.fix_missing_locations(tree))
    assert "_Word_ONE: Final = Word.ONE" in text
    assert "x is _Word_ONE or isinstance(x, (int, str))" in text
    assert "ON: Final = 'on'\nOFF: Final = 'off'\nLIMIT: Final[float] = 3.0\nlast = 1" in text
    assert "seen: dict[str, int]" in text


def test_a_changed_source_has_another_build():
    found = sources()
    assert {"awsha.core.loop", "awsha.core.plan", "awsha.lab.rules", "tests.sim.agent"} <= found.keys()
    before = fingerprint(found)
    assert fingerprint(found) == before
    assert fingerprint({**found, "awsha.core.loop": found["awsha.core.plan"]}) != before


def test_without_a_compiler_there_is_no_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(build, "BUILDS", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotBuild, match="no C compiler"):
        build.built()
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True)
class Played:
    """What a run of the command said."""

    compiled: bool
    outcome: dict[str, Any] = field(default_factory=dict)


def _play(*arguments: str) -> Played:
    command = [sys.executable, "-m", "tests.sim", "--json", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=BUILD_S)
    told = json.loads(done.stdout)
    parts = ("schedules", "violations", "steps", "events", "digest", "rules")
    return Played(told["compiled"], {part: told[part] for part in parts})


@pytest.mark.timeout(2 * BUILD_S)
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_compiled_simulation_plays_the_same_schedules(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWSHA_SIM_LEVEL", "0")  # the same C, sooner compiled
    try:
        fingerprint(sources())
    except CannotBuild as error:
        pytest.skip(str(error))
    for chosen in (("--seed", "31"), ("--seed", "32"), ("--seed", "33", "--nodes", "3")):
        asked = (*chosen, "--schedules", "300")
        compiled, interpreted = _play(*asked), _play(*asked, "--interpreted")
        assert (compiled.compiled, interpreted.compiled) == (True, False)
        assert replace(compiled, compiled=False) == interpreted
