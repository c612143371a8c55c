"""`awsha notify`: whatever it is given, and however it is treated, a role that keepalived named is never lost."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from awsha import notify
from awsha.agent import intent
from awsha.core.model import Role
from awsha.host.clock import boot_id, boottime
from tests.adapters.one_node import CONFIG, GROUP, Answering, answering, intents, until

PEOPLE = [HealthCheck.function_scoped_fixture]
WORDS = st.binary(max_size=12).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"")))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An own run directory and configuration; umask as it was, afterwards."""
    (tmp_path / "awsha.toml").write_text(CONFIG)
    monkeypatch.setenv("AWSHA_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("AWSHA_CONFIG", str(tmp_path / "awsha.toml"))
    before = os.umask(0o022)
    yield tmp_path / "run"
    os.umask(before)


@pytest.fixture
def agent(run: Path) -> Iterator[Answering]:
    """An agent that answers, so that no converge is started."""
    with answering(run) as agent:
        yield agent


def environment(run: Path, **more: str) -> dict[str, str]:
    """What keepalived's scripts have, and no more."""
    return {"AWSHA_RUN_DIR": str(run), "AWSHA_CONFIG": str(run.parent / "awsha.toml"), **more}


def as_child(act: Callable[[], int], parent_says: int = -1) -> int:
    """Fork; the child does it and exits with what it returns. With `parent_says`, once that pipe is closed."""
    pid = os.fork()
    if pid == 0:
        code = 70
        with suppress(BaseException):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # should the test fail, it does not wait for ever
            if parent_says >= 0:
                os.read(parent_says, 1)
            code = act()
        os._exit(code)
    return pid


def ended(pid: int) -> int:
    """Exit code of a child."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# --- arguments and environment ---


@pytest.mark.parametrize(
    ("word", "role"),
    [
        ("master", Role.MASTER),
        ("BACKUP", Role.BACKUP),
        ("Fault", Role.FAULT),
        ("stop", Role.STOP),
        ("DELETED", Role.STOP),
        ("master_rx_lower_pri", Role.MASTER),
        ("MASTER_RX_LOWER_PRI", Role.MASTER),
    ],
)
@pytest.mark.usefixtures("run")
def test_case_09_every_word_of_keepalived_is_a_role(agent: Answering, word: str, role: Role):
    assert notify.main([word, GROUP]) == 0
    found = intent.newest(GROUP)
    assert found is not None
    assert (found.role, found.boot_id) == (role, boot_id())
    assert found.recorded_at <= boottime()
    assert agent.asked == [f"wake {GROUP}"]
    assert notify.main([word, GROUP, "INSTANCE", "data", "MASTER", "150"]) == 0, "words that keepalived appends"


@given(argv=st.lists(st.one_of(WORDS, st.sampled_from(["master", "STOP", GROUP, "-h", "..", "a/b"])), max_size=6))
@settings(max_examples=200, deadline=None, suppress_health_check=PEOPLE)
def test_any_arguments_are_recorded_or_refused(run: Path, agent: Answering, argv: list[str]):
    asked = len(agent.asked)
    code = notify.main(argv)
    good = len(argv) > 1 and argv[0].lower() in notify.ROLES and argv[1] == GROUP
    helped = argv[:1] in (["-h"], ["--help"])
    assert code == (0 if good or helped else 1)
    assert len(agent.asked) == asked + good
    assert set(intents(run).values()) <= set(notify.ROLES.values())


def test_a_refusal_says_why_and_records_nothing(run: Path, agent: Answering, capfd: pytest.CaptureFixture[str]):
    assert (notify.main([]), notify.main(["masters", GROUP]), notify.main(["master", "date"])) == (1, 1, 1)
    told = capfd.readouterr().err
    assert told.count("Nothing was recorded") == 3
    assert "'date'" in told
    assert (intents(run), agent.asked) == ({}, [])


BROKEN = {
    "no toml": b"[[group]\nname =",
    "no text": b"\xff\xfe\0group",
    "too deep": b"x = " + b"[" * 100_000,
    "empty": b"",
    "a number": b"group = 5",
    "a list of numbers": b"group = [5, 'data', []]",
    "no names": b"[[group]]\nname = ['data']\n",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
@pytest.mark.usefixtures("agent")
def test_whatever_the_configuration_holds_there_is_no_traceback(run: Path, text: bytes):
    (run.parent / "awsha.toml").write_bytes(text)
    assert notify.main(["master", GROUP]) in (0, 1)
    assert notify.main(["master", "../x"]) == 1
    assert not (run / "x").exists()


@pytest.mark.parametrize("what", ["no toml", "no text", "too deep"])
@pytest.mark.usefixtures("agent")
def test_a_file_that_cannot_be_read_costs_no_role(run: Path, what: str):
    """An editor's half-written awsha.toml at the moment of a failover: the role is taken on trust."""
    (run.parent / "awsha.toml").write_bytes(BROKEN[what])
    assert notify.main(["master", GROUP]) == 0
    assert list(intents(run).values()) == ["master"]
    assert notify.main(["master", "no/group"]) == 1


@pytest.mark.usefixtures("agent")
def test_the_agents_list_of_groups_needs_no_configuration(run: Path):
    (run.parent / "awsha.toml").unlink()
    assert notify.main(["master", GROUP]) == 1
    (run / "groups" / GROUP).mkdir(parents=True)
    assert notify.main(["master", GROUP]) == 0


@pytest.mark.parametrize("where", ["/dev/null", "/proc/self", "file", "\udcff", "x" * 5000])
def test_a_run_directory_that_cannot_be_is_said(run: Path, monkeypatch: pytest.MonkeyPatch, where: str):
    (run.parent / "file").write_text("")
    monkeypatch.chdir(run.parent)
    monkeypatch.setenv("AWSHA_RUN_DIR", where + "/x" if where == "file" else where)
    if where == "\udcff":
        monkeypatch.setenv("AWSHA_RUN_DIR", str(run.parent / where))
        with answering(run.parent / where):
            assert notify.main(["master", GROUP]) == 0
        return
    assert notify.main(["master", GROUP]) == 1


def test_a_relative_run_directory_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch):
    """keepalived starts its scripts in another directory than the agent runs in."""
    monkeypatch.chdir(run.parent)
    monkeypatch.setenv("AWSHA_RUN_DIR", "run")
    assert notify.main(["master", GROUP]) == 1
    assert not run.exists()


