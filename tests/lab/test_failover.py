"""The main path, with real keepalived, file systems and agent: what fails, and who holds what after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest

from tests.lab.conftest import AWSHA, LabUnderTest

# Short bounds, so that a test does not wait for what it does not test.
QUICK = ("--timeout", "release_grace_s=1", "--timeout", "detach_s=1")
pytestmark = [pytest.mark.root, pytest.mark.lab]


def status_of(lab: LabUnderTest, node: str) -> tuple[int, dict]:
    """Exit code and first group of `awsha status --json` in a node."""
    done = lab.exec(node, "awsha", "status", "--json", check=False)
    return done.returncode, json.loads(done.stdout)["groups"][0]


def volume_of(lab: LabUnderTest) -> dict:
    """EC2's truth about the first volume."""
    return next(iter(lab.status()["ec2"]["volumes"].values()))


def instance_of(lab: LabUnderTest, node: str) -> str:
    """A node's instance id."""
    return str(lab.status()["nodes"][node]["instance_id"])


def all_at(lab: LabUnderTest, node: str) -> bool:
    """Whether EC2 and the kernel both say that everything is at one node, and nothing at another."""
    facts = lab.status()
    instance = facts["nodes"][node]["instance_id"]
    return (
        all(v["attached_to"] == instance for v in facts["ec2"]["volumes"].values())
        and all(facts["ec2"]["addresses"].get(vip) == instance for g in facts["groups"].values() for vip in g["vips"])
        and bool(facts["nodes"][node]["mounts"])
        and not any(n["mounts"] for name, n in facts["nodes"].items() if name != node)
        and facts["violations"] == []
    )


def test_start_makes_one_master_that_holds_everything(lab: LabUnderTest):
    lab.up()
    master = lab.holder()
    assert master in ("a", "b")
    assert all_at(lab, master)
    lab.wait_until(lambda: status_of(lab, master)[0] == 0, 10, "the master's status is OK")
    code, group = status_of(lab, master)
    assert (code, group["vrrp_role"], group["goal"], group["converged"]) == (0, "master", "master", True)
    assert group["vips"][0]["kernel"] is True
    assert group["volumes"][0]["mounted"] is True
    standby = "b" if master == "a" else "a"
    code, group = status_of(lab, standby)
    assert (code, group["vrrp_role"], group["converged"]) == (0, "backup", True)


def test_graceful_stop_of_keepalived_hands_everything_over(lab: LabUnderTest):
    lab.up()
    master, standby = _pair(lab)
    lab.client_start()
    lab.fail(master, "stop")
    lab.wait_for_holder(standby)
    assert all_at(lab, standby)
    lab.nothing_lost()


def test_kill_of_keepalived_and_return_of_the_old_master_as_backup(lab: LabUnderTest):
    lab.up()
    master, standby = _pair(lab)
    lab.client_start()
    lab.fail(master, "kill")
    lab.wait_for_holder(standby)
    assert lab.status()["ec2"]["instances"][master] == "running", "a killed keepalived is no reason to fence"
    lab.heal(master)
    lab.wait_until(lambda: lab.status()["nodes"][master]["vrrp_role"] == "backup", 15, "it is back as backup")
    lab.wait_until(lambda: status_of(lab, master)[0] == 0, 10, "its status is OK")
    assert all_at(lab, standby), "nothing moves back"
    lab.nothing_lost()


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
@pytest.mark.parametrize("fence", ["stop-instance", "force-detach"])
def test_power_off_of_the_master(lab: LabUnderTest, fence: str, fstype: str):
    lab.up("--fence", fence, "--fstype", fstype, *QUICK)
    master, standby = _pair(lab)
    lab.client_start()
    lab.fail(master, "power-off")
    lab.wait_for_holder(standby)
    lab.nothing_lost()
    state = lab.status()["ec2"]["instances"][master]
    assert state == ("stopped" if fence == "stop-instance" else "running")
    if fence == "stop-instance":
        lab.heal(master)
        lab.wait_until(lambda: lab.status()["nodes"][master]["vrrp_role"] == "backup", 30, "it booted as backup")
        assert lab.holder() == standby


