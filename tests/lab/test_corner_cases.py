"""What others were bitten by, where only a whole pair can show it. The numbers are those of docs/corner-cases.md."""

from __future__ import annotations

import json

import pytest

from tests.lab.conftest import LabUnderTest
from tests.soak.settled import unrest

pytestmark = [pytest.mark.root, pytest.mark.lab]
QUICK = ("--timeout", "release_grace_s=1", "--timeout", "detach_s=1")


def test_case_17_both_nodes_lose_power_and_come_back(lab: LabUnderTest):
    """Nobody is left to say anything; volume and address still belong to the one that died first."""
    lab.up(*QUICK)
    first = str(lab.holder())
    second = "b" if first == "a" else "a"
    lab.client_start()
    lab.fail(second, "power-off")
    lab.fail(first, "power-off")
    lab.heal(second)
    lab.heal(first)
    lab.wait_until(lambda: not unrest(lab.lab), 90, "one of them holds everything, the other stands by")
    lab.nothing_lost(60)


def test_case_27_a_fenced_node_whose_program_lives_on_can_serve_again(lab: LabUnderTest):
    """The application's check fails because its disk is gone: it is stopped all the same, and starts here once more."""
    lab.up("--fence", "force-detach", *QUICK, "--timeout", "unfence_s=1")
    first = str(lab.holder())
    second = "b" if first == "a" else "a"
    lab.client_start()
    lab.fail(first, "partition")
    lab.wait_for_holder(second)
    lab.wait_until(lambda: not lab.status()["nodes"][first]["mounts"], 30, "the old master has cleaned up")
    lab.heal(first)
    lab.wait_until(lambda: not unrest(lab.lab), 90, "it stands by again")
    lab.fail(second, "stop")
    lab.wait_for_holder(first)
    lab.wait_until(lambda: json.loads(lab.exec(first, "awsha", "status", "--json", check=False).stdout)
                   ["groups"][0]["application"] == "running", 30, "its application has started")  # fmt: skip
    lab.nothing_lost()


def test_case_40_who_holds_a_lost_disk_is_ended_and_a_bystander_is_not(lab: LabUnderTest):
    """A shell that ignores SIGTERM works on the volume when it is taken by force; another one works elsewhere."""
    lab.up("--fence", "force-detach", *QUICK)
    first = str(lab.holder())
    second = "b" if first == "a" else "a"
    loop = "trap '' TERM; (while :; do sleep 1; done) </dev/null >/dev/null 2>&1 & echo $!"
    holder = lab.exec(first, "sh", "-c", f"cd /srv/data; {loop}").stdout.strip()
    bystander = lab.exec(first, "sh", "-c", f"cd /srv; {loop}").stdout.strip()
    lab.fail(first, "partition")
    lab.wait_for_holder(second)
    lab.wait_until(lambda: not lab.status()["nodes"][first]["mounts"], 30, "the old master has cleaned up")
    lab.wait_until(lambda: lab.exec(first, "kill", "-0", holder, check=False).returncode != 0, 10, "it was ended")
    assert lab.exec(first, "kill", "-0", bystander, check=False).returncode == 0
    assert lab.status()["violations"] == []
