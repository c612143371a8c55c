"""Status on a screen, wide and narrow; the last transition in it; and the word that a node says to its peers."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from awsha.agent import history, ledger
from awsha.agent.assembly import Place
from awsha.agent.report import by_hand, by_node, group_report, severity
from awsha.agent.saying import BETWEEN_S, DENIED_S, SETTLED_S, Saying
from awsha.aws.errors import Ec2Error
from awsha.cli.render import Fitted, status_view
from awsha.cli.status import looked, watched
from awsha.core.errors import AwshaError
from awsha.core.health import Verdict
from awsha.core.loop import Ambient
from awsha.core.model import CloudFacts, Role, Said
from awsha.core.plan import PAUSED, RELEASED, plan
from awsha.core.situation import Situation
from awsha.core.transition import Cause, End, Transition
from tests.core.situations import ME, VIP, VOL, WALL, A, B, instances, serving, volume
from tests.core.test_loop import Bench
from tests.core.test_readiness import standby
from tests.core.test_transition import HELD, NOTHING

LAST = {
    "id": "data-20261122T233441", "cause": "MASTER, was BACKUP", "began": "2026-11-22T23:34:41Z", "s_ago": 725.0,
    "took_s": 8.43, "goal": "master", "end": "converged", "text": "everything is here",
}  # fmt: skip


def screen(s: Situation, width: int, *, every: bool = False, **more: Any) -> str:
    """What a terminal of this width shows."""
    told = group_report(s, plan(s), Verdict(True)) | {"last_transition": LAST} | more
    told["severity"] = severity(told)
    if every:
        told["nodes"] = by_node(told)
    console = Console(width=width, file=io.StringIO(), force_terminal=False, highlight=False)
    view = {"node": "a", "observed_at": "2026-11-22T23:46:46Z", "agent": True, "unknown": [], "groups": [told]}
    console.print(status_view(view, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def with_peer(said: Said | None) -> Situation:
    nodes = instances(frozenset({VIP}))
    nodes[B] = replace(nodes[B], said=said)
    return serving(cloud=CloudFacts({VOL: volume((A, "attached"))}, nodes))


def squeezed(shown: str) -> str:
    """Without the frame and the line breaks."""
    return " ".join(shown.replace("│", " ").split())


@pytest.mark.parametrize("width", [44, 60, 80, 100, 160])
def test_status_fits_any_terminal_and_nothing_is_cut_off(width: int):
    for s in (with_peer(Said(WALL - 720, (("data", "ready"),))), standby()):
        shown = screen(s, width, every=True)
        assert max(map(len, shown.splitlines())) <= width
        assert "…" not in shown
        for word in ("VRRP", "health", "address", VIP, "volume", VOL, "takeover", "last", "12 min ago"):
            assert word in shown, f"{word} is missing at {width}\n{shown}"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_watch_shows_each_look_also_where_no_terminal_is(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("awsha.cli.status.WATCH_S", 0.0)
    looks = iter(["first", "second"])

    def look() -> dict[str, Any]:
        text = next(looks, None)
        if text is None:
            raise KeyboardInterrupt
        return {"node": "a", "observed_at": "", "agent": True, "unknown": [text], "groups": []}

    assert watched(look) == 3
    shown = capsys.readouterr().out
    assert shown.index("unknown: first") < shown.index("unknown: second")
    assert ("\x1b" in shown) is terminal


def test_a_watch_for_programs_is_a_line_a_look(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("awsha.cli.status.WATCH_S", 0.0)
    texts = iter(["first", "second"])

    def look() -> dict[str, Any]:
        if (text := next(texts, None)) is None:
            raise KeyboardInterrupt
        return {"node": "a", "unknown": [text], "groups": []}

    assert watched(look, as_json=True) == 3
    assert [json.loads(line)["unknown"] for line in capsys.readouterr().out.splitlines()] == [["first"], ["second"]]


@pytest.mark.parametrize("height", [10, 24, 200])
def test_a_watch_says_what_does_not_fit_and_how_bad_it_is(height: int):
    told = group_report(standby(), plan(standby()), Verdict(True)) | {"severity": 0}
    groups = [told, told | {"name": "other", "severity": 2}]
    view = {"node": "a", "observed_at": "", "agent": True, "unknown": [], "groups": groups}
    console = Console(width=60, height=height, file=io.StringIO(), force_terminal=False, highlight=False)
    console.print(Fitted(view, 60, 2), end="")
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) <= height
    assert ("more lines, worst: CRITICAL; all: awsha status" in lines[-1]) is (height < 200)


def test_a_watch_on_a_low_terminal_cuts_nothing_off_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for name, value in {"TERM": "xterm", "LINES": "10", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("awsha.cli.status.WATCH_S", 0.0)
    looks = iter([[f"line {number}" for number in range(50)]])

    def look() -> dict[str, Any]:
        text = next(looks, None)
        if text is None:
            raise KeyboardInterrupt
        return {"node": "a", "observed_at": "", "agent": True, "unknown": text, "groups": []}

    assert watched(look) == 3
    assert "… 41 more lines, worst: UNKNOWN; all: awsha status" in capsys.readouterr().out


def test_what_an_operator_asked_for_says_who_and_since_when():
    """Not since when this agent knows it: that may have been started again since."""
    s = serving(host=replace(serving().host, marks=frozenset({PAUSED})))
    told = group_report(s, plan(s), Verdict(True))
    by_hand(told, {PAUSED: ("alice", WALL - 7200)}.get, WALL)
    shown = squeezed(screen(s, 160, waiting=told["waiting"]))
    assert (
        "paused by an operator: looking only, whatever keepalived says by alice, 2 h ago (2027-01-15T06:00:00Z)"
        in shown
    )
    assert {k: told["waiting"][0][k] for k in ("by", "since", "for_s")} == {
        "by": "alice", "since": "2027-01-15T06:00:00Z", "for_s": 7200.0,
    }  # fmt: skip
    by_hand(told, {}.get, WALL)


def test_who_may_not_look_knows_nothing_and_is_no_warning():
    def look() -> dict[str, Any]:
        raise PermissionError(13, "Permission denied", "/run/awsha/marks/data")

    with pytest.raises(AwshaError, match="/run/awsha/marks/data: Permission denied") as told:
        looked(look)
    assert (told.value.exit_code, told.value.hint) == (3, "run it as root")


def test_a_master_says_what_is_known_of_its_peer_and_no_more():
    shown = squeezed(screen(with_peer(Said(WALL - 720, (("data", "ready"),))), 160))
    assert "can't tell from here whether b takes over if the master dies now" in shown
    assert "12 min ago it said that it is ready" in shown
    shown_paused = squeezed(screen(with_peer(Said(WALL - 9, (("data", "paused"),))), 160))
    assert "can't tell from here" in shown_paused
    assert "9 s ago it said that it is not ready (paused), and nothing else since" in shown_paused
    assert "MASTER, was BACKUP → converged after 8.43 s" in shown


def test_a_standby_says_who_is_master_and_that_it_is_ready():
    shown = squeezed(screen(standby(), 160))
    assert "BACKUP, b is master" in shown
    assert f"ready: if the master dies now, this node takes over, and begins with stop-instance ({B})" in shown


def test_all_says_that_another_nodes_host_can_not_be_seen_here():
    shown = squeezed(screen(standby(), 160, every=True))
    assert f"b running ({B}) {VIP}, {VOL} none" in shown
    assert "awsha status there says the rest" in shown
    assert "awsha status there" not in squeezed(screen(standby(), 160))


# --- the last transition ----------------------------------------------------------------------------------------------


def test_the_last_transition_is_the_last_line_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWSHA_STATE_DIR", str(tmp_path))
    assert history.last("data") is None
    done = Transition("data-1", "data", "a", "r:1:1", 1e9, Cause("role", "MASTER"), "master", "master", End.CONVERGED)
    book = ledger.Ledger("data")
    book.append([done, replace(done, id="data-2", end=End.UNDER_WAY)])
    with (ledger.folder() / "data.jsonl").open("ab") as file:
        file.write(b'{"id": "half a li')
    last = history.last("data")
    assert last is not None
    assert (last.id, last.end) == ("data-2", End.INTERRUPTED), "its process is gone"
    assert last == history.transitions("data").transitions[-1]


# --- its word to the peers --------------------------------------------------------------------------------------------


class Told:
    """An EC2 that takes tags, or refuses them."""

    def __init__(self) -> None:
        self.tags: list[str] = []
        self.refusal: Ec2Error | None = None
        self.asked = 0

    def ask(self, action: str, params: dict[str, Any]) -> dict[str, Any]:
        assert (action, params["Resources"]) == ("CreateTags", [A])
        self.asked += 1
        if self.refusal:
            raise self.refusal
        [tag] = params["Tags"]
        assert tag["Key"] == "awsha:status"
        self.tags.append(tag["Value"])
        return {}


class Node:
    """As much of a node as is needed to say a word."""

    def __init__(self) -> None:
        self.ec2 = Told()
        self.places = {"data": Place(ME, "")}


def saying(bench: Bench, node: Node) -> tuple[Saying, list[str]]:
    said: list[str] = []
    return Saying(node, lambda: [bench.last], said.append), said  # type: ignore[arg-type]


def backup() -> Bench:
    bench = Bench(Role.BACKUP)
    bench.ambient = replace(bench.ambient, heard=standby().host.heard)
    bench.tell(**NOTHING)
    return bench


def test_a_word_is_said_once_when_it_has_settled_and_again_when_it_changes():
    bench, node = backup(), Node()
    words, _ = saying(bench, node)
    for later in (0.0, 10.0, SETTLED_S - 1):
        words.look(later, WALL)
    assert node.ec2.tags == []
    for later in (SETTLED_S, SETTLED_S + 10, 3600.0, 86400.0):
        words.look(later, WALL)
    assert node.ec2.tags == ["1800000000 data:ready"], "nothing is said again while nothing changes"
    bench.ambient = Ambient(marks=frozenset({PAUSED}), heard=bench.ambient.heard)
    bench.turn(1.0)
    words.look(90000.0, WALL + 9)  # at once: a switchover to it would leave nobody who serves
    assert node.ec2.tags[1:] == ["1800000009 data:paused"]


def test_a_word_that_comes_and_goes_is_not_said():
    bench, node = backup(), Node()
    words, _ = saying(bench, node)
    calm = bench.ambient
    for at in range(0, 600, 20):
        bench.ambient = calm if at % 40 else Ambient(marks=frozenset({RELEASED}), heard=calm.heard)
        bench.turn(1.0)
        words.look(float(at), WALL)
    assert node.ec2.asked == 0


def test_a_node_that_has_not_looked_yet_says_nothing_and_a_master_says_that_it_serves():
    node = Node()
    for bench, said in ((Bench(Role.BACKUP), []), (Bench(Role.MASTER), ["1800000000 data:serving"])):
        if said:
            bench.tell(**HELD)
        words, _ = saying(bench, node)
        for at in (0.0, SETTLED_S, 2 * SETTLED_S):
            words.look(at, WALL)
        assert node.ec2.tags == said


@pytest.mark.parametrize(
    ("code", "again_s"), [("RequestLimitExceeded", BETWEEN_S), ("UnauthorizedOperation", DENIED_S)]
)
def test_a_refusal_is_logged_once_and_it_is_tried_again_seldom(code: str, again_s: float):
    node = Node()
    node.ec2.refusal = Ec2Error("CreateTags", code, "no")
    words, logged = saying(backup(), node)
    for at in (0.0, SETTLED_S, SETTLED_S + again_s - 1):
        words.look(at, WALL)
    assert (node.ec2.asked, len(logged)) == (1, 1)
    words.look(SETTLED_S + again_s, WALL)
    assert (node.ec2.asked, len(logged)) == (2, 1)
    node.ec2.refusal = None
    words.look(SETTLED_S + 2 * again_s, WALL)
    assert node.ec2.tags == ["1800000000 data:ready"]
