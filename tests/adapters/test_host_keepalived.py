"""host.keepalived: a process and its end."""

from __future__ import annotations

import select
import subprocess
import time

import pytest

from awsha.host.keepalived import Watch, boot_id, boottime, start_time


def test_the_clocks():
    assert len(boot_id()) == 36
    assert abs(boottime() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1


@pytest.mark.parametrize("command", ["sleep", "a b", "x) R 1 2 (y", "\\n)))", "(("])
def test_start_time_whatever_the_command_is_called(tmp_path, command):
    (tmp_path / "7").mkdir()
    fields = " ".join(str(number) for number in range(4, 53))
    (tmp_path / "7/stat").write_text(f"7 ({command}) S {fields}\n")
    assert start_time(7, str(tmp_path)) == 22


def test_start_time_of_what_is_not_there(tmp_path):
    assert start_time(7, str(tmp_path)) is None
    (tmp_path / "7").mkdir()
    (tmp_path / "7/stat").write_text("7 (cut")
    assert start_time(7, str(tmp_path)) is None


def test_a_watch_wakes_when_the_process_ends():
    child = subprocess.Popen(["sleep", "60"])
    started = start_time(child.pid)
    assert started is not None
    watch = Watch(child.pid, started)
    assert watch.alive()
    assert not select.select([watch], [], [], 0)[0]
    child.kill()
    assert select.select([watch], [], [], 5)[0]
    assert not watch.alive()  # nobody has waited for it yet
    child.wait()
    assert not watch.alive()
    watch.close()
    watch.close()


def test_another_process_under_its_pid_is_its_end():
    child = subprocess.Popen(["sleep", "60"])
    try:
        watch = Watch(child.pid, (start_time(child.pid) or 0) - 1)
        assert not watch.alive()
        assert select.select([watch], [], [], 0)[0]
        watch.close()
    finally:
        child.kill()
        child.wait()
    gone = Watch(child.pid, 1)
    assert not gone.alive()
    assert select.select([gone], [], [], 0)[0]
    gone.close()
