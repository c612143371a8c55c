"""What the units promise, under the systemd that will run them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nspawn.conftest import Containers
from tests.tools.pages import runbook

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.timeout(300), pytest.mark.xdist_group("nspawn")]

DEADLINE_S = 60.0
EXPOSURE_MOST = 58  # tenths of what `systemd-analyze security` says; 87 without the hardening


def follows(texts: list[str], *parts: str) -> bool:
    """Whether lines that contain these parts come in this order."""
    places = [next((i for i, text in enumerate(texts) if part in text), -1) for part in parts]
    return -1 not in places and places == sorted(places)


def since(pair: Containers, count: int) -> list[str]:
    """The events after the first `count` ones."""
    return pair.events()[count:]


def wait_for_another_agent(pair: Containers, node: str, pid: str) -> None:
    """Wait until an agent with another pid is up."""

    def runs_anew() -> bool:
        told = pair.run(node, "systemctl", "show", "--property=ActiveState,MainPID", "awsha-agent").split()
        return "ActiveState=active" in told and f"MainPID={pid}" not in told

    pair.wait_until(runs_anew, DEADLINE_S, "another agent runs")


def test_a_boot_by_systemd_alone_gives_one_master_that_holds_everything(pair: Containers):
    master, other = pair.settled()
    seen = ("systemctl", "is-active", "srv-data.mount")  # systemd reads the mount table a moment after the mount
    pair.wait_until(lambda: pair.run(master, *seen, check=False).strip() == "active", DEADLINE_S, "systemd sees it")
    for node in (master, other):
        assert pair.run(node, "systemctl", "--failed", "--plain", "--no-legend") == ""
        log = pair.run(node, "journalctl", "-b", "-u", "keepalived", "-u", "awsha-agent", "--no-pager").splitlines()
        assert follows(log, "Started awsha-agent", "Starting keepalived", "Started keepalived")
        told = pair.run(node, *runbook("journalctl -u awsha-agent -u keepalived --since -1h"), "--no-pager")
        assert "Started awsha-agent" in told
    pair.nobody_was_fenced()


def test_the_agent_is_hardened_as_far_as_mounting_allows(pair: Containers):
    master, _ = pair.settled()
    pair.run(master, "systemd-analyze", "security", f"--threshold={EXPOSURE_MOST}", "awsha-agent.service")


@pytest.mark.parametrize("how", ["restart", "kill", "freeze"])
def test_an_agent_that_is_started_again_moves_nothing(pair: Containers, how: str):
    master, _ = pair.settled()
    before, pid = pair.served_by(master), pair.show(master, "awsha-agent", "MainPID")
    if how == "restart":
        pair.run(master, *runbook("systemctl restart awsha-agent"))
    elif how == "kill":
        pair.run(master, "systemctl", "kill", "--signal=KILL", "awsha-agent")
    else:
        cgroup = pair.lab.cgroup / master / "payload" / pair.show(master, "awsha-agent", "ControlGroup").lstrip("/")
        (cgroup / "cgroup.freeze").write_text("1")
    wait_for_another_agent(pair, master, pid)
    pair.settled()
    assert pair.served_by(master) == before
    assert pair.status()["violations"] == []


def test_a_master_that_is_frozen_as_a_whole_is_fenced_and_comes_back_as_a_backup(pair: Containers):
    master, other = pair.settled()
    pair.client_start()
    count = len(pair.events())
    pair.fail(master, "freeze")
    pair.wait_for_holder(other, DEADLINE_S)
    fenced = (f"end of instance {master}", f"{other} has mounted")
    pair.wait_until(lambda: follows(since(pair, count), *fenced), DEADLINE_S, "it is fenced, then taken over from")
    pair.heal(master)
    assert pair.settled() == (other, master)
    pair.nothing_lost()


def test_stopping_keepalived_on_the_master_is_a_clean_handover(pair: Containers):
    master, other = pair.settled()
    pair.client_start()
    count = len(pair.events())
    pair.run(master, "systemctl", "stop", "keepalived")
    pair.wait_for_holder(other, DEADLINE_S)
    # let go before VRRP gave way: by the health file (fault), or, when nothing is here any more, by its end (stop)
    assert follows(since(pair, count), f"leaves {master}", f"{master} is ", f"{other} has mounted")
    pair.nobody_was_fenced()
    pair.run(master, "systemctl", "start", "keepalived")
    assert pair.settled() == (other, master)
    pair.nothing_lost()


def test_stopping_keepalived_without_an_agent_is_one_too(pair: Containers):
    master, other = pair.settled()
    pair.run(master, "systemctl", "stop", "awsha-agent")
    assert pair.holder() == master
    count = len(pair.events())
    pair.run(master, "systemctl", "stop", "keepalived")
    pair.wait_for_holder(other, DEADLINE_S)
    assert follows(since(pair, count), f"leaves {master}", f"{other} has mounted")
    pair.nobody_was_fenced()
    pair.run(master, "systemctl", "start", "keepalived")
    assert pair.settled() == (other, master)


def test_a_killed_keepalived_comes_back_as_a_backup(pair: Containers):
    master, other = pair.settled()
    pair.run(master, "systemctl", "kill", "--kill-who=all", "--signal=KILL", "keepalived")
    pair.wait_for_holder(other, DEADLINE_S)
    assert pair.settled() == (other, master)
    pair.nobody_was_fenced()


def test_what_an_operator_asked_for_outlives_a_restart_of_keepalived(pair: Containers):
    master, other = pair.settled()
    pair.run(other, "awsha", "release", "data")
    pair.run(other, "systemctl", "restart", "keepalived")
    assert "released" in pair.run(other, "ls", "/run/awsha/marks/data").split()
    pair.run(other, "awsha", "resume", "data")
    assert pair.settled() == (master, other)


def test_a_reboot_of_the_master_is_a_clean_handover(pair: Containers):
    master, other = pair.settled()
    pair.client_start()
    count = len(pair.events())
    pair.run(master, "systemctl", "reboot", check=False)  # it may end with the connection
    pair.wait_until(lambda: f"{master} has rebooted" in since(pair, count), DEADLINE_S, "it reboots")
    assert pair.settled() == (other, master)
    # fault, or stop: the release is over when nothing is here, whether keepalived has read the health file or not
    assert follows(since(pair, count), f"leaves {master}", f"{master} is ", f"{other} has mounted")
    pair.nobody_was_fenced()
    pair.nothing_lost()
    log = pair.run(master, "journalctl", "-b", "-1", "--no-pager").splitlines()
    log = log[max(i for i, line in enumerate(log) if "The system will reboot now" in line) :]
    order = ("data is released here", "Stopped keepalived", "Stopped awsha-agent", "Stopping lab-network")
    assert follows(log, *order), "\n".join(log)
    assert not [line for line in log if "Failed unmounting srv-data" in line]


def test_an_agent_with_a_broken_configuration_faults_its_node_and_nobody_is_fenced(pair: Containers):
    master, other = pair.settled()
    config = Path(pair.lab.node_dir(master)) / "etc-awsha/awsha.toml"
    good = config.read_text()
    config.write_text(good + "\n[[group]]\nnam = 1\n")
    pair.run(master, "systemctl", "restart", "awsha-agent", check=False)
    pair.wait_for_holder(other, DEADLINE_S)
    assert pair.show(master, "awsha-agent", "ActiveState") == "failed"
    assert pair.run(master, "cat", "/run/awsha/health/data").strip() == "1"
    pair.nobody_was_fenced()
    config.write_text(good)
    pair.run(master, "systemctl", "start", "awsha-agent")
    assert pair.settled() == (other, master)


def test_an_agent_that_never_stays_up_faults_its_node_and_nobody_is_fenced(pair: Containers):
    master, other = pair.settled()
    program = "/opt/awsha/bin/awsha"
    pair.run(master, "cp", program, f"{program}.good")
    crashing = f'#!/bin/sh\n[ "$*" != agent ] || exit 3\nexec {program}.good "$@"\n'
    pair.inside(master, program).write_text(crashing)
    pair.run(master, "systemctl", "kill", "--kill-who=main", "--signal=KILL", "awsha-agent")
    pair.wait_for_holder(other, DEADLINE_S)
    assert pair.show(master, "awsha-agent", "ActiveState") == "failed"
    assert pair.run(master, "cat", "/run/awsha/health/data").strip() == "1"
    pair.nobody_was_fenced()
    pair.run(master, "cp", f"{program}.good", program)
    pair.run(master, "systemctl", "reset-failed", "awsha-agent")
    pair.run(master, "systemctl", "start", "awsha-agent")
    assert pair.settled() == (other, master)


def test_an_application_started_by_argv_outlives_the_agent(pair: Containers):
    master, other = pair.settled()
    configs = {node: Path(pair.lab.node_dir(node)) / "etc-awsha/awsha.toml" for node in (master, other)}
    unit = configs[other].read_text()
    server = "/opt/awsha/bin/python3 -P -m awsha.lab.server {} --name data --folder /srv/data --port 7000"
    argv = "\n".join(f"{word} = {server.format(word).split()}" for word in ("start", "stop", "check"))
    for config in configs.values():
        config.write_text(unit.replace('unit = "records.service"', argv))
    pair.run(other, "systemctl", "restart", "awsha-agent")
    pair.settled()
    pair.run(master, "awsha", "switchover", "data")
    pair.wait_for_holder(other, DEADLINE_S)
    pid_file = "/run/awsha-lab-server-data.pid"
    pair.wait_until(lambda: pair.run(other, "cat", pid_file, check=False), DEADLINE_S, "the application runs")
    pid = pair.run(other, "cat", pid_file)
    assert "awsha-agent.service" in pair.run(other, "cat", f"/proc/{pid}/cgroup")
    for act in ("restart", "kill --kill-who=main --signal=KILL"):
        agent = pair.show(other, "awsha-agent", "MainPID")
        pair.run(other, "systemctl", *act.split(), "awsha-agent")
        wait_for_another_agent(pair, other, agent)
    assert pair.run(other, "cat", pid_file) == pid
    assert pair.run(other, "cat", f"/proc/{pid}/comm") != ""
    for config in configs.values():
        config.write_text(unit)
    pair.run(other, "systemctl", "stop", "keepalived")
    pair.wait_for_holder(master, DEADLINE_S)
    assert pair.run(other, "cat", f"/proc/{pid}/comm", check=False) == ""
    pair.run(other, "systemctl", "restart", "awsha-agent")
    pair.run(other, "systemctl", "start", "keepalived")
    assert pair.settled() == (master, other)
    pair.nobody_was_fenced()
