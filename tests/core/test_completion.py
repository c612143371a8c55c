"""What the Tab key offers, by click's own protocol, and in a real bash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from awsha.cli.complete import SHELLS, VARIABLE
from awsha.cli.main import COMMANDS, cli

CONFIG = """
[[node]]
name = "north"
[[node]]
name = "south"
[[group]]
name = "data"
[[group]]
name = "web"
"""


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration, not even a right one."""
    path = tmp_path / "awsha.toml"
    path.write_text(CONFIG)
    monkeypatch.setenv("AWSHA_CONFIG", str(path))
    return path


def offered(*words: str) -> list[str]:
    """What is offered for the last word."""
    found = BashComplete(cli, {}, "awsha", VARIABLE).get_completions(list(words[:-1]), words[-1])
    return [item.value for item in found]


def test_commands_and_flags():
    assert offered("") == list(COMMANDS)
    assert offered("sw") == ["switchover"]
    assert offered("switchover", "--d") == ["--dry-run"]
    assert offered("config", "") == ["show"]
    assert offered("completion", "") == list(SHELLS)


@pytest.mark.parametrize("command", ["status", "switchover", "release", "pause", "resume", "plan", "converge"])
def test_groups(command: str):
    assert offered(command, "") == ["data", "web"]
    assert offered(command, "w") == ["web"]


def test_nodes():
    assert offered("fence", "") == ["north", "south"]
    assert offered("switchover", "--to", "s") == ["south"]
    assert offered("keepalived", "--node", "") == ["north", "south"]


def test_the_file_that_the_command_line_names(tmp_path: Path):
    other = tmp_path / "other.toml"
    other.write_text('[[group]]\nname = "elsewhere"\n')
    assert offered("--config", str(other), "status", "") == ["elsewhere"]
    assert offered("status", "--config", str(other), "") == ["elsewhere"]


@pytest.mark.parametrize("text", ["", "group = 3", "[[group]]\nname = 3", "[[", "group = ['data']", "\x00"])
def test_a_file_with_nothing_to_offer_is_no_error(config: Path, text: str):
    config.write_text(text)
    assert offered("status", "") == []
    config.unlink()
    assert offered("status", "") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_its_script(shell: str):
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0
    assert f"{VARIABLE}={shell}_complete" in done.output


def test_a_real_bash_takes_it(tmp_path: Path):
    script = CliRunner().invoke(cli, ["completion", "bash"]).output
    (tmp_path / "script").write_text(script)
    program = tmp_path / "awsha"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m awsha "$@"\n')
    program.chmod(0o755)
    line = "COMP_WORDS=(awsha switchover w); COMP_CWORD=2; _awsha_completion awsha; echo ${COMPREPLY[*]}"
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(
        ["bash", "--norc", "-c", f". {tmp_path}/script; {line}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("web", "")
