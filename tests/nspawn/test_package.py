"""What the Debian package does to a machine: installed, upgraded, removed, purged. No pair; that is test_upgrade."""

from __future__ import annotations

import shutil

import pytest

from tests.nspawn.alone import Alone
from tests.nspawn.conftest import NEW, OLD, Packages
from tests.nspawn.package import DPKG

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.timeout(300), pytest.mark.xdist_group("nspawn")]

FILES = (
    "/usr/bin/awsha", "/usr/share/man/man1/awsha.1.gz", "/usr/share/man/man1/awsha-lab.1.gz",
    "/usr/share/man/man5/awsha.toml.5.gz", "/usr/share/bash-completion/completions/awsha",
    "/usr/share/zsh/vendor-completions/_awsha", "/usr/share/fish/vendor_completions.d/awsha.fish",
    "/usr/lib/systemd/system/keepalived.service.d/awsha.conf",
)  # fmt: skip
UNITS = ("awsha-agent.service", "awsha-agent-failed.service", "keepalived.service")
INIT = (
    "awsha",
    "init",
    "--node",
    "a=192.0.2.1",
    "--node",
    "b=192.0.2.2",
    "--vip",
    "192.0.2.3",
    "--region",
    "eu-west-1",
)


def test_nothing_starts_by_itself_an_upgrade_keeps_what_was_set_and_a_purge_leaves_no_trace(
    machine: Alone, packages: Packages
):
    before = machine.files()
    for file in (packages.old, packages.new):
        shutil.copy(file, machine.inside(f"/tmp/{file.name}"))

    machine.run(*DPKG, "--install", f"/tmp/{packages.old.name}")
    assert machine.run("awsha", "--version").strip() == f"awsha, version {OLD}"
    assert machine.run("runuser", "-u", "nobody", "--", "awsha", "--version") != "", "anybody may ask"
    machine.run("ls", *FILES)
    assert machine.run("stat", "--format=%a %U", "/etc/awsha").strip() == "700 root"
    assert machine.run("dpkg", "--verify", "awsha") == ""
    assert machine.run("systemd-analyze", "verify", "--man=no", *UNITS) == ""
    assert machine.run("systemctl", "is-enabled", "awsha-agent", check=False).strip() == "disabled"
    wanted = ("systemctl", "show", "--property=Wants", "--value", "keepalived")
    assert "awsha" not in machine.run(*wanted), "somebody else's keepalived brings no agent along"

    machine.run(*INIT)
    machine.run("systemctl", "enable", "awsha-agent")
    assert "awsha-agent.service" in machine.run(*wanted)
    machine.run("mkdir", "-p", "/etc/awsha/hooks/data/after-acquire.d", "/var/lib/awsha/history", "/run/awsha/health")
    machine.run(*DPKG, "--install", f"/tmp/{packages.new.name}")
    assert machine.run("awsha", "--version").strip() == f"awsha, version {NEW}"
    assert machine.run("dpkg", "--verify", "awsha") == ""
    assert machine.run("systemctl", "is-enabled", "awsha-agent").strip() == "enabled"
    assert machine.run("systemctl", "is-active", "awsha-agent", check=False).strip() == "inactive"

    machine.run("dpkg", "--remove", "awsha")
    assert not machine.inside("/opt/awsha").exists()
    assert machine.inside("/etc/awsha/awsha.toml").exists()
    machine.run("dpkg", "--purge", "awsha")
    assert machine.files() == before
    assert not machine.inside("/run/awsha").exists()


def test_an_installation_by_hand_is_not_mixed_with_the_package(machine: Alone, packages: Packages):
    shutil.copy(packages.old, machine.inside("/tmp/awsha.deb"))
    machine.run("mkdir", "/etc/systemd/system/keepalived.service.d")
    masked = "/etc/systemd/system/keepalived.service.d/awsha.conf"
    machine.run("ln", "-s", "/dev/null", masked)  # a drop-in may be masked beforehand
    machine.inside("/etc/systemd/system/awsha-agent.service").write_text("[Service]\nExecStart=true\n")
    said = machine.run(*DPKG, "--install", "/tmp/awsha.deb", check=False)
    assert "/etc/systemd/system/awsha-agent.service is there, from an installation by hand" in said
    assert not machine.inside("/opt/awsha").exists()
