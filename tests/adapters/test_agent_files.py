"""The agent's files and processes: broken files stop nobody, one loop a group, and nothing that was said is lost."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from awsha import notify
from awsha.agent import intent, operate
from awsha.agent.assembly import assemble
from awsha.agent.faults import TEXT_MOST, FaultRecord
from awsha.agent.hearing import Hearing
from awsha.agent.lock import GroupLock
from awsha.agent.marks import Marks
from awsha.core.model import Faults
from awsha.core.policy import Group, Node, Policy
from awsha.host.clock import boot_id, boottime
from awsha.host.vrrp import Advert
from awsha.lab.faults import Fault, FaultKind
from tests.adapters.conftest import Sandbox
from tests.adapters.one_node import GROUP, OneNode, intents, one_node, until
from tests.adapters.test_notify import OTHER_BOOT, as_child, ended


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own run directory."""
    monkeypatch.setenv("AWSHA_RUN_DIR", str(tmp_path))
    return tmp_path


# --- marks, intents ---


@pytest.mark.usefixtures("run")
def test_a_mark_knows_who_set_it_first_and_when(monkeypatch: pytest.MonkeyPatch):
    marks = Marks(GROUP)
    assert marks.placed("paused") is None
    monkeypatch.setenv("SUDO_USER", "al\x1bice")
    began = time.time()
    operate.pause(GROUP)
    placed = marks.placed("paused")
    assert placed is not None
    assert (placed[0], placed[1] >= began - 1) == ("al?ice", True)
    monkeypatch.setenv("SUDO_USER", "bob")
    operate.pause(GROUP)
    assert (marks.placed("paused"), marks.all()) == (placed, {"paused"}), (
        "asked for again, it stands since the first time"
    )
    monkeypatch.delenv("SUDO_USER")
    assert operate.resume(GROUP)
    operate.pause(GROUP)
    assert (marks.placed("paused") or [""])[0] == pwd.getpwuid(os.getuid()).pw_name
    marks.put("stopping")
    assert marks.placed("stopping") is None, "nobody's"


def test_a_mark_of_another_boot_or_a_broken_one_does_not_count(run: Path):
    marks = Marks(GROUP)
    assert marks.all() == frozenset()
    marks.put("fenced")
    folder = run / "marks" / GROUP
    for name, content in {"released": OTHER_BOOT, "paused": "", "heard-b": "\xff\0", "huge": "x" * 100_000}.items():
        (folder / name).write_text(content)
    (folder / "directory").mkdir()
    (folder / "link").symlink_to("/nonexistent")
    (folder / ".fenced.1").write_text(boot_id())
    assert marks.all() == {"fenced"}
    marks.remove("fenced")
    marks.remove("fenced")
    assert marks.all() == frozenset()


class Adverts:
    """What a raw socket would have heard."""

    def __init__(self) -> None:
        self.came: list[Advert] = []

    def drain(self, now: float) -> list[Advert]:
        came, self.came = self.came, []
        return [replace(advert, at=now) for advert in came]


def test_who_was_heard_counts_though_it_cannot_be_kept_and_is_kept_as_soon_as_it_can(run: Path):
    group = Group("data", 51, ("10.0.0.100",))
    policy = Policy((Node("a", "10.0.0.10"), Node("b", "10.0.0.11")), (group,))
    listener, hearing = Adverts(), Hearing(policy, listen=False)
    hearing.listener = listener  # type: ignore[assignment]
    advert = Advert("10.0.0.11", 3, 51, 100, (), 0.0)
    (run / "marks").write_text("in the way, as a full /run would be")
    listener.came = [advert]
    assert hearing.heard(group)["b"].priority == 100, "a master that is heard is heard"
    assert Hearing(policy, listen=False).heard(group) == {}
    (run / "marks").unlink()
    listener.came = [advert]
    assert len(hearing.drain()) == 1
    assert set(Hearing(policy, listen=False).heard(group)) == {"b"}, "another agent of this boot knows"


def kept(**changes: object) -> str:
    """A record of failures as it is kept, with something changed."""
    return json.dumps({"boot": boot_id(), "times": 2, "at": boottime() - 1.0, "text": "x", **changes})


