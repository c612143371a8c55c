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


def test_an_output_that_cannot_be_written_is_told_and_has_its_own_exit_code(tmp_path: Path):
    """Also when the words would have come out at the very end only, where Python itself would fail with 120."""
    environment = {**os.environ, "AWS_EC2_METADATA_DISABLED": "true", "AWSHA_CONFIG": str(tmp_path / "none.toml")}
    for words, code in ((["check", "--json"], 74), (["--version"], 74), (["notify", "--help"], 74), (["status"], 78)):
        argv = [sys.executable, "-m", "awsha", *words]
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                argv, cwd=ROOT, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
            )
        assert done.returncode == code, words
        assert "could not be written" in done.stderr if code == 74 else "does not exist" in done.stderr
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr


def test_a_reader_that_has_left_and_closed_streams_are_no_defects(tmp_path: Path):
    environment = {**os.environ, "AWS_EC2_METADATA_DISABLED": "true", "AWSHA_CONFIG": str(tmp_path / "none.toml")}
    reader, writer = os.pipe()
    os.close(reader)
    argv = [sys.executable, "-m", "awsha", "check"]
    left = subprocess.run(
        argv, cwd=ROOT, env=environment, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(writer)
    assert (left.returncode, left.stderr) == (141, b"")
    closed = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *argv]
    assert subprocess.run(closed, cwd=ROOT, env=environment, timeout=60, check=False).returncode == 1


def test_signs_that_the_encoding_lacks_are_no_failure(tmp_path: Path):
    missing = str(tmp_path / "none\udcff\x1b[2J.toml")
    environment = {**os.environ, "AWS_EC2_METADATA_DISABLED": "true", "PYTHONIOENCODING": "ascii"}
    argv = [sys.executable, "-m", "awsha", "--config", missing, "check"]
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"none\\udcff\\x1b[2J.toml" in done.stdout, "and nothing plays tricks on a terminal"
