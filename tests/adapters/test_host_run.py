"""host.run: other programs, and the ones that do not end."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from awsha.host.run import KILL_S, TERM_S, ProgramMissing, RunError, RunTimeout, abandoned, run


def test_output_exit_code_and_input():
    done = run(["sh", "-c", "cat; echo bad >&2; exit 3"], 5, check=False, input=b"hello")
    assert (done.returncode, done.stdout, done.stderr) == (3, "hello", "bad\n")
    assert 0 <= done.elapsed_s < 5


def test_a_failure_carries_argv_code_and_last_lines():
    with pytest.raises(RunError) as caught:
        run(["sh", "-c", "seq 10 >&2; exit 4"], 5)
    assert caught.value.argv[0] == "sh"
    assert caught.value.returncode == 4
    assert caught.value.message == "sh failed with exit code 4: 6; 7; 8; 9; 10"


def test_a_missing_program_names_its_package_or_where_it_was_looked_for():
    with pytest.raises(ProgramMissing) as caught:
        run(["no-such-program"], 5)
    assert "/usr/sbin" in caught.value.hint
    with pytest.raises(ProgramMissing):
        run(["/no/such/program"], 5)


def test_sbin_is_searched_without_any_path(monkeypatch):
    monkeypatch.delenv("PATH")
    assert run(["sh", "-c", "echo $PATH"], 5).stdout.strip().endswith("/usr/sbin:/usr/bin:/sbin:/bin")


def test_messages_are_english_and_the_environment_can_be_set(monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert run(["sh", "-c", "echo $LC_ALL $EXTRA"], 5, env={"EXTRA": "x"}).stdout == "C x\n"
    assert run(["sh", "-c", "echo $LC_ALL"], 5, operators=True).stdout == "de_DE.UTF-8\n"


def test_a_time_out_ends_the_whole_tree_also_what_ignores_sigterm(tmp_path):
    script = "trap '' TERM; echo so far; sleep 60 & echo $! > pid; wait; sleep 60"
    started = time.monotonic()
    with pytest.raises(RunTimeout) as caught:
        run(["sh", "-c", f"cd {tmp_path}; {script}"], 0.3)
    assert time.monotonic() - started < 0.3 + TERM_S + KILL_S
    assert caught.value.stdout == "so far\n"
    assert not caught.value.abandoned
    child = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        for _ in range(200):  # the orphan is init's to reap
            os.kill(child, 0)
            time.sleep(0.01)


def test_a_daemon_that_keeps_the_output_open_is_not_waited_for():
    started = time.monotonic()
    done = run(["sh", "-c", "echo up; sleep 20 & echo $!"], 10)
    up, pid = done.stdout.split()
    os.kill(int(pid), signal.SIGKILL)
    assert up == "up"
    assert time.monotonic() - started < 5


def test_a_flood_of_output_keeps_its_end_only():
    done = run(["sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x; echo end"], 20)
    assert len(done.stdout) < 3 << 20
    assert done.stdout.endswith("xend\n")


def test_blocked_and_ignored_signals_are_not_handed_down():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with open("/proc/self/status") as own:  # noqa: PTH123
            assert "SigBlk:\t0000000000000000" not in own.read()
        status = run(["cat", "/proc/self/status"], 5).stdout
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert "SigBlk:\t0000000000000000" in status
    ignored = next(int(line[8:], 16) for line in status.splitlines() if line.startswith("SigIgn:"))
    assert ignored & 0x7FFFFFFF == 0  # 32 and 33 belong to the C library


LOOK = "for f in /proc/self/fd/*; do echo ${f##*/}; done; umask; echo ${NOTIFY_SOCKET-none}"
START = f"""
import os, sys
from awsha.host.run import run
os.umask(0o137)
for words in ({{}}, {{"operators": True}}, {{"clean": True}}):
    print(run(["/bin/sh", "-c", {LOOK!r}], 10, **words).stdout.split())
print(oct(os.umask(0)))
"""


def test_what_a_program_has_from_whoever_started_the_agent():
    """keepalived's descriptors and umask come to a converge that a notify has started; systemd's socket to an agent."""
    reader, writer = os.pipe()
    for descriptor in (reader, writer):
        os.set_inheritable(descriptor, True)
    environment = {**os.environ, "NOTIFY_SOCKET": "/nowhere"}
    with os.fdopen(reader), os.fdopen(writer):
        done = subprocess.run(
            [sys.executable, "-c", START],
            env=environment, pass_fds=(reader, writer), capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    tool, operators, hook, own = done.stdout.splitlines()
    # 3 is the folder that sh itself has open to list it
    assert tool == "['0', '1', '2', '3', '0137', 'none']"
    assert operators == "['0', '1', '2', '3', '0022', 'none']"
    assert hook == "['0', '1', '2', '3', '0077', 'none']"
    assert own == "0o137", "the agent's own stays"


def test_a_program_of_the_configuration_that_cannot_be_run_says_so():
    assert run(["/no/such"], 5, check=False, operators=True).returncode == 127
    with pytest.raises(RunError, match="cannot be run"):
        run(["/a=b/start"], 5, operators=True)


def test_case_40_a_program_stuck_for_good_is_abandoned_after_a_bound(sandbox, tmp_path):
    def inside() -> None:
        with sandbox.dead_server(tmp_path / "dead"):
            ticks = []
            stop = threading.Event()

            def tick() -> None:
                while not stop.wait(0.01):
                    ticks.append(time.monotonic())

            threading.Thread(target=tick, daemon=True).start()
            started = time.monotonic()
            with pytest.raises(RunTimeout) as caught:
                run([str(tmp_path / "dead/start")], 0.3, operators=True)  # its exec asks the dead server
            stop.set()
            assert caught.value.abandoned
            assert time.monotonic() - started < 0.3 + TERM_S + KILL_S + 0.5
            assert max(b - a for a, b in itertools.pairwise(ticks)) < 0.5  # no other thread stood still
            assert abandoned() == 1
        for _ in range(200):
            if abandoned() == 0:
                return
            time.sleep(0.01)
        raise AssertionError("it is reaped once its server is gone")

    sandbox(inside)
