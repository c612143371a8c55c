"""Exit codes of the program as it is run, and what systemd makes of the agent's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from awsha.cli.main import cli

ROOT = Path(__file__).parents[2]


def run(folder: Path, *words: str) -> int:
    environment = {
        **os.environ,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWSHA_CONFIG": str(folder / "none.toml"),
        "AWSHA_RUN_DIR": str(folder / "run"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "awsha", *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode


def test_exit_codes(tmp_path: Path):
    broken = tmp_path / "broken.toml"
    broken.write_text("region = 3\n")
    assert run(tmp_path, "status", "--nonsense") == 2
    assert run(tmp_path, "--config", str(broken), "status") == 78
    assert run(tmp_path, "--config", str(broken), "fence", "b") == 78
    assert run(tmp_path, "notify", "master", "nobody") == 1
    assert run(tmp_path, "init") == 2


def test_status_is_unknown_where_this_host_is_no_node(tmp_path: Path):
    """A monitoring plugin's 1 is a warning; that there is nothing to tell is 3."""
    wish = ["--node", "a=192.0.2.1", "--node", "b=192.0.2.2", "--vip", "192.0.2.3", "--region", "eu-west-1"]
    file = str(tmp_path / "awsha.toml")
    assert CliRunner().invoke(cli, ["init", "-o", file, *wish]).exit_code == 0
    assert run(tmp_path, "--config", file, "status") == 3
    assert run(tmp_path, "--config", file, "plan", "data", "--role", "backup") == 1
