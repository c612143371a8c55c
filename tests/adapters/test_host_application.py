"""host.application: units through a stand-in systemctl that keeps state, programs for real."""

from __future__ import annotations

import os
import shlex
import signal
import time

import pytest

from awsha.core.model import ApplicationState, Unknown
from awsha.core.policy import Application
from awsha.host import application
from awsha.host.application import ApplicationError

SYSTEMCTL = """#!/bin/sh
cd "$(dirname "$0")"
echo "$@" >> log
case "$1" in
show) cat state;;
is-system-running) cat running 2>/dev/null || echo running;;
start)
    if grep -q ActiveState=failed state; then echo "Start request repeated too quickly." >&2; exit 1; fi
    sed -i s/ActiveState=.*/ActiveState=active/ state;;
stop)
    if grep -q not-found state; then echo "Failed to stop x.service: Unit x.service not loaded." >&2; exit 5; fi
    sed -i s/ActiveState=.*/ActiveState=inactive/ state;;
reset-failed) sed -i s/ActiveState=failed/ActiveState=inactive/ state;;
esac
"""
UNIT = Application(unit="x.service")


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """A function that sets the unit's state; the log of calls is tmp_path/log."""
    (tmp_path / "systemctl").write_text(SYSTEMCTL)
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def put(active: str, load: str = "loaded") -> None:
        (tmp_path / "state").write_text(f"LoadState={load}\nResult=success\nSubState=x\nActiveState={active}\n")

    return put


@pytest.mark.parametrize(
    ("active", "expected"),
    [
        ("active", ApplicationState.RUNNING),
        ("reloading", ApplicationState.RUNNING),
        ("activating", ApplicationState.STARTING),
        ("deactivating", ApplicationState.STOPPING),
        ("inactive", ApplicationState.STOPPED),
        ("failed", ApplicationState.FAILED),
    ],
)
def test_states_of_a_unit(systemd, active, expected):
    systemd(active)
    assert application.state(UNIT) == expected


def test_what_is_not_known_of_a_unit(systemd, tmp_path):
    for active, load in (("inactive", "not-found"), ("inactive", "masked"), ("new-word", "loaded"), ("", "loaded")):
        systemd(active, load)
        assert isinstance(application.state(UNIT), Unknown)
    systemd("active", "not-found")  # its file was removed while it runs
    assert application.state(UNIT) == ApplicationState.RUNNING
    (tmp_path / "systemctl").write_text("#!/bin/sh\nsleep 60\n")
    assert isinstance(application.state(UNIT, 0.2), Unknown)
    (tmp_path / "systemctl").write_text("#!/bin/sh\necho 'System has not been booted with systemd' >&2; exit 1\n")
    state = application.state(UNIT)
    assert isinstance(state, Unknown)
    assert "not been booted" in state.reason


def test_start_and_stop_of_a_unit(systemd, tmp_path):
    systemd("inactive")
    application.start(UNIT, 5)
    assert application.state(UNIT) == ApplicationState.RUNNING
    application.stop(UNIT, 5)
    assert application.state(UNIT) == ApplicationState.STOPPED
    calls = (tmp_path / "log").read_text()
    assert "start --no-ask-password -- x.service" in calls
    assert "reset-failed" not in calls


def test_a_failed_unit_is_reset_before_it_is_started(systemd, tmp_path):
    systemd("failed")
    application.start(UNIT, 5)
    assert application.state(UNIT) == ApplicationState.RUNNING
    assert "reset-failed" in (tmp_path / "log").read_text()


def test_stopping_what_is_not_loaded_is_success(systemd):
    systemd("inactive", "not-found")
    assert "not loaded" in application.stop(UNIT, 5)


def test_failures_of_a_unit_say_where_to_look(systemd, tmp_path):
    systemd("inactive")
    (tmp_path / "systemctl").write_text("#!/bin/sh\necho 'Job failed.' >&2; exit 1\n")
    with pytest.raises(ApplicationError, match="Job failed") as caught:
        application.start(UNIT, 5)
    assert caught.value.hint == "journalctl -u x.service -n 50"
    (tmp_path / "systemctl").write_text("#!/bin/sh\nsleep 60\n")
    with pytest.raises(ApplicationError) as late:
        application.stop(UNIT, 0.2)
    assert late.value.timeout


def test_no_application():
    assert application.state(None) is None


def test_programs(tmp_path):
    flag = str(tmp_path / "running")
    programs = Application(start=("touch", flag), stop=("rm", flag), check=("test", "-e", flag))
    assert application.state(programs) == ApplicationState.STOPPED
    application.start(programs, 5)
    assert application.state(programs) == ApplicationState.RUNNING
    application.stop(programs, 5)
    assert application.state(programs) == ApplicationState.STOPPED
    with pytest.raises(ApplicationError, match=r"exit code 1: .*No such file"):
        application.stop(programs, 5)


@pytest.mark.parametrize("check", [("sleep", "60"), ("/no/such/check",), ("sh", "-c", "kill -9 $$"), ()])
def test_a_check_that_says_nothing_is_unknown(check):
    assert isinstance(application.state(Application(start=("true",), stop=("true",), check=check), 0.2), Unknown)


def test_programs_that_cannot_be_run_or_take_too_long():
    with pytest.raises(ApplicationError, match="cannot be run"):
        application.start(Application(start=("/no/such",)), 5)
    with pytest.raises(ApplicationError) as late:
        application.start(Application(start=("sleep", "60")), 0.2)
    assert late.value.timeout
    with pytest.raises(ApplicationError, match="no stop program"):
        application.stop(Application(start=("true",)), 5)


def test_a_daemon_that_start_leaves_behind_lives_on(tmp_path):
    daemon = "trap 'exit 9' PIPE; while :; do echo alive; date +%s.%N > beat; sleep 0.05; done"
    script = f"cd {tmp_path}; sh -c {shlex.quote(daemon)} >&2 & echo $! > pid"
    started = time.monotonic()
    application.start(Application(start=("sh", "-c", script)), 5)
    assert time.monotonic() - started < 4
    pid = int((tmp_path / "pid").read_text())
    try:
        beats = set()
        while len(beats) < 3:
            assert time.monotonic() - started < 10
            if (tmp_path / "beat").exists():
                beats.add((tmp_path / "beat").read_text())
            time.sleep(0.02)
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("running", "before", "options"),
    [
        ("running", "shutdown.target", ""),
        ("running", "shutdown.target keepalived.service", "--job-mode=ignore-dependencies "),
        ("stopping", "shutdown.target", "--job-mode=ignore-dependencies "),
    ],
)
def test_a_stop_does_not_wait_for_a_keepalived_that_waits_for_awsha(systemd, tmp_path, running, before, options):
    systemd("active")
    with (tmp_path / "state").open("a") as state:
        state.write(f"Before={before}\n")
    (tmp_path / "running").write_text(f"{running}\n")
    application.stop(UNIT, 5)
    assert (tmp_path / "log").read_text().splitlines()[-1] == f"stop --no-ask-password {options}-- x.service"