@pytest.mark.parametrize("fence", ["stop-instance", "force-detach"])
def test_freeze_of_the_master(lab: LabUnderTest, fence: str):
    lab.up("--fence", fence, *QUICK)
    master, standby = _pair(lab)
    lab.client_start()
    lab.fail(master, "freeze")
    lab.wait_for_holder(standby)
    lab.heal(master)
    if fence == "force-detach":
        # it thaws as a master that has lost its disk: it must notice by itself, clean up and stay out
        lab.wait_until(lambda: status_of(lab, master)[1]["fenced"], 15, "the old master knows that it was fenced")
        lab.wait_until(lambda: not lab.status()["nodes"][master]["mounts"], 15, "it has unmounted")
    lab.wait_for_holder(standby)
    assert lab.status()["violations"] == []
    lab.nothing_lost()


@pytest.mark.parametrize("fence", ["stop-instance", "force-detach"])
def test_partition_of_vrrp_ends_with_one_that_has_everything(lab: LabUnderTest, fence: str):
    lab.up("--fence", fence, *QUICK)
    master, standby = _pair(lab)
    lab.client_start()
    lab.fail(master, "partition")
    lab.wait_for_holder(standby)
    lab.wait_until(lambda: all_at(lab, standby), 20, "the other one is out")
    if fence == "force-detach":
        lab.wait_until(lambda: status_of(lab, master)[1]["fenced"], 15, "the old master knows that it was fenced")
        lab.heal(master)
        time.sleep(2)
        assert all_at(lab, standby), "after the partition nothing moves"
    lab.nothing_lost()


def test_partition_with_fence_none_leaves_the_holder_alone(lab: LabUnderTest):
    lab.up("--fence", "none", *QUICK)
    master, standby = _pair(lab)
    lab.client_start()
    lab.fail(master, "partition")
    lab.wait_until(lambda: _blocked(lab, standby) == {"fence-none"}, 15, "the other one is blocked")
    assert f"awsha fence {master} --yes" in status_of(lab, standby)[1]["blocked"][0]["hint"]
    assert all_at(lab, master)
    lab.heal(master)
    lab.wait_until(lambda: lab.status()["nodes"][standby]["vrrp_role"] == "backup", 15, "one of both gave way")
    lab.wait_for_holder(master)
    assert lab.nothing_lost()["longest_outage_s"] < 2, "the client has hardly noticed"


def test_vrrp_filtered_from_the_start_fences_nobody(lab: LabUnderTest):
    lab.up("--vrrp-filtered", *QUICK)
    holder, loser = _pair(lab)
    lab.wait_until(lambda: _blocked(lab, loser) == {"holder-never-heard"}, 20, "the loser is blocked")
    code, group = status_of(lab, loser)
    assert (code, group["vrrp_role"]) == (2, "master")
    assert "awsha check" in group["blocked"][0]["hint"]
    time.sleep(3)
    assert lab.status()["ec2"]["instances"] == {"a": "running", "b": "running"}
    assert all_at(lab, holder)


def test_flapping_ten_times_in_five_seconds_ends_well(lab: LabUnderTest):
    lab.up(*QUICK)
    master, standby = _pair(lab)
    lab.client_start()
    for _ in range(5):
        lab.exec(master, "sh", "-c", "echo 1 > /run/awsha/health/data")
        time.sleep(0.5)
        lab.exec(master, "sh", "-c", "echo 0 > /run/awsha/health/data")
        time.sleep(0.5)
    lab.wait_until(
        lambda: lab.holder() is not None and all_at(lab, lab.holder() or ""), 60, "one node holds everything"
    )
    holder = lab.holder() or ""
    lab.wait_until(lambda: status_of(lab, holder)[0] == 0, 15, "it is converged")
    lab.nothing_lost()
    assert lab.status()["ec2"]["instances"] == {"a": "running", "b": "running"}, "nobody was fenced"
    assert standby in ("a", "b")


