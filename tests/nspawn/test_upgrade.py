"""The package under a pair that serves: upgraded node by node, and not taken away from a node that takes part."""

from __future__ import annotations

import shutil

import pytest

from tests.nspawn.conftest import NEW, OLD, Containers, Packages
from tests.nspawn.package import DPKG

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.timeout(300), pytest.mark.xdist_group("nspawn")]

DEADLINE_S = 60.0


def upgrade(pair: Containers, node: str, packages: Packages) -> None:
    """Install the newer package."""
    target = pair.inside(node, f"/tmp/{packages.new.name}")
    shutil.copy(packages.new, target)
    pair.run(node, *DPKG, "--install", f"/tmp/{packages.new.name}", timeout_s=180.0)


def test_an_upgrade_node_by_node_moves_nothing_but_by_the_switchover(pair: Containers, packages: Packages):
    master, other = pair.settled()
    pair.client_start()
    before, agent = pair.served_by(master), pair.show(other, "awsha-agent", "MainPID")
    assert pair.run(other, "awsha", "--version").strip() == f"awsha, version {OLD}"
    upgrade(pair, other, packages)
    assert pair.run(other, "awsha", "--version").strip() == f"awsha, version {NEW}"
    assert pair.show(other, "awsha-agent", "MainPID") != agent, "the new agent runs"
    assert pair.settled() == (master, other)
    assert pair.served_by(master) == before
    assert "peer-version" in pair.run(master, "awsha", "check", check=False)

    pair.run(master, "awsha", "switchover", "data")
    assert pair.settled() == (other, master)

    # and on a node that serves, where it is not done as the runbook says
    before, agent = pair.served_by(other), pair.show(other, "awsha-agent", "MainPID")
    upgrade(pair, other, packages)
    assert pair.show(other, "awsha-agent", "MainPID") != agent
    assert pair.settled() == (other, master)
    assert pair.served_by(other) == before
    pair.nobody_was_fenced()
    pair.nothing_lost()


def test_a_node_that_takes_part_keeps_the_package_until_its_keepalived_is_stopped(pair: Containers):
    master, other = pair.settled()
    before = pair.served_by(master)
    for node in (master, other):
        said = pair.run(node, "sh", "-c", "dpkg --remove awsha 2>&1", check=False)
        assert "this node takes part in VRRP for data" in said
        assert "hint: systemctl disable --now keepalived" in said
        assert pair.run(node, "dpkg-query", "--show", "--showformat=${db:Status-Status}", "awsha") == "installed"
    assert pair.settled() == (master, other)
    assert pair.served_by(master) == before

    pair.run(master, "systemctl", "disable", "--now", "keepalived")
    pair.wait_for_holder(other, DEADLINE_S)
    pair.run(master, "dpkg", "--remove", "awsha")
    assert pair.run(master, "systemctl", "is-active", "awsha-agent", check=False).strip() == "inactive"
    assert pair.holder() == other
    pair.nobody_was_fenced()

    pair.run(master, "systemctl", "reboot", check=False)  # it is as it was, for whoever comes next
    assert pair.settled() == (other, master)