def test_a_record_of_failures_is_kept_and_forgotten(run: Path):
    record = FaultRecord(GROUP)
    assert record.get() is None
    record.put(None)
    record.put(Faults(2, 1.5, "é" * 5000))
    assert FaultRecord(GROUP).get() == Faults(2, 1.5, "é" * TEXT_MOST)
    record.put(None)
    assert FaultRecord(GROUP).get() is None
    (run / "faults").rmdir()
    (run / "faults").write_text("")
    record.put(Faults(3, 2.5, "y"))
    assert record.get() == Faults(3, 2.5, "y"), "this process at least remembers"


def test_a_record_of_failures_of_another_boot_or_a_broken_one_keeps_nobody_out(run: Path):
    (run / "faults").mkdir()
    broken = [
        "", "\0", "[]", "{", "null", "[" * 4000, kept(boot=OTHER_BOOT), kept(times=0), kept(times="2"),
        kept(times=True), kept(at=boottime() + 1000), kept(at="1"), kept(at=float("nan")), kept(at=float("inf")),
        kept(text=None), json.dumps({"boot": boot_id()}),
    ]  # fmt: skip
    for text in broken:
        (run / "faults" / GROUP).write_text(text)
        assert FaultRecord(GROUP).get() is None, text
    (run / "faults" / GROUP).write_text(kept())
    assert FaultRecord(GROUP).get() is not None


def test_a_file_in_the_place_of_the_marks_or_the_intents_is_nothing_said(run: Path):
    for folder in ("marks", "intent"):
        (run / folder).mkdir()
        (run / folder / GROUP).write_text("")
    assert Marks(GROUP).all() == frozenset()
    assert intent.newest(GROUP) is None


def test_there_is_a_newest_intent_at_every_moment(run: Path):
    """Notifies replace each other's files all the time; a look in between must not say that nobody said anything."""
    folder = run / "intent" / GROUP
    folder.mkdir(parents=True)
    stop = threading.Event()
    line = f"master {boot_id()} 1.0 0 0\n"

    def notifies() -> None:
        number = 1
        while not stop.is_set():
            (folder / ".new").write_text(line)
            (folder / ".new").rename(folder / f"{number:016d}-00000001")
            (folder / f"{number - 1:016d}-00000001").unlink(missing_ok=True)
            number += 1

    (folder / f"{0:016d}-00000001").write_text(line)
    thread = threading.Thread(target=notifies)
    thread.start()
    try:
        assert all(intent.newest(GROUP) is not None for _ in range(3000))
    finally:
        stop.set()
        thread.join()


# --- one loop a group ---


@pytest.mark.usefixtures("run")
def test_the_lock_has_one_holder_and_ends_with_its_process():
    reader, writer = os.pipe()
    told, tell = os.pipe()

    def holder() -> int:
        lock = GroupLock(GROUP)
        os.write(tell, b"1" if lock.acquire() and lock.acquire() else b"0")
        os.read(reader, 1)
        return 0

    pid = as_child(holder)
    try:
        assert os.read(told, 1) == b"1"
        lock = GroupLock(GROUP)
        assert not lock.acquire()
        assert GroupLock("other").acquire(), "each group has its own"
    finally:
        os.kill(pid, signal.SIGKILL)
        assert ended(pid) == -signal.SIGKILL
        for descriptor in (reader, writer, told, tell):
            os.close(descriptor)
    with lock:
        assert lock.acquire(), "the kernel has freed it"
    with lock:
        assert lock.acquire(), "given back at the end"


def in_node(sandbox: Sandbox, folder: Path, scene: Callable[[OneNode], None]) -> None:
    """Play a scene on a node of its own."""

    def play() -> None:
        with one_node(folder) as node:
            scene(node)

    sandbox(play)


