"""The picture of a command that watches: one live line on a terminal, plain lines with the time elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from awsha.host.clock import boottime

if TYPE_CHECKING:
    from rich.text import Text

    from awsha.agent.watch import Watch

INTERRUPTED = 130  # as a shell tells of SIGINT


def watched(work: Callable[[Watch], int]) -> int:
    """Run `work`, and show how it goes. Ctrl-C ends the watching only: then 130, and a line that says what goes on."""
    from awsha.agent.watch import Watch

    lines = _Live() if sys.stdout.isatty() else _Plain()
    watch = Watch(lines.say, lines.doing)
    try:
        return work(watch)
    except KeyboardInterrupt:
        lines.say(f"stopped watching: {watch.goes_on}" if watch.goes_on else "interrupted: nothing was begun")
        return INTERRUPTED
    finally:
        lines.close()


class _Plain:
    """For a log: each line as it comes; what is under way when it has changed, with the seconds since the start."""

    def __init__(self) -> None:
        self._began = boottime()
        self._doing = ""

    def say(self, text: str) -> None:
        click.echo(text)

    def doing(self, text: str) -> None:
        if text != self._doing:
            self._doing = text
            click.echo(f"{boottime() - self._began:.1f} s: {text}")

    def close(self) -> None:
        pass


class _Live:
    """For a person: what stays is printed above one line that shows the seconds and what is under way."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._began = boottime()
        self._doing = ""
        self._live = Live(
            console=Console(highlight=False, soft_wrap=True),
            get_renderable=self._line,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def _line(self) -> Text:
        from rich.text import Text

        seconds = f"{boottime() - self._began:5.1f} s  "
        return Text.assemble((seconds, "dim"), (self._doing, "cyan"), no_wrap=True, overflow="ellipsis")

    def say(self, text: str) -> None:
        self._live.console.print(text, markup=False, soft_wrap=True)

    def doing(self, text: str) -> None:
        self._doing = text
        if not self._live.is_started:
            self._live.start()

    def close(self) -> None:
        self._live.stop()
