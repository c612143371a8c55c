"""`awsha lab demo`: a pair hands over, crashes, and loses its power, while a client writes and loses nothing."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from awsha.core.errors import AwshaError
from awsha.host.run import run
from awsha.lab.control import ask
from awsha.lab.enter import entering
from awsha.lab.settings import Lab, Shape
from awsha.lab.start import start, stop
from awsha.lab.sweep import daemon_pids
from awsha.lab.timeline import Bar, bars
from awsha.lab.waiting import wait_until

SHAPE = Shape(latency="aws", advert_int=0.2, fence="stop-instance")
UP_DEADLINE_S = 90.0
EPISODE_DEADLINE_S = 120.0
HEAL_DEADLINE_S = 150.0
STATUS_TIMEOUT_S = 20.0
LOOK_S = 0.05
WIDTH = (20, 60)  # of the waterfall, in characters: what is left beside labels and figures, within these
BESIDE = 48
SETTLE_S = 2.0  # a keepalived that has just started only listens for 1 s, and then counts three adverts


@dataclass(slots=True)
class Episode:
    """One thing that happened to the master, and what came of it."""

    title: str
    short: str
    old: str
    new: str
    outage_s: float
    bars: list[Bar] = field(default_factory=list)
    acknowledged: int = 0
    lost: int | None = None

    def seconds(self, kind: str) -> float | None:
        """How long the bars of one kind lasted, from the first's beginning to the last's end."""
        mine = [bar for bar in self.bars if bar.kind == kind]
        return max(bar.end for bar in mine) - min(bar.begin for bar in mine) if mine else None


class Demo:
    """The story, told on a console."""

    def __init__(self, lab: Lab, console: Console) -> None:
        """Nothing is up yet."""
        self._lab = lab
        self._console = console
        self._episodes: list[Episode] = []

    def ask(self, word: str, deadline_s: float = 30.0, **values: object) -> Any:  # noqa: ANN401 - JSON
        """One request to the daemon."""
        return ask(self._lab, {"do": word, **values}, deadline_s)

    def holder(self) -> str | None:
        """Who holds the group now."""
        holder: str | None = self.ask("status")["groups"]["data"]["holder"]
        return holder

    def run(self) -> int:
        """Tell the whole story; 0 when nothing was lost."""
        began = time.monotonic()
        self.say("Two real keepalived nodes, an ext4 volume, an address, an application, and an EC2 as slow as AWS's.")
        with self._console.status("the pair comes up …"):
            start(self._lab, SHAPE, UP_DEADLINE_S, converged=True)
        master = self.holder()
        self.say(
            f"[green]{master} is master[/green] ({time.monotonic() - began:.1f} s). A client writes numbered records."
        )
        self.ask("client_start")
        wait_until(lambda: self.ask("client_report")["acknowledged"] > 20, EPISODE_DEADLINE_S, LOOK_S)

        self.episode("keepalived is stopped, as for an update", "keepalived stopped", "stop")
        self.show_status()
        self.heal("it comes back as backup")
        self.episode("keepalived is killed (kill -9)", "keepalived killed", "kill")
        self.heal("it comes back as backup")
        self.episode('the instance loses its power; fence = "stop-instance"', "power lost, stop-instance", "power-off")
        with self._console.status('fence = "force-detach" from now on …'):
            self.ask("reconfigure", fence="force-detach")
        self.heal("the instance is started again")
        self.episode('the instance loses its power; fence = "force-detach"', "power lost, force-detach", "power-off")
        return self.finish(began)

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def show_status(self) -> None:
        """What the new master says by itself."""
        node = self._episodes[-1].new
        self.say(f"   [cyan]awsha lab exec {node} -- awsha status[/cyan]")
        where = self.ask("enter", node=node)
        argv, environment = entering(where, ["awsha", "status"])
        columns = {"COLUMNS": str(self._console.width)}
        done = run(argv, STATUS_TIMEOUT_S, check=False, env={**environment, **columns})
        self._console.print(Text(done.stdout.rstrip()), soft_wrap=True)

    def heal(self, meaning: str) -> None:
        """Make the node that failed last good again, and wait until keepalived runs there as backup."""
        node = self._episodes[-1].old
        with self._console.status(f"heal {node}: {meaning} …"):
            self.ask("heal", HEAL_DEADLINE_S, node=node)

            def is_backup() -> bool:
                facts = self.ask("status")["nodes"][node]
                return bool(facts["keepalived"] == "running" and facts["vrrp_role"] == "backup")

            if not wait_until(is_backup, EPISODE_DEADLINE_S, LOOK_S):
                raise AwshaError(f"{node} did not come back as backup", hint=f"logs in {self._lab.run}")
            settled = time.monotonic() + SETTLE_S
            wait_until(lambda: time.monotonic() > settled, SETTLE_S, LOOK_S)
        self.say(f"   [dim]heal {node}: {meaning}[/dim]")

    def episode(self, title: str, short: str, kind: str) -> None:
        """Break the master, wait until the client is served again, show what took how long."""
        old = wait_until(self.holder, EPISODE_DEADLINE_S, LOOK_S)
        if old is None:
            raise AwshaError("nobody is master", hint=f"logs in {self._lab.run}")
        number = len(self._episodes) + 1
        self.say(f"\n[bold]{number}. {title}[/bold] [dim](on {old})[/dim]")
        since = time.monotonic()
        with self._console.status("the client waits …"):
            self.ask("fail", node=old, kind=kind)
            outage = wait_until(lambda: self.outage_since(since), EPISODE_DEADLINE_S, LOOK_S)
        new = self.holder()
        if not outage or new is None or new == old:
            raise AwshaError("nobody took over", hint=f"logs in {self._lab.run}")
        offset = time.time() - time.monotonic()
        happened = self.ask("events", since=since)
        report = self.ask("client_report", 60.0)
        parts = bars(happened, new, outage["end"] - offset)
        seconds, acknowledged, lost = outage["duration"], report["acknowledged"], report["lost"]
        self._episodes.append(Episode(title, short, old, new, seconds, parts, acknowledged, lost))
        self.show(self._episodes[-1])

    def outage_since(self, since: float) -> dict[str, Any] | None:
        """The client's outage that ended after `since`; None while it goes on or has not begun."""
        offset = time.time() - time.monotonic()
        ended = [o for o in self.ask("client_report", 60.0)["outages"] if o["end"] - offset > since]
        return ended[-1] if ended and not any(o["open"] for o in ended) else None

    def show(self, episode: Episode) -> None:
        """The outage as a waterfall."""
        self.say(
            f"   [green]{episode.new} has taken over[/green]: outage [bold]{episode.outage_s:.2f} s[/bold], "
            f"{lost_text(episode.lost)} of {episode.acknowledged}"
            f" [dim](advert_int {SHAPE.advert_int:g} s, EC2 latency {SHAPE.latency})[/dim]"
        )
        begin = min((bar.begin for bar in episode.bars), default=0.0)
        span = max((bar.end for bar in episode.bars), default=1.0) - begin or 1.0
        width = max(WIDTH[0], min(WIDTH[1], self._console.width - BESIDE))
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
        for bar in episode.bars:
            left = min(round((bar.begin - begin) / span * width), width - 1)
            size = min(max(1, round((bar.end - bar.begin) / span * width)), width - left)
            drawn = Text(" " * left + "█" * size, style=bar.colour)
            drawn.pad_right(width - len(drawn))
            table.add_row(" ", bar.label, drawn, f"{bar.end - bar.begin:5.2f} s")
        self._console.print(table)

    def finish(self, began: float) -> int:
        """The whole report; 0 when nothing was lost or violated."""
        self.ask("client_stop")
        report = self.ask("client_report", 60.0)
        violations = self.ask("status")["violations"]
        table = Table(title="outages", title_justify="left", box=box.SIMPLE_HEAD)
        for column in ("what happened", "outage", "VRRP", "fence, detach", "attach", "address", "lost"):
            table.add_column(column, justify="left" if column == "what happened" else "right")
        for episode in self._episodes:
            parts = [episode.seconds(kind) for kind in ("vrrp", "release", "attach", "address")]
            figures = ["-" if s is None else f"{s:.2f} s" for s in parts]
            table.add_row(episode.short, f"{episode.outage_s:.2f} s", *figures, str(episode.lost))
        self._console.print()
        self._console.print(table)
        self.say(
            f"acknowledged {report['acknowledged']}, {lost_text(report['lost'])}, duplicated {report['duplicated']}, "
            f"violations {len(violations)}; advert_int {SHAPE.advert_int:g} s, EC2 latency {SHAPE.latency}"
        )
        stop(self._lab)
        self.say(f"Everything is taken down again. [dim]{time.monotonic() - began:.0f} s in all.[/dim]")
        good = report["lost"] == 0 and report["duplicated"] == 0 and not violations
        return 0 if good else 1


def lost_text(lost: int | None) -> str:
    """How many were lost, in colour."""
    return f"[bold {'green' if lost == 0 else 'red'}]lost {'unknown' if lost is None else lost}[/]"


def demo(lab: Lab, console: Console | None = None) -> int:
    """Run the demo in this lab's prefix; leaves nothing behind, also when it is interrupted. The exit code."""
    console = console or Console()
    if daemon_pids(lab):
        raise AwshaError(f"a lab is up already (prefix {lab.prefix})", hint="awsha lab down, or another AWSHA_LAB")
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        return Demo(lab, console).run()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before.setdefault(number, signal.getsignal(number))
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it behind
        stop(lab)
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