def test_case_37_a_converge_beside_an_agent_leaves_and_the_agent_takes_up_what_was_said(
    sandbox: Sandbox, tmp_path: Path
):
    def scene(node: OneNode) -> None:
        agent = node.agent()
        assert node.awsha("converge", GROUP, "--role", "master") == 1, "the agent has the group"
        assert "another awsha process" in node.log
        assert node.awsha("notify", "master", GROUP) == 0
        until(node.holds_vip, f"the agent became master\n{node.log}")
        os.kill(agent.pid, signal.SIGSTOP)
        assert node.awsha("notify", "backup", GROUP) == 0, "recorded, though the agent is frozen"
        until(
            lambda: "follows the newest role" in converge_log(node), f"a converge came and left\n{converge_log(node)}"
        )
        assert node.holds_vip(), "nobody acts beside a frozen agent"
        os.kill(agent.pid, signal.SIGCONT)
        until(lambda: not node.holds_vip(), f"it thaws, and follows\n{node.log}")

    in_node(sandbox, tmp_path, scene)


def converge_log(node: OneNode) -> str:
    """What a detached converge said."""
    path = node.run / f"converge-{GROUP}.log"
    return path.read_text() if path.exists() else ""


def test_case_37_what_is_said_while_a_converge_runs_is_taken_up_by_it(sandbox: Sandbox, tmp_path: Path):
    """No agent. The first converge hangs on EC2; the notify that comes meanwhile finds the lock taken, and leaves."""

    def scene(node: OneNode) -> None:
        node.ec2.region.add_fault(Fault("AssignPrivateIpAddresses", FaultKind.ERROR, times=8, code="InternalError"))
        first = node.start("converge", GROUP, "--role", "master", "--timeout", "25")
        until(lambda: "InternalError" in node.log, f"the first is at work\n{node.log}")
        assert node.awsha("notify", "backup", GROUP) == 0
        until(
            lambda: "follows the newest role" in converge_log(node), f"the second came and left\n{converge_log(node)}"
        )
        assert first.wait(60) == 0, node.log
        assert not node.holds_vip()
        assert list(intents(node.run).values()) == ["backup"]
        assert "converged: nothing is here" in node.log

    in_node(sandbox, tmp_path, scene)


def test_case_37_what_is_said_while_a_converge_ends_is_taken_up_by_it(sandbox: Sandbox, tmp_path: Path):
    """It is out of time and waits for its last call: whoever comes now finds the lock taken."""

    def scene(node: OneNode) -> None:
        os.environ["AWSHA_RUN_DIR"] = str(node.run)
        node.ec2.region.add_fault(Fault("AssignPrivateIpAddresses", FaultKind.DELAY, seconds=3.5))
        first = node.start("converge", GROUP, "--role", "master", "--timeout", "2")
        until(lambda: "out of time" in node.log, f"it is about to end\n{node.log}")
        assert ended(as_child(lambda: notify.record("backup", GROUP) or 0)) == 0
        first.wait(60)
        assert "role backup" in node.log
        until(lambda: not node.holds_vip(), f"what its last call took was given back\n{node.log}")

    in_node(sandbox, tmp_path, scene)


def test_without_an_agent_a_notify_alone_takes_the_address(sandbox: Sandbox, tmp_path: Path):
    def scene(node: OneNode) -> None:
        assert node.awsha("notify", "master", GROUP, "INSTANCE", GROUP, "MASTER", "150") == 0
        until(node.holds_vip, f"a converge of its own did it\n{converge_log(node)}")
        until(lambda: "converged" in converge_log(node), f"and ended\n{converge_log(node)}")

    in_node(sandbox, tmp_path, scene)


# --- a node that failed as master ---


def test_a_new_agent_goes_on_waiting_and_resume_ends_it(sandbox: Sandbox, tmp_path: Path):
    def scene(node: OneNode) -> None:
        (node.run / "faults").mkdir(parents=True)
        (node.run / "faults" / GROUP).write_text(kept(times=5, text="exit code 3"))
        agent = node.agent()
        health = node.run / "health" / GROUP
        until(lambda: health.exists() and health.read_text() == "1\n", "keepalived is told that it still waits")
        report = node.report()
        assert report is not None
        assert (report["health"]["ok"], report["health"]["failures"]) == (False, 5)
        assert "failed 5 times in a row as master, the last time: exit code 3" in report["health"]["text"]
        assert "damped" in {reason["code"] for reason in report["waiting"]}
        assert node.awsha("status") == 2
        assert "competes again in" in node.log, "status says it as well"
        assert node.awsha("resume", GROUP) == 0
        until(lambda: health.read_text() == "0\n", f"an operator ends the wait\n{node.log}")
        assert not (node.run / "faults" / GROUP).exists()
        assert agent.poll() is None

    in_node(sandbox, tmp_path, scene)


