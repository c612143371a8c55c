"""What a command that watches shows, and what Ctrl-C makes of it."""

from __future__ import annotations

import sys

import pytest

from awsha.agent.watch import Watch, words
from awsha.cli import progress


def interrupted(watch: Watch) -> int:
    """Work that somebody ends the watching of."""
    watch.now("unmount [/srv/data]")
    watch.now("unmount [/srv/data]")
    watch.goes_on = "the release of data goes on"
    raise KeyboardInterrupt


def test_plain_lines_say_what_is_new_and_ctrl_c_what_goes_on(capsys: pytest.CaptureFixture[str]):
    assert progress.watched(interrupted) == 130
    first, last = capsys.readouterr().out.splitlines()
    assert first.endswith(" s: unmount [/srv/data]")
    assert last == "stopped watching: the release of data goes on"


def test_ctrl_c_before_anything_was_begun_says_that(capsys: pytest.CaptureFixture[str]):
    def early(_: Watch) -> int:
        raise KeyboardInterrupt

    assert progress.watched(early) == 130
    assert capsys.readouterr().out == "interrupted: nothing was begun\n"


def test_a_terminal_gets_one_live_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert progress.watched(interrupted) == 130
    shown = capsys.readouterr().out
    assert "unmount [/srv/data]" in shown
    assert "stopped watching: the release of data goes on" in shown


def test_what_the_agent_does_in_few_words():
    def reason(code: str, text: str) -> dict[str, str]:
        return {"code": code, "text": text}

    settling = reason("settling", "EC2 accepted detach; its views do not show it yet")
    told = {
        "running": ["unmount"],
        "waiting": [reason("released", "released by an operator"), settling],
        "blocked": [reason("open-files", "123 (sleep) keeps it busy")],
    }
    assert words(told) == "unmount; 123 (sleep) keeps it busy"
    assert words({"waiting": [settling]}) == settling["text"]
    assert words({}) == ""
