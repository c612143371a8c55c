"""The operator's programs, run for real: order, environment, time-outs, output, and what is refused."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from awsha import notify
from awsha.agent import intent as intents
from awsha.agent.execute import Executor
from awsha.agent.hooks import Hooks, environment, inspect
from awsha.agent.marks import Marks
from awsha.config.machine import hook_refused
from awsha.core.hooks import mark_of
from awsha.core.model import Hook, Role, Self
from awsha.core.plan import PAUSED
from awsha.core.policy import Group, Timeouts, Volume
from awsha.core.steps import Failure, NoteHooks, Outcome, RunHooks
from awsha.core.volumes import FENCED
from awsha.host.run import RunGivenUp, run
from tests.adapters.conftest import require_root
from tests.adapters.one_node import until

VOLUMES = (
    Volume(mount="/srv/data", id="vol-0000000000000000a"),
    Volume(mount="/srv/my logs", id="vol-0000000000000000b"),
)
GROUP = Group("data", 51, ("10.0.0.100", "10.0.0.101"), volumes=VOLUMES)
ME = Self("a", "i-0000000000000000a", "eni-a", "eth0", {"i-0000000000000000b": "b"})
LONG_S = 60.0  # what must not be waited for; nothing is asserted about how long things take


def wanted() -> str | None:
    """No reason against it."""
    return None


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    require_root()
    monkeypatch.setenv("AWSHA_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("AWSHA_HOOKS_DIR", str(tmp_path / "hooks"))


class Written:
    """A hooks folder, and what its programs wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.hooks = Hooks(GROUP)

    def put(self, hook: Hook | str, name: str, text: str, mode: int = 0o755) -> Path:
        """A shell script."""
        path = self.folder / "hooks" / "data" / f"{hook}.d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(mode)
        return path

    def run(self, hook: Hook, *, hook_s: float = LONG_S, unwanted: Callable[[], str | None] = wanted) -> Outcome:
        self.hooks.group = replace(GROUP, timeouts=Timeouts(hook_s=hook_s))
        return self.hooks.run(hook, environment(GROUP, ME, hook, Role.MASTER), unwanted)

    def said(self) -> list[str]:
        return self.out.read_text().splitlines() if self.out.exists() else []


@pytest.fixture
def hooks(tmp_path: Path) -> Written:
    return Written(tmp_path)


def test_they_run_in_the_order_of_their_names_and_left_overs_do_not(hooks: Written):
    for name in ("20-b", "10-a", "5-z", "Z", "a.sh", ".hidden", "30-c~", "30-c.dpkg-old", "30-c.rpmsave", "#x#", "x y"):
        hooks.put(Hook.AFTER_ACQUIRE, name, f"echo '{name}' >> {hooks.out}")
    hooks.put(Hook.AFTER_ACQUIRE, "25-off", f"echo off >> {hooks.out}", 0o644)
    (hooks.folder / "hooks/data/after-acquire.d/26-folder").mkdir()
    outcome = hooks.run(Hook.AFTER_ACQUIRE)
    assert hooks.said() == ["10-a", "20-b", "5-z", "Z", "a.sh"]
    assert outcome == Outcome(True, "10-a, 20-b, 5-z, Z, a.sh")


def test_a_point_without_programs_is_passed(hooks: Written):
    assert hooks.run(Hook.BEFORE_ACQUIRE).ok


def test_the_environment_is_what_is_documented_and_nothing_else(hooks: Written, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("PATH", f"/tmp:{os.environ['PATH']}")
    hooks.put(Hook.AFTER_MOUNT, "10-env", f"env -0 > {hooks.out}; pwd > {hooks.out}.pwd")
    assert hooks.run(Hook.AFTER_MOUNT).ok
    told = dict(item.split("=", 1) for item in hooks.out.read_text().split("\0") if item)
    assert {key: told.pop(key) for key in ("PATH", "HOME", "LANG")} == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
    }
    assert {key: value for key, value in told.items() if key not in {"PWD", "OLDPWD", "_", "SHLVL"}} == {
        "AWSHA_GROUP": "data",
        "AWSHA_NODE": "a",
        "AWSHA_INSTANCE": "i-0000000000000000a",
        "AWSHA_PEER": "b",
        "AWSHA_ROLE": "master",
        "AWSHA_HOOK": "after-mount",
        "AWSHA_INTERFACE": "eth0",
        "AWSHA_VIPS": "10.0.0.100 10.0.0.101",
        "AWSHA_VOLUMES": "vol-0000000000000000a vol-0000000000000000b",
        "AWSHA_MOUNTS": "/srv/data\n/srv/my logs",
    }
    assert Path(f"{hooks.out}.pwd").read_text() == "/\n"
    page = (Path(__file__).parents[2] / "docs/hooks.md").read_text()
    assert not [key for key in environment(GROUP, ME, Hook.ON_FENCED, None) if f"| `{key}` |" not in page]


