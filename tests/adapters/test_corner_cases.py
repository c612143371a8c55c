"""What others were bitten by, where real files, processes and mounts must show it (docs/corner-cases.md)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from awsha import notify
from awsha.agent import intent as intents
from awsha.agent.converge import Converger
from awsha.agent.execute import Executor
from awsha.agent.hearing import Hearing
from awsha.agent.hooks import Hooks
from awsha.agent.journal import Journal
from awsha.agent.marks import Marks
from awsha.agent.observe import Observer
from awsha.core.loop import Loop
from awsha.core.model import ApplicationState, InstanceState, Intent, Mount, Role, Self
from awsha.core.policy import Group, Node, Policy, Volume
from awsha.core.steps import ListHolders, Outcome, Scope, Signal, Step, StopInstance, Unmount
from awsha.host import mounts
from tests.adapters.conftest import Sandbox
from tests.adapters.hands import Hands
from tests.adapters.one_node import PATIENCE_S
from tests.core.test_corner_cases import many

ME = Self("a", "i-0aaaaaaaaaaaaaaaa", "eni-a", "lo", {"i-0bbbbbbbbbbbbbbbb": "b"})


# --- 31, 36, 40: a real executor, without EC2 ---


def executor(run: Path, mount: Path, unmount_s: float = 2.0) -> tuple[Executor, str]:
    """The hands of a group whose one volume is mounted there, and that volume's id."""
    vid = "vol-0123456789abcdef0"
    volume = Volume(mount=str(mount), id=vid)
    group = Group("data", 51, ("10.0.0.100",), volumes=(volume,))
    group = Group("data", 51, ("10.0.0.100",), volumes=(volume,), timeouts=type(group.timeouts)(unmount_s=unmount_s))
    os.environ["AWSHA_RUN_DIR"] = str(run)
    policy = Policy((Node("a", "10.0.0.10"), Node("b", "10.0.0.11")), (group,))
    nothing: Any = None  # these steps never ask EC2
    observer = Observer(group, ME, nothing, nothing)
    hearing = Hearing(policy, listen=False)
    return Executor(group, ME, nothing, observer, Marks("data"), hearing, Hooks(group)), vid


def mounted(target: Path) -> Mount:
    """What mountinfo says of a mount point."""
    table = mounts.read()
    assert isinstance(table, tuple)
    return mounts.as_mount(next(entry for entry in table if entry.target == str(target)))


def test_case_40_letting_go_of_a_disk_that_never_answers_comes_to_an_end(sandbox: Sandbox, tmp_path: Path):
    """Whoever asks this file system is stuck, even for SIGKILL. Looking, listing, signalling, unmounting must not."""

    def scene() -> None:
        target = tmp_path / "data"
        with sandbox.dead_server(target):
            mount = mounted(target)
            hands, vid = executor(tmp_path / "run", target)
            stuck = subprocess.Popen(["stat", str(target / "x")], stderr=subprocess.DEVNULL)
            code = f"import os, time; fd = os.open({str(target)!r}, os.O_PATH); print(fd, flush=True); time.sleep(1000)"
            inside = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
            assert inside.stdout is not None
            assert inside.stdout.readline(), "it holds the mount"
            for _ in range(3):
                hands.observer.read(Scope.DISKS)
            found = hands.run(ListHolders(vid, (mount,)), None)
            assert found.ok
            holders = found.learned
            assert isinstance(holders, tuple)
            assert inside.pid in {holder.pid for holder in holders}
            busy = hands.run(Unmount(vid, (mount,)), None)
            assert not busy.ok, "it is in use"
            assert hands.run(Signal(vid, holders, (mount,), kill=True), None).ok
            assert inside.wait(PATIENCE_S) < 0
            assert hands.run(Unmount(vid, (mount,), lazy=True), None).ok
            table = mounts.read()
            assert isinstance(table, tuple)
            assert all(entry.target != str(target) for entry in table), "it is out of the tree"
            assert stuck.poll() is None, "and whoever asked it is still stuck: this was not"

    sandbox(scene)