@pytest.mark.usefixtures("agent")
def test_case_10_a_stripped_environment_and_the_umask_of_keepalived(run: Path):
    argv = [sys.executable, "-m", "awsha", "notify", "master", GROUP, "INSTANCE", "data", "MASTER", "150"]
    done = subprocess.run(
        argv, env=environment(run), cwd="/", umask=0o177, stdin=subprocess.DEVNULL, capture_output=True, timeout=30,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert list(intents(run).values()) == ["master"]
    for path in (run / "intent", run / "intent" / GROUP):
        assert path.stat().st_mode & 0o777 == 0o700, "a directory made under umask 0177 could not be used"
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (run / "intent" / GROUP).iterdir())


# --- order ---


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.usefixtures("agent")
def test_case_01_whatever_order_they_write_in_the_last_fork_wins(run: Path, order: tuple[int, ...]):
    """MASTER, BACKUP, FAULT are forked in this order, and come to write in any other."""
    roles = ["master", "backup", "fault"]
    pipes = [os.pipe() for _ in roles]
    pids = [as_child(lambda r=role: notify.main([r, GROUP]), pipes[i][0]) for i, role in enumerate(roles)]
    written: list[int] = []
    try:
        for turn in order:
            os.write(pipes[turn][1], b"x")
            assert ended(pids[turn]) == 0
            written.append(turn)
            found = intent.newest(GROUP)
            assert found is not None
            assert found.role == roles[max(written)], "the newest of those that have written, never an older one"
            assert len(intents(run)) == 1
    finally:
        for reader, writer in pipes:
            os.close(reader)
            os.close(writer)


@pytest.mark.usefixtures("agent")
def test_a_crowd_at_once_leaves_the_last_fork_alone(run: Path):
    reader, writer = os.pipe()
    roles = [("master", "backup", "fault", "stop")[n % 4] for n in range(16)]
    pids = [as_child(lambda r=role: notify.main([r, GROUP]), reader) for role in roles]
    os.write(writer, b"x" * len(pids))
    assert {ended(pid) for pid in pids} == {0}
    os.close(reader)
    os.close(writer)
    assert list(intents(run).values()) == ["stop"]
    assert f"-{pids[-1]:08d}" in next(iter(intents(run)))


