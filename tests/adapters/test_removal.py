"""Whether the package may be removed: `awsha check --removal` on nodes that take part, hold something, or neither."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from awsha import notify
from awsha.agent.removal import refusals, still_mounted
from awsha.cli.main import cli
from awsha.config.load import load
from awsha.core.model import Unknown
from awsha.host import mountinfo
from awsha.notify import start_ticks
from tests.adapters.one_node import CONFIG, GROUP

MOUNT = "/srv/awsha-removal"
SCRIPTS = sorted((Path(__file__).parents[2] / "conf/debian").glob("p*"))
FREE: dict[str, Any] = {
    "name": GROUP,
    "vrrp_role": "stop",
    "goal": "release",
    "running": [],
    "application": "stopped",
    "vips": [{"kernel": False}],
    "volumes": [{"device": None, "mounted": False}],
}


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own run directory."""
    monkeypatch.setenv("AWSHA_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


def told(role: str, folder: Path, pid: int) -> Path:
    """Have a keepalived with this pid tell a role; the configuration."""
    notify.record(role, GROUP)
    (file,) = (folder / "intent" / GROUP).iterdir()
    words = file.read_text().split()
    file.write_text(" ".join([*words[:3], str(pid), str(start_ticks(pid) if pid == os.getpid() else 1)]))
    config = folder / "etc.toml"
    config.write_text(f'{CONFIG}[[group.volume]]\nid = "vol-0123456789abcdef0"\nmount = "{MOUNT}"\n')
    return config


@contextmanager
def agent(run: Path, group: dict[str, Any]) -> Iterator[None]:
    """An agent that answers once."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(str(run / "agent.sock"))
        server.listen()

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.send(json.dumps({"groups": [group]}).encode())

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()
    (run / "agent.sock").unlink()


def test_where_awsha_never_ran_it_may_go_whatever_the_file_says(tmp_path: Path):
    config = tmp_path / "none.toml"
    assert refusals(config) == []
    config.write_text("[[")
    assert refusals(config) == []
    done = CliRunner().invoke(cli, ["--config", str(config), "check", "--removal"], standalone_mode=False)
    assert (done.return_value, done.output) == (0, "")


@pytest.mark.parametrize("role", ["master", "backup", "fault"])
def test_a_node_whose_keepalived_runs_takes_part(tmp_path: Path, role: str):
    config = told(role, tmp_path, os.getpid())
    done = CliRunner().invoke(cli, ["--config", str(config), "check", "--removal"], standalone_mode=False)
    assert done.return_value == 1
    assert f"takes part in VRRP for {GROUP}" in done.output
    assert "hint: systemctl disable --now keepalived" in done.output


def test_a_node_whose_keepalived_has_ended_does_not(tmp_path: Path):
    assert refusals(told("stop", tmp_path, 1 << 22)) == []


def test_without_an_agent_the_mounts_of_a_master_count(tmp_path: Path):
    config = told("master", tmp_path, 1 << 22)
    assert refusals(config) == []
    (group,) = load(config).groups
    table = mountinfo.parse(f"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 259:3 / {MOUNT} rw - ext4 /dev/x rw\n".encode())
    assert still_mounted(group, table) == [MOUNT]
    assert still_mounted(group, table[:1]) == []
    assert still_mounted(group, Unknown("torn")) == [MOUNT]


@pytest.mark.parametrize(
    ("seen", "stays"),
    [
        ({}, False),
        ({"volumes": [{"device": "/dev/nvme1n1", "mounted": False}]}, True),
        ({"vips": [{"kernel": True}]}, True),
        ({"volumes": [{"device": None, "mounted": None}]}, True),
        ({"vrrp_role": None, "volumes": [{"device": None, "mounted": True}]}, False),
    ],
)
def test_an_agent_knows_what_is_still_here(run: Path, seen: dict[str, Any], stays: bool):
    with agent(run, {**FREE, **seen}):
        assert bool(refusals(run / "none.toml")) == stays


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck here")
def test_the_maintainer_scripts_are_sound():
    assert len(SCRIPTS) == 4
    done = subprocess.run(["shellcheck", *SCRIPTS], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == ""