def test_a_process_that_holds_a_file_is_ended(lab: LabUnderTest):
    lab.up("--open-files", "terminate", "--timeout", "term_s=1", *QUICK)
    master, standby = _pair(lab)
    # a shell that ignores SIGTERM, with its working directory on the volume
    lab.exec(master, "sh", "-c", "cd /srv/data; trap '' TERM; (while :; do sleep 1; done) </dev/null >/dev/null 2>&1 &")
    lab.client_start()
    lab.fail(master, "stop")
    lab.wait_for_holder(standby)
    lab.nothing_lost()


def test_a_process_that_holds_a_file_blocks_when_the_policy_is_wait(lab: LabUnderTest):
    lab.up("--open-files", "wait", *QUICK)
    master, standby = _pair(lab)
    pid = lab.exec(master, "sh", "-c", "cd /srv/data; sleep 600 </dev/null >/dev/null 2>&1 & echo $!").stdout.strip()
    lab.fail(master, "stop")
    lab.wait_until(lambda: "open-files" in _blocked(lab, master), 20, "the release is blocked")
    reason = status_of(lab, master)[1]["blocked"][0]
    assert pid in reason["text"]
    assert "sleep" in reason["text"]
    assert volume_of(lab)["attached_to"] == instance_of(lab, master), "a mounted volume is never detached"
    lab.exec(master, "kill", pid)
    lab.wait_for_holder(standby)


def test_three_nodes(lab: LabUnderTest):
    lab.up("--nodes", "3", *QUICK)
    first = lab.holder() or ""
    lab.client_start()
    lab.fail(first, "power-off")
    lab.wait_until(lambda: lab.holder() not in (None, first), 30, "a second node holds everything")
    second = lab.holder() or ""
    lab.fail(second, "stop")
    lab.wait_until(lambda: lab.holder() not in (None, first, second), 30, "the third node holds everything")
    assert all_at(lab, lab.holder() or "")
    lab.nothing_lost()


def test_two_groups_cross(lab: LabUnderTest):
    lab.up("--groups", "2", *QUICK)
    names = list(lab.status()["groups"])
    holders = {name: lab.holder(name) for name in names}
    assert sorted(holders.values()) == ["a", "b"], "each node is master of one group"
    lab.client_start()
    lab.fail("a", "stop")
    for name in names:
        lab.wait_for_holder("b", group=name)
    lab.heal("a")
    time.sleep(2)
    assert {lab.holder(name) for name in names} == {"b"}
    lab.nothing_lost()


def test_many_volumes_and_addresses_move_together(lab: LabUnderTest):
    lab.up("--volumes", "3", "--vips", "3", *QUICK)
    master, standby = _pair(lab)
    lab.client_start()
    lab.fail(master, "kill")
    lab.wait_for_holder(standby)
    assert all_at(lab, standby)
    lab.nothing_lost()


def test_a_device_that_comes_late_is_waited_for(lab: LabUnderTest):
    lab.up(*QUICK)
    master, standby = _pair(lab)
    lab.latency(attach_device=4.0)
    lab.fail(master, "stop")
    lab.wait_until(lambda: "waiting-for-device" in _waiting(lab, standby), 20, "it waits for the device, and says so")
    lab.wait_for_holder(standby)


def test_a_vip_that_netlink_does_not_show_is_put_back(lab: LabUnderTest):
    lab.up(*QUICK)
    master, _ = _pair(lab)
    vip = lab.status()["groups"]["data"]["vips"][0]
    lab.exec(master, "ip", "address", "del", f"{vip}/32", "dev", "eth0")
    # a look at status may come too late: it is put back after a second
    log = lab.lab.run / master / "agent.log"
    lab.wait_until(lambda: f"waits: {vip} is not on eth0" in log.read_text(), 10, "the agent says so")
    lab.wait_until(lambda: vip in lab.status()["nodes"][master]["addresses"], 10, "it is put back")
    lab.wait_until(lambda: status_of(lab, master)[0] == 0, 10, "status is OK again")
    assert lab.holder() == master


