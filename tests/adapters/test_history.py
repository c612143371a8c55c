"""The history on a disk: what survives a crash, a full disk, a stranger's file; and what a person sees of it."""

from __future__ import annotations

import json
import os
import threading
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from awsha.agent import history, ledger
from awsha.aws.ec2 import Ec2
from awsha.cli import picture, waterfall
from awsha.cli.history import history as command
from awsha.core.transition import Act, Cause, End, Requests, Transition, Wait, as_dict
from tests.adapters.conftest import Sandbox

PATIENCE_S = 20.0
DONE = Transition(
    id="data-20261122T231501",
    group="data",
    node="b",
    run="boot:1:1",
    began=1795389301.4,
    cause=Cause("role", "MASTER, was BACKUP", "keepalived's notify (pid 23)"),
    role="master",
    goal="master",
    end=End.CONVERGED,
    text="everything is here",
    took=8.43,
    serving_at=8.4,
    steps=(
        Act("Detach", "detach (vol-1)", "vol-1", 0.5, 0.2, False, "RequestLimitExceeded <b>&amp;", 3),
        Act("Attach", "attach (vol-1)", "vol-1", 4.0, 0.1, True),
        Act("MountVolume", "mount (vol-1)", "vol-1", 8.2, 0.1, True),
    ),
    waits=(
        Wait("grace", "a", "a is silent; it has 3 s to begin a release", 0.0, 0.5),
        Wait("attaching", "vol-1", "vol-1 is attaching", 4.1, 8.2),
        Wait("application-waits", "application", "the application waits", 0.0, 8.3),
        Wait("open-files", "vol-1", "pid 7 holds it", 8.2, 8.3, blocked=True),
    ),
    requests=(Requests("DescribeVolumes", 44, 1.9, 0.0, 8.3, {"InternalError": 2}),),
)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of this test's own."""
    monkeypatch.setenv("AWSHA_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def numbered(number: int) -> Transition:
    return replace(DONE, id=f"data-2026112{number:09}", began=DONE.began + number)


def ids(group: str = "data") -> list[str]:
    return [t.id for t in history.transitions(group).transitions]


# --- the file ---------------------------------------------------------------------------------------------------------


def test_lines_are_kept_private_and_the_last_of_a_transition_counts(state: Path):
    book = ledger.Ledger("data")
    book.append([replace(DONE, end=End.UNDER_WAY, took=0.1)])
    book.append([DONE, numbered(1)])
    assert [as_dict(t) for t in ledger.read("data").transitions] == [as_dict(DONE), as_dict(numbered(1))]
    assert (state / "history").stat().st_mode & 0o777 == 0o700
    assert (state / "history/data.jsonl").stat().st_mode & 0o777 == 0o600
    assert ledger.groups() == ["data"]


@given(st.binary(max_size=400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_list_and_the_next_line_is_kept(state: Path, content: bytes):
    file = state / "history/data.jsonl"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.write_bytes(content)
    before = ids()
    ledger.Ledger("data").append([DONE])
    assert ids() == [*(name for name in before if name != DONE.id), DONE.id]
    assert CliRunner().invoke(command, ["--json"], standalone_mode=False).exception is None


@given(st.floats(0, 1, exclude_max=True), st.binary(max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_line_that_was_cut_off_costs_only_itself(state: Path, kept: float, rubbish: bytes):
    file = state / "history/data.jsonl"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    cut = ledger.line(numbered(2)).removesuffix(b"}\n")
    file.write_bytes(ledger.line(numbered(1)) + cut[: int(kept * len(cut))] + rubbish)
    ledger.Ledger("data").append([numbered(3)])
    found = ledger.read("data")
    assert [t.id for t in found.transitions] == [numbered(1).id, numbered(3).id]


def test_it_never_grows_beyond_its_bounds(state: Path):
    book = ledger.Ledger("data")
    for number in range(600):
        book.append([numbered(number)])
    found = ids()
    assert found[-1] == numbered(599).id
    assert ledger.KEPT <= len(found) <= ledger.KEPT + ledger.SPARE
    large = replace(DONE, steps=tuple(replace(DONE.steps[1], text="x" * 400) for _ in range(200)))
    for number in range(600, 640):
        book.append([replace(large, id=numbered(number).id)])
    assert (state / "history/data.jsonl").stat().st_size <= ledger.BYTES_MOST
    assert ids()[-1] == numbered(639).id
    assert [path.name for path in (state / "history").iterdir()] == ["data.jsonl"]


def test_a_long_story_is_thinned_to_its_last_line(state: Path):
    book = ledger.Ledger("data")
    draft = replace(DONE, end=End.UNDER_WAY, steps=DONE.steps * 60)
    for _ in range(100):
        book.append([draft, numbered(1)])
    assert (state / "history/data.jsonl").stat().st_size <= ledger.BYTES_MOST
    assert ids() == [DONE.id, numbered(1).id]


@pytest.mark.parametrize("what", ["link", "directory link", "pipe", "directory", "hard link"])
def test_what_somebody_put_in_its_place_is_neither_followed_nor_waited_for(state: Path, tmp_path: Path, what: str):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "data.jsonl").write_text("precious\n")
    place = state / "history"
    if what == "directory link":
        state.mkdir()
        place.symlink_to(elsewhere)
    else:
        place.mkdir(parents=True)
        make = {
            "link": lambda: (place / "data.jsonl").symlink_to(elsewhere / "data.jsonl"),
            "pipe": lambda: os.mkfifo(place / "data.jsonl"),
            "directory": (place / "data.jsonl").mkdir,
            "hard link": lambda: (place / "data.jsonl").hardlink_to(elsewhere / "data.jsonl"),
        }
        make[what]()
    with pytest.raises(OSError, match=r"."):
        ledger.Ledger("data").append([DONE])
    assert (elsewhere / "data.jsonl").read_text() == "precious\n"
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 1, "told, not a traceback"
    assert "can't be read" in str(result.exception)


def test_a_directory_that_was_open_to_others_is_closed_and_one_of_others_is_not_used(state: Path):
    (state / "history").mkdir(parents=True)
    (state / "history").chmod(0o777)
    ledger.Ledger("data").append([DONE])
    assert (state / "history").stat().st_mode & 0o777 == 0o700
    if os.geteuid() == 0:
        os.chown(state / "history", 65534, 65534)
        with pytest.raises(OSError, match="belongs to user 65534"):
            ledger.Ledger("data").append([numbered(1)])


# --- the writer -------------------------------------------------------------------------------------------------------


def test_the_writer_keeps_all_groups_and_ends():
    said: list[str] = []
    writer = history.Writer(said.append)
    for number in range(50):
        writer.put(numbered(number))
        writer.put(replace(numbered(number), group="web"))
    writer.close(PATIENCE_S)
    assert len(ids()) == len(ids("web")) == 50
    assert said == []


def test_a_place_that_takes_nothing_is_said_once_and_its_return_too(state: Path):
    state.write_text("a file where the directory should be")
    said: list[str] = []
    told = threading.Semaphore(0)

    def say(text: str) -> None:
        said.append(text)
        told.release()

    writer = history.Writer(say)
    writer.put(numbered(1))
    assert told.acquire(timeout=PATIENCE_S)
    writer.put(numbered(2))
    writer.put(numbered(3))
    writer.close(PATIENCE_S)
    assert len(said) == 1
    assert "can't be written, and everything else goes on without it" in said[0]


def test_a_disk_that_hangs_holds_nobody_up_and_what_it_cost_is_said():
    class Hanging(ledger.Ledger):
        def append(self, transitions: list[Transition]) -> None:
            begun.set()
            assert goes_on.wait(PATIENCE_S)
            super().append(transitions)

    begun, goes_on = threading.Event(), threading.Event()
    said: list[str] = []
    writer = history.Writer(said.append)
    writer._ledgers["data"] = Hanging("data")
    writer.put(numbered(0))
    assert begun.wait(PATIENCE_S)
    for number in range(1, 1001):
        writer.put(numbered(number))
    writer.close(0.01)
    assert ids() == [], "it still hangs, and nobody waits for it"
    goes_on.set()
    writer.close(PATIENCE_S)
    assert len(ids()) == 1 + history.QUEUE_MOST
    assert said == [f"is written again; {1000 - history.QUEUE_MOST} lines of it are lost"]


def test_a_full_disk_loses_lines_and_nothing_else(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def scene() -> None:
        from tests.adapters.conftest import _call  # mount(2) in this sandbox only

        place = tmp_path / "small"
        place.mkdir()
        _call("mount", b"none", str(place).encode(), b"tmpfs", 0, b"size=16k")
        monkeypatch.setenv("AWSHA_STATE_DIR", str(place))
        book = ledger.Ledger("data")
        book.append([numbered(1)])
        ballast = place / "ballast"
        with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 512)
        with pytest.raises(OSError, match="No space"):
            book.append([numbered(n) for n in range(2, 30)])
        ballast.unlink()
        ledger.Ledger("data").append([numbered(99)])
        found = ledger.read("data")
        assert found.transitions[0].id == numbered(1).id
        assert found.transitions[-1].id == numbered(99).id

    sandbox(scene)


def test_a_transition_whose_process_is_gone_is_interrupted_and_one_that_runs_is_not():
    open_here = replace(numbered(2), run=history.this_run(), end=End.UNDER_WAY)
    lost_end = replace(numbered(1), run=history.this_run(), end=End.BLOCKED)
    ledger.Ledger("data").append([replace(DONE, end=End.UNDER_WAY), lost_end, open_here])
    told = history.transitions("data").transitions
    assert [t.end for t in told] == [End.INTERRUPTED, End.INTERRUPTED, End.UNDER_WAY]
    assert [t.text for t in told[:2]] == ["the awsha process that did it has ended", "its end was not written"]


def test_two_processes_in_one_second_are_two_transitions():
    ledger.Ledger("data").append([DONE, replace(DONE, run="boot:2:2"), replace(DONE, run="boot:3:3")])
    assert ids() == [DONE.id, f"{DONE.id}-2", f"{DONE.id}-3"]


def test_a_request_belongs_to_the_group_whose_thread_made_it():
    """Through the threads in which EC2 is read, too."""
    noted: list[tuple[str, str]] = []

    class Noting(history.Recorder):
        def request(self, action: str, seconds: float, code: str) -> None:  # noqa: ARG002
            noted.append((self._group, action))

    ec2 = Ec2("eu-west-1", observer=history.request)

    def look(group: str) -> None:
        history.RECORDER.set(Noting(None, None, None, group))  # type: ignore[arg-type]
        ec2._submit(history.request, "DescribeVolumes", 0.1, "ok").result(PATIENCE_S)

    for group in ("data", "web"):
        thread = threading.Thread(target=look, args=(group,))
        thread.start()
        thread.join(PATIENCE_S)
    history.request("DescribeVolumes", 0.1, "ok")  # of no group
    ec2.close()
    assert noted == [("data", "DescribeVolumes"), ("web", "DescribeVolumes")]


# --- what a person sees -----------------------------------------------------------------------------------------------


def invoke(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, list(words), env={"COLUMNS": "100", "TZ": "UTC"})
    return result.exit_code, result.output + (f"{result.exception}" if result.exception else "")


def test_the_list_has_the_newest_last_and_says_what_it_leaves_out():
    ledger.Ledger("data").append([numbered(n) for n in range(30)])
    code, text = invoke()
    assert code == 0
    assert text.index(numbered(28).id) < text.index(numbered(29).id)
    assert numbered(9).id not in text
    assert "10 older: awsha history -n 30" in text
    assert numbered(9).id in invoke("-n", "30")[1]
    told = json.loads(CliRunner().invoke(command, ["--json"]).stdout)
    assert [t["id"] for t in told["transitions"]] == [numbered(n).id for n in range(30)]


def test_without_a_history_it_says_so():
    assert invoke() == (0, "nothing has been recorded on this node yet\n")
    assert invoke("last")[0] == 1
    assert "nothing is recorded of a group 'x'" in invoke("--group", "x")[1]


def test_one_by_its_id_or_any_part_of_it():
    ledger.Ledger("data").append([DONE, numbered(1), numbered(2)])
    for name in (DONE.id, "231501"):
        code, text = invoke(name)
        assert code == 0
        for word in (DONE.id, "MASTER, was BACKUP", "everything is here", "8.43 s", "mount (vol-1)", "grace: a is"):
            assert word in text
        assert "RequestLimitExceeded" in text
        assert "InternalError, 2 times" in text
    assert numbered(2).id in invoke("last")[1]
    assert "fits 3 transitions" in invoke("data")[1]
    assert "no transition 'nonsense'" in invoke("nonsense")[1]
    one = json.loads(CliRunner().invoke(command, ["231501", "--json"]).stdout)
    assert one["id"] == DONE.id
    assert one["ec2_s"] == pytest.approx(4.4)


def test_bars_lie_where_they_belong():
    drawn = waterfall.rows(DONE)
    assert [row.at for row in drawn] == sorted(row.at for row in drawn)
    assert {row.label for row in drawn if row.bad} == {"detach (vol-1), 3 times", "open-files: pid 7 holds it"}


@pytest.mark.parametrize("width", [20, 80, 200])
def test_any_terminal_will_do(width: int):
    from rich.console import Console

    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(waterfall.waterfall(DONE, width))
    console.print(waterfall.listing([DONE, replace(DONE, group="web", end=End.BLOCKED)], width))
    assert all(len(line) <= width for line in console.export_text().splitlines())


def test_a_narrow_list_says_why_in_whole_words():
    from rich.console import Console

    switched = replace(DONE, id="data-20261201T025853b", cause=Cause("mark", "switched over by an operator"))
    console = Console(width=60, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(waterfall.listing([switched], 60))
    shown = console.export_text()
    assert "switched over" in shown
    assert "…" not in shown


EMPTY = replace(DONE, steps=(), waits=(), requests=(), took=0.0, serving_at=None)


@pytest.mark.parametrize("shown", [DONE, EMPTY, replace(DONE, took=1e9), replace(DONE, took=1e-9)])
def test_pictures_are_whole_and_load_nothing(shown: Transition, tmp_path: Path):
    ledger.Ledger("data").append([shown])
    svg, html = tmp_path / "x.svg", tmp_path / "x.html"
    assert invoke("last", "--svg", str(svg), "--html", str(html))[0] == 0
    root = ET.fromstring(svg.read_text())  # noqa: S314  our own
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    width = float(root.attrib["width"])
    for rect in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert 0 <= float(rect.attrib.get("x", 0)) + float(rect.attrib["width"]) <= width
    page = html.read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert ("&lt;b&gt;&amp;amp;" in page) is bool(shown.steps)


@pytest.mark.parametrize("span", [1e-9, 0.02, 1, 3.3, 8.43, 59.9, 3600, 1e9])
def test_an_axis_has_some_round_moments(span: float):
    ticks = picture.ticks(span)
    assert 4 <= len(ticks) <= 8
    assert ticks[0] == 0
    assert ticks[-1] <= span
