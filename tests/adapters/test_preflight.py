"""What `awsha check` reads of this host, and how it tells a read that failed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from awsha.agent import preflight_host as host
from awsha.agent.preflight import check
from awsha.agent.preflight_reads import Reads
from awsha.core.findings import Code
from awsha.core.judge_host import UnitFile
from awsha.core.model import Unknown
from awsha.core.policy import Group, Node, Policy
from awsha.host import mountoptions
from awsha.lab.faults import Fault, FaultKind
from tests.adapters.aws_lab import Lab, Servers, running_servers

PAIR = Policy((Node("a", "10.0.0.10", priority=2), Node("b", "10.0.0.11", priority=1)), (Group("g", 1, ("10.0.0.9",)),))


# --- the application's unit ------------------------------------------------------------------------------------


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for units; `systemctl is-enabled UNIT` says what is in the file UNIT of the folder `says`."""
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncat {tmp_path}/says/$3 2>/dev/null || echo "$3: No such file" >&2\n')
    program.chmod(0o755)
    (tmp_path / "says").mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path


def says(root: Path, **states: str) -> None:
    for unit, state in states.items():
        (root / "says" / unit.replace("_", ".")).write_text(state + "\n")


def test_an_alias_is_judged_as_the_unit_it_stands_for(systemd: Path):
    units = systemd / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    (units / "real.service").touch()
    (units / "db.service").symlink_to("real.service")
    says(systemd, db_service="alias", real_service="enabled")
    assert host.unit_file("db.service", systemd) == UnitFile("enabled", "real.service")
    (units / "db.service").unlink()
    assert isinstance(host.unit_file("db.service", systemd), Unknown), "of what, can't be told"


def test_what_starts_a_unit_and_who_wants_it_below_run_is_found(systemd: Path):
    wants = systemd / "run/systemd/generator/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "db.service").symlink_to("/nowhere")
    says(systemd, db_service="generated", db_socket="enabled", db_timer="disabled", db_path="static")
    assert host.unit_file("db.service", systemd) == UnitFile(
        "generated", links=(str(wants / "db.service"),), started_by=("db.socket",)
    )


def test_a_state_that_is_not_known_is_not_in_order(systemd: Path):
    says(systemd, db_service="frobnicated")
    assert "frobnicated" in str(host.unit_file("db.service", systemd))
    assert host.unit_file("none.service", systemd) == UnitFile("not-found")


# --- files -----------------------------------------------------------------------------------------------------


def broken(folder: Path, how: str) -> Path:
    path = folder / "keepalived.conf"
    if how == "a directory":
        path.mkdir()
    elif how == "a FIFO":
        os.mkfifo(path)
    elif how == "a loop":
        path.symlink_to(path)
    elif how == "a link to nowhere":
        path.symlink_to(folder / "none")
    return path


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("a directory", "it is a directory"),
        ("a FIFO", "it is no regular file"),
        ("a loop", "its links lead in a circle"),
        ("a link to nowhere", "none, which is not there"),
        ("nothing", ""),
    ],
)
def test_a_keepalived_conf_that_is_no_file(how: str, why: str, tmp_path: Path):
    found = host.keepalived(PAIR, "a", "eth0", broken(tmp_path, how))
    assert found.config is None
    assert why in found.unread
    assert bool(why) == bool(found.unread)


def test_a_file_that_cannot_be_read_is_told_without_pythons_words(tmp_path: Path):
    reads = Reads(lambda _done, _total, _name: None)
    path = broken(tmp_path, "a directory")
    reads.run({"fstab": lambda: host.fstab(path)})
    [finding] = reads.all_findings()
    assert (finding.code, finding.what) == (Code.NO_ANSWER, f"fstab: {path} cannot be read: it is no regular file")


# --- mount options ---------------------------------------------------------------------------------------------


@pytest.mark.root
def test_the_kernel_says_which_mount_options_it_refuses():
    """As mount(8) does with them (tried with ext4 and xfs on Linux 6.18)."""
    good = (
        "defaults,noatime,nodev,rw,_netdev,nofail,x-systemd.automount,discard,errors=remount-ro,commit=30,data=ordered"
    )
    for options, bad in (
        (good, set()),
        ("noexec=1,errors=foo,uid=5", {"noexec=1", "errors=foo", "uid=5"}),
        ("", set()),
    ):
        found = mountoptions.refused("ext4", options)
        if isinstance(found, Unknown) or found is None:
            pytest.skip("this kernel has no ext4, or no fsopen")
        assert found.keys() == bad
    assert mountoptions.refused("nosuchfs", "") is None
    xfs = mountoptions.refused("xfs", "noatime,inode64,errors=remount-ro,norecovery")
    if isinstance(xfs, dict):
        assert xfs.keys() == {"errors=remount-ro", "norecovery"}


# --- [discover] ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with running_servers() as both:
        yield both


@pytest.fixture
def lab(servers: Servers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lab:
    lab = servers.fresh(monkeypatch)
    monkeypatch.setenv("AWSHA_STATE_DIR", str(tmp_path / "state"))
    return lab


def discovering(folder: Path) -> Path:
    file = folder / "awsha.toml"
    tags = '[discover]\ntags = { "awsha:pair" = "db" }\n'
    file.write_text(
        f'region = "eu-west-1"\n{tags}[[group]]\nname = "data"\nvirtual_router_id = 51\nvips = ["10.0.0.100"]\n'
    )
    return file


FAILED = {
    "UnauthorizedOperation": Code.PERMISSION,
    "InternalError": Code.NO_ANSWER,
    "AuthFailure": Code.NO_ANSWER,
}


@pytest.mark.parametrize("code", FAILED)
def test_nodes_that_could_not_be_asked_for_are_no_mistake_of_the_file(code: str, lab: Lab, tmp_path: Path):
    lab.region.add_fault(Fault("DescribeInstances", FaultKind.ERROR, times=None, code=code))
    [finding] = check(discovering(tmp_path)).findings
    assert finding.code is FAILED[code]
    assert "DescribeInstances" in finding.what


@pytest.mark.usefixtures("lab")
def test_an_endpoint_where_nobody_is_and_tags_that_find_no_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    [finding] = check(discovering(tmp_path)).findings
    assert finding.code is Code.CONFIG, "the tags are the file's own"
    for endpoint in ("http://127.0.0.1:9", "nonsense"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        [finding] = check(discovering(tmp_path)).findings
        assert finding.code is Code.NO_ANSWER
        assert "DescribeInstances" in finding.what
