"""Compiles core, the lab's rules and the simulation for the simulation: `python -m tests.sim` builds what it needs.

A copy of the sources, with data classes and constants written out (unroll.py, constants.py), goes through mypyc and the
C compiler into build/sim/<hash of the sources>/, and is run from there in the place of the tree. A stale build is
never used, since its name is another one; nor is one that plays other schedules than the sources do: each is held
against them before it gets its name. The installed package is not touched.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.sim.native import constants
from tests.sim.native.unroll import CannotUnroll, changes, unroll

ROOT = Path(__file__).resolve().parents[3]
BUILDS = ROOT / "build" / "sim"
FIRST = "tests.sim.schedule"  # with all that it imports
# What opens sockets and threads stays interpreted: the simulation has something else in its place.
INTERPRETED = frozenset({"awsha.aws.call", "awsha.aws.client"})
TIMEOUT_S = 900.0
LEVEL = "3"  # of gcc's optimisation
# What a build has to play as the sources do before it is used: enough that each mishap and each step comes many times.
HELD_AGAINST = (
    ("--seed", "31", "--schedules", "300"),
    ("--seed", "32", "--schedules", "300", "--nodes", "3"),
)
# Nobody else's functions stand in for those of the build: calls between them go straight, or are inlined.
FLAGS = ["-fvisibility=hidden", "-fno-semantic-interposition", "-fno-plt"]
PLAYED = ("schedules", "violations", "steps", "events", "digest", "rules")
# What ast.unparse leaves out ("type: ignore"), and what data classes written out do not agree on with their bases.
CONFIG = "[mypy]\nfollow_imports = silent\ndisable_error_code = override, no-untyped-def\n"


class CannotBuild(Exception):
    """No compiler, or it says no."""


def sources() -> dict[str, Path]:
    """Each module that the simulation is made of, by its name: FIRST, and what it imports at its top, and so on."""
    found: dict[str, Path] = {}
    todo = [FIRST]
    while todo:
        name = todo.pop()
        path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        if name in found or name in INTERPRETED or not path.is_file():
            continue
        found[name] = path
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                todo += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return dict(sorted(found.items()))


def fingerprint(found: dict[str, Path]) -> str:
    """The name of the build of these sources by this interpreter and these tools. Raises CannotBuild without mypyc."""
    try:
        tools = f"{sys.version} {version('mypy')} {version('setuptools')} {LEVEL} {FLAGS} {CONFIG}"
    except PackageNotFoundError as error:
        raise CannotBuild(f"{error.name} is not installed") from error
    digest = hashlib.sha256(tools.encode())
    beside = Path(__file__).parent
    for path in (*found.values(), beside.parent / "__main__.py", *sorted(beside.glob("*.py"))):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def built() -> Path:
    """The directory to be put in front of the tree; made if it is not there. Raises CannotBuild."""
    found = sources()
    place = BUILDS / fingerprint(found)
    if place.is_dir():
        return place
    if shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) is None:
        raise CannotBuild("there is no C compiler")
    sys.stderr.write("tests.sim: compiling, which takes a minute or two, once\n")
    work = BUILDS / f"{place.name}.{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    try:
        write(work, found)
        _compile(work)
        prove(work)
        for old in BUILDS.iterdir():
            if "." not in old.name:  # not what somebody else is building
                shutil.rmtree(old, ignore_errors=True)
        work.rename(place)
    except OSError as error:
        if not place.is_dir():  # somebody else was faster
            raise CannotBuild(str(error)) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return place


def write(work: Path, found: dict[str, Path]) -> None:
    """The copy of the sources: all of awsha and the simulation, those that are compiled in their compilable form."""
    for part in ("awsha", "tests/sim"):
        shutil.copytree(ROOT / part, work / part, ignore=shutil.ignore_patterns("__pycache__"))
    (work / "tests" / "__init__.py").touch()
    try:
        texts = {name: path.read_text() for name, path in found.items()}
        changed = frozenset().union(*(changes(text) for text in texts.values()))
        trees = {name: ast.parse(unroll(text, changed)) for name, text in texts.items()}
    except CannotUnroll as error:
        raise CannotBuild(str(error)) from error
    known = {enum for tree in trees.values() for enum in constants.enums(tree)}
    names = []
    for name, tree in trees.items():
        constants.fix(tree, known)
        names.append(name.replace(".", "/") + ".py")
        (work / names[-1]).write_text(ast.unparse(ast.fix_missing_locations(tree)) + "\n")
    (work / "modules.txt").write_text("\n".join(names))
    (work / "mypy.ini").write_text(CONFIG)


def _compile(work: Path) -> None:
    """mypyc and the C compiler, in a process of their own. Raises CannotBuild; what they said is in build.log."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tests.sim.native.build"], cwd=work, env=env, timeout=TIMEOUT_S,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise CannotBuild(f"it was not built within {TIMEOUT_S:g} s") from error
    (BUILDS / "build.log").write_text(done.stdout)
    if done.returncode:
        raise CannotBuild(f"it does not compile, see {BUILDS / 'build.log'}")
    shutil.rmtree(work / "build", ignore_errors=True)


def prove(work: Path) -> None:
    """Raise CannotBuild unless the simulation in `work` plays the same schedules as the sources, uncompiled."""
    for asked in HELD_AGAINST:
        there, here = _played(work, asked), _played(ROOT, asked)
        if there != here:
            raise CannotBuild(f"what was compiled plays other schedules: {there}, and the sources {here}")


def _played(place: Path, asked: tuple[str, ...]) -> dict[str, Any]:
    """What the simulation in `place`, as it is there, says of these schedules."""
    command = [sys.executable, "-P", "-m", "tests.sim", "--interpreted", "--json", *asked]
    done = subprocess.run(
        command, cwd=place, env={**os.environ, "PYTHONPATH": str(place)}, timeout=TIMEOUT_S, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    try:
        told = json.loads(done.stdout)
    except ValueError as error:
        raise CannotBuild(f"what was compiled does not run: {done.stderr[-500:]}") from error
    return {part: told[part] for part in PLAYED}


def _side_by_side(self: Any, sources: list[str], *args: Any, **kwargs: Any) -> list[str]:
    """CCompiler.compile of one extension's files on all processors."""
    plain = type(self).compile_one_after_the_other
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(lambda source: plain(self, [source], *args, **kwargs), sources))
    return [built_object for part in parts for built_object in part]


def translate() -> list[Any]:
    """Write C for what modules.txt names, in the current directory; the extensions that are to be made of it."""
    from mypyc.build import mypycify

    modules = Path("modules.txt").read_text().split()
    found = mypycify(["--config-file", "mypy.ini", *modules], opt_level=LEVEL, debug_level="0", multi_file=True)
    for extension in found:
        extension.extra_compile_args += FLAGS
    return list(found)


def main() -> None:
    """Build what modules.txt names, in the current directory."""
    from setuptools import setup
    from setuptools._distutils.ccompiler import CCompiler

    CCompiler.compile_one_after_the_other = CCompiler.compile
    CCompiler.compile = _side_by_side
    extensions = translate()
    arguments = ["build_ext", "--inplace", "--parallel", str(os.cpu_count() or 1)]
    setup(name="sim", packages=[], ext_modules=extensions, script_args=arguments)


if __name__ == "__main__":
    main()