def test_without_an_agent_a_converge_stays_until_the_node_may_compete_again(sandbox: Sandbox, tmp_path: Path):
    """Otherwise nobody would ever take the failed verdict back."""

    def scene(node: OneNode) -> None:
        (node.run / "faults").mkdir(parents=True)
        (node.run / "health").mkdir()
        (node.run / "health" / GROUP).write_text("1\n")
        (node.run / "faults" / GROUP).write_text(kept(times=1, at=boottime() - 4.0))
        assert node.awsha("converge", GROUP, "--role", "fault", "--timeout", "2") == 75, "by hand: no longer than asked"
        assert (node.run / "health" / GROUP).read_text() == "1\n"
        assert node.awsha("converge", GROUP, "--role", "fault") == 0, node.log
        assert (node.run / "health" / GROUP).read_text() == "0\n"

    in_node(sandbox, tmp_path, scene)


def test_status_without_an_agent_says_of_a_dead_keepalived_what_is_so(sandbox: Sandbox, tmp_path: Path):
    """Nobody measures the grace here: it must not be told as about to end, for ever."""

    def scene(node: OneNode) -> None:
        (node.run / "intent" / GROUP).mkdir(parents=True)
        ended = f"master {boot_id()} 1.0 4194303 77\n"
        (node.run / "intent" / GROUP / "0000000000000001-00000001").write_text(ended)
        assert node.awsha("status", "--json") in (1, 2)
        (told,) = json.loads(node.log)["groups"]
        assert (told["vrrp_role"], told["keepalived"], told["goal"]) == ("master", "gone", "release")
        (reason,) = told["waiting"]
        assert (reason["code"], reason["until_s"], reason["hint"]) == (
            "keepalived-gone",
            None,
            "systemctl start keepalived",
        )

    in_node(sandbox, tmp_path, scene)


# --- broken files of a whole agent ---


def test_case_17_after_a_reboot_with_old_and_broken_files_the_agent_looks_and_then_follows(
    sandbox: Sandbox, tmp_path: Path
):
    """AWSHA_RUN_DIR on a disk that outlives the boot, and everything in it old or broken: nothing is acted on before
    keepalived has said something in this boot, and then it is."""

    def scene(node: OneNode) -> None:
        (node.run / "intent" / GROUP).mkdir(parents=True)
        (node.run / "intent" / GROUP / "9999999999999999-00000001").write_text(f"master {OTHER_BOOT} 5 77 88\n")
        (node.run / "intent" / GROUP / "garbage").write_bytes(b"\0\xff")
        (node.run / "marks" / GROUP).mkdir(parents=True)
        for mark in ("fenced", "paused", "released", "heard-b"):
            (node.run / "marks" / GROUP / mark).write_text(OTHER_BOOT)
        (node.run / "health").mkdir()
        (node.run / "health" / GROUP).write_text("garbage that is longer than a verdict\n")
        (node.run / "groups").mkdir()
        (node.run / "groups" / "gone").mkdir()
        (node.run / "groups" / "file").write_text("")
        (node.run / "groups" / GROUP).write_text("")
        (node.run / "agent.sock").write_text("")
        (node.run / "identity.json").write_text('{"key": [')
        agent = node.agent()
        report = node.report()
        assert report is not None
        assert (report["vrrp_role"], report["goal"], report["fenced"]) == (None, "look", False)
        assert not node.holds_vip()
        assert node.awsha("notify", "master", GROUP) == 0
        until(node.holds_vip, f"it follows\n{node.log}")
        assert (node.run / "health" / GROUP).read_text() == "0\n", "keepalived reads a number and nothing else"
        assert not (node.run / "groups" / "gone").exists()
        assert agent.poll() is None

    in_node(sandbox, tmp_path, scene)