def test_the_first_failure_ends_an_acquisition(hooks: Written):
    hooks.put(Hook.BEFORE_ACQUIRE, "10-bad", "echo fine; echo 'not here' >&2; exit 3")
    hooks.put(Hook.BEFORE_ACQUIRE, "20-next", f"echo next >> {hooks.out}")
    outcome = hooks.run(Hook.BEFORE_ACQUIRE)
    assert (outcome.ok, outcome.failure) == (False, Failure.OTHER)
    assert outcome.text == "before-acquire hook 10-bad failed with exit code 3: not here"
    assert hooks.said() == []


def test_elsewhere_the_others_run_all_the_same(hooks: Written):
    hooks.put(Hook.AFTER_RELEASE, "10-bad", "kill -9 $$")
    hooks.put(Hook.AFTER_RELEASE, "20-next", f"echo next >> {hooks.out}; exit 1")
    outcome = hooks.run(Hook.AFTER_RELEASE)
    assert outcome.text == "after-release hook 10-bad failed with signal 9 (and 1 more)"
    assert hooks.said() == ["next"]


def test_one_that_does_not_end_is_ended_with_all_that_it_started(hooks: Written):
    hooks.put(Hook.AFTER_MOUNT, "10-slow", f"sleep 300 & echo $! > {hooks.out}; echo waiting; wait")
    outcome = hooks.run(Hook.AFTER_MOUNT, hook_s=0.5)
    assert (outcome.failure, outcome.text) == (
        Failure.TIMEOUT,
        "after-mount hook 10-slow did not end within 0.5 s: waiting",
    )
    state = Path(f"/proc/{hooks.said()[0]}/stat")
    until(lambda: not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z", "the sleep has ended")


def test_all_that_stands_in_front_of_a_release_shares_one_time_out(hooks: Written):
    hooks.put(Hook.BEFORE_RELEASE, "10-slow", "sleep 300")
    hooks.put(Hook.BEFORE_RELEASE, "20-next", f"echo next >> {hooks.out}")
    outcome = hooks.run(Hook.BEFORE_RELEASE, hook_s=0.3)
    assert "10-slow did not end" in outcome.text
    assert "(and 1 more)" in outcome.text
    assert hooks.said() == []
    hooks.put(Hook.AFTER_RELEASE, "10-slow", "sleep 300")
    hooks.put(Hook.AFTER_RELEASE, "20-next", f"echo next >> {hooks.out}")
    hooks.run(Hook.AFTER_RELEASE, hook_s=0.3)
    assert hooks.said() == ["next"]


def test_output_goes_to_the_log_line_by_line_and_bounded(hooks: Written, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "awsha")
    hooks.put(
        Hook.AFTER_ACQUIRE, "10-talks", "seq 1 300; printf 'red \\033[31m\\n'; head -c 2000 /dev/zero | tr '\\0' x"
    )
    assert hooks.run(Hook.AFTER_ACQUIRE).ok
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 101
    assert lines[0] == "data: after-acquire hook 10-talks: (202 lines before these are left out)"
    assert lines[-2] == "data: after-acquire hook 10-talks: red ?[31m"
    assert lines[-1] == "data: after-acquire hook 10-talks: " + "x" * 500


def test_it_is_ended_once_it_is_not_wanted_any_more(hooks: Written):
    begun = hooks.folder / "begun"
    hooks.put(Hook.BEFORE_ACQUIRE, "10-slow", f"touch {begun}; sleep 300")
    hooks.put(Hook.BEFORE_ACQUIRE, "20-next", f"echo next >> {hooks.out}")
    outcome = hooks.run(Hook.BEFORE_ACQUIRE, unwanted=lambda: "no longer master" if begun.exists() else None)
    assert (outcome.failure, outcome.text) == (
        Failure.REFUSED,
        "before-acquire hook 10-slow was ended: no longer master",
    )
    assert hooks.said() == []


def test_a_program_can_be_given_up():
    with pytest.raises(RunGivenUp) as caught:
        run(["sh", "-c", "echo so far; sleep 300"], LONG_S, give_up=lambda: True)
    assert caught.value.stdout == "so far\n"
    assert run(["true"], LONG_S, give_up=lambda: False).returncode == 0


# --- what is refused -------------------------------------------------------------------------------------------


def unsafe(path: Path, change: str) -> str:
    """Make a hook unsafe; the part that is refused."""
    match change:
        case "file by others":
            path.chmod(0o757)
        case "file by a group":
            path.chmod(0o775)
        case "file of somebody":
            os.chown(path, 65534, 0)
        case "folder by others":
            path.parent.chmod(0o777)
            return str(path.parent)
        case "sticky folder by others":
            path.parent.chmod(0o1777)
            return str(path.parent)
        case "group's folder":
            path.parent.parent.chmod(0o1777)
            return str(path.parent.parent)
        case "hooks folder of somebody":
            os.chown(path.parents[2], 65534, 0)
            return str(path.parents[2])
        case "link of somebody":
            target = path.rename(path.parents[3] / "target")
            path.symlink_to(target)
            os.chown(path, 65534, 65534, follow_symlinks=False)
        case "link to somebody's":
            target = path.rename(path.parents[3] / "target")
            path.symlink_to(target)
            target.chmod(0o777)
            return str(target)
        case "link to nowhere":
            path.unlink()
            path.symlink_to("/no/such/program")
    return str(path)


UNSAFE = (
    "file by others", "file by a group", "file of somebody", "folder by others", "sticky folder by others",
    "group's folder", "hooks folder of somebody", "link of somebody", "link to somebody's", "link to nowhere",
)  # fmt: skip


@pytest.mark.parametrize("change", UNSAFE)
def test_what_others_could_replace_is_never_run(hooks: Written, change: str):
    path = hooks.put(Hook.BEFORE_ACQUIRE, "10-x", f"echo run >> {hooks.out}")
    assert hook_refused(path) is None
    assert inspect(frozenset({"data"})) == ()
    part = unsafe(path, change)
    outcome = hooks.run(Hook.BEFORE_ACQUIRE)
    assert (outcome.ok, outcome.failure, hooks.said()) == (False, Failure.OTHER, [])
    assert outcome.text.startswith(f"before-acquire hook 10-x is not run: {part} ")
    assert part in outcome.hint
    found = inspect(frozenset({"data"}))
    assert [(bool(f.refused), bool(f.hint), f.ignored) for f in found] == [(True, True, "")]


@pytest.mark.parametrize("what", ["link", "file"])
def test_a_point_that_is_no_folder_fails_and_is_found(hooks: Written, what: str):
    """Nothing of it can be run; an acquisition that should have been stopped by it must not go on in silence."""
    place = hooks.hooks.folder / "before-acquire.d"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to("/nowhere") if what == "link" else place.write_text("")
    assert Hook.BEFORE_ACQUIRE in hooks.hooks.points()
    told = hooks.hooks.run(Hook.BEFORE_ACQUIRE, {}, wanted)
    assert (told.ok, "no directory" in told.text, str(place) in told.hint) == (False, True, True)
    assert [file.path for file in inspect(frozenset({GROUP.name}))] == [str(place)]


@pytest.mark.parametrize("level", ["root", "group"])
def test_a_file_in_the_place_of_the_hooks_is_found(hooks: Written, level: str):
    place = hooks.hooks.folder if level == "group" else hooks.hooks.root
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        place.rmdir()
    place.write_text("")
    assert [file.path for file in inspect(frozenset({GROUP.name}))] == [str(place)]


def test_a_link_to_a_program_of_root_is_run(hooks: Written):
    path = hooks.put(Hook.AFTER_ACQUIRE, "10-x", f"echo run >> {hooks.out}")
    path.symlink_to(path.rename(hooks.folder / "target"))
    assert hooks.run(Hook.AFTER_ACQUIRE).ok
    assert hooks.said() == ["run"]


def test_a_check_names_what_is_never_run(hooks: Written):
    hooks.put("after-aquire", "10-typo", "")
    hooks.put(Hook.AFTER_ACQUIRE, "10-off", "", 0o644)
    hooks.put(Hook.AFTER_ACQUIRE, "x y", "")
    hooks.put(Hook.AFTER_ACQUIRE, "10-good", "")
    hooks.put(Hook.AFTER_ACQUIRE, "10-good~", "")
    (hooks.folder / "hooks" / "daat").mkdir()
    found = {Path(f.path).name: f.ignored for f in inspect(frozenset({"data"}))}
    assert found.keys() == {"after-aquire.d", "10-off", "x y", "daat"}
    assert all(found.values())


# --- which points there are ------------------------------------------------------------------------------------


def test_points_are_seen_when_they_come_and_go(hooks: Written):
    assert hooks.hooks.points() == frozenset()
    path = hooks.put(Hook.AFTER_MOUNT, "10-x", "")
    assert hooks.hooks.points() == {Hook.AFTER_MOUNT}
    hooks.put(Hook.ON_FENCED, "10-x", "")
    hooks.put("something-else", "10-x", "")
    assert hooks.hooks.points() == {Hook.AFTER_MOUNT, Hook.ON_FENCED}
    path.unlink()
    path.parent.rmdir()
    assert hooks.hooks.points() == {Hook.ON_FENCED}
    (hooks.folder / "hooks").rename(hooks.folder / "away")
    assert hooks.hooks.points() == frozenset()


def test_names_are_read_again_only_after_a_change_and_while_it_is_new(hooks: Written):
    listed: list[Path] = []

    def names(folder: Path) -> list[str]:
        listed.append(folder)
        return os.listdir(folder)  # noqa: PTH208

    hooks.put(Hook.AFTER_MOUNT, "10-x", "")
    now = [time.time()]
    seen = Hooks(GROUP, names=names, wall=lambda: now[0])
    assert [seen.points(), seen.points(), len(listed)] == [{Hook.AFTER_MOUNT}, {Hook.AFTER_MOUNT}, 2], "it is new"
    now[0] += 3600
    assert [seen.points(), seen.points(), len(listed)] == [{Hook.AFTER_MOUNT}, {Hook.AFTER_MOUNT}, 3]
    hooks.put(Hook.ON_FENCED, "10-x", "")
    assert seen.points() == {Hook.AFTER_MOUNT, Hook.ON_FENCED}


# --- the executor ----------------------------------------------------------------------------------------------


@pytest.fixture
def executor() -> Executor:
    deaf = SimpleNamespace(heard=lambda _group: {})
    group = replace(GROUP, timeouts=Timeouts(hook_s=LONG_S))
    return Executor(group, ME, cast(Any, None), cast(Any, None), Marks("data"), cast(Any, deaf), Hooks(group))


def test_the_executor_marks_what_has_run_and_what_only_warns(hooks: Written, executor: Executor):
    notify.record("master", "data")
    planned = intents.newest("data")
    assert executor.run(RunHooks(Hook.BEFORE_ACQUIRE), planned) == Outcome(True, "there are none")
    hooks.put(Hook.AFTER_MOUNT, "10-bad", "exit 1")
    hooks.put(Hook.AFTER_ACQUIRE, "10-bad", "exit 1")
    assert not executor.run(RunHooks(Hook.AFTER_MOUNT), planned).ok
    assert not executor.run(RunHooks(Hook.AFTER_ACQUIRE), planned).ok
    assert executor.marks.all() == {mark_of(Hook.BEFORE_ACQUIRE), mark_of(Hook.AFTER_ACQUIRE)}
    executor.run(NoteHooks(mark_of(Hook.AFTER_ACQUIRE), present=False), planned)
    assert executor.marks.all() == {mark_of(Hook.BEFORE_ACQUIRE)}


def test_the_executor_ends_the_hooks_of_an_acquisition_with_the_role(hooks: Written, executor: Executor):
    begun = hooks.folder / "begun"
    hooks.put(Hook.BEFORE_ACQUIRE, "10-slow", f"mkfifo {begun}; cat {begun}; sleep 300")
    notify.record("master", "data")
    planned, outcomes = intents.newest("data"), []
    thread = threading.Thread(target=lambda: outcomes.append(executor.run(RunHooks(Hook.BEFORE_ACQUIRE), planned)))
    thread.start()
    until(begun.exists, "it runs")
    begun.write_text("it runs\n")
    executor.marks.put(PAUSED)  # a pause ends nothing that runs
    executor.marks.put(FENCED)
    thread.join(LONG_S)
    assert [(o.ok, o.failure) for o in outcomes] == [(False, Failure.REFUSED)]
    assert "fenced" in outcomes[0].text
    assert executor.marks.all() == {PAUSED, FENCED}


def test_the_executor_runs_nothing_for_a_role_that_is_over(hooks: Written, executor: Executor):
    hooks.put(Hook.AFTER_MOUNT, "10-x", f"echo run >> {hooks.out}")
    notify.record("master", "data")
    planned = intents.newest("data")
    notify.record("backup", "data")
    assert executor.run(RunHooks(Hook.AFTER_MOUNT), planned).failure is Failure.REFUSED
    assert hooks.said() == []
