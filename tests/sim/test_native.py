"""What is written for the compiler says the same as the sources, and a build that does not is refused.

The whole is compiled, and held against the sources, before `python -m tests.sim` uses it (build.py: prove).
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sim.native import build, constants
from tests.sim.native.build import ROOT, CannotBuild, fingerprint, sources
from tests.sim.native.unroll import CannotUnroll, changes, unroll

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


def test_only_what_is_changed_somewhere_gets_the_means_to_it():
    assert changes(SOURCE) == {frozenset({"at"})}
    assert unroll(SOURCE, changes(SOURCE)).count("def replaced") == 1
    assert unroll(SOURCE, frozenset()).count("def replaced") == 0


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


@pytest.mark.timeout(BUILD_S)
def test_all_that_is_compiled_is_of_the_kind_that_mypyc_compiles(tmp_path: Path):
    """Its front end alone. The C compiler takes longer, and says less; `prove` is there for what comes out of it."""
    build.write(tmp_path, sources())
    code = "from tests.sim.native.build import translate; translate()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=BUILD_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert list(tmp_path.glob("build/*core___loop.c"))


@pytest.mark.timeout(BUILD_S)
def test_a_build_that_plays_other_schedules_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is written out for the compiler plays the same, compiled or not; with one figure changed it does not."""
    monkeypatch.setattr(build, "HELD_AGAINST", (("--seed", "31", "--schedules", "100"),))
    build.write(tmp_path, sources())
    build.prove(tmp_path)
    shape = tmp_path / "tests" / "sim" / "shape.py"
    shape.write_text(shape.read_text().replace("release_grace_s=2.0", "release_grace_s=2.5"))
    with pytest.raises(CannotBuild, match="other schedules"):
        build.prove(tmp_path)
    shape.write_text("raise SystemExit(3)")
    with pytest.raises(CannotBuild, match="does not run"):
        build.prove(tmp_path)