@pytest.mark.usefixtures("run", "agent")
def test_case_02_a_script_that_starts_late_is_still_an_old_one():
    """keepalived forked MASTER, then BACKUP; MASTER was not scheduled until long after."""
    reader, writer = os.pipe()
    late = as_child(lambda: notify.main(["master", GROUP]), reader)
    assert ended(as_child(lambda: notify.main(["backup", GROUP]))) == 0
    os.write(writer, b"x")
    assert ended(late) == 0
    os.close(reader)
    os.close(writer)
    found = intent.newest(GROUP)
    assert found is not None
    assert found.role is Role.BACKUP


# --- what lies about in the directory ---


def stray(run: Path, name: str, text: str = "") -> Path:
    """A file among the intents."""
    folder = run / "intent" / GROUP
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


OTHER_BOOT = "00000000-0000-4000-8000-000000000000"
STRAY = {
    "an intent of another boot": ("9999999999999999-00000042", f"backup {OTHER_BOOT} 5.0 0 0\n"),
    "garbage under an intent's name": ("9999999999999999-00000042", "\xff\x00garbage"),
    "nothing under an intent's name": ("9999999999999999-00000042", ""),
    "an unknown role": ("9999999999999999-00000042", "primary {boot} 5.0 0 0\n"),
    "somebody's backup copy": ("zzz~", "backup {boot} 5.0 0 0\n"),
    "a name without a pid": ("9999999999999999", "backup {boot} 5.0 0 0\n"),
    "digits of another script": ("٩٩٩٩٩٩٩٩٩٩٩٩٩٩٩٩-٠٠٠٠٠٠٤٢", "backup {boot} 5.0 0 0\n"),
}


@pytest.mark.parametrize("what", STRAY)
@pytest.mark.usefixtures("agent")
def test_case_17_what_is_no_intent_of_this_boot_never_outlives_or_outranks_a_real_one(run: Path, what: str):
    name, text = STRAY[what]
    stray(run, name, text.format(boot=boot_id()))
    for role in ("master", "backup"):
        assert notify.main([role, GROUP]) == 0
        found = intent.newest(GROUP)
        assert found is not None, "the intent that was just recorded was thrown away"
        assert found.role == role


def test_case_01_of_two_that_are_still_there_the_last_fork_counts_whenever_they_wrote(run: Path):
    """A script that has written, and has not removed the older one yet."""
    stray(run, "0000000000000100-00000042", f"backup {boot_id()} 5.0 0 0\n")
    stray(run, "0000000000000099-00000043", f"master {boot_id()} 9.0 0 0\n")
    found = intent.newest(GROUP)
    assert found is not None
    assert found.role is Role.BACKUP


def test_a_directory_or_a_file_in_the_way(run: Path, agent: Answering, capfd: pytest.CaptureFixture[str]):
    (run / "intent" / GROUP / "9999999999999999-00000042").mkdir(parents=True)
    assert notify.main(["master", GROUP]) == 0
    found = intent.newest(GROUP)
    assert found is not None
    assert found.role is Role.MASTER
    assert agent.asked == [f"wake {GROUP}"]
    subprocess.run(["rm", "-r", str(run / "intent")], check=True)
    (run / "intent").write_text("")
    assert notify.main(["master", GROUP]) == 1
    assert "can't record master" in capfd.readouterr().err
    assert intent.newest(GROUP) is None


@pytest.mark.usefixtures("agent")
def test_a_crash_between_write_and_rename_leaves_the_last_word_in_force(run: Path):
    assert notify.main(["master", GROUP]) == 0
    stray(run, ".9999999999999999-00000042", "backup ")
    found = intent.newest(GROUP)
    assert found is not None
    assert found.role is Role.MASTER
    assert ended(as_child(lambda: notify.main(["backup", GROUP]))) == 0
    found = intent.newest(GROUP)
    assert found is not None
    assert found.role is Role.BACKUP


