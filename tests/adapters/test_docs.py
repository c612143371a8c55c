"""The pages' blocks that any machine runs (`<!-- run: here -->`), without a lab."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from awsha.config.load import parse
from tests.adapters.aws_lab import VOLUME, running_servers
from tests.adapters.one_node import CONFIG
from tests.tools.pages import PAGES, Block, blocks

WITH_A_LAB = {"getting-started.md"}
HERE = [b for page in PAGES if page.name not in WITH_A_LAB for b in blocks(page) if b.who == "here"]
VOLUMES = f'[[group.volume]]\nid = "{VOLUME}"\nmount = "/srv/data"\n'


@pytest.mark.parametrize("block", HERE, ids=str)
def test_it_works_here(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if block.page != "README.md":  # which begins by writing one
        (tmp_path / "awsha.toml").write_text(CONFIG + VOLUMES)
    awsha = tmp_path / "bin" / "awsha"
    awsha.parent.mkdir()
    awsha.write_text(f'#!/bin/sh\nexec {sys.executable} -m awsha "$@"\n')
    awsha.chmod(0o755)
    monkeypatch.setenv("AWSHA_CONFIG", str(tmp_path / "awsha.toml"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("PATH", f"{awsha.parent}:{os.environ['PATH']}")
    with running_servers() as servers:
        servers.fresh(monkeypatch)
        argv = ["sh", "-euc", block.text]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"


TOML = [b for page in PAGES for b in blocks(page) if b.language == "toml"]


@pytest.mark.parametrize("block", TOML, ids=str)
def test_a_piece_of_awsha_toml_is_one(block: Block):
    assert tomllib.loads(block.text)
    parse(CONFIG + block.text, str(block))