def test_case_31_holders_that_respawn_are_listed_anew_until_the_unmount_succeeds(sandbox: Sandbox, tmp_path: Path):
    def scene() -> None:
        target = tmp_path / "data"
        target.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "data", str(target)], check=True)
        hands, vid = executor(tmp_path / "run", target)
        mount = mounted(target)
        # a supervisor outside the file system starts a holder inside it, three times
        loop = f"for i in 1 2 3; do (cd {target}; exec sleep 1000); done; echo done > {tmp_path}/done"
        supervisor = subprocess.Popen(["sh", "-c", loop], cwd="/")
        signalled: set[int] = set()
        for _ in range(1000):
            if hands.run(Unmount(vid, (mount,)), None).ok:
                break
            found = hands.run(ListHolders(vid, (mount,)), None)
            assert isinstance(found.learned, tuple)
            signalled |= {holder.pid for holder in found.learned}
            hands.run(Signal(vid, found.learned, (mount,), kill=True), None)
        else:
            raise AssertionError("it never came free")
        assert supervisor.pid not in signalled, "the one that does not hold the file system is not touched"
        assert signalled
        supervisor.kill()
        supervisor.wait()

    sandbox(scene)


# --- fencing ---


def test_a_node_that_is_stopped_without_being_asked_leaves_a_file_system_to_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """EC2.md: StopInstances with SkipOsShutdown, then a check. The mark stands before the call: a crash after it, or a
    lost reply, must not lose it."""
    monkeypatch.setenv("AWSHA_RUN_DIR", str(tmp_path))
    hands, vid = executor(tmp_path, tmp_path / "data")
    seen: list[frozenset[str]] = []

    class Door:
        def stop_instance(self, _instance_id: str) -> InstanceState:
            seen.append(hands.marks.all())
            raise ConnectionError("the reply is lost")

    hands.ec2 = Door()  # type: ignore[assignment]
    notify.record("master", "data")
    assert not hands.run(StopInstance("i-0bbbbbbbbbbbbbbbb", "b"), intents.newest("data")).ok
    assert seen == [frozenset({f"forced:{vid}"})]


# --- 34: the loop's threads ---


@dataclass
class Together(Hands):
    """Hands whose unmounts wait for each other: they end only if all of them are under way at once."""

    meeting: threading.Barrier
    unmounted: list[str] = field(default_factory=list)

    def run(self, step: Step, _planned: Intent | None) -> Outcome:
        if isinstance(step, Unmount):
            self.meeting.wait(PATIENCE_S)
            self.unmounted.append(step.volume_id)
        return Outcome(True)


@pytest.mark.parametrize("number", [1, 10])
def test_case_34_ten_file_systems_are_unmounted_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    """One after the other would never end: each waits until all have begun."""
    monkeypatch.setenv("AWSHA_RUN_DIR", str(tmp_path))
    notify.record("backup", "data")
    s, ids = many(number)
    facts = {
        Scope.CLOUD: s.cloud,
        Scope.DISKS: s.host.disks,
        Scope.ADDRESSES: frozenset[str](),
        Scope.APPLICATION: ApplicationState.STOPPED,
    }
    hands = Together(facts, threading.Barrier(number))
    converger = Converger(Loop(s.group, s.me), hands, Journal(), lambda _: None)  # type: ignore[arg-type]
    for turn in converger.turns():
        assert turn.plan.goal == "release"
        if len(hands.unmounted) >= number:
            break
    assert sorted(hands.unmounted[:number]) == ids
    converger.close(PATIENCE_S)


def test_case_38_the_intent_is_what_was_said_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is an order, and ends with the boot; what is shown as so comes from EC2 and the kernel."""
    monkeypatch.setenv("AWSHA_RUN_DIR", str(tmp_path))
    notify.record("master", "data")
    found = intents.newest("data")
    assert found is not None
    assert found.role is Role.MASTER
    assert {path.name for path in tmp_path.iterdir()} == {"intent"}, "no state file"