@given(name=st.text(alphabet="0123456789-_+ eE.", max_size=26), text=st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_file_is_an_intent_or_none(name: str, text: str):
    found = intent.parse(name, text)
    assert found is None or (found.role in Role and found.order >= (0, 0))


# --- how it is treated ---


def test_case_03_the_role_is_on_record_before_anything_is_waited_for(run: Path):
    """keepalived gives notify_stop a second, then SIGTERM and SIGKILL. The agent is frozen: it takes the connection
    (the kernel does) and never answers."""
    with answering(run) as agent:
        seen: list[dict[str, str]] = []

        def killed_now() -> None:
            seen.append(intents(run))
            os.killpg(script.pid, signal.SIGKILL)

        agent.before_answer = killed_now
        argv = [sys.executable, "-m", "awsha", "notify", "stop", GROUP]
        script = subprocess.Popen(argv, env=environment(run), start_new_session=True)
        assert script.wait(30) in (-signal.SIGKILL, 0)
        assert [list(at_that_moment.values()) for at_that_moment in seen] == [["stop"]]
        assert list(intents(run).values()) == ["stop"]


def detached(run: Path, before: str = "") -> tuple[int, Path]:
    """Run notify, with no agent there, with an interpreter of the test's own for the converge: it notes who it is,
    waits for a word, and notes that it lived on. Returns the exit code and its notes."""
    notes = run.parent / "notes"
    program = run.parent / "python"
    go, said = run.parent / "go", "$$ $(cut -d' ' -f6 /proc/$$/stat) $(umask) $*"
    program.write_text(
        f'#!/bin/sh\necho "{said}" > {notes}.new; mv {notes}.new {notes}\n'
        f"for i in $(seq 1000); do [ -e {go} ] && break; sleep 0.05; done; echo lived > {notes}.lived\n"
    )
    program.chmod(0o755)
    code = (
        f"import sys, os, ctypes; sys.executable = {str(program)!r}\n{before}\n"
        "from awsha import notify; sys.exit(notify.main(['stop', 'data']))"
    )
    script = subprocess.Popen(
        [sys.executable, "-c", code], env=environment(run, PATH="/usr/bin:/bin"), start_new_session=True
    )
    returned = script.wait(30)
    until(notes.exists, "the converge was started")
    with suppress(ProcessLookupError):
        os.killpg(script.pid, signal.SIGKILL)  # what keepalived does to the group of a script that took too long
    return returned, notes


@pytest.mark.parametrize("agent_is", ["absent", "silent", "a dead socket"])
def test_without_an_answer_a_converge_is_started_in_a_session_of_its_own_and_lives_on(run: Path, agent_is: str):
    """PR_SET_PDEATHSIG, as keepalived sets it, dies with the script; the group is killed; the converge lives."""
    death_signal = "ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)"
    if agent_is == "silent":
        with answering(run) as agent:
            agent.before_answer = lambda: until((run.parent / "notes").exists, "it gave up waiting")
            code, notes = detached(run, death_signal)
    else:
        if agent_is == "a dead socket":
            with answering(run) as agent:
                agent.path.rename(run / "kept")
            (run / "kept").rename(run / "agent.sock")
        code, notes = detached(run, death_signal)
    pid, session, umask, *argv = notes.read_text().split()
    assert (code, pid, umask) == (0, session, "0077"), "its own session"
    assert argv[-4:] == ["-m", "awsha", "converge", GROUP]
    assert "-I" in argv, "nothing of the environment or the working directory is imported"
    (run.parent / "go").write_text("")
    until(notes.with_suffix(".lived").exists, "it lived on")
    assert list(intents(run).values()) == ["stop"]


def test_a_converge_that_cannot_be_started_is_said_and_the_role_is_kept(run: Path, capfd: pytest.CaptureFixture[str]):
    (run / f"converge-{GROUP}.log").mkdir(parents=True)
    assert notify.main(["master", GROUP]) == 0, "recorded: the exit code says no more"
    assert list(intents(run).values()) == ["master"]
    assert "converge" in capfd.readouterr().err


def test_the_configuration_may_be_named_in_front(run: Path, tmp_path: Path):
    """As with every other command: `awsha --config FILE notify …`, with a group that only this file knows."""
    file = tmp_path / "other.toml"
    file.write_text('[[group]]\nname = "elsewhere"\nvirtual_router_id = 9\n')
    environment = {**os.environ, "AWSHA_RUN_DIR": str(run), "AWSHA_CONFIG": str(tmp_path / "none.toml")}
    argv = [sys.executable, "-m", "awsha", "--config", str(file), "notify", "stop"]
    for group, code in (("elsewhere", 0), ("nowhere", 1)):
        told = subprocess.run(
            [*argv, group], env=environment, capture_output=True, text=True, check=False, timeout=20, cwd="/"
        )
        assert (told.returncode, "nowhere" in told.stderr) == (code, bool(code)), told.stderr