def test_without_the_service_a_pair_still_fails_over(lab: LabUnderTest):
    lab.up("--no-agent", *QUICK)
    master, standby = _pair(lab)
    lab.client_start()
    lab.fail(master, "stop")
    lab.wait_for_holder(standby, 45)
    lab.heal(master)
    lab.wait_until(lambda: lab.status()["nodes"][master]["vrrp_role"] == "backup", 15, "it is back as backup")
    time.sleep(2)
    lab.fail(standby, "power-off")
    lab.wait_for_holder(master, 45)
    lab.nothing_lost()


def test_a_killed_agent_moves_nothing_and_a_new_one_carries_on(lab: LabUnderTest):
    lab.up(*QUICK)
    master, standby = _pair(lab)
    lab.client_start()
    lab.fail(master, "agent-kill")
    time.sleep(1)
    lab.heal(master)
    lab.wait_until(lambda: status_of(lab, master)[0] == 0, 15, "the new agent finds everything in place")
    assert lab.nothing_lost()["outages"] == []
    lab.fail(master, "stop")
    lab.wait_for_holder(standby)
    lab.nothing_lost()


SD_NOTIFY = """
import os, signal, socket, subprocess, sys, time
box = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
box.bind("/run/notify.sock")
box.settimeout(20)
agent = subprocess.Popen(["awsha", "agent"], stderr=subprocess.DEVNULL, env={
    **os.environ, "NOTIFY_SOCKET": "/run/notify.sock", "WATCHDOG_USEC": "1000000"})
heard = []
while heard.count("WATCHDOG=1") < 2:
    heard.append(box.recv(100).decode())
agent.send_signal(signal.SIGTERM)
code = agent.wait(20)
while "STOPPING=1" not in heard:
    heard.append(box.recv(100).decode())
print(heard[0], heard[-1], code, os.path.exists("/run/awsha/agent.sock"))
"""


def test_the_agent_tells_systemd_and_stops_cleanly_without_moving_anything(lab: LabUnderTest):
    lab.up(*QUICK)
    master, _ = _pair(lab)
    lab.fail(master, "agent-kill")
    told = lab.exec(master, "python3", "-c", SD_NOTIFY, timeout_s=60).stdout.split()
    assert told == ["READY=1", "STOPPING=1", "0", "False"]
    assert all_at(lab, master)


def test_switchover_hands_over_and_comes_back_as_backup(lab: LabUnderTest):
    lab.up(*QUICK)
    master, standby = _pair(lab)
    lab.client_start()
    refused = lab.exec(standby, "awsha", "switchover", "data", check=False)
    assert (refused.returncode, "does not serve" in refused.stderr) == (1, True)
    assert lab.exec(master, "awsha", "switchover", "data", "--dry-run").returncode == 0
    assert all_at(lab, master), "a dry run moves nothing"
    lab.latency(attach_device=2.0)  # time enough to be early
    told = lab.exec(master, "awsha", "switchover", "data", timeout_s=60)
    assert all_at(lab, standby), "0 means that it serves, not that it has begun to take over"
    assert status_of(lab, standby)[1]["serving"]
    assert f"{standby} has data now, and says that it serves" in told.stdout
    lab.wait_until(lambda: status_of(lab, master)[0] == 0, 20, "the old master is a healthy backup")
    lab.nothing_lost()