IDENTITIES = {
    "cut off": lambda kept: json.dumps(kept)[:-20],
    "another shape": lambda _: "[1, 2]",
    "deep": lambda _: "[" * 100_000,
    "no groups": lambda kept: json.dumps({**kept, "places": {}}),
    "another instance's fields": lambda kept: json.dumps({**kept, "places": {GROUP: {"me": {"x": 1}, "mac": ""}}}),
    "of another boot": lambda kept: json.dumps({**kept, "key": [OTHER_BOOT, *kept["key"][1:]]}),
}


def test_an_identity_file_that_is_broken_is_found_out_anew(sandbox: Sandbox, tmp_path: Path):
    def scene(node: OneNode) -> None:
        os.environ.update(node.environment)
        config, file = node.folder / "awsha.toml", node.run / "identity.json"
        places = assemble(config).places
        kept = json.loads(file.read_text())
        node.ec2.region.add_fault(Fault("*", FaultKind.ERROR, times=None, code="InternalError"))
        assert assemble(config).places == places, "kept: EC2 is not asked"
        node.ec2.region.clear_faults()
        for name, broken in IDENTITIES.items():
            file.write_text(broken(kept))
            assert assemble(config).places == places, name
            assert json.loads(file.read_text()) == kept, name

    in_node(sandbox, tmp_path, scene)


def test_a_health_file_that_cannot_be_written_does_not_end_the_loop(sandbox: Sandbox, tmp_path: Path):
    def scene(node: OneNode) -> None:
        (node.run / "health" / GROUP).mkdir(parents=True)
        agent = node.agent()
        assert node.awsha("notify", "master", GROUP) == 0
        until(node.holds_vip, f"it goes on\n{node.log}")
        assert "keepalived can't be told" in node.log
        (node.run / "health" / GROUP).rmdir()
        until((node.run / "health" / GROUP).exists, "it is told as soon as it can be")
        assert agent.poll() is None

    in_node(sandbox, tmp_path, scene)


def test_an_agent_whose_loop_breaks_down_ends_with_an_error(sandbox: Sandbox, tmp_path: Path):
    """So that systemd starts another one, instead of an agent that answers and does nothing."""

    def scene(node: OneNode) -> None:
        (node.folder / "broken.py").write_text(
            "import sys\nfrom awsha.agent import intent\nfrom awsha.cli.main import main\n"
            "def newest(group):\n    raise RuntimeError('a defect')\n"
            "intent.newest = newest\nsys.argv = ['awsha', 'agent']\nsys.exit(main())\n"
        )
        with (node.folder / "log").open("ab") as log:
            argv = [sys.executable, str(node.folder / "broken.py")]
            done = subprocess.run(argv, env=node.environment, stdout=log, stderr=log, timeout=60, check=False)
        assert done.returncode == 1
        assert "RuntimeError: a defect" in node.log, "what happened is in the log"
        assert "the loop of data has broken down" in node.log

    in_node(sandbox, tmp_path, scene)


@pytest.mark.parametrize("moment", ["before the lock", "with the lock"])
def test_an_agent_that_is_killed_leaves_nothing_that_stops_the_next_one(sandbox: Sandbox, tmp_path: Path, moment: str):
    def scene(node: OneNode) -> None:
        lock = GroupLock.__new__(GroupLock)
        if moment == "before the lock":
            os.environ["AWSHA_RUN_DIR"] = str(node.run)
            lock = GroupLock(GROUP)
            assert lock.acquire()
            first = node.start("agent")
            until(lambda: "waiting for it" in node.log, f"it waits for the lock\n{node.log}")
        else:
            first = node.agent()
        assert node.awsha("notify", "master", GROUP) == 0
        first.kill()
        first.wait(30)
        if moment == "before the lock":
            lock.release()
        node.agent()
        until(node.holds_vip, f"the next one follows what was said\n{node.log}")

    in_node(sandbox, tmp_path, scene)
