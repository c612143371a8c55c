"""The history of real failovers, as `awsha history` tells it on each node."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lab.conftest import LabUnderTest

pytestmark = [pytest.mark.root, pytest.mark.lab]


def told(lab: LabUnderTest, node: str) -> list[dict[str, Any]]:
    """All transitions of a node, oldest first."""
    found = json.loads(lab.exec(node, "awsha", "history", "--json").stdout)
    assert found["unreadable"] == {}
    return list(found["transitions"])


def lines(lab: LabUnderTest, node: str) -> int:
    """How many lines its file has."""
    return len(lab.exec(node, "cat", "/var/lib/awsha/history/data.jsonl").stdout.splitlines())


def test_a_failover_is_told_on_both_sides_and_its_durations_add_up(lab: LabUnderTest):
    lab.up()
    master = lab.holder()
    assert master is not None
    standby = "b" if master == "a" else "a"
    lab.fail(master, "kill")
    lab.wait_for_holder(standby)
    lab.wait_until(lambda: told(lab, standby)[-1]["end"] == "converged", 15, "the takeover is recorded")
    taken = told(lab, standby)[-1]
    assert (taken["cause"]["kind"], taken["cause"]["text"], taken["goal"]) == ("role", "MASTER, was BACKUP", "master")
    assert taken["cause"]["by"].startswith("keepalived's notify")
    assert (taken["group"], taken["node"]) == ("data", standby)
    first = {step["step"]: step["at"] for step in reversed(taken["steps"]) if step["ok"]}
    assert first["Attach"] < first["MountVolume"] < first["StartApplication"]
    assert first["Attach"] < first["AssignAddresses"]
    for step in taken["steps"]:
        assert 0 <= step["at"] <= step["at"] + step["took"] <= taken["took"] + 0.001
    for wait in taken["waits"]:
        assert 0 <= wait["at"] <= wait["until"] <= taken["took"] + 0.001
    assert 0 < taken["serving_at"] <= taken["took"]
    asked = {r["action"]: r for r in taken["requests"]}
    assert {"AttachVolume", "AssignPrivateIpAddresses", "DescribeVolumes", "DescribeInstances"} <= asked.keys()
    assert sum(r["seconds"] for r in taken["requests"]) > 0
    assert 0 < taken["ec2_s"] <= taken["took"]
    released = told(lab, master)[-1]
    assert (released["cause"]["kind"], released["end"], released["goal"]) == ("keepalived", "converged", "release")
    assert {"StopApplication", "Unmount", "Detach"} <= {step["step"] for step in released["steps"]}
    written = lines(lab, standby)
    lab.exec(standby, "awsha", "status", check=False)
    lab.heal(master)
    lab.wait_until(lambda: told(lab, master)[-1]["cause"]["text"] == "BACKUP, was MASTER", 15, "it came back")
    assert lines(lab, standby) == written, "whoever only serves records nothing"


def test_a_takeover_without_an_agent_is_told_too(lab: LabUnderTest):
    lab.up("--no-agent")
    master = str(lab.wait_until(lab.holder, 30, "somebody is master"))
    standby = "b" if master == "a" else "a"
    assert told(lab, master)[-1]["cause"]["text"].startswith("MASTER")
    lab.wait_until(lambda: told(lab, master)[-1]["end"] == "converged", 15, "`awsha converge` records too")
    lab.fail(master, "kill")
    lab.wait_for_holder(standby)
    lab.wait_until(lambda: told(lab, standby)[-1]["end"] == "converged", 15, "and so does the other one")
    assert told(lab, standby)[-1]["goal"] == "master"


def test_a_transition_whose_agent_was_killed_is_interrupted_and_the_next_one_goes_on(lab: LabUnderTest):
    lab.up()
    master = lab.holder()
    assert master is not None
    standby = "b" if master == "a" else "a"
    lab.fault("AttachVolume", "delay", seconds=3.0, times=1)
    lab.fail(master, "kill")
    lab.wait_until(lambda: told(lab, standby)[-1]["goal"] == "master", 15, "the takeover has begun")
    assert told(lab, standby)[-1]["end"] in ("under-way", "blocked")
    lab.fail(standby, "agent-kill")
    lab.wait_until(lambda: told(lab, standby)[-1]["end"] == "interrupted", 15, "it is known as interrupted")
    lab.heal(standby)
    lab.wait_for_holder(standby)
    lab.wait_until(lambda: told(lab, standby)[-1]["end"] == "converged", 30, "the next agent has finished it")
    assert [(t["cause"]["kind"], t["end"]) for t in told(lab, standby)[-2:]] == [
        ("role", "interrupted"),
        ("start", "converged"),
    ]


def test_a_history_that_cant_be_written_stops_nothing_and_is_said_once(lab: LabUnderTest):
    lab.up()
    master = lab.holder()
    assert master is not None
    standby = "b" if master == "a" else "a"
    lab.exec(standby, "sh", "-c", "rm -r /var/lib/awsha/history; echo mine > /var/lib/awsha/history")
    lab.client_start()
    lab.fail(master, "kill")
    lab.wait_for_holder(standby)
    lab.nothing_lost()
    lab.wait_until(lambda: "history: can't be written" in lab.logs(1000), 10, "it is said")
    assert lab.logs(1000).count("history: can't be written") == 1
    shown = lab.exec(standby, "awsha", "history", check=False)
    assert (shown.returncode, "Traceback" in shown.stderr) == (1, False)