def test_a_switchover_needs_nobody_who_watches_it_and_one_that_fails_says_why(lab: LabUnderTest):
    lab.up(*QUICK)
    master, standby = _pair(lab)
    lab.client_start()
    lab.latency(attach_device=3.0)
    # a job in the background of a shell, as CI may run this, would ignore Ctrl-C, and hand that down
    words = ["env", "--default-signal=INT", AWSHA, "lab", "exec", master, "--", "awsha", "switchover", "data"]
    with subprocess.Popen(
        words, env=lab.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as watching:
        assert watching.stdout is not None
        said = ""
        while "VRRP gives way" not in said:
            line = watching.stdout.readline()
            assert line, f"it ended early: {said}"
            said += line
        os.killpg(watching.pid, signal.SIGINT)
        said = watching.stdout.read()
    assert "stopped watching: the switchover of data goes on" in said
    lab.wait_for_holder(standby)
    lab.wait_until(lambda: status_of(lab, master)[0] == 0, 20, "it came back by itself")
    assert "released" not in lab.exec(master, "ls", "/run/awsha/marks/data").stdout.split()

    lab.latency()
    hook = "/etc/awsha/hooks/data/after-mount.d"
    lab.exec(master, "sh", "-c", f"mkdir -p {hook}; printf '#!/bin/sh\\necho no licence; exit 3' > {hook}/x")
    lab.exec(master, "chmod", "-R", "755", "/etc/awsha/hooks")
    done = lab.exec(standby, "awsha", "switchover", "data", timeout_s=60, check=False)
    assert done.returncode == 75
    assert f"{master} let it go again: failed as master: after-mount hook x" in done.stdout
    assert "no licence" in done.stdout
    assert f"next: on {master}: awsha status data" in done.stdout
    lab.wait_for_holder(standby)
    lab.nothing_lost()


@pytest.mark.timeout(300)
def test_a_switchover_to_one_of_three_and_none_to_a_peer_that_is_paused(lab: LabUnderTest):
    """The peers say how they are by tags, which come after some seconds: nothing was ever said before."""
    lab.up("--nodes", "3", *QUICK)
    master = lab.wait_until(lab.holder, 20, "somebody holds everything")
    wanted, other = (name for name in "abc" if name != master)
    lab.exec(wanted, "awsha", "pause", "data")
    lab.exec(other, "awsha", "release", "data", timeout_s=60)

    def refused(*flags: str) -> str:
        return lab.exec(master, "awsha", "switchover", "data", "--dry-run", *flags, check=False).stderr

    lab.wait_until(lambda: f"{wanted} is not ready" in refused(), 60, "it has said that it is paused")
    lab.wait_until(lambda: "VRRP may choose" not in refused("--to", wanted), 60, "the other has said that it is out")
    assert "it said paused" in lab.exec(master, "awsha", "switchover", "data", check=False).stderr
    assert all_at(lab, master), "nothing was begun"
    lab.exec(wanted, "awsha", "resume", "data")
    lab.fail(wanted, "agent-kill")  # a new agent says how it is a little sooner
    lab.heal(wanted)
    lab.wait_until(lambda: refused("--to", wanted) == "", 120, "it has said that it is ready")
    lab.exec(master, "awsha", "switchover", "data", "--to", wanted, timeout_s=60)
    assert all_at(lab, wanted)
    lab.exec(wanted, "awsha", "pause", "data")
    assert f"it is paused on {wanted}" in lab.exec(wanted, "awsha", "switchover", "data", check=False).stderr


def test_release_keeps_a_node_out_until_resume_and_pause_stands_still(lab: LabUnderTest):
    lab.up(*QUICK)
    master, standby = _pair(lab)
    lab.exec(master, "awsha", "release", "data", timeout_s=60)
    lab.wait_for_holder(standby)
    lab.exec(standby, "env", "SUDO_USER=alice", "awsha", "pause", "data")
    paused = next(r for r in status_of(lab, standby)[1]["waiting"] if r["code"] == "paused")
    assert (paused["by"], paused["since"][-1]) == ("alice", "Z")
    lab.fail(standby, "stop")
    time.sleep(2)
    assert all_at(lab, standby), "a paused node acts on nothing"
    lab.exec(standby, "awsha", "resume", "data")
    lab.wait_until(lambda: not lab.status()["nodes"][standby]["mounts"], 20, "it lets go after all")
    assert lab.holder() is None, "the released node does not compete"
    lab.exec(master, "awsha", "resume")
    lab.wait_for_holder(master)


def test_an_operator_fences_a_node(lab: LabUnderTest):
    lab.up("--fence", "none", *QUICK)
    master, standby = _pair(lab)
    lab.client_start()
    alive = lab.exec(standby, "awsha", "fence", master, check=False)
    assert (alive.returncode, f"{master} lives: it is heard as master of data" in alive.stderr) == (1, True)
    nothing = lab.exec(master, "awsha", "fence", standby, "--method", "force-detach", "--yes")
    assert ("has no volume" in nothing.stdout, "is fenced" in nothing.stdout) == (True, False)
    lab.fail(master, "power-off")
    lab.wait_until(lambda: "fence-none" in _blocked(lab, standby), 20, "it waits for the operator")
    told = lab.exec(standby, "awsha", "fence", master, check=False)
    assert (told.returncode, instance_of(lab, master) in told.stderr) == (1, True), "it only says what it would do"
    assert "really dead" in told.stderr
    assert lab.status()["ec2"]["instances"][master] == "running"
    lab.exec(standby, "awsha", "fence", master, "--yes", timeout_s=60)
    lab.wait_for_holder(standby)
    lab.nothing_lost()


def test_converge_by_hand(lab: LabUnderTest):
    lab.up("--no-agent", "--no-keepalived", "--no-wait", *QUICK)
    vip = lab.status()["groups"]["data"]["vips"][0]
    nothing_said = lab.exec("a", "awsha", "converge", "data", check=False)
    assert (nothing_said.returncode, "--role" in nothing_said.stderr) == (1, True)
    out_of_time = lab.exec("a", "awsha", "converge", "data", "--role", "master", "--timeout", "0.1", check=False)
    assert out_of_time.returncode == 75
    lab.exec("a", "ip", "address", "add", f"{vip}/32", "dev", "eth0")
    assert lab.exec("a", "awsha", "converge", "data", "--role", "master", timeout_s=60).returncode == 0
    assert lab.holder() == "a"
    assert lab.exec("a", "awsha", "converge", "data", "--role", "backup", timeout_s=60).returncode == 0
    assert volume_of(lab)["state"] == "available"


def test_status_without_ec2_shows_what_the_kernel_and_vrrp_know(lab: LabUnderTest):
    lab.up(*QUICK)
    master, _ = _pair(lab)
    lab.fail(master, "api-cut")
    code, group = status_of(lab, master)
    assert code == 3
    assert (group["vrrp_role"], group["vips"][0]["kernel"], group["volumes"][0]["mounted"]) == ("master", True, True)
    assert group["volumes"][0]["state"] == "unknown"
    assert group["vips"][0]["ec2_instance"] == "unknown"
    text = lab.exec(master, "awsha", "status", check=False)
    assert text.returncode == 3
    assert "unknown" in text.stdout
    lab.heal(master)
    lab.wait_until(lambda: status_of(lab, master)[0] == 0, 15, "EC2 answers again")


def test_plan_shows_what_would_be_done_and_does_nothing(lab: LabUnderTest):
    lab.up(*QUICK)
    master, standby = _pair(lab)
    told = json.loads(lab.exec(master, "awsha", "plan", "data", "--role", "backup", "--json").stdout)
    assert "StopApplication" in {step["step"] for step in told["steps"]}
    told = json.loads(lab.exec(standby, "awsha", "plan", "data", "--role", "master", "--json").stdout)
    assert told["steps"] == []
    assert {reason["code"] for reason in told["waiting"]} & {"holder-is-master", "grace"} or told["blocked"]
    assert all_at(lab, master)


def _pair(lab: LabUnderTest) -> tuple[str, str]:
    """(holder, the other one) of a pair of two."""
    holder = lab.wait_until(lab.holder, 20, "somebody holds everything")
    return holder, "b" if holder == "a" else "a"


def _blocked(lab: LabUnderTest, node: str) -> set[str]:
    return {reason["code"] for reason in status_of(lab, node)[1]["blocked"]}


def _waiting(lab: LabUnderTest, node: str) -> set[str]:
    return {reason["code"] for reason in status_of(lab, node)[1]["waiting"]}
