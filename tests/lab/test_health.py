"""A master that can't hold what it needs gives way, waits before it competes again, and says how long."""

from __future__ import annotations

import pytest

from tests.lab.conftest import LabUnderTest
from tests.lab.test_failover import QUICK, status_of

pytestmark = [pytest.mark.root, pytest.mark.lab]
PID_FILE = "/run/awsha-lab-server-data.pid"

# Ends the application and takes its port, so that no start can succeed. Says the pid of what keeps the port.
BLOCK = """
import os, signal, socket, sys, time
if os.path.exists(sys.argv[2]):
    try:
        os.kill(int(open(sys.argv[2]).read()), signal.SIGKILL)
    except ProcessLookupError:
        pass
port, end = socket.socket(), time.monotonic() + 10
port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
while True:
    try:
        port.bind(("0.0.0.0", int(sys.argv[1])))
        port.listen()
        break
    except OSError:
        if time.monotonic() > end:
            raise
        time.sleep(0.001)
if pid := os.fork():
    print(pid)
else:
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    while True:
        port.accept()[0].close()
"""


def blocked(lab: LabUnderTest, node: str) -> str:
    """From now on the application can't run on this node, until the process whose pid is returned is ended."""
    port = str(lab.status()["groups"]["data"]["port"])
    return lab.exec(node, "python3", "-c", BLOCK, port, PID_FILE).stdout.strip()


def damping(lab: LabUnderTest, node: str) -> tuple[int, bool]:
    """How often in a row a node failed, by its status, and whether it says that it waits, how long and why."""
    code, group = status_of(lab, node)
    reasons = {r["code"]: r for r in group["waiting"]}
    said = (
        code == 2
        and not group["health"]["ok"]
        and "does not stay up" in group["health"]["text"]
        and "competes again in" in group["health"]["text"]
        and "awsha resume data" in reasons.get("damped", {"hint": ""})["hint"]
    )
    return group["health"]["failures"], said


def test_an_application_that_fails_moves_once_and_does_not_ping_pong(lab: LabUnderTest):
    lab.up(*QUICK)
    first = str(lab.holder())
    second = "b" if first == "a" else "a"
    lab.client_start()
    pid = blocked(lab, first)
    lab.wait_until(lambda: damping(lab, first) == (1, True), 30, "the first has failed, and says that it waits")
    lab.wait_for_holder(second)
    lab.nothing_lost()
    lab.wait_until(lambda: status_of(lab, first)[0] == 0, 30, "its wait is over: it stands by")
    assert lab.holder() == second, "nothing moves back"

    blocked(lab, second)
    lab.wait_until(lambda: damping(lab, second) == (1, True), 30, "it fails there too")
    lab.wait_until(lambda: damping(lab, first) == (2, True), 40, "the first has tried once more, and waits again")
    text = lab.exec(first, "awsha", "status", check=False).stdout
    assert "failed 2 times in a row as master" in " ".join(text.replace("│", " ").split())

    lab.fail(second, "stop")
    lab.exec(first, "kill", pid)
    lab.exec(first, "awsha", "resume", "data")
    lab.wait_for_holder(first)
    lab.wait_until(lambda: status_of(lab, first)[0] == 0, 30, "it serves")
    lab.nothing_lost()


def test_an_application_that_hangs_is_stopped_before_it_is_started_again(lab: LabUnderTest):
    """It keeps its port: a second one beside it could not start, and the node would fail for nothing."""
    lab.up(*QUICK)
    first = str(lab.holder())
    lab.client_start()
    before = lab.exec(first, "cat", PID_FILE).stdout
    lab.exec(first, "sh", "-c", f"kill -STOP $(cat {PID_FILE})")
    lab.wait_until(lambda: lab.exec(first, "cat", PID_FILE).stdout != before, 40, "another one runs in its place")
    lab.wait_until(lambda: status_of(lab, first)[0] == 0, 20, "all is well")
    assert lab.holder() == first, "nothing has moved"
    assert status_of(lab, first)[1]["health"]["failures"] == 0
    lab.nothing_lost()


def test_a_file_system_that_turns_read_only_moves_to_the_peer(lab: LabUnderTest):
    lab.up(*QUICK)
    first = str(lab.holder())
    second = "b" if first == "a" else "a"
    lab.client_start()
    lab.exec(first, "mount", "-o", "remount,errors=remount-ro", "/srv/data")
    number = lab.exec(first, "findmnt", "-no", "MAJ:MIN", "/srv/data").stdout.strip()
    device = f"$(basename $(readlink -f /sys/dev/block/{number}))"
    lab.exec(first, "sh", "-c", f"echo test > /sys/fs/ext4/{device}/trigger_fs_error")
    lab.wait_for_holder(second)
    lab.wait_until(lambda: "read-only" in status_of(lab, first)[1]["health"]["text"], 10, "it says why")
    lab.nothing_lost()
