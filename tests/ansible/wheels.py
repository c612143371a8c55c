"""Wheels of this project, of several versions, and of what it depends on: what an index would have."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.tools.pages import ROOT

PYTHON = ROOT / "build/ansible/bin/python"  # has Ansible and hatchling: `make ansible` makes it
SOURCES = ("awsha", "systemd", "pyproject.toml", "README.md", "LICENSE")
FUTURE = "from __future__ import annotations\n"
DEADLINE_S = 300


def dependencies(folder: Path) -> None:
    """Fetch what awsha depends on into a folder, once."""
    if not list(folder.glob("boto3-*.whl")):
        _pip("--wheel-dir", folder, ROOT)
    for own in folder.glob("awsha-*.whl"):
        own.unlink()


def build(folder: Path, scratch: Path, version: str, *, agent: str = "") -> Path:
    """A wheel of this tree under another version. `agent`: a line of Python with which its agent begins."""
    source = scratch / version
    for name in SOURCES:
        there = ROOT / name
        if there.is_dir():
            shutil.copytree(there, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(there, source / name)
    package = source / "awsha/__init__.py"
    package.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', package.read_text()))
    if agent:
        command = source / "awsha/cli/agent.py"
        command.write_text(command.read_text().replace(FUTURE, f"{FUTURE}{agent}\n"))
    _pip("--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    [wheel] = folder.glob(f"awsha-{version}-*.whl")
    return wheel


def _pip(*words: str | Path) -> None:
    argv = [str(PYTHON), "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", *map(str, words)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
